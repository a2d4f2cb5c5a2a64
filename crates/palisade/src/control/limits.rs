//! What limits the tenants, as the operator reads it.

use std::{collections::BTreeMap, fmt};

use palisade_units::PASID_COUNT;
use serde::{Deserialize, Serialize};

/// Who set something up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It stands in the configuration.
    Configuration,
    /// The operator, at run time.
    RunTime,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Configuration => "configuration",
            Self::RunTime => "run time",
        })
    }
}

/// The tree of limits above the tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// PASIDs out, over all tenants.
    pub current: u32,
    /// PASIDs that are neither in a tenant's quota nor reserved.
    pub left: u32,
    /// The tenants that are in no group.
    pub tenants: Vec<String>,
    /// The groups, each behind its parent.
    pub groups: Vec<GroupLine>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLine {
    /// Its name.
    pub name: String,
    /// The group that it is below; the host itself without one.
    pub parent: Option<String>,
    /// How many PASIDs may be out below it; without a limit of its own none.
    pub max: Option<u32>,
    /// How many are.
    pub current: u32,
    /// How many allocations its own limit refused.
    pub events: u64,
    /// Who made it.
    pub origin: Origin,
    /// The tenants in it.
    pub tenants: Vec<String>,
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |tenants: &[String]| match tenants {
            [] => "-".to_owned(),
            some => some.join(", "),
        };
        let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
        let mut rows = vec![(
            "host".to_owned(),
            (PASID_COUNT - 1).to_string(),
            self.current,
            "-".to_owned(),
            names(&self.tenants),
        )];
        for group in &self.groups {
            let above = group.parent.as_deref().and_then(|p| depths.get(p));
            let depth = above.map_or(1, |depth| depth + 1);
            depths.insert(&group.name, depth);
            rows.push((
                format!("{:1$}{2}", "", 2 * depth, group.name),
                group
                    .max
                    .map_or("unlimited".to_owned(), |max| max.to_string()),
                group.current,
                group.events.to_string(),
                names(&group.tenants),
            ));
        }
        let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0).max(8);
        writeln!(
            f,
            "{:<width$} {:>9} {:>9} {:>9}  tenants",
            "group", "max", "current", "refused"
        )?;
        for (name, max, current, events, tenants) in rows {
            writeln!(
                f,
                "{name:<width$} {max:>9} {current:>9} {events:>9}  {tenants}"
            )?;
        }
        writeln!(f, "{} PASIDs are in no quota and not reserved", self.left)
    }
}

/// Which PASIDs no tenant gets, beside 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The ranges, ascending.
    pub ranges: Vec<ReservedRange>,
}

/// One range of PASIDs for the host's own users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedRange {
    /// The lowest.
    pub min: u32,
    /// The highest.
    pub max: u32,
    /// Who reserved it.
    pub origin: Origin,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ranges.is_empty() {
            return writeln!(f, "nothing is reserved");
        }
        for range in &self.ranges {
            let count = range.max - range.min + 1;
            let ends = format!("{}-{}", range.min, range.max);
            writeln!(f, "{ends:<15} {count:>7} PASIDs  {}", range.origin)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r53_groups_are_read_as_a_tree() {
        let group = |name: &str, parent: Option<&str>, max, tenants: &[&str]| GroupLine {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            max,
            current: 2,
            events: 1,
            origin: Origin::RunTime,
            tenants: tenants.iter().map(|t| (*t).to_owned()).collect(),
        };
        let groups = Groups {
            current: 3,
            left: 7,
            tenants: vec!["carol".to_owned()],
            groups: vec![
                group("web", None, Some(50), &["alice", "bob"]),
                group("batch", Some("web"), None, &[]),
            ],
        };
        assert_eq!(
            groups.to_string(),
            "group           max   current   refused  tenants\n\
             host        1048575         3         -  carol\n  \
               web            50         2         1  alice, bob\n    \
                 batch unlimited         2         1  -\n\
             7 PASIDs are in no quota and not reserved\n"
        );
    }
}
