//! The protocol of the container socket, told in `docs/container.md` from the constants in the code.
//!
//! `UPDATE_DOCS=1 cargo test -p palisade-container --test protocol` writes the page anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod constants;
mod iommufd;
mod text;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use constants::{CONSTANTS, Constant};
use palisade_container::wire::{
    Header, Kind, MAJOR, MAX_DESCRIPTORS, MAX_MESSAGE_BYTES, MINOR, Version, VersionAnswer,
};
use palisade_units::Field;
use palisade_vfio::Abi;
use palisade_vfio::abi::iommufd::{Family, IommufdRequest};
use palisade_vfio::abi::{EXTENSIONS, Extension, Request};
use text::{Argument, ERRORS, FRONT, kind_says, layouts, told};

const LAYOUTS: &str = "crates/vfio/src/abi/layout";
const IOMMUFD_LAYOUTS: &str = "crates/vfio/src/abi/iommufd/layout";
const WIRE: &str = "crates/container/src/wire.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What a documentation comment says, without its links.
fn plain(says: &str) -> String {
    says.trim().replace("[`", "`").replace("`]", "`")
}

fn fields(page: &mut String, title: &str, fields: &[Field]) {
    let end = fields.last().map_or(0, |last| last.at + last.len_bytes);
    write!(page, "\n{title}, {end} bytes:\n\n").unwrap();
    page.push_str("| byte | size | field | says |\n|---|---|---|---|\n");
    for field in fields {
        let (at, len, name) = (field.at, field.len_bytes, field.name);
        let says = plain(field.says);
        writeln!(page, "| {at} | {len} | {name} | {says} |").unwrap();
    }
}

/// The names of a source's constants, each with what its documentation comment says.
fn documented(source: &str) -> Vec<(String, String)> {
    let mut says = String::new();
    let mut found = Vec::new();
    for line in source.lines() {
        if let Some(text) = line.strip_prefix("///") {
            says.push_str(text);
        } else {
            if let Some(declared) = line.strip_prefix("pub const ")
                && let Some((name, _)) = declared.split_once(':')
            {
                found.push((name.to_owned(), plain(&says)));
            }
            says.clear();
        }
    }
    found
}

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn layout_sources(folder: &str) -> String {
    let files = fs::read_dir(root().join(folder)).unwrap();
    let files = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    files.collect()
}

fn constants(page: &mut String, constants: &[Constant], sources: &str) {
    let documented = documented(sources);
    page.push_str("\n| constant | value | says |\n|---|---|---|\n");
    for Constant { name, value } in constants {
        let (_, says) = documented.iter().find(|(one, _)| one == name).unwrap();
        writeln!(page, "| {name} | {value:#x} | {says} |").unwrap();
    }
}

fn spoken_in(request: Request) -> &'static str {
    match request.only_in() {
        None => "both",
        Some(Abi::V1) => "1",
        Some(Abi::V7) => "7",
    }
}

fn requests(page: &mut String) {
    page.push_str("\n| request | +n | number | version | argument | descriptors |\n|---|---|---|---|---|---|\n");
    for request in Request::ALL {
        let (name, n, number) = (request.name(), request.n(), request.number());
        let (version, told) = (spoken_in(*request), told(*request));
        let argument = match told.argument {
            Argument::None => "none",
            Argument::Number => "u32",
            Argument::Sized => "begins with argsz",
        };
        let descriptors = told.descriptors;
        writeln!(
            page,
            "| {name} | {n} | {number} | {version} | {argument} | {descriptors} |"
        )
        .unwrap();
    }
    for request in Request::ALL {
        let (name, number) = (request.name(), request.number());
        let version = match request.only_in() {
            None => String::new(),
            Some(_) => format!(", version {}", spoken_in(*request)),
        };
        write!(page, "\n### {name} ({number}{version})\n\n").unwrap();
        let told = told(*request);
        page.push_str(told.says);
        page.push('\n');
        for (title, of_it) in told.layouts {
            fields(page, title, of_it);
        }
    }
}

fn extensions(page: &mut String) {
    page.push_str("\n| extension | number | CHECK_EXTENSION returns |\n|---|---|---|\n");
    for (number, extension, value) in EXTENSIONS {
        let name = match extension {
            Extension::Type1 => "VFIO_TYPE1_IOMMU",
            Extension::Type1V2 => "VFIO_TYPE1v2_IOMMU",
            Extension::Nesting => "VFIO_TYPE1_NESTING_IOMMU",
            Extension::NestingUapi => "VFIO_NESTING_IOMMU_UAPI (version 1 alone)",
        };
        writeln!(page, "| {name} | {number} | {value} |").unwrap();
    }
}

