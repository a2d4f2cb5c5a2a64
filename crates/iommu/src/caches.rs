//! A port's private caches, and the way of a miss through them.
//!
//! Four kinds, as a unit in hardware has them (VT-d §6.2): translations, tables of pages, what a PASID
//! is bound to, and the tenant's regions. All stand under the generation of their tag. They are
//! looked at within an access in flight, after [`Caches::refresh`] has forgotten what was
//! invalidated.

use palisade_memory::{Kept, KeptSnapshot, MemoryError, Place, Reach};
use palisade_units::{Access, Gpa, Iova, PAGE_BYTES, PageSize, PasidTag};

use crate::FaultReason;
use crate::cached::{Ats, Cached, DeviceTlb, Keeper};
use crate::entry::User;
use crate::function::Function;
use crate::journal::{BUCKETS, Bucket, Generation, Generations, Known, Removal, Whose};
use crate::resolve::{Blocked, refusal_of};
use crate::space::{Space, SupervisorRequests};
use crate::tlb::{Epoch, Found, Key, Kind, Line, Tlb};
use crate::upper::{Table, Upper};
use crate::walk::{self, FirstLeaf, Leaf, LeafTable, Prefix, Refusal, Rights};

/// How many snapshots of memory and regions are kept before all caches start anew.
const CROWD: usize = 4096;

/// What a port knows of the tags that share a generation.
struct Local {
    seen: Generation,
    unit: Share,
    device: Share,
    /// What one of the tags is bound to.
    context: Option<Context>,
}

/// What is cached of them by one keeper. Tables are the unit's.
#[derive(Clone, Copy)]
struct Share {
    epoch: Epoch,
    extent: Extent,
}

impl Share {
    const NEW: Self = Self {
        epoch: Epoch(Epoch::NEVER.0 + 1),
        extent: Extent::Whole,
    };
}

impl Local {
    const NEW: Self = Self {
        seen: Generation::NEVER,
        unit: Share::NEW,
        device: Share::NEW,
        context: None,
    };

    #[inline]
    const fn share(&self, keeper: Keeper) -> &Share {
        match keeper {
            Keeper::Unit => &self.unit,
            Keeper::Device => &self.device,
        }
    }

    const fn share_mut(&mut self, keeper: Keeper) -> &mut Share {
        match keeper {
            Keeper::Unit => &mut self.unit,
            Keeper::Device => &mut self.device,
        }
    }

    /// Whether some pages cannot be forgotten alone.
    fn has_pieces(&self, cached: Cached) -> bool {
        let has = |keeper| cached.includes(keeper) && self.share(keeper).extent == Extent::Pieces;
        has(Keeper::Unit) || has(Keeper::Device)
    }
}

/// Whether what is cached of a page is one line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// It is.
    Whole,
    /// There may be pieces, all of which go with one address of the page.
    Pieces,
}

/// What a tag is bound to.
struct Context {
    whose: Whose,
    space: Space,
    device_tlb: DeviceTlb,
    supervisor: SupervisorRequests,
    /// What its first stage says of pages, if the space has one and nothing else.
    first: Option<FirstLeaf>,
    memory: KeptSnapshot,
}

/// An address that is looked for.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) tag: Option<PasidTag>,
    pub(crate) at: Iova,
    pub(crate) access: Access,
    pub(crate) ats: Ats,
}

impl Request {
    #[inline]
    fn prefix(&self) -> Prefix {
        match self.tag {
            Some(_) => Prefix::Pasid,
            None => Prefix::None,
        }
    }

    /// What keeps a tag's requests of its kind from being looked at any further (VT-d §7.1.3: SCT.5, SPT.6).
    fn refused_by(
        &self,
        device_tlb: DeviceTlb,
        supervisor: SupervisorRequests,
    ) -> Option<FaultReason> {
        let privileged = self.tag.is_some() && self.access.contains(Access::PRIVILEGED);
        if (self.ats, device_tlb) == (Ats::On, DeviceTlb::Blocked)
            && !walk::is_interrupt(self.at, self.prefix())
        {
            Some(FaultReason::DeviceTlbDisabled)
        } else if privileged && supervisor == SupervisorRequests::Refused {
            // A request to execute ends in SPT.5 before, where there is no first stage.
            let fetches = self.access.contains(Access::EXECUTE);
            (!fetches).then_some(FaultReason::SupervisorRequestDisabled)
        } else {
            None
        }
    }
}

impl Context {
    /// Whether it is what a request is served by.
    #[inline]
    fn serves(&self, request: Request) -> bool {
        self.whose == Whose::of(request.tag)
            && request
                .refused_by(self.device_tlb, self.supervisor)
                .is_none()
    }
}

