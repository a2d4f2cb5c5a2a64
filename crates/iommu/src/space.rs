use palisade_units::Gpa;

/// How many levels a page table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Levels {
    /// 39 address bits; second stage only.
    Three,
    /// 48 address bits.
    Four,
    /// 57 address bits.
    Five,
}

impl Levels {
    /// The number.
    #[must_use]
    pub const fn count(self) -> u8 {
        match self {
            Self::Three => 3,
            Self::Four => 4,
            Self::Five => 5,
        }
    }

    /// The address bits that the table translates.
    #[must_use]
    pub const fn address_bits(self) -> u32 {
        match self {
            Self::Three => 39,
            Self::Four => 48,
            Self::Five => 57,
        }
    }
}

macro_rules! switch {
    ($(#[$doc:meta])* $name:ident { $(#[$off_doc:meta])* $off:ident, $(#[$on_doc:meta])* $on:ident }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[$off_doc])*
            #[default]
            $off,
            $(#[$on_doc])*
            $on,
        }

        impl $name {
            /// From the bit of a PASID entry.
            #[must_use]
            pub const fn from_bit(set: bool) -> Self {
                if set { Self::$on } else { Self::$off }
            }
        }
    };
}

switch! {
    /// SRE, supervisor request enable (VT-d §9.6): whether privileged requests are allowed at all.
    SupervisorRequests {
        /// Refused with 5Dh.
        Refused,
        /// Translated.
        Allowed
    }
}
switch! {
    /// ERE, execute request enable (VT-d §9.6): whether requests to execute are allowed at all.
    ExecuteRequests {
        /// Refused with 5Ch.
        Refused,
        /// Translated.
        Allowed
    }
}
switch! {
    /// WPE, write protect enable (VT-d §9.6), as CR0.WP.
    WriteProtect {
        /// Privileged requests write to read-only pages too.
        UserOnly,
        /// Nobody writes to read-only pages.
        All
    }
}
switch! {
    /// NXE, no-execute enable (VT-d §9.6), as EFER.NXE.
    NoExecute {
        /// Bit 63 of a table entry is reserved.
        Reserved,
        /// Bit 63 of a table entry forbids execution.
        Honoured
    }
}
switch! {
    /// SMEP (VT-d §9.6), as CR4.SMEP.
    SupervisorExecution {
        /// Privileged requests may execute user pages.
        AnyPage,
        /// Privileged requests may execute supervisor pages only.
        SupervisorPages
    }
}
switch! {
    /// EAFE, extended accessed flag enable (VT-d §9.6).
    ExtendedAccessed {
        /// Bit 10 of a table entry is ignored.
        Off,
        /// Bit 10 of a table entry is set on use, together with the accessed flag.
        On
    }
}
switch! {
    /// SSADE, second-stage access/dirty enable (VT-d §9.6).
    AccessedDirty {
        /// Bits 8 and 9 of a second-stage entry are ignored.
        Off,
        /// Bit 8 of every entry that is used is set, and bit 9 of a leaf that is written through.
        On
    }
}

/// PWSNP, page walk snoop (VT-d §9.6): whether walks are coherent with the processors' caches.
///
/// The platform's memory always is. An entry that says otherwise is taken at its word: where a walk
/// would have to set a bit, it is refused with 7Ch or 90h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PageWalkSnoop {
    /// Walks do not snoop, so they cannot mark what they use.
    Off,
    /// Walks snoop, and mark.
    #[default]
    On,
}

impl PageWalkSnoop {
    /// From the bit of a PASID entry.
    #[must_use]
    pub const fn from_bit(set: bool) -> Self {
        if set { Self::On } else { Self::Off }
    }
}

/// A first-stage table, in the format of an x86-64 process (VT-d §3.6, §9.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStage {
    /// The top table, 4 KiB aligned.
    pub root: Gpa,
    /// Four or five.
    pub levels: Levels,
    /// SRE.
    pub supervisor: SupervisorRequests,
    /// ERE.
    pub execute: ExecuteRequests,
    /// WPE.
    pub write_protect: WriteProtect,
    /// NXE.
    pub no_execute: NoExecute,
    /// SMEP.
    pub supervisor_execution: SupervisorExecution,
    /// EAFE.
    pub extended_accessed: ExtendedAccessed,
    /// PWSNP.
    pub page_walk_snoop: PageWalkSnoop,
}

impl FirstStage {
    /// A table at `root`, walked coherently, with every other option of the PASID entry clear.
    #[must_use]
    pub const fn new(root: Gpa, levels: Levels) -> Self {
        Self {
            root,
            levels,
            supervisor: SupervisorRequests::Refused,
            execute: ExecuteRequests::Refused,
            write_protect: WriteProtect::UserOnly,
            no_execute: NoExecute::Reserved,
            supervisor_execution: SupervisorExecution::AnyPage,
            extended_accessed: ExtendedAccessed::Off,
            page_walk_snoop: PageWalkSnoop::On,
        }
    }
}

/// A guest's own second-stage table (VT-d §3.7, §9.8). What it yields is guest physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecondStage {
    /// The top table, 4 KiB aligned.
    pub root: Gpa,
    /// Three, four or five.
    pub levels: Levels,
    /// SSADE.
    pub accessed_dirty: AccessedDirty,
    /// PWSNP.
    pub page_walk_snoop: PageWalkSnoop,
}

impl SecondStage {
    /// A table at `root`, walked coherently and not marked.
    #[must_use]
    pub const fn new(root: Gpa, levels: Levels) -> Self {
        Self {
            root,
            levels,
            accessed_dirty: AccessedDirty::Off,
            page_walk_snoop: PageWalkSnoop::On,
        }
    }
}

/// How a tenant wants a PASID's addresses translated into its own memory (VT-d §9.6: PGTT).
///
/// Whatever it is, the tenant's memory is the last stage: what has no memory there is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// By the guest's first stage.
    FirstStage(FirstStage),
    /// By the guest's own second stage.
    SecondStage(SecondStage),
    /// By the guest's first stage, whose table addresses and results go through its second stage.
    Nested(FirstStage, SecondStage),
    /// Not at all: addresses are guest physical.
    PassThrough,
}

impl Space {
    /// What of it the platform does not offer, in words.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        let (Self::FirstStage(first) | Self::Nested(first, _)) = self else {
            return None;
        };
        (first.levels == Levels::Three).then_some("a first stage has four or five levels")
    }

    /// The root of one of its tables that is not 4 KiB aligned.
    pub(crate) fn misaligned_root(&self) -> Option<Gpa> {
        let roots = match self {
            Self::FirstStage(first) => [Some(first.root), None],
            Self::SecondStage(second) => [Some(second.root), None],
            Self::Nested(first, second) => [Some(first.root), Some(second.root)],
            Self::PassThrough => [None, None],
        };
        roots
            .into_iter()
            .flatten()
            .find(|root| root.page_offset() != 0)
    }
}
