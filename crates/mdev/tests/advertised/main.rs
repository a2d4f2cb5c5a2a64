//! What a guest can do with a slice: each register and each command is told in `docs/slice.md`.
//!
//! `UPDATE_DOCS=1 cargo test -p palisade-mdev --test advertised` writes the page anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use palisade_dsa::EntryPoint;
use palisade_dsa::spec::CommandError;
use palisade_mdev::{COMMANDS, Place, TrappedRegister, trap_map};
use palisade_pci::Bar;

const FRONT: &str = "# What a guest can do with a slice

Every register of a mediated slice, what a write to it does, what is emulated and what of it reaches the parent.
Written by `UPDATE_DOCS=1 cargo test -p palisade-mdev --test advertised` from the trap map in the code, against which
tests sweep every byte of a slice as it comes out of a reset, with the device enabled, and with the queue enabled.

No page can be mapped: each access is served, also of what is not named here, which reads as zero and takes no write.
A slice of either type has one queue, two interrupt vectors and the parent's engines. The driver of one that has a
whole parent meets the same registers, for all queues; there nothing is mediated.
";

const CONFIG: &str = "
Bytes may be written alone or together. Nothing of it reaches the parent, but that a reset and a halt drop the slice's own work.
";

const BAR_0: &str = "
Read in any width; written in whole aligned words of 32 bits, or several. The mask has the bits that a write can
change, in each word. A register of a table is there once for each entry.
";

const BAR_2: &str = "
A descriptor has 64 bytes; it may come in pieces, in any order. Reads are all ones.
";

const COMMANDS_FRONT: &str = "
Written to CMD; the error is in CMDSTS. A command that waits for page responses stays active; until it is done only
Reset Device is taken. Each error is produced by `r69_each_command_ends_with_the_errors_that_the_map_names`, and that
other slices on the same queue notice nothing is shown by `r69_each_command_succeeds_and_is_about_its_own_slice`.
";

const ENTRIES: &str = "
The PASID is turned into the host's of the same tenant at these points, and at no others
(`r70_a_pasid_enters_where_the_map_says_and_nowhere_else`); one that is not the tenant's is refused, and nothing
reaches the parent. Where PASIDs are off, requests have the address space that is the slice's own.

| where | registers | the guest is told of a refusal by | shown by |
|---|---|---|---|
";

/// The points where a PASID enters, how a refusal is told, and the test that shows both.
const POINTS: &[(EntryPoint, &str, &str, &str)] = &[
    (
        EntryPoint::QueueConfig,
        "the configuration of a dedicated queue, when the queue is enabled",
        "the command's error",
        "r11_a_driver_that_programs_every_pasid_reaches_its_own_alone",
    ),
    (
        EntryPoint::InterruptPermission,
        "the MSI-X permission table",
        "SWERR; the entry stays clear",
        "r70_each_point_where_a_pasid_enters_is_mediated",
    ),
    (
        EntryPoint::Descriptor,
        "a descriptor on a shared queue",
        "SWERR; it is not queued",
        "r70_each_point_where_a_pasid_enters_is_mediated",
    ),
    (
        EntryPoint::CommandOperand,
        "the operand of Drain PASID and Abort PASID",
        "the command's error",
        "r70_each_point_where_a_pasid_enters_is_mediated",
    ),
];

