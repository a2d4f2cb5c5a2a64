use std::path::Path;

use palisade_units::Bdf;

use palisade_vtd::CachingMode;

use super::{FunctionKind, HostConfig, ParentSharing, VirtualCommands};

pub(super) const GOOD: &str = r#"
control = "control.sock"

[[parent]]
name = "dsa0"
bdf = "6a:01.0"
queues = 8
engines = 2

[[parent]]
name = "dsa1"
bdf = "6f:01.0"
sharing = "exclusive"

[[tenant]]
name = "alice"
quota = 16
unit = { socket = "alice-unit.sock" }

[[tenant.function]]
parent = "dsa0"
type = "dedicated-queue"
socket = "alice-0.sock"

[[tenant]]
name = "bob"
unit = { socket = "bob-unit.sock", virtual_commands = "off" }

[[tenant.function]]
parent = "dsa0"
type = "shared-queue"
socket = "bob-0.sock"
guest_bdf = "00:12.0"

[[tenant.function]]
parent = "dsa1"
type = "exclusive"
socket = "bob-1.sock"
"#;

pub(super) fn parse(text: &str) -> Result<HostConfig, String> {
    HostConfig::parse(Path::new("/etc/palisade/host.toml"), text).map_err(|e| e.to_string())
}

/// The error of the good file with one line replaced.
fn error_of(line: &str, instead: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    parse(&GOOD.replacen(line, instead, 1)).unwrap_err()
}

