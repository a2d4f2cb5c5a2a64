use rustix::io::Errno;

/// Why a state is not taken over, or a function does not go on with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct MigrationError {
    errno: Errno,
    what: String,
}

impl MigrationError {
    /// An error with the number that a protocol reports for it. `what` says what is wrong and what to do.
    pub fn new(errno: Errno, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { errno, what }
    }

    /// A state that is no state of such a function (`EINVAL`).
    pub fn senseless(what: impl Into<String>) -> Self {
        Self::new(Errno::INVAL, what)
    }

    /// The error number that a protocol reports for it.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.errno
    }
}

/// A function that can be stopped, and can go on where it stopped on another host.
///
/// The caller keeps the order: a state is saved from a stopped function and restored into a stopped one, whose
/// driver has not been heard of since it was made. Calls come one at a time; accesses to the function may
/// come beside them, and those of a driver find a stopped function that takes them and does no work.
pub trait Migration: Send + Sync {
    /// Stops. On return nothing of the function touches memory or raises an interrupt, until it goes on;
    /// what its driver submitted and what is not complete waits.
    fn stop(&self);

    /// Goes on. What waits is done, each piece once; what a stopped function owes its driver
    /// (interrupts, answers) is paid.
    ///
    /// # Errors
    /// When the host does not give what a restored state needs. The function is stopped then.
    fn start(&self) -> Result<(), MigrationError>;

    /// The state of a stopped function: versioned bytes, in the driver's own names (guest PASIDs, never the
    /// host's), of a length that [`Self::max_state_len_bytes`] bounds.
    ///
    /// # Errors
    /// When the function is in no state that can be told, as during a reset.
    fn save(&self) -> Result<Vec<u8>, MigrationError>;

    /// Takes over a state from [`Self::save`] of a function of the same shape. The bytes come from a peer that is
    /// trusted with nothing.
    ///
    /// # Errors
    /// When the bytes are no such state. The function is as new then.
    fn restore(&self, state: &[u8]) -> Result<(), MigrationError>;

    /// More than the length of any state, in bytes.
    fn max_state_len_bytes(&self) -> usize;
}