/// Tests that the page names besides.
const TESTS: &[&str] = &[
    "r69_each_command_ends_with_the_errors_that_the_map_names",
    "r69_each_command_succeeds_and_is_about_its_own_slice",
    "r70_a_pasid_enters_where_the_map_says_and_nowhere_else",
    "r71_with_pasids_off_a_slice_uses_its_own_default_space",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `0x800`, or the range, and how often.
fn offsets(register: &TrappedRegister) -> String {
    let (start, entries) = (register.offset_bytes, register.entries);
    let mut text = format!("{start:#05x}");
    if register.len_bytes > 4 {
        write!(text, "–{:#05x}", start + register.len_bytes - 1).unwrap();
    }
    if entries > 1 {
        let stride = register.stride_bytes;
        write!(text, ", {entries} times, {stride:#x} apart").unwrap();
    }
    text
}

fn access(register: &TrappedRegister) -> String {
    let words = register.access.words();
    match register.access.mask() {
        None => words.to_owned(),
        Some(mask) => match register.len_bytes {
            1 => format!("{words}: {mask:#04x}"),
            2 => format!("{words}: {mask:#06x}"),
            _ => format!("{words}: {mask:#010x}"),
        },
    }
}

fn rows(page: &mut String, place: Place) {
    let reaches = place != Place::Config;
    page.push_str(if reaches {
        "\n| offset | register | a write | for the guest | reaches the parent |\n|---|---|---|---|---|\n"
    } else {
        "\n| offset | register | a write | for the guest |\n|---|---|---|---|\n"
    });
    for register in trap_map().iter().filter(|r| r.place == place) {
        let (at, access) = (offsets(register), access(register));
        let (name, emulated) = (register.name, register.emulated);
        write!(page, "| {at} | {name} | {access} | {emulated} |").unwrap();
        if reaches {
            write!(page, " {} |", register.reaches.words()).unwrap();
        }
        page.push('\n');
    }
}

fn commands(page: &mut String) {
    page.push_str(COMMANDS_FRONT);
    page.push_str(
        "\n| code | command | operand | what it does | errors |\n|---|---|---|---|---|\n",
    );
    for rule in COMMANDS {
        let errors: Vec<_> = rule
            .errors
            .iter()
            .map(|e| format!("{:#04x} {}", e.0, e.words()))
            .collect();
        let errors = match errors.as_slice() {
            [] => "-".to_owned(),
            some => some.join("; "),
        };
        let (code, operand) = (rule.code.0, rule.operand.words());
        let (name, effect) = (rule.name, rule.effect);
        writeln!(
            page,
            "| {code} | {name} | {operand} | {effect} | {errors} |"
        )
        .unwrap();
    }
    let unknown = CommandError::INVALID_COMMAND;
    let (code, words) = (unknown.0, unknown.words());
    writeln!(page, "| others | - | - | nothing | {code:#04x} {words} |").unwrap();
    let halted = CommandError::HARDWARE;
    let (code, words) = (halted.0, halted.words());
    writeln!(
        page,
        "| all, on a halted slice | - | - | nothing, until a function-level reset | {code:#04x} {words} |"
    )
    .unwrap();
}

fn entry_points(page: &mut String) {
    page.push_str(ENTRIES);
    let map = trap_map();
    for (point, whereabouts, told, test) in POINTS {
        let through = map.iter().filter(|r| r.entry_points.contains(point));
        let names: Vec<_> = through.map(|r| r.name).collect();
        let names = names.join(", ");
        writeln!(page, "| {whereabouts} | {names} | {told} | `{test}` |").unwrap();
    }
}

fn page() -> String {
    let mut page = FRONT.to_owned();
    page.push_str("\n## Where a PASID enters\n");
    entry_points(&mut page);
    page.push_str("\n## Commands\n");
    commands(&mut page);
    for (place, title, front) in [
        (Place::Bar(Bar::Bar0), "BAR 0: registers", BAR_0),
        (Place::Bar(Bar::Bar2), "BAR 2: portals", BAR_2),
        (Place::Config, "Configuration space", CONFIG),
    ] {
        write!(page, "\n## {title}\n{front}").unwrap();
        rows(&mut page, place);
    }
    page
}

#[test]
fn r69_the_page_in_docs_is_what_the_code_says() {
    let path = root().join("docs/slice.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(
        found == page(),
        "docs/slice.md is not what the code says: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn r70_every_point_where_a_pasid_enters_is_told() {
    for register in trap_map() {
        for point in register.entry_points {
            let told = POINTS.iter().filter(|(told, ..)| told == point);
            assert_eq!(told.count(), 1, "{}: {point:?}", register.name);
        }
    }
}

#[test]
fn every_test_that_the_page_names_exists() {
    let mut sources = String::new();
    collect(&root().join("crates/mdev/src"), &mut sources).unwrap();
    let of_points = POINTS.iter().map(|(_, _, _, test)| test);
    for test in of_points.chain(TESTS) {
        let name = format!("fn {test}(");
        assert!(sources.contains(&name), "{test}: no {name}");
    }
}

fn collect(folder: &Path, into: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
