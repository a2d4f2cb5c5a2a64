use palisade_units::GuestPasid;
use zerocopy::FromZeros;

use crate::numbers::ByPasid;
use crate::{PasidState, Timestamp};

/// A word that its owner attaches to a PASID. The authority passes it on and does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Data(pub u64);

/// What is kept for one PASID that is out, beside its owner. 24 bytes, all of them in the steady state of
/// a PASID that is bound in one place.
#[derive(FromZeros)]
pub(crate) struct Record {
    /// When it was allocated, in nanoseconds of the authority's clock.
    since_nanos: u64,
    pub(crate) references: u32,
    /// The guest's number and one, or 0 for none.
    guest: u32,
    /// Where it stands in its set's list.
    pub(crate) listed_at: u32,
    /// A function in whose table it is, where `entries` is not 0.
    pub(crate) place: u16,
    /// How often it is there. There may be more, see [`Bindings`](crate::bindings::Bindings).
    pub(crate) entries: u16,
}

const _: () = assert!(size_of::<Record>() == 24);

impl Record {
    pub(crate) fn new(since: Timestamp, listed_at: u32) -> Self {
        Self {
            since_nanos: since.as_nanos(),
            references: 0,
            guest: 0,
            listed_at,
            place: 0,
            entries: 0,
        }
    }

    pub(crate) fn since(&self) -> Timestamp {
        Timestamp::from_nanos(self.since_nanos)
    }

    /// The guest's name for it. Once the PASID is freed this is a label only: the pair is gone.
    pub(crate) fn guest(&self) -> Option<GuestPasid> {
        GuestPasid::new(self.guest.checked_sub(1)?).ok()
    }

    pub(crate) fn set_guest(&mut self, guest: Option<GuestPasid>) {
        self.guest = guest.map_or(0, |guest| guest.get() + 1);
    }

    /// Where the PASID is in its life, unless it was freed.
    pub(crate) fn state(&self) -> PasidState {
        match self.references {
            0 => PasidState::Idle,
            _ => PasidState::Active,
        }
    }
}

/// The record of each PASID. What stands there of one that is free means nothing.
pub(crate) type Records = ByPasid<Record>;
