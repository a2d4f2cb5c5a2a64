use palisade_units::Iova;
use rustix::io::Errno;

use crate::wire::pasid::{PageRequest, PageResponse, Tag, Translation, Wanted};

/// What a VMM does with what a device asks in the name of a PASID. Called while the client takes in messages: in any
/// call that waits, and in [`crate::Client::poll_messages`].
///
/// PASIDs have no more bits than was agreed, ranges do not wrap, and data is no longer than a message may be: all
/// else is the VMM's to check. An errno that comes back is told to the device: EFAULT where there is no translation
/// for such an access, EACCES where the PASID is not one of the device's.
pub trait PasidHandler: Send {
    /// Reads, all or nothing.
    ///
    /// # Errors
    /// What the device is told.
    fn read(&mut self, tag: Tag, at: Iova, into: &mut [u8]) -> Result<(), Errno>;

    /// Writes, all or nothing.
    ///
    /// # Errors
    /// What the device is told.
    fn write(&mut self, tag: Tag, at: Iova, data: &[u8]) -> Result<(), Errno>;

    /// Translates: ranges of whole pages, one behind the other, the first with the address that is asked for; none
    /// where there is no translation. What may be kept is to be invalidated by [`crate::Client::invalidate`]
    /// before it changes. Where nobody says otherwise, there is none.
    ///
    /// # Errors
    /// What the device is told.
    fn translate(&mut self, wanted: &Wanted) -> Result<Vec<Translation>, Errno> {
        let _ = wanted;
        Ok(Vec::new())
    }

    /// Brings in pages, now or later. Where nobody says otherwise, there are none to be had.
    fn page_request(&mut self, request: PageRequest) -> PageAnswer {
        let _ = request;
        PageAnswer::Now(PageResponse::InvalidRequest)
    }
}

/// When a page request group is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAnswer {
    /// At once.
    Now(PageResponse),
    /// By [`crate::Client::respond_to_pages`].
    Later,
}
