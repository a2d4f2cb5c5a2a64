use std::sync::Arc;

use palisade_pci::{Function, Migration, MigrationError};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::session::{exactly, has_room, starts_with};
use crate::wire::{DeviceState, MAX_DATA_BYTES, MigrationData};

/// How far a peer has brought the migration of its function, by the second version of VFIO's protocol
/// (linux/vfio.h, enum vfio_device_mig_state).
///
/// Where a peer goes in the middle, its function is reset and at work again.
pub(crate) struct Migrating {
    function: Arc<dyn Function>,
    progress: Progress,
}

/// A state, and what a transfer that belongs to it has brought so far.
enum Progress {
    Running,
    Stop,
    /// The state that was saved, and how much of it was read.
    StopCopy(Vec<u8>, usize),
    /// The state that is to be restored, as far as it was written.
    Resuming(Vec<u8>),
    Error,
}

impl Progress {
    const fn state(&self) -> DeviceState {
        match self {
            Self::Running => DeviceState::Running,
            Self::Stop => DeviceState::Stop,
            Self::StopCopy(..) => DeviceState::StopCopy,
            Self::Resuming(_) => DeviceState::Resuming,
            Self::Error => DeviceState::Error,
        }
    }
}

impl Migrating {
    pub(crate) const fn new(function: Arc<dyn Function>) -> Self {
        Self {
            function,
            progress: Progress::Running,
        }
    }

    /// Whether the function can migrate.
    pub(crate) fn is_offered(&self) -> bool {
        self.function.migration().is_some()
    }

    pub(crate) const fn state(&self) -> DeviceState {
        self.progress.state()
    }

    /// Brings the function to a state, by as many steps as it takes. Where one fails, the state is the one that was
    /// reached.
    ///
    /// # Errors
    /// EINVAL for a state that there is not, for ERROR, and from ERROR; else the function's own.
    pub(crate) fn set(&mut self, raw: u32) -> Result<(), Errno> {
        let goal = DeviceState::from_raw(raw).ok_or(Errno::INVAL)?;
        if goal == DeviceState::Error || self.state() == DeviceState::Error {
            return Err(Errno::INVAL);
        }
        while self.state() != goal {
            self.step(goal)?;
        }
        Ok(())
    }

    /// Makes the next step towards a state, which is another one. All ways lead by STOP.
    fn step(&mut self, goal: DeviceState) -> Result<(), Errno> {
        let function = Arc::clone(&self.function);
        let migration = function.migration().ok_or(Errno::NOTTY)?;
        self.progress = match &self.progress {
            Progress::Running => {
                migration.stop();
                Progress::Stop
            }
            Progress::StopCopy(..) => Progress::Stop,
            Progress::Resuming(state) => match migration.restore(state) {
                Ok(()) => Progress::Stop,
                // It holds neither state. The peer must not let it run by mistake.
                Err(error) => return Err(self.fail(&error)),
            },
            Progress::Stop => leave_stop(&*function, migration, goal)?,
            Progress::Error => return Err(Errno::INVAL),
        };
        Ok(())
    }

    fn fail(&mut self, error: &MigrationError) -> Errno {
        self.progress = Progress::Error;
        error.errno()
    }

    /// Resets the function, which is RUNNING then.
    ///
    /// # Errors
    /// The function's own; it is in ERROR.
    pub(crate) fn reset(&mut self) -> Result<(), Errno> {
        self.function.reset();
        if self.state() == DeviceState::Running {
            return Ok(());
        }
        let function = Arc::clone(&self.function);
        let migration = function.migration().ok_or(Errno::NOTTY)?;
        migration.start().map_err(|error| self.fail(&error))?;
        self.progress = Progress::Running;
        Ok(())
    }

    /// Gives the next piece of the state, to a peer that takes so many bytes in one. One that is shorter than what
    /// was asked for is the last.
    pub(crate) fn read(
        &mut self,
        payload: &[u8],
        limit_bytes: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let request = exactly::<MigrationData>(payload)?;
        self.check_transfer(&request, limit_bytes)?;
        let Progress::StopCopy(state, read) = &mut self.progress else {
            return Err(Errno::INVAL);
        };
        let rest = state.get(*read..).unwrap_or_default();
        let size = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let size = size.min(request.size.get());
        let piece = rest.get(..size as usize).unwrap_or_default();
        let reply = MigrationData {
            argsz: (MigrationData::ARGSZ + size).into(),
            size: size.into(),
        };
        out.extend_from_slice(reply.as_bytes());
        out.extend_from_slice(piece);
        *read += piece.len();
        Ok(())
    }

    /// Takes the next piece of a state.
    ///
    /// # Errors
    /// ENOSPC for more than any state has; the piece is not taken then.
    pub(crate) fn write(&mut self, payload: &[u8]) -> Result<(), Errno> {
        let (request, piece) = starts_with::<MigrationData>(payload)?;
        self.check_transfer(&request, MAX_DATA_BYTES.into())?;
        if piece.len() != request.size.get() as usize {
            return Err(Errno::INVAL);
        }
        let migration = self.function.migration().ok_or(Errno::NOTSUP)?;
        let Progress::Resuming(state) = &mut self.progress else {
            return Err(Errno::INVAL);
        };
        if piece.len() > migration.max_state_len_bytes().saturating_sub(state.len()) {
            return Err(Errno::NOSPC);
        }
        state.extend_from_slice(piece);
        Ok(())
    }

    fn check_transfer(&self, request: &MigrationData, limit_bytes: u64) -> Result<(), Errno> {
        if !self.is_offered() {
            return Err(Errno::NOTSUP);
        }
        let size = request.size.get();
        if size > MAX_DATA_BYTES || u64::from(size) > limit_bytes {
            return Err(Errno::INVAL);
        }
        has_room(request.argsz.get(), MigrationData::ARGSZ + size)
    }
}

/// The step from STOP towards a state.
fn leave_stop(
    function: &dyn Function,
    migration: &dyn Migration,
    goal: DeviceState,
) -> Result<Progress, Errno> {
    match goal {
        DeviceState::Running => {
            migration.start().map_err(|error| error.errno())?;
            Ok(Progress::Running)
        }
        DeviceState::StopCopy => {
            let state = migration.save().map_err(|error| error.errno())?;
            Ok(Progress::StopCopy(state, 0))
        }
        DeviceState::Resuming => {
            // A state is restored into a function whose driver has not been heard of.
            function.reset();
            migration.stop();
            Ok(Progress::Resuming(Vec::new()))
        }
        DeviceState::Stop | DeviceState::Error => Err(Errno::INVAL),
    }
}

impl Drop for Migrating {
    fn drop(&mut self) {
        if self.state() != DeviceState::Running {
            // What waits goes with the reset. Where it fails there is nobody left to be told.
            let _ = self.reset();
        }
    }
}
