//! The messages, without any input or output. Numbers are little-endian.

use palisade_units::layout;
use palisade_vfio::Abi;
use rustix::io::Errno;
use zerocopy::{
    IntoBytes,
    little_endian::{I32, U16, U32},
};

/// The size of the header before every message.
pub const HEADER_BYTES: usize = 16;
/// The longest message, its header included.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// How many descriptors can come with one message.
pub const MAX_DESCRIPTORS: usize = 4;
/// The version of the protocol: another major one is another protocol.
pub const MAJOR: u16 = 1;
/// The minor version of the protocol: what was added to it since.
pub const MINOR: u16 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Kind {
    /// Client: which version it speaks. The first message, and no other is.
    Version = 1,
    /// Server: the answer to that.
    VersionAnswer = 2,
    /// Client: a request.
    Request = 3,
    /// Server: the answer to one.
    Answer = 4,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 4] = [
        Self::Version,
        Self::VersionAnswer,
        Self::Request,
        Self::Answer,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_raw(raw: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.raw() == raw)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn raw(self) -> u16 {
        self as u16
    }
}

layout! {
    /// The sixteen bytes before every message.
    Header, 16, {
        /// The whole message, these bytes included.
        size: U32 = 0,
        /// What the message is: a [`Kind`], by its number.
        kind: U16 = 4,
        /// Chosen by the client, echoed in the answer.
        id: U16 = 6,
        /// Of a request its number; of an answer the errno, or 0.
        number_or_errno: U32 = 8,
        /// Of an answer without errno what the call returns; of a request to an iommufd the file that it is made on.
        value: I32 = 12,
    }
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

layout! {
    /// What comes after the header of [`Kind::Version`].
    Version, 8, {
        /// [`MAJOR`].
        major: U16 = 0,
        /// [`MINOR`].
        minor: U16 = 2,
        /// Which form of the requests the client speaks: 1, 7, or [`IOMMUFD`].
        abi: U16 = 4,
        /// Zero.
        padding: U16 = 6,
    }
}

layout! {
    /// What comes after the header of [`Kind::VersionAnswer`], also where that is an errno.
    VersionAnswer, 12, {
        /// [`MAJOR`].
        major: U16 = 0,
        /// [`MINOR`].
        minor: U16 = 2,
        /// [`MAX_DESCRIPTORS`].
        max_descriptors: U16 = 4,
        /// Zero.
        padding: U16 = 6,
        /// [`MAX_MESSAGE_BYTES`].
        max_message_bytes: U32 = 8,
    }
}

impl VersionAnswer {
    /// What this implementation says of itself.
    #[must_use]
    pub fn own() -> Self {
        // Both are small and known.
        let [low, high, ..] = MAX_DESCRIPTORS.to_le_bytes();
        let max_message_bytes = u32::try_from(MAX_MESSAGE_BYTES).unwrap_or(u32::MAX);
        Self {
            major: MAJOR.into(),
            minor: MINOR.into(),
            max_descriptors: u16::from_le_bytes([low, high]).into(),
            padding: 0.into(),
            max_message_bytes: max_message_bytes.into(),
        }
    }
}

/// The form of the requests that an iommufd has. Since 1.1.
pub const IOMMUFD: u16 = 3;

/// The number of one of the proposals, as a form of the requests.
#[must_use]
pub const fn abi_number(abi: Abi) -> u16 {
    match abi {
        Abi::V1 => 1,
        Abi::V7 => 7,
    }
}

/// The stream does not hold messages; there is no way to find the start of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The size in the header cannot be.
    #[error("a message of {0} bytes: sizes go from {HEADER_BYTES} to {MAX_MESSAGE_BYTES}")]
    Size(u32),
    /// There is no such kind.
    #[error("a message of kind {0}")]
    Kind(u16),
}

/// A header that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What the message is.
    pub kind: Kind,
    /// The header.
    pub header: Header,
    /// How many bytes come after the header.
    pub payload_bytes: usize,
}

impl Header {
    /// A header, whose size [`frame`] fills in.
    #[must_use]
    pub fn new(kind: Kind, id: u16, number_or_errno: u32) -> Self {
        Self {
            size: 0.into(),
            kind: kind.raw().into(),
            id: id.into(),
            number_or_errno: number_or_errno.into(),
            value: 0.into(),
        }
    }

    /// Judges a header before anything that follows it is read.
    ///
    /// # Errors
    /// [`FrameError`] where it makes no sense.
    pub fn check(self) -> Result<Checked, FrameError> {
        let bad_size = FrameError::Size(self.size.get());
        let size = usize::try_from(self.size.get()).map_err(|_| bad_size)?;
        if !(HEADER_BYTES..=MAX_MESSAGE_BYTES).contains(&size) {
            return Err(bad_size);
        }
        let kind = self.kind.get();
        Ok(Checked {
            kind: Kind::from_raw(kind).ok_or(FrameError::Kind(kind))?,
            header: self,
            payload_bytes: size - HEADER_BYTES,
        })
    }

    /// Of an answer what it says.
    ///
    /// # Errors
    /// Its errno. The server may make a number up: that is EPROTO.
    pub fn outcome(&self) -> Result<i32, Errno> {
        match self.number_or_errno.get().cast_signed() {
            0 => Ok(self.value.get()),
            errno @ 1..4096 => Err(Errno::from_raw_os_error(errno)),
            _ => Err(Errno::PROTO),
        }
    }
}

/// A whole message; `None` where it would be longer than one may be.
#[must_use]
pub fn frame(mut header: Header, payload: &[u8]) -> Option<Vec<u8>> {
    let size = HEADER_BYTES + payload.len();
    if size > MAX_MESSAGE_BYTES {
        return None;
    }
    header.size = u32::try_from(size).ok()?.into();
    Some([header.as_bytes(), payload].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromBytes;

    use super::*;

    #[test]
    fn r78_a_header_is_judged_before_what_follows_is_read() {
        let sized = |size: u32| Header {
            size: size.into(),
            ..Header::new(Kind::Request, 1, 2)
        };
        for size in [0, 15, 4097, u32::MAX] {
            assert_eq!(sized(size).check(), Err(FrameError::Size(size)));
        }
        for (size, payload) in [(16, 0), (4096, 4080)] {
            assert_eq!(sized(size).check().unwrap().payload_bytes, payload);
        }
        for kind in [0, 5, u16::MAX] {
            let header = Header {
                kind: kind.into(),
                ..sized(16)
            };
            assert_eq!(header.check(), Err(FrameError::Kind(kind)));
        }
    }

    #[test]
    fn a_message_longer_than_may_be_is_not_made() {
        let header = Header::new(Kind::Request, 0, 0);
        assert!(frame(header, &[0; 4080]).is_some());
        assert!(frame(header, &[0; 4081]).is_none());
    }

    proptest! {
        #[test]
        fn what_is_framed_is_found(id: u16, number: u32, payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let message = frame(Header::new(Kind::Answer, id, number), &payload).unwrap();
            let (header, rest) = Header::read_from_prefix(&message).unwrap();
            let checked = header.check().unwrap();
            prop_assert_eq!(checked.payload_bytes, rest.len());
            prop_assert_eq!(rest, &payload[..]);
            prop_assert_eq!((header.id.get(), header.number_or_errno.get()), (id, number));
        }

        #[test]
        fn r78_random_headers_are_judged(bytes: [u8; 16]) {
            let header = Header::read_from_bytes(&bytes).unwrap();
            if let Ok(checked) = header.check() {
                prop_assert!(checked.payload_bytes <= MAX_MESSAGE_BYTES - HEADER_BYTES);
            }
        }
    }
}
