//! What is wrong in the page tables that a PASID entry names, or with the request itself.

use std::sync::Arc;

use palisade_iommu::{PasidSupport, Sharing};
use palisade_memory::Protection;
use palisade_units::{Bdf, Gpa};

use super::guest::{AT, NOWHERE, Request, What, bind, or};
use crate::spec::context::AddressWidth;
use crate::spec::pasid_table::{FirstStage, FirstStageFlags, PagingMode, PasidEntry, SecondStage};
use crate::testing::{DOMAIN, MEMORY_BYTES, Rig, all_flags, connection};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Present, writable, user; of a second stage readable, writable, and a bit that is ignored there.
const OPEN: u64 = 0b111;
const READ_ONLY: u64 = 0b101;
const LARGE: u64 = 1 << 7;
/// A page of the interrupt range.
const INTERRUPTS: u64 = 0xfee0_0000;

/// A page table of four levels that leads to one page.
struct Path {
    root: Gpa,
    /// Where its entries stand, from the top on.
    entries: [Gpa; 4],
    page: Gpa,
}

impl Path {
    fn new(rig: &mut Rig, at: u64) -> Self {
        let root = rig.frames(1);
        let mut entries = [root; 4];
        let mut table = root;
        for (entry, shift) in entries.iter_mut().zip([39, 30, 21, 12]) {
            *entry = Gpa::new(table.get() + (at >> shift & 0x1ff) * 8);
            table = rig.frames(1);
            rig.store(*entry, &[table.get() | OPEN]);
        }
        Self {
            root,
            entries,
            page: table,
        }
    }

    fn set(&self, rig: &Rig, level: usize, entry: u64) {
        rig.store(self.entries[level], &[entry]);
    }

    /// The leaf with other permissions.
    fn set_leaf(&self, rig: &Rig, bits: u64) {
        self.set(rig, 3, self.page.get() | bits);
    }

    fn first(&self) -> PasidEntry {
        first(self.root)
    }

    fn second(&self) -> PasidEntry {
        PasidEntry::second_stage(self.root, AddressWidth::FourLevel, DOMAIN)
    }
}

fn first(root: Gpa) -> PasidEntry {
    PasidEntry::first_stage(
        root,
        PagingMode::FourLevel,
        DOMAIN,
        FirstStageFlags::empty(),
    )
}

/// A guest whose PASID 5 has a first stage that leads to one page.
fn of_first(rig: &mut Rig, spoil: impl FnOnce(&Rig, &Path)) -> Request {
    let path = Path::new(rig, AT.get());
    spoil(rig, &path);
    bind(rig, path.first());
    Request::read()
}

/// The same of a second stage.
fn of_second(rig: &mut Rig, spoil: impl FnOnce(&Rig, &Path)) -> Request {
    let path = Path::new(rig, AT.get());
    spoil(rig, &path);
    bind(rig, path.second());
    Request::read()
}

pub(super) fn fetch(rig: &mut Rig) -> Request {
    of_first(rig, |_, _| {}).with(What::Fetch)
}

pub(super) fn privileged(rig: &mut Rig) -> Request {
    of_first(rig, |_, _| {}).with(What::PrivilegedRead)
}

pub(super) fn privileged_behind_a_second_stage(rig: &mut Rig) -> Request {
    let root = rig.frames(1);
    bind(
        rig,
        PasidEntry::second_stage(root, AddressWidth::FourLevel, DOMAIN),
    );
    Request::read().with(What::PrivilegedRead)
}

pub(super) fn privileged_and_passed_through(rig: &mut Rig) -> Request {
    bind(rig, PasidEntry::pass_through(DOMAIN));
    Request::read().at(0x1000).with(What::PrivilegedRead)
}

pub(super) fn first_out_of_memory(rig: &mut Rig) -> Request {
    of_first(rig, |rig, path| path.set(rig, 1, NOWHERE.get() | OPEN))
}

pub(super) fn first_absent(rig: &mut Rig) -> Request {
    of_first(rig, |rig, path| path.set(rig, 2, !1)).with(What::Write)
}

pub(super) fn first_reserved(rig: &mut Rig) -> Request {
    of_first(rig, |rig, path| or(rig, path.entries[0], LARGE))
}

pub(super) fn first_root_out_of_memory(rig: &mut Rig) -> Request {
    bind(rig, first(NOWHERE));
    Request::read()
}

pub(super) fn not_canonical(rig: &mut Rig) -> Request {
    of_first(rig, |_, _| {}).at(1 << 47)
}

