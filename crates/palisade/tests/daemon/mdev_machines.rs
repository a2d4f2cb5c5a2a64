//! What the launcher and the DMAR table have of functions made at run time.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::host::{CONFIG, Daemon, palisade};

/// The table that `palisade dmar` writes.
fn table(arguments: &[&str], daemon: &Daemon) -> Vec<u8> {
    let file = daemon.folder().join("dmar.bin");
    let mut command = palisade();
    command.args(["dmar", "--base", "0xfebf1000", "--format", "table"]);
    let status = command.args(arguments).arg("--output").arg(&file).status();
    assert!(status.unwrap().success());
    fs::read(file).unwrap()
}

#[test]
fn r68_the_table_of_a_tenant_has_the_functions_of_run_time() {
    let daemon = Daemon::start();
    let config = daemon.folder().join("host.toml").display().to_string();
    let of_alice = ["--config", &config, "--tenant", "alice"];
    let two = ["--function", "00:11.0", "--function", "00:12.0"];
    assert_eq!(table(&of_alice, &daemon), table(&two, &daemon));
    daemon.make("bob", "dsa0", "shared-queue", &[]);
    let made = daemon.make("alice", "dsa0", "shared-queue", &["--guest-bdf", "00:05.0"]);
    let three = [&two[..], &["--function", "00:05.0"]].concat();
    assert_eq!(table(&of_alice, &daemon), table(&three, &daemon));
    daemon.done(&["mdev", "remove", &made.uuid]);
    assert_eq!(table(&of_alice, &daemon), table(&two, &daemon));
}

/// A program that says of itself that it is QEMU, writes down how it was started, and ends.
fn pretended_qemu(folder: &Path) -> PathBuf {
    let program = folder.join("qemu");
    let script = "#!/bin/sh\ncase $1 in\n--version) echo QEMU emulator version 11.1.0;;\n\
        -device) ;;\n*) echo \"$@\" > \"$0.started\"; exit 1;;\nesac\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn r68_a_machine_has_the_functions_of_run_time() {
    let daemon = Daemon::start();
    let made = daemon.make("alice", "dsa0", "shared-queue", &["--guest-bdf", "00:05.0"]);
    let of_bob = daemon.make("bob", "dsa0", "shared-queue", &[]);
    let qemu = pretended_qemu(daemon.folder());
    let start = || {
        let mut command = palisade();
        command.args(["vm", "--kernel", "/dev/null", "--initrd", "/dev/null"]);
        command.args(["--tenant", "alice", "--qemu"]).arg(&qemu);
        command
            .arg("--config")
            .arg(daemon.folder().join("host.toml"));
        assert!(!command.status().unwrap().success());
        fs::read_to_string(daemon.folder().join("qemu.started")).unwrap()
    };
    let started = start();
    for name in ["alice-unit", "alice-0", "alice-1", &made.uuid] {
        let socket = daemon.socket(name).display().to_string();
        assert_eq!(started.matches(&socket).count(), 1, "{name}: {started}");
    }
    assert!(started.contains("\"addr\":\"5.0\""), "{started}");
    assert!(!started.contains(&of_bob.uuid), "{started}");
    daemon.done(&["mdev", "remove", &made.uuid]);
    assert!(!start().contains(&made.uuid));
}

#[test]
fn a_table_can_be_written_before_the_host_runs() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("host.toml");
    fs::write(&config, CONFIG).unwrap();
    let mut command = palisade();
    command.args([
        "dmar",
        "--base",
        "0xfebf1000",
        "--tenant",
        "alice",
        "--config",
    ]);
    command
        .arg(&config)
        .arg("--output")
        .arg(folder.path().join("dmar.bin"));
    let said = command.output().unwrap();
    assert!(said.status.success());
    let remark = String::from_utf8(said.stderr).unwrap();
    assert!(
        remark.contains("made at run time are not in the table"),
        "{remark}"
    );
}
