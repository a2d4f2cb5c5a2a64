use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use palisade_ioasid::{Authority, Hold};
use palisade_units::{Bdf, HostPasid, Iova, PasidTag, TenantId};

use crate::audit::Audit;
use crate::error::{TagName, locked};
use crate::function::Function;
use crate::{
    Binding, Cached, Claim, DmaPort, GroupIndex, HostFault, IommuError, PageResponse, PasidEnable,
    PasidSupport, Sharing, Sink, UnknownTags, UserId,
};

/// What an invalidation makes the platform forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything of the function.
    All,
    /// Everything of one tag; `None` for requests without a PASID.
    Tag(Option<PasidTag>),
    /// The pages of one tag that a range of addresses touches, each as large as the table has it, and
    /// what is cached of the tables that they are in.
    Pages {
        /// The tag.
        tag: Option<PasidTag>,
        /// The start of the range.
        at: Iova,
        /// Its length in bytes.
        len_bytes: u64,
    },
}

/// What an unbind left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// The entry is gone.
    Last,
    /// Other users keep the entry.
    OthersRemain,
}

/// A present entry of a function's PASID table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditEntry {
    /// The function.
    pub bdf: Bdf,
    /// The tag; `None` for requests without a PASID.
    pub tag: Option<PasidTag>,
    /// The PASID that the entry holds.
    pub host_pasid: HostPasid,
    /// Whose it is.
    pub tenant: TenantId,
    /// How many bound it.
    pub users: usize,
}

/// The platform's IOMMU: a PASID table for each function. A handle; clones are the same one.
#[derive(Clone, Default)]
pub struct Iommu {
    functions: Arc<Mutex<BTreeMap<Bdf, Arc<Function>>>>,
    authority: Option<Authority>,
}

impl Iommu {
    /// A platform without functions, whose faults no authority is told of.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A platform without functions. Every fault becomes one
    /// [`EventKind::Faulted`](palisade_ioasid::EventKind::Faulted) of the authority that the host's
    /// PASIDs come from, with the function's place on the host and the code of the [`FaultReason`]:
    ///
    /// - of a request that an entry serves, with the PASID that the entry holds, for its tenant; also
    ///   where FPD keeps the record from the guest: that is the guest's to ask for, not to keep the
    ///   operator from knowing;
    /// - of one that no entry serves, with the number in its tag: for the owner of an exclusive
    ///   function, who programs what it likes; on a shared one for whom that PASID belongs to; else
    ///   for nobody. A request without a PASID has 0 there, which is never given out.
    ///
    /// A page request is no fault, and neither is the answer that it gets: a device that then gives up
    /// has made no request that was refused. One that tries again without asking is refused as any
    /// other.
    ///
    /// [`FaultReason`]: crate::FaultReason
    #[must_use]
    pub fn audited_by(authority: &Authority) -> Self {
        Self {
            authority: Some(authority.clone()),
            ..Self::default()
        }
    }

    /// Adds a function.
    ///
    /// # Errors
    /// [`IommuError::FunctionExists`]; [`IommuError::InvalidWidth`] unless 1 to 20 bits.
    pub fn add_function(
        &self,
        bdf: Bdf,
        support: PasidSupport,
    ) -> Result<FunctionHandle, IommuError> {
        support.check(bdf)?;
        let mut functions = locked(&self.functions);
        if functions.contains_key(&bdf) {
            return Err(IommuError::FunctionExists { bdf });
        }
        let function = Arc::new(Function::new(
            bdf,
            support,
            Audit::by(self.authority.clone()),
        ));
        functions.insert(bdf, Arc::clone(&function));
        Ok(FunctionHandle { function })
    }

    /// Every present entry, found by a walk of the tables (R15), in the order of functions and tags.
    #[must_use]
    pub fn audit(&self) -> Vec<AuditEntry> {
        let functions: Vec<_> = locked(&self.functions).values().map(Arc::clone).collect();
        let of = |function: Arc<Function>| {
            let entries = function.table.entries().into_iter();
            entries.map(move |(tag, entry)| AuditEntry {
                bdf: function.bdf,
                tag,
                host_pasid: entry.active.hold.pasid(),
                tenant: entry.tenant(),
                users: entry.users().count(),
            })
        };
        functions.into_iter().flat_map(of).collect()
    }
}

/// A function of the platform. Clones are the same one.
#[derive(Clone)]
pub struct FunctionHandle {
    function: Arc<Function>,
}

