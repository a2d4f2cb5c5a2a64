use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};

use palisade_pci::{AccessError, Bar};
use palisade_units::GuestPasid;
use zerocopy::FromBytes;

use super::{DsaFunction, EntryPoint, PasidPolicy};
use crate::lock::locked;
use crate::session::Rules;
use crate::spec::{
    DESCRIPTOR_BYTES, Descriptor, ErrorCode, PORTAL_BYTES, PORTALS_PER_QUEUE, Portal, SoftwareError,
};
use crate::{Client, Lane, PasidUse, Session, SubmitError};

/// How many descriptors have room in a portal, which is how many can be put together at a time.
pub(super) const SLOTS: usize = 64;
const _: () = assert!(SLOTS * DESCRIPTOR_BYTES == 4096);

/// A queue's way in.
#[derive(Default)]
pub(super) struct Port {
    pub(super) open: Option<Open>,
    /// Descriptors are held until the function goes on.
    pub(super) stopped: bool,
    /// What was written of descriptors in pieces, by portal. None until the first piece.
    assembly: [Option<Box<[Slot; SLOTS]>>; 2],
}

/// An enabled queue.
pub(super) enum Open {
    /// With a session of its own, by the driver's name for its PASID.
    Dedicated { size: u16, name: Option<GuestPasid> },
    /// Each descriptor has its own session.
    Shared(Shared),
}

/// An enabled shared queue.
pub(super) struct Shared {
    pub(super) rules: Rules,
    pub(super) threshold: u16,
    /// Who uses it. Bounded: those that have nothing to do are forgotten in time.
    pub(super) uses: HashMap<GuestPasid, Arc<PasidUse>>,
}

impl Port {
    pub(super) fn open(&mut self, open: Open) {
        self.open = Some(open);
        self.clear_pieces();
    }

    /// The descriptors of which a part is there.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> {
        let portals = [Portal::Unlimited, Portal::Limited].into_iter();
        let halves = portals.zip(&self.assembly);
        halves.flat_map(|(portal, slots)| {
            let slots = slots.iter().flat_map(|slots| slots.iter());
            let begun = (0..).zip(slots).filter(|(_, slot)| slot.present != 0);
            begun.map(move |(number, slot)| Piece {
                portal,
                slot: number,
                present: slot.present,
                bytes: std::array::from_fn(|at| match slot.present >> at & 1 {
                    0 => 0,
                    _ => slot.bytes[at],
                }),
            })
        })
    }

    pub(super) fn clear_pieces(&mut self) {
        self.assembly = [None, None];
    }

    /// Puts a part of a descriptor in its place.
    pub(super) fn put_piece(&mut self, piece: &Piece) {
        let slots = self.assembly[usize::from(piece.portal == Portal::Limited)]
            .get_or_insert_with(|| Box::new([Slot::EMPTY; SLOTS]));
        if let Some(slot) = slots.get_mut(usize::from(piece.slot)) {
            *slot = Slot {
                bytes: piece.bytes,
                present: piece.present,
            };
        }
    }
}

/// A part of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) portal: Portal,
    /// Its place in the portal, below [`SLOTS`].
    pub(super) slot: u8,
    /// A bit for each byte that is there: some, not all.
    pub(super) present: u64,
    /// Zero where it is not there.
    pub(super) bytes: [u8; DESCRIPTOR_BYTES],
}

/// A descriptor that comes in pieces.
#[derive(Clone, Copy)]
struct Slot {
    bytes: [u8; DESCRIPTOR_BYTES],
    /// A bit for each byte that is there.
    present: u64,
}

impl Slot {
    const EMPTY: Self = Self {
        bytes: [0; DESCRIPTOR_BYTES],
        present: 0,
    };

    /// Puts a piece in, and takes the descriptor out with the last one. A piece where there is one already begins a
    /// new descriptor: whoever wrote the old one gave up.
    fn put(&mut self, offset: usize, piece: &[u8]) -> Option<Descriptor> {
        let place = self.bytes.get_mut(offset..offset + piece.len())?;
        let bits = (u64::MAX >> (DESCRIPTOR_BYTES - piece.len())) << offset;
        if self.present & bits != 0 {
            self.present = 0;
        }
        place.copy_from_slice(piece);
        self.present |= bits;
        if self.present != u64::MAX {
            return None;
        }
        self.present = 0;
        Descriptor::read_from_bytes(&self.bytes).ok()
    }
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) queue: u8,
    pub(super) portal: Portal,
}

impl<P: PasidPolicy> DsaFunction<P> {
    /// A write to BAR 2: a piece of a descriptor, a descriptor, or several.
    pub(super) fn portal_write(&self, offset: u64, from: &[u8]) -> Result<(), AccessError> {
        let page = offset / PORTAL_BYTES;
        let within = usize::try_from(offset % PORTAL_BYTES).unwrap_or(0);
        let queue = u8::try_from(page / PORTALS_PER_QUEUE).unwrap_or(u8::MAX);
        let portal = match page % PORTALS_PER_QUEUE {
            0 => Portal::Unlimited,
            1 => Portal::Limited,
            // Those of the interrupt message store, which does not exist.
            _ => return self.stray(queue),
        };
        let target = Target { queue, portal };
        let in_page = within + from.len() <= SLOTS * DESCRIPTOR_BYTES;
        if in_page && (within % DESCRIPTOR_BYTES, from.len() % DESCRIPTOR_BYTES) == (0, 0) {
            let mut descriptors = from.chunks_exact(DESCRIPTOR_BYTES);
            return descriptors.try_for_each(|bytes| match Descriptor::read_from_bytes(bytes) {
                Ok(descriptor) => self.submit(target, &descriptor),
                Err(_) => Ok(()),
            });
        }
        let offset_in_slot = within % DESCRIPTOR_BYTES;
        if from.is_empty() || offset_in_slot + from.len() > DESCRIPTOR_BYTES {
            return self.stray(queue);
        }
        match self.assemble(target, within / DESCRIPTOR_BYTES, offset_in_slot, from) {
            Some(descriptor) => self.submit(target, &descriptor),
            None => Ok(()),
        }
    }

