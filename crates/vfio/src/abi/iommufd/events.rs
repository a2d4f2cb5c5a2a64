//! Faults, as the unit of a guest may take them over.

use std::sync::Mutex;

use palisade_iommu::{Ats, Fault};
use palisade_units::{Access, Bdf};
use zerocopy::IntoBytes;

use super::Channel;
use super::layout::{VeventHeader, VeventVtd};
use crate::abi::vmm::locked;

/// Sequence numbers go round at 2^31.
const SEQUENCE_MASK: u32 = u32::MAX >> 1;

/// A queue of a virtual unit's events.
pub(super) struct EventQueue {
    channel: Box<dyn Channel>,
    sequence: Mutex<u32>,
}

impl EventQueue {
    pub(super) fn new(channel: Box<dyn Channel>) -> Self {
        Self {
            channel,
            sequence: Mutex::default(),
        }
    }

    /// Whether the client has not closed its file.
    pub(super) fn is_open(&self) -> bool {
        self.channel.is_open()
    }

    /// Lets the client read a fault of a device that has this name at the virtual unit. One that finds no room is seen by
    /// the number that is missing.
    pub(super) fn put(&self, fault: &Fault, name: Bdf) {
        let mut sequence = locked(&self.sequence);
        let header = VeventHeader {
            flags: 0.into(),
            sequence: (*sequence).into(),
        };
        *sequence = sequence.wrapping_add(1) & SEQUENCE_MASK;
        let event = [header.as_bytes(), record(fault, name).as_bytes()].concat();
        if self.channel.put(&event).is_err() {
            tracing::debug!(%name, "an event is lost");
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
