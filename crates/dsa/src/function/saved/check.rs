//! What no driver can have programmed and no engine can have come to.

use std::sync::Arc;

use palisade_iommu::{Ats, Privilege};
use palisade_units::GuestPasid;

use super::{FunctionState, Held, QueueState, RunningState};
use crate::check::{Origin, check};
use crate::function::command::{check_configuration, check_queue, name_of, rules};
use crate::function::map::{AccessClass, TABLES, Table};
use crate::function::portal::SLOTS;
use crate::function::read_buffers::check_read_buffers;
use crate::function::shape::Layout;
use crate::function::stale::Stale;
use crate::function::state::{After, QueueWords};
use crate::session::Rules;
use crate::spec::{
    CommandStatus, Descriptor, DeviceState, Flags, GeneralConfig, GeneralControl, InterruptCause,
    InterruptPermission, Opcode, QueueMode, REGISTERS_BYTES, SoftwareError, register,
};
use crate::task::{Batch, BegunTask, Stage};
use crate::{Client, Identity, PasidUse, Session, Switch};

type Checked = Result<(), &'static str>;

fn require(holds: bool, otherwise: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl FunctionState {
    /// Everything but configuration space, which that checks itself.
    pub(super) fn check(&self, layout: &Layout) -> Checked {
        self.check_registers(layout)?;
        self.check_tables(layout)?;
        let device = device(self.registers.device).ok_or("the device's state is not known")?;
        let enabled = self.enabled();
        require(
            enabled == 0 || device == DeviceState::Enabled,
            "queues of a device that is not enabled are",
        )?;
        let words: Vec<QueueWords> = self.queues.iter().map(QueueState::queue_words).collect();
        if device != DeviceState::Disabled {
            let general = GeneralConfig::from_bits(self.registers.general_config);
            check_configuration(&layout.shape, &words, &self.groups)
                .and_then(|()| check_read_buffers(general, &self.groups))
                .map_err(|_| "the device cannot be enabled with this configuration")?;
        }
        for (number, (queue, words)) in (0..).zip(self.queues.iter().zip(&words)) {
            queue.check(number, words, layout)?;
        }
        let active = CommandStatus::from_bits(self.registers.command_status).active();
        require(
            active == self.running.is_some(),
            "CMDSTS does not say whether a command is active",
        )?;
        if let Some(running) = &self.running {
            running.check(enabled, &words)?;
        }
        self.check_stale(&words)?;
        for (queue, piece) in &self.pieces {
            let there = piece.present != 0 && piece.present != u64::MAX;
            let in_place = *queue < layout.queues && usize::from(piece.slot) < SLOTS;
            require(there && in_place, "a part of a descriptor is nowhere")?;
        }
        for held in &self.held {
            let is_a_place = match held {
                Held::Word { offset, .. } => offset.is_multiple_of(4) && *offset < REGISTERS_BYTES,
                Held::Descriptor(target, _) => target.queue < layout.queues,
            };
            require(is_a_place, "a write was to nowhere")?;
        }
        Ok(())
    }

    /// A PASID can only be left where one was.
    fn check_stale(&self, words: &[QueueWords]) -> Checked {
        let is_left = |stale: &Stale| match *stale {
            Stale::Permission { vector } => {
                let entry = self.permissions.get(usize::from(vector));
                entry.is_some_and(|bits| InterruptPermission::from_bits(*bits).pasid_enable())
            }
            Stale::Queue { number, name } => {
                let index = usize::from(number);
                let queue = words.get(index).zip(self.queues.get(index));
                queue.is_some_and(|(words, queue)| {
                    let config = words.config();
                    let in_config = config.mode.dedicated() && name_of(&config) == Ok(Some(name));
                    let in_work = || queue.names_in_work().any(|one| one == name);
                    words.enabled && (in_config || (!config.mode.dedicated() && in_work()))
                })
            }
        };
        require(
            self.stale.iter().all(is_left),
            "a PASID was left where there is none",
        )
    }

    /// The queues that are enabled.
    fn enabled(&self) -> u64 {
        let enabled = (0..64).zip(&self.queues).filter(|(_, queue)| queue.enabled);
        enabled.fold(0, |mask, (index, _)| mask | (1 << index))
    }

    fn check_registers(&self, layout: &Layout) -> Checked {
        let registers = &self.registers;
        let written = |offset| {
            let place = layout.locate(offset);
            place.map_or(0, |(_, class)| AccessClass::written(class))
        };
        let causes = InterruptCause::new()
            .with_software_error(true)
            .with_command(true)
            .with_halted(true)
            .into_bits();
        let status = CommandStatus::from_bits(registers.command_status);
        let shown = CommandStatus::new()
            .with_error(status.error())
            .with_active(status.active());
        let control = GeneralControl::from_bits(registers.general_control).into_bits();
        let fits = registers.general_config & !written(register::GENCFG) == 0
            && control & !written(register::GENCTRL) == 0
            && registers.cause & !causes == 0
            && shown == status;
        require(fits, "a register has a bit that is never set")?;
        let overflow = registers.error[0] & SoftwareError::OVERFLOW;
        let mut error = SoftwareError::decode(registers.error)
            .map_or([0; 4], |error| SoftwareError::encode(&error));
        error[0] |= overflow;
        require(error == registers.error, "SWERR holds no error")
    }

    fn check_tables(&self, layout: &Layout) -> Checked {
        let whole = self.groups.len() == usize::from(layout.shape.groups)
            && self.vectors.len() == usize::from(layout.vectors())
            && self.permissions.len() == self.vectors.len()
            && self.queues.len() == usize::from(layout.queues);
        require(whole, "a table has another number of entries")?;
        let permissions: Vec<[u32; 1]> = self.permissions.iter().map(|word| [*word]).collect();
        let queues: Vec<[u32; 4]> = self.queues.iter().map(|queue| queue.words).collect();
        let fits = is_written(layout, Table::Groups, &self.groups)
            && is_written(layout, Table::Vectors, &self.vectors)
            && is_written(layout, Table::Permissions, &permissions)
            && is_written(layout, Table::Queues, &queues);
        require(fits, "an entry of a table has a bit that is never set")
    }
}

/// Whether a driver can have written the words of a table's entries.
fn is_written<const N: usize>(layout: &Layout, table: Table, entries: &[[u32; N]]) -> bool {
    let Some(spec) = TABLES.iter().find(|spec| spec.table == table) else {
        return false;
    };
    (spec.offset..)
        .step_by(usize::try_from(spec.entry_bytes).unwrap_or(1))
        .zip(entries)
        .flat_map(|(start, entry)| (start..).step_by(4).zip(entry))
        .all(|(offset, word)| {
            let class = layout.locate(offset).map(|(_, class)| class);
            word & !class.map_or(0, AccessClass::written) == 0
        })
}

/// What GENSTS says; nothing for what this device does not come to.
pub(in crate::function) fn device(number: u8) -> Option<DeviceState> {
    let states = [
        DeviceState::Disabled,
        DeviceState::Enabled,
        DeviceState::Halted,
    ];
    states.into_iter().find(|state| *state as u8 == number)
}

impl RunningState {
    fn check(&self, enabled: u64, queues: &[QueueWords]) -> Checked {
        let disables = match self.after {
            After::Nothing | After::DisableDevice => 0,
            After::DisableQueues(queues) => queues,
        };
        // A command names one PASID, which has one use of a queue.
        let is_shared = |(queue, _): &(u8, GuestPasid)| {
            let words = queues.get(usize::from(*queue));
            words.is_some_and(|words| words.enabled && !words.config().mode.dedicated())
        };
        let in_order = self.uses.is_sorted_by(|one, next| one.0 < next.0);
        require(
            (disables | self.queues) & !enabled == 0
                && self.queues & self.after.closing(enabled) == self.after.closing(enabled)
                && (self.uses.is_empty() || self.after == After::Nothing)
                && self.uses.iter().all(is_shared)
                && in_order,
            "a command waits for a queue that is not enabled",
        )
    }
}

impl QueueState {
    pub(in crate::function) const fn queue_words(&self) -> QueueWords {
        QueueWords {
            words: self.words,
            enabled: self.enabled,
            privileged: self.privileged,
            tag: None,
        }
    }

    /// The PASIDs of its descriptors, where each has one; those that were submitted, not the parts of batches.
    pub(in crate::function) fn names_in_work(&self) -> impl Iterator<Item = GuestPasid> {
        let begun = self.work.begun.iter().map(BegunTask::submitted);
        let named = |descriptor: &Descriptor| GuestPasid::new(descriptor.pasid()).ok();
        begun.chain(&self.work.fresh).filter_map(named)
    }

    fn check(&self, number: u8, words: &QueueWords, layout: &Layout) -> Checked {
        let count = self.work.len();
        if !self.enabled {
            let off = !self.privileged.is_on() && count == 0;
            return require(off, "a queue that is not enabled has work");
        }
        let config = words.config();
        check_queue(&layout.shape, &config)
            .map_err(|_| "a queue cannot be enabled with its configuration")?;
        require(
            count <= usize::from(config.size) + layout.in_hand_of_queue(),
            "a queue has more work than it takes",
        )?;
        let shared = !config.mode.dedicated();
        let session = judge(rules(number, &config, self.privileged), config.mode);
        for task in &self.work.begun {
            require(
                !shared || GuestPasid::new(task.submitted().pasid()).is_ok(),
                "there is no such PASID",
            )?;
            check_task(task, &session)?;
        }
        let named = |descriptor: &Descriptor| GuestPasid::new(descriptor.pasid()).is_ok();
        require(
            !shared || self.work.fresh.iter().all(named),
            "there is no such PASID",
        )
    }
}

/// A session to look at descriptors by, that nobody is behind.
fn judge(rules: Rules, mode: QueueMode) -> Session {
    let identity = Identity {
        tag: None,
        hold: None,
    };
    let session = Session::new(identity, Privilege::User, None, rules, Arc::new(Nobody));
    if mode.dedicated() {
        session
    } else {
        session.counted_in(Arc::new(PasidUse::default()))
    }
}

/// A driver who is not asked any more: what he permitted when a descriptor was begun is over.
struct Nobody;

impl Client for Nobody {
    fn software_error(&self, _error: SoftwareError) {}

    fn interrupt(&self, _handle: u16) {}

    fn may_interrupt(&self, _handle: u16, _session: &Session) -> bool {
        true
    }

    fn page_requests(&self) -> Switch {
        Switch::Off
    }

    fn ats(&self) -> Ats {
        Ats::Off
    }
}

fn check_task(task: &BegunTask, session: &Session) -> Checked {
    let descriptor = &task.work.descriptor;
    let origin = match &task.batch {
        None => Origin::Portal,
        Some(batch) => {
            check_batch(batch, task, session)?;
            Origin::Batch
        }
    };
    let is_right = match task.work.stage {
        Stage::Fresh => task.refused.is_none(),
        Stage::Running(so_far) => {
            check(descriptor, origin, session).is_ok()
                && descriptor.opcode() != Opcode::BATCH
                && so_far.fits(descriptor)
        }
        Stage::Fetching => task.batch.is_some(),
        // Whatever it says: it is the driver's own memory that it goes to.
        Stage::Recording(_) => {
            let flags = descriptor.flags();
            !flags.contains(Flags::RECORD_ADDRESS_VALID)
                || descriptor.completion_address.is_multiple_of(32)
        }
    };
    require(is_right, "a descriptor cannot have come so far")
}

fn check_batch(batch: &Batch, task: &BegunTask, session: &Session) -> Checked {
    let list = &batch.work.descriptor;
    let is_list = list.opcode() == Opcode::BATCH && check(list, Origin::Portal, session).is_ok();
    let in_hand = match task.work.stage {
        Stage::Fetching if task.work.descriptor == *list => 0,
        Stage::Fetching => return Err("a batch fetches what is not its list"),
        _ => 1,
    };
    let adds_up = batch.taken <= list.size
        && batch.completed.checked_add(in_hand) == Some(batch.taken)
        && batch.failed <= batch.completed;
    require(is_list && adds_up, "a batch cannot have come so far")
}
