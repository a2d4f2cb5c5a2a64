//! Who is behind a descriptor, and what it may do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use palisade_ioasid::Hold;
use palisade_iommu::{Ats, Privilege};
use palisade_units::{GuestPasid, PasidTag};

use crate::spec::{Descriptor, ErrorCode, SoftwareError, Status};
use crate::tally::{Settled, Tally, Until};

/// Whether something that the configuration or a capability may turn on is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is off.
    Off,
    /// It is on.
    On,
}

impl Switch {
    pub(crate) const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// What requests carry: the tag, and the reference that keeps its PASID from being given out again.
///
/// A function with an exclusive owner has tags that nobody holds: its own table decides what they
/// mean, and its entries hold their PASIDs.
#[derive(Debug)]
pub struct Identity {
    /// The PASID of the requests; `None`: they carry none.
    pub tag: Option<PasidTag>,
    /// The reference to it.
    pub hold: Option<Hold>,
}

/// The driver's side of a queue: who hears of errors and interrupts. Engines call it while they hold
/// no lock of the accelerator; it must not wait for work of the accelerator.
pub trait Client: Send + Sync {
    /// Something went wrong that no completion record tells.
    fn software_error(&self, error: SoftwareError);

    /// A descriptor that asked for it completed.
    fn interrupt(&self, handle: u16);

    /// Whether descriptors of this session may ask for this interrupt.
    fn may_interrupt(&self, handle: u16, session: &Session) -> bool;

    /// Whether the function may send page requests now.
    fn page_requests(&self) -> Switch;

    /// Whether the function asks for translations and keeps them, or leaves translating to the platform.
    fn ats(&self) -> Ats;
}

/// What a queue was configured for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The queue's number, as the client knows it.
    pub number: u8,
    /// How many descriptors may be submitted and not finished.
    pub capacity: u16,
    /// Whether descriptors may ask to wait for pages.
    pub block_on_fault: Switch,
    /// Whether its requests may use what the function has of ATS: translations, and so page requests.
    pub ats: Switch,
    /// Whether descriptors of a shared queue may be privileged.
    pub privileged: Switch,
    /// The largest transfer of a descriptor.
    pub max_transfer_bytes: u64,
    /// The largest number of descriptors in a batch.
    pub max_batch: u32,
}

impl Rules {
    /// How a shared queue does a descriptor. One that may not be privileged is refused, by a record that is written without
    /// privilege.
    pub(crate) fn privilege_of(&self, descriptor: &Descriptor) -> Privilege {
        if descriptor.is_privileged() && self.privileged.is_on() {
            Privilege::Privileged
        } else {
            Privilege::User
        }
    }
}

/// One PASID's use of a shared queue: what a drain or an abort by PASID is about.
#[derive(Default)]
pub struct PasidUse {
    pub(crate) tally: Tally,
    aborted: AtomicBool,
}

/// One identity's use of a queue: that of a dedicated queue while it is enabled, that of a
/// descriptor on a shared one.
pub struct Session {
    pub(crate) identity: Identity,
    pub(crate) privilege: Privilege,
    /// The PASID as the client knows it.
    pub(crate) name: Option<GuestPasid>,
    pub(crate) rules: Rules,
    pub(crate) client: Arc<dyn Client>,
    pub(crate) pasid_use: Option<Arc<PasidUse>>,
}

impl Session {
    /// A session of requests with this identity.
    #[must_use]
    pub fn new(
        identity: Identity,
        privilege: Privilege,
        name: Option<GuestPasid>,
        rules: Rules,
        client: Arc<dyn Client>,
    ) -> Self {
        Self {
            identity,
            privilege,
            name,
            rules,
            client,
            pasid_use: None,
        }
    }

    /// The same session, counted among a PASID's uses of a shared queue.
    #[must_use]
    pub fn counted_in(self, pasid_use: Arc<PasidUse>) -> Self {
        Self {
            pasid_use: Some(pasid_use),
            ..self
        }
    }

    /// What its requests carry.
    #[must_use]
    pub fn tag(&self) -> Option<PasidTag> {
        self.identity.tag
    }

    /// The PASID as the client knows it; `None` for requests without one.
    #[must_use]
    pub fn name(&self) -> Option<GuestPasid> {
        self.name
    }

    /// Whether requests ask for translations.
    pub(crate) fn ats(&self) -> Ats {
        if self.rules.ats.is_on() {
            self.client.ats()
        } else {
            Ats::Off
        }
    }

    /// Whether requests may ask for pages.
    pub(crate) fn may_ask(&self) -> bool {
        self.rules.ats.is_on() && self.client.page_requests().is_on()
    }

    /// Whether a descriptor is privileged though the function may not send privileged requests. That of a dedicated queue
    /// does not say: its queue does.
    pub(crate) fn refuses_privilege(&self, descriptor: &Descriptor) -> bool {
        let shared = self.pasid_use.is_some();
        shared && descriptor.is_privileged() && !self.rules.privileged.is_on()
    }

    /// The software error of a status, with what is known of the session.
    pub(crate) fn error(&self, status: Status) -> SoftwareError {
        SoftwareError {
            pasid: self.name.map_or(0, GuestPasid::get),
            privileged: self.privilege == Privilege::Privileged,
            write: status.on_write(),
            ..SoftwareError::at_portal(ErrorCode::from(status), self.rules.number)
        }
    }
}

impl PasidUse {
    /// How many of its descriptors are not finished.
    pub(crate) fn pending(&self) -> u64 {
        self.tally.pending()
    }

    /// As [`Lane::when_idle`](crate::Lane::when_idle), for the work of the one PASID.
    pub(crate) fn when_idle(&self, callback: impl FnOnce() + Send + 'static) {
        self.tally.when_idle(Box::new(callback));
    }

    /// As [`Lane::settle`](crate::Lane::settle), for the work of the one PASID.
    pub(crate) fn settle(&self, patience: Duration) -> Settled {
        self.tally.settle(patience)
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Engines drop its work from now on.
    pub(crate) fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
    }

    /// Waits, after an abort, for what engines have in hand.
    pub(crate) fn wait_until_idle(&self) {
        self.tally.wait(Until::Idle, None);
    }
}
