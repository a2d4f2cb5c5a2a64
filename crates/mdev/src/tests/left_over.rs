//! PASIDs that a guest freed and left programmed, on a slice that moves (R72, R74).

use palisade_dsa::spec::{Command, CommandError, InterruptPermission, SoftwareError, Status};
use palisade_iommu::Fault;
use palisade_vfio::SpaceKey;

use super::migration::{KINDS, Kind, ONE, OTHER, Place, copy};
use super::rig::{PERMISSIONS, SLOT, guest};
use crate::SliceType::SharedQueue;

/// How work by a PASID that is gone ends: without a record, by a fault and the error register.
fn end(place: &Place) -> (Status, Option<SoftwareError>, Vec<Fault>) {
    place.run();
    let faults = place.tenant.unit.take_faults();
    (place.status(0), place.driver.error(), faults)
}

/// A slice whose guest has freed the PASID of its queue, or of the work that is queued, and of an entry of the permission
/// table.
fn left_over(kind: Kind) -> Place {
    let place = Place::new(kind);
    place.process(ONE);
    assert_eq!(place.driver.enable(kind.mode()), CommandError::SUCCESS);
    let permission = InterruptPermission::new()
        .with_pasid_enable(true)
        .with_pasid(ONE);
    place.driver.write(PERMISSIONS + 8, permission.into_bits());
    place.driver.submit(&copy(0, ONE));
    // A number of the guest's own choice is gone with its entry.
    let key = SpaceKey::Pasid(guest(ONE));
    place.tenant.container.unbind(SLOT, key).unwrap();
    place
}

#[test]
fn r19_r74_work_by_a_pasid_that_is_gone_fails_elsewhere_as_it_did_where_it_was_freed() {
    for kind in [KINDS[0], KINDS[1], KINDS[2]] {
        let where_freed = end(&left_over(kind));
        let (status, error, faults) = &where_freed;
        assert_eq!((*status, error.unwrap().pasid), (Status::NONE, ONE));
        assert!(!faults.is_empty());
        let place = left_over(kind);
        let bytes = place.save();
        let other = place.other(kind);
        // The number is a neighbour's too, as his guest's and as the host's own.
        let bob = other.host.tenant(10);
        let slice = other.host.slice(200, SharedQueue);
        let _bobs = slice.assign(&bob.container, SLOT, bob.guest.clone());
        let process = bob.process(ONE);
        process.map(0x8_0000, 0x8_0000, 1);
        let before = other.tenant.container.set().outstanding();
        other.migration().restore(&bytes).unwrap();
        other.migration().start().unwrap();
        assert_ne!(other.forwarded(), [], "each of them the tenant's");
        assert_eq!(end(&other), where_freed, "{kind:?}");
        assert!(other.tenant.container.translate(SLOT, guest(ONE)).is_err());
        // With the queue goes what stood for it.
        assert_eq!(
            other.driver.command(Command::RESET_DEVICE, 0),
            CommandError::SUCCESS
        );
        let after = other.tenant.container.set().outstanding();
        assert_eq!(after, before);
    }
}

#[test]
fn r74_the_guest_may_use_the_number_again_meanwhile() {
    let kind = KINDS[0];
    let place = left_over(kind);
    let bytes = place.save();
    let other = place.other(kind);
    other.migration().restore(&bytes).unwrap();
    let root = place.process(OTHER);
    other.tenant.bind(SLOT, ONE, root);
    other.migration().start().unwrap();
    // The queue has the PASID that was freed until it is enabled anew.
    let (status, error, _) = end(&other);
    assert_eq!((status, error.unwrap().pasid), (Status::NONE, ONE));
    other.driver.disable();
    assert_eq!(other.driver.enable(kind.mode()), CommandError::SUCCESS);
    other.driver.submit(&copy(0, ONE));
    other.run();
    assert_eq!(other.status(0), Status::SUCCESS);
}
