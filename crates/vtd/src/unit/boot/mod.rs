//! What the Linux driver does to a unit, access by access: the steps that its generations share. Each
//! step is one function of the driver's; what it reads back is asserted where the driver looks.
//!
//! The order of the accesses is that of `drivers/iommu/intel` of the kernel that the file is named
//! after; each file says what its generation does differently.

mod v6_1;
mod v6_12;
mod v7;

use palisade_units::{Gpa, GuestPasid, Iova};

use crate::spec::DomainId;
use crate::spec::capability::{CAPABILITIES, EXTENDED, VERSION};
use crate::spec::context::{AddressWidth, ContextEntry, DirectorySize};
use crate::spec::context::{ContextFlags as Flags, GUEST_PASID_ZERO};
use crate::spec::descriptor::{
    ContextScope, FunctionMask, InvDescriptor, Invalidation, IotlbScope, LeafHint, PageRange,
    PasidCacheScope, PasidIotlbScope, Wait, WaitFlags,
};
use crate::spec::legacy_context::{LegacyContextEntry, LegacyTranslation};
use crate::spec::pasid_table::{DirectoryEntry, PasidEntry};
use crate::spec::register as reg;
use crate::testing::{FUNCTION, Rig, Space, pasid};

/// Where the device's buffer is, in the addresses that it is told.
const BUFFER: Iova = Iova::new(0xffff_e000);
/// The domain of pass-through and of first stages.
const DEFAULT_DOMAIN: DomainId = DomainId::new(1);
/// The domain of the device's second stage.
const DEVICE_DOMAIN: DomainId = DomainId::new(3);

const TE: u32 = 1 << 31;
const SRTP: u32 = 1 << 30;
const QIE: u32 = 1 << 26;
const SCALABLE_ROOT: u64 = 1 << 10;
/// What the status of a wait descriptor becomes when it is done.
const DONE: u32 = 2;

/// `intel_iommu=sm_on` or `sm_off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Scalable,
    Legacy,
}

/// What the device's requests without a PASID are translated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Domain {
    /// `iommu=pt`.
    PassThrough,
    /// The kernel's DMA mappings.
    Translated(Gpa),
}

/// One kernel, from its start on. The rig is the machine, and outlives it.
struct Kernel<'r> {
    rig: &'r mut Rig,
    mode: Mode,
    /// What the driver remembers of GCMD.
    command: u32,
    queue: Gpa,
    statuses: Gpa,
    /// Where the next descriptor goes.
    free: u64,
    root: Gpa,
    context_table: Gpa,
    directory: Gpa,
}

impl<'r> Kernel<'r> {
    fn starts(rig: &'r mut Rig, mode: Mode) -> Self {
        let queue = rig.frames(2);
        let statuses = rig.frames(1);
        let root = rig.frames(1);
        let context_table = rig.frames(1);
        let directory = rig.frames(32);
        Self {
            rig,
            mode,
            command: 0,
            queue,
            statuses,
            free: 0,
            root,
            context_table,
            directory,
        }
    }

    /// The DMAR table names a unit: is anything there?
    fn detects_the_unit(&self) {
        assert_ne!(self.rig.read64(reg::CAP), u64::MAX);
        assert_ne!(self.rig.read64(reg::ECAP), u64::MAX);
    }

    /// Its registers are mapped, as far as the capabilities say that they reach, and their state becomes
    /// the driver's.
    fn maps_the_registers(&mut self) {
        let capabilities = self.rig.read64(reg::CAP);
        let extended = self.rig.read64(reg::ECAP);
        assert_eq!(capabilities, CAPABILITIES.into_bits());
        assert_eq!(extended & !(1 << 44), EXTENDED.into_bits());
        let records = (capabilities >> 24 & 0x3ff) * 16;
        let count = (capabilities >> 40 & 0xff) + 1;
        assert!(records + count * 16 <= reg::BAR_LEN_BYTES);
        assert!((extended >> 8 & 0x3ff) * 16 + 16 <= reg::BAR_LEN_BYTES);
        assert_ne!(capabilities >> 8 & 0b100, 0, "a second stage of 4 levels");
        assert_eq!(self.rig.read32(reg::VER), VERSION);
        let status = self.rig.read32(reg::GSTS);
        self.command = status & (TE | QIE);
    }