/// The private caches of a port.
pub(crate) struct Caches {
    locals: Box<[Local; BUCKETS]>,
    reads: Tlb,
    writes: Tlb,
    upper: Upper,
    kept: Kept,
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            locals: Box::new([const { Local::NEW }; BUCKETS]),
            reads: Tlb::new(),
            writes: Tlb::new(),
            upper: Upper::new(),
            kept: Kept::new(),
        }
    }

    /// Forgets what was invalidated of a tag. To be called within each access in flight, for each of
    /// its tags, before any key is made and anything looked up.
    #[inline]
    pub(crate) fn refresh(&mut self, generations: &Generations, tag: Option<PasidTag>) {
        let bucket = Whose::of(tag).bucket();
        let now = generations.current(bucket);
        if self.locals[bucket.index()].seen != now {
            self.catch_up(generations, bucket, now);
        }
    }

    /// What lines of a kind must agree with.
    #[inline]
    pub(crate) fn key(&self, tag: Option<PasidTag>, kind: Kind) -> Key {
        let local = &self.locals[Whose::of(tag).bucket().index()];
        let epoch = local.share(kind.keeper()).epoch;
        Key { kind, epoch }
    }

    /// What tables of a key's tag must agree with.
    #[inline]
    fn of_tables(&self, key: Key) -> Key {
        let whose = key.kind.whose();
        Key {
            kind: Kind::of_tables(whose),
            epoch: self.locals[whose.bucket().index()].unit.epoch,
        }
    }

    #[cold]
    #[inline(never)]
    fn catch_up(&mut self, generations: &Generations, bucket: Bucket, now: Generation) {
        if self.is_crowded() {
            self.reset();
        }
        let seen = self.locals[bucket.index()].seen;
        let known = generations.between(bucket, seen, now, |removal| self.remove(bucket, removal));
        if known == Known::No {
            self.drop_all(bucket, Cached::Everywhere);
        }
        self.locals[bucket.index()].seen = now;
    }

    fn remove(&mut self, bucket: Bucket, Removal { cached, pages }: Removal) {
        match pages {
            Some(pages) if !self.locals[bucket.index()].has_pieces(cached) => {
                self.reads.remove(pages, cached);
                self.writes.remove(pages, cached);
                if cached.includes_tables() {
                    self.upper.remove(pages);
                }
            }
            _ => self.drop_all(bucket, cached),
        }
    }

    /// Forgets everything of a bucket in some caches.
    fn drop_all(&mut self, bucket: Bucket, cached: Cached) {
        let local = &mut self.locals[bucket.index()];
        local.context = None;
        for keeper in [Keeper::Unit, Keeper::Device] {
            if !cached.includes(keeper) {
                continue;
            }
            let share = self.locals[bucket.index()].share_mut(keeper);
            share.extent = Extent::Whole;
            match share.epoch.0.checked_add(1) {
                Some(next) => share.epoch = Epoch(next),
                // Lines of the first epochs may be there yet.
                None => self.reset(),
            }
        }
    }

    /// Forgets everything. No [`Found`] of before means anything afterwards.
    fn reset(&mut self) {
        self.reads.clear();
        self.writes.clear();
        self.upper.clear();
        self.kept.let_go();
        for local in self.locals.iter_mut() {
            let seen = local.seen;
            *local = Local { seen, ..Local::NEW };
        }
    }

    fn is_crowded(&self) -> bool {
        self.kept.len() > CROWD
    }

    /// Lets go of memory that only translations lead to which were invalidated.
    pub(crate) fn forget_stale(&mut self, generations: &Generations) {
        for bucket in Bucket::all() {
            let now = generations.current(bucket);
            if self.locals[bucket.index()].seen != now {
                self.catch_up(generations, bucket, now);
            }
        }
        // What a tag is bound to is soon known again, and is the same.
        for local in self.locals.iter_mut() {
            local.context = None;
        }
        let Self {
            locals,
            reads,
            writes,
            upper,
            kept,
        } = self;
        let lines = reads.lines().chain(writes.lines()).chain(upper.lines());
        let current = lines.filter(|line| {
            let kind = line.kind();
            let local = &locals[kind.whose().bucket().index()];
            line.epoch() == local.share(kind.keeper()).epoch
        });
        kept.let_go_except(current.map(Line::place));
    }

    #[inline]
    fn tlb(&mut self, access: Access) -> &mut Tlb {
        if access.contains(Access::WRITE) {
            &mut self.writes
        } else {
            &mut self.reads
        }
    }

    /// Asks for the entry by which an address will be translated, if its table is known.
    #[inline]
    pub(crate) fn fetch_ahead(&self, key: Key, at: Iova) {
        if let Some(table) = self.upper.find(self.of_tables(key), at.get()) {
            let entry = table.place.after(walk::leaf_offset_bytes(at.get()));
            self.kept.prefetch(entry);
        }
    }

    /// The memory at an address, if its translation is cached.
    // A call would hand over what was found by way of memory, which costs more than to find it.
    #[inline(always)]
    pub(crate) fn cached(&self, key: Key, at: Iova, access: Access) -> Option<Found> {
        if access.contains(Access::WRITE) {
            self.writes.find(key, at)
        } else {
            self.reads.find(key, at)
        }
    }

    /// The memory at an address, from the caches or else by the tables.
    #[inline]
    pub(crate) fn find(
        &mut self,
        function: &Function,
        key: Key,
        request: Request,
    ) -> Result<Found, Box<Blocked>> {
        match self.cached(key, request.at, request.access) {
            Some(found) => Ok(found),
            None => self.miss(function, key, request),
        }
    }

    /// The memory that was found, or a part of it.
    #[inline]
    pub(crate) fn reach(&self, found: Found, len_bytes: u64) -> Result<Reach<'_>, MemoryError> {
        self.kept.reach(found.place, len_bytes)
    }

    #[inline(never)]
    fn miss(
        &mut self,
        function: &Function,
        key: Key,
        request: Request,
    ) -> Result<Found, Box<Blocked>> {
        if let Some(found) = self.step(key, request) {
            return Ok(found);
        }
        let Request {
            tag, at, access, ..
        } = request;
        let local = &self.locals[Whose::of(tag).bucket().index()];
        let known = local.context.as_ref();
        if known.is_some_and(|context| context.serves(request))
            && let Ok((page, size)) = self.walk(key, request)
        {
            return Ok(self.put(key, request, page, size));
        }
        // What refuses a request is what it is bound to at this moment.
        let (page, size) = function.with_user(tag, at, access, |user| {
            let binding = &user.binding;
            let supervisor = binding.supervisor_of_space();
            if let Some(reason) = request.refused_by(binding.device_tlb, supervisor) {
                return Err(reason.into());
            }
            self.adopt(tag, user);
            self.walk(key, request)
        })?;
        Ok(self.put(key, request, page, size))
    }

    #[inline]
    fn put(&mut self, key: Key, request: Request, page: Place, size: PageSize) -> Found {
        self.tlb(request.access).put(key, request.at, page, size);
        Found::within(page, request.at, size)
    }

    /// Notes what a tag is bound to.
    fn adopt(&mut self, tag: Option<PasidTag>, user: &User) {
        let binding = &user.binding;
        let memory = self.kept.keep(&binding.memory.snapshot());
        if self.is_crowded() {
            // Not now: something that was found may be in use. The next access starts anew.
            for local in self.locals.iter_mut() {
                local.seen = Generation::NEVER;
            }
        }
        let whose = Whose::of(tag);
        let first = match binding.space {
            Space::FirstStage(stage) => Some(FirstLeaf::new(stage)),
            Space::Nested(..) | Space::SecondStage(_) | Space::PassThrough => None,
        };
        self.locals[whose.bucket().index()].context = Some(Context {
            whose,
            space: binding.space,
            device_tlb: binding.device_tlb,
            supervisor: binding.supervisor_of_space(),
            first,
            memory,
        });
    }

    /// The memory at an address that is not cached, if one step by tables that were walked through before
    /// leads there. `None` whenever there is anything to be said of it.
    // As of `cached`, and what a request is worked out to be is worked out already.
    #[inline(always)]
    pub(crate) fn step(&mut self, key: Key, request: Request) -> Option<Found> {
        let page = self.last_step(key, request)?;
        Some(self.put(key, request, page, PageSize::Size4K))
    }

    #[inline(always)]
    fn last_step(&mut self, key: Key, request: Request) -> Option<Place> {
        let Request {
            tag, at, access, ..
        } = request;
        let whose = Whose::of(tag);
        let context = self.locals[whose.bucket().index()].context.as_ref()?;
        if !context.serves(request) || walk::is_interrupt(at, request.prefix()) {
            return None;
        }
        let (page, memory) = if let Some(first) = &context.first {
            let (rights, entry) = self.entry(self.of_tables(key), at.get())?;
            (first.page(rights, entry, access)?, &context.memory)
        } else {
            let page = self.last_step_behind(key, whose, at, access)?;
            let context = self.locals[whose.bucket().index()].context.as_ref()?;
            (page, &context.memory)
        };
        if walk::meets_interrupt_range(page, PageSize::Size4K) {
            return None;
        }
        let place = self.kept.find(*memory, page, PAGE_BYTES).ok()?;
        let suits = !access.contains(Access::WRITE) || {
            let reach = self.kept.reach(place, PAGE_BYTES);
            reach.is_ok_and(Reach::is_writable)
        };
        suits.then_some(place)
    }

    /// The entry of an address in a table that was walked through, and what the path to it allows.
    #[inline]
    fn entry(&self, key: Key, address: u64) -> Option<(Rights, u64)> {
        let table = self.upper.find(key, address)?;
        let entry = table.place.after(walk::leaf_offset_bytes(address));
        Some((table.rights, self.kept.load_u64(entry).ok()?))
    }

    /// The last step where a second stage has part in it.
    #[inline(never)]
    fn last_step_behind(
        &mut self,
        key: Key,
        whose: Whose,
        at: Iova,
        access: Access,
    ) -> Option<Gpa> {
        let context = self.locals[whose.bucket().index()].context.as_ref()?;
        if access.contains(Access::EXECUTE) && !walk::has_execution(&context.space) {
            return None;
        }
        let memory = context.memory;
        let own = self.of_tables(key);
        let behind = own.behind();
        let (inner, outer) = match context.space {
            Space::Nested(stage, outer) => {
                let (rights, entry) = self.entry(own, at.get())?;
                (walk::first_leaf(&stage, rights, entry, access)?, outer)
            }
            Space::SecondStage(outer) => {
                let (rights, entry) = self.entry(behind, at.get())?;
                return walk::second_leaf(&outer, rights, entry, access);
            }
            Space::FirstStage(_) | Space::PassThrough => return None,
        };
        if let Some((rights, entry)) = self.entry(behind, inner.get()) {
            return walk::second_leaf(&outer, rights, entry, access);
        }
        let tables = self.kept.snapshot(memory)?;
        let (leaf, table) = walk::walk_second(&outer, tables, inner, access).ok()?;
        if let Some(table) = table {
            note(&mut self.upper, &self.kept, memory, behind, table);
        }
        Some(leaf.at)
    }

    /// Walks the tables by what is known of the tag.
    fn walk(&mut self, key: Key, request: Request) -> Result<(Place, PageSize), Refusal> {
        let Request {
            tag, at, access, ..
        } = request;
        let own = self.of_tables(key);
        let Self {
            locals,
            upper,
            kept,
            ..
        } = self;
        let local = &mut locals[Whose::of(tag).bucket().index()];
        let unknown = Refusal::from(FaultReason::PasidEntryInvalid);
        let context = local.context.as_ref().ok_or(unknown)?;
        let memory = context.memory;
        let tables = kept.snapshot(memory).ok_or(unknown)?;
        let walked = walk::walk(&context.space, tables, at, access, request.prefix())?;
        let (page, size) = take(kept, memory, walked.leaf, request)?;
        if walked.whole > size {
            local.share_mut(key.kind.keeper()).extent = Extent::Pieces;
        }
        for (key, table) in [(own, walked.first), (own.behind(), walked.second)] {
            if let Some(table) = table {
                note(upper, kept, memory, key, table);
            }
        }
        Ok((page, size))
    }
}

