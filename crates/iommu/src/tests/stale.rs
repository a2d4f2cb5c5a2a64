//! Spaces of every kind through a port and its caches, while the guest changes pages of both sizes and
//! takes marks back: a port does what the tables say, or said since the last invalidation of a page.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A port makes one case for so many translations of the walker alone.
const TRANSLATIONS_PER_CASE: u32 = 3000;
/// Every page below holds its number, for reads to tell; writes go beside it.
const DATA_BYTES: u64 = 8 << 20;
const WRITES: u64 = 8;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The spaces by tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    First,
    Second,
    Nested,
}

const KINDS: [Kind; 3] = [Kind::First, Kind::Second, Kind::Nested];

impl Kind {
    fn tag(self) -> Option<PasidTag> {
        tag(self as u32 + 1)
    }

    fn has_first(self) -> bool {
        self != Self::Second
    }

    /// Accessed and dirty, in the entries that the guest changes.
    fn marks(self) -> (u64, u64) {
        if self.has_first() {
            (1 << 5, 1 << 6)
        } else {
            (1 << 8, 1 << 9)
        }
    }

    fn flags(self, rights: Rights) -> u64 {
        match (rights, self.has_first()) {
            (Rights::None, _) => 0,
            (Rights::Read, true) => 5,
            (Rights::Read, false) => 1,
            (Rights::Write, true) => 7,
            (Rights::Write, false) => 3,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Rights {
    None,
    Read,
    Write,
}

/// One of the pages that the guest maps: two regions of 2 MiB whose pages share lines of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    region: u64,
    page: u64,
}

const PLACES: [Place; 8] = {
    let mut places = [Place { region: 0, page: 0 }; 8];
    let mut number = 0;
    while number < 8 {
        places[number] = Place {
            region: number as u64 / 4,
            page: number as u64 % 4,
        };
        number += 1;
    }
    places
};

impl Place {
    const fn iova(self) -> u64 {
        (self.region << 22) + (self.page << 12)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Map(Kind, Place, u64, Rights),
    MapLarge(Kind, u64, u64, Rights),
    Split(Kind, u64),
    /// The guest takes the marks of a page back.
    Clean(Kind, Place),
    Read(Kind, Place),
    Write(Kind, Place),
    Invalidate(Kind, Place),
    InvalidateTag(Kind),
    InvalidateAll,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || proptest::sample::select(&KINDS[..]);
    let place = || (0_u64..2, 0_u64..4).prop_map(|(region, page)| Place { region, page });
    let rights = || {
        prop_oneof![
            1 => Just(Rights::None),
            1 => Just(Rights::Read),
            4 => Just(Rights::Write),
        ]
    };
    prop_oneof![
        4 => (kind(), place(), 1_u64..16, rights())
            .prop_map(|(kind, place, to, rights)| Step::Map(kind, place, to, rights)),
        2 => (kind(), 0_u64..2, 0_u64..4, rights())
            .prop_map(|(kind, region, to, rights)| Step::MapLarge(kind, region, to, rights)),
        2 => (kind(), 0_u64..2).prop_map(|(kind, region)| Step::Split(kind, region)),
        2 => (kind(), place()).prop_map(|(kind, place)| Step::Clean(kind, place)),
        8 => (kind(), place()).prop_map(|(kind, place)| Step::Read(kind, place)),
        8 => (kind(), place()).prop_map(|(kind, place)| Step::Write(kind, place)),
        3 => (kind(), place()).prop_map(|(kind, place)| Step::Invalidate(kind, place)),
        1 => kind().prop_map(Step::InvalidateTag),
        1 => Just(Step::InvalidateAll),
    ]
}

/// What a port may have cached of a page, without marks.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Entries of level two.
    above: BTreeSet<u64>,
    /// Entries that decide, and whether they are of level two.
    leaves: BTreeSet<(u64, bool)>,
    /// Marks may have been taken back since they were seen.
    is_cleaned: bool,
}

struct Guest {
    tenant: Tenant,
    function: FunctionHandle,
    _claim: Claim,
    known: BTreeMap<(Kind, Place), Known>,
    writes: u64,
}

/// The tables of a kind stand one after the other: levels four, three, two, and one for each region.
fn table(kind: Kind, number: u64) -> u64 {
    DATA_BYTES + ((kind as u64) << 16) + (number << 12)
}

/// A second stage that leads every address below 1 GiB to itself: levels four and three.
const IDENTITY: u64 = DATA_BYTES + (8 << 16);

impl Guest {
    fn new() -> Self {
        let tenant = Tenant::alone();
        let function = function(&Iommu::new());
        let claim = tenant.own(&function);
        let put = |at, word| tenant.shared.store_u64(at, word).unwrap();
        for page in 0..DATA_BYTES >> 12 {
            put(page << 12, page);
        }
        put(IDENTITY, (IDENTITY + 0x1000) | 3);
        put(IDENTITY + 0x1000, LARGE | 3);
        let marked = |root| SecondStage {
            accessed_dirty: AccessedDirty::On,
            ..SecondStage::new(Gpa::new(root), Levels::Four)
        };
        for kind in KINDS {
            let flags = kind.flags(Rights::Write);
            put(table(kind, 0), table(kind, 1) | flags);
            put(table(kind, 1), table(kind, 2) | flags);
            let first = FirstStage::new(Gpa::new(table(kind, 0)), Levels::Four);
            let space = match kind {
                Kind::First => Space::FirstStage(first),
                Kind::Second => Space::SecondStage(marked(table(kind, 0))),
                Kind::Nested => Space::Nested(first, marked(IDENTITY)),
            };
            let binding = tenant.binding(1, space, Some(guest(kind as u32 + 1)));
            function.bind(kind.tag(), tenant.hold(), binding).unwrap();
        }
        let mut guest = Self {
            tenant,
            function,
            _claim: claim,
            known: BTreeMap::new(),
            writes: 0,
        };
        for kind in KINDS {
            for region in 0..2 {
                guest.put(guest.above(kind, region), guest.split(kind, region));
            }
        }
        guest.forget(Scope::All, |_, _| true);
        guest
    }

    fn put(&self, at: u64, word: u64) {
        self.tenant.shared.store_u64(at, word).unwrap();
    }

    fn word(&self, at: u64) -> u64 {
        self.tenant.shared.load_u64(at).unwrap()
    }

    /// Where the entry of level two stands: regions are 4 MiB apart.
    fn above(&self, kind: Kind, region: u64) -> u64 {
        table(kind, 2) + region * 2 * 8
    }

    /// What it is where it leads to a table.
    fn split(&self, kind: Kind, region: u64) -> u64 {
        table(kind, 3 + region) | kind.flags(Rights::Write)
    }

    fn below(&self, kind: Kind, place: Place) -> u64 {
        table(kind, 3 + place.region) + place.page * 8
    }

    /// Where the entry stands that decides of a page.
    fn leaf(&self, kind: Kind, place: Place) -> u64 {
        let above = self.above(kind, place.region);
        if self.word(above) & LARGE != 0 {
            above
        } else {
            self.below(kind, place)
        }
    }

    /// The page that an entry leads to, or the reason why not.
    fn target(
        kind: Kind,
        place: Place,
        is_write: bool,
        (entry, is_large): (u64, bool),
    ) -> Result<u64, FaultReason> {
        let first = (entry & ADDRESS) >> 12;
        match entry & 3 {
            0 | 2 if kind.has_first() => Err(FaultReason::FirstStageNotPresent),
            0 => Err(FaultReason::SecondStageNotPresent),
            1 if is_write => Err(FaultReason::NotWritable),
            _ if is_large => Ok(first + place.page),
            _ => Ok(first),
        }
    }

    /// The entry that decides of a page now.
    fn now(&self, kind: Kind, place: Place) -> (u64, bool) {
        let at = self.leaf(kind, place);
        (self.word(at), at == self.above(kind, place.region))
    }

    /// Takes up what the tables say.
    fn look(&mut self) {
        for kind in KINDS {
            let (accessed, dirty) = kind.marks();
            let unmarked = |word| word & !(accessed | dirty);
            for place in PLACES {
                let above = unmarked(self.word(self.above(kind, place.region)));
                let below = unmarked(self.word(self.below(kind, place)));
                let known = self.known.entry((kind, place)).or_default();
                known.above.insert(above);
                let leaves = known.above.iter().map(|above| match above & LARGE {
                    0 => (below, false),
                    _ => (*above, true),
                });
                known.leaves.extend(leaves);
            }
        }
    }

    /// Reads or writes through the port, and says which page that was.
    fn access(
        &mut self,
        port: &mut DmaPort,
        kind: Kind,
        place: Place,
        is_write: bool,
    ) -> Result<u64, FaultReason> {
        let at = place.iova();
        if !is_write {
            return read(port, kind.tag(), at).map_err(|error| refused(Err::<u64, _>(error)));
        }
        self.writes += 1;
        write(port, kind.tag(), at + WRITES, self.writes)
            .map_err(|error| refused(Err::<u64, _>(error)))?;
        let pages = 0..DATA_BYTES >> 12;
        let written = pages.clone().find(|page| {
            let word = self.word((page << 12) + WRITES);
            word == self.writes
        });
        Ok(written.expect("a write that succeeds is in memory"))
    }

    fn check(&mut self, port: &mut DmaPort, kind: Kind, place: Place, is_write: bool) {
        let now = Self::target(kind, place, is_write, self.now(kind, place));
        let done = self.access(port, kind, place, is_write);
        let known = &self.known[&(kind, place)];
        let what = format!("{kind:?} {place:?}, write: {is_write}, {known:x?}");
        let mut leaves = known.leaves.iter();
        match done {
            Ok(_) => assert!(
                leaves.any(|leaf| Self::target(kind, place, is_write, *leaf) == done),
                "{done:x?}: {what}"
            ),
            // What is refused was looked up anew.
            Err(_) => assert_eq!(done, now, "{what}"),
        }
        if done.is_ok() && known.leaves.len() == 1 && !known.is_cleaned {
            let (accessed, dirty) = kind.marks();
            let wanted = accessed | if is_write { dirty } else { 0 };
            assert_eq!(self.now(kind, place).0 & wanted, wanted, "{what}");
        }
    }

    fn forget(&mut self, scope: Scope, gone: impl Fn(Kind, Place) -> bool) {
        self.function.invalidate(scope, Cached::InUnit);
        self.known.retain(|(kind, place), _| !gone(*kind, *place));
        self.look();
    }

    fn step(&mut self, port: &mut DmaPort, step: Step) {
        match step {
            Step::Map(kind, place, to, rights) => {
                self.put(self.below(kind, place), to << 12 | kind.flags(rights));
            }
            Step::MapLarge(kind, region, to, rights) => {
                let entry = to << 21 | kind.flags(rights) | LARGE;
                self.put(self.above(kind, region), entry);
            }
            Step::Split(kind, region) => {
                self.put(self.above(kind, region), self.split(kind, region));
            }
            Step::Clean(kind, place) => {
                let (accessed, dirty) = kind.marks();
                let at = self.leaf(kind, place);
                self.put(at, self.word(at) & !(accessed | dirty));
            }
            Step::Read(kind, place) => self.check(port, kind, place, false),
            Step::Write(kind, place) => self.check(port, kind, place, true),
            Step::Invalidate(kind, place) => {
                let at = Iova::new(place.iova());
                let (tag, len_bytes) = (kind.tag(), 4096);
                self.forget(Scope::Pages { tag, at, len_bytes }, |of, at| {
                    of == kind && at == place
                });
            }
            Step::InvalidateTag(kind) => self.forget(Scope::Tag(kind.tag()), |of, _| of == kind),
            Step::InvalidateAll => self.forget(Scope::All, |_, _| true),
        }
        // An entry that is written has no marks.
        let cleaned = match step {
            Step::Map(kind, Place { region, .. }, ..) | Step::Clean(kind, Place { region, .. }) => {
                Some((kind, region))
            }
            Step::MapLarge(kind, region, ..) | Step::Split(kind, region) => Some((kind, region)),
            _ => None,
        };
        for ((kind, place), known) in &mut self.known {
            known.is_cleaned |= cleaned == Some((*kind, place.region));
        }
        self.look();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: translations().div_ceil(TRANSLATIONS_PER_CASE), ..ProptestConfig::default() })]

