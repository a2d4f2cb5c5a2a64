//! Bind, unbind, invalidate, respond: what a unit asks for when its guest's tables changed.

use std::sync::Arc;

use palisade_ioasid::{BindMark, Errno, Hold, IoasidError, PasidRange};
use palisade_iommu::{
    Binding, Cached, GroupIndex, IommuError, PageResponse, Scope, Sharing, Sink, TagName,
};
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, GuestPasid, PasidTag};

use crate::container::{Attached, Endpoint, Inner};
use crate::{Container, GuestScope, SpaceKey, Terms, VfioError};

/// An entry that the platform has for this container.
#[derive(Clone)]
pub(crate) struct Bound {
    pub(crate) terms: Terms,
    /// Where the space's tables stand and where its accesses end.
    pub(crate) memory: GuestMemory,
    /// On the PASID in the entry. While someone works with its tag, it does not become another's.
    mark: Arc<BindMark>,
}

impl Bound {
    pub(crate) fn hold(&self) -> &Hold {
        self.mark.hold()
    }

    /// Whether a bind to these would change nothing.
    pub(crate) fn is_to(&self, terms: &Terms, memory: &GuestMemory) -> bool {
        self.terms == *terms && self.memory.is_same_space(memory)
    }
}

impl Container {
    /// Binds requests of a guest's function to an address space. A PASID that the guest's own
    /// allocator never took is a number of its own: it gets a PASID of the host, charged to the
    /// tenant, that goes with the last unbind. Binding the same again does nothing; binding another
    /// space replaces the first, and nothing uses that one any more when this returns.
    ///
    /// # Errors
    /// [`VfioError::NotAttached`] (ENODEV), [`VfioError::InvalidPasid`] (EINVAL) for PASID 0, ENOSPC
    /// beyond the quota, and those of the platform: EBUSY where another function of the tenant has
    /// the PASID bound to another space on the same parent, EOPNOTSUPP for a space or a PASID that
    /// the function does not support. After an error, what was bound before still is.
    pub fn bind(&self, guest_bdf: Bdf, key: SpaceKey, terms: Terms) -> Result<(), VfioError> {
        let inner = &self.inner;
        let _operation = inner.operation();
        let endpoint = inner.endpoint(guest_bdf)?;
        key.check()?;
        inner.bind_anew(&endpoint, key, terms, &endpoint.memory)
    }

    /// [`Container::bind`] to a space that stands in, and ends in, this memory instead of what the function was
    /// attached with. Who removes some of it makes the function forget by [`Container::invalidate`].
    ///
    /// # Errors
    /// Those of [`Container::bind`], and EBUSY where another function of the tenant on the same parent has the PASID
    /// bound over other memory: they share the entry, which is over one.
    pub fn bind_over(
        &self,
        guest_bdf: Bdf,
        key: SpaceKey,
        terms: Terms,
        memory: &GuestMemory,
    ) -> Result<(), VfioError> {
        key.check()?;
        let inner = &self.inner;
        let _operation = inner.operation();
        let endpoint = inner.endpoint(guest_bdf)?;
        inner.check_shared_memory(&endpoint, key, memory, |_| true)?;
        inner.bind_anew(&endpoint, key, terms, memory)
    }

    /// Unbinds requests of a guest's function. Nothing uses the space any more when this returns, and
    /// page requests that were open were answered. A PASID that the guest allocated stays allocated.
    ///
    /// # Errors
    /// [`VfioError::NotAttached`] (ENODEV), [`VfioError::NotBound`] (ENOENT).
    pub fn unbind(&self, guest_bdf: Bdf, key: SpaceKey) -> Result<(), VfioError> {
        let inner = &self.inner;
        let _operation = inner.operation();
        let endpoint = inner.endpoint(guest_bdf)?;
        if inner.release(&endpoint, key) {
            Ok(())
        } else {
            Err(VfioError::NotBound {
                bdf: guest_bdf,
                key,
            })
        }
    }

    /// Makes the platform forget, in some caches, what they have of a guest's function. When this returns, no
    /// access uses what was forgotten. On a parent that tenants share, nothing of others is forgotten.
    pub fn invalidate(&self, guest_bdf: Bdf, scope: GuestScope, cached: Cached) {
        let inner = &self.inner;
        // Behind a bind that another thread is in the middle of, whose entry is not noted yet.
        let _operation = inner.operation();
        let Ok(endpoint) = inner.endpoint(guest_bdf) else {
            return;
        };
        match scope {
            GuestScope::All => inner.forget_all(&endpoint, cached),
            GuestScope::Key(key) => {
                if let Some(bound) = inner.bound(guest_bdf, key) {
                    let tag = endpoint.tag(key, bound.hold());
                    endpoint.function.invalidate(Scope::Tag(tag), cached);
                }
            }
            GuestScope::Pages { key, at, len_bytes } => {
                if let Some(bound) = inner.bound(guest_bdf, key) {
                    let tag = endpoint.tag(key, bound.hold());
                    let pages = Scope::Pages { tag, at, len_bytes };
                    endpoint.function.invalidate(pages, cached);
                }
            }
        }
    }

