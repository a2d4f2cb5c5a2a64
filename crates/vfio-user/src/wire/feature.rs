//! DEVICE_FEATURE (vfio-user, VFIO_USER_DEVICE_FEATURE), and the data of those features that are about written
//! pages.

use palisade_units::layout;
use zerocopy::native_endian::{U32, U64};

/// The most ranges that a log of written pages is asked for: as many as VFIO takes.
pub const MAX_LOGGING_RANGES: u32 = 256;

layout! {
    /// DEVICE_FEATURE and its reply, before the feature's data.
    FeatureRequest, 8, {
        /// The most that the reply may take; in the reply to GET, what it takes.
        argsz: U32 = 0,
        /// [`FeatureFlags`].
        flags: U32 = 4,
    }
}

/// A feature that can be asked for, set or probed, as VFIO numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Feature {
    /// Which states of migration there are: GET gives [`super::MigrationSupport`].
    Migration = 1,
    /// The state of migration: GET and SET have [`super::MigrationState`].
    DeviceState = 2,
    /// SET starts to log written pages: [`LoggingControl`] and ranges.
    LoggingStart = 6,
    /// SET ends that.
    LoggingStop = 7,
    /// GET takes out of the log which pages were written: [`LoggingReport`], and in the reply a bitmap.
    LoggingReport = 8,
}

impl Feature {
    const ALL: [Self; 5] = [
        Self::Migration,
        Self::DeviceState,
        Self::LoggingStart,
        Self::LoggingStop,
        Self::LoggingReport,
    ];

    /// The feature with this index; `None` for one that is not known.
    #[must_use]
    pub fn from_index(index: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.index() == index)
    }

    /// The index on the wire.
    #[must_use]
    pub const fn index(self) -> u16 {
        self as u16
    }

    /// What it can be asked for, beside PROBE.
    #[must_use]
    pub const fn methods(self) -> Methods {
        match self {
            Self::Migration | Self::LoggingReport => Methods::GET,
            Self::DeviceState => Methods::GET.union(Methods::SET),
            Self::LoggingStart | Self::LoggingStop => Methods::SET,
        }
    }
}

bitflags::bitflags! {
    /// What is to be done with a feature.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Methods: u32 {
        /// Give its data.
        const GET = 1 << 16;
        /// Take its data.
        const SET = 1 << 17;
        /// Say whether it is there, with the methods that stand beside.
        const PROBE = 1 << 18;
    }
}

/// The flags of a request: which feature, and what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureFlags {
    /// The feature's index, known or not.
    pub index: u16,
    /// What is to be done with it.
    pub methods: Methods,
}

impl FeatureFlags {
    /// The flags for a feature.
    #[must_use]
    pub const fn new(feature: Feature, methods: Methods) -> Self {
        let index = feature.index();
        Self { index, methods }
    }

    /// The flags of this number. `None` unless it is PROBE, GET or SET, or PROBE with any of the others.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        let [low, high, ..] = raw.to_le_bytes();
        let index = u16::from_le_bytes([low, high]);
        let methods = Methods::from_bits(raw & !u32::from(u16::MAX))?;
        let one = methods == Methods::GET || methods == Methods::SET;
        (one || methods.contains(Methods::PROBE)).then_some(Self { index, methods })
    }

    /// The number on the wire.
    #[must_use]
    pub fn raw(self) -> u32 {
        self.methods.bits() | u32::from(self.index)
    }
}

layout! {
    /// What LOGGING_START is given, before its ranges; none means all addresses.
    LoggingControl, 16, {
        /// How large the pages are by which writes are to be logged; in the reply, by which they are.
        page_bytes: U64 = 0,
        /// How many ranges follow.
        ranges: U32 = 8,
        /// Nothing.
        reserved: U32 = 12,
    }
}

layout! {
    /// A range to be logged.
    LoggingRange, 16, {
        /// Where it starts for the device.
        address: U64 = 0,
        /// Its length.
        len_bytes: U64 = 8,
    }
}

layout! {
    /// What LOGGING_REPORT is asked for, and its reply before the bitmap: numbers of 64 bits, in which the lowest
    /// bit of the first stands for the first page.
    LoggingReport, 24, {
        /// Where the range starts for the device.
        address: U64 = 0,
        /// Its length.
        len_bytes: U64 = 8,
        /// How large the pages are that the bits stand for.
        page_bytes: U64 = 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_those_of_vfio() {
        let known: Vec<u16> = (0..=u16::MAX)
            .filter(|index| Feature::from_index(*index).is_some())
            .collect();
        assert_eq!(known, [1, 2, 6, 7, 8]);
        for feature in Feature::ALL {
            assert_eq!(Feature::from_index(feature.index()), Some(feature));
        }
    }

    #[test]
    fn flags_are_one_method_or_a_probe() {
        let flags = FeatureFlags::from_raw(0x2_0006).unwrap();
        assert_eq!(
            flags,
            FeatureFlags::new(Feature::LoggingStart, Methods::SET)
        );
        assert_eq!(flags.raw(), 0x2_0006);
        for raw in [0x1_0001, 0x2_0002, 0x4_0001, 0x5_0001, 0x6_0002, 0x7_0002] {
            assert_eq!(
                FeatureFlags::from_raw(raw).map(FeatureFlags::raw),
                Some(raw)
            );
        }
        for raw in [0, 1, 0x3_0002, 0x8_0001, 0x9_0001, u32::MAX] {
            assert_eq!(FeatureFlags::from_raw(raw), None);
        }
    }
}
