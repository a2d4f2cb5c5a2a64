use palisade_units::{Bdf, Gpa, HostPasid, PasidTag, TenantId};

use crate::{GroupIndex, Sharing};

/// A request's PASID tag, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagName(pub Option<PasidTag>);

impl core::fmt::Display for TagName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(tag) => write!(f, "PASID {tag}"),
            None => f.write_str("requests without a PASID"),
        }
    }
}

/// What the platform refuses to its own host, with what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IommuError {
    /// The function was added before.
    #[error("function {bdf} exists already: give each function a place of its own")]
    FunctionExists {
        /// The place.
        bdf: Bdf,
    },
    /// A PASID width that no function has.
    #[error("function {bdf} cannot have PASIDs of {width} bits: choose 1 to 20")]
    InvalidWidth {
        /// The function.
        bdf: Bdf,
        /// What was asked for.
        width: u8,
    },
    /// The function belongs to somebody else, or is shared in the other way.
    #[error("function {bdf} is held by {holder} ({sharing}): it must be released first")]
    Busy {
        /// The function.
        bdf: Bdf,
        /// One who holds it.
        holder: TenantId,
        /// How it is held.
        sharing: Sharing,
    },
    /// A tenant without a claim.
    #[error("{tenant} has no claim on function {bdf}: claim it before binding")]
    NotClaimed {
        /// The function.
        bdf: Bdf,
        /// Who asked.
        tenant: TenantId,
    },
    /// The function has no PASID capability.
    #[error("function {bdf} has no PASID capability: bind its requests without a PASID")]
    PasidUnsupported {
        /// The function.
        bdf: Bdf,
    },
    /// The function's PASID capability is off.
    #[error("PASIDs are disabled on function {bdf}: its driver must enable them first")]
    PasidDisabled {
        /// The function.
        bdf: Bdf,
    },
    /// The PASID is too large for the function.
    #[error("PASID {tag} does not fit the {width} bits of function {bdf}: choose a smaller one")]
    PasidTooLarge {
        /// The function.
        bdf: Bdf,
        /// The PASID.
        tag: PasidTag,
        /// The function's width in bits.
        width: u8,
    },
    /// On a function that tenants share, a tag that is not the PASID that is held.
    #[error(
        "function {bdf} is shared, so an entry's tag must be the host PASID that is held: {held}, not {tag}"
    )]
    TagNotHeld {
        /// The function.
        bdf: Bdf,
        /// The tag.
        tag: TagName,
        /// The PASID that is held.
        held: HostPasid,
    },
    /// Another user has bound the tag to another space.
    #[error("{tag} of function {bdf} are bound to another space of {holder}: unbind that first")]
    EntryBusy {
        /// The function.
        bdf: Bdf,
        /// The tag.
        tag: TagName,
        /// Whose entry it is.
        holder: TenantId,
    },
    /// The space needs what the platform does not offer.
    #[error("the address space is not supported: {0}")]
    Unsupported(&'static str),
    /// A table that does not start on a page.
    #[error("the table at {root} is not aligned to 4 KiB")]
    MisalignedRoot {
        /// Its address.
        root: Gpa,
    },
    /// Nothing is bound there, or not by this user.
    #[error("nothing of this user is bound to {tag} of function {bdf}")]
    NotBound {
        /// The function.
        bdf: Bdf,
        /// The tag.
        tag: TagName,
    },
    /// No page request waits for this answer: it was answered, or never made.
    #[error("no page request of {tag} of function {bdf} waits in group {}", group.get())]
    NoSuchRequest {
        /// The function.
        bdf: Bdf,
        /// The tag.
        tag: TagName,
        /// The group that was answered.
        group: GroupIndex,
    },
}

impl IommuError {
    /// The errno that a kernel would give.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::NotBound { .. } | Self::NoSuchRequest { .. } => 2, // ENOENT
            Self::NotClaimed { .. } | Self::TagNotHeld { .. } => 13, // EACCES
            Self::Busy { .. } | Self::EntryBusy { .. } => 16,        // EBUSY
            Self::FunctionExists { .. } => 17,                       // EEXIST
            Self::InvalidWidth { .. }
            | Self::PasidTooLarge { .. }
            | Self::MisalignedRoot { .. } => {
                22 // EINVAL
            }
            Self::PasidUnsupported { .. } | Self::PasidDisabled { .. } | Self::Unsupported(_) => {
                95 // EOPNOTSUPP
            }
        }
    }
}

/// Takes a lock, also after a panic of another holder: what the locks of this room guard is
/// consistent between statements, and refusing every tenant would help none.
pub(crate) fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
