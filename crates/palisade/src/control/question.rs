//! What the operator asks, and what is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::FunctionKind;

/// A question is longer by no more than this, its end of line included.
pub(super) const QUESTION_MAX_BYTES: u64 = 1024;

/// One question: one line of JSON, as in `"ledger"` or `{"events":{"since":7}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Question {
    /// Who holds which PASID; answered by [`Ledger`](super::Ledger).
    Ledger,
    /// What happened from an event on; answered by [`EventPage`](super::EventPage).
    Events {
        /// The event's number.
        since: u64,
    },
    /// The groups and what is out below them; answered by [`Groups`](super::Groups).
    Groups,
    /// Which PASIDs no tenant gets; answered by [`Reserved`](super::Reserved).
    Reserved,
    /// The functions of the tenants; answered by [`Mdevs`](super::Mdevs).
    Mdevs,
    /// To change a limit or a function; answered by [`Changed`].
    Change(Change),
}

/// What can be changed at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// How many PASIDs a tenant may have out, connected or not.
    Quota {
        /// The tenant.
        tenant: String,
        /// Its quota from now on.
        quota: NewQuota,
    },
    /// A group that the configuration has not.
    CreateGroup {
        /// Its name.
        name: String,
        /// Its limit.
        max: NewLimit,
        /// The group that it is below; the host itself without one.
        parent: Option<String>,
    },
    /// The limit of a group. Below what is out, it only keeps more from being taken.
    LimitGroup {
        /// The group.
        name: String,
        /// Its limit from now on.
        max: NewLimit,
    },
    /// Removes a group that was made at run time and has nothing below it.
    RemoveGroup {
        /// The group.
        name: String,
    },
    /// Keeps PASIDs for the host's own users, all of them or none.
    Reserve {
        /// The lowest.
        min: u32,
        /// The highest.
        max: u32,
    },
    /// Gives back a range that was reserved at run time, named as it was then.
    Unreserve {
        /// The lowest.
        min: u32,
        /// The highest.
        max: u32,
    },
    /// A function that the configuration has not. In the answer everything is there.
    CreateMdev {
        /// The parent's name.
        parent: String,
        /// What it is made of.
        #[serde(rename = "type")]
        kind: FunctionKind,
        /// Whose it is to be.
        tenant: String,
        /// Its name; a random one without.
        uuid: Option<String>,
        /// The absolute path of its socket; one named after it, beside that of the tenant's unit, without.
        socket: Option<String>,
        /// Where the guest is to find it on its root bus; the first free place without.
        guest_bdf: Option<String>,
    },
    /// Removes a function that was made at run time and that nobody uses.
    RemoveMdev {
        /// Its name.
        uuid: String,
    },
}

/// A quota to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewQuota {
    /// This many.
    Number(u32),
    /// What the configuration says; that something else was set at run time is forgotten.
    Configured,
}

/// A limit to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewLimit {
    /// This many.
    Max(u32),
    /// As many as the groups above allow.
    Unlimited,
    /// What the configuration says; that something else was set at run time is forgotten.
    Configured,
}

/// A change that took effect, and that is on the disk where it is to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// What was asked for.
    pub change: Change,
    /// For how long it holds.
    pub kept: Kept,
}

/// For how long a change holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// Also for the daemons to come.
    OverRestarts,
    /// The configuration names no `state`.
    UntilTheDaemonEnds,
}

/// A range of PASIDs by its lowest and its highest, as the operator writes it: `5-9`, or `5` for one.
pub(crate) struct Ends(pub(crate) u32, pub(crate) u32);

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(min, max) = self;
        if min == max {
            return f.pad(&min.to_string());
        }
        f.pad(&format!("{min}-{max}"))
    }
}

/// So many PASIDs, in words.
pub(crate) struct Pasids(pub(crate) u32);

impl fmt::Display for Pasids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count) = self;
        write!(f, "{count} PASID{}", if *count == 1 { "" } else { "s" })
    }
}

