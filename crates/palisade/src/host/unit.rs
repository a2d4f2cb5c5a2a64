//! The unit that a tenant's guest sees, and the memory of its connection.

use std::sync::Arc;

use palisade_memory::GuestMemory;
use palisade_pci::Function;
use palisade_units::Bdf;
use palisade_vfio::Container;
use palisade_vtd::{MessageSignal, Unit, UnitConfig, VcmdLayout};

use super::memory::Maps;
use crate::config::{self, VirtualCommands};

pub(super) struct ServedUnit {
    unit: Arc<Unit>,
    memory: GuestMemory,
}

impl ServedUnit {
    pub(super) fn new(
        config: &config::UnitConfig,
        container: Container,
        messages: Arc<dyn MessageSignal>,
    ) -> Self {
        let memory = GuestMemory::new();
        let vcmd = match config.virtual_commands {
            VirtualCommands::Off => VcmdLayout::Off,
            VirtualCommands::Current => VcmdLayout::Current,
            VirtualCommands::Older => VcmdLayout::Older,
        };
        let config = UnitConfig {
            vcmd,
            caching_mode: config.caching_mode,
        };
        let unit = Unit::new(config, container, memory.clone(), messages);
        Self { unit, memory }
    }

    pub(super) fn function(&self) -> Arc<dyn Function> {
        Arc::clone(&self.unit) as _
    }

    /// The maps of one connection.
    pub(super) fn maps(&self) -> Arc<Maps> {
        Arc::new(Maps::of_unit(self.memory.clone()))
    }

    /// A function is the tenant's now.
    pub(super) fn attached(&self, guest_bdf: Bdf) {
        self.unit.attached(guest_bdf);
    }
}
