//! How full the queues are (DSA §9.2, WQCFG).

use super::map::{Place, Table};
use super::portal::Target;
use super::saved::Held;
use super::state::State;
use super::{DsaFunction, PasidPolicy};
use crate::spec::{Portal, QueueState, table};
use crate::task::LaneWork;

/// The word of a WQCFG entry that says it.
const STATE_WORD: usize = (table::WQCFG_STATE / 4) as usize;

impl<P: PasidPolicy> DsaFunction<P> {
    /// The word of BAR 0 at an offset, a multiple of 4.
    pub(super) fn read_word(&self, state: &State, offset: u64) -> u32 {
        let word = state.read(offset, &self.events);
        match self.layout.locate(offset) {
            Some((
                Place::Entry {
                    table: Table::Queues,
                    index,
                    word: STATE_WORD,
                },
                _,
            )) => {
                let occupancy = self.occupancy(state, index);
                let queue = QueueState::from_bits(word);
                queue.with_occupancy(occupancy).into_bits()
            }
            _ => word,
        }
    }

    /// How many of the function's own descriptors are on a queue, as its portals count them: they wait for an engine, or for a
    /// page. Those of others who share the queue are not among them.
    fn occupancy(&self, state: &State, index: usize) -> u16 {
        let size = match state.queues.get(index) {
            Some(words) if words.enabled => words.config().size,
            _ => 0,
        };
        let occupied = self.occupied(state, index);
        u16::try_from(occupied).unwrap_or(u16::MAX).min(size)
    }

    /// What has a place, and what was submitted since the function was stopped.
    fn occupied(&self, state: &State, index: usize) -> usize {
        let occupied = match &state.waiting {
            None => self.lanes.get(index).map_or(0, |lane| lane.occupied()),
            Some(waiting) => waiting.work.get(index).map_or(0, LaneWork::len),
        };
        let is_of_queue = |held: &&Held| matches!(held, Held::Descriptor(to, _) if usize::from(to.queue) == index);
        let ahead = state.held.iter().flatten().filter(is_of_queue).count();
        occupied.saturating_add(ahead)
    }

    /// Whether a stopped function's queue takes one more. Where the writer does not learn that, it does.
    pub(super) fn has_room(&self, state: &State, target: Target) -> bool {
        let index = usize::from(target.queue);
        let Some(words) = state.queues.get(index) else {
            return true;
        };
        let config = words.config();
        if !words.enabled || config.mode.dedicated() {
            return true;
        }
        let limit = match target.portal {
            Portal::Limited => config.threshold,
            Portal::Unlimited => config.size,
        };
        self.occupied(state, index) < usize::from(limit)
    }
}
