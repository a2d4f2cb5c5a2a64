//! How a change comes to be in force and on the disk.
//!
//! One that takes from the tenants is in force first and written then, and undone where it cannot be written; one
//! that gives to them is written first. So no tenant ever has what a restart would not give it.

use palisade_ioasid::IoasidError;
use rustix::io::Errno;

use super::groups::Groups;
use crate::{
    control::{Kept, Refusal},
    state::{KEPT_MAX, RunTime, StateError, Store},
};

pub(super) type Answer = Result<(), Refusal>;

/// What changes, one change after the other.
pub(crate) struct Changing {
    pub(crate) groups: Groups,
    /// What was set at run time, also what is for names that are not there at the moment.
    pub(crate) set: RunTime,
    pub(crate) store: Option<Store>,
}

impl Changing {
    /// For how long a change holds.
    pub(super) fn kept(&self) -> Kept {
        match self.store {
            Some(_) => Kept::OverRestarts,
            None => Kept::UntilTheDaemonEnds,
        }
    }

    fn write(&self, next: &RunTime) -> Answer {
        let Some(store) = &self.store else {
            return Ok(());
        };
        store.write(next, &self.set).map_err(|e| not_kept(&e))
    }

    /// For what takes from the tenants: it is in force before it is kept.
    pub(super) fn apply_and_keep<T>(
        &mut self,
        next: RunTime,
        apply: impl FnOnce() -> Result<T, Refusal>,
        undo: impl FnOnce(T) -> Result<(), IoasidError>,
    ) -> Answer {
        let applied = apply()?;
        if let Err(refusal) = self.write(&next) {
            if let Err(e) = undo(applied) {
                tracing::error!("a change that could not be kept could not be undone either: {e}");
            }
            return Err(refusal);
        }
        self.set = next;
        Ok(())
    }

    /// For what gives to the tenants: it is kept before it is in force.
    pub(super) fn keep_and_apply(
        &mut self,
        next: RunTime,
        apply: impl FnOnce() -> Answer,
    ) -> Answer {
        self.write(&next)?;
        if let Err(refusal) = apply() {
            if let Err(again) = self.write(&self.set) {
                tracing::error!("a change that could not be made stays on the disk: {again}");
            }
            return Err(refusal);
        }
        self.set = next;
        Ok(())
    }
}

fn not_kept(error: &StateError) -> Refusal {
    let mut what = format!("{error}; nothing was changed");
    if let Some(source) = std::error::Error::source(error) {
        what = format!("{error}: {source}; nothing was changed");
    }
    Refusal::new(error.errno().unwrap_or(Errno::IO), what)
}

pub(super) fn refused(error: &IoasidError) -> Refusal {
    Refusal::new(Errno::from_raw_os_error(error.errno()), error.to_string())
}

/// Refuses what would be more than a state can have.
pub(super) fn not_too_many(kept: usize) -> Answer {
    if kept <= KEPT_MAX {
        return Ok(());
    }
    let what = format!("there are {KEPT_MAX} such changes: take one back, or configure them");
    Err(Refusal::new(Errno::NOSPC, what))
}