pub(super) fn supervisor_page(rig: &mut Rig) -> Request {
    of_first(rig, |rig, path| path.set_leaf(rig, 0b011))
}

pub(super) fn not_writable(rig: &mut Rig) -> Request {
    read_only_page(rig).0
}

/// A write to a page that may only be read, and the page.
pub(super) fn read_only_page(rig: &mut Rig) -> (Request, Gpa) {
    let mut page = Gpa::new(0);
    let request = of_first(rig, |rig, path| {
        path.set_leaf(rig, READ_ONLY);
        page = path.page;
    });
    (request.with(What::Write), page)
}

pub(super) fn interrupt_range(rig: &mut Rig) -> Request {
    of_first(rig, |rig, path| path.set(rig, 3, INTERRUPTS | OPEN)).with(What::Write)
}

pub(super) fn interrupt_range_without_a_pasid(_: &mut Rig) -> Request {
    // RID_PASID has no entry: the address is no memory whatever the tables say.
    Request::read().without_pasid().at(INTERRUPTS)
}

pub(super) fn interrupt_range_behind_a_second_stage(rig: &mut Rig) -> Request {
    of_second(rig, |rig, path| path.set(rig, 3, INTERRUPTS | OPEN))
}

pub(super) fn second_out_of_memory(rig: &mut Rig) -> Request {
    of_second(rig, |rig, path| path.set(rig, 0, NOWHERE.get() | OPEN))
}

pub(super) fn second_absent(rig: &mut Rig) -> Request {
    of_second(rig, |rig, path| path.set(rig, 3, !OPEN & ADDRESS))
}

pub(super) fn second_reserved(rig: &mut Rig) -> Request {
    of_second(rig, |rig, path| or(rig, path.entries[0], LARGE))
}

pub(super) fn second_root_out_of_memory(rig: &mut Rig) -> Request {
    let entry = PasidEntry::second_stage(NOWHERE, AddressWidth::FourLevel, DOMAIN);
    bind(rig, entry);
    Request::read()
}

pub(super) fn not_readable(rig: &mut Rig) -> Request {
    of_second(rig, |rig, path| path.set_leaf(rig, 0b010))
}

pub(super) fn beyond_second_stage(rig: &mut Rig) -> Request {
    of_second(rig, |_, _| {}).at(1 << 48)
}

pub(super) fn beyond_host_width(rig: &mut Rig) -> Request {
    bind(rig, PasidEntry::pass_through(DOMAIN));
    Request::read().at(1 << 52)
}

pub(super) fn first_mark_incoherent(rig: &mut Rig) -> Request {
    let path = Path::new(rig, AT.get());
    bind(rig, path.first().without_walk_snoops());
    Request::read()
}

pub(super) fn second_mark_incoherent(rig: &mut Rig) -> Request {
    let path = Path::new(rig, AT.get());
    let entry = path.second().with_second_stage_marks();
    bind(rig, entry.without_walk_snoops());
    Request::read()
}

pub(super) fn mark_failed(rig: &mut Rig) -> Request {
    in_read_only_memory(rig, first)
}

pub(super) fn second_mark_failed(rig: &mut Rig) -> Request {
    in_read_only_memory(rig, |root| {
        PasidEntry::second_stage(root, AddressWidth::FourLevel, DOMAIN).with_second_stage_marks()
    })
}

/// A function whose tables stand in memory that it may only read.
fn in_read_only_memory(rig: &mut Rig, entry: impl FnOnce(Gpa) -> PasidEntry) -> Request {
    const ALIAS: u64 = 1 << 30;
    let function = Bdf::new(0, 0x11, 0);
    let host = Bdf::new(0x6b, 0, 0);
    let memory = connection(&rig.shared);
    let backing = rig.shared.backing();
    memory
        .map(Gpa::new(ALIAS), MEMORY_BYTES, backing, Protection::ReadOnly)
        .unwrap();
    let support = PasidSupport::Width(20);
    rig.handle = rig.iommu.add_function(host, support).unwrap();
    let attached = rig
        .container
        .attach(function, rig.handle.clone(), Sharing::Exclusive, memory);
    rig.set_context(function, all_flags());
    rig.unit.attached(function);
    let path = Path::new(rig, AT.get());
    bind(rig, entry(Gpa::new(path.root.get() | ALIAS)));
    Request {
        attachment: Some(Arc::new(attached.unwrap())),
        ..Request::read()
    }
}

