//! Which reason a record has when several apply at once: the one that hardware meets first on its way
//! from the root to the page (VT-d §7.1.3).

use palisade_iommu::{PasidEnable, PasidSupport, Privilege, Requester, Sharing};
use palisade_units::{Bdf, Gpa, GuestPasid, Iova, PasidTag};

use crate::spec::DomainId;
use crate::spec::command::TranslationTableMode;
use crate::spec::context::{AddressWidth, ContextEntry};
use crate::spec::descriptor::{ContextScope, InvDescriptor};
use crate::spec::legacy_context::{LegacyContextEntry, LegacyTranslation};
use crate::spec::pasid_table::{DirectoryEntry, PasidEntry};
use crate::spec::register as reg;
use crate::testing::{FUNCTION, Rig, Space, all_flags, first_stage, pasid};

const NOWHERE: Gpa = Gpa::new(0x00de_adbe_e000);
const AT: u64 = 0x7f12_3456_7000;
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const USER: u64 = 1 << 2;

/// A PASID beyond the smallest directory.
fn far() -> GuestPasid {
    pasid(8197)
}

/// A guest in which nothing is wrong at first, and the request that its device makes.
struct Guest {
    rig: Rig,
    mode: TranslationTableMode,
    pasid: Option<GuestPasid>,
    at: u64,
    privilege: Privilege,
    execute: bool,
    root_entry: Gpa,
    context: Gpa,
    directory: Gpa,
    entry: Gpa,
    /// The entries of the page table, from the top on.
    stages: [Gpa; 4],
}

fn plus(base: Gpa, offset: u64) -> Gpa {
    base.checked_add(offset).unwrap()
}

impl Guest {
    fn scalable() -> Self {
        let mut rig = Rig::booted();
        let space = Space::with_page(&mut rig, Iova::new(AT), 1);
        rig.set_entry(far(), first_stage(&space));
        Self {
            mode: TranslationTableMode::Scalable,
            pasid: Some(far()),
            at: AT,
            privilege: Privilege::User,
            execute: false,
            // The half for device number 16.
            root_entry: plus(rig.root, 8),
            context: plus(rig.context_table, ContextEntry::offset_of(FUNCTION)),
            directory: plus(rig.directory, DirectoryEntry::offset_of(far())),
            entry: rig.entry_at(far()),
            stages: entries(&rig, space.root),
            rig,
        }
    }

    fn legacy() -> Self {
        let mut guest = Self::scalable();
        let rig = &mut guest.rig;
        let top = rig.frames(1);
        rig.root = rig.frames(1);
        let contexts = rig.frames(1);
        rig.store(rig.root, &[contexts.get() | PRESENT, 0]);
        let mut table = top;
        for shift in [39, 30, 21, 12] {
            let entry = plus(table, (AT >> shift & 0x1ff) * 8);
            table = rig.frames(1);
            rig.store(entry, &[table.get() | 0b11]);
        }
        let four = AddressWidth::FourLevel;
        let second = LegacyTranslation::SecondStage;
        let entry = LegacyContextEntry::new(second, top, four, DomainId::new(3));
        let context = plus(contexts, LegacyContextEntry::offset_of(FUNCTION));
        rig.store(context, &entry.to_words());
        Self {
            mode: TranslationTableMode::Legacy,
            pasid: None,
            root_entry: rig.root,
            context,
            stages: entries(rig, top),
            ..guest
        }
    }

    fn set(&self, at: Gpa, bits: u64) {
        self.rig.store(at, &[self.rig.load(at) | bits]);
    }

    fn clear(&self, at: Gpa, bits: u64) {
        self.rig.store(at, &[self.rig.load(at) & !bits]);
    }

    /// Points an entry to where there is no memory, and leaves the rest of it.
    fn mislead(&self, at: Gpa) {
        let kept = self.rig.load(at) & 0xfff;
        self.rig.store(at, &[NOWHERE.get() | kept]);
    }

