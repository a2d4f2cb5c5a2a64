//! Random tables of a guest, as numbers, and requests to them. Most of what they say is in order, so that
//! many requests reach a page, or come far before something is wrong.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;

use super::{Kind, Request};

/// The guest's memory that holds the tables, in pages: what entries lead to.
const POOL: u64 = 0x40_0000;
pub(super) const POOL_PAGES: u64 = 42;
/// Where the guest has no memory.
const NOWHERE: u64 = 0x00de_adbe_e000;

const ROOT: u64 = 0;
const CONTEXTS: [u64; 2] = [1, 2];
const DIRECTORY: u64 = 3;
const PASID_TABLES: [u64; 2] = [4, 5];
/// Two page tables of either stage, from level 5 down to level 1.
const FIRST: [u64; 2] = [6, 11];
const SECOND: [u64; 2] = [16, 21];
pub(super) const DATA: [u64; 3] = [26, 27, 28];

/// Functions of two buses, of either half of a root entry.
pub(super) const SOURCES: [u16; 3] = [0x0080, 0x0019, 0x03fa];
/// PASIDs of two tables; the last but one is just beyond the smallest directory. The first is RID_PASID only,
/// for the platform has no requests that carry PASID 0.
pub(super) const PASIDS: [u32; 7] = [0, 1, 5, 63, 64, 8192, 0xf_ffff];
/// The indexes that addresses use, from level 1 up. They reach every page of the pool, and the interrupt
/// range.
const INDEXES: [&[u64]; 5] = [
    &[0, 6, 7, 8, 9, 10, 11, 16, 20, 21, 25, 26, 27, 28, 0x1ff],
    &[2, 2, 2, 0, 0x1f7],
    &[0, 0, 0, 0, 1, 3],
    &[0, 0, 0, 0xff, 0x1ff],
    &[0, 0, 0, 1, 0x1ff],
];

pub(super) const fn page(number: u64) -> u64 {
    POOL + number * 4096
}

/// The words of a guest's tables, and RTADDR_REG.
#[derive(Clone)]
pub(super) struct Tables {
    pub(super) words: Vec<(u64, u64)>,
    pub(super) root: u64,
    /// TTM.
    pub(super) mode: u64,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TTM {} at {:x}:", self.mode, self.root)?;
        self.words
            .iter()
            .try_for_each(|(at, word)| write!(f, " {at:x}: {word:x},"))
    }
}

/// What is there once in so many times.
fn rarely<T: Clone + std::fmt::Debug + 'static>(
    times: u32,
    usual: T,
    rare: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![times - 1 => Just(usual), 1 => rare].boxed()
}

/// A bit of an entry that is other than it should be.
fn corruption(times: u32) -> BoxedStrategy<u64> {
    rarely(times, 0, (0_u32..64).prop_map(|bit| 1 << bit))
}

/// A pointer to a page of the pool, or somewhere else.
fn pointer(number: impl Strategy<Value = u64> + 'static) -> BoxedStrategy<u64> {
    let elsewhere = prop_oneof![
        (0..POOL_PAGES).prop_map(page),
        Just(NOWHERE),
        Just(0xfee0_0000),
        Just(1 << 51),
    ];
    prop_oneof![100 => number.prop_map(page), 1 => elsewhere].boxed()
}

fn flag(times: u32, bit: u32) -> BoxedStrategy<u64> {
    rarely(times, 0, Just(1 << bit))
}

/// A flag that is usually set.
fn set(times: u32, bit: u32) -> BoxedStrategy<u64> {
    rarely(times, 1 << bit, Just(0))
}

fn root_entry() -> BoxedStrategy<u64> {
    let table = pointer(select(&CONTEXTS[..]));
    (table, set(30, 0), corruption(60))
        .prop_map(|(table, present, wrong)| (table | present) ^ wrong)
        .boxed()
}

