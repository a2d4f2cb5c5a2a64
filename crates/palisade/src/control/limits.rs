//! What limits the tenants, as the operator reads it.

use std::{collections::BTreeMap, fmt};

use palisade_units::PASID_COUNT;
use serde::{Deserialize, Serialize};

use super::question::{Ends, Pasids};

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
            Self::Configuration => "the configuration",
            Self::RunTime => "the operator, at run time",
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
    /// Who set its limit.
    pub max_origin: Origin,
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
            "-",
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
                match (group.origin, group.max_origin) {
                    (Origin::RunTime, _) => "group",
                    (Origin::Configuration, Origin::RunTime) => "limit",
                    (Origin::Configuration, Origin::Configuration) => "-",
                },
                names(&group.tenants),
            ));
        }
        let width = rows.iter().map(|row| row.0.len()).max().unwrap_or(0).max(8);
        writeln!(
            f,
            "{:<width$} {:>9} {:>9} {:>9}  at run time  tenants",
            "group", "max", "current", "refused"
        )?;
        for (name, max, current, events, at_run_time, tenants) in rows {
            writeln!(
                f,
                "{name:<width$} {max:>9} {current:>9} {events:>9}  {at_run_time:<11}  {tenants}"
            )?;
        }
        let verb = if self.left == 1 { "is" } else { "are" };
        let left = Pasids(self.left);
        write!(f, "{left} {verb} neither in a quota nor reserved")
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
            return f.write_str("nothing is reserved");
        }
        write!(f, "{:<15}   PASIDs  reserved by", "range")?;
        for range in &self.ranges {
            let count = range.max.saturating_sub(range.min).saturating_add(1);
            let ends = Ends(range.min, range.max);
            write!(f, "\n{ends:<15}  {count:>7}  {}", range.origin)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r53_groups_are_read_as_a_tree() {
        let group = |name: &str, parent: Option<&str>, max, origin, tenants: &[&str]| GroupLine {
            name: name.to_owned(),
            parent: parent.map(str::to_owned),
            max,
            current: 2,
            events: 1,
            origin,
            max_origin: Origin::RunTime,
            tenants: tenants.iter().map(|t| (*t).to_owned()).collect(),
        };
        let web = Origin::Configuration;
        let groups = Groups {
            current: 3,
            left: 7,
            tenants: vec!["carol".to_owned()],
            groups: vec![
                group("web", None, Some(50), web, &["alice", "bob"]),
                group("batch", Some("web"), None, Origin::RunTime, &[]),
            ],
        };
        assert_eq!(
            groups.to_string(),
            "group           max   current   refused  at run time  tenants\n\
             host        1048575         3         -  -            carol\n  \
               web            50         2         1  limit        alice, bob\n    \
                 batch unlimited         2         1  group        -\n\
             7 PASIDs are neither in a quota nor reserved"
        );
    }

    #[test]
    fn r10_reserved_ranges_are_read_with_who_reserved_them() {
        let range = |min, max, origin| ReservedRange { min, max, origin };
        let mut reserved = Reserved {
            ranges: vec![
                range(1, 4, Origin::Configuration),
                range(300, 300, Origin::RunTime),
            ],
        };
        assert_eq!(
            reserved.to_string(),
            "range             PASIDs  reserved by\n\
             1-4                    4  the configuration\n\
             300                    1  the operator, at run time"
        );
        reserved.ranges.clear();
        assert_eq!(reserved.to_string(), "nothing is reserved");
    }
}
