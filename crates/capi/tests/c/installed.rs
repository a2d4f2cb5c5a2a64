//! What `make install` puts where, and what of it a program may rely on.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the library is installed, once for all tests.
pub(crate) fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    let install = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("palisade-c");
        let _ = std::fs::remove_dir_all(&folder);
        // As one who keeps what he makes to himself, which what is installed is not to be.
        let mut make = Command::new("sh");
        make.args(["-c", "umask 077; exec \"$@\"", "sh"])
            .args([
                "make",
                "--silent",
                "-C",
                env!("CARGO_MANIFEST_DIR"),
                "install",
            ])
            .arg(format!("PREFIX={}", folder.display()))
            .arg(format!("CARGO={}", env!("CARGO")))
            .arg("PROFILE=dev");
        output(&mut make);
        folder
    };
    PREFIX.get_or_init(install)
}

pub(crate) fn library_folder() -> PathBuf {
    prefix().join("lib")
}

/// What pkg-config says of the library: the flags for a program.
pub(crate) fn flags(of: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    let folder = library_folder().join("pkgconfig");
    command
        .args(of)
        .arg("palisade")
        .env("PKG_CONFIG_PATH", folder);
    let said = output(&mut command);
    said.split_whitespace().map(str::to_owned).collect()
}

/// Compiles a program with everything that gcc may complain of.
pub(crate) fn compile(source: &Path, program: &Path, library: &[impl AsRef<OsStr>]) {
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread", "-o",
    ])
    .arg(program)
    .arg(source)
    .args(flags(&["--cflags"]))
    .args(library);
    output(&mut gcc);
}

/// What a command prints; it must not fail.
pub(crate) fn output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let (out, err) = (done.stdout, done.stderr);
    let (out, err) = (
        String::from_utf8(out).unwrap(),
        String::from_utf8_lossy(&err),
    );
    assert!(done.status.success(), "{command:?}\n{out}{err}");
    out
}

fn here(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The functions that a line of the header begins with.
fn declared() -> BTreeSet<String> {
    let header = here("include/palisade.h");
    let names = header.lines().filter_map(|line| line.split_once(" ("));
    names
        .map(|(before, _)| before.rsplit([' ', '*']).next().unwrap().to_owned())
        .filter(|name| name.starts_with("palisade_") && !name.contains('`'))
        .collect()
}

#[test]
fn every_function_of_the_header_is_exported_with_its_version_and_nothing_else_is() {
    let library = library_folder().join("libpalisade.so");
    let symbols = output(
        Command::new("nm")
            .args(["-D", "--defined-only"])
            .arg(&library),
    );
    let exported: BTreeSet<_> = symbols
        .lines()
        .filter_map(|line| line.split_once(" T "))
        .map(|(_, name)| name.to_owned())
        .collect();
    let versioned = |name: &String| format!("{name}@@PALISADE_0.1");
    assert_eq!(exported, declared().iter().map(versioned).collect());
    assert!(exported.len() > 25, "{exported:?}");
    let others = symbols.lines().filter(|line| !line.contains(" T "));
    assert!(others.eq(["0000000000000000 A PALISADE_0.1"]), "{symbols}");
    let map = here("palisade.map");
    let listed = map.lines().filter_map(|line| line.trim().strip_suffix(';'));
    let listed = listed.filter(|name| name.starts_with("palisade_"));
    assert_eq!(
        listed.map(str::to_owned).collect::<BTreeSet<_>>(),
        declared()
    );
}

#[test]
fn the_library_goes_by_the_name_of_its_interface() {
    let folder = library_folder();
    let library = folder.join("libpalisade.so");
    let dynamic = output(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("soname: [libpalisade.so.0]"), "{dynamic}");
    let link = |name| std::fs::read_link(folder.join(name)).unwrap();
    assert_eq!(link("libpalisade.so"), Path::new("libpalisade.so.0"));
    let version = env!("CARGO_PKG_VERSION");
    let full = format!("libpalisade.so.{version}");
    assert_eq!(link("libpalisade.so.0"), Path::new(&full));
    assert_eq!(flags(&["--modversion"]), [version]);
    assert_eq!(flags(&["--variable=prefix"]), [prefix().to_str().unwrap()]);
}

#[test]
fn everybody_may_read_what_is_installed() {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files = [
        ("include", 0o755),
        ("include/palisade.h", 0o644),
        ("lib", 0o755),
        ("lib/libpalisade.a", 0o644),
        ("lib/libpalisade.so", 0o755),
        ("lib/pkgconfig", 0o755),
        ("lib/pkgconfig/palisade.pc", 0o644),
    ];
    for (file, wanted) in files {
        assert_eq!(mode(&prefix().join(file)), wanted, "{file}");
    }
}

#[test]
fn the_library_asks_for_no_stack_that_can_be_executed() {
    let library = library_folder().join("libpalisade.so");
    let segments = output(Command::new("readelf").arg("-lW").arg(&library));
    let stack = segments.lines().find(|line| line.contains("GNU_STACK"));
    let flags = stack.and_then(|line| line.split_whitespace().rev().nth(1));
    assert_eq!(flags, Some("RW"), "{segments}");
}