    /// What a fault interrupt does; at boot it takes away what was left.
    fn clears_old_faults(&self) {
        let status = self.rig.read32(reg::FSTS);
        if status & 0x2 == 0 {
            return;
        }
        let mut index = u64::from(status >> 8 & 0xff);
        loop {
            let at = reg::FAULT_RECORDS + index * reg::FAULT_RECORD_BYTES;
            if self.rig.read32(at + 12) >> 31 == 0 {
                break;
            }
            self.rig.read32(at + 8);
            self.rig.read64(at);
            self.rig.write32(at + 12, 1 << 31);
            index = (index + 1) % reg::FAULT_RECORD_COUNT;
        }
        self.rig.write32(reg::FSTS, 0x83);
        assert_eq!(self.rig.read32(reg::FSTS) & 0xff, 0);
    }

    /// Writes GCMD and waits for the status, which shows the lasting bits, and what was done once.
    fn commands(&self, once: u32) {
        self.rig.write32(reg::GCMD, self.command | once);
        let status = self.rig.read32(reg::GSTS);
        assert_eq!(status & (TE | QIE), self.command, "GSTS {status:#x}");
        assert_eq!(status & once, once, "GSTS {status:#x}");
    }

    /// A queue that an earlier kernel left on is taken down once it has done its work.
    fn takes_the_old_queue_down(&mut self) {
        if self.rig.read32(reg::GSTS) & QIE == 0 {
            return;
        }
        assert_eq!(self.rig.read32(reg::IQT), self.rig.read32(reg::IQH));
        self.command &= !QIE;
        self.commands(0);
    }

    /// 256 descriptors of 256 bits, in legacy mode too: what counts is ECAP.SMTS.
    fn sets_the_queue_up(&mut self) {
        self.rig.write32(reg::IQT, 0);
        self.rig.write64(reg::IQA, self.queue.get() | 1 << 11 | 1);
        self.free = 0;
        self.command |= QIE;
        self.commands(0);
        assert_eq!(self.rig.read64(reg::IQH), 0);
    }

    /// Puts descriptors into the queue, with a wait descriptor behind them, and looks for its status.
    fn submits(&mut self, descriptors: &[InvDescriptor]) {
        self.submits_with(descriptors, WaitFlags::empty());
    }

    fn submits_with(&mut self, descriptors: &[InvDescriptor], flags: WaitFlags) {
        let wait = (self.free + descriptors.len() as u64) % 256;
        let status = at(self.statuses, wait * 4);
        self.rig.shared.store_u32(status.get(), 1).unwrap();
        let done = InvDescriptor::wait(status, DONE, flags);
        for descriptor in descriptors.iter().chain([&done]) {
            let slot = at(self.queue, self.free * 32);
            self.rig.store(slot, &descriptor.to_words());
            self.free = (self.free + 1) % 256;
        }
        let tail = u32::try_from(self.free << 5).unwrap();
        self.rig.write32(reg::IQT, tail);
        assert_eq!(
            self.rig.shared.load_u32(status.get()),
            Ok(DONE),
            "FSTS {:#x}, IQER {:#x}",
            self.rig.read32(reg::FSTS),
            self.rig.read64(reg::IQER)
        );
        assert_eq!(self.rig.read32(reg::FSTS) & 0x70, 0);
        assert_eq!(self.rig.read32(reg::IQH), tail);
    }

    /// Each goes with a wait of its own.
    fn submits_each(&mut self, descriptors: &[InvDescriptor]) {
        for descriptor in descriptors {
            self.submits(std::slice::from_ref(descriptor));
        }
    }

    /// Whether an earlier kernel left translation on.
    fn finds_translation_on(&self) -> bool {
        self.rig.read32(reg::GSTS) & TE != 0
    }

    fn turns_translation(&mut self, command: u32) {
        self.command = self.command & !TE | command;
        self.commands(0);
    }

    fn on(&mut self) {
        self.turns_translation(TE);
    }

    fn off(&mut self) {
        self.turns_translation(0);
    }

