//! Which caches an invalidation is for.

/// Which caches an invalidation is for (VT-d §6.2, §6.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// All of them. For who takes something away, as memory that is unmapped.
    Everywhere,
    /// The unit's: translations, and the tables above them (§6.5.2.3: an IOTLB invalidation).
    InUnit,
    /// The unit's translations; the tables above them are as they were (IH, the hint of an IOTLB
    /// invalidation that nothing but leaves has changed).
    LeavesInUnit,
    /// Translations that functions keep in TLBs of their own (§6.5.2.5: a device-TLB invalidation).
    InDevices,
}

impl Cached {
    pub(crate) const ALL: [Self; 4] = [
        Self::Everywhere,
        Self::InUnit,
        Self::LeavesInUnit,
        Self::InDevices,
    ];

    /// Whether translations that a cache of this place keeps are meant.
    pub(crate) const fn includes(self, place: Keeper) -> bool {
        match (self, place) {
            (Self::Everywhere, _) => true,
            (Self::InUnit | Self::LeavesInUnit, keeper) => matches!(keeper, Keeper::Unit),
            (Self::InDevices, keeper) => matches!(keeper, Keeper::Device),
        }
    }

    /// Whether tables of pages are meant, which the unit alone keeps.
    pub(crate) const fn includes_tables(self) -> bool {
        matches!(self, Self::Everywhere | Self::InUnit)
    }
}

/// Who keeps a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The unit, in its IOTLB.
    Unit,
    /// The function, in its own TLB.
    Device,
}

/// Whether a function has its translations by Address Translation Services (PCIe 10): it asks for them,
/// keeps them in a TLB of its own, and makes requests with translated addresses.
///
/// Of a port, that TLB is what it caches for such requests: it stays until a device-TLB invalidation, and
/// an invalidation of the unit's own caches does not reach it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ats {
    /// Its requests have untranslated addresses.
    #[default]
    Off,
    /// It asks for translations.
    On,
}

/// Whether the entries that a request is served by let the function have a TLB of its own (VT-d §9.4: DTE;
/// §9.3: TT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceTlb {
    /// Requests for translations and with translated addresses are refused with 44h, in legacy mode with Dh.
    Blocked,
    /// It may.
    #[default]
    Allowed,
}
