//! The latest events, bounded, with a fair share of the room for each tenant.

use std::collections::HashMap;
use std::sync::Arc;

use palisade_units::TenantId;

use crate::numbers::index;
use crate::{Clock, Event, EventKind, Events, Sequence, Timestamp};

/// Stands where no entry follows.
const END: u32 = u32::MAX;

/// An event, in the chain of its tenant's events.
struct Entry {
    event: Event,
    following: u32,
}

impl Entry {
    /// What stands in a place before an event does.
    const NONE: Self = Self {
        event: Event {
            sequence: Sequence::FIRST,
            at: Timestamp::ZERO,
            tenant: None,
            kind: EventKind::SetClosed,
        },
        following: END,
    };
}

/// The events of one tenant, or those of nobody, oldest first.
struct Share {
    tenant: Option<TenantId>,
    oldest: u32,
    newest: u32,
    len: u32,
}

/// The latest events. Once there is no room, a tenant with its share of it or more drops its own oldest,
/// and another one takes room from who has more than a share: whoever makes events at will, by being
/// refused or by faults, does not push out what happened to others.
pub(crate) struct Log {
    entries: Vec<Entry>,
    capacity: usize,
    /// The room divided by those that have events in it.
    fair: u32,
    /// Those that have events in the log.
    shares: Vec<Share>,
    share_of: HashMap<Option<TenantId>, u32>,
    /// The share that the last event went to.
    recent: u32,
    /// Where the search for somebody with more than a share goes on.
    hand: u32,
    next: u64,
    clock: Arc<dyn Clock>,
}

