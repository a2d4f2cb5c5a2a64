//! Who is told what becomes of PASIDs, and in which order.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread;

use palisade_units::{GuestPasid, HostPasid, TenantId};

use crate::Data;
use crate::authority::Shared;
use crate::custom::Return;
use crate::sets::SetId;
use crate::sync::{AtomicBool, Ordering, ThreadId};

/// One transition of a PASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Which transition.
    pub kind: Transition,
    /// Whose PASID.
    pub pasid: HostPasid,
    /// What its guest calls it, if it has a name by then.
    pub guest: Option<GuestPasid>,
    /// Whose set it is in.
    pub tenant: TenantId,
    /// What its owner attached to it.
    pub data: Option<Data>,
}

/// A transition that listeners are told of, once each time that it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// A PASID was allocated.
    Alloc,
    /// A PASID was freed. Who holds it should let go: it is free-pending until then.
    Free,
    /// The first entry of a PASID is in a table.
    Bind,
    /// The last entry of a PASID is gone.
    Unbind,
}

/// When a listener is told, beside the others. Equal ones are told in the order of their subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Who keeps the state of a processor.
    Cpu,
    /// Who keeps the state of an IOMMU.
    Iommu,
    /// Who keeps the state of a device.
    Device,
    /// Who only looks on.
    Last,
}

/// Who wants to be told. The authority is not locked during a call, so a listener may use it: what that
/// makes happen is told after everything that happened before.
///
/// A call that changes something returns after its listeners were told. So neither does a listener wait
/// for another thread that uses the authority, nor does anyone use the authority while keeping what a
/// listener waits for.
///
/// Where a listener panics, the others are told nevertheless and what was asked for is done. Then the panic goes
/// on in the call that told.
pub trait Listener: Send + Sync {
    /// Tells of one transition.
    fn notify(&self, notification: &Notification);
}

/// What a chain listens to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Global,
    Set(SetId),
}

pub(crate) struct Entry {
    scope: Scope,
    priority: Priority,
    listener: Arc<dyn Listener>,
    is_subscribed: AtomicBool,
}

/// A listener's place in a chain. Dropping it ends the subscription: no call begins after that, though
/// one that another thread is in may still run.
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    shared: Weak<Shared>,
    entry: Arc<Entry>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.entry.is_subscribed.store(false, Ordering::SeqCst);
        if let Some(shared) = self.shared.upgrade() {
            shared.with(|state| state.outbox.unsubscribe(&self.entry));
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subscription({:?})", self.entry.priority)
    }
}

/// What is to be told once the authority is not locked.
pub(crate) enum Letter {
    /// A transition, to those who were subscribed when it happened.
    Transition {
        notification: Notification,
        readers: Vec<Arc<Entry>>,
    },
    /// A number that its allocator gets back.
    Return(Return),
}

impl Letter {
    /// The authority is not locked.
    ///
    /// # Errors
    /// What the first of them panicked with that did. The others were told nevertheless.
    pub(crate) fn deliver(self) -> thread::Result<()> {
        match self {
            Self::Transition {
                notification,
                readers,
            } => {
                let told = readers.into_iter().map(|entry| {
                    contained(|| {
                        if entry.is_subscribed.load(Ordering::SeqCst) {
                            entry.listener.notify(&notification);
                        }
                        drop(entry);
                    })
                });
                told.fold(Ok(()), thread::Result::and)
            }
            Self::Return(back) => contained(|| back.deliver()),
        }
    }
}

/// Runs code that is not ours, whose panic is for later.
fn contained(code: impl FnOnce()) -> thread::Result<()> {
    // What it leaves broken is its own: nothing of the authority's is in its hands.
    catch_unwind(AssertUnwindSafe(code))
}

/// What waits to be told, oldest first. One thread tells at a time, one letter at a time.
#[derive(Default)]
pub(crate) struct Outbox {
    /// By priority, then by age.
    entries: Vec<Arc<Entry>>,
    letters: VecDeque<Letter>,
    written: u64,
    pub(crate) delivered: u64,
    pub(crate) teller: Option<ThreadId>,
    /// How many letters there were when a listener's own call last left some to its teller.
    pub(crate) owed: u64,
}

impl Outbox {
    pub(crate) fn subscribe(
        &mut self,
        shared: Weak<Shared>,
        scope: Scope,
        priority: Priority,
        listener: Arc<dyn Listener>,
    ) -> Subscription {
        let entry = Arc::new(Entry {
            scope,
            priority,
            listener,
            is_subscribed: AtomicBool::new(true),
        });
        let at = self.entries.partition_point(|e| e.priority <= priority);
        self.entries.insert(at, Arc::clone(&entry));
        Subscription { shared, entry }
    }

    fn unsubscribe(&mut self, entry: &Arc<Entry>) {
        self.entries.retain(|other| !Arc::ptr_eq(other, entry));
    }

    pub(crate) fn has_listeners(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Writes to those who listen now, and to nobody who comes later.
    pub(crate) fn write(&mut self, set: SetId, notification: Notification) {
        let listens = |entry: &&Arc<Entry>| match entry.scope {
            Scope::Global => true,
            Scope::Set(one) => one == set,
        };
        let readers: Vec<_> = self.entries.iter().filter(listens).cloned().collect();
        if readers.is_empty() {
            return;
        }
        self.post(Letter::Transition {
            notification,
            readers,
        });
    }

    pub(crate) fn post(&mut self, letter: Letter) {
        self.written += 1;
        self.letters.push_back(letter);
    }

    /// How many letters there were until now.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn take(&mut self) -> Option<Letter> {
        self.letters.pop_front()
    }
}
