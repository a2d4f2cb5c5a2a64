use palisade_iommu::Cached;
use palisade_units::{Bdf, GuestPasid};

use crate::spec::DomainId;
use crate::spec::descriptor::{FunctionMask, PageRange};

/// Which tables are to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableScope {
    /// Those of every function.
    All,
    /// Those of some functions.
    Functions(Bdf, FunctionMask),
    /// The entries of a domain.
    Domain(DomainId),
    /// The entries of one PASID in a domain.
    Pasid(DomainId, GuestPasid),
}

/// Which translations are to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheScope {
    /// All.
    All,
    /// Those of a domain.
    Domain(DomainId),
    /// Those of a domain's second stage in a range, and all of its first stages (VT-d §6.5.2.3).
    PagesOfDomain(DomainId, PageRange),
    /// Those of a function, whatever the PASID.
    Function(Bdf),
    /// Those of a function's requests without a PASID, in a range.
    WithoutPasid(Bdf, PageRange),
    /// Those of a PASID in a domain, on every function, in a range.
    PasidOfDomain(DomainId, GuestPasid, PageRange),
    /// Those of a PASID on one function, in a range.
    Pasid(Bdf, GuestPasid, PageRange),
}

/// What was asked for since the last wait descriptor. The same thing is kept once.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) tables: Vec<TableScope>,
    pub(crate) caches: Vec<(CacheScope, Cached)>,
}

impl Pending {
    /// How much is kept before it must be done.
    const CAPACITY: usize = 64;

    pub(crate) fn of_tables(scope: TableScope) -> Self {
        Self {
            tables: vec![scope],
            caches: Vec::new(),
        }
    }

    pub(crate) fn of_caches(scope: CacheScope, cached: Cached) -> Self {
        Self {
            tables: Vec::new(),
            caches: vec![(scope, cached)],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.caches.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.tables.len() >= Self::CAPACITY || self.caches.len() >= Self::CAPACITY
    }

    pub(crate) fn tables(&mut self, scope: TableScope) {
        if self.tables.contains(&TableScope::All) || self.tables.contains(&scope) {
            return;
        }
        if scope == TableScope::All {
            self.tables.clear();
        }
        self.tables.push(scope);
    }

    pub(crate) fn caches(&mut self, scope: CacheScope, cached: Cached) {
        let all = (CacheScope::All, cached);
        if self.caches.contains(&all) || self.caches.contains(&(scope, cached)) {
            return;
        }
        if scope == CacheScope::All {
            self.caches.retain(|(_, other)| *other != cached);
        }
        self.caches.push((scope, cached));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_is_kept_once_and_everything_takes_the_place_of_all() {
        let pasid = |raw| TableScope::Pasid(DomainId::new(1), GuestPasid::new(raw).unwrap());
        let mut pending = Pending::default();
        pending.tables(pasid(1));
        pending.tables(pasid(2));
        pending.tables(pasid(1));
        assert_eq!(pending.tables, [pasid(1), pasid(2)]);
        pending.tables(TableScope::All);
        pending.tables(pasid(3));
        assert_eq!(pending.tables, [TableScope::All]);

        let function = CacheScope::Function(Bdf::new(0, 1, 0));
        pending.caches(function, Cached::InDevices);
        pending.caches(function, Cached::InUnit);
        pending.caches(CacheScope::All, Cached::InUnit);
        pending.caches(function, Cached::InUnit);
        let expected = [
            (function, Cached::InDevices),
            (CacheScope::All, Cached::InUnit),
        ];
        assert_eq!(pending.caches, expected);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut pending = Pending::default();
        for raw in 0..64 {
            assert!(!pending.is_full());
            let pasid = GuestPasid::new(raw).unwrap();
            pending.tables(TableScope::Pasid(DomainId::new(1), pasid));
        }
        assert!(pending.is_full());
    }
}