    /// Answers a page request group of a guest's function.
    ///
    /// # Errors
    /// [`VfioError::NotAttached`] (ENODEV), [`VfioError::NotBound`] (ENOENT), and ENOENT where no
    /// request of that group waits, as after its first answer.
    pub fn respond(
        &self,
        guest_bdf: Bdf,
        key: SpaceKey,
        group: GroupIndex,
        response: PageResponse,
    ) -> Result<(), VfioError> {
        let endpoint = self.inner.endpoint(guest_bdf)?;
        let bound = self.inner.bound(guest_bdf, key);
        // The hold in `bound` lives until the answer is given: a late one cannot meet a request of a
        // tenant who got the number in between.
        let bound = bound.ok_or(VfioError::NotBound {
            bdf: guest_bdf,
            key,
        })?;
        let tag = endpoint.tag(key, bound.hold());
        Ok(endpoint.function.respond(tag, group, response)?)
    }
}

/// The caller is in an operation.
impl Inner {
    /// The state that a function has before its guest turns translation on.
    pub(crate) fn bind_pass_through(&self, endpoint: &Endpoint) -> Result<(), VfioError> {
        self.bind(endpoint, SpaceKey::WithoutPasid, Terms::UNTRANSLATED)
    }

    /// The same again, for a function that is free of who decided what it reaches.
    pub(crate) fn pass_through_again(&self, endpoint: &Endpoint) {
        if let Err(error) = self.bind_pass_through(endpoint) {
            tracing::error!(guest_bdf = %endpoint.guest_bdf, %error, "a function stays unbound");
        }
    }

    pub(crate) fn bind(
        &self,
        endpoint: &Endpoint,
        key: SpaceKey,
        terms: Terms,
    ) -> Result<(), VfioError> {
        // The connections of the others each bring the same guest's memory.
        self.check_shared_memory(endpoint, key, &endpoint.memory, |other| other.is_leased)?;
        self.bind_over(endpoint, key, terms, &endpoint.memory)
    }

    /// Refuses to share an entry with one of these functions that has it over other memory.
    fn check_shared_memory(
        &self,
        endpoint: &Endpoint,
        key: SpaceKey,
        memory: &GuestMemory,
        which: impl Fn(&Attached) -> bool,
    ) -> Result<(), VfioError> {
        if key == SpaceKey::WithoutPasid {
            // Each function has a PASID of its own for these.
            return Ok(());
        }
        let (bdf, state) = (endpoint.function.bdf(), self.state());
        let on_parent = state.functions.values().filter(|other| {
            let of_other = &other.endpoint;
            of_other.user != endpoint.user && of_other.function.bdf() == bdf && which(other)
        });
        let mut sharing = on_parent.filter_map(|other| other.bound.get(&key));
        match sharing.find(|bound| !bound.memory.is_same_space(memory)) {
            None => Ok(()),
            Some(bound) => {
                let tag = TagName(endpoint.tag(key, bound.hold()));
                let holder = self.set.tenant();
                Err(IommuError::EntryBusy { bdf, tag, holder }.into())
            }
        }
    }

    /// Binds, unless that would change nothing.
    fn bind_anew(
        &self,
        endpoint: &Endpoint,
        key: SpaceKey,
        terms: Terms,
        memory: &GuestMemory,
    ) -> Result<(), VfioError> {
        let bound = self.bound(endpoint.guest_bdf, key);
        if bound.is_some_and(|old| old.is_to(&terms, memory)) {
            return Ok(());
        }
        self.bind_over(endpoint, key, terms, memory)
    }

    fn bind_over(
        &self,
        endpoint: &Endpoint,
        key: SpaceKey,
        terms: Terms,
        memory: &GuestMemory,
    ) -> Result<(), VfioError> {
        let hold = self.hold_for(endpoint, key)?;
        let tag = endpoint.tag(key, &hold);
        let binding = self.binding(endpoint, key, terms, memory);
        let mark = match Self::enter(endpoint, tag, hold, binding) {
            Ok(mark) => Arc::new(mark),
            Err(error) => {
                self.end_pair_if_unused(key);
                return Err(error);
            }
        };
        let bound = Bound {
            terms,
            memory: memory.clone(),
            mark,
        };
        let replaced = {
            let mut state = self.state();
            let attached = state.functions.get_mut(&endpoint.guest_bdf);
            attached.and_then(|attached| attached.bound.insert(key, bound))
        };
        drop(replaced);
        Ok(())
    }

    /// What the platform is told of a bind.
    pub(crate) fn binding(
        &self,
        endpoint: &Endpoint,
        key: SpaceKey,
        terms: Terms,
        memory: &GuestMemory,
    ) -> Binding {
        Binding {
            user: endpoint.user,
            space: terms.space,
            memory: memory.clone(),
            sink: Arc::clone(&self.outlet) as Arc<dyn Sink>,
            guest_bdf: endpoint.guest_bdf,
            guest_pasid: key.guest_pasid(),
            fault_disable: terms.fault_processing,
            device_tlb: terms.device_tlb,
            supervisor: terms.supervisor,
        }
    }

