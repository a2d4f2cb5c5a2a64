use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade_iommu::Privilege;
use palisade_units::{GuestPasid, PasidOutOfRange};

use super::portal::{Open, Shared};
use super::read_buffers::check_read_buffers;
use super::shape::{MAX_BATCH_SHIFT, MAX_TRANSFER_SHIFT};
use super::state::{After, Completion, QueueWords, Running, State, UseOf, Work};
use super::{DsaFunction, EntryPoint, PasidPolicy, Shape};
use crate::lock::locked;
use crate::session::Rules;
use crate::spec::{
    Command, CommandError, CommandStatus, DeviceState, ErrorCode, GeneralConfig, QueueConfig,
    SoftwareError,
};
use crate::{Client, Identity, PasidUse, Session, Settled, Switch};

/// How long a command may hold up the write that gave it, while engines work off what was queued. What
/// takes longer goes on beside, as all that waits for page responses does. Less than what VMMs allow a
/// message to take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a command went.
enum Outcome {
    Done,
    /// The work is to be waited for first.
    Drain(Work, After),
}

impl<P: PasidPolicy> DsaFunction<P> {
    /// Runs a command. While another one is active only a reset of the device is taken.
    pub(super) fn command(&self, state: &mut State, command: Command) {
        self.reap(state);
        let reset = command.code() == Command::RESET_DEVICE;
        if state.running.is_some() && !reset {
            let error = SoftwareError::of_device(ErrorCode::COMMAND_ACTIVE);
            self.events.software_error(error);
            return;
        }
        let interrupt = if command.interrupt() {
            Switch::On
        } else {
            Switch::Off
        };
        match self.run(state, command) {
            Ok(Outcome::Drain(work, after)) => self.drain(state, work, after, interrupt),
            Ok(Outcome::Done) => self.complete(state, CommandError::SUCCESS, interrupt),
            Err(error) => self.complete(state, error, interrupt),
        }
    }

    /// Finishes a command that was waited for, when its work is done.
    pub(super) fn reap(&self, state: &mut State) {
        if let Some(running) = state
            .running
            .take_if(|running| running.completion.is_done())
        {
            self.after(state, running.after);
            state.status = CommandStatus::new();
        }
    }

    fn complete(&self, state: &mut State, error: CommandError, interrupt: Switch) {
        state.status = CommandStatus::new().with_error(error);
        if interrupt.is_on() {
            self.events.command_done();
        }
    }

    fn run(&self, state: &mut State, command: Command) -> Result<Outcome, CommandError> {
        if state.device == DeviceState::Halted {
            // GENSTS says what would help.
            return Err(CommandError::HARDWARE);
        }
        let enabled = state.device == DeviceState::Enabled;
        let all = enabled_queues(state);
        let needs_device = if enabled {
            Ok(())
        } else {
            Err(CommandError::QUEUES_OF_DISABLED)
        };
        match command.code() {
            Command::ENABLE_DEVICE => self.enable_device(state)?,
            Command::DISABLE_DEVICE if !enabled => return Err(CommandError::DISABLE_DISABLED),
            Command::DISABLE_DEVICE => return Ok(self.close(all, After::DisableDevice)),
            Command::DRAIN_ALL => {
                needs_device?;
                return Ok(drain_queues(all, After::Nothing));
            }
            Command::ABORT_ALL => {
                needs_device?;
                self.abort(all);
            }
            Command::RESET_DEVICE => self.reset_device(state),
            Command::ENABLE_QUEUE => self.enable_queue(state, command.operand())?,
            code @ (Command::DISABLE_QUEUES
            | Command::DRAIN_QUEUES
            | Command::ABORT_QUEUES
            | Command::RESET_QUEUES) => {
                needs_device?;
                let named = named_queues(state, command)?;
                let queues = named & all;
                match code {
                    Command::DISABLE_QUEUES => {
                        return Ok(self.close(queues, After::DisableQueues(queues)));
                    }
                    Command::DRAIN_QUEUES => return Ok(drain_queues(queues, After::Nothing)),
                    Command::ABORT_QUEUES => self.abort(queues),
                    _ => self.reset_queues(state, named),
                }
            }
            Command::DRAIN_PASID => {
                let work = self.work_of(state, command.operand())?;
                return Ok(Outcome::Drain(work, After::Nothing));
            }
            Command::ABORT_PASID => {
                let work = self.work_of(state, command.operand())?;
                self.abort_work(&work);
            }
            _ => return Err(CommandError::INVALID_COMMAND),
        }
        Ok(Outcome::Done)
    }

