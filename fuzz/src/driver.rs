//! A driver that brings a function of the accelerator up, so that inputs need not find out how.

use std::sync::Arc;

use palisade_dsa::spec::{Command, QueueConfig, QueueLimits, QueueMode, register};
use palisade_mdev::{Assigned, SliceType};
use palisade_pci::{Bar, Function};

/// PCIe: the identities of the extended capabilities for PASIDs and page requests, and their control words.
const CONTROLS: [(u16, u16); 2] = [(0x1b, 6), (0x13, 4)];
const QUEUES: u64 = 0x800;
const GROUPS: u64 = 0x400;

pub(crate) struct Driver {
    function: Arc<dyn Function>,
}

impl Driver {
    pub(crate) fn new(assigned: &Assigned) -> Self {
        let function = assigned.function();
        Self { function }
    }

    /// Lets the function access memory, by PASIDs, and ask for pages.
    pub(crate) fn turn_on(&self) {
        self.function.config_write(4, &6_u16.to_le_bytes());
        for (id, offset) in CONTROLS {
            self.control(id, offset);
        }
    }

    /// Enables the device and its first queue, of this kind, with PASID 1 if it is dedicated.
    pub(crate) fn bring_up(&self, queue: SliceType) {
        let dedicated = queue == SliceType::DedicatedQueue;
        let mode = QueueMode::new()
            .with_dedicated(dedicated)
            .with_block_on_fault(true)
            .with_priority(1)
            .with_pasid(u32::from(dedicated))
            .with_pasid_enable(true);
        let limits = QueueLimits::new()
            .with_max_transfer_shift(31)
            .with_max_batch_shift(10);
        let config = QueueConfig {
            size: 64,
            threshold: 64,
            mode,
            limits,
        };
        for (at, word) in (QUEUES..).step_by(4).zip(config.words()) {
            self.write(at, word);
        }
        self.write(GROUPS, 1);
        self.write(GROUPS + 32, 1);
        for command in [Command::ENABLE_DEVICE, Command::ENABLE_QUEUE] {
            self.write(register::CMD, Command::of(command).into_bits());
        }
    }

    fn control(&self, id: u16, offset: u16) {
        let mut at = 0x100;
        while at >= 0x100 {
            let mut header = [0; 4];
            self.function.config_read(at, &mut header);
            let header = u32::from_le_bytes(header);
            if header & 0xffff == u32::from(id) {
                let on = 1_u16.to_le_bytes();
                self.function.config_write(at + offset, &on);
            }
            at = u16::try_from(header >> 20).unwrap_or(0);
        }
    }

    fn write(&self, at: u64, word: u32) {
        let written = self.function.bar_write(Bar::Bar0, at, &word.to_le_bytes());
        written.expect("a register");
    }
}
