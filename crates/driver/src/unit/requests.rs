//! The page request queue from the driver's side (VT-d §7.4.1, §11.4.11).

use crate::{error::DriverError, guest::Guest, link::Link};
use palisade_pci::Bar;
use palisade_units::{Gpa, PAGE_BYTES};
use palisade_vtd::spec::{
    event::PageRequestStatus,
    page_request::PageRequestDescriptor,
    queue::{PageRequestQueueAddress, QueueOrder},
    register,
};

/// Sixteen pages, as Linux has it: 2048 requests.
const ORDER: QueueOrder = match QueueOrder::new(4) {
    Some(order) => order,
    None => unreachable!(),
};

/// The ring into which the unit puts page requests.
#[derive(Debug)]
pub(super) struct RequestQueue {
    base: Gpa,
    /// The offset of the next request to be read, in bytes.
    head: u64,
}

impl RequestQueue {
    /// Takes the memory for it.
    pub(super) fn new(guest: &mut Guest) -> Result<Self, DriverError> {
        let base = guest.take_zeroed_run(ORDER.bytes() / PAGE_BYTES)?;
        Ok(Self { base, head: 0 })
    }

    /// The value of the queue's address register.
    pub(super) fn address(&self) -> PageRequestQueueAddress {
        PageRequestQueueAddress::at(self.base, ORDER)
    }

    /// Takes all requests out. The status is cleared before the queue is read, so that a request that comes
    /// later raises its event again.
    pub(super) fn take(
        &mut self,
        guest: &Guest,
        link: &mut Link,
    ) -> Result<Vec<PageRequestDescriptor>, DriverError> {
        link.write_u32(Bar::Bar0, register::PRS, PageRequestStatus::PENDING.bits())?;
        let tail = link.read_u64(Bar::Bar0, register::PQT)? & (ORDER.bytes() - 1);
        let requests = self.read(guest, tail)?;
        if !requests.is_empty() {
            link.write_u64(Bar::Bar0, register::PQH, self.head)?;
        }
        let status = link.read_u32(Bar::Bar0, register::PRS)?;
        if PageRequestStatus::from_bits_truncate(status).contains(PageRequestStatus::OVERFLOW) {
            // What found no place was answered by the unit; from here on there is place again.
            tracing::warn!("the page request queue was full for a while");
            link.write_u32(Bar::Bar0, register::PRS, PageRequestStatus::OVERFLOW.bits())?;
        }
        Ok(requests)
    }

    /// Reads from the head to `tail` and moves the head there.
    fn read(
        &mut self,
        guest: &Guest,
        tail: u64,
    ) -> Result<Vec<PageRequestDescriptor>, DriverError> {
        let mut requests = Vec::new();
        while self.head != tail {
            let at = self.base.get() + self.head;
            let mut words = [0; 4];
            for (word, offset) in words.iter_mut().zip((0..).step_by(8)) {
                *word = guest.load_u64(Gpa::new(at + offset))?;
            }
            match PageRequestDescriptor::from_words(words) {
                Some(request) => requests.push(request),
                None => tracing::warn!(head = self.head, "a page request of an unknown type"),
            }
            self.head = (self.head + PageRequestDescriptor::BYTES) % ORDER.bytes();
        }
        Ok(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_units::{Access, Bdf, GuestPasid, Iova};
    use palisade_vtd::spec::page_request::{GroupIndex, PlaceInGroup};

    #[test]
    fn r62_requests_are_read_across_the_end_of_the_ring() {
        let mut guest = Guest::new(4 << 20).unwrap();
        let mut queue = RequestQueue::new(&mut guest).unwrap();
        let request = |index: u16| PageRequestDescriptor {
            requester: Bdf::new(0, 0x10, 0),
            pasid: Some(GuestPasid::new(7).unwrap()),
            at: Iova::new(u64::from(index) << 12),
            access: Access::READ,
            group: GroupIndex::new(index),
            place: PlaceInGroup::Last,
        };
        queue.head = ORDER.bytes() - 64;
        for (index, offset) in [ORDER.bytes() - 64, ORDER.bytes() - 32, 0]
            .iter()
            .enumerate()
        {
            let bytes = request(u16::try_from(index).unwrap()).to_bytes();
            guest
                .write(Gpa::new(queue.base.get() + offset), &bytes)
                .unwrap();
        }
        let read = queue.read(&guest, 32).unwrap();
        assert_eq!(read, (0..3).map(request).collect::<Vec<_>>());
        assert_eq!(queue.head, 32);
        assert!(queue.read(&guest, 32).unwrap().is_empty());
    }
}
