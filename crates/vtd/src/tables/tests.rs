use palisade_iommu::{DeviceTlb, FaultProcessing, FaultReason, Levels, Space};
use palisade_units::{Bdf, Gpa, GuestPasid};

use super::*;
use crate::spec::DomainId;
use crate::spec::context::{ContextEntry, ContextFlags, DirectorySize, GUEST_PASID_ZERO};
use crate::spec::pasid_table::{FirstStageFlags, PagingMode, PasidEntry};
use crate::testing::{DOMAIN, FUNCTION, Rig, all_flags, pasid};

const NOWHERE: Gpa = Gpa::new(0x00de_adbe_e000);

/// A guest with one well-formed entry, of PASID 5, and its tables.
struct Guest {
    rig: Rig,
    memory: GuestMemory,
    mode: TranslationTableMode,
}

impl Guest {
    fn new() -> Self {
        let mut rig = Rig::new();
        let memory = crate::testing::connection(&rig.shared);
        rig.set_context(FUNCTION, all_flags());
        rig.set_entry(pasid(5), PasidEntry::pass_through(DOMAIN));
        Self {
            rig,
            memory,
            mode: TranslationTableMode::Scalable,
        }
    }

    fn tables(&self) -> Tables<'_> {
        Tables::new(&self.memory, RootTableAddress::at(self.rig.root, self.mode))
    }

    fn look_up(&self, tag: Tag) -> Result<Found, TableFault> {
        self.tables().look_up(FUNCTION, tag)
    }

    /// The reason of a fault of PASID 5.
    fn reason(&self) -> Option<FaultReason> {
        let fault = self.look_up(Tag::Pasid(pasid(5))).err()?;
        FaultReason::from_code(fault.code.get())
    }

    fn root_entry(&self) -> Gpa {
        self.rig.root
    }

    fn context_entry(&self) -> Gpa {
        let offset = ContextEntry::offset_of(FUNCTION);
        self.rig.context_table.checked_add(offset).unwrap()
    }

    fn directory_entry(&self) -> Gpa {
        let offset = DirectoryEntry::offset_of(pasid(5));
        self.rig.directory.checked_add(offset).unwrap()
    }

    fn pasid_entry(&mut self) -> Gpa {
        self.rig.entry_at(pasid(5))
    }

    fn or(&self, at: Gpa, word: u64, bits: u64) {
        let at = at.checked_add(word * 8).unwrap();
        self.rig.store(at, &[self.rig.load(at) | bits]);
    }

    fn set_flags(&self, flags: ContextFlags) {
        self.rig.set_context(FUNCTION, flags);
    }
}

/// The upper half of a root entry rules the function, for its device number is 16.
const UPPER: u64 = 1;

#[test]
fn a_well_formed_entry_is_found() {
    let guest = Guest::new();
    let found = guest.look_up(Tag::Pasid(pasid(5))).unwrap();
    assert_eq!(found.space, Space::PassThrough);
    assert_eq!(found.processing, FaultProcessing::Report);
}

#[test]
fn r59_root_table_address_faults() {
    let mut guest = Guest::new();
    guest.mode = TranslationTableMode::Unsupported(3);
    assert_eq!(guest.reason(), Some(FaultReason::RootTableInvalid));
    guest.mode = TranslationTableMode::Legacy;
    assert_eq!(guest.reason(), Some(FaultReason::ModeForbidsPasid));
}

#[test]
fn r59_root_entry_faults() {
    let mut guest = Guest::new();
    guest.or(guest.root_entry(), UPPER, 1 << 3);
    assert_eq!(guest.reason(), Some(FaultReason::RootEntryReserved));
    guest.rig.store(guest.root_entry(), &[!0, 0]);
    assert_eq!(guest.reason(), Some(FaultReason::RootEntryNotPresent));
    guest.rig.root = NOWHERE;
    assert_eq!(guest.reason(), Some(FaultReason::RootEntryAccess));
}

