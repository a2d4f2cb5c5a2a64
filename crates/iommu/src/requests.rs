use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use palisade_units::{Bdf, GuestPasid, PasidTag};

use crate::entry::UserId;
use crate::error::locked;
use crate::report::{GroupIndex, PageWaiter, Sink};

/// How many page requests of one tag may wait for their answers.
const OPEN_PER_TAG: usize = 64;

/// The page requests of one function that wait for their answers.
///
/// Group indexes are unique within a guest function: each has all 512 of its own, so one tenant's
/// requests leave another's alone.
#[derive(Default)]
pub(crate) struct Requests(Mutex<State>);

#[derive(Default)]
struct State {
    tags: HashMap<Option<PasidTag>, BTreeMap<GroupIndex, Open>>,
    groups: HashMap<UserId, Groups>,
    next_serial: u64,
}

struct Open {
    user: UserId,
    serial: u64,
    waiter: PageWaiter,
}

/// The group indexes of one guest function.
struct Groups {
    used: [u64; GroupIndex::COUNT as usize / 64],
    /// Where the search goes on, so that an index rests for as long as possible between two uses.
    next: u16,
}

impl Groups {
    const NEW: Self = Self {
        used: [0; GroupIndex::COUNT as usize / 64],
        next: 0,
    };

    fn bit(group: GroupIndex) -> (usize, u64) {
        (usize::from(group.get() / 64), 1 << (group.get() % 64))
    }

    /// Takes a free index that is not among `others`.
    fn take(&mut self, others: &BTreeMap<GroupIndex, Open>) -> Option<GroupIndex> {
        let order = (0..GroupIndex::COUNT).map(|n| GroupIndex::new(self.next.wrapping_add(n)));
        let free = |group: &GroupIndex| {
            let (word, bit) = Self::bit(*group);
            self.used[word] & bit == 0 && !others.contains_key(group)
        };
        let group = order.into_iter().find(free)?;
        let (word, bit) = Self::bit(group);
        self.used[word] |= bit;
        self.next = group.get() + 1;
        Some(group)
    }

    fn give_back(&mut self, group: GroupIndex) {
        let (word, bit) = Self::bit(group);
        self.used[word] &= !bit;
    }
}

/// Who is to answer a page request, with the names that they know. Holds no PASID.
pub(crate) struct Receiver {
    pub(crate) user: UserId,
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) bdf: Bdf,
    pub(crate) pasid: Option<GuestPasid>,
}

/// A page request that was taken.
pub(crate) struct Opened {
    pub(crate) group: GroupIndex,
    pub(crate) to: Receiver,
    /// Tells it from a later one of the same group.
    pub(crate) serial: u64,
}

/// A page request that was not taken, with its waiter.
pub(crate) enum NotOpened {
    /// Nothing is bound to the tag.
    Unbound,
    /// Too many wait already.
    Full(PageWaiter),
}

impl Requests {
    /// Takes a page request, if `receiver` finds the tag bound.
    ///
    /// The look-up happens under the lock: an unbind first takes the entry away and then, under the
    /// lock, the tag's requests. So a request is either refused here or found there.
    pub(crate) fn open(
        &self,
        tag: Option<PasidTag>,
        waiter: PageWaiter,
        receiver: impl FnOnce() -> Option<Receiver>,
    ) -> Result<Opened, NotOpened> {
        let mut state = locked(&self.0);
        let State {
            tags,
            groups,
            next_serial,
        } = &mut *state;
        let Some(to) = receiver() else {
            return Err(NotOpened::Unbound);
        };
        let id = to.user;
        // While a tag passes from one user to the next, requests to both may be open: an answer
        // names the tag and the group alone, so they must not share an index.
        let of_tag = tags.entry(tag).or_default();
        if of_tag.len() >= OPEN_PER_TAG {
            return Err(NotOpened::Full(waiter));
        }
        let Some(group) = groups.entry(id).or_insert(Groups::NEW).take(of_tag) else {
            if of_tag.is_empty() {
                tags.remove(&tag);
            }
            return Err(NotOpened::Full(waiter));
        };
        let serial = *next_serial;
        *next_serial = serial.wrapping_add(1);
        of_tag.insert(
            group,
            Open {
                user: id,
                serial,
                waiter,
            },
        );
        Ok(Opened { group, to, serial })
    }

    /// Takes the waiter of a group out: for its answer.
    pub(crate) fn close(&self, tag: Option<PasidTag>, group: GroupIndex) -> Option<PageWaiter> {
        locked(&self.0).remove(tag, group)
    }

    /// Takes the waiter of one request out, unless it was answered in the meantime.
    pub(crate) fn take_back(
        &self,
        tag: Option<PasidTag>,
        group: GroupIndex,
        serial: u64,
    ) -> Option<PageWaiter> {
        let mut state = locked(&self.0);
        let open = state.tags.get(&tag)?.get(&group)?;
        if open.serial != serial {
            return None;
        }
        state.remove(tag, group)
    }

    /// Takes out the waiters of a tag's requests to one user.
    pub(crate) fn close_of_user(&self, tag: Option<PasidTag>, user: UserId) -> Vec<PageWaiter> {
        let mut state = locked(&self.0);
        let Some(open) = state.tags.get(&tag) else {
            return Vec::new();
        };
        let to_user = open.iter().filter(|(_, open)| open.user == user);
        let groups: Vec<GroupIndex> = to_user.map(|(group, _)| *group).collect();
        groups
            .into_iter()
            .filter_map(|group| state.remove(tag, group))
            .collect()
    }

    /// Forgets a user that has left the function, if nothing of it waits.
    pub(crate) fn forget(&self, user: UserId) {
        locked(&self.0).forget(user);
    }

    /// How many wait.
    pub(crate) fn outstanding(&self) -> usize {
        locked(&self.0).tags.values().map(BTreeMap::len).sum()
    }
}

impl State {
    fn remove(&mut self, tag: Option<PasidTag>, group: GroupIndex) -> Option<PageWaiter> {
        let of_tag = self.tags.get_mut(&tag)?;
        let open = of_tag.remove(&group)?;
        if of_tag.is_empty() {
            self.tags.remove(&tag);
        }
        if let Some(groups) = self.groups.get_mut(&open.user) {
            groups.give_back(group);
        }
        Some(open.waiter)
    }

    /// Forgets the group indexes of users without requests.
    fn forget(&mut self, user: UserId) {
        let idle = self
            .groups
            .get(&user)
            .is_some_and(|groups| groups.used == Groups::NEW.used);
        if idle {
            self.groups.remove(&user);
        }
    }
}
