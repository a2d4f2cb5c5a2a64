use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use palisade_ioasid::Hold;
use palisade_units::{Bdf, PASID_BITS, PasidTag, TenantId};

use crate::audit::Audit;
use crate::cached::Cached;
use crate::claim::{Claims, Released};
use crate::entry::{Entry, User};
use crate::epoch::Slots;
use crate::error::{TagName, locked};
use crate::faults::{DefaultSink, Faults};
use crate::journal::{Generations, Pages};
use crate::report::PageWaiter;
use crate::requests::Requests;
use crate::table::PasidTable;
use crate::{Binding, FaultReason, IommuError, PageResponse, Scope, Sharing, Unbound, UserId};

/// What PASIDs a function can put into its requests (PCIe 7.8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidSupport {
    /// No capability: requests have no PASID.
    None,
    /// PASIDs of so many bits, 1 to 20.
    Width(u8),
}

impl PasidSupport {
    pub(crate) fn check(self, bdf: Bdf) -> Result<(), IommuError> {
        match self {
            Self::Width(width) if width == 0 || u32::from(width) > PASID_BITS => {
                Err(IommuError::InvalidWidth { bdf, width })
            }
            _ => Ok(()),
        }
    }
}

/// The enable bit of a function's PASID capability (PCIe 7.8.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidEnable {
    /// Requests may carry a PASID.
    On,
    /// Requests with a PASID are refused.
    Off,
}

/// A function as the platform knows it.
///
/// `claims` is the lock of all that changes the table. It is held while accesses in flight drain,
/// never while a sink, a waiter or the authority is called.
pub(crate) struct Function {
    pub(crate) bdf: Bdf,
    support: PasidSupport,
    pasid_enabled: AtomicBool,
    pub(crate) table: PasidTable,
    pub(crate) generations: Generations,
    pub(crate) slots: Slots,
    pub(crate) requests: Requests,
    pub(crate) faults: Faults,
    claims: Mutex<Claims>,
}

/// What a change of the table leaves to be done once no lock is held.
#[derive(Default)]
struct Aftermath {
    /// Entries that were taken away: their holds go with them.
    entries: Vec<Arc<Entry>>,
    answers: Vec<(PageWaiter, PageResponse)>,
    /// An owner that is no longer told of faults.
    owner: Option<DefaultSink>,
}

impl Aftermath {
    fn settle(self) {
        // The PASIDs stay held until every waiter was answered (R65).
        for (waiter, response) in self.answers {
            waiter(response);
        }
        drop(self.entries);
        drop(self.owner);
    }
}

impl Function {
    pub(crate) fn new(bdf: Bdf, support: PasidSupport, audit: Audit) -> Self {
        Self {
            bdf,
            support,
            pasid_enabled: AtomicBool::new(true),
            table: PasidTable::new(),
            generations: Generations::new(),
            slots: Slots::default(),
            requests: Requests::default(),
            faults: Faults::new(audit),
            claims: Mutex::default(),
        }
    }

    pub(crate) fn claim(&self, tenant: TenantId, sharing: Sharing) -> Result<(), IommuError> {
        let mut claims = locked(&self.claims);
        claims.take(self.bdf, tenant, sharing)?;
        self.faults.audit.set_numbering(claims.numbering());
        Ok(())
    }

    pub(crate) fn release_claim(&self, tenant: TenantId) {
        let mut aftermath = Aftermath::default();
        let mut claims = locked(&self.claims);
        if claims.next_release(tenant) == Released::LastOfTheTenant {
            if claims.sharing_for(tenant) == Some(Sharing::Exclusive) {
                aftermath.owner = self.faults.take_default_sink();
            }
            self.remove_entries(&mut aftermath, |entry| entry.tenant() == tenant);
        }
        claims.release(tenant);
        // Not before the drain: what was in flight until then was still the tenant's.
        self.faults.audit.set_numbering(claims.numbering());
        drop(claims);
        aftermath.settle();
    }

