//! What `docs/vfio-user-pasid.md` tells of layouts, numbers and bytes, checked against the code.
//!
//! `UPDATE_DOCS=1 cargo test -p palisade-vfio-user --test proposal` writes those parts of the page anew.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use palisade_units::Field;
use palisade_units::{Access, Gpa, GuestPasid, Iova};
use palisade_vfio_user::wire::{
    Capabilities, Command, Header, ReplyWanted,
    pasid::{
        ContainerAnswer, ContainerRequest, Invalidate, PageEntry, PageGroup, PageGroupAnswer,
        PasidCapability, Range, Ranges, RangesHead, RequestAbi, Tag, TaggedAccess,
        TranslateRequest, Translation, Wanted,
    },
    push_frame,
};
use zerocopy::IntoBytes;

const LAYOUTS: [(&str, &[Field]); 10] = [
    ("TaggedAccess", TaggedAccess::FIELDS),
    ("TranslateRequest", TranslateRequest::FIELDS),
    ("RangesHead", RangesHead::FIELDS),
    ("Range", Range::FIELDS),
    ("Invalidate", Invalidate::FIELDS),
    ("PageGroup", PageGroup::FIELDS),
    ("PageEntry", PageEntry::FIELDS),
    ("PageGroupAnswer", PageGroupAnswer::FIELDS),
    ("ContainerRequest", ContainerRequest::FIELDS),
    ("ContainerAnswer", ContainerAnswer::FIELDS),
];

fn page_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vfio-user-pasid.md")
}

fn layout(fields: &[Field]) -> String {
    let mut table = "| offset | size | name | says |\n|---|---|---|---|\n".to_owned();
    for field in fields {
        let (at, len, name) = (field.at, field.len_bytes, field.name);
        let says = field.says.trim();
        writeln!(table, "| {at} | {len} | {name} | {says} |").unwrap();
    }
    table
}

fn capability() -> String {
    let said = PasidCapability {
        requests: Some(RequestAbi::V7),
        ..PasidCapability::default()
    };
    let text = Capabilities::own(65_535).text_with(Some(&said));
    let text = String::from_utf8(text).unwrap();
    let (_, object) = text.split_once("\"pasid\":").unwrap();
    let (object, _) = object.split_once('}').unwrap();
    format!("```json\n{{\"capabilities\":{{\"pasid\":{object}}}}}}}\n```\n")
}

fn sender(command: Command) -> &'static str {
    match command {
        Command::PasidInvalidate | Command::ContainerRequest => "client -> server",
        _ => "server -> client",
    }
}

fn name(command: Command) -> &'static str {
    match command {
        Command::PasidDmaRead => "PASID_DMA_READ",
        Command::PasidDmaWrite => "PASID_DMA_WRITE",
        Command::PasidTranslate => "PASID_TRANSLATE",
        Command::PasidPageRequest => "PASID_PAGE_REQUEST",
        Command::PasidInvalidate => "PASID_INVALIDATE",
        Command::ContainerRequest => "CONTAINER_REQUEST",
        other => panic!("{other:?} is of the protocol itself"),
    }
}

fn commands() -> String {
    let mut table = "| name | command | request direction |\n|---|---|---|\n".to_owned();
    for command in Command::EXTENSION {
        let (name, raw, sender) = (name(command), command.raw(), sender(command));
        writeln!(table, "| VFIO_USER_{name} | {raw:#x} | {sender} |").unwrap();
    }
    table
}

fn hex(who: char, header: Header, parts: &[&[u8]]) -> String {
    let mut message = Vec::new();
    push_frame(&mut message, header, parts);
    let mut lines = String::new();
    for (n, row) in message.chunks(16).enumerate() {
        let who = if n == 0 { who } else { ' ' };
        let bytes: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(lines, "{who} {}", bytes.join(" ")).unwrap();
    }
    lines
}

fn bytes() -> String {
    let at = Iova::new(0x7f00_0000_1000);
    let tag = Tag::new(GuestPasid::new(5).unwrap(), Access::READ);
    let access = tag.at(at, 8);
    let read = Header::command(1, Command::PasidDmaRead, ReplyWanted::Yes);
    let wanted = Wanted {
        tag,
        at,
        len_bytes: 0x1000,
        max_ranges: 1,
    };
    let translate = Header::command(2, Command::PasidTranslate, ReplyWanted::Yes);
    let page = Translation {
        at,
        len_bytes: 0x1000,
        permissions: Access::READ,
        translated: Some(Gpa::new(0x5000)),
    };
    let ranges = Ranges::new(vec![page], &wanted).unwrap().message();
    let mut text = "`<` is from the server, `>` from the client:\n\n```text\n".to_owned();
    text += &hex('<', read, &[access.as_bytes()]);
    text += &hex('>', Header::reply(&read), &[access.as_bytes(), b"palisade"]);
    text += &hex('<', translate, &[wanted.message().as_bytes()]);
    text += &hex('>', Header::reply(&translate), &[&ranges]);
    text + "```\n"
}

fn generated(name: &str) -> String {
    match name {
        "capability" => capability(),
        "commands" => commands(),
        "bytes" => bytes(),
        other => {
            let found = LAYOUTS.iter().find(|(name, _)| *name == other);
            layout(found.unwrap_or_else(|| panic!("no part {other}")).1)
        }
    }
}

/// The page as the code has it, and the names of the parts that it has from there.
fn page(found: &str) -> (String, Vec<String>) {
    let (mut page, mut names, mut rest) = (String::new(), Vec::new(), found);
    while let Some((before, behind)) = rest.split_once("<!-- generated: ") {
        let (name, behind) = behind.split_once(" -->\n").unwrap();
        let (_, behind) = behind.split_once("<!-- end -->").unwrap();
        let part = generated(name);
        write!(
            page,
            "{before}<!-- generated: {name} -->\n\n{part}\n<!-- end -->"
        )
        .unwrap();
        names.push(name.to_owned());
        rest = behind;
    }
    page.push_str(rest);
    (page, names)
}

#[test]
fn the_proposal_is_what_the_code_says() {
    let found = fs::read_to_string(page_path()).unwrap();
    let (page, names) = page(&found);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(page_path(), &page).unwrap();
    } else {
        assert!(
            found == page,
            "docs/vfio-user-pasid.md is not what the code says: run this test with UPDATE_DOCS=1"
        );
    }
    for (name, fields) in LAYOUTS {
        assert!(names.iter().any(|one| one == name), "{name} is not told");
        for field in fields {
            assert!(field.says.trim().ends_with('.'), "{name} {}", field.name);
        }
    }
}

/// Numbers that stand in sentences.
#[test]
fn the_limits_in_the_text_are_those_of_the_code() {
    use palisade_vfio_user::wire::pasid::{
        MAX_ARGUMENT_BYTES, MAX_GROUP_PAGES, MAX_PAGE_GROUPS, MAX_RANGES, PASID_VERSION,
    };
    let page = fs::read_to_string(page_path()).unwrap();
    for sentence in [
        format!("The version of the extension: {PASID_VERSION}."),
        format!("may be unanswered, up to {MAX_PAGE_GROUPS}."),
        format!("the bytes of the argument, at most {MAX_ARGUMENT_BYTES}"),
        format!("pages of a group by {MAX_GROUP_PAGES}, ranges by {MAX_RANGES}"),
    ] {
        assert!(page.contains(&sentence), "{sentence}");
    }
}
