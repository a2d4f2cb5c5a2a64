//! What a peer gets that makes a mess of a migration.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{io::Write, os::unix::net::UnixStream, sync::Arc};

use common::{
    Server, Toy,
    raw::{ask, message, negotiated_with, reply, version},
};
use palisade_vfio_user::{
    End, Errno,
    wire::{Capabilities, Command},
};
use proptest::prelude::*;

/// The payload of DEVICE_FEATURE, or of what has the same start.
fn feature(argsz: u32, flags: u32, data: &[u32]) -> Vec<u8> {
    [&[argsz, flags], data]
        .concat()
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

const GET: u32 = 1 << 16;
const SET: u32 = 1 << 17;
const PROBE: u32 = 1 << 18;

#[test]
fn r25_a_request_for_a_feature_that_makes_no_sense_is_refused() {
    let (server, mut stream) = negotiated_with(Toy::movable());
    let mut asked = |argsz, flags, data: &[u32]| {
        ask(
            &mut stream,
            Command::DeviceFeature,
            &feature(argsz, flags, data),
        )
    };
    // Features that there are not, before all that is wrong beside.
    for index in [0, 3, 4, 5, 9, 10, 0xffff] {
        for methods in [GET, SET, PROBE] {
            assert_eq!(asked(64, methods | index, &[]), Err(Errno::NOTTY));
        }
    }
    for flags in [1, GET | SET | 2, 1 << 19 | 1, GET | 1 << 31 | 1] {
        assert_eq!(asked(64, flags, &[]), Err(Errno::INVAL));
    }
    for flags in [SET | 1, GET | 6, GET | 7, SET | 8, PROBE | SET | 8] {
        assert_eq!(asked(64, flags, &[0; 6]), Err(Errno::INVAL));
    }
    // The reply must fit.
    assert_eq!(asked(7, PROBE | 1, &[]), Err(Errno::INVAL));
    assert_eq!(asked(8, PROBE | 1, &[]), Ok(()));
    assert_eq!(asked(8, PROBE | 1, &[0]), Err(Errno::INVAL));
    assert_eq!(asked(15, GET | 1, &[]), Err(Errno::INVAL));
    assert_eq!(asked(16, GET | 1, &[]), Ok(()));
    assert_eq!(asked(15, GET | 2, &[]), Err(Errno::INVAL));
    assert_eq!(asked(15, SET | 2, &[1, 0]), Err(Errno::INVAL));
    // The data must be there, and be a state that there is.
    assert_eq!(asked(64, SET | 2, &[1]), Err(Errno::INVAL));
    for state in [0, 5, 6, 7, 8, u32::MAX] {
        assert_eq!(asked(64, SET | 2, &[state, 0]), Err(Errno::INVAL));
    }
    assert_eq!(server.toy.moves().told(), [""; 0], "nothing came of it");
    assert_eq!(asked(64, SET | 2, &[1, u32::MAX]), Ok(()));
    assert_eq!(server.toy.moves().told(), ["stop"]);

    // As many ranges as it says, and no more than there may be.
    assert_eq!(asked(64, SET | 6, &[]), Err(Errno::INVAL));
    assert_eq!(asked(64, SET | 6, &[4096, 0, 1, 0]), Err(Errno::INVAL));
    assert_eq!(asked(64, SET | 6, &[4096, 0, 0, 0, 0]), Err(Errno::INVAL));
    assert_eq!(
        asked(64, SET | 6, &[4096, 0, u32::MAX, 0]),
        Err(Errno::TOOBIG)
    );
    assert_eq!(asked(64, SET | 6, &[4096, 0, 0, 0]), Ok(()));
    // A bitmap that does not fit into a message, or into what the peer has room for.
    let report = |len: u64| {
        let [low, high] = [len as u32, (len >> 32) as u32];
        [0, 0, low, high, 4096, 0]
    };
    assert_eq!(asked(8 + 24 + 7, GET | 8, &report(4096)), Err(Errno::INVAL));
    assert_eq!(asked(8 + 24 + 8, GET | 8, &report(4096)), Ok(()));
    let most = (64 << 10) * 8 * 4096;
    assert_eq!(asked(u32::MAX, GET | 8, &report(most)), Ok(()));
    for len in [most + 4096, 1 << 36, u64::MAX << 12] {
        assert_eq!(asked(u32::MAX, GET | 8, &report(len)), Err(Errno::TOOBIG));
    }
    assert_eq!(asked(64, GET | 8, &[0; 5]), Err(Errno::INVAL));
}

#[test]
fn r25_a_transfer_of_state_that_makes_no_sense_is_refused() {
    let (_server, mut stream) = negotiated_with(Toy::movable());
    let set = |stream: &mut UnixStream, state| {
        let payload = feature(16, SET | 2, &[state, 0]);
        ask(stream, Command::DeviceFeature, &payload)
    };
    let mut moved = |command, argsz, size, data: &[u32]| {
        let state = if command == Command::MigrationDataRead {
            3
        } else {
            4
        };
        assert_eq!(set(&mut stream, 2), Ok(()));
        assert_eq!(set(&mut stream, state), Ok(()));
        let outcome = ask(&mut stream, command, &feature(argsz, size, data));
        assert_eq!(ask(&mut stream, Command::DeviceReset, &[]), Ok(()));
        outcome
    };
    let read = Command::MigrationDataRead;
    assert_eq!(moved(read, 72, 64, &[]), Ok(()));
    assert_eq!(moved(read, 71, 64, &[]), Err(Errno::INVAL));
    assert_eq!(moved(read, u32::MAX, 64 << 10, &[]), Ok(()));
    for size in [(64 << 10) + 1, u32::MAX - 7, u32::MAX] {
        assert_eq!(moved(read, u32::MAX, size, &[]), Err(Errno::INVAL));
    }
    let write = Command::MigrationDataWrite;
    assert_eq!(moved(write, 16, 8, &[1, 2]), Ok(()));
    assert_eq!(moved(write, 8, 0, &[]), Ok(()));
    assert_eq!(moved(write, 15, 8, &[1, 2]), Err(Errno::INVAL));
    for size in [0, 7, 9, u32::MAX] {
        assert_eq!(moved(write, u32::MAX, size, &[1, 2]), Err(Errno::INVAL));
    }
}

/// A peer says how much it takes in one piece.
#[test]
fn a_piece_of_state_is_no_longer_than_its_reader_takes() {
    let (_server, mut stream) = Server::serve(Toy::movable());
    let small = b"{\"capabilities\":{\"max_data_xfer_size\":64}}\0";
    stream.write_all(&version(0, small)).unwrap();
    let (_, payload) = reply(&mut stream);
    let said = Capabilities::parse(&payload[4..]).unwrap();
    assert_eq!(said.migration_page_bytes, None, "only what was proposed");
    let stop_copy = feature(16, SET | 2, &[3, 0]);
    assert_eq!(ask(&mut stream, Command::DeviceFeature, &stop_copy), Ok(()));
    let read = |size| feature(u32::MAX, size, &[]);
    assert_eq!(
        ask(&mut stream, Command::MigrationDataRead, &read(64)),
        Ok(())
    );
    assert_eq!(
        ask(&mut stream, Command::MigrationDataRead, &read(65)),
        Err(Errno::INVAL)
    );
}

/// Messages of a migration in any order, with what may or may not belong to them.
fn any_migration() -> impl Strategy<Value = Vec<u8>> {
    let index = prop_oneof![Just(2_u32), Just(2), Just(6), Just(7), Just(8), 0_u32..10];
    let methods = prop_oneof![Just(GET), Just(SET), Just(PROBE), any::<u32>()];
    let argsz = prop_oneof![Just(u32::MAX), Just(64), 0_u32..80];
    let word = prop_oneof![0_u32..6, Just(4096), any::<u32>()];
    let words = || proptest::collection::vec(word.clone(), 0..12);
    let about_feature =
        (index, methods, argsz, words()).prop_map(|(index, methods, argsz, words)| {
            message(
                Command::DeviceFeature,
                &feature(argsz, methods & !0xffff | index, &words),
            )
        });
    let commands = prop_oneof![
        Just(Command::MigrationDataRead),
        Just(Command::MigrationDataWrite)
    ];
    let data = (commands, 0_u32..60, words())
        .prop_map(|(command, size, words)| message(command, &feature(u32::MAX, size, &words)));
    let reset = Just(message(Command::DeviceReset, &[]));
    prop_oneof![6 => about_feature, 3 => data, 1 => reset]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a peer makes of a migration, the function is at work once it is gone, and nothing is logged.
    #[test]
    fn r33_r78_a_migration_in_any_order_neither_panics_nor_leaves_a_trace(
        messages in proptest::collection::vec(any_migration(), 0..40),
    ) {
        let (server, mut stream) = negotiated_with(Toy::movable());
        for message in &messages {
            stream.write_all(message).unwrap();
            let _ = reply(&mut stream);
        }
        let (toy, memory) = (Arc::clone(&server.toy), server.memory.clone());
        drop(stream);
        prop_assert!(matches!(server.end(), Ok(End::PeerClosed)));
        prop_assert!(!toy.moves().is_stopped());
        prop_assert!(memory.start_dirty_log().is_ok());
    }
}
