use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use palisade_iommu::Ats;
use palisade_pci::Interrupt;
use palisade_units::PasidTag;

use crate::lock::locked;
use crate::spec::{GeneralControl, InterruptCause, InterruptPermission, SoftwareError};
use crate::{Client, Identity, Session, Switch};

/// What engines tell a function, and what the driver reads of it: interrupts, their permissions, and the
/// software error register.
pub(super) struct Events {
    /// Held for reading while an interrupt is raised.
    gate: RwLock<Gate>,
    state: Mutex<State>,
    page_requests: AtomicBool,
    ats: AtomicBool,
}

/// Whether interrupts leave the function.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// They are owed.
    Closed,
}

/// What there is to read, for the state of a function.
pub(super) struct EventWords {
    pub(super) cause: u32,
    pub(super) error: [u64; 4],
    pub(super) control: u32,
    pub(super) permissions: Vec<u32>,
    /// The vectors that are owed an interrupt.
    pub(super) owed: BTreeSet<u16>,
}

struct State {
    cause: InterruptCause,
    error: [u64; 4],
    control: GeneralControl,
    vectors: Vec<Option<Arc<dyn Interrupt>>>,
    permissions: Vec<Permission>,
    owed: BTreeSet<u16>,
}

/// An entry of the MSI-X permission table and what its PASID means; one without a meaning allows nothing by it.
#[derive(Default)]
pub(super) struct Permission {
    pub(super) entry: InterruptPermission,
    pub(super) identity: Option<Identity>,
}

impl Events {
    pub(super) fn new(vectors: u16) -> Self {
        Self {
            gate: RwLock::new(Gate::Open),
            state: Mutex::new(State {
                cause: InterruptCause::new(),
                error: [0; 4],
                control: GeneralControl::new(),
                vectors: (0..vectors).map(|_| None).collect(),
                permissions: (0..vectors).map(|_| Permission::default()).collect(),
                owed: BTreeSet::new(),
            }),
            page_requests: AtomicBool::new(false),
            ats: AtomicBool::new(false),
        }
    }

    /// Back to what it was at first; interrupts stay connected.
    pub(super) fn reset(&self) {
        let mut state = locked(&self.state);
        state.cause = InterruptCause::new();
        state.error = [0; 4];
        state.control = GeneralControl::new();
        state.owed.clear();
        let permissions = state
            .permissions
            .iter_mut()
            .map(std::mem::take)
            .collect::<Vec<_>>();
        drop(state);
        drop(permissions);
    }

    pub(super) fn set_vector(&self, vector: u16, interrupt: Option<Arc<dyn Interrupt>>) {
        let mut state = locked(&self.state);
        let old = state
            .vectors
            .get_mut(usize::from(vector))
            .map(|place| std::mem::replace(place, interrupt));
        drop(state);
        drop(old);
    }