    fn enable_device(&self, state: &mut State) -> Result<(), CommandError> {
        if state.device != DeviceState::Disabled {
            return Err(CommandError::DEVICE_ENABLED);
        }
        if !locked(&self.config).bus_master() {
            return Err(CommandError::BUS_MASTER_OFF);
        }
        check_configuration(&state.layout().shape, &state.queues, &state.groups)?;
        let general = GeneralConfig::from_bits(state.general_config);
        check_read_buffers(general, &state.groups)?;
        state.device = DeviceState::Enabled;
        Ok(())
    }

    fn enable_queue(&self, state: &mut State, index: u32) -> Result<(), CommandError> {
        if state.device != DeviceState::Enabled {
            return Err(CommandError::DEVICE_DISABLED);
        }
        let number = u8::try_from(index).map_err(|_| CommandError::INVALID_QUEUE)?;
        let place = usize::from(number);
        let (Some(words), Some(lane), Some(port)) = (
            state.queues.get(place),
            self.lanes.get(place),
            self.ports.get(place),
        ) else {
            return Err(CommandError::INVALID_QUEUE);
        };
        if words.enabled {
            return Err(CommandError::QUEUE_ENABLED);
        }
        let config = words.config();
        self.check_queue(state, &config)?;
        let privileged = self.pasid_capability().privileged;
        let rules = rules(number, &config, privileged);
        let mut tag = None;
        if config.mode.dedicated() {
            let name = name_of(&config).map_err(|_| CommandError::PASID_INVALID)?;
            let identity = self
                .resolve(name, EntryPoint::QueueConfig)
                .map_err(|_| CommandError::PASID_INVALID)?;
            tag = identity.tag;
            lane.open(Some(self.session(identity, name, &config, rules)));
            locked(port).open(Open::Dedicated {
                size: config.size,
                name,
            });
        } else {
            lane.open(None);
            let uses = std::collections::HashMap::new();
            let threshold = config.threshold;
            locked(port).open(Open::Shared(Shared {
                rules,
                threshold,
                uses,
            }));
        }
        if let Some(words) = state.queues.get_mut(place) {
            words.enabled = true;
            words.privileged = privileged;
            words.tag = tag;
        }
        Ok(())
    }

    /// The session of a dedicated queue.
    pub(super) fn session(
        &self,
        identity: Identity,
        name: Option<GuestPasid>,
        config: &QueueConfig,
        rules: Rules,
    ) -> Arc<Session> {
        let privileged = config.mode.privileged() && config.mode.pasid_enable();
        let privilege = if privileged {
            Privilege::Privileged
        } else {
            Privilege::User
        };
        let client = Arc::clone(&self.events) as Arc<dyn Client>;
        Arc::new(Session::new(identity, privilege, name, rules, client))
    }

    fn check_queue(&self, state: &State, config: &QueueConfig) -> Result<(), CommandError> {
        check_queue(&state.layout().shape, config)?;
        let mode = config.mode;
        let capability = self.pasid_capability();
        if (mode.pasid_enable() && !capability.enabled.is_on())
            || (mode.pasid_enable() && mode.privileged() && !capability.privileged.is_on())
        {
            return Err(CommandError::PASID_ENABLE);
        }
        Ok(())
    }

    /// Takes no more descriptors, then waits for those that are there.
    fn close(&self, queues: u64, after: After) -> Outcome {
        for index in bits(queues) {
            self.shut(index);
        }
        drain_queues(queues, after)
    }

    fn shut(&self, index: usize) {
        if let (Some(port), Some(lane)) = (self.ports.get(index), self.lanes.get(index)) {
            let open = locked(port).open.take();
            lane.close();
            drop(open);
        }
    }

    fn drain(&self, state: &mut State, work: Work, after: After, interrupt: Switch) {
        let lanes = || bits(work.queues).filter_map(|index| self.lanes.get(index));
        // One patience for all: what one queue takes of it the next does not have.
        let begun = Instant::now();
        let is_idle = |settle: &dyn Fn(Duration) -> Settled| {
            settle(PATIENCE.saturating_sub(begun.elapsed())) == Settled::Idle
        };
        let mut idle = true;
        for lane in lanes() {
            idle &= is_idle(&|patience| lane.settle(patience));
        }
        for one in &work.uses {
            idle &= is_idle(&|patience| one.used.settle(patience));
        }
        if idle {
            self.after(state, after);
            self.complete(state, CommandError::SUCCESS, interrupt);
            return;
        }
        self.drain_beside(state, work, after, interrupt);
    }

