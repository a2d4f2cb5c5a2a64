//! What a user meets before anything runs.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, process::Command};

fn palisade() -> Command {
    Command::new(env!("CARGO_BIN_EXE_palisade"))
}

/// What a command that has to fail says on standard error.
fn complaint(command: &mut Command) -> String {
    let said = command.output().unwrap();
    assert!(!said.status.success());
    String::from_utf8(said.stderr).unwrap()
}

#[test]
fn a_bad_configuration_is_refused_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    fs::write(
        &file,
        "[[parent]]\nname = \"dsa0\"\nbdf = \"6a:01.0\"\nqueues = 99\n",
    )
    .unwrap();
    let said = complaint(palisade().arg("serve").arg("--config").arg(&file));
    assert!(
        said.contains(&format!(
            "{}:4: queues = 99: 1 to 8 is allowed",
            file.display()
        )),
        "{said}"
    );
}

#[test]
fn a_machine_without_qemu_is_told_what_to_install() {
    let said = complaint(palisade().args([
        "vm",
        "--kernel",
        "/dev/null",
        "--initrd",
        "/dev/null",
        "--qemu",
        "/nowhere/qemu",
    ]));
    assert!(said.contains("10.1") && said.contains("--qemu"), "{said}");
}

#[test]
fn a_kernel_that_is_not_there_is_named() {
    let said = complaint(palisade().args([
        "vm",
        "--kernel",
        "/nowhere/bzImage",
        "--initrd",
        "/dev/null",
    ]));
    assert!(
        said.contains("/nowhere/bzImage: the kernel cannot be read"),
        "{said}"
    );
}

#[test]
fn a_question_without_a_host_is_told_so() {
    let said = complaint(palisade().args(["ctl", "ledger", "--socket", "/nowhere/control.sock"]));
    assert!(said.contains("no host answers"), "{said}");
}

#[test]
fn each_cause_is_said_once() {
    let said = complaint(palisade().args(["serve", "--config", "/nowhere/host.toml"]));
    assert_eq!(said.matches("No such file").count(), 1, "{said}");
    assert!(
        said.contains("/nowhere/host.toml: cannot be read: "),
        "{said}"
    );
}

#[test]
fn dmar_writes_a_table_whose_sum_is_zero() {
    let folder = tempfile::tempdir().unwrap();
    let write = |format: &str| {
        let file = folder.path().join(format);
        let status = palisade()
            .args([
                "dmar",
                "--base",
                "0xfebf1000",
                "--function",
                "00:11.0",
                "--format",
                format,
            ])
            .arg("--output")
            .arg(&file)
            .status()
            .unwrap();
        assert!(status.success());
        fs::read(file).unwrap()
    };
    let table = write("table");
    assert_eq!(&table[..4], b"DMAR");
    assert_eq!(
        table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
        0
    );
    assert_eq!(write("body"), table[36..]);
}

#[test]
fn dmar_refuses_an_address_that_is_none() {
    let said = complaint(palisade().args([
        "dmar",
        "--base",
        "febf1000",
        "--function",
        "00:11.0",
        "--output",
        "dmar.bin",
    ]));
    assert!(said.contains("0xfebf1000"), "{said}");
}
