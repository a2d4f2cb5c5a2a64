//! examples/c/copy.c, linked both ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::Host;
use crate::installed::{compile, flags, library_folder, output};

const SAYS: &str = "\
PASIDs have 20 bits, addresses 57
00:04.0 is attached
bound: the guest's PASID 700
page request of 00:04.0: PASID 700, write at 0x7f0000001000
copied: from one process to itself, by its own addresses
unbound again: No such file or directory, request 0x3b77 is refused: No such file or directory (os error 2)
";

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/c/copy.c")
}

fn run(program: &Path) -> String {
    let host = Host::new();
    let books = host.world.books();
    let said = output(
        Command::new(program)
            .arg(host.container_socket())
            .arg(host.device_socket())
            .env("LD_LIBRARY_PATH", library_folder()),
    );
    host.world.wait_for(&books);
    said
}

#[test]
fn r24_r39_r62_r63_a_program_in_c_allocates_binds_copies_and_brings_a_page_in() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("copy");
    compile(&source(), &program, &flags(&["--libs"]));
    let needed = output(Command::new("readelf").arg("-d").arg(&program));
    assert!(needed.contains("[libpalisade.so.0]"), "{needed}");
    assert_eq!(run(&program), SAYS);
}

#[test]
fn the_same_with_the_library_in_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("copy");
    let library = library_folder().join("libpalisade.a").display().to_string();
    let mut libraries = flags(&["--static", "--libs-only-l"]);
    for one in &mut libraries {
        if one == "-lpalisade" {
            one.clone_from(&library);
        }
    }
    compile(&source(), &program, &libraries);
    let needed = output(Command::new("readelf").arg("-d").arg(&program));
    assert!(!needed.contains("palisade"), "{needed}");
    assert_eq!(run(&program), SAYS);
}

#[test]
fn what_fails_is_told_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("copy");
    compile(&source(), &program, &flags(&["--libs"]));
    let done = Command::new(program)
        .args(["/nowhere.sock", "/nowhere.sock"])
        .env("LD_LIBRARY_PATH", library_folder())
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1));
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        said.starts_with("connect: the connection failed: No such file"),
        "{said}"
    );
}
