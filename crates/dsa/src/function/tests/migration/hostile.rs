//! Bytes that no function wrote.

use palisade_pci::saved::{HEAD_BYTES, StateFormat};
use proptest::prelude::*;
use rustix::io::Errno;

use super::golden::at_work;
use super::*;
use crate::function::saved::FunctionState;
use crate::function::shape::Layout;
use crate::op::{Carry, SoFar};
use crate::spec::DeviceState;
use crate::task::Stage;

const FORMAT: StateFormat = StateFormat {
    magic: *b"palisdsa",
    version: 2,
    max_body_bytes: usize::MAX,
};

fn layout() -> Layout {
    Layout::new(Shape::default(), 8)
}

fn bytes() -> Vec<u8> {
    GOOD.with(Clone::clone)
}

thread_local! {
    static GOOD: Vec<u8> = at_work().stop_and_save();
}

fn refused(machine: &Machine, bytes: &[u8]) -> bool {
    let result = machine.migration().restore(bytes);
    let as_new = machine.migration().save().unwrap();
    if let Err(error) = &result {
        assert_eq!(error.errno(), Errno::INVAL);
        let new = FRESH.with(Clone::clone);
        assert!(as_new == new, "what was refused has changed something");
    }
    result.is_err()
}

thread_local! {
    static FRESH: Vec<u8> = Machine::new(0).stop_and_save();
}

fn stopped() -> Machine {
    let machine = Machine::new(300);
    machine.migration().stop();
    machine
}

#[test]
fn r74_every_truncation_is_refused() {
    let (machine, bytes) = (stopped(), bytes());
    assert!(!refused(&machine, &bytes));
    for len in (0..bytes.len()).filter(|len| *len < 256 || len % 37 == 0) {
        assert!(refused(&machine, &bytes[..len]), "{len} bytes");
    }
    assert!(refused(&machine, &[&bytes[..], &[0]].concat()));
}

#[test]
fn r74_every_flipped_bit_is_refused() {
    let (layout, mut bytes) = (layout(), bytes());
    // All bits of the head, one of each byte behind it: the checksum is the same for all.
    let rest = (HEAD_BYTES..bytes.len()).map(|at| at * 8 + at % 8);
    for at in (0..HEAD_BYTES * 8).chain(rest) {
        bytes[at / 8] ^= 1 << (at % 8);
        assert!(FunctionState::from_bytes(&bytes, &layout).is_err(), "{at}");
        bytes[at / 8] ^= 1 << (at % 8);
    }
}

#[test]
fn r74_a_state_of_another_version_or_kind_says_so() {
    let mut bytes = bytes();
    bytes[8] += 1;
    let error = stopped().migration().restore(&bytes).unwrap_err();
    assert!(error.to_string().contains("version 3"), "{error}");
    assert!(refused(&stopped(), b"{}"));
}

/// It would be active for ever: no work ends that could end it.
#[test]
fn r74_a_command_that_waits_for_nothing_is_done() {
    let layout = layout();
    for name in [None, Some(77)] {
        let mut state = FunctionState::from_bytes(&bytes(), &layout).unwrap();
        let running = state.running.as_mut().unwrap();
        running.queues = 0;
        let queue = running.uses[0].0;
        let name = name.map(|number| (queue, GuestPasid::new(number).unwrap()));
        running.uses = name.into_iter().collect();
        let machine = stopped();
        let taken = machine.migration().restore(&state.to_bytes(&layout));
        if taken.is_ok() {
            machine.migration().start().unwrap();
            assert!(!command_status(&machine.driver).active());
        }
    }
}

/// A byte of a state whose checksum was made to fit.
fn changed(bytes: &[u8], at: usize, with: u8) -> Vec<u8> {
    let mut body = bytes[HEAD_BYTES..].to_vec();
    let index = at % body.len();
    body[index] ^= with;
    FORMAT.with_head(&body)
}

/// Lets the driver and an engine live with what was restored. No PASID but those that the policy has named is used.
fn live(machine: &Machine) {
    let _ = machine.heard();
    machine.migration().start().unwrap();
    machine.run();
    machine.host.answer(PageResponse::Success);
    machine.run();
    machine.driver.submit(0, &copy(0));
    machine.run();
    machine
        .driver
        .write(register::CMD, Command::of(Command::DRAIN_ALL).into_bits());
    machine.run();
    let named: BTreeSet<_> = machine
        .heard()
        .into_iter()
        .filter_map(|heard| match heard {
            Heard::Resolved(number, _) => number,
            _ => None,
        })
        .collect();
    for fault in locked(&machine.host.unit.faults).drain(..) {
        let number = fault.pasid.unwrap().get();
        let stale = number == NOBODYS;
        assert!(stale || named.contains(&(number - machine.by)), "{number}");
    }
    machine.driver.function.reset();
    assert_eq!(machine.driver.read(register::GENSTS), 0);
}

