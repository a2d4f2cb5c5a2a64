//! Who holds which PASID.

use std::fmt;

use palisade_ioasid::Binding;
use serde::{Deserialize, Serialize};

use super::{clock::Utc, question::Pasids};

/// Who holds which PASID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// PASIDs out, over all tenants.
    pub outstanding: u32,
    /// The tenants, in the order of the configuration.
    pub tenants: Vec<LedgerTenant>,
}

/// One tenant's part of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerTenant {
    /// Its name.
    pub name: String,
    /// The process that it is at the moment.
    pub pid: Option<i32>,
    /// The group that it is in.
    pub group: Option<String>,
    /// How many PASIDs it may hold.
    pub quota: u32,
    /// How many the configuration says.
    pub quota_configured: u32,
    /// What it holds.
    pub pasids: Vec<LedgerLine>,
}

/// One PASID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    /// The host's number.
    pub pasid: u32,
    /// The guest's number for it.
    pub guest: Option<u32>,
    /// References: entries and queues that use it.
    pub references: u32,
    /// idle, active or free-pending.
    pub state: String,
    /// When it was allocated, in nanoseconds since 1970.
    pub since_ns: u64,
    /// In which functions' tables it is.
    pub bound: Vec<LedgerBinding>,
}

/// One function that a PASID is bound on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerBinding {
    /// The function on the host's bus.
    pub function: String,
    /// How often: mediated devices of one parent share its table, and each counts.
    pub entries: u32,
}

impl From<&Binding> for LedgerBinding {
    fn from(binding: &Binding) -> Self {
        Self {
            function: binding.place.to_string(),
            entries: binding.entries,
        }
    }
}

/// Over the columns of [`LedgerLine`].
const HEADING: &str =
    "    PASID    guest  state         references  since                 bound on";

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} out", Pasids(self.outstanding))?;
        for tenant in &self.tenants {
            write!(f, "\n{tenant}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LedgerTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = self
            .pid
            .map_or("nobody".to_owned(), |pid| format!("process {pid}"));
        let (name, out, quota) = (&self.name, self.pasids.len(), self.quota);
        write!(f, "{name} ({process}): {out} of {quota}")?;
        if self.quota != self.quota_configured {
            write!(f, ", {} in the configuration", self.quota_configured)?;
        }
        if let Some(group) = &self.group {
            write!(f, ", group {group}")?;
        }
        if !self.pasids.is_empty() {
            write!(f, "\n{HEADING}")?;
        }
        for line in &self.pasids {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LedgerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = self.guest.map_or("-".to_owned(), |g| g.to_string());
        let bound: Vec<String> = self.bound.iter().map(ToString::to_string).collect();
        write!(
            f,
            "  {:>7}  {guest:>7}  {:<12}  {:>10}  {}  {}",
            self.pasid,
            self.state,
            self.references,
            Utc::from_ns(self.since_ns),
            if bound.is_empty() {
                "-".to_owned()
            } else {
                bound.join(", ")
            },
        )
    }
}

impl fmt::Display for LedgerBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        if self.entries > 1 {
            write!(f, " ({} times)", self.entries)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r79_the_ledger_says_who_holds_what_since_when_and_bound_where() {
        let bound = |function: &str, entries| LedgerBinding {
            function: function.to_owned(),
            entries,
        };
        let line = |pasid, guest, state: &str, bound| LedgerLine {
            pasid,
            guest,
            references: 3,
            state: state.to_owned(),
            since_ns: 951_782_400_000_000_000,
            bound,
        };
        let twice = vec![bound("6a:01.0", 2), bound("6f:01.0", 1)];
        let tenant = |name: &str, pid, pasids| LedgerTenant {
            name: name.to_owned(),
            pid,
            group: None,
            quota: 7,
            quota_configured: 10,
            pasids,
        };
        let ledger = Ledger {
            outstanding: 2,
            tenants: vec![
                tenant(
                    "alice",
                    Some(42),
                    vec![
                        line(7, None, "active", twice),
                        line(1_048_575, Some(1), "free-pending", Vec::new()),
                    ],
                ),
                tenant("bob", None, Vec::new()),
            ],
        };
        assert_eq!(
            ledger.to_string(),
            "2 PASIDs out\n\
             alice (process 42): 2 of 7, 10 in the configuration\n\
             \x20   PASID    guest  state         references  since                 bound on\n\
             \x20       7        -  active                 3  2000-02-29 00:00:00Z  6a:01.0 (2 times), 6f:01.0\n\
             \x20 1048575        1  free-pending           3  2000-02-29 00:00:00Z  -\n\
             bob (nobody): 0 of 7, 10 in the configuration"
        );
    }
}
