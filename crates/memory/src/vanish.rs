//! What happens when a page of a region is no longer there.
//!
//! A tenant may truncate its file at any moment, and then an access to a page past the new end is
//! answered with `SIGBUS`. The handler here looks for the address in a table of all regions. If it
//! is in one, that region is marked and anonymous memory takes the place of the whole of it, so the
//! access goes on and its maker finds the mark; no page of that region faults again. Any other
//! `SIGBUS` goes to whoever handled it before.
//!
//! The handler runs between any two instructions of this process: it takes no lock, allocates
//! nothing, and calls the kernel alone. The table is a list of chunks of slots; slots are reused,
//! chunks never go away.

use crate::{Errno, Protection};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

const CHUNK_SLOTS: usize = 64;
const HOST_PAGE_BYTES: usize = 4096;

/// A page of the region was found missing.
const VANISHED: u8 = 1;
/// Writes are logged. It stands beside the other mark so that a write, which looks for that one anyhow, need
/// not look for this one too.
const LOGGED: u8 = 2;

/// One mapped region. Every line of cache has one slot alone, so that a region which comes or goes
/// does not slow accesses to others.
#[repr(align(64))]
struct Slot {
    /// Odd while the fields below change, different after each change.
    version: AtomicUsize,
    start: AtomicUsize,
    /// Zero: the slot is free.
    len: AtomicUsize,
    writable: AtomicBool,
    /// [`VANISHED`], [`LOGGED`].
    marks: AtomicU8,
}

struct Chunk {
    slots: [Slot; CHUNK_SLOTS],
    next: OnceLock<Box<Self>>,
}

static FIRST: Chunk = Chunk::new();
static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());
static PREVIOUS: OnceLock<Result<libc::sigaction, Errno>> = OnceLock::new();
static INSTALLED: OnceLock<Result<(), Errno>> = OnceLock::new();

impl Slot {
    const fn new() -> Self {
        Self {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            marks: AtomicU8::new(0),
        }
    }

    /// Called by the slot's one owner.
    fn set(&self, start: usize, len: usize, protection: Protection) {
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        let writable = protection == Protection::ReadWrite;
        self.writable.store(writable, Ordering::Relaxed);
        self.marks.store(0, Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
    }

    /// The region in the slot; `None` if it is free or changes at this moment.
    fn get(&self) -> Option<(usize, usize, ProtFlags)> {
        let version = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let writable = self.writable.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let steady = version & 1 == 0 && self.version.load(Ordering::Relaxed) == version;
        let access = match writable {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        (steady && len != 0).then_some((start, len, access))
    }
}

impl Chunk {
    const fn new() -> Self {
        Self {
            slots: [const { Slot::new() }; CHUNK_SLOTS],
            next: OnceLock::new(),
        }
    }
}

fn chunks() -> impl Iterator<Item = &'static Chunk> {
    std::iter::successors(Some(&FIRST), |chunk| chunk.next.get().map(|it| &**it))
}

/// A region's place in the table, for as long as this lives: begun after the region is mapped and
/// dropped before it is unmapped.
pub(crate) struct Watch {
    slot: &'static Slot,
}

impl Watch {
    /// # Errors
    /// What the kernel says to a handler of `SIGBUS`.
    pub(crate) fn begin(start: usize, len: usize, protection: Protection) -> Result<Self, Errno> {
        install()?;
        let slot = take_slot();
        slot.set(start, len, protection);
        Ok(Self { slot })
    }

    /// Whether a page of the region was found missing.
    #[inline]
    pub(crate) fn vanished(&self) -> bool {
        self.slot.marks.load(Ordering::Relaxed) & VANISHED != 0
    }

    /// Whether there is nothing to be done about the region after a write.
    #[inline]
    pub(crate) fn unmarked(&self) -> bool {
        self.slot.marks.load(Ordering::Relaxed) == 0
    }

    /// Whether writes are logged.
    pub(crate) fn logged(&self) -> bool {
        self.slot.marks.load(Ordering::Relaxed) & LOGGED != 0
    }

    /// From now on writes are logged.
    pub(crate) fn begin_log(&self) {
        self.slot.marks.fetch_or(LOGGED, Ordering::SeqCst);
    }

    /// From now on they are not.
    pub(crate) fn end_log(&self) {
        self.slot.marks.fetch_and(!LOGGED, Ordering::SeqCst);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.slot.set(0, 0, Protection::ReadOnly);
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.slot);
    }
}

fn take_slot() -> &'static Slot {
    static FIRST_USED: AtomicBool = AtomicBool::new(false);
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(slot) = free.pop() {
            return slot;
        }
        let chunk = if FIRST_USED.swap(true, Ordering::Relaxed) {
            let last = chunks().last().unwrap_or(&FIRST);
            last.next.get_or_init(|| Box::new(Chunk::new()))
        } else {
            &FIRST
        };
        free.extend(&chunk.slots);
    }
}

