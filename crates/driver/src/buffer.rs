//! Memory of a process as frames: scattered small ones beside large ones, as a long-running system has it.

use crate::{error::DriverError, guest::Guest, physical::Frame};
use palisade_units::{Gpa, PAGE_BYTES, PageSize};

/// How the frames of a buffer are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// 4 KiB frames alone, scattered.
    Small,
    /// Every second 2 MiB is one large frame, the others are scattered 4 KiB frames.
    Mixed,
}

/// Frames that follow each other in virtual addresses, not in physical ones.
///
/// With [`Layout::Mixed`] the large frames stand at offsets that are multiples of 2 MiB, so that the buffer can be mapped
/// at any multiple of 2 MiB.
#[derive(Debug)]
pub struct Buffer {
    /// Each frame with its offset in the buffer, ascending.
    frames: Vec<(u64, Frame)>,
    len_bytes: u64,
}

impl Buffer {
    /// Takes zeroed frames for `len_bytes`, rounded up to whole 4 KiB.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`]; nothing is kept then.
    pub fn new(guest: &mut Guest, len_bytes: u64, layout: Layout) -> Result<Self, DriverError> {
        let mut buffer = Self {
            frames: Vec::new(),
            len_bytes: len_bytes.next_multiple_of(PAGE_BYTES),
        };
        match buffer.fill(guest, layout) {
            Ok(()) => Ok(buffer),
            Err(error) => {
                buffer.release(guest);
                Err(error)
            }
        }
    }

    /// The length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// The frames with their offsets, ascending.
    pub fn frames(&self) -> impl Iterator<Item = (u64, Frame)> + '_ {
        self.frames.iter().copied()
    }

    /// Where the byte at an offset stands, and how many bytes follow it in the same frame.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`] beyond the buffer's end.
    pub fn place(&self, offset: u64) -> Result<(Gpa, u64), DriverError> {
        let after = self.frames.partition_point(|(start, _)| *start <= offset);
        let inside = after
            .checked_sub(1)
            .and_then(|index| self.frames.get(index));
        match inside {
            Some((start, frame)) if offset - start < frame.size.bytes() => {
                let inside = offset - start;
                Ok((
                    Gpa::new(frame.at.get() + inside),
                    frame.size.bytes() - inside,
                ))
            }
            _ => Err(DriverError::OutsideMemory {
                at: Gpa::new(offset),
            }),
        }
    }

    /// Reads from an offset on, as the process would.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`] beyond the buffer's end.
    pub fn read(&self, guest: &Guest, offset: u64, into: &mut [u8]) -> Result<(), DriverError> {
        let mut done = 0;
        while done < into.len() {
            let (at, run) = self.place(offset + done as u64)?;
            let end = into
                .len()
                .min(done.saturating_add(usize::try_from(run).unwrap_or(usize::MAX)));
            guest.read(at, &mut into[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// Writes from an offset on, as the process would.
    ///
    /// # Errors
    /// [`DriverError::OutsideMemory`] beyond the buffer's end.
    pub fn write(&self, guest: &Guest, offset: u64, from: &[u8]) -> Result<(), DriverError> {
        let mut done = 0;
        while done < from.len() {
            let (at, run) = self.place(offset + done as u64)?;
            let end = from
                .len()
                .min(done.saturating_add(usize::try_from(run).unwrap_or(usize::MAX)));
            guest.write(at, &from[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// Gives the frames back. No table may lead to them any more.
    pub fn release(self, guest: &mut Guest) {
        for (_, frame) in self.frames {
            guest.give_back(frame);
        }
    }

    fn fill(&mut self, guest: &mut Guest, layout: Layout) -> Result<(), DriverError> {
        let large = PageSize::Size2M.bytes();
        for (number, start) in (0..self.len_bytes).step_by(1 << 21).enumerate() {
            let left = self.len_bytes - start;
            if layout == Layout::Mixed && number % 2 == 0 && left >= large {
                let frame = guest.take_zeroed(PageSize::Size2M)?;
                self.frames.push((start, frame));
            } else {
                self.fill_scattered(guest, start, left.min(large) / PAGE_BYTES)?;
            }
        }
        Ok(())
    }

    fn fill_scattered(
        &mut self,
        guest: &mut Guest,
        start: u64,
        pages: u64,
    ) -> Result<(), DriverError> {
        let first = self.frames.len();
        for page in 0..pages {
            let frame = guest.take_zeroed(PageSize::Size4K)?;
            self.frames.push((start + page * PAGE_BYTES, frame));
        }
        let taken: Vec<Frame> = self.frames[first..]
            .iter()
            .map(|(_, frame)| *frame)
            .collect();
        // A stride that has no divisor in common with the number of frames visits each of them once.
        let stride = [211, 199, 1]
            .into_iter()
            .find(|stride| !taken.len().is_multiple_of(*stride))
            .unwrap_or(1);
        for (index, slot) in self.frames[first..].iter_mut().enumerate() {
            slot.1 = taken[(index * stride + 1) % taken.len()];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_mixed_buffer_has_both_sizes_and_no_frame_twice() {
        let mut guest = Guest::new(16 * MIB).unwrap();
        let before = guest.free_bytes();
        let buffer = Buffer::new(&mut guest, 5 * MIB + 3, Layout::Mixed).unwrap();
        assert_eq!(buffer.len_bytes(), 5 * MIB + 4096);
        let sizes: BTreeSet<_> = buffer.frames().map(|(_, frame)| frame.size).collect();
        assert_eq!(sizes.len(), 2);
        let distinct: BTreeSet<_> = buffer.frames().map(|(_, frame)| frame.at).collect();
        assert_eq!(distinct.len(), buffer.frames().count());
        for (offset, frame) in buffer.frames() {
            assert_eq!(offset % frame.size.bytes(), 0);
        }
        buffer.release(&mut guest);
        assert_eq!(guest.free_bytes(), before);
    }

    #[test]
    fn what_is_written_across_frames_is_read_back() {
        let mut guest = Guest::new(16 * MIB).unwrap();
        let buffer = Buffer::new(&mut guest, 5 * MIB, Layout::Mixed).unwrap();
        let written: Vec<u8> = (0..3 * MIB).map(|i| (i % 251) as u8).collect();
        buffer.write(&guest, MIB + 7, &written).unwrap();
        let mut read = vec![0; written.len()];
        buffer.read(&guest, MIB + 7, &mut read).unwrap();
        assert!(written == read);
        assert!(buffer.write(&guest, 5 * MIB - 1, &[1, 2]).is_err());
    }

    #[test]
    fn a_buffer_that_does_not_fit_keeps_nothing() {
        let mut guest = Guest::new(8 * MIB).unwrap();
        let before = guest.free_bytes();
        assert!(Buffer::new(&mut guest, 9 * MIB, Layout::Mixed).is_err());
        assert_eq!(guest.free_bytes(), before);
    }
}
