//! What an invalidation names, and what of each function is forgotten for it (R40).

use palisade_iommu::{PasidSupport, Sharing};
use palisade_units::{Bdf, GuestPasid, Iova};
use palisade_vfio::{GuestScope, SpaceKey};

use super::CacheScope;
use crate::spec::DomainId;
use crate::spec::context::AddressWidth;
use crate::spec::descriptor::{FunctionMask, InvDescriptor, PageRange, PasidCacheScope};
use crate::spec::pasid_table::{FirstStageFlags, PagingMode, PasidEntry};
use crate::testing::{DOMAIN, FUNCTION, Rig, Space, all_flags, first_stage, pasid};

const AT: Iova = Iova::new(0x7f12_3456_7000);
const OTHER: Bdf = Bdf::new(0, 0x11, 0);
const NOBODY: Bdf = Bdf::new(0, 0x12, 0);

/// A guest with two functions that share a directory.
fn two_functions() -> Rig {
    let mut rig = Rig::booted();
    let handle = rig
        .iommu
        .add_function(Bdf::new(0x6b, 0, 0), PasidSupport::Width(20))
        .unwrap();
    rig.set_context(OTHER, all_flags());
    rig.attach(OTHER, handle, Sharing::Exclusive);
    rig.unit.attached(OTHER);
    rig
}

/// What is forgotten of the two functions.
fn scopes(rig: &Rig, scope: CacheScope) -> [Vec<GuestScope>; 2] {
    [FUNCTION, OTHER].map(|function| rig.unit.scopes_on(function, scope))
}

fn four_pages(key: SpaceKey) -> GuestScope {
    GuestScope::Pages {
        key,
        at: Iova::new(0x7f12_3456_4000),
        len_bytes: 0x4000,
    }
}

const fn of(pasid: GuestPasid) -> SpaceKey {
    SpaceKey::Pasid(pasid)
}

#[test]
fn r40_each_scope_is_of_what_it_names() {
    let mut rig = two_functions();
    let space = Space::new(&mut rig);
    rig.bind(pasid(5), &space);
    let range = PageRange::holding(AT, 2);
    let all = &[GuestScope::All][..];
    let key = &[GuestScope::Key(of(pasid(5)))][..];
    let pages = &[four_pages(of(pasid(5)))][..];
    let without = SpaceKey::WithoutPasid;
    let none = &[][..];
    for (scope, expected) in [
        (CacheScope::All, [all, all]),
        (CacheScope::Function(FUNCTION), [all, none]),
        (CacheScope::Function(OTHER), [none, all]),
        (CacheScope::Function(NOBODY), [none, none]),
        (
            CacheScope::WithoutPasid(FUNCTION, range),
            [&[four_pages(without)][..], none],
        ),
        (
            CacheScope::WithoutPasid(OTHER, PageRange::ALL),
            [none, &[GuestScope::Key(without)][..]],
        ),
        (
            CacheScope::PasidOfDomain(DOMAIN, pasid(5), PageRange::ALL),
            [key, key],
        ),
        (
            CacheScope::PasidOfDomain(DOMAIN, pasid(5), range),
            [pages, pages],
        ),
        (
            CacheScope::PasidOfDomain(DomainId::new(9), pasid(5), range),
            [none, none],
        ),
        (CacheScope::Pasid(OTHER, pasid(5), range), [none, pages]),
        // RID_PASID is the name of requests without a PASID.
        (
            CacheScope::Pasid(FUNCTION, pasid(0), range),
            [&[four_pages(without)][..], none],
        ),
    ] {
        assert_eq!(scopes(&rig, scope), expected, "{scope:?}");
    }
}

/// Pages of a domain are those of its second stages. A first stage, nested or not, cached them under other
/// addresses, so that it loses everything. Other domains lose nothing.
#[test]
fn r40_a_domain_is_what_was_bound_under_its_number() {
    let mut rig = two_functions();
    let of_processes = DomainId::new(7);
    let root = rig.frames(1);
    let second = PasidEntry::second_stage(root, AddressWidth::FourLevel, DOMAIN);
    rig.set_entry(pasid(0), second);
    rig.tell_of(pasid(0));
    let mode = PagingMode::FourLevel;
    let entry = PasidEntry::first_stage(root, mode, of_processes, FirstStageFlags::empty());
    rig.set_entry(pasid(5), entry);
    rig.tell_of(pasid(5));
    let range = PageRange::holding(AT, 2);
    let without = SpaceKey::WithoutPasid;
    let process = GuestScope::Key(of(pasid(5)));
    for (scope, expected) in [
        (
            CacheScope::PagesOfDomain(DOMAIN, range),
            vec![four_pages(without)],
        ),
        (CacheScope::Domain(DOMAIN), vec![GuestScope::Key(without)]),
        (
            CacheScope::PagesOfDomain(of_processes, range),
            vec![process],
        ),
        (CacheScope::Domain(of_processes), vec![process]),
        (CacheScope::Domain(DomainId::new(0)), vec![]),
        (CacheScope::PagesOfDomain(DomainId::new(8), range), vec![]),
    ] {
        let both = [expected.clone(), expected];
        assert_eq!(scopes(&rig, scope), both, "{scope:?}");
    }
    // The number is that of the time when the unit was told of the entry.
    let mode = PagingMode::FourLevel;
    let moved = PasidEntry::first_stage(root, mode, DOMAIN, FirstStageFlags::empty());
    rig.set_entry(pasid(5), moved);
    let of_domain = CacheScope::Domain(of_processes);
    assert_eq!(scopes(&rig, of_domain), [vec![process], vec![process]]);
    // What is cached under another domain is not what an invalidation names (VT-d §6.5.2.2).
    rig.tell_of(pasid(5));
    assert_eq!(scopes(&rig, of_domain), [vec![process], vec![process]]);
    let cached = PasidCacheScope::Pasid(of_processes, pasid(5));
    rig.submit(&[InvDescriptor::pasid_cache(cached)]);
    assert_eq!(scopes(&rig, of_domain), [vec![], vec![]]);
}