#[test]
fn r59_context_entry_faults() {
    let guest = Guest::new();
    guest.or(guest.context_entry(), 3, 1 << 17);
    assert_eq!(guest.reason(), Some(FaultReason::ContextEntryReserved));
    guest.rig.store(guest.context_entry(), &[0; 4]);
    assert_eq!(guest.reason(), Some(FaultReason::ContextEntryNotPresent));
    guest.rig.store(guest.root_entry(), &[0, NOWHERE.get() | 1]);
    assert_eq!(guest.reason(), Some(FaultReason::ContextEntryAccess));
}

#[test]
fn r59_invalid_context_entries() {
    let guest = Guest::new();
    guest.set_flags(ContextFlags::PASID | ContextFlags::PAGE_REQUESTS);
    assert_eq!(
        guest.reason(),
        Some(FaultReason::ContextEntryInvalid),
        "page requests without a device TLB"
    );
    let smallest = DirectorySize::new(0).unwrap();
    let entry = ContextEntry::new(guest.rig.directory, smallest, pasid(8192), all_flags());
    guest.rig.set_context_entry(FUNCTION, entry);
    assert_eq!(
        guest.reason(),
        Some(FaultReason::ContextEntryInvalid),
        "RID_PASID beyond the directory"
    );
}

#[test]
fn r59_what_the_context_entry_forbids() {
    let guest = Guest::new();
    guest.set_flags(ContextFlags::DEVICE_TLB);
    assert_eq!(guest.reason(), Some(FaultReason::PasidDisabled));
    guest.set_flags(all_flags());
    let tables = guest.tables();
    let fault = tables.look_up(FUNCTION, Tag::Pasid(GUEST_PASID_ZERO));
    assert_eq!(
        fault.unwrap_err().code.get(),
        FaultReason::RidPasidInvalid.code(),
        "RID_PASID is for requests without a PASID alone"
    );
    let smallest = DirectorySize::new(0).unwrap();
    let entry = ContextEntry::new(guest.rig.directory, smallest, GUEST_PASID_ZERO, all_flags());
    guest.rig.set_context_entry(FUNCTION, entry);
    let fault = guest.look_up(Tag::Pasid(pasid(8192))).unwrap_err();
    assert_eq!(fault.code.get(), FaultReason::PasidTooLarge.code());
    assert!(guest.look_up(Tag::Pasid(pasid(5))).is_ok());
}

#[test]
fn r59_page_requests_that_the_context_entry_forbids() {
    let guest = Guest::new();
    let check = |guest: &Guest| {
        let tag = Tag::Pasid(pasid(5));
        guest.tables().check_page_request(FUNCTION, tag)
    };
    assert_eq!(check(&guest), Ok(()));
    guest.set_flags(ContextFlags::DEVICE_TLB | ContextFlags::PASID);
    let fault = check(&guest).unwrap_err();
    assert_eq!(fault.code.get(), FaultReason::PageRequestDisabled.code());
    let guest = Guest {
        mode: TranslationTableMode::Legacy,
        ..Guest::new()
    };
    assert_eq!(check(&guest).unwrap_err().code.get(), 0x32);
}

#[test]
fn r59_directory_entry_faults() {
    let guest = Guest::new();
    guest.or(guest.directory_entry(), 0, 1 << 2);
    assert_eq!(guest.reason(), Some(FaultReason::PasidDirectoryReserved));
    guest.rig.store(guest.directory_entry(), &[0]);
    assert_eq!(guest.reason(), Some(FaultReason::PasidDirectoryNotPresent));
    let context = ContextEntry::new(
        NOWHERE,
        DirectorySize::ALL_PASIDS,
        GUEST_PASID_ZERO,
        all_flags(),
    );
    guest.rig.set_context_entry(FUNCTION, context);
    assert_eq!(guest.reason(), Some(FaultReason::PasidDirectoryAccess));
}

