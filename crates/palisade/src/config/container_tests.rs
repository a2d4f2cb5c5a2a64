use std::path::Path;

use super::{
    ContainerConfig, GuestIommu, SocketPermissions,
    tests::{GOOD, parse},
};

const UNIT: &str = "unit = { socket = \"alice-unit.sock\" }";

fn with(iommu: &str) -> Result<GuestIommu, String> {
    assert!(GOOD.contains(UNIT));
    let host = parse(&GOOD.replacen(UNIT, iommu, 1))?;
    Ok(host.tenant("alice").unwrap().iommu.clone())
}

fn container(iommu: &str) -> ContainerConfig {
    match with(iommu).unwrap() {
        GuestIommu::Container(container) => container,
        GuestIommu::Unit(unit) => panic!("{unit:?}"),
    }
}

#[test]
fn a_container_is_private_unless_told_otherwise() {
    let read = container("container = { socket = \"alice-container.sock\" }");
    let socket = Path::new("/etc/palisade/alice-container.sock");
    assert_eq!(read.socket, socket);
    assert_eq!(read.uids, None);
    assert_eq!(read.permissions, SocketPermissions::PRIVATE);
}

#[test]
fn a_container_has_users_a_mode_and_an_owner() {
    let read = container(
        "container = { socket = \"a.sock\", uids = [0, 1000], mode = \"0660\", owner = 1000, group = 36 }",
    );
    assert_eq!(read.uids, Some(vec![0, 1000]));
    let permissions = SocketPermissions {
        mode: 0o660,
        owner: Some(1000),
        group: Some(36),
    };
    assert_eq!(read.permissions, permissions);
    let nobody = container("container = { socket = \"a.sock\", uids = [] }");
    assert_eq!(nobody.uids, Some(vec![]));
}

#[test]
fn a_tenant_has_a_unit_or_a_container() {
    let both = "unit = { socket = \"a.sock\" }\ncontainer = { socket = \"b.sock\" }";
    for (iommu, told) in [
        ("", "neither unit nor container"),
        (both, "unit and container"),
    ] {
        let error = with(iommu).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn what_makes_no_sense_of_a_container_is_refused_with_its_line() {
    for (more, told) in [
        ("mode = \"0700\"", "read and write bits"),
        ("mode = \"rw\"", "read and write bits"),
        ("uids = [-1]", "0 to 4294967294"),
        ("owner = 4294967295", "0 to 4294967294"),
        ("group = -3", "0 to 4294967294"),
    ] {
        let text = format!("container = {{ socket = \"a.sock\", {more} }}");
        let error = with(&text).unwrap_err();
        assert!(error.starts_with("/etc/palisade/host.toml:18: "), "{error}");
        assert!(error.contains(told), "{error}");
    }
    // Its place is not free for anything else.
    let error = with("container = { socket = \"alice-0.sock\" }").unwrap_err();
    assert!(error.contains("is already taken"), "{error}");
}
