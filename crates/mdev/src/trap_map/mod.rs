//! Everything that a guest can touch of a slice, as data: what a write does, what is emulated, what reaches the
//! parent, and where a PASID enters (R18, R69, R70).
//!
//! `docs/slice.md` is written from it, and a test sweeps every byte of a slice against it.

mod bar0;
mod commands;
mod config;

use palisade_dsa::EntryPoint;
use palisade_dsa::function::map::AccessClass;
use palisade_dsa::spec::{PORTAL_BYTES, PORTALS_PER_QUEUE};
use palisade_pci::Bar;

pub use commands::{COMMANDS, CommandRule, Operand};

/// How many queues a driver finds in a slice.
pub(crate) const QUEUES: u8 = 1;

/// Where a register stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Configuration space.
    Config,
    /// A BAR.
    Bar(Bar),
}

/// Whether a client may map a register's page or must have each access served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Each access is served.
    Trapped,
    /// The client may map it. Nothing of a slice is of this kind: pages of portals would let a driver send
    /// descriptors past the mediation.
    Direct,
}

/// What a write does. Masks are of each 32-bit word, or of the whole register where that is shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    ReadOnly,
    /// It changes the bits of the mask.
    ReadWrite(u32),
    /// It changes the bits of the mask; the other bits named start something, and read as zero.
    ReadWriteStarts {
        /// What is kept.
        mask: u32,
        /// What starts something.
        starts: u32,
    },
    /// It clears the bits of the mask that are written as one.
    WriteOneClears(u32),
    /// It changes the bits of the mask, unless the device is enabled.
    LockedByDevice(u32),
    /// It changes the bits of the mask, unless the queue is enabled.
    LockedByQueue(u32),
    /// It runs a command ([`COMMANDS`]); the register reads as zero.
    Command,
    /// It is a descriptor, or a part of one; reads are all ones.
    Submission,
    /// It is an error of the driver's that the software error register tells; reads are all ones.
    Stray,
    /// Nothing; it reads as zero.
    Reserved,
}

impl From<AccessClass> for Access {
    fn from(class: AccessClass) -> Self {
        match class {
            AccessClass::ReadOnly => Self::ReadOnly,
            AccessClass::ReadWrite(mask) => Self::ReadWrite(mask),
            AccessClass::WriteOneClears(mask) => Self::WriteOneClears(mask),
            AccessClass::LockedByDevice(mask) => Self::LockedByDevice(mask),
            AccessClass::LockedByQueue(mask) => Self::LockedByQueue(mask),
            AccessClass::Command => Self::Command,
            AccessClass::Reserved => Self::Reserved,
        }
    }
}

impl Access {
    /// The class in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite(_) => "read-write",
            Self::ReadWriteStarts { .. } => "read-write, one bit acts",
            Self::WriteOneClears(_) => "write-one-to-clear",
            Self::LockedByDevice(_) => "locked while the device is enabled",
            Self::LockedByQueue(_) => "locked while the queue is enabled",
            Self::Command => "runs a command",
            Self::Submission => "takes descriptors",
            Self::Stray => "an error of the driver's",
            Self::Reserved => "reserved",
        }
    }

    /// The bits that a write can change, where it can change some.
    #[must_use]
    pub const fn mask(self) -> Option<u32> {
        match self {
            Self::ReadWrite(mask)
            | Self::ReadWriteStarts { mask, .. }
            | Self::WriteOneClears(mask)
            | Self::LockedByDevice(mask)
            | Self::LockedByQueue(mask) => Some(mask),
            Self::ReadOnly | Self::Command | Self::Submission | Self::Stray | Self::Reserved => {
                None
            }
        }
    }
}

/// What of an access reaches the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaches {
    /// Nothing: it changes the slice's own registers.
    Nothing,
    /// Nothing, but a host PASID is held as long as the entry stands.
    Hold,
    /// The slice's own work on the parent's queue is begun, waited for or dropped; nobody else's.
    OwnWork,
    /// The descriptor, with the host's PASID.
    Descriptor,
}

impl Reaches {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Hold => "nothing; the host's PASID is held",
            Self::OwnWork => "the slice's own work",
            Self::Descriptor => "the descriptor, with the host's PASID",
        }
    }
}

/// A register of a slice, or one that each entry of a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrappedRegister {
    /// Where it stands.
    pub place: Place,
    /// Its name in the specification.
    pub name: &'static str,
    /// Where it starts, in the first entry of a table.
    pub offset_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
    /// How often it is there.
    pub entries: u64,
    /// From one entry to the next.
    pub stride_bytes: u64,
    /// Whether accesses are served.
    pub treatment: Treatment,
    /// What a write does.
    pub access: Access,
    /// What it is for the guest.
    pub emulated: &'static str,
    /// What the parent gets of it.
    pub reaches: Reaches,
    /// Where a PASID can enter through it.
    pub entry_points: &'static [EntryPoint],
}

impl TrappedRegister {
    /// Whether the byte at an offset is the register's, in whichever entry.
    #[must_use]
    pub const fn has(&self, offset_bytes: u64) -> bool {
        match self.within(offset_bytes) {
            Some(within) => within < self.len_bytes,
            None => false,
        }
    }

    /// How far behind the register's start in its entry an offset is.
    #[must_use]
    pub const fn within(&self, offset_bytes: u64) -> Option<u64> {
        match offset_bytes.checked_sub(self.offset_bytes) {
            Some(behind) if behind / self.stride_bytes < self.entries => {
                Some(behind % self.stride_bytes)
            }
            _ => None,
        }
    }
}

/// All registers of a slice. Bytes of configuration space and of BAR 0 that none of them has are reserved.
#[must_use]
pub fn trap_map() -> Vec<TrappedRegister> {
    let mut all = config::registers();
    all.extend(bar0::registers());
    all.extend(portals());
    all
}

/// BAR 2: four pages for each queue.
fn portals() -> impl Iterator<Item = TrappedRegister> {
    const UNLIMITED: &str =
        "for kernels: a shared queue takes as many descriptors as it has room for";
    const LIMITED: &str = "for processes: a shared queue takes descriptors up to its threshold";
    const NONE: &str = "of the interrupt message store, which a slice has not";
    let queues = u64::from(QUEUES);
    let descriptor: &[EntryPoint] = &[EntryPoint::Descriptor];
    let pages = [
        ("unlimited portal", Access::Submission, UNLIMITED),
        ("limited portal", Access::Submission, LIMITED),
        ("third portal", Access::Stray, NONE),
        ("fourth portal", Access::Stray, NONE),
    ];
    (0..)
        .zip(pages)
        .map(move |(page, (name, access, emulated))| {
            let takes = access == Access::Submission;
            TrappedRegister {
                place: Place::Bar(Bar::Bar2),
                name,
                offset_bytes: page * PORTAL_BYTES,
                len_bytes: PORTAL_BYTES,
                entries: queues,
                stride_bytes: PORTALS_PER_QUEUE * PORTAL_BYTES,
                treatment: Treatment::Trapped,
                access,
                emulated,
                reaches: if takes {
                    Reaches::Descriptor
                } else {
                    Reaches::Nothing
                },
                entry_points: if takes { descriptor } else { &[] },
            }
        })
}
