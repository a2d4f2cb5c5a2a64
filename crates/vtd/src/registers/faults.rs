//! Primary fault logging: a ring of records (VT-d §7.2.1).

use super::{Message, Registers, event::Event};
use crate::spec::event::{FaultStatus, FaultStatusRegister};
use crate::spec::fault::FaultRecord;
use crate::spec::register as reg;

const COUNT: usize = 256;
const RECORD: usize = 16;
/// The byte of a record that has F, in its top bit.
const FLAG_BYTE: usize = RECORD - 1;
const FLAG: u8 = 0x80;

/// The fault records. The index of the next one to fill is a byte, which wraps as the ring does.
pub(super) struct FaultRecords {
    bytes: Box<[[u8; RECORD]; COUNT]>,
    next: u8,
    /// FRI: the first that was filled since none was pending.
    first: u8,
    /// How many have F set.
    pending: usize,
}

const _: () = {
    assert!(COUNT as u64 == reg::FAULT_RECORD_COUNT);
    assert!(RECORD as u64 == reg::FAULT_RECORD_BYTES);
    assert!(COUNT == 1 << u8::BITS, "the index of a record is a byte");
};

impl FaultRecords {
    pub(super) fn new() -> Self {
        Self {
            bytes: Box::new([[0; RECORD]; COUNT]),
            next: 0,
            first: 0,
            pending: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.fill([0; RECORD]);
        self.next = 0;
        self.first = 0;
        self.pending = 0;
    }

    /// The records that are not empty, with their indexes, ascending.
    pub(super) fn filled(&self) -> impl Iterator<Item = (u8, [u8; RECORD])> + '_ {
        let records = (0..=u8::MAX).zip(self.bytes.iter());
        records
            .filter(|(_, record)| **record != [0; RECORD])
            .map(|(index, record)| (index, *record))
    }

    /// The index of the next record to fill, and FRI.
    pub(super) fn positions(&self) -> [u8; 2] {
        [self.next, self.first]
    }

    /// Records as they were.
    pub(super) fn restored(filled: &[(u8, [u8; RECORD])], [next, first]: [u8; 2]) -> Self {
        let mut records = Self {
            next,
            first,
            ..Self::new()
        };
        for (index, record) in filled {
            records.bytes[usize::from(*index)] = *record;
        }
        let pending = |record: &&[u8; RECORD]| record[FLAG_BYTE] & FLAG != 0;
        records.pending = records.bytes.iter().filter(pending).count();
        records
    }

    /// A byte of the block; zero past its end.
    pub(super) fn byte(&self, at: u64) -> u8 {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let record = self.bytes.get(at / RECORD);
        record.map_or(0, |record| record[at % RECORD])
    }

    fn has_room(&self) -> bool {
        self.bytes[usize::from(self.next)][FLAG_BYTE] & FLAG == 0
    }

    /// Fills the next record, which has room.
    fn push(&mut self, record: FaultRecord) {
        self.bytes[usize::from(self.next)] = record.to_bytes();
        if self.pending == 0 {
            self.first = self.next;
        }
        self.pending += 1;
        self.next = self.next.wrapping_add(1);
    }

    /// A write to the BAR: F is cleared by a one, all else is read-only. Says whether any was cleared.
    pub(super) fn write(&mut self, offset_bytes: u64, from: &[u8]) -> bool {
        let before = self.pending;
        for (at, byte) in (offset_bytes..).zip(from) {
            let at = at.checked_sub(reg::FAULT_RECORDS);
            let Some(at) = at.and_then(|at| usize::try_from(at).ok()) else {
                continue;
            };
            if at % RECORD != FLAG_BYTE || byte & FLAG == 0 {
                continue;
            }
            if let Some(record) = self.bytes.get_mut(at / RECORD)
                && record[FLAG_BYTE] & FLAG != 0
            {
                record[FLAG_BYTE] &= !FLAG;
                self.pending -= 1;
            }
        }
        self.pending != before
    }
}

impl Registers {
    /// Whether faults are dropped until software clears the overflow.
    pub(crate) fn drops_faults(&self) -> bool {
        self.fault_status().contains(FaultStatus::OVERFLOW)
    }

    /// Whether a fault would be recorded now. One that is not counts as an overflow.
    fn takes_faults(&mut self) -> bool {
        if self.drops_faults() {
            return false;
        }
        if self.records.has_room() {
            return true;
        }
        // Every record is pending, so this is no new interrupt condition.
        self.update_fault_status(FaultStatus::OVERFLOW);
        false
    }

    /// Records a fault, unless there was an overflow.
    pub(crate) fn record(&mut self, record: FaultRecord) -> Option<Message> {
        if !self.takes_faults() {
            return None;
        }
        let quiet = self.interrupting_status().is_empty();
        self.records.push(record);
        self.update_fault_status(FaultStatus::empty());
        if quiet {
            self.raise(Event::Fault)
        } else {
            None
        }
    }

    /// Sets a status that interrupts, unless one was set already (VT-d §7.3).
    pub(super) fn raise_fault_event(&mut self, status: FaultStatus) -> Option<Message> {
        let quiet = self.interrupting_status().is_empty();
        self.update_fault_status(status);
        if quiet {
            self.raise(Event::Fault)
        } else {
            None
        }
    }

    fn interrupting_status(&self) -> FaultStatus {
        self.fault_status()
    }

    /// The index goes back to the first record when translation is off (VT-d §7.2.1).
    pub(crate) fn restart_fault_records(&mut self) {
        self.records.next = 0;
    }

    /// Makes FSTS follow the records, with more status bits set; without any, nothing is held back.
    pub(super) fn update_fault_status(&mut self, set: FaultStatus) {
        let mut status = self.fault_status() | set;
        status.set(FaultStatus::PENDING, self.records.pending != 0);
        let register = FaultStatusRegister::new(status, self.records.first);
        self.set_dword(reg::FSTS, register.into_bits());
        if status.is_empty() {
            self.withdraw(Event::Fault);
        }
    }
}
