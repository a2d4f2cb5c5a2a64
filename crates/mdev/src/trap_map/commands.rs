//! The commands of CMD as a slice takes them (DSA §9.2).

use palisade_dsa::spec::{Command, CommandCode, CommandError};

use super::Reaches;

/// What the operand of a command names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Nothing.
    None,
    /// A queue, by its number.
    Queue,
    /// Queues, by bits.
    Queues,
    /// A PASID of the guest's.
    Pasid,
}

impl Operand {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Queue => "a queue",
            Self::Queues => "queues, as bits",
            Self::Pasid => "a PASID",
        }
    }
}

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandRule {
    /// Its code.
    pub code: CommandCode,
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub operand: Operand,
    /// What it does.
    pub effect: &'static str,
    /// What the parent gets of it.
    pub reaches: Reaches,
    /// With which errors it can end.
    pub errors: &'static [CommandError],
}

const fn rule(
    code: CommandCode,
    name: &'static str,
    operand: Operand,
    reaches: Reaches,
    errors: &'static [CommandError],
    effect: &'static str,
) -> CommandRule {
    CommandRule {
        code,
        name,
        operand,
        effect,
        reaches,
        errors,
    }
}

use CommandError as E;
use Operand as O;
use Reaches::{Nothing, OwnWork};

const OF_QUEUES: &[E] = &[E::INVALID_QUEUE, E::QUEUES_OF_DISABLED];

/// All commands that a slice accepts. Any other ends with [`CommandError::INVALID_COMMAND`], and on a halted slice
/// every one with [`CommandError::HARDWARE`].
#[rustfmt::skip]
pub const COMMANDS: &[CommandRule] = &[
    rule(Command::ENABLE_DEVICE, "Enable Device", O::None, Nothing, &[
        E::DEVICE_ENABLED, E::BUS_MASTER_OFF, E::QUEUE_SIZES, E::GROUP_QUEUES, E::GROUP_ENGINES, E::GROUP_WITHOUT_ENGINE,
        E::GROUP_READ_BUFFERS,
    ], "the slice is enabled"),
    rule(Command::DISABLE_DEVICE, "Disable Device", O::None, OwnWork, &[E::DISABLE_DISABLED], "its work is waited for, then it is disabled"),
    rule(Command::DRAIN_ALL, "Drain All", O::None, OwnWork, &[E::QUEUES_OF_DISABLED], "its work is waited for"),
    rule(Command::ABORT_ALL, "Abort All", O::None, OwnWork, &[E::QUEUES_OF_DISABLED], "its work is dropped"),
    rule(Command::RESET_DEVICE, "Reset Device", O::None, OwnWork, &[], "its work is dropped, its configuration cleared"),
    rule(Command::ENABLE_QUEUE, "Enable WQ", O::Queue, OwnWork, &[
        E::INVALID_QUEUE, E::PASID_INVALID, E::DEVICE_DISABLED, E::QUEUE_ENABLED, E::QUEUE_SIZE, E::QUEUE_PRIORITY,
        E::QUEUE_MODE, E::PASID_ENABLE, E::MAX_BATCH,
    ], "the PASID of a dedicated queue is turned into the host's"),
    rule(Command::DISABLE_QUEUES, "Disable WQ", O::Queues, OwnWork, OF_QUEUES, "their work is waited for, then they are disabled"),
    rule(Command::DRAIN_QUEUES, "Drain WQ", O::Queues, OwnWork, OF_QUEUES, "their work is waited for"),
    rule(Command::ABORT_QUEUES, "Abort WQ", O::Queues, OwnWork, OF_QUEUES, "their work is dropped"),
    rule(Command::RESET_QUEUES, "Reset WQ", O::Queues, OwnWork, OF_QUEUES, "their work is dropped, their configuration cleared but for the size"),
    rule(Command::DRAIN_PASID, "Drain PASID", O::Pasid, OwnWork, &[E::PASID_INVALID], "the slice's work of the PASID is waited for"),
    rule(Command::ABORT_PASID, "Abort PASID", O::Pasid, OwnWork, &[E::PASID_INVALID], "the slice's work of the PASID is dropped"),
];
