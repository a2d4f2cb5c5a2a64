//! What the platform reports: faults become records, page requests become descriptors, both in the
//! guest's names. Called by engines while the guest works on the registers.

use palisade_iommu::{
    Ats, Fault, FaultProcessing, FaultReason, LookedUp, MayWait, PageRequest, QueueFull, Sink,
};
use palisade_units::{Access, Bdf, GuestPasid};

use crate::Unit;
use crate::registers::TranslationState;
use crate::spec::command::TranslationTableMode;
use crate::spec::fault::{FaultCode, FaultRecord, RequestKind};
use crate::tables::{TableFault, Tables, Tag, code, context_fpd};

mod asked;
mod page_requests;

pub(crate) use asked::{Asked, CAPACITY, Group};

impl Sink for Unit {
    fn fault(&self, fault: Fault) {
        let _reporting = self.pause.report();
        let translation = {
            let registers = self.registers();
            // A storm of faults ends here: after an overflow nothing is recorded, and no table is read.
            if registers.drops_faults() {
                return;
            }
            registers.translation()
        };
        // With translation off the unit looks at no request, and so it has no fault (VT-d §7.1).
        let TranslationState::On(root) = translation else {
            return;
        };
        // The unit answers that such an address is not translated, so that the request is untranslated after
        // all (VT-d §7.1.3: S.1).
        let asks = fault.ats == Ats::On && !is_interrupt_address(&fault);
        // Nor is one where nothing that it says could make the answer to a request for a translation a fault.
        if asks && !depends_on_tables(fault.reason) && code(fault.reason).is_an_answer_to_ats() {
            return;
        }
        let named = name(Tables::new(&self.memory, root), &fault);
        // Only a fault that software wants to hear of may find the records full (VT-d §7.1, §7.2.1).
        if named.processing == FaultProcessing::Disabled {
            return;
        }
        if asks && named.code.is_an_answer_to_ats() {
            return;
        }
        let mut record = FaultRecord::new(
            fault.bdf,
            fault.pasid,
            fault.at,
            fault.access,
            kind(fault.access),
            named.code,
        );
        if asks {
            record = record.of_translation_request();
        }
        let message = self.registers().record(record);
        self.send(message);
    }

    fn look_up(&self, function: Bdf, pasid: Option<GuestPasid>, wait: MayWait) -> LookedUp {
        if self.pause.is_restored() {
            return LookedUp::Nothing;
        }
        self.look_up_entry(function, pasid, wait)
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        let _reporting = self.pause.report();
        let translation = self.registers().translation();
        let TranslationState::On(root) = translation else {
            // No table says that the function may ask, and none that it may not: an invalid request,
            // and no fault (VT-d §7.4.1).
            self.refuse_page_request(&request);
            return Ok(());
        };
        let tables = Tables::new(&self.memory, root);
        if let Err(fault) = tables.check_page_request(request.bdf, tag(request.pasid)) {
            self.record_page_request(&request, fault);
            self.refuse_page_request(&request);
            return Ok(());
        }
        self.queue_page_request(&request)
    }
}

