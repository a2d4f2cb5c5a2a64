//! Makes the container's bindings follow the guest's tables (VT-d §6.5.3.3).
//!
//! The tables are read afresh for what an invalidation names, and nothing of them is remembered: the
//! container alone knows what is bound. One PASID costs a few reads for each function; everything costs
//! what is present.

use palisade_iommu::{Cached, IommuError, LookedUp, MayWait, Space};
use palisade_units::{Bdf, GuestPasid};
use palisade_vfio::{GuestScope, SpaceKey, Terms, VfioError};

use crate::Unit;
use crate::queue::Budget;
use crate::registers::TranslationState;
use crate::spec::DomainId;
use crate::spec::command::TranslationTableMode;
use crate::spec::descriptor::{FunctionMask, LeafHint, PageRange};
use crate::tables::{Found, Tables, Tag};
use crate::unit::CachingMode;

mod domains;
mod pending;

pub(crate) use domains::Domains;
use domains::Noted;
pub(crate) use pending::{CacheScope, Pending, TableScope};

/// What a container call costs of the budget, where reading a page of a table costs one.
const CALL_COST: u32 = 16;
/// How many entries of a domain are named one by one.
const CALLS_OF_ONE_SCOPE: usize = 16;
/// How many entries of one function may fail to be bound before a scan stops trying. What they cost is the
/// guest's own doing: it has far more entries than PASIDs.
const FAILURES_OF_A_SCAN: u32 = 4096;

/// What the tables say of one key of one function.
struct Wanted {
    function: Bdf,
    key: SpaceKey,
    found: Option<Found>,
}

impl Unit {
    /// Does what was asked for between two wait descriptors: tables first, for what the caches lose may
    /// have come from old entries.
    pub(crate) fn apply(&self, pending: Pending, budget: &mut Budget) {
        let Pending { tables, caches } = pending;
        for scope in tables {
            match scope {
                TableScope::All => self.synchronise_all_within(budget),
                TableScope::Functions(source, mask) => {
                    self.synchronise_functions(source, mask, budget);
                }
                TableScope::Domain(domain) => self.synchronise_domain(domain, budget),
                TableScope::Pasid(domain, pasid) => {
                    self.synchronise_pasid(pasid, Some(domain), budget);
                }
            }
        }
        // What a function asks for anew is not to come from what the unit is about to forget (VT-d §6.5.2.12).
        let (of_devices, of_unit): (Vec<_>, Vec<_>) = caches
            .into_iter()
            .partition(|(_, cached)| *cached == Cached::InDevices);
        let mut done = Vec::new();
        for (scope, cached) in of_unit.into_iter().chain(of_devices) {
            self.invalidate(scope, cached, &mut done, budget);
        }
    }

    /// Binds what the tables say of every function.
    pub(crate) fn synchronise_all(&self) {
        self.synchronise_all_within(&mut Budget::endless());
    }

    fn synchronise_all_within(&self, budget: &mut Budget) {
        for function in self.container.guest_bdfs() {
            self.synchronise(function, None, budget);
        }
    }

    fn synchronise_domain(&self, domain: DomainId, budget: &mut Budget) {
        for function in self.container.guest_bdfs() {
            self.synchronise(function, Some(domain), budget);
        }
    }

    fn synchronise_functions(&self, source: Bdf, mask: FunctionMask, budget: &mut Budget) {
        let functions = self.container.guest_bdfs().into_iter();
        for function in functions.filter(|function| mask.matches(source, *function)) {
            self.synchronise(function, None, budget);
        }
    }

    /// Binds what the tables say of one function.
    pub(crate) fn synchronise_function(&self, function: Bdf) {
        self.synchronise(function, None, &mut Budget::endless());
    }

