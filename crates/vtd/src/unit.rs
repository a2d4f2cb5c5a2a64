//! The unit: its parts, its locks, and what a register write makes it do.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use palisade_ioasid::PasidRange;
use palisade_iommu::{Cached, Sink};
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, HostPasid};
use palisade_vfio::Container;

use crate::config_space::Presence;
use crate::migration::Pause;
use crate::queue::Budget;
use crate::registers::{Effect, Message, Registers, Switch, TranslationState};
use crate::sink::Asked;
use crate::spec::command::{
    Command, ContextCommand, Granularity, IotlbCommand, TranslationTableMode,
};
use crate::spec::descriptor::FunctionMask;
use crate::spec::virtual_command::{Layout, VirtualCommand, VirtualResponse};
use crate::sync::{CacheScope, Domains, Pending, TableScope, cached_with};

/// Which virtual command registers a unit shows (VT-d §11.4.16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VcmdLayout {
    /// None: guests choose their own PASIDs.
    #[default]
    Off,
    /// Those from revision 3.3 on: Linux 5.15 to 6.3.
    Current,
    /// Those before it: Linux 5.8 to 5.14.
    Older,
}

impl VcmdLayout {
    pub(crate) const fn layout(self) -> Option<Layout> {
        match self {
            Self::Off => None,
            Self::Current => Some(Layout::Current),
            Self::Older => Some(Layout::Older),
        }
    }
}

/// CM: whether software tells the unit of entries that were not present before (VT-d §6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachingMode {
    /// It does. Without virtual hardware nobody asks for this; guests that take their PASIDs from the host do
    /// so under it alone.
    #[default]
    On,
    /// It need not: the unit looks at the tables when a request finds nothing.
    Off,
}

/// How a unit is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitConfig {
    /// Whether guests take their PASIDs from the host.
    pub vcmd: VcmdLayout,
    /// Whether guests tell of new entries.
    pub caching_mode: CachingMode,
}

/// How a unit interrupts its guest.
pub trait MessageSignal: Send + Sync {
    /// Writes `data` to the guest-physical `address`, once. Called without any lock of the unit, from
    /// any thread; never blocks.
    fn send(&self, address: u64, data: u32);
}

/// A guest's remapping unit. Serve it with [`palisade_pci::Function`].
///
/// Locks, in the order in which they are taken: those of `pause`, by which accesses and reports are kept out; `work` serialises what register writes do, table walks
/// and container calls included; `registers` is held for moments and never while anything else is
/// called, so that faults and page requests of running engines never wait for the guest's commands.
pub struct Unit {
    pub(crate) container: Container,
    /// What the connection of the unit shares: where its tables and queues are.
    pub(crate) memory: GuestMemory,
    messages: Arc<dyn MessageSignal>,
    registers: Mutex<Registers>,
    work: Mutex<()>,
    /// The invalidation queue holds more than the last access could do.
    pub(crate) behind: AtomicBool,
    pub(crate) pause: Pause,
    pub(crate) presence: Presence,
    pub(crate) domains: Domains,
    pub(crate) asked: Asked,
    pub(crate) counts: Counts,
}

/// How often a guest caused what is worth a line in the log.
#[derive(Default)]
pub(crate) struct Counts {
    /// Entries that the container refused. Their requests fault.
    pub(crate) unbound: Count,
    /// Page group responses without a request.
    pub(crate) stray_responses: Count,
    /// Wait descriptors without a place for their status.
    pub(crate) lost_statuses: Count,
    /// Virtual commands that were refused.
    refused_commands: Count,
}

#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// One more. A guest can cause these at will, so only the 1st, 2nd, 4th, 8th, … are to be told.
    pub(crate) fn tick(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        count.is_power_of_two().then_some(count)
    }
}

impl Unit {
    /// The unit of a tenant, after reset; the container's faults and page requests come to it from now
    /// on. `memory` is that of the unit's own connection.
    #[must_use]
    pub fn new(
        config: UnitConfig,
        container: Container,
        memory: GuestMemory,
        messages: Arc<dyn MessageSignal>,
    ) -> Arc<Self> {
        let unit = Arc::new(Self {
            container,
            memory,
            messages,
            registers: Mutex::new(Registers::new(config)),
            work: Mutex::new(()),
            behind: AtomicBool::new(false),
            pause: Pause::default(),
            presence: Presence::new(),
            domains: Domains::default(),
            asked: Asked::default(),
            counts: Counts::default(),
        });
        let sink = Arc::clone(&unit) as Arc<dyn Sink>;
        unit.container.set_sink(sink);
        unit
    }

