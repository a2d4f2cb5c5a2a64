use std::os::fd::{BorrowedFd, OwnedFd};

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    Client, ClientError, RequestNumber,
    wire::{
        Command,
        pasid::{
            ContainerAnswer, ContainerRequest, Invalidation, MAX_ARGUMENT_BYTES, PageResponse,
            PasidCapability,
        },
    },
};

/// What one of the container's requests came to.
#[derive(Debug)]
pub struct ContainerReply {
    /// What the call returned.
    pub value: i32,
    /// What the argument begins with from now on; nothing where it stays as it was.
    pub written: Vec<u8>,
    /// What came beside the bytes.
    pub descriptors: Vec<OwnedFd>,
}

/// What the extension adds.
impl Client {
    /// What this side and the server agreed to; `None` where the extension is off.
    #[must_use]
    pub fn pasids(&self) -> Option<PasidCapability> {
        self.link.answering.as_ref().map(|it| it.agreed)
    }

    /// Has the device forget translations, and waits until no access uses them any more. What the device asks
    /// meanwhile is answered.
    ///
    /// # Errors
    /// As [`Client::region_read`]; [`ClientError::NotAgreed`] where the device keeps no translations.
    pub fn invalidate(&mut self, what: Invalidation) -> Result<(), ClientError> {
        match self.pasids() {
            Some(agreed) if agreed.max_invalidations > 0 => {}
            _ => return Err(ClientError::NotAgreed),
        }
        let message = what.message();
        self.tell(Command::PasidInvalidate, &[message.as_bytes()], &[])
    }

    /// Answers a page request group that was to be answered later.
    ///
    /// # Errors
    /// [`ClientError::NoSuchGroup`] where no such group waits; any other error ends the connection.
    pub fn respond_to_pages(
        &mut self,
        group: u16,
        response: PageResponse,
    ) -> Result<(), ClientError> {
        self.link.respond(group, response)
    }

    /// Makes one of the container's requests: the number and the argument of a call of `ioctl`, and what goes beside
    /// them.
    ///
    /// # Errors
    /// As [`Client::region_read`], with the errno that the call fails with; [`ClientError::NotAgreed`] where the
    /// server takes none.
    pub fn container_request(
        &mut self,
        number: RequestNumber,
        argument: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<ContainerReply, ClientError> {
        if self.pasids().and_then(|agreed| agreed.requests).is_none() {
            return Err(ClientError::NotAgreed);
        }
        if argument.len() > MAX_ARGUMENT_BYTES {
            return Err(ClientError::Length(argument.len()));
        }
        let limit = self.server.capabilities.max_descriptors;
        if descriptors.len() as u64 > limit {
            return Err(ClientError::TooManyDescriptors(descriptors.len(), limit));
        }
        let command = Command::ContainerRequest;
        let head = ContainerRequest {
            number: number.get().into(),
            reserved: 0.into(),
        };
        let parts = [head.as_bytes(), argument];
        let sequence = self.link.queue(command, &parts, descriptors)?;
        let answer = self.link.wait(sequence)?;
        let (head, written) = ContainerAnswer::read_from_prefix(&answer[..])
            .map_err(|_| ClientError::Answer(command))?;
        if head.reserved.get() != 0 || written.len() > MAX_ARGUMENT_BYTES {
            return Err(ClientError::Answer(command));
        }
        Ok(ContainerReply {
            value: head.value.get(),
            written: written.to_vec(),
            descriptors: self.link.take_descriptors(sequence),
        })
    }
}
