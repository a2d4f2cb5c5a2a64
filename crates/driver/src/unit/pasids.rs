//! Where the guest's PASIDs come from: the host, by virtual command, or the guest itself.

use crate::{
    error::DriverError,
    link::Link,
    wait::{LIMIT, Patience},
};
use palisade_pci::Bar;
use palisade_units::{GuestPasid, PASID_COUNT};
use palisade_vtd::spec::{
    capability::{Capabilities, ExtendedCapabilities},
    virtual_command::{Layout, VirtualCommand, VirtualResponse},
};
use std::collections::BTreeSet;

/// VCCAP: PASIDs can be allocated. Bit 0 in the revisions that Linux knows (VT-d §11.4.16.4).
const PASID_ALLOCATION: u64 = 1;

/// Who gives out PASIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocatorKind {
    /// The host, by virtual command: the numbers are the host's.
    Host(Layout),
    /// The guest: the numbers are its own, and mean nothing to the host before they are bound.
    Guest,
}

impl AllocatorKind {
    /// The allocator that a guest has to use (VT-d §11.4.16): the host's only in caching mode, in scalable mode, with
    /// virtual commands, and with the allocation of PASIDs among them.
    ///
    /// `capability` reads VCCAP as a layout has it, and is asked only where there are virtual commands.
    ///
    /// # Errors
    /// Those of `capability`.
    pub fn choose<E>(
        cap: Capabilities,
        ecap: ExtendedCapabilities,
        mut capability: impl FnMut(Layout) -> Result<u64, E>,
    ) -> Result<Self, E> {
        if cap.caching_mode() && ecap.scalable_mode() && ecap.virtual_commands() {
            for layout in [Layout::Current, Layout::Older] {
                if capability(layout)? & PASID_ALLOCATION != 0 {
                    return Ok(Self::Host(layout));
                }
            }
        }
        Ok(Self::Guest)
    }
}

/// The allocator of the guest's PASIDs.
#[derive(Debug)]
pub(super) struct Pasids {
    kind: AllocatorKind,
    /// The PASIDs that are out.
    taken: BTreeSet<GuestPasid>,
}

impl Pasids {
    pub(super) fn new(kind: AllocatorKind) -> Self {
        Self {
            kind,
            taken: BTreeSet::new(),
        }
    }

    pub(super) fn kind(&self) -> AllocatorKind {
        self.kind
    }

    /// Takes a PASID.
    pub(super) fn allocate(&mut self, link: &mut Link) -> Result<GuestPasid, DriverError> {
        let pasid = match self.kind {
            AllocatorKind::Guest => self.lowest_free()?,
            AllocatorKind::Host(layout) => {
                let command = VirtualCommand::AllocatePasid;
                match run(link, layout, command, |word| layout.decode_allocation(word))? {
                    VirtualResponse::Pasid(pasid) => GuestPasid::new(pasid.get())
                        .map_err(|error| DriverError::NoPasid(error.to_string()))?,
                    VirtualResponse::NoPasid => {
                        return Err(DriverError::NoPasid(
                            "none is left for this tenant".to_owned(),
                        ));
                    }
                    other => return Err(DriverError::NoPasid(format!("{other:?}"))),
                }
            }
        };
        self.taken.insert(pasid);
        Ok(pasid)
    }

    /// Gives a PASID back.
    pub(super) fn free(&mut self, link: &mut Link, pasid: GuestPasid) -> Result<(), DriverError> {
        self.taken.remove(&pasid);
        if let AllocatorKind::Host(layout) = self.kind {
            let command = VirtualCommand::FreePasid(pasid);
            match run(link, layout, command, |word| layout.decode_free(word))? {
                VirtualResponse::Done => {}
                other => return Err(DriverError::NoPasid(format!("freeing {pasid}: {other:?}"))),
            }
        }
        Ok(())
    }

    fn lowest_free(&self) -> Result<GuestPasid, DriverError> {
        (1..PASID_COUNT)
            .filter_map(|raw| GuestPasid::new(raw).ok())
            .find(|pasid| !self.taken.contains(pasid))
            .ok_or_else(|| DriverError::NoPasid("all are taken by this guest".to_owned()))
    }
}

/// Writes a command and waits for its response.
fn run(
    link: &mut Link,
    layout: Layout,
    command: VirtualCommand,
    decode: impl Fn(u64) -> VirtualResponse,
) -> Result<VirtualResponse, DriverError> {
    link.write_u64(
        Bar::Bar0,
        layout.command_offset(),
        layout.encode_command(command),
    )?;
    let mut patience = Patience::new(LIMIT);
    loop {
        match decode(link.read_u64(Bar::Bar0, layout.response_offset())?) {
            VirtualResponse::InProgress => {
                patience.pause(|| format!("the response to {command:?}"))?;
            }
            response => return Ok(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn choose(cap: Capabilities, ecap: ExtendedCapabilities, vccap: [u64; 2]) -> AllocatorKind {
        let read = |layout| -> Result<u64, Infallible> {
            Ok(match layout {
                Layout::Current => vccap[0],
                Layout::Older => vccap[1],
            })
        };
        let Ok(kind) = AllocatorKind::choose(cap, ecap, read);
        kind
    }

    #[test]
    fn r58_the_allocator_is_the_hosts_only_under_cm_smts_vcs_and_pas() {
        for bits in 0..16_u8 {
            let has = |bit: u8| bits & (1 << bit) != 0;
            let cap = Capabilities::new().with_caching_mode(has(0));
            let ecap = ExtendedCapabilities::new()
                .with_scalable_mode(has(1))
                .with_virtual_commands(has(2));
            let kind = choose(cap, ecap, [u64::from(has(3)), 0]);
            let expected = match bits {
                0b1111 => AllocatorKind::Host(Layout::Current),
                _ => AllocatorKind::Guest,
            };
            assert_eq!(kind, expected, "CM, SMTS, VCS, PAS = {bits:04b}");
        }
    }

    #[test]
    fn r58_the_older_layout_is_found_by_its_own_register() {
        let cap = Capabilities::new().with_caching_mode(true);
        let ecap = ExtendedCapabilities::new()
            .with_scalable_mode(true)
            .with_virtual_commands(true);
        assert_eq!(
            choose(cap, ecap, [0, 1]),
            AllocatorKind::Host(Layout::Older)
        );
        assert_eq!(choose(cap, ecap, [0, 0]), AllocatorKind::Guest);
    }

    #[test]
    fn r58_without_the_hosts_allocator_the_guest_numbers_its_own() {
        let mut pasids = Pasids::new(AllocatorKind::Guest);
        for expected in 1..4 {
            let next = pasids.lowest_free().unwrap();
            assert_eq!(next.get(), expected);
            pasids.taken.insert(next);
        }
        pasids.taken.remove(&GuestPasid::new(2).unwrap());
        assert_eq!(pasids.lowest_free().unwrap().get(), 2);
    }
}
