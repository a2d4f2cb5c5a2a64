//! The order in which a tenant's functions go on when they were moved here.
//!
//! A function's PASIDs are the guest's numbers; which of the host's these are, the tenant's unit says, once it has its own
//! state and the guest's tables. A VMM starts the functions in the order that it likes. So those that are started
//! before the unit wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use palisade_pci::{AccessError, Bar, Function, Interrupt, Migration, MigrationError};

/// The functions of one tenant, as far as they wait.
#[derive(Default)]
pub(crate) struct Moving {
    order: Mutex<Order>,
    next: AtomicU64,
}

#[derive(Default)]
struct Order {
    unit: UnitLife,
    waiting: BTreeMap<u64, Arc<dyn Function>>,
    /// Those whose turn came and that could not go on. Their clients were told long ago that they run.
    stuck: BTreeSet<u64>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum UnitLife {
    #[default]
    Runs,
    Stopped,
}

/// A function that is served, and that takes its turn.
pub(crate) struct InTurn {
    moving: Arc<Moving>,
    function: Arc<dyn Function>,
    role: Role,
}

#[derive(Clone, Copy)]
enum Role {
    Unit,
    Function(u64),
}

impl Moving {
    /// The unit, as it is served.
    pub(crate) fn unit(self: &Arc<Self>, unit: Arc<dyn Function>) -> Arc<InTurn> {
        self.served(unit, Role::Unit)
    }

    /// A function behind the unit, as it is served.
    pub(crate) fn function(self: &Arc<Self>, function: Arc<dyn Function>) -> Arc<InTurn> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.served(function, Role::Function(number))
    }

    fn served(self: &Arc<Self>, function: Arc<dyn Function>, role: Role) -> Arc<InTurn> {
        Arc::new(InTurn {
            moving: Arc::clone(self),
            function,
            role,
        })
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unit runs, whatever it was: those that wait for it are started.
    pub(crate) fn unit_runs(&self) {
        // Under the lock, so that a function which is stopped meanwhile is stopped after it was started.
        let mut order = self.order();
        order.unit = UnitLife::Runs;
        for (number, function) in std::mem::take(&mut order.waiting) {
            if let Some(Err(e)) = function.migration().map(Migration::start) {
                tracing::error!(
                    "a function that was moved here does not go on before it is reset: {e}"
                );
                order.stuck.insert(number);
            }
        }
    }

    /// Lets a function go on that is stuck, if it can by now: a reset takes what it could not go on with.
    fn try_again(&self, number: u64, function: &Arc<dyn Function>) {
        let mut order = self.order();
        if !order.stuck.remove(&number) {
            return;
        }
        if order.unit == UnitLife::Stopped {
            order.waiting.insert(number, Arc::clone(function));
        } else if let Some(Err(_)) = function.migration().map(Migration::start) {
            order.stuck.insert(number);
        }
    }
}

/// The protocol carries no more than a number. A client that does this at will has its connection's place in the log.
fn told(what: &str, error: &MigrationError) {
    tracing::warn!("a function {what}: {error}");
}

impl InTurn {
    fn go_on(&self) -> Result<(), MigrationError> {
        match self.role {
            Role::Unit => {
                self.inner()?.start()?;
                self.moving.unit_runs();
                Ok(())
            }
            Role::Function(number) => {
                let mut order = self.moving.order();
                if order.unit == UnitLife::Runs {
                    return self.inner()?.start();
                }
                order.waiting.insert(number, Arc::clone(&self.function));
                Ok(())
            }
        }
    }

    fn try_again(&self) {
        if let Role::Function(number) = self.role {
            self.moving.try_again(number, &self.function);
        }
    }

