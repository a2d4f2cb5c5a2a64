//! Functions that come and go while a daemon runs.

use std::{fs, os::unix::fs::PermissionsExt};

use palisade_driver::FunctionAddress;
use palisade_vfio_user::{Client, Region};
use serde_json::{Value, json};

use crate::host::{Daemon, FIRST, TenantProcess, copies_a_page, palisade, wait_until};

const MIB: u64 = 1 << 20;
const NAMED: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

fn removed(daemon: &Daemon, uuid: &str) {
    daemon.done(&["mdev", "remove", uuid]);
    assert_eq!(daemon.mdev(uuid), Value::Null);
}

#[test]
fn r68_a_slice_made_at_run_time_works_as_one_of_the_configuration_does() {
    let daemon = Daemon::start();
    let before = daemon.mdevs();
    let made = daemon.make("alice", "dsa0", "dedicated-queue", &["--uuid", NAMED]);
    let socket = daemon.socket(NAMED);
    assert_eq!(made.address.socket, socket, "beside the unit's");
    let line = json!({
        "uuid": NAMED, "parent": "dsa0", "type": "dedicated-queue", "queue": 3, "tenant": "alice",
        "client": null, "guest_bdf": "00:13.0", "socket": socket, "origin": "run-time",
    });
    assert_eq!(daemon.mdev(NAMED), line);
    assert_eq!(daemon.mdevs().len(), before.len() + 1);
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // A guest that starts later has it beside the one of the configuration.
    let first = FunctionAddress {
        bdf: FIRST,
        socket: daemon.socket("alice-0"),
    };
    let functions = [first, made.address.clone()];
    let mut alice = daemon.connect_to("alice", &functions, 64 * MIB).unwrap();
    for function in &functions {
        assert!(copies_a_page(&mut alice, function.bdf));
    }
    assert_eq!(daemon.mdev(NAMED)["client"], std::process::id());
    assert_eq!(
        daemon
            .mdevs()
            .iter()
            .filter(|m| !m["client"].is_null())
            .count(),
        2
    );

    // R72: not while somebody has it; then without anything left behind.
    let said = daemon.refused(&["mdev", "remove", NAMED]);
    let process = format!(
        "in use by tenant \"alice\" (process {})",
        std::process::id()
    );
    assert!(said.contains("EBUSY") && said.contains(&process), "{said}");
    assert!(
        copies_a_page(&mut alice, made.address.bdf),
        "it is still hers"
    );
    drop(alice);
    daemon.wait_for_end_of("alice");
    removed(&daemon, NAMED);
    assert!(!socket.exists());
    assert_eq!(daemon.mdevs(), before);
    assert_eq!(daemon.ledger().outstanding, 0);
    let again = daemon.make("bob", "dsa0", "dedicated-queue", &["--uuid", NAMED]);
    assert_eq!(
        daemon.mdev(&again.uuid)["queue"],
        3,
        "the queue was free again"
    );
}

#[test]
fn r68_a_guest_that_runs_already_may_connect_to_a_new_slice() {
    let daemon = Daemon::start();
    let mut alice = daemon.connect("alice", 64 * MIB).unwrap();
    assert!(copies_a_page(&mut alice, FIRST));
    let made = daemon.make("alice", "dsa0", "shared-queue", &[]);
    assert_eq!(daemon.mdev(&made.uuid)["client"], Value::Null);
    let slice = Client::connect(&made.address.socket).unwrap();
    let own = json!(std::process::id());
    wait_until("the process is seen", || {
        daemon.mdev(&made.uuid)["client"] == own
    });
    assert!(
        daemon
            .refused(&["mdev", "remove", &made.uuid])
            .contains("EBUSY")
    );
    // It goes while the guest stays.
    drop(slice);
    wait_until("the slice is let go", || {
        daemon.mdev(&made.uuid)["client"] == Value::Null
    });
    removed(&daemon, &made.uuid);
    assert!(copies_a_page(&mut alice, FIRST));
}

