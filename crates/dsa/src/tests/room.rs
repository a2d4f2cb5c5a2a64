//! Room in a queue, as a driver counts that gives the next descriptor when one has completed.

use std::sync::{Arc, Mutex, OnceLock};

use palisade_iommu::{Ats, Privilege};
use palisade_units::GuestPasid;

use super::RULES;
use crate::lock::locked;
use crate::spec::{Descriptor, Flags, SoftwareError};
use crate::testing::{Host, run, tag};
use crate::{Client, Identity, Lane, Session, SubmitError, Switch};

const RECORD: u64 = 0x8_0000;
const SIZE: u16 = 2;

/// Submits one for each that has completed.
#[derive(Default)]
struct Prompt {
    lane: OnceLock<Arc<Lane>>,
    refused: Mutex<Vec<SubmitError>>,
}

impl Client for Prompt {
    fn software_error(&self, _error: SoftwareError) {}

    fn interrupt(&self, _handle: u16) {
        let lane = self.lane.get().unwrap();
        let given = lane.submit(Descriptor::no_op(), None, SIZE);
        locked(&self.refused).extend(given.err());
    }

    fn may_interrupt(&self, _handle: u16, _session: &Session) -> bool {
        true
    }

    fn page_requests(&self) -> Switch {
        Switch::On
    }

    fn ats(&self) -> Ats {
        Ats::Off
    }
}

#[test]
fn r69_a_descriptor_that_has_completed_leaves_its_place_to_another_at_once() {
    let host = Host::new();
    host.process(5).map(RECORD, RECORD, 1);
    let lane = Arc::new(host.accelerator.lane(0).unwrap());
    let client = Arc::new(Prompt::default());
    assert!(client.lane.set(Arc::clone(&lane)).is_ok());
    let identity = Identity {
        tag: Some(tag(5)),
        hold: None,
    };
    let guest = GuestPasid::new(5).ok();
    let session = Session::new(
        identity,
        Privilege::User,
        guest,
        RULES,
        Arc::clone(&client) as _,
    );
    lane.open(Some(Arc::new(session)));
    // An engine takes both at a time, and is not done with its turn when the first completes.
    let first = Descriptor::no_op().with_record(RECORD);
    let first = first.with_flags(Flags::REQUEST_INTERRUPT);
    for descriptor in [first, Descriptor::no_op()] {
        lane.submit(descriptor, None, SIZE).unwrap();
    }
    let one_more = lane.submit(Descriptor::no_op(), None, SIZE);
    assert_eq!(one_more, Err(SubmitError::Full));
    run(&mut host.engine());
    assert_eq!(*locked(&client.refused), []);
    assert_eq!(lane.pending(), 0);
}
