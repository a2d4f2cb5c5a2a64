//! The allocators of one's own that both sides are given: what they choose, and the books they keep.

use std::collections::BTreeSet;

use palisade_ioasid::{Instance, Notification, PasidRange};
use palisade_units::HostPasid;

use crate::ops::CAPACITY;

/// Whose numbers are one space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Chooses the highest number of a range that it does not have out.
    Highest,
    /// Goes round all numbers and beyond, whatever the range, and now and then has none.
    Stubborn,
}

/// Those that can be registered.
pub(crate) const ALLOCATORS: [(Space, Instance); 3] = [
    (Space::Highest, Instance(1)),
    (Space::Highest, Instance(2)),
    (Space::Stubborn, Instance(1)),
];

/// What the operations of a space remember.
#[derive(Debug)]
pub(crate) struct Book {
    space: Space,
    out: BTreeSet<HostPasid>,
    asked: u32,
}

impl Book {
    pub(crate) fn new(space: Space) -> Self {
        Self {
            space,
            out: BTreeSet::new(),
            asked: 0,
        }
    }

    pub(crate) fn choose(&mut self, range: PasidRange) -> Option<HostPasid> {
        let numbers = (range.min..=range.max.min(CAPACITY)).rev();
        let mut pasids = numbers.map(|number| HostPasid::new(number).unwrap());
        let found = match self.space {
            Space::Highest => pasids.find(|pasid| !self.out.contains(pasid))?,
            Space::Stubborn => {
                self.asked += 1;
                let number = Some(self.asked % (CAPACITY + 3)).filter(|n| *n < CAPACITY + 2);
                HostPasid::new(number?).unwrap()
            }
        };
        self.out.insert(found);
        Some(found)
    }

    pub(crate) fn take_back(&mut self, pasid: HostPasid) {
        self.out.remove(&pasid);
    }

    /// Starts again: what it has out is forgotten.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.space);
    }
}

/// A call that the authority made, to a listener or to an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The listener with this number was told of a transition.
    Listener(u32, Notification),
    /// An allocator was asked for a number.
    Asked(Space, Instance, PasidRange),
    /// An allocator got a number back.
    Returned(Space, Instance, HostPasid),
}
