//! Faults, as the unit of a guest may take them over.

use std::sync::Mutex;

use palisade_iommu::{Ats, Fault};
use palisade_units::{Access, Bdf};
use zerocopy::IntoBytes;

use super::Channel;
use super::layout::{VEVENTQ_LOST_EVENTS, VeventHeader, VeventVtd};
use crate::abi::vmm::locked;

/// Sequence numbers go round at 2^31.
const SEQUENCE_MASK: u32 = u32::MAX >> 1;

/// A queue of a virtual unit's events.
pub(super) struct EventQueue {
    channel: Box<dyn Channel>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// The number of the next event.
    next: u32,
    /// The last one that found no room, if the client was not told since that some did.
    lost: Option<u32>,
}

impl EventQueue {
    pub(super) fn new(channel: Box<dyn Channel>) -> Self {
        Self {
            channel,
            told: Mutex::default(),
        }
    }

    /// Whether the client has not closed its file.
    pub(super) fn is_open(&self) -> bool {
        self.channel.is_open()
    }

    /// Lets the client read a fault of a device that has this name at the virtual unit. Of those that find no room it is
    /// told before the next one that does.
    pub(super) fn put(&self, fault: &Fault, name: Bdf) {
        let mut told = locked(&self.told);
        let sequence = told.next;
        told.next = sequence.wrapping_add(1) & SEQUENCE_MASK;
        let lost = told.lost.map_or(Ok(()), |last| {
            let header = VeventHeader {
                flags: VEVENTQ_LOST_EVENTS.into(),
                sequence: last.into(),
            };
            self.channel.put(header.as_bytes())
        });
        if lost.is_ok() {
            told.lost = None;
        }
        let header = VeventHeader {
            flags: 0.into(),
            sequence: sequence.into(),
        };
        let event = [header.as_bytes(), record(fault, name).as_bytes()].concat();
        if lost.and_then(|()| self.channel.put(&event)).is_err() {
            tracing::debug!(%name, "an event is lost");
            told.lost = Some(sequence);
        }
    }
}

/// VT-d §11.4.7.6. Privilege and execution are attributes of requests with a PASID alone.
fn record(fault: &Fault, name: Bdf) -> VeventVtd {
    let bit = |is_set: bool, at: u32| u64::from(is_set) << at;
    let has = |access| fault.access.contains(access);
    let mut high = u64::from(name.requester_id())
        | u64::from(fault.reason.code()) << 32
        | bit(fault.ats == Ats::On, 60)
        | bit(!has(Access::WRITE), 62)
        | bit(true, 63);
    if let Some(pasid) = fault.pasid {
        high |= bit(has(Access::PRIVILEGED), 29)
            | bit(has(Access::EXECUTE), 30)
            | bit(true, 31)
            | u64::from(pasid.get()) << 40;
    }
    VeventVtd {
        low: fault.at.page_base().get().into(),
        high: high.into(),
    }
}
