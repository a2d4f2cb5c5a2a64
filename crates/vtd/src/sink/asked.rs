//! The page request groups that have no answer yet.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use palisade_iommu::GroupIndex;
use palisade_units::{Bdf, GuestPasid};

/// A page request group, as its answer names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) function: Bdf,
    pub(crate) pasid: Option<GuestPasid>,
    pub(crate) index: GroupIndex,
}

/// How many groups are known at once: as many as the largest queue has places for.
pub(crate) const CAPACITY: usize = 1 << 14;
/// How many groups are turned away before it is worth while to look again for those that are over.
const TURNED_AWAY: usize = 1 << 10;

/// The page request groups of a guest that have no answer yet. Whoever waits for an answer is known to
/// the platform alone, which also answers by itself when something is unbound; so a group may be kept
/// here for longer than somebody waits, and its answer is then dropped.
#[derive(Default)]
pub(crate) struct Asked {
    groups: Mutex<Groups>,
    /// Read without the lock by every access to a register.
    any_postponed: AtomicBool,
}

#[derive(Default)]
struct Groups {
    /// Those that the guest has been told of.
    queued: BTreeSet<Group>,
    /// Those of an earlier life of the unit, of which the guest was told then. Nobody waits for them
    /// any more, and the guest is going to answer them.
    of_before: BTreeSet<Group>,
    /// Those that found the queue full.
    postponed: BTreeSet<Group>,
    turned_away: usize,
}

/// What came of opening a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The guest may be told of it.
    New,
    /// The guest still owes the answer to an earlier group of that name.
    Taken,
    /// Too many have no answer.
    Full,
    /// As full, but some may be over: see [`Asked::retain`].
    FullForNow,
}

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// That of a request which may still wait.
    OfNow,
    /// That of a request before the state was restored.
    OfBefore,
}

impl Asked {
    fn groups(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest is about to be told of a group.
    pub(super) fn open(&self, group: Group) -> Opened {
        let mut groups = self.groups();
        if groups.of_before.contains(&group) {
            return Opened::Taken;
        }
        if groups.queued.len() + groups.of_before.len() < CAPACITY {
            groups.queued.insert(group);
            return Opened::New;
        }
        groups.turned_away += 1;
        if groups.turned_away % TURNED_AWAY == 1 {
            Opened::FullForNow
        } else {
            Opened::Full
        }
    }

    /// The guest is not told of a group after all.
    pub(super) fn close(&self, group: Group) {
        self.groups().queued.remove(&group);
    }

    /// The guest has answered a group.
    pub(super) fn answered(&self, group: Group) -> Answered {
        let mut groups = self.groups();
        groups.queued.remove(&group);
        if groups.of_before.remove(&group) {
            Answered::OfBefore
        } else {
            Answered::OfNow
        }
    }

    /// Keeps a group that found the queue full, and says whether there was room for it.
    pub(super) fn postpone(&self, group: Group) -> bool {
        let mut groups = self.groups();
        let room = groups.postponed.len() < CAPACITY;
        if room {
            groups.postponed.insert(group);
            self.any_postponed.store(true, Ordering::Release);
        }
        room
    }

    pub(super) fn has_postponed(&self) -> bool {
        self.any_postponed.load(Ordering::Acquire)
    }

    pub(super) fn take_postponed(&self) -> BTreeSet<Group> {
        let mut groups = self.groups();
        self.any_postponed.store(false, Ordering::Release);
        std::mem::take(&mut groups.postponed)
    }

    /// Forgets the groups that are over.
    pub(super) fn retain(&self, open: impl Fn(&Group) -> bool) {
        self.groups().queued.retain(open);
    }

    /// The groups whose answers the guest owes: whoever takes the guest over has to know them.
    pub(crate) fn owed(&self) -> BTreeSet<Group> {
        let groups = self.groups();
        groups.queued.union(&groups.of_before).copied().collect()
    }

    /// As after power-on, of a guest that owes answers to these.
    pub(crate) fn restart(&self, of_before: BTreeSet<Group>) {
        let mut groups = self.groups();
        self.any_postponed.store(false, Ordering::Release);
        *groups = Groups {
            of_before,
            ..Groups::default()
        };
    }
}
