//! The core by itself: lanes, engines, faults, drains.

mod at_once;
mod batches;
mod copies;
mod crc;
mod delta;
mod dif;
mod drain;
mod fairness;
mod faults;
mod hostile;
pub(crate) mod model;
pub(crate) mod operation;
mod operations;
mod refusals;
mod resumption;
mod room;
mod scattered;

use std::sync::{Arc, Mutex};

use palisade_iommu::{Ats, Privilege};
use palisade_units::GuestPasid;
use zerocopy::FromBytes;

use crate::lock::locked;
use crate::spec::{CompletionRecord, Descriptor, Flags, SoftwareError};
use crate::testing::{Host, tag};
use crate::{Client, Identity, Lane, Rules, Session, Switch};

#[derive(Default)]
struct Driver {
    errors: Mutex<Vec<SoftwareError>>,
    interrupts: Mutex<Vec<u16>>,
}

impl Client for Driver {
    fn software_error(&self, error: SoftwareError) {
        locked(&self.errors).push(error);
    }

    fn interrupt(&self, handle: u16) {
        locked(&self.interrupts).push(handle);
    }

    fn may_interrupt(&self, handle: u16, _session: &Session) -> bool {
        handle == 1
    }

    fn page_requests(&self) -> Switch {
        Switch::On
    }

    fn ats(&self) -> Ats {
        Ats::Off
    }
}

const RULES: Rules = Rules {
    number: 3,
    capacity: 64,
    block_on_fault: Switch::On,
    ats: Switch::On,
    privileged: Switch::Off,
    max_transfer_bytes: 1 << 31,
    max_batch: 32,
};

/// A dedicated queue, enabled for a tag.
struct Dedicated {
    lane: Lane,
    driver: Arc<Driver>,
}

impl Dedicated {
    fn open(host: &Host, queue: u8, number: u32) -> Self {
        let driver = Arc::new(Driver::default());
        let lane = host.accelerator.lane(queue).unwrap();
        lane.open(Some(session(&driver, number)));
        Self { lane, driver }
    }

    fn submit(&self, descriptor: Descriptor) {
        self.lane.submit(descriptor, None, RULES.capacity).unwrap();
    }

    fn errors(&self) -> Vec<SoftwareError> {
        locked(&self.driver.errors).clone()
    }
}

fn session(driver: &Arc<Driver>, number: u32) -> Arc<Session> {
    let identity = Identity {
        tag: Some(tag(number)),
        hold: None,
    };
    let name = GuestPasid::new(number).ok();
    let client = Arc::clone(driver) as Arc<dyn Client>;
    Arc::new(Session::new(identity, Privilege::User, name, RULES, client))
}

/// The record at a host offset, cleared for the next.
fn record(host: &Host, at: u64) -> CompletionRecord {
    let bytes = host.bytes(at, 32);
    host.write(at, &[0; 32]);
    CompletionRecord::read_from_bytes(&bytes).unwrap()
}

const BLOCK: Flags = Flags::BLOCK_ON_FAULT;
