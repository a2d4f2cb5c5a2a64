use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The number of an operation; any byte may come from a driver (DSA §8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opcode(pub u8);

impl Opcode {
    /// Nothing.
    pub const NO_OP: Self = Self(0x00);
    /// Run the descriptors of a list.
    pub const BATCH: Self = Self(0x01);
    /// Complete when everything before it has.
    pub const DRAIN: Self = Self(0x02);
    /// Copy memory.
    pub const MEMORY_MOVE: Self = Self(0x03);
    /// Fill memory with an 8-byte pattern.
    pub const MEMORY_FILL: Self = Self(0x04);
    /// Compare memory with memory.
    pub const COMPARE: Self = Self(0x05);
    /// Compare memory with an 8-byte pattern.
    pub const COMPARE_PATTERN: Self = Self(0x06);
}

bitflags::bitflags! {
    /// The flags of a descriptor (DSA §8.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Flags: u32 {
        /// In a batch: wait for the descriptors before it.
        const FENCE = 0x0001;
        /// Wait for pages instead of failing.
        const BLOCK_ON_FAULT = 0x0002;
        /// There is a completion record address.
        const RECORD_ADDRESS_VALID = 0x0004;
        /// Write the completion record on success too.
        const REQUEST_RECORD = 0x0008;
        /// Fire the interrupt of the handle on completion.
        const REQUEST_INTERRUPT = 0x0010;
        /// Report whether the result is the expected one.
        const CHECK_RESULT = 0x0020;
        /// Where the CRC seed is.
        const READ_CRC_SEED = 0x0080;
        /// Hint: write to the cache.
        const CACHE_CONTROL = 0x0100;
        /// Traffic class of the first address.
        const FIRST_CLASS = 0x0200;
        /// Traffic class of the second address.
        const SECOND_CLASS = 0x0400;
        /// Traffic class of the third address.
        const THIRD_CLASS = 0x0800;
        /// Traffic class of the completion record.
        const RECORD_CLASS = 0x1000;
        /// Strict ordering of writes.
        const STRICT_ORDER = 0x2000;
        /// Read the destination back.
        const DESTINATION_READBACK = 0x4000;
        /// Steering of writes.
        const DESTINATION_STEERING = 0x8000;
    }
}

/// A descriptor (DSA §8.1), as it is written to a portal or stands in a batch's list.
///
/// What the two addresses are is the operation's business: source and destination of a move; pattern and destination of a
/// fill; the two sources of a comparison; the list of a batch, whose length is `size`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Descriptor {
    /// PASID 19:0 and privileged 31, both for shared queues; 30:20 reserved.
    pub identity: u32,
    /// Flags 23:0 and operation 31:24.
    pub operation: u32,
    /// Where the completion record goes, 32-byte aligned.
    pub completion_address: u64,
    /// First address.
    pub first: u64,
    /// Second address.
    pub second: u64,
    /// Bytes to transfer, or descriptors of a batch.
    pub size: u32,
    /// Which interrupt to fire: a vector of the MSI-X table.
    pub interrupt_handle: u16,
    /// Zero.
    pub reserved: u16,
    /// What else the operation takes; byte 0 is the expected result of a comparison.
    pub specific: [u8; 24],
}

const _: () = assert!(size_of::<Descriptor>() == super::DESCRIPTOR_BYTES);

impl Descriptor {
    /// Copies `len_bytes` bytes from `source` to `destination`.
    #[must_use]
    pub fn memory_move(source: u64, destination: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::MEMORY_MOVE, source, destination, len_bytes)
    }

    /// Fills `len_bytes` bytes at `destination` with the bytes of `pattern`, lowest first.
    #[must_use]
    pub fn memory_fill(pattern: u64, destination: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::MEMORY_FILL, pattern, destination, len_bytes)
    }

    /// Compares `len_bytes` bytes at two places.
    #[must_use]
    pub fn compare(one: u64, other: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::COMPARE, one, other, len_bytes)
    }

    /// Runs `count` descriptors from `list`, 64-byte aligned.
    #[must_use]
    pub fn batch(list: u64, count: u32) -> Self {
        Self::of(Opcode::BATCH, list, 0, count)
    }

    /// Does nothing but complete.
    #[must_use]
    pub fn no_op() -> Self {
        Self::of(Opcode::NO_OP, 0, 0, 0)
    }

    /// Completes when everything before it in its queue has.
    #[must_use]
    pub fn drain() -> Self {
        Self::of(Opcode::DRAIN, 0, 0, 0)
    }

    /// An operation by its numbers.
    #[must_use]
    pub fn of(opcode: Opcode, first: u64, second: u64, size: u32) -> Self {
        Self {
            operation: u32::from(opcode.0) << 24,
            first,
            second,
            size,
            ..Self::default()
        }
    }

    /// The same descriptor, whose completion record is always written, to `address`.
    #[must_use]
    pub fn with_record(self, address: u64) -> Self {
        let with = self.with_flags(Flags::RECORD_ADDRESS_VALID | Flags::REQUEST_RECORD);
        Self {
            completion_address: address,
            ..with
        }
    }

    /// The same descriptor with further flags.
    #[must_use]
    pub fn with_flags(self, flags: Flags) -> Self {
        Self {
            operation: self.operation | (flags.bits() & 0xff_ffff),
            ..self
        }
    }

    /// The same descriptor, which fires a vector on completion.
    #[must_use]
    pub fn with_interrupt(self, handle: u16) -> Self {
        let with = self.with_flags(Flags::REQUEST_INTERRUPT);
        Self {
            interrupt_handle: handle,
            ..with
        }
    }

    /// The same descriptor with a PASID, for a shared queue; bits from 20 on are dropped.
    #[must_use]
    pub fn with_pasid(self, pasid: u32) -> Self {
        Self {
            identity: (self.identity & !0xf_ffff) | (pasid & 0xf_ffff),
            ..self
        }
    }

    /// The operation.
    #[must_use]
    pub const fn opcode(&self) -> Opcode {
        Opcode(self.operation.to_le_bytes()[3])
    }

    /// The flags; unknown ones are kept.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags::from_bits_retain(self.operation & 0xff_ffff)
    }

    /// The PASID, for shared queues.
    #[must_use]
    pub const fn pasid(&self) -> u32 {
        self.identity & 0xf_ffff
    }

    /// Privileged, for shared queues.
    #[must_use]
    pub const fn is_privileged(&self) -> bool {
        self.identity & (1 << 31) != 0
    }
}