    /// Translation is off: requests without a PASID pass, others find nothing.
    pub(crate) fn pass_everything(&self) {
        for function in self.container.guest_bdfs() {
            for (key, _) in self.container.bound(function) {
                if key != SpaceKey::WithoutPasid {
                    self.unbind(function, key);
                }
            }
            let key = SpaceKey::WithoutPasid;
            let passed = self.container.bind(function, key, Terms::UNTRANSLATED);
            self.domains.forget(function, SpaceKey::WithoutPasid);
            if let Err(error) = passed {
                self.say_unbound(function, &error);
            }
        }
    }

    fn tables(&self) -> Option<Tables<'_>> {
        match self.registers().translation() {
            TranslationState::Off => None,
            TranslationState::On(root) => Some(Tables::new(&self.memory, root)),
        }
    }

    /// Looks again at what the tables say of a function, or of its entries in one domain: what is bound in
    /// another is cached under that one, and stays as it is.
    fn synchronise(&self, function: Bdf, only: Option<DomainId>, budget: &mut Budget) {
        let Some(tables) = self.tables() else {
            return;
        };
        let bound = self.container.bound(function).into_iter();
        let others = bound
            .map(|(key, _)| key)
            .filter(|key| *key != SpaceKey::WithoutPasid);
        let wanted: Vec<Wanted> = std::iter::once(SpaceKey::WithoutPasid)
            .chain(others)
            .filter(|key| self.is_of(function, *key, only))
            .map(|key| Wanted {
                function,
                key,
                found: tables.look_up(function, tag(key)).ok(),
            })
            .collect();
        self.settle(&wanted, budget);
        if tables.mode() == TranslationTableMode::Scalable {
            self.bind_what_is_new(tables, function, only, budget);
        }
    }

    /// Whether what is bound there is of a domain, if one is given.
    fn is_of(&self, function: Bdf, key: SpaceKey, only: Option<DomainId>) -> bool {
        only.is_none_or(|domain| self.domains.may_be(function, key, domain))
    }

    fn bind_what_is_new(
        &self,
        tables: Tables<'_>,
        function: Bdf,
        only: Option<DomainId>,
        budget: &mut Budget,
    ) {
        let Ok(context) = tables.context(function) else {
            return;
        };
        let mut failures = 0;
        let mut calls = 0;
        let mut moved = Vec::new();
        let pages = tables.scan(context, |pasid, found| {
            let key = SpaceKey::Pasid(pasid);
            if failures >= FAILURES_OF_A_SCAN || !self.is_of(function, key, only) {
                return;
            }
            calls += 1;
            match self.bind(function, key, found) {
                Ok(()) => {}
                Err(error) if is_busy(&error) => moved.push(pasid),
                Err(error) => {
                    failures += 1;
                    self.say_unbound(function, &error);
                }
            }
        });
        budget.spend(pages);
        budget.spend(calls * CALL_COST);
        for pasid in moved {
            self.synchronise_pasid(pasid, only, budget);
        }
    }

    /// Binds what the tables say of one PASID, on every function where it is of a domain, if one is given.
    fn synchronise_pasid(&self, pasid: GuestPasid, only: Option<DomainId>, budget: &mut Budget) {
        let Some(tables) = self.tables() else {
            return;
        };
        let functions = self.container.guest_bdfs().into_iter();
        let wanted: Vec<Wanted> = functions
            .map(|function| (function, key(tables, function, pasid)))
            .filter(|(function, key)| self.is_of(*function, *key, only))
            .map(|(function, key)| Wanted {
                function,
                key,
                found: tables.look_up(function, tag(key)).ok(),
            })
            .collect();
        self.settle(&wanted, budget);
    }

    /// Looks for the entry of a request that found none bound. In caching mode there is nothing to look for:
    /// that there is none is cached, until software tells otherwise.
    pub(crate) fn look_up_entry(
        &self,
        function: Bdf,
        pasid: Option<GuestPasid>,
        wait: MayWait,
    ) -> LookedUp {
        if self.registers().config().caching_mode == CachingMode::On {
            return LookedUp::Nothing;
        }
        // An engine has other tenants to serve while this one's guest keeps its unit at work.
        let work = match wait {
            MayWait::Yes => Some(self.work()),
            MayWait::No => self.work_now(),
        };
        let Some(_work) = work else {
            return LookedUp::Later;
        };
        let Some(tables) = self.tables() else {
            return LookedUp::Nothing;
        };
        let key = pasid.map_or(SpaceKey::WithoutPasid, SpaceKey::Pasid);
        let Ok(found) = tables.look_up(function, tag(key)) else {
            return LookedUp::Nothing;
        };
        match self.bind(function, key, found) {
            Ok(()) => return LookedUp::Bound,
            // Other functions on the parent have what the entry was before.
            Err(error) if is_busy(&error) => {
                if let Some(pasid) = pasid {
                    self.synchronise_pasid(pasid, None, &mut Budget::endless());
                }
            }
            Err(error) => self.say_unbound(function, &error),
        }
        let mut bound = self.container.bound(function).into_iter();
        if bound.any(|(other, _)| other == key) {
            LookedUp::Bound
        } else {
            LookedUp::Nothing
        }
    }

    /// Unbinds what is no longer there, then binds what is.
    fn settle(&self, wanted: &[Wanted], budget: &mut Budget) {
        budget.spend(
            u32::try_from(wanted.len())
                .unwrap_or(u32::MAX)
                .saturating_mul(CALL_COST),
        );
        for gone in wanted.iter().filter(|wanted| wanted.found.is_none()) {
            self.unbind(gone.function, gone.key);
        }
        let mut busy = Vec::new();
        for (wanted, found) in wanted.iter().filter_map(present) {
            match self.bind(wanted.function, wanted.key, found) {
                Ok(()) => {}
                Err(error) if is_busy(&error) => busy.push(wanted.key),
                Err(error) => self.refused(wanted, &error),
            }
        }
        if busy.is_empty() {
            return;
        }
        // Functions on one parent share an entry, and it cannot change while one of them has it as it
        // was: it goes on all of them first.
        let moving = || wanted.iter().filter(|wanted| busy.contains(&wanted.key));
        for wanted in moving() {
            self.unbind(wanted.function, wanted.key);
        }
        for (wanted, found) in moving().filter_map(present) {
            if let Err(error) = self.bind(wanted.function, wanted.key, found) {
                self.refused(wanted, &error);
            }
        }
    }

    fn bind(&self, function: Bdf, key: SpaceKey, found: Found) -> Result<(), VfioError> {
        self.container.bind(function, key, found.terms())?;
        // What is cached under the old domain is not what invalidations of the new one name, nor the other way round.
        if self.domains.note(function, key, found.domain) == Noted::Moved {
            let everything = GuestScope::Key(key);
            self.container
                .invalidate(function, everything, Cached::Everywhere);
        }
        Ok(())
    }

    /// An entry that cannot be bound must not leave its predecessor in place.
    fn refused(&self, wanted: &Wanted, error: &VfioError) {
        self.unbind(wanted.function, wanted.key);
        self.say_unbound(wanted.function, error);
    }

    /// Unbinds, if anything is bound there: otherwise there is nothing to do.
    fn unbind(&self, function: Bdf, key: SpaceKey) {
        let _ = self.container.unbind(function, key);
        self.domains.forget(function, key);
    }

    fn say_unbound(&self, function: Bdf, error: &VfioError) {
        if let Some(count) = self.counts.unbound.tick() {
            tracing::warn!(%function, %error, count, "an entry of a guest's table is not bound");
        }
    }

    fn invalidate(
        &self,
        scope: CacheScope,
        cached: Cached,
        done: &mut Vec<(Bdf, GuestScope, Cached)>,
        budget: &mut Budget,
    ) {
        for function in self.container.guest_bdfs() {
            for scope in self.scopes_on(function, scope) {
                if !done.contains(&(function, scope, cached)) {
                    done.push((function, scope, cached));
                    budget.spend(CALL_COST);
                    self.container.invalidate(function, scope, cached);
                }
            }
        }
    }

    /// What of a function is to be forgotten, in the words of the container.
    fn scopes_on(&self, function: Bdf, scope: CacheScope) -> Vec<GuestScope> {
        match scope {
            CacheScope::All => vec![GuestScope::All],
            CacheScope::Domain(domain) => {
                self.scopes_of_domain(function, domain, |key, _| GuestScope::Key(key))
            }
            // First stages, nested or not, lose everything, for what they cached stands under other
            // addresses (VT-d §6.5.2.3).
            CacheScope::PagesOfDomain(domain, range) => {
                self.scopes_of_domain(function, domain, |key, space| match space {
                    Space::SecondStage(_) | Space::PassThrough => pages(key, range),
                    Space::FirstStage(_) | Space::Nested(..) => GuestScope::Key(key),
                })
            }
            CacheScope::Function(only) if only == function => vec![GuestScope::All],
            CacheScope::WithoutPasid(only, range) if only == function => {
                vec![pages(SpaceKey::WithoutPasid, range)]
            }
            CacheScope::PasidOfDomain(domain, pasid, range) => {
                let key = self.key_of(function, pasid);
                let is_of_domain = self.domains.may_be(function, key, domain);
                is_of_domain
                    .then(|| pages(key, range))
                    .into_iter()
                    .collect()
            }
            CacheScope::Pasid(only, pasid, range) if only == function => {
                vec![pages(self.key_of(function, pasid), range)]
            }
            CacheScope::Function(_) | CacheScope::WithoutPasid(..) | CacheScope::Pasid(..) => {
                Vec::new()
            }
        }
    }

    fn key_of(&self, function: Bdf, pasid: GuestPasid) -> SpaceKey {
        self.tables().map_or(SpaceKey::Pasid(pasid), |tables| {
            key(tables, function, pasid)
        })
    }

    /// What each entry of a domain loses. Of many the whole function does, which is one call.
    fn scopes_of_domain(
        &self,
        function: Bdf,
        domain: DomainId,
        loses: impl Fn(SpaceKey, Space) -> GuestScope,
    ) -> Vec<GuestScope> {
        let bound = self.container.bound(function).into_iter();
        let scopes: Vec<GuestScope> = bound
            .filter(|(key, _)| self.domains.may_be(function, *key, domain))
            .map(|(key, space)| loses(key, space))
            .collect();
        if scopes.len() > CALLS_OF_ONE_SCOPE {
            vec![GuestScope::All]
        } else {
            scopes
        }
    }
}