/// A second stage that maps the guest's memory to itself by pages of 2 MiB.
struct Identity {
    root: Gpa,
    /// The entry of the first 512 GiB.
    top: Gpa,
    directory: Gpa,
}

impl Identity {
    fn new(rig: &mut Rig) -> Self {
        let (root, middle, directory) = (rig.frames(1), rig.frames(1), rig.frames(1));
        rig.store(root, &[middle.get() | OPEN]);
        rig.store(middle, &[directory.get() | OPEN]);
        for index in 0..MEMORY_BYTES >> 21 {
            let entry = Gpa::new(directory.get() + index * 8);
            rig.store(entry, &[index << 21 | LARGE | OPEN]);
        }
        Self {
            root,
            top: root,
            directory,
        }
    }

    /// The entry of one page of 4 KiB, in a table that otherwise maps what was mapped there.
    fn entry_of(&self, rig: &mut Rig, page: Gpa) -> Gpa {
        let table = rig.frames(1);
        let base = page.get() >> 21 << 21;
        let pages: Vec<u64> = (0..512).map(|n| (base + (n << 12)) | OPEN).collect();
        rig.store(table, &pages);
        let entry = Gpa::new(self.directory.get() + (page.get() >> 21) * 8);
        rig.store(entry, &[table.get() | OPEN]);
        Gpa::new(table.get() + (page.get() >> 12 & 0x1ff) * 8)
    }
}

/// A guest whose PASID 5 is nested: a first stage that leads to one page, over an identity.
fn of_nested(rig: &mut Rig, spoil: impl FnOnce(&mut Rig, &Path, &Identity)) -> Request {
    let path = Path::new(rig, AT.get());
    let identity = Identity::new(rig);
    spoil(rig, &path, &identity);
    let stage = FirstStage {
        root: path.root,
        mode: PagingMode::FourLevel,
        flags: FirstStageFlags::empty(),
    };
    let second = SecondStage {
        root: identity.root,
        width: AddressWidth::FourLevel,
    };
    bind(rig, PasidEntry::nested(stage, second, DOMAIN));
    Request::read()
}

/// The table that an entry leads to.
fn table(rig: &Rig, entry: Gpa) -> Gpa {
    Gpa::new(rig.load(entry) & ADDRESS)
}

pub(super) fn table_beyond_width(rig: &mut Rig) -> Request {
    of_nested(rig, |rig, path, _| path.set(rig, 0, 1 << 48 | OPEN))
}

pub(super) fn root_unreadable(rig: &mut Rig) -> Request {
    of_nested(rig, |rig, path, second| {
        let entry = second.entry_of(rig, path.root);
        rig.store(entry, &[path.root.get() | 0b010]);
    })
}

pub(super) fn table_unreadable(rig: &mut Rig) -> Request {
    of_nested(rig, |rig, path, second| {
        let next = table(rig, path.entries[0]);
        let entry = second.entry_of(rig, next);
        rig.store(entry, &[next.get() | 0b010]);
    })
}

pub(super) fn table_unwritable(rig: &mut Rig) -> Request {
    of_nested(rig, |rig, path, second| {
        let entry = second.entry_of(rig, path.root);
        rig.store(entry, &[path.root.get() | 0b001]);
    })
}

pub(super) fn nested_out_of_memory(rig: &mut Rig) -> Request {
    of_nested(rig, |rig, _, second| {
        rig.store(second.top, &[NOWHERE.get() | OPEN]);
    })
}

pub(super) fn nested_reserved(rig: &mut Rig) -> Request {
    of_nested(rig, |rig, _, second| or(rig, second.top, LARGE))
}

pub(super) fn nested_root_out_of_memory(rig: &mut Rig) -> Request {
    let path = Path::new(rig, AT.get());
    let stage = FirstStage {
        root: path.root,
        mode: PagingMode::FourLevel,
        flags: FirstStageFlags::empty(),
    };
    let second = SecondStage {
        root: NOWHERE,
        width: AddressWidth::FourLevel,
    };
    bind(rig, PasidEntry::nested(stage, second, DOMAIN));
    Request::read()
}

pub(super) fn nested_absent(rig: &mut Rig) -> Request {
    of_nested(rig, |rig, path, second| {
        let entry = second.entry_of(rig, path.page);
        rig.store(entry, &[0]);
    })
}

pub(super) fn nested_not_writable(rig: &mut Rig) -> Request {
    let request = of_nested(rig, |rig, path, second| {
        let entry = second.entry_of(rig, path.page);
        rig.store(entry, &[path.page.get() | 0b001]);
    });
    request.with(What::Write)
}
