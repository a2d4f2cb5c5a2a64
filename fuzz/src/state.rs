//! Saved states, which come from another host.

use palisade_vtd::UnitState;

/// The state of a unit: what is read is what would be written.
pub(crate) fn unit_state(bytes: &[u8]) {
    if let Ok(state) = UnitState::from_bytes(bytes) {
        let again = UnitState::from_bytes(&state.to_bytes());
        assert_eq!(again.as_ref(), Ok(&state));
    }
}
