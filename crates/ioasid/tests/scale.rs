//! All PASIDs of a host, over as many tenants as it is built for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use palisade_ioasid::{Authority, BindMark, Hold, PasidRange, PasidSet, PasidState, Quota};
use palisade_units::{Bdf, GuestPasid, HostPasid, PASID_COUNT, TenantId};

const TENANTS: u32 = 4096;
/// 0 is never given out, so one tenant has one less.
const OUT: u32 = PASID_COUNT - 1;
const EACH: u32 = PASID_COUNT / TENANTS;
const EVERYTHING: PasidRange = PasidRange {
    min: 0,
    max: u32::MAX,
};
const PLACE: Bdf = Bdf::new(0, 3, 0);
/// One in so many of each tenant's is bound as well.
const BOUND: u32 = 8;

/// Every PASID out, each tenant's as scattered as can be, held once and called by a guest's number.
struct Host {
    authority: Authority,
    /// By tenant.
    sets: Vec<PasidSet>,
    /// By PASID, from 1 on.
    holds: Vec<Hold>,
    marks: Vec<BindMark>,
}

/// Who takes a PASID when the tenants take turns.
fn tenant_of(number: u32) -> TenantId {
    TenantId::new((number - 1) % TENANTS)
}

/// What its guest calls it: each guest counts its own from 1.
fn guest_of(number: u32) -> GuestPasid {
    GuestPasid::new(1 + (number - 1) / TENANTS).unwrap()
}

/// What is bound, by every tenant.
fn bindings_of(number: u32) -> u32 {
    u32::from(((number - 1) / TENANTS).is_multiple_of(BOUND))
}

fn host(number: u32) -> HostPasid {
    HostPasid::new(number).unwrap()
}

fn full() -> Host {
    let authority = Authority::new(&[]);
    let quota = |tenant| match tenant {
        4095 => Quota::AllThatIsLeft,
        _ => Quota::Exactly(EACH),
    };
    let sets: Vec<PasidSet> = (0..TENANTS)
        .map(|tenant| {
            let created = authority.create_set(TenantId::new(tenant), quota(tenant));
            created.unwrap()
        })
        .collect();
    assert_eq!(authority.unreserved(), 0);
    let (mut holds, mut marks) = (Vec::new(), Vec::new());
    for number in 1..=OUT {
        let set = of(&sets, number);
        assert_eq!(set.alloc(PasidRange::ALL), Ok(host(number)));
        set.attach_guest(guest_of(number), host(number)).unwrap();
        let hold = set.find_guest(guest_of(number)).unwrap();
        if bindings_of(number) == 1 {
            marks.push(hold.bind(PLACE).unwrap());
        }
        holds.push(hold);
    }
    Host {
        authority,
        sets,
        holds,
        marks,
    }
}

/// The set of the tenant that takes a PASID.
fn of(sets: &[PasidSet], number: u32) -> &PasidSet {
    &sets[usize::try_from(tenant_of(number).get()).unwrap()]
}

#[test]
fn r7_r27_r33_all_pasids_over_4096_tenants_are_each_ones_own_and_all_come_back() {
    let Host {
        authority,
        sets,
        holds,
        marks,
    } = full();

    let each_set = sets.iter().map(PasidSet::outstanding);
    assert_eq!(each_set.sum::<u32>(), OUT);
    assert_eq!(authority.outstanding(), OUT);
    let ledger = authority.ledger();
    let numbers = ledger.iter().map(|entry| entry.pasid.get());
    assert!(numbers.eq(1..=OUT), "each number is there once, ascending");
    for (entry, number) in ledger.iter().zip(1..) {
        let bindings = bindings_of(number);
        assert_eq!(entry.tenant, tenant_of(number));
        assert_eq!(authority.owner_of(entry.pasid), Some(entry.tenant));
        assert_eq!(entry.guest, Some(guest_of(number)));
        assert_eq!(entry.references, 1 + bindings);
        let places = entry.bindings.iter().map(|b| (b.place, b.entries));
        assert!(places.eq((bindings > 0).then_some((PLACE, bindings))));
        assert_eq!(entry.state, PasidState::Active);
    }
    drop(ledger);

    // One tenant frees whatever there is, and it is exactly what was its own.
    let last = &sets[4095];
    let own = last.owned();
    assert!(
        own.iter()
            .all(|pasid| tenant_of(pasid.get()) == last.tenant())
    );
    let own_count = u32::try_from(own.len()).unwrap();
    assert_eq!(own_count, EACH - 1);
    assert_eq!(last.free_range(EVERYTHING), own_count);
    assert_eq!(last.free_range(EVERYTHING), 0);
    for number in 1..=OUT {
        let is_freed = tenant_of(number) == last.tenant();
        assert_eq!(authority.is_free_pending(host(number)), is_freed);
        assert_eq!(authority.owner_of(host(number)), Some(tenant_of(number)));
    }
    assert_eq!(authority.outstanding(), OUT, "held still");
    let alloc = last.alloc(PasidRange::ALL).map_err(|error| error.errno());
    assert_eq!(
        alloc,
        Err(28),
        "nothing is given out again while it is held"
    );

    // Its number comes back with the last hold, to the tenant that asks next.
    let (theirs, others): (Vec<Hold>, Vec<Hold>) = holds
        .into_iter()
        .partition(|hold| hold.tenant() == last.tenant());
    let (their_marks, other_marks): (Vec<BindMark>, Vec<BindMark>) = marks
        .into_iter()
        .partition(|mark| mark.hold().tenant() == last.tenant());
    drop((theirs, their_marks));
    assert_eq!(authority.outstanding(), OUT - own_count);
    assert_eq!(last.alloc(PasidRange::ALL), Ok(own[0]));

    for set in &sets {
        set.close();
    }
    assert_eq!(authority.outstanding(), OUT - own_count);
    drop((others, other_marks));
    assert_eq!(authority.ledger(), []);
    assert_eq!(authority.outstanding(), 0);
    assert_eq!(authority.unreserved(), OUT);
    assert!((1..=OUT).all(|number| authority.owner_of(host(number)).is_none()));
}

#[test]
fn r27_freeing_everything_costs_what_is_owned_however_full_the_host_is() {
    let authority = Authority::new(&[]);
    let quota = Quota::Exactly(PASID_COUNT - 1 - 10);
    let many = authority.create_set(TenantId::new(1), quota).unwrap();
    let few = authority
        .create_set(TenantId::new(2), Quota::AllThatIsLeft)
        .unwrap();
    for _ in 0..PASID_COUNT - 1 - 10 {
        many.alloc(PasidRange::ALL).unwrap();
    }
    // 20,000 rounds over 2^32 numbers and 2^20 PASIDs end only if none of them walks either.
    for _ in 0..20_000 {
        for _ in 0..10 {
            few.alloc(PasidRange::ALL).unwrap();
        }
        assert_eq!(few.free_range(EVERYTHING), 10);
    }
    assert_eq!(many.outstanding(), PASID_COUNT - 1 - 10);
}
