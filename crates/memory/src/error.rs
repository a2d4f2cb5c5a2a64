use palisade_units::Gpa;
use rustix::io::Errno;

/// Why a region was not mapped or unmapped. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A region of no bytes.
    #[error("a region of zero bytes: give at least one page")]
    Empty,
    /// An address, length or file offset is not a multiple of 4 KiB.
    #[error("{value:#x} is not a multiple of 4096: align the address, the length and the offset")]
    Misaligned {
        /// The number at fault.
        value: u64,
    },
    /// The range runs past the end of the address space or of file offsets.
    #[error("{len_bytes:#x} bytes from {start:#x} run past the end of the space")]
    Overflow {
        /// Where the range starts.
        start: u64,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// Another region is in the way.
    #[error("the range overlaps the region of {len_bytes:#x} bytes at {at}: unmap that one first")]
    Overlap {
        /// The start of the region in the way.
        at: Gpa,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// The range to unmap is not made of whole regions.
    #[error("no regions fill {len_bytes:#x} bytes at {at}: unmap exactly what was mapped")]
    NotFound {
        /// The start of the range.
        at: Gpa,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// The file is shorter than the range asks.
    #[error("the range ends at {end_bytes:#x} of a file of {file_bytes:#x} bytes: grow it first")]
    BeyondEndOfFile {
        /// The end of the range in the file.
        end_bytes: u64,
        /// The length of the file.
        file_bytes: u64,
    },
    /// The descriptor is no regular file of a kind that always answers: a pipe, a socket, a device,
    /// or a file whose pages another process or host provides.
    #[error("not a regular file of a local file system: share memory as a memfd or from hugetlbfs")]
    NotMappable,
    /// The descriptor was not opened for reading.
    #[error("the file is not open for reading, and every region is read")]
    NotReadable,
    /// The descriptor was not opened for writing, but the region is to be written.
    #[error("the file is open for reading only: open it for writing or map it read-only")]
    NotWritable,
    /// The space has as many regions as it may have.
    #[error("the space has its {regions} regions already: unmap some or use fewer and larger ones")]
    TooManyRegions {
        /// The limit.
        regions: usize,
    },
    /// The space has as many bytes as it may have.
    #[error("the space would hold more than its {bytes:#x} bytes")]
    TooLarge {
        /// The limit.
        bytes: u64,
    },
    /// The spaces that share a [`Budget`](crate::Budget) have as much as they may have together.
    #[error(
        "the spaces of this client may have {regions} regions of {bytes:#x} bytes together: unmap some"
    )]
    BudgetSpent {
        /// The limit of regions.
        regions: usize,
        /// The limit of bytes.
        bytes: u64,
    },
    /// The host's kernel refused.
    #[error("the host could not map it: {0}")]
    Host(Errno),
}

impl MapError {
    /// The error as a number for the client, as VFIO's own map and unmap requests use them.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Empty
            | Self::Misaligned { .. }
            | Self::Overflow { .. }
            | Self::BeyondEndOfFile { .. } => Errno::INVAL,
            Self::Overlap { .. } => Errno::EXIST,
            Self::NotFound { .. } => Errno::NOENT,
            Self::NotMappable => Errno::NODEV,
            Self::NotReadable | Self::NotWritable => Errno::ACCESS,
            Self::TooManyRegions { .. } | Self::TooLarge { .. } | Self::BudgetSpent { .. } => {
                Errno::NOSPC
            }
            Self::Host(errno) => errno,
        }
    }
}

impl From<Errno> for MapError {
    fn from(errno: Errno) -> Self {
        Self::Host(errno)
    }
}

/// Why an access to guest memory was not made, or not made in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// No region holds the address, or the range runs past its region or slice. Nothing was touched.
    #[error("no memory at {at}")]
    Unmapped {
        /// The first address that has no memory.
        at: Gpa,
    },
    /// The region may only be read. Nothing was touched.
    #[error("the memory at {at} may only be read")]
    ReadOnly {
        /// The address.
        at: Gpa,
    },
    /// An atomic access that is not a multiple of its size. Nothing was touched.
    #[error("an atomic access at {at}, which is not a multiple of its size")]
    Misaligned {
        /// The address.
        at: Gpa,
    },
    /// The file behind the region has lost pages (truncated, or the host's memory failed). What was
    /// read is worth nothing, what was written is lost.
    #[error("the memory behind {at} is gone: its file was truncated")]
    Vanished {
        /// The address of the access.
        at: Gpa,
    },
}

impl MemoryError {
    /// The address at fault.
    #[must_use]
    pub const fn at(self) -> Gpa {
        match self {
            Self::Unmapped { at }
            | Self::ReadOnly { at }
            | Self::Misaligned { at }
            | Self::Vanished { at } => at,
        }
    }

    /// The error as a number for a client.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Unmapped { .. } | Self::Vanished { .. } => Errno::FAULT,
            Self::ReadOnly { .. } => Errno::ACCESS,
            Self::Misaligned { .. } => Errno::INVAL,
        }
    }
}
