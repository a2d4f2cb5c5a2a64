use super::state::State;
use super::{DsaFunction, PasidPolicy};
use crate::Client;
use crate::spec::{DeviceState, ErrorCode, SoftwareError};

impl<P: PasidPolicy> DsaFunction<P> {
    /// A device that is enabled cannot go on without the bus: it drops its work and halts until it is reset by a
    /// function-level reset (DSA §3.11, §9.2 GENSTS).
    pub(super) fn halt_if_enabled(&self, state: &mut State) {
        if state.device != DeviceState::Enabled {
            return;
        }
        self.halt(state);
        state.device = DeviceState::Halted;
        let error = SoftwareError::of_device(ErrorCode::PCI_CONFIG);
        self.events.software_error(error);
        self.events.halted();
    }
}
