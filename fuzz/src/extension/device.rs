//! What stands behind our server: a bare function, what keeps translations, and what does the container's requests.

use std::mem::take;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_pci::{AccessError, Bar, Function, Interrupt};
use palisade_units::GuestPasid;
use palisade_vfio_user::wire::pasid::{Invalidation, MAX_ARGUMENT_BYTES, RequestAbi};
use palisade_vfio_user::{
    ContainerRequests, Errno, InvalidationDone, PeerHandle, RequestAnswer, RequestNumber,
    RequestReply, RequestSession, Translated, TranslationCache,
};

/// A function that does nothing.
pub(super) struct Bare;

impl Function for Bare {
    fn bar_len_bytes(&self, _: Bar) -> u64 {
        0
    }

    fn config_read(&self, _: u16, into: &mut [u8]) {
        into.fill(0);
    }

    fn config_write(&self, _: u16, _: &[u8]) {}

    fn bar_read(&self, _: Bar, _: u64, into: &mut [u8]) -> Result<(), AccessError> {
        into.fill(0);
        Ok(())
    }

    fn bar_write(&self, _: Bar, _: u64, _: &[u8]) -> Result<(), AccessError> {
        Ok(())
    }

    fn msix_vectors(&self) -> u16 {
        1
    }

    fn set_vector(&self, _: u16, _: Option<Arc<dyn Interrupt>>) {}

    fn reset(&self) {}
}

/// When something is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    AtOnce,
    Later,
    /// It is dropped without a word.
    Never,
}

/// A translation that the device has.
pub(super) struct Kept {
    pub(super) answer: Translated,
    pub(super) pasid: Option<GuestPasid>,
    /// How many invalidations had been taken in when its answer came.
    pub(super) epoch: usize,
}

impl Kept {
    pub(super) fn is_meant_by(&self, what: &Invalidation) -> bool {
        let ranges = self.answer.ranges();
        ranges.iter().any(|range| {
            // Both are whole pages: they meet where one begins in the other.
            let begins = what.range.is_some_and(|(at, _)| {
                let into = at.get().checked_sub(range.at.get());
                into.is_some_and(|into| into < range.len_bytes) && what.pasids.contains(self.pasid)
            });
            begins || what.contains(self.pasid, range.at)
        })
    }
}

/// A request that is not answered yet.
pub(super) struct Waiting {
    pub(super) number: u32,
    pub(super) argument: Vec<u8>,
    pub(super) reply: RequestReply,
}

pub(super) struct State {
    /// Of invalidations, and of requests.
    pub(super) habits: [Habit; 2],
    pub(super) forgetting: Vec<InvalidationDone>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) kept: Vec<Kept>,
    /// What came, to be compared with what was sent.
    pub(super) invalidated: Vec<Invalidation>,
    pub(super) requested: Vec<(u32, Vec<u8>)>,
    pub(super) sessions: usize,
}

/// What the connection's thread and the device share.
#[derive(Clone)]
pub(super) struct Device {
    state: Arc<Mutex<State>>,
}

impl Device {
    pub(super) fn new() -> Self {
        let state = State {
            habits: [Habit::AtOnce; 2],
            forgetting: Vec::new(),
            waiting: Vec::new(),
            kept: Vec::new(),
            invalidated: Vec::new(),
            requested: Vec::new(),
            sessions: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came since this was asked last.
    pub(super) fn came(&self) -> (Vec<Invalidation>, Vec<(u32, Vec<u8>)>) {
        let mut state = self.state();
        (take(&mut state.invalidated), take(&mut state.requested))
    }
}

/// What keeps the device's translations.
pub(super) struct Cache {
    pub(super) device: Device,
    pub(super) peer: Arc<Mutex<Option<PeerHandle>>>,
}

impl TranslationCache for Cache {
    fn invalidate(&self, what: Invalidation, done: InvalidationDone) {
        assert!(what.makes_sense());
        let peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.device.state();
        for kept in state.kept.iter().filter(|kept| kept.is_meant_by(&what)) {
            let is_current = peer.as_ref().is_some_and(|it| it.is_current(&kept.answer));
            assert!(!is_current, "an asker may still keep what is invalidated");
        }
        state.invalidated.push(what);
        match state.habits[0] {
            Habit::AtOnce => done.complete(),
            Habit::Later => state.forgetting.push(done),
            Habit::Never => drop(done),
        }
    }
}

/// Who does the container's requests.
pub(super) struct Requests(pub(super) Device);

impl ContainerRequests for Requests {
    fn connect(&self, _: RequestAbi) -> Box<dyn RequestSession> {
        self.0.state().sessions += 1;
        Box::new(Session(self.0.clone()))
    }
}

struct Session(Device);

impl RequestSession for Session {
    fn request(
        &mut self,
        number: RequestNumber,
        argument: &[u8],
        _: Vec<OwnedFd>,
        reply: RequestReply,
    ) {
        let number = number.get();
        let mut state = self.0.state();
        state.requested.push((number, argument.to_vec()));
        match state.habits[1] {
            Habit::AtOnce => reply.send(outcome(number, argument)),
            Habit::Later => state.waiting.push(Waiting {
                number,
                argument: argument.to_vec(),
                reply,
            }),
            Habit::Never => drop(reply),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.state().sessions -= 1;
    }
}

/// What a request comes to.
pub(super) fn outcome(number: u32, argument: &[u8]) -> Result<RequestAnswer, Errno> {
    match number % 4 {
        1 => Err(Errno::PERM),
        2 => Ok(RequestAnswer {
            written: vec![0; MAX_ARGUMENT_BYTES + 1],
            ..RequestAnswer::default()
        }),
        _ => Ok(RequestAnswer {
            value: number.cast_signed(),
            written: argument.to_vec(),
            ..RequestAnswer::default()
        }),
    }
}
