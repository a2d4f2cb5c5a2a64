//! The unit's configuration space, and how it hides.
//!
//! Linux maps the registers early, and finds the BAR in conflict with them when it enumerates PCI later. As
//! the functions of chipsets that hold such registers do, the unit shows itself to firmware only: from the
//! first access to a register on, nothing answers at its place, until it is reset.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use palisade_pci::capability::root_complex_endpoint;
use palisade_pci::{Bar, BarSpec, ConfigEffect, ConfigSpace, Identity};

use crate::spec::register::BAR_LEN_BYTES;

/// Base system peripheral, IOMMU (PCI Code and ID Assignment, 1.9).
const CLASS_IOMMU: u32 = 0x08_0600;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x09a2,
    revision: 0,
    class: CLASS_IOMMU,
    subsystem_vendor: 0x8086,
    subsystem: 0,
};

/// What firmware and guest see of the unit at its place on the bus.
pub(crate) struct Presence {
    hidden: AtomicBool,
    state: Mutex<State>,
}

struct State {
    space: ConfigSpace,
    bar0_base: Option<u64>,
}

/// What of the configuration space is kept: the unit has nothing beyond it.
pub(crate) const CONFIG_BYTES: usize = 256;

/// What firmware and guest have made of the unit's place on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PresenceState {
    pub(crate) hidden: bool,
    pub(crate) bar0_base: Option<u64>,
    pub(crate) header: [u8; CONFIG_BYTES],
}

fn space() -> ConfigSpace {
    let built = ConfigSpace::builder(IDENTITY)
        .bar(Bar::Bar0, BarSpec::memory32(BAR_LEN_BYTES))
        .capability(root_complex_endpoint())
        .build();
    match built {
        Ok(space) => space,
        // Nothing of it depends on anything but the constants above.
        Err(error) => unreachable!("the unit's configuration space: {error}"),
    }
}

impl Presence {
    pub(crate) fn new() -> Self {
        Self {
            hidden: AtomicBool::new(false),
            state: Mutex::new(State {
                space: space(),
                bar0_base: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What outlives the unit.
    pub(crate) fn save(&self) -> PresenceState {
        let state = self.state();
        let mut header = [0; CONFIG_BYTES];
        state.space.read(0, &mut header);
        PresenceState {
            hidden: self.hidden.load(Ordering::Acquire),
            bar0_base: state.bar0_base,
            header,
        }
    }

    /// The presence as it was saved.
    ///
    /// # Errors
    /// What is wrong, where no unit can have been so.
    pub(crate) fn restore(&self, saved: &PresenceState) -> Result<(), &'static str> {
        let mut restored = space();
        for (offset, dword) in (0..).step_by(4).zip(saved.header.chunks_exact(4)) {
            if restored.write(offset, dword) != ConfigEffect::None {
                return Err("the configuration space is in the middle of a reset");
            }
        }
        let mut header = [0; CONFIG_BYTES];
        restored.read(0, &mut header);
        if header != saved.header {
            return Err("the configuration space is not that of a unit");
        }
        let mut state = self.state();
        state.space = restored;
        state.bar0_base = saved.bar0_base;
        self.hidden.store(saved.hidden, Ordering::Release);
        Ok(())
    }

    /// A register was accessed.
    pub(crate) fn hide(&self) {
        if !self.hidden.load(Ordering::Relaxed) {
            self.hidden.store(true, Ordering::Release);
        }
    }

    /// After a reset the unit is there again, where nobody has placed its BAR yet. What was seen of
    /// the BAR is kept for who asks.
    pub(crate) fn reset(&self) {
        self.state().space.reset();
        self.hidden.store(false, Ordering::Release);
    }

    pub(crate) fn bar0_base(&self) -> Option<u64> {
        self.state().bar0_base
    }

    pub(crate) fn read(&self, offset: u16, into: &mut [u8]) {
        if self.hidden.load(Ordering::Acquire) {
            into.fill(0xff);
        } else {
            self.state().space.read(offset, into);
        }
    }

    pub(crate) fn write(&self, offset: u16, from: &[u8]) -> ConfigEffect {
        if self.hidden.load(Ordering::Acquire) {
            return ConfigEffect::None;
        }
        let mut state = self.state();
        let effect = state.space.write(offset, from);
        let address = state.space.bar_address(Bar::Bar0);
        // All ones is no place but the question how large the BAR is.
        let sizing = u64::from(u32::MAX) & !(BAR_LEN_BYTES - 1);
        if let Some(base) = address.filter(|base| *base != 0 && *base != sizing)
            && state.space.memory_enabled()
        {
            state.bar0_base = Some(base);
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: u16 = 0x04;
    const BAR0: u16 = 0x10;

    fn dword(presence: &Presence, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        presence.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn write(presence: &Presence, offset: u16, value: u32) {
        let _ = presence.write(offset, &value.to_le_bytes());
    }

    #[test]
    fn firmware_sees_an_iommu_with_16_kib_of_registers() {
        let presence = Presence::new();
        assert_eq!(dword(&presence, 0), 0x09a2_8086);
        assert_eq!(dword(&presence, 8) >> 8, CLASS_IOMMU);
        write(&presence, BAR0, u32::MAX);
        assert_eq!(dword(&presence, BAR0), 0xffff_c000);
    }

    #[test]
    fn the_place_of_the_bar_is_known_once_it_is_decoded() {
        let presence = Presence::new();
        write(&presence, BAR0, u32::MAX);
        write(&presence, BAR0, 0xfebf_0000);
        assert_eq!(presence.bar0_base(), None);
        let _ = presence.write(COMMAND, &[0x06, 0]);
        assert_eq!(presence.bar0_base(), Some(0xfebf_0000));
        // Sized again with decoding on: that is no new place.
        write(&presence, BAR0, u32::MAX);
        assert_eq!(presence.bar0_base(), Some(0xfebf_0000));
    }

    #[test]
    fn nothing_answers_from_the_first_access_to_a_register_until_reset() {
        let presence = Presence::new();
        write(&presence, BAR0, 0xfebf_0000);
        let _ = presence.write(COMMAND, &[0x06, 0]);
        presence.hide();
        assert_eq!(dword(&presence, 0), u32::MAX);
        write(&presence, BAR0, 0x8000_0000);
        presence.reset();
        assert_eq!(dword(&presence, 0), 0x09a2_8086);
        assert_eq!(dword(&presence, BAR0), 0);
        assert_eq!(presence.bar0_base(), Some(0xfebf_0000));
    }
}
