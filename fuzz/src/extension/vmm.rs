//! The VMM behind our client: what answers a device, and writes down what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_units::{Access, Gpa, Iova, PAGE_BYTES};
use palisade_vfio_user::wire::pasid::{
    PageRequest, PageResponse, PasidCapability, Tag, Translation, Wanted,
};
use palisade_vfio_user::wire::{Command, MAX_DATA_BYTES};
use palisade_vfio_user::{Errno, PageAnswer, PasidHandler};

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) command: Command,
    pub(super) tag: Tag,
    pub(super) at: u64,
    pub(super) count: u64,
}

/// The handler, of which the hostile side has the log.
#[derive(Clone)]
pub(super) struct Vmm {
    agreed: PasidCapability,
    log: Arc<Mutex<VecDeque<Call>>>,
}

impl Vmm {
    pub(super) fn new(agreed: PasidCapability) -> Self {
        Self {
            agreed,
            log: Arc::default(),
        }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call, and says what comes of it: the space decides.
    fn note(&self, command: Command, tag: Tag, at: Iova, count: u64) -> Result<(), Errno> {
        self.check_tag(tag);
        assert!(count > 0 && at.checked_add(count - 1).is_some());
        self.log().push_back(Call {
            command,
            tag,
            at: at.get(),
            count,
        });
        outcome(tag, at.get())
    }

    fn check_tag(&self, tag: Tag) {
        let raw = tag.pasid.map_or(0, |pasid| pasid.get());
        assert_eq!(raw >> self.agreed.width, 0, "a PASID of too many bits");
        let modes = Access::PRIVILEGED | Access::EXECUTE;
        assert!(tag.pasid.is_some() || !tag.access.intersects(modes));
    }
}

/// What an access comes to: 6 is not a PASID of the device, and far away there is nothing.
pub(super) fn outcome(tag: Tag, at: u64) -> Result<(), Errno> {
    match tag.pasid.map(|pasid| pasid.get()) {
        None | Some(6) => Err(Errno::ACCESS),
        _ if at > 0x7f00_0000_0000 => Err(Errno::FAULT),
        _ => Ok(()),
    }
}

/// In the space of this PASID translations are no answers.
pub(super) const CONFUSED: u32 = 1;

/// When a group is answered.
pub(super) fn answer_to(group: u16) -> PageAnswer {
    if group.is_multiple_of(2) {
        PageAnswer::Later
    } else {
        PageAnswer::Now(PageResponse::Success)
    }
}

/// What stands at an address.
pub(super) fn byte_at(at: u64) -> u8 {
    let [low, high, ..] = at.to_le_bytes();
    low ^ high
}

impl PasidHandler for Vmm {
    fn read(&mut self, tag: Tag, at: Iova, into: &mut [u8]) -> Result<(), Errno> {
        assert!(into.len() <= MAX_DATA_BYTES as usize && !tag.access.contains(Access::WRITE));
        self.note(Command::PasidDmaRead, tag, at, into.len() as u64)?;
        for (into, at) in into.iter_mut().zip(at.get()..) {
            *into = byte_at(at);
        }
        Ok(())
    }

    fn write(&mut self, tag: Tag, at: Iova, data: &[u8]) -> Result<(), Errno> {
        assert!(data.len() <= MAX_DATA_BYTES as usize && !tag.access.contains(Access::READ));
        self.note(Command::PasidDmaWrite, tag, at, data.len() as u64)
    }

    /// Up to three pages.
    fn translate(&mut self, wanted: &Wanted) -> Result<Vec<Translation>, Errno> {
        assert!(self.agreed.max_invalidations > 0 && wanted.makes_sense());
        let (tag, at) = (wanted.tag, wanted.at);
        self.note(Command::PasidTranslate, tag, at, wanted.len_bytes)?;
        let is_confused = tag.pasid.is_some_and(|pasid| pasid.get() == CONFUSED);
        let from = u64::from(is_confused);
        let page = |n: u64| {
            let at = at.page_base().checked_add((n + from) * PAGE_BYTES)?;
            at.checked_add(PAGE_BYTES - 1)?;
            Some(Translation {
                at,
                len_bytes: PAGE_BYTES,
                permissions: Access::READ,
                translated: Some(Gpa::new(n * PAGE_BYTES)),
            })
        };
        let pages = (0..u64::from(wanted.max_ranges.min(3))).map_while(page);
        Ok(pages.collect())
    }

    fn page_request(&mut self, request: PageRequest) -> PageAnswer {
        assert!(request.makes_sense());
        for page in &request.pages {
            self.check_tag(Tag {
                pasid: request.pasid,
                access: page.access,
            });
        }
        answer_to(request.group)
    }
}
