//! PASIDs that the driver freed and left where it had programmed them (R72, R74).
//!
//! On the host where they were programmed the function holds what they meant, so that the number is not given out
//! again, and work by them fails. On another host there is nothing to hold: a state says which PASIDs are such, so that
//! they are not mistaken for those whose unit is yet to be restored.
//!
//! A dedicated queue and an entry of the permission table keep what the PASID meant when it entered, even when the driver
//! uses the number again. Descriptors of a shared queue are told apart by number alone: work that was queued before the
//! driver freed a number and used it again goes on elsewhere by what the number means by then, of the same driver's.

use std::collections::BTreeSet;

use palisade_units::{GuestPasid, PasidTag};

use super::command::name_of;
use super::saved::QueueState;
use super::state::State;
use super::{DsaFunction, PasidPolicy};

/// A place where such a PASID was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stale {
    /// An entry of the MSI-X permission table. It allows nothing.
    Permission { vector: u8 },
    /// A queue: its configuration where it is dedicated, descriptors where it is shared. The work fails.
    Queue { number: u8, name: GuestPasid },
}

impl<P: PasidPolicy> DsaFunction<P> {
    /// The PASIDs that mean nothing any more, or something else than when they entered.
    pub(super) fn stale_now(&self, state: &State, queues: &[QueueState]) -> BTreeSet<Stale> {
        if let Some(waiting) = &state.waiting {
            return waiting.stale.clone();
        }
        let mut stale = BTreeSet::new();
        for (vector, (entry, tag)) in (0..=u8::MAX).zip(self.events.permissions()) {
            let name = GuestPasid::new(entry.pasid()).ok();
            if entry.pasid_enable() && name.is_some_and(|name| self.has_changed(name, tag)) {
                stale.insert(Stale::Permission { vector });
            }
        }
        for (number, (words, queue)) in (0..=u8::MAX).zip(state.queues.iter().zip(queues)) {
            let config = words.config();
            if !words.enabled {
                continue;
            }
            if config.mode.dedicated() {
                let name = name_of(&config).ok().flatten();
                let name = name.filter(|name| self.has_changed(*name, words.tag));
                stale.extend(name.map(|name| Stale::Queue { number, name }));
            } else {
                let gone = |name: &GuestPasid| self.policy.meaning_now(*name).is_none();
                let names = queue.names_in_work().filter(gone);
                stale.extend(names.map(|name| Stale::Queue { number, name }));
            }
        }
        stale
    }

    fn has_changed(&self, name: GuestPasid, tag: Option<PasidTag>) -> bool {
        let now = self.policy.meaning_now(name);
        now.is_none() || now != tag
    }
}
