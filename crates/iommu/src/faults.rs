use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use palisade_units::{Access, Bdf, GuestPasid, Iova, PasidTag};

use crate::audit::{Audit, Origin};
use crate::entry::{FaultProcessing, User};
use crate::error::{TagName, locked};
use crate::owners::SliceOwners;
use crate::{Ats, Fault, FaultReason, LookedUp, MayWait, Sink};

/// How many faults without a tenant to tell the host remembers of each function.
const HOST_LOG_LEN: usize = 64;

/// What a tag that has no entry means to the owner of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownTags {
    /// The owner programs its own numbers: the tag is one of them.
    AsGuestPasid,
    /// The tag means nothing to the owner, so its faults are told without one.
    WithoutPasid,
}

/// A fault that no tenant could be told of, in the host's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFault {
    /// The tag of the request.
    pub tag: Option<PasidTag>,
    /// The address of the request.
    pub at: Iova,
    /// What the request wanted.
    pub access: Access,
    /// Why it was refused.
    pub reason: FaultReason,
}

/// The owner of a function, for faults that no entry says whose they are.
#[derive(Clone)]
pub(crate) struct DefaultSink {
    sink: Arc<dyn Sink>,
    guest_bdf: Bdf,
    names: UnknownTags,
}

/// Who is told of a fault, with the names that they know.
pub(crate) enum Addressee {
    Tenant {
        sink: Arc<dyn Sink>,
        bdf: Bdf,
        pasid: Option<GuestPasid>,
    },
    /// The tenant asked for no records. The host's audit has it all the same.
    Nobody,
    Host,
}

impl Addressee {
    /// Who is told of faults of a bound tag. Takes no reference to the PASID.
    pub(crate) fn of(user: &User) -> Self {
        let binding = &user.binding;
        match binding.fault_disable {
            FaultProcessing::Disabled => Self::Nobody,
            FaultProcessing::Report => Self::Tenant {
                sink: Arc::clone(&binding.sink),
                bdf: binding.guest_bdf,
                pasid: binding.guest_pasid,
            },
        }
    }
}

impl Addressee {
    fn look_up(&self) -> LookedUp {
        match self {
            Self::Tenant { sink, bdf, pasid } => sink.look_up(*bdf, *pasid, MayWait::No),
            Self::Nobody | Self::Host => LookedUp::Nothing,
        }
    }
}

/// The faults of one function.
pub(crate) struct Faults {
    count: AtomicU64,
    pub(crate) audit: Audit,
    default_sink: Mutex<Option<DefaultSink>>,
    /// On a function that tenants share.
    pub(crate) slice_owners: SliceOwners,
    host_log: Mutex<VecDeque<HostFault>>,
}

impl Faults {
    pub(crate) fn new(audit: Audit) -> Self {
        Self {
            count: AtomicU64::new(0),
            audit,
            default_sink: Mutex::default(),
            slice_owners: SliceOwners::default(),
            host_log: Mutex::default(),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn host_log(&self) -> Vec<HostFault> {
        locked(&self.host_log).iter().copied().collect()
    }

    pub(crate) fn set_default_sink(
        &self,
        sink: Option<Arc<dyn Sink>>,
        guest_bdf: Bdf,
        names: UnknownTags,
    ) {
        let new = sink.map(|sink| DefaultSink {
            sink,
            guest_bdf,
            names,
        });
        let old = std::mem::replace(&mut *locked(&self.default_sink), new);
        drop(old);
    }

    /// Takes the default sink out, for the caller to drop where it holds no lock.
    pub(crate) fn take_default_sink(&self) -> Option<DefaultSink> {
        locked(&self.default_sink).take()
    }

    /// Has those whose tag it may be look for the entry that it lacks: the owner of the function, or on a shared
    /// one each device that may use the PASID. To be called with no lock held and no access in flight.
    pub(crate) fn look_up(&self, tag: Option<PasidTag>) -> LookedUp {
        let is_owned = locked(&self.default_sink).is_some();
        let asked = match tag {
            Some(tag) if !is_owned => self.slice_owners.addressees(tag),
            _ => vec![self.addressee_of_unbound(tag)],
        };
        let found = asked.iter().map(Addressee::look_up);
        let mut found = found.filter(|found| *found != LookedUp::Nothing);
        found.next().unwrap_or(LookedUp::Nothing)
    }

    /// Who is told of faults of a tag that nothing is bound to.
    pub(crate) fn addressee_of_unbound(&self, tag: Option<PasidTag>) -> Addressee {
        let owner = locked(&self.default_sink).clone();
        let Some(owner) = owner else {
            let owner = tag.and_then(|tag| self.slice_owners.addressee(tag));
            return owner.unwrap_or(Addressee::Host);
        };
        let pasid = match owner.names {
            UnknownTags::AsGuestPasid => tag.and_then(|tag| GuestPasid::new(tag.get()).ok()),
            UnknownTags::WithoutPasid => None,
        };
        Addressee::Tenant {
            sink: owner.sink,
            bdf: owner.guest_bdf,
            pasid,
        }
    }

    /// Counts a fault and tells of it: the host's audit always and first, so that who hears of a fault
    /// finds its event; then who is concerned. To be called with no lock held and no access in flight.
    ///
    /// FPD in a guest's entries keeps the record from the guest, who asked for none. It does not keep the
    /// event from the operator: a tenant whose device strays may not hide that.
    pub(crate) fn report(
        &self,
        function: Bdf,
        fault: HostFault,
        ats: Ats,
        origin: Origin,
        to: Addressee,
    ) {
        let count = self.count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        self.audit.note(function, origin, fault.reason);
        let HostFault {
            tag,
            at,
            access,
            reason,
        } = fault;
        match to {
            Addressee::Tenant { sink, bdf, pasid } => {
                sink.fault(Fault {
                    bdf,
                    pasid,
                    at,
                    access,
                    reason,
                    ats,
                });
            }
            Addressee::Nobody => {}
            Addressee::Host => {
                let mut log = locked(&self.host_log);
                if log.len() == HOST_LOG_LEN {
                    log.pop_front();
                }
                log.push_back(fault);
                drop(log);
                // A device can make millions of these: the log gets the 1st, 2nd, 4th, 8th, …
                if count.is_power_of_two() {
                    let tag = TagName(tag);
                    tracing::warn!(%function, %tag, %at, %access, %reason, count, "fault of nobody");
                }
            }
        }
    }
}
