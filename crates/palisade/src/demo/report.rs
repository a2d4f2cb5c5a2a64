//! What the demo found, for people and for programs.

use std::fmt::{self, Write as _};

use palisade_driver::{SweepMode, SweepOutcome};
use serde::Serialize;

use super::wire::FaultLine;

/// How many faults are told in words.
const FAULTS_TOLD: usize = 3;

/// The whole outcome; its JSON is the output of `demo --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Everything was verified and the fence held.
    pub ok: bool,
    /// The tenants and their work.
    pub tenants: Vec<TenantReport>,
    /// Plain memcpy in the same run and of the same sizes, the mean over the tenants.
    pub memcpy_gib_per_s: f64,
    /// The attacks.
    pub sweep: Vec<SweepOutcome>,
    /// The first faults of the attacks.
    pub faults: Vec<FaultLine>,
    /// How many PASIDs the authority had out.
    pub ledger: LedgerReport,
    /// Whether the victim's secret stood unchanged after the attacks.
    #[serde(skip)]
    pub intact: bool,
}

/// One tenant.
#[derive(Clone, Debug, Serialize)]
pub struct TenantReport {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// The host PASIDs that it allocated.
    pub host_pasids: Vec<u32>,
    /// What it copied through the device.
    pub copied_bytes: u64,
    /// How fast, from submission to the last completion record.
    pub copy_gib_per_s: f64,
    /// Page requests that it answered.
    pub page_requests: u64,
    /// Whether every byte was where it had to be.
    pub verified: bool,
}

/// PASIDs out, before, during and after.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LedgerReport {
    /// Before the tenants came.
    pub before: u32,
    /// The most that were seen out at once.
    pub peak: u32,
    /// After the tenants had gone.
    pub after: u32,
}

impl Report {
    /// Whether all that was promised was seen.
    #[must_use]
    pub fn holds(&self) -> bool {
        let modes = [SweepMode::Mediated, SweepMode::Exclusive];
        self.intact
            && self.tenants.len() == 2
            && self
                .tenants
                .iter()
                .all(|t| t.verified && t.copied_bytes > 0 && t.page_requests > 0)
            && modes
                .iter()
                .all(|m| self.sweep.iter().any(|s| s.mode == *m && s.held()))
            && !self.faults.is_empty()
            && self.ledger.after == self.ledger.before
            && self.ledger.peak > self.ledger.before
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Who owns what")?;
        for tenant in &self.tenants {
            let pasids: Vec<String> = tenant.host_pasids.iter().map(u32::to_string).collect();
            writeln!(
                f,
                "  {:<6} process {:<8} host PASIDs {}",
                tenant.name,
                tenant.pid,
                pasids.join(", ")
            )?;
        }
        writeln!(
            f,
            "\nCopies by the tenants' own addresses (plain memcpy: {:.2} GiB/s)",
            self.memcpy_gib_per_s
        )?;
        for tenant in &self.tenants {
            let verified = if tenant.verified {
                "every byte verified"
            } else {
                "NOT VERIFIED"
            };
            writeln!(
                f,
                "  {:<6} {:>5} MiB at {:.2} GiB/s, {} page requests answered, {verified}",
                tenant.name,
                tenant.copied_bytes >> 20,
                tenant.copy_gib_per_s,
                grouped(tenant.page_requests),
            )?;
        }
        writeln!(
            f,
            "\nbob programs every PASID and reads at the addresses of alice's secret"
        )?;
        for sweep in &self.sweep {
            let (device, mut parts) = match sweep.mode {
                SweepMode::Mediated => ("his slice of the shared device", String::new()),
                SweepMode::Exclusive => ("a device of his own", String::new()),
            };
            write!(parts, "{} tried", grouped(sweep.tried))?;
            for (count, word) in [
                (sweep.refused, "refused"),
                (sweep.faulted, "IOMMU faults"),
                (sweep.own, "his own"),
            ] {
                if count > 0 {
                    write!(parts, ", {} {word}", grouped(count))?;
                }
            }
            writeln!(
                f,
                "  {device}: {parts}, {} reached alice",
                grouped(sweep.reached_other)
            )?;
        }
        if !self.faults.is_empty() {
            writeln!(f, "\nThe first faults, as bob's unit recorded them")?;
        }
        for fault in self.faults.iter().take(FAULTS_TOLD) {
            let pasid = fault
                .pasid
                .map_or("no PASID".to_owned(), |p| format!("PASID {p}"));
            writeln!(
                f,
                "  {} {pasid} {} at {:#x}: {}",
                fault.bdf, fault.access, fault.iova, fault.reason
            )?;
        }
        writeln!(
            f,
            "\nPASIDs out: {} before, {} at the most, {} after",
            self.ledger.before, self.ledger.peak, self.ledger.after
        )?;
        if self.ok {
            write!(
                f,
                "The fence held: nothing of alice's reached bob, and everything was given back."
            )
        } else if self.sweep.iter().any(|s| s.reached_other > 0) || !self.intact {
            write!(f, "THE FENCE BROKE: see above.")
        } else {
            write!(
                f,
                "NOT SHOWN: something above did not end the way it has to."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let tenant = |name: &str| TenantReport {
            name: name.to_owned(),
            pid: 7,
            host_pasids: vec![1, 2, 3],
            copied_bytes: 256 << 20,
            copy_gib_per_s: 5.0,
            page_requests: 64,
            verified: true,
        };
        let count = 1 << 20;
        let sweep = |mode, refused, faulted| SweepOutcome {
            mode,
            tried: count,
            refused,
            faulted,
            own: 3,
            reached_other: 0,
            first_faults: Vec::new(),
        };
        Report {
            ok: true,
            tenants: vec![tenant("alice"), tenant("bob")],
            memcpy_gib_per_s: 9.0,
            sweep: vec![
                sweep(SweepMode::Mediated, count - 3, 0),
                sweep(SweepMode::Exclusive, 0, count - 3),
            ],
            faults: vec![FaultLine {
                bdf: "00:12.0".to_owned(),
                pasid: Some(1),
                iova: 0x4000,
                access: "read".to_owned(),
                reason_code: 0x59,
                reason: "PASID entry not present".to_owned(),
            }],
            ledger: LedgerReport {
                before: 0,
                peak: 9,
                after: 0,
            },
            intact: true,
        }
    }

    #[test]
    fn it_holds_only_if_everything_does() {
        assert!(good().holds());
        let broken: [fn(&mut Report); 6] = [
            |r| r.tenants[1].verified = false,
            |r| r.tenants[0].page_requests = 0,
            |r| r.sweep[0].reached_other = 1,
            |r| r.sweep.truncate(1),
            |r| r.ledger.after = 1,
            |r| r.intact = false,
        ];
        for (index, breaks) in broken.iter().enumerate() {
            let mut report = good();
            breaks(&mut report);
            assert!(!report.holds(), "{index}");
        }
    }

    #[test]
    fn the_last_line_says_whether_the_fence_held() {
        let mut report = good();
        assert!(
            report
                .to_string()
                .lines()
                .last()
                .unwrap()
                .starts_with("The fence held")
        );
        report.ok = false;
        report.sweep[0].reached_other = 2;
        let text = report.to_string();
        assert!(text.lines().last().unwrap().contains("BROKE"));
        assert!(text.contains("1,048,573 refused"), "{text}");
    }
}