    /// Takes entries away, drained. The caller holds the lock of the claims.
    fn remove_entries(&self, aftermath: &mut Aftermath, gone: impl Fn(&Entry) -> bool) {
        let entries = self.table.entries();
        let gone: Vec<_> = entries
            .into_iter()
            .filter(|(_, entry)| gone(entry))
            .collect();
        for (tag, _) in &gone {
            self.table.swap(*tag, None);
        }
        self.generations.advance_all(Cached::Everywhere);
        self.slots.drain();
        for (tag, entry) in gone {
            for user in entry.users().map(|user| user.binding.user) {
                self.answer(aftermath, tag, user, PageResponse::Invalid);
            }
            aftermath.entries.push(entry);
        }
    }

    fn answer(
        &self,
        aftermath: &mut Aftermath,
        tag: Option<PasidTag>,
        user: UserId,
        response: PageResponse,
    ) {
        let waiters = self.requests.close_of_user(tag, user);
        aftermath
            .answers
            .extend(waiters.into_iter().map(|waiter| (waiter, response)));
        self.requests.forget(user);
    }

    pub(crate) fn set_pasid_enabled(&self, enable: PasidEnable) {
        self.pasid_enabled
            .store(enable == PasidEnable::On, Ordering::SeqCst);
        if enable == PasidEnable::Off {
            // What ports have cached was translated while PASIDs were on.
            self.invalidate(Scope::All, Cached::Everywhere);
        }
    }

    /// Why requests of a tag are refused before any table is looked at.
    pub(crate) fn refuses_tag(&self, tag: Option<PasidTag>) -> Option<FaultReason> {
        match self.check_tag(tag) {
            Ok(()) => None,
            Err(IommuError::PasidTooLarge { .. }) => Some(FaultReason::PasidTooLarge),
            Err(_) => Some(FaultReason::PasidDisabled),
        }
    }

    fn check_tag(&self, tag: Option<PasidTag>) -> Result<(), IommuError> {
        let bdf = self.bdf;
        let Some(tag) = tag else { return Ok(()) };
        match self.support {
            PasidSupport::None => Err(IommuError::PasidUnsupported { bdf }),
            PasidSupport::Width(_) if !self.pasid_enabled.load(Ordering::SeqCst) => {
                Err(IommuError::PasidDisabled { bdf })
            }
            PasidSupport::Width(width) if tag.get() >> width != 0 => {
                Err(IommuError::PasidTooLarge { bdf, tag, width })
            }
            PasidSupport::Width(_) => Ok(()),
        }
    }

    fn check_binding(
        &self,
        claims: &Claims,
        tag: Option<PasidTag>,
        hold: &Hold,
        binding: &Binding,
    ) -> Result<(), IommuError> {
        let (bdf, tenant) = (self.bdf, hold.tenant());
        self.check_tag(tag)?;
        let sharing = claims.sharing_for(tenant);
        let sharing = sharing.ok_or(IommuError::NotClaimed { bdf, tenant })?;
        let held = hold.pasid();
        if sharing == Sharing::Mediated && tag != Some(held.into()) {
            return Err(IommuError::TagNotHeld {
                bdf,
                tag: TagName(tag),
                held,
            });
        }
        if let Some(what) = binding.space.unsupported() {
            return Err(IommuError::Unsupported(what));
        }
        match binding.space.misaligned_root() {
            Some(root) => Err(IommuError::MisalignedRoot { root }),
            None => Ok(()),
        }
    }

    /// Whether a bind would be refused; else the entry that it adds to or replaces.
    fn admit(
        &self,
        claims: &Claims,
        tag: Option<PasidTag>,
        hold: &Hold,
        binding: &Binding,
    ) -> Result<Option<Arc<Entry>>, IommuError> {
        self.check_binding(claims, tag, hold, binding)?;
        let present = self.table.get(tag);
        if let Some(present) = &present {
            self.check_share(present, tag, hold.tenant(), binding)?;
        }
        Ok(present)
    }