    /// Tells the unit of everything, makes the request, and returns the code of its record.
    fn code(&mut self) -> Option<u8> {
        self.rig.set_root_table(self.mode);
        let everything = InvDescriptor::context_cache(ContextScope::Global);
        self.rig.submit(&[everything]);
        let by = Requester {
            privilege: self.privilege,
            ..Requester::new(self.pasid.map(PasidTag::of_exclusive_owner))
        };
        let (mut port, at) = (self.rig.port(), Iova::new(self.at));
        let mut bytes = [0; 8];
        let done = if self.execute {
            port.fetch(by, at, &mut bytes)
        } else {
            port.read(by, at, &mut bytes)
        };
        if done.is_ok() {
            assert_eq!(self.rig.read32(reg::FSTS), 0);
            return None;
        }
        self.rig.take_record().map(|record| record.reason().get())
    }
}

/// Where the entries for [`AT`] stand in a page table.
fn entries(rig: &Rig, root: Gpa) -> [Gpa; 4] {
    let mut table = root;
    [39, 30, 21, 12].map(|shift| {
        let entry = plus(table, (AT >> shift & 0x1ff) * 8);
        table = Gpa::new(rig.load(entry) & 0x000f_ffff_ffff_f000);
        entry
    })
}

/// How far a wrong reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// What it is wrong about leads on: what stands behind may be wrong too.
    Leads,
    /// There is nothing behind it in the tables. The request may be wrong as well.
    Ends,
    /// It is wrong about the request.
    OfRequest,
}
use Reach::{Ends, Leads, OfRequest};

/// One thing that is wrong.
struct Wrong {
    code: u8,
    reach: Reach,
    spoil: fn(&mut Guest),
}

const fn wrong(code: u8, reach: Reach, spoil: fn(&mut Guest)) -> Wrong {
    Wrong { code, reach, spoil }
}

/// In the order in which hardware meets them.
const SCALABLE: &[Wrong] = &[
    wrong(0x38, Ends, |guest| guest.rig.root = NOWHERE),
    wrong(0x39, Leads, |guest| guest.clear(guest.root_entry, PRESENT)),
    wrong(0x3a, Leads, |guest| guest.set(guest.root_entry, 1 << 11)),
    wrong(0x40, Ends, |guest| guest.mislead(guest.root_entry)),
    wrong(0x41, Leads, |guest| guest.clear(guest.context, PRESENT)),
    wrong(0x42, Leads, |guest| {
        guest.set(plus(guest.context, 16), 1 << 63);
    }),
    // DTE is clear, while PRE is set.
    wrong(0x43, Leads, |guest| guest.clear(guest.context, 1 << 2)),
    wrong(0x45, Leads, |guest| guest.clear(guest.context, 1 << 3)),
    // The smallest directory.
    wrong(0x46, Leads, |guest| guest.clear(guest.context, 7 << 9)),
    // The PASID is RID_PASID.
    wrong(0x48, Leads, |guest| {
        guest.set(plus(guest.context, 8), far().get().into());
    }),
    wrong(0x50, Ends, |guest| guest.mislead(guest.context)),
    wrong(0x51, Leads, |guest| guest.clear(guest.directory, PRESENT)),
    wrong(0x52, Leads, |guest| guest.set(guest.directory, 1 << 52)),
    wrong(0x58, Ends, |guest| guest.mislead(guest.directory)),
    wrong(0x59, Leads, |guest| guest.clear(guest.entry, PRESENT)),
    wrong(0x5a, Leads, |guest| guest.set(plus(guest.entry, 56), 1)),
    // A reserved translation type.
    wrong(0x5b, Ends, |guest| guest.set(guest.entry, 6 << 6)),
    wrong(0x5c, OfRequest, |guest| guest.execute = true),
    wrong(0x5d, OfRequest, |guest| {
        guest.privilege = Privilege::Privileged;
    }),
    wrong(0x80, OfRequest, |guest| guest.at |= 1 << 47),
    wrong(0x73, Ends, |guest| guest.mislead(plus(guest.entry, 16))),
    wrong(0x72, Leads, |guest| guest.set(guest.stages[0], LARGE)),
    wrong(0x70, Ends, |guest| guest.mislead(guest.stages[0])),
    wrong(0x71, Leads, |guest| guest.clear(guest.stages[3], PRESENT)),
    wrong(0x81, Leads, |guest| guest.clear(guest.stages[3], USER)),
];

