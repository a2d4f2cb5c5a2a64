use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use palisade_vfio::abi::Number;
use zerocopy::IntoBytes;

use super::{ClientError, starts_with};
use crate::socket::{Message, receive, send};
use crate::wire::{Header, Kind, MAJOR, MAX_DESCRIPTORS, MINOR, Version, VersionAnswer, frame};

/// The messages of a connection, whatever they mean.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    limits: VersionAnswer,
    next_id: u16,
}

impl Link {
    /// Says which form of the requests is spoken.
    pub(super) fn over(stream: UnixStream, form: u16) -> Result<Self, ClientError> {
        let version = Version {
            major: MAJOR.into(),
            minor: MINOR.into(),
            abi: form.into(),
            padding: 0.into(),
        };
        let header = Header::new(Kind::Version, 0, 0);
        let message = frame(header, version.as_bytes()).ok_or(ClientError::TooLong)?;
        send(&stream, &message, &[])?;
        let answer = receive(&stream)?;
        if answer.head.kind != Kind::VersionAnswer {
            return Err(ClientError::Answer);
        }
        let limits: VersionAnswer = starts_with(&answer.payload)?;
        if let Err(errno) = answer.head.header.outcome() {
            let (major, minor) = (limits.major.get(), limits.minor.get());
            return Err(ClientError::Version {
                errno,
                major,
                minor,
            });
        }
        Ok(Self {
            stream,
            limits,
            next_id: 1,
        })
    }

    /// Makes a request, on a file where the form of the requests has several, and gives back the answer, also one
    /// with an errno. Where none comes the connection is over: what comes later would be taken for the answer to
    /// another question.
    pub(super) fn call(
        &mut self,
        number: Number,
        on: u32,
        argument: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Message, ClientError> {
        let most = usize::from(self.limits.max_descriptors.get()).min(MAX_DESCRIPTORS);
        if descriptors.len() > most {
            return Err(ClientError::TooManyDescriptors(descriptors.len(), most));
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let mut header = Header::new(Kind::Request, id, number.get());
        header.value = on.cast_signed().into();
        let message = frame(header, argument).ok_or(ClientError::TooLong)?;
        if message.len() > self.limits.max_message_bytes.get() as usize {
            return Err(ClientError::TooLong);
        }
        let answer = self.exchange(&message, id, descriptors);
        answer.inspect_err(|_| self.close())
    }

    fn exchange(
        &self,
        message: &[u8],
        id: u16,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Message, ClientError> {
        send(&self.stream, message, descriptors)?;
        let answer = receive(&self.stream)?;
        if answer.head.kind != Kind::Answer || answer.head.header.id.get() != id {
            return Err(ClientError::Answer);
        }
        Ok(answer)
    }

    /// What polls as hung up once the connection has ended, on whichever side. It does not keep it from ending.
    pub(super) fn watch(&self) -> Result<OwnedFd, ClientError> {
        Ok(self.stream.try_clone()?.into())
    }

    fn close(&self) {
        // Fails only where the server was faster.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Closing does not end it while somebody watches.
        self.close();
    }
}
