//! What the device behind our server asks, and what it must come to.

use palisade_units::Iova;
use palisade_vfio_user::wire::Command;
use palisade_vfio_user::wire::pasid::{
    PageResponse, PasidCapability, Tag, Translation, Wanted, WantedPage,
};
use palisade_vfio_user::{AskError, PeerHandle, Pending, Translated};

use arbitrary::{Result, Unstructured};

use super::answer::{Answer, Outcome, Question};
use super::device::{Device, Kept};
use super::socket::LIMIT;
use super::values::{access, address, len_bytes, one_of, pasid, tag};

/// What a device wants to know.
pub(super) enum Ask {
    Read(Tag, Iova, usize),
    Write(Tag, Iova, Vec<u8>),
    Translate(Wanted),
    Pages(Option<palisade_units::GuestPasid>, Vec<WantedPage>),
}

/// What is to come.
pub(super) enum Coming {
    Read(Pending<Vec<u8>>),
    Write(Pending<()>),
    Translate(Pending<Translated>, Wanted),
    Pages(Pending<PageResponse>),
}

/// More than a message carries is as good as anything more.
const MOST_BYTES: u64 = 0x1_0001;

impl Ask {
    /// One of the four kinds.
    pub(super) fn any(kind: u8, input: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match kind {
            0 => Self::Read(tag(input)?, Iova::new(address(input)?), len(input)?),
            1 => {
                let (tag, at) = (tag(input)?, Iova::new(address(input)?));
                Self::Write(tag, at, vec![0xa5; len(input)?])
            }
            2 => Self::Translate(Wanted {
                tag: tag(input)?,
                at: Iova::new(address(input)?),
                len_bytes: len_bytes(input)?,
                max_ranges: one_of(&[1, 2, 512, 0, 513], input)?,
            }),
            _ => {
                let raw = pasid(input)?;
                let (access, named) = access(input)?;
                let at = Iova::new(address(input)?);
                let count = one_of(&[1, 2, 64, 0, 65], input)?;
                Self::Pages(named.then(raw), vec![WantedPage { at, access }; count])
            }
        })
    }

    pub(super) fn command(&self) -> Command {
        match self {
            Self::Read(..) => Command::PasidDmaRead,
            Self::Write(..) => Command::PasidDmaWrite,
            Self::Translate(_) => Command::PasidTranslate,
            Self::Pages(..) => Command::PasidPageRequest,
        }
    }

    /// Whether this part of the extension was agreed to.
    pub(super) fn is_agreed(&self, agreed: &PasidCapability) -> bool {
        match self {
            Self::Read(..) | Self::Write(..) => true,
            Self::Translate(_) => agreed.max_invalidations > 0,
            Self::Pages(..) => agreed.max_page_groups > 0,
        }
    }

    pub(super) fn make(&self, peer: &PeerHandle) -> std::result::Result<Coming, AskError> {
        match self {
            Self::Read(tag, at, len) => peer.read_tagged(*tag, *at, *len).map(Coming::Read),
            Self::Write(tag, at, data) => peer.write_tagged(*tag, *at, data).map(Coming::Write),
            Self::Translate(wanted) => peer
                .translate(*wanted)
                .map(|it| Coming::Translate(it, *wanted)),
            Self::Pages(pasid, pages) => peer.request_pages(*pasid, pages).map(Coming::Pages),
        }
    }
}

fn len(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::try_from(len_bytes(input)?.min(MOST_BYTES)).unwrap_or(0))
}

/// What the device has asked.
pub(super) struct Asked {
    pub(super) question: Question,
    /// `None` where nobody is interested any more.
    pub(super) coming: Option<Coming>,
    /// What it was answered, and how many invalidations had been taken in by then.
    pub(super) answered: Option<(Outcome, usize)>,
}

impl Asked {
    /// Whether the asker has what was answered, and nothing where nothing was; what may be kept goes to the device.
    pub(super) fn check(&self, device: &Device) {
        let Some(coming) = &self.coming else {
            return;
        };
        let (got, kept) = match coming {
            Coming::Read(it) => (it.poll().map(|it| it.map(Answer::Data)), None),
            Coming::Write(it) => (it.poll().map(|it| it.map(|()| Answer::Written)), None),
            Coming::Pages(it) => (it.poll().map(|it| it.map(Answer::Pages)), None),
            Coming::Translate(it, wanted) => match it.poll() {
                Some(Ok(it)) => (
                    Some(Ok(ranges(it.ranges(), wanted))),
                    Some((it, wanted.tag.pasid)),
                ),
                Some(Err(e)) => (Some(Err(e)), None),
                None => (None, None),
            },
        };
        let (expected, epoch) = match &self.answered {
            Some((expected, epoch)) => (Some(expected.clone()), *epoch),
            None => (None, 0),
        };
        let expected = expected.map(|it| it.map_err(AskError::Refused));
        assert_eq!(got, expected, "{:?}", self.question.command);
        if let Some((answer, pasid)) = kept {
            device.state().kept.push(Kept {
                answer,
                pasid,
                epoch,
            });
        }
    }

    /// The connection is over: who waits is told.
    pub(super) fn end(mut self, device: &Device) {
        if self.answered.is_some() {
            self.check(device);
            return;
        }
        let end = match self.coming.take() {
            None => return,
            Some(Coming::Read(it)) => it.wait(LIMIT).err(),
            Some(Coming::Write(it)) => it.wait(LIMIT).err(),
            Some(Coming::Pages(it)) => it.wait(LIMIT).err(),
            Some(Coming::Translate(it, _)) => it.wait(LIMIT).err(),
        };
        assert!(matches!(end, Some(AskError::Gone(_))), "{end:?}");
    }
}

fn ranges(ranges: &[Translation], wanted: &Wanted) -> Answer {
    use palisade_vfio_user::wire::pasid::Ranges;
    Answer::Ranges(Ranges::new(ranges.to_vec(), wanted).expect("what was taken in"))
}
