//! What answers a question, by the proposal's text.

use palisade_vfio_user::Errno;
use palisade_vfio_user::wire::pasid::{
    PageEntry, PageGroup, PageResponse, PasidCapability, Ranges, Tag, TaggedAccess, Wanted,
};
use palisade_vfio_user::wire::{Command, Header, MAX_DATA_BYTES};
use zerocopy::FromBytes;

/// One of the four commands of a server.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) header: Header,
    pub(super) command: Command,
    pub(super) payload: Vec<u8>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Data(Vec<u8>),
    Written,
    Ranges(Ranges),
    Pages(PageResponse),
}

/// What a refusal or a payload that fits says.
pub(super) type Outcome = Result<Answer, Errno>;

impl Question {
    /// What an answer with this payload says; `None` where it does not fit.
    pub(super) fn answer(&self, payload: &[u8]) -> Option<Answer> {
        let head = self.payload.get(..TaggedAccess::BYTES);
        match self.command {
            Command::PasidDmaRead => {
                let (echo, data) = payload.split_at_checked(TaggedAccess::BYTES)?;
                let fits = Some(echo) == head && data.len() as u64 == self.count();
                fits.then(|| Answer::Data(data.to_vec()))
            }
            Command::PasidDmaWrite => (Some(payload) == head).then_some(Answer::Written),
            Command::PasidTranslate => {
                let wanted = self.wanted()?;
                let ranges = Ranges::parse(payload, &wanted).ok()?;
                check(&ranges, &wanted);
                Some(Answer::Ranges(ranges))
            }
            Command::PasidPageRequest => {
                let words = <[[u8; 4]; 2]>::ref_from_bytes(payload).ok()?;
                let [group, code] = words.map(u32::from_ne_bytes);
                let response = PageResponse::from_raw(code)?;
                (group == self.group()?).then_some(Answer::Pages(response))
            }
            _ => None,
        }
    }

    /// How many bytes an access is about.
    pub(super) fn count(&self) -> u64 {
        let access = TaggedAccess::read_from_prefix(&self.payload);
        access.map_or(0, |(access, _)| access.count.get())
    }

    pub(super) fn wanted(&self) -> Option<Wanted> {
        Wanted::parse(&self.payload, 20).ok()
    }

    pub(super) fn group(&self) -> Option<u32> {
        let head = PageGroup::read_from_prefix(&self.payload);
        head.ok().map(|(head, _)| head.group.get())
    }

    /// That our server may send this where so much was agreed.
    pub(super) fn check(&self, agreed: &PasidCapability, max_data_bytes: u64) {
        match self.command {
            Command::PasidDmaRead | Command::PasidDmaWrite => {
                let (access, data) =
                    TaggedAccess::read_from_prefix(&self.payload).expect("a whole head");
                let tag = Tag::from_raw(access.pasid, access.access, agreed.width);
                let count = access.count.get();
                let is_write = self.command == Command::PasidDmaWrite;
                let kind = access.access.get() & if is_write { 7 } else { 3 };
                assert_eq!(kind, if is_write { 2 } else { 1 });
                assert!(tag.is_ok() && access.address.get().checked_add(count - 1).is_some());
                assert!(count <= max_data_bytes.min(MAX_DATA_BYTES.into()));
                assert_eq!(data.len() as u64, if is_write { count } else { 0 });
            }
            Command::PasidTranslate => {
                assert!(agreed.max_invalidations > 0);
                assert!(Wanted::parse(&self.payload, agreed.width).is_ok());
            }
            Command::PasidPageRequest => {
                let (head, rest) = PageGroup::read_from_prefix(&self.payload).expect("a head");
                let pages = <[PageEntry]>::ref_from_bytes(rest).expect("whole pages");
                assert_eq!(head.count.get() as usize, pages.len());
                assert!((1..=64).contains(&pages.len()) && head.group.get() < 512);
                for page in pages {
                    let access = page.access.get() | head.flags.get();
                    let tag = Tag::from_raw(head.pasid, access.into(), agreed.width);
                    assert!(tag.is_ok() && page.address.get() % 4096 == 0);
                }
            }
            other => panic!("our server sends {other:?}"),
        }
    }
}

/// The ranges are in order and without a gap, and the first has the address.
fn check(ranges: &Ranges, wanted: &Wanted) {
    let ranges = ranges.as_slice();
    assert!(ranges.len() as u64 <= wanted.max_ranges.into());
    let Some(first) = ranges.first() else {
        return;
    };
    let at = u128::from(wanted.at.get());
    let mut next = u128::from(first.at.get());
    assert!((next..next + u128::from(first.len_bytes)).contains(&at));
    for range in ranges {
        assert_eq!(u128::from(range.at.get()), next);
        assert!(range.len_bytes > 0 && range.len_bytes % 4096 == 0);
        next += u128::from(range.len_bytes);
    }
    assert!(next <= 1 << 64);
}
