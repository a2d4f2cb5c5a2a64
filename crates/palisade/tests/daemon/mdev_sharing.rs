//! Who may have what of a parent, at run time.

use crate::host::{CONFIG, Daemon, copies_a_page};

const MIB: u64 = 1 << 20;

/// The usual host with a third parent, of which nobody has anything.
fn start() -> Daemon {
    let third = "[[parent]]\nname = \"dsa2\"\nbdf = \"70:01.0\"\nqueues = 2\n[[tenant]]";
    let config = CONFIG.replacen("[[tenant]]", third, 1);
    Daemon::start_in(tempfile::tempdir().unwrap(), &config)
}

fn refused(daemon: &Daemon, tenant: &str, parent: &str, kind: &str) -> String {
    let create = ["mdev", "create", "--tenant", tenant, "--parent", parent];
    daemon.refused(&[&create[..], &["--type", kind]].concat())
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn r20_a_slice_of_a_parent_that_one_tenant_has_is_refused_with_his_name() {
    let daemon = start();
    let all = daemon.mdevs();
    let whole = all.iter().find(|m| m["type"] == "exclusive").unwrap();
    let uuid = whole["uuid"].as_str().unwrap();
    for tenant in ["alice", "bob"] {
        for kind in ["dedicated-queue", "shared-queue", "exclusive"] {
            let said = refused(&daemon, tenant, "dsa1", kind);
            says(&said, &["EBUSY", "tenant \"bob\" exclusively", uuid]);
        }
    }
    assert_eq!(daemon.mdevs(), all);
}

#[test]
fn r20_the_whole_of_a_parent_that_tenants_share_is_refused_with_their_names() {
    let daemon = start();
    let all = daemon.mdevs();
    let alice = daemon.connect("alice", 16 * MIB).unwrap();
    let said = refused(&daemon, "bob", "dsa0", "exclusive");
    let process = format!("tenant \"alice\" (process {})", std::process::id());
    says(&said, &["EBUSY", "shared", &process, "of tenant \"bob\""]);
    let on_it = all.iter().filter(|m| m["parent"] == "dsa0");
    let uuids: Vec<_> = on_it.map(|m| m["uuid"].as_str().unwrap()).collect();
    says(&said, &uuids);
    drop(alice);
}

#[test]
fn r20_r21_r22_a_parent_goes_from_one_tenant_to_several_and_back_when_it_is_idle() {
    let daemon = start();
    for _ in 0..2 {
        // The whole of it for alice, whether she is there or not.
        let whole = daemon.make("alice", "dsa2", "exclusive", &[]);
        says(
            &refused(&daemon, "bob", "dsa2", "shared-queue"),
            &["EBUSY", "\"alice\" exclusively", &whole.uuid],
        );
        let address = [whole.address];
        let mut alice = daemon.connect_to("alice", &address, 64 * MIB).unwrap();
        assert!(copies_a_page(&mut alice, address[0].bdf));
        let process = format!("process {}", std::process::id());
        for said in [
            refused(&daemon, "bob", "dsa2", "dedicated-queue"),
            refused(&daemon, "bob", "dsa2", "exclusive"),
            daemon.refused(&["mdev", "remove", &whole.uuid]),
        ] {
            says(&said, &["EBUSY", "\"alice\"", &process]);
        }
        drop(alice);
        daemon.wait_for_end_of("alice");
        daemon.done(&["mdev", "remove", &whole.uuid]);
        assert_eq!(daemon.ledger().outstanding, 0, "no entry is left");

        // A queue of it each.
        let slices = ["alice", "bob"].map(|t| daemon.make(t, "dsa2", "dedicated-queue", &[]));
        for tenant in ["alice", "bob"] {
            let said = refused(&daemon, tenant, "dsa2", "exclusive");
            says(&said, &["EBUSY", &slices[0].uuid, &slices[1].uuid]);
        }
        let address = [slices[1].address.clone()];
        let mut bob = daemon.connect_to("bob", &address, 64 * MIB).unwrap();
        assert!(copies_a_page(&mut bob, address[0].bdf));
        daemon.done(&["mdev", "remove", &slices[0].uuid]);
        says(
            &refused(&daemon, "alice", "dsa2", "exclusive"),
            &["EBUSY", "\"bob\"", &process, &slices[1].uuid],
        );
        assert!(copies_a_page(&mut bob, address[0].bdf));
        drop(bob);
        daemon.wait_for_end_of("bob");
        daemon.done(&["mdev", "remove", &slices[1].uuid]);
    }
}

#[test]
fn r68_a_parent_without_a_free_queue_says_who_has_them() {
    let daemon = start();
    let one = daemon.make("alice", "dsa2", "dedicated-queue", &[]);
    let two = daemon.make("bob", "dsa2", "dedicated-queue", &[]);
    for kind in ["dedicated-queue", "shared-queue"] {
        let said = refused(&daemon, "alice", "dsa2", kind);
        says(
            &said,
            &["ENOSPC", &one.uuid, &two.uuid, "\"alice\"", "\"bob\""],
        );
    }
    daemon.done(&["mdev", "remove", &one.uuid]);
    // Shares of one queue, as many as are wanted.
    for _ in 0..3 {
        let share = daemon.make("alice", "dsa2", "shared-queue", &[]);
        assert_eq!(daemon.mdev(&share.uuid)["queue"], 0);
    }
    let said = refused(&daemon, "bob", "dsa2", "dedicated-queue");
    says(&said, &["ENOSPC", &two.uuid]);
}
