use bitfield_struct::bitfield;

/// CMD: what to do and to what (DSA §9.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Command {
    /// What the code says: nothing, a queue's index, queues (see [`Command::queues`]) or a PASID.
    #[bits(20)]
    pub operand: u32,
    /// What to do.
    #[bits(5)]
    pub code: CommandCode,
    #[bits(6)]
    __: u8,
    /// Raise the command cause and fire vector 0 on completion.
    pub interrupt: bool,
}

/// The code of a command; any 5-bit number may come from a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandCode(pub u8);

impl CommandCode {
    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    const fn into_bits(self) -> u8 {
        self.0
    }
}

impl Command {
    /// Enable the device.
    pub const ENABLE_DEVICE: CommandCode = CommandCode(1);
    /// Drain all queues, then disable them and the device.
    pub const DISABLE_DEVICE: CommandCode = CommandCode(2);
    /// Wait for all work.
    pub const DRAIN_ALL: CommandCode = CommandCode(3);
    /// Drop all work.
    pub const ABORT_ALL: CommandCode = CommandCode(4);
    /// Drop all work, disable everything and clear the configuration.
    pub const RESET_DEVICE: CommandCode = CommandCode(5);
    /// Enable the queue whose index is the operand.
    pub const ENABLE_QUEUE: CommandCode = CommandCode(6);
    /// Drain queues, then disable them.
    pub const DISABLE_QUEUES: CommandCode = CommandCode(7);
    /// Wait for the work of queues.
    pub const DRAIN_QUEUES: CommandCode = CommandCode(8);
    /// Drop the work of queues.
    pub const ABORT_QUEUES: CommandCode = CommandCode(9);
    /// Drop the work of queues, disable them and clear their configuration, size apart.
    pub const RESET_QUEUES: CommandCode = CommandCode(10);
    /// Wait for the work of the PASID that is the operand.
    pub const DRAIN_PASID: CommandCode = CommandCode(11);
    /// Drop the work of the PASID that is the operand.
    pub const ABORT_PASID: CommandCode = CommandCode(12);
    /// Ask for a handle of an interrupt.
    pub const REQUEST_INTERRUPT_HANDLE: CommandCode = CommandCode(13);
    /// Give a handle back.
    pub const RELEASE_INTERRUPT_HANDLE: CommandCode = CommandCode(14);

    /// A command without operand and interrupt.
    #[must_use]
    pub const fn of(code: CommandCode) -> Self {
        Self::new().with_code(code)
    }

    /// A command that names one queue in the way of its code: the index for
    /// [`Command::ENABLE_QUEUE`], a bit for the others.
    #[must_use]
    pub const fn for_queue(code: CommandCode, queue: u8) -> Self {
        let operand = if code.0 == Self::ENABLE_QUEUE.0 {
            queue as u32
        } else {
            (1 << (queue % 16)) | ((queue as u32 / 16) << 16)
        };
        Self::of(code).with_operand(operand)
    }

    /// The queues that the operand names: bits 15:0 are queues of the bank of sixteen that bits 19:16 name.
    pub fn queues(self) -> impl Iterator<Item = u8> {
        let [low, high, bank, _] = self.operand().to_le_bytes();
        let bits = u16::from_le_bytes([low, high]);
        (0..16)
            .filter(move |i| bits & (1 << i) != 0)
            .map(move |i| bank * 16 + i)
    }
}

/// CMDSTS: how the last command went.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CommandStatus {
    /// What was wrong.
    #[bits(8)]
    pub error: CommandError,
    /// What the command yields.
    #[bits(16)]
    pub result: u16,
    #[bits(7)]
    __: u8,
    /// The command runs still.
    pub active: bool,
}

macro_rules! command_errors {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $words:literal;)*) => {
        /// The error codes of commands (DSA §9.2, CMDSTS).
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct CommandError(pub u8);

        impl CommandError {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The error in words.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self.0 {
                    $($code => $words,)*
                    _ => "an error that the specification does not name",
                }
            }

            const fn from_bits(bits: u8) -> Self {
                Self(bits)
            }

            const fn into_bits(self) -> u8 {
                self.0
            }
        }
    };
}

command_errors! {
    /// None.
    SUCCESS = 0x00, "success";
    /// The command does not exist.
    INVALID_COMMAND = 0x01, "the command does not exist";
    /// A queue does not exist.
    INVALID_QUEUE = 0x02, "the queue does not exist";
    /// The hardware failed.
    HARDWARE = 0x03, "the hardware failed";
    /// Enable device: it is enabled.
    DEVICE_ENABLED = 0x10, "the device is enabled already";
    /// Enable device: the configuration is not possible.
    CONFIG = 0x11, "the configuration is not possible";
    /// Enable device: bus master is off.
    BUS_MASTER_OFF = 0x12, "bus master is off in configuration space";
    /// A PASID that may not be used here: this device's policy refused it.
    PASID_INVALID = 0x13, "the PASID may not be used here";
    /// Enable device: the sizes of the queues are more than WQCAP says.
    QUEUE_SIZES = 0x14, "the queues together are larger than WQCAP says";
    /// Enable device: a queue is in no group though it has a size, or in several.
    GROUP_QUEUES = 0x15, "a queue with a size is in no group, or in several";
    /// Enable device: an engine is in several groups.
    GROUP_ENGINES = 0x16, "an engine is in several groups";
    /// Enable device: a group has queues and no engine.
    GROUP_WITHOUT_ENGINE = 0x17, "a group has queues and no engine";
    /// Enable device: read buffers.
    GROUP_READ_BUFFERS = 0x18, "a group's read buffers are not possible";
    /// Enable queue: the device is disabled.
    DEVICE_DISABLED = 0x20, "the device is disabled";
    /// Enable queue: it is enabled.
    QUEUE_ENABLED = 0x21, "the queue is enabled already";
    /// Enable queue: its size is 0.
    QUEUE_SIZE = 0x22, "the queue has no size";
    /// Enable queue: its priority is 0.
    QUEUE_PRIORITY = 0x23, "the queue's priority is 0";
    /// Enable queue: the mode is not offered, or a shared queue's threshold is 0 or beyond its size.
    QUEUE_MODE = 0x24, "the queue's mode or threshold is not possible";
    /// Enable queue: block on fault is not offered.
    BLOCK_ON_FAULT = 0x25, "block on fault is not offered";
    /// Enable queue: a PASID or privileged mode that configuration space has not enabled, or a shared queue without PASIDs.
    PASID_ENABLE = 0x26, "PASID or privileged mode is not enabled in configuration space, or a shared queue has no PASIDs";
    /// Enable queue: the largest batch is beyond GENCAP's.
    MAX_BATCH = 0x27, "the largest batch is beyond GENCAP's";
    /// Enable queue: the largest transfer is beyond GENCAP's.
    MAX_TRANSFER = 0x28, "the largest transfer is beyond GENCAP's";
    /// Disable device: it is disabled.
    DISABLE_DISABLED = 0x31, "the device is disabled already";
    /// Disable, drain, abort or reset queues: the device is disabled.
    QUEUES_OF_DISABLED = 0x32, "the device is disabled";
    /// Request interrupt handle: no such index.
    INVALID_INTERRUPT = 0x41, "the interrupt does not exist";
    /// Request interrupt handle: none left.
    NO_HANDLE = 0x42, "no interrupt handle is left";
}

impl core::fmt::Debug for CommandError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#04x} ({})", self.0, self.words())
    }
}

impl core::fmt::Display for CommandError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.words())
    }
}