    /// Waits for work while the driver goes on. CMDSTS stays active until it is done.
    pub(super) fn drain_beside(
        &self,
        state: &mut State,
        work: Work,
        after: After,
        interrupt: Switch,
    ) {
        let lanes = || bits(work.queues).filter_map(|index| self.lanes.get(index));
        let parts = lanes().count() + work.uses.len();
        if parts == 0 {
            // A restored command may find nothing that is left of its work, and then nothing would end it.
            self.after(state, after);
            self.complete(state, CommandError::SUCCESS, interrupt);
            return;
        }
        // At most 64 queues, each shared or not.
        let parts = u8::try_from(parts).unwrap_or(u8::MAX);
        let completion = Arc::new(Completion::new(parts, interrupt, Arc::clone(&self.events)));
        state.status = CommandStatus::new().with_active(true);
        for lane in lanes() {
            let completion = Arc::clone(&completion);
            lane.when_idle(move || completion.part_done());
        }
        for one in &work.uses {
            let completion = Arc::clone(&completion);
            one.used.when_idle(move || completion.part_done());
        }
        state.running = Some(Running {
            after,
            work,
            completion,
        });
    }

    fn after(&self, state: &mut State, after: After) {
        match after {
            After::Nothing => {}
            After::DisableQueues(queues) => self.disable(state, queues),
            After::DisableDevice => {
                self.disable(state, enabled_queues(state));
                state.device = DeviceState::Disabled;
            }
        }
    }

    /// Queues whose work is done give their sessions back, and with them their holds.
    fn disable(&self, state: &mut State, queues: u64) {
        for index in bits(queues) {
            if let (Some(lane), Some(words)) = (self.lanes.get(index), state.queues.get_mut(index))
            {
                lane.forget();
                words.enabled = false;
                words.privileged = Switch::Off;
                words.tag = None;
            }
        }
    }

    fn abort(&self, queues: u64) {
        for lane in bits(queues).filter_map(|index| self.lanes.get(index)) {
            lane.abort();
        }
    }

    fn abort_work(&self, work: &Work) {
        self.abort(work.queues);
        for one in &work.uses {
            one.used.abort();
            if let Some(lane) = self.lanes.get(one.queue) {
                lane.drop_use(&one.used);
            }
        }
        for one in &work.uses {
            one.used.wait_until_idle();
        }
        for port in &self.ports {
            if let Some(Open::Shared(shared)) = &mut locked(port).open {
                let dropped =
                    |used: &Arc<PasidUse>| work.uses.iter().any(|one| Arc::ptr_eq(used, &one.used));
                shared.uses.retain(|_, used| !dropped(used));
            }
        }
    }

    /// Closes all queues and drops their work; what is configured stays.
    pub(super) fn halt(&self, state: &mut State) {
        let queues = enabled_queues(state);
        for index in bits(queues) {
            self.shut(index);
        }
        self.abort(queues);
        self.disable(state, queues);
        if let Some(running) = state.running.take() {
            running.completion.cancel();
            state.status = CommandStatus::new().with_error(CommandError::HARDWARE);
        }
    }

    fn reset_queues(&self, state: &mut State, queues: u64) {
        for index in bits(queues) {
            self.shut(index);
        }
        self.abort(queues);
        self.disable(state, queues);
        for index in bits(queues) {
            if let Some(words) = state.queues.get_mut(index) {
                // The size is the device's to reset.
                *words = QueueWords {
                    words: [words.words[0], 0, 0, 0],
                    ..QueueWords::default()
                };
            }
        }
    }

    /// Drops all work and all configuration.
    pub(super) fn reset_device(&self, state: &mut State) {
        if let Some(running) = &state.running {
            running.completion.cancel();
        }
        self.reset_queues(state, u64::MAX);
        state.reset();
        self.events.reset();
    }

    /// The work of one PASID, wherever it is.
    fn work_of(&self, state: &State, operand: u32) -> Result<Work, CommandError> {
        let name = GuestPasid::new(operand).map_err(|_| CommandError::PASID_INVALID)?;
        let identity = self.resolve(Some(name), EntryPoint::CommandOperand);
        drop(identity.map_err(|_| CommandError::PASID_INVALID)?);
        let mut work = Work::default();
        for index in bits(enabled_queues(state)) {
            let Some(port) = self.ports.get(index) else {
                continue;
            };
            match &locked(port).open {
                Some(Open::Dedicated { name: own, .. }) if *own == Some(name) => {
                    work.queues |= 1 << index;
                }
                Some(Open::Shared(shared)) => {
                    let used = shared.uses.get(&name).cloned();
                    work.uses.extend(used.map(|used| UseOf {
                        queue: index,
                        name,
                        used,
                    }));
                }
                _ => {}
            }
        }
        Ok(work)
    }
}

