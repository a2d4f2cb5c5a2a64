//! The accelerator's driver: configuration, commands, queues, portals.

mod devices;
mod enable;

pub(crate) use devices::Devices;

use crate::{
    error::DriverError,
    kernel::Kernel,
    link::Link,
    wait::{LIMIT, Patience},
};
use palisade_dsa::spec::{
    Command, CommandCode, CommandStatus, DEVICE_ID, Descriptor, DeviceState, EngineCapability,
    GeneralCapability, GeneralStatus, Portal, QueueCapability, QueueConfig, QueueLimits, QueueMode,
    TableOffsets, VENDOR_ID, portal_offset, register, table,
};
use palisade_pci::Bar;
use palisade_units::{Bdf, GuestPasid};
use palisade_vfio_user::Ticket;
use zerocopy::IntoBytes;

/// The priority of the driver's queues, as Linux's tool gives it by default.
const PRIORITY: u8 = 10;

/// Whether the descriptors of a queue may wait for pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// They may, if they ask for it themselves.
    MayBlock,
    /// They fail.
    Fail,
}

/// The driver of one accelerator, whose queues are all dedicated.
#[derive(Debug)]
pub struct Accelerator {
    link: Link,
    bdf: Bdf,
    general: GeneralCapability,
    queues: u8,
    queue_size: u16,
    /// Where queue 0's configuration stands in BAR 0, and how long one is.
    queue_table: u64,
    queue_stride: u64,
    /// Whose each queue is; `None` for one that is not enabled.
    owners: Vec<Option<GuestPasid>>,
    /// The queue that is given away next if none is free.
    next_victim: u8,
}

impl Accelerator {
    /// Finds the device, enables it in configuration space, resets it, puts all queues and engines into group 0 and enables
    /// it. Every queue gets the same share of the places and is dedicated; none is enabled yet.
    ///
    /// # Errors
    /// [`DriverError::Unsupported`] if it is another device or lacks dedicated queues or PASIDs;
    /// [`DriverError::Command`] if it refuses its configuration.
    pub fn bring_up(mut link: Link, bdf: Bdf, kernel: &mut Kernel) -> Result<Self, DriverError> {
        enable::enable(&mut link, bdf, (VENDOR_ID, DEVICE_ID))?;
        let general = GeneralCapability::from_bits(link.read_u64(Bar::Bar0, register::GENCAP)?);
        let queue = QueueCapability::from_bits(link.read_u64(Bar::Bar0, register::WQCAP)?);
        let engines = EngineCapability::from_bits(link.read_u64(Bar::Bar0, register::ENGCAP)?);
        let mut offsets = [0; 16];
        link.read(Bar::Bar0, register::OFFSETS, &mut offsets)?;
        let offsets = TableOffsets::from_bits(u128::from_le_bytes(offsets));
        if !queue.dedicated_mode() || queue.queues() == 0 || engines.engines() == 0 {
            return Err(DriverError::Unsupported {
                what: bdf.to_string(),
                lacking: "a dedicated queue with an engine".to_owned(),
            });
        }
        let mut device = Self {
            link,
            bdf,
            general,
            queues: queue.queues(),
            queue_size: queue.total_size() / u16::from(queue.queues()),
            queue_table: u64::from(offsets.queues()) * register::TABLE_UNIT_BYTES,
            queue_stride: table::WQCFG_BYTES << queue.config_size(),
            owners: vec![None; usize::from(queue.queues())],
            next_victim: 0,
        };
        device.command(Command::of(Command::RESET_DEVICE), kernel)?;
        if general.configurable() {
            let groups = u64::from(offsets.groups()) * register::TABLE_UNIT_BYTES;
            device.configure(groups, engines.engines())?;
        }
        for queue in 0..device.queues {
            device.set_mode(queue, device.mode(None, OnFault::MayBlock))?;
        }
        device.command(Command::of(Command::ENABLE_DEVICE), kernel)?;
        Ok(device)
    }

    /// Where it stands.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }

    /// How many queues it has.
    #[must_use]
    pub fn queues(&self) -> u8 {
        self.queues
    }

    /// How many descriptors a queue holds.
    #[must_use]
    pub fn queue_size(&self) -> u16 {
        self.queue_size
    }

    /// The longest transfer in bytes.
    #[must_use]
    pub fn max_transfer_bytes(&self) -> u64 {
        1 << self.general.max_transfer_shift()
    }

    /// The mode of a dedicated queue for a PASID, or for requests without one.
    #[must_use]
    pub fn mode(&self, pasid: Option<GuestPasid>, on_fault: OnFault) -> QueueMode {
        QueueMode::new()
            .with_dedicated(true)
            .with_block_on_fault(on_fault == OnFault::MayBlock && self.general.block_on_fault())
            .with_priority(PRIORITY)
            .with_pasid(pasid.map_or(0, GuestPasid::get))
            .with_pasid_enable(pasid.is_some())
    }