#[test]
fn r33_r72_a_slice_whose_client_is_killed_at_work_can_be_removed() {
    let daemon = Daemon::start();
    let made = daemon.make("bob", "dsa0", "dedicated-queue", &[]);
    let bob = TenantProcess::start_on(&daemon, "bob", &made.address, 1 << 40);
    bob.wait_for("progress");
    // Nobody but that process is bob, also on a slice that was made while he is at work.
    let other = daemon.make("bob", "dsa0", "dedicated-queue", &[]);
    assert!(Client::connect(&other.address.socket).is_err());
    assert!(
        daemon
            .refused(&["mdev", "remove", &made.uuid])
            .contains("EBUSY")
    );
    bob.kill();
    daemon.wait_for_end_of("bob");
    for uuid in [made.uuid, other.uuid] {
        removed(&daemon, &uuid);
    }
    assert_eq!(daemon.ledger().outstanding, 0);
}

#[test]
fn r68_slices_come_and_go_without_leaving_threads_sockets_or_queues_behind() {
    let daemon = Daemon::start();
    let count = |what: &str| {
        let entries = fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).unwrap();
        entries.count()
    };
    // Those that serve the operator come and go as well.
    daemon.mdevs();
    let before = (count("task"), count("fd"));
    for kind in ["dedicated-queue", "shared-queue"].repeat(10) {
        let made = daemon.make("alice", "dsa0", kind, &[]);
        let client = Client::connect(&made.address.socket).unwrap();
        drop(client);
        wait_until("the client is gone", || {
            daemon.mdev(&made.uuid)["client"] == Value::Null
        });
        removed(&daemon, &made.uuid);
    }
    daemon.wait_for_end_of("alice");
    wait_until("all is given back", || {
        (count("task"), count("fd")) == before
    });
}

#[test]
fn r72_a_function_is_removed_or_has_a_client_never_both() {
    let daemon = Daemon::start();
    for _ in 0..20 {
        let made = daemon.make("alice", "dsa0", "dedicated-queue", &[]);
        let socket = made.address.socket.clone();
        let clients = std::thread::spawn(move || {
            // Until there is no socket any more.
            while socket.exists() {
                if let Ok(mut client) = Client::connect(&socket) {
                    // Whoever is let in has the device for as long as it likes.
                    let info = client.region_info(Region::Config);
                    assert!(info.is_ok_and(|info| info.len_bytes > 0));
                }
            }
        });
        wait_until("it is removed between two clients", || {
            let said = daemon.ctl(&["mdev", "remove", &made.uuid]);
            let complaint = String::from_utf8(said.stderr).unwrap();
            assert!(
                said.status.success() || complaint.contains("EBUSY"),
                "{complaint}"
            );
            said.status.success()
        });
        assert!(!made.address.socket.exists());
        clients.join().unwrap();
    }
    daemon.wait_for_end_of("alice");
    assert_eq!(daemon.ledger().outstanding, 0);
}

