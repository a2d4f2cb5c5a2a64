use std::{fs, os::unix::fs::PermissionsExt};

use proptest::prelude::*;

use palisade_units::{Bdf, PASID_COUNT};
use uuid::Uuid;

use super::{
    codec::{Unreadable, decode, encode},
    store::{DRAFT, FILE, LOCK},
    *,
};
use crate::config::SOCKET_PATH_MAX_BYTES;

fn some() -> RunTime {
    RunTime {
        quotas: BTreeMap::from([("alice".to_owned(), 12)]),
        groups: BTreeMap::from([
            ("web".to_owned(), None),
            ("batch".to_owned(), Some("web".to_owned())),
        ]),
        limits: BTreeMap::from([("web".to_owned(), Some(7)), ("all".to_owned(), None)]),
        reserved: BTreeSet::from([(5, 9), (10, 10)]),
        mdevs: BTreeMap::from([(Uuid::from_u128(7).to_string(), mdev("/run/7.sock", 0x12))]),
    }
}

fn mdev(socket: &str, device: u8) -> KeptMdev {
    KeptMdev {
        parent: "dsa0".to_owned(),
        kind: FunctionKind::SharedQueue,
        tenant: "alice".to_owned(),
        socket: socket.to_owned(),
        guest_bdf: Bdf::new(0, device, 0).to_string(),
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_-]{1,8}"
}

prop_compose! {
    fn state()(
        is_below_configured in any::<bool>(),
        quotas in prop::collection::btree_map(name(), 0_u32..1 << 20, 0..4),
        below in prop::collection::btree_set(name(), 0..4),
        limits in prop::collection::btree_map(name(), prop::option::of(0_u32..1 << 20), 0..4),
        lens in prop::collection::vec((1_u32..9, 0_u32..9), 0..4),
        mdevs in prop::collection::btree_map(any::<u128>(), ("/[ -~]{0,20}", 0_u8..32), 0..4),
    ) -> RunTime {
        // Longer than the names here, so that it is none of them: a group of the configuration.
        let mut parent = is_below_configured.then(|| "elsewhere".to_owned());
        let groups = below.into_iter().map(|name| (name.clone(), parent.replace(name))).collect();
        let mut at = 0;
        let reserved = lens.into_iter().map(|(gap, len)| {
            let min = at + gap;
            at = min + len;
            (min, at)
        }).collect();
        let mdevs = mdevs.into_iter().map(|(uuid, (socket, device))| {
            (Uuid::from_u128(uuid).to_string(), mdev(&socket, device))
        }).collect();
        RunTime { quotas, groups, limits, reserved, mdevs }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(state in state()) {
        prop_assert_eq!(decode(&encode(&state).unwrap()), Ok(state));
    }

    #[test]
    fn every_truncation_is_refused(state in state()) {
        let bytes = encode(&state).unwrap();
        for len in 0..bytes.len() {
            let error = decode(&bytes[..len]).unwrap_err();
            let torn = matches!(error, Unreadable::Cut | Unreadable::Torn { .. });
            prop_assert!(torn, "{} bytes of {}", len, bytes.len());
        }
    }

    #[test]
    fn every_change_of_a_byte_is_refused(state in state(), change in 1_u8..) {
        let mut bytes = encode(&state).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= change;
            prop_assert!(decode(&bytes).is_err(), "byte {}", at);
            bytes[at] ^= change;
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), headed in any::<bool>()) {
        let mut bytes = bytes;
        if headed {
            bytes.splice(0..0, *b"palisade-state 2 ");
        }
        prop_assert!(decode(&bytes).is_err());
    }
}

#[test]
fn every_flip_of_a_bit_and_every_other_byte_is_refused() {
    let mut bytes = encode(&some()).unwrap();
    for at in 0..bytes.len() {
        for change in 1..=u8::MAX {
            bytes[at] ^= change;
            assert!(decode(&bytes).is_err(), "byte {at} ^ {change:#x}");
            bytes[at] ^= change;
        }
    }
    bytes.push(b'\n');
    assert!(matches!(decode(&bytes), Err(Unreadable::Torn { .. })));
}

#[test]
fn a_foreign_and_a_newer_file_are_told_from_a_torn_one() {
    assert_eq!(decode(b"[[tenant]]\n"), Err(Unreadable::Foreign));
    let newer = String::from_utf8(encode(&some()).unwrap()).unwrap();
    let newer = newer.replacen("palisade-state 2 ", "palisade-state 3 ", 1);
    let error = decode(newer.as_bytes()).unwrap_err();
    assert_eq!(error, Unreadable::Version("3".to_owned()));
    assert!(
        error
            .to_string()
            .contains("start the palisade that wrote it")
    );
}