#[test]
fn r40_a_domain_of_many_entries_is_forgotten_with_its_function() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    for raw in 1..=17 {
        rig.bind(pasid(raw), &space);
    }
    let scopes = rig.unit.scopes_on(FUNCTION, CacheScope::Domain(DOMAIN));
    assert_eq!(scopes, [GuestScope::All]);
}

/// An entry that changes is found where it was told of, and nowhere else.
#[test]
fn r40_a_pasid_cache_invalidation_finds_the_entries_that_it_names() {
    let reads = |rig: &Rig| [1, 2].map(|raw| rig.read(Some(pasid(raw)), AT).ok());
    let told = |scope| {
        let mut rig = two_functions();
        for raw in 1..=2 {
            let space = Space::with_page(&mut rig, AT, 0xbad);
            rig.bind(pasid(raw), &space);
            let space = Space::with_page(&mut rig, AT, 0x600d);
            rig.set_entry(pasid(raw), first_stage(&space));
        }
        assert_eq!(reads(&rig), [Some(0xbad); 2], "nobody was told");
        rig.submit(&[InvDescriptor::pasid_cache(scope)]);
        reads(&rig)
    };
    let [old, new] = [Some(0xbad), Some(0x600d)];
    let other = DomainId::new(9);
    let of_pasid = |raw| PasidCacheScope::Pasid(DOMAIN, pasid(raw));
    assert_eq!(told(of_pasid(1)), [new, old]);
    assert_eq!(told(of_pasid(2)), [old, new]);
    assert_eq!(told(of_pasid(3)), [old, old]);
    assert_eq!(told(PasidCacheScope::Domain(DOMAIN)), [new, new]);
    assert_eq!(told(PasidCacheScope::Domain(other)), [old, old]);
    let of_other = PasidCacheScope::Pasid(other, pasid(1));
    assert_eq!(told(of_other), [old, old]);
    assert_eq!(told(PasidCacheScope::Global), [new, new]);
}

/// What an entry has cached goes when the entry moves to another domain: an invalidation that names the old one
/// finds it there no more, and one that names the new one is not owed.
#[test]
fn r40_r41_nothing_cached_outlives_a_move_to_another_domain() {
    use crate::spec::descriptor::PasidIotlbScope;

    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.bind(pasid(1), &space);
    let mut port = rig.port();
    let mut read = || port.read(Rig::asking(pasid(1)), AT, &mut [0; 8]);
    assert_eq!(read(), Ok(()));
    let flags = FirstStageFlags::empty();
    let other = DomainId::new(9);
    let moved = PasidEntry::first_stage(space.root, PagingMode::FourLevel, other, flags);
    rig.set_entry(pasid(1), moved);
    space.unmap(&rig, AT);
    assert_eq!(read(), Ok(()), "nobody was told");
    rig.submit(&[
        InvDescriptor::pasid_cache(PasidCacheScope::Pasid(DOMAIN, pasid(1))),
        InvDescriptor::pasid_iotlb(DOMAIN, pasid(1), PasidIotlbScope::All),
    ]);
    assert!(read().is_err());
}

#[test]
fn r40_a_context_invalidation_finds_the_functions_that_it_names() {
    use crate::spec::descriptor::ContextScope;

    let told = |source, mask| {
        let mut rig = two_functions();
        let space = Space::with_page(&mut rig, AT, 0x600d);
        rig.set_entry(pasid(1), first_stage(&space));
        rig.submit(&[InvDescriptor::context_cache(ContextScope::Device {
            source,
            mask: FunctionMask::new(mask),
            domain: DOMAIN,
        })]);
        [FUNCTION, OTHER].map(|function| {
            let bound = rig.container.bound(function);
            bound.iter().any(|(key, _)| *key == of(pasid(1)))
        })
    };
    assert_eq!(told(FUNCTION, 0), [true, false]);
    assert_eq!(told(OTHER, 0), [false, true]);
    assert_eq!(told(NOBODY, 3), [false, false]);
    assert_eq!(told(Bdf::new(0, 0x10, 7), 3), [true, false]);
}
