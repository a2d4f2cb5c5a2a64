use palisade_iommu::{PasidSupport, Sharing};
use palisade_units::{Bdf, Gpa, Iova};
use palisade_vfio::SpaceKey;

use crate::spec::context::{ContextEntry, ContextFlags, DirectorySize, GUEST_PASID_ZERO};
use crate::spec::descriptor::{ContextScope, FunctionMask, InvDescriptor, PasidCacheScope};
use crate::spec::pasid_table::{FirstStageFlags, PagingMode, PasidEntry};
use crate::spec::{
    DomainId,
    command::{Command, TranslationTableMode},
    context::AddressWidth,
    legacy_context::{LegacyContextEntry, LegacyTranslation},
    register as reg,
};
use crate::testing::{DOMAIN, FUNCTION, Rig, Setup, Space, all_flags, first_stage, pasid};

const AT: Iova = Iova::new(0x7f12_3456_7000);

fn keys(rig: &Rig, function: Bdf) -> Vec<SpaceKey> {
    let bound = rig.container.bound(function).into_iter();
    bound.map(|(key, _)| key).collect()
}

#[test]
fn r4_a_guest_entry_alone_gives_nothing_until_it_is_told_of() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.set_entry(pasid(3), first_stage(&space));
    assert!(rig.read(Some(pasid(3)), AT).is_err());
    rig.tell_of(pasid(3));
    assert_eq!(rig.read(Some(pasid(3)), AT), Ok(0x1111));
}

#[test]
fn r39_unbinding_removes_access_at_once_and_binding_again_works() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(3), &space);
    rig.unbind(pasid(3));
    assert!(rig.read(Some(pasid(3)), AT).is_err());
    rig.bind(pasid(3), &space);
    assert_eq!(rig.read(Some(pasid(3)), AT), Ok(0x1111));
}

#[test]
fn an_entry_that_changes_in_place_is_bound_to_the_new_space() {
    let mut rig = Rig::booted();
    let old = Space::with_page(&mut rig, AT, 0x1111);
    let new = Space::with_page(&mut rig, AT, 0x2222);
    rig.bind(pasid(3), &old);
    assert_eq!(rig.read(Some(pasid(3)), AT), Ok(0x1111));
    rig.bind(pasid(3), &new);
    assert_eq!(rig.read(Some(pasid(3)), AT), Ok(0x2222));
}

#[test]
fn an_entry_that_is_broken_later_gives_nothing_any_more() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(3), &space);
    let mut words = first_stage(&space).to_words();
    words[6] = 1;
    rig.set_entry(pasid(3), PasidEntry::from_words(words));
    rig.tell_of(pasid(3));
    assert!(rig.read(Some(pasid(3)), AT).is_err());
}

#[test]
fn an_entry_that_the_platform_refuses_does_not_leave_the_old_one() {
    // One PASID is all that is left of the quota, and the pair of another takes it.
    let mut rig = Rig::with(Setup {
        quota: 2,
        ..Setup::default()
    });
    rig.boot();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(3), &space);
    rig.bind(pasid(4), &space);
    assert_eq!(rig.read(Some(pasid(3)), AT), Ok(0x1111));
    assert!(rig.read(Some(pasid(4)), AT).is_err(), "beyond the quota");
    rig.unbind(pasid(3));
    rig.tell_of(pasid(4));
    assert_eq!(rig.read(Some(pasid(4)), AT), Ok(0x1111));
}

#[test]
fn a_global_invalidation_finds_what_is_new_and_what_is_gone() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(3), &space);
    rig.set_entry(pasid(3), PasidEntry::not_present());
    for raw in [1, 64, 0xfffff] {
        rig.set_entry(pasid(raw), first_stage(&space));
    }
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    let expected = [1, 64, 0xfffff].map(|raw| SpaceKey::Pasid(pasid(raw)));
    assert_eq!(keys(&rig, FUNCTION), expected);
}

#[test]
fn a_domain_selective_invalidation_covers_the_domain() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.set_entry(pasid(9), first_stage(&space));
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Domain(DOMAIN))]);
    assert_eq!(rig.read(Some(pasid(9)), AT), Ok(0x1111));
}