fn errors(page: &mut String, errors: &[(&str, u32, &str)]) {
    page.push_str("\n| errno | number | when |\n|---|---|---|\n");
    for (name, number, when) in errors {
        writeln!(page, "| {name} | {number} | {when} |").unwrap();
    }
}

fn iommufd_chapter(page: &mut String) {
    page.push_str(iommufd::FRONT);
    errors(page, iommufd::ERRORS);
    page.push_str(
        "\n| request | number | file | smallest size | descriptors |\n|---|---|---|---|---|\n",
    );
    for request in IommufdRequest::ALL {
        let (name, number, shortest) = (request.name(), request.number(), request.shortest());
        let file = match request.family() {
            Family::Iommufd => "iommufd",
            Family::Device => "device",
        };
        let descriptors = iommufd::told(*request).descriptors;
        writeln!(
            page,
            "| {name} | {number} | {file} | {shortest} | {descriptors} |"
        )
        .unwrap();
    }
    for request in IommufdRequest::ALL {
        let told = iommufd::told(*request);
        let (name, number, says) = (request.name(), request.number(), told.says);
        write!(page, "\n### {name} ({number}, form 3)\n\n{says}\n").unwrap();
        for (title, of_it) in told.layouts {
            fields(page, title, of_it);
        }
    }
    constants(page, iommufd::CONSTANTS, &layout_sources(IOMMUFD_LAYOUTS));
}

fn page() -> String {
    let mut page = FRONT.to_owned();
    fields(&mut page, "The header", Header::FIELDS);
    page.push_str("\n| kind | number | who sends it | payload |\n|---|---|---|---|\n");
    for kind in Kind::ALL {
        let (number, (who, payload)) = (kind.raw(), kind_says(kind));
        writeln!(page, "| {kind:?} | {number} | {who} | {payload} |").unwrap();
    }
    write!(
        page,
        "\nA message has {MAX_MESSAGE_BYTES} bytes at the most, its header included, and {MAX_DESCRIPTORS} descriptors. \
         The version told here is {MAJOR}.{MINOR}.\n"
    )
    .unwrap();
    page.push_str(text::VERSION);
    fields(&mut page, "Version", Version::FIELDS);
    fields(&mut page, "VersionAnswer", VersionAnswer::FIELDS);
    page.push_str(text::REQUESTS);
    errors(&mut page, ERRORS);
    page.push_str(text::LIST);
    requests(&mut page);
    page.push_str(text::EXTENSIONS);
    extensions(&mut page);
    page.push_str(text::CONSTANTS);
    let sources = [layout_sources(LAYOUTS), source(WIRE)].concat();
    constants(&mut page, CONSTANTS, &sources);
    iommufd_chapter(&mut page);
    page.push_str(text::SERVE);
    page.push_str(text::EXAMPLE);
    page
}

#[test]
fn the_page_in_docs_is_what_the_code_says() {
    let path = root().join("docs/container.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(
        found == page(),
        "docs/container.md is not what the code says: run this test with UPDATE_DOCS=1"
    );
}

/// Every `pub const` and every structure of the layouts.
#[test]
fn every_constant_and_every_structure_is_told() {
    every_one_is_told(LAYOUTS, CONSTANTS, &layouts());
    every_one_is_told(IOMMUFD_LAYOUTS, iommufd::CONSTANTS, &iommufd::layouts());
}

fn every_one_is_told(folder: &str, constants: &[Constant], layouts: &[&str]) {
    let source = layout_sources(folder);
    let names = documented(&source);
    assert!(names.len() > 20);
    for (name, says) in &names {
        assert!(constants.iter().any(|one| one.name == *name), "{name}");
        assert!(says.ends_with('.'), "{name}");
    }
    let structures = source.split("\nlayout! {\n").skip(1);
    for structure in structures {
        let mut lines = structure.lines().map(str::trim);
        let declared = lines.find(|line| !line.starts_with("///")).unwrap();
        let (name, _) = declared.split_once(',').unwrap();
        assert!(layouts.contains(&name), "{name}");
    }
}

#[test]
fn every_field_says_what_it_is() {
    let proposals = Request::ALL.iter().flat_map(|one| told(*one).layouts);
    let iommufd = IommufdRequest::ALL.iter();
    let iommufd = iommufd.flat_map(|one| iommufd::told(*one).layouts);
    for (_, fields) in proposals.chain(iommufd) {
        for field in *fields {
            assert!(plain(field.says).ends_with('.'), "{}", field.name);
        }
    }
}
