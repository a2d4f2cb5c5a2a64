use palisade_iommu::FaultReason;
use palisade_units::{Gpa, Iova};

use crate::spec::capability::{CAPABILITIES, EXTENDED, VERSION};
use crate::spec::command::{Command, RootTableAddress, TranslationTableMode};
use crate::spec::context::{ContextEntry, DirectorySize, GUEST_PASID_ZERO};
use crate::spec::descriptor::{
    ContextScope, InvDescriptor, IotlbScope, PasidCacheScope, PasidIotlbScope, WaitFlags,
};
use crate::spec::pasid_table::PasidEntry;
use crate::spec::register as reg;
use crate::testing::{DOMAIN, FUNCTION, Rig, Space, all_flags, first_stage, pasid};

const AT: Iova = Iova::new(0x7f12_3456_7000);

/// Every register access that Linux makes, in its order, until a process is bound.
#[test]
fn r6_the_boot_sequence_of_linux() {
    let mut rig = Rig::new();

    // The unit is mapped, and all ones would mean that nothing is there.
    let capabilities = rig.read64(reg::CAP);
    let extended = rig.read64(reg::ECAP);
    assert_eq!(capabilities, CAPABILITIES.into_bits());
    assert_eq!(extended, EXTENDED.into_bits());
    assert_eq!(rig.read32(reg::VER), VERSION);
    assert_eq!(rig.read32(reg::GSTS), 0);
    assert_eq!(rig.read64(0xe30), 0, "VCCAP: no virtual commands");

    // Old faults are cleared.
    assert_eq!(rig.read32(reg::FSTS), 0);
    rig.write32(reg::FSTS, 0x71);

    // Queued invalidation, of 256-bit descriptors in two pages.
    rig.write32(reg::IQT, 0);
    rig.write64(reg::IQA, rig.queue_base().get() | 1 << 11 | 1);
    rig.write32(reg::GCMD, Command::QUEUED_INVALIDATION_ENABLE.bits());
    assert_eq!(rig.read32(reg::GSTS), 1 << 26);

    // Empty root table, then everything is invalidated.
    let root = RootTableAddress::at(rig.root, TranslationTableMode::Scalable);
    rig.write64(reg::RTADDR, root.into_bits());
    rig.write32(reg::GCMD, 1 << 26 | 1 << 30);
    assert_eq!(rig.read32(reg::GSTS), 1 << 26 | 1 << 30);
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    rig.submit(&[InvDescriptor::iotlb(IotlbScope::Global)]);

    // Page requests: interrupt, then the queue of 2048 entries.
    rig.write32(reg::PEDATA, 0x4023);
    rig.write32(reg::PEADDR, 0xfee0_0000);
    rig.write32(reg::PEUADDR, 0);
    rig.write32(reg::PECTL, 0);
    assert_eq!(rig.read32(reg::PECTL), 0);
    rig.write64(reg::PQH, 0);
    rig.write64(reg::PQT, 0);
    let queue = rig.frames(16);
    rig.write64(reg::PQA, queue.get() | 4);

    // Fault interrupt.
    rig.write32(reg::FEDATA, 0x4022);
    rig.write32(reg::FEADDR, 0xfee0_0000);
    rig.write32(reg::FEUADDR, 0);
    rig.write32(reg::FECTL, 0);

    // Translation. No device has a context entry, so none reaches memory.
    assert_eq!(rig.read(None, Iova::new(0x1000)), Ok(0));
    rig.write32(reg::GCMD, 1 << 26 | 1 << 31);
    assert_eq!(rig.read32(reg::GSTS), 1 << 26 | 1 << 30 | 1 << 31);
    assert!(rig.read(None, Iova::new(0x1000)).is_err());

    // The device is probed: PASID entry 0 and context entry, each followed by its invalidations.
    let dma = Space::with_page(&mut rig, AT, 0xd1a);
    let size = DirectorySize::ALL_PASIDS;
    let context = ContextEntry::new(rig.directory, size, GUEST_PASID_ZERO, all_flags());
    rig.set_context_entry(FUNCTION, context);
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Device {
        source: FUNCTION,
        mask: crate::spec::descriptor::FunctionMask::NONE,
        domain: crate::spec::DomainId::new(0),
    })]);
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
    rig.submit(&[InvDescriptor::iotlb(IotlbScope::Global)]);
    rig.set_entry(GUEST_PASID_ZERO, first_stage(&dma));
    rig.submit(&[InvDescriptor::pasid_cache(PasidCacheScope::Pasid(
        DOMAIN,
        GUEST_PASID_ZERO,
    ))]);
    rig.submit(&[InvDescriptor::pasid_iotlb(
        DOMAIN,
        GUEST_PASID_ZERO,
        PasidIotlbScope::All,
    )]);
    assert_eq!(rig.read(None, AT), Ok(0xd1a));

    // A process is bound to PASID 1.
    let process = Space::with_page(&mut rig, AT, 0x9_1055);
    rig.bind(pasid(1), &process);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x9_1055));

    // It goes: the entry first, the invalidations, then it is empty.
    let gone = PasidEntry::not_present().with_fault_processing_disabled();
    rig.set_entry(pasid(1), gone);
    rig.submit(&[
        InvDescriptor::pasid_cache(PasidCacheScope::Pasid(DOMAIN, pasid(1))),
        InvDescriptor::pasid_iotlb(DOMAIN, pasid(1), PasidIotlbScope::All),
        InvDescriptor::wait(
            rig.status_address(),
            0,
            WaitFlags::FENCE | WaitFlags::PAGE_REQUEST_DRAIN,
        ),
    ]);
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    assert_eq!(rig.read(None, AT), Ok(0xd1a), "the others go on");
}

