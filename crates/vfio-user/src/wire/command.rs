/// The commands of the protocol (vfio-user, Commands). 14, dirty pages, is of earlier revisions and
/// still sent by some clients. Those from 0x8000 on are of the extension ([`super::pasid`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceGetInfo = 4,
    DeviceGetRegionInfo = 5,
    DeviceGetRegionIoFds = 6,
    DeviceGetIrqInfo = 7,
    DeviceSetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DmaRead = 11,
    DmaWrite = 12,
    DeviceReset = 13,
    DirtyPages = 14,
    RegionWriteMulti = 15,
    DeviceFeature = 16,
    MigrationDataRead = 17,
    MigrationDataWrite = 18,
    PasidDmaRead = 0x8001,
    PasidDmaWrite = 0x8002,
    PasidTranslate = 0x8003,
    PasidPageRequest = 0x8004,
    PasidInvalidate = 0x8005,
    ContainerRequest = 0x8006,
}

/// Where the extension's numbers begin; this one is none.
const EXTENSION: u16 = 0x8000;

impl Command {
    const ALL: [Self; 18] = [
        Self::Version,
        Self::DmaMap,
        Self::DmaUnmap,
        Self::DeviceGetInfo,
        Self::DeviceGetRegionInfo,
        Self::DeviceGetRegionIoFds,
        Self::DeviceGetIrqInfo,
        Self::DeviceSetIrqs,
        Self::RegionRead,
        Self::RegionWrite,
        Self::DmaRead,
        Self::DmaWrite,
        Self::DeviceReset,
        Self::DirtyPages,
        Self::RegionWriteMulti,
        Self::DeviceFeature,
        Self::MigrationDataRead,
        Self::MigrationDataWrite,
    ];

    /// The commands of the extension, by their numbers.
    pub const EXTENSION: [Self; 6] = [
        Self::PasidDmaRead,
        Self::PasidDmaWrite,
        Self::PasidTranslate,
        Self::PasidPageRequest,
        Self::PasidInvalidate,
        Self::ContainerRequest,
    ];

    /// The command with this number; `None` for one that neither the protocol nor the extension has.
    #[must_use]
    pub fn from_raw(raw: u16) -> Option<Self> {
        let (base, commands) = match raw.checked_sub(EXTENSION) {
            None => (raw, &Self::ALL[..]),
            Some(base) => (base, &Self::EXTENSION[..]),
        };
        let index = usize::from(base).checked_sub(1)?;
        commands.get(index).copied()
    }

    /// Whether this command is of the extension.
    #[must_use]
    pub const fn is_of_extension(self) -> bool {
        self.raw() >= EXTENSION
    }

    /// The number on the wire.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        for raw in (1..=18).chain(0x8001..=0x8006) {
            assert_eq!(Command::from_raw(raw).map(Command::raw), Some(raw));
        }
        for raw in [0, 19, 0x8000, 0x8007, u16::MAX] {
            assert_eq!(Command::from_raw(raw), None);
        }
    }
}
