//! The state of a device that moves to another host, and the messages that carry it (vfio-user,
//! VFIO_USER_MIG_DATA_READ, VFIO_USER_MIG_DATA_WRITE).

use palisade_units::layout;
use zerocopy::native_endian::{U32, U64};

layout! {
    /// What GET of MIGRATION gives.
    MigrationSupport, 8, {
        /// [`MigrationFlags`].
        flags: U64 = 0,
    }
}

bitflags::bitflags! {
    /// Which states of migration there are beside RUNNING and ERROR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MigrationFlags: u64 {
        /// STOP, STOP_COPY and RESUMING.
        const STOP_COPY = 1;
        /// RUNNING_P2P.
        const P2P = 2;
        /// PRE_COPY.
        const PRE_COPY = 4;
    }
}

layout! {
    /// The data of DEVICE_STATE.
    MigrationState, 8, {
        /// [`DeviceState`].
        state: U32 = 0,
        /// Nothing: state goes over the connection itself.
        data_fd: U32 = 4,
    }
}

/// The states of migration, as VFIO numbers them, less those of which neither this server nor this client makes
/// use: RUNNING_P2P (5), PRE_COPY (6) and PRE_COPY_P2P (7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DeviceState {
    /// The device has failed; a reset brings it back to RUNNING.
    Error = 0,
    /// The device does nothing and does not change.
    Stop = 1,
    /// The device is at work.
    Running = 2,
    /// As STOP, and its state can be read.
    StopCopy = 3,
    /// As STOP, and its state can be written.
    Resuming = 4,
}

impl DeviceState {
    /// All of them, by their numbers.
    pub const ALL: [Self; 5] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
    ];

    /// The state with this number; `None` for one that is not known.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.raw() == raw)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self as u32
    }
}

layout! {
    /// MIG_DATA_READ, its reply before the data, and MIG_DATA_WRITE before the data.
    MigrationData, 8, {
        /// The most that the reply may take; in the reply, what it takes.
        argsz: U32 = 0,
        /// How many bytes of state are wanted, or follow.
        size: U32 = 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_states_agree() {
        for (raw, state) in (0..).zip(DeviceState::ALL) {
            assert_eq!(state.raw(), raw);
            assert_eq!(DeviceState::from_raw(raw), Some(state));
        }
        for raw in [5, 6, 7, 8, u32::MAX] {
            assert_eq!(DeviceState::from_raw(raw), None);
        }
    }
}