#[test]
fn r59_pasid_entry_faults() {
    let mut guest = Guest::new();
    let entry = guest.pasid_entry();
    guest.or(entry, 5, 1);
    assert_eq!(guest.reason(), Some(FaultReason::PasidEntryReserved));
    guest.rig.store(entry, &[0; 8]);
    assert_eq!(guest.reason(), Some(FaultReason::PasidEntryNotPresent));
    let nowhere = DirectoryEntry::to(NOWHERE).into_bits();
    guest.rig.store(guest.directory_entry(), &[nowhere]);
    assert_eq!(guest.reason(), Some(FaultReason::PasidEntryAccess));
}

#[test]
fn r59_invalid_pasid_entries() {
    let mut guest = Guest::new();
    let root = Gpa::new(0x1000);
    let first = |mode| spec::FirstStage {
        root,
        mode,
        flags: FirstStageFlags::empty(),
    };
    let second = |width| spec::SecondStage { root, width };
    let far = spec::FirstStage {
        root: Gpa::new(1 << 48),
        ..first(PagingMode::FourLevel)
    };
    let reserved_mode = PagingMode::Reserved(2);
    let none = FirstStageFlags::empty();
    for (entry, what) in [
        (
            PasidEntry::from_words([1, 1, 0, 0, 0, 0, 0, 0]),
            "translation type 0",
        ),
        (
            PasidEntry::from_words([7 << 6 | 1, 1, 0, 0, 0, 0, 0, 0]),
            "translation type 7",
        ),
        (
            PasidEntry::first_stage(root, reserved_mode, DOMAIN, none),
            "a reserved paging mode",
        ),
        (
            PasidEntry::second_stage(root, AddressWidth::Reserved(0), DOMAIN),
            "a width of two levels",
        ),
        (
            PasidEntry::second_stage(root, AddressWidth::Reserved(5), DOMAIN),
            "a reserved width",
        ),
        (
            PasidEntry::nested(far, second(AddressWidth::FourLevel), DOMAIN),
            "a first stage out of the second's reach",
        ),
    ] {
        guest.rig.set_entry(pasid(5), entry);
        assert_eq!(
            guest.reason(),
            Some(FaultReason::PasidEntryInvalid),
            "{what}"
        );
    }
    let nested = PasidEntry::nested(
        first(PagingMode::FiveLevel),
        second(AddressWidth::FourLevel),
        DOMAIN,
    );
    guest.rig.set_entry(pasid(5), nested);
    assert_eq!(guest.reason(), None);
}

#[test]
fn r60_fpd_of_any_entry_on_the_way_counts_present_or_not() {
    let fault = |guest: &Guest| guest.look_up(Tag::Pasid(pasid(5))).unwrap_err().processing;

    let mut guest = Guest::new();
    guest.rig.set_entry(pasid(5), PasidEntry::not_present());
    assert_eq!(fault(&guest), FaultProcessing::Report);
    let silent = PasidEntry::not_present().with_fault_processing_disabled();
    guest.rig.set_entry(pasid(5), silent);
    assert_eq!(fault(&guest), FaultProcessing::Disabled, "PASID entry");

    let guest = Guest::new();
    guest.rig.store(guest.directory_entry(), &[0b10]);
    assert_eq!(fault(&guest), FaultProcessing::Disabled, "directory entry");

    let guest = Guest::new();
    guest.rig.store(guest.context_entry(), &[0b10, 0, 0, 0]);
    assert_eq!(fault(&guest), FaultProcessing::Disabled, "context entry");

    // An entry that could not be read is not qualified: it is reported all the same.
    let guest = Guest::new();
    guest.or(guest.context_entry(), 0, 0b10);
    let nowhere = DirectoryEntry::to(NOWHERE).into_bits();
    guest.rig.store(guest.directory_entry(), &[nowhere]);
    assert_eq!(fault(&guest), FaultProcessing::Report);
}

#[test]
fn fpd_of_the_context_is_fpd_of_what_is_bound() {
    let guest = Guest::new();
    guest.set_flags(all_flags() | ContextFlags::FAULT_PROCESSING_DISABLE);
    let found = guest.look_up(Tag::Pasid(pasid(5))).unwrap();
    assert_eq!(found.processing, FaultProcessing::Disabled);
}