    /// The new root table is taken over. CAP.ESRTPS is clear, so software invalidates everything.
    fn sets_the_root(&mut self) {
        assert_eq!(self.rig.read64(reg::CAP) >> 63, 0, "ESRTPS");
        let mode = match self.mode {
            Mode::Scalable => SCALABLE_ROOT,
            Mode::Legacy => 0,
        };
        self.rig.write64(reg::RTADDR, self.root.get() | mode);
        self.commands(SRTP);
        self.submits(&[InvDescriptor::context_cache(ContextScope::Global)]);
        if self.mode == Mode::Scalable {
            self.submits(&[InvDescriptor::pasid_cache(PasidCacheScope::Global)]);
        }
        self.submits(&[InvDescriptor::iotlb(IotlbScope::Global)]);
        assert_eq!(self.rig.read64(reg::RTADDR), self.root.get() | mode);
    }

    /// The message of an event, then its mask goes, which is read back.
    fn sets_an_interrupt(&self, control: u64, data: u32) {
        self.rig.write32(control + 4, data);
        self.rig.write32(control + 8, 0xfee0_0000);
        self.rig.write32(control + 12, 0);
        self.rig.write32(control, 0);
        assert_eq!(self.rig.read32(control), 0);
        assert_eq!(self.rig.read32(control + 4), data);
        assert_eq!(self.rig.read32(control + 8), 0xfee0_0000);
        assert_eq!(self.rig.read32(control + 12), 0);
    }

    /// The queue of page requests: its interrupt, then 64 KiB of it.
    fn sets_page_requests_up(&mut self) {
        self.sets_an_interrupt(reg::PECTL, 0x4023);
        let queue = self.rig.frames(16);
        self.rig.write64(reg::PQH, 0);
        self.rig.write64(reg::PQT, 0);
        self.rig.write64(reg::PQA, queue.get() | 4);
        assert_eq!(self.rig.read64(reg::PQA), queue.get() | 4);
    }

    fn sets_the_fault_interrupt(&self) {
        self.sets_an_interrupt(reg::FECTL, 0x4022);
    }

    /// A second stage of four levels with one page of data, `value` in its first word.
    fn maps_a_buffer(&mut self, value: u64) -> Domain {
        let root = self.rig.frames(1);
        self.maps(root, BUFFER, value);
        Domain::Translated(root)
    }

    fn maps(&mut self, root: Gpa, iova: Iova, value: u64) {
        const READ_WRITE: u64 = 0b11;
        let page = self.rig.frames(1);
        self.rig.store(page, &[value]);
        let mut table = root;
        for level in (1..=4_u32).rev() {
            let entry = slot(table, iova, level);
            if level == 1 {
                self.rig.store(entry, &[page.get() | READ_WRITE]);
            } else if self.rig.load(entry) == 0 {
                let next = self.rig.frames(1);
                self.rig.store(entry, &[next.get() | READ_WRITE]);
            }
            table = Gpa::new(self.rig.load(entry) & !0xfff);
        }
    }

    /// Clears the entry of a page; nobody is told.
    fn unmaps(&mut self, domain: Domain, iova: Iova) {
        let Domain::Translated(mut table) = domain else {
            panic!("pass-through has no table");
        };
        for level in (2..=4_u32).rev() {
            table = Gpa::new(self.rig.load(slot(table, iova, level)) & !0xfff);
        }
        self.rig.store(slot(table, iova, 1), &[0]);
    }

    /// A page of a second stage came or went: the domain's translations of it go.
    fn flushes_a_page(&mut self, iova: Iova) {
        self.submits(&[drained(InvDescriptor::iotlb(IotlbScope::Pages(
            DEVICE_DOMAIN,
            PageRange::page(iova),
            LeafHint::AnyLevel,
        )))]);
    }

    /// The device's context entry of legacy mode.
    fn sets_a_legacy_context(&mut self, domain: Domain) {
        let root_entry = at(self.root, u64::from(FUNCTION.bus()) * 16);
        self.rig.store(root_entry, &[self.context_table.get() | 1]);
        let (translation, root, id) = match domain {
            Domain::PassThrough => (LegacyTranslation::PassThrough, Gpa::new(0), DEFAULT_DOMAIN),
            // The device has ATS and ECAP has DT.
            Domain::Translated(root) => {
                let with_tlb = LegacyTranslation::SecondStageWithDeviceTlb;
                (with_tlb, root, DEVICE_DOMAIN)
            }
        };
        let entry = LegacyContextEntry::new(translation, root, AddressWidth::FourLevel, id);
        let offset = LegacyContextEntry::offset_of(FUNCTION);
        let at = at(self.context_table, offset);
        self.rig.store(at, &entry.to_words());
        // A present entry takes the place of one that was not, which caching mode keeps in domain 0.
        self.submits_each(&[of_the_device(DomainId::new(0)), of_the_domain(id)]);
    }