/// Caches where a table lies that was walked through.
fn note(upper: &mut Upper, kept: &Kept, memory: KeptSnapshot, key: Key, table: LeafTable) {
    if let Ok(place) = kept.find(memory, table.at, PAGE_BYTES) {
        let rights = table.rights;
        upper.put(key, table.address, Table { place, rights });
    }
}

/// The memory that a leaf leads to, as much of it as can be had in one piece.
fn take(
    kept: &Kept,
    memory: KeptSnapshot,
    leaf: Leaf,
    request: Request,
) -> Result<(Place, PageSize), Refusal> {
    let writes = request.access.contains(Access::WRITE);
    let sizes = [PageSize::Size2M, PageSize::Size4K];
    let sizes = sizes.into_iter().filter(|size| *size <= leaf.size);
    let mut refusal = FaultReason::SecondStageNotPresent.into();
    for size in sizes {
        let base = Gpa::new(leaf.at.get() & !(size.bytes() - 1));
        let holds_interrupts = walk::meets_interrupt_range(base, size)
            || walk::holds_interrupts(request.at, size, request.prefix());
        if size != PageSize::Size4K && holds_interrupts {
            continue;
        }
        let found = kept.find(memory, base, size.bytes());
        match found.and_then(|place| Ok((place, kept.reach(place, size.bytes())?))) {
            Ok((_, reach)) if writes && !reach.is_writable() => {
                return Err(FaultReason::NotWritable.into());
            }
            Ok((place, _)) => return Ok((place, size)),
            Err(error) => refusal = refusal_of(error),
        }
    }
    Err(refusal)
}
