use zerocopy::{FromBytes, IntoBytes};

use super::{HEADER_BYTES, Header, Kind, MAX_DATA_BYTES};

/// The longest message either side may send: the header, the fixed part of an access, and its data.
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + 48 + MAX_DATA_BYTES as usize;

/// One whole message.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// What the header says it is.
    pub kind: Kind,
    /// What comes after the header.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The size on the wire.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }
}

/// What stands at the start of a stream.
#[derive(Clone, Copy, Debug)]
pub enum Cut<'a> {
    /// Not all of a message yet.
    Incomplete,
    /// A message.
    Whole(Frame<'a>),
}

/// The stream does not hold messages; there is no way to find the start of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The size in the header cannot be.
    #[error("a message of {0} bytes: sizes go from {HEADER_BYTES} to {MAX_FRAME_BYTES}")]
    Size(u32),
    /// The kind is neither command nor reply.
    #[error("a message with flags {0:#x} is neither command (0) nor reply (1)")]
    Kind(u32),
}

/// Cuts the first message off a stream. A header is judged as soon as it is there, so that garbage is
/// not waited for.
///
/// # Errors
/// [`FrameError`] where the header makes no sense.
pub fn cut(stream: &[u8]) -> Result<Cut<'_>, FrameError> {
    let Ok((header, rest)) = Header::read_from_prefix(stream) else {
        return Ok(Cut::Incomplete);
    };
    let bad_size = FrameError::Size(header.size.get());
    let size = usize::try_from(header.size.get()).map_err(|_| bad_size)?;
    if !(HEADER_BYTES..=MAX_FRAME_BYTES).contains(&size) {
        return Err(bad_size);
    }
    let kind = header.kind().ok_or(FrameError::Kind(header.flags.get()))?;
    Ok(match rest.get(..size - HEADER_BYTES) {
        Some(payload) => Cut::Whole(Frame {
            header,
            kind,
            payload,
        }),
        None => Cut::Incomplete,
    })
}

/// Appends a message: `header`, with the size set, and the parts of the payload.
pub fn push_frame(out: &mut Vec<u8>, mut header: Header, parts: &[&[u8]]) {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    let size = HEADER_BYTES + payload;
    header.size = u32::try_from(size).unwrap_or(u32::MAX).into();
    out.reserve(size);
    out.extend_from_slice(header.as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Command, ReplyWanted};

    fn command(size: u32) -> Header {
        Header {
            size: size.into(),
            ..Header::command(1, Command::DeviceReset, ReplyWanted::Yes)
        }
    }

    #[test]
    fn r78_a_header_is_judged_before_its_payload_arrives() {
        for size in [0, 15, u32::try_from(MAX_FRAME_BYTES).unwrap() + 1, u32::MAX] {
            let error = cut(command(size).as_bytes()).unwrap_err();
            assert_eq!(error, FrameError::Size(size));
        }
        let mut header = command(16);
        header.flags = 2.into();
        assert_eq!(cut(header.as_bytes()).unwrap_err(), FrameError::Kind(2));
    }

    proptest! {
        #[test]
        fn r78_random_bytes_are_cut_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(Cut::Whole(frame)) = cut(&bytes) {
                prop_assert!(frame.len_bytes() <= bytes.len());
            }
        }

        #[test]
        fn what_is_pushed_is_cut(payload in proptest::collection::vec(any::<u8>(), 0..200), missing in 1_usize..16) {
            let mut stream = Vec::new();
            let (head, tail) = payload.split_at(payload.len() / 2);
            push_frame(&mut stream, command(0), &[head, tail]);
            let Ok(Cut::Whole(frame)) = cut(&stream) else {
                return Err(TestCaseError::fail("not cut"));
            };
            prop_assert_eq!(frame.payload, &payload[..]);
            let half = cut(&stream[..stream.len() - missing]);
            prop_assert!(matches!(half, Ok(Cut::Incomplete)));
        }
    }
}
