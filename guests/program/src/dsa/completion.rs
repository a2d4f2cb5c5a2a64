//! Completion records: 32 bytes that the device writes when an operation has ended.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A record that waits to be written. Its address is a multiple of 32.
#[derive(Debug, Default)]
#[repr(C, align(32))]
pub struct CompletionRecord {
    words: [AtomicU64; 4],
}

/// Which access could not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Reading the source.
    Read,
    /// Writing the destination.
    Write,
}

/// What became of the page request for a page that was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// There was none: the descriptor did not say that the device may block.
    NotMade,
    /// The kernel answered that there is no such page.
    Refused,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was done.
    Success,
    /// A page was not there, or not for this kind of access.
    PageFault {
        /// Whether the kernel was asked for it.
        request: Request,
        /// Reading or writing.
        side: Side,
        /// Where, as the device tells it.
        at: u64,
        /// How much was done before.
        bytes_completed: u32,
    },
    /// Any other status.
    Error {
        /// The status byte.
        status: u8,
    },
}

const STATUS_SUCCESS: u8 = 1;
const STATUS_PAGE_FAULT: u8 = 3;
const STATUS_PAGE_REFUSED: u8 = 4;
const STATUS_MASK: u8 = 0x7F;
const STATUS_WRITE: u8 = 0x80;

impl CompletionRecord {
    /// The address to put into a descriptor.
    #[must_use]
    pub fn address(&self) -> u64 {
        std::ptr::from_ref(self).expose_provenance() as u64
    }

    /// Makes it ready for the next operation.
    pub fn clear(&self) {
        for word in &self.words {
            word.store(0, Ordering::Release);
        }
    }

    /// How the operation ended, once it has.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let first = self.words[0].load(Ordering::Acquire);
        Outcome::from_words(first, self.words[1].load(Ordering::Acquire))
    }
}

impl Outcome {
    /// From a record's first two words, the first read before the second; nothing as long as the operation has
    /// not ended.
    #[must_use]
    pub fn from_words(first: u64, second: u64) -> Option<Self> {
        let [status, _, _, _, count @ ..] = first.to_le_bytes();
        match status & STATUS_MASK {
            0 => None,
            STATUS_SUCCESS => Some(Self::Success),
            fault @ (STATUS_PAGE_FAULT | STATUS_PAGE_REFUSED) => Some(Self::PageFault {
                request: match fault {
                    STATUS_PAGE_FAULT => Request::NotMade,
                    _ => Request::Refused,
                },
                side: match status & STATUS_WRITE {
                    0 => Side::Read,
                    _ => Side::Write,
                },
                at: second,
                bytes_completed: u32::from_le_bytes(count),
            }),
            _ => Some(Self::Error { status }),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::PageFault {
                request,
                side,
                at,
                bytes_completed,
            } => {
                let what = match side {
                    Side::Read => "read",
                    Side::Write => "written",
                };
                let why = match request {
                    Request::NotMade => "page fault",
                    Request::Refused => "page request refused",
                };
                write!(
                    f,
                    "{why}: {at:#x} cannot be {what}, after {bytes_completed} bytes"
                )
            }
            Self::Error { status } => write!(f, "error status {status:#04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(first: u64, second: u64) -> Option<Outcome> {
        let record = CompletionRecord::default();
        record.words[1].store(second, Ordering::Relaxed);
        record.words[0].store(first, Ordering::Release);
        record.outcome()
    }

    #[test]
    fn a_record_is_read_as_the_architecture_has_it() {
        assert_eq!(written(0, 0), None);
        assert_eq!(written(1, 0), Some(Outcome::Success));
        assert_eq!(
            written(0x0000_1000_0000_0083, 0xABCD_0000),
            Some(Outcome::PageFault {
                request: Request::NotMade,
                side: Side::Write,
                at: 0xABCD_0000,
                bytes_completed: 0x1000
            })
        );
        assert_eq!(
            written(0x04, 0x1_0000),
            Some(Outcome::PageFault {
                request: Request::Refused,
                side: Side::Read,
                at: 0x1_0000,
                bytes_completed: 0
            })
        );
        assert_eq!(written(0x1F, 0), Some(Outcome::Error { status: 0x1F }));
    }

    #[test]
    fn a_record_is_aligned_as_the_device_wants_it() {
        assert_eq!(CompletionRecord::default().address() % 32, 0);
    }
}
