//! Global commands and invalidation by register (VT-d §11.4.4, §11.4.6).

use palisade_iommu::{DmaPort, Requester};
use palisade_units::{Bdf, Gpa, Iova};

use crate::spec::capability::MAX_ADDRESS_MASK;
use crate::spec::command::{Command, InvalidateAddress, RootTableAddress, TranslationTableMode};
use crate::spec::context::AddressWidth;
use crate::spec::descriptor::{LeafHint, PageRange};
use crate::spec::legacy_context::{LegacyContextEntry, LegacyTranslation};
use crate::spec::register as reg;
use crate::testing::{DOMAIN, FUNCTION, Rig, Space, pasid};

const AT: Iova = Iova::new(0x8000_3000);

const START: u64 = 1 << 63;

/// A guest in legacy mode whose function has a second stage with one page.
struct Legacy {
    rig: Rig,
    /// With a cache, as engines have.
    port: DmaPort,
    context: Gpa,
    leaf: Gpa,
}

impl Legacy {
    fn new() -> Self {
        let mut rig = Rig::new();
        let tables: Vec<Gpa> = (0..4).map(|_| rig.frames(1)).collect();
        let page = rig.frames(1);
        rig.store(page, &[0x600d]);
        let index = |level: u32| AT.get() >> (12 + 9 * (level - 1)) & 0x1ff;
        for (table, level) in tables.iter().zip((1..=4).rev()) {
            let next = usize::try_from(4 - level + 1).unwrap();
            let to = tables.get(next).copied().unwrap_or(page);
            let entry = table.checked_add(index(level) * 8).unwrap();
            rig.store(entry, &[to.get() | 0b11]);
        }
        let table = rig.context_table;
        rig.store(rig.root, &[table.get() | 1, 0]);
        let entry = LegacyContextEntry::new(
            LegacyTranslation::SecondStage,
            tables[0],
            AddressWidth::FourLevel,
            DOMAIN,
        );
        let context = table.checked_add(LegacyContextEntry::offset_of(FUNCTION));
        let context = context.unwrap();
        rig.store(context, &entry.to_words());
        rig.set_root_table(TranslationTableMode::Legacy);
        rig.command(Command::TRANSLATION_ENABLE);
        let leaf = tables[3].checked_add(index(1) * 8).unwrap();
        Self {
            port: rig.port(),
            rig,
            context,
            leaf,
        }
    }

    fn reads(&mut self) -> bool {
        let mut bytes = [0; 8];
        let read = self.port.read(Requester::new(None), AT, &mut bytes);
        read.is_ok() && u64::from_le_bytes(bytes) == 0x600d
    }

    /// The bits of a command that has ended: what was invalidated.
    fn invalidates_contexts(&self, command: u64) -> u64 {
        self.rig.write64(reg::CCMD, START | command);
        let after = self.rig.read64(reg::CCMD);
        assert_eq!(after & START, 0, "ICC");
        after >> 59 & 3
    }

    fn invalidates_translations(&self, command: u64) -> u64 {
        self.rig.write64(reg::IOTLB, START | command);
        let after = self.rig.read64(reg::IOTLB);
        assert_eq!(after & START, 0, "IVT");
        after >> 57 & 3
    }
}

#[test]
fn commands_that_are_not_offered_do_nothing_and_have_no_status() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.bind(pasid(1), &space);
    let status = rig.read32(reg::GSTS);
    let lasting = status & Command::LASTING.bits();
    for bit in [
        Command::WRITE_BUFFER_FLUSH,
        Command::INTERRUPT_REMAPPING_ENABLE,
        Command::SET_INTERRUPT_TABLE,
        Command::COMPATIBILITY_FORMAT_INTERRUPT,
    ] {
        rig.write32(reg::GCMD, lasting | bit.bits());
        assert_eq!(rig.read32(reg::GSTS), status, "{bit:?}");
        assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x600d));
    }
    // Nor do those that nobody ever defined, nor a write to the status.
    rig.write32(reg::GCMD, lasting | 0x007f_ffff | 1 << 28 | 1 << 29);
    rig.write32(reg::GSTS, 0);
    assert_eq!(rig.read32(reg::GSTS), status);
    assert_eq!(rig.read32(reg::GCMD), 0, "write-only");
    assert_eq!(rig.messages.take(), []);
}

#[test]
fn several_commands_at_once_are_all_done_the_root_first() {
    let mut rig = Rig::new();
    rig.set_context(FUNCTION, crate::testing::all_flags());
    let root = RootTableAddress::at(rig.root, TranslationTableMode::Scalable);
    rig.write64(reg::RTADDR, root.into_bits());
    rig.write64(reg::IQA, rig.queue_base().get() | 1 << 11 | 1);
    rig.write32(reg::GCMD, 0b1100_0100 << 24);
    assert_eq!(rig.read32(reg::GSTS), 0b1100_0100 << 24);
    assert_eq!(rig.read32(reg::FSTS), 0);
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.bind(pasid(1), &space);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x600d));
    // And all undone, but what was done once.
    rig.write32(reg::GCMD, 0);
    assert_eq!(rig.read32(reg::GSTS), 1 << 30);
}

