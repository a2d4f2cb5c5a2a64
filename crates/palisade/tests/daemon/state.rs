//! What outlives a daemon, and what must not.

use std::{fs, path::Path};

use serde_json::json;
use tempfile::TempDir;

use crate::host::{CONFIG, Daemon, TenantProcess};

const FILE: &str = "kept/palisade.state";

/// The usual host with a folder for its state.
fn config() -> String {
    format!(
        "state = \"kept\"\n[[group]]\nname = \"web\"\nmax = 30\n{}",
        {
            // Keys of the top level stand before the first table.
            CONFIG.replacen("control = \"control.sock\"\n", "", 1)
        }
    )
    .replacen(
        "state = \"kept\"\n",
        "state = \"kept\"\ncontrol = \"control.sock\"\n",
        1,
    )
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("kept")).unwrap();
    folder
}

fn start() -> Daemon {
    Daemon::start_in(folder(), &config())
}

/// A folder whose last daemon was told of everything that can be set, and killed.
fn killed() -> TempDir {
    let daemon = start();
    for change in [
        &["quota", "alice", "12"][..],
        &["group", "limit", "web", "7"],
        &["group", "create", "top"],
        &["group", "create", "below", "--max", "3", "--parent", "top"],
        &["reserve", "5-9"],
        &["reserve", "100"],
    ] {
        let said = daemon.done(change);
        assert!(said.contains("kept over restarts"), "{said}");
    }
    daemon.kill()
}

#[test]
fn r29_r53_r10_what_was_set_at_run_time_survives_a_kill_9() {
    let daemon = Daemon::start_in(killed(), &config());
    assert_eq!(daemon.quota("alice"), 12);
    assert_eq!(daemon.quota("bob"), 10, "the configuration's");
    let groups = daemon.json(&["groups"]);
    let line = |name: &str, parent: Option<&str>, max: Option<u32>, origin: &str| {
        json!({
            "name": name, "parent": parent, "max": max, "current": 0, "events": 0, "origin": origin,
            "max_origin": "run-time", "tenants": [],
        })
    };
    assert_eq!(
        groups["groups"],
        json!([
            line("top", None, None, "run-time"),
            line("below", Some("top"), Some(3), "run-time"),
            line("web", None, Some(7), "configuration"),
        ])
    );
    let ranges = daemon.json(&["reserved"])["ranges"].clone();
    let at_run_time = |min, max| json!({ "min": min, "max": max, "origin": "run-time" });
    assert_eq!(ranges, json!([at_run_time(5, 9), at_run_time(100, 100)]));
    // What is there can be taken back, and that survives too.
    daemon.done(&["quota", "alice", "configured"]);
    daemon.done(&["group", "limit", "web", "configured"]);
    daemon.done(&["group", "remove", "below"]);
    daemon.done(&["group", "remove", "top"]);
    daemon.done(&["unreserve", "5-9"]);
    daemon.done(&["unreserve", "100"]);
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert_eq!(daemon.quota("alice"), 10);
    assert_eq!(
        daemon.json(&["groups"])["groups"].as_array().unwrap().len(),
        1
    );
    assert_eq!(daemon.json(&["reserved"])["ranges"], json!([]));
}

#[test]
fn r29_only_what_was_set_at_run_time_overrides_the_configuration() {
    let edited = config().replace("quota = 10\n", "quota = 20\n");
    let daemon = Daemon::start_in(killed(), &edited);
    assert_eq!((daemon.quota("alice"), daemon.quota("bob")), (12, 20));
    let text = daemon.done(&["ledger"]);
    assert!(
        text.contains("alice (nobody): 0 of 12, 20 in the configuration"),
        "{text}"
    );
}

#[test]
fn r33_allocations_do_not_survive() {
    let daemon = start();
    let alice = TenantProcess::start(&daemon, "alice", 1 << 40);
    alice.wait_for("progress");
    assert!(daemon.ledger().outstanding > 0);
    daemon.done(&["quota", "alice", "12"]);
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert_eq!(daemon.ledger().outstanding, 0);
    assert_eq!(daemon.quota("alice"), 12);
    alice.kill();
}

