use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use palisade_units::{GuestPasid, PasidTag};

use super::events::Events;
use super::map::{AccessClass, Place, Table};
use super::saved::{Held, RunningState};
use super::shape::Layout;
use super::stale::Stale;
use crate::spec::{
    CommandStatus, DeviceState, GeneralStatus, QueueConfig, QueueLimits, QueueMode, QueueState,
    ResetType, register,
};
use crate::task::LaneWork;
use crate::{PasidUse, Switch};

/// The registers that only the driver's accesses change, commands among them.
pub(super) struct State {
    layout: Layout,
    capabilities: [u32; 32],
    command_capability: u32,
    pub(super) general_config: u32,
    pub(super) device: DeviceState,
    pub(super) status: CommandStatus,
    pub(super) queues: Vec<QueueWords>,
    pub(super) groups: Vec<[u32; 16]>,
    pub(super) vectors: Vec<[u32; 4]>,
    pub(super) running: Option<Running>,
    /// What the driver wrote since the function was stopped, to be done when it goes on; `None` while it runs.
    pub(super) held: Option<Vec<Held>>,
    /// What a restored function has to do once it goes on.
    pub(super) waiting: Option<Waiting>,
}

/// The work of a restored function, which no lane has yet.
pub(super) struct Waiting {
    /// By queue.
    pub(super) work: Vec<LaneWork>,
    pub(super) running: Option<RunningState>,
    /// The PASIDs that meant nothing any more where it was saved.
    pub(super) stale: BTreeSet<Stale>,
}

/// The configuration of a queue.
#[derive(Clone, Copy)]
pub(super) struct QueueWords {
    pub(super) words: [u32; 4],
    pub(super) enabled: bool,
    /// Whether descriptors may be privileged: what configuration space said when the queue was enabled.
    pub(super) privileged: Switch,
    /// What the requests of an enabled dedicated queue carry. Its session holds it.
    pub(super) tag: Option<PasidTag>,
}

impl Default for QueueWords {
    fn default() -> Self {
        Self {
            words: [0; 4],
            enabled: false,
            privileged: Switch::Off,
            tag: None,
        }
    }
}

impl QueueWords {
    pub(super) fn config(&self) -> QueueConfig {
        let [size, threshold, mode, limits] = self.words;
        // The masks of the map leave 16 bits of the first two.
        let low = |word: u32| u16::try_from(word & 0xffff).unwrap_or(0);
        QueueConfig {
            size: low(size),
            threshold: low(threshold),
            mode: QueueMode::from_bits(mode),
            limits: QueueLimits::from_bits(limits),
        }
    }
}

/// A command that waits for page responses.
pub(super) struct Running {
    pub(super) after: After,
    pub(super) work: Work,
    pub(super) completion: Arc<Completion>,
}

/// What a drain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    /// Disable the queues of the mask.
    DisableQueues(u64),
    DisableDevice,
}

impl After {
    /// Which of the enabled queues are about to be disabled: they take no more descriptors.
    pub(super) const fn closing(self, enabled: u64) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::DisableQueues(queues) => queues & enabled,
            Self::DisableDevice => enabled,
        }
    }
}

/// Counts down the parts of a command that are still to be done.
pub(super) struct Completion {
    left: AtomicU8,
    done: AtomicBool,
    cancelled: AtomicBool,
    interrupt: Switch,
    events: Arc<Events>,
}

impl Completion {
    pub(super) fn new(parts: u8, interrupt: Switch, events: Arc<Events>) -> Self {
        Self {
            left: AtomicU8::new(parts),
            done: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            interrupt,
            events,
        }
    }

    /// One part is done. With the last, the command is: the driver is told once it can see that.
    pub(super) fn part_done(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        self.done.store(true, Ordering::Release);
        if self.interrupt.is_on() && !self.cancelled.load(Ordering::Acquire) {
            self.events.command_done();
        }
    }

