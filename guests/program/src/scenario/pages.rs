//! Which pages of a buffer this process has, as the kernel tells it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::Context;

use crate::buffer::Buffer;

/// The size that the kernel counts in.
pub(super) const PAGE_BYTES: usize = 4096;

const PRESENT: u64 = 1 << 63;

/// How many pages of the first `len_bytes` of `buffer` are mapped now. Looking does not map them.
pub(super) fn present(buffer: &Buffer, len_bytes: usize) -> anyhow::Result<usize> {
    let map = File::open("/proc/self/pagemap").context("cannot open the page map")?;
    let first = buffer.address(0) / PAGE_BYTES as u64;
    let last = buffer.address(len_bytes.saturating_sub(1)) / PAGE_BYTES as u64;
    let mut present = 0;
    for page in first..=last {
        let mut entry = [0; 8];
        map.read_exact_at(&mut entry, page * 8)
            .context("cannot read the page map")?;
        if u64::from_le_bytes(entry) & PRESENT != 0 {
            present += 1;
        }
    }
    Ok(present)
}

/// Pages that new mappings of this system get.
#[derive(Debug, Clone, Copy)]
pub(super) enum PageSizes {
    /// Of 4 KiB alone.
    Small,
    /// Of 2 MiB where they fit.
    Large,
}

/// Chooses the pages of mappings made from now on.
pub(super) fn choose(sizes: PageSizes) -> anyhow::Result<()> {
    let word = match sizes {
        PageSizes::Small => "never",
        PageSizes::Large => "always",
    };
    fs::write("/sys/kernel/mm/transparent_hugepage/enabled", word)
        .context("cannot choose the size of pages")
}
