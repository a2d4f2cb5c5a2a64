//! examples/python/copy.py: a client that knows `docs/container.md` and nothing else, at a host that offers a function.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;
#[path = "../../capi/tests/c/host.rs"]
mod host;

use std::path::Path;
use std::process::Command;

use common::UNIT;
use host::Host;

const PROPOSAL: &str = "\
page request: PASID 700, wants 2, 0x7f0000001000
status 0 0 0 0 copied True
unmapped 1048576
";

fn run(form: &str) -> String {
    let host = Host::new();
    let books = host.world.books();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python/copy.py");
    let said = Command::new("python3")
        .arg("-B")
        .arg(script)
        .arg(form)
        .args([host.container_socket(), host.device_socket()])
        .output()
        .unwrap();
    let complaint = String::from_utf8(said.stderr).unwrap();
    assert!(said.status.success(), "{complaint}");
    host.world.wait_for(&books);
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn r23_r24_r39_r63_a_client_in_python_maps_attaches_and_binds_by_version_1() {
    assert_eq!(run("1"), PROPOSAL);
}

#[test]
fn r23_r24_r39_r63_a_client_in_python_maps_attaches_and_binds_by_version_7() {
    assert_eq!(run("7"), PROPOSAL);
}

#[test]
fn r63_r75_a_client_in_python_has_the_objects_of_an_iommufd() {
    let (cap, ecap) = (UNIT.cap, UNIT.ecap);
    let expected = format!(
        "\
PASIDs have 20 bits, CAP {cap:#x}, ECAP {ecap:#x}
ranges 0x0-0xfedfffff 0xfef00000-0xfffffffffffff
page request: PASID 700, wants 2, 0x7f0000001000
status 0 0 0 0 copied True
invalidated 2
"
    );
    assert_eq!(run("3"), expected);
}
