//! A function that is stopped, and goes on there or on another host (R74).

mod commands;
mod golden;
mod hostile;
mod property;
mod racing;
mod stale;
mod stopped;
mod work;

use std::collections::BTreeSet;
use std::sync::Mutex;

use palisade_iommu::{FunctionHandle, PageResponse, PasidEnable};
use palisade_pci::{Function, Migration};
use palisade_units::{GuestPasid, PasidTag};
use zerocopy::FromBytes;

use super::*;
use crate::function::{EntryPoint, PasidRefused};
use crate::lock::locked;
use crate::spec::{CompletionRecord, Flags, Status};
use crate::testing::{run, tag};
use crate::{Engine, Identity};

const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
const RECORD: u64 = 0x8_0000;
/// What a host's requests carry for PASIDs that were freed.
const NOBODYS: u32 = 0xf_0000;
const BLOCK: Flags = Flags::BLOCK_ON_FAULT;

/// A policy under which requests carry the driver's PASID, moved by a number of this host.
struct Renamed {
    function: FunctionHandle,
    by: u32,
    /// What is refused, by the driver's number.
    refused: Mutex<BTreeSet<u32>>,
    /// What was asked for, or programmed.
    heard: Mutex<Vec<Heard>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Resolved(Option<u32>, EntryPoint),
    Stale(u32, EntryPoint),
    Pasids(PasidEnable),
    Forget,
}

impl PasidPolicy for Renamed {
    fn resolve(&self, pasid: Option<GuestPasid>, at: EntryPoint) -> Result<Identity, PasidRefused> {
        let number = pasid.map(GuestPasid::get);
        locked(&self.heard).push(Heard::Resolved(number, at));
        if number.is_some_and(|number| locked(&self.refused).contains(&number)) {
            return Err(PasidRefused);
        }
        Ok(Identity {
            tag: number.map(|number| tag(number + self.by)),
            hold: None,
        })
    }

    fn meaning_now(&self, pasid: GuestPasid) -> Option<PasidTag> {
        let number = pasid.get();
        let refused = locked(&self.refused).contains(&number);
        (!refused).then(|| tag(number + self.by))
    }

    fn resolve_stale(&self, pasid: GuestPasid, at: EntryPoint) -> Result<Identity, PasidRefused> {
        locked(&self.heard).push(Heard::Stale(pasid.get(), at));
        Ok(Identity {
            tag: Some(tag(NOBODYS)),
            hold: None,
        })
    }

    fn set_pasid_enabled(&self, enable: PasidEnable) {
        locked(&self.heard).push(Heard::Pasids(enable));
        self.function.set_pasid_enabled(enable);
    }

    fn forget_translations(&self) {
        locked(&self.heard).push(Heard::Forget);
    }
}

/// A host with the function of a driver who is not told when it moves.
struct Machine {
    host: Host,
    by: u32,
    driver: Driver<Renamed>,
}

impl Machine {
    fn new(by: u32) -> Self {
        Self::on(Host::new(), by)
    }

    fn on(host: Host, by: u32) -> Self {
        let policy = Renamed {
            function: host.function.clone(),
            by,
            refused: Mutex::default(),
            heard: Mutex::default(),
        };
        let driver = Driver::under(policy, &host);
        Self { host, by, driver }
    }

    /// A machine whose device is enabled with these queues, all enabled.
    fn with(by: u32, queues: &[QueueConfig]) -> Self {
        let machine = Self::new(by);
        machine.driver.set_up(queues);
        for (queue, _) in (0..).zip(queues) {
            machine.driver.enable(queue);
        }
        machine
    }

    /// Another host with the same memory, other names and a function as it comes out of reset.
    fn other(&self, by: u32) -> Self {
        Self::on(self.host.beside(), by)
    }

    /// A process of the driver's PASID, with its record page and a page to read from. Says where its table is.
    fn process(&self, number: u32) -> u64 {
        let process = self.host.process(number + self.by);
        process.map(RECORD, RECORD, 1);
        process.map(FROM, FROM, 4);
        process.root
    }

    /// Binds the process as the unit does that was restored.
    fn bind(&self, number: u32, root: u64) {
        let _ = self.host.process_of(number + self.by, root);
    }

    /// Maps a page that a process misses.
    fn map(&self, root: u64, va: u64) {
        // The table is the process's, whoever has bound it.
        let process = crate::testing::Process {
            host: &self.host,
            root,
        };
        process.map(va, va, 1);
    }

    fn migration(&self) -> &dyn Migration {
        self.driver.function.migration().unwrap()
    }

    fn stop_and_save(&self) -> Vec<u8> {
        self.migration().stop();
        let bytes = self.migration().save().unwrap();
        assert!(bytes.len() <= self.migration().max_state_len_bytes());
        bytes
    }

    /// Moves the function to another host, where these processes are bound, and lets it go on.
    fn moved(&self, by: u32, processes: &[(u32, u64)]) -> Self {
        let other = self.other(by);
        other.take_over(&self.stop_and_save());
        for (number, root) in processes {
            other.bind(*number, *root);
        }
        other.migration().start().unwrap();
        other
    }

    fn take_over(&self, bytes: &[u8]) {
        self.migration().stop();
        self.migration().restore(bytes).unwrap();
        let again = self.migration().save().unwrap();
        assert!(again == bytes, "what was restored is what was saved");
    }

    fn engine(&self) -> Engine {
        self.host.engine()
    }

    fn run(&self) {
        run(&mut self.engine());
    }

    /// The record at a place of the record page, cleared for the next.
    fn record(&self, index: u64) -> CompletionRecord {
        let bytes = self.host.bytes(RECORD + index * 32, 32);
        self.host.write(RECORD + index * 32, &[0; 32]);
        CompletionRecord::read_from_bytes(&bytes).unwrap()
    }

    fn status(&self, index: u64) -> Status {
        self.record(index).status()
    }

    fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut locked(&self.driver.function.policy().heard))
    }

    fn refuse(&self, numbers: &[u32]) {
        *locked(&self.driver.function.policy().refused) = numbers.iter().copied().collect();
    }
}

/// A copy with a record of its own.
fn copy(index: u64) -> Descriptor {
    Descriptor::memory_move(FROM, FROM + 0x2000 + index * 64, 64).with_record(RECORD + index * 32)
}

/// A copy to a page that is not there.
fn blocking(index: u64) -> Descriptor {
    Descriptor::memory_move(FROM, TO, 64)
        .with_flags(BLOCK)
        .with_record(RECORD + index * 32)
}

fn command_status<P: PasidPolicy>(driver: &Driver<P>) -> CommandStatus {
    CommandStatus::from_bits(driver.read(register::CMDSTS))
}