    fn inner(&self) -> Result<&dyn Migration, MigrationError> {
        self.function.migration().ok_or_else(|| {
            MigrationError::new(
                rustix::io::Errno::NOTSUP,
                "the function cannot be moved: it has no state to save",
            )
        })
    }
}

impl Migration for InTurn {
    fn stop(&self) {
        let mut order = self.moving.order();
        let waited = match self.role {
            Role::Unit => {
                order.unit = UnitLife::Stopped;
                false
            }
            Role::Function(number) => {
                order.waiting.remove(&number).is_some() || order.stuck.remove(&number)
            }
        };
        if let (false, Ok(inner)) = (waited, self.inner()) {
            inner.stop();
        }
    }

    fn start(&self) -> Result<(), MigrationError> {
        self.go_on().inspect_err(|e| told("does not go on", e))
    }

    fn save(&self) -> Result<Vec<u8>, MigrationError> {
        let saved = self.inner().and_then(Migration::save);
        saved.inspect_err(|e| told("is not saved", e))
    }

    fn restore(&self, state: &[u8]) -> Result<(), MigrationError> {
        let restored = self.inner().and_then(|inner| inner.restore(state));
        restored.inspect_err(|e| told("is not restored", e))
    }

    fn max_state_len_bytes(&self) -> usize {
        self.inner().map_or(0, Migration::max_state_len_bytes)
    }
}

impl Function for InTurn {
    fn bar_len_bytes(&self, bar: Bar) -> u64 {
        self.function.bar_len_bytes(bar)
    }

    fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.function.config_read(offset, into);
    }

    fn config_write(&self, offset: u16, from: &[u8]) {
        self.function.config_write(offset, from);
        // It may have been a function-level reset.
        self.try_again();
    }

    fn bar_read(&self, bar: Bar, offset_bytes: u64, into: &mut [u8]) -> Result<(), AccessError> {
        self.function.bar_read(bar, offset_bytes, into)
    }

    fn bar_write(&self, bar: Bar, offset_bytes: u64, from: &[u8]) -> Result<(), AccessError> {
        self.function.bar_write(bar, offset_bytes, from)
    }

    fn msix_vectors(&self) -> u16 {
        self.function.msix_vectors()
    }

    fn set_vector(&self, vector: u16, interrupt: Option<Arc<dyn Interrupt>>) {
        self.function.set_vector(vector, interrupt);
    }

    fn reset(&self) {
        self.function.reset();
        self.try_again();
    }

    fn migration(&self) -> Option<&dyn Migration> {
        self.function.migration().map(|_| self as _)
    }
}

