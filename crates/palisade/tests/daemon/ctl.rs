//! `palisade ctl` and its socket where something is in the way.

use std::{os::unix::net::UnixStream, process::Stdio};

use crate::host::{CONFIG, Daemon, palisade};

#[test]
fn r78_clients_that_say_nothing_hold_no_question_up() {
    let daemon = Daemon::start();
    let silent = [(); 4].map(|()| UnixStream::connect(daemon.socket("control")).unwrap());
    assert_eq!(daemon.ledger().outstanding, 0);
    // Nothing was sent to them: they are still waited for.
    for stream in &silent {
        stream.set_nonblocking(true).unwrap();
        let error = std::io::Read::read(&mut &*stream, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let daemon = Daemon::start();
    for arguments in [
        &["ledger"][..],
        &["events", "--follow"],
        &["groups", "--json"],
    ] {
        let (nobody, output) = std::io::pipe().unwrap();
        drop(nobody);
        let mut command = palisade();
        command.arg("ctl").args(arguments);
        command.arg("--socket").arg(daemon.socket("control"));
        let said = command.stdout(output).stderr(Stdio::piped()).output();
        let said = said.unwrap();
        assert!(said.status.success(), "{arguments:?}");
        assert_eq!(String::from_utf8(said.stderr).unwrap(), "", "{arguments:?}");
    }
}

#[test]
fn a_host_that_has_ended_is_told_from_one_that_never_was() {
    let daemon = Daemon::start();
    let ask = |socket: &std::path::Path, arguments: &[&str]| {
        let mut command = palisade();
        command.args(["ctl", "ledger", "--socket"]);
        let said = command.arg(socket).args(arguments).output().unwrap();
        assert_eq!(said.status.code(), Some(1));
        assert!(said.stdout.is_empty());
        String::from_utf8(said.stderr).unwrap()
    };
    let said = ask(&daemon.socket("none"), &[]);
    assert!(
        said.contains("no such socket") && said.contains("--socket"),
        "{said}"
    );
    let socket = daemon.socket("control");
    let folder = daemon.kill();
    let said = ask(&socket, &[]);
    assert!(said.contains("has ended"), "{said}");
    let error: serde_json::Value = serde_json::from_str(&ask(&socket, &["--json"])).unwrap();
    assert_eq!(error["errno"], "ECONNREFUSED");
    assert!(error["error"].as_str().unwrap().contains("has ended"));
    drop(Daemon::start_in(folder, CONFIG));
}

#[test]
fn an_event_that_is_not_there_yet_is_told_of() {
    let daemon = Daemon::start();
    let said = daemon.ctl(&["events", "--since", "1000"]);
    assert!(said.status.success() && said.stdout.is_empty());
    let remark = String::from_utf8(said.stderr).unwrap();
    // A set for each tenant.
    assert!(
        remark.contains("the next event is only number 2"),
        "{remark}"
    );
}

#[test]
fn a_question_that_is_too_long_is_told_so() {
    let daemon = Daemon::start();
    let said = daemon.refused(&["quota", &"x".repeat(2000), "1"]);
    assert!(said.contains("at most 1024 bytes"), "{said}");
    let said = daemon.refused(&["quota", "alice", "-1"]);
    assert!(said.contains("a number or"), "{said}");
}
