//! Every call from C, and everything that C can get wrong without lying about a pointer.

use std::path::Path;
use std::process::Command;

use crate::host::Host;
use crate::installed::{compile, flags, library_folder, output};

#[test]
fn r12_r23_r24_r54_every_call_from_c_in_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/calls.c");
    let program = folder.path().join("calls");
    compile(&source, &program, &flags(&["--libs"]));
    for version in ["1", "7"] {
        let host = Host::new();
        let books = host.world.books();
        let mut calls = Command::new(&program);
        calls.arg(host.container_socket()).arg(version);
        let said = output(calls.env("LD_LIBRARY_PATH", library_folder()));
        assert_eq!(said, "", "version {version}");
        host.world.wait_for(&books);
    }
}

#[test]
fn r63_r75_every_call_of_an_iommufd_from_c() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/iommufd.c");
    let program = folder.path().join("iommufd");
    compile(&source, &program, &flags(&["--libs"]));
    let host = Host::new();
    let books = host.world.books();
    let mut calls = Command::new(&program);
    calls.arg(host.container_socket()).arg(host.device_socket());
    let said = output(calls.env("LD_LIBRARY_PATH", library_folder()));
    assert_eq!(said, "");
    host.world.wait_for(&books);
}

#[test]
fn the_programs_above_make_every_call_of_the_header() {
    let read = |file| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::read_to_string(path).unwrap()
    };
    let map = read("palisade.map");
    let programs = ["tests/c/calls.c", "tests/c/iommufd.c"].map(read);
    let functions = map.lines().filter_map(|line| line.trim().strip_suffix(';'));
    let functions = functions.filter(|name| name.starts_with("palisade_"));
    for name in functions {
        let call = format!("{name}(");
        assert!(programs.iter().any(|one| one.contains(&call)), "{name}");
    }
}

#[test]
fn the_header_stands_alone_in_any_c() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/palisade.h");
    for standard in ["-std=c99", "-std=c11", "-std=c2x"] {
        let mut gcc = Command::new("gcc");
        gcc.args([
            "-x",
            "c",
            standard,
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
        ]);
        output(gcc.arg(&header));
    }
}