impl Drop for InTurn {
    fn drop(&mut self) {
        match self.role {
            // A client that left takes the state it brought with it: the next finds a unit that runs.
            Role::Unit => self.moving.unit_runs(),
            Role::Function(number) => {
                let mut order = self.moving.order();
                order.waiting.remove(&number);
                order.stuck.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use super::*;

    /// Counts how often it was started more than stopped.
    #[derive(Default)]
    struct Toy {
        running: AtomicU32,
        /// It was restored, and its PASIDs mean nothing here.
        lost: AtomicBool,
    }

    impl Toy {
        fn runs(&self) -> bool {
            self.running.load(Ordering::SeqCst) == 1
        }
    }

    impl Migration for Toy {
        fn stop(&self) {
            self.running.fetch_sub(1, Ordering::SeqCst);
        }

        fn start(&self) -> Result<(), MigrationError> {
            if self.lost.load(Ordering::SeqCst) {
                return Err(MigrationError::new(rustix::io::Errno::NOENT, "lost"));
            }
            self.running.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn save(&self) -> Result<Vec<u8>, MigrationError> {
            Ok(Vec::new())
        }

        fn restore(&self, _: &[u8]) -> Result<(), MigrationError> {
            Ok(())
        }

        fn max_state_len_bytes(&self) -> usize {
            1
        }
    }

    impl Function for Toy {
        fn bar_len_bytes(&self, _: Bar) -> u64 {
            0
        }

        fn config_read(&self, _: u16, _: &mut [u8]) {}

        fn config_write(&self, _: u16, _: &[u8]) {}

        fn bar_read(&self, bar: Bar, _: u64, _: &mut [u8]) -> Result<(), AccessError> {
            Err(AccessError::NotReady { bar })
        }

        fn bar_write(&self, bar: Bar, _: u64, _: &[u8]) -> Result<(), AccessError> {
            Err(AccessError::NotReady { bar })
        }

        fn msix_vectors(&self) -> u16 {
            0
        }

        fn set_vector(&self, _: u16, _: Option<Arc<dyn Interrupt>>) {}

        fn reset(&self) {
            self.lost.store(false, Ordering::SeqCst);
        }

        fn migration(&self) -> Option<&dyn Migration> {
            Some(self)
        }
    }

    fn toy() -> Arc<Toy> {
        let toy = Toy::default();
        toy.start().unwrap();
        Arc::new(toy)
    }

    struct Served {
        unit: Arc<InTurn>,
        slice: Arc<InTurn>,
        toys: [Arc<Toy>; 2],
    }

    fn served() -> Served {
        let moving = Arc::new(Moving::default());
        let toys = [toy(), toy()];
        Served {
            unit: moving.unit(Arc::clone(&toys[0]) as _),
            slice: moving.function(Arc::clone(&toys[1]) as _),
            toys,
        }
    }

    /// The unit went on after a stop, and the function could not.
    fn served_without_the_function() -> Served {
        let served = served();
        served.slice.stop();
        served.unit.stop();
        served.toys[1].lost.store(true, Ordering::SeqCst);
        served.slice.start().unwrap();
        served.unit.start().unwrap();
        served
    }

    #[test]
    fn r74_a_function_that_is_started_before_the_unit_goes_on_with_it() {
        let Served { unit, slice, toys } = served();
        slice.stop();
        unit.stop();
        slice.start().unwrap();
        assert!(!toys[1].runs());
        unit.start().unwrap();
        assert!(toys[0].runs() && toys[1].runs());
    }

    #[test]
    fn r74_a_function_that_is_started_after_the_unit_goes_on_at_once() {
        let Served { unit, slice, toys } = served();
        unit.stop();
        slice.stop();
        unit.start().unwrap();
        assert!(toys[0].runs() && !toys[1].runs());
        slice.start().unwrap();
        assert!(toys[1].runs());
    }

    #[test]
    fn r74_a_function_that_is_stopped_while_it_waits_waits_no_more() {
        let Served { unit, slice, toys } = served();
        slice.stop();
        unit.stop();
        slice.start().unwrap();
        slice.stop();
        unit.start().unwrap();
        assert!(!toys[1].runs());
    }

    #[test]
    fn r74_a_function_whose_unit_was_never_stopped_needs_not_wait() {
        let Served { slice, toys, .. } = served();
        slice.stop();
        assert!(!toys[1].runs());
        slice.start().unwrap();
        assert!(toys[1].runs());
    }

    #[test]
    fn r74_nobody_waits_for_the_unit_of_a_client_that_left() {
        let Served { unit, slice, toys } = served();
        slice.stop();
        unit.stop();
        slice.start().unwrap();
        drop(unit);
        assert!(toys[1].runs());
    }

    #[test]
    fn r74_a_function_that_could_not_go_on_with_its_unit_does_once_it_is_reset() {
        let Served { slice, toys, .. } = served_without_the_function();
        assert!(!toys[1].runs());
        slice.reset();
        assert!(toys[1].runs());
        slice.reset();
        assert!(toys[1].runs(), "once");
    }

    #[test]
    fn r74_a_function_that_could_not_go_on_is_stopped_as_one_that_did() {
        let Served { slice, toys, .. } = served_without_the_function();
        slice.stop();
        slice.reset();
        assert!(!toys[1].runs(), "its client has it stopped");
        slice.start().unwrap();
        assert!(toys[1].runs());
    }
}
