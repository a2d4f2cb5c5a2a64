//! States as palisade wrote them before functions could be made at run time.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::RunTime;

/// The document of version 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunTime1 {
    quotas: BTreeMap<String, u32>,
    groups: BTreeMap<String, Option<String>>,
    limits: BTreeMap<String, Option<u32>>,
    reserved: BTreeSet<(u32, u32)>,
}

impl From<RunTime1> for RunTime {
    fn from(old: RunTime1) -> Self {
        Self {
            quotas: old.quotas,
            groups: old.groups,
            limits: old.limits,
            reserved: old.reserved,
            mdevs: BTreeMap::new(),
        }
    }
}
