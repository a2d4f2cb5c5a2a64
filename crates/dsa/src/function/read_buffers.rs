//! Read buffers: what a driver gives to its groups of what the device keeps for reads in flight (DSA §9.2, GRPCAP,
//! GENCFG, GRPCFG).
//!
//! They are checked as the device checks them and read back, and that is all: an engine here copies on a processor, which
//! has no such buffers, and what tenants
//! share it by are turns, which no tenant's configuration changes (R67).

use super::saved::FunctionState;
use super::shape::READ_BUFFERS;
use crate::spec::{CommandError, GeneralConfig, GroupFlags};

/// The word of a GRPCFG entry.
const FLAGS: usize = 10;

pub(super) const fn flags(group: &[u32; 16]) -> GroupFlags {
    GroupFlags::from_bits(group[FLAGS])
}

/// What Enable Device looks at.
pub(super) fn check_read_buffers(
    general: GeneralConfig,
    groups: &[[u32; 16]],
) -> Result<(), CommandError> {
    let reserved = groups
        .iter()
        .map(|group| u32::from(flags(group).read_buffers_reserved()));
    let over = |count: u8| count > READ_BUFFERS;
    let is_wrong = |group: &[u32; 16]| {
        let flags = flags(group);
        let allowed = flags.read_buffers_allowed();
        allowed < flags.read_buffers_reserved() || over(allowed)
    };
    if reserved.sum::<u32>() > READ_BUFFERS.into()
        || over(general.read_buffer_limit())
        || groups.iter().any(is_wrong)
    {
        return Err(CommandError::GROUP_READ_BUFFERS);
    }
    Ok(())
}

impl FunctionState {
    /// Takes out what was written there before there were read buffers: without effect, and with no bounds.
    pub(super) fn clear_read_buffers(&mut self) {
        let general = GeneralConfig::from_bits(self.registers.general_config);
        self.registers.general_config = general.with_read_buffer_limit(0).into_bits();
        for group in &mut self.groups {
            let old = flags(group);
            group[FLAGS] = GroupFlags::new()
                .with_traffic_class_a(old.traffic_class_a())
                .with_traffic_class_b(old.traffic_class_b())
                .into_bits();
            group[FLAGS + 1] = 0;
        }
    }
}