/// As palisade wrote it before functions could be made at run time.
const VERSION_1: &str = "palisade-state 1 117 5023b562\n\
    {\"quotas\":{\"alice\":12},\"groups\":{\"batch\":\"web\",\"web\":null},\
    \"limits\":{\"all\":null,\"web\":7},\"reserved\":[[5,9],[10,10]]}\n";

#[test]
fn r68_a_state_of_version_1_is_read_and_replaced_by_one_of_version_2() {
    let read = decode(VERSION_1.as_bytes()).unwrap();
    let without_functions = RunTime {
        mdevs: BTreeMap::new(),
        ..some()
    };
    assert_eq!(read, without_functions);
    assert!(encode(&read).unwrap().starts_with(b"palisade-state 2 "));
    let torn = decode(&VERSION_1.as_bytes()[..100]).unwrap_err();
    assert!(matches!(torn, Unreadable::Torn { .. }), "{torn}");
    let changed = VERSION_1.replacen("12", "13", 1);
    assert!(decode(changed.as_bytes()).is_err());
}

#[test]
fn the_largest_state_can_be_read_back() {
    let worst = "\u{1}".repeat(SOCKET_PATH_MAX_BYTES - 1);
    let name = "n".repeat(64);
    let mut state = RunTime::default();
    for n in 0..KEPT_MAX {
        let name = format!("{n:064}");
        state.quotas.insert(name.clone(), PASID_COUNT - 1);
        state.groups.insert(name.clone(), Some(format!("x{n:063}")));
        state.limits.insert(name, Some(PASID_COUNT - 1));
    }
    for n in 0..MDEVS_MAX {
        let mut kept = mdev(&format!("/{worst}"), 0x1f);
        (kept.parent, kept.tenant) = (name.clone(), name.clone());
        let uuid = Uuid::from_u128(u128::try_from(n).unwrap());
        state.mdevs.insert(uuid.to_string(), kept);
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, none) = Store::open(folder.path()).unwrap();
    store.write(&state, &none).unwrap();
    drop(store);
    assert!(Store::open(folder.path()).unwrap().1 == state);
}

/// With a checksum that fits, as someone would write it who edits by hand.
#[test]
fn a_state_that_no_daemon_would_keep_is_refused() {
    type Spoil = fn(&mut RunTime);
    let spoils: [(&str, Spoil); 11] = [
        ("is no name", |s| {
            s.quotas.insert("a b".to_owned(), 1);
        }),
        ("more than there are", |s| {
            s.limits.insert("web".to_owned(), Some(1 << 20));
        }),
        ("below itself", |s| {
            s.groups.insert("web".to_owned(), Some("batch".to_owned()));
        }),
        ("overlaps", |s| {
            s.reserved.insert((7, 12));
        }),
        ("is no range", |s| {
            s.reserved.insert((0, 3));
        }),
        ("is none that was made", |s| {
            s.mdevs.insert("7".to_owned(), mdev("/run/a.sock", 0x12));
        }),
        ("is none that was made", |s| {
            let upper = "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6".to_owned();
            s.mdevs.insert(upper, mdev("/run/a.sock", 0x12));
        }),
        ("is none that was made", |s| {
            let uuid = Uuid::from_u128(8).to_string();
            s.mdevs.insert(uuid, mdev("run/a.sock", 0x12));
        }),
        ("is none that was made", |s| {
            let mut other = mdev("/run/a.sock", 0x12);
            other.guest_bdf = "01:12.0".to_owned();
            s.mdevs.insert(Uuid::from_u128(8).to_string(), other);
        }),
        ("256 functions", |s| {
            let many = (0..300).map(|n| (Uuid::from_u128(n).to_string(), mdev("/a", 1)));
            s.mdevs.extend(many);
        }),
        ("4096 changes", |s| {
            s.quotas.extend((0..5000).map(|n| (format!("t{n}"), 1)));
        }),
    ];
    for (what, spoil) in spoils {
        let mut state = some();
        spoil(&mut state);
        let error = decode(&encode(&state).unwrap()).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_new_folder_has_nothing_and_keeps_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (store, found) = Store::open(folder.path()).unwrap();
    assert_eq!(found, RunTime::default());
    store.write(&some(), &found).unwrap();
    let mode = |name| {
        let about = fs::metadata(folder.path().join(name)).unwrap();
        about.permissions().mode() & 0o777
    };
    assert_eq!((mode(FILE), mode(LOCK)), (0o600, 0o600));
    assert!(!folder.path().join(DRAFT).exists());
    drop(store);
    assert_eq!(Store::open(folder.path()).unwrap().1, some());
}

#[test]
fn a_folder_has_one_daemon_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StateError::InUse { .. }), "{error}");
    drop(first);
    assert!(Store::open(folder.path()).is_ok());
}