    /// The device's context entry of scalable mode, with everything that the device can do.
    fn sets_a_scalable_context(&mut self, domain: DomainId) {
        let table = self.context_table.get() | 1;
        let root_entry = at(self.root, u64::from(FUNCTION.bus()) * 16 + 8);
        self.rig.store(root_entry, &[table]);
        let flags = Flags::DEVICE_TLB | Flags::PASID | Flags::PAGE_REQUESTS;
        let entry = ContextEntry::new(self.directory, MAX_PASIDS, GUEST_PASID_ZERO, flags);
        let slot = at(self.context_table, ContextEntry::offset_of(FUNCTION));
        self.rig.store(slot, &entry.to_words());
        self.submits_each(&[of_the_device(DomainId::new(0)), of_the_domain(domain)]);
    }

    /// The PASID entry of the device's requests without a PASID. The kernel's own mappings are a first
    /// stage in scalable mode.
    fn sets_the_device_entry(&mut self, space: Option<&Space>) {
        let (transfer, root) = match space {
            None => (4, 0),
            Some(space) => (1, space.root.get()),
        };
        self.sets_an_entry(0, transfer, root);
    }

    /// A process is bound.
    fn binds(&mut self, raw: u32, space: &Space) {
        self.sets_an_entry(raw, 1, space.root.get());
    }

    /// The entry has AW although nothing of it is a second stage, PWSNP, and NXE with a first stage.
    fn sets_an_entry(&mut self, raw: u32, transfer: u64, root: u64) {
        let slot = at(self.directory, DirectoryEntry::offset_of(pasid(raw)));
        let mut directory = DirectoryEntry::from_bits(self.rig.load(slot));
        if !directory.present() {
            directory = DirectoryEntry::to(self.rig.frames(1));
            self.rig.store(slot, &[directory.into_bits()]);
        }
        let no_execute = if transfer == 1 { 1 << 5 } else { 0 };
        let entry = at(directory.table(), PasidEntry::offset_of(pasid(raw)));
        let words = [
            1 | 2 << 2 | transfer << 6,
            u64::from(DEFAULT_DOMAIN.get()) | 1 << 23,
            root | no_execute,
        ];
        self.rig.store(entry, &words);
        self.submits_each(&[
            InvDescriptor::pasid_cache(PasidCacheScope::Pasid(DEFAULT_DOMAIN, pasid(raw))),
            InvDescriptor::pasid_iotlb(DEFAULT_DOMAIN, pasid(raw), PasidIotlbScope::All),
        ]);
    }

    /// The first word of an entry, changed.
    fn changes_an_entry(&mut self, raw: u32, change: impl FnOnce(u64) -> u64) {
        let slot = at(self.directory, DirectoryEntry::offset_of(pasid(raw)));
        let directory = DirectoryEntry::from_bits(self.rig.load(slot));
        let entry = at(directory.table(), PasidEntry::offset_of(pasid(raw)));
        let word = change(self.rig.load(entry));
        self.rig.store(entry, &[word]);
    }

    /// After a crash: the old tables of the device are found by the register, and the new root has copies
    /// of its context tables.
    fn copies_the_old_tables(&mut self) {
        let old = self.rig.read64(reg::RTADDR);
        let scalable = old & SCALABLE_ROOT != 0;
        assert_eq!(scalable, self.mode == Mode::Scalable);
        let half = u64::from(FUNCTION.bus()) * 16 + if scalable { 8 } else { 0 };
        let table = Gpa::new(self.rig.load(at(Gpa::new(old & !0xfff), half)) & !0xfff);
        for offset in (0..4096).step_by(8) {
            let word = self.rig.load(at(table, offset));
            self.rig.store(at(self.context_table, offset), &[word]);
        }
        let entry = self.context_table.get() | 1;
        self.rig.store(at(self.root, half), &[entry]);
    }