fn present(wanted: &Wanted) -> Option<(&Wanted, Found)> {
    wanted.found.map(|found| (wanted, found))
}

fn is_busy(error: &VfioError) -> bool {
    matches!(error, VfioError::Iommu(IommuError::EntryBusy { .. }))
}

fn tag(key: SpaceKey) -> Tag {
    match key {
        SpaceKey::WithoutPasid => Tag::Without,
        SpaceKey::Pasid(pasid) => Tag::Pasid(pasid),
    }
}

/// The requests that a PASID of a function's table is for: with RID_PASID those without one.
fn key(tables: Tables<'_>, function: Bdf, pasid: GuestPasid) -> SpaceKey {
    match tables.context(function) {
        Ok(context) if context.rid_pasid() == pasid => SpaceKey::WithoutPasid,
        _ => SpaceKey::Pasid(pasid),
    }
}

/// What an invalidation of pages is for, with its hint (VT-d §6.5.2.3: IH).
pub(crate) const fn cached_with(hint: LeafHint) -> Cached {
    match hint {
        LeafHint::AnyLevel => Cached::InUnit,
        LeafHint::LeavesOnly => Cached::LeavesInUnit,
    }
}

fn pages(key: SpaceKey, range: PageRange) -> GuestScope {
    match range.len_bytes() {
        None => GuestScope::Key(key),
        Some(len_bytes) => GuestScope::Pages {
            key,
            at: range.at(),
            len_bytes,
        },
    }
}

#[cfg(test)]
mod scopes;
#[cfg(test)]
mod tests;
