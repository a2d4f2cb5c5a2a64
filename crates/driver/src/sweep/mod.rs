//! A hostile tenant: it programs every PASID there is into its device and tries to read what is not its own.

mod exclusive;
mod mediated;

use crate::{
    buffer::{Buffer, Layout},
    copy::{Copy, MissingPage, move_of},
    error::DriverError,
    kernel::Kernel,
    page_table::Rights,
    tenant::Tenant,
    unit::FaultReport,
};
use palisade_dsa::spec::Descriptor;
use palisade_units::{Bdf, GuestPasid, Iova, PAGE_BYTES, PASID_COUNT};
use palisade_vtd::spec::fault::FaultCode;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The reasons for which a PASID that the tenant has not set up is refused (VT-d §7.1.3): SCT.9, it is the one of
/// requests without a PASID; SPD.2, its directory entry is not present; SPT.2, its own entry is not.
const NO_PASID_ENTRY: [FaultCode; 3] = [
    FaultCode::new(0x48),
    FaultCode::new(0x51),
    FaultCode::new(0x59),
];
/// Where the tenant's processes see the page into which the sweep copies.
const LOOT_AT: Iova = Iova::new(0x2f_ffff_f000);
/// What stands there before.
const UNTOUCHED: u8 = 0xa5;
/// How many faults are kept for people to read.
const KEPT_FAULTS: usize = 8;

/// Which fence is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SweepMode {
    /// A device that mediates: it refuses a PASID when a queue is enabled.
    Mediated,
    /// A function of the tenant's own: it takes every PASID, and the IOMMU refuses the access.
    Exclusive,
}

/// What to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepPlan {
    /// Which fence.
    pub mode: SweepMode,
    /// Which PASIDs; [`SweepPlan::ALL`] for all there are.
    pub pasids: Range<u32>,
    /// Where the victim has its secret, in its own addresses; tried in turn.
    pub targets: Vec<Iova>,
    /// What stands there: 1 to 4096 bytes, by any eight of which stolen bytes are known. The tenant must have nothing of it
    /// at the targets' addresses in its own processes.
    pub secret: Vec<u8>,
}

impl SweepPlan {
    /// Every PASID there is.
    pub const ALL: Range<u32> = 0..PASID_COUNT;
}

/// What came of it. If the fence holds, `reached_other` is 0, and every PASID that is not the tenant's own was refused by a
/// mediated device, or faulted on an exclusive one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepOutcome {
    /// Which fence.
    pub mode: SweepMode,
    /// How many PASIDs were programmed.
    pub tried: u64,
    /// How many the device refused as not the tenant's.
    pub refused: u64,
    /// How many ended in an IOMMU fault: a read of that address by that PASID, for want of a PASID entry.
    pub faulted: u64,
    /// How many were the tenant's own, and led to its own memory.
    pub own: u64,
    /// How many may have reached what is not the tenant's: the secret came, or no refusal and no fault can be shown.
    pub reached_other: u64,
    /// The first few faults. They do not go with the numbers to where those are written.
    #[serde(skip)]
    pub first_faults: Vec<FaultReport>,
}

impl SweepOutcome {
    fn new(mode: SweepMode) -> Self {
        Self {
            mode,
            tried: 0,
            refused: 0,
            faulted: 0,
            own: 0,
            reached_other: 0,
            first_faults: Vec::new(),
        }
    }

    /// Whether every PASID there is was tried, and every attempt ended the way it has to.
    #[must_use]
    pub fn held(&self) -> bool {
        let stopped = match self.mode {
            SweepMode::Mediated => self.refused,
            SweepMode::Exclusive => self.faulted,
        };
        self.reached_other == 0
            && self.tried == u64::from(PASID_COUNT)
            && stopped + self.own == self.tried
    }

    fn keep_faults(&mut self, faults: &[FaultReport]) {
        let room = KEPT_FAULTS.saturating_sub(self.first_faults.len());
        self.first_faults.extend(faults.iter().take(room));
    }
}

impl Tenant {
    /// Tries every PASID of a plan on a function. `progress` is told how many are done.
    ///
    /// The function's queues are taken away from the processes that have them; processes get them back by their next copy.
    ///
    /// # Errors
    /// [`DriverError::Command`] where a queue is refused for another reason than its PASID, since nothing is shown then;
    /// [`DriverError::BadSecret`]; those of the devices.
    pub fn sweep(
        &mut self,
        bdf: Bdf,
        plan: &SweepPlan,
        progress: &mut dyn FnMut(u64),
    ) -> Result<SweepOutcome, DriverError> {
        let (accelerator, kernel) = &mut self.devices_and_kernel(bdf)?;
        accelerator.disable_queues(kernel)?;
        // Faults of before are not this sweep's.
        kernel.take_faults()?;
        let loot = Loot::new(kernel, plan)?;
        let swept = match plan.mode {
            SweepMode::Mediated => mediated::sweep(accelerator, kernel, plan, &loot, progress),
            SweepMode::Exclusive => exclusive::sweep(accelerator, kernel, plan, &loot, progress),
        };
        let released = loot.release(kernel);
        let outcome = swept?;
        released?;
        Ok(outcome)
    }
}

