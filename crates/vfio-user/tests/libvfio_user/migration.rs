//! Moving a function to another host.

use std::sync::Arc;

use palisade_memory::GuestMemory;
use palisade_vfio_user::{
    Errno,
    wire::{Command, MAX_DATA_BYTES},
};

use crate::{
    case::{Case, File, differs, none, same},
    common::{STATE_BYTES, Toy},
    peer::{Peer, longs, words, words_of},
};

const STATES: &str = "states_that_are_not_there_are_refused";
const ROOM: &str = "a_feature_wants_room_for_its_data";

const CASES: &[Case] = &[
    differs(
        "test_migration_shortest_state_transition_paths",
        "each state is reached from each by the shortest way, and no way leads through a state that saves; to and from ERROR and the states of peer-to-peer: EINVAL",
        "each_way_from_state_to_state_is_the_shortest_and_leads_by_stop",
        "without PRE_COPY, which is EINVAL too; ERROR can come, of a state that could not be restored",
    ),
    same(
        "test_migration_stop_copy_to_pre_copy_rejected",
        "from STOP_COPY to PRE_COPY: EINVAL",
        STATES,
    ),
    same(
        "test_migration_nonexistent_state",
        "state 0xabcd: EINVAL",
        STATES,
    ),
    same(
        "test_migration_failed_callback",
        "a device that fails at a change: the peer has the device's own error",
        "what_a_function_fails_at_is_told",
    ),
    same(
        "test_migration_get_state",
        "the state can be asked for: RUNNING",
        "the_state_can_be_asked_for",
    ),
    differs(
        "test_handle_mig_data_read",
        "data can be read in STOP_COPY and PRE_COPY, in other states: EINVAL",
        "data_is_read_where_it_is_saved",
        "in STOP_COPY alone",
    ),
    same(
        "test_handle_mig_data_read_too_long",
        "more is to be read than the peer takes at a time: EINVAL",
        "data_is_read_where_it_is_saved",
    ),
    none(
        "test_handle_mig_data_read_failed_callback",
        "a device that fails at a read: the peer has the device's own error",
        "the state is complete when STOP_COPY is reached: what can fail has failed then",
    ),
    same(
        "test_handle_mig_data_read_short_write",
        "a request that lacks its last byte: EINVAL",
        "data_is_read_where_it_is_saved",
    ),
    same(
        "test_handle_mig_data_write",
        "data can be written in RESUMING",
        "data_is_written_where_it_is_restored",
    ),
    same(
        "test_handle_mig_data_write_invalid_state",
        "data is written in RUNNING: EINVAL",
        "data_is_written_where_it_is_restored",
    ),
    differs(
        "test_handle_mig_data_write_too_long",
        "more is written than the peer itself takes at a time: EINVAL",
        "data_is_written_where_it_is_restored",
        "the limit of a write is the server's, as it says in VERSION: more than that is EINVAL",
    ),
    differs(
        "test_handle_mig_data_write_failed_callback",
        "a device that fails at a write: the peer has the device's own error",
        "what_a_function_fails_at_is_told",
        "the function sees the whole state when RESUMING is left, and its error comes then",
    ),
    same(
        "test_handle_mig_data_write_short_write",
        "a request without the data that it speaks of: EINVAL",
        "data_is_written_where_it_is_restored",
    ),
    differs(
        "test_device_feature_migration_get",
        "the states that there are: STOP_COPY and PRE_COPY",
        "the_states_that_there_are_can_be_asked_for",
        "STOP_COPY alone",
    ),
    same(
        "test_device_feature_short_write",
        "a request that lacks its last byte: EINVAL",
        ROOM,
    ),
    same(
        "test_device_feature_unsupported_operation",
        "SET of what can only be asked for: EINVAL",
        "a_probe_says_what_can_be_done",
    ),
    same(
        "test_device_feature_bad_argsz_probe",
        "a probe with an argsz of 2: EINVAL",
        ROOM,
    ),
    same(
        "test_device_feature_bad_argsz_get_migration",
        "no room for the states that there are: EINVAL",
        ROOM,
    ),
    same(
        "test_device_feature_bad_argsz_get_dma",
        "one byte too little room for a bitmap: EINVAL",
        ROOM,
    ),
    same(
        "test_device_feature_bad_argsz_set",
        "an argsz that leaves out the state that is to be set: EINVAL",
        ROOM,
    ),
    same(
        "test_device_feature_probe",
        "a probe is answered with itself; with methods of which one is not there: EINVAL",
        "a_probe_says_what_can_be_done",
    ),
];