#[test]
fn what_a_crash_left_of_a_write_is_cleaned_away() {
    let folder = tempfile::tempdir().unwrap();
    let (store, none) = Store::open(folder.path()).unwrap();
    store.write(&some(), &none).unwrap();
    drop(store);
    fs::write(folder.path().join(DRAFT), "palisade-sta").unwrap();
    let (store, found) = Store::open(folder.path()).unwrap();
    assert_eq!(found, some());
    assert!(!folder.path().join(DRAFT).exists());
    store.write(&none, &found).unwrap();
}

#[test]
fn a_write_that_fails_leaves_the_state_before() {
    let folder = tempfile::tempdir().unwrap();
    let (store, none) = Store::open(folder.path()).unwrap();
    store.write(&some(), &none).unwrap();
    fs::create_dir(folder.path().join(DRAFT)).unwrap();
    let error = store.write(&none, &some()).unwrap_err();
    assert!(error.to_string().contains(FILE), "{error}");
    assert!(error.errno().is_some());
    fs::remove_dir(folder.path().join(DRAFT)).unwrap();
    drop(store);
    assert_eq!(Store::open(folder.path()).unwrap().1, some());
}

/// The last step of a write. What a loss of power would leave then cannot be known, but whoever looks finds the state
/// before, and so does the next daemon.
#[test]
fn a_folder_that_does_not_reach_the_disk_has_the_state_before() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, none) = Store::open(folder.path()).unwrap();
    let sync_folder = store.sync_folder;
    for before in [&none, &some()] {
        store.sync_folder = sync_folder;
        store.write(before, &none).unwrap();
        store.sync_folder = |_| Err(rustix::io::Errno::IO);
        let mut next = some();
        next.quotas.insert("bob".to_owned(), 1);
        let error = store.write(&next, before).unwrap_err();
        assert_eq!(error.errno(), Some(rustix::io::Errno::IO));
        assert!(!folder.path().join(DRAFT).exists());
        drop(store);
        let found;
        (store, found) = Store::open(folder.path()).unwrap();
        assert_eq!(&found, before);
    }
}

#[test]
fn a_state_that_others_may_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, none) = Store::open(folder.path()).unwrap();
    store.write(&some(), &none).unwrap();
    drop(store);
    let mode = |mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(folder.path().join(FILE), mode).unwrap();
    };
    mode(0o620);
    let error = Store::open(folder.path()).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("chmod go-w"), "{why}");
    // A copy that others may read is as good.
    mode(0o644);
    assert_eq!(Store::open(folder.path()).unwrap().1, some());
}

/// Only root can give something away to try that.
#[test]
fn a_folder_or_a_state_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, none) = Store::open(folder.path()).unwrap();
    store.write(&some(), &none).unwrap();
    drop(store);
    let file = folder.path().join(FILE);
    let owner = |path: &Path, id| std::os::unix::fs::chown(path, Some(id), None).unwrap();
    owner(&file, 65534);
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StateError::Read { .. }), "{error}");
    owner(&file, 0);
    owner(folder.path(), 65534);
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StateError::Foreign { .. }), "{error}");
    owner(folder.path(), 0);
    assert_eq!(Store::open(folder.path()).unwrap().1, some());
}

#[test]
fn what_is_no_file_of_this_daemon_is_refused_by_name_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    let refused = |word: &str| {
        let error = Store::open(folder.path()).unwrap_err();
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text = format!("{text}: {source}");
        }
        assert!(text.contains(&file.display().to_string()), "{text}");
        assert!(text.contains(word), "{text}");
    };
    let whole = encode(&some()).unwrap();
    for (bytes, word) in [
        (&whole[..whole.len() - 1], "torn"),
        (b"", "torn"),
        (b"mine\n", "no state of palisade"),
        (b"palisade-state 9 1 00000000\n\n", "version 9"),
    ] {
        fs::write(&file, bytes).unwrap();
        refused(word);
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    fs::remove_file(&file).unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, &whole).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
    refused("symbolic link");
    fs::remove_file(&file).unwrap();
    let pipe = FileType::Fifo;
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &file, pipe, mode, 0).unwrap();
    refused("regular file");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    refused("regular file");
}

use rustix::fs::{FileType, Mode};

#[test]
fn a_folder_that_cannot_be_used_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none");
    let error = Store::open(&missing).unwrap_err().to_string();
    assert!(
        error.contains("none") && error.contains("make it"),
        "{error}"
    );
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert!(matches!(Store::open(&file), Err(StateError::Folder { .. })));
    // Not even root makes files there.
    assert!(matches!(
        Store::open(Path::new("/proc/self/fdinfo")),
        Err(StateError::Folder { .. })
    ));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        Store::open(folder.path()),
        Err(StateError::Open { .. })
    ));
}
