//! The operations by software, as plainly as they can be written down: one byte, bit, word or block after the other, in one
//! flat memory. What the device does is held against this.

mod checksums;
mod delta;
mod dif;

use zerocopy::IntoBytes;

pub(super) use checksums::{crc32c, t10_guard};
pub(super) use dif::with_fields;

use crate::spec::{CompletionRecord, Descriptor, Flags, Opcode, Status};

/// Memory as a process sees it, from an address on.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) base: u64,
    pub(crate) bytes: Vec<u8>,
}

/// Not its bytes: there are too many.
impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {:x}", self.bytes.len(), self.base)
    }
}

impl Memory {
    pub(crate) fn at(&self, at: u64, len: usize) -> &[u8] {
        &self.bytes[self.index(at)..][..len]
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = self.index(at);
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
    }

    fn copy(&mut self, from: u64, to: u64, len: usize) {
        let (from, to) = (self.index(from), self.index(to));
        self.bytes.copy_within(from..from + len, to);
    }

    fn index(&self, at: u64) -> usize {
        usize::try_from(at - self.base).unwrap()
    }
}

/// What the record of a descriptor says that the device was right to take, and what it did to memory.
pub(crate) fn run(descriptor: &Descriptor, memory: &mut Memory) -> CompletionRecord {
    let Descriptor {
        first,
        second,
        size,
        ..
    } = *descriptor;
    let len = size as usize;
    let success = CompletionRecord {
        status: Status::SUCCESS.0,
        ..CompletionRecord::default()
    };
    match descriptor.opcode() {
        Opcode::NO_OP | Opcode::CACHE_FLUSH => success,
        Opcode::MEMORY_MOVE => {
            memory.copy(first, second, len);
            let backward = second > first && second < first + u64::from(size);
            CompletionRecord {
                result: backward.into(),
                ..success
            }
        }
        Opcode::MEMORY_FILL => {
            let pattern = if descriptor.flags().contains(Flags::WIDE_PATTERN) {
                [first, descriptor.pattern_high()]
            } else {
                [first, first]
            };
            let filled: Vec<u8> = (0..len).map(|i| pattern.as_bytes()[i % 16]).collect();
            memory.put(second, &filled);
            success
        }
        Opcode::COMPARE | Opcode::COMPARE_PATTERN => {
            let other = |i: usize| match descriptor.opcode() {
                Opcode::COMPARE => memory.at(second, len)[i],
                _ => second.to_le_bytes()[i % 8],
            };
            let difference = (0..len).find(|i| memory.at(first, len)[*i] != other(*i));
            CompletionRecord {
                result: difference.is_some().into(),
                bytes_completed: u32::try_from(difference.unwrap_or(0)).unwrap(),
                ..success
            }
        }
        Opcode::CREATE_DELTA => delta::create(descriptor, memory),
        Opcode::APPLY_DELTA => delta::apply(descriptor, memory),
        Opcode::DUALCAST => {
            memory.copy(first, second, len);
            memory.copy(first, descriptor.second_destination(), len);
            success
        }
        Opcode::CRC | Opcode::COPY_CRC => {
            let seed = if descriptor.flags().contains(Flags::READ_CRC_SEED) {
                let bytes = memory.at(descriptor.crc_seed().address, 4);
                u32::from_le_bytes(bytes.try_into().unwrap())
            } else {
                descriptor.crc_seed().seed
            };
            if descriptor.opcode() == Opcode::COPY_CRC {
                memory.copy(first, second, len);
            }
            let crc = crc32c(memory.at(first, len), seed, descriptor.flags());
            with_words(success, &[crc])
        }
        _ => dif::run(descriptor, memory),
    }
}

/// A record with the first words of what is specific to its operation.
fn with_words(mut record: CompletionRecord, words: &[u32]) -> CompletionRecord {
    record.specific[..words.len() * 4].copy_from_slice(words.as_bytes());
    record
}