#[test]
fn a_whole_host_is_read() {
    let host = parse(GOOD).unwrap();
    assert_eq!(host.parents[1].sharing, ParentSharing::Exclusive);
    let alice = host.tenant("alice").unwrap();
    assert_eq!(alice.quota, 16);
    assert_eq!(
        alice.iommu.socket(),
        Path::new("/etc/palisade/alice-unit.sock")
    );
    assert_eq!(alice.functions[0].guest_bdf, Bdf::new(0, 0x11, 0));
    let bob = host.tenant("bob").unwrap();
    assert_eq!(bob.quota, 1000, "R29: the default quota");
    assert_eq!(bob.functions[0].kind, FunctionKind::SharedQueue);
    assert_eq!(bob.functions[1].guest_bdf, Bdf::new(0, 0x11, 0));
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_known_ones() {
    let error = error_of("quota = 16", "qota = 16");
    assert!(error.starts_with("/etc/palisade/host.toml:17: "), "{error}");
    assert!(
        error.contains("`qota`") && error.contains("`quota`"),
        "{error}"
    );
}

#[test]
fn bad_values_are_refused_with_their_line_and_what_is_allowed() {
    for (line, instead, allowed) in [
        ("quota = 16", "quota = 0", "1 to 1048575"),
        ("bdf = \"6a:01.0\"", "bdf = \"6a:41.0\"", "device to 1f"),
        ("queues = 8", "queues = 9", "1 to 8"),
        ("engines = 2", "engines = -1", "1 to 4"),
        (
            "sharing = \"exclusive\"",
            "sharing = \"whole\"",
            "\"mediated\" or \"exclusive\"",
        ),
        ("\"00:12.0\"", "\"01:12.0\"", "root bus"),
        (
            "type = \"shared-queue\"",
            "type = \"slice\"",
            "\"dedicated-queue\"",
        ),
        (
            "virtual_commands = \"off\"",
            "virtual_commands = \"no\"",
            "\"older\"",
        ),
        (
            "virtual_commands = \"off\"",
            "virtual_commands = \"off\", caching_mode = \"no\"",
            "\"on\" or \"off\"",
        ),
        (
            "virtual_commands = \"off\"",
            "virtual_commands = \"current\", caching_mode = \"off\"",
            "in caching mode alone",
        ),
        ("name = \"bob\"", "name = \"b b\"", "letters"),
    ] {
        let error = error_of(line, instead);
        let at = GOOD.lines().position(|l| l.contains(line)).unwrap() + 1;
        assert!(
            error.starts_with(&format!("/etc/palisade/host.toml:{at}: ")),
            "{instead}: {error}"
        );
        assert!(error.contains(allowed), "{instead}: {error}");
    }
}

#[test]
fn without_caching_mode_there_are_no_virtual_commands() {
    let unit = |text: &str| {
        let text = GOOD.replace("virtual_commands = \"off\"", text);
        let config = HostConfig::parse(Path::new("/etc/palisade/host.toml"), &text).unwrap();
        let unit = config.tenant("bob").unwrap().iommu.unit().unwrap();
        (unit.caching_mode, unit.virtual_commands)
    };
    let off = (CachingMode::Off, VirtualCommands::Off);
    assert_eq!(unit("caching_mode = \"off\""), off);
    let told = "caching_mode = \"off\", virtual_commands = \"off\"";
    assert_eq!(unit(told), off);
    let on = (CachingMode::On, VirtualCommands::Current);
    assert_eq!(unit("caching_mode = \"on\""), on);
}

#[test]
fn what_two_would_share_by_mistake_is_refused() {
    for (line, instead, word) in [
        ("name = \"dsa1\"", "name = \"dsa0\"", "already there"),
        (
            "bdf = \"6f:01.0\"",
            "bdf = \"6a:01.0\"",
            "already parent \"dsa0\"",
        ),
        ("name = \"bob\"", "name = \"alice\"", "already there"),
        ("bob-0.sock", "alice-0.sock", "already taken"),
        (
            "guest_bdf = \"00:12.0\"",
            "guest_bdf = \"00:10.0\"",
            "already taken",
        ),
        ("quota = 16", "quota = 1048575", "only 0 PASIDs are left"),
        (
            "parent = \"dsa1\"",
            "parent = \"dsa2\"",
            "there is dsa0, dsa1",
        ),
        ("parent = \"dsa1\"", "parent = \"dsa0\"", "is mediated"),
    ] {
        let error = error_of(line, instead);
        assert!(error.contains(word), "{instead}: {error}");
    }
}

#[test]
fn r68_a_dedicated_queue_has_one_owner() {
    let text =
        GOOD.replacen("queues = 8", "queues = 1", 1)
            .replacen("shared-queue", "dedicated-queue", 1);
    let error = parse(&text).unwrap_err();
    assert!(
        error.contains("all 1 queues of parent \"dsa0\" are dedicated already"),
        "{error}"
    );
}

#[test]
fn r20_an_exclusive_parent_has_one_tenant() {
    let text = GOOD.replacen(
        "parent = \"dsa0\"\ntype = \"dedicated-queue\"",
        "parent = \"dsa1\"\ntype = \"exclusive\"",
        1,
    );
    assert!(
        parse(&text)
            .unwrap_err()
            .contains("already belongs to tenant \"alice\"")
    );
}

#[test]
fn r20_a_parent_is_one_tenants_or_cut_into_slices_in_either_order() {
    // Bob wants all of what alice has a slice of, and a slice of what is his alone.
    let error = error_of("parent = \"dsa1\"\ntype", "parent = \"dsa0\"\ntype");
    assert!(
        error.contains("is mediated") && error.contains("\"alice\", \"bob\""),
        "{error}"
    );
    let slice =
        "\n[[tenant.function]]\nparent = \"dsa1\"\ntype = \"shared-queue\"\nsocket = \"c.sock\"\n";
    for tenant in ["bob", "carol"] {
        let mut text = GOOD.to_owned();
        if tenant == "carol" {
            text += "\n[[tenant]]\nname = \"carol\"\nunit = { socket = \"carol-unit.sock\" }\n";
        }
        let error = parse(&(text + slice)).unwrap_err();
        assert!(
            error.contains("is exclusive") && error.contains("tenant \"bob\" has that"),
            "{error}"
        );
    }
}

#[test]
fn an_empty_file_says_what_is_missing() {
    assert!(parse("").unwrap_err().contains("[[parent]]"));
}

#[test]
fn the_example_of_the_documentation_is_read() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/host.toml");
    let host = HostConfig::load(&file).unwrap();
    assert_eq!(host.tenants.len(), 2);
}
