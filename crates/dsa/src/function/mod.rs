//! The accelerator as a driver sees it: configuration space, registers, portals.

mod command;
mod events;
mod halt;
pub mod map;
mod migration;
mod occupancy;
mod policy;
mod portal;
mod read_buffers;
mod saved;
mod shape;
mod stale;
mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use palisade_iommu::PasidEnable;
use palisade_pci::{
    AccessError, Bar, ConfigEffect, ConfigError, ConfigSpace, Function, Interrupt, Migration,
    capability::extended_id,
};
use palisade_units::GuestPasid;

pub use policy::{Direct, EntryPoint, PasidPolicy, PasidRefused};
pub use shape::Shape;

use crate::lock::locked;
use crate::spec::{
    Command, ErrorCode, InterruptPermission, REGISTERS_BYTES, SoftwareError, register,
};
use crate::{Client, Identity, Lane, Switch};
use events::{Events, Permission};
use map::{AccessClass, Place, Table};
use portal::Port;
use saved::{Held, hold};
use shape::Layout;
use state::State;

/// A function of the accelerator: the registers and portals of some of its queues.
///
/// Who uses it and what its PASIDs mean is its policy's to say. Commands that wait do so while the
/// register write that gave them is held up, as long as engines get on with the work by themselves; what
/// waits for page responses goes on beside, and CMDSTS stays active until it is done.
pub struct DsaFunction<P> {
    policy: P,
    layout: Layout,
    lanes: Vec<Lane>,
    ports: Vec<Mutex<Port>>,
    events: Arc<Events>,
    config: Mutex<ConfigSpace>,
    /// Held while a command runs. Engines never take it.
    state: Mutex<State>,
    /// Whether the policy was told last that the driver has PASIDs on.
    told_pasids: AtomicBool,
    /// A stopped function does not halt before it goes on.
    stopped: AtomicBool,
    gone: AtomicBool,
}

/// What configuration space says of PASIDs.
struct PasidCapability {
    enabled: Switch,
    privileged: Switch,
}

impl<P: PasidPolicy> DsaFunction<P> {
    /// A function with these queues of an accelerator, in the order in which the driver counts them; at
    /// most 64. All is off, as after a reset.
    ///
    /// # Errors
    /// Those of configuration space, which the shapes that can be had do not meet.
    pub fn new(policy: P, lanes: Vec<Lane>, shape: Shape) -> Result<Self, ConfigError> {
        let layout = Layout::new(shape, lanes.len());
        policy.set_pasid_enabled(PasidEnable::Off);
        Ok(Self {
            ports: lanes.iter().map(|_| Mutex::default()).collect(),
            events: Arc::new(Events::new(layout.vectors())),
            config: Mutex::new(layout.config_space()?),
            state: Mutex::new(State::new(layout)),
            told_pasids: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            policy,
            layout,
            lanes,
        })
    }

    /// Its policy.
    pub const fn policy(&self) -> &P {
        &self.policy
    }

    /// Takes the function out of service: its work is dropped, its holds are given back, and it answers no
    /// more. On return nothing of it is in flight.
    pub fn retire(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.reset();
    }

    fn resolve(&self, pasid: Option<GuestPasid>, at: EntryPoint) -> Result<Identity, PasidRefused> {
        self.policy.resolve(pasid, at)
    }

    fn pasid_capability(&self) -> PasidCapability {
        const PRIVILEGED_ENABLE: u8 = 1 << 2;
        let config = locked(&self.config);
        let mut control = [0];
        if let Some(at) = config.extended_capability_offset(extended_id::PASID) {
            config.read(at + 6, &mut control);
        }
        let switch = |on| if on { Switch::On } else { Switch::Off };
        PasidCapability {
            enabled: switch(config.pasid_enabled()),
            privileged: switch(control[0] & PRIVILEGED_ENABLE != 0),
        }
    }

    fn check_alive(&self, bar: Bar) -> Result<(), AccessError> {
        if self.gone.load(Ordering::SeqCst) {
            Err(AccessError::NotReady { bar })
        } else {
            Ok(())
        }
    }

    fn write_word(&self, state: &mut State, offset: u64, value: u32) {
        let Some((place, class)) = self.layout.locate(offset) else {
            return;
        };
        match (place, class) {
            (Place::Register(_), AccessClass::Command) => {
                self.command(state, Command::from_bits(value));
            }
            (Place::Register(register::GENCTRL), AccessClass::ReadWrite(mask)) => {
                self.events.set_control(value & mask);
            }
            (Place::Register(register::INTCAUSE), AccessClass::WriteOneClears(mask)) => {
                self.events.clear_cause(value & mask);
            }
            (Place::Register(register::SWERR), AccessClass::WriteOneClears(mask)) => {
                self.events.acknowledge_error(value & mask);
            }
            (
                Place::Entry {
                    table: Table::Permissions,
                    index,
                    ..
                },
                AccessClass::ReadWrite(mask),
            ) => self.permit(index, InterruptPermission::from_bits(value & mask)),
            _ => state.configure(place, class, value),
        }
    }

