//! The example's device, by its documentation (docs/device.md), in a program's hands by `vfio-pci`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::buffer::{Buffer, Pattern};
use crate::report::Report;
use crate::vfio::Function;

const VENDOR_AND_DEVICE: [&str; 2] = ["0x1234", "0xed01"];

const IDENTIFICATION: usize = 0x00;
const LIVENESS: usize = 0x04;
const FACTORIAL: usize = 0x08;
const STATUS: usize = 0x20;
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const RESULT: usize = 0xa4;
const STOPPED_AT: usize = 0xa8;
const DONE: usize = 0xb0;

/// In [`RESULT`].
const ALL_DONE: u32 = 1;
const FAULTED: u32 = 2;
/// Where the kernel lets the function ask for pages.
const NO_PAGE: u32 = 3;

const LEN_BYTES: usize = 2 << 20;
/// Of a copy: many pages, and none of them whole at either end.
const COPIED_BYTES: usize = 300_001;
/// Places of the copy in the buffers, of which one is the other's within a page in no way.
const FROM: usize = 4090;
const TO: usize = 17;

/// Beyond 32 bits, and not where the buffers are in this process.
const SOURCE_IOVA: u64 = 0x40_0000_0000;
const DESTINATION_IOVA: u64 = 0x1_4000_0000;

const OURS: Pattern = Pattern(0xed0);
const OTHER: Pattern = Pattern(0xed1);

const PATIENCE: Duration = Duration::from_secs(20);

/// How wide the program's stores are.
#[derive(Clone, Copy)]
enum Doorbells {
    Wide,
    Halves,
}

pub(super) fn run(report: &Report) -> anyhow::Result<()> {
    let function = Function::take(&find()?)?;
    report.outcome("edu-identity", identity(&function));
    report.outcome("edu-factorial", factorial(&function));
    let source = Buffer::filled(LEN_BYTES, OURS)?;
    let destination = Buffer::filled(LEN_BYTES, OTHER)?;
    function.map(SOURCE_IOVA, &source)?;
    function.map(DESTINATION_IOVA, &destination)?;
    let copies = |doorbells| copies(&function, &destination, doorbells);
    report.outcome("edu-copy-64", copies(Doorbells::Wide));
    report.outcome("edu-copy-32", copies(Doorbells::Halves));
    function.unmap(DESTINATION_IOVA, &destination)?;
    report.outcome("edu-unmapped", unmapped(&function, &destination));
    function.unmap(SOURCE_IOVA, &source)?;
    report.outcome("edu-given-back", function.give_back().map(|()| ""));
    Ok(())
}

/// The function's folder in sysfs.
fn find() -> anyhow::Result<PathBuf> {
    for entry in fs::read_dir("/sys/bus/pci/devices").context("cannot list functions")? {
        let folder = entry?.path();
        let is = |file: &str, id: &str| has(&folder.join(file), id);
        if is("vendor", VENDOR_AND_DEVICE[0])? && is("device", VENDOR_AND_DEVICE[1])? {
            return Ok(folder);
        }
    }
    anyhow::bail!("there is no function {VENDOR_AND_DEVICE:?}")
}

fn has(file: &Path, id: &str) -> anyhow::Result<bool> {
    let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    Ok(text.trim() == id)
}

fn identity(function: &Function) -> anyhow::Result<String> {
    let identity = function.load_u32(IDENTIFICATION);
    ensure!(identity == 0x0100_00ed, "it is {identity:#x}");
    function.store_u32(LIVENESS, 0x0f0f_1234);
    let answer = function.load_u32(LIVENESS);
    ensure!(answer == 0xf0f0_edcb, "it answers {answer:#x}");
    Ok(format!("{identity:#x}"))
}

fn factorial(function: &Function) -> anyhow::Result<String> {
    function.store_u32(FACTORIAL, 12);
    wait(function, STATUS)?;
    let factorial = function.load_u32(FACTORIAL);
    ensure!(factorial == 479_001_600, "12! is said to be {factorial}");
    Ok(format!("12! = {factorial}"))
}

/// Waits until bit 0 of a register is clear.
fn wait(function: &Function, register: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while function.load_u32(register) & 1 != 0 {
        ensure!(Instant::now() < deadline, "{register:#x} stays busy");
        std::thread::yield_now();
    }
    Ok(())
}

/// Copies, and says how it ended.
fn copy(function: &Function, doorbells: Doorbells) -> anyhow::Result<u32> {
    for (register, value) in [
        (SOURCE, SOURCE_IOVA + FROM as u64),
        (DESTINATION, DESTINATION_IOVA + TO as u64),
        (COUNT, COPIED_BYTES as u64),
        (COMMAND, 1),
    ] {
        match doorbells {
            Doorbells::Wide => function.store_u64(register, value),
            Doorbells::Halves => {
                let [a, b, c, d, high @ ..] = value.to_le_bytes();
                function.store_u32(register + 4, u32::from_le_bytes(high));
                function.store_u32(register, u32::from_le_bytes([a, b, c, d]));
            }
        }
    }
    wait(function, COMMAND)?;
    Ok(function.load_u32(RESULT))
}

fn copies(
    function: &Function,
    destination: &Buffer,
    doorbells: Doorbells,
) -> anyhow::Result<String> {
    destination.fill(OTHER);
    let result = copy(function, doorbells)?;
    ensure!(result == ALL_DONE, "result {result}");
    destination.expect_pattern(TO, OURS, FROM, COPIED_BYTES)?;
    destination.expect_pattern(0, OTHER, 0, TO)?;
    let end = TO + COPIED_BYTES;
    destination.expect_pattern(end, OTHER, end, 4096)?;
    Ok(format!("{COPIED_BYTES} bytes"))
}

/// What was mapped before is reached no more.
fn unmapped(function: &Function, destination: &Buffer) -> anyhow::Result<String> {
    destination.fill(OTHER);
    let result = copy(function, Doorbells::Wide)?;
    ensure!(matches!(result, FAULTED | NO_PAGE), "result {result}");
    let (at, done) = (function.load_u64(STOPPED_AT), function.load_u64(DONE));
    ensure!(
        (at, done) == (DESTINATION_IOVA + TO as u64, 0),
        "after {done} bytes, at {at:#x}"
    );
    destination.expect_pattern(0, OTHER, 0, LEN_BYTES)?;
    Ok(format!("result {result}, stopped at {at:#x}"))
}
