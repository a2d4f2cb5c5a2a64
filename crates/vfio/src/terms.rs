use palisade_iommu::{DeviceTlb, FaultProcessing, Space, SupervisorRequests};

/// How requests are to be served: what a guest's table says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How their addresses are translated.
    pub space: Space,
    /// Whether their faults are recorded.
    pub fault_processing: FaultProcessing,
    /// Whether the function may keep their translations in a TLB of its own.
    pub device_tlb: DeviceTlb,
    /// Whether privileged requests are allowed, where the space has no first stage to say it.
    pub supervisor: SupervisorRequests,
}

impl Terms {
    /// How a function is served while its guest's unit translates nothing: requests without a PASID pass, and
    /// nobody is there to answer requests for translations.
    pub const UNTRANSLATED: Self = Self {
        device_tlb: DeviceTlb::Blocked,
        ..Self::new(Space::PassThrough)
    };

    /// By this space; faults are recorded, the function may have a TLB, and privileged requests need a first
    /// stage that allows them.
    #[must_use]
    pub const fn new(space: Space) -> Self {
        Self {
            space,
            fault_processing: FaultProcessing::Report,
            device_tlb: DeviceTlb::Allowed,
            supervisor: SupervisorRequests::Refused,
        }
    }
}
