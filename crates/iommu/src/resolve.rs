use palisade_memory::{MemoryError, Snapshot};
use palisade_units::{Access, Gpa, Iova, PasidTag};

use crate::audit::Origin;
use crate::entry::User;
use crate::faults::{Addressee, HostFault};
use crate::function::Function;
use crate::walk::{Marked, Mend, Refusal, TableError, Tables};
use crate::{DmaError, FaultReason};

impl Tables for Snapshot {
    fn load(&self, at: Gpa) -> Result<u64, TableError> {
        self.load_u64(at).map_err(|_| TableError::Access)
    }

    fn mark(&self, at: Gpa, seen: u64, marked: u64) -> Result<Marked, TableError> {
        match self.compare_exchange_u64(at, seen, marked) {
            Ok(Ok(_)) => Ok(Marked::Done),
            Ok(Err(_)) => Ok(Marked::Changed),
            Err(_) => Err(TableError::Access),
        }
    }
}

/// A request that is refused, whose it was, and who is told.
pub(crate) struct Blocked {
    pub(crate) fault: HostFault,
    pub(crate) mend: Mend,
    pub(crate) origin: Origin,
    pub(crate) addressee: Addressee,
}

impl Blocked {
    /// It is to be made again.
    pub(crate) fn later(&self) -> DmaError {
        let HostFault { at, access, .. } = self.fault;
        DmaError::Later { at, access }
    }
}

impl Function {
    /// Serves a request by who is bound to its tag, unless it is refused.
    ///
    /// To be called while the access is announced as in flight: the entry is borrowed, and nothing
    /// that is kept of it refers to it, so the PASID is held by the table alone.
    pub(crate) fn with_user<R>(
        &self,
        tag: Option<PasidTag>,
        at: Iova,
        access: Access,
        serve: impl FnOnce(&User) -> Result<R, Refusal>,
    ) -> Result<R, Box<Blocked>> {
        if let Some(reason) = self.refuses_tag(tag) {
            return Err(self.refuse_unbound(tag, at, access, reason));
        }
        let entry = self.table.peek(tag);
        let Some(entry) = entry.as_ref().and_then(|entry| entry.as_ref()) else {
            let reason = FaultReason::PasidEntryNotPresent;
            return Err(self.refuse_unbound(tag, at, access, reason));
        };
        serve(&entry.active).map_err(|Refusal { reason, mend }| {
            let origin = Origin::of(&entry.active);
            let addressee = Addressee::of(&entry.active);
            Box::new(Blocked {
                fault: HostFault {
                    tag,
                    at,
                    access,
                    reason,
                },
                mend,
                origin,
                addressee,
            })
        })
    }

    /// Refuses a request of a tag, and finds who is told. To be called while it is in flight.
    pub(crate) fn refuse(
        &self,
        tag: Option<PasidTag>,
        at: Iova,
        access: Access,
        refusal: Refusal,
    ) -> Box<Blocked> {
        let served = self.with_user(tag, at, access, |_| Err::<Never, _>(refusal));
        match served {
            Err(blocked) => blocked,
        }
    }

    /// Refuses a request that no entry serves.
    pub(crate) fn refuse_unbound(
        &self,
        tag: Option<PasidTag>,
        at: Iova,
        access: Access,
        reason: FaultReason,
    ) -> Box<Blocked> {
        let origin = self.faults.audit.origin_of_unbound(tag);
        let addressee = self.faults.addressee_of_unbound(tag);
        let fault = HostFault {
            tag,
            at,
            access,
            reason,
        };
        Box::new(Blocked {
            fault,
            mend: Mend::Never,
            origin,
            addressee,
        })
    }

    /// What a failed access to memory that was translated before is to the tenant.
    pub(crate) fn memory_failed(
        &self,
        tag: Option<PasidTag>,
        at: Iova,
        access: Access,
        error: MemoryError,
    ) -> Box<Blocked> {
        self.refuse(tag, at, access, refusal_of(error))
    }
}

/// There is none: a request that is refused is not served.
enum Never {}

/// The tenant's memory is the last stage: where it has none, that stage has no entry.
pub(crate) fn refusal_of(error: MemoryError) -> Refusal {
    match error {
        MemoryError::ReadOnly { .. } => FaultReason::NotWritable.into(),
        _ => FaultReason::SecondStageNotPresent.into(),
    }
}
