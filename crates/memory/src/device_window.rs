//! A device's registers or portal, mapped into this process.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping of the start of a device file, reached by volatile loads and stores only.
///
/// Each access is one access of exactly its width, in program order, which is what registers and
/// portals ask for. Nothing here knows what the words mean.
///
/// Offsets are the caller's own constants: one that is misaligned or beyond the mapping is a bug
/// and panics, as an index beyond a slice does.
#[derive(Debug)]
pub struct DeviceWindow {
    base: NonNull<u8>,
    len_bytes: usize,
}

impl DeviceWindow {
    /// Maps the first `len_bytes` of `file`, for reading too where the file was opened for it.
    ///
    /// # Errors
    /// What the kernel says of the mapping; `InvalidInput` for a length of zero.
    pub fn map(file: &File, len_bytes: usize) -> io::Result<Self> {
        if len_bytes == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a device window cannot be empty",
            ));
        }
        // A portal is often opened for writing alone, and then refuses to be mapped for reading.
        let readable = rustix::fs::fcntl_getfl(file)?.contains(rustix::fs::OFlags::RDWR);
        let protection = match readable {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::WRITE,
        };
        // SAFETY: (1) the address is the kernel's choice, so no mapping of this process is
        // replaced; (2) the descriptor is open for the length of the call.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len_bytes,
                protection,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let base = NonNull::new(base.cast::<u8>())
            .ok_or_else(|| io::Error::other("the kernel mapped the device at address zero"))?;
        Ok(Self { base, len_bytes })
    }

    /// The length asked for, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Stores eight bytes at `offset_bytes`, a multiple of eight.
    pub fn store_u64(&self, offset_bytes: usize, value: u64) {
        let at = self.at::<u64>(offset_bytes);
        // What the program wrote before, the device may read as soon as it sees this store.
        fence(Ordering::Release);
        // SAFETY: `at` is inside the mapping and aligned (checked above); the mapping lives as
        // long as `self`; no Rust reference to these bytes exists.
        unsafe { at.write_volatile(value) }
    }

    /// Stores four bytes at `offset_bytes`, a multiple of four.
    pub fn store_u32(&self, offset_bytes: usize, value: u32) {
        let at = self.at::<u32>(offset_bytes);
        fence(Ordering::Release);
        // SAFETY: as in `store_u64`.
        unsafe { at.write_volatile(value) }
    }

    /// Loads eight bytes from `offset_bytes`, a multiple of eight. The file must have been opened
    /// for reading and writing.
    #[must_use]
    pub fn load_u64(&self, offset_bytes: usize) -> u64 {
        let at = self.at::<u64>(offset_bytes);
        // SAFETY: as in `store_u64`; every bit pattern is a `u64`.
        let value = unsafe { at.read_volatile() };
        fence(Ordering::Acquire);
        value
    }

    /// Loads four bytes from `offset_bytes`, a multiple of four. The file must have been opened
    /// for reading and writing.
    #[must_use]
    pub fn load_u32(&self, offset_bytes: usize) -> u32 {
        let at = self.at::<u32>(offset_bytes);
        // SAFETY: as in `load_u64`.
        let value = unsafe { at.read_volatile() };
        fence(Ordering::Acquire);
        value
    }

    fn at<T>(&self, offset_bytes: usize) -> *mut T {
        let width = size_of::<T>();
        assert!(
            offset_bytes.is_multiple_of(width)
                && offset_bytes
                    .checked_add(width)
                    .is_some_and(|end| end <= self.len_bytes),
            "an access of {width} bytes at {offset_bytes:#x} is misaligned or beyond the window's \
             {:#x} bytes",
            self.len_bytes
        );
        // SAFETY: the offset is inside the mapping of `len_bytes` bytes, by the check above.
        unsafe { self.base.add(offset_bytes).cast::<T>().as_ptr() }
    }
}

// SAFETY: the window owns its mapping, which belongs to the process and not to a thread.
unsafe impl Send for DeviceWindow {}
// SAFETY: accesses are volatile, of at most eight aligned bytes, and no reference into the
// mapping is ever given out; what concurrent accesses mean is the device's to say, as it is
// between processes that map the same device.
unsafe impl Sync for DeviceWindow {}

impl Drop for DeviceWindow {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this address and length, and nothing refers to it now.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len_bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours cannot be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    fn page() -> File {
        let file = File::from(
            rustix::fs::memfd_create("window", rustix::fs::MemfdFlags::CLOEXEC).unwrap(),
        );
        (&file).write_all(&[0; 4096]).unwrap();
        file
    }

    #[test]
    fn stores_reach_the_file_and_loads_see_it() {
        let file = page();
        let window = DeviceWindow::map(&file, 4096).unwrap();
        window.store_u64(8, 0x1122_3344_5566_7788);
        window.store_u32(4092, 0xAABB_CCDD);
        let mut word = [0; 8];
        file.read_exact_at(&mut word, 8).unwrap();
        assert_eq!(u64::from_le_bytes(word), 0x1122_3344_5566_7788);
        file.write_all_at(&7u32.to_le_bytes(), 12).unwrap();
        assert_eq!(window.load_u32(12), 7);
        assert_eq!(window.load_u64(8), 0x0000_0007_5566_7788);
        assert_eq!(window.load_u32(4092), 0xAABB_CCDD);
    }

    #[test]
    fn an_empty_window_is_refused() {
        let error = DeviceWindow::map(&page(), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    #[should_panic(expected = "beyond the window")]
    fn an_access_beyond_the_window_panics() {
        DeviceWindow::map(&page(), 4096).unwrap().store_u64(4096, 0);
    }
}