#[test]
fn a_pasid_selective_invalidation_leaves_other_entries_alone() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.set_entry(pasid(1), first_stage(&space));
    rig.set_entry(pasid(2), first_stage(&space));
    rig.tell_of(pasid(2));
    assert_eq!(keys(&rig, FUNCTION), [SpaceKey::Pasid(pasid(2))]);
}

#[test]
fn a_context_entry_that_goes_takes_its_pasids_with_it() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(0), &space);
    rig.bind(pasid(1), &space);
    rig.set_context_entry(FUNCTION, ContextEntry::from_words([0; 4]));
    let device = |function| {
        InvDescriptor::context_cache(ContextScope::Device {
            source: function,
            mask: FunctionMask::NONE,
            domain: DomainId::new(0),
        })
    };
    rig.submit(&[device(Bdf::new(0, 0x10, 1))]);
    assert_eq!(keys(&rig, FUNCTION).len(), 2, "another function was meant");
    rig.submit(&[device(FUNCTION)]);
    assert_eq!(keys(&rig, FUNCTION), []);
    assert!(rig.read(None, AT).is_err());
}

#[test]
fn rid_pasid_is_for_requests_without_a_pasid_alone() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0xd1a);
    let entry = ContextEntry::new(
        rig.directory,
        DirectorySize::ALL_PASIDS,
        pasid(0x77),
        all_flags(),
    );
    rig.set_context_entry(FUNCTION, entry);
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
    rig.bind(pasid(0x77), &space);
    assert_eq!(rig.read(None, AT), Ok(0xd1a));
    assert!(rig.read(Some(pasid(0x77)), AT).is_err());
    assert_eq!(keys(&rig, FUNCTION), [SpaceKey::WithoutPasid]);
}

#[test]
fn when_rid_pasid_moves_what_it_named_before_becomes_an_ordinary_pasid() {
    let mut rig = Rig::booted();
    let first = Space::with_page(&mut rig, AT, 0x1);
    let second = Space::with_page(&mut rig, AT, 0x2);
    rig.set_entry(pasid(5), first_stage(&first));
    rig.set_entry(pasid(6), first_stage(&second));
    for (rid, other, value) in [(5, 6, 0x1), (6, 5, 0x2)] {
        let entry = ContextEntry::new(
            rig.directory,
            DirectorySize::ALL_PASIDS,
            pasid(rid),
            all_flags(),
        );
        rig.set_context_entry(FUNCTION, entry);
        rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
        assert_eq!(rig.read(None, AT), Ok(value));
        let expected = [SpaceKey::WithoutPasid, SpaceKey::Pasid(pasid(other))];
        assert_eq!(keys(&rig, FUNCTION), expected);
    }
}

#[test]
fn without_pasids_in_the_context_only_requests_without_one_are_bound() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0xd1a);
    rig.set_context(FUNCTION, ContextFlags::DEVICE_TLB);
    rig.set_entry(GUEST_PASID_ZERO, first_stage(&space));
    rig.set_entry(pasid(1), first_stage(&space));
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
    assert_eq!(rig.read(None, AT), Ok(0xd1a));
    assert!(rig.read(Some(pasid(1)), AT).is_err());
}

#[test]
fn r14_each_function_has_a_table_of_its_own() {
    let mut rig = Rig::booted();
    let other = Bdf::new(0, 0x10, 1);
    let handle = rig
        .iommu
        .add_function(Bdf::new(0x6b, 0, 0), PasidSupport::Width(20))
        .unwrap();
    rig.attach(other, handle.clone(), Sharing::Exclusive);
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
    rig.handle = handle;
    assert!(rig.read(Some(pasid(1)), AT).is_err(), "no context entry");
    rig.set_context(other, all_flags());
    rig.tell_of(pasid(1));
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
}

#[test]
fn two_slices_of_one_parent_move_to_a_new_space_together() {
    let mut rig = Rig::booted();
    let parent = rig
        .iommu
        .add_function(Bdf::new(0x6b, 0, 0), PasidSupport::Width(20))
        .unwrap();
    let slices = [Bdf::new(0, 0x11, 0), Bdf::new(0, 0x12, 0)];
    for slice in slices {
        rig.attach(slice, parent.clone(), Sharing::Mediated);
        rig.set_context(slice, all_flags());
    }
    let old = Space::with_page(&mut rig, AT, 0x1111);
    let new = Space::with_page(&mut rig, AT, 0x2222);
    rig.bind(pasid(3), &old);
    rig.bind(pasid(3), &new);
    for slice in slices {
        let bound = rig.container.bound(slice);
        let space = bound
            .iter()
            .find(|(key, _)| *key == SpaceKey::Pasid(pasid(3)));
        assert!(
            matches!(space, Some((_, palisade_iommu::Space::FirstStage(stage))) if stage.root == new.root),
            "{slice}: {space:?}"
        );
    }
}

