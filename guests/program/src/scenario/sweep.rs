//! A hostile root: programs PASIDs of others into a function, behind the driver's back.
//!
//! It opens the function's queue as any process does, and so has a PASID of its own there. Then it maps the
//! registers through sysfs (the kernel must be started with `iomem=relaxed` for that, since its driver has them
//! too), disables the queue, and enables it again with one PASID after the other. Its own must be
//! accepted, or the sweep shows nothing; which others are, the host judges, which knows whose they are. In
//! the end the queue is put back as it was, and works.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use palisade_memory::DeviceWindow;

use crate::bring_up::Accelerator;
use crate::buffer::{Buffer, Pattern};
use crate::dsa::registers as reg;
use crate::dsa::{Copy, OnFault, Outcome, WorkQueue};
use crate::kernel_log::{self, KernelLog};
use crate::report::Report;

const REGISTERS_LEN_BYTES: usize = 64 << 10;

/// In the first pages, which no process has; no other scenario of this boot faults there.
const NOBODYS_ADDRESS: u64 = 0x1_0000;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first so many PASIDs are tried without a gap.
const DENSE: u32 = 4096;

/// Beyond those, one in so many; a prime, so that no alignment is favoured.
const STRIDE: usize = 251;

/// More accepted PASIDs than this are not listed one by one.
const LISTED: usize = 64;

/// How many PASIDs are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// The first ones densely, then a stride up to the last.
    Sampled,
    /// All of them.
    All,
}

impl FromStr for Extent {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "sampled" => Ok(Self::Sampled),
            "all" => Ok(Self::All),
            other => Err(anyhow!("palisade.sweep={other}: it is sampled or all")),
        }
    }
}

impl Extent {
    /// The PASIDs, in ascending order, each once. Zero, which the architecture reserves, is among them.
    fn pasids(self) -> Box<dyn Iterator<Item = u32>> {
        let end = 1 << reg::PASID_BITS;
        match self {
            Self::All => Box::new(0..end),
            Self::Sampled => {
                let sparse = (DENSE..end).step_by(STRIDE).chain([end - 1]);
                let mut before = None;
                Box::new((0..DENSE).chain(sparse).filter(move |&pasid| {
                    let first = before != Some(pasid);
                    before = Some(pasid);
                    first
                }))
            }
        }
    }
}

/// A function's registers, past its driver.
pub(super) struct Registers {
    window: DeviceWindow,
    table: usize,
}

enum Answer {
    Accepted,
    Refused,
}

/// Sweeps, once the host says so. Notes `sweep-own` (the PASID of this process), `sweep-tried`, `sweep-refused` and `sweep-accepted`
/// (a list).
pub(super) fn run(
    accelerator: &Accelerator,
    extent: Extent,
    report: &Report,
) -> anyhow::Result<String> {
    let queue = WorkQueue::open(&accelerator.queue_path())?;
    check_copy(&queue).context("before the sweep")?;
    let registers = Registers::map(accelerator)?;
    let own = registers.own_pasid()?;
    report.note("sweep-own", own);
    report.wait_for_host()?;
    registers.disable()?;
    let (mut tried, mut refused) = (0_u32, 0_u32);
    let mut accepted = BTreeSet::new();
    for pasid in extent.pasids() {
        tried += 1;
        match registers.enable_with(pasid)? {
            Answer::Accepted => {
                accepted.insert(pasid);
                registers.disable()?;
            }
            Answer::Refused => refused += 1,
        }
    }
    report.note("sweep-tried", tried);
    report.note("sweep-refused", refused);
    report.note("sweep-accepted", list(&accepted));
    ensure!(
        accepted.contains(&own),
        "not even this process's own PASID {own} was accepted: the sweep shows nothing"
    );
    let enable_again = || -> anyhow::Result<()> {
        ensure!(
            matches!(registers.enable_with(own)?, Answer::Accepted),
            "the own PASID {own} is not accepted again"
        );
        Ok(())
    };
    enable_again()?;
    check_copy(&queue).context("after the sweep")?;
    // A request for a translation that there is not is no fault; one that is not translated is.
    registers.disable()?;
    registers.without_ats();
    enable_again()?;
    report.outcome("fault-names", check_names(&queue, accelerator, own));
    Ok(format!(
        "{tried} tried, {refused} refused, {} accepted",
        accepted.len()
    ))
}

fn check_copy(queue: &WorkQueue) -> anyhow::Result<()> {
    const LEN: usize = 8192;
    let source = Buffer::filled(LEN, Pattern(3))?;
    let destination = Buffer::filled(LEN, Pattern(4))?;
    let finished = queue.copy(Copy {
        from: source.address(0),
        to: destination.address(0),
        len_bytes: u32::try_from(LEN)?,
        on_fault: OnFault::Block,
    })?;
    ensure!(
        finished.outcome == Outcome::Success,
        "a copy of this process's own: {}",
        finished.outcome
    );
    destination.expect_pattern(0, Pattern(3), 0, LEN)
}

