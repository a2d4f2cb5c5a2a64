//! The page request queue: a ring in the guest's memory (VT-d §7.4.1, §7.5).

use palisade_memory::GuestMemory;
use palisade_units::Gpa;

use super::{Message, Registers, event::Event};
use crate::spec::event::PageRequestStatus;
use crate::spec::page_request::PageRequestDescriptor;
use crate::spec::register as reg;

/// Why a page request is not in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue is full, or was and software has not cleared that yet.
    Overflow(Option<Message>),
    /// There is no queue, or no memory where it should be.
    NoQueue,
}

impl Registers {
    /// Puts a request into the queue.
    ///
    /// # Errors
    /// [`Refusal`]; the overflow status is set where the queue is full.
    pub(crate) fn push_page_request(
        &mut self,
        memory: &GuestMemory,
        request: PageRequestDescriptor,
    ) -> Result<Option<Message>, Refusal> {
        let status = self.page_request_status();
        // A stopped unit writes nothing: as with a queue that is full, the device asks again later.
        if status.contains(PageRequestStatus::OVERFLOW) || self.holds_messages() {
            return Err(Refusal::Overflow(None));
        }
        let address = self.page_queue_address();
        // Software takes the queue away by writing zero.
        if address.base() == Gpa::new(0) {
            return Err(Refusal::NoQueue);
        }
        let len_bytes = address.order().bytes();
        let tail = self.qword(reg::PQT) & (len_bytes - 1);
        let head = self.qword(reg::PQH) & (len_bytes - 1);
        let next = (tail + PageRequestDescriptor::BYTES) & (len_bytes - 1);
        if next == head {
            return Err(Refusal::Overflow(
                self.raise_page_request(PageRequestStatus::OVERFLOW),
            ));
        }
        let at = address.base().checked_add(tail).ok_or(Refusal::NoQueue)?;
        memory
            .write(at, &request.to_bytes())
            .map_err(|_| Refusal::NoQueue)?;
        self.set_qword(reg::PQT, next);
        Ok(self.raise_page_request(PageRequestStatus::PENDING))
    }

    /// Sets a status; it interrupts unless one was set already.
    fn raise_page_request(&mut self, set: PageRequestStatus) -> Option<Message> {
        let old = self.page_request_status();
        self.set_dword(reg::PRS, (old | set).bits());
        if old.is_empty() {
            self.raise(Event::PageRequest)
        } else {
            None
        }
    }
}
