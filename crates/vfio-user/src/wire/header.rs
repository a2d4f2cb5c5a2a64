use rustix::io::Errno;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    native_endian::{U16, U32},
};

use super::Command;

/// The size of the header before every message.
pub const HEADER_BYTES: usize = 16;

const KIND_MASK: u32 = 0xf;
const KIND_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const IS_ERROR: u32 = 1 << 5;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request, in either direction.
    Command,
    /// The answer to one.
    Reply,
}

/// Whether the sender of a command waits for its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyWanted {
    /// The command is answered.
    Yes,
    /// The command is not answered, not even when it fails.
    No,
}

/// The sixteen bytes before every message (vfio-user, Header).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Chosen by the sender of a command, echoed in the reply.
    pub message_id: U16,
    /// What the message is about.
    pub command: U16,
    /// Header and payload together, in bytes.
    pub size: U32,
    /// The kind in bits 3:0, no-reply in bit 4, error in bit 5.
    pub flags: U32,
    /// The error number of a failed command's reply.
    pub error: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

impl Header {
    /// A command; [`super::push_frame`] fills in the size.
    #[must_use]
    pub fn command(message_id: u16, command: Command, reply: ReplyWanted) -> Self {
        let flags = match reply {
            ReplyWanted::Yes => 0,
            ReplyWanted::No => NO_REPLY,
        };
        Self {
            message_id: message_id.into(),
            command: command.raw().into(),
            size: U32::ZERO,
            flags: flags.into(),
            error: U32::ZERO,
        }
    }

    /// The reply to a command that was done.
    #[must_use]
    pub fn reply(to: &Self) -> Self {
        Self {
            flags: KIND_REPLY.into(),
            size: U32::ZERO,
            error: U32::ZERO,
            ..*to
        }
    }

    /// The reply to a command that was refused; it has no payload.
    #[must_use]
    pub fn refusal(to: &Self, errno: Errno) -> Self {
        Self {
            flags: (KIND_REPLY | IS_ERROR).into(),
            error: errno.raw_os_error().unsigned_abs().into(),
            ..Self::reply(to)
        }
    }

    /// What the message is; `None` where the bits have no meaning.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self.flags.get() & KIND_MASK {
            0 => Some(Kind::Command),
            KIND_REPLY => Some(Kind::Reply),
            _ => None,
        }
    }

    /// Whether a command's sender waits for the reply.
    #[must_use]
    pub fn reply_wanted(&self) -> ReplyWanted {
        if self.flags.get() & NO_REPLY == 0 {
            ReplyWanted::Yes
        } else {
            ReplyWanted::No
        }
    }

    /// The error of a reply. The peer may leave the number out, or make one up: both are `EIO`.
    ///
    /// # Errors
    /// The error, where the reply has one.
    pub fn outcome(&self) -> Result<(), Errno> {
        if self.flags.get() & IS_ERROR == 0 {
            return Ok(());
        }
        match i32::try_from(self.error.get()) {
            Ok(raw @ 1..4096) => Err(Errno::from_raw_os_error(raw)),
            _ => Err(Errno::IO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_survives_the_wire() {
        let command = Header::command(7, Command::DmaMap, ReplyWanted::Yes);
        let refusal = Header::refusal(&command, Errno::EXIST);
        assert_eq!(refusal.kind(), Some(Kind::Reply));
        assert_eq!(refusal.message_id.get(), 7);
        assert_eq!(refusal.outcome(), Err(Errno::EXIST));
        assert_eq!(Header::reply(&command).outcome(), Ok(()));
    }

    #[test]
    fn an_error_without_a_sensible_number_is_an_input_output_error() {
        for raw in [0, 4096, u32::MAX] {
            let mut header = Header::command(0, Command::DmaMap, ReplyWanted::Yes);
            header.flags = (KIND_REPLY | IS_ERROR).into();
            header.error = raw.into();
            assert_eq!(header.outcome(), Err(Errno::IO));
        }
    }
}
