//! Finds the present entries of a function's PASID tables, at a cost bounded by what is present.

use palisade_iommu::FaultProcessing;
use palisade_units::{GuestPasid, PAGE_BYTES};

use super::{Found, Tables, context_fpd, fpd, interpret};
use crate::spec::context::{ContextEntry, ContextFlags};
use crate::spec::pasid_table::{DirectoryEntry, PASIDS_OF_TABLE, PASIDS_OF_TABLE_BITS, PasidEntry};

const ENTRY_BYTES: usize = 64;
const PAGE: usize = 4096;
/// How many directory entries a page holds.
const ENTRIES_OF_PAGE: u32 = 512;
const _: () = {
    assert!(ENTRY_BYTES as u64 == PasidEntry::BYTES);
    assert!(PAGE as u64 == PAGE_BYTES);
    assert!(ENTRIES_OF_PAGE as u64 * DirectoryEntry::BYTES == PAGE_BYTES);
};

/// How much a scan looked at: one for each page of directory or table.
pub(crate) type Pages = u32;

impl Tables<'_> {
    /// Calls `each` with every well-formed entry of a function for requests with a PASID.
    ///
    /// A directory of the largest size has 32 pages and 16384 tables of one page each, which is the
    /// bound, whatever the guest put there: the same table may stand there many times.
    pub(crate) fn scan(
        self,
        context: ContextEntry,
        mut each: impl FnMut(GuestPasid, Found),
    ) -> Pages {
        if !context.flags().contains(ContextFlags::PASID) {
            return 0;
        }
        let entries = context.directory_size().entries();
        let mut pages = 0;
        for first in (0..entries).step_by(ENTRIES_OF_PAGE as usize) {
            let offset = u64::from(first) * DirectoryEntry::BYTES;
            let len = u64::from(entries.min(ENTRIES_OF_PAGE)) * DirectoryEntry::BYTES;
            let Some(at) = context.directory().checked_add(offset) else {
                break;
            };
            let mut page = [0; PAGE];
            let part = &mut page[..usize::try_from(len).unwrap_or(PAGE).min(PAGE)];
            pages += 1;
            if self.memory.read(at, part).is_err() {
                continue;
            }
            for (index, word) in (first..).zip(part.chunks_exact(8)) {
                let entry = DirectoryEntry::from_bits(word_of(word));
                if entry.present() && entry.reserved_is_zero() {
                    pages += 1;
                    self.scan_table(context, index, entry, &mut each);
                }
            }
        }
        pages
    }

    fn scan_table(
        self,
        context: ContextEntry,
        index: u32,
        directory: DirectoryEntry,
        each: &mut impl FnMut(GuestPasid, Found),
    ) {
        let processing = fpd(&[
            context_fpd(context) == FaultProcessing::Disabled,
            directory.fault_processing_disable(),
        ]);
        let mut page = [0; PAGE];
        if self.memory.read(directory.table(), &mut page).is_err() {
            return;
        }
        for (low, entry) in (0..PASIDS_OF_TABLE).zip(page.chunks_exact(ENTRY_BYTES)) {
            // Most entries are not present: one look at the first byte is enough for them.
            if entry[0] & 1 == 0 {
                continue;
            }
            let Ok(pasid) = GuestPasid::new(index << PASIDS_OF_TABLE_BITS | low) else {
                continue;
            };
            if pasid == context.rid_pasid() {
                continue;
            }
            // The page was copied piecemeal; an entry is read once, in whole words.
            let offset = PasidEntry::offset_of(pasid);
            let Some(words) = self.words(directory.table(), offset) else {
                continue;
            };
            if let Ok(found) = interpret(PasidEntry::from_words(words), context, processing) {
                each(pasid, found);
            }
        }
    }
}

/// The 8 bytes of a chunk as a number.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    for (into, byte) in word.iter_mut().zip(bytes) {
        *into = *byte;
    }
    u64::from_le_bytes(word)
}
