use std::sync::Arc;

use palisade_memory::{DirtyError, DirtyRange, GuestMemory};
use palisade_units::{Gpa, PAGE_BYTES};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::session::{has_room, starts_with};
use crate::{
    ClientMemory,
    wire::{
        FeatureRequest, LoggingControl, LoggingRange, LoggingReport, MAX_DATA_BYTES,
        MAX_LOGGING_RANGES,
    },
};

/// The log of what the function writes, as a peer has started it. Ends with the peer.
pub(crate) struct WriteLog {
    memory: Arc<dyn ClientMemory>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    On,
}

impl WriteLog {
    pub(crate) fn new(memory: Arc<dyn ClientMemory>) -> Self {
        let state = State::Off;
        Self { memory, state }
    }

    /// Whether writes to the peer's memory can be logged.
    pub(crate) fn is_offered(&self) -> bool {
        self.memory.dirty_log().is_some()
    }

    fn log(&self) -> Result<&GuestMemory, Errno> {
        self.memory.dirty_log().ok_or(Errno::NOTTY)
    }

    /// Starts to log, whatever the ranges: they are for who logs at a cost. Appends the data of the reply to `out`.
    pub(crate) fn start(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        let (control, ranges) = starts_with::<LoggingControl>(data)?;
        check_ranges(&control, ranges)?;
        self.log()?
            .start_dirty_log()
            .map_err(palisade_memory::DirtyError::errno)?;
        self.state = State::On;
        // Writes are logged by pages of this size, whatever is wished.
        let page_bytes = PAGE_BYTES.into();
        let reply = LoggingControl {
            page_bytes,
            ..control
        };
        out.extend_from_slice(reply.as_bytes());
        out.extend_from_slice(ranges);
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        if self.state == State::On
            && let Ok(log) = self.log()
        {
            log.stop_dirty_log();
        }
        self.state = State::Off;
    }

    /// Takes out of the log what was written in a range, and appends the whole payload of the reply to `out`.
    /// Nothing is taken out where it does not fit into the reply.
    pub(crate) fn report(
        &self,
        request: &FeatureRequest,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let (report, _) = starts_with::<LoggingReport>(data)?;
        if self.state == State::Off {
            return Err(DirtyError::NotStarted.errno());
        }
        let at = Gpa::new(report.address.get());
        let range = DirtyRange::new(at, report.len_bytes.get(), report.page_bytes.get())
            .map_err(DirtyError::errno)?;
        let bitmap_bytes = match u32::try_from(range.bitmap_bytes()) {
            Ok(bytes) if bytes <= MAX_DATA_BYTES => bytes,
            _ => return Err(Errno::TOOBIG),
        };
        let argsz = FeatureRequest::ARGSZ + LoggingReport::ARGSZ + bitmap_bytes;
        has_room(request.argsz.get(), argsz)?;
        let bitmap = self.log()?.take_dirty(range).map_err(DirtyError::errno)?;
        let reply = FeatureRequest {
            argsz: argsz.into(),
            ..*request
        };
        out.extend_from_slice(reply.as_bytes());
        out.extend_from_slice(report.as_bytes());
        out.extend_from_slice(bitmap.as_bytes());
        Ok(())
    }
}

impl Drop for WriteLog {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Refuses what VFIO refuses: ranges that are not made of pages of the size that is wished, overlap or are too many.
fn check_ranges(control: &LoggingControl, ranges: &[u8]) -> Result<(), Errno> {
    let (page_bytes, count) = (control.page_bytes.get(), control.ranges.get());
    if count > MAX_LOGGING_RANGES {
        return Err(Errno::TOOBIG);
    }
    let (ranges, odd) = ranges.as_chunks::<{ LoggingRange::BYTES }>();
    if !page_bytes.is_power_of_two() || !odd.is_empty() || ranges.len() != count as usize {
        return Err(Errno::INVAL);
    }
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        let range = LoggingRange::read_from_bytes(range).map_err(|_| Errno::INVAL)?;
        let (start, len_bytes) = (range.address.get(), range.len_bytes.get());
        if !(start | len_bytes).is_multiple_of(page_bytes) {
            return Err(Errno::INVAL);
        }
        let to_last = len_bytes.checked_sub(1).ok_or(Errno::INVAL)?;
        parts.push((start, start.checked_add(to_last).ok_or(Errno::OVERFLOW)?));
    }
    parts.sort_unstable();
    let overlap = |pair: &[(u64, u64)]| matches!(pair, [(_, last), (next, _)] if next <= last);
    if parts.windows(2).any(overlap) {
        return Err(Errno::INVAL);
    }
    Ok(())
}