#[track_caller]
fn refused_and_left_alone(folder: &Path, bytes: &[u8], what: &str) {
    let file = folder.join(FILE);
    fs::write(&file, bytes).unwrap();
    let said = Daemon::refused_in(folder, &config());
    assert!(said.contains(&file.display().to_string()), "{said}");
    assert!(
        said.contains(what) && said.contains("move it away"),
        "{said}"
    );
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn r53_a_torn_state_is_refused_by_name_and_left_alone() {
    let folder = killed();
    let whole = fs::read(folder.path().join(FILE)).unwrap();
    refused_and_left_alone(folder.path(), &whole[..whole.len() - 10], "torn");
    refused_and_left_alone(folder.path(), &whole[..7], "torn");
    refused_and_left_alone(folder.path(), b"", "torn");
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() = b' ';
    refused_and_left_alone(folder.path(), &damaged, "damaged");
    // Whole again, it is taken.
    fs::write(folder.path().join(FILE), whole).unwrap();
    let daemon = Daemon::start_in(folder, &config());
    assert_eq!(daemon.quota("alice"), 12);
}

#[test]
fn r53_a_foreign_or_newer_state_is_refused_by_name_and_left_alone() {
    let folder = killed();
    let whole = fs::read_to_string(folder.path().join(FILE)).unwrap();
    refused_and_left_alone(folder.path(), CONFIG.as_bytes(), "no state of palisade");
    let newer = whole.replacen("palisade-state 2 ", "palisade-state 3 ", 1);
    refused_and_left_alone(folder.path(), newer.as_bytes(), "version 3");
}

#[test]
fn r53_a_folder_that_is_missing_or_cannot_be_written_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let said = Daemon::refused_in(folder.path(), &config());
    let kept = folder.path().join("kept");
    assert!(said.contains(&kept.display().to_string()), "{said}");
    assert!(said.contains("make it"), "{said}");
    // Not even root makes files in these.
    let config = config().replacen("\"kept\"", "\"/proc/self/fdinfo\"", 1);
    let said = Daemon::refused_in(folder.path(), &config);
    assert!(said.contains("/proc/self/fdinfo: "), "{said}");
    fs::write(&kept, "a file").unwrap();
    assert!(!Daemon::refused_in(folder.path(), &self::config()).is_empty());
    assert_eq!(fs::read(&kept).unwrap(), b"a file");
}

#[test]
fn r53_a_folder_has_one_daemon_at_a_time() {
    let daemon = start();
    let other = tempfile::tempdir().unwrap();
    let kept = daemon.folder().join("kept");
    let config = config().replacen("kept", &kept.display().to_string(), 1);
    let said = Daemon::refused_in(other.path(), &config);
    assert!(said.contains("another daemon"), "{said}");
    daemon.done(&["quota", "alice", "11"]);
    drop(daemon.kill());
}

#[test]
fn r53_what_a_crash_left_of_a_write_is_cleaned_away() {
    let folder = killed();
    let draft = folder.path().join("kept/palisade.state.new");
    fs::write(&draft, "palisade-state 2 ").unwrap();
    let daemon = Daemon::start_in(folder, &config());
    assert!(!draft.exists());
    assert_eq!(daemon.quota("alice"), 12);
    daemon.done(&["quota", "alice", "13"]);
}

#[test]
fn r29_r53_r10_a_change_that_cannot_be_kept_is_undone_and_told_of() {
    let daemon = start();
    daemon.done(&["group", "create", "mine", "--max", "3"]);
    daemon.done(&["reserve", "50-59"]);
    let file = daemon.folder().join(FILE);
    let before = fs::read(&file).unwrap();
    let all = || {
        let answers = [["ledger"], ["groups"], ["reserved"]];
        answers.map(|question| daemon.json(&question))
    };
    let was = all();
    // The next state cannot be written where a folder stands in its way.
    let draft = daemon.folder().join("kept/palisade.state.new");
    fs::create_dir(&draft).unwrap();
    for change in [
        &["quota", "alice", "12"][..],
        &["quota", "alice", "3"],
        &["group", "create", "more", "--parent", "mine"],
        &["group", "limit", "web", "1"],
        &["group", "limit", "web", "unlimited"],
        &["group", "remove", "mine"],
        &["reserve", "5-9"],
        &["unreserve", "50-59"],
    ] {
        let said = daemon.refused(change);
        assert!(
            said.contains("EEXIST") && said.contains(&file.display().to_string()),
            "{said}"
        );
        assert!(said.contains("nothing was changed"), "{said}");
        assert_eq!(all(), was, "{change:?}");
    }
    assert_eq!(fs::read(&file).unwrap(), before);
    fs::remove_dir(&draft).unwrap();
    daemon.done(&["quota", "alice", "12"]);
}

