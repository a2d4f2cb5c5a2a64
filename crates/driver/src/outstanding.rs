//! Copies of a tenant that are submitted at one time and completed at another.

use crate::{
    copy::{Completion, Copy, InFlight, Submitted},
    error::DriverError,
    tenant::Tenant,
    wait::{LIMIT, Patience},
};
use palisade_units::Bdf;

/// Copies that one function was given and that nobody has waited for yet. They stay what they are while the function
/// moves to another host.
#[derive(Debug)]
#[must_use = "nobody else looks at the completion records"]
pub struct Outstanding {
    bdf: Bdf,
    flight: InFlight,
    count: usize,
}

impl Outstanding {
    /// How many copies there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Tenant {
    /// Gives copies to a function, each to a queue of its process, and does not wait for them. A queue that works for
    /// another process is drained and given away.
    ///
    /// # Errors
    /// [`DriverError::QueueFull`] where there are more than a queue or a process's completion records have places
    /// for; none of them is looked after then.
    pub fn submit(&mut self, bdf: Bdf, copies: &[Copy]) -> Result<Outstanding, DriverError> {
        let (accelerator, kernel) = &mut self.devices_and_kernel(bdf)?;
        let mut flight = InFlight::default();
        for (number, copy) in copies.iter().enumerate() {
            let queue = accelerator.queue_for(copy.process, kernel)?;
            let fits = flight.on_queue(queue) < usize::from(accelerator.queue_size());
            if !fits
                || flight.submit(accelerator, kernel, queue, number, *copy)? == Submitted::NoRecord
            {
                return Err(DriverError::QueueFull {
                    bdf,
                    process: copy.process,
                });
            }
        }
        accelerator.flush()?;
        Ok(Outstanding {
            bdf,
            flight,
            count: copies.len(),
        })
    }

    /// Waits until all of them have ended, and tells how, in the order in which they were given.
    ///
    /// # Errors
    /// [`DriverError::TimedOut`], and those of the connections.
    pub fn complete(&mut self, outstanding: Outstanding) -> Result<Vec<Completion>, DriverError> {
        let Outstanding {
            bdf,
            mut flight,
            count,
        } = outstanding;
        let (devices, kernel) = &mut self.devices_and_kernel(bdf)?;
        let mut ended = vec![None; count];
        let mut patience = Patience::new(LIMIT);
        loop {
            let reaped = flight.reap(kernel, |number, _, completion| {
                ended[number] = Some(completion);
                Ok(())
            })?;
            if flight.is_empty() {
                return Ok(ended.into_iter().flatten().collect());
            }
            if reaped > 0 {
                patience.progressed();
            }
            if patience.is_resting() {
                devices.take_all_events(kernel)?;
                kernel.serve()?;
            }
            patience.pause(|| flight.describe())?;
        }
    }
}