pub(crate) const FILE: File = File {
    name: "test_migration.py",
    cases: CASES,
};

const GET: u32 = 0x1_0000;
const SET: u32 = 0x2_0000;
const PROBE: u32 = 0x4_0000;
const MIGRATION: u32 = 1;
const DEVICE_STATE: u32 = 2;
const REPORT: u32 = 8;

const STOP: u32 = 1;
const RUNNING: u32 = 2;
const STOP_COPY: u32 = 3;
const RESUMING: u32 = 4;
const PRE_COPY: u32 = 6;

const READ: Command = Command::MigrationDataRead;
const WRITE: Command = Command::MigrationDataWrite;

/// One that takes eight bytes at a time.
fn movable() -> (Arc<Toy>, Peer) {
    let text = b"{\"capabilities\":{\"max_data_xfer_size\":8}}\0";
    let toy = Toy::movable();
    let peer = Peer::saying(toy.clone(), Arc::new(GuestMemory::new()), text);
    (toy, peer)
}

fn feature(peer: &mut Peer, payload: &[u32]) -> Result<Vec<u32>, Errno> {
    let reply = peer.ask(Command::DeviceFeature, &words(payload))?;
    Ok(words_of(&reply))
}

fn go_to(peer: &mut Peer, state: u32) -> Result<(), Errno> {
    let request = [16, SET | DEVICE_STATE, state, 0];
    assert_eq!(feature(peer, &request)?, request);
    Ok(())
}

fn state(peer: &mut Peer) -> u32 {
    feature(peer, &[16, GET | DEVICE_STATE]).unwrap()[2]
}

#[test]
fn states_that_are_not_there_are_refused() {
    let (_toy, mut peer) = movable();
    for from in [STOP, RUNNING, STOP_COPY] {
        go_to(&mut peer, from).unwrap();
        for to in [0, 5, PRE_COPY, 7, 8, 0xabcd] {
            assert_eq!(go_to(&mut peer, to), Err(Errno::INVAL));
            assert_eq!(state(&mut peer), from);
        }
    }
}

#[test]
fn what_a_function_fails_at_is_told() {
    let (toy, mut peer) = movable();
    for (way, fails) in [
        (&[STOP, RUNNING][..], "start"),
        (&[STOP_COPY], "save"),
        (&[RESUMING, STOP], "restore"),
    ] {
        let errno = Errno::from_raw_os_error(0xbee);
        *toy.moves().fails.lock().unwrap() = Some((fails, errno));
        let (last, before) = way.split_last().unwrap();
        for state in before {
            go_to(&mut peer, *state).unwrap();
        }
        assert_eq!(go_to(&mut peer, *last), Err(errno), "{fails}");
        *toy.moves().fails.lock().unwrap() = None;
    }
}

#[test]
fn the_state_can_be_asked_for() {
    let (_toy, mut peer) = movable();
    let told = feature(&mut peer, &[16, GET | DEVICE_STATE]);
    assert_eq!(told, Ok(vec![16, GET | DEVICE_STATE, RUNNING, 0]));
}

#[test]
fn data_is_read_where_it_is_saved() {
    let (toy, mut peer) = movable();
    toy.bar0.lock().unwrap()[..4].copy_from_slice(&[0, 1, 2, 3]);
    for state in [STOP, RUNNING, RESUMING] {
        peer.ask(Command::DeviceReset, &[]).unwrap();
        go_to(&mut peer, state).unwrap();
        let refused = peer.ask(READ, &words(&[12, 4]));
        assert_eq!(refused, Err(Errno::INVAL));
    }
    peer.ask(Command::DeviceReset, &[]).unwrap();
    toy.bar0.lock().unwrap()[..4].copy_from_slice(&[0, 1, 2, 3]);
    go_to(&mut peer, STOP_COPY).unwrap();
    // More than the peer takes; less room than is asked for; a byte less than a request.
    let short = &words(&[12, 4])[..7];
    for payload in [&words(&[17, 9]), &words(&[11, 4]), short] {
        assert_eq!(peer.ask(READ, payload), Err(Errno::INVAL));
    }
    let read = peer.ask(READ, &words(&[12, 4])).unwrap();
    assert_eq!(read, [words(&[12, 4]), vec![0, 1, 2, 3]].concat());
}

