use palisade_units::{Access, Iova};

use super::{DmaError, DmaPort, Requester, conclude};
use crate::report::{PageRequest, PageResponse, PageWaiter, PlaceInGroup};
use crate::requests::{NotOpened, Opened, Receiver};
use crate::{Binding, FaultReason};

impl DmaPort {
    /// Asks the tenant for a page: a group of one, as [`DmaPort::request_pages`].
    ///
    /// # Errors
    /// Those of [`DmaPort::request_pages`].
    pub fn request_page(
        &self,
        by: Requester,
        at: Iova,
        access: Access,
        waiter: PageWaiter,
    ) -> Result<(), DmaError> {
        self.request_pages(by, (at, access), &[], waiter)
    }

    /// Asks the tenant for the page at an address and for others, in one group, which has one answer: success
    /// when all of them are there (PCIe 10.4.1.1). The waiter is called exactly once: with the tenant's
    /// answer, or by an unbind, or at once with [`PageResponse::Failure`] when the tenant's queue is full
    /// or too many groups of the tag wait already. It may be called before this returns.
    ///
    /// # Errors
    /// [`DmaError::Faulted`] when nothing is bound to the tag; the waiter is not called then.
    pub fn request_pages(
        &self,
        by: Requester,
        (at, access): (Iova, Access),
        others: &[(Iova, Access)],
        waiter: PageWaiter,
    ) -> Result<(), DmaError> {
        let (function, tag) = (&*self.function, by.tag);
        let refuse = |reason| {
            let access = by.access(access);
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
        let request = |(at, access): (Iova, Access), last_in_group| PageRequest {
            bdf: to.bdf,
            pasid: to.pasid,
            at: at.page_base(),
            access: by.access(access),
            group,
            last_in_group,
        };
        let first = [(at, access)];
        let mut pages = first.iter().chain(others).peekable();
        while let Some(page) = pages.next() {
            let place = match pages.peek() {
                Some(_) => PlaceInGroup::MoreFollow,
                None => PlaceInGroup::Last,
            };
            if to.sink.page_request(request(*page, place)).is_ok() {
                continue;
            }
            if let Some(waiter) = function.requests.take_back(tag, group, serial) {
                waiter(PageResponse::Failure);
            }
            break;
        }
        Ok(())
    }
}
