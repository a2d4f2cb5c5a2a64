//! Reads a guest's root, context and PASID tables, each entry once, and says what they mean for a
//! request, or which architectural fault it is (VT-d §3.4, §7.1.3).

use palisade_iommu::{
    AccessedDirty, DeviceTlb, ExtendedAccessed, FaultProcessing, FaultReason, FirstStage, Levels,
    NoExecute, PageWalkSnoop, SecondStage, Space, SupervisorRequests, WriteProtect,
};
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, Gpa, GuestPasid};
use palisade_vfio::Terms;

use crate::spec::DomainId;
use crate::spec::command::{RootTableAddress, TranslationTableMode};
use crate::spec::context::{AddressWidth, ContextEntry, ContextFlags};
use crate::spec::fault::FaultCode;
use crate::spec::legacy_context::{LegacyContextEntry, LegacyTranslation};
use crate::spec::pasid_table::{self as spec, DirectoryEntry, PagingMode, PasidEntry, Translation};
use crate::spec::root::{ContextTablePointer, RootEntry};

mod scan;

/// Why a request is not translated, and whether software wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableFault {
    pub(crate) code: FaultCode,
    pub(crate) processing: FaultProcessing,
    /// What the entries on the way say, also where this fault is recorded all the same.
    pub(crate) met: FaultProcessing,
}

impl TableFault {
    /// A fault that FPD does not suppress (VT-d §7.1.3: not qualified).
    fn unqualified(reason: FaultReason) -> Self {
        Self::new(code(reason), FaultProcessing::Report)
    }

    /// A fault that FPD of the entries before does not suppress.
    fn unqualified_after(met: FaultProcessing, reason: FaultReason) -> Self {
        Self {
            met,
            ..Self::unqualified(reason)
        }
    }

    pub(crate) fn new(code: FaultCode, processing: FaultProcessing) -> Self {
        Self {
            code,
            processing,
            met: processing,
        }
    }
}

/// What a well-formed entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) space: Space,
    /// What caches keep it under.
    pub(crate) domain: DomainId,
    /// Whether an entry on the way has FPD set.
    pub(crate) processing: FaultProcessing,
    /// Whether the context entry lets the function have a TLB of its own.
    pub(crate) device_tlb: DeviceTlb,
    /// SRE.
    pub(crate) supervisor: SupervisorRequests,
}

impl Found {
    pub(crate) fn terms(self) -> Terms {
        Terms {
            space: self.space,
            fault_processing: self.processing,
            device_tlb: self.device_tlb,
            supervisor: self.supervisor,
        }
    }
}

/// Which requests of a function are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Without,
    Pasid(GuestPasid),
}

pub(crate) const fn code(reason: FaultReason) -> FaultCode {
    FaultCode::new(reason.code())
}

const fn fpd(entries: &[bool]) -> FaultProcessing {
    let mut i = 0;
    while i < entries.len() {
        if entries[i] {
            return FaultProcessing::Disabled;
        }
        i += 1;
    }
    FaultProcessing::Report
}

/// The guest's tables from the root that the unit took over.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    memory: &'a GuestMemory,
    root: RootTableAddress,
}

impl<'a> Tables<'a> {
    pub(crate) fn new(memory: &'a GuestMemory, root: RootTableAddress) -> Self {
        Self { memory, root }
    }

    pub(crate) fn mode(self) -> TranslationTableMode {
        self.root.mode()
    }

    /// What the tables say of requests of a function.
    ///
    /// # Errors
    /// The fault that such a request ends in.
    pub(crate) fn look_up(self, function: Bdf, tag: Tag) -> Result<Found, TableFault> {
        match (self.root.mode(), tag) {
            (TranslationTableMode::Scalable, _) => {
                let context = self.context(function)?;
                let pasid = match tag {
                    Tag::Without => context.rid_pasid(),
                    Tag::Pasid(pasid) => check_pasid(context, pasid)?,
                };
                self.pasid_entry(context, pasid)
            }
            (TranslationTableMode::Legacy, Tag::Without) => self.legacy_entry(function),
            (TranslationTableMode::Legacy, Tag::Pasid(_)) => {
                Err(TableFault::unqualified(FaultReason::ModeForbidsPasid))
            }
            (TranslationTableMode::Unsupported(_), _) => {
                Err(TableFault::unqualified(FaultReason::RootTableInvalid))
            }
        }
    }

