//! Functions of run time that outlive a daemon, and those that cannot.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::{CONFIG, Daemon, copies_a_page};

const MIB: u64 = 1 << 20;
const NAMED: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

fn config() -> String {
    CONFIG.replacen("control", "state = \"kept\"\ncontrol", 1)
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("kept")).unwrap();
    folder
}

fn start() -> Daemon {
    Daemon::start_in(folder(), &config())
}

/// The functions made at run time that are there.
fn made(daemon: &Daemon) -> Vec<Value> {
    let all = daemon.mdevs().into_iter();
    all.filter(|m| m["origin"] == "run-time").collect()
}

#[test]
fn r68_a_function_made_at_run_time_survives_a_kill_9_and_so_does_its_removal() {
    let daemon = start();
    let slice = daemon.make("alice", "dsa0", "dedicated-queue", &["--uuid", NAMED]);
    let other = daemon.make("bob", "dsa0", "shared-queue", &[]);
    daemon.done(&["mdev", "remove", &other.uuid]);
    let before = made(&daemon);
    assert_eq!(before.len(), 1);
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert_eq!(made(&daemon), before);
    let address = [slice.address];
    let mut alice = daemon.connect_to("alice", &address, 64 * MIB).unwrap();
    assert!(copies_a_page(&mut alice, address[0].bdf));
    drop(alice);
    daemon.wait_for_end_of("alice");
    daemon.done(&["mdev", "remove", NAMED]);
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert!(made(&daemon).is_empty());
}

#[test]
fn r68_without_a_state_a_function_goes_with_the_daemon() {
    let daemon = Daemon::start();
    let create = ["mdev", "create", "--tenant", "alice", "--parent", "dsa0"];
    let said = daemon.done(&[&create[..], &["--type", "shared-queue"]].concat());
    assert!(said.contains("until the daemon ends"), "{said}");
    let daemon = Daemon::start_in(daemon.kill(), CONFIG);
    assert!(made(&daemon).is_empty());
}

#[test]
fn r68_a_function_that_the_configuration_takes_over_is_its_own_then() {
    let daemon = start();
    daemon.make("alice", "dsa0", "shared-queue", &["--uuid", NAMED]);
    let function = "[[tenant.function]]\nparent = \"dsa0\"\ntype = \"dedicated-queue\"\n";
    let taken_over = config().replacen(function, &format!("{function}uuid = \"{NAMED}\"\n"), 1);
    let daemon = Daemon::start_in(daemon.kill(), &taken_over);
    let line = daemon.mdev(NAMED);
    assert_eq!(
        (&line["origin"], &line["type"]),
        (&json!("configuration"), &json!("dedicated-queue"))
    );
    assert!(daemon.refused(&["mdev", "remove", NAMED]).contains("EPERM"));
}

#[test]
fn r20_r68_a_function_that_cannot_be_had_any_more_is_kept_and_can_be_forgotten() {
    let daemon = start();
    daemon.make("alice", "dsa0", "shared-queue", &["--uuid", NAMED]);
    let kept = made(&daemon);
    let mut folder = daemon.kill();
    let edits: [&dyn Fn(&str) -> String; 4] = [
        &|c| c.replace("\"dsa0\"", "\"dsa7\""),
        &|c| c.replace("\"alice\"", "\"carol\""),
        // All of the queues, and a place, that it had.
        &|c| c.replacen("bdf = \"6a:01.0\"", "bdf = \"6a:01.0\"\nqueues = 3", 1),
        &|c| {
            c.replacen(
                "socket = \"alice-1.sock\"",
                "socket = \"alice-1.sock\"\nguest_bdf = \"00:13.0\"",
                1,
            )
        },
    ];
    for (number, edit) in edits.iter().enumerate() {
        let daemon = Daemon::start_in(folder, &edit(&config()));
        assert!(made(&daemon).is_empty(), "{number}");
        // It comes back with what it was made of.
        let daemon = Daemon::start_in(daemon.kill(), &config());
        assert_eq!(made(&daemon), kept);
        folder = daemon.kill();
    }
    let daemon = Daemon::start_in(folder, &edits[1](&config()));
    daemon.done(&["mdev", "remove", NAMED]);
    assert!(
        daemon
            .refused(&["mdev", "remove", NAMED])
            .contains("ENOENT")
    );
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert!(made(&daemon).is_empty());
}

#[test]
fn r68_a_function_that_cannot_be_kept_is_not_made_and_one_is_not_removed() {
    let daemon = start();
    let there = daemon.make("bob", "dsa0", "dedicated-queue", &[]);
    let before = daemon.mdevs();
    let draft = daemon.folder().join("kept/palisade.state.new");
    fs::create_dir(&draft).unwrap();
    let create = ["mdev", "create", "--tenant", "alice", "--parent", "dsa0"];
    let create = [&create[..], &["--type", "dedicated-queue", "--uuid", NAMED]].concat();
    for change in [&create[..], &["mdev", "remove", &there.uuid]] {
        let said = daemon.refused(change);
        assert!(said.contains("nothing was changed"), "{said}");
        assert_eq!(daemon.mdevs(), before);
    }
    assert!(!daemon.socket(NAMED).exists());
    // What was not removed is there to be used.
    let address = [there.address];
    let mut bob = daemon.connect_to("bob", &address, 64 * MIB).unwrap();
    assert!(copies_a_page(&mut bob, address[0].bdf));
    drop(bob);
    daemon.wait_for_end_of("bob");
    fs::remove_dir(&draft).unwrap();
    daemon.done(&create);
    daemon.done(&["mdev", "remove", &there.uuid]);
}
