//! A tenant's devices move to another host, as those of a virtual machine do.
//!
//! The tenant's memory is its own and stays where it is; what moves is the state of the devices, over the
//! messages of vfio-user.

use crate::{
    error::DriverError,
    link::Link,
    tenant::{FunctionAddress, Tenant},
};
use palisade_vfio_user::wire::DeviceState;
use std::path::Path;

/// No device's state is longer.
const STATE_MAX_BYTES: usize = 16 << 20;

impl Link {
    /// Brings the function to a state of migration.
    fn set_state(&mut self, state: DeviceState) -> Result<(), DriverError> {
        let done = self.client_mut().set_device_state(state);
        self.named(done)
    }

    /// Stops the function; on return it does not touch memory.
    fn stop(&mut self) -> Result<(), DriverError> {
        self.set_state(DeviceState::Stop)
    }

    /// The state of the stopped function.
    fn state(&mut self) -> Result<Vec<u8>, DriverError> {
        self.set_state(DeviceState::StopCopy)?;
        let state = self.client_mut().read_state(STATE_MAX_BYTES);
        let state = self.named(state)?;
        self.stop()?;
        Ok(state)
    }

    /// Gives the function, which has done nothing yet, the state of another. It is stopped then.
    fn take_over(&mut self, state: &[u8]) -> Result<(), DriverError> {
        self.set_state(DeviceState::Resuming)?;
        let written = self.client_mut().write_state(state);
        self.named(written)?;
        self.stop()
    }

    /// Lets the stopped function go on.
    fn go_on(&mut self) -> Result<(), DriverError> {
        self.set_state(DeviceState::Running)
    }
}

impl Tenant {
    /// Moves the unit and all functions to the host that serves these sockets, with what they have under way; the
    /// functions stand for the tenant's own in their order, and keep their places. Processes, PASIDs and copies go
    /// on as if nothing had happened.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] for another number of functions, and what either host refuses. The tenant
    /// goes on where it was then.
    pub fn move_to(
        &mut self,
        unit_socket: &Path,
        functions: &[FunctionAddress],
    ) -> Result<(), DriverError> {
        if functions.len() != self.accelerators.len() {
            return Err(DriverError::Unsupported {
                what: format!("a host with {} functions", functions.len()),
                lacking: format!("one for each of the tenant's {}", self.accelerators.len()),
            });
        }
        let moved = self.stop_all().and_then(|()| {
            let links = self.arrive(unit_socket, functions)?;
            self.hear_out()?;
            Ok(links)
        });
        match moved {
            Ok(mut links) => {
                self.exchange(&mut links);
                let started = self.start_all();
                if started.is_err() {
                    // The new host has not what the tenant needs; the old one has kept it.
                    self.exchange(&mut links);
                    self.start_all()?;
                }
                // One host's end of each connection goes with its links.
                started
            }
            Err(error) => {
                self.start_all()?;
                Err(error)
            }
        }
    }

    /// Puts other links in the place of the devices', and gives those back.
    fn exchange(&mut self, (unit, links): &mut (Link, Vec<Link>)) {
        std::mem::swap(self.kernel.unit.link_mut(), unit);
        for (accelerator, link) in self.accelerators.iter_mut().zip(links) {
            std::mem::swap(accelerator.link_mut(), link);
        }
    }

    /// Devices first, so that the unit still answers what they ask.
    fn stop_all(&mut self) -> Result<(), DriverError> {
        for accelerator in &mut self.accelerators {
            accelerator.link_mut().stop()?;
        }
        self.kernel.unit.link_mut().stop()
    }

    /// Takes in what the old host sent before it stopped. What it tells of is done at the new one: a stopped unit does nothing.
    fn hear_out(&mut self) -> Result<(), DriverError> {
        for accelerator in &mut self.accelerators {
            accelerator.take_events(&mut self.kernel)?;
        }
        Ok(())
    }

    /// In the order that a machine may take too: the host starts the functions once it has the unit.
    fn start_all(&mut self) -> Result<(), DriverError> {
        for accelerator in &mut self.accelerators {
            accelerator.link_mut().go_on()?;
        }
        self.kernel.unit.link_mut().go_on()
    }

    /// The connections to the new host, whose functions have the state of the old.
    fn arrive(
        &mut self,
        unit_socket: &Path,
        functions: &[FunctionAddress],
    ) -> Result<(Link, Vec<Link>), DriverError> {
        let mut unit = Link::connect(unit_socket, "unit", self.kernel.guest())?;
        unit.take_over(&self.kernel.unit.link_mut().state()?)?;
        let mut links = Vec::new();
        for (accelerator, function) in self.accelerators.iter_mut().zip(functions) {
            let name = function.bdf.to_string();
            let mut link = Link::connect(&function.socket, &name, self.kernel.guest())?;
            link.take_over(&accelerator.link_mut().state()?)?;
            links.push(link);
        }
        Ok((unit, links))
    }
}