#[test]
fn execution_is_always_forbidden_by_bit_63() {
    // Newer guests leave NXE clear, which older revisions took for "bit 63 is reserved".
    let mut guest = Guest::new();
    let root = Gpa::new(0x3000);
    let flags = FirstStageFlags::WRITE_PROTECT;
    let entry = PasidEntry::first_stage(root, PagingMode::FiveLevel, DOMAIN, flags);
    guest.rig.set_entry(pasid(5), entry);
    let found = guest.look_up(Tag::Pasid(pasid(5))).unwrap();
    let Space::FirstStage(stage) = found.space else {
        panic!("{found:?}");
    };
    assert_eq!(stage.levels, Levels::Five);
    assert_eq!(stage.no_execute, NoExecute::Honoured);
    assert_eq!(stage.write_protect, WriteProtect::All);
    assert_eq!(stage.supervisor, SupervisorRequests::Refused);
}

mod legacy {
    use super::*;

    fn guest(entry: LegacyContextEntry) -> Guest {
        let mut rig = Rig::new();
        let memory = crate::testing::connection(&rig.shared);
        let table = rig.frames(1);
        rig.store(rig.root, &[table.get() | 1, 0]);
        let at = table.checked_add(LegacyContextEntry::offset_of(FUNCTION));
        rig.store(at.unwrap(), &entry.to_words());
        Guest {
            rig,
            memory,
            mode: TranslationTableMode::Legacy,
        }
    }

    fn entry(translation: LegacyTranslation, width: AddressWidth) -> LegacyContextEntry {
        let domain = DomainId::new(3);
        LegacyContextEntry::new(translation, Gpa::new(0x5000), width, domain)
    }

    fn fault(guest: &Guest) -> u8 {
        guest.look_up(Tag::Without).unwrap_err().code.get()
    }

    #[test]
    fn a_second_stage_and_pass_through_are_found() {
        let four = AddressWidth::FourLevel;
        let space = |translation| guest(entry(translation, four)).look_up(Tag::Without);
        let second = Space::SecondStage(SecondStage::new(Gpa::new(0x5000), Levels::Four));
        let found = |space, device_tlb| Found {
            space,
            domain: DomainId::new(3),
            processing: FaultProcessing::Report,
            device_tlb,
            supervisor: SupervisorRequests::Refused,
        };
        assert_eq!(
            space(LegacyTranslation::SecondStage),
            Ok(found(second, DeviceTlb::Blocked))
        );
        assert_eq!(
            space(LegacyTranslation::SecondStageWithDeviceTlb),
            Ok(found(second, DeviceTlb::Allowed))
        );
        assert_eq!(
            space(LegacyTranslation::PassThrough),
            Ok(found(Space::PassThrough, DeviceTlb::Blocked))
        );
    }

    #[test]
    fn cap_sagaw_second_stages_of_three_to_five_levels_are_found() {
        for (width, levels) in [
            (AddressWidth::ThreeLevel, Levels::Three),
            (AddressWidth::FourLevel, Levels::Four),
            (AddressWidth::FiveLevel, Levels::Five),
        ] {
            let second = SecondStage::new(Gpa::new(0x5000), levels);
            let found = guest(entry(LegacyTranslation::SecondStage, width)).look_up(Tag::Without);
            assert_eq!(
                found.map(|found| found.space),
                Ok(Space::SecondStage(second))
            );

            let mut guest = Guest::new();
            let second = PasidEntry::second_stage(Gpa::new(0x5000), width, DOMAIN);
            guest.rig.set_entry(pasid(5), second);
            assert_eq!(guest.reason(), None, "{width:?}");
        }
    }