/// Puts the handler in place, once for the process; it is never taken away.
fn install() -> Result<(), Errno> {
    *INSTALLED.get_or_init(|| {
        // Known before the new handler may run, which needs it.
        let previous = PREVIOUS.get_or_init(|| exchange(None));
        (*previous)?;
        // SAFETY: `sigaction` is a C struct of numbers, for which zeros are valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
            on_sigbus;
        action.sa_sigaction = handler as usize;
        // The thread may be short of stack, and a call that the signal interrupts should go on.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        exchange(Some(&action)).map(|_| ())
    })
}

/// Gives the action of `SIGBUS`, after setting another if there is one. Signal-safe.
fn exchange(new: Option<&libc::sigaction>) -> Result<libc::sigaction, Errno> {
    // SAFETY: `sigaction` is a C struct of numbers, for which zeros are valid.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: 1. `new` is null or a valid action: default, or `on_sigbus` with the signature that
    // its flags name. 2. `old` may be written.
    match unsafe { libc::sigaction(libc::SIGBUS, new, &raw mut old) } {
        0 => Ok(old),
        _ => Err(Errno::INVAL),
    }
}

/// Why the signal came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The instruction under way needs a page that is not there (or holds broken memory).
    MissingPage,
    /// The instruction under way cannot go on for another reason.
    OtherFault,
    /// Someone sent it, or memory that nobody is using at this moment broke.
    Sent,
}

impl Cause {
    const fn of(code: libc::c_int) -> Self {
        match code {
            libc::BUS_ADRERR | libc::BUS_OBJERR | libc::BUS_MCEERR_AR => Self::MissingPage,
            libc::BUS_ADRALN => Self::OtherFault,
            _ => Self::Sent,
        }
    }
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the C library gives each thread an `errno` of its own, here that of this thread.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: 1. The kernel passes a filled `siginfo_t` to a handler with `SA_SIGINFO`. 2. For the
    // codes that name a fault it holds an address; for others the number is not used.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let handled = match Cause::of(code) {
        Cause::MissingPage => replace_region_at(address),
        Cause::OtherFault | Cause::Sent => false,
    };
    if !handled {
        pass_on(Cause::of(code), signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Marks the region that holds an address where this thread faulted, and puts anonymous memory into
/// its place. `false` if there is no such region or the kernel has no memory for it.
fn replace_region_at(address: usize) -> bool {
    let mut slots = chunks().flat_map(|chunk| &chunk.slots);
    let found = slots.find_map(|slot| {
        let (start, len, access) = slot.get()?;
        (address.wrapping_sub(start) < len).then_some((slot, start, len, access))
    });
    let Some((slot, start, len, access)) = found else {
        return false;
    };
    slot.marks.fetch_or(VANISHED, Ordering::Release);
    let page = address & !(HOST_PAGE_BYTES - 1);
    // One page will do where the kernel's account has no room for all.
    [(start, len), (page, HOST_PAGE_BYTES)]
        .into_iter()
        .any(|(from, len)| {
            let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
            let from = ptr::without_provenance_mut(from);
            // SAFETY: 1. The range is inside a region's mapping: the slot was read unchanged, and it
            // holds the region from after it is mapped until before it is unmapped. 2. That is the
            // region that this thread is accessing, since two mappings never overlap and a fault
            // needs one; so its owner is borrowed, and it stays mapped and in its slot while this
            // runs. 3. Nobody holds a reference to its memory, and those who read it at this moment
            // find the mark, which was set before.
            unsafe { mmap_anonymous(from, len, access, flags) }.is_ok()
        })
}

/// Does what would have been done without this handler.
fn pass_on(
    cause: Cause,
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    type Plain = extern "C" fn(libc::c_int);
    let (action, flags) = match PREVIOUS.get() {
        Some(Ok(previous)) => (previous.sa_sigaction, previous.sa_flags),
        _ => (libc::SIG_DFL, 0),
    };
    match action {
        libc::SIG_IGN if cause == Cause::Sent => return,
        // The kernel does not let a fault be ignored.
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: `sigaction` is a C struct of numbers, for which zeros are valid: the default.
            let _ = exchange(Some(&unsafe { std::mem::zeroed() }));
        }
        handler if flags & libc::SA_SIGINFO != 0 => {
            let handler: *const () = ptr::without_provenance(handler);
            // SAFETY: the action was set by its owner as a function of this signature, as the flag
            // says, and is neither of the two numbers that are no functions.
            let handler = unsafe { std::mem::transmute::<*const (), WithInfo>(handler) };
            handler(signal, info, context);
        }
        handler => {
            let handler: *const () = ptr::without_provenance(handler);
            // SAFETY: as above, for an action without the flag.
            let handler = unsafe { std::mem::transmute::<*const (), Plain>(handler) };
            handler(signal);
        }
    }
    // With the default back, the signal is meant to kill. A fault comes again by itself; one that
    // was sent would be lost.
    let is_default = exchange(None).is_ok_and(|now| now.sa_sigaction == libc::SIG_DFL);
    if is_default && cause == Cause::Sent {
        // SAFETY: `raise` may be called in a handler, and the signal waits until it returns.
        unsafe { libc::raise(signal) };
    }
}