#[test]
fn r6_two_processes_at_once_see_each_their_own() {
    let mut rig = Rig::booted();
    let first = Space::with_page(&mut rig, AT, 0x1111);
    let second = Space::with_page(&mut rig, AT, 0x2222);
    rig.bind(pasid(1), &first);
    rig.bind(pasid(2), &second);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
    assert_eq!(rig.read(Some(pasid(2)), AT), Ok(0x2222));
}

#[test]
fn r1_with_translation_off_requests_pass_and_pasids_find_nothing() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    let data = rig.frames(1);
    rig.store(data, &[0xfeed]);
    rig.write32(reg::GCMD, Command::QUEUED_INVALIDATION_ENABLE.bits());
    assert_eq!(rig.read(None, Iova::new(data.get())), Ok(0xfeed));
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    // On again: the tables say what they said.
    rig.command(Command::TRANSLATION_ENABLE);
    assert!(rig.read(None, Iova::new(data.get())).is_err());
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
}

#[test]
fn a_new_root_table_takes_the_place_of_the_old_one() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    let empty = rig.frames(1);
    let old = rig.root;
    rig.root = empty;
    rig.write64(
        reg::RTADDR,
        RootTableAddress::at(empty, TranslationTableMode::Scalable).into_bits(),
    );
    assert_eq!(
        rig.read(Some(pasid(1)), AT),
        Ok(0x1111),
        "the register alone does nothing"
    );
    // Nor does the command: without CAP.ESRTPS what is cached stays until it is invalidated.
    rig.command(Command::SET_ROOT_TABLE);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
    let everything = InvDescriptor::context_cache(ContextScope::Global);
    rig.submit(&[everything]);
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    rig.root = old;
    rig.set_root_table(TranslationTableMode::Scalable);
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    rig.submit(&[everything]);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
}

#[test]
fn a_reset_leaves_nothing_of_what_was() {
    use palisade_pci::Function;

    let mut rig = Rig::booted();
    let before = rig.authority.outstanding();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    assert_eq!(rig.authority.outstanding(), before + 1);
    rig.unit.reset();
    assert_eq!(rig.authority.outstanding(), before);
    for register in reg::REGISTERS {
        let value = match register.width {
            reg::Width::Dword => rig.read32(register.offset).into(),
            reg::Width::Qword => rig.read64(register.offset),
        };
        assert_eq!(value, register.reset, "{}", register.name);
    }
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    assert!(rig.read(None, Iova::new(0x2000)).is_ok());
    // The next guest boots on it.
    rig.boot();
    let space = Space::with_page(&mut rig, AT, 0x3333);
    rig.bind(pasid(1), &space);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x3333));
}

#[test]
fn a_function_that_comes_late_is_bound_as_the_tables_say() {
    use palisade_iommu::{PasidSupport, Sharing};
    use palisade_units::Bdf;

    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    let late = Bdf::new(0, 0x11, 0);
    rig.set_context(late, all_flags());
    let handle = rig
        .iommu
        .add_function(Bdf::new(0x6b, 0, 0), PasidSupport::Width(20))
        .unwrap();
    rig.attach(late, handle.clone(), Sharing::Exclusive);
    rig.unit.attached(late);
    rig.handle = handle;
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
    assert!(rig.read(None, Iova::new(0x1000)).is_err());
}

#[test]
fn a_reserved_translation_mode_lets_nothing_through() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    rig.set_root_table(TranslationTableMode::Unsupported(2));
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    let record = rig.take_record().unwrap();
    assert_eq!(record.reason().get(), FaultReason::RootTableInvalid.code());
}

#[test]
fn a_root_table_without_memory_is_a_fault_and_no_more() {
    let mut rig = Rig::booted();
    rig.root = Gpa::new(0xdead_0000_0000);
    rig.set_root_table(TranslationTableMode::Scalable);
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    let record = rig.take_record().unwrap();
    assert_eq!(record.reason().get(), FaultReason::RootEntryAccess.code());
}