    /// The queue that works for a PASID. If there is none, a free one is enabled for it, or one is taken from
    /// another PASID in turn, after its work.
    ///
    /// # Errors
    /// [`DriverError::Command`] if the device refuses the PASID.
    pub fn queue_for(&mut self, pasid: GuestPasid, kernel: &mut Kernel) -> Result<u8, DriverError> {
        let of = |owner: Option<GuestPasid>| {
            (0..)
                .zip(&self.owners)
                .find(|(_, other)| **other == owner)
                .map(|(queue, _)| queue)
        };
        if let Some(queue) = of(Some(pasid)) {
            return Ok(queue);
        }
        let queue = match of(None) {
            Some(queue) => queue,
            None => {
                let victim = self.next_victim;
                self.next_victim = (victim + 1) % self.queues;
                self.disable_queue(victim, kernel)?;
                victim
            }
        };
        self.enable_queue(queue, pasid, OnFault::MayBlock, kernel)?;
        Ok(queue)
    }

    /// Gives a queue that is disabled to a PASID and enables it.
    ///
    /// # Errors
    /// [`DriverError::Command`] if the device refuses the PASID or the queue.
    pub fn enable_queue(
        &mut self,
        queue: u8,
        pasid: GuestPasid,
        on_fault: OnFault,
        kernel: &mut Kernel,
    ) -> Result<(), DriverError> {
        self.set_mode(queue, self.mode(Some(pasid), on_fault))?;
        self.command(Command::for_queue(Command::ENABLE_QUEUE, queue), kernel)?;
        self.set_owner(queue, Some(pasid));
        Ok(())
    }

    /// Waits for the work of a queue and disables it.
    ///
    /// # Errors
    /// [`DriverError::Command`].
    pub fn disable_queue(&mut self, queue: u8, kernel: &mut Kernel) -> Result<(), DriverError> {
        self.command(Command::for_queue(Command::DISABLE_QUEUES, queue), kernel)?;
        self.set_owner(queue, None);
        Ok(())
    }

    /// Disables every queue that is enabled, each after its work.
    ///
    /// # Errors
    /// [`DriverError::Command`].
    pub fn disable_queues(&mut self, kernel: &mut Kernel) -> Result<(), DriverError> {
        for queue in 0..self.queues {
            if self.owners[usize::from(queue)].is_some() {
                self.disable_queue(queue, kernel)?;
            }
        }
        Ok(())
    }

    /// Disables the queues of a PASID, after their work; what comes before its process ends.
    ///
    /// # Errors
    /// [`DriverError::Command`].
    pub fn disable_queues_of(
        &mut self,
        pasid: GuestPasid,
        kernel: &mut Kernel,
    ) -> Result<(), DriverError> {
        for queue in 0..self.queues {
            if self.owners[usize::from(queue)] == Some(pasid) {
                self.disable_queue(queue, kernel)?;
            }
        }
        Ok(())
    }

    /// Drops all work and disables everything.
    ///
    /// # Errors
    /// [`DriverError::Command`].
    pub fn shut_down(&mut self, kernel: &mut Kernel) -> Result<(), DriverError> {
        let state = GeneralStatus::from_bits(self.link.read_u32(Bar::Bar0, register::GENSTS)?);
        if state.state() == DeviceState::Enabled {
            self.command(Command::of(Command::DISABLE_DEVICE), kernel)?;
        }
        self.owners.fill(None);
        Ok(())
    }

    /// Gives a command and waits for its end; page requests are answered meanwhile, since the command may
    /// wait for descriptors that wait for pages.
    ///
    /// # Errors
    /// [`DriverError::Command`] with the device's error code in words.
    pub fn command(&mut self, command: Command, kernel: &mut Kernel) -> Result<(), DriverError> {
        self.link
            .write_u32(Bar::Bar0, register::CMD, command.into_bits())?;
        let status = self.await_command(&command_name(command.code()), kernel)?;
        match status.error().0 {
            0 => Ok(()),
            code => Err(DriverError::Command {
                bdf: self.bdf,
                command: command_name(command.code()),
                code,
                reason: status.error().words().to_owned(),
            }),
        }
    }

    /// Waits for the end of the last command, whatever came of it, and answers page requests meanwhile. `what` is
    /// its name for the error of a wait that took too long.
    ///
    /// # Errors
    /// [`DriverError::TimedOut`].
    pub fn await_command(
        &mut self,
        what: &str,
        kernel: &mut Kernel,
    ) -> Result<CommandStatus, DriverError> {
        let mut patience = Patience::new(LIMIT);
        loop {
            let status = CommandStatus::from_bits(self.link.read_u32(Bar::Bar0, register::CMDSTS)?);
            if !status.active() {
                return Ok(status);
            }
            self.take_events(kernel)?;
            kernel.serve()?;
            patience.pause(|| format!("{what} of {}", self.bdf))?;
        }
    }

