//! `sva`: one process gives the device its own addresses. The pages are there, or not yet, or never.

use anyhow::{Context, bail, ensure};

use crate::bring_up::bring_up;
use crate::buffer::{Buffer, Pattern};
use crate::dsa::{Copy, Descriptor, OnFault, Outcome, Request, Side, WorkQueue};
use crate::kernel_log;
use crate::report::Report;
use crate::scenario::pages::{self, PAGE_BYTES, PageSizes};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const SOURCE: Pattern = Pattern(0x5EED);
const UNTOUCHED_BYTES: usize = 256 * KIB;

/// Addresses that no process has: the first pages, the kernel's half, one that is not canonical.
const WRONG_ADDRESSES: [(&str, u64); 3] = [
    ("unmapped", 0x1_0000),
    ("kernel", 0xFFFF_8880_0000_1000),
    ("non-canonical", 0x0100_0000_0000_0000),
];

/// Memory that this process may read only.
static READ_ONLY: [u64; 1024] = [0x0123_4567_89AB_CDEF; 1024];

pub(super) fn run(report: &Report) -> anyhow::Result<()> {
    let accelerators = bring_up(1)?;
    let accelerator = accelerators.first().context("no accelerator")?;
    report.pass("bring-up", &accelerator.name);
    let longest = usize::try_from(accelerator.max_transfer_bytes()?)?;
    let queue = WorkQueue::open(&accelerator.queue_path())?;
    report.pass("open", "");

    pages::choose(PageSizes::Small)?;
    report.outcome("touched", touched(&queue, MIB.min(longest)));
    report.outcome("untouched-destination", untouched_destination(&queue));
    report.outcome("untouched-source", untouched_source(&queue));
    report.outcome("unmapped-again", unmapped_again(&queue));
    pages::choose(PageSizes::Large)?;
    report.outcome("large-pages", touched(&queue, (2 * MIB).min(longest)));
    report.outcome("large-untouched", large_untouched(&queue));
    pages::choose(PageSizes::Small)?;
    kernel_log::expect_faults()?;
    report.outcome("fault-without-blocking", fault_without_blocking(&queue));
    for (name, address) in WRONG_ADDRESSES {
        report.outcome(
            &format!("wrong-{name}-source"),
            wrong(&queue, address, Side::Read),
        );
        report.outcome(
            &format!("wrong-{name}-destination"),
            wrong(&queue, address, Side::Write),
        );
    }
    report.outcome("read-only-destination", read_only(&queue));
    report.outcome("record-at-wrong-address", wrong_record(&queue));
    report.outcome("goes-on", touched(&queue, 64 * KIB));
    Ok(())
}

fn copy(
    queue: &WorkQueue,
    from: (&Buffer, usize),
    to: (&Buffer, usize),
    len_bytes: usize,
) -> anyhow::Result<()> {
    let finished = queue.copy(Copy {
        from: from.0.address(from.1),
        to: to.0.address(to.1),
        len_bytes: u32::try_from(len_bytes)?,
        on_fault: OnFault::Block,
    })?;
    ensure!(
        finished.outcome == Outcome::Success,
        "{len_bytes} bytes: {}",
        finished.outcome
    );
    Ok(())
}

/// Pages that are all there: many sizes and alignments up to `longest`, and nothing beside the copy changes.
fn touched(queue: &WorkQueue, longest: usize) -> anyhow::Result<String> {
    let sizes = [1, 7, 64, 4095, 4096, 4097, 65_537, longest];
    let places = [(0, 0), (3, 5), (4090, 17), (1, 4095)];
    let source = Buffer::filled(longest + 2 * PAGE_BYTES, SOURCE)?;
    let destination = Buffer::untouched(source.len_bytes())?;
    let mut copies = 0;
    for size in sizes.into_iter().filter(|&size| size <= longest) {
        for (from, to) in places {
            destination.fill(Pattern(!SOURCE.0));
            copy(queue, (&source, from), (&destination, to), size)?;
            let context = || format!("{size} bytes from {from} to {to}");
            destination
                .expect_pattern(to, SOURCE, from, size)
                .with_context(context)?;
            destination
                .expect_pattern(0, Pattern(!SOURCE.0), 0, to)
                .with_context(context)?;
            let end = to + size;
            destination
                .expect_pattern(end, Pattern(!SOURCE.0), end, PAGE_BYTES)
                .with_context(context)?;
            copies += 1;
        }
    }
    Ok(format!("{copies} copies up to {longest} bytes"))
}

