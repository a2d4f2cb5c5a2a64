//! Limits above the sets, and ranges for the host's own users.

use palisade_units::PASID_COUNT;
use proptest::prelude::*;

use super::*;
use crate::{GroupId, Limit, MAX_GROUP_DEPTH, PasidRange};

fn set_in(authority: &Authority, group: GroupId, number: u32) -> PasidSet {
    let quota = Quota::Exactly(10);
    let created = authority.create_set_in(group, TenantId::new(number), quota);
    created.unwrap()
}

#[test]
fn r53_a_limit_holds_for_all_below_it_and_counts_what_it_refused() {
    let authority = Authority::new(&[]);
    let top = authority
        .create_group(GroupId::ROOT, Limit::Max(3))
        .unwrap();
    let left = authority.create_group(top, Limit::Max(2)).unwrap();
    let right = authority.create_group(top, Limit::Unlimited).unwrap();
    let (alice, bob) = (set_in(&authority, left, 1), set_in(&authority, right, 2));
    let first = alice.alloc(PasidRange::ALL).unwrap();
    alice.alloc(PasidRange::ALL).unwrap();
    assert_eq!(errno(alice.alloc(PasidRange::ALL)), ENOSPC);
    bob.alloc(PasidRange::ALL).unwrap();
    assert_eq!(
        bob.alloc(PasidRange::ALL),
        Err(IoasidError::GroupLimit { group: top })
    );
    let says = |group| {
        let usage = authority.group_usage(group).unwrap();
        (usage.current, usage.events)
    };
    assert_eq!(
        [says(top), says(left), says(right)],
        [(3, 1), (2, 1), (1, 0)]
    );
    let hold = alice.hold(first).unwrap();
    alice.free(first).unwrap();
    assert_eq!(says(top).0, 3, "free-pending is charged");
    drop(hold);
    assert_eq!([says(top).0, says(left).0], [2, 1]);
    authority.set_group_max(top, Limit::Max(0)).unwrap();
    assert_eq!(errno(bob.alloc(PasidRange::ALL)), ENOSPC);
    alice.close();
    bob.close();
    assert_eq!(says(GroupId::ROOT).0, 0);
}

#[test]
fn r53_a_group_is_removed_only_when_nothing_is_below_it() {
    let authority = Authority::new(&[]);
    let top = authority
        .create_group(GroupId::ROOT, Limit::Unlimited)
        .unwrap();
    let low = authority.create_group(top, Limit::Unlimited).unwrap();
    assert_eq!(errno(authority.remove_group(top)), EBUSY);
    let alice = set_in(&authority, low, 1);
    assert_eq!(errno(authority.remove_group(low)), EBUSY);
    alice.close();
    authority.remove_group(low).unwrap();
    authority.remove_group(top).unwrap();
    assert_eq!(errno(authority.remove_group(top)), ENOENT);
    assert_eq!(errno(authority.create_group(top, Limit::Unlimited)), ENOENT);
    let orphan = authority.create_set_in(top, TenantId::new(3), Quota::default());
    assert_eq!(errno(orphan), ENOENT);
    assert_eq!(authority.unreserved(), PASID_COUNT - 1);
    assert_eq!(errno(authority.remove_group(GroupId::ROOT)), EBUSY);
    let limited = authority.set_group_max(GroupId::ROOT, Limit::Max(1));
    assert_eq!(errno(limited), EINVAL);
}

#[test]
fn r53_the_tree_is_bounded_in_depth() {
    let authority = Authority::new(&[]);
    let mut group = GroupId::ROOT;
    for _ in 1..MAX_GROUP_DEPTH {
        group = authority.create_group(group, Limit::Unlimited).unwrap();
    }
    assert_eq!(
        errno(authority.create_group(group, Limit::Unlimited)),
        EINVAL
    );
    authority.remove_group(group).unwrap();
}

#[test]
fn r10_a_range_is_reserved_whole_or_not_at_all_and_no_set_gets_a_number_of_it() {
    let authority = Authority::new(&[]);
    let alice = set_in(&authority, GroupId::ROOT, 1);
    let range = |min, max| PasidRange { min, max };
    authority.reserve(range(1, 4)).unwrap();
    let pasid = alice.alloc(PasidRange::ALL).unwrap();
    assert_eq!(pasid.get(), 5);
    let left = authority.unreserved();
    assert_eq!(errno(authority.reserve(range(5, 9))), EBUSY);
    assert_eq!(errno(authority.reserve(range(4, 4))), EBUSY);
    assert_eq!(errno(authority.reserve(range(0, 9))), EINVAL);
    assert_eq!(errno(authority.reserve(range(9, 8))), EINVAL);
    assert_eq!(errno(authority.reserve(range(6, u32::MAX))), ENOSPC);
    assert_eq!(errno(authority.unreserve(range(1, 3))), EINVAL);
    assert_eq!(authority.unreserved(), left);
    assert_eq!(authority.reserved(), [range(1, 4)]);
    authority.unreserve(range(1, 4)).unwrap();
    assert_eq!(authority.unreserved(), left + 4);
    assert_eq!(alice.alloc(PasidRange::ALL).unwrap().get(), 1);
}

proptest! {
    /// Against the plainest count: what is in the ledger below each node.
    #[test]
    fn r53_charges_balance_on_every_path(
        limits in (0..5u32, 0..5u32),
        ops in prop::collection::vec((0..2usize, 0..5u8, 1..8u32), 0..120),
    ) {
        let authority = Authority::new(&[PasidRange { min: 7, max: u32::MAX }]);
        let top = authority.create_group(GroupId::ROOT, Limit::Max(limits.0)).unwrap();
        let low = authority.create_group(top, Limit::Max(limits.1)).unwrap();
        let make = |at: usize| authority.create_set_in([top, low][at], TenantId::new([1, 2][at]), Quota::Exactly(3));
        let mut sets = [make(0).unwrap(), make(1).unwrap()];
        let mut holds = Vec::new();
        for (at, what, number) in ops {
            let pasid = palisade_units::HostPasid::new(number).unwrap();
            match what {
                0 | 1 => {
                    let (all, lower) = (authority.outstanding(), sets[1].outstanding());
                    let full = all >= limits.0 || (at == 1 && lower >= limits.1) || sets[at].outstanding() >= 3;
                    let answer = sets[at].alloc(PasidRange::only(number));
                    let taken = authority.ledger().iter().filter(|e| e.pasid == pasid).count() == 1;
                    prop_assert_eq!(answer.is_ok(), !full && number < 7 && taken && authority.outstanding() == all + 1);
                }
                2 => drop(sets[at].free(pasid)),
                3 => holds.extend(sets[at].hold(pasid)),
                _ if number % 2 == 0 => drop(holds.pop()),
                _ => {
                    sets[at].close();
                    if let Ok(set) = make(at) {
                        sets[at] = set;
                    }
                }
            }
            let ledger = authority.ledger();
            let of = |tenant| ledger.iter().filter(|e| e.tenant == TenantId::new(tenant)).count();
            let current = |group| authority.group_usage(group).unwrap().current as usize;
            prop_assert_eq!(current(low), of(2));
            prop_assert_eq!(current(top), of(1) + of(2));
            prop_assert_eq!(current(GroupId::ROOT), ledger.len());
        }
    }
}
