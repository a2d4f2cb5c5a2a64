//! R36: a bind applies to every function of the container or to none.

use palisade_ioasid::{EventKind, Quota, Sequence};
use palisade_iommu::{
    FaultProcessing, FaultReason, FirstStage, FunctionHandle, Levels, PasidEnable, PasidSupport,
    Sharing, Space,
};
use palisade_units::{Bdf, Gpa};

use super::world::*;
use crate::{Attachment, SpaceKey, Terms, VfioError};

const BUFFER: u64 = 0x7f00_0000_0000;
const FUNCTIONS: u8 = 4;

/// A tenant with functions of its own at slots 1 to 4, each on a parent of that number.
fn several() -> (Host, Tenant, Vec<FunctionHandle>, Vec<Attachment>) {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let parents: Vec<_> = (1..=FUNCTIONS).map(|n| host_side.parent(n)).collect();
    let attachments = (1..=FUNCTIONS)
        .zip(&parents)
        .map(|(n, parent)| alice.exclusive(slot(n), parent))
        .collect();
    (host_side, alice, parents, attachments)
}

fn bind_all(tenant: &Tenant, key: SpaceKey, space: Space) -> Result<(), VfioError> {
    tenant.container.bind_all(key, Terms::new(space))
}

/// What every function has bound, to compare.
fn all_bound(tenant: &Tenant) -> Vec<Vec<(SpaceKey, Space)>> {
    let places = tenant.container.guest_bdfs().into_iter();
    places.map(|at| tenant.container.bound(at)).collect()
}

/// The host's books, and what every function has bound.
fn everything(host: &Host, tenant: &Tenant) -> (String, Vec<Vec<(SpaceKey, Space)>>) {
    (host.books(), all_bound(tenant))
}

/// Two processes of a guest that see different numbers at the same address.
fn two_processes(tenant: &Tenant) -> [Space; 2] {
    tenant.ram.store_u64(0x1000, 0xa1).unwrap();
    tenant.ram.store_u64(0x2000, 0xa2).unwrap();
    [0x1000, 0x2000].map(|page| tenant.process(&[(BUFFER, page)]))
}

#[test]
fn r36_a_bind_reaches_every_function_of_the_container() {
    let (host_side, alice, parents, _attachments) = several();
    let [first, second] = two_processes(&alice);
    let before = everything(&host_side, &alice);
    for (space, value) in [(first, 0xa1), (second, 0xa2), (second, 0xa2)] {
        bind_all(&alice, pasid(777), space).unwrap();
        for parent in &parents {
            assert_eq!(read(&mut parent.port(), raw(777), BUFFER), Ok(value));
        }
    }
    for n in 1..=FUNCTIONS {
        alice.container.unbind(slot(n), pasid(777)).unwrap();
    }
    assert_eq!(everything(&host_side, &alice), before);
}

#[test]
fn r36_requests_without_a_pasid_are_bound_on_all_of_them_too() {
    let (_host, alice, parents, _attachments) = several();
    let [first, _] = two_processes(&alice);
    bind_all(&alice, SpaceKey::WithoutPasid, first).unwrap();
    for parent in &parents {
        assert_eq!(read(&mut parent.port(), None, BUFFER), Ok(0xa1));
    }
}

#[test]
fn r36_a_function_whose_pasids_are_off_keeps_all_of_them_as_they_were_whichever_it_is() {
    for faulty in 0..usize::from(FUNCTIONS) {
        let (host_side, alice, parents, _attachments) = several();
        let [first, second] = two_processes(&alice);
        // The second has something there already.
        alice.bind(slot(2), pasid(777), first).unwrap();
        let before = everything(&host_side, &alice);
        let since = host_side.authority.events_since(Sequence::FIRST).next;
        parents[faulty].set_pasid_enabled(PasidEnable::Off);
        assert_eq!(errno(bind_all(&alice, pasid(777), second)), EOPNOTSUPP);
        assert_eq!(everything(&host_side, &alice), before, "at {faulty}");
        // Nobody was told of a bind that came and went.
        let events = host_side.authority.events_since(since).events;
        let refused = |kind| matches!(kind, EventKind::BindRefused { .. });
        assert!(events.iter().all(|event| refused(event.kind)), "{events:?}");
        assert_eq!(events.len(), 1);
        if faulty != 1 {
            assert_eq!(read(&mut parents[1].port(), raw(777), BUFFER), Ok(0xa1));
        }
    }
}

#[test]
fn r36_pasids_that_go_off_in_the_middle_undo_what_was_bound_and_restore_what_was_there() {
    // Those that have something under the key already: none, some, all.
    for had in [vec![], vec![2, 3], (1..=FUNCTIONS).collect()] {
        for faulty in 1..=FUNCTIONS {
            let (host_side, alice, parents, _attachments) = several();
            let [first, second] = two_processes(&alice);
            for n in &had {
                let terms = Terms {
                    fault_processing: FaultProcessing::Disabled,
                    ..Terms::new(first)
                };
                let container = &alice.container;
                container.bind(slot(*n), pasid(777), terms).unwrap();
            }
            let before = everything(&host_side, &alice);
            let mut touched = 0;
            let outcome =
                alice
                    .container
                    .bind_all_while(pasid(777), Terms::new(second), |endpoint| {
                        touched += 1;
                        if touched == faulty {
                            endpoint.function.set_pasid_enabled(PasidEnable::Off);
                        }
                    });
            assert_eq!(errno(outcome), EOPNOTSUPP);
            assert_eq!(touched, faulty);
            assert_eq!(everything(&host_side, &alice), before, "{had:?} {faulty}");

            for (n, parent) in (1..).zip(&parents) {
                parent.set_pasid_enabled(PasidEnable::On);
                let expected = if had.contains(&n) {
                    Ok(0xa1)
                } else {
                    Err(FaultReason::PasidEntryNotPresent)
                };
                assert_eq!(read(&mut parent.port(), raw(777), BUFFER), expected);
            }
            // Restored with its fault processing too.
            let heard = alice.faults().len();
            for n in &had {
                let parent = &parents[usize::from(*n) - 1];
                read(&mut parent.port(), raw(777), BUFFER + 0x1000).unwrap_err();
            }
            assert_eq!(alice.faults().len(), heard);
        }
    }
}