/// In the order in which hardware meets them.
const LEGACY: &[Wrong] = &[
    wrong(0x8, Ends, |guest| guest.rig.root = NOWHERE),
    wrong(0x1, Leads, |guest| guest.clear(guest.root_entry, PRESENT)),
    wrong(0xa, Leads, |guest| {
        guest.set(plus(guest.root_entry, 8), 1);
    }),
    wrong(0x9, Ends, |guest| guest.mislead(guest.root_entry)),
    wrong(0x2, Leads, |guest| guest.clear(guest.context, PRESENT)),
    wrong(0xb, Leads, |guest| guest.set(guest.context, 1 << 4)),
    // A reserved translation type.
    wrong(0x3, Ends, |guest| guest.set(guest.context, 3 << 2)),
    wrong(0x4, OfRequest, |guest| guest.at |= 1 << 48),
    wrong(0xc, Leads, |guest| guest.set(guest.stages[0], LARGE)),
    wrong(0x7, Ends, |guest| guest.mislead(guest.stages[0])),
    wrong(0x6, Leads, |guest| guest.clear(guest.stages[3], 0b11)),
];

/// RID_PASID has to be within the directory, so that one that is not is 43h.
const NEVER_TOGETHER: [[u8; 2]; 1] = [[0x46, 0x48]];

fn apply_at_once(first: &Wrong, second: &Wrong) -> bool {
    let reaches = first.reach != Ends || second.reach == OfRequest;
    reaches && !NEVER_TOGETHER.contains(&[first.code, second.code])
}

fn every_pair(wrongs: &[Wrong], guest: fn() -> Guest) -> usize {
    assert_eq!(guest().code(), None, "nothing is wrong at first");
    let mut pairs = 0;
    for (index, first) in wrongs.iter().enumerate() {
        let mut alone = guest();
        (first.spoil)(&mut alone);
        assert_eq!(alone.code(), Some(first.code), "alone");
        for second in wrongs[index + 1..]
            .iter()
            .filter(|second| apply_at_once(first, second))
        {
            let mut guest = guest();
            // Pointers first, for misleading one keeps what else is wrong with the entry.
            (second.spoil)(&mut guest);
            (first.spoil)(&mut guest);
            assert_eq!(
                guest.code(),
                Some(first.code),
                "{:x}h before {:x}h",
                first.code,
                second.code
            );
            pairs += 1;
        }
    }
    pairs
}

#[test]
fn r59_of_two_reasons_the_one_met_first_is_recorded() {
    assert!(every_pair(SCALABLE, Guest::scalable) > 200);
}

#[test]
fn r59_of_two_reasons_of_legacy_mode_the_one_met_first_is_recorded() {
    assert!(every_pair(LEGACY, Guest::legacy) > 30);
}

/// §3.14: without a PASID an address of the range is no memory, so that no table is asked.
#[test]
fn r59_87h_comes_before_every_fault_of_the_tables() {
    for (wrongs, guest, code) in [
        (SCALABLE, Guest::scalable as fn() -> Guest, 0x87),
        (LEGACY, Guest::legacy, 0xe),
    ] {
        for wrong in wrongs.iter().filter(|wrong| wrong.reach != OfRequest) {
            let mut guest = guest();
            (wrong.spoil)(&mut guest);
            guest.pasid = None;
            guest.at = 0xfee0_0000;
            assert_eq!(guest.code(), Some(code), "over {:x}h", wrong.code);
        }
    }
}

