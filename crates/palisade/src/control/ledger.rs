//! Who holds which PASID.

use std::{fmt, iter};

use palisade_ioasid::Binding;
use serde::{Deserialize, Serialize};

use super::clock::Utc;

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

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} PASIDs out", self.outstanding)?;
        for tenant in &self.tenants {
            write!(f, "{tenant}")?;
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
        writeln!(f)?;
        for line in &self.pasids {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LedgerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = self.guest.map_or("-".to_owned(), |g| g.to_string());
        write!(
            f,
            "{:>7} guest {guest:>7} {:<12} {} references, since {}",
            self.pasid,
            self.state,
            self.references,
            Utc::from_ns(self.since_ns),
        )?;
        for (binding, word) in self
            .bound
            .iter()
            .zip([", bound on"].iter().chain(iter::repeat(&",")))
        {
            write!(f, "{word} {}", binding.function)?;
            if binding.entries > 1 {
                write!(f, " ({} times)", binding.entries)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r79_a_line_says_since_when_and_bound_where() {
        let bound = |function: &str, entries| LedgerBinding {
            function: function.to_owned(),
            entries,
        };
        let line = LedgerLine {
            pasid: 7,
            guest: None,
            references: 3,
            state: "active".to_owned(),
            since_ns: 951_782_400_000_000_000,
            bound: vec![bound("6a:01.0", 2), bound("6f:01.0", 1)],
        };
        assert_eq!(
            line.to_string(),
            "      7 guest       - active       3 references, since 2000-02-29 00:00:00Z, bound on 6a:01.0 (2 times), \
             6f:01.0"
        );
    }
}
