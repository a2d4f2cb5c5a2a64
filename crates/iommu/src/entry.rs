use std::sync::Arc;

use palisade_ioasid::Hold;
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, GuestPasid, TenantId};

use crate::{DeviceTlb, Sink, Space, SupervisorRequests};

/// Who bound an entry: one guest function of one tenant. Unique on the host; the maker sees to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

/// FPD, fault processing disable, of the entries that a request is served by (VT-d §9.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultProcessing {
    /// Faults are recorded.
    #[default]
    Report,
    /// Requests fail, but no record is made.
    Disabled,
}

/// What a PASID of a function is bound to, and who is told of its faults.
#[derive(Clone)]
pub struct Binding {
    /// Who binds.
    pub user: UserId,
    /// How addresses are translated.
    pub space: Space,
    /// The tenant's memory: where the tables stand, and where every translation ends.
    pub memory: GuestMemory,
    /// Who is told of faults and page requests.
    pub sink: Arc<dyn Sink>,
    /// The function, as the guest sees it.
    pub guest_bdf: Bdf,
    /// The PASID, as the guest named it; `None` for requests without one.
    pub guest_pasid: Option<GuestPasid>,
    /// Whether faults are recorded.
    pub fault_disable: FaultProcessing,
    /// Whether the function may have a TLB of its own.
    pub device_tlb: DeviceTlb,
    /// SRE of a space without a first stage; one with it has its own
    /// ([`FirstStage::supervisor`](crate::FirstStage::supervisor)).
    pub supervisor: SupervisorRequests,
}

impl Binding {
    /// Whether privileged requests are refused whatever the tables of the space say. A first stage speaks for
    /// itself.
    pub(crate) const fn supervisor_of_space(&self) -> SupervisorRequests {
        match self.space {
            Space::FirstStage(_) | Space::Nested(..) => SupervisorRequests::Allowed,
            Space::SecondStage(_) | Space::PassThrough => self.supervisor,
        }
    }
}

/// One user's share of an entry. It holds the PASID for as long as the entry stands.
pub(crate) struct User {
    pub(crate) hold: Hold,
    pub(crate) binding: Binding,
}

/// A present entry of a function's PASID table. It never changes: a changed one takes its place.
pub(crate) struct Entry {
    /// Whose memory and sink are in use.
    pub(crate) active: Arc<User>,
    /// Others who bound the same space, in the order in which they take over.
    pub(crate) others: Vec<Arc<User>>,
}

impl Entry {
    pub(crate) fn of(user: User) -> Self {
        Self {
            active: Arc::new(user),
            others: Vec::new(),
        }
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.active.hold.tenant()
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        core::iter::once(&self.active).chain(&self.others)
    }

    pub(crate) fn has_user(&self, user: UserId) -> bool {
        self.users().any(|other| other.binding.user == user)
    }

    /// The entry with one user more, or with that user's share replaced.
    pub(crate) fn with(&self, user: User) -> Self {
        let id = user.binding.user;
        let user = Arc::new(user);
        if self.active.binding.user == id {
            return Self {
                active: user,
                others: self.others.clone(),
            };
        }
        let mut others = self.others.clone();
        match others.iter_mut().find(|other| other.binding.user == id) {
            Some(share) => *share = user,
            None => others.push(user),
        }
        Self {
            active: Arc::clone(&self.active),
            others,
        }
    }

    /// The entry without a user; `None` when nobody is left.
    pub(crate) fn without(&self, user: UserId) -> Option<Self> {
        let mut left = self
            .users()
            .filter(|other| other.binding.user != user)
            .map(Arc::clone);
        let active = left.next()?;
        Some(Self {
            active,
            others: left.collect(),
        })
    }
}
