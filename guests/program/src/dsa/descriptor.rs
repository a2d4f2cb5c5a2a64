//! Descriptors: 64 bytes that ask for one operation.

/// What the device does when a page is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFault {
    /// Ends the operation with an error.
    Complete,
    /// Asks the kernel for the page and waits.
    Block,
}

/// A memory move.
#[derive(Debug, Clone, Copy)]
pub struct Copy {
    /// Address of the first byte to read.
    pub from: u64,
    /// Address of the first byte to write.
    pub to: u64,
    /// How many bytes, at least one.
    pub len_bytes: u32,
    /// What happens where a page is missing.
    pub on_fault: OnFault,
}

/// A descriptor as eight words of the portal, first word first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor(pub [u64; 8]);

/// Descriptor flags.
mod flag {
    /// The operation blocks on page faults.
    pub(super) const BLOCK_ON_FAULT: u32 = 1 << 1;
    /// The completion record address is valid.
    pub(super) const RECORD_VALID: u32 = 1 << 2;
    /// A completion record is wanted, whatever comes of it.
    pub(super) const RECORD_WANTED: u32 = 1 << 3;
}

const OPCODE_MEMORY_MOVE: u32 = 3;

/// The first word's bits 19:0. Of an instruction that writes to a shared queue, it is the processor that puts the
/// PASID there, and marks the privileged above it.
const PASID_MASK: u32 = (1 << 20) - 1;

impl Descriptor {
    /// A copy whose completion record is at `record`, a multiple of 32.
    ///
    /// The PASID field stays zero: a dedicated queue has its own.
    #[must_use]
    pub fn copy(copy: Copy, record: u64) -> Self {
        let mut flags = flag::RECORD_VALID | flag::RECORD_WANTED;
        if copy.on_fault == OnFault::Block {
            flags |= flag::BLOCK_ON_FAULT;
        }
        let operation = u64::from(OPCODE_MEMORY_MOVE << 24 | flags);
        Self([
            operation << 32,
            record,
            copy.from,
            copy.to,
            copy.len_bytes.into(),
            0,
            0,
            0,
        ])
    }

    /// The same with a PASID, which a shared queue takes from the descriptor.
    #[must_use]
    pub fn with_pasid(self, pasid: u32) -> Self {
        let mut words = self.0;
        words[0] |= u64::from(pasid & PASID_MASK);
        Self(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_laid_out_as_the_architecture_has_it() {
        let mut copy = Copy {
            from: 0x7000_0000_1000,
            to: 0x7000_0000_2000,
            len_bytes: 0x1234,
            on_fault: OnFault::Complete,
        };
        let words = Descriptor::copy(copy, 0x7000_0000_3020).0;
        assert_eq!(words[0], 0x0300_000c_0000_0000);
        assert_eq!(
            words[1..],
            [0x7000_0000_3020, copy.from, copy.to, 0x1234, 0, 0, 0]
        );
        copy.on_fault = OnFault::Block;
        assert_eq!(Descriptor::copy(copy, 0).0[0], 0x0300_000e_0000_0000);
        let shared = Descriptor::copy(copy, 0).with_pasid(0xFFF0_0005);
        assert_eq!(shared.0[0], 0x0300_000e_0000_0005);
    }
}
