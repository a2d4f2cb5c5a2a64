//! Copies where one side is memory that someone else may write at the same time.
//!
//! Everything goes by raw pointer. Up to [`WHOLE_WORDS_BYTES`] a copy that is aligned on the shared
//! side moves whole words, so that a 64-bit entry is never seen or left half written; longer ones
//! are the platform's `memcpy`, and may tear as a device's burst may.

use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// The longest copy that is made of whole words.
const WHOLE_WORDS_BYTES: usize = 64;

/// Copies `len` bytes out of shared memory.
///
/// # Safety
/// 1. `shared` is mapped for reading over `len` bytes until this returns.
/// 2. `private` may be written over `len` bytes, and nobody else does.
/// 3. The two do not overlap.
#[inline]
pub(crate) unsafe fn from_shared(shared: *mut u8, private: *mut u8, len: usize) {
    let address = shared.addr();
    if len <= WHOLE_WORDS_BYTES && (address | len) & 7 == 0 {
        let mut done = 0;
        while done < len {
            // SAFETY: 1. `done + 8 <= len`, so both pointers stay inside what the caller promises
            // (1, 2). 2. The shared address is a multiple of 8, as the atomic needs; what others do
            // to it at the same time is an access of another process or by the same means.
            unsafe {
                let word = AtomicU64::from_ptr(shared.add(done).cast()).load(Relaxed);
                private.add(done).cast::<u64>().write_unaligned(word);
            }
            done += 8;
        }
        return;
    }
    // SAFETY: 1. In each arm the length is the size of what is moved, and the shared address is a
    // multiple of it. 2. Valid for that length by the caller's promises 1 and 2. 3. The long copy
    // does not overlap by promise 3; concurrent writes may tear it, which callers allow.
    unsafe {
        match len {
            1 => private.write(AtomicU8::from_ptr(shared).load(Relaxed)),
            2 if address & 1 == 0 => private
                .cast::<u16>()
                .write_unaligned(AtomicU16::from_ptr(shared.cast()).load(Relaxed)),
            4 if address & 3 == 0 => private
                .cast::<u32>()
                .write_unaligned(AtomicU32::from_ptr(shared.cast()).load(Relaxed)),
            _ => ptr::copy_nonoverlapping(shared.cast_const(), private, len),
        }
    }
}

/// Copies `len` bytes into shared memory.
///
/// # Safety
/// 1. `shared` is mapped for writing over `len` bytes until this returns.
/// 2. `private` may be read over `len` bytes, and nobody writes it.
/// 3. The two do not overlap.
#[inline]
pub(crate) unsafe fn to_shared(private: *const u8, shared: *mut u8, len: usize) {
    let address = shared.addr();
    if len <= WHOLE_WORDS_BYTES && (address | len) & 7 == 0 {
        let mut done = 0;
        while done < len {
            // SAFETY: 1. `done + 8 <= len`, so both pointers stay inside what the caller promises
            // (1, 2). 2. The shared address is a multiple of 8, as the atomic needs.
            unsafe {
                let word = private.add(done).cast::<u64>().read_unaligned();
                AtomicU64::from_ptr(shared.add(done).cast()).store(word, Relaxed);
            }
            done += 8;
        }
        return;
    }
    // SAFETY: 1. In each arm the length is the size of what is moved, and the shared address is a
    // multiple of it. 2. Valid for that length by the caller's promises 1 and 2. 3. The long copy
    // does not overlap by promise 3; concurrent accesses may see it in part, which callers allow.
    unsafe {
        match len {
            1 => AtomicU8::from_ptr(shared).store(private.read(), Relaxed),
            2 if address & 1 == 0 => AtomicU16::from_ptr(shared.cast())
                .store(private.cast::<u16>().read_unaligned(), Relaxed),
            4 if address & 3 == 0 => AtomicU32::from_ptr(shared.cast())
                .store(private.cast::<u32>().read_unaligned(), Relaxed),
            _ => ptr::copy_nonoverlapping(private, shared, len),
        }
    }
}