#[test]
fn r29_a_quota_that_does_not_fit_the_configuration_any_more_is_refused_by_name() {
    let daemon = start();
    daemon.done(&["quota", "alice", "1048000"]);
    let folder = daemon.kill();
    let edited = config().replace("quota = 10\n", "quota = 600\n");
    let said = Daemon::refused_in(folder.path(), &edited);
    assert!(said.contains("quota 1048000 of tenant \"alice\""), "{said}");
    assert!(said.contains(FILE), "{said}");
    // With the configuration before it can be mended.
    let daemon = Daemon::start_in(folder, &config());
    daemon.done(&["quota", "alice", "configured"]);
    let daemon = Daemon::start_in(daemon.kill(), &edited);
    assert_eq!(daemon.quota("alice"), 600);
}

#[test]
fn r29_a_quota_of_a_tenant_that_is_gone_is_told_of_and_can_be_forgotten() {
    let folder = killed();
    let renamed = config().replace("\"alice\"", "\"carol\"");
    let daemon = Daemon::start_in(folder, &renamed);
    assert_eq!(daemon.quota("carol"), 10);
    assert!(daemon.refused(&["quota", "alice", "3"]).contains("ENOENT"));
    // It may come back.
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert_eq!(daemon.quota("alice"), 12);
    let daemon = Daemon::start_in(daemon.kill(), &renamed);
    daemon.done(&["quota", "alice", "configured"]);
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert_eq!(daemon.quota("alice"), 10);
}

#[test]
fn r10_a_range_that_the_configuration_takes_over_is_its_own_then() {
    let folder = killed();
    let half = format!("reserved = [[8, 20]]\n{}", config());
    let said = Daemon::refused_in(folder.path(), &half);
    assert!(said.contains("5-9") && said.contains("[8, 20]"), "{said}");
    let whole = format!("reserved = [[5, 20]]\n{}", config());
    let daemon = Daemon::start_in(folder, &whole);
    assert_eq!(
        daemon.json(&["reserved"])["ranges"][0],
        json!({ "min": 5, "max": 20, "origin": "configuration" })
    );
}

#[test]
fn r53_a_group_that_the_configuration_takes_over_keeps_the_limit_set_at_run_time() {
    let taken_over = config().replacen(
        "[[group]]\n",
        "[[group]]\nname = \"below\"\nmax = 9\nparent = \"web\"\n[[group]]\n",
        1,
    );
    let daemon = Daemon::start_in(killed(), &taken_over);
    let line = || {
        let groups = daemon.json(&["groups"])["groups"].clone();
        let found = groups
            .as_array()
            .unwrap()
            .iter()
            .find(|g| g["name"] == "below");
        let line = found.unwrap();
        ["parent", "max", "origin"].map(|key| line[key].clone())
    };
    assert_eq!(line(), [json!("web"), json!(3), json!("configuration")]);
    daemon.done(&["group", "limit", "below", "configured"]);
    assert_eq!(line(), [json!("web"), json!(9), json!("configuration")]);
}

#[test]
fn r53_a_group_below_one_of_the_configuration_is_kept() {
    let daemon = start();
    daemon.done(&["group", "create", "mine", "--parent", "web"]);
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert_eq!(daemon.json(&["groups"])["groups"][1]["parent"], "web");
}

#[test]
fn r53_a_group_whose_parent_is_gone_is_told_of_and_comes_back_with_it() {
    let daemon = Daemon::start_in(killed(), &config());
    daemon.done(&["group", "create", "mine", "--max", "2", "--parent", "web"]);
    daemon.done(&["group", "create", "lost", "--parent", "mine"]);
    let without = config().replacen("[[group]]\nname = \"web\"\nmax = 30\n", "", 1);
    let names = |daemon: &Daemon| -> Vec<String> {
        let groups = daemon.json(&["groups"])["groups"].clone();
        let groups = groups.as_array().unwrap().iter();
        groups
            .map(|g| g["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let daemon = Daemon::start_in(daemon.kill(), &without);
    assert_eq!(names(&daemon), ["top", "below"]);
    daemon.done(&["group", "remove", "lost"]);
    assert!(
        daemon
            .refused(&["group", "remove", "lost"])
            .contains("ENOENT")
    );
    let daemon = Daemon::start_in(daemon.kill(), &config());
    assert_eq!(names(&daemon), ["top", "below", "web", "mine"]);
    assert_eq!(daemon.json(&["groups"])["groups"][3]["max"], 2);
}