    fn assemble(&self, to: Target, slot: usize, offset: usize, piece: &[u8]) -> Option<Descriptor> {
        let mut port = locked(self.ports.get(usize::from(to.queue))?);
        let slots = port.assembly[usize::from(to.portal == Portal::Limited)]
            .get_or_insert_with(|| Box::new([Slot::EMPTY; SLOTS]));
        slots.get_mut(slot)?.put(offset, piece)
    }

    /// Writes to portals are posted: what is wrong with them, the error register tells.
    fn stray(&self, queue: u8) -> Result<(), AccessError> {
        self.events
            .software_error(SoftwareError::at_portal(ErrorCode::PORTAL_ACCESS, queue));
        Ok(())
    }

    pub(super) fn submit(
        &self,
        target: Target,
        descriptor: &Descriptor,
    ) -> Result<(), AccessError> {
        let index = usize::from(target.queue);
        let (Some(port), Some(lane)) = (self.ports.get(index), self.lanes.get(index)) else {
            return self.stray(target.queue);
        };
        let port = locked(port);
        if port.stopped {
            drop(port);
            return self.hold_descriptor(target, descriptor);
        }
        self.submit_through(port, lane, target, descriptor)
    }

    /// Submits what was held. A shared queue had room for it when it came; where it has none now, as in a state that was
    /// made up, the error register says so, since the writer was told that it was taken.
    pub(super) fn submit_held(&self, target: Target, descriptor: &Descriptor) {
        let index = usize::from(target.queue);
        let (Some(port), Some(lane)) = (self.ports.get(index), self.lanes.get(index)) else {
            return;
        };
        if self
            .submit_through(locked(port), lane, target, descriptor)
            .is_err()
        {
            self.refuse(target, descriptor, ErrorCode::QUEUE_FULL);
        }
    }

    fn submit_through(
        &self,
        mut port: MutexGuard<'_, Port>,
        lane: &Lane,
        target: Target,
        descriptor: &Descriptor,
    ) -> Result<(), AccessError> {
        let submitted = match &mut port.open {
            None => Err(SubmitError::Disabled),
            Some(Open::Dedicated { size, .. }) => lane.submit(*descriptor, None, *size),
            Some(Open::Shared(shared)) => {
                return self.submit_shared(target, descriptor, shared, lane);
            }
        };
        drop(port);
        let code = match submitted {
            Ok(()) => return Ok(()),
            Err(SubmitError::Disabled) => ErrorCode::QUEUE_DISABLED,
            Err(SubmitError::Full) => ErrorCode::QUEUE_FULL,
        };
        self.refuse(target, descriptor, code);
        Ok(())
    }

    /// To a shared queue a descriptor brings its own PASID, and the writer learns whether it was taken.
    fn submit_shared(
        &self,
        target: Target,
        descriptor: &Descriptor,
        shared: &mut Shared,
        lane: &Lane,
    ) -> Result<(), AccessError> {
        let identity = GuestPasid::new(descriptor.pasid())
            .ok()
            .and_then(|name| Some((name, self.resolve(Some(name), EntryPoint::Descriptor).ok()?)));
        let Some((name, identity)) = identity else {
            self.refuse(target, descriptor, ErrorCode::PASID_REFUSED);
            return Ok(());
        };
        let privilege = shared.rules.privilege_of(descriptor);
        if shared.uses.len() > usize::from(shared.rules.capacity) {
            shared.uses.retain(|_, used| used.pending() != 0);
        }
        let used = Arc::clone(shared.uses.entry(name).or_default());
        let client = Arc::clone(&self.events) as Arc<dyn Client>;
        let session = Session::new(identity, privilege, Some(name), shared.rules, client);
        let session = Arc::new(session.counted_in(used));
        let limit = match target.portal {
            Portal::Limited => shared.threshold,
            Portal::Unlimited => shared.rules.capacity,
        };
        match lane.submit(*descriptor, Some(session), limit) {
            Ok(()) => Ok(()),
            Err(SubmitError::Full) => Err(AccessError::Retry { bar: Bar::Bar2 }),
            Err(SubmitError::Disabled) => {
                self.refuse(target, descriptor, ErrorCode::QUEUE_DISABLED);
                Ok(())
            }
        }
    }

    fn refuse(&self, target: Target, descriptor: &Descriptor, code: ErrorCode) {
        self.events.software_error(SoftwareError {
            operation: Some(descriptor.opcode()),
            pasid: descriptor.pasid(),
            ..SoftwareError::at_portal(code, target.queue)
        });
    }
}