fn expect_present(buffer: &Buffer, len_bytes: usize, pages: usize) -> anyhow::Result<()> {
    let present = pages::present(buffer, len_bytes)?;
    ensure!(present == pages, "{present} pages are there, not {pages}");
    Ok(())
}

/// The device asks for each page of the destination, and the kernel gives it.
fn untouched_destination(queue: &WorkQueue) -> anyhow::Result<String> {
    let source = Buffer::filled(UNTOUCHED_BYTES, SOURCE)?;
    let destination = Buffer::untouched(UNTOUCHED_BYTES)?;
    expect_present(&destination, UNTOUCHED_BYTES, 0)?;
    copy(queue, (&source, 0), (&destination, 0), UNTOUCHED_BYTES)?;
    expect_present(&destination, UNTOUCHED_BYTES, UNTOUCHED_BYTES / PAGE_BYTES)?;
    destination.expect_pattern(0, SOURCE, 0, UNTOUCHED_BYTES)?;
    Ok(format!("{} pages came", UNTOUCHED_BYTES / PAGE_BYTES))
}

/// Memory that nobody has written yet reads as zeros, through the device too.
fn untouched_source(queue: &WorkQueue) -> anyhow::Result<String> {
    let source = Buffer::untouched(UNTOUCHED_BYTES)?;
    let destination = Buffer::filled(UNTOUCHED_BYTES, SOURCE)?;
    expect_present(&source, UNTOUCHED_BYTES, 0)?;
    copy(queue, (&source, 0), (&destination, 0), UNTOUCHED_BYTES)?;
    expect_present(&source, UNTOUCHED_BYTES, UNTOUCHED_BYTES / PAGE_BYTES)?;
    destination.expect_zeros(0, UNTOUCHED_BYTES)?;
    Ok(format!("{} pages came", UNTOUCHED_BYTES / PAGE_BYTES))
}

/// Without block on fault, the copy ends at the first page that is missing, says so, and can be continued.
fn fault_without_blocking(queue: &WorkQueue) -> anyhow::Result<String> {
    const THERE: usize = 3 * PAGE_BYTES;
    const LEN: usize = 8 * PAGE_BYTES;
    let source = Buffer::filled(LEN, SOURCE)?;
    let destination = Buffer::untouched(LEN)?;
    copy(queue, (&source, 0), (&destination, 0), THERE)?;
    let whole = Copy {
        from: source.address(0),
        to: destination.address(0),
        len_bytes: u32::try_from(LEN)?,
        on_fault: OnFault::Complete,
    };
    let Outcome::PageFault {
        request: Request::NotMade,
        side: Side::Write,
        at,
        bytes_completed,
    } = queue.copy(whole)?.outcome
    else {
        bail!("the copy to a missing page did not end in a page fault");
    };
    let page = |address: u64| address / PAGE_BYTES as u64;
    ensure!(
        page(at) == page(destination.address(THERE)),
        "the fault is told at {at:#x}, the missing page is at {:#x}",
        destination.address(THERE)
    );
    let completed = usize::try_from(bytes_completed)?;
    ensure!(
        completed <= THERE,
        "{completed} bytes are said to be done, {THERE} can be"
    );
    destination.expect_pattern(0, SOURCE, 0, completed)?;
    destination.touch();
    copy(
        queue,
        (&source, completed),
        (&destination, completed),
        LEN - completed,
    )?;
    destination.expect_pattern(0, SOURCE, 0, LEN)?;
    Ok(format!("after {completed} bytes, then continued"))
}

