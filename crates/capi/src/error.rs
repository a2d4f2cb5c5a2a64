//! How calls end.

use std::cell::RefCell;
use std::ffi::CString;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard};

use palisade_container::ClientError;
use rustix::io::Errno;
use safer_ffi::prelude::*;

thread_local! {
    static LAST: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// Why a call of this library failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    errno: Errno,
    why: String,
}

impl Failure {
    pub(crate) fn new(errno: Errno, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { errno, why }
    }

    /// What the caller passed cannot be.
    pub(crate) fn invalid(why: impl Into<String>) -> Self {
        Self::new(Errno::INVAL, why)
    }

    /// What the call returns.
    pub(crate) fn value(&self) -> i32 {
        -self.errno.raw_os_error()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let errno = match &error {
            ClientError::Refused(_, errno) | ClientError::Version { errno, .. } => *errno,
            // As the server says of a request of the other version.
            ClientError::NotInThisVersion(_) => Errno::NOTTY,
            // A path that is longer than an address has room for, which the kernel never sees.
            ClientError::Socket(error) if error.kind() == ErrorKind::InvalidInput => Errno::INVAL,
            ClientError::Socket(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
            ClientError::Closed => Errno::CONNRESET,
            ClientError::Frame(_) | ClientError::Answer => Errno::PROTO,
            ClientError::TooLong => Errno::MSGSIZE,
            ClientError::TooManyDescriptors(..) => Errno::TOOBIG,
        };
        Self::new(errno, error.to_string())
    }
}

/// Makes a call whose panic, should it have one, ends here, and keeps the reason of a failure for the thread.
pub(crate) fn call(body: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    let broken = || Err(Failure::new(Errno::NOTRECOVERABLE, "a bug in the library"));
    // What a panic left half done is behind a lock, which then refuses everybody.
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| broken());
    outcome.unwrap_or_else(|failure| {
        let value = failure.value();
        LAST.set(CString::new(failure.why).ok());
        value
    })
}

/// What is behind a handle's lock, unless a panic left it half done.
pub(crate) fn locked<T>(handle: &Mutex<T>) -> Result<MutexGuard<'_, T>, Failure> {
    let broken = "an earlier call on this handle met a bug in the library";
    let locked = handle.lock();
    locked.map_err(|_| Failure::new(Errno::NOTRECOVERABLE, broken))
}

/// Gives something back, which cannot fail.
pub(crate) fn give_back<T>(what: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(what)));
}

/// What must not be null.
pub(crate) fn needed<T>(what: Option<T>, name: &str) -> Result<T, Failure> {
    what.ok_or_else(|| Failure::invalid(format!("{name} is null")))
}

/// Writes what a caller wants to be told, unless it does not.
pub(crate) fn tell<T: safer_ffi::layout::ReprC>(to: Option<Out<'_, T>>, value: T) {
    if let Some(to) = to {
        to.write(value);
    }
}

/// Why the last call of this thread that failed did so, in words; null where none has. It stays until the next failure.
/// Give it back to `palisade_free_text`.
#[ffi_export]
#[must_use]
pub fn palisade_last_error() -> Option<char_p::Box> {
    let text = || LAST.with_borrow(|last| last.clone().map(Into::into));
    catch_unwind(text).unwrap_or(None)
}

/// Gives back a text that `palisade_last_error` gave out. Null is passed over.
#[ffi_export]
pub fn palisade_free_text(text: Option<char_p::Box>) {
    give_back(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> Option<String> {
        palisade_last_error().map(|text| text.to_string())
    }

    #[test]
    fn a_failure_is_told_in_words_to_its_own_thread() {
        assert_eq!(last(), None);
        assert_eq!(call(|| Ok(3)), 3);
        assert_eq!(call(|| Err(Failure::invalid("no such thing"))), -22);
        assert_eq!(call(|| Ok(0)), 0);
        assert_eq!(last().as_deref(), Some("no such thing"));
        let elsewhere = std::thread::spawn(last).join();
        assert_eq!(elsewhere.ok(), Some(None));
        palisade_free_text(None);
    }

    #[test]
    fn a_panic_is_an_errno() {
        assert_eq!(call(|| panic!("a test's")), -131);
        assert_eq!(last().as_deref(), Some("a bug in the library"));
    }

    #[test]
    fn what_a_panic_left_half_done_is_not_used_again() {
        let handle = Mutex::new(0);
        let add = |then: fn()| {
            call(|| {
                let mut number = locked(&handle)?;
                *number += 1;
                then();
                Ok(*number)
            })
        };
        assert_eq!(add(|| {}), 1);
        assert_eq!(add(|| panic!("a test's")), -131);
        assert_eq!(add(|| {}), -131);
        let why = "an earlier call on this handle met a bug in the library";
        assert_eq!(last().as_deref(), Some(why));
    }

    #[test]
    fn each_error_of_the_client_has_its_errno() {
        let errno = |error| Failure::from(error).value();
        assert_eq!(errno(ClientError::Closed), -104);
        assert_eq!(errno(ClientError::Answer), -71);
        assert_eq!(errno(ClientError::TooLong), -90);
        assert_eq!(errno(ClientError::TooManyDescriptors(5, 4)), -7);
        let nobody = std::io::Error::from_raw_os_error(2);
        assert_eq!(errno(ClientError::Socket(nobody)), -2);
        let other = std::io::Error::other("without a number");
        assert_eq!(errno(ClientError::Socket(other)), -5);
        let version = ClientError::Version {
            errno: Errno::PROTONOSUPPORT,
            major: 2,
            minor: 0,
        };
        assert_eq!(errno(version), -93);
        let request = palisade_vfio::abi::Request::Bind;
        assert_eq!(errno(ClientError::NotInThisVersion(request)), -25);
        let refused = ClientError::Refused(request.number(), Errno::NOENT);
        assert_eq!(errno(refused), -2);
    }
}
