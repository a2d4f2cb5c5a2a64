//! What the operator changes while a daemon runs.

use serde_json::json;

use crate::host::{CONFIG, Daemon, TenantProcess};

const MIB: u64 = 1 << 20;

/// The usual host with a group above both tenants.
fn grouped(max: u32) -> String {
    let group = format!("[[group]]\nname = \"web\"\nmax = {max}\n");
    let text = CONFIG.replacen("[[parent]]", &format!("{group}[[parent]]"), 1);
    text.replace("quota = 10\n", "quota = 10\ngroup = \"web\"\n")
}

fn start(config: &str) -> Daemon {
    Daemon::start_in(tempfile::tempdir().unwrap(), config)
}

#[test]
fn r29_a_quota_is_tuned_at_run_time_for_a_tenant_that_is_not_there() {
    let daemon = Daemon::start();
    let said = daemon.done(&["quota", "bob", "1"]);
    assert!(
        said.starts_with("bob: quota 1 (until the daemon ends"),
        "{said}"
    );
    // The slice's default address space is the one that it may have.
    let mut bob = daemon.connect("bob", 16 * MIB).unwrap();
    assert!(bob.start_process().is_err());
    daemon.done(&["quota", "bob", "2"]);
    bob.start_process().unwrap();
    let said = daemon.refused(&["quota", "bob", "1"]);
    assert!(
        said.contains("EINVAL") && said.contains("2 PASIDs"),
        "{said}"
    );
    drop(bob);
    daemon.wait_for_end_of("bob");
    assert_eq!(
        daemon.quota("bob"),
        2,
        "it is the tenant's, not the connection's"
    );
    daemon.done(&["quota", "bob", "configured"]);
    assert_eq!(daemon.quota("bob"), 10);
}

#[test]
fn r29_a_quota_beyond_what_is_there_is_refused_and_changes_nothing() {
    let daemon = Daemon::start();
    // 2^20 less PASID 0 and alice's 10.
    let said = daemon.refused(&["quota", "bob", "1048566"]);
    assert!(
        said.contains("ENOSPC") && said.contains("1048565 are left"),
        "{said}"
    );
    assert_eq!(daemon.quota("bob"), 10);
    daemon.done(&["quota", "bob", "1048565"]);
    let said = daemon.refused(&["quota", "alice", "11"]);
    assert!(said.contains("ENOSPC"), "{said}");
    let said = daemon.refused(&["quota", "carol", "1"]);
    assert!(
        said.contains("ENOENT") && said.contains("alice, bob"),
        "{said}"
    );
    assert!(
        daemon
            .refused(&["quota", "bob", "many"])
            .contains("configured")
    );
}

#[test]
fn r53_a_group_limits_its_tenants_together_and_counts_what_it_refused() {
    let daemon = start(&grouped(3));
    let mut alice = daemon.connect("alice", 16 * MIB).unwrap();
    alice.start_process().unwrap();
    let mut bob = daemon.connect("bob", 16 * MIB).unwrap();
    assert!(
        bob.start_process().is_err(),
        "two of alice's and one of his"
    );
    let groups = daemon.json(&["groups"]);
    let web = &groups["groups"][0];
    assert_eq!(groups["current"], 3);
    assert_eq!((&web["max"], &web["current"]), (&json!(3), &json!(3)));
    assert_eq!(web["tenants"], json!(["alice", "bob"]));
    assert!(web["events"].as_u64().unwrap() > 0);
    daemon.done(&["group", "limit", "web", "unlimited"]);
    bob.start_process().unwrap();
    // Below what is out, it takes nothing away.
    daemon.done(&["group", "limit", "web", "1"]);
    assert_eq!(daemon.json(&["groups"])["groups"][0]["current"], 4);
    assert!(bob.start_process().is_err());
    daemon.done(&["group", "limit", "web", "configured"]);
    let text = daemon.done(&["groups"]);
    assert!(text.contains("  web            3         4"), "{text}");
}