    pub(crate) fn would_bind(
        &self,
        tag: Option<PasidTag>,
        hold: &Hold,
        binding: &Binding,
    ) -> Result<(), IommuError> {
        let claims = locked(&self.claims);
        // Under the lock the table keeps the entry: letting go of it here drops no hold.
        self.admit(&claims, tag, hold, binding).map(drop)
    }

    pub(crate) fn bind(
        &self,
        tag: Option<PasidTag>,
        hold: Hold,
        binding: Binding,
    ) -> Result<(), IommuError> {
        let claims = locked(&self.claims);
        let present = self.admit(&claims, tag, &hold, &binding)?;
        let replaced = self.put(tag, present, User { hold, binding });
        drop(claims);
        drop(replaced);
        Ok(())
    }

    /// Whether a binding goes with the entry that is present.
    fn check_share(
        &self,
        present: &Entry,
        tag: Option<PasidTag>,
        tenant: TenantId,
        binding: &Binding,
    ) -> Result<(), IommuError> {
        let holder = present.tenant();
        let alone = present.others.is_empty() && present.active.binding.user == binding.user;
        let of = |binding: &Binding| (binding.space, binding.device_tlb, binding.supervisor);
        let same = of(&present.active.binding) == of(binding);
        if holder == tenant && (alone || same) {
            return Ok(());
        }
        let (bdf, tag) = (self.bdf, TagName(tag));
        Err(IommuError::EntryBusy { bdf, tag, holder })
    }

    /// Puts a user's share into the entry of a tag and returns what it replaces, drained.
    fn put(
        &self,
        tag: Option<PasidTag>,
        present: Option<Arc<Entry>>,
        user: User,
    ) -> Option<Arc<Entry>> {
        let Some(present) = present else {
            // Nothing of an absent entry is ever cached, so there is nothing to invalidate.
            return self.table.swap(tag, Some(Entry::of(user)));
        };
        let changes_active = present.active.binding.user == user.binding.user;
        self.table.swap(tag, Some(present.with(user)));
        if changes_active {
            self.forget_tag(tag);
        }
        Some(present)
    }

    pub(crate) fn unbind(
        &self,
        tag: Option<PasidTag>,
        user: UserId,
    ) -> Result<Unbound, IommuError> {
        let mut aftermath = Aftermath::default();
        let claims = locked(&self.claims);
        let not_bound = IommuError::NotBound {
            bdf: self.bdf,
            tag: TagName(tag),
        };
        let present = self
            .table
            .get(tag)
            .filter(|entry| entry.has_user(user))
            .ok_or(not_bound)?;
        let left = present.without(user);
        let unbound = if left.is_some() {
            Unbound::OthersRemain
        } else {
            Unbound::Last
        };
        let was_active = present.active.binding.user == user;
        aftermath.entries.extend(self.table.swap(tag, left));
        aftermath.entries.push(present);
        if !was_active {
            // Nothing was cached by this share, but accesses in flight may refer to the entry.
            self.slots.drain();
        } else {
            self.forget_tag(tag);
            // Where another user takes over, a request that went to the first is to be made again.
            let response = match unbound {
                Unbound::Last => PageResponse::Invalid,
                Unbound::OthersRemain => PageResponse::Success,
            };
            self.answer(&mut aftermath, tag, user, response);
        }
        drop(claims);
        aftermath.settle();
        Ok(unbound)
    }

    /// Makes what is cached for a tag stale and waits until nobody uses it.
    fn forget_tag(&self, tag: Option<PasidTag>) {
        self.generations.advance(tag, Cached::Everywhere);
        self.slots.drain();
    }

    pub(crate) fn invalidate(&self, scope: Scope, cached: Cached) {
        match scope {
            Scope::All => self.generations.advance_all(cached),
            Scope::Tag(tag) => self.generations.advance(tag, cached),
            Scope::Pages { tag, at, len_bytes } => {
                if let Some(pages) = Pages::of(tag, at, len_bytes) {
                    self.generations.advance_pages(pages, cached);
                }
            }
        }
        self.slots.drain();
    }
}
