//! A guest process: an address space with a PASID, pages that appear on first use, and a page of
//! completion records.

use crate::{
    buffer::Buffer, error::DriverError, guest::Guest, page_table::Rights, pattern::Pattern,
    physical::Frame, space::AddressSpace,
};
use palisade_units::{Access, Gpa, GuestPasid, Iova, PAGE_BYTES, PageSize};

/// Where a process sees its completion records.
const RECORDS_AT: Iova = Iova::new(0x1000_0000);
/// The length of a completion record, which is also its alignment.
pub(crate) const RECORD_BYTES: u64 = 32;
/// How many completion records a process has.
pub(crate) const RECORD_COUNT: u64 = PAGE_BYTES / RECORD_BYTES;

/// What a page holds when it appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros.
    Zeros,
    /// The part of a pattern that belongs at the page's distance from the start of its range.
    Pattern(Pattern),
}

/// A range whose pages are taken and mapped when a device first asks for them.
#[derive(Clone, Copy, Debug)]
struct LazyRange {
    at: Iova,
    len_bytes: u64,
    content: Content,
    rights: Rights,
}

/// Which of a process's completion records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordSlot(u64);

/// A process of the guest.
#[derive(Debug)]
pub struct Process {
    pasid: GuestPasid,
    space: AddressSpace,
    lazy: Vec<LazyRange>,
    /// Frames that the process owns itself: its records and the pages that appeared.
    frames: Vec<Frame>,
    records: Gpa,
    free_records: Vec<RecordSlot>,
}

impl Process {
    /// A process that has nothing but its completion records. Nothing is bound yet.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`].
    pub fn new(guest: &mut Guest, pasid: GuestPasid) -> Result<Self, DriverError> {
        let mut space = AddressSpace::new(guest)?;
        let records = guest.take_zeroed(PageSize::Size4K)?;
        space.map(guest, RECORDS_AT, records, Rights::ReadWrite)?;
        Ok(Self {
            pasid,
            space,
            lazy: Vec::new(),
            frames: vec![records],
            records: records.at,
            free_records: (0..RECORD_COUNT).map(RecordSlot).collect(),
        })
    }

    /// Its PASID.
    #[must_use]
    pub fn pasid(&self) -> GuestPasid {
        self.pasid
    }

    /// Its addresses.
    #[must_use]
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Its addresses, to be changed. Who takes something away invalidates.
    pub fn space_mut(&mut self) -> &mut AddressSpace {
        &mut self.space
    }

    /// Maps a whole buffer, which stays the caller's.
    ///
    /// # Errors
    /// As [`AddressSpace::map_buffer`].
    pub fn map(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        buffer: &Buffer,
        rights: Rights,
    ) -> Result<(), DriverError> {
        self.space.map_buffer(guest, at, buffer, rights)
    }

    /// Declares pages that [`Process::page_in`] makes when they are asked for.
    ///
    /// # Errors
    /// [`DriverError::BadRange`] unless the range is whole pages; [`DriverError::Mapped`] where it meets another such range.
    pub fn declare(
        &mut self,
        at: Iova,
        len_bytes: u64,
        content: Content,
        rights: Rights,
    ) -> Result<(), DriverError> {
        let bad = |why| DriverError::BadRange { at, len_bytes, why };
        if len_bytes == 0 || at.page_offset() != 0 || !len_bytes.is_multiple_of(PAGE_BYTES) {
            return Err(bad("it is not whole pages"));
        }
        let end = at
            .checked_add(len_bytes)
            .ok_or_else(|| bad("it goes past the end of all addresses"))?;
        let meets =
            |range: &&LazyRange| range.at < end && at.get() < range.at.get() + range.len_bytes;
        if let Some(range) = self.lazy.iter().find(meets) {
            return Err(DriverError::Mapped { at: range.at });
        }
        self.lazy.push(LazyRange {
            at,
            len_bytes,
            content,
            rights,
        });
        Ok(())
    }

    /// Makes the page at `at` present if the process declared it and may do `access` there; says whether it
    /// is there now.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`].
    pub fn page_in(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        access: Access,
    ) -> Result<Presence, DriverError> {
        let page = at.page_base();
        let allowed = |rights| match rights {
            Rights::ReadWrite => true,
            Rights::ReadOnly => !access.contains(Access::WRITE),
            Rights::Kernel => false,
        };
        if let Some(leaf) = self.space.walk(guest, page)? {
            // Another request for the same page was answered meanwhile.
            let there = allowed(leaf.rights);
            return Ok(if there {
                Presence::Present
            } else {
                Presence::Refused
            });
        }
        let inside =
            |range: &&LazyRange| page >= range.at && page.get() - range.at.get() < range.len_bytes;
        let Some(range) = self.lazy.iter().find(inside).copied() else {
            return Ok(Presence::Refused);
        };
        if !allowed(range.rights) {
            return Ok(Presence::Refused);
        }
        let frame = guest.take_zeroed(PageSize::Size4K)?;
        self.frames.push(frame);
        if let Content::Pattern(pattern) = range.content {
            let mut bytes = [0; 4096];
            pattern.fill(page.get() - range.at.get(), &mut bytes);
            guest.write(frame.at, &bytes)?;
        }
        self.space.map(guest, page, frame, range.rights)?;
        Ok(Presence::Present)
    }

