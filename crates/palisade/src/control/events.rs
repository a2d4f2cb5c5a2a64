//! The authority's events as the operator reads them.

use std::fmt;

use palisade_ioasid::{Event, EventKind, GroupId, IoasidError, PasidRange};
use palisade_units::TenantId;
use serde::{Deserialize, Serialize};

use super::{clock::Utc, question::Ends};

/// What the operator calls what the authority knows by number.
pub(crate) trait Names {
    /// A tenant.
    fn tenant(&self, id: TenantId) -> Option<String>;
    /// A group, also one that is gone, with the word for it.
    fn group(&self, id: GroupId) -> String;
}

/// Events from the one that was asked for on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// Oldest first.
    pub events: Vec<EventLine>,
    /// How many of the events asked for the host no longer has.
    pub dropped: u64,
    /// What to ask for next.
    pub next: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Its number, from 0 on. One that is missing between two others was dropped.
    pub sequence: u64,
    /// When, in nanoseconds since 1970.
    pub at_ns: u64,
    /// The tenant that it is about, or that was refused.
    pub tenant: Option<String>,
    /// What happened, in a word: allocated, bound, unbound, freed, reclaimed, refused, bind-refused, faulted, …
    pub what: String,
    /// The host's PASID, where it is about one.
    pub pasid: Option<u32>,
    /// The function on the host's bus, where one took part.
    pub function: Option<String>,
    /// The quota, the outcome, what was refused and why, or the fault's code.
    pub detail: Option<String>,
}

impl EventLine {
    /// In the operator's own names.
    pub(crate) fn new(event: &Event, names: &impl Names) -> Self {
        let (what, pasid, function, detail) = match event.kind {
            EventKind::SetCreated { quota } => {
                ("set-created", None, None, Some(format!("quota {quota}")))
            }
            EventKind::QuotaChanged { quota } => {
                ("quota-changed", None, None, Some(format!("quota {quota}")))
            }
            EventKind::SetClosed => ("set-closed", None, None, None),
            EventKind::Allocated { pasid } => ("allocated", Some(pasid), None, None),
            EventKind::Bound { pasid, place } => ("bound", Some(pasid), Some(place), None),
            EventKind::Unbound { pasid, place } => ("unbound", Some(pasid), Some(place), None),
            EventKind::Freed { pasid, outcome } => (
                "freed",
                Some(pasid),
                None,
                Some(format!("{outcome:?}").to_lowercase()),
            ),
            EventKind::Reclaimed { pasid } => ("reclaimed", Some(pasid), None, None),
            EventKind::Refused { request, error } => {
                let detail = match error {
                    IoasidError::GroupLimit { group } => {
                        let group = names.group(group);
                        format!("{request:?}: {group} has its whole limit of PASIDs out")
                    }
                    other => format!("{request:?}: {other}"),
                };
                ("refused", None, None, Some(detail))
            }
            EventKind::GroupCreated { group, parent, max } => {
                let (group, parent) = (names.group(group), names.group(parent));
                let detail = format!("{group} below {parent}, max {max}");
                ("group-created", None, None, Some(detail))
            }
            EventKind::GroupLimitChanged { group, max } => {
                let detail = format!("{}, max {max}", names.group(group));
                ("group-limit-changed", None, None, Some(detail))
            }
            EventKind::GroupRemoved { group } => {
                ("group-removed", None, None, Some(names.group(group)))
            }
            EventKind::Reserved { range } => ("reserved", None, None, Some(ends(range))),
            EventKind::Unreserved { range } => ("unreserved", None, None, Some(ends(range))),
            EventKind::AllocatorRegistered { instance } => {
                let detail = instance.0.to_string();
                ("allocator-registered", None, None, Some(detail))
            }
            EventKind::AllocatorUnregistered { instance } => {
                let detail = instance.0.to_string();
                ("allocator-unregistered", None, None, Some(detail))
            }
            EventKind::BindRefused {
                pasid,
                place,
                errno,
            } => {
                let why = std::io::Error::from_raw_os_error(errno.get());
                (
                    "bind-refused",
                    Some(pasid),
                    Some(place),
                    Some(why.to_string()),
                )
            }
            EventKind::Faulted {
                pasid,
                place,
                reason,
            } => (
                "faulted",
                Some(pasid),
                Some(place),
                Some(format!("{:02x}h", reason.get())),
            ),
        };
        Self {
            sequence: event.sequence.get(),
            at_ns: event.at.as_nanos(),
            tenant: event.tenant.and_then(|id| names.tenant(id)),
            what: what.to_owned(),
            pasid: pasid.map(palisade_units::HostPasid::get),
            function: function.map(|bdf| bdf.to_string()),
            detail,
        }
    }
}

/// A range as the operator writes it.
fn ends(range: PasidRange) -> String {
    Ends(range.min, range.max).to_string()
}

impl fmt::Display for EventLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8}  {:#}  {:<10} {}",
            self.sequence,
            Utc::from_ns(self.at_ns),
            self.tenant.as_deref().unwrap_or("-"),
            self.what
        )?;
        if let Some(pasid) = self.pasid {
            write!(f, " PASID {pasid}")?;
        }
        if let Some(function) = &self.function {
            write!(f, " on {function}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::WallClock, *};
    use palisade_ioasid::{Audit, Authority, Errno, Quota, Sequence};
    use palisade_units::Bdf;
    use std::sync::Arc;

    struct Numbers;

    impl Names for Numbers {
        fn tenant(&self, id: TenantId) -> Option<String> {
            Some(id.to_string())
        }

        fn group(&self, id: GroupId) -> String {
            id.to_string()
        }
    }

    #[test]
    fn r79_who_allocated_and_who_was_refused_can_be_read() {
        let audit = Audit {
            clock: Arc::new(WallClock),
            kept_events: 16,
        };
        let authority = Authority::with_audit(&[], audit);
        let set = authority
            .create_set(TenantId::new(1), Quota::Exactly(1))
            .unwrap();
        let pasid = set.alloc(PasidRange::ALL).unwrap();
        assert!(set.alloc(PasidRange::ALL).is_err());
        set.free(pasid).unwrap();
        let found = authority.events_since(Sequence::FIRST);
        let lines: Vec<_> = found
            .events
            .iter()
            .map(|e| EventLine::new(e, &Numbers))
            .collect();
        let words: Vec<&str> = lines.iter().map(|l| l.what.as_str()).collect();
        assert_eq!(words, ["set-created", "allocated", "refused", "freed"]);
        assert!(lines[2].detail.as_ref().unwrap().starts_with("Allocate: "));
        assert!(
            lines[1]
                .to_string()
                .contains("tenant 1   allocated PASID 1")
        );
        assert!(lines.iter().all(|l| l.at_ns > 1_600_000_000_000_000_000));
    }

    #[test]
    fn r79_whose_bind_the_platform_refused_and_where_and_why_can_be_read() {
        let authority = Authority::new(&[]);
        let set = authority
            .create_set(TenantId::new(1), Quota::default())
            .unwrap();
        let hold = set.hold(set.alloc(PasidRange::ALL).unwrap()).unwrap();
        hold.bind_refused(Bdf::new(0, 3, 0), Errno::new(16));
        let found = authority.events_since(Sequence::FIRST).events.pop();
        let line = EventLine::new(&found.unwrap(), &Numbers).to_string();
        let told =
            "tenant 1   bind-refused PASID 1 on 00:03.0 (Device or resource busy (os error 16))";
        assert!(line.contains(told), "{line}");
    }
}
