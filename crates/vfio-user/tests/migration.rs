//! A function that moves to another host.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    io::Write,
    sync::{Arc, atomic::Ordering},
};

use common::{
    STATE_BYTES, Server, Toy,
    raw::{message, negotiated_with, reply},
};
use palisade_memory::{Protection, SharedMemory};
use palisade_pci::Bar;
use palisade_units::Gpa;
use palisade_vfio_user::{
    Client, ClientError, End, Errno, Region,
    wire::{Command, DeviceState, Feature, Methods, MigrationFlags},
};

const BAR0: Region = Region::Bar(Bar::Bar0);
const BAR2: Region = Region::Bar(Bar::Bar2);

use DeviceState::{Error, Resuming, Running, Stop, StopCopy};

fn movable() -> (Server, Client) {
    let (server, stream) = Server::serve(Toy::movable());
    (server, Client::from_stream(stream).unwrap())
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Errno {
    result.unwrap_err().errno().unwrap()
}

fn count(client: &mut Client, value: u64) {
    client.region_write(BAR2, 0, &value.to_le_bytes()).unwrap();
}

#[test]
fn a_function_says_whether_it_can_migrate_and_how() {
    let (_server, mut client) = movable();
    assert_eq!(
        client.server().capabilities.migration_page_bytes,
        Some(4096)
    );
    let offered = client.migration_features().unwrap();
    assert_eq!(offered, MigrationFlags::STOP_COPY);
    assert_eq!(client.device_state().unwrap(), Running);
    for (feature, methods) in [
        (Feature::Migration, Methods::GET),
        (Feature::DeviceState, Methods::GET | Methods::SET),
        (Feature::DeviceState, Methods::empty()),
        (Feature::LoggingStart, Methods::SET),
        (Feature::LoggingStop, Methods::SET),
        (Feature::LoggingReport, Methods::GET),
    ] {
        client.probe_feature(feature, methods).unwrap();
    }
    for (feature, methods) in [
        (Feature::Migration, Methods::SET),
        (Feature::LoggingStart, Methods::GET | Methods::SET),
        (Feature::LoggingReport, Methods::SET),
    ] {
        let probed = client.probe_feature(feature, methods);
        assert_eq!(refused(probed), Errno::INVAL);
    }

    let (server, mut client) = Server::with_client();
    assert_eq!(client.server().capabilities.migration_page_bytes, None);
    assert_eq!(refused(client.migration_features()), Errno::NOTTY);
    assert_eq!(refused(client.device_state()), Errno::NOTTY);
    assert_eq!(refused(client.set_device_state(Stop)), Errno::NOTTY);
    assert_eq!(refused(client.read_state(0)), Errno::NOTSUP);
    assert_eq!(refused(client.write_state(&[1])), Errno::NOTSUP);
    let probed = client.probe_feature(Feature::Migration, Methods::GET);
    assert_eq!(refused(probed), Errno::NOTTY);
    client.reset().unwrap();
    assert_eq!(server.toy.resets.load(Ordering::Relaxed), 1);
}

/// The bytes as the tables of the specification have them, on a little-endian host.
#[test]
fn messages_are_laid_out_as_the_specification_says() {
    let (server, mut stream) = negotiated_with(Toy::movable());
    let ram = SharedMemory::create("ram", 0x4000).unwrap();
    server
        .memory
        .map(Gpa::new(0), 0x4000, ram.backing(), Protection::ReadWrite)
        .unwrap();
    let mut answer = |command, words: &[u32]| {
        let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        stream.write_all(&message(command, &payload)).unwrap();
        let (outcome, payload) = reply(&mut stream);
        assert_eq!(outcome, Ok(()));
        let words = payload.chunks_exact(4);
        words
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect::<Vec<u32>>()
    };
    let feature = Command::DeviceFeature;
    // argsz, flags; flags of 64 bits.
    assert_eq!(answer(feature, &[100, 0x1_0001]), [16, 0x1_0001, 1, 0]);
    // argsz, flags; device_state, data_fd.
    assert_eq!(answer(feature, &[16, 0x1_0002]), [16, 0x1_0002, 2, 0]);
    let stop_copy = [16, 0x2_0002, 3, 0];
    assert_eq!(answer(feature, &stop_copy), stop_copy);
    assert_eq!(answer(feature, &[16, 0x1_0002]), [16, 0x1_0002, 3, 0]);
    // argsz, size; the data.
    let piece = answer(Command::MigrationDataRead, &[12, 4]);
    assert_eq!(piece, [12, 4, 0]);
    let resuming = [16, 0x2_0002, 4, 0];
    assert_eq!(answer(feature, &resuming), resuming);
    assert_eq!(answer(Command::MigrationDataWrite, &[12, 4, 0]), [0; 0]);
    // argsz, flags; page_size, num_ranges, reserved; iova, length.
    let start = [40, 0x2_0006, 0x2000, 0, 1, 0, 0, 0, 0x2000, 0];
    let started = [40, 0x2_0006, 0x1000, 0, 1, 0, 0, 0, 0x2000, 0];
    assert_eq!(answer(feature, &start), started);
    server.memory.store_u64(Gpa::new(0x2000), 1).unwrap();
    // argsz, flags; iova, length, page_size; the bitmap.
    let report = [64, 0x1_0008, 0x1000, 0, 0x3000, 0, 0x1000, 0];
    let reported = [40, 0x1_0008, 0x1000, 0, 0x3000, 0, 0x1000, 0, 0b10, 0];
    assert_eq!(answer(feature, &report), reported);
    let stop = [8, 0x2_0007];
    assert_eq!(answer(feature, &stop), stop);
    let probe = [8, 0x7_0002];
    assert_eq!(answer(feature, &probe), probe);
}

/// A state, with what is needed for leaving it.
fn bring_to(client: &mut Client, state: DeviceState) {
    client.reset().unwrap();
    if state == Error {
        client.set_device_state(Resuming).unwrap();
        assert_eq!(refused(client.set_device_state(Stop)), Errno::INVAL);
        return;
    }
    client.set_device_state(state).unwrap();
    if state == Resuming {
        client.write_state(&[0; STATE_BYTES]).unwrap();
    }
}

#[test]
fn each_way_from_state_to_state_is_the_shortest_and_leads_by_stop() {
    let (server, mut client) = movable();
    let nothing: &[&str] = &[];
    let ways = [
        (Running, Running, nothing),
        (Running, Stop, &["stop"]),
        (Running, StopCopy, &["stop", "save"]),
        (Running, Resuming, &["stop", "reset", "stop"]),
        (Stop, Running, &["start"]),
        (Stop, Stop, nothing),
        (Stop, StopCopy, &["save"]),
        (Stop, Resuming, &["reset", "stop"]),
        (StopCopy, Running, &["start"]),
        (StopCopy, Stop, nothing),
        (StopCopy, StopCopy, nothing),
        (StopCopy, Resuming, &["reset", "stop"]),
        (Resuming, Running, &["restore", "start"]),
        (Resuming, Stop, &["restore"]),
        (Resuming, StopCopy, &["restore", "save"]),
        (Resuming, Resuming, nothing),
    ];
    for (from, to, steps) in ways {
        bring_to(&mut client, from);
        server.toy.moves().told();
        client.set_device_state(to).unwrap();
        assert_eq!(client.device_state().unwrap(), to);
        assert_eq!(server.toy.moves().told(), steps, "{from:?} to {to:?}");
        assert_eq!(server.toy.moves().is_stopped(), to != Running);
    }
    for from in DeviceState::ALL {
        bring_to(&mut client, from);
        server.toy.moves().told();
        assert_eq!(refused(client.set_device_state(Error)), Errno::INVAL);
        assert_eq!(client.device_state().unwrap(), from);
        assert_eq!(server.toy.moves().told(), nothing);
    }
    for to in [Running, Stop, StopCopy, Resuming] {
        assert_eq!(client.device_state().unwrap(), Resuming);
        bring_to(&mut client, Error);
        server.toy.moves().told();
        assert_eq!(refused(client.set_device_state(to)), Errno::INVAL);
        assert_eq!(client.device_state().unwrap(), Error);
        assert_eq!(server.toy.moves().told(), nothing);
        bring_to(&mut client, Resuming);
    }
}

#[test]
fn r74_a_state_moves_from_one_server_to_another() {
    let (source, mut from) = movable();
    let (target, mut to) = movable();
    from.region_write(BAR0, 0x100, b"registers").unwrap();
    count(&mut from, 5);
    from.set_device_state(Stop).unwrap();
    // Submitted to a stopped function: it waits, and is done where the function goes on.
    count(&mut from, 7);
    from.set_device_state(StopCopy).unwrap();
    let state = from.read_state(STATE_BYTES).unwrap();
    assert_eq!(state.len(), STATE_BYTES);
    assert!(from.read_state(0).unwrap().is_empty(), "nothing is left");

    // What was done on the other side before is no part of it.
    to.region_write(BAR0, 0x200, b"other").unwrap();
    to.set_device_state(Resuming).unwrap();
    let (head, tail) = state.split_at(70_001);
    to.write_state(head).unwrap();
    to.write_state(tail).unwrap();
    to.set_device_state(Stop).unwrap();
    assert_eq!(target.toy.written.load(Ordering::Relaxed), 5);
    to.set_device_state(Running).unwrap();
    assert_eq!(target.toy.written.load(Ordering::Relaxed), 12);
    assert_eq!(source.toy.written.load(Ordering::Relaxed), 5);
    let mut read = [0; 9];
    to.region_read(BAR0, 0x100, &mut read).unwrap();
    assert_eq!(&read, b"registers");
    to.region_read(BAR0, 0x200, &mut read).unwrap();
    assert_eq!(read, [0; 9]);
}

#[test]
fn a_migration_that_is_given_up_goes_on_at_the_source() {
    let (source, mut client) = movable();
    count(&mut client, 5);
    client.set_device_state(StopCopy).unwrap();
    count(&mut client, 7);
    let too_long = client.read_state(100_000);
    assert!(matches!(too_long, Err(ClientError::StateTooLong(100_000))));
    client.set_device_state(Running).unwrap();
    assert_eq!(source.toy.written.load(Ordering::Relaxed), 12);
    assert_eq!(source.toy.resets.load(Ordering::Relaxed), 0);
    // It starts anew with the whole state.
    client.set_device_state(StopCopy).unwrap();
    assert_eq!(client.read_state(STATE_BYTES).unwrap().len(), STATE_BYTES);
}

#[test]
fn data_goes_in_the_states_that_are_there_for_it() {
    let (_server, mut client) = movable();
    for state in DeviceState::ALL {
        bring_to(&mut client, state);
        if state != StopCopy {
            assert_eq!(refused(client.read_state(1)), Errno::INVAL, "{state:?}");
        }
        if state != Resuming {
            assert_eq!(refused(client.write_state(&[1])), Errno::INVAL, "{state:?}");
        }
    }
}

#[test]
fn a_failed_step_leaves_the_state_that_was_reached() {
    let (server, mut client) = movable();
    let fail = |what| *server.toy.moves().fails.lock().unwrap() = what;
    fail(Some(("save", Errno::BUSY)));
    assert_eq!(refused(client.set_device_state(StopCopy)), Errno::BUSY);
    assert_eq!(client.device_state().unwrap(), Stop);
    fail(Some(("start", Errno::NOMEM)));
    assert_eq!(refused(client.set_device_state(Running)), Errno::NOMEM);
    assert_eq!(client.device_state().unwrap(), Stop);
    fail(None);
    client.set_device_state(Running).unwrap();

    // A part of a state is none, and after it there is neither the old function nor the new one.
    client.set_device_state(Resuming).unwrap();
    client.write_state(&[0; 100]).unwrap();
    assert_eq!(refused(client.set_device_state(Running)), Errno::INVAL);
    assert_eq!(client.device_state().unwrap(), Error);
    assert!(server.toy.moves().is_stopped());
    fail(Some(("start", Errno::NOMEM)));
    assert_eq!(refused(client.reset()), Errno::NOMEM);
    assert_eq!(client.device_state().unwrap(), Error);
    fail(None);
    client.reset().unwrap();
    assert_eq!(client.device_state().unwrap(), Running);
    assert!(!server.toy.moves().is_stopped());
}

#[test]
fn r78_a_state_grows_no_longer_than_any_is() {
    let (_server, mut client) = movable();
    client.set_device_state(Resuming).unwrap();
    client.write_state(&[0; STATE_BYTES]).unwrap();
    assert_eq!(refused(client.write_state(&[0; 2])), Errno::NOSPC);
    // What was refused is no part of it.
    client.set_device_state(Running).unwrap();
}

#[test]
fn a_reset_ends_a_migration() {
    for state in DeviceState::ALL {
        let (server, mut client) = movable();
        bring_to(&mut client, state);
        count(&mut client, 3);
        client.reset().unwrap();
        assert_eq!(client.device_state().unwrap(), Running);
        assert!(!server.toy.moves().is_stopped());
        assert_eq!(server.toy.written.load(Ordering::Relaxed), 0);
        client.set_device_state(Stop).unwrap();
        client.set_device_state(Running).unwrap();
    }
}

#[test]
fn r33_a_peer_that_goes_in_the_middle_leaves_a_function_as_new() {
    for state in [Stop, StopCopy, Resuming, Error] {
        let (server, mut client) = movable();
        let toy = Arc::clone(&server.toy);
        bring_to(&mut client, state);
        client.region_write(BAR0, 0, &[1]).unwrap();
        count(&mut client, 3);
        toy.moves().told();
        drop(client);
        assert_eq!(server.end().unwrap(), End::PeerClosed);
        assert_eq!(toy.moves().told(), ["reset", "start"], "{state:?}");
        assert!(!toy.moves().is_stopped());
        assert_eq!(toy.bar0.lock().unwrap()[0], 0);
        assert_eq!(toy.written.load(Ordering::Relaxed), 0, "nothing is done");
        let (_server, stream) = Server::serve(toy);
        let mut next = Client::from_stream(stream).unwrap();
        assert_eq!(next.device_state().unwrap(), Running);
    }
    // Without a migration nothing is taken from it.
    let (server, mut client) = movable();
    let toy = Arc::clone(&server.toy);
    count(&mut client, 3);
    drop(client);
    server.end().unwrap();
    assert_eq!(toy.moves().told(), [""; 0]);
}
