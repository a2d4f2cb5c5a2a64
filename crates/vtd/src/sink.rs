//! What the platform reports: faults become records, page requests become descriptors, both in the
//! guest's names. Called by engines while the guest works on the registers.

use palisade_iommu::{
    Fault, FaultProcessing, FaultReason, GroupIndex, PageRequest, PageResponse, PlaceInGroup,
    QueueFull, Sink,
};
use palisade_units::{Access, Bdf, GuestPasid};
use palisade_vfio::SpaceKey;

use crate::Unit;
use crate::registers::{Refusal, TranslationState};
use crate::spec::command::TranslationTableMode;
use crate::spec::fault::{FaultCode, FaultRecord, RequestKind};
use crate::spec::page_request as spec;
use crate::tables::{TableFault, Tables, Tag, code};

impl Sink for Unit {
    fn fault(&self, fault: Fault) {
        // A storm of faults ends here: a full log costs no walk.
        let translation = {
            let mut registers = self.registers();
            if !registers.takes_faults() {
                return;
            }
            registers.translation()
        };
        let named = self.name(translation, &fault);
        if named.processing == FaultProcessing::Disabled {
            return;
        }
        let record = FaultRecord::new(
            fault.bdf,
            fault.pasid,
            fault.at,
            fault.access,
            kind(fault.access),
            named.code,
        );
        let message = self.registers().record(record);
        self.send(message);
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        let translation = self.registers().translation();
        if let TranslationState::On(root) = translation {
            let tables = Tables::new(&self.memory, root);
            if let Err(fault) = tables.check_page_request(request.bdf, tag(request.pasid)) {
                self.refuse_page_request(&request, fault);
                return Ok(());
            }
        }
        let descriptor = spec::PageRequestDescriptor {
            requester: request.bdf,
            pasid: request.pasid,
            at: request.at,
            access: request.access,
            group: request.group,
            place: request.last_in_group,
        };
        let pushed = self.registers().push_page_request(&self.memory, descriptor);
        match pushed {
            Ok(message) => {
                self.send(message);
                Ok(())
            }
            // The specification has the unit answer "success", so that the device asks again at once
            // (VT-d §7.4.1, Table 31). The platform answers "failure" instead, so that a guest that
            // never empties its queue keeps no engine busy.
            Err(Refusal::Overflow(message)) => {
                self.send(message);
                Err(QueueFull)
            }
            Err(Refusal::NoQueue) => Err(QueueFull),
        }
    }
}

impl Unit {
    /// The reason of a fault as the guest's own tables explain it. The platform knows only that nothing is
    /// bound; which of the guest's entries is to blame stands in its memory.
    fn name(&self, translation: TranslationState, fault: &Fault) -> TableFault {
        let as_reported = TableFault {
            code: code(fault.reason),
            processing: FaultProcessing::Report,
        };
        let TranslationState::On(root) = translation else {
            return as_reported;
        };
        let tables = Tables::new(&self.memory, root);
        if fault.reason == FaultReason::PasidEntryNotPresent {
            return match tables.look_up(fault.bdf, tag(fault.pasid)) {
                Err(named) => named,
                Ok(found) => TableFault {
                    processing: found.processing,
                    ..as_reported
                },
            };
        }
        match tables.mode() {
            TranslationTableMode::Legacy => TableFault {
                code: legacy_code(fault.reason, fault.access),
                ..as_reported
            },
            _ => as_reported,
        }
    }

    /// The tables do not let the function ask: that is a fault, and the request is answered
    /// (VT-d §7.4.1, Table 31).
    fn refuse_page_request(&self, request: &PageRequest, fault: TableFault) {
        if fault.processing == FaultProcessing::Report {
            let record = FaultRecord::new(
                request.bdf,
                request.pasid,
                request.at,
                request.access,
                RequestKind::PageRequest,
                fault.code,
            );
            let message = self.registers().record(record);
            self.send(message);
        }
        if request.last_in_group == PlaceInGroup::Last {
            self.respond(
                request.bdf,
                request.pasid,
                request.group,
                PageResponse::Invalid,
            );
        }
    }

    /// Answers a page request group. One that nobody waits for is dropped (VT-d §7.9).
    pub(crate) fn respond(
        &self,
        function: Bdf,
        pasid: Option<GuestPasid>,
        group: GroupIndex,
        response: PageResponse,
    ) {
        let key = pasid.map_or(SpaceKey::WithoutPasid, SpaceKey::Pasid);
        if let Err(error) = self.container.respond(function, key, group, response)
            && let Some(count) = self.counts.stray_responses.tick()
        {
            tracing::debug!(%function, %error, count, "a page group response has no request");
        }
    }
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
        other => code(other),
    }
}

#[cfg(test)]
mod tests;