/// The page into which the sweep copies, mapped in all processes of the tenant.
struct Loot {
    page: Buffer,
    processes: Vec<GuestPasid>,
    targets: Vec<Iova>,
    secret: Vec<u8>,
}

impl Loot {
    fn new(kernel: &mut Kernel, plan: &SweepPlan) -> Result<Self, DriverError> {
        let fits = (1..=PAGE_BYTES).contains(&(plan.secret.len() as u64));
        let untouched = plan.secret.iter().all(|byte| *byte == UNTOUCHED);
        if !fits || untouched || plan.targets.is_empty() {
            return Err(DriverError::BadSecret);
        }
        let page = Buffer::new(kernel.guest_mut(), PAGE_BYTES, Layout::Small)?;
        let mut loot = Self {
            page,
            processes: Vec::new(),
            targets: plan.targets.clone(),
            secret: plan.secret.clone(),
        };
        match loot.map(kernel) {
            Ok(()) => Ok(loot),
            Err(error) => {
                loot.release(kernel)?;
                Err(error)
            }
        }
    }

    fn map(&mut self, kernel: &mut Kernel) -> Result<(), DriverError> {
        self.clean(kernel)?;
        for pasid in kernel.pasids() {
            let (process, guest) = kernel.process_and_guest(pasid)?;
            process.map(guest, LOOT_AT, &self.page, Rights::ReadWrite)?;
            self.processes.push(pasid);
        }
        Ok(())
    }

    fn clean(&self, kernel: &Kernel) -> Result<(), DriverError> {
        self.page.write(kernel.guest(), 0, &[UNTOUCHED; 4096])
    }

    /// Whether the number is one of the tenant's own.
    fn is_own(&self, pasid: GuestPasid) -> bool {
        self.processes.contains(&pasid)
    }

    /// The attempt to read the victim's memory by a PASID.
    fn attempt(&self, pasid: GuestPasid) -> Attempt {
        let turn = usize::try_from(pasid.get()).unwrap_or(0) % self.targets.len();
        let copy = Copy {
            process: pasid,
            from: self.targets[turn],
            to: LOOT_AT,
            len_bytes: u32::try_from(self.secret.len()).unwrap_or(0),
            missing: MissingPage::End,
        };
        // Nobody is told of its end: a record could not be written either, and would be a second fault.
        Attempt {
            from: copy.from,
            descriptor: move_of(&copy),
        }
    }

    /// Whether the secret came; the page is clean again afterwards.
    fn holds_secret(&self, kernel: &Kernel) -> Result<bool, DriverError> {
        let mut bytes = vec![0; self.secret.len()];
        self.page.read(kernel.guest(), 0, &mut bytes)?;
        if bytes.iter().all(|byte| *byte == UNTOUCHED) {
            return Ok(false);
        }
        self.clean(kernel)?;
        Ok(shares(&bytes, &self.secret))
    }

    fn release(self, kernel: &mut Kernel) -> Result<(), DriverError> {
        for pasid in &self.processes {
            kernel.unmap(*pasid, LOOT_AT, PAGE_BYTES)?;
        }
        self.page.release(kernel.guest_mut());
        Ok(())
    }
}

/// A descriptor, and the address that it reads.
struct Attempt {
    from: Iova,
    descriptor: Descriptor,
}

/// Whether any eight bytes in a row of a secret came: a part of it is as bad as all of it.
fn shares(found: &[u8], secret: &[u8]) -> bool {
    found
        .chunks(8)
        .zip(secret.chunks(8))
        .any(|(found, secret)| found == secret && secret.iter().any(|byte| *byte != UNTOUCHED))
}

fn pasid(raw: u32) -> Result<GuestPasid, DriverError> {
    GuestPasid::new(raw).map_err(|error| DriverError::NoPasid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r11_a_part_of_a_secret_is_known_again() {
        let secret = b"the secret of alice, which nobody reads";
        let mut found = [UNTOUCHED; 39];
        assert!(!shares(&found, secret));
        found[8..16].copy_from_slice(&secret[8..16]);
        assert!(shares(&found, secret));
        assert!(!shares(&[0; 39], secret));
    }

    fn outcome(mode: SweepMode) -> SweepOutcome {
        SweepOutcome {
            tried: 1 << 20,
            own: 4,
            ..SweepOutcome::new(mode)
        }
    }

    #[test]
    fn r11_a_fence_holds_only_if_every_pasid_was_tried_and_stopped() {
        let mediated = SweepOutcome {
            refused: (1 << 20) - 4,
            ..outcome(SweepMode::Mediated)
        };
        assert!(mediated.held());
        assert!(
            !SweepOutcome {
                reached_other: 1,
                ..mediated.clone()
            }
            .held()
        );
        assert!(
            !SweepOutcome {
                tried: 4,
                refused: 0,
                ..mediated.clone()
            }
            .held()
        );
        assert!(
            !SweepOutcome {
                refused: mediated.refused - 1,
                ..mediated.clone()
            }
            .held()
        );
        assert!(
            !SweepOutcome {
                mode: SweepMode::Exclusive,
                ..mediated.clone()
            }
            .held()
        );
    }
}
