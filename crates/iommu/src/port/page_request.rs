use palisade_units::{Access, Iova};

use super::{DmaError, DmaPort, Requester, conclude};
use crate::report::{PageRequest, PageResponse, PageWaiter, PlaceInGroup};
use crate::requests::{NotOpened, Opened, Receiver};
use crate::{Binding, FaultReason};

impl DmaPort {
    /// Asks the tenant for a page. The waiter is called exactly once: with the tenant's answer, or
    /// by an unbind, or at once with [`PageResponse::Failure`] when the tenant's queue is full or
    /// too many requests of the tag wait already. It may be called before this returns.
    ///
    /// # Errors
    /// [`DmaError::Faulted`] when nothing is bound to the tag; the waiter is not called then.
    pub fn request_page(
        &self,
        by: Requester,
        at: Iova,
        access: Access,
        waiter: PageWaiter,
    ) -> Result<(), DmaError> {
        let (function, tag) = (&*self.function, by.tag);
        let access = by.access(access);
        let refuse = |reason| {
            let blocked = function.refuse_unbound(tag, at, access, reason);
            Err(conclude(function, by, *blocked))
        };
        if let Some(reason) = function.refuses_tag(tag) {
            return refuse(reason);
        }
        let opened = function.requests.open(tag, waiter, || {
            let entry = function.table.get(tag)?;
            let Binding {
                user,
                sink,
                guest_bdf,
                guest_pasid,
                ..
            } = &entry.active.binding;
            Some(Receiver {
                user: *user,
                sink: sink.clone(),
                bdf: *guest_bdf,
                pasid: *guest_pasid,
            })
        });
        let Opened { group, to, serial } = match opened {
            Ok(opened) => opened,
            Err(NotOpened::Full(waiter)) => {
                waiter(PageResponse::Failure);
                return Ok(());
            }
            Err(NotOpened::Unbound) => return refuse(FaultReason::PasidEntryNotPresent),
        };
        let request = PageRequest {
            bdf: to.bdf,
            pasid: to.pasid,
            at: at.page_base(),
            access,
            group,
            last_in_group: PlaceInGroup::Last,
        };
        if to.sink.page_request(request).is_err()
            && let Some(waiter) = function.requests.take_back(tag, group, serial)
        {
            waiter(PageResponse::Failure);
        }
        Ok(())
    }
}
