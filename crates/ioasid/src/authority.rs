use std::panic::resume_unwind;
use std::sync::Arc;

use palisade_units::{Bdf, HostPasid, TenantId};

use crate::log::Log;
use crate::notify::Scope;
use crate::records::Records;
use crate::state::State;
use crate::sync::{Condvar, Mutex, MutexGuard, current};
use crate::{
    Clock, CustomAllocator, EventKind, Events, FaultCode, GroupId, IoasidError, LedgerEntry,
    Listener, NoClock, PasidRange, PasidSet, Priority, Quota, Request, Sequence, Subscription,
};

pub(crate) struct Shared {
    state: Mutex<State>,
    /// The state's own, to be read without its lock.
    records: Arc<Records>,
    /// Signalled when a letter was delivered.
    told: Condvar,
}

impl Shared {
    fn new(state: State) -> Self {
        Self {
            records: Arc::clone(&state.records),
            state: Mutex::new(state),
            told: Condvar::new(),
        }
    }

    /// To look at the state without changing it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Runs one operation and returns after its listeners were told, or, within a listener's call, before.
    pub(crate) fn with<T>(&self, operation: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let before = state.outbox.written();
        let answer = operation(&mut state);
        if state.outbox.written() > before {
            self.tell(state);
        }
        answer
    }

    /// Runs a request of a tenant and notes it if it is refused.
    pub(crate) fn ask<T>(
        &self,
        tenant: TenantId,
        request: Request,
        operation: impl FnOnce(&mut State) -> Result<T, IoasidError>,
    ) -> Result<T, IoasidError> {
        // An error is many times as large as most answers, so it has a way of its own. What stands here
        // first is never seen: without an answer there was an error.
        let mut refusal = IoasidError::Closed { tenant };
        let answer = self.with(|state| match operation(state) {
            Ok(answer) => Some(answer),
            Err(error) => {
                state.refused(Some(tenant), request, error);
                refusal = error;
                None
            }
        });
        answer.ok_or(refusal)
    }

    /// Tells until everything up to now was told. What listeners panic with goes on afterwards.
    fn tell<'a>(&'a self, mut state: MutexGuard<'a, State>) {
        let mut last = state.outbox.written();
        let mut panic = None;
        while state.outbox.delivered < last {
            let me = current().id();
            match state.outbox.teller {
                // A listener's own call: the loop that called the listener goes on with the rest.
                Some(teller) if teller == me => {
                    state.outbox.owed = last;
                    return;
                }
                Some(_) => {
                    self.told.wait(&mut state);
                }
                None => {
                    let Some(letter) = state.outbox.take() else {
                        break;
                    };
                    state.outbox.teller = Some(me);
                    drop(state);
                    let delivered = letter.deliver();
                    panic = panic.or(delivered.err());
                    state = self.lock();
                    state.outbox.teller = None;
                    state.outbox.delivered += 1;
                    self.told.notify_all();
                    last = last.max(state.outbox.owed);
                }
            }
        }
        drop(state);
        // A thread that unwinds already comes by when it drops what it holds. Two panics would end it all.
        if let Some(panic) = panic
            && !std::thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// The host's one namespace of PASIDs. A handle: clones speak of the same namespace.
#[derive(Clone)]
pub struct Authority {
    pub(crate) shared: Arc<Shared>,
}

impl Authority {
    /// A namespace of 2^20 PASIDs of which 0 and those in `reserved` are never given out.
    #[must_use]
    pub fn new(reserved: &[PasidRange]) -> Self {
        Self::with_audit(reserved, Audit::default())
    }

    /// As [`Authority::new`], with a clock for the times of events and a bound for their number.
    #[must_use]
    pub fn with_audit(reserved: &[PasidRange], audit: Audit) -> Self {
        let log = Log::new(audit.kept_events, audit.clock);
        Self {
            shared: Arc::new(Shared::new(State::new(reserved, log))),
        }
    }

    /// Opens the one set of a tenant and reserves its quota from what the host has.
    ///
    /// # Errors
    /// [`IoasidError::Exists`] (EEXIST) when the tenant has a set, also one that was closed and
    /// still has PASIDs held; [`IoasidError::NoCapacity`] (ENOSPC) beyond what is left.
    pub fn create_set(&self, tenant: TenantId, quota: Quota) -> Result<PasidSet, IoasidError> {
        self.create_set_in(GroupId::ROOT, tenant, quota)
    }

    /// As [`Authority::create_set`], below a group: what the set has out is charged to the group and to
    /// those above it.
    ///
    /// # Errors
    /// Those of [`Authority::create_set`], and [`IoasidError::GroupNotFound`] (ENOENT).
    pub fn create_set_in(
        &self,
        group: GroupId,
        tenant: TenantId,
        quota: Quota,
    ) -> Result<PasidSet, IoasidError> {
        let id = self.shared.ask(tenant, Request::CreateSet, |state| {
            state.create_set(tenant, quota, group)
        })?;
        Ok(PasidSet::new(Arc::clone(&self.shared), id, tenant))
    }