#[test]
fn a_command_of_one_shot_is_not_repeated_by_the_next_one() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x600d);
    rig.bind(pasid(1), &space);
    let empty = rig.frames(1);
    let root = RootTableAddress::at(empty, TranslationTableMode::Scalable);
    rig.write64(reg::RTADDR, root.into_bits());
    // Translation goes off and on: the root is still the one that was set.
    rig.write32(reg::GCMD, Command::QUEUED_INVALIDATION_ENABLE.bits());
    rig.command(Command::TRANSLATION_ENABLE);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x600d));
}

/// CAIG says what was done: a domain of context entries is everything, a device is that device.
#[test]
fn r40_context_commands_answer_what_they_did() {
    let device = u64::from(FUNCTION.requester_id()) << 16;
    for (command, done) in [(1 << 61, 1), (2 << 61 | 1, 1), (3 << 61 | device, 3)] {
        let mut legacy = Legacy::new();
        assert!(legacy.reads());
        legacy.rig.store(legacy.context, &[0, 0]);
        assert!(legacy.reads(), "cached");
        assert_eq!(legacy.invalidates_contexts(command), done);
        assert!(!legacy.reads());
    }
}

#[test]
fn r40_a_device_selective_context_command_leaves_other_devices_alone() {
    let mut legacy = Legacy::new();
    legacy.rig.store(legacy.context, &[0, 0]);
    let command =
        |device: Bdf, mask: u64| 3 << 61 | u64::from(device.requester_id()) << 16 | mask << 32;
    let neighbour = Bdf::new(0, 0x10, 4);
    assert_eq!(legacy.invalidates_contexts(command(neighbour, 0)), 3);
    assert!(legacy.reads(), "another function");
    let other = Bdf::new(0, 0x11, 0);
    assert_eq!(legacy.invalidates_contexts(command(other, 3)), 3);
    assert!(legacy.reads(), "another device");
    assert_eq!(legacy.invalidates_contexts(command(neighbour, 1)), 3);
    assert!(!legacy.reads(), "FM leaves the highest bit out");
}

#[test]
fn r40_a_reserved_granularity_is_answered_with_itself_and_does_nothing() {
    let mut legacy = Legacy::new();
    assert!(legacy.reads());
    legacy.rig.store(legacy.context, &[0, 0]);
    legacy.rig.store(legacy.leaf, &[0]);
    assert_eq!(legacy.invalidates_contexts(0), 0);
    assert_eq!(legacy.invalidates_translations(0), 0);
    assert!(legacy.reads());
}

/// IAIG says what was done.
#[test]
fn r40_iotlb_commands_answer_what_they_did() {
    for (command, done) in [(1 << 60, 1), (2 << 60 | 1 << 32, 2), (3 << 60 | 1 << 32, 3)] {
        let mut legacy = Legacy::new();
        assert!(legacy.reads());
        legacy.rig.store(legacy.leaf, &[0]);
        assert!(legacy.reads(), "cached");
        for hint in [LeafHint::LeavesOnly, LeafHint::AnyLevel] {
            let pages = InvalidateAddress::new(PageRange::holding(AT, 2), hint);
            legacy.rig.write64(reg::IVA, pages.into_bits());
            // Reads and writes are drained, as asked.
            let drains = 3 << 48;
            assert_eq!(legacy.invalidates_translations(command | drains), done);
        }
        assert!(!legacy.reads());
    }
}

#[test]
fn r40_iotlb_commands_leave_other_domains_and_pages_alone() {
    let mut legacy = Legacy::new();
    assert!(legacy.reads());
    legacy.rig.store(legacy.leaf, &[0]);
    let [mine, other] = [1 << 32, 2 << 32];
    let page = |at| InvalidateAddress::new(PageRange::page(at), LeafHint::AnyLevel);
    legacy.rig.write64(reg::IVA, page(AT).into_bits());
    assert_eq!(legacy.invalidates_translations(2 << 60 | other), 2);
    assert_eq!(legacy.invalidates_translations(3 << 60 | other), 3);
    let next = Iova::new(AT.get() + 0x1000);
    legacy.rig.write64(reg::IVA, page(next).into_bits());
    assert_eq!(legacy.invalidates_translations(3 << 60 | mine), 3);
    assert!(legacy.reads());
    legacy.rig.write64(reg::IVA, page(AT).into_bits());
    assert_eq!(legacy.invalidates_translations(3 << 60 | mine), 3);
    assert!(!legacy.reads());
}

#[test]
fn r40_pages_under_a_mask_beyond_the_capability_are_not_invalidated() {
    let mut legacy = Legacy::new();
    assert!(legacy.reads());
    legacy.rig.store(legacy.leaf, &[0]);
    let address = AT.get() | u64::from(MAX_ADDRESS_MASK + 1);
    legacy.rig.write64(reg::IVA, address);
    assert_eq!(legacy.invalidates_translations(3 << 60), 0);
    assert!(legacy.reads(), "ignored");
    // The largest that is offered, with address bits beyond MGAW, which do not count.
    let address = 0x7f << 57 | AT.get() | u64::from(MAX_ADDRESS_MASK);
    legacy.rig.write64(reg::IVA, address);
    assert_eq!(legacy.invalidates_translations(3 << 60 | 1 << 32), 3);
    assert!(!legacy.reads());
}
