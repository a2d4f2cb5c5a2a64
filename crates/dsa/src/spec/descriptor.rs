use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{CrcSeed, CreateDelta, DeltaResult, DifFields, Flags, Opcode};

/// A descriptor (DSA §8.1), as it is written to a portal or stands in a batch's list.
///
/// What the two addresses are is the operation's business: source and destination of a move; pattern and destination of a
/// fill; the two sources of a comparison; a delta record and its destination; the list of a batch, whose length is `size`.
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
    /// What else the operation takes: the expected result of a comparison in byte 0, the second destination of a dualcast,
    /// the high half of a 16-byte pattern, the size of a delta record to apply, or one of [`CreateDelta`],
    /// [`CrcSeed`] and [`DifFields`].
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

    /// Fills `len_bytes` bytes at `destination` with the 16 bytes of `pattern`, lowest first.
    #[must_use]
    pub fn memory_fill_wide(pattern: u128, destination: u64, len_bytes: u32) -> Self {
        let [low, high]: [[u8; 8]; 2] = zerocopy::transmute!(pattern.to_le_bytes());
        Self::memory_fill(u64::from_le_bytes(low), destination, len_bytes)
            .with_flags(Flags::WIDE_PATTERN)
            .with_specific(&high)
    }

    /// Compares `len_bytes` bytes at `at` with the bytes of `pattern`, lowest first, again and again.
    #[must_use]
    pub fn compare_pattern(at: u64, pattern: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::COMPARE_PATTERN, at, pattern, len_bytes)
    }

    /// Writes to `fields` what makes of the `len_bytes` bytes at `original` those at `modified`. Both addresses and the length
    /// are multiples of 8, the length is 512 KiB at most.
    #[must_use]
    pub fn create_delta(original: u64, modified: u64, len_bytes: u32, fields: CreateDelta) -> Self {
        Self::of(Opcode::CREATE_DELTA, original, modified, len_bytes)
            .with_specific(fields.as_bytes())
    }

    /// Applies the `record_bytes` bytes of a delta record to the `len_bytes` bytes at `destination`.
    #[must_use]
    pub fn apply_delta(record: u64, record_bytes: u32, destination: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::APPLY_DELTA, record, destination, len_bytes)
            .with_specific(&record_bytes.to_le_bytes())
    }

    /// Copies `len_bytes` bytes from `source` to two places, whose bits 11:0 are equal.
    #[must_use]
    pub fn dualcast(source: u64, destination: u64, destination_2: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::DUALCAST, source, destination, len_bytes)
            .with_specific(&destination_2.to_le_bytes())
    }

    /// Computes the CRC-32C of `len_bytes` bytes at `source`.
    #[must_use]
    pub fn crc(source: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::CRC, source, 0, len_bytes)
    }

    /// Copies `len_bytes` bytes from `source` to `destination` and computes their CRC-32C.
    #[must_use]
    pub fn copy_crc(source: u64, destination: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::COPY_CRC, source, destination, len_bytes)
    }

    /// The same descriptor of a CRC operation, which goes on from the CRC of what came before.
    #[must_use]
    pub fn with_crc_seed(self, seed: u32) -> Self {
        let fields = CrcSeed {
            seed,
            ..CrcSeed::default()
        };
        self.with_specific(fields.as_bytes())
    }

    /// The same descriptor of a CRC operation, which takes its seed from memory, 4-byte aligned.
    #[must_use]
    pub fn with_crc_seed_at(self, address: u64) -> Self {
        let fields = CrcSeed {
            address,
            ..CrcSeed::default()
        };
        self.with_flags(Flags::READ_CRC_SEED)
            .with_specific(fields.as_bytes())
    }

    /// Checks the `len_bytes` bytes of blocks and integrity fields at `source`.
    #[must_use]
    pub fn dif_check(source: u64, len_bytes: u32, fields: DifFields) -> Self {
        Self::of(Opcode::DIF_CHECK, source, 0, len_bytes).with_specific(fields.as_bytes())
    }

    /// Copies the `len_bytes` bytes of blocks at `source` to `destination`, where an integrity field follows each.
    #[must_use]
    pub fn dif_insert(source: u64, destination: u64, len_bytes: u32, fields: DifFields) -> Self {
        Self::of(Opcode::DIF_INSERT, source, destination, len_bytes)
            .with_specific(fields.as_bytes())
    }

    /// Checks the `len_bytes` bytes of blocks and integrity fields at `source`, and copies the blocks to
    /// `destination`.
    #[must_use]
    pub fn dif_strip(source: u64, destination: u64, len_bytes: u32, fields: DifFields) -> Self {
        Self::of(Opcode::DIF_STRIP, source, destination, len_bytes).with_specific(fields.as_bytes())
    }

    /// Checks the `len_bytes` bytes of blocks and integrity fields at `source`, and copies them to `destination` with
    /// new integrity fields.
    #[must_use]
    pub fn dif_update(source: u64, destination: u64, len_bytes: u32, fields: DifFields) -> Self {
        Self::of(Opcode::DIF_UPDATE, source, destination, len_bytes)
            .with_specific(fields.as_bytes())
    }

    /// Writes back what caches hold of the `len_bytes` bytes at `at`.
    #[must_use]
    pub fn cache_flush(at: u64, len_bytes: u32) -> Self {
        Self::of(Opcode::CACHE_FLUSH, 0, at, len_bytes)
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

    /// The same comparison, which completes with [`Status::SUCCESS_UNEXPECTED`] when the result is another. A delta record may
    /// be given several results to expect.
    ///
    /// [`Status::SUCCESS_UNEXPECTED`]: super::Status::SUCCESS_UNEXPECTED
    #[must_use]
    pub fn with_expected_result(self, result: u8) -> Self {
        let with = self.with_flags(Flags::CHECK_RESULT);
        if self.opcode() != Opcode::CREATE_DELTA {
            return with.with_specific(&[result]);
        }
        let mut fields = self.create_delta_fields();
        fields.expected |= DeltaResult(result).mask();
        with.with_specific(fields.as_bytes())
    }

    /// The same descriptor with the first of its specific bytes; those beyond them are cleared, and what has no room is
    /// dropped.
    #[must_use]
    pub fn with_specific(self, bytes: &[u8]) -> Self {
        let mut specific = [0; 24];
        for (place, byte) in specific.iter_mut().zip(bytes) {
            *place = *byte;
        }
        Self { specific, ..self }
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
    /// Where the second destination of a dualcast is.
    #[must_use]
    pub const fn second_destination(&self) -> u64 {
        self.leading_specific()
    }

    /// The high half of a 16-byte pattern.
    #[must_use]
    pub const fn pattern_high(&self) -> u64 {
        self.leading_specific()
    }

    /// The size of the delta record to be applied.
    #[must_use]
    pub const fn delta_bytes(&self) -> u32 {
        let [a, b, c, d, ..] = self.specific;
        u32::from_le_bytes([a, b, c, d])
    }

    /// What the creation of a delta record takes.
    #[must_use]
    pub fn create_delta_fields(&self) -> CreateDelta {
        zerocopy::transmute!(self.specific)
    }

    /// What a CRC operation takes.
    #[must_use]
    pub fn crc_seed(&self) -> CrcSeed {
        zerocopy::transmute!(self.specific)
    }

    /// What a DIF operation takes.
    #[must_use]
    pub fn dif_fields(&self) -> DifFields {
        zerocopy::transmute!(self.specific)
    }

    const fn leading_specific(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.specific;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}
