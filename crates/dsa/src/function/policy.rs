use palisade_iommu::{Cached, FunctionHandle, PasidEnable, Scope};
use palisade_units::{GuestPasid, PasidTag};

use crate::Identity;

/// The places where a driver's PASID enters the device (R70).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryPoint {
    /// WQCFG of a dedicated queue, when the queue is enabled.
    QueueConfig,
    /// A descriptor on a shared queue.
    Descriptor,
    /// An entry of the MSI-X permission table.
    InterruptPermission,
    /// The operand of a drain or an abort.
    CommandOperand,
}

/// The PASID may not be used here. The driver gets the error of the place where it entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the PASID is not the driver's to use on this function: bind it first")]
pub struct PasidRefused;

/// What the PASIDs mean that a driver writes into a function's registers and descriptors.
///
/// Every one of them goes through [`PasidPolicy::resolve`], and nothing else yields an [`Identity`].
pub trait PasidPolicy: Send + Sync {
    /// What requests carry for a PASID of the driver's; `None`: a queue on which PASIDs are off.
    ///
    /// # Errors
    /// [`PasidRefused`]; then nothing is forwarded.
    fn resolve(&self, pasid: Option<GuestPasid>, at: EntryPoint) -> Result<Identity, PasidRefused>;

    /// What a PASID of the driver's means now, as far as the host knows without asking the driver's unit; `None`:
    /// nothing. Nothing is forwarded.
    fn meaning_now(&self, pasid: GuestPasid) -> Option<PasidTag>;

    /// What requests carry for a PASID that the driver had freed before the function came here, and left
    /// programmed: something of the driver's own that reaches no memory.
    ///
    /// # Errors
    /// [`PasidRefused`] where there is no such thing.
    fn resolve_stale(&self, pasid: GuestPasid, at: EntryPoint) -> Result<Identity, PasidRefused>;

    /// The driver turned the function's PASID capability on or off.
    fn set_pasid_enabled(&self, enable: PasidEnable);

    /// The driver turned ATS on or off: the function's own TLB is empty then (PCIe 10.5.1.3). What it kept
    /// is used by nobody when this returns.
    fn forget_translations(&self);
}

/// The policy of a function whose one owner has all of it: PASIDs go through as they are, and the
/// function's own table decides what they mean (R16, R21).
pub struct Direct {
    function: FunctionHandle,
}

impl Direct {
    /// The policy for this function.
    #[must_use]
    pub const fn new(function: FunctionHandle) -> Self {
        Self { function }
    }
}

impl PasidPolicy for Direct {
    fn resolve(
        &self,
        pasid: Option<GuestPasid>,
        _at: EntryPoint,
    ) -> Result<Identity, PasidRefused> {
        Ok(Identity {
            tag: pasid.map(PasidTag::of_exclusive_owner),
            hold: None,
        })
    }

    fn meaning_now(&self, pasid: GuestPasid) -> Option<PasidTag> {
        Some(PasidTag::of_exclusive_owner(pasid))
    }

    /// None is ever stale: the function's own table decides what each means.
    fn resolve_stale(&self, _pasid: GuestPasid, _at: EntryPoint) -> Result<Identity, PasidRefused> {
        Err(PasidRefused)
    }

    fn set_pasid_enabled(&self, enable: PasidEnable) {
        self.function.set_pasid_enabled(enable);
    }

    fn forget_translations(&self) {
        self.function.invalidate(Scope::All, Cached::InDevices);
    }
}