impl Log {
    pub(crate) fn new(capacity: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            entries: Vec::new(),
            capacity: capacity.min(index(END) - 1),
            fair: 0,
            shares: Vec::new(),
            share_of: HashMap::new(),
            recent: 0,
            hand: 0,
            next: 0,
            clock,
        }
    }

    /// Writes an event down and says when it was.
    #[expect(
        clippy::inline_always,
        reason = "an event that is passed on is put together of small parts and then copied in large ones, \
                  for which a processor waits until its stores are done"
    )]
    #[inline(always)]
    pub(crate) fn push(&mut self, tenant: Option<TenantId>, kind: EventKind) -> Timestamp {
        let sequence = Sequence::new(self.next);
        self.next += 1;
        let at = self.clock.now();
        if let Some(entry) = self.room(tenant) {
            entry.following = END;
            entry.event = Event {
                sequence,
                at,
                tenant,
                kind,
            };
        }
        at
    }

    /// How many events were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.next - self.len()
    }

    /// The events from one on, in no order: to put them in one is for who holds no lock any more.
    pub(crate) fn since(&self, first: Sequence) -> Events {
        let asked = self.next.saturating_sub(first.get());
        let mut events = Vec::new();
        // Who follows asks mostly for what is not there yet.
        if asked > 0 {
            let entries = self.entries.iter().map(|entry| entry.event);
            events.extend(entries.filter(|event| event.sequence >= first));
        }
        let found = u64::try_from(events.len()).unwrap_or(u64::MAX);
        Events {
            events,
            dropped: asked.saturating_sub(found),
            next: Sequence::new(self.next),
        }
    }

    fn len(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    /// A place for a tenant's event, at the end of the chain of its events.
    #[inline(never)]
    fn room(&mut self, tenant: Option<TenantId>) -> Option<&mut Entry> {
        if self.capacity == 0 {
            return None;
        }
        let recent = self.shares.get(index(self.recent));
        if recent.is_none_or(|share| share.tenant != tenant) {
            self.recent = self.share(tenant);
        }
        let at = self.recent;
        let share = self.shares.get_mut(index(at))?;
        let is_full = self.entries.len() == self.capacity;
        if is_full && share.len > 0 && share.len >= self.fair {
            // Its oldest event makes room for its newest.
            let place = share.oldest;
            if share.len > 1 {
                share.oldest = self.entries.get(index(place))?.following;
                self.entries.get_mut(index(share.newest))?.following = place;
                share.newest = place;
            }
            return self.entries.get_mut(index(place));
        }
        if is_full {
            let place = self.take_from_another()?;
            // Shares may have moved.
            let at = self.share(tenant);
            return self.append(at, place);
        }
        self.entries.push(Entry::NONE);
        let place = u32::try_from(self.entries.len() - 1).ok()?;
        self.append(at, place)
    }

    /// Puts a place at the end of a share's chain.
    #[inline]
    fn append(&mut self, share: u32, place: u32) -> Option<&mut Entry> {
        let share = self.shares.get_mut(index(share))?;
        if share.len == 0 {
            share.oldest = place;
        } else {
            self.entries.get_mut(index(share.newest))?.following = place;
        }
        share.newest = place;
        share.len += 1;
        self.entries.get_mut(index(place))
    }

    /// The share of a tenant, made if it has none.
    fn share(&mut self, tenant: Option<TenantId>) -> u32 {
        let fresh = u32::try_from(self.shares.len()).unwrap_or(END);
        let at = *self.share_of.entry(tenant).or_insert(fresh);
        if at == fresh {
            self.shares.push(Share {
                tenant,
                oldest: END,
                newest: END,
                len: 0,
            });
            self.divide();
        }
        at
    }

    /// Drops the oldest event of somebody with more than a fair share of a full log, and says where it
    /// was. There is such a one while another has less.
    fn take_from_another(&mut self) -> Option<u32> {
        let shares = u32::try_from(self.shares.len()).ok()?;
        for _ in 0..shares {
            self.hand = (self.hand + 1) % shares;
            if self.shares.get(index(self.hand))?.len > self.fair {
                break;
            }
        }
        let share = self.shares.get_mut(index(self.hand))?;
        let place = share.oldest;
        share.len = share.len.checked_sub(1)?;
        share.oldest = self.entries.get(index(place))?.following;
        if share.len == 0 {
            self.forget(self.hand);
        }
        Some(place)
    }

    /// Takes a share away that has no event left.
    fn forget(&mut self, at: u32) {
        let gone = self.shares.swap_remove(index(at));
        self.share_of.remove(&gone.tenant);
        if let Some(moved) = self.shares.get(index(at)) {
            self.share_of.insert(moved.tenant, at);
        }
        self.recent = 0;
        self.divide();
    }

    fn divide(&mut self) {
        let fair = self.capacity / self.shares.len().max(1);
        self.fair = u32::try_from(fair).unwrap_or(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoClock;
    use proptest::prelude::*;

    fn log(capacity: usize) -> Log {
        Log::new(capacity, Arc::new(NoClock))
    }

    fn push(log: &mut Log, tenant: u32) {
        log.push(Some(TenantId::new(tenant)), EventKind::SetClosed);
    }

    fn in_order(log: &Log) -> Vec<Event> {
        log.since(Sequence::FIRST).in_order().events
    }

    fn kept(log: &Log, tenant: u32) -> Vec<u64> {
        let events = in_order(log).into_iter();
        let its = events.filter(|event| event.tenant == Some(TenantId::new(tenant)));
        its.map(|event| event.sequence.get()).collect()
    }

    #[test]
    fn r67_a_tenants_storm_pushes_out_its_own_events_only() {
        let mut log = log(8);
        push(&mut log, 1);
        push(&mut log, 2);
        for _ in 0..100 {
            push(&mut log, 3);
        }
        assert_eq!((kept(&log, 1), kept(&log, 2)), (vec![0], vec![1]));
        assert_eq!(kept(&log, 3), [96, 97, 98, 99, 100, 101]);
        push(&mut log, 1);
        assert_eq!(kept(&log, 1), [0, 102], "below its share: room is made");
        assert_eq!(kept(&log, 3).len(), 5);
        assert_eq!(log.dropped(), 103 - 8);
    }

    #[test]
    fn with_more_tenants_than_room_the_latest_ones_have_it() {
        let mut log = log(2);
        (1..=5).for_each(|tenant| push(&mut log, tenant));
        let left: Vec<Vec<u64>> = (1..=5).map(|tenant| kept(&log, tenant)).collect();
        assert_eq!(left.concat().len(), 2);
        assert_eq!(kept(&log, 5), [4]);
        assert_eq!(log.shares.len(), log.share_of.len());
    }

    proptest! {
        #[test]
        fn the_log_is_full_in_order_and_nobody_loses_below_a_share(
            capacity in 1..12_usize, pushes in prop::collection::vec(0..5u32, 0..200)
        ) {
            let mut log = log(capacity);
            let mut model: Vec<(u64, u32)> = Vec::new();
            for (sequence, tenant) in (0_u64..).zip(pushes) {
                push(&mut log, tenant);
                model.push((sequence, tenant));
                let mut has: Vec<u32> = model.iter().map(|one| one.1).collect();
                has.sort_unstable();
                has.dedup();
                let found: Vec<(u64, u32)> = in_order(&log).iter()
                    .map(|event| (event.sequence.get(), event.tenant.map_or(9, TenantId::get)))
                    .collect();
                if model.len() > capacity {
                    // One is dropped: the oldest of somebody who had at least a share.
                    let gone: Vec<_> = model.iter().filter(|one| !found.contains(one)).copied().collect();
                    prop_assert_eq!(gone.len(), 1);
                    let (_, of) = gone[0];
                    let its: Vec<_> = model.iter().filter(|one| one.1 == of).collect();
                    prop_assert_eq!(its[0], &gone[0], "the oldest");
                    let fair = capacity / has.len();
                    prop_assert!(its.len() > fair, "{} of {}", its.len(), fair);
                    model.retain(|one| *one != gone[0]);
                }
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(log.share_of.len(), log.shares.len());
                prop_assert!(log.shares.iter().all(|share| share.len > 0));
            }
        }
    }
}
