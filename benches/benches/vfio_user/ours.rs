use std::{os::unix::net::UnixListener, sync::Arc};

use anyhow::Result;
use palisade_memory::GuestMemory;
use palisade_pci::{AccessError, Bar, Function, Interrupt};
use palisade_vfio_user::Connection;

use crate::registers::{BAR_BYTES, Registers};

struct Device(Registers);

const fn no_register(offset_bytes: u64, len_bytes: u64) -> AccessError {
    AccessError::Width {
        bar: Bar::Bar0,
        offset_bytes,
        len_bytes,
    }
}

impl Function for Device {
    fn bar_len_bytes(&self, bar: Bar) -> u64 {
        if bar == Bar::Bar0 { BAR_BYTES } else { 0 }
    }

    fn config_read(&self, _: u16, into: &mut [u8]) {
        into.fill(0);
    }

    fn config_write(&self, _: u16, _: &[u8]) {}

    fn bar_read(&self, _: Bar, at: u64, into: &mut [u8]) -> Result<(), AccessError> {
        let len = into.len() as u64;
        self.0.read(at, into).ok_or(no_register(at, len))
    }

    fn bar_write(&self, _: Bar, at: u64, from: &[u8]) -> Result<(), AccessError> {
        self.0
            .write(at, from)
            .ok_or(no_register(at, from.len() as u64))
    }

    fn msix_vectors(&self) -> u16 {
        0
    }

    fn set_vector(&self, _: u16, _: Option<Arc<dyn Interrupt>>) {}

    fn reset(&self) {}
}

/// Waits for a client and serves it until it goes.
pub(crate) fn serve(listener: &UnixListener) -> Result<()> {
    let (stream, _) = listener.accept()?;
    let device = Arc::new(Device(Registers::new()));
    let memory = Arc::new(GuestMemory::new());
    Connection::new(stream, device, memory)?.run()?;
    Ok(())
}