#[test]
fn r36_what_cannot_be_restored_is_taken_away_and_nobody_has_the_new_space() {
    let (_host, alice, parents, _attachments) = several();
    let [first, second] = two_processes(&alice);
    bind_all(&alice, pasid(777), first).unwrap();
    let off_for_all = |endpoint: &crate::container::Endpoint| {
        if endpoint.guest_bdf == slot(3) {
            parents[0].set_pasid_enabled(PasidEnable::Off);
            parents[2].set_pasid_enabled(PasidEnable::Off);
        }
    };
    let outcome = alice
        .container
        .bind_all_while(pasid(777), Terms::new(second), off_for_all);
    assert_eq!(errno(outcome), EOPNOTSUPP);
    let has = |n| alice.container.bound(slot(n)).get(1).copied();
    let old = Some((pasid(777), first));
    assert_eq!([1, 2, 3, 4].map(has), [None, old, old, old]);
    parents[0].set_pasid_enabled(PasidEnable::On);
    let absent = Err(FaultReason::PasidEntryNotPresent);
    assert_eq!(read(&mut parents[0].port(), raw(777), BUFFER), absent);
}

#[test]
fn r36_a_function_without_pasids_or_a_crooked_table_or_a_full_quota_changes_nothing() {
    let host_side = Host::new();
    // One for each of three functions, and one more.
    let alice = host_side.tenant_with(1, Quota::Exactly(4));
    let _one = alice.exclusive(slot(1), &host_side.parent(1));
    let _two = alice.mediated(slot(2), &host_side.parent(2));
    let [first, _] = two_processes(&alice);
    bind_all(&alice, pasid(5), first).unwrap();
    let plain = Bdf::new(0x6a, 9, 0);
    let plain = host_side.iommu.add_function(plain, PasidSupport::None);
    let third = alice.exclusive(slot(3), &plain.unwrap());
    let before = everything(&host_side, &alice);

    let crooked = Space::FirstStage(FirstStage::new(Gpa::new(0x1008), Levels::Four));
    assert_eq!(errno(bind_all(&alice, pasid(5), crooked)), EINVAL);
    assert_eq!(
        errno(bind_all(&alice, pasid(5), Space::PassThrough)),
        EOPNOTSUPP
    );
    assert_eq!(errno(bind_all(&alice, pasid(0), first)), EINVAL);
    assert_eq!(errno(bind_all(&alice, pasid(6), first)), ENOSPC);
    assert_eq!(everything(&host_side, &alice), before);

    drop(third);
    bind_all(&alice, pasid(6), first).unwrap();
}

#[test]
fn r36_slices_of_one_parent_change_the_space_that_they_share_together() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let (shared, own) = (host_side.parent(1), host_side.parent(2));
    let slices = [3, 4, 5].map(|n| alice.mediated(slot(n), &shared));
    let _own = alice.exclusive(slot(6), &own);
    let [first, second] = two_processes(&alice);
    // The one at slot 3 joins only with the bind on all.
    for n in [4, 5] {
        alice.bind(slot(n), pasid(777), first).unwrap();
    }
    let hold = alice.container.translate(slot(4), guest(777)).unwrap();
    let before = everything(&host_side, &alice);
    let outcome = alice
        .container
        .bind_all_while(pasid(777), Terms::new(second), |endpoint| {
            if endpoint.sharing == Sharing::Exclusive {
                endpoint.function.set_pasid_enabled(PasidEnable::Off);
            }
        });
    assert_eq!(errno(outcome), EOPNOTSUPP);
    assert_eq!(everything(&host_side, &alice), before);
    let mut port = shared.port();
    assert_eq!(read(&mut port, holding(&hold), BUFFER), Ok(0xa1));

    own.set_pasid_enabled(PasidEnable::On);
    bind_all(&alice, pasid(777), second).unwrap();
    assert_eq!(read(&mut port, holding(&hold), BUFFER), Ok(0xa2));
    let users: Vec<_> = host_side
        .iommu
        .audit()
        .iter()
        .map(|one| one.users)
        .collect();
    assert_eq!(users.iter().max(), Some(&slices.len()));
    for n in [3, 4, 5] {
        assert!(
            alice
                .container
                .bound(slot(n))
                .contains(&(pasid(777), second))
        );
    }
}

#[test]
fn r36_an_empty_container_has_nothing_to_bind_on() {
    let alice = Host::new().tenant(1);
    assert_eq!(
        errno(bind_all(&alice, pasid(1), Space::PassThrough)),
        ENODEV
    );
}
