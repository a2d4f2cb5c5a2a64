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

/// Copies `len` bytes within shared memory, as if by way of a buffer. May tear, as a device's burst may.
///
/// # Safety
/// 1. `from` is mapped for reading over `len` bytes, and `to` for writing, until this returns.
/// 2. No reference to either exists.
#[inline]
pub(crate) unsafe fn between_shared(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if wide::suits(from, to, len) {
        // SAFETY: 1. As the caller promises (1, 2). 2. The processor has the instructions, and the ranges
        // lie so that ascending order does (`suits`).
        unsafe { wide::copy(from, to, len) };
        return;
    }
    // SAFETY: 1. Both are valid over `len` bytes by the caller's promise 1, and may overlap. 2. No
    // reference is made or invalidated (2); concurrent accesses may tear it, which callers allow.
    unsafe { ptr::copy(from, to, len) };
}

/// A copy of a page by the widest registers.
///
/// The platform's `memmove` copies so much by one string instruction, which the processor cannot begin before
/// it knows the addresses for certain: looking them up is then added to every copy. Loads and stores begin
/// while the copy before them still runs.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod wide {
    use std::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_storeu_si512};
    use std::ops::RangeInclusive;
    use std::ptr;

    /// For how many bytes it is the faster one. Longer copies wait for memory, and for nothing that comes before
    /// or after them.
    const BYTES: RangeInclusive<usize> = 512..=8 << 10;
    const REGISTER_BYTES: usize = 64;
    const TURN_BYTES: usize = 4 * REGISTER_BYTES;

    /// Whether it is worth while, and the processor can, at full speed (those before Ice Lake, which lack this extension, clock
    /// down for wide registers), and may begin at the low end.
    #[inline]
    pub(super) fn suits(from: *const u8, to: *mut u8, len: usize) -> bool {
        BYTES.contains(&len)
            && to.addr().wrapping_sub(from.addr()) >= len
            && is_x86_feature_detected!("avx512vbmi2")
    }

    /// # Safety
    /// 1. `from` may be read over `len` bytes, and `to` written; no reference to either exists.
    /// 2. The processor has AVX-512 F, and `to` is not inside the `len` bytes after `from`, unless below.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
        let whole = len - len % TURN_BYTES;
        let mut done = 0;
        while done < whole {
            // SAFETY: 1. `done + TURN_BYTES <= len`, so all stay inside what the caller promises (1).
            // 2. All loads of a turn come before its stores, and turns ascend: nothing that is yet to be
            // read is overwritten, by promise 2.
            unsafe {
                let from: *const __m512i = from.add(done).cast();
                let to: *mut __m512i = to.add(done).cast();
                let turn = [
                    _mm512_loadu_si512(from),
                    _mm512_loadu_si512(from.add(1)),
                    _mm512_loadu_si512(from.add(2)),
                    _mm512_loadu_si512(from.add(3)),
                ];
                _mm512_storeu_si512(to, turn[0]);
                _mm512_storeu_si512(to.add(1), turn[1]);
                _mm512_storeu_si512(to.add(2), turn[2]);
                _mm512_storeu_si512(to.add(3), turn[3]);
            }
            done += TURN_BYTES;
        }
        if done < len {
            // SAFETY: the rest of both ranges (1), which may overlap.
            unsafe { ptr::copy(from.add(done), to.add(done), len - done) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way in which two ranges can lie, around the lengths at which the means change.
    #[test]
    fn a_copy_within_is_as_if_by_way_of_a_buffer() {
        const AT: usize = 9 << 10;
        let lengths = [1, 511, 512, 513, 767, 768, 1024, 4095, 4096, 8192, 8193];
        let shifts = [
            0_usize, 1, 8, 63, 64, 255, 256, 300, 512, 4096, 8191, 8192, 9000,
        ];
        let image: Vec<u8> = (0..3 * AT).map(|at| (at % 251).to_le_bytes()[0]).collect();
        for len in lengths {
            for (from, to) in shifts.iter().flat_map(|by| [(AT, AT + by), (AT, AT - by)]) {
                let mut expected = image.clone();
                expected.copy_within(from..from + len, to);
                let mut memory = image.clone();
                let base = memory.as_mut_ptr();
                // SAFETY: 1. Both ranges are inside `memory`. 2. No reference to it is used meanwhile.
                unsafe { between_shared(base.add(from).cast_const(), base.add(to), len) };
                assert!(memory == expected, "{len} bytes from {from} to {to}");
            }
        }
    }
}
