//! The state of a unit, to be saved on one host and restored on another.
//!
//! A state is what the guest can see of its unit, and what it counts on: registers, fault records, the
//! root that was taken over, the queues' heads and tails, what it allocated by virtual commands, and for
//! which page requests it owes an answer. What is bound is not part of it, for the guest's tables say
//! that; nor are page requests that wait, for these are the devices': a device that is restored asks
//! again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use palisade_memory::GuestMemory;
use palisade_units::{GuestPasid, HostPasid};
use palisade_vfio::{Container, VfioError};

use crate::config_space::PresenceState;
use crate::registers::{Effect, Registers, RegistersState, TranslationState};
use crate::sink::Group;
use crate::{MessageSignal, Unit, UnitConfig, VcmdLayout};

mod codec;

pub use palisade_pci::saved::Unreadable;

/// The state of a unit between two lives: bytes by [`UnitState::to_bytes`], a unit by
/// [`Unit::restored`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    config: UnitConfig,
    registers: RegistersState,
    presence: PresenceState,
    /// Page request groups of which the guest was told and that it has not answered.
    owed: BTreeSet<Group>,
    /// What the guest allocated, by its own numbers.
    allocated: BTreeSet<GuestPasid>,
}

/// Why a unit does not come back to life.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The tenant does not get what its guest had.
    #[error(
        "the guest had PASID {guest}, and does not get it here: {error}; give the tenant the quota it had"
    )]
    Pasid {
        /// The guest's number.
        guest: GuestPasid,
        /// What the container says.
        error: VfioError,
    },
    /// The state is not of a unit. One that was read from bytes is.
    #[error("the state makes no sense: {0}")]
    Senseless(&'static str),
}

impl UnitState {
    /// No state is longer, in bytes.
    pub const MAX_LEN_BYTES: usize = codec::MAX_LEN_BYTES;

    /// The bytes, in the format of this version.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The state of bytes. What it allocates is bounded by their number.
    ///
    /// # Errors
    /// [`Unreadable`] for anything but what [`UnitState::to_bytes`] of the same version yields.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        codec::decode(bytes)
    }

    /// What the guest allocated.
    pub(crate) const fn allocated(&self) -> &BTreeSet<GuestPasid> {
        &self.allocated
    }

    /// The same state, of a guest that allocated these.
    pub(crate) fn with_allocated(self, allocated: BTreeSet<GuestPasid>) -> Self {
        Self { allocated, ..self }
    }

    /// How the unit was made.
    #[must_use]
    pub fn config(&self) -> UnitConfig {
        self.config
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.allocated.iter().any(|guest| guest.get() == 0) {
            return Err("PASID 0 cannot be allocated");
        }
        if self.config.vcmd == VcmdLayout::Off && !self.allocated.is_empty() {
            return Err("PASIDs were allocated without virtual commands");
        }
        crate::config_space::Presence::new().restore(&self.presence)?;
        self.registers.check(self.config)
    }
}

impl Unit {
    /// The state of the unit at this moment. Its guest and its devices are to be stopped: what they do
    /// meanwhile may be in the state or not.
    #[must_use]
    pub fn save(&self) -> UnitState {
        let _work = self.work();
        self.forget_requests_that_are_over();
        let (registers, config) = {
            let registers = self.registers();
            (registers.save(), registers.config())
        };
        UnitState {
            config,
            registers,
            presence: self.presence.save(),
            owed: self.asked.owed(),
            allocated: self.container.allocated().into_iter().collect(),
        }
    }

    /// A unit that goes on where a saved one stopped, in place of [`Unit::new`]. The guest's memory is
    /// as it was then; functions are attached already, or told of by [`Unit::attached`].
    ///
    /// Each PASID that the guest allocated is its own again, under the number that it knows. What the
    /// tables say is bound; what stands in the invalidation queue is done with the next access to a
    /// register. An answer to a page request of before is dropped, for the device asks again.
    ///
    /// # Errors
    /// [`RestoreError`]; the container is as it was then.
    pub fn restored(
        state: &UnitState,
        container: Container,
        memory: GuestMemory,
        messages: Arc<dyn MessageSignal>,
    ) -> Result<Arc<Self>, RestoreError> {
        state.check().map_err(RestoreError::Senseless)?;
        adopt(&container, &state.allocated)?;
        let unit = Self::new(state.config(), container, memory, messages);
        unit.take_over(state).map_err(RestoreError::Senseless)?;
        unit.come_to_life();
        Ok(unit)
    }

    /// Has the registers and what stands behind them as they were saved. Nothing is bound and nothing sent.
    ///
    /// # Errors
    /// What is wrong with the state.
    pub(crate) fn take_over(&self, state: &UnitState) -> Result<(), &'static str> {
        self.presence.restore(&state.presence)?;
        self.asked.restart(state.owed.clone());
        let mut registers = self.registers();
        *registers = Registers::restored(state.config, &state.registers);
        registers.hold_messages();
        let behind = registers.queue_runs() && registers.queue_head() != registers.queue_tail();
        drop(registers);
        self.behind.store(behind, Ordering::Release);
        Ok(())
    }

    /// Binds what the guest's tables say, and pays what the guest is owed. The guest's PASIDs are its own already.
    pub(crate) fn come_to_life(&self) {
        let (unanswered, translation, held) = {
            let mut registers = self.registers();
            let held = registers.release_messages();
            (
                registers.unanswered_command(),
                registers.translation(),
                held,
            )
        };
        if let TranslationState::On(_) = translation {
            let _work = self.work();
            self.synchronise_all();
        }
        let command = unanswered.map(Effect::VirtualCommand);
        let held = held.into_iter().map(Effect::Send);
        self.perform(command.into_iter().chain(held).collect());
    }
}

/// Gives the guest what it had, or nothing.
pub(crate) fn adopt(
    container: &Container,
    allocated: &BTreeSet<GuestPasid>,
) -> Result<(), RestoreError> {
    let had = container.allocated();
    for guest in allocated.iter().filter(|guest| !had.contains(guest)) {
        if let Err(error) = container.adopt_pasid(*guest) {
            let adopted = allocated.iter().take_while(|other| *other != guest);
            for other in adopted.filter(|other| !had.contains(other)) {
                // It was given just now, by the same number.
                let _ = HostPasid::new(other.get()).map(|known| container.free_pasid(known));
            }
            return Err(RestoreError::Pasid {
                guest: *guest,
                error,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
