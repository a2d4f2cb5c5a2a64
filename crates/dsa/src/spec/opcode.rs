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
    /// Fill memory with a pattern of 8 or 16 bytes.
    pub const MEMORY_FILL: Self = Self(0x04);
    /// Compare memory with memory.
    pub const COMPARE: Self = Self(0x05);
    /// Compare memory with an 8-byte pattern.
    pub const COMPARE_PATTERN: Self = Self(0x06);
    /// Write down how one piece of memory differs from another.
    pub const CREATE_DELTA: Self = Self(0x07);
    /// Make of one piece of memory the other, by the record of the differences.
    pub const APPLY_DELTA: Self = Self(0x08);
    /// Copy memory to two places.
    pub const DUALCAST: Self = Self(0x09);
    /// Compute a CRC of memory.
    pub const CRC: Self = Self(0x10);
    /// Copy memory and compute its CRC.
    pub const COPY_CRC: Self = Self(0x11);
    /// Check blocks against the integrity fields that follow them.
    pub const DIF_CHECK: Self = Self(0x12);
    /// Copy blocks and put an integrity field behind each.
    pub const DIF_INSERT: Self = Self(0x13);
    /// Check blocks and copy them without their integrity fields.
    pub const DIF_STRIP: Self = Self(0x14);
    /// Check blocks and copy them with new integrity fields.
    pub const DIF_UPDATE: Self = Self(0x15);
    /// Write back what caches hold of memory.
    pub const CACHE_FLUSH: Self = Self(0x20);
}
