//! Random operations. Each is read from five bytes, which are cheap to make by the million and shrink one
//! by one towards the plainest operation of the plainest family.

use palisade_ioasid::{Data, FaultCode, Limit, PasidRange, Priority, Quota};
use palisade_units::{Bdf, GuestPasid, HostPasid, PASID_COUNT, TenantId};
use proptest::prelude::*;

use crate::ops::{CAPACITY, Habit, Op, Pick};

/// At most so many operations on one authority.
const LONGEST: usize = 2000;

/// How often each family of operations is asked for, beside the others.
#[derive(Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) sets: u8,
    pub(crate) ids: u8,
    pub(crate) holds: u8,
    pub(crate) guests: u8,
    pub(crate) limits: u8,
    pub(crate) customs: u8,
    pub(crate) listeners: u8,
}

pub(crate) fn sequences(mix: Mix) -> impl Strategy<Value = Vec<Op>> {
    let dice = any::<(u8, u8, u8, u8, u8)>();
    prop::collection::vec(dice.prop_map(move |dice| op(mix, dice)), 1..=LONGEST)
}

/// What the operands of an operation are read from: which of the list it is about, and two more.
struct Dice {
    which: u8,
    one: u8,
    two: u8,
}

/// An operation, and how often it is asked for beside the others of its family.
type Face = (u8, fn(Dice) -> Op);

const SETS: &[Face] = &[
    (5, |dice| Op::CreateSet(dice.tenant(), dice.quota())),
    (5, |dice| {
        Op::CreateSetIn(dice.pick(), dice.tenant(), dice.quota())
    }),
    (1, |dice| Op::ShareSet(dice.pick())),
    (3, |dice| Op::DropSet(dice.pick())),
    (1, |dice| Op::Close(dice.pick())),
    (4, |dice| Op::Adjust(dice.pick(), dice.adjusted())),
];

const IDS: &[Face] = &[
    (20, |dice| Op::Alloc(dice.pick(), dice.range())),
    (6, |dice| Op::Free(dice.pick(), dice.host())),
    (1, |dice| Op::FreeRange(dice.pick(), dice.range())),
    (3, |dice| Op::SetData(dice.pick(), dice.host(), dice.data())),
    (4, |dice| Op::Look(dice.pick(), dice.host())),
    (2, |dice| Op::Owned(dice.pick(), dice.range())),
];

const HOLDS: &[Face] = &[
    (8, |dice| Op::Hold(dice.pick(), dice.host())),
    (1, |dice| Op::CloneHold(dice.pick())),
    (2, |dice| Op::DropHold(dice.pick())),
    (2, |dice| Op::Put(dice.pick())),
    (5, |dice| Op::Bind(dice.pick(), dice.place())),
    (1, |dice| Op::HoldOfMark(dice.pick())),
    (5, |dice| Op::Unbind(dice.pick())),
    (1, |dice| {
        Op::Fault(dice.host(), dice.place(), FaultCode::new(dice.which))
    }),
    (1, |dice| {
        let reason = FaultCode::new(dice.which);
        Op::FaultOf(dice.tenant(), dice.host(), dice.place(), reason)
    }),
];

const GUESTS: &[Face] = &[
    (5, |dice| Op::Attach(dice.pick(), dice.guest(), dice.host())),
    (1, |dice| Op::Detach(dice.pick(), dice.guest())),
    (2, |dice| Op::FindGuest(dice.pick(), dice.guest())),
];

const LIMITS: &[Face] = &[
    (4, |dice| Op::CreateGroup(dice.pick(), dice.limit())),
    (2, |dice| Op::RemoveGroup(dice.pick())),
    (3, |dice| Op::SetGroupMax(dice.pick(), dice.limit())),
    (2, |dice| Op::GroupUsage(dice.pick())),
    (3, |dice| Op::Reserve(dice.range())),
    (3, |dice| Op::Unreserve(usize::from(dice.which % 4))),
];

