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
    capacity: u32,
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
            capacity: u32::try_from(capacity).unwrap_or(END).min(END - 1),
            shares: Vec::new(),
            share_of: HashMap::new(),
            recent: 0,
            hand: 0,
            next: 0,
            clock,
        }
    }

    /// Writes an event down and says when it was.
    pub(crate) fn push(&mut self, tenant: Option<TenantId>, kind: EventKind) -> Timestamp {
        let sequence = Sequence::new(self.next);
        self.next += 1;
        let at = self.clock.now();
        if self.capacity > 0 {
            let event = Event {
                sequence,
                at,
                tenant,
                kind,
            };
            self.keep(event);
        }
        at
    }

    /// How many events were dropped since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.next - self.len()
    }

    pub(crate) fn since(&self, first: Sequence) -> Events {
        let asked = self.next.saturating_sub(first.get());
        let entries = self.entries.iter().map(|entry| entry.event);
        let mut events: Vec<Event> = entries.filter(|event| event.sequence >= first).collect();
        events.sort_unstable_by_key(|event| event.sequence);
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

    fn keep(&mut self, event: Event) {
        let share = self.share(event.tenant);
        let entry = Entry {
            event,
            following: END,
        };
        let kept = u32::try_from(self.entries.len()).unwrap_or(END);
        let at = if kept < self.capacity {
            self.entries.push(entry);
            kept
        } else {
            let at = self.make_room(share);
            self.entries[index(at)] = entry;
            at
        };
        let share = &mut self.shares[index(share)];
        if share.len == 0 {
            share.oldest = at;
        } else {
            self.entries[index(share.newest)].following = at;
        }
        share.newest = at;
        share.len += 1;
        self.forget_empty();
    }

    /// The share of a tenant, made if it has none.
    fn share(&mut self, tenant: Option<TenantId>) -> u32 {
        let recent = self.shares.get(index(self.recent));
        if recent.is_none_or(|share| share.tenant != tenant) {
            let fresh = u32::try_from(self.shares.len()).unwrap_or(END);
            self.recent = *self.share_of.entry(tenant).or_insert(fresh);
            if self.recent == fresh {
                self.shares.push(Share {
                    tenant,
                    oldest: END,
                    newest: END,
                    len: 0,
                });
            }
        }
        self.recent
    }

    /// Drops an event of a full log, for one that goes to a share, and says where it was.
    fn make_room(&mut self, pusher: u32) -> u32 {
        let shares = u32::try_from(self.shares.len()).unwrap_or(END).max(1);
        let fair = self.capacity / shares;
        let own = self.shares[index(pusher)].len;
        let from = if own > 0 && own >= fair {
            pusher
        } else {
            self.beyond(fair)
        };
        let share = &mut self.shares[index(from)];
        let at = share.oldest;
        share.len -= 1;
        share.oldest = self.entries[index(at)].following;
        at
    }

    /// Somebody with more than so many events. There is one in a full log while another has fewer.
    fn beyond(&mut self, fair: u32) -> u32 {
        let shares = u32::try_from(self.shares.len()).unwrap_or(END).max(1);
        for _ in 0..shares {
            self.hand = (self.hand + 1) % shares;
            if self.shares[index(self.hand)].len > fair {
                break;
            }
        }
        self.hand
    }

    /// A share from which the last event was taken goes. Only the one under the hand can be such.
    fn forget_empty(&mut self) {
        let hand = index(self.hand);
        if self.shares.get(hand).is_some_and(|share| share.len == 0) {
            let gone = self.shares.swap_remove(hand);
            self.share_of.remove(&gone.tenant);
            if let Some(moved) = self.shares.get(hand) {
                self.share_of.insert(moved.tenant, self.hand);
            }
            self.recent = 0;
        }
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

    fn kept(log: &Log, tenant: u32) -> Vec<u64> {
        let events = log.since(Sequence::FIRST).events.into_iter();
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
                let found: Vec<(u64, u32)> = log.since(Sequence::FIRST).events.iter()
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
