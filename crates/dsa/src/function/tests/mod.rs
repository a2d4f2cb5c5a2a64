//! The function through its registers, as a driver uses it.

mod ats;
mod bring_up;
mod commands;
mod halt;
mod interrupts;
mod migration;
mod pasids;
mod portals;
mod queues;
mod registers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use palisade_pci::{Bar, Function, Interrupt, capability::extended_id};

use super::{Direct, DsaFunction, PasidPolicy};
use crate::Shape;
use crate::spec::{
    Command, CommandCode, CommandError, CommandStatus, Descriptor, Portal, QueueConfig,
    QueueLimits, QueueMode, SoftwareError, portal_offset, register, table,
};
use crate::testing::Host;

const GROUPS: u64 = 0x400;
const QUEUES: u64 = 0x800;
const PERMISSIONS: u64 = 0x1000;

/// A driver of a function with all eight queues, which is an exclusive one unless it is said otherwise.
struct Driver<P = Direct> {
    function: Arc<DsaFunction<P>>,
}

/// Counts signals.
#[derive(Default)]
struct Line(AtomicU64);

impl Interrupt for Line {
    fn signal(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Line {
    fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A dedicated queue of 16 with a PASID.
fn dedicated(pasid: u32) -> QueueConfig {
    QueueConfig {
        size: 16,
        threshold: 0,
        mode: QueueMode::new()
            .with_dedicated(true)
            .with_block_on_fault(true)
            .with_priority(10)
            .with_pasid(pasid)
            .with_pasid_enable(true),
        limits: QueueLimits::new()
            .with_max_transfer_shift(21)
            .with_max_batch_shift(5),
    }
}

/// A shared queue of 16 whose limited portal takes 8.
fn shared() -> QueueConfig {
    let mode = dedicated(0).mode.with_dedicated(false);
    QueueConfig {
        threshold: 8,
        mode,
        ..dedicated(0)
    }
}

impl Driver {
    /// A function as it comes out of reset.
    fn new(host: &Host) -> Self {
        Self::under(Direct::new(host.function.clone()), host)
    }

    /// An exclusive function that is set up, see [`Driver::set_up`].
    fn enabled(host: &Host, queues: &[QueueConfig]) -> Self {
        let driver = Self::new(host);
        driver.set_up(queues);
        driver
    }
}

impl<P: PasidPolicy> Driver<P> {
    /// A function as it comes out of reset, with a policy of one's own.
    fn under(policy: P, host: &Host) -> Self {
        let lanes = (0..8)
            .map(|queue| host.accelerator.lane(queue).unwrap())
            .collect();
        let function = DsaFunction::new(policy, lanes, Shape::default()).unwrap();
        Self {
            function: Arc::new(function),
        }
    }

    /// Sets configuration space up, makes one group of everything, and enables the device. `queues` are configured, not
    /// enabled.
    fn set_up(&self, queues: &[QueueConfig]) {
        self.set_up_config_space();
        for (queue, config) in (0..).zip(queues) {
            self.configure(queue, config);
        }
        self.write(GROUPS, (1 << queues.len()) - 1);
        self.write(GROUPS + table::GRPCFG_ENGINES, 0b1111);
        assert_eq!(
            self.command(Command::ENABLE_DEVICE, 0),
            CommandError::SUCCESS
        );
    }

    fn extended(&self, id: u16, offset: u16) -> u16 {
        let mut at = 0x100;
        loop {
            let mut header = [0; 4];
            self.function.config_read(at, &mut header);
            let header = u32::from_le_bytes(header);
            if header & 0xffff == u32::from(id) {
                return at + offset;
            }
            at = u16::try_from(header >> 20).unwrap();
            assert_ne!(at, 0, "no such capability");
        }
    }

    /// Memory and bus master, PASID with privileged mode, ATS, PRI: as Linux turns them on.
    fn set_up_config_space(&self) {
        self.function.config_write(4, &0x0006_u16.to_le_bytes());
        self.set_pasid_capability(0b101);
        let ats = self.extended(extended_id::ATS, 6);
        self.function.config_write(ats, &0x8000_u16.to_le_bytes());
        let pri = self.extended(extended_id::PRI, 4);
        self.function.config_write(pri, &1_u16.to_le_bytes());
    }

    fn set_pasid_capability(&self, control: u16) {
        let pasid = self.extended(extended_id::PASID, 6);
        self.function.config_write(pasid, &control.to_le_bytes());
    }

    fn read(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.function
            .bar_read(Bar::Bar0, offset, &mut bytes)
            .unwrap();
        u32::from_le_bytes(bytes)
    }

    fn write(&self, offset: u64, value: u32) {
        self.function
            .bar_write(Bar::Bar0, offset, &value.to_le_bytes())
            .unwrap();
    }

    fn configure(&self, queue: u64, config: &QueueConfig) {
        for (offset, word) in (QUEUES + queue * 32..).step_by(4).zip(config.words()) {
            self.write(offset, word);
        }
    }

    fn command_now(&self, command: Command) -> CommandStatus {
        self.write(register::CMD, command.into_bits());
        CommandStatus::from_bits(self.read(register::CMDSTS))
    }

    fn command(&self, code: CommandCode, operand: u32) -> CommandError {
        let status = self.command_now(Command::of(code).with_operand(operand));
        assert!(!status.active());
        status.error()
    }

    fn enable(&self, queue: u32) {
        assert_eq!(
            self.command(Command::ENABLE_QUEUE, queue),
            CommandError::SUCCESS
        );
    }

    fn submit(&self, queue: u8, descriptor: &Descriptor) {
        let bytes = zerocopy::IntoBytes::as_bytes(descriptor);
        let at = portal_offset(queue, Portal::Limited);
        self.function.bar_write(Bar::Bar2, at, bytes).unwrap();
    }

    /// The error register, acknowledged.
    fn error(&self) -> Option<SoftwareError> {
        let half = |at| u64::from(self.read(at)) | (u64::from(self.read(at + 4)) << 32);
        let error = [0, 8, 16, 24].map(|offset| half(register::SWERR + offset));
        self.write(register::SWERR, 0b11);
        SoftwareError::decode(error)
    }

    fn line(&self, vector: u16) -> Arc<Line> {
        let line = Arc::new(Line::default());
        self.function
            .set_vector(vector, Some(Arc::clone(&line) as Arc<dyn Interrupt>));
        line
    }
}
