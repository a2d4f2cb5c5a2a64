//! The device as its driver sees it.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_iommu::{FunctionHandle, PasidEnable};
use palisade_pci::{AccessError, Bar, ConfigEffect, ConfigSpace, Function, Interrupt};

use crate::config::config_space;
use crate::engine::{Engine, Message};
use crate::registers::{BAR_BYTES, Doorbell, Registers};

/// What the driver's side and the engine's share.
pub(crate) struct Shared {
    pub(crate) config: Mutex<ConfigSpace>,
    pub(crate) registers: Mutex<Registers>,
    vector: Mutex<Option<Arc<dyn Interrupt>>>,
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A message is a memory write as any other: none without bus mastering.
    pub(crate) fn interrupt(&self, cause: Option<u32>) {
        let Some(cause) = cause else { return };
        locked(&self.registers).raise(cause);
        let vector = locked(&self.vector).clone();
        let vector = vector.filter(|_| locked(&self.config).bus_master());
        if let Some(vector) = vector {
            vector.signal();
        }
    }
}

/// The device, with its engine on a thread of its own.
pub struct Edu {
    function: FunctionHandle,
    shared: Arc<Shared>,
    engine: Sender<Message>,
}

impl Edu {
    /// A device in the state after a reset, at that place on the host's bus.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn new(function: FunctionHandle) -> std::io::Result<Arc<Self>> {
        let config = config_space().map_err(std::io::Error::other)?;
        let shared = Arc::new(Shared {
            config: Mutex::new(config),
            registers: Mutex::new(Registers::new()),
            vector: Mutex::new(None),
        });
        let (sender, inbox) = channel();
        let engine = Engine {
            port: function.port(),
            shared: Arc::clone(&shared),
            inbox,
            to_self: sender.clone(),
            waiting: None,
            asked: 0,
        };
        std::thread::Builder::new()
            .name("edu-engine".to_owned())
            .spawn(move || engine.run())?;
        function.set_pasid_enabled(PasidEnable::Off);
        Ok(Arc::new(Self {
            function,
            shared,
            engine: sender,
        }))
    }

    /// On return nothing that was started before is in flight or waits.
    fn quiet(&self) {
        let (done, wait) = channel();
        if self.engine.send(Message::Quiet(done)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Does what a change of configuration space asks for.
    fn follow(&self, change: impl FnOnce(&mut ConfigSpace) -> ConfigEffect) -> ConfigEffect {
        let mut config = locked(&self.shared.config);
        let before = (config.pasid_enabled(), config.bus_master());
        let effect = change(&mut config);
        let (pasid, master) = (config.pasid_enabled(), config.bus_master());
        drop(config);
        match (before.0, pasid) {
            (false, true) => self.function.set_pasid_enabled(PasidEnable::On),
            (true, false) => self.function.set_pasid_enabled(PasidEnable::Off),
            _ => {}
        }
        if before.1 && !master {
            self.quiet();
        }
        effect
    }

    fn ring(&self, doorbell: Doorbell) {
        let message = match doorbell {
            Doorbell::Raise(cause) => return self.shared.interrupt(Some(cause)),
            Doorbell::Compute(n) => Message::Compute(n),
            Doorbell::Copy(job) => Message::Copy(job),
        };
        let _ = self.engine.send(message);
    }
}

impl Function for Edu {
    fn bar_len_bytes(&self, bar: Bar) -> u64 {
        if bar == Bar::Bar0 { BAR_BYTES } else { 0 }
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        locked(&self.shared.config).read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        if self.follow(|config| config.write(offset, from)) == ConfigEffect::FunctionLevelReset {
            self.reset();
        }
    }

    fn bar_read(&self, bar: Bar, offset_bytes: u64, into: &mut [u8]) -> Result<(), AccessError> {
        check(bar, offset_bytes, into.len() as u64)?;
        let mut registers = locked(&self.shared.registers);
        for (offset, word) in (offset_bytes..).step_by(4).zip(into.chunks_mut(4)) {
            word.copy_from_slice(&registers.read(offset).to_le_bytes());
        }
        Ok(())
    }

    fn bar_write(&self, bar: Bar, offset_bytes: u64, from: &[u8]) -> Result<(), AccessError> {
        check(bar, offset_bytes, from.len() as u64)?;
        let (words, _) = from.as_chunks::<4>();
        for (offset, word) in (offset_bytes..).step_by(4).zip(words) {
            let value = u32::from_le_bytes(*word);
            let doorbell = locked(&self.shared.registers).write(offset, value);
            if let Some(doorbell) = doorbell {
                self.ring(doorbell);
            }
        }
        Ok(())
    }

    fn msix_vectors(&self) -> u16 {
        1
    }

    fn set_vector(&self, _vector: u16, interrupt: Option<Arc<dyn Interrupt>>) {
        *locked(&self.shared.vector) = interrupt;
    }

    fn reset(&self) {
        // With configuration space goes the right to access memory.
        let _ = self.follow(|config| {
            config.reset();
            ConfigEffect::None
        });
        self.quiet();
        *locked(&self.shared.registers) = Registers::new();
    }
}

impl Drop for Edu {
    fn drop(&mut self) {
        let _ = self.engine.send(Message::End);
    }
}

/// Registers have 32 or 64 bits, and are accessed as such.
fn check(bar: Bar, offset_bytes: u64, len_bytes: u64) -> Result<(), AccessError> {
    if matches!(len_bytes, 4 | 8) && offset_bytes.is_multiple_of(len_bytes) {
        return Ok(());
    }
    Err(AccessError::Width {
        bar,
        offset_bytes,
        len_bytes,
    })
}