/// Of scalable mode (VT-d §9.4).
fn context_entry() -> BoxedStrategy<[u64; 4]> {
    // FPD, DTE, PASIDE and PRE.
    let flags = (set(40, 0), flag(8, 1), set(20, 2), set(20, 3), flag(3, 4));
    let size = prop_oneof![3 => Just(7_u64), 3 => Just(0), 1 => 0_u64..8].prop_map(|x| x << 9);
    let rid_pasid = prop_oneof![8 => Just(0), 4 => select(&PASIDS[..5]), 1 => select(&PASIDS[..])];
    let wrong = (
        corruption(60),
        corruption(60),
        corruption(60),
        corruption(60),
    );
    (flags, size, pointer(Just(DIRECTORY)), rid_pasid, wrong)
        .prop_map(|(flags, size, directory, rid_pasid, wrong)| {
            let (present, fpd, dte, paside, pre) = flags;
            let low = directory | size | present | fpd | dte | paside | pre;
            let (a, b, c, d) = wrong;
            [low ^ a, u64::from(rid_pasid) ^ b, c, d]
        })
        .boxed()
}

/// Of legacy mode (VT-d §9.3).
fn legacy_context_entry() -> BoxedStrategy<[u64; 2]> {
    let flags = (set(12, 0), flag(5, 1));
    let kind = prop_oneof![4 => 0_u64..2, 1 => Just(2), 1 => 2_u64..4];
    let tree = select(&SECOND[..]);
    let width = prop_oneof![20 => 1_u64..4, 1 => 0_u64..8];
    let rest = (any::<u16>(), 0_u64..16, corruption(40), corruption(40));
    (flags, kind, tree, width, rest)
        .prop_flat_map(|(flags, kind, tree, width, rest)| {
            let (present, fpd) = flags;
            let (domain, ignored, a, b) = rest;
            let low = present | fpd | kind << 2;
            let high = width | ignored << 3 | u64::from(domain) << 8;
            pointer(Just(top(tree, 2 + width))).prop_map(move |root| [(low | root) ^ a, high ^ b])
        })
        .boxed()
}

/// The page of a tree that is its top with so many levels.
fn top(tree: u64, levels: u64) -> u64 {
    tree + 5_u64.saturating_sub(levels).min(4)
}

fn directory_entry() -> BoxedStrategy<u64> {
    let table = pointer(select(&PASID_TABLES[..]));
    (table, set(30, 0), flag(8, 1), corruption(60))
        .prop_map(|(table, present, fpd, wrong)| (table | present | fpd) ^ wrong)
        .boxed()
}

/// VT-d §9.6.
fn pasid_entry() -> BoxedStrategy<[u64; 8]> {
    let kind =
        prop_oneof![8 => Just(1_u64), 5 => Just(2), 8 => Just(3), 3 => Just(4), 1 => 0_u64..8];
    let width = prop_oneof![20 => 1_u64..4, 1 => 0_u64..8];
    let mode = prop_oneof![10 => Just(0_u64), 10 => Just(1), 1 => 2_u64..4];
    let trees = (select(&FIRST[..]), select(&SECOND[..]));
    // FPD and SSADE.
    let low = (set(40, 0), flag(10, 1), flag(3, 9));
    // DID, PWSNP and PGSNP.
    let tags = (any::<u16>(), set(6, 23), flag(2, 24));
    // SRE, WPE, what is ignored, and EAFE.
    let first = (set(3, 0), flag(2, 4), 0_u64..4, flag(2, 7));
    let wrong = (
        corruption(40),
        corruption(40),
        corruption(40),
        corruption(80),
        3_usize..8,
    );
    (kind, width, mode, trees, low, tags, first, wrong)
        .prop_flat_map(|(kind, width, mode, trees, low, tags, first, wrong)| {
            let (present, fpd, ssade) = low;
            let (domain, pwsnp, pgsnp) = tags;
            let (sre, wpe, ignored, eafe) = first;
            let (a, b, c, d, number) = wrong;
            let low = present | fpd | width << 2 | kind << 6 | ssade;
            let tags = u64::from(domain) | pwsnp | pgsnp;
            let first = sre | mode << 2 | wpe | ignored << 5 | eafe;
            let roots = (
                pointer(Just(top(trees.0, 4 + mode))),
                pointer(Just(top(trees.1, 2 + width))),
            );
            roots.prop_map(move |(of_first, of_second)| {
                let mut entry = [0; 8];
                entry[0] = (low | of_second) ^ a;
                entry[1] = tags ^ b;
                entry[2] = (first | of_first) ^ c;
                entry[number] ^= d;
                entry
            })
        })
        .boxed()
}