#[test]
fn r74_every_byte_that_was_changed_with_care_is_refused_or_is_a_state() {
    let (layout, bytes) = (layout(), bytes());
    let mut accepted = 0;
    for at in 0..bytes.len() - HEAD_BYTES {
        for with in [0x01, 0x80] {
            let changed = changed(&bytes, at, with);
            if let Ok(state) = FunctionState::from_bytes(&changed, &layout) {
                assert!(state.to_bytes(&layout) == changed);
                accepted += 1;
            }
        }
    }
    assert!(accepted > 0, "addresses and data may be any");
}

#[test]
fn r74_what_no_driver_programmed_and_no_engine_came_to_is_refused() {
    let layout = layout();
    let state = FunctionState::from_bytes(&bytes(), &layout).unwrap();
    let machine = stopped();
    let refused = |spoil: fn(&mut FunctionState)| {
        let mut state = state.clone();
        spoil(&mut state);
        assert!(refused(&machine, &state.to_bytes(&layout)));
    };
    refused(|state| state.config[0] ^= 1);
    refused(|state| state.registers.device = 2);
    refused(|state| state.registers.device = DeviceState::Disabled as u8);
    refused(|state| state.registers.cause |= 1 << 20);
    refused(|state| state.registers.general_config = u32::MAX);
    refused(|state| state.registers.error[1] |= 1 << 17);
    refused(|state| state.registers.command_status = 0);
    refused(|state| state.running = None);
    refused(|state| state.running.as_mut().unwrap().queues = 1 << 9);
    refused(|state| state.running.as_mut().unwrap().uses[0].0 = 9);
    refused(|state| state.running.as_mut().unwrap().uses[0].0 = 2);
    refused(|state| {
        let uses = &mut state.running.as_mut().unwrap().uses;
        uses.push(uses[0]);
    });
    refused(|state| state.groups[0][12] = 1);
    refused(|state| state.groups[1][0] = 1);
    refused(|state| state.vectors[0][3] = 2);
    refused(|state| state.permissions[1] |= 1);
    refused(|state| state.queues[0].words[2] |= 1 << 3);
    refused(|state| state.queues[0].words[0] = 0);
    refused(|state| state.queues[1].words[1] = 17);
    refused(|state| state.queues[0].enabled = false);
    refused(|state| {
        state.queues.pop();
    });
    refused(|state| state.queues[5].work.fresh.push(copy(0)));
    refused(|state| {
        // A queue of 16, and what four engines have in hand.
        let full = vec![copy(0); 17 + 4 * 16];
        state.queues[0].work.fresh.extend(full);
    });
    refused(|state| {
        let batch = &mut state.queues[0].work.begun[0];
        batch.batch.as_mut().unwrap().taken = 3;
    });
    refused(|state| {
        let batch = &mut state.queues[0].work.begun[0];
        batch.batch.as_mut().unwrap().failed = 2;
    });
    refused(|state| state.queues[0].work.begun[0].work.stage = Stage::Fetching);
    refused(|state| {
        let done_bytes = 0x2001;
        let carry = Carry::Crc(0);
        state.queues[1].work.begun[0].work.stage = Stage::Running(SoFar { done_bytes, carry });
    });
    refused(|state| {
        let done_bytes = 0x1000;
        let carry = Carry::Nothing;
        state.queues[1].work.begun[0].work.stage = Stage::Running(SoFar { done_bytes, carry });
    });
    refused(|state| {
        let work = &mut state.queues[2].work.begun[0].work;
        work.stage = Stage::Recording(CompletionRecord::default());
        work.descriptor = Descriptor::no_op().with_record(u64::MAX);
    });
    refused(|state| state.queues[2].work.begun[0].work.descriptor.first = u64::MAX);
    refused(|state| state.pieces[0].1.present = 0);
    refused(|state| state.pieces[0].1.present = u64::MAX);
    refused(|state| state.pieces[0].1.slot = 64);
    refused(|state| state.pieces[0].0 = 8);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn r74_anything_is_refused_or_is_a_state(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let layout = layout();
        prop_assert!(FunctionState::from_bytes(&body, &layout).is_err());
        prop_assert!(FunctionState::from_bytes(&FORMAT.with_head(&body), &layout).is_err());
    }

    /// A function goes on with whatever is taken for a state, and does no harm.
    #[test]
    fn r74_a_state_that_is_read_can_be_lived_with(
        // Most of a state is configuration space, where next to nothing may be changed.
        changes in proptest::collection::vec((prop_oneof![4 => 0x1000_usize..0x2000, 1 => any::<usize>()], any::<u8>()), 1..4)
    ) {
        let changed = changes.iter().fold(bytes(), |bytes, (at, with)| changed(&bytes, *at, *with));
        let machine = stopped();
        if !refused(&machine, &changed) {
            live(&machine);
        }
    }
}