#[test]
fn r68_what_cannot_be_made_or_removed_is_refused_and_changes_nothing() {
    let daemon = Daemon::start();
    let made = daemon.make("alice", "dsa0", "shared-queue", &["--uuid", NAMED]);
    let socket = made.address.socket.to_str().unwrap();
    let mdevs = daemon.mdevs();
    let configured = mdevs
        .iter()
        .find(|m| m["origin"] == "configuration")
        .unwrap();
    let configured = configured["uuid"].as_str().unwrap();
    let unknown = "00000000-0000-0000-0000-000000000001";
    let unit = daemon.socket("bob-unit").display().to_string();
    let long = format!("/{}", "x".repeat(107));
    let create = |tenant: &'static str, parent: &'static str, more: &[&'static str]| {
        let all = ["mdev", "create", "--tenant", tenant, "--parent", parent];
        [&all[..], &["--type", "shared-queue"], more].concat()
    };
    let with = |name, value: &str| {
        let mut arguments: Vec<String> = create("bob", "dsa0", &[])
            .into_iter()
            .map(str::to_owned)
            .collect();
        arguments.extend([name, value].map(str::to_owned));
        arguments
    };
    let owned = |arguments: Vec<&str>| -> Vec<String> {
        arguments.into_iter().map(str::to_owned).collect()
    };
    for (arguments, errno, word) in [
        (owned(create("carol", "dsa0", &[])), "ENOENT", "alice, bob"),
        (owned(create("alice", "dsa9", &[])), "ENOENT", "dsa0, dsa1"),
        (with("--uuid", NAMED), "EEXIST", "of tenant \"alice\""),
        (with("--uuid", configured), "EEXIST", "of tenant"),
        (with("--uuid", "7"), "EINVAL", "no UUID"),
        (with("--function-socket", socket), "EEXIST", NAMED),
        (
            with("--function-socket", &unit),
            "EADDRINUSE",
            "another process",
        ),
        (with("--function-socket", &long), "EINVAL", "107 bytes"),
        (
            with("--function-socket", "/nowhere/a.sock"),
            "ENOENT",
            "folder",
        ),
        (with("--guest-bdf", "00:11.0"), "EEXIST", "\"bob\""),
        (with("--guest-bdf", "00:10.0"), "EEXIST", "its unit"),
        (with("--guest-bdf", "01:11.0"), "EINVAL", "root bus"),
        (with("--guest-bdf", "nowhere"), "EINVAL", "guest_bdf"),
        (owned(vec!["mdev", "remove", unknown]), "ENOENT", unknown),
        (owned(vec!["mdev", "remove", "7"]), "EINVAL", "no UUID"),
        (
            owned(vec!["mdev", "remove", configured]),
            "EPERM",
            "configuration",
        ),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = daemon.refused(&arguments);
        assert!(
            said.contains(errno) && said.contains(word),
            "{arguments:?}: {said}"
        );
    }
    // What the command line knows by itself.
    let mut wrong = create("alice", "dsa0", &[]);
    wrong[7] = "slice";
    assert!(daemon.refused(&wrong).contains("\"dedicated-queue\""));
    assert_eq!(daemon.mdevs(), mdevs, "nothing has changed");
    removed(&daemon, NAMED);
}

#[test]
fn r68_a_relative_path_is_taken_from_where_the_operator_is() {
    let daemon = Daemon::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = palisade();
    command.current_dir(elsewhere.path());
    command.args([
        "ctl", "mdev", "create", "--tenant", "alice", "--parent", "dsa0",
    ]);
    command.args([
        "--type",
        "shared-queue",
        "--function-socket",
        "mine.sock",
        "--socket",
    ]);
    let said = command.arg(daemon.socket("control")).output().unwrap();
    assert!(said.status.success());
    assert!(elsewhere.path().join("mine.sock").exists());
    let text = daemon.done(&["mdev", "list"]);
    assert!(
        text.contains("mine.sock") && text.contains("made"),
        "{text}"
    );
}

#[test]
fn a_guest_has_no_more_places_than_its_root_bus() {
    let daemon = Daemon::start();
    for _ in 0x13..0x1f {
        daemon.make("alice", "dsa0", "shared-queue", &[]);
    }
    let create = ["mdev", "create", "--tenant", "alice", "--parent", "dsa0"];
    let create = [&create[..], &["--type", "shared-queue"]].concat();
    let said = daemon.refused(&create);
    assert!(
        said.contains("ENOSPC") && said.contains("00:11.1"),
        "{said}"
    );
    daemon.make("alice", "dsa0", "shared-queue", &["--guest-bdf", "00:11.1"]);
}

#[test]
fn sigterm_takes_the_sockets_of_run_time_away_too() {
    let mut daemon = Daemon::start();
    let made = daemon.make("alice", "dsa0", "dedicated-queue", &[]);
    let alice = TenantProcess::start_on(&daemon, "alice", &made.address, 1 << 40);
    alice.wait_for("progress");
    assert!(daemon.end().success());
    let left: Vec<_> = fs::read_dir(daemon.folder())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["host.toml"]);
    alice.kill();
}
