//! The unit as a PCI function.

use std::sync::Arc;

use palisade_pci::{AccessError, Bar, ConfigEffect, Function, Interrupt, Migration};

use crate::Unit;
use crate::spec::register::BAR_LEN_BYTES;

impl Function for Unit {
    fn bar_len_bytes(&self, bar: Bar) -> u64 {
        match bar {
            Bar::Bar0 => BAR_LEN_BYTES,
            _ => 0,
        }
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.presence.read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        match self.presence.write(offset, from) {
            ConfigEffect::None => {}
            ConfigEffect::FunctionLevelReset => self.reset(),
        }
    }

    /// Reads aligned doublewords, one or many (VT-d §11.2).
    fn bar_read(&self, bar: Bar, offset_bytes: u64, into: &mut [u8]) -> Result<(), AccessError> {
        check(bar, offset_bytes, into.len())?;
        self.presence.hide();
        let access = self.pause.access();
        if !access.is_stopped() {
            self.catch_up();
        }
        self.registers().read(offset_bytes, into);
        Ok(())
    }

    /// Writes aligned doublewords, one or many (VT-d §11.2). What the write asks for is done on return.
    fn bar_write(&self, bar: Bar, offset_bytes: u64, from: &[u8]) -> Result<(), AccessError> {
        check(bar, offset_bytes, from.len())?;
        self.presence.hide();
        let access = self.pause.access();
        if access.is_stopped() {
            return access.hold(offset_bytes, from);
        }
        self.write_now(offset_bytes, from);
        Ok(())
    }

    /// None: a unit's interrupts are messages of its own registers.
    fn msix_vectors(&self) -> u16 {
        0
    }

    fn set_vector(&self, _vector: u16, _interrupt: Option<Arc<dyn Interrupt>>) {}

    /// Every register has its value after reset, nothing is bound but what was at first, and the PASIDs that the
    /// guest took are free.
    fn reset(&self) {
        self.pause.forget();
        self.start_over();
    }

    fn migration(&self) -> Option<&dyn Migration> {
        Some(self)
    }
}

fn check(bar: Bar, offset_bytes: u64, len: usize) -> Result<(), AccessError> {
    let len_bytes = u64::try_from(len).unwrap_or(u64::MAX);
    let end = offset_bytes.checked_add(len_bytes);
    if bar != Bar::Bar0 || end.is_none_or(|end| end > BAR_LEN_BYTES) {
        return Err(AccessError::OutOfBounds {
            bar,
            offset_bytes,
            len_bytes,
        });
    }
    if !offset_bytes.is_multiple_of(4) || !len_bytes.is_multiple_of(4) {
        return Err(AccessError::Width {
            bar,
            offset_bytes,
            len_bytes,
        });
    }
    Ok(())
}