/// A fault of this process's own is told by the kernel with the guest's name of the function and with this
/// process's PASID as the guest knows it, whatever the host calls them.
fn check_names(queue: &WorkQueue, accelerator: &Accelerator, own: u32) -> anyhow::Result<String> {
    let folder = accelerator.pci_folder()?;
    let function = folder.file_name().context("the function has no name")?;
    let mine = Buffer::filled(64, Pattern(5))?;
    let mut log = KernelLog::open()?;
    log.new_messages()?;
    kernel_log::expect_faults()?;
    let finished = queue.copy(Copy {
        from: NOBODYS_ADDRESS,
        to: mine.address(0),
        len_bytes: 64,
        on_fault: OnFault::Complete,
    })?;
    ensure!(
        finished.outcome != Outcome::Success,
        "{NOBODYS_ADDRESS:#x} is said to have been read"
    );
    let wanted = [
        format!("PASID {own:#x}]"),
        format!("[{}]", function.display()),
        format!("fault addr {NOBODYS_ADDRESS:#x} "),
    ];
    log.wait_for(&wanted)
}

fn list(pasids: &BTreeSet<u32>) -> String {
    let listed: Vec<String> = pasids.iter().take(LISTED).map(u32::to_string).collect();
    match pasids.len().saturating_sub(LISTED) {
        0 => listed.join(","),
        more => format!("{} and {more} more", listed.join(",")),
    }
}

impl Registers {
    pub(super) fn map(accelerator: &Accelerator) -> anyhow::Result<Self> {
        let path = accelerator.pci_folder()?.join("resource0");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let window = DeviceWindow::map(&file, REGISTERS_LEN_BYTES)
            .with_context(|| format!("cannot map {}", path.display()))?;
        let table = reg::wqcfg_table_offset(window.load_u64(reg::OFFSETS));
        let entry_bytes = reg::wqcfg_entry_bytes(window.load_u64(reg::WQCAP));
        ensure!(
            table >= reg::TABLE_UNIT_BYTES && table + entry_bytes <= REGISTERS_LEN_BYTES,
            "the table of work queues is said to be at {table:#x}"
        );
        Ok(Self { window, table })
    }

    /// Where a word of the queue's entry is; the queue is the function's first.
    fn word(&self, word: usize) -> usize {
        self.table + word
    }

    fn enabled(&self) -> bool {
        self.window.load_u32(self.word(reg::WQCFG_STATE_WORD)) >> 30 == 1
    }

    /// The PASID that the driver has programmed for this process.
    pub(super) fn own_pasid(&self) -> anyhow::Result<u32> {
        let word = self.window.load_u32(self.word(reg::WQCFG_PASID_WORD));
        ensure!(
            self.enabled() && word & reg::WQCFG_PASID_ENABLE != 0,
            "the queue is open, but its registers show no PASID: {word:#010x}"
        );
        Ok((word >> reg::WQCFG_PASID_SHIFT) & ((1 << reg::PASID_BITS) - 1))
    }

    fn enable_with(&self, pasid: u32) -> anyhow::Result<Answer> {
        let at = self.word(reg::WQCFG_PASID_WORD);
        let kept = self.window.load_u32(at) & ((1 << reg::WQCFG_PASID_SHIFT) - 1);
        self.window.store_u32(
            at,
            kept | pasid << reg::WQCFG_PASID_SHIFT | reg::WQCFG_PASID_ENABLE,
        );
        let error = self.command(reg::ENABLE_WQ, 0)?;
        match (error, self.enabled()) {
            (0, true) => Ok(Answer::Accepted),
            (0, false) => Err(anyhow!(
                "the queue is not enabled with PASID {pasid}, but no error is told"
            )),
            (_, false) => Ok(Answer::Refused),
            (error, true) => Err(anyhow!(
                "the queue is enabled with PASID {pasid} in spite of error {error:#04x}"
            )),
        }
    }

    /// Has the queue, which is disabled, make no use of ATS.
    fn without_ats(&self) {
        let at = self.word(reg::WQCFG_PASID_WORD);
        let mode = self.window.load_u32(at);
        self.window.store_u32(at, mode | reg::WQCFG_ATS_DISABLE);
    }

    fn disable(&self) -> anyhow::Result<()> {
        let error = self.command(reg::DISABLE_WQ, 1)?;
        ensure!(error == 0, "disabling the queue: error {error:#04x}");
        Ok(())
    }

    fn command(&self, command: u32, operand: u32) -> anyhow::Result<u32> {
        self.window.store_u32(reg::CMD, command << 20 | operand);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.window.load_u32(reg::CMDSTS);
            if status & reg::CMDSTS_ACTIVE == 0 {
                return Ok(status & 0xFF);
            }
            ensure!(
                Instant::now() < deadline,
                "command {command} does not complete"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_of_all_is_of_all_two_to_the_twentieth() {
        assert_eq!(Extent::All.pasids().count(), 1 << 20);
    }

    #[test]
    fn a_sampled_sweep_has_the_first_and_the_last_and_none_twice() {
        let tried: Vec<u32> = Extent::Sampled.pasids().collect();
        assert!(tried.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(tried[..3], [0, 1, 2]);
        assert_eq!(tried[4095], 4095);
        assert_eq!(tried.last(), Some(&0xF_FFFF));
        assert!(tried.len() > 8000);
    }
}