    /// Whether the driver asked for an interrupt.
    pub(super) const fn interrupt(&self) -> Switch {
        self.interrupt
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

/// Work to be waited for.
#[derive(Default)]
pub(super) struct Work {
    /// A bit for each queue.
    pub(super) queues: u64,
    /// Single PASIDs on shared queues.
    pub(super) uses: Vec<UseOf>,
}

/// A PASID's use of a shared queue.
pub(super) struct UseOf {
    pub(super) queue: usize,
    pub(super) name: GuestPasid,
    pub(super) used: Arc<PasidUse>,
}

impl State {
    pub(super) fn new(layout: Layout) -> Self {
        Self {
            layout,
            capabilities: layout.capability_words(),
            command_capability: super::shape::command_capability(),
            general_config: 0,
            device: DeviceState::Disabled,
            status: CommandStatus::new(),
            queues: vec![QueueWords::default(); layout.queues.into()],
            groups: vec![[0; 16]; layout.shape.groups.into()],
            vectors: vec![[0, 0, 0, 1]; layout.vectors().into()],
            running: None,
            held: None,
            waiting: None,
        }
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Clears the configuration, as a reset of the device does. MSI-X is not part of it.
    pub(super) fn reset(&mut self) {
        self.general_config = 0;
        self.device = DeviceState::Disabled;
        self.status = CommandStatus::new();
        self.queues.fill(QueueWords::default());
        self.groups.fill([0; 16]);
        if let Some(running) = self.running.take() {
            running.completion.cancel();
        }
        self.waiting = None;
        if let Some(held) = &mut self.held {
            held.clear();
        }
    }

    /// Clears what a function-level reset clears besides.
    pub(super) fn reset_vectors(&mut self) {
        self.vectors.fill([0, 0, 0, 1]);
    }

    /// The word at an offset, a multiple of 4; 0 where nothing stands.
    pub(super) fn read(&self, offset: u64, events: &Events) -> u32 {
        match self.layout.locate(offset) {
            None | Some((_, AccessClass::Reserved)) => 0,
            Some((Place::Register(at), _)) => self.read_register(at, events),
            Some((Place::Entry { table, index, word }, _)) => {
                self.read_entry(table, index, word, events)
            }
        }
    }

    fn read_register(&self, at: u64, events: &Events) -> u32 {
        let word = usize::try_from(at / 4).unwrap_or(usize::MAX);
        if let Some(capability) = self.capabilities.get(word) {
            return *capability;
        }
        match at {
            register::GENCFG => self.general_config,
            register::GENCTRL => events.control(),
            register::GENSTS => self.general_status().into_bits(),
            register::INTCAUSE => events.cause(),
            register::CMDSTS => self.status.into_bits(),
            register::CMDCAP => self.command_capability,
            register::SWERR.. => {
                events.error_word(usize::try_from((at - register::SWERR) / 4).unwrap_or(0))
            }
            _ => 0,
        }
    }

    fn general_status(&self) -> GeneralStatus {
        let status = GeneralStatus::new().with_state(self.device);
        match self.device {
            DeviceState::Halted => status.with_reset_type(ResetType::Function),
            _ => status,
        }
    }

    fn read_entry(&self, table: Table, index: usize, word: usize, events: &Events) -> u32 {
        let of = |words: Option<&[u32]>| words.and_then(|words| words.get(word)).copied();
        let value = match table {
            Table::Queues if word == 6 => {
                let enabled = self.queues.get(index).is_some_and(|queue| queue.enabled);
                Some(QueueState::new().with_enabled(enabled).into_bits())
            }
            Table::Queues => of(self.queues.get(index).map(|queue| &queue.words[..])),
            Table::Groups => of(self.groups.get(index).map(|group| &group[..])),
            Table::Vectors => of(self.vectors.get(index).map(|vector| &vector[..])),
            Table::Permissions if word == 0 => Some(events.permission(index)),
            Table::Permissions => None,
        };
        value.unwrap_or(0)
    }

    /// Writes a word of the driver's configuration, as far as its class allows.
    pub(super) fn configure(&mut self, place: Place, class: AccessClass, value: u32) {
        let device_enabled = self.device != DeviceState::Disabled;
        let queue_enabled = match place {
            Place::Entry {
                table: Table::Queues,
                index,
                ..
            } => self.queues.get(index).is_some_and(|queue| queue.enabled),
            _ => false,
        };
        let mask = match class {
            AccessClass::ReadWrite(mask) => mask,
            AccessClass::LockedByDevice(mask) if !device_enabled => mask,
            AccessClass::LockedByQueue(mask) if !queue_enabled => mask,
            _ => return,
        };
        if let Some(word) = self.configurable(place) {
            *word = value & mask;
        }
    }

    fn configurable(&mut self, place: Place) -> Option<&mut u32> {
        match place {
            Place::Register(register::GENCFG) => Some(&mut self.general_config),
            Place::Register(_) => None,
            Place::Entry { table, index, word } => match table {
                Table::Queues => self.queues.get_mut(index)?.words.get_mut(word),
                Table::Groups => self.groups.get_mut(index)?.get_mut(word),
                Table::Vectors => self.vectors.get_mut(index)?.get_mut(word),
                Table::Permissions => None,
            },
        }
    }
}