    /// A copied entry is cleared of P, then of everything, with its caches emptied in between. Which domains
    /// and PASIDs the old kernel used is not known in scalable mode, so that all of them go there.
    fn tears_a_copied_context_down(&mut self) {
        let (offset, words) = match self.mode {
            Mode::Scalable => (ContextEntry::offset_of(FUNCTION), 4),
            Mode::Legacy => (LegacyContextEntry::offset_of(FUNCTION), 2),
        };
        let entry = at(self.context_table, offset);
        let low = self.rig.load(entry);
        self.rig.store(entry, &[low & !1]);
        match self.mode {
            Mode::Scalable => self.submits_each(&[
                of_the_device(DomainId::new(0)),
                InvDescriptor::pasid_cache(PasidCacheScope::Global),
                drained(InvDescriptor::iotlb(IotlbScope::Global)),
                InvDescriptor::dev_tlb(FUNCTION, PageRange::ALL),
            ]),
            Mode::Legacy => {
                self.submits_each(&[of_the_device(DEVICE_DOMAIN), of_the_domain(DEVICE_DOMAIN)]);
            }
        }
        self.rig.store(entry, &vec![0; words]);
    }

    /// A fence without a status, what the PASID had once more, and a wait for the page requests that are on
    /// their way.
    fn drains_page_requests(&mut self, gone: GuestPasid) {
        assert_eq!(self.rig.read64(reg::PQT), self.rig.read64(reg::PQH));
        let fence = InvDescriptor::new(Invalidation::Wait(Wait {
            flags: WaitFlags::FENCE,
            status_address: Gpa::new(0),
            status_data: DONE,
        }));
        let drain = WaitFlags::PAGE_REQUEST_DRAIN;
        self.submits_with(
            &[
                fence,
                InvDescriptor::pasid_iotlb(DEFAULT_DOMAIN, gone, PasidIotlbScope::All),
                InvDescriptor::pasid_dev_tlb(FUNCTION, gone, PageRange::ALL),
            ],
            drain,
        );
        assert_eq!(self.rig.read32(reg::PRS) & 0x2, 0, "no overflow");
    }

    /// The kernel's last act before it hands the machine over: translation goes off, the queue stays.
    fn shuts_down(&mut self) {
        self.off();
    }

    /// What the device reads at an address.
    fn device_reads(&self, iova: Iova) -> Option<u64> {
        self.rig.read(None, iova).ok()
    }

    fn process_reads(&self, raw: u32, iova: Iova) -> Option<u64> {
        self.rig.read(Some(pasid(raw)), iova).ok()
    }

    /// Nothing was complained of, from power-on to here.
    fn has_seen_no_fault(&self) {
        assert_eq!(self.rig.read32(reg::FSTS), 0);
        assert_eq!(self.rig.messages.take(), []);
    }

    /// The device reached what it should not: one interrupt, one record, which the handler takes.
    fn handles_one_fault(&self, reason: u8) {
        assert_eq!(self.rig.messages.take(), [(0xfee0_0000, 0x4022)]);
        let status = self.rig.read32(reg::FSTS);
        assert_eq!(status & 0xff, 0x2);
        let index = u64::from(status >> 8 & 0xff);
        assert_eq!(self.rig.record(index).reason().get(), reason);
        self.clears_old_faults();
    }
}

const MAX_PASIDS: DirectorySize = DirectorySize::ALL_PASIDS;

/// A flush of the IOTLB asks for reads and writes to be drained.
fn drained(descriptor: InvDescriptor) -> InvDescriptor {
    let [low, high, ..] = descriptor.to_words();
    InvDescriptor::from_words([low | 0xc0, high, 0, 0])
}

fn of_the_device(domain: DomainId) -> InvDescriptor {
    InvDescriptor::context_cache(ContextScope::Device {
        source: FUNCTION,
        mask: FunctionMask::NONE,
        domain,
    })
}

fn of_the_domain(domain: DomainId) -> InvDescriptor {
    drained(InvDescriptor::iotlb(IotlbScope::Domain(domain)))
}

fn at(base: Gpa, offset: u64) -> Gpa {
    base.checked_add(offset).unwrap()
}

/// The entry of an address in a table of a level.
fn slot(table: Gpa, iova: Iova, level: u32) -> Gpa {
    at(table, (iova.get() >> (12 + 9 * (level - 1)) & 0x1ff) * 8)
}
