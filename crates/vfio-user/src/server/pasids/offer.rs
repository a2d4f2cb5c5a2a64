use std::{fmt, os::fd::OwnedFd, sync::Arc};

use super::late::{InvalidationDone, RequestReply};
use crate::wire::pasid::{Invalidation, PasidCapability, RequestAbi};

/// What a server offers of the extension. Whoever does not name the extension sees nothing of it.
#[derive(Clone, Default)]
pub struct PasidOffer {
    /// How many bits the device's PASIDs have, and how much it asks at a time; `requests` is passed over.
    pub limits: PasidCapability,
    /// What keeps translations. Without it none is asked for.
    pub cache: Option<Arc<dyn TranslationCache>>,
    /// What does the container's requests. Without it they are refused.
    pub requests: Option<Arc<dyn ContainerRequests>>,
}

impl PasidOffer {
    /// What is agreed with a client that proposes this.
    pub(crate) fn agree(&self, proposed: &PasidCapability) -> PasidCapability {
        let own = PasidCapability {
            // Less than this is no agreement.
            width: self.limits.width.max(1),
            max_commands: self.limits.max_commands.max(1),
            max_invalidations: match self.cache {
                Some(_) => self.limits.max_invalidations,
                None => 0,
            },
            // Which form is spoken is the client's choice.
            requests: self.requests.as_ref().map(|_| RequestAbi::V1),
            ..self.limits
        };
        own.and(proposed)
    }
}

impl fmt::Debug for PasidOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasidOffer")
            .field("limits", &self.limits)
            .field("cache", &self.cache.is_some())
            .field("requests", &self.requests.is_some())
            .finish()
    }
}

/// A device that keeps translations which its VMM gave (PCIe 10.3).
pub trait TranslationCache: Send + Sync {
    /// Forget these. The device says so to `done`, from any thread, once no access uses them any more and every
    /// write that did has been done.
    ///
    /// Called by the connection's thread, which takes in no answer meanwhile: who waits here for an access that
    /// waits for the VMM waits in vain. Answers that came before and are not kept yet are told apart by
    /// [`crate::PeerHandle::is_current`].
    fn invalidate(&self, what: Invalidation, done: InvalidationDone);
}

/// The container's requests, for VMMs that make them on the device's connection.
pub trait ContainerRequests: Send + Sync {
    /// A VMM makes requests of this form from now on. What it took goes back when the session is dropped, which
    /// is when the connection ends.
    fn connect(&self, abi: RequestAbi) -> Box<dyn RequestSession>;
}

/// The number of a request, as a call of `ioctl` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestNumber(u32);

impl RequestNumber {
    /// The request with this number, whether or not there is one.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// What a request came to.
#[derive(Clone, Debug, Default)]
pub struct RequestAnswer {
    /// What the call returns.
    pub value: i32,
    /// What the argument begins with from now on; nothing where it stays as it was.
    pub written: Vec<u8>,
    /// What goes back beside the bytes.
    pub descriptors: Vec<Arc<OwnedFd>>,
}

/// The requests of one connection.
pub trait RequestSession: Send {
    /// Does what a request says, and tells `reply` what came of it, at once or later from any thread.
    ///
    /// Called by the connection's thread, which takes in no answer meanwhile: a request that waits for accesses
    /// which wait for the VMM is to be done on another one.
    fn request(
        &mut self,
        number: RequestNumber,
        argument: &[u8],
        descriptors: Vec<OwnedFd>,
        reply: RequestReply,
    );
}
