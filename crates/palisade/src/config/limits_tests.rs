//! Groups, reserved ranges and the folder of the state, as the configuration has them.

use std::path::Path;

use palisade_ioasid::{Limit, PasidRange};

use super::tests::{GOOD, parse};

/// The good file with more at the top level, and bob's tenant with one more line.
fn with(top: &str, of_bob: &str) -> String {
    let bob = format!("name = \"bob\"\n{of_bob}");
    format!("{top}{}", GOOD.replacen("name = \"bob\"\n", &bob, 1))
}

#[track_caller]
fn refused(top: &str, of_bob: &str, line: usize, what: &str) {
    let error = parse(&with(top, of_bob)).unwrap_err();
    let at = format!("/etc/palisade/host.toml:{line}: ");
    assert!(error.starts_with(&at), "{error}");
    assert!(error.contains(what), "{error}");
}

#[test]
fn r53_groups_are_read_also_where_a_parent_stands_behind_its_child() {
    let groups =
        "[[group]]\nname = \"batch\"\nmax = 10\nparent = \"all\"\n[[group]]\nname = \"all\"\n";
    let text = GOOD.replacen("[[parent]]", &format!("{groups}[[parent]]"), 1);
    let text = text.replacen("name = \"bob\"\n", "name = \"bob\"\ngroup = \"batch\"\n", 1);
    let host = parse(&text).unwrap();
    let named: Vec<_> = host
        .groups
        .iter()
        .map(|g| (g.name.as_str(), g.max, g.parent.as_deref()))
        .collect();
    let expected = [
        ("all", Limit::Unlimited, None),
        ("batch", Limit::Max(10), Some("all")),
    ];
    assert_eq!(named, expected);
    assert_eq!(host.tenant("bob").unwrap().group.as_deref(), Some("batch"));
    assert_eq!(host.tenant("alice").unwrap().group, None);
}

/// The good file with groups in front of its first parent; the first of them is in line 4.
fn error_of_groups(groups: &str) -> String {
    parse(&GOOD.replacen("[[parent]]", &format!("{groups}[[parent]]"), 1)).unwrap_err()
}

#[test]
fn r53_groups_that_make_no_tree_are_refused_with_their_line() {
    for (groups, line, what) in [
        (
            "[[group]]\nname = \"a\"\n[[group]]\nname = \"a\"\n",
            7,
            "already there",
        ),
        (
            "[[group]]\nname = \"a\"\nparent = \"a\"\n",
            6,
            "below itself",
        ),
        (
            "[[group]]\nname = \"a\"\nparent = \"b\"\n[[group]]\nname = \"b\"\nparent = \"a\"\n",
            9,
            "below itself",
        ),
        (
            "[[group]]\nname = \"a\"\n[[group]]\nname = \"b\"\nparent = \"c\"\n",
            8,
            "there is a, b",
        ),
        (
            "[[group]]\nname = \"a\"\nmax = 1048576\n",
            6,
            "0 to 1048575",
        ),
        ("[[group]]\nname = \"a/b\"\n", 5, "letters"),
        ("[[group]]\nname = \"a\"\nmin = 1\n", 6, "`min`"),
    ] {
        let error = error_of_groups(groups);
        let at = format!("/etc/palisade/host.toml:{line}: ");
        assert!(error.starts_with(&at) && error.contains(what), "{error}");
    }
}

#[test]
fn r53_groups_are_as_deep_as_the_authority_takes_them() {
    use std::fmt::Write as _;
    // Children first, which is the harder order.
    let groups = |depth: u32| {
        let mut text = String::new();
        for n in (2..=depth).rev() {
            write!(
                text,
                "[[group]]\nname = \"g{n}\"\nparent = \"g{}\"\n",
                n - 1
            )
            .unwrap();
        }
        text + "[[group]]\nname = \"g1\"\n"
    };
    let good = GOOD.replacen("[[parent]]", &format!("{}[[parent]]", groups(15)), 1);
    let host = parse(&good).unwrap();
    let authority = palisade_ioasid::Authority::new(&[]);
    let mut above = palisade_ioasid::GroupId::ROOT;
    for group in &host.groups {
        above = authority.create_group(above, group.max).unwrap();
    }
    assert!(authority.create_group(above, Limit::Unlimited).is_err());
    assert!(error_of_groups(&groups(16)).contains("\"g16\" is too deep"));
}

#[test]
fn r53_a_tenant_in_a_group_that_is_not_there_is_refused() {
    refused("", "group = \"web\"\n", 27, "add a [[group]]");
}

#[test]
fn r10_ranges_of_the_hosts_own_users_are_read() {
    let host = parse(&with("reserved = [[5, 9], [0x100, 0x1ff]]\n", "")).unwrap();
    let range = |min, max| PasidRange { min, max };
    assert_eq!(host.reserved, [range(5, 9), range(0x100, 0x1ff)]);
}

#[test]
fn r10_ranges_that_are_none_or_overlap_are_refused() {
    for ranges in [
        "[[0, 9]]",
        "[[9, 5]]",
        "[[5, 1048576]]",
        "[[-1, 5]]",
        "[[5]]",
        "[[1, 2, 3]]",
    ] {
        refused(
            &format!("reserved = {ranges}\n"),
            "",
            1,
            "1 <= MIN <= MAX <= 1048575",
        );
    }
    let two_lines = "reserved = [[5, 9],\n [9, 12]]\n";
    refused(two_lines, "", 2, "[9, 12] overlaps [5, 9]");
}

#[test]
fn r10_quotas_and_reserved_ranges_have_to_fit_together() {
    // Alice has 16, bob has 1000.
    let top = |max| format!("reserved = [[1, {max}]]\n");
    assert!(parse(&with(&top(1_048_575 - 1016), "")).is_ok());
    refused(
        &top(1_048_575 - 1015),
        "",
        27,
        "only 999 PASIDs are left beside the tenants before it and what is reserved",
    );
}

#[test]
fn the_folder_of_the_state_is_taken_from_the_folder_of_the_file() {
    let host = parse(&with("state = \"kept\"\n", "")).unwrap();
    assert_eq!(host.state.as_deref(), Some(Path::new("/etc/palisade/kept")));
    assert_eq!(parse(GOOD).unwrap().state, None);
    refused("state = \"\"\n", "", 1, "folder");
}