#[test]
fn nested_and_pass_through_entries_are_bound() {
    use crate::spec::pasid_table::{FirstStage, SecondStage};

    let mut rig = Rig::booted();
    let (root, _) = identity(&mut rig);
    let second = SecondStage {
        root,
        width: AddressWidth::FourLevel,
    };
    let space = Space::with_page(&mut rig, AT, 0x1111);
    let first = FirstStage {
        root: space.root,
        mode: PagingMode::FourLevel,
        flags: FirstStageFlags::empty(),
    };
    rig.set_entry(pasid(1), PasidEntry::nested(first, second, DOMAIN));
    rig.set_entry(
        pasid(2),
        PasidEntry::second_stage(root, AddressWidth::FourLevel, DOMAIN),
    );
    rig.set_entry(pasid(3), PasidEntry::pass_through(DOMAIN));
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    let data = rig.frames(1);
    rig.store(data, &[0xfeed]);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
    assert_eq!(rig.read(Some(pasid(2)), Iova::new(data.get())), Ok(0xfeed));
    assert_eq!(rig.read(Some(pasid(3)), Iova::new(data.get())), Ok(0xfeed));
}

/// The second stage of a guest in a root table of one entry: one leaf of 1 GiB, every address itself.
fn identity(rig: &mut Rig) -> (Gpa, Gpa) {
    let (root, third) = (rig.frames(1), rig.frames(1));
    rig.store(root, &[third.get() | 0b11]);
    rig.store(third, &[1 << 7 | 0b11]);
    (root, third)
}

#[test]
fn ecap_ssads_second_stages_are_marked_where_the_entry_says_so() {
    const ACCESSED: u64 = 1 << 8;
    const DIRTY: u64 = 1 << 9;
    let mut rig = Rig::booted();
    let (root, third) = identity(&mut rig);
    let data = rig.frames(1);
    let entry = PasidEntry::second_stage(root, AddressWidth::FourLevel, DOMAIN);
    rig.set_entry(pasid(1), entry);
    rig.set_entry(pasid(2), entry.with_second_stage_marks());
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    let marks = |rig: &Rig| [root, third].map(|at| rig.load(at) & (ACCESSED | DIRTY));
    let at = Iova::new(data.get());
    rig.read(Some(pasid(1)), at).unwrap();
    assert_eq!(marks(&rig), [0, 0], "not without SSADE");
    rig.read(Some(pasid(2)), at).unwrap();
    assert_eq!(marks(&rig), [ACCESSED, ACCESSED]);
    rig.write(Some(pasid(2)), at, 1).unwrap();
    assert_eq!(marks(&rig), [ACCESSED, ACCESSED | DIRTY]);
}

#[test]
fn ecap_smpwcs_without_page_walk_snoop_nothing_can_be_marked() {
    let mut rig = Rig::booted();
    let (root, _) = identity(&mut rig);
    let entry = PasidEntry::second_stage(root, AddressWidth::FourLevel, DOMAIN);
    let entry = entry.with_second_stage_marks().without_walk_snoops();
    rig.set_entry(pasid(1), entry);
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    let at = Iova::new(rig.frames(1).get());
    assert!(rig.read(Some(pasid(1)), at).is_err());
    let record = rig.take_record().unwrap();
    assert_eq!(record.reason().get(), 0x7c);
}

#[test]
fn ecap_eafs_the_extended_accessed_flag_is_set_where_the_entry_says_so() {
    const EXTENDED: u64 = 1 << 10;
    let mut rig = Rig::booted();
    for (number, flags) in [
        (1, FirstStageFlags::empty()),
        (2, FirstStageFlags::EXTENDED_ACCESSED),
    ] {
        let space = Space::with_page(&mut rig, AT, 0x1111);
        let entry = PasidEntry::first_stage(space.root, PagingMode::FourLevel, DOMAIN, flags);
        rig.set_entry(pasid(number), entry);
        rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
        assert_eq!(rig.read(Some(pasid(number)), AT), Ok(0x1111));
        let index = AT.get() >> 39 & 0x1ff;
        let top = space.root.checked_add(index * 8).unwrap();
        assert_eq!(rig.load(top) & EXTENDED != 0, number == 2);
    }
}

