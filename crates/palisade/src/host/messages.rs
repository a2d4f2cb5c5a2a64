//! The way of the unit's interrupts to the guest.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use palisade_pci::Function;
use palisade_units::Gpa;
use palisade_vfio_user::PeerHandle;
use palisade_vtd::MessageSignal;

const COMMAND_OFFSET: u16 = 4;
const COMMAND_BUS_MASTER: u8 = 1 << 2;

struct Carrier {
    number: u64,
    function: Arc<dyn Function>,
    handle: PeerHandle,
}

/// The tenant's device connections.
///
/// A message is a memory write of the device's, which the VMM accepts only from a function whose
/// bus-master bit is set. Nothing in a guest sets it for the unit, so messages go over a device's
/// connection.
#[derive(Default)]
pub(crate) struct Messages {
    carriers: Mutex<Vec<Carrier>>,
    next: AtomicU64,
    undelivered: AtomicU64,
}

impl Messages {
    /// From now on this connection carries messages, until [`Messages::remove`] with the number.
    pub(crate) fn add(&self, function: Arc<dyn Function>, handle: PeerHandle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let carrier = Carrier {
            number,
            function,
            handle,
        };
        self.carriers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(carrier);
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        let mut carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        carriers.retain(|c| c.number != number);
    }
}

impl MessageSignal for Messages {
    fn send(&self, address: u64, data: u32) {
        let carriers = self.carriers.lock().unwrap_or_else(PoisonError::into_inner);
        for carrier in carriers.iter() {
            let mut command = [0];
            carrier.function.config_read(COMMAND_OFFSET, &mut command);
            if command[0] & COMMAND_BUS_MASTER != 0
                && carrier
                    .handle
                    .write_memory(Gpa::new(address), &data.to_le_bytes())
                    .is_ok()
            {
                return;
            }
        }
        let count = self.undelivered.fetch_add(1, Ordering::Relaxed) + 1;
        // A guest can cause this at will: say it at 1, 2, 4, 8 …
        if count.is_power_of_two() {
            tracing::warn!(
                count,
                "an interrupt of the unit has no way to the guest: no device of the tenant is a bus master"
            );
        }
    }
}
