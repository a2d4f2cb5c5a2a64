//! Saved states, which come from another host.

use arbitrary::Unstructured;
use palisade_iommu::{FirstStage, Levels, Space};
use palisade_mdev::SliceType;
use palisade_pci::saved::{HEAD_BYTES, StateFormat};
use palisade_units::Gpa;
use palisade_vtd::UnitState;

use crate::driver::Driver;
use crate::world::World;

/// The state of a unit: what is read is what would be written.
pub(crate) fn unit_state(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), with_head(bytes)] {
        if let Ok(state) = UnitState::from_bytes(&bytes) {
            let again = UnitState::from_bytes(&state.to_bytes());
            assert_eq!(again.as_ref(), Ok(&state));
        }
    }
}

/// The state of a function of the accelerator: some bytes as they are, or one of its own with some words changed.
/// Whatever of it is taken over reaches nobody else's PASIDs and memory, and a reset brings the function back.
pub(crate) fn function_state(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let (world, kind) = World::of_any_kind(&mut input);
    let space = Space::FirstStage(FirstStage::new(Gpa::new(0), Levels::Four));
    world.bind_both(space);
    let is_whole = input.arbitrary().unwrap_or(false);
    let assigned = if is_whole { &world.whole } else { &world.slice };
    let kind = if is_whole {
        SliceType::DedicatedQueue
    } else {
        kind
    };
    Driver::new(assigned).bring_up(kind);
    let function = assigned.function();
    let migration = function.migration().expect("it can move");
    migration.stop();
    let state = if input.arbitrary().unwrap_or(false) {
        input.bytes(input.len()).unwrap_or_default().to_vec()
    } else {
        let own = migration.save().expect("it is stopped");
        // The input may end anywhere.
        with_head(&changed(own, &mut input).unwrap_or_default())
    };
    function.reset();
    migration.stop();
    // Refusals are answers.
    if migration.restore(&state).is_ok() && migration.start().is_ok() {
        world.work();
        migration.stop();
        let saved = migration.save();
        let len = saved.map_or(0, |saved| saved.len());
        assert!(len <= migration.max_state_len_bytes());
    }
    world.check();
    function.reset();
    migration.start().expect("it is as new");
    world.work();
    world.check();
}

/// A state with the length and the checksum that it should have.
fn with_head(state: &[u8]) -> Vec<u8> {
    let (Some(magic), Some(version)) = (state.first_chunk(), state.get(8..12)) else {
        return state.to_vec();
    };
    let format = StateFormat {
        magic: *magic,
        version: version.try_into().map_or(0, u32::from_le_bytes),
        max_body_bytes: usize::MAX,
    };
    format.with_head(state.get(HEAD_BYTES..).unwrap_or_default())
}

/// A state with some of its bytes changed, or cut off.
fn changed(mut state: Vec<u8>, input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    while !input.is_empty() && !state.is_empty() {
        let at = input.choose_index(state.len())?;
        match input.int_in_range(0..=9)? {
            0 => state.truncate(at),
            1 => state.insert(at, input.arbitrary()?),
            _ => state[at] = input.arbitrary()?,
        }
    }
    Ok(state)
}
