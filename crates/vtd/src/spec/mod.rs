//! The specification as data: registers, tables in memory, queue descriptors, fault records.
//!
//! Nothing here has behaviour. The unit reads guests' structures with these types, a driver writes
//! them; a test that builds one and decodes it again shows that both mean the same bits. Values that
//! a guest controls decode to values or to the architectural error, never to a panic.
//!
//! Sections are those of "Intel Virtualization Technology for Directed I/O", revision 5.10, cited as
//! VT-d. Names of fields are the specification's; where an older revision gives a bit another meaning
//! that guests rely on, the item says so.

pub mod capability;
pub mod command;
pub mod context;
pub mod descriptor;
pub mod event;
pub mod fault;
pub mod legacy_context;
pub mod page_request;
pub mod pasid_table;
pub mod queue;
pub mod register;
pub mod root;
pub mod virtual_command;

use palisade_units::{Gpa, PAGE_SHIFT};

/// The width of the addresses that root, context and PASID structures can hold, in bits. Bits above it
/// in such an address are reserved.
pub const HOST_ADDRESS_WIDTH: u32 = 52;

/// The identifier of a domain: tags what the caches hold (VT-d §6.2.1). With caching mode, 0 is
/// reserved (VT-d §9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(u16);

impl DomainId {
    /// The domain with this number.
    #[must_use]
    pub const fn new(raw: u16) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The number of the 4 KiB page at `at`, as the pointer fields of structures in memory hold it.
const fn page_number(at: Gpa) -> u64 {
    at.get() >> PAGE_SHIFT
}

/// The address of the 4 KiB page with this number.
const fn page_address(number: u64) -> Gpa {
    Gpa::new(number << PAGE_SHIFT)
}

/// The words of a structure in memory as bytes, in the order in which they stand there.
macro_rules! words_to_bytes {
    ($words:expr, $count:literal) => {{
        let words: [u64; $count] = $words;
        let mut bytes = [0_u8; $count * 8];
        for (into, word) in bytes.chunks_exact_mut(8).zip(words) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }};
}
use words_to_bytes;
