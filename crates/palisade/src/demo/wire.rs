//! What the host's process and a tenant's process say to each other: one JSON document a line.

use std::path::PathBuf;

use palisade_driver::{SweepMode, SweepOutcome};
use serde::{Deserialize, Serialize};

/// The first line to a tenant.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) name: String,
    pub(super) unit_socket: PathBuf,
    /// The mediated function, on which the copies are done.
    pub(super) mediated: FunctionOrder,
    /// The exclusive function, if the tenant has one.
    pub(super) exclusive: Option<FunctionOrder>,
    pub(super) copy_bytes: u64,
    pub(super) seed: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FunctionOrder {
    /// As `bb:dd.f`.
    pub(super) bdf: String,
    pub(super) socket: PathBuf,
}

/// What a tenant is told to do after its copies.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub(super) enum Command {
    /// Program every PASID and try to read these addresses.
    Sweep {
        mode: SweepMode,
        targets: Vec<Secret>,
        secret: String,
    },
    /// Say whether the secret still stands where it was.
    Check,
    /// Give everything back and end.
    Finish,
}

/// Where a tenant's secret stands, in the address space of one of its PASIDs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Secret {
    pub(super) pasid: u32,
    pub(super) iova: u64,
    pub(super) len_bytes: u64,
}

/// What a tenant tells.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    Progress {
        done: u64,
        of: u64,
        what: String,
    },
    Copied(Copied),
    Swept {
        outcome: SweepOutcome,
        faults: Vec<FaultLine>,
    },
    Checked {
        intact: bool,
    },
    Failed {
        what: String,
    },
}

/// The tenant's work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Copied {
    pub(super) host_pasids: Vec<u32>,
    pub(super) copied_bytes: u64,
    pub(super) copy_gib_per_s: f64,
    pub(super) memcpy_gib_per_s: f64,
    pub(super) page_requests: u64,
    pub(super) verified: bool,
    /// Where the tenant's secret stands, and what it says.
    pub(super) secrets: Vec<Secret>,
    pub(super) secret: String,
}

/// One IOMMU fault, in the tenant's own names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultLine {
    /// The function.
    pub bdf: String,
    /// The PASID; none where the request had none.
    pub pasid: Option<u32>,
    /// The address that was asked for.
    pub iova: u64,
    /// What was tried.
    pub access: String,
    /// The architectural fault reason.
    pub reason_code: u8,
    /// The reason in words.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_goes_over_the_wire() {
        let line = r#"{"bdf":"00:11.0","pasid":7,"iova":8323072,"access":"read","reason_code":89,"reason":"PASID entry not present"}"#;
        let fault: FaultLine = serde_json::from_str(line).unwrap();
        assert_eq!(fault.iova, 0x7f_0000);
        assert_eq!(serde_json::to_string(&fault).unwrap(), line);
    }
}