    /// The context entry of a function in scalable mode, if it is present and well-formed.
    pub(crate) fn context(self, function: Bdf) -> Result<ContextEntry, TableFault> {
        let root = self.words::<1>(self.root.table(), RootEntry::offset_of(function));
        let [root] = root.ok_or(TableFault::unqualified(FaultReason::RootEntryAccess))?;
        let pointer = ContextTablePointer::from_bits(root);
        if !pointer.present() {
            return Err(TableFault::unqualified(FaultReason::RootEntryNotPresent));
        }
        if !pointer.reserved_is_zero() {
            return Err(TableFault::unqualified(FaultReason::RootEntryReserved));
        }
        let words = self.words(pointer.table(), ContextEntry::offset_of(function));
        let words = words.ok_or(TableFault::unqualified(FaultReason::ContextEntryAccess))?;
        let entry = ContextEntry::from_words(words);
        let fault = |reason| Err(TableFault::new(code(reason), context_fpd(entry)));
        if !entry.present() {
            return fault(FaultReason::ContextEntryNotPresent);
        }
        if !entry.reserved_is_zero() {
            return fault(FaultReason::ContextEntryReserved);
        }
        let flags = entry.flags();
        let pages_without_tlb = flags.contains(ContextFlags::PAGE_REQUESTS)
            && !flags.contains(ContextFlags::DEVICE_TLB);
        if pages_without_tlb || !entry.directory_size().reaches(entry.rid_pasid()) {
            return fault(FaultReason::ContextEntryInvalid);
        }
        Ok(entry)
    }

    /// Why a function may not ask for translations, where that stands in the way of all else; `None` where it
    /// may, or where the way to its context entry ends before that counts (VT-d §7.1.3: LCT.5, SCT.5).
    pub(crate) fn blocks_device_tlb(self, function: Bdf, tag: Tag) -> Option<TableFault> {
        match self.root.mode() {
            TranslationTableMode::Legacy if tag == Tag::Without => {
                let found = self.legacy_entry(function).ok()?;
                let code = FaultCode::LEGACY_DEVICE_TLB_BLOCKED;
                (found.device_tlb == DeviceTlb::Blocked)
                    .then_some(TableFault::new(code, found.processing))
            }
            TranslationTableMode::Scalable => {
                let context = self.context(function).ok()?;
                let code = code(FaultReason::DeviceTlbDisabled);
                (device_tlb(context) == DeviceTlb::Blocked)
                    .then_some(TableFault::new(code, context_fpd(context)))
            }
            TranslationTableMode::Legacy | TranslationTableMode::Unsupported(_) => None,
        }
    }

    /// Whether a function may ask for the pages of a PASID (VT-d §7.4.1).
    pub(crate) fn check_page_request(self, function: Bdf, tag: Tag) -> Result<(), TableFault> {
        if self.root.mode() == TranslationTableMode::Legacy {
            let code = FaultCode::LEGACY_PAGE_REQUEST;
            return Err(TableFault::new(code, FaultProcessing::Report));
        }
        if self.root.mode() != TranslationTableMode::Scalable {
            return Err(TableFault::unqualified(FaultReason::RootTableInvalid));
        }
        let context = self.context(function)?;
        if !context.flags().contains(ContextFlags::PAGE_REQUESTS) {
            let reason = code(FaultReason::PageRequestDisabled);
            return Err(TableFault::new(reason, context_fpd(context)));
        }
        match tag {
            Tag::Without => Ok(()),
            Tag::Pasid(pasid) => check_pasid(context, pasid).map(|_| ()),
        }
    }