    /// Takes a completion record, cleared; `None` when all are in use.
    pub(crate) fn take_record(&mut self, guest: &Guest) -> Result<Option<RecordSlot>, DriverError> {
        let Some(slot) = self.free_records.pop() else {
            return Ok(None);
        };
        guest.write(self.record_place(slot), &[0; 32])?;
        Ok(Some(slot))
    }

    /// Gives a completion record back.
    pub(crate) fn give_record_back(&mut self, slot: RecordSlot) {
        self.free_records.push(slot);
    }

    /// Where the process sees a completion record.
    pub(crate) fn record_at(slot: RecordSlot) -> Iova {
        Iova::new(RECORDS_AT.get() + slot.0 * RECORD_BYTES)
    }

    /// Where a completion record stands in the guest's memory.
    pub(crate) fn record_place(&self, slot: RecordSlot) -> Gpa {
        Gpa::new(self.records.get() + slot.0 * RECORD_BYTES)
    }

    /// Gives tables, records and pages that appeared back to the guest. No unit may know of the process any more.
    pub fn release(self, guest: &mut Guest) {
        self.space.release(guest);
        for frame in self.frames {
            guest.give_back(frame);
        }
    }
}

/// Whether a page is there after a page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The access may be tried again.
    Present,
    /// The process has no such page, or may not do that with it.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn process(guest: &mut Guest) -> Process {
        Process::new(guest, GuestPasid::new(5).unwrap()).unwrap()
    }

    #[test]
    fn r62_a_declared_page_appears_once_it_is_asked_for() {
        let mut guest = Guest::new(8 * MIB).unwrap();
        let mut process = process(&mut guest);
        let at = Iova::new(0x5000_0000);
        let content = Content::Pattern(Pattern(3));
        process
            .declare(at, 0x4000, content, Rights::ReadOnly)
            .unwrap();
        let second = Iova::new(0x5000_1234);
        assert_eq!(process.space().walk(&guest, second).unwrap(), None);
        let there = process.page_in(&mut guest, second, Access::READ).unwrap();
        assert_eq!(there, Presence::Present);
        let mut bytes = [0; 4096];
        process
            .space()
            .read(&guest, second.page_base(), &mut bytes)
            .unwrap();
        assert_eq!(Pattern(3).difference(0x1000, &bytes), None);
        assert_eq!(process.space().walk(&guest, at).unwrap(), None);
    }

    #[test]
    fn r62_what_was_never_declared_or_may_not_be_written_is_refused() {
        let mut guest = Guest::new(8 * MIB).unwrap();
        let mut process = process(&mut guest);
        let at = Iova::new(0x5000_0000);
        process
            .declare(at, 0x1000, Content::Zeros, Rights::ReadOnly)
            .unwrap();
        for (at, access) in [(0x5000_1000, Access::READ), (0x5000_0000, Access::WRITE)] {
            let there = process.page_in(&mut guest, Iova::new(at), access).unwrap();
            assert_eq!(there, Presence::Refused, "{at:#x}");
        }
        assert!(
            process
                .declare(at, 0x1000, Content::Zeros, Rights::ReadOnly)
                .is_err()
        );
    }

    #[test]
    fn completion_records_are_never_shared() {
        let mut guest = Guest::new(8 * MIB).unwrap();
        let mut process = process(&mut guest);
        let mut places = std::collections::BTreeSet::new();
        while let Some(slot) = process.take_record(&guest).unwrap() {
            assert!(places.insert(process.record_place(slot)));
            let (place, _) = (process.record_place(slot), slot);
            let leaf = process
                .space()
                .walk(&guest, Process::record_at(slot))
                .unwrap()
                .unwrap();
            assert_eq!(leaf.frame.at, place.page_base());
        }
        assert_eq!(places.len() as u64, RECORD_COUNT);
    }

    #[test]
    fn a_process_that_ends_leaves_no_frame_taken() {
        let mut guest = Guest::new(8 * MIB).unwrap();
        let before = guest.free_bytes();
        let mut process = process(&mut guest);
        let at = Iova::new(0x5000_0000);
        process
            .declare(at, 0x1000, Content::Zeros, Rights::ReadWrite)
            .unwrap();
        process.page_in(&mut guest, at, Access::WRITE).unwrap();
        process.release(&mut guest);
        assert_eq!(guest.free_bytes(), before);
    }
}