    #[test]
    fn r59_each_legacy_fault_has_its_code() {
        let good = entry(LegacyTranslation::SecondStage, AddressWidth::FourLevel);
        let reserved = entry(LegacyTranslation::Reserved, AddressWidth::FourLevel);
        assert_eq!(fault(&guest(reserved)), 0x3);
        for width in [0, 4, 7].map(AddressWidth::Reserved) {
            let narrow = entry(LegacyTranslation::SecondStage, width);
            assert_eq!(fault(&guest(narrow)), 0x3);
            let through = entry(LegacyTranslation::PassThrough, width);
            assert_eq!(fault(&guest(through)), 0x3);
        }
        let [low, high] = good.to_words();
        let absent = LegacyContextEntry::from_words([low & !1, high]);
        assert_eq!(fault(&guest(absent)), 0x2);
        let bits = LegacyContextEntry::from_words([low | 1 << 4, high]);
        assert_eq!(fault(&guest(bits)), 0xb);

        let mut guest = guest(good);
        guest.rig.store(guest.root_entry(), &[NOWHERE.get() | 1, 0]);
        assert_eq!(fault(&guest), 0x9);
        guest.rig.store(guest.root_entry(), &[1, 1]);
        assert_eq!(fault(&guest), 0xa);
        guest.rig.store(guest.root_entry(), &[0, 0]);
        assert_eq!(fault(&guest), 0x1);
        guest.rig.root = NOWHERE;
        assert_eq!(fault(&guest), 0x8);
    }
}

mod scan {
    use super::*;

    fn scan(guest: &Guest) -> (Vec<u32>, u32) {
        let mut found = Vec::new();
        let context = guest.tables().context(FUNCTION).unwrap();
        let pages = guest
            .tables()
            .scan(context, |pasid, _| found.push(pasid.get()));
        (found, pages)
    }

    #[test]
    fn finds_what_is_present_and_well_formed_but_for_rid_pasid() {
        let mut guest = Guest::new();
        for raw in [0, 1, 63, 64, 0x12345, 0xfffff] {
            guest
                .rig
                .set_entry(pasid(raw), PasidEntry::pass_through(DOMAIN));
        }
        let mut broken = PasidEntry::pass_through(DOMAIN).to_words();
        broken[4] = 1;
        guest
            .rig
            .set_entry(pasid(2), PasidEntry::from_words(broken));
        let (found, pages) = scan(&guest);
        assert_eq!(found, [1, 5, 63, 64, 0x12345, 0xfffff]);
        assert_eq!(
            pages,
            32 + 4,
            "the directory, and the tables that are there"
        );
    }

    #[test]
    fn is_over_at_the_end_of_a_small_directory() {
        let mut guest = Guest::new();
        guest
            .rig
            .set_entry(pasid(8192), PasidEntry::pass_through(DOMAIN));
        let smallest = DirectorySize::new(0).unwrap();
        let entry = ContextEntry::new(guest.rig.directory, smallest, GUEST_PASID_ZERO, all_flags());
        guest.rig.set_context_entry(FUNCTION, entry);
        assert_eq!(scan(&guest), (vec![5], 2));
    }

    #[test]
    fn without_pasids_there_is_nothing() {
        let guest = Guest::new();
        guest.set_flags(ContextFlags::DEVICE_TLB);
        assert_eq!(scan(&guest), (vec![], 0));
    }

    #[test]
    fn a_directory_full_of_one_table_is_bounded() {
        let mut guest = Guest::new();
        for index in 0..64 {
            guest
                .rig
                .set_entry(pasid(index), PasidEntry::pass_through(DOMAIN));
        }
        let table = guest.rig.load(guest.directory_entry());
        let entries = vec![table; 16384];
        guest.rig.store(guest.rig.directory, &entries);
        let (found, pages) = scan(&guest);
        assert_eq!(found.len(), (1 << 20) - 1);
        assert_eq!(pages, 32 + 16384);
    }
}

#[test]
fn every_function_has_its_own_context() {
    let guest = Guest::new();
    let other = Bdf::new(0, 0x10, 1);
    let tag = Tag::Pasid(GuestPasid::new(5).unwrap());
    let fault = guest.tables().look_up(other, tag).unwrap_err();
    assert_eq!(fault.code.get(), FaultReason::ContextEntryNotPresent.code());
}
