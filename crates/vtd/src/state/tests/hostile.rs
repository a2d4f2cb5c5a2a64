//! Bytes that no unit wrote.

use proptest::prelude::*;

use palisade_pci::saved::HEAD_BYTES;

use super::super::codec::FORMAT;
use super::*;

/// The bytes of a unit at work, with something in every section.
fn bytes() -> Vec<u8> {
    let mut rig = with_virtual_commands();
    rig.set_page_request_queue(0);
    let known = allocate(&rig).unwrap();
    let space = Space::new(&mut rig);
    rig.bind(known, &space);
    rig.bind(pasid(0x99), &space);
    let _asked = ask(&rig, 0x99);
    assert!(rig.read(Some(known), AT).is_err());
    rig.unit.save().to_bytes()
}

#[test]
fn every_truncation_is_refused() {
    let bytes = bytes();
    assert!(UnitState::from_bytes(&bytes).is_ok());
    for len in 0..bytes.len() {
        assert!(UnitState::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
    let more = [bytes, vec![0]].concat();
    assert!(matches!(
        UnitState::from_bytes(&more),
        Err(Unreadable::Torn { .. })
    ));
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = bytes();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            assert!(UnitState::from_bytes(&bytes).is_err(), "bit {bit} of {at}");
        }
    }
}

#[test]
fn another_version_is_named() {
    let mut bytes = bytes();
    bytes[8..12].copy_from_slice(&(FORMAT.version + 1).to_le_bytes());
    let error = UnitState::from_bytes(&bytes).unwrap_err();
    assert_eq!(error, Unreadable::Version(FORMAT.version + 1));
    assert_eq!(UnitState::from_bytes(b"{}"), Err(Unreadable::Foreign));
}

/// A byte of a state whose checksum was made to fit.
fn changed(bytes: &[u8], at: usize, with: u8) -> Vec<u8> {
    let mut body = bytes[HEAD_BYTES..].to_vec();
    let index = at % body.len();
    body[index] ^= with;
    FORMAT.with_head(&body)
}

#[test]
fn every_byte_that_was_changed_with_care_is_refused_or_is_a_state() {
    let bytes = bytes();
    let mut accepted = 0;
    for at in 0..bytes.len() - HEAD_BYTES {
        for with in [0x01, 0x10, 0x80, 0xff] {
            let changed = changed(&bytes, at, with);
            if let Ok(state) = UnitState::from_bytes(&changed) {
                assert_eq!(state.to_bytes(), changed);
                accepted += 1;
            }
        }
    }
    assert!(accepted > 0, "addresses and data may be any");
}

#[test]
fn bits_that_no_unit_sets_are_refused() {
    let state = UnitState::from_bytes(&bytes()).unwrap();
    let refused = |spoil: fn(&mut UnitState)| {
        let mut state = state.clone();
        spoil(&mut state);
        let read = UnitState::from_bytes(&state.to_bytes());
        assert!(matches!(read, Err(Unreadable::Senseless(_))), "{read:?}");
        let mut rig = Rig::new();
        assert!(restore(&mut rig, &state).is_err(), "nor is it restored");
    };
    refused(|state| state.registers.values[0] |= 1);
    refused(|state| state.registers.root |= 1);
    refused(|state| state.registers.records.clear());
    refused(|state| state.registers.positions[1] ^= 1);
    refused(|state| state.registers.records.push((0, [1; 16])));
    refused(|state| state.config.vcmd = VcmdLayout::Off);
    refused(|state| state.presence.header[0] ^= 1);
    refused(|state| {
        state.allocated.insert(pasid(0));
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn anything_is_refused_or_is_a_state(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(UnitState::from_bytes(&body).is_err());
        prop_assert!(UnitState::from_bytes(&FORMAT.with_head(&body)).is_err());
    }

    /// A unit comes to life from whatever is taken for a state, and serves its guest.
    #[test]
    fn a_state_that_is_read_can_be_lived_with(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4)) {
        let bytes = GOOD.with(Clone::clone);
        let changed = changes.iter().fold(bytes, |bytes, (at, with)| changed(&bytes, *at, *with));
        if let Ok(state) = UnitState::from_bytes(&changed) {
            let mut rig = Rig::new();
            if restore(&mut rig, &state).is_ok() {
                let _ = registers(&rig);
                rig.write32(reg::IQT, 0x40);
                let _ = rig.read(Some(pasid(0x99)), AT);
                rig.unit.reset();
                prop_assert_eq!(rig.read32(reg::GSTS), 0);
            }
        }
    }
}

thread_local! {
    static GOOD: Vec<u8> = bytes();
}
