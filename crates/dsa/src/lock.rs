use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock. A panic of another holder is not passed on: what these locks guard is consistent
/// between any two statements that can panic.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