/// FPD of the context entry is met before what is wrong behind it, some of which is not qualified itself.
#[test]
fn r60_fpd_of_the_context_entry_silences_87h_whatever_is_behind_it() {
    for wrong in SCALABLE.iter().filter(|wrong| wrong.reach != OfRequest) {
        let mut guest = Guest::scalable();
        guest.set(guest.context, 1 << 1);
        (wrong.spoil)(&mut guest);
        guest.pasid = None;
        guest.at = 0xfee0_0000;
        let unmet = (wrong.code <= 0x40).then_some(0x87);
        assert_eq!(guest.code(), unmet, "over {:x}h", wrong.code);
    }
}

/// What the function itself cannot do counts from the context entry on.
#[test]
fn r59_45h_of_the_function_comes_after_its_root_and_context_entries() {
    for wrong in SCALABLE.iter().filter(|wrong| wrong.reach != OfRequest) {
        let mut guest = Guest::scalable();
        guest.rig.handle.set_pasid_enabled(PasidEnable::Off);
        (wrong.spoil)(&mut guest);
        let first = if wrong.code < 0x45 { wrong.code } else { 0x45 };
        assert_eq!(guest.code(), Some(first), "with {:x}h", wrong.code);
    }
    // And it is the guest's to silence.
    let mut guest = Guest::scalable();
    guest.rig.handle.set_pasid_enabled(PasidEnable::Off);
    guest.set(guest.context, 1 << 1);
    assert_eq!(guest.code(), None);
}

#[test]
fn r59_46h_of_the_function_comes_after_its_root_and_context_entries() {
    let narrow = || {
        let mut guest = Guest::scalable();
        let function = Bdf::new(0, 0x10, 1);
        let support = PasidSupport::Width(10);
        let host = Bdf::new(0x6b, 0, 0);
        let handle = guest.rig.iommu.add_function(host, support).unwrap();
        guest
            .rig
            .attach(function, handle.clone(), Sharing::Exclusive);
        guest.rig.handle = handle;
        guest.rig.set_context(function, all_flags());
        let offset = ContextEntry::offset_of(function);
        guest.context = plus(guest.rig.context_table, offset);
        guest
    };
    for wrong in SCALABLE.iter().filter(|wrong| wrong.reach != OfRequest) {
        let mut guest = narrow();
        (wrong.spoil)(&mut guest);
        let first = if wrong.code < 0x46 { wrong.code } else { 0x46 };
        assert_eq!(guest.code(), Some(first), "with {:x}h", wrong.code);
    }
}

#[test]
fn r59_31h_comes_before_what_is_wrong_with_legacy_tables() {
    for wrong in LEGACY {
        let mut guest = Guest::legacy();
        (wrong.spoil)(&mut guest);
        guest.pasid = Some(far());
        assert_eq!(guest.code(), Some(0x31), "over {:x}h", wrong.code);
    }
}

#[test]
fn r59_30h_comes_before_every_other() {
    for wrong in SCALABLE {
        let mut guest = Guest::scalable();
        guest.rig.set_entry(far(), PasidEntry::not_present());
        (wrong.spoil)(&mut guest);
        // The queue stops in such a mode, so the unit is told in the one before.
        let _ = guest.code();
        guest.mode = TranslationTableMode::Unsupported(2);
        guest.rig.set_root_table(guest.mode);
        let tag = PasidTag::of_exclusive_owner(far());
        let by = Requester::new(Some(tag));
        let mut port = guest.rig.port();
        assert!(port.read(by, Iova::new(AT), &mut [0; 8]).is_err());
        let record = guest.rig.take_record().unwrap();
        assert_eq!(record.reason().get(), 0x30, "over {:x}h", wrong.code);
    }
}