/// The driver's PASID in a queue's configuration; `None` where it has PASIDs off.
pub(super) fn name_of(config: &QueueConfig) -> Result<Option<GuestPasid>, PasidOutOfRange> {
    let mode = config.mode;
    let name = mode.pasid_enable().then(|| GuestPasid::new(mode.pasid()));
    name.transpose()
}

/// What Enable Queue looks at of the queue itself.
pub(super) fn check_queue(shape: &Shape, config: &QueueConfig) -> Result<(), CommandError> {
    let QueueConfig {
        size,
        threshold,
        mode,
        limits,
    } = *config;
    if size == 0 {
        return Err(CommandError::QUEUE_SIZE);
    }
    if mode.priority() == 0 {
        return Err(CommandError::QUEUE_PRIORITY);
    }
    let offered = if mode.dedicated() {
        shape.dedicated
    } else {
        shape.shared
    };
    if !offered.is_on() || (!mode.dedicated() && (threshold == 0 || threshold > size)) {
        return Err(CommandError::QUEUE_MODE);
    }
    if !mode.dedicated() && !mode.pasid_enable() {
        return Err(CommandError::PASID_ENABLE);
    }
    if limits.max_batch_shift() > MAX_BATCH_SHIFT {
        return Err(CommandError::MAX_BATCH);
    }
    if limits.max_transfer_shift() > MAX_TRANSFER_SHIFT {
        return Err(CommandError::MAX_TRANSFER);
    }
    Ok(())
}

pub(super) fn bits(mask: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |index| mask & (1 << index) != 0)
}

fn drain_queues(queues: u64, after: After) -> Outcome {
    Outcome::Drain(
        Work {
            queues,
            uses: Vec::new(),
        },
        after,
    )
}

pub(super) fn enabled_queues(state: &State) -> u64 {
    let enabled = state
        .queues
        .iter()
        .enumerate()
        .filter(|(_, queue)| queue.enabled);
    enabled.fold(0, |mask, (index, _)| mask | (1 << index))
}

fn named_queues(state: &State, command: Command) -> Result<u64, CommandError> {
    command.queues().try_fold(0, |mask, queue| {
        if usize::from(queue) < state.queues.len() {
            Ok(mask | (1 << queue))
        } else {
            Err(CommandError::INVALID_QUEUE)
        }
    })
}

pub(super) fn rules(number: u8, config: &QueueConfig, privileged: Switch) -> Rules {
    let switch = |on| if on { Switch::On } else { Switch::Off };
    Rules {
        number,
        capacity: config.size,
        block_on_fault: switch(config.mode.block_on_fault()),
        ats: switch(!config.mode.ats_disable()),
        privileged,
        max_transfer_bytes: 1 << config.limits.max_transfer_shift(),
        max_batch: 1 << config.limits.max_batch_shift(),
    }
}

/// What Enable Device looks at.
pub(super) fn check_configuration(
    shape: &Shape,
    queue_words: &[QueueWords],
    groups: &[[u32; 16]],
) -> Result<(), CommandError> {
    let sizes = queue_words
        .iter()
        .map(|queue| u32::from(queue.config().size));
    if sizes.sum::<u32>() > u32::from(shape.total_size) {
        return Err(CommandError::QUEUE_SIZES);
    }
    let mask = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
    let (mut queues, mut engines) = (0, 0);
    for group in groups {
        let of_queues = mask(group[0], group[1]);
        let of_engines = mask(group[8], group[9]);
        if queues & of_queues != 0 {
            return Err(CommandError::GROUP_QUEUES);
        }
        if engines & of_engines != 0 {
            return Err(CommandError::GROUP_ENGINES);
        }
        if of_queues != 0 && of_engines == 0 {
            return Err(CommandError::GROUP_WITHOUT_ENGINE);
        }
        queues |= of_queues;
        engines |= of_engines;
    }
    let in_no_group = |(index, queue): (usize, &QueueWords)| {
        queue.config().size != 0 && queues & (1 << index) == 0
    };
    if queue_words.iter().enumerate().any(in_no_group) {
        return Err(CommandError::GROUP_QUEUES);
    }
    Ok(())
}
