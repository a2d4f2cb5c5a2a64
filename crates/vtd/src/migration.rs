//! How a unit stops, and goes on there or elsewhere (R74).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use palisade_pci::{AccessError, Bar, Function, Migration, MigrationError};
use palisade_units::GuestPasid;
use rustix::io::Errno;

use crate::state::{RestoreError, adopt};
use crate::{Unit, UnitState};

/// How many bytes of writes a stopped unit keeps.
const MAX_HELD_BYTES: usize = 1 << 12;

/// Who is inside of the unit, and whether it is stopped.
#[derive(Default)]
pub(crate) struct Pause {
    /// Held for reading by accesses to registers, for as long as they take.
    accesses: RwLock<Standing>,
    /// Held for reading by the platform's reports. They may come while an access waits for engines, so it is a lock of
    /// its own.
    reports: RwLock<()>,
    held: Mutex<Held>,
    /// The unit was restored and has not gone on yet.
    restored: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Running,
    Stopped,
}

/// What a stopped unit does once it goes on.
#[derive(Default)]
struct Held {
    writes: Vec<(u64, Vec<u8>)>,
    /// What the guest of a restored unit is to have.
    adopts: BTreeSet<GuestPasid>,
}

/// An access to the registers.
pub(crate) struct Access<'a> {
    pause: &'a Pause,
    standing: RwLockReadGuard<'a, Standing>,
}

impl Access<'_> {
    pub(crate) fn is_stopped(&self) -> bool {
        *self.standing == Standing::Stopped
    }

    /// Keeps a write of a stopped unit's guest.
    ///
    /// # Errors
    /// [`AccessError::Retry`] where there is no room.
    pub(crate) fn hold(&self, offset_bytes: u64, from: &[u8]) -> Result<(), AccessError> {
        let mut held = self.pause.held();
        let kept: usize = held.writes.iter().map(|(_, bytes)| bytes.len()).sum();
        if kept + from.len() > MAX_HELD_BYTES {
            return Err(AccessError::Retry { bar: Bar::Bar0 });
        }
        held.writes.push((offset_bytes, from.to_vec()));
        Ok(())
    }
}

impl Pause {
    pub(crate) fn access(&self) -> Access<'_> {
        Access {
            pause: self,
            standing: self.accesses.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// To be held while the platform reports something.
    pub(crate) fn report(&self) -> RwLockReadGuard<'_, ()> {
        self.reports.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the unit was restored and has not gone on yet: then its tables say nothing.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::SeqCst)
    }

    /// Forgets what a stopped unit would do.
    pub(crate) fn forget(&self) {
        *self.held() = Held::default();
        self.restored.store(false, Ordering::SeqCst);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Saving a unit that was restored and never went on yields what was restored.
///
/// In front of a guest that chooses its own numbers the pairs of its and the host's PASIDs come with
/// [`Migration::start`], when what its tables say is bound; so functions of which the guest has programmed a PASID start
/// after their unit. One whose own table takes PASIDs only while its capability is on is restored before it.
impl Migration for Unit {
    /// A stopped unit still looks at the guest's tables for devices that run, and records their faults; it tells the
    /// guest of nothing, and has who asks for a page ask again later.
    fn stop(&self) {
        let mut standing = self
            .pause
            .accesses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *standing = Standing::Stopped;
        let reports = self.pause.reports.write();
        self.registers().hold_messages();
        drop(reports);
    }

    fn start(&self) -> Result<(), MigrationError> {
        let mut standing = self
            .pause
            .accesses
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if *standing == Standing::Running {
            return Ok(());
        }
        let writes = {
            let mut held = self.pause.held();
            adopt(&self.container, &held.adopts).map_err(|error| refusal(&error))?;
            held.adopts.clear();
            std::mem::take(&mut held.writes)
        };
        *standing = Standing::Running;
        if self.pause.restored.swap(false, Ordering::SeqCst) {
            self.come_to_life();
        } else {
            let held = self.registers().release_messages();
            held.into_iter()
                .for_each(|message| self.send(Some(message)));
        }
        for (offset_bytes, bytes) in writes {
            self.write_now(offset_bytes, &bytes);
        }
        self.answer_postponed();
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, MigrationError> {
        self.check_stopped()?;
        if !self.pause.held().writes.is_empty() {
            let what = "the guest wrote to the stopped unit: let it go on, and stop it again";
            return Err(MigrationError::new(Errno::BUSY, what));
        }
        let state = Self::save(self);
        let state = if self.pause.is_restored() {
            let adopts = self.pause.held().adopts.clone();
            state.with_allocated(adopts)
        } else {
            state
        };
        Ok(state.to_bytes())
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), MigrationError> {
        self.check_stopped()?;
        self.reset();
        let state = UnitState::from_bytes(bytes)?;
        if state.config() != self.registers().config() {
            return Err(MigrationError::senseless(
                "the unit was made otherwise: give it the virtual commands and the caching mode that it had",
            ));
        }
        self.take_over(&state).map_err(MigrationError::senseless)?;
        self.pause.held().adopts.clone_from(state.allocated());
        self.pause.restored.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn max_state_len_bytes(&self) -> usize {
        UnitState::MAX_LEN_BYTES
    }
}

fn refusal(error: &RestoreError) -> MigrationError {
    let errno = match error {
        RestoreError::Pasid { error, .. } => Errno::from_raw_os_error(error.errno()),
        RestoreError::Senseless(_) => Errno::INVAL,
    };
    MigrationError::new(errno, error.to_string())
}

impl Unit {
    fn check_stopped(&self) -> Result<(), MigrationError> {
        if self.pause.access().is_stopped() {
            Ok(())
        } else {
            let what = "the unit runs: stop it first";
            Err(MigrationError::new(Errno::BUSY, what))
        }
    }

    /// A write to the registers of a unit that runs.
    pub(crate) fn write_now(&self, offset_bytes: u64, from: &[u8]) {
        self.catch_up();
        let effects = self.registers().write(offset_bytes, from);
        self.perform(effects);
        self.answer_postponed();
    }
}
