//! The function in a program's hands, without PASIDs: what is mapped is reached, what is not faults and is told, what
//! is mapped again is reached where it is now.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::buffer::{Buffer, Pattern};
use crate::dsa::{Copy, Descriptor, OnFault, Outcome};
use crate::kernel_log::{self, KernelLog};
use crate::report::Report;
use crate::vfio::{Ats, Function};

const MIB: usize = 1 << 20;

/// Where the device is to find things. In different entries of every table, one of them beyond 32 bits and one
/// far up, and not where they are in this process.
const RECORD_IOVA: u64 = 0x0010_0000;
const SOURCE_IOVA: u64 = 0x40_0000_0000;
const DESTINATION_IOVA: u64 = 0x1_4000_0000;

const LEN_BYTES: usize = 2 * MIB;
const RECORD_BYTES: usize = 4096;

const SOURCE: Pattern = Pattern(0xF10);
const OTHER: Pattern = Pattern(0xF11);

/// Sizes and places: within a page, over a page's end, many pages.
const COPIES: [(usize, usize, usize); 5] = [
    (1, 0, 0),
    (64, 4090, 17),
    (4097, 3, 4095),
    (65_537, 1, 5),
    (MIB, 4096, 8192),
];

const PATIENCE: Duration = Duration::from_secs(20);

/// What is mapped for the device, beside the destination.
struct Bench<'a> {
    function: &'a Function,
    source: Buffer,
    record: Buffer,
}

pub(super) fn run(folder: &Path, report: &Report) -> anyhow::Result<()> {
    let function = Function::take(folder)?;
    let bench = Bench {
        function: &function,
        source: Buffer::filled(LEN_BYTES, SOURCE)?,
        record: Buffer::filled(RECORD_BYTES, OTHER)?,
    };
    let destination = Buffer::filled(LEN_BYTES, OTHER)?;
    function.map(SOURCE_IOVA, &bench.source)?;
    function.map(RECORD_IOVA, &bench.record)?;
    function.map(DESTINATION_IOVA, &destination)?;
    function.enable_queue(Ats::On)?;
    report.pass("vfio-bring-up", "");
    report.outcome("vfio-copy", bench.copies(&destination));

    function.unmap(DESTINATION_IOVA, &destination)?;
    let unreached = bench.fails(&destination).map(|()| "");
    report.outcome("vfio-forgotten", unreached);
    // A request for a translation that there is not is no fault; one that is not translated is.
    function.enable_queue(Ats::Off)?;
    kernel_log::expect_faults()?;
    report.outcome("vfio-unmapped", bench.unmapped(&destination, folder));
    kernel_log::expect_no_more_faults()?;

    let again = Buffer::filled(LEN_BYTES, OTHER)?;
    function.map(DESTINATION_IOVA, &again)?;
    function.enable_queue(Ats::On)?;
    destination.fill(OTHER);
    let copied = bench.copies(&again).and_then(|copied| {
        destination
            .expect_pattern(0, OTHER, 0, LEN_BYTES)
            .context("the memory that was mapped before")?;
        Ok(copied)
    });
    report.outcome("vfio-mapped-again", copied);

    function.disable()?;
    function.unmap(DESTINATION_IOVA, &again)?;
    function.unmap(RECORD_IOVA, &bench.record)?;
    function.unmap(SOURCE_IOVA, &bench.source)?;
    drop(bench);
    report.outcome("vfio-given-back", function.give_back().map(|()| ""));
    Ok(())
}

impl Bench<'_> {
    fn copies(&self, destination: &Buffer) -> anyhow::Result<String> {
        for (len, from, to) in COPIES {
            let context = || format!("{len} bytes from {from} to {to}");
            destination.fill(OTHER);
            let outcome = self.copy(from, to, len).with_context(context)?;
            ensure!(outcome == Outcome::Success, "{}: {outcome}", context());
            let check = || {
                destination.expect_pattern(to, SOURCE, from, len)?;
                destination.expect_pattern(0, OTHER, 0, to)?;
                let end = to + len;
                destination.expect_pattern(end, OTHER, end, 4096)
            };
            check().with_context(context)?;
        }
        Ok(format!("{} copies up to {MIB} bytes", COPIES.len()))
    }

    /// Nothing changes, whatever the function has kept of what was mapped.
    fn fails(&self, destination: &Buffer) -> anyhow::Result<()> {
        destination.fill(OTHER);
        let outcome = self.copy(0, 4096, 4096)?;
        match outcome {
            Outcome::Success => bail!("the copy is said to have succeeded"),
            Outcome::PageFault {
                bytes_completed, ..
            } if bytes_completed > 0 => bail!("{outcome}"),
            _ => {}
        }
        destination.expect_pattern(0, OTHER, 0, LEN_BYTES)
    }

    /// Nothing changes, and the kernel tells of the fault by the address.
    fn unmapped(&self, destination: &Buffer, folder: &Path) -> anyhow::Result<String> {
        let mut log = KernelLog::open()?;
        log.new_messages()?;
        self.fails(destination)?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        // Older kernels leave the bus's domain out.
        let name = name.trim_start_matches("0000:");
        log.wait_for(&[
            format!("{name}]"),
            format!("fault addr {:#x} ", DESTINATION_IOVA + 4096),
        ])
    }

    fn copy(&self, from: usize, to: usize, len: usize) -> anyhow::Result<Outcome> {
        self.record.clear();
        let copy = Copy {
            from: SOURCE_IOVA + from as u64,
            to: DESTINATION_IOVA + to as u64,
            len_bytes: u32::try_from(len)?,
            on_fault: OnFault::Complete,
        };
        self.function.submit(Descriptor::copy(copy, RECORD_IOVA));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let word = |at| self.record.load_u64(at).unwrap_or_default();
            if let Some(outcome) = Outcome::from_words(word(0), word(8)) {
                return Ok(outcome);
            }
            ensure!(
                Instant::now() < deadline,
                "no completion record after {} s",
                PATIENCE.as_secs()
            );
            std::thread::yield_now();
        }
    }
}
