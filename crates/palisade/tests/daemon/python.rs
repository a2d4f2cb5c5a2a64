//! examples/python/session.py and iommufd_session.py: a VMM in another language, whose client knows `docs/container.md` and nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use palisade_driver::{Guest, Link};

use crate::container::start;
use crate::host::Daemon;

const EFAULT: &str = "EFAULT";
const EOPNOTSUPP: &str = "EOPNOTSUPP";

fn script(name: &str) -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/python");
    examples.join(name)
}

/// What the session prints in a form of the requests, where it tells by `errno` that there is no function yet.
fn says(errno: &str, capability: u16) -> String {
    format!(
        "\
a request before the version: EPROTO
another form: EPROTONOSUPPORT
the server speaks version 1.1
without a function: {errno}
function 00:11.0, state 1
attaching it: ENODEV
detaching it: ENODEV
capability {capability}
in the ring: None
PASID 10
bound: the guest's PASID 700
too small a size: EINVAL
fewer bytes than the size: EFAULT
unknown flags: EINVAL
the other version: ENOTTY
no request: ENOTTY
no file: EINVAL
freeing PASID 1: EACCES
freeing PASID 2: ENOENT
freeing PASID 9999: ENOENT
a second ring: EBUSY
an address between pages: EINVAL
a root between pages: EINVAL
another name: EINVAL
page request: PASID 700, wants 2, 0x500000001000
copied: True b'hello'
answered again: ENOENT
moved: True b'hello'
given up: True
unbound; once more: ENOENT
fault: PASID 10, reason 0x59, 0x500000000000
freed; binding it: ENOENT
"
    )
}

/// Runs the session as alice's VMM. Bob's has a slice already, whose PASID is the first.
fn run(daemon: &Daemon, name: &str, form: &[&str]) -> String {
    let guest = Guest::new(1 << 20).unwrap();
    let bob = Link::connect(&daemon.socket("bob-0"), "the slice", &guest).unwrap();
    let said = Command::new("python3")
        .arg("-B")
        .arg(script(name))
        .args(form)
        .args([daemon.socket("alice-container"), daemon.socket("alice-0")])
        .output()
        .unwrap();
    let complaint = String::from_utf8(said.stderr).unwrap();
    assert!(said.status.success(), "{complaint}");
    drop(bob);
    for tenant in ["alice", "bob"] {
        daemon.wait_for_end_of(tenant);
    }
    String::from_utf8(said.stdout).unwrap()
}

/// What it prints in the form of an iommufd, whose devices are the functions that the host attached.
const BY_IOMMUFD: &str = "\
function 00:11.0, state 1
page request: PASID 700, wants 2, 0x500000001000
copied: True b'hello'
moved: True b'hello'
given up: True
detached; in the queue: nothing
closed; attaching it: EINVAL
bound again
";

#[test]
fn r63_r75_a_client_in_python_has_a_slice_as_the_device_of_an_iommufd() {
    assert_eq!(run(&start(""), "iommufd_session.py", &[]), BY_IOMMUFD);
}

#[test]
fn r23_r24_r39_r62_r63_a_client_in_python_speaks_version_1() {
    assert_eq!(run(&start(""), "session.py", &["1"]), says(EFAULT, 2));
}

#[test]
fn r23_r24_r39_r62_r63_a_client_in_python_speaks_version_7() {
    assert_eq!(run(&start(""), "session.py", &["7"]), says(EOPNOTSUPP, 3));
}
