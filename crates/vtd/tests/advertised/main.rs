//! What the unit advertises: each field of CAP and ECAP is told in `docs/unit.md`, and each that is set
//! is shown by a test.
//!
//! `UPDATE_DOCS=1 cargo test -p palisade-vtd --test advertised` writes the page anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fields;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use fields::{FIELDS, Field, Register};
use palisade_vtd::spec::capability::{CAPABILITIES, EXTENDED};

const FRONT: &str = "# What the unit of a guest can do

The fields of CAP_REG and ECAP_REG (VT-d §11.4.2, §11.4.3) as a guest reads them, and the test that shows
each. Written by `UPDATE_DOCS=1 cargo test -p palisade-vtd --test advertised` from the code, which also
checks that it is true.
";

impl Register {
    const fn value(self) -> u64 {
        match self {
            Self::Cap => CAPABILITIES.into_bits(),
            Self::Ecap => EXTENDED.into_bits(),
        }
    }
}

impl Field {
    const fn mask(&self) -> u64 {
        (u64::MAX >> (u64::BITS - self.width)) << self.low
    }

    const fn value(&self) -> u64 {
        (self.register.value() & self.mask()) >> self.low
    }

    fn bits(&self) -> String {
        match self.width {
            1 => self.low.to_string(),
            width => format!("{}:{}", self.low + width - 1, self.low),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    let mut page = FRONT.to_owned();
    for (register, title) in [(Register::Cap, "CAP_REG"), (Register::Ecap, "ECAP_REG")] {
        let value = register.value();
        write!(page, "\n## {title}: {value:#018x}\n\n").unwrap();
        page.push_str(
            "| bits | field | value | what it says | shown by |\n|---|---|---|---|---|\n",
        );
        for field in FIELDS.iter().filter(|field| field.register == register) {
            let (bits, name, value) = (field.bits(), field.name, field.value());
            let (says, test) = (field.says, field.test);
            writeln!(page, "| {bits} | {name} | {value} | {says} | `{test}` |").unwrap();
        }
    }
    page
}

#[test]
fn the_page_in_docs_is_what_the_code_says() {
    let path = root().join("docs/unit.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(
        found == page(),
        "docs/unit.md is not what the code says: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn every_bit_is_told_once_or_is_zero() {
    for register in [Register::Cap, Register::Ecap] {
        let mut told = 0;
        for field in FIELDS.iter().filter(|field| field.register == register) {
            assert_eq!(told & field.mask(), 0, "{} is told twice", field.name);
            told |= field.mask();
        }
        assert_eq!(register.value() & !told, 0, "a bit is set and not told");
    }
}

#[test]
fn every_field_has_a_test_that_exists() {
    let mut sources = String::new();
    collect(&root().join("crates"), &mut sources).unwrap();
    for field in FIELDS {
        let name = format!("fn {}(", field.test);
        assert!(sources.contains(&name), "{}: no {name}", field.name);
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