/// An entry of a page table at a level, which leads to the next level of one of two trees.
fn paging_entry(trees: [u64; 2], level: u64, index: u64, open: u64) -> BoxedStrategy<u64> {
    let target = if level == 1 {
        // A second stage leads the first one's tables to themselves.
        let same = index.min(POOL_PAGES - 1);
        let data = pointer(select(&DATA[..]));
        if trees == SECOND {
            prop_oneof![12 => pointer(Just(same)), 1 => data].boxed()
        } else {
            prop_oneof![1 => pointer(Just(same)), 6 => data].boxed()
        }
    } else {
        let next = trees.map(|tree| top(tree, level - 1));
        pointer(select(next.to_vec()))
    };
    let large = prop_oneof![
        1 => Just(0x80_u64),
        1 => Just(POOL | 0x80),
        1 => Just(0xfee0_0080),
        1 => Just(0x4000_3080),
    ];
    let target = if level == 1 {
        target
    } else {
        prop_oneof![40 => target, 1 => large].boxed()
    };
    // Where entries are fewer rights are lost more often, else a table of the first stage is seldom read-only.
    let flags = if trees == SECOND && level == 1 {
        rarely(8, open, 0_u64..8)
    } else {
        rarely(25, open, 0_u64..8)
    };
    // Of a first stage A and D at 5 and 6, EA at 10; of a second A and D at 8 and 9.
    let marks = select(&[0, 0x20, 0x60, 0x100, 0x760][..]);
    let wrong = prop_oneof![
        150 => Just(0_u64),
        1 => Just(1 << 11),
        1 => Just(1 << 62),
        2 => (0_u32..64).prop_map(|bit| 1_u64 << bit),
    ];
    (target, flags, marks, wrong)
        .prop_map(move |(target, flags, marks, wrong)| {
            // D of a table's entry is ignored, PAT of the lowest level is bit 7.
            (target | flags | marks) ^ wrong
        })
        .boxed()
}

/// The words of a tree.
fn tree(trees: [u64; 2], number: usize, open: u64) -> BoxedStrategy<Vec<(u64, u64)>> {
    let mut words = Vec::new();
    for (level, indexes) in (1..).zip(INDEXES) {
        let mut indexes = indexes.to_vec();
        indexes.dedup();
        for index in indexes {
            let at = page(top(trees[number], level)) + index * 8;
            words.push((Just(at), paging_entry(trees, level, index, open)).boxed());
        }
    }
    words.boxed()
}

fn at_each<const N: usize>(
    places: Vec<u64>,
    entry: impl Fn() -> BoxedStrategy<[u64; N]>,
) -> BoxedStrategy<Vec<(u64, u64)>> {
    let entries: Vec<_> = places.iter().map(|_| entry()).collect();
    entries
        .prop_map(move |entries| {
            let words = places.iter().zip(entries);
            words
                .flat_map(|(at, entry)| (*at..).step_by(8).zip(entry))
                .collect()
        })
        .boxed()
}

/// Tables, and requests to them.
pub(super) fn round(requests: usize) -> BoxedStrategy<(Tables, Vec<Request>)> {
    let requests = proptest::collection::vec(request(), requests);
    (tables(), requests)
        .prop_map(|(tables, mut requests)| {
            // A PASID is one thing that is wrong in legacy mode, and not to be all.
            for (number, request) in requests.iter_mut().enumerate() {
                if tables.mode == 0 && number % 8 != 0 {
                    request.pasid = None;
                }
            }
            (tables, requests)
        })
        .boxed()
}