#[test]
fn data_is_written_where_it_is_restored() {
    let (_toy, mut peer) = movable();
    let piece = |len: u32| [words(&[8 + len, len]), vec![1; len as usize]].concat();
    for state in [STOP, RUNNING, STOP_COPY] {
        go_to(&mut peer, state).unwrap();
        assert_eq!(peer.ask(WRITE, &piece(4)), Err(Errno::INVAL));
    }
    go_to(&mut peer, RESUMING).unwrap();
    assert_eq!(peer.ask(WRITE, &piece(4)), Ok(vec![]));
    assert_eq!(peer.ask(WRITE, &piece(9)), Ok(vec![]));
    // Without the data that it speaks of; less data than it speaks of.
    for len in [8, 11] {
        assert_eq!(peer.ask(WRITE, &piece(4)[..len]), Err(Errno::INVAL));
    }
    let longer = words(&[8 + MAX_DATA_BYTES + 1, MAX_DATA_BYTES + 1]);
    assert_eq!(peer.ask(WRITE, &longer), Err(Errno::INVAL));
    // These and the rest make a state as long as this function's are.
    for len in [65_536, 65_536, 65_536, STATE_BYTES as u32 - 3 * 65_536 - 13] {
        assert_eq!(peer.ask(WRITE, &piece(len)), Ok(vec![]));
    }
    go_to(&mut peer, STOP).unwrap();
}

#[test]
fn the_states_that_there_are_can_be_asked_for() {
    const FLAG_STOP_COPY: u32 = 1;
    let (_toy, mut peer) = movable();
    let told = feature(&mut peer, &[16, GET | MIGRATION]);
    assert_eq!(told, Ok(vec![16, GET | MIGRATION, FLAG_STOP_COPY, 0]));
}

#[test]
fn a_feature_wants_room_for_its_data() {
    let (_toy, mut peer) = movable();
    let short = &words(&[16, GET | MIGRATION])[..7];
    assert_eq!(peer.ask(Command::DeviceFeature, short), Err(Errno::INVAL));
    for payload in [
        &[2, PROBE | MIGRATION][..],
        &[8, GET | MIGRATION],
        &[8, SET | DEVICE_STATE, STOP, 0],
    ] {
        assert_eq!(feature(&mut peer, payload), Err(Errno::INVAL));
    }
    assert_eq!(state(&mut peer), RUNNING);
    const PAGE: u64 = 0x1000;
    let control = [longs(&[PAGE]), words(&[0, 0])].concat();
    let start = [words(&[24, SET | 6]), control].concat();
    peer.ask(Command::DeviceFeature, &start).unwrap();
    let range = longs(&[16 * PAGE, 32 * PAGE, PAGE]);
    for (argsz, outcome) in [(39, Err(Errno::INVAL)), (40, Ok(40))] {
        let report = [words(&[argsz, GET | REPORT]), range.clone()].concat();
        let told = peer.ask(Command::DeviceFeature, &report);
        assert_eq!(told.map(|it| it.len()), outcome);
    }
}

#[test]
fn a_probe_says_what_can_be_done() {
    let (_toy, mut peer) = movable();
    let probe = [8, PROBE | MIGRATION];
    assert_eq!(feature(&mut peer, &probe), Ok(probe.to_vec()));
    let both = [8, PROBE | SET | GET | MIGRATION];
    assert_eq!(feature(&mut peer, &both), Err(Errno::INVAL));
    let both = [8, PROBE | SET | GET | DEVICE_STATE];
    assert_eq!(feature(&mut peer, &both), Ok(both.to_vec()));
    let set = [16, SET | MIGRATION, 0, 0];
    assert_eq!(feature(&mut peer, &set), Err(Errno::INVAL));
}
