use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use palisade_units::Bdf;
use palisade_vfio::SpaceKey;

use crate::spec::DomainId;

/// The domain that each entry had when it was bound. What is cached of it stands under that one, whatever the
/// guest's table says since (VT-d §6.2).
#[derive(Default)]
pub(crate) struct Domains(Mutex<BTreeMap<(Bdf, SpaceKey), DomainId>>);

/// Where an entry was before it was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// In the same domain, or nowhere.
    Here,
    /// In another one.
    Moved,
}

impl Domains {
    pub(super) fn note(&self, function: Bdf, key: SpaceKey, domain: DomainId) -> Noted {
        match self.with(|domains| domains.insert((function, key), domain)) {
            Some(before) if before != domain => Noted::Moved,
            _ => Noted::Here,
        }
    }

    pub(super) fn forget(&self, function: Bdf, key: SpaceKey) {
        self.with(|domains| domains.remove(&(function, key)));
    }

    pub(crate) fn clear(&self) {
        self.with(BTreeMap::clear);
    }

    /// Whether what is bound there is of a domain. What was bound while translation was off is of any.
    pub(super) fn may_be(&self, function: Bdf, key: SpaceKey, domain: DomainId) -> bool {
        self.with(|domains| {
            domains
                .get(&(function, key))
                .is_none_or(|has| *has == domain)
        })
    }

    fn with<R>(&self, what: impl FnOnce(&mut BTreeMap<(Bdf, SpaceKey), DomainId>) -> R) -> R {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
