use std::{fmt, os::fd::OwnedFd, sync::Arc};

use rustix::io::Errno;
use zerocopy::FromBytes;

use super::{
    late::{InvalidationDone, RequestReply},
    offer::{PasidOffer, RequestNumber, RequestSession, TranslationCache},
};
use crate::{
    server::outgoing::Shared,
    wire::{
        Command, Frame, Header, ReplyWanted,
        pasid::{ContainerRequest, Invalidation, MAX_ARGUMENT_BYTES, PasidCapability},
        push_frame,
    },
};

/// How many of the container's requests one client may have under way.
const MAX_REQUESTS: u16 = 32;

/// What one client that agreed to the extension may ask.
pub(crate) struct Extension {
    shared: Arc<Shared>,
    agreed: PasidCapability,
    max_descriptors: u64,
    cache: Option<Arc<dyn TranslationCache>>,
    requests: Option<Box<dyn RequestSession>>,
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extension")
            .field("agreed", &self.agreed)
            .finish_non_exhaustive()
    }
}

impl Extension {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        agreed: PasidCapability,
        max_descriptors: u64,
        offer: &PasidOffer,
    ) -> Self {
        let connect = |abi| offer.requests.as_ref().map(|them| them.connect(abi));
        Self {
            shared: Arc::clone(shared),
            agreed,
            max_descriptors,
            cache: offer.cache.clone().filter(|_| agreed.max_invalidations > 0),
            requests: agreed.requests.and_then(connect),
        }
    }

    /// Whether a command is one that a client sends, and of the extension.
    pub(crate) fn takes(frame: &Frame<'_>) -> bool {
        let command = Command::from_raw(frame.header.command.get());
        matches!(
            command,
            Some(Command::PasidInvalidate | Command::ContainerRequest)
        )
    }

    /// Does what such a command says. Its reply is sent by whoever completes it, or here if it is refused.
    pub(crate) fn handle(&mut self, frame: &Frame<'_>, descriptors: Vec<OwnedFd>) {
        let outcome = if frame.header.command.get() == Command::PasidInvalidate.raw() {
            self.invalidate(frame)
        } else {
            self.request(frame, descriptors)
        };
        if let Err(errno) = outcome
            && frame.header.reply_wanted() == ReplyWanted::Yes
        {
            let mut message = Vec::new();
            push_frame(&mut message, Header::refusal(&frame.header, errno), &[]);
            // A peer that is gone needs none.
            let _ = self.shared.send_late(message, Vec::new());
        }
    }

    fn invalidate(&self, frame: &Frame<'_>) -> Result<(), Errno> {
        let cache = self.cache.as_ref().ok_or(Errno::NOTSUP)?;
        let what = Invalidation::parse(frame.payload, self.agreed.width)?;
        let limit = self.agreed.max_invalidations;
        let done = InvalidationDone::new(&self.shared, frame.header, limit).ok_or(Errno::BUSY)?;
        self.shared.next_epoch();
        cache.invalidate(what, done);
        Ok(())
    }

    fn request(&mut self, frame: &Frame<'_>, descriptors: Vec<OwnedFd>) -> Result<(), Errno> {
        let requests = self.requests.as_mut().ok_or(Errno::NOTSUP)?;
        let (request, argument) =
            ContainerRequest::read_from_prefix(frame.payload).map_err(|_| Errno::INVAL)?;
        if request.reserved.get() != 0 || argument.len() > MAX_ARGUMENT_BYTES {
            return Err(Errno::INVAL);
        }
        let reply = RequestReply::new(
            &self.shared,
            frame.header,
            MAX_REQUESTS,
            self.max_descriptors,
        );
        let number = RequestNumber::new(request.number.get());
        requests.request(number, argument, descriptors, reply.ok_or(Errno::BUSY)?);
        Ok(())
    }
}
