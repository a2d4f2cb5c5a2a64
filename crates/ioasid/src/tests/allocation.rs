//! Which numbers are given out and taken back, and at what cost.

use palisade_units::PASID_COUNT;

use super::*;
use crate::PasidRange;

#[test]
fn r26_the_lowest_free_id_of_an_inclusive_range_is_given_out() {
    let (_, alice, _) = alice_and_bob();
    let range = PasidRange { min: 10, max: 12 };
    let given: Vec<u32> = (0..3).map(|_| alice.alloc(range).unwrap().get()).collect();
    assert_eq!(given, [10, 11, 12]);
    assert_eq!(errno(alice.alloc(range)), ENOSPC);
    alice.free(host(11)).unwrap();
    assert_eq!(alice.alloc(range), Ok(host(11)));
}

#[test]
fn r26_an_inverted_range_is_einval_and_a_range_beyond_all_pasids_enospc() {
    let (_, alice, _) = alice_and_bob();
    assert_eq!(errno(alice.alloc(PasidRange { min: 2, max: 1 })), EINVAL);
    let beyond = PasidRange {
        min: PASID_COUNT,
        max: u32::MAX,
    };
    assert_eq!(errno(alice.alloc(beyond)), ENOSPC);
    let to_the_end = PasidRange {
        min: PASID_COUNT - 1,
        max: u32::MAX,
    };
    assert_eq!(alice.alloc(to_the_end), Ok(host(PASID_COUNT - 1)));
    assert_eq!(errno(alice.alloc(to_the_end)), ENOSPC);
    assert_eq!(errno(alice.alloc(PasidRange::only(0))), ENOSPC);
}

#[test]
fn r10_two_tenants_take_from_one_namespace_beside_what_the_host_reserved() {
    let authority = Authority::new(&[PasidRange { min: 2, max: 3 }, PasidRange { min: 3, max: 4 }]);
    let alice = authority.create_set(ALICE, Quota::Exactly(10)).unwrap();
    let bob = authority.create_set(BOB, Quota::AllThatIsLeft).unwrap();
    assert_eq!(bob.quota(), PASID_COUNT - 1 - 3 - 10);
    assert_eq!(alice.alloc(PasidRange::ALL), Ok(host(1)));
    assert_eq!(bob.alloc(PasidRange::ALL), Ok(host(5)));
    assert_eq!(alice.alloc(PasidRange::ALL), Ok(host(6)));
    assert_eq!(authority.owner_of(host(5)), Some(BOB));
    assert_eq!(authority.owner_of(host(6)), Some(ALICE));
    assert_eq!(authority.owner_of(host(2)), None);
    assert_eq!(authority.outstanding(), 3);
}

#[test]
fn r27_a_range_frees_exactly_what_is_owned_in_it() {
    let (authority, alice, bob) = alice_and_bob();
    for _ in 0..10 {
        alice.alloc(PasidRange::ALL).unwrap();
        bob.alloc(PasidRange::ALL).unwrap();
    }
    assert_eq!(alice.free_range(PasidRange { min: 4, max: 7 }), 2);
    let left: Vec<u32> = alice.owned().iter().map(|p| p.get()).collect();
    assert_eq!(left, [1, 3, 9, 11, 13, 15, 17, 19]);
    assert_eq!(alice.free_range(PasidRange { min: 7, max: 4 }), 0);
    let everything = PasidRange {
        min: 0,
        max: u32::MAX,
    };
    assert_eq!(alice.free_range(everything), 8);
    assert_eq!(alice.free_range(everything), 0);
    assert_eq!(authority.outstanding(), 10);
    assert_eq!(bob.outstanding(), 10);
}

#[test]
fn r27_the_cost_of_a_range_follows_what_is_owned() {
    let (_, alice, _) = alice_and_bob();
    let everything = PasidRange {
        min: 0,
        max: u32::MAX,
    };
    // 100,000 rounds over a range of 2^32 end only if none of them walks the range.
    for _ in 0..100_000 {
        let pasid = alice.alloc(PasidRange::ALL).unwrap();
        assert_eq!(alice.owned_within(everything), [pasid]);
        assert_eq!(alice.free_range(everything), 1);
    }
}

#[test]
fn r80_allocation_stays_cheap_with_all_pasids_out() {
    let authority = Authority::new(&[]);
    let set = authority.create_set(ALICE, Quota::AllThatIsLeft).unwrap();
    for expected in 1..PASID_COUNT {
        assert_eq!(set.alloc(PasidRange::ALL), Ok(host(expected)));
    }
    assert_eq!(errno(set.alloc(PasidRange::ALL)), ENOSPC);
    for round in 0..100_000 {
        let pasid = host(1 + (round * 7919) % (PASID_COUNT - 1));
        set.free(pasid).unwrap();
        assert_eq!(set.alloc(PasidRange::ALL), Ok(pasid));
    }
    assert_eq!(set.free_range(PasidRange::ALL), PASID_COUNT - 1);
    assert_eq!(authority.outstanding(), 0);
}
