//! What caches may say: what the tables said at some time since the last invalidation of a page, with
//! old tables of pages as well as old pages; and after it nothing but what they say now.

use proptest::prelude::*;

use super::*;

/// Pages of two pieces of 2 MiB.
const PAGES: [u64; 6] = [
    0x40_0000, 0x40_1000, 0x5f_f000, 0x60_0000, 0x60_1000, 0x7f_f000,
];
const FRAMES: u64 = 4;
const FRAME: u64 = 0x10_0000;
/// Each piece has the choice of so many tables.
const TABLES: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Puts an entry into a table for a page.
    Entry(usize, usize, u64),
    /// Makes another table the one of a piece.
    Table(usize, usize),
    Read(usize),
    Write(usize),
    /// Of so many pages from one on.
    InvalidatePages(usize, u64),
    InvalidateTag,
    InvalidateOthers,
    InvalidateAll,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let page = || 0..PAGES.len();
    let entry = (0..FRAMES, 0_u64..5).prop_map(|(frame, flags)| match flags {
        0 => 0,
        1 => (FRAME + (frame << 12)) | READ_ONLY_PAGE,
        2 => (FRAME + (frame << 12)) | PAGE | 0x60,
        _ => (FRAME + (frame << 12)) | PAGE,
    });
    prop_oneof![
        4 => (page(), 0..TABLES, entry).prop_map(|(page, table, entry)| Step::Entry(page, table, entry)),
        2 => (0_usize..2, 0..TABLES).prop_map(|(piece, table)| Step::Table(piece, table)),
        8 => page().prop_map(Step::Read),
        4 => page().prop_map(Step::Write),
        3 => (page(), 1_u64..600).prop_map(|(page, count)| Step::InvalidatePages(page, count)),
        1 => Just(Step::InvalidateTag),
        1 => Just(Step::InvalidateOthers),
        1 => Just(Step::InvalidateAll),
        1 => Just(Step::Forget),
    ]
}

/// What may be cached of a page.
#[derive(Clone, Debug, Default)]
struct Possible {
    tables: Vec<u64>,
    entries: Vec<u64>,
}

struct World<'a> {
    tenant: &'a Tenant,
    process: Process<'a>,
    tables: [[u64; TABLES]; 2],
    possible: Vec<Possible>,
}

impl World<'_> {
    fn piece(page: usize) -> usize {
        usize::from(PAGES[page] >= 0x60_0000)
    }

    fn table_now(&self, page: usize) -> u64 {
        let at = self.process.entry(PAGES[page], 2);
        self.tenant.shared.load_u64(at).unwrap() & !0xfff
    }

    fn entry_in(&self, table: u64, page: usize) -> u64 {
        let at = table + ((PAGES[page] >> 9) & 0xff8);
        self.tenant.shared.load_u64(at).unwrap() & !0x60
    }

    /// Takes up what the tables say now.
    fn look(&mut self) {
        for page in 0..PAGES.len() {
            let now = self.table_now(page);
            self.possible[page].tables.push(now);
            for table in self.possible[page].tables.clone() {
                let entry = self.entry_in(table, page);
                self.possible[page].entries.push(entry);
            }
            let possible = &mut self.possible[page];
            possible.tables.sort_unstable();
            possible.tables.dedup();
            possible.entries.sort_unstable();
            possible.entries.dedup();
        }
    }

    fn forget(&mut self, gone: impl Fn(u64) -> bool) {
        for (page, possible) in self.possible.iter_mut().enumerate() {
            if gone(PAGES[page]) {
                *possible = Possible::default();
            }
        }
        self.look();
    }

    /// Frames that an access may reach, and whether it may fail.
    fn outcomes(&self, page: usize, needed: u64) -> (Vec<u64>, bool) {
        let entries = self.possible[page].entries.iter();
        let (good, bad): (Vec<u64>, Vec<u64>) = entries.partition(|it| *it & needed == needed);
        let frames = good.iter().map(|it| ((it & !0xfff) - FRAME) >> 12);
        (frames.collect(), !bad.is_empty())
    }
}