    fn pasid_entry(self, context: ContextEntry, pasid: GuestPasid) -> Result<Found, TableFault> {
        let of_function = context_fpd(context);
        let unreadable = TableFault::unqualified_after;
        let words = self.words(context.directory(), DirectoryEntry::offset_of(pasid));
        let [word] = words.ok_or(unreadable(of_function, FaultReason::PasidDirectoryAccess))?;
        let directory = DirectoryEntry::from_bits(word);
        let processing = fpd(&[
            of_function == FaultProcessing::Disabled,
            directory.fault_processing_disable(),
        ]);
        let fault = |reason| Err(TableFault::new(code(reason), processing));
        if !directory.present() {
            return fault(FaultReason::PasidDirectoryNotPresent);
        }
        if !directory.reserved_is_zero() {
            return fault(FaultReason::PasidDirectoryReserved);
        }
        let words = self.words(directory.table(), PasidEntry::offset_of(pasid));
        let words = words.ok_or(unreadable(processing, FaultReason::PasidEntryAccess))?;
        interpret(PasidEntry::from_words(words), context, processing)
    }

    fn legacy_entry(self, function: Bdf) -> Result<Found, TableFault> {
        let fault = |code| TableFault::new(code, FaultProcessing::Report);
        let offset = u64::from(function.bus()) * RootEntry::BYTES;
        let words = self.words::<2>(self.root.table(), offset);
        let [low, high] = words.ok_or(fault(FaultCode::LEGACY_ROOT_ACCESS))?;
        let pointer = ContextTablePointer::from_bits(low);
        if !pointer.present() {
            return Err(fault(FaultCode::LEGACY_ROOT_NOT_PRESENT));
        }
        if !pointer.reserved_is_zero() || high != 0 {
            return Err(fault(FaultCode::LEGACY_ROOT_RESERVED));
        }
        let words = self.words(pointer.table(), LegacyContextEntry::offset_of(function));
        let words = words.ok_or(fault(FaultCode::LEGACY_CONTEXT_ACCESS))?;
        let entry = LegacyContextEntry::from_words(words);
        let processing = fpd(&[entry.fault_processing_disabled()]);
        let fault = |code| Err(TableFault::new(code, processing));
        if !entry.present() {
            return fault(FaultCode::LEGACY_CONTEXT_NOT_PRESENT);
        }
        if !entry.reserved_is_zero() {
            return fault(FaultCode::LEGACY_CONTEXT_RESERVED);
        }
        // The width has to be one that there is with pass-through too (VT-d §9.3).
        let Some(levels) = levels(entry.width()) else {
            return fault(FaultCode::LEGACY_CONTEXT_INVALID);
        };
        let device_tlb = match entry.translation() {
            LegacyTranslation::SecondStageWithDeviceTlb => DeviceTlb::Allowed,
            _ => DeviceTlb::Blocked,
        };
        let space = match entry.translation() {
            LegacyTranslation::PassThrough => Space::PassThrough,
            LegacyTranslation::SecondStage | LegacyTranslation::SecondStageWithDeviceTlb => {
                Space::SecondStage(SecondStage::new(entry.root(), levels))
            }
            LegacyTranslation::Reserved => return fault(FaultCode::LEGACY_CONTEXT_INVALID),
        };
        Ok(Found {
            space,
            domain: entry.domain(),
            processing,
            device_tlb,
            // Requests of legacy mode have no PASID, and so no mode.
            supervisor: SupervisorRequests::Refused,
        })
    }

    /// The words of an entry, read once.
    fn words<const N: usize>(self, table: Gpa, offset_bytes: u64) -> Option<[u64; N]>
    where
        [u64; N]: zerocopy::FromBytes,
    {
        let at = table.checked_add(offset_bytes)?;
        let words: [u64; N] = self.memory.read_object(at).ok()?;
        Some(words.map(u64::from_le))
    }
}

/// DTE.
fn device_tlb(entry: ContextEntry) -> DeviceTlb {
    if entry.flags().contains(ContextFlags::DEVICE_TLB) {
        DeviceTlb::Allowed
    } else {
        DeviceTlb::Blocked
    }
}

pub(crate) fn context_fpd(entry: ContextEntry) -> FaultProcessing {
    fpd(&[entry
        .flags()
        .contains(ContextFlags::FAULT_PROCESSING_DISABLE)])
}