    /// How many PASIDs are out, those that are free-pending among them.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.shared.lock().groups.current_of_all()
    }

    /// How many PASIDs are in no set's quota.
    #[must_use]
    pub fn unreserved(&self) -> u32 {
        self.shared.lock().unreserved
    }

    /// Every PASID that is out, in ascending order.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        let mut entries = self.shared.lock().ledger();
        // Not under the lock, for which everybody waits.
        entries.sort_unstable_by_key(|entry| entry.pasid);
        entries
    }

    /// Whose PASID this is. One that is free-pending still belongs to who freed it. Takes no lock and
    /// waits for nobody: one load.
    #[must_use]
    pub fn owner_of(&self, pasid: HostPasid) -> Option<TenantId> {
        self.shared.records.owner(pasid).tenant()
    }

    /// Whether a PASID was freed and waits for its last hold. Takes no lock, as
    /// [`Authority::owner_of`].
    #[must_use]
    pub fn is_free_pending(&self, pasid: HostPasid) -> bool {
        self.shared.records.owner(pasid).is_free_pending()
    }

    /// The events from one on, as far as the log still has them: to follow, ask again with
    /// [`Events::next`]. Allocation, bind, refusal, fault and free are events, among others.
    #[must_use]
    pub fn events_since(&self, first: Sequence) -> Events {
        let found = self.shared.lock().log.since(first);
        // Not under the lock, for which everybody waits.
        found.in_order()
    }

    /// How many events the log has dropped since the start, to make room for later ones.
    #[must_use]
    pub fn events_dropped(&self) -> u64 {
        self.shared.lock().log.dropped()
    }

    /// Notes that the platform refused an access by a PASID, for whom it belongs to at this moment:
    /// who records it keeps a [`Hold`](crate::Hold) or is in the fault's own path. A PASID that
    /// nobody owns is noted as nobody's.
    pub fn record_fault(&self, pasid: HostPasid, place: Bdf, reason: FaultCode) {
        self.shared
            .with(|state| state.faulted(None, (pasid, place), reason));
    }

    /// As [`Authority::record_fault`], where it is known whose access it was: a tenant that uses a PASID of
    /// another, or of nobody, is told of by name.
    pub fn record_fault_of(
        &self,
        tenant: TenantId,
        pasid: HostPasid,
        place: Bdf,
        reason: FaultCode,
    ) {
        self.shared
            .with(|state| state.faulted(Some(tenant), (pasid, place), reason));
    }

    /// Registers an allocator that chooses the numbers. The first one becomes active, the others wait.
    ///
    /// # Errors
    /// [`IoasidError::DefaultAllocatorBusy`] (EAGAIN) while numbers that the default chose are out,
    /// [`IoasidError::AllocatorExists`] (EEXIST).
    pub fn register_allocator(&self, allocator: &CustomAllocator) -> Result<(), IoasidError> {
        self.shared.with(|state| {
            let outstanding = state.groups.current_of_all();
            let answer = state.customs.register(allocator, outstanding);
            let instance = allocator.instance;
            state.done(Request::Allocator, answer, |()| {
                EventKind::AllocatorRegistered { instance }
            })
        })
    }

    /// Takes an allocator away. The next one becomes active, or the default after the last. Its numbers
    /// stay out until they are freed; another with the same operations takes them back then.
    ///
    /// # Errors
    /// [`IoasidError::AllocatorNotFound`] (ENOENT).
    pub fn unregister_allocator(&self, allocator: &CustomAllocator) -> Result<(), IoasidError> {
        self.shared.with(|state| {
            let answer = state.customs.unregister(allocator);
            let instance = allocator.instance;
            state.done(Request::Allocator, answer, |()| {
                EventKind::AllocatorUnregistered { instance }
            })
        })
    }

    /// Tells a listener of every transition from now on, until the subscription is dropped. Those of a
    /// set and those of all sets are told together, by priority.
    pub fn listen(&self, priority: Priority, listener: Arc<dyn Listener>) -> Subscription {
        let weak = Arc::downgrade(&self.shared);
        self.shared.with(|state| {
            state
                .outbox
                .subscribe(weak, Scope::Global, priority, listener)
        })
    }
}

/// How an authority keeps its events.
#[derive(Clone)]
pub struct Audit {
    /// Where their times come from.
    pub clock: Arc<dyn Clock>,
    /// How many are kept. Once that many are, a later one drops the oldest of its own tenant, or of one with
    /// more than a fair share of them.
    pub kept_events: usize,
}

/// How many events are kept where nothing else was asked for.
pub const DEFAULT_KEPT_EVENTS: usize = 4096;

impl Default for Audit {
    fn default() -> Self {
        Self {
            clock: Arc::new(NoClock),
            kept_events: DEFAULT_KEPT_EVENTS,
        }
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit")
            .field("kept_events", &self.kept_events)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}
