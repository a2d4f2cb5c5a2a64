//! All accelerators of a tenant while one of them is at work.

use super::Accelerator;
use crate::{error::DriverError, kernel::Kernel};
use palisade_units::Bdf;
use std::ops::{Deref, DerefMut};

/// The accelerator that is at work, and the others beside it: the unit's events may come over the connection of any of
/// them, and a connection that nobody reads is ended by the host.
#[derive(Debug)]
pub(crate) struct Devices<'a> {
    active: &'a mut Accelerator,
    before: &'a mut [Accelerator],
    after: &'a mut [Accelerator],
}

impl<'a> Devices<'a> {
    /// With the accelerator at this place at work.
    pub(crate) fn new(all: &'a mut [Accelerator], bdf: Bdf) -> Result<Self, DriverError> {
        let missing = DriverError::NoSuchFunction(bdf);
        let Some(index) = all.iter().position(|accelerator| accelerator.bdf() == bdf) else {
            return Err(missing);
        };
        let (before, rest) = all.split_at_mut(index);
        let (active, after) = rest.split_first_mut().ok_or(missing)?;
        Ok(Self {
            active,
            before,
            after,
        })
    }

    /// Hands the events that came over all connections to the kernel.
    pub(crate) fn take_all_events(&mut self, kernel: &mut Kernel) -> Result<(), DriverError> {
        self.active.take_events(kernel)?;
        for accelerator in self.before.iter_mut().chain(self.after.iter_mut()) {
            accelerator.take_events(kernel)?;
        }
        Ok(())
    }
}

impl Deref for Devices<'_> {
    type Target = Accelerator;

    fn deref(&self) -> &Accelerator {
        self.active
    }
}

impl DerefMut for Devices<'_> {
    fn deref_mut(&mut self) -> &mut Accelerator {
        self.active
    }
}