/// Whether requests with this PASID may use the function's directory.
fn check_pasid(context: ContextEntry, pasid: GuestPasid) -> Result<GuestPasid, TableFault> {
    let reason = if !context.flags().contains(ContextFlags::PASID) {
        FaultReason::PasidDisabled
    } else if !context.directory_size().reaches(pasid) {
        FaultReason::PasidTooLarge
    } else if pasid == context.rid_pasid() {
        FaultReason::RidPasidInvalid
    } else {
        return Ok(pasid);
    };
    Err(TableFault::new(code(reason), context_fpd(context)))
}

/// What a PASID entry of a function says, given FPD of the entries before it (VT-d §9.6).
fn interpret(
    entry: PasidEntry,
    context: ContextEntry,
    before: FaultProcessing,
) -> Result<Found, TableFault> {
    let processing = fpd(&[
        before == FaultProcessing::Disabled,
        entry.fault_processing_disabled(),
    ]);
    let fault = |reason| Err(TableFault::new(code(reason), processing));
    if !entry.present() {
        return fault(FaultReason::PasidEntryNotPresent);
    }
    if !entry.reserved_is_zero() {
        return fault(FaultReason::PasidEntryReserved);
    }
    match space(entry) {
        Some(space) => Ok(Found {
            space,
            domain: entry.domain(),
            processing,
            device_tlb: device_tlb(context),
            supervisor: SupervisorRequests::from_bit(entry.supervisor_requests()),
        }),
        None => fault(FaultReason::PasidEntryInvalid),
    }
}

/// `None` for what the unit does not offer (VT-d §7.1.3: SPT.4).
fn space(entry: PasidEntry) -> Option<Space> {
    let snoop = PageWalkSnoop::from_bit(entry.walk_snoops());
    let first_stage = |first| {
        first_stage(first).map(|first| FirstStage {
            page_walk_snoop: snoop,
            ..first
        })
    };
    let second_stage = |second: spec::SecondStage| {
        let levels = levels(second.width)?;
        Some(SecondStage {
            accessed_dirty: AccessedDirty::from_bit(entry.second_stage_marks()),
            page_walk_snoop: snoop,
            ..SecondStage::new(second.root, levels)
        })
    };
    match entry.translation() {
        Translation::FirstStage(first) => first_stage(first).map(Space::FirstStage),
        Translation::SecondStage(second) => second_stage(second).map(Space::SecondStage),
        Translation::Nested(first, second) => {
            let (first, second) = (first_stage(first)?, second_stage(second)?);
            let reachable = first.root.get() >> second.levels.address_bits() == 0;
            reachable.then_some(Space::Nested(first, second))
        }
        Translation::PassThrough => Some(Space::PassThrough),
        Translation::Reserved => None,
    }
}

fn first_stage(first: spec::FirstStage) -> Option<FirstStage> {
    let levels = match first.mode {
        PagingMode::FourLevel => Levels::Four,
        PagingMode::FiveLevel => Levels::Five,
        PagingMode::Reserved(_) => return None,
    };
    let flag = |flag| first.flags.contains(flag);
    let mut stage = FirstStage::new(first.root, levels);
    stage.supervisor =
        SupervisorRequests::from_bit(flag(spec::FirstStageFlags::SUPERVISOR_REQUESTS));
    stage.write_protect = WriteProtect::from_bit(flag(spec::FirstStageFlags::WRITE_PROTECT));
    stage.extended_accessed =
        ExtendedAccessed::from_bit(flag(spec::FirstStageFlags::EXTENDED_ACCESSED));
    // Bit 63 of a table entry always means no execution: NXE of older revisions is ignored.
    stage.no_execute = NoExecute::Honoured;
    Some(stage)
}

/// `None` for a width that CAP.SAGAW does not offer, which are the reserved ones.
fn levels(width: AddressWidth) -> Option<Levels> {
    match width {
        AddressWidth::ThreeLevel => Some(Levels::Three),
        AddressWidth::FourLevel => Some(Levels::Four),
        AddressWidth::FiveLevel => Some(Levels::Five),
        AddressWidth::Reserved(_) => None,
    }
}

#[cfg(test)]
mod tests;