const CUSTOMS: &[Face] = &[
    (2, |_| Op::Quiet),
    (5, |dice| Op::Register(usize::from(dice.which % 3))),
    (2, |dice| Op::Unregister(usize::from(dice.which % 3))),
];

const LISTENERS: &[Face] = &[
    (1, |dice| Op::Listen(dice.priority(), dice.habit())),
    (2, |dice| {
        Op::ListenToSet(dice.pick(), dice.priority(), dice.habit())
    }),
    (3, |dice| Op::Unlisten(dice.pick())),
];

fn op(mix: Mix, (family, kind, which, one, two): (u8, u8, u8, u8, u8)) -> Op {
    let families = [
        (mix.ids, IDS),
        (mix.sets, SETS),
        (mix.holds, HOLDS),
        (mix.guests, GUESTS),
        (mix.limits, LIMITS),
        (mix.customs, CUSTOMS),
        (mix.listeners, LISTENERS),
    ];
    let read = weighted(weighted(&families, family), kind);
    read(Dice { which, one, two })
}

/// The choice that a byte falls on.
fn weighted<T: Copy>(choices: &[(u8, T)], byte: u8) -> T {
    let total: u8 = choices.iter().map(|choice| choice.0).sum();
    let mut rest = byte % total;
    for (weight, choice) in choices {
        match rest.checked_sub(*weight) {
            None => return *choice,
            Some(less) => rest = less,
        }
    }
    unreachable!("{rest} is left of {total}")
}

impl Dice {
    fn pick(&self) -> Pick {
        // Mostly one of the newest two.
        usize::from(if self.which < 192 {
            self.which % 2
        } else {
            self.which % 16
        })
    }

    fn tenant(&self) -> TenantId {
        TenantId::new(u32::from(self.one % 3))
    }

    fn quota(&self) -> Quota {
        match self.two {
            0..=170 => Quota::Exactly(small(self.two)),
            171..=199 => Quota::Exactly(u32::MAX),
            _ => Quota::AllThatIsLeft,
        }
    }

    fn adjusted(&self) -> u32 {
        match self.one {
            250.. => u32::MAX,
            one => small(one),
        }
    }

    fn host(&self) -> HostPasid {
        let number = match self.one {
            248.. => PASID_COUNT - 1,
            one => small(one),
        };
        HostPasid::new(number).unwrap()
    }

    fn guest(&self) -> GuestPasid {
        let number = match self.two {
            200.. => PASID_COUNT - 1,
            two => u32::from(two % 4),
        };
        GuestPasid::new(number).unwrap()
    }

    fn place(&self) -> Bdf {
        Bdf::new(0, self.two % 3, 0)
    }

    fn data(&self) -> Option<Data> {
        (self.two % 2 == 1).then_some(Data(self.two.into()))
    }

    fn range(&self) -> PasidRange {
        match self.one {
            0..=49 => PasidRange::ALL,
            50..=99 => PasidRange::only(small(self.two)),
            one => PasidRange {
                min: end(one - 100),
                max: end(self.two),
            },
        }
    }

    fn limit(&self) -> Limit {
        match self.one {
            0..=99 => Limit::Unlimited,
            one => Limit::Max(small(one)),
        }
    }

    fn habit(&self) -> Habit {
        match self.two {
            200.. => Habit::LetsGo,
            _ => Habit::Stays,
        }
    }

    fn priority(&self) -> Priority {
        match self.one % 4 {
            0 => Priority::Cpu,
            1 => Priority::Iommu,
            2 => Priority::Device,
            _ => Priority::Last,
        }
    }
}

/// A number that can be given out, or one beside those.
fn small(byte: u8) -> u32 {
    u32::from(byte) % (CAPACITY + 2)
}

/// An end of a range, now and then far beyond.
fn end(byte: u8) -> u32 {
    match byte {
        150..=153 => PASID_COUNT - 1,
        154 => PASID_COUNT,
        155 | 255 => u32::MAX,
        byte => small(byte),
    }
}