    /// The last address at which BAR 0 was decoded: where the firmware placed the registers.
    #[must_use]
    pub fn bar0_base(&self) -> Option<u64> {
        self.presence.bar0_base()
    }

    /// To be called when a function was attached to the container, or its PASID capability turned on,
    /// after the guest turned translation on: binds what the guest's tables say of it, which a unit that was restored
    /// does once it goes on.
    pub fn attached(&self, guest_bdf: Bdf) {
        let _work = self.work();
        if !self.pause.is_restored() {
            self.synchronise_function(guest_bdf);
        }
    }

    pub(crate) fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn work(&self) -> MutexGuard<'_, ()> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Unit::work`], if nobody has it.
    pub(crate) fn work_now(&self) -> Option<MutexGuard<'_, ()>> {
        match self.work.try_lock() {
            Ok(work) => Some(work),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Sends a message. No lock of the unit is held.
    pub(crate) fn send(&self, message: Option<Message>) {
        if let Some(Message { address, data }) = message {
            self.messages.send(address, data);
        }
    }

    /// Does what a write to the registers asked for.
    pub(crate) fn perform(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::GlobalCommand(command) => self.global_command(command),
                Effect::ContextCommand(command) => self.context_command(command),
                Effect::IotlbCommand(command) => self.iotlb_command(command),
                Effect::QueueMoved => self.advance_queue(),
                Effect::VirtualCommand(command) => self.virtual_command(command),
                Effect::Send(message) => self.send(Some(message)),
            }
        }
    }

    /// Goes on with the invalidation queue where an earlier access left off.
    pub(crate) fn catch_up(&self) {
        if self.behind.load(Ordering::Acquire) {
            self.advance_queue();
        }
    }

    fn advance_queue(&self) {
        let messages = {
            let _work = self.work();
            self.process_queue(&mut Budget::of_one_access())
        };
        for message in messages {
            self.send(Some(message));
        }
    }

    /// GCMD (VT-d §11.4.4.1).
    fn global_command(&self, command: Command) {
        {
            let _work = self.work();
            if command.contains(Command::SET_ROOT_TABLE) {
                self.set_root_table();
            }
            self.set_translation(switch(command, Command::TRANSLATION_ENABLE));
        }
        self.set_queued_invalidation(command);
    }

    /// CAP.ESRTPS is clear: while translation is on, what was found by the old root stays until software
    /// invalidates it. A change of mode is not for then (VT-d §11.4.5), and nothing of the old mode means
    /// anything in the new one, so that all of it goes.
    fn set_root_table(&self) {
        let is_of_another_mode = {
            let mut registers = self.registers();
            registers.set_status(Command::SET_ROOT_TABLE, Switch::Off);
            let old = registers.root();
            registers.set_root_table();
            old.mode() != registers.root().mode()
        };
        if is_of_another_mode {
            self.synchronise_all();
        }
        self.registers()
            .set_status(Command::SET_ROOT_TABLE, Switch::On);
    }

    fn set_translation(&self, wanted: Switch) {
        let state = self.registers().translation();
        match (state, wanted) {
            (TranslationState::Off, Switch::On) => {
                self.registers()
                    .set_status(Command::TRANSLATION_ENABLE, Switch::On);
                self.synchronise_all();
            }
            (TranslationState::On(_), Switch::Off) => {
                {
                    let mut registers = self.registers();
                    registers.set_status(Command::TRANSLATION_ENABLE, Switch::Off);
                    registers.restart_fault_records();
                }
                self.pass_everything();
            }
            _ => {}
        }
    }

    fn set_queued_invalidation(&self, command: Command) {
        let bit = Command::QUEUED_INVALIDATION_ENABLE;
        let wanted = switch(command, bit);
        let starts = {
            // Not while a queue is being processed, whose head would come back.
            let _work = self.work();
            let mut registers = self.registers();
            if wanted == Switch::Off {
                registers.set_queue_head(0);
            }
            let starts = wanted == Switch::On && !registers.status().contains(bit);
            registers.set_status(bit, wanted);
            starts
        };
        if starts {
            self.advance_queue();
        }
    }

    /// CCMD (VT-d §11.4.6.1). A domain is everything: an entry that was not present has domain 0 in caching
    /// mode, and may have another one since.
    fn context_command(&self, command: ContextCommand) {
        let _work = self.work();
        let (scope, actual) = match command.requested() {
            Granularity::Reserved => (None, Granularity::Reserved),
            Granularity::Global | Granularity::Domain => {
                (Some(TableScope::All), Granularity::Global)
            }
            Granularity::Selective => {
                let mask = FunctionMask::new(command.function_mask());
                let scope = TableScope::Functions(command.source(), mask);
                (Some(scope), Granularity::Selective)
            }
        };
        let actual = self.register_based(scope.map(Pending::of_tables), actual);
        self.registers()
            .complete_context(command.with_actual(actual));
    }

    /// IOTLB, with pages from IVA (VT-d §11.4.6.3, §11.4.6.4). What the unit cannot do, as pages under a mask
    /// beyond CAP.MAMV, is not done, and answered with the reserved granularity.
    fn iotlb_command(&self, command: IotlbCommand) {
        let _work = self.work();
        let domain = command.domain();
        let all = |scope| Some(Pending::of_caches(scope, Cached::InUnit));
        let (what, actual) = match command.requested() {
            Granularity::Reserved => (None, Granularity::Reserved),
            Granularity::Global => (all(CacheScope::All), Granularity::Global),
            Granularity::Domain => (all(CacheScope::Domain(domain)), Granularity::Domain),
            Granularity::Selective => {
                let address = self.registers().invalidate_address();
                let pages = |range| {
                    let scope = CacheScope::PagesOfDomain(domain, range);
                    Pending::of_caches(scope, cached_with(address.hint()))
                };
                (address.range().map(pages), Granularity::Selective)
            }
        };
        let actual = self.register_based(what, actual);
        self.registers().complete_iotlb(command.with_actual(actual));
    }

    /// Does what a register asks for, in legacy mode: scalable mode has it not. Says what was done.
    fn register_based(&self, what: Option<Pending>, done: Granularity) -> Granularity {
        let mode = self.registers().root().mode();
        match what {
            Some(what) if mode == TranslationTableMode::Legacy => {
                self.apply(what, &mut Budget::endless());
                done
            }
            _ => Granularity::Reserved,
        }
    }

    /// VCMD (VT-d §11.4.16). The response is pending, so no second one can start.
    fn virtual_command(&self, command: VirtualCommand) {
        let response = match command {
            VirtualCommand::Null => VirtualResponse::Done,
            VirtualCommand::AllocatePasid => match self.container.alloc_pasid(PasidRange::ALL) {
                Ok(pasid) => VirtualResponse::Pasid(pasid),
                Err(error) => {
                    if let Some(count) = self.counts.refused_commands.tick() {
                        tracing::debug!(%error, count, "a guest gets no PASID");
                    }
                    VirtualResponse::NoPasid
                }
            },
            // What the guest was given is the host's number.
            VirtualCommand::FreePasid(pasid) => {
                let freed = HostPasid::new(pasid.get())
                    .ok()
                    .map(|pasid| self.container.free_pasid(pasid));
                match freed {
                    Some(Ok(())) => VirtualResponse::Done,
                    _ => VirtualResponse::InvalidPasid,
                }
            }
            VirtualCommand::Undefined(_) => VirtualResponse::UndefinedCommand,
        };
        self.registers().respond(response);
    }

    /// Everything as after power-on: registers, bindings, PASIDs.
    pub(crate) fn start_over(&self) {
        let _work = self.work();
        self.registers().reset();
        self.container.close();
        self.domains.clear();
        // What engines reported until the container was closed.
        self.registers().reset();
        self.behind.store(false, Ordering::Release);
        self.asked.restart(BTreeSet::new());
        self.presence.reset();
    }
}

fn switch(command: Command, bit: Command) -> Switch {
    if command.contains(bit) {
        Switch::On
    } else {
        Switch::Off
    }
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unit of {:?}", self.container)
    }
}

#[cfg(test)]
mod boot;
#[cfg(test)]
mod caching_mode;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod virtual_commands;
