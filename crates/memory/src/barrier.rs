//! A fence of which one side pays for both.
//!
//! Who stores and then loads, where another thread does the same the other way round, needs a fence between the
//! two, which costs more than a translation that is cached. The kernel can run that fence on every processor on
//! which this process is, at the request of the side that seldom comes (membarrier(2)).
//!
//! It stands in this room because reports of written pages need it, which are below every other use.

use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence};
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

/// Longer than any processor keeps a store to itself.
const LONG: Duration = Duration::from_millis(1);

/// Whether the kernel offers it. Asked once in a process.
#[must_use]
pub fn is_offered() -> bool {
    static OFFERED: OnceLock<bool> = OnceLock::new();
    *OFFERED.get_or_init(|| {
        !cfg!(miri) && membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    })
}

/// The side that comes often: keeps the compiler from turning round what stands before and after.
#[inline]
pub fn light() {
    compiler_fence(Ordering::SeqCst);
}

/// The side that seldom comes: what another thread stored before its [`light`] is to be seen after this, or what
/// it loads behind it sees what was stored before this. Only where it [`is_offered`].
pub fn heavy() {
    let run = membarrier(MembarrierCommand::PrivateExpedited);
    if run.is_err() {
        // The kernel granted it when it was registered for, so this is a sandbox that closed since. A store
        // that was made is seen after a while, and so is one to the other thread.
        std::thread::sleep(LONG);
    }
}

/// As [`heavy`], and where that is not offered, waits as long as any processor keeps a store to itself.
pub fn heavy_or_wait() {
    if is_offered() {
        heavy();
    } else {
        std::thread::sleep(LONG);
    }
}