impl FunctionHandle {
    /// Its place on the host.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.function.bdf
    }

    /// Claims the function for a tenant: alone, or beside other tenants with mediated devices. Only
    /// who has a claim may bind. How a function is shared changes only while nobody has one.
    ///
    /// # Errors
    /// [`IommuError::Busy`] for any second claim beside an exclusive one, and for an exclusive one
    /// beside any.
    pub fn claim(&self, tenant: TenantId, sharing: Sharing) -> Result<Claim, IommuError> {
        self.function.claim(tenant, sharing)?;
        Ok(Claim::new(Arc::clone(&self.function), tenant, sharing))
    }

    /// The enable bit of the function's PASID capability; on at first. While it is off, requests
    /// with a PASID fault with 45h, whatever is bound. Returns after effect.
    pub fn set_pasid_enabled(&self, enable: PasidEnable) {
        self.function.set_pasid_enabled(enable);
    }

    /// A port, through which one engine reaches memory.
    #[must_use]
    pub fn port(&self) -> DmaPort {
        DmaPort::new(Arc::clone(&self.function))
    }

    /// Who is told of faults of tags that nothing is bound to: the exclusive owner. `None`, as at first
    /// and after an exclusive claim has ended: the owners that claims on a shared function name
    /// ([`Claim::set_slice_owner`]), and else the host log.
    pub fn set_default_sink(
        &self,
        sink: Option<Arc<dyn Sink>>,
        guest_bdf: Bdf,
        names: UnknownTags,
    ) {
        self.function
            .faults
            .set_default_sink(sink, guest_bdf, names);
    }

    /// Binds a tag (`None`: requests without a PASID) to an address space. The entry keeps the hold.
    ///
    /// A user that binds a tag again replaces its share, and what was cached of it is forgotten. A
    /// second user of the same space is counted; the first one's memory and sink stay in use.
    ///
    /// # Errors
    /// Without a claim of the hold's tenant [`IommuError::NotClaimed`]; on a shared function
    /// [`IommuError::TagNotHeld`] unless the tag is the PASID that is held;
    /// [`IommuError::EntryBusy`] when others have bound it to another space; those of PASIDs that
    /// the function cannot use; [`IommuError::Unsupported`] and [`IommuError::MisalignedRoot`].
    /// Nothing has changed then.
    pub fn bind(
        &self,
        tag: Option<PasidTag>,
        hold: Hold,
        binding: Binding,
    ) -> Result<(), IommuError> {
        self.function.bind(tag, hold, binding)
    }

    /// Whether [`FunctionHandle::bind`] would succeed at this moment. Changes nothing: for who has to tell
    /// others of an entry before it is there.
    ///
    /// # Errors
    /// Those of [`FunctionHandle::bind`].
    pub fn would_bind(
        &self,
        tag: Option<PasidTag>,
        hold: &Hold,
        binding: &Binding,
    ) -> Result<(), IommuError> {
        self.function.would_bind(tag, hold, binding)
    }

    /// Takes a user's share of an entry away. When it returns, no access in flight uses it, its page
    /// requests were answered with [`PageResponse::Invalid`] and its hold is dropped. Where others
    /// remain, the next one's memory and sink are in use, and page requests that were open are
    /// answered with success, to be made again.
    ///
    /// # Errors
    /// [`IommuError::NotBound`].
    pub fn unbind(&self, tag: Option<PasidTag>, user: UserId) -> Result<Unbound, IommuError> {
        self.function.unbind(tag, user)
    }

    /// Makes every port forget what is in the scope, in some of its caches. When it returns, no access in
    /// flight uses it.
    pub fn invalidate(&self, scope: Scope, cached: Cached) {
        self.function.invalidate(scope, cached);
    }

    /// Answers a page request. The waiter is called before this returns.
    ///
    /// # Errors
    /// [`IommuError::NoSuchRequest`] for a group that was answered already or never asked for.
    pub fn respond(
        &self,
        tag: Option<PasidTag>,
        group: GroupIndex,
        response: PageResponse,
    ) -> Result<(), IommuError> {
        let (bdf, name) = (self.function.bdf, TagName(tag));
        let waiter = self.function.requests.close(tag, group);
        waiter.ok_or(IommuError::NoSuchRequest {
            bdf,
            tag: name,
            group,
        })?(response);
        Ok(())
    }

    /// How many requests were refused, recorded or not.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.function.faults.count()
    }

    /// The last faults that no tenant could be told of.
    #[must_use]
    pub fn host_faults(&self) -> Vec<HostFault> {
        self.function.faults.host_log()
    }

    /// How many page requests wait for an answer.
    #[must_use]
    pub fn outstanding_page_requests(&self) -> usize {
        self.function.requests.outstanding()
    }
}
