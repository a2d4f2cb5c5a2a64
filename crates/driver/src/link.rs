//! A function at the other end of a connection: its registers by width, and the messages that it sends.

use crate::{error::DriverError, guest::Guest};
use palisade_memory::Protection;
use palisade_units::Gpa;
use palisade_vfio_user::{Client, ClientError, Region, Ticket};
use std::path::Path;

/// Where interrupt messages go: the local APIC of processor 0, as x86 has it.
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;

/// What an interrupt message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The unit recorded a fault.
    Fault,
    /// The unit put a page request into the queue.
    PageRequest,
}

impl Event {
    /// The message's address and data.
    #[must_use]
    pub const fn message(self) -> (u32, u32) {
        let vector = match self {
            Self::Fault => 0x30,
            Self::PageRequest => 0x31,
        };
        (MESSAGE_ADDRESS, vector)
    }

    /// The event that a message is, if it is one of these.
    #[must_use]
    pub fn of(at: Gpa, data: &[u8]) -> Option<Self> {
        let data = u32::from_le_bytes(data.try_into().ok()?);
        [Self::Fault, Self::PageRequest].into_iter().find(|event| {
            let (address, vector) = event.message();
            at.get() == u64::from(address) && data == vector
        })
    }
}

/// A connection to one function.
#[derive(Debug)]
pub struct Link {
    client: Client,
    name: String,
}

impl Link {
    /// Connects, and lets the function reach the guest's memory.
    ///
    /// # Errors
    /// [`DriverError::Transport`], under the function's name.
    pub fn connect(socket: &Path, name: &str, guest: &Guest) -> Result<Self, DriverError> {
        let name = name.to_owned();
        let connected = Client::connect(socket).and_then(|mut client| {
            let backing = guest.backing();
            client.dma_map(
                Gpa::new(0),
                guest.len_bytes(),
                &backing,
                Protection::ReadWrite,
            )?;
            Ok(client)
        });
        match connected {
            Ok(client) => Ok(Self { client, name }),
            Err(source) => Err(DriverError::Transport { peer: name, source }),
        }
    }

    /// The function's name in messages for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads some bytes of a region.
    ///
    /// # Errors
    /// [`DriverError::Transport`], as all here.
    pub fn read(
        &mut self,
        region: impl Into<Region>,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), DriverError> {
        let done = self.client.region_read(region.into(), offset, into);
        self.named(done)
    }

    /// Writes some bytes of a region, and returns once the function has taken them.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn write(
        &mut self,
        region: impl Into<Region>,
        offset: u64,
        from: &[u8],
    ) -> Result<(), DriverError> {
        let done = self.client.region_write(region.into(), offset, from);
        self.named(done)
    }

    /// Reads a 32-bit register.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn read_u32(&mut self, region: impl Into<Region>, offset: u64) -> Result<u32, DriverError> {
        let mut bytes = [0; 4];
        self.read(region, offset, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads a 64-bit register.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn read_u64(&mut self, region: impl Into<Region>, offset: u64) -> Result<u64, DriverError> {
        let mut bytes = [0; 8];
        self.read(region, offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a 32-bit register.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn write_u32(
        &mut self,
        region: impl Into<Region>,
        offset: u64,
        value: u32,
    ) -> Result<(), DriverError> {
        self.write(region, offset, &value.to_le_bytes())
    }

    /// Writes a 64-bit register.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn write_u64(
        &mut self,
        region: impl Into<Region>,
        offset: u64,
        value: u64,
    ) -> Result<(), DriverError> {
        self.write(region, offset, &value.to_le_bytes())
    }

    /// Queues a posted write, as one on the bus: nobody says how it went. [`Link::flush`] sends it.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn post(
        &mut self,
        region: impl Into<Region>,
        offset: u64,
        from: &[u8],
    ) -> Result<(), DriverError> {
        let done = self.client.post_write(region.into(), offset, from);
        self.named(done)
    }

    /// Queues a read of a 32-bit register.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn queue_read_u32(
        &mut self,
        region: impl Into<Region>,
        offset: u64,
    ) -> Result<Ticket, DriverError> {
        let done = self.client.queue_read(region.into(), offset, 4);
        self.named(done)
    }

    /// Waits for the value of a queued read.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn take_u32(&mut self, ticket: Ticket) -> Result<u32, DriverError> {
        let mut bytes = [0; 4];
        let done = self.client.take_into(ticket, &mut bytes);
        self.named(done)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn flush(&mut self) -> Result<(), DriverError> {
        let done = self.client.flush();
        self.named(done)
    }

    /// Takes in the messages that came, without waiting.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn take_events(&mut self, mut each: impl FnMut(Event)) -> Result<(), DriverError> {
        let done = self
            .client
            .poll_messages(|message| match Event::of(message.at, message.data) {
                Some(event) => each(event),
                None => tracing::debug!(at = %message.at, "a message that is no event"),
            });
        self.named(done).map(|_| ())
    }

    /// Resets the function; nothing of it is in flight on return.
    ///
    /// # Errors
    /// As [`Link::read`].
    pub fn reset(&mut self) -> Result<(), DriverError> {
        let done = self.client.reset();
        self.named(done)
    }

    /// The client itself, for what is not here.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    pub(crate) fn named<T>(&self, done: Result<T, ClientError>) -> Result<T, DriverError> {
        done.map_err(|source| DriverError::Transport {
            peer: self.name.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_address_and_data() {
        for event in [Event::Fault, Event::PageRequest] {
            let (address, data) = event.message();
            let at = Gpa::new(address.into());
            assert_eq!(Event::of(at, &data.to_le_bytes()), Some(event));
            assert_eq!(Event::of(Gpa::new(0x1000), &data.to_le_bytes()), None);
            assert_eq!(Event::of(at, &data.to_le_bytes()[..2]), None);
        }
    }
}
