//! Copies under way: descriptors that were submitted and whose completion records are awaited.

use crate::{
    accelerator::Accelerator,
    error::DriverError,
    kernel::Kernel,
    process::{Process, RecordSlot},
};
use palisade_dsa::spec::{CompletionRecord, Descriptor, Flags, Status};
use palisade_units::{Gpa, GuestPasid, Iova};
use zerocopy::FromBytes;

/// One copy within the addresses of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Whose addresses.
    pub process: GuestPasid,
    /// From where.
    pub from: Iova,
    /// To where.
    pub to: Iova,
    /// How much.
    pub len_bytes: u32,
    /// What happens at a page that is not there.
    pub missing: MissingPage,
}

/// What a copy does at a page that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingPage {
    /// It asks for the page and waits.
    Wait,
    /// It ends.
    End,
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The status of its record.
    pub status: Status,
    /// How much was copied before a fault.
    pub bytes_completed: u32,
    /// Where a fault was.
    pub fault_address: Iova,
}

/// The copies that are under way on one accelerator, each under a number of the caller's.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    copies: Vec<Pending>,
}

#[derive(Debug)]
struct Pending {
    number: usize,
    copy: Copy,
    queue: u8,
    slot: RecordSlot,
    place: Gpa,
}

impl InFlight {
    /// How many copies are under way on a queue.
    pub(crate) fn on_queue(&self, queue: u8) -> usize {
        self.copies
            .iter()
            .filter(|pending| pending.queue == queue)
            .count()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// In words, for the error of a wait that took too long.
    pub(crate) fn describe(&self) -> String {
        match self.copies.first() {
            Some(Pending { copy, .. }) => format!(
                "{} copies, the oldest by PASID {} from {} to {} of {} bytes",
                self.copies.len(),
                copy.process,
                copy.from,
                copy.to,
                copy.len_bytes
            ),
            None => "no copy".to_owned(),
        }
    }

    /// Queues a copy on a queue of its process; says whether there was a completion record for it.
    pub(crate) fn submit(
        &mut self,
        accelerator: &mut Accelerator,
        kernel: &mut Kernel,
        queue: u8,
        number: usize,
        copy: Copy,
    ) -> Result<Submitted, DriverError> {
        let (process, guest) = kernel.process_and_guest(copy.process)?;
        let Some(slot) = process.take_record(guest)? else {
            return Ok(Submitted::NoRecord);
        };
        let place = process.record_place(slot);
        let mut descriptor = move_of(&copy).with_record(Process::record_at(slot).get());
        if copy.missing == MissingPage::Wait {
            descriptor = descriptor.with_flags(Flags::BLOCK_ON_FAULT);
        }
        accelerator.submit(queue, &descriptor)?;
        self.copies.push(Pending {
            number,
            copy,
            queue,
            slot,
            place,
        });
        Ok(Submitted::Yes)
    }

    /// Hands out the copies that have ended.
    pub(crate) fn reap(
        &mut self,
        kernel: &mut Kernel,
        mut each: impl FnMut(usize, &Copy, Completion) -> Result<(), DriverError>,
    ) -> Result<usize, DriverError> {
        let mut ended = 0;
        let mut index = 0;
        while let Some(pending) = self.copies.get(index) {
            let first = kernel.guest().load_u64(pending.place)?;
            if first & 0xff == u64::from(Status::NONE.0) {
                index += 1;
                continue;
            }
            let pending = self.copies.remove(index);
            let completion = read_record(kernel, pending.place)?;
            let (process, _) = kernel.process_and_guest(pending.copy.process)?;
            process.give_record_back(pending.slot);
            each(pending.number, &pending.copy, completion)?;
            ended += 1;
        }
        Ok(ended)
    }
}

/// Whether a copy could be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It is under way.
    Yes,
    /// All completion records of its process are in use.
    NoRecord,
}

/// The descriptor of a copy, which tells nobody that it has ended.
pub(crate) fn move_of(copy: &Copy) -> Descriptor {
    Descriptor::memory_move(copy.from.get(), copy.to.get(), copy.len_bytes)
}

fn read_record(kernel: &Kernel, place: Gpa) -> Result<Completion, DriverError> {
    let mut bytes = [0; size_of::<CompletionRecord>()];
    kernel.guest().read(place, &mut bytes)?;
    let record = CompletionRecord::read_from_bytes(&bytes)
        .map_err(|_| DriverError::OutsideMemory { at: place })?;
    Ok(Completion {
        status: record.status(),
        bytes_completed: record.bytes_completed,
        fault_address: Iova::new(record.fault_address),
    })
}