    /// Queues a descriptor for a queue's portal; [`Accelerator::flush`] sends it. Who submits counts: a
    /// dedicated queue drops what it has no place for.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn submit(&mut self, queue: u8, descriptor: &Descriptor) -> Result<(), DriverError> {
        self.link.post(
            Bar::Bar2,
            portal_offset(queue, Portal::Limited),
            descriptor.as_bytes(),
        )
    }

    /// Queues a write of a queue's mode word, without waiting.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn post_mode(&mut self, queue: u8, mode: QueueMode) -> Result<(), DriverError> {
        let at = self.queue_offset(queue) + table::WQCFG_MODE;
        self.link
            .post(Bar::Bar0, at, &mode.into_bits().to_le_bytes())
    }

    /// Queues a command, without waiting.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn post_command(&mut self, command: Command) -> Result<(), DriverError> {
        self.link
            .post(Bar::Bar0, register::CMD, &command.into_bits().to_le_bytes())
    }

    /// Queues a read of the status of the last command.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn queue_status(&mut self) -> Result<Ticket, DriverError> {
        self.link.queue_read_u32(Bar::Bar0, register::CMDSTS)
    }

    /// Waits for a status that was asked for.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn take_status(&mut self, ticket: Ticket) -> Result<CommandStatus, DriverError> {
        Ok(CommandStatus::from_bits(self.link.take_u32(ticket)?))
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn flush(&mut self) -> Result<(), DriverError> {
        self.link.flush()
    }

    /// Hands the events that came over this connection to the kernel.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn take_events(&mut self, kernel: &mut Kernel) -> Result<(), DriverError> {
        self.link.take_events(|event| kernel.note(event))
    }

    /// The connection, for what this driver does not do.
    pub fn link_mut(&mut self) -> &mut Link {
        &mut self.link
    }

    /// One group with everything, and the queues' sizes and limits.
    fn configure(&mut self, groups: u64, engines: u8) -> Result<(), DriverError> {
        let queue_bits = low_bits(self.queues.min(64));
        self.link
            .write_u64(Bar::Bar0, groups + table::GRPCFG_QUEUES, queue_bits)?;
        let engine_bits = low_bits(engines.min(64));
        self.link
            .write_u64(Bar::Bar0, groups + table::GRPCFG_ENGINES, engine_bits)?;
        let config = QueueConfig {
            size: self.queue_size,
            threshold: 0,
            mode: self.mode(None, OnFault::MayBlock),
            limits: QueueLimits::new()
                .with_max_transfer_shift(self.general.max_transfer_shift())
                .with_max_batch_shift(self.general.max_batch_shift()),
        };
        for queue in 0..self.queues {
            let at = self.queue_offset(queue);
            for (word, offset) in config.words().into_iter().zip((0..).step_by(4)) {
                self.link.write_u32(Bar::Bar0, at + offset, word)?;
            }
        }
        Ok(())
    }

    fn set_mode(&mut self, queue: u8, mode: QueueMode) -> Result<(), DriverError> {
        let at = self.queue_offset(queue) + table::WQCFG_MODE;
        self.link.write_u32(Bar::Bar0, at, mode.into_bits())
    }

    fn set_owner(&mut self, queue: u8, owner: Option<GuestPasid>) {
        if let Some(slot) = self.owners.get_mut(usize::from(queue)) {
            *slot = owner;
        }
    }

    fn queue_offset(&self, queue: u8) -> u64 {
        self.queue_table + u64::from(queue) * self.queue_stride
    }
}

/// The lowest `count` bits set; `count` is at most 64.
const fn low_bits(count: u8) -> u64 {
    if count == 0 {
        0
    } else {
        u64::MAX >> (64 - count as u32)
    }
}

fn command_name(code: CommandCode) -> String {
    let known = match code {
        Command::ENABLE_DEVICE => "enable device",
        Command::DISABLE_DEVICE => "disable device",
        Command::RESET_DEVICE => "reset device",
        Command::ENABLE_QUEUE => "enable queue",
        Command::DISABLE_QUEUES => "disable queues",
        Command::DRAIN_QUEUES => "drain queues",
        Command::ABORT_QUEUES => "abort queues",
        Command::DRAIN_PASID => "drain PASID",
        Command::ABORT_PASID => "abort PASID",
        other => return format!("command {}", other.0),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_as_many_bits_as_queues() {
        assert_eq!(
            [low_bits(0), low_bits(1), low_bits(8), low_bits(64)],
            [0, 1, 0xff, u64::MAX]
        );
    }
}