    /// Raises no interrupt from now on. On return none is being raised.
    pub(super) fn close(&self) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Gate::Closed;
    }

    /// Raises interrupts again, first those that are owed.
    pub(super) fn open(&self) {
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Gate::Open;
        let owed = std::mem::take(&mut locked(&self.state).owed);
        for vector in owed {
            self.raise(vector);
        }
    }

    fn raise(&self, vector: u16) {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut state = locked(&self.state);
        if *gate == Gate::Open {
            let line = state.vector(vector);
            drop(state);
            signal(line);
        } else if usize::from(vector) < state.vectors.len() {
            state.owed.insert(vector);
        }
    }

    /// What there is to read.
    pub(super) fn words(&self) -> EventWords {
        let state = locked(&self.state);
        let entries = state.permissions.iter();
        EventWords {
            cause: state.cause.into_bits(),
            error: state.error,
            control: state.control.into_bits(),
            permissions: entries.map(|one| one.entry.into_bits()).collect(),
            owed: state.owed.clone(),
        }
    }

    /// Takes over what another function's driver read. What the PASIDs of the permissions mean is not known yet.
    pub(super) fn set_words(&self, words: &EventWords) {
        let mut state = locked(&self.state);
        state.cause = InterruptCause::from_bits(words.cause);
        state.error = words.error;
        state.control = GeneralControl::from_bits(words.control);
        state.owed.clone_from(&words.owed);
        for (place, bits) in state.permissions.iter_mut().zip(&words.permissions) {
            place.entry = InterruptPermission::from_bits(*bits);
        }
    }

    pub(super) fn set_page_requests(&self, switch: Switch) {
        self.page_requests.store(switch.is_on(), Ordering::Release);
    }

    /// Says whether it was otherwise before.
    pub(super) fn set_ats(&self, switch: Switch) -> bool {
        let before = self.ats.swap(switch.is_on(), Ordering::AcqRel);
        before != switch.is_on()
    }

    pub(super) fn cause(&self) -> u32 {
        locked(&self.state).cause.into_bits()
    }

    pub(super) fn clear_cause(&self, bits: u32) {
        let mut state = locked(&self.state);
        state.cause = InterruptCause::from_bits(state.cause.into_bits() & !bits);
    }

    pub(super) fn control(&self) -> u32 {
        locked(&self.state).control.into_bits()
    }

    pub(super) fn set_control(&self, value: u32) {
        locked(&self.state).control = GeneralControl::from_bits(value);
    }

    /// A word of the software error register.
    pub(super) fn error_word(&self, word: usize) -> u32 {
        let state = locked(&self.state);
        let [a, b, c, d, e, f, g, h] = state
            .error
            .get(word / 2)
            .copied()
            .unwrap_or_default()
            .to_le_bytes();
        u32::from_le_bytes(if word.is_multiple_of(2) {
            [a, b, c, d]
        } else {
            [e, f, g, h]
        })
    }

    /// Clearing the valid bit makes room for the next error.
    pub(super) fn acknowledge_error(&self, bits: u32) {
        let mut state = locked(&self.state);
        if u64::from(bits) & SoftwareError::VALID != 0 {
            let overflow = state.error[0] & SoftwareError::OVERFLOW;
            state.error = [overflow, 0, 0, 0];
        }
        state.error[0] &= !(u64::from(bits) & SoftwareError::OVERFLOW);
    }

    pub(super) fn permission(&self, vector: usize) -> u32 {
        let state = locked(&self.state);
        state
            .permissions
            .get(vector)
            .map_or(0, |permission| permission.entry.into_bits())
    }

    /// The permissions, with what their PASIDs mean.
    pub(super) fn permissions(&self) -> Vec<(InterruptPermission, Option<PasidTag>)> {
        let state = locked(&self.state);
        let tag_of = |one: &Permission| one.identity.as_ref().and_then(|identity| identity.tag);
        let permissions = state.permissions.iter();
        permissions.map(|one| (one.entry, tag_of(one))).collect()
    }

    pub(super) fn set_permission(&self, vector: usize, permission: Permission) {
        let mut state = locked(&self.state);
        let place = state.permissions.get_mut(vector);
        let old = place.map(|place| std::mem::replace(place, permission));
        drop(state);
        // With it the hold on its PASID.
        drop(old);
    }

    /// The device has halted.
    pub(super) fn halted(&self) {
        let mut state = locked(&self.state);
        state.cause.set_halted(true);
        let wanted = state.control.halt_interrupt();
        drop(state);
        if wanted {
            self.raise(0);
        }
    }

    /// A command has completed, and its driver asked for the interrupt.
    pub(super) fn command_done(&self) {
        let mut state = locked(&self.state);
        state.cause.set_command(true);
        drop(state);
        self.raise(0);
    }
}

impl State {
    fn vector(&self, vector: u16) -> Option<Arc<dyn Interrupt>> {
        self.vectors.get(usize::from(vector)).cloned().flatten()
    }
}

/// Without any lock: what is behind a vector is somebody else's.
fn signal(vector: Option<Arc<dyn Interrupt>>) {
    if let Some(interrupt) = vector {
        interrupt.signal();
    }
}

impl Client for Events {
    fn software_error(&self, error: SoftwareError) {
        let mut state = locked(&self.state);
        if state.error[0] & SoftwareError::VALID == 0 {
            let overflow = state.error[0] & SoftwareError::OVERFLOW;
            state.error = error.encode();
            state.error[0] |= overflow;
        } else {
            state.error[0] |= SoftwareError::OVERFLOW;
        }
        let news = !state.cause.software_error();
        state.cause.set_software_error(true);
        let wanted = news && state.control.software_error_interrupt();
        drop(state);
        if wanted {
            self.raise(0);
        }
    }

    fn interrupt(&self, handle: u16) {
        self.raise(handle);
    }

    fn may_interrupt(&self, handle: u16, session: &Session) -> bool {
        let state = locked(&self.state);
        let Some(Permission { entry, identity }) = state.permissions.get(usize::from(handle))
        else {
            return false;
        };
        let named = session.name().map(palisade_units::GuestPasid::get);
        entry.ignore()
            || match named {
                None => !entry.pasid_enable(),
                // Without an identity the PASID was left here from before the function moved.
                Some(pasid) => identity.as_ref().is_some_and(|identity| {
                    entry.pasid_enable() && entry.pasid() == pasid && identity.tag == session.tag()
                }),
            }
    }

    fn page_requests(&self) -> Switch {
        if self.page_requests.load(Ordering::Acquire) {
            Switch::On
        } else {
            Switch::Off
        }
    }

    fn ats(&self) -> Ats {
        if self.ats.load(Ordering::Acquire) {
            Ats::On
        } else {
            Ats::Off
        }
    }
}
