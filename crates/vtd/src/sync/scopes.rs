//! What an invalidation names, and what of each function is forgotten for it (R40).

use palisade_iommu::{PasidSupport, Sharing};
use palisade_units::{Bdf, GuestPasid, Iova};
use palisade_vfio::{GuestScope, SpaceKey};

use super::CacheScope;
use crate::spec::context::AddressWidth;
use crate::spec::descriptor::{FunctionMask, InvDescriptor, PageRange, PasidCacheScope};
use crate::spec::pasid_table::PasidEntry;
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
fn scopes(rig: &Rig, scope: CacheScope) -> [Option<GuestScope>; 2] {
    [FUNCTION, OTHER].map(|function| rig.unit.scope_on(function, scope))
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
    let all = Some(GuestScope::All);
    let key = |raw| Some(GuestScope::Key(of(pasid(raw))));
    let pages = |raw| Some(four_pages(of(pasid(raw))));
    let without = SpaceKey::WithoutPasid;
    for (scope, expected) in [
        (CacheScope::All, [all, all]),
        (CacheScope::Function(FUNCTION), [all, None]),
        (CacheScope::Function(OTHER), [None, all]),
        (CacheScope::Function(NOBODY), [None, None]),
        (
            CacheScope::WithoutPasid(FUNCTION, range),
            [Some(four_pages(without)), None],
        ),
        (
            CacheScope::WithoutPasid(OTHER, PageRange::ALL),
            [None, Some(GuestScope::Key(without))],
        ),
        (
            CacheScope::Pasid(None, pasid(5), PageRange::ALL),
            [key(5), key(5)],
        ),
        (
            CacheScope::Pasid(None, pasid(5), range),
            [pages(5), pages(5)],
        ),
        (
            CacheScope::Pasid(Some(OTHER), pasid(5), range),
            [None, pages(5)],
        ),
        // RID_PASID is the name of requests without a PASID.
        (
            CacheScope::Pasid(Some(FUNCTION), pasid(0), range),
            [Some(four_pages(without)), None],
        ),
    ] {
        assert_eq!(scopes(&rig, scope), expected, "{scope:?}");
    }
}

/// Pages of a domain are those of its second stages. A first stage, nested or not, cached them under other
/// addresses, so that it loses everything.
#[test]
fn r40_pages_of_a_domain_are_those_of_its_second_stage() {
    let mut rig = two_functions();
    let root = rig.frames(1);
    let second = PasidEntry::second_stage(root, AddressWidth::FourLevel, DOMAIN);
    rig.set_entry(pasid(0), second);
    rig.tell_of(pasid(0));
    let scope = CacheScope::PagesOfDomain(DOMAIN, PageRange::holding(AT, 2));
    let pages = Some(four_pages(SpaceKey::WithoutPasid));
    assert_eq!(scopes(&rig, scope), [pages, pages]);
    rig.set_entry(pasid(0), PasidEntry::pass_through(DOMAIN));
    rig.tell_of(pasid(0));
    assert_eq!(scopes(&rig, scope), [pages, pages]);
    let space = Space::new(&mut rig);
    rig.bind(pasid(5), &space);
    let all = Some(GuestScope::All);
    assert_eq!(scopes(&rig, scope), [all, all]);
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
    let of_pasid = |raw| PasidCacheScope::Pasid(DOMAIN, pasid(raw));
    assert_eq!(told(of_pasid(1)), [new, old]);
    assert_eq!(told(of_pasid(2)), [old, new]);
    assert_eq!(told(of_pasid(3)), [old, old]);
    assert_eq!(told(PasidCacheScope::Domain(DOMAIN)), [new, new]);
    assert_eq!(told(PasidCacheScope::Global), [new, new]);
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
