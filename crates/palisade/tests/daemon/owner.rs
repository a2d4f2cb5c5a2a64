//! Who may open the operator's socket.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
};

use crate::host::{CONFIG, Daemon, palisade};

const NOBODY: u32 = 65534;

/// The daemon makes them under an umask of 0, and nothing narrows them after they are bound: there is no moment in
/// which anybody else could open one.
#[test]
fn only_the_owner_may_open_a_socket() {
    let daemon = Daemon::start();
    for name in ["control", "alice-unit", "alice-0"] {
        let about = fs::metadata(daemon.socket(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn the_state_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    fs::create_dir(&kept).unwrap();
    let config = format!("state = \"kept\"\n{CONFIG}");
    let daemon = Daemon::start_in(folder, &config);
    daemon.done(&["reserve", "5"]);
    for name in ["palisade.state", "palisade.lock"] {
        let about = fs::metadata(kept.join(name)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{name}");
    }
}

/// Someone opens the socket who could not if it were still as the daemon made it. Only root can become another
/// user to try that.
#[test]
fn another_user_is_refused_even_where_the_socket_lets_him_in() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let daemon = Daemon::start();
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    // A copy, since the folders above the program may be closed to him. By another process: what this one has open for
    // writing, the children of other tests have for a moment, too, and then it cannot be run.
    let program = daemon.folder().join("palisade");
    let mut copy = std::process::Command::new("cp");
    copy.arg(palisade().get_program()).arg(&program);
    assert!(copy.status().unwrap().success());
    mode(daemon.folder(), 0o755);
    let ask = || {
        let mut command = std::process::Command::new(&program);
        command.args(["ctl", "ledger", "--socket"]);
        command
            .arg(daemon.socket("control"))
            .uid(NOBODY)
            .gid(NOBODY);
        let said = command.output().unwrap();
        assert!(!said.status.success());
        String::from_utf8(said.stderr).unwrap()
    };
    let said = ask();
    assert!(said.contains("Permission denied"), "{said}");
    mode(&daemon.socket("control"), 0o666);
    let said = ask();
    assert!(
        said.contains("EPERM") && said.contains("only root"),
        "{said}"
    );
    assert_eq!(daemon.ledger().outstanding, 0, "its owner is answered");
}
