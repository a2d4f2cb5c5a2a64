//! What the rooms know, as little of it as decides who reaches what.

/// How many PASIDs there are to give out.
pub(crate) const NUMBERS: usize = 2;
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Tenant {
    Alice,
    Bob,
}

impl Tenant {
    pub(crate) const ALL: [Self; 2] = [Self::Alice, Self::Bob];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// A PASID of the host, by its place among those that can be given out, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Number(pub(crate) usize);

impl Number {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..NUMBERS).map(Self)
    }
}

/// Where a number is in its life, as the authority says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    Free,
    Idle,
    Active,
    FreePending,
}

/// Whether a number that is out was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Freed {
    No,
    Yes,
}

/// What each room has written down of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Authority: it can be given out.
    pub(crate) is_free: bool,
    /// Authority: in whose sets it is, by [`Tenant::index`].
    pub(crate) in_set: [bool; 2],
    /// Authority: it was freed and waits for its last hold.
    pub(crate) freed: Freed,
    /// Authority: the counted references.
    pub(crate) holds: u8,
    /// Table: whose memory the entry leads to.
    pub(crate) entry: Option<Tenant>,
    /// Translation cache: whose memory the engine goes to without looking at the table.
    pub(crate) cached: Option<Tenant>,
    /// Page requests: who was asked for a page and did not answer yet.
    pub(crate) asked: Option<Tenant>,
}

impl Place {
    const NEW: Self = Self {
        is_free: true,
        in_set: [false; 2],
        freed: Freed::No,
        holds: 0,
        entry: None,
        cached: None,
        asked: None,
    };

    pub(crate) fn owner(&self) -> Option<Tenant> {
        let mut owners = Tenant::ALL.into_iter();
        owners.find(|tenant| self.in_set[tenant.index()])
    }

    /// Whether the tenant has it and may use it: what mediation and bind ask.
    pub(crate) fn is_live_for(&self, tenant: Tenant) -> bool {
        self.in_set[tenant.index()] && self.freed == Freed::No
    }

    pub(crate) fn state(&self) -> State {
        match (self.is_free, self.freed, self.holds) {
            (true, _, _) => State::Free,
            (false, Freed::Yes, _) => State::FreePending,
            (false, Freed::No, 0) => State::Idle,
            (false, Freed::No, _) => State::Active,
        }
    }
}

/// How far a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// In the queue, fresh or resumed.
    Queued,
    /// The engine has it, between two of its accesses.
    InHand,
    /// The engine has it, in an access that was translated to somebody's memory and touches it next.
    /// One that an invalidation overtook is stale: it ends as it began, but the cache does not keep it.
    InFlight { memory: Tenant, is_stale: bool },
    /// Put aside until a page request is answered.
    Parked,
}

/// A descriptor that is not finished. It carries a PASID of the host, put there by mediation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Work {
    pub(crate) by: Tenant,
    pub(crate) number: Number,
    pub(crate) stage: Stage,
}

impl Work {
    pub(crate) fn is_with_engine(&self) -> bool {
        matches!(self.stage, Stage::InHand | Stage::InFlight { .. })
    }
}

/// Whether a tenant's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    Alive,
    /// Its connection is gone; what it asked for last goes on to its end.
    Killed,
    /// Its queues were emptied; what it had is being taken back.
    Retired,
    /// Nothing is left to be done for it.
    Gone,
}

/// What a container does for its tenant, one thing at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Goal {
    Bind,
    Unbind,
    /// Of a number with an entry: unbind it, then give it back.
    FreeBound,
    FreeUnbound,
}

/// An operation in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    pub(crate) goal: Goal,
    pub(crate) number: Number,
    /// How many of its steps are done.
    pub(crate) done: usize,
}

/// What must never happen, noted when it does. All false in a sound world, where it costs no states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Broken {
    /// An access touched another tenant's memory than its submitter's.
    pub(crate) foreign_memory: bool,
    /// An access arrived by a number that had become another tenant's.
    pub(crate) late_access: bool,
    /// A response arrived at a number that had become another tenant's.
    pub(crate) late_response: bool,
    /// A reference was taken on a number that was free or freed.
    pub(crate) late_reference: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) places: [Place; NUMBERS],
    /// In no order that means anything, and therefore sorted.
    pub(crate) works: Vec<Work>,
    pub(crate) lives: [Life; 2],
    pub(crate) operations: [Option<Operation>; 2],
    pub(crate) broken: Broken,
    /// The number that became free last, and whose it was, until the next operation begins.
    pub(crate) reclaimed: Option<(Number, Tenant)>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            places: [Place::NEW; NUMBERS],
            works: Vec::new(),
            lives: [Life::Alive; 2],
            operations: [None; 2],
            broken: Broken::default(),
            reclaimed: None,
        }
    }

    pub(crate) fn place(&self, number: Number) -> &Place {
        &self.places[number.0]
    }

    pub(crate) fn place_mut(&mut self, number: Number) -> &mut Place {
        &mut self.places[number.0]
    }

    pub(crate) fn outstanding(&self, tenant: Tenant) -> usize {
        let has = |place: &&Place| place.in_set[tenant.index()];
        self.places.iter().filter(has).count()
    }

    pub(crate) fn lowest_free(&self) -> Option<Number> {
        Number::all().find(|number| self.place(*number).is_free)
    }

    pub(crate) fn life(&self, tenant: Tenant) -> Life {
        self.lives[tenant.index()]
    }

    pub(crate) fn operation(&self, tenant: Tenant) -> Option<Operation> {
        self.operations[tenant.index()]
    }

    pub(crate) fn works_of(&self, tenant: Tenant) -> impl Iterator<Item = &Work> {
        self.works.iter().filter(move |work| work.by == tenant)
    }

    pub(crate) fn in_flight(&self, number: Number) -> bool {
        let on =
            |work: &Work| work.number == number && matches!(work.stage, Stage::InFlight { .. });
        self.works.iter().any(on)
    }

    pub(crate) fn take_hold(&mut self, number: Number) {
        let place = self.place_mut(number);
        let late = place.is_free || place.freed == Freed::Yes;
        place.holds += 1;
        self.broken.late_reference |= late;
    }

    /// Drops a hold; the last one of a number that was freed gives the number back.
    pub(crate) fn drop_hold(&mut self, number: Number) {
        let place = self.place_mut(number);
        place.holds = place.holds.saturating_sub(1);
        self.reclaim_if_done(number);
    }

    pub(crate) fn free(&mut self, number: Number) {
        self.place_mut(number).freed = Freed::Yes;
        self.reclaim_if_done(number);
    }

    fn reclaim_if_done(&mut self, number: Number) {
        let place = self.place_mut(number);
        if place.freed == Freed::Yes && place.holds == 0 {
            let owner = place.owner();
            place.in_set = [false; 2];
            place.freed = Freed::No;
            place.is_free = true;
            self.reclaimed = owner.map(|owner| (number, owner));
        }
    }
}