/// Memory that is given back and had again at the same place is other memory: what the unit had cached
/// of the old pages must not be used.
fn unmapped_again(queue: &WorkQueue) -> anyhow::Result<String> {
    const ROUNDS: u64 = 16;
    let source = Buffer::filled(UNTOUCHED_BYTES, SOURCE)?;
    let mut same_place = 0;
    let mut before = 0;
    for round in 0..ROUNDS {
        let fill = Pattern(round);
        let again = Buffer::filled(UNTOUCHED_BYTES, fill)?;
        same_place += u32::from(again.address(0) == before);
        before = again.address(0);
        // There and back, so that stale translations of either kind of access would show.
        let kept = Buffer::filled(UNTOUCHED_BYTES, SOURCE)?;
        copy(queue, (&again, 0), (&kept, 0), UNTOUCHED_BYTES)?;
        kept.expect_pattern(0, fill, 0, UNTOUCHED_BYTES)
            .with_context(|| format!("read in round {round}"))?;
        copy(queue, (&source, 0), (&again, 0), UNTOUCHED_BYTES)?;
        again
            .expect_pattern(0, SOURCE, 0, UNTOUCHED_BYTES)
            .with_context(|| format!("written in round {round}"))?;
    }
    ensure!(same_place > 0, "no mapping came back at the same place");
    Ok(format!("{same_place} times at the same place"))
}

/// One page request may bring 2 MiB.
fn large_untouched(queue: &WorkQueue) -> anyhow::Result<String> {
    const LEN: usize = 512 * KIB;
    let source = Buffer::filled(LEN, SOURCE)?;
    let destination = Buffer::untouched(4 * MIB)?;
    expect_present(&destination, 4 * MIB, 0)?;
    copy(queue, (&source, 0), (&destination, MIB), LEN)?;
    destination.expect_pattern(MIB, SOURCE, 0, LEN)?;
    let present = pages::present(&destination, 4 * MIB)?;
    ensure!(
        present >= LEN / PAGE_BYTES,
        "only {present} pages of the destination are there"
    );
    Ok(format!("{present} pages came"))
}

/// An address that is nobody's: the copy ends with an error, whether it may block or not.
fn wrong(queue: &WorkQueue, address: u64, side: Side) -> anyhow::Result<String> {
    let mine = Buffer::filled(PAGE_BYTES, SOURCE)?;
    let mut told = Vec::new();
    for on_fault in [OnFault::Block, OnFault::Complete] {
        let (from, to) = match side {
            Side::Read => (address, mine.address(0)),
            Side::Write => (mine.address(0), address),
        };
        let finished = queue.copy(Copy {
            from,
            to,
            len_bytes: 64,
            on_fault,
        })?;
        match finished.outcome {
            Outcome::Success => bail!("the copy is said to have succeeded ({on_fault:?})"),
            Outcome::PageFault {
                bytes_completed, ..
            } if bytes_completed > 0 => bail!("{} ({on_fault:?})", finished.outcome),
            outcome => told.push(outcome.to_string()),
        }
        mine.expect_pattern(0, SOURCE, 0, PAGE_BYTES)?;
    }
    told.dedup();
    Ok(told.join("; "))
}

/// Memory that this process may not write, the device may not write for it.
fn read_only(queue: &WorkQueue) -> anyhow::Result<String> {
    let source = Buffer::filled(PAGE_BYTES, SOURCE)?;
    let target: &'static [u64] = &READ_ONLY;
    let before = fingerprint(target);
    let finished = queue.copy(Copy {
        from: source.address(0),
        to: target.as_ptr().expose_provenance() as u64,
        len_bytes: 4096,
        on_fault: OnFault::Block,
    })?;
    ensure!(
        finished.outcome != Outcome::Success,
        "the copy is said to have succeeded"
    );
    ensure!(fingerprint(target) == before, "the memory has changed");
    Ok(finished.outcome.to_string())
}

/// Reads words in a way that the compiler cannot foresee, although they are constants.
fn fingerprint(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum: u64, word| {
        sum.rotate_left(1) ^ std::hint::black_box(*word)
    })
}

/// A completion record that cannot be written is the sender's problem alone: the queue goes on.
fn wrong_record(queue: &WorkQueue) -> anyhow::Result<String> {
    let source = Buffer::filled(PAGE_BYTES, SOURCE)?;
    let destination = Buffer::filled(PAGE_BYTES, Pattern(0))?;
    let lost = Copy {
        from: source.address(0),
        to: destination.address(0),
        len_bytes: 64,
        on_fault: OnFault::Complete,
    };
    for (_, address) in WRONG_ADDRESSES {
        queue.submit(Descriptor::copy(lost, address));
    }
    // Nobody tells when those are over; a queue that stands still would not do this one.
    copy(queue, (&source, 128), (&destination, 128), 1024)?;
    destination.expect_pattern(128, SOURCE, 128, 1024)?;
    // The lost copies may still write: their memory stays.
    std::mem::forget(destination);
    Ok(String::new())
}