/// The tables of a mode, of everything that requests come by.
fn tables() -> BoxedStrategy<Tables> {
    let mode = prop_oneof![24 => Just(1_u64), 8 => Just(0), 1 => 2_u64..4];
    mode.prop_flat_map(|mode| {
        let root = rarely(40, page(ROOT), select(vec![NOWHERE, page(CONTEXTS[0])]));
        (root, words(mode == 0)).prop_map(move |(root, words)| Tables { words, root, mode })
    })
    .boxed()
}

fn words(legacy: bool) -> BoxedStrategy<Vec<(u64, u64)>> {
    let buses = [0, 3].map(|bus| page(ROOT) + bus * 16);
    let roots = if legacy {
        let entry = || (root_entry(), corruption(40)).prop_map(|(low, high)| [low, high]);
        at_each(buses.to_vec(), || entry().boxed())
    } else {
        let entry = || (root_entry(), root_entry()).prop_map(|(low, high)| [low, high]);
        at_each(buses.to_vec(), || entry().boxed())
    };
    let devfns = SOURCES.map(|source| u64::from(source & 0xff));
    let contexts = CONTEXTS.into_iter().flat_map(|table| {
        devfns.map(|devfn| {
            let offset = if legacy { devfn * 16 } else { devfn % 128 * 32 };
            page(table) + offset
        })
    });
    let contexts = if legacy {
        at_each(contexts.collect(), legacy_context_entry)
    } else {
        at_each(contexts.collect(), context_entry)
    };
    let directory = PASIDS.map(|pasid| page(DIRECTORY) + u64::from(pasid) / 64 * 8);
    let mut directory = directory.to_vec();
    directory.dedup();
    let directory = at_each(directory, || {
        directory_entry().prop_map(|word| [word]).boxed()
    });
    let entries = PASID_TABLES.into_iter().flat_map(|table| {
        let mut indexes = PASIDS.map(|pasid| u64::from(pasid) % 64).to_vec();
        indexes.sort_unstable();
        indexes.dedup();
        indexes
            .into_iter()
            .map(move |index| page(table) + index * 64)
    });
    let entries = at_each(entries.collect(), pasid_entry);
    let stages = (
        tree(FIRST, 0, 0b111),
        tree(FIRST, 1, 0b111),
        tree(SECOND, 0, 0b011),
        tree(SECOND, 1, 0b011),
    );
    (stages, roots, contexts, directory, entries)
        .prop_map(|((a, b, c, d), roots, contexts, directory, entries)| {
            // The directory of the largest size runs over what comes later.
            [directory, a, b, c, d, roots, contexts, entries].concat()
        })
        .boxed()
}

fn request() -> impl Strategy<Value = Request> {
    let source = select(&SOURCES[..]);
    let pasid = prop_oneof![
        1 => Just(None),
        3 => select(&PASIDS[1..5]).prop_map(Some),
        1 => select(&PASIDS[1..]).prop_map(Some),
    ];
    let kind = prop_oneof![6 => Just(Kind::Read), 6 => Just(Kind::Write), 1 => Just(Kind::Fetch)];
    let privileged = prop_oneof![3 => Just(false), 1 => Just(true)];
    (source, pasid, address(), kind, privileged).prop_map(
        |(source, pasid, at, kind, privileged)| Request {
            source,
            pasid,
            at,
            kind,
            privileged,
        },
    )
}

/// The address of a word.
fn address() -> impl Strategy<Value = u64> {
    let [one, two, three, four, five] = INDEXES.map(select::<u64>);
    let word = (0_u64..512).prop_map(|word| word * 8);
    let high = prop_oneof![10 => Just(0_u64), 1 => Just(1)];
    let mapped = (one, two, three, four, five, word, high).prop_map(
        |(one, two, three, four, five, word, high)| {
            let low = four << 39 | three << 30 | two << 21 | one << 12 | word;
            // Sign-extended from bit 47, or in a table of five levels, or neither.
            match (high, four & 0x100) {
                (1, _) => low | five << 48,
                (_, 0) => low,
                _ => low | 0xffff << 48,
            }
        },
    );
    let interrupt = (0_u64..0x2_0000).prop_map(|word| 0xfee0_0000 | (word * 8));
    prop_oneof![30 => mapped, 1 => interrupt]
}
