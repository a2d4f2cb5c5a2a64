//! The invalidation queue from the driver's side (VT-d §6.5.2).

use crate::{
    error::DriverError,
    guest::Guest,
    link::Link,
    wait::{LIMIT, Patience},
};
use palisade_pci::Bar;
use palisade_units::{Gpa, PAGE_BYTES};
use palisade_vtd::spec::{
    descriptor::{InvDescriptor, WaitFlags},
    event::{FaultStatus, FaultStatusRegister},
    queue::{DescriptorWidth, InvalidationQueueAddress, QueueOrder},
    register,
};

/// Two pages, as Linux has it.
const ORDER: QueueOrder = match QueueOrder::new(1) {
    Some(order) => order,
    None => unreachable!(),
};
const PAGES: u64 = ORDER.bytes() / PAGE_BYTES;
const DESCRIPTOR_BYTES: u64 = DescriptorWidth::Bits256.bytes();
const DESCRIPTORS: u64 = PAGES * PAGE_BYTES / DESCRIPTOR_BYTES;
/// How many descriptors go in before the driver waits for them; the queue is never full then.
const BATCH: usize = 128;

/// The ring of 256-bit descriptors, and the word to which each wait writes its number.
#[derive(Debug)]
pub(super) struct InvalidationQueue {
    base: Gpa,
    status: Gpa,
    tail: u64,
    /// The number of the last wait.
    ticket: u32,
}

impl InvalidationQueue {
    /// Takes the memory for it.
    pub(super) fn new(guest: &mut Guest) -> Result<Self, DriverError> {
        let base = guest.take_zeroed_run(PAGES)?;
        let status = guest.take_zeroed_run(1)?;
        Ok(Self {
            base,
            status,
            tail: 0,
            ticket: 0,
        })
    }

    /// The value of the queue's address register.
    pub(super) fn address(&self) -> InvalidationQueueAddress {
        InvalidationQueueAddress::at(self.base, ORDER, DescriptorWidth::Bits256)
    }

    /// Hands descriptors to the unit, a wait after them, and returns once the wait has completed.
    pub(super) fn run(
        &mut self,
        guest: &Guest,
        link: &mut Link,
        descriptors: &[InvDescriptor],
        wait: WaitFlags,
    ) -> Result<(), DriverError> {
        for batch in descriptors.chunks(BATCH) {
            for descriptor in batch {
                self.push(guest, *descriptor)?;
            }
            self.ticket = self.ticket.wrapping_add(1);
            self.push(guest, InvDescriptor::wait(self.status, self.ticket, wait))?;
            link.write_u64(Bar::Bar0, register::IQT, self.tail * DESCRIPTOR_BYTES)?;
            self.await_ticket(guest, link)?;
        }
        Ok(())
    }

    fn push(&mut self, guest: &Guest, descriptor: InvDescriptor) -> Result<(), DriverError> {
        let at = Gpa::new(self.base.get() + self.tail * DESCRIPTOR_BYTES);
        guest.write(at, &descriptor.to_bytes())?;
        self.tail = (self.tail + 1) % DESCRIPTORS;
        Ok(())
    }

    fn await_ticket(&self, guest: &Guest, link: &mut Link) -> Result<(), DriverError> {
        let mut patience = Patience::new(LIMIT);
        while guest.load_u64(self.status)? & u64::from(u32::MAX) != u64::from(self.ticket) {
            if patience.is_resting() {
                check_error(link)?;
            }
            patience.pause(|| format!("invalidation wait {} of the unit", self.ticket))?;
        }
        Ok(())
    }
}

/// An error of the queue stops it, so no wait would end.
fn check_error(link: &mut Link) -> Result<(), DriverError> {
    let status = FaultStatusRegister::from_bits(link.read_u32(Bar::Bar0, register::FSTS)?);
    if !status.status().contains(FaultStatus::QUEUE_ERROR) {
        return Ok(());
    }
    let head = link.read_u64(Bar::Bar0, register::IQH)?;
    let error = link.read_u64(Bar::Bar0, register::IQER)?;
    Err(DriverError::Unit(format!(
        "its invalidation queue stopped at offset {head:#x} with error {:#x}",
        error & 0xf
    )))
}