    /// Enters a binding in the function's table. The mark of an entry that it replaces is for the caller to
    /// drop, and not under a lock: marks tell listeners.
    fn enter(
        endpoint: &Endpoint,
        tag: Option<PasidTag>,
        hold: Hold,
        binding: Binding,
    ) -> Result<BindMark, VfioError> {
        let function = &endpoint.function;
        // Asked first: what the platform refuses was never bound, and nobody is told that it was. Only who
        // changes the function between this and the bind makes a mark come and go.
        let noted = |hold: &Hold, error: IommuError| {
            hold.bind_refused(function.bdf(), Errno::new(error.errno()));
            error
        };
        let answer = function.would_bind(tag, &hold, &binding);
        answer.map_err(|error| noted(&hold, error))?;
        // Before the entry, as what is freed gets none.
        let mark = hold.bind(function.bdf())?;
        let answer = function.bind(tag, hold, binding);
        answer.map_err(|error| noted(mark.hold(), error))?;
        Ok(mark)
    }

    /// A hold on the PASID that serves a key of a function.
    pub(crate) fn hold_for(&self, endpoint: &Endpoint, key: SpaceKey) -> Result<Hold, VfioError> {
        match key {
            SpaceKey::WithoutPasid => self.default_hold(endpoint.guest_bdf),
            SpaceKey::Pasid(guest) => self.hold_of(guest),
        }
    }

    /// A hold on the PASID of a guest's number. A number without one gets one.
    fn hold_of(&self, guest: GuestPasid) -> Result<Hold, VfioError> {
        match self.set.find_guest(guest) {
            Err(IoasidError::GuestNotFound { .. }) => {}
            found => return Ok(found?),
        }
        let pasid = self.set.alloc(PasidRange::ALL)?;
        let paired = self.set.attach_guest(guest, pasid);
        match paired.and_then(|()| self.set.hold(pasid)) {
            Ok(hold) => {
                self.state().made.insert(guest, pasid);
                Ok(hold)
            }
            Err(error) => {
                self.give_back(pasid);
                Err(error.into())
            }
        }
    }

    /// Takes away what is bound to a key and waits until nothing uses it. Says whether there was
    /// something.
    pub(crate) fn release(&self, endpoint: &Endpoint, key: SpaceKey) -> bool {
        let Some(bound) = self.bound(endpoint.guest_bdf, key) else {
            return false;
        };
        let tag = endpoint.tag(key, bound.hold());
        if let Err(error) = endpoint.function.unbind(tag, endpoint.user) {
            tracing::debug!(guest_bdf = %endpoint.guest_bdf, %key, %error, "an entry was gone already");
        }
        if let Some(attached) = self.state().functions.get_mut(&endpoint.guest_bdf) {
            attached.bound.remove(&key);
        }
        drop(bound);
        self.end_pair_if_unused(key);
        true
    }

    pub(crate) fn release_all(&self, endpoint: &Endpoint) {
        for key in self.keys(endpoint.guest_bdf) {
            self.release(endpoint, key);
        }
    }

    /// Ends the pair of a number of the guest's own when no function has it bound.
    pub(crate) fn end_pair_if_unused(&self, key: SpaceKey) {
        let Some(guest) = key.guest_pasid() else {
            return;
        };
        let unused = {
            let mut state = self.state();
            let mut functions = state.functions.values();
            if functions.any(|attached| attached.bound.contains_key(&key)) {
                return;
            }
            state.made.remove(&guest)
        };
        if let Some(pasid) = unused {
            self.give_back(pasid);
        }
    }

    /// Makes the platform forget everything of one function of the tenant.
    pub(crate) fn forget_all(&self, endpoint: &Endpoint, cached: Cached) {
        match endpoint.sharing {
            Sharing::Exclusive => endpoint.function.invalidate(Scope::All, cached),
            Sharing::Mediated => {
                for key in self.keys(endpoint.guest_bdf) {
                    if let Some(bound) = self.bound(endpoint.guest_bdf, key) {
                        let tag = endpoint.tag(key, bound.hold());
                        endpoint.function.invalidate(Scope::Tag(tag), cached);
                    }
                }
            }
        }
    }

    fn keys(&self, guest_bdf: Bdf) -> Vec<SpaceKey> {
        let state = self.state();
        let attached = state.functions.get(&guest_bdf);
        attached.map_or_else(Vec::new, |one| one.bound.keys().copied().collect())
    }

    pub(crate) fn bound(&self, guest_bdf: Bdf, key: SpaceKey) -> Option<Bound> {
        let state = self.state();
        state.functions.get(&guest_bdf)?.bound.get(&key).cloned()
    }
}