impl fmt::Display for NewLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max(max) => write!(f, "at most {}", Pasids(*max)),
            Self::Unlimited => f.write_str("no limit of its own"),
            Self::Configured => f.write_str("the limit of the configuration"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quota { tenant, quota } => match quota {
                NewQuota::Number(number) => write!(f, "{tenant}: quota {number}"),
                NewQuota::Configured => write!(f, "{tenant}: the quota of the configuration"),
            },
            Self::CreateGroup { name, max, parent } => {
                write!(f, "group {name} made")?;
                if let Some(parent) = parent {
                    write!(f, " below {parent}")?;
                }
                write!(f, ": {max}")
            }
            Self::LimitGroup { name, max } => write!(f, "group {name}: {max}"),
            Self::RemoveGroup { name } => write!(f, "group {name} removed"),
            Self::Reserve { min, max } => write!(f, "{} reserved", Ends(*min, *max)),
            Self::Unreserve { min, max } => write!(f, "{} given back", Ends(*min, *max)),
            Self::CreateMdev {
                parent,
                kind,
                tenant,
                uuid,
                socket,
                guest_bdf,
            } => {
                let uuid = uuid.as_deref().unwrap_or("a function");
                write!(f, "{uuid} made of {parent} for {tenant}: {kind}")?;
                if let Some(place) = guest_bdf {
                    write!(f, " at {place}")?;
                }
                if let Some(socket) = socket {
                    write!(f, ", served at {socket}")?;
                }
                Ok(())
            }
            Self::RemoveMdev { uuid } => write!(f, "{uuid} removed"),
        }
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = match self.kept {
            Kept::OverRestarts => "kept over restarts",
            Kept::UntilTheDaemonEnds => {
                "until the daemon ends, since its configuration names no `state`"
            }
        };
        write!(f, "{} ({kept})", self.change)
    }
}

/// Why a question is not answered; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the host refuses ({errno}): {error}")]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What is wrong and what to do.
    pub error: String,
    /// The error's name, as in `ENOSPC`.
    pub errno: String,
}

impl Refusal {
    pub(crate) fn new(errno: rustix::io::Errno, error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            errno: errno_name(errno.raw_os_error()),
        }
    }
}

/// An error of a question's way to the host or back, so that who reads JSON reads one kind of error.
impl From<&anyhow::Error> for Refusal {
    fn from(error: &anyhow::Error) -> Self {
        if let Some(refusal) = error.downcast_ref::<Self>() {
            return refusal.clone();
        }
        let causes = error.chain().filter_map(|cause| cause.downcast_ref());
        let errno = causes.into_iter().find_map(std::io::Error::raw_os_error);
        Self {
            error: format!("{error:#}"),
            errno: errno_name(errno.unwrap_or(rustix::io::Errno::IO.raw_os_error())),
        }
    }
}

/// The name of an error number of Linux, of those that a question may end with.
fn errno_name(number: i32) -> String {
    use rustix::io::Errno as E;
    let names = [
        (E::PERM, "EPERM"),
        (E::NOENT, "ENOENT"),
        (E::IO, "EIO"),
        (E::AGAIN, "EAGAIN"),
        (E::ACCESS, "EACCES"),
        (E::BUSY, "EBUSY"),
        (E::EXIST, "EEXIST"),
        (E::NOTDIR, "ENOTDIR"),
        (E::ADDRINUSE, "EADDRINUSE"),
        (E::ISDIR, "EISDIR"),
        (E::INVAL, "EINVAL"),
        (E::NFILE, "ENFILE"),
        (E::MFILE, "EMFILE"),
        (E::FBIG, "EFBIG"),
        (E::NOSPC, "ENOSPC"),
        (E::ROFS, "EROFS"),
        (E::LOOP, "ELOOP"),
        (E::STALE, "ESTALE"),
        (E::DQUOT, "EDQUOT"),
        (E::PIPE, "EPIPE"),
        (E::NAMETOOLONG, "ENAMETOOLONG"),
        (E::CONNREFUSED, "ECONNREFUSED"),
        (E::CONNRESET, "ECONNRESET"),
    ];
    let found = names.iter().find(|(e, _)| e.raw_os_error() == number);
    found.map_or_else(|| format!("errno {number}"), |(_, name)| (*name).to_owned())
}
