use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::DifTags;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $words:literal;)*) => {
        /// How a descriptor ended: the low seven bits of a record's first byte (DSA §5). Bit 7 says that a fault was on a
        /// write. 0 is no status: the record has not been written.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct Status(pub u8);

        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The status in words, without the direction of a fault.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self.code().0 {
                    $($code => $words,)*
                    _ => "a status that the specification does not name",
                }
            }
        }
    };
}

statuses! {
    /// Nothing was written yet.
    NONE = 0x00, "not complete";
    /// Done.
    SUCCESS = 0x01, "success";
    /// Done, and the result is not the expected one.
    SUCCESS_UNEXPECTED = 0x02, "success with an unexpected result";
    /// A page fault without block on fault; what was done is in the record.
    PAGE_FAULT = 0x03, "page fault";
    /// The page request was refused; what was done is in the record.
    PAGE_REQUEST_REFUSED = 0x04, "page request refused";
    /// Some descriptors of the batch failed.
    BATCH_FAILED = 0x05, "descriptors of the batch failed";
    /// The list of a batch could not be read.
    BATCH_PAGE_FAULT = 0x06, "page fault on the batch's list";
    /// The offsets of a delta record do not increase.
    DELTA_ORDER = 0x07, "delta record not in order";
    /// An offset of a delta record is past the end of the destination.
    DELTA_OFFSET = 0x08, "delta record offset out of range";
    /// A block's data and its integrity field do not agree; the result says in what.
    DIF_MISMATCH = 0x09, "data integrity field mismatch";
    /// The operation does not exist.
    UNSUPPORTED_OPERATION = 0x10, "unsupported operation";
    /// Flags that are reserved here.
    INVALID_FLAGS = 0x11, "invalid flags";
    /// A reserved field is not zero.
    RESERVED_NOT_ZERO = 0x12, "reserved field not zero";
    /// A transfer of nothing, or of more than is allowed.
    TRANSFER_SIZE = 0x13, "transfer size out of range";
    /// A batch of less than two descriptors, or of more than is allowed.
    DESCRIPTOR_COUNT = 0x14, "descriptor count out of range";
    /// The size of a delta record is out of range.
    DELTA_SIZE = 0x15, "delta record size out of range";
    /// The buffers overlap.
    OVERLAPPING = 0x16, "overlapping buffers";
    /// Bits 11:0 of the two destinations differ.
    DUALCAST_OFFSETS = 0x17, "dualcast destinations differ in bits 11:0";
    /// The list of a batch is not 64-byte aligned.
    LIST_ALIGNMENT = 0x18, "misaligned descriptor list";
    /// The interrupt handle is not the descriptor's to use.
    INTERRUPT_HANDLE = 0x19, "invalid interrupt handle";
    /// The completion record cannot be accessed.
    RECORD_FAULT = 0x1a, "completion record not accessible";
    /// The completion record is not 32-byte aligned.
    RECORD_ALIGNMENT = 0x1b, "misaligned completion record address";
    /// An address, or a size that must be whole words, is not aligned as the operation needs it.
    ADDRESS_ALIGNMENT = 0x1c, "misaligned address";
    /// A descriptor of a shared queue is privileged, and the function may not send privileged requests.
    PRIVILEGE = 0x1d, "privileged descriptor not allowed";
    /// An address cannot be translated whatever the driver does.
    TRANSLATION = 0x22, "address translation failed";
}

impl Status {
    /// Bit 7: the fault was on a write.
    pub const WRITE: u8 = 0x80;

    /// Without the direction of a fault.
    #[must_use]
    pub const fn code(self) -> Self {
        Self(self.0 & !Self::WRITE)
    }

    /// Whether the fault was on a write.
    #[must_use]
    pub const fn on_write(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// The same status, of a fault on a write.
    #[must_use]
    pub const fn with_write(self) -> Self {
        Self(self.0 | Self::WRITE)
    }

    /// Whether the operation was done in full.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::SUCCESS | Self::SUCCESS_UNEXPECTED)
    }
}

impl core::fmt::Debug for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#04x} ({})", self.0, self.words())
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.words())
    }
}

/// A completion record (DSA §8.2). The device writes the first eight bytes last, in one piece.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct CompletionRecord {
    /// See [`Status`].
    pub status: u8,
    /// Compare: 0 equal, 1 not. Move: 1 when overlapping buffers were moved from their ends. Create delta record: see
    /// [`DeltaResult`]. DIF: with [`Status::DIF_MISMATCH`], a [`DifMismatch`].
    ///
    /// [`DeltaResult`]: super::DeltaResult
    /// [`DifMismatch`]: super::DifMismatch
    pub result: u8,
    /// Zero.
    pub reserved: u16,
    /// How much was done before a fault, or before the first difference; 0 when all was done. A batch: descriptors
    /// completed. Apply delta record: bytes of the record. DIF: bytes of the source, in whole blocks.
    pub bytes_completed: u32,
    /// The address of a fault.
    pub fault_address: u64,
    /// What else there is to say; the methods below know how.
    pub specific: [u8; 16],
}

const _: () = assert!(size_of::<CompletionRecord>() == super::COMPLETION_RECORD_BYTES);

impl CompletionRecord {
    /// The status.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status(self.status)
    }

    /// With [`Status::INVALID_FLAGS`]: which.
    #[must_use]
    pub const fn invalid_flags(&self) -> u32 {
        self.first_word() & 0xff_ffff
    }

    /// CRC operations: the CRC of what was done, which is the seed to go on with.
    #[must_use]
    pub const fn crc(&self) -> u32 {
        self.first_word()
    }

    /// Create delta record: how many bytes of it were written.
    #[must_use]
    pub const fn delta_bytes(&self) -> u32 {
        self.first_word()
    }

    /// DIF check, strip and update: the tags of the source's next block, which are the seeds to go on with.
    #[must_use]
    pub fn source_tags(&self) -> DifTags {
        let [source, _]: [DifTags; 2] = zerocopy::transmute!(self.specific);
        source
    }

    /// DIF insert and update: the tags of the destination's next block, which are the seeds to go on with.
    #[must_use]
    pub fn destination_tags(&self) -> DifTags {
        let [_, destination]: [DifTags; 2] = zerocopy::transmute!(self.specific);
        destination
    }

    const fn first_word(&self) -> u32 {
        let [a, b, c, d, ..] = self.specific;
        u32::from_le_bytes([a, b, c, d])
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::NONE
    }
}
