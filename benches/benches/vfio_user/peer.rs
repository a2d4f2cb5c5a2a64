use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::Arc,
};

use anyhow::Result;
use palisade_memory::{Backing, GuestMemory, Protection};
use palisade_units::Gpa;
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

use crate::registers::{BAR_BYTES, Registers};

/// What the crate leaves to who uses it, done with the same registers and the same memory as ours.
struct Backend {
    registers: Registers,
    memory: GuestMemory,
}

fn no_register() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}

impl ServerBackend for Backend {
    fn region_read(&mut self, _: u32, at: u64, data: &mut [u8]) -> io::Result<()> {
        self.registers.read(at, data).ok_or_else(no_register)
    }

    fn region_write(&mut self, _: u32, at: u64, data: &[u8]) -> io::Result<()> {
        self.registers.write(at, data).ok_or_else(no_register)
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        offset_bytes: u64,
        at: u64,
        len_bytes: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let Some(file) = fd else {
            return Ok(());
        };
        let backing = Backing {
            fd: Arc::new(OwnedFd::from(file)),
            offset_bytes,
        };
        self.memory
            .map(Gpa::new(at), len_bytes, backing, Protection::ReadWrite)
            .map_err(io::Error::other)
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, at: u64, len_bytes: u64) -> io::Result<()> {
        self.memory
            .unmap(Gpa::new(at), len_bytes)
            .map_err(io::Error::other)
    }

    fn reset(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a client and serves it until it goes.
pub(crate) fn serve(listener: UnixListener) -> Result<()> {
    let mut region = ServerRegion {
        region_info: Default::default(),
        sparse_areas: Vec::new(),
        mmap_fd: None,
    };
    region.region_info.size = BAR_BYTES;
    let no_irq = |index| IrqInfo {
        index,
        flags: 0,
        count: 0,
    };
    let irqs = (0..5).map(no_irq).collect();
    let server = Server::from_owned_fd(listener.into(), true, irqs, vec![region]);
    let mut backend = Backend {
        registers: Registers::new(),
        memory: GuestMemory::new(),
    };
    server.run(&mut backend)?;
    Ok(())
}