/// What Linux does without scalable mode: one context entry for each function, a second stage.
#[test]
fn legacy_mode_translates_requests_without_a_pasid() {
    let mut rig = Rig::new();
    let (root, third) = identity(&mut rig);
    let table = rig.frames(1);
    rig.store(rig.root, &[table.get() | 1, 0]);
    let entry = LegacyContextEntry::new(
        LegacyTranslation::SecondStage,
        root,
        AddressWidth::FourLevel,
        DOMAIN,
    );
    let at = table.checked_add(LegacyContextEntry::offset_of(FUNCTION));
    rig.store(at.unwrap(), &entry.to_words());
    let data = rig.frames(1);
    rig.store(data, &[0xfeed]);
    rig.set_root_table(TranslationTableMode::Legacy);
    rig.command(Command::TRANSLATION_ENABLE);
    assert_eq!(rig.read(None, Iova::new(data.get())), Ok(0xfeed));

    // The page goes, and the register-based commands tell of it.
    rig.store(third, &[0]);
    rig.write64(reg::IOTLB, 1 << 63 | 1 << 60);
    assert_eq!(
        rig.read64(reg::IOTLB) >> 57,
        0b1001,
        "IVT clear, IAIG global"
    );
    assert!(rig.read(None, Iova::new(data.get())).is_err());
    assert_eq!(rig.take_record().unwrap().reason().get(), 6, "not readable");

    rig.store(at.unwrap(), &[0, 0]);
    rig.write64(reg::CCMD, 1 << 63 | 1 << 61);
    assert_eq!(rig.read64(reg::CCMD) >> 63, 0);
    assert!(rig.read(None, Iova::new(data.get())).is_err());
    assert_eq!(
        rig.take_record().unwrap().reason().get(),
        2,
        "no context entry"
    );
}

#[test]
fn register_based_invalidation_is_refused_in_scalable_mode() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.set_entry(pasid(1), first_stage(&space));
    rig.write64(reg::CCMD, 1 << 63 | 1 << 61);
    assert_eq!(rig.read64(reg::CCMD) >> 59, 0b00100, "ICC clear, CAIG 0");
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    rig.write64(reg::IOTLB, 1 << 63 | 1 << 60);
    assert_eq!(rig.read64(reg::IOTLB) >> 57 & 3, 0, "IAIG 0");
}

#[test]
fn a_guest_with_more_entries_than_pasids_gets_what_its_quota_allows() {
    let mut rig = Rig::booted();
    for index in 0..64 {
        rig.set_entry(pasid(index), PasidEntry::pass_through(DOMAIN));
    }
    let table = rig.load(rig.directory);
    rig.store(rig.directory, &vec![table; 16384]);
    let before = std::time::Instant::now();
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    println!("a scan of 2^20 present entries: {:?}", before.elapsed());
    assert_eq!(rig.authority.outstanding(), 32);
    // One that has its PASID stays, whatever else is wanted.
    rig.tell_of(pasid(1));
    assert!(rig.read(Some(pasid(1)), Iova::new(0x2000)).is_ok());
    // They go as they came.
    rig.store(rig.directory, &vec![0; 16384]);
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    assert_eq!(rig.authority.outstanding(), 1);
    assert_eq!(keys(&rig, FUNCTION), []);
}

#[test]
fn tables_that_point_to_themselves_or_to_nothing_are_bounded() {
    let mut rig = Rig::booted();
    // The directory is its own tables.
    let itself = rig.directory.get() | 1;
    rig.store(rig.directory, &vec![itself; 16384]);
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    // The directory runs past the end of memory.
    let near_the_end = Gpa::new(crate::testing::MEMORY_BYTES - 4096);
    let entry = ContextEntry::new(
        near_the_end,
        DirectorySize::ALL_PASIDS,
        GUEST_PASID_ZERO,
        all_flags(),
    );
    rig.set_context_entry(FUNCTION, entry);
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
    assert_eq!(keys(&rig, FUNCTION), []);
}