#[test]
fn r53_groups_come_and_go_at_run_time() {
    let daemon = start(&grouped(3));
    daemon.done(&["group", "create", "a", "--max", "5"]);
    daemon.done(&["group", "create", "b", "--parent", "a"]);
    let groups = daemon.json(&["groups"]);
    let named: Vec<_> = groups["groups"].as_array().unwrap().iter().collect();
    let named: Vec<_> = named
        .iter()
        .map(|g| (&g["name"], &g["max"], &g["origin"]))
        .collect();
    let (made, none) = (json!("run-time"), json!(null));
    let (a, b, web) = (json!("a"), json!("b"), json!("web"));
    let (five, three) = (json!(5), json!(3));
    let configured = json!("configuration");
    assert_eq!(
        named,
        [
            (&a, &five, &made),
            (&b, &none, &made),
            (&web, &three, &configured)
        ]
    );
    for (arguments, errno, word) in [
        (&["group", "create", "a"][..], "EEXIST", "already there"),
        (&["group", "create", "a/c"], "EINVAL", "letters"),
        (
            &["group", "create", "c", "--parent", "d"],
            "ENOENT",
            "a, b, web",
        ),
        (
            &["group", "create", "c", "--max", "1048576"],
            "EINVAL",
            "1048575",
        ),
        (&["group", "limit", "c", "1"], "ENOENT", "a, b, web"),
        (&["group", "limit", "a", "configured"], "EINVAL", "number"),
        (&["group", "remove", "a"], "EBUSY", "below it"),
        (&["group", "remove", "c"], "ENOENT", "a, b, web"),
        (&["group", "remove", "web"], "EPERM", "configuration"),
    ] {
        let said = daemon.refused(arguments);
        assert!(
            said.contains(errno) && said.contains(word),
            "{arguments:?}: {said}"
        );
    }
    assert_eq!(daemon.json(&["groups"]), groups, "nothing has changed");
    daemon.done(&["group", "remove", "b"]);
    daemon.done(&["group", "remove", "a"]);
    assert_eq!(
        daemon.json(&["groups"])["groups"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn r53_groups_at_run_time_are_no_deeper_than_those_of_a_configuration() {
    let daemon = Daemon::start();
    daemon.done(&["group", "create", "g1"]);
    for n in 2..=15 {
        let (name, parent) = (format!("g{n}"), format!("g{}", n - 1));
        daemon.done(&["group", "create", &name, "--parent", &parent]);
    }
    let said = daemon.refused(&["group", "create", "g16", "--parent", "g15"]);
    assert!(
        said.contains("EINVAL") && said.contains("below g15"),
        "{said}"
    );
}

#[test]
fn r10_the_hosts_own_users_share_the_namespace() {
    let config = format!("reserved = [[1, 4]]\n{CONFIG}");
    let daemon = start(&config);
    daemon.done(&["reserve", "5-9"]);
    daemon.done(&["reserve", "11"]);
    let bob = daemon.connect("bob", 16 * MIB).unwrap();
    let ledger = daemon.ledger();
    assert_eq!(
        ledger.tenants[1].pasids[0].pasid, 10,
        "the lowest that is nobody's"
    );
    for (arguments, errno, word) in [
        (["reserve", "10-12"], "EBUSY", "overlaps 11,"),
        (["reserve", "10"], "EBUSY", "10"),
        (["reserve", "4-4"], "EBUSY", "1-4"),
        (["reserve", "0-2"], "EINVAL", "1 <= MIN"),
        (["reserve", "20-1048576"], "EINVAL", "1048575"),
        (["reserve", "30-20"], "EINVAL", "1 <= MIN"),
        (["reserve", "20-1048575"], "ENOSPC", "quotas"),
        (["unreserve", "1-4"], "EPERM", "configuration"),
        (["unreserve", "5-8"], "EINVAL", "but 5-9"),
        (["unreserve", "20"], "EINVAL", "20 is not reserved"),
    ] {
        let said = daemon.refused(&arguments);
        assert!(
            said.contains(errno) && said.contains(word),
            "{arguments:?}: {said}"
        );
    }
    assert_eq!(
        daemon.json(&["reserved"])["ranges"],
        json!([
            { "min": 1, "max": 4, "origin": "configuration" },
            { "min": 5, "max": 9, "origin": "run-time" },
            { "min": 11, "max": 11, "origin": "run-time" },
        ])
    );
    drop(bob);
    daemon.wait_for_end_of("bob");
    daemon.done(&["unreserve", "5-9"]);
    let _bob = daemon.connect("bob", 16 * MIB).unwrap();
    assert_eq!(daemon.ledger().tenants[1].pasids[0].pasid, 5);
}

#[test]
fn r79_the_ledger_says_since_when_and_bound_where() {
    let before = std::time::SystemTime::now();
    let daemon = Daemon::start();
    let alice = TenantProcess::start(&daemon, "alice", 8 * MIB);
    alice.wait_for("copied");
    let ledger = daemon.ledger();
    let before = before.duration_since(std::time::UNIX_EPOCH).unwrap();
    for line in &ledger.tenants[0].pasids {
        assert!(u128::from(line.since_ns) >= before.as_nanos());
    }
    let bound = ledger.tenants[0].pasids.iter().flat_map(|line| &line.bound);
    let functions: Vec<_> = bound.map(|binding| binding.function.as_str()).collect();
    assert!(!functions.is_empty());
    assert!(functions.iter().all(|function| *function == "6a:01.0"));
    let text = daemon.done(&["ledger"]);
    assert!(text.contains("Z  6a:01.0"), "{text}");
    alice.finish();
}

#[test]
fn a_refusal_is_a_document_where_one_is_asked_for() {
    let daemon = Daemon::start();
    let said = daemon.refused(&["quota", "carol", "1", "--json"]);
    let refusal: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(refusal["errno"], "ENOENT");
    assert!(refusal["error"].as_str().unwrap().contains("carol"));
    let changed = daemon.json(&["quota", "alice", "7"]);
    assert_eq!(
        changed,
        json!({
            "change": { "quota": { "tenant": "alice", "quota": { "number": 7 } } },
            "kept": "until-the-daemon-ends",
        })
    );
}

#[test]
fn r79_events_have_the_names_of_groups_also_of_those_that_are_gone() {
    let daemon = start(&grouped(1));
    let _alice = daemon.connect("alice", 16 * MIB).unwrap();
    daemon.done(&["group", "create", "mine", "--parent", "web"]);
    daemon.done(&["group", "remove", "mine"]);
    daemon.done(&["reserve", "100-199"]);
    // The slice's default address space is the one that the group may have.
    assert!(daemon.connect("bob", 16 * MIB).is_err());
    let events = daemon.done(&["events"]);
    for what in [
        "group-created (group web below the host, max 1)",
        "group-created (group mine below group web, max unlimited)",
        "group-removed (group mine)",
        "reserved (100-199)",
        "bob        refused (Allocate: group web has its whole limit of PASIDs out)",
    ] {
        assert!(events.contains(what), "{what}: {events}");
    }
}