/// A second stage that leads everywhere to the same address: by pages of 4 KiB, or of 2 MiB.
fn identity(tenant: &Tenant, large: bool) -> SecondStage {
    let (root, middle) = (tenant.table(), tenant.table());
    let put = |at, entry| tenant.shared.store_u64(at, entry).unwrap();
    put(root, middle | 3);
    for piece in 0..MEMORY_BYTES >> 21 {
        let entry = middle + piece * 8;
        if large {
            put(entry, piece << 21 | LARGE | 3);
            continue;
        }
        let table = tenant.table();
        put(entry, table | 3);
        for index in 0..512 {
            put(table + index * 8, ((piece << 21) + (index << 12)) | 3);
        }
    }
    SecondStage::new(Gpa::new(root), Levels::Three)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn r40_r41_what_is_stale_was_true_since_its_invalidation_and_is_gone_after_it(
        nested in proptest::option::of(any::<bool>()),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let tenant = Tenant::alone();
        let function = function(&Iommu::new());
        let _claim = tenant.own(&function);
        let process = tenant.process();
        let tables = [[tenant.table(), tenant.table()], [tenant.table(), tenant.table()]];
        process.put(0x40_0000, 2, tables[0][0] | PAGE);
        process.put(0x60_0000, 2, tables[1][0] | PAGE);
        for frame in 0..FRAMES {
            tenant.shared.store_u64(FRAME + (frame << 12), frame).unwrap();
        }
        let mut binding = process.binding(1, 1);
        if let (Space::FirstStage(first), Some(large)) = (binding.space, nested) {
            binding.space = Space::Nested(first, identity(&tenant, large));
        }
        function.bind(tag(1), tenant.hold(), binding).unwrap();
        let mut port = function.port();
        let possible = vec![Possible::default(); PAGES.len()];
        let mut world = World { tenant: &tenant, process, tables, possible };
        world.look();
        for (number, step) in (1_u64..).zip(steps) {
            match step {
                Step::Entry(page, table, entry) => {
                    let table = world.tables[World::piece(page)][table];
                    let at = table + ((PAGES[page] >> 9) & 0xff8);
                    tenant.shared.store_u64(at, entry).unwrap();
                    world.look();
                }
                Step::Table(piece, table) => {
                    let at = 0x40_0000 + ((piece as u64) << 21);
                    world.process.put(at, 2, world.tables[piece][table] | PAGE);
                    world.look();
                }
                Step::Read(page) => {
                    let (frames, may_fail) = world.outcomes(page, 5);
                    match read(&mut port, tag(1), PAGES[page]) {
                        Ok(frame) => prop_assert!(frames.contains(&frame), "{frame} of {frames:?}"),
                        Err(_) => prop_assert!(may_fail, "none of {frames:?}"),
                    }
                }
                Step::Write(page) => {
                    let (frames, may_fail) = world.outcomes(page, 7);
                    match write(&mut port, tag(1), PAGES[page] + 8, number) {
                        Ok(()) => {
                            let at = |frame: &&u64| FRAME + (**frame << 12) + 8;
                            let there = |frame: &&u64| tenant.shared.load_u64(at(frame)) == Ok(number);
                            prop_assert!(frames.iter().any(|frame| there(&frame)), "none of {frames:?}");
                        }
                        Err(_) => prop_assert!(may_fail, "none of {frames:?}"),
                    }
                }
                Step::InvalidatePages(page, count) => {
                    let (at, len_bytes) = (Iova::new(PAGES[page]), count << 12);
                    function.invalidate(Scope::Pages { tag: tag(1), at, len_bytes }, Cached::InUnit);
                    world.forget(|page| (at.get()..at.get() + len_bytes).contains(&page));
                }
                Step::InvalidateTag => {
                    function.invalidate(Scope::Tag(tag(1)), Cached::InUnit);
                    world.forget(|_| true);
                }
                Step::InvalidateAll => {
                    function.invalidate(Scope::All, Cached::InUnit);
                    world.forget(|_| true);
                }
                Step::InvalidateOthers => function.invalidate(Scope::Tag(tag(2)), Cached::InUnit),
                Step::Forget => port.forget_stale(),
            }
        }
    }
}
