//! The virtual addresses of one guest process.

use crate::{
    buffer::Buffer,
    error::DriverError,
    guest::Guest,
    page_table::{Leaf, PageTable, Rights},
    physical::Frame,
};
use palisade_units::{Gpa, Iova};

/// A process's address space: a page table and what a process does with it.
///
/// It owns its tables, not the frames: several spaces may map the same buffer.
#[derive(Debug)]
pub struct AddressSpace {
    table: PageTable,
}

impl AddressSpace {
    /// An empty space.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`].
    pub fn new(guest: &mut Guest) -> Result<Self, DriverError> {
        Ok(Self {
            table: PageTable::new(guest)?,
        })
    }

    /// The root of its page table, for a PASID entry.
    #[must_use]
    pub fn root(&self) -> Gpa {
        self.table.root()
    }

    /// Maps a whole buffer from `at` on, with pages as large as its frames.
    ///
    /// # Errors
    /// As [`PageTable::map`]; nothing stays mapped then.
    pub fn map_buffer(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        buffer: &Buffer,
        rights: Rights,
    ) -> Result<(), DriverError> {
        let mut done_bytes = 0;
        for (offset, frame) in buffer.frames() {
            let place = at.checked_add(offset).ok_or(DriverError::BadRange {
                at,
                len_bytes: buffer.len_bytes(),
                why: "it goes past the end of all addresses",
            });
            let mapped = place.and_then(|place| self.table.map(guest, place, frame, rights));
            if let Err(error) = mapped {
                if done_bytes > 0 {
                    self.table.unmap(guest, at, done_bytes)?;
                }
                return Err(error);
            }
            done_bytes = offset + frame.size.bytes();
        }
        Ok(())
    }

    /// Maps one frame.
    ///
    /// # Errors
    /// As [`PageTable::map`].
    pub fn map(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        frame: Frame,
        rights: Rights,
    ) -> Result<(), DriverError> {
        self.table.map(guest, at, frame, rights)
    }

    /// Takes a range away; invalidate afterwards.
    ///
    /// # Errors
    /// As [`PageTable::unmap`].
    pub fn unmap(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        len_bytes: u64,
    ) -> Result<(), DriverError> {
        self.table.unmap(guest, at, len_bytes)
    }

    /// Changes the rights of a range; invalidate afterwards.
    ///
    /// # Errors
    /// As [`PageTable::protect`].
    pub fn protect(
        &mut self,
        guest: &mut Guest,
        at: Iova,
        len_bytes: u64,
        rights: Rights,
    ) -> Result<(), DriverError> {
        self.table.protect(guest, at, len_bytes, rights)
    }

    /// What stands at an address.
    ///
    /// # Errors
    /// As [`PageTable::walk`].
    pub fn walk(&self, guest: &Guest, at: Iova) -> Result<Option<Leaf>, DriverError> {
        self.table.walk(guest, at)
    }

    /// Reads what the process sees from `at` on.
    ///
    /// # Errors
    /// [`DriverError::NotMapped`] at the first page that is not there.
    pub fn read(&self, guest: &Guest, at: Iova, into: &mut [u8]) -> Result<(), DriverError> {
        let mut done = 0;
        while done < into.len() {
            let (place, run) = self.place(guest, at, done)?;
            let end = into.len().min(done.saturating_add(run));
            guest.read(place, &mut into[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// Writes what the process sees from `at` on, whatever the pages' rights.
    ///
    /// # Errors
    /// [`DriverError::NotMapped`] at the first page that is not there; what stands before it is written.
    pub fn write(&self, guest: &Guest, at: Iova, from: &[u8]) -> Result<(), DriverError> {
        let mut done = 0;
        while done < from.len() {
            let (place, run) = self.place(guest, at, done)?;
            let end = from.len().min(done.saturating_add(run));
            guest.write(place, &from[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// Gives the tables back; no unit may walk them any more.
    pub fn release(self, guest: &mut Guest) {
        self.table.release(guest);
    }

    /// Where the byte `offset` bytes after `at` stands, and how many bytes follow it in its page.
    fn place(&self, guest: &Guest, at: Iova, offset: usize) -> Result<(Gpa, usize), DriverError> {
        let here = at
            .checked_add(offset as u64)
            .ok_or(DriverError::NotMapped { at })?;
        let leaf = self
            .table
            .walk(guest, here)?
            .ok_or(DriverError::NotMapped { at: here })?;
        let inside = here.get() & (leaf.frame.size.bytes() - 1);
        let run = usize::try_from(leaf.frame.size.bytes() - inside).unwrap_or(usize::MAX);
        Ok((Gpa::new(leaf.frame.at.get() + inside), run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Layout;

    const MIB: u64 = 1 << 20;

    #[test]
    fn r3_two_processes_see_one_buffer_at_their_own_addresses() {
        let mut guest = Guest::new(16 * MIB).unwrap();
        let buffer = Buffer::new(&mut guest, 4 * MIB, Layout::Mixed).unwrap();
        let mut one = AddressSpace::new(&mut guest).unwrap();
        let mut two = AddressSpace::new(&mut guest).unwrap();
        let (first, second) = (Iova::new(0x4000_0000), Iova::new(0x7fff_0000_0000));
        one.map_buffer(&mut guest, first, &buffer, Rights::ReadWrite)
            .unwrap();
        two.map_buffer(&mut guest, second, &buffer, Rights::ReadOnly)
            .unwrap();
        let text: Vec<u8> = (0..2 * MIB).map(|i| (i % 253) as u8).collect();
        let inside = first.checked_add(MIB + 5).unwrap();
        one.write(&guest, inside, &text).unwrap();
        let mut seen = vec![0; text.len()];
        two.read(&guest, second.checked_add(MIB + 5).unwrap(), &mut seen)
            .unwrap();
        assert!(seen == text);
        assert!(matches!(
            two.read(&guest, first, &mut seen),
            Err(DriverError::NotMapped { .. })
        ));
    }

    #[test]
    fn a_buffer_that_meets_a_mapped_page_is_mapped_not_at_all() {
        let mut guest = Guest::new(16 * MIB).unwrap();
        let buffer = Buffer::new(&mut guest, 4 * MIB, Layout::Mixed).unwrap();
        let mut space = AddressSpace::new(&mut guest).unwrap();
        let frame = guest.take_zeroed(palisade_units::PageSize::Size4K).unwrap();
        space
            .map(&mut guest, Iova::new(3 * MIB), frame, Rights::ReadOnly)
            .unwrap();
        assert!(
            space
                .map_buffer(&mut guest, Iova::new(0), &buffer, Rights::ReadOnly)
                .is_err()
        );
        assert_eq!(space.walk(&guest, Iova::new(0)).unwrap(), None);
        assert!(space.walk(&guest, Iova::new(3 * MIB)).unwrap().is_some());
    }
}