/// The reason of a fault as the guest's own tables explain it. The platform knows only that nothing is
/// bound, or what the function itself cannot do; which of the guest's entries is to blame stands in its
/// memory.
fn name(tables: Tables<'_>, fault: &Fault) -> TableFault {
    let reported = |code| TableFault::new(code, FaultProcessing::Report);
    let legacy = tables.mode() == TranslationTableMode::Legacy;
    let as_reported = reported(if legacy {
        legacy_code(fault.reason, fault.access)
    } else {
        code(fault.reason)
    });
    match fault.reason {
        // Without a PASID such an address is no memory, whatever the tables say; they say only whether
        // software wants to hear of it.
        FaultReason::PasidEntryNotPresent if is_interrupt_address(fault) => {
            let looked_up = tables.look_up(fault.bdf, Tag::Without);
            let processing = match looked_up {
                Err(named) => named.met,
                Ok(found) => found.processing,
            };
            let code = if legacy {
                FaultCode::LEGACY_INTERRUPT_RANGE
            } else {
                code(FaultReason::InterruptRange)
            };
            TableFault::new(code, processing)
        }
        FaultReason::DeviceTlbDisabled
        | FaultReason::PasidEntryNotPresent
        | FaultReason::PasidDisabled
        | FaultReason::PasidTooLarge
            if fault.ats == Ats::On
                && let Some(blocked) = tables.blocks_device_tlb(fault.bdf, tag(fault.pasid)) =>
        {
            blocked
        }
        FaultReason::PasidEntryNotPresent => match tables.look_up(fault.bdf, tag(fault.pasid)) {
            Err(named) => named,
            Ok(found) => TableFault::new(as_reported.code, found.processing),
        },
        // What the function cannot do counts from its context entry on: a fault on the way there comes
        // first, one behind it does not happen. The codes rise in the order of the tables.
        FaultReason::PasidDisabled | FaultReason::PasidTooLarge => {
            match tables.look_up(fault.bdf, tag(fault.pasid)) {
                Err(named) if named.code <= as_reported.code => named,
                _ => {
                    let context = tables.context(fault.bdf);
                    let processing = context.map_or(FaultProcessing::Report, context_fpd);
                    TableFault::new(as_reported.code, processing)
                }
            }
        }
        _ => as_reported,
    }
}

/// Whether which fault it is stands in the guest's tables.
fn depends_on_tables(reason: FaultReason) -> bool {
    matches!(
        reason,
        FaultReason::DeviceTlbDisabled
            | FaultReason::PasidEntryNotPresent
            | FaultReason::PasidDisabled
            | FaultReason::PasidTooLarge
    )
}

/// Whether a request without a PASID is to FEEx_xxxxh (VT-d §3.14).
fn is_interrupt_address(fault: &Fault) -> bool {
    fault.pasid.is_none() && fault.at.get() >> 20 == 0xfee
}

fn tag(pasid: Option<GuestPasid>) -> Tag {
    pasid.map_or(Tag::Without, Tag::Pasid)
}

fn kind(access: Access) -> RequestKind {
    if access.contains(Access::READ | Access::WRITE) {
        RequestKind::Atomic
    } else if access.contains(Access::WRITE) {
        RequestKind::Write
    } else {
        RequestKind::Read
    }
}

/// Legacy mode has codes of its own for the second stage (VT-d §7.1.3: LSS, LGN).
fn legacy_code(reason: FaultReason, access: Access) -> FaultCode {
    match reason {
        FaultReason::SecondStageAccess => FaultCode::LEGACY_PAGING_ACCESS,
        FaultReason::SecondStageReserved => FaultCode::LEGACY_PAGING_RESERVED,
        FaultReason::SecondStageRootAccess => FaultCode::LEGACY_CONTEXT_INVALID,
        FaultReason::BeyondSecondStageWidth | FaultReason::BeyondHostWidth => {
            FaultCode::LEGACY_BEYOND_WIDTH
        }
        FaultReason::InterruptRange => FaultCode::LEGACY_INTERRUPT_RANGE,
        FaultReason::NotWritable => FaultCode::LEGACY_NOT_WRITABLE,
        FaultReason::NotReadable => FaultCode::LEGACY_NOT_READABLE,
        FaultReason::SecondStageNotPresent if access.contains(Access::WRITE) => {
            FaultCode::LEGACY_NOT_WRITABLE
        }
        FaultReason::SecondStageNotPresent => FaultCode::LEGACY_NOT_READABLE,
        FaultReason::DeviceTlbDisabled => FaultCode::LEGACY_DEVICE_TLB_BLOCKED,
        // Nothing was bound when the unit was last told of the entry, which is as if it were cached.
        FaultReason::PasidEntryNotPresent => FaultCode::LEGACY_CONTEXT_NOT_PRESENT,
        other => code(other),
    }
}

#[cfg(test)]
mod priority;
#[cfg(test)]
mod reasons;
#[cfg(test)]
mod records;
#[cfg(test)]
mod tests;