    /// A PASID that may not be used leaves the entry clear.
    fn permit(&self, vector: usize, entry: InterruptPermission) {
        let mut permission = Permission {
            entry,
            identity: None,
        };
        if entry.pasid_enable() {
            let name = GuestPasid::new(entry.pasid()).ok();
            let enabled = self.pasid_capability().enabled.is_on();
            let identity = name.filter(|_| enabled).and_then(|name| {
                self.resolve(Some(name), EntryPoint::InterruptPermission)
                    .ok()
            });
            if identity.is_none() {
                permission = Permission::default();
                self.events.software_error(SoftwareError {
                    pasid: entry.pasid(),
                    ..SoftwareError::of_device(ErrorCode::PASID_REFUSED)
                });
            } else {
                permission.identity = identity;
            }
        }
        self.events.set_permission(vector, permission);
    }

    /// Tells others what the driver has turned on and off.
    fn follow_config(&self) {
        let switch = |on| if on { Switch::On } else { Switch::Off };
        let (pasid, ats, pri) = {
            let config = locked(&self.config);
            let ats = switch(config.ats_enabled());
            (config.pasid_enabled(), ats, switch(config.pri_enabled()))
        };
        if self.events.set_ats(ats) {
            self.policy.forget_translations();
        }
        self.events.set_page_requests(pri);
        if self.told_pasids.swap(pasid, Ordering::SeqCst) != pasid {
            let enable = if pasid {
                PasidEnable::On
            } else {
                PasidEnable::Off
            };
            self.policy.set_pasid_enabled(enable);
        }
    }
}

impl<P: PasidPolicy> Function for DsaFunction<P> {
    fn bar_len_bytes(&self, bar: Bar) -> u64 {
        match bar {
            Bar::Bar0 => REGISTERS_BYTES,
            Bar::Bar2 => self.layout.portals_bytes(),
            _ => 0,
        }
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        locked(&self.config).read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        let (effect, lost_bus) = {
            let mut config = locked(&self.config);
            let was_master = config.bus_master();
            let effect = config.write(offset, from);
            (effect, was_master && !config.bus_master())
        };
        match effect {
            ConfigEffect::None => {
                if lost_bus && !self.stopped.load(Ordering::SeqCst) {
                    self.halt_if_enabled(&mut locked(&self.state));
                }
                self.follow_config();
            }
            ConfigEffect::FunctionLevelReset => self.reset(),
        }
    }

    fn bar_read(&self, bar: Bar, offset_bytes: u64, into: &mut [u8]) -> Result<(), AccessError> {
        self.check_alive(bar)?;
        if bar != Bar::Bar0 {
            into.fill(0xff);
            return Ok(());
        }
        let mut state = locked(&self.state);
        self.reap(&mut state);
        let mut at = offset_bytes;
        let mut rest = into;
        while !rest.is_empty() {
            let within = usize::try_from(at % 4).unwrap_or(0);
            let word = self.read_word(&state, at - at % 4).to_le_bytes();
            let len = rest.len().min(4 - within);
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&word[within..within + len]);
            rest = later;
            at += len as u64;
        }
        Ok(())
    }

    fn bar_write(&self, bar: Bar, offset_bytes: u64, from: &[u8]) -> Result<(), AccessError> {
        self.check_alive(bar)?;
        if bar == Bar::Bar2 {
            return self.portal_write(offset_bytes, from);
        }
        let len_bytes = from.len() as u64;
        if !offset_bytes.is_multiple_of(4) || !len_bytes.is_multiple_of(4) {
            return Err(AccessError::Width {
                bar,
                offset_bytes,
                len_bytes,
            });
        }
        let mut state = locked(&self.state);
        let (words, _) = from.as_chunks::<4>();
        if let Some(held) = &mut state.held {
            let writes = (offset_bytes..).step_by(4).zip(words);
            let writes: Vec<Held> = writes
                .map(|(offset, word)| Held::Word {
                    offset,
                    value: u32::from_le_bytes(*word),
                })
                .collect();
            return hold(held, writes, bar);
        }
        for (offset, word) in (offset_bytes..).step_by(4).zip(words) {
            self.write_word(&mut state, offset, u32::from_le_bytes(*word));
        }
        Ok(())
    }

    fn msix_vectors(&self) -> u16 {
        self.layout.vectors()
    }

    fn set_vector(&self, vector: u16, interrupt: Option<Arc<dyn Interrupt>>) {
        self.events.set_vector(vector, interrupt);
    }

    fn migration(&self) -> Option<&dyn Migration> {
        Some(self)
    }

    fn reset(&self) {
        let mut state = locked(&self.state);
        self.reset_device(&mut state);
        state.reset_vectors();
        locked(&self.config).reset();
        self.follow_config();
    }
}

#[cfg(test)]
mod tests;