    #[test]
    fn r37_r38_r41_a_port_does_what_the_tables_say_or_said_since_the_last_invalidation(
        steps in proptest::collection::vec(step(), 1..400),
    ) {
        let mut guest = Guest::new();
        let mut port = guest.function.port();
        for step in steps {
            guest.step(&mut port, step);
        }
    }
}

#[test]
fn r38_r41_a_cached_write_marks_the_page_dirty_again_once_it_is_clean_and_invalidated() {
    for kind in KINDS {
        for large in [false, true] {
            let mut guest = Guest::new();
            let mut port = guest.function.port();
            let place = Place { region: 1, page: 2 };
            guest.step(&mut port, Step::Map(kind, place, 5, Rights::Write));
            if large {
                guest.step(&mut port, Step::MapLarge(kind, 1, 1, Rights::Write));
            }
            let leaf = guest.leaf(kind, place);
            let (_, dirty) = kind.marks();
            let is_dirty = |guest: &Guest| guest.word(leaf) & dirty != 0;
            guest.step(&mut port, Step::Write(kind, place));
            assert!(is_dirty(&guest));

            guest.step(&mut port, Step::Clean(kind, place));
            guest.step(&mut port, Step::Write(kind, place));
            assert!(!is_dirty(&guest), "{kind:?}: the cache must be real");
            guest.step(&mut port, Step::Invalidate(kind, place));
            guest.step(&mut port, Step::Read(kind, place));
            assert!(!is_dirty(&guest), "{kind:?}: a read is no write");
            guest.step(&mut port, Step::Write(kind, place));
            assert!(is_dirty(&guest), "{kind:?}");
        }
    }
}

#[test]
fn r38_r41_a_second_stage_under_a_first_is_marked_again_as_well() {
    let mut guest = Guest::new();
    let mut port = guest.function.port();
    let place = Place { region: 0, page: 1 };
    let (kind, identity) = (Kind::Nested, IDENTITY + 0x1000);
    let (accessed, dirty) = (1 << 8, 1 << 9);
    guest.step(&mut port, Step::Map(kind, place, 5, Rights::Write));
    for _ in 0..2 {
        guest.put(identity, LARGE | 3);
        guest.step(&mut port, Step::Invalidate(kind, place));
        guest.step(&mut port, Step::Write(kind, place));
        assert_eq!(guest.word(identity) & (accessed | dirty), accessed | dirty);
    }
    // With the first stage marked already, a read of its tables dirties nothing.
    guest.put(identity, LARGE | 3);
    guest.step(&mut port, Step::Invalidate(kind, place));
    guest.step(&mut port, Step::Read(kind, place));
    assert_eq!(guest.word(identity) & (accessed | dirty), accessed);
}
