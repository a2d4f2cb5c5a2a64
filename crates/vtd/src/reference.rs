//! A naive walker from the root table on, to compare the unit and the platform with. It reads raw words of
//! the guest's memory by the layouts of VT-d §9 and the conditions of §7.1.3, one after the other, and
//! shares nothing with `spec`, with `tables` or with the platform's walks.

mod guests;
mod property_tests;
mod stages;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use stages::{Stages, Want};

/// Bits 51:12: every address that an entry holds.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The guest's memory in words, with the marks that a walk would set laid over it.
struct Memory<'a> {
    load: &'a dyn Fn(u64) -> Option<u64>,
    marked: RefCell<BTreeMap<u64, u64>>,
    /// The pages of entries that the unit has to be told of.
    told: RefCell<BTreeSet<u64>>,
}

impl<'a> Memory<'a> {
    fn new(load: &'a dyn Fn(u64) -> Option<u64>) -> Self {
        Self {
            load,
            marked: RefCell::default(),
            told: RefCell::default(),
        }
    }

    fn word(&self, at: u64) -> Option<u64> {
        let marked = self.marked.borrow().get(&at).copied();
        marked.or_else(|| (self.load)(at))
    }

    /// An entry of some words, none of which is without memory, on the way to the page tables.
    fn entry<const N: usize>(&self, at: u64) -> Option<[u64; N]> {
        self.told.borrow_mut().insert(at >> 12);
        let mut words = [0; N];
        for (word, at) in words.iter_mut().zip((at..).step_by(8)) {
            *word = self.word(at)?;
        }
        Some(words)
    }

    fn mark(&self, at: u64, bits: u64) {
        let word = self.word(at).unwrap_or_default() | bits;
        self.marked.borrow_mut().insert(at, word);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Fetch,
}

/// A request of a device.
#[derive(Clone, Copy, Debug)]
struct Request {
    /// Bus, device and function number.
    source: u16,
    pasid: Option<u32>,
    at: u64,
    kind: Kind,
    privileged: bool,
}

impl Request {
    fn is_interrupt(&self) -> bool {
        self.pasid.is_none() && self.at >> 20 == 0xfee
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    /// A guest physical address, or the reason.
    reached: Result<u64, u8>,
    /// Whether an entry on the way has FPD set.
    silenced: bool,
}

/// The reasons that FPD does not silence (VT-d §7.1.3: those that are not qualified).
const UNQUALIFIED: [u8; 15] = [
    0x1, 0x8, 0x9, 0xa, 0x30, 0x31, 0x32, 0x33, 0x38, 0x39, 0x3a, 0x40, 0x50, 0x58, 0x89,
];

fn bit(word: u64, number: u32) -> bool {
    word >> number & 1 == 1
}

/// What becomes of a request, given RTADDR_REG.
fn translate(memory: &Memory<'_>, rtaddr: u64, request: &Request) -> Answer {
    let legacy = rtaddr >> 10 & 3 == 0;
    let mut silenced = false;
    let mut reached = match rtaddr >> 10 & 3 {
        0 => by_legacy_tables(memory, rtaddr, request, &mut silenced),
        1 => by_scalable_tables(memory, rtaddr, request, &mut silenced),
        _ => Err(0x30),
    };
    // Without a PASID an address of the range is no memory, so that tables say nothing of it but FPD, and are
    // not marked (VT-d §3.15).
    if request.is_interrupt() {
        memory.marked.borrow_mut().clear();
    }
    if request.is_interrupt() || reached.is_ok_and(|at| at >> 20 == 0xfee) {
        reached = Err(if legacy { 0xe } else { 0x87 });
    }
    Answer { reached, silenced }
}

fn by_legacy_tables(
    memory: &Memory<'_>,
    rtaddr: u64,
    request: &Request,
    silenced: &mut bool,
) -> Result<u64, u8> {
    if request.pasid.is_some() {
        return Err(0x31);
    }
    let [bus, devfn] = request.source.to_be_bytes().map(u64::from);
    // §9.1.
    let [low, high] = memory.entry((rtaddr & ADDRESS) + bus * 16).ok_or(0x8)?;
    if !bit(low, 0) {
        return Err(0x1);
    }
    if low & !ADDRESS & !1 != 0 || high != 0 {
        return Err(0xa);
    }
    // §9.3.
    let [low, high] = memory.entry((low & ADDRESS) + devfn * 16).ok_or(0x9)?;
    *silenced |= bit(low, 1);
    if !bit(low, 0) {
        return Err(0x2);
    }
    if low & !ADDRESS & !0xf != 0 || high & !0xff_ff7f != 0 {
        return Err(0xb);
    }
    let (translation, width) = (low >> 2 & 3, high & 7);
    if !(1..=3).contains(&width) || translation == 3 {
        return Err(0x3);
    }
    if translation == 2 {
        return if request.at >> 52 == 0 {
            Ok(request.at)
        } else {
            Err(0x4)
        };
    }
    // As a PASID entry for the second stage alone would have it, walked with snoops.
    let entry = [low & ADDRESS | width << 2, 1 << 23, 0];
    let want = Want::of(request);
    let reached = Stages { memory, entry }.second(request.at, want);
    reached.map_err(|code| match code {
        0x84 => 0x4,
        0x85 => 0x5,
        0x86 => 0x6,
        0x79 if want.write => 0x5,
        0x79 => 0x6,
        0x78 => 0x7,
        0x7a => 0xc,
        0x7b => 0x3,
        other => other,
    })
}

fn by_scalable_tables(
    memory: &Memory<'_>,
    rtaddr: u64,
    request: &Request,
    silenced: &mut bool,
) -> Result<u64, u8> {
    let [bus, devfn] = request.source.to_be_bytes().map(u64::from);
    // §9.2: a half of 128 functions each.
    let root = (rtaddr & ADDRESS) + bus * 16 + devfn / 128 * 8;
    let [root] = memory.entry(root).ok_or(0x38)?;
    if !bit(root, 0) {
        return Err(0x39);
    }
    if root & !ADDRESS & !1 != 0 {
        return Err(0x3a);
    }
    // §9.4.
    let context = memory.entry((root & ADDRESS) + devfn % 128 * 32);
    let [low, high, third, fourth] = context.ok_or(0x40)?;
    *silenced |= bit(low, 1);
    if !bit(low, 0) {
        return Err(0x41);
    }
    if low & !ADDRESS & !0xe1f != 0 || high >> 20 != 0 || third != 0 || fourth != 0 {
        return Err(0x42);
    }
    let rid_pasid = high;
    let pasids: u64 = 1 << ((low >> 9 & 7) + 7 + 6);
    if bit(low, 4) && !bit(low, 2) || rid_pasid >= pasids {
        return Err(0x43);
    }
    let pasid = match request.pasid.map(u64::from) {
        None => rid_pasid,
        Some(_) if !bit(low, 3) => return Err(0x45),
        Some(pasid) if pasid >= pasids => return Err(0x46),
        Some(pasid) if pasid == rid_pasid => return Err(0x48),
        Some(pasid) => pasid,
    };
    // §9.5.
    let directory = memory.entry((low & ADDRESS) + pasid / 64 * 8);
    let [directory] = directory.ok_or(0x50)?;
    *silenced |= bit(directory, 1);
    if !bit(directory, 0) {
        return Err(0x51);
    }
    if directory & !ADDRESS & !3 != 0 {
        return Err(0x52);
    }
    // §9.6.
    let entry = memory.entry((directory & ADDRESS) + pasid % 64 * 64);
    let entry: [u64; 8] = entry.ok_or(0x58)?;
    *silenced |= bit(entry[0], 1);
    by_pasid_entry(memory, entry, request)
}

fn by_pasid_entry(memory: &Memory<'_>, entry: [u64; 8], request: &Request) -> Result<u64, u8> {
    let [low, tags, first, rest @ ..] = entry;
    if !bit(low, 0) {
        return Err(0x59);
    }
    let of_low = ADDRESS | 0x3df;
    let of_tags = 0x180_ffff;
    let of_first = ADDRESS | 0xfd;
    if low & !of_low != 0 || tags & !of_tags != 0 || first & !of_first != 0 || rest != [0; 5] {
        return Err(0x5a);
    }
    let (translation, width, mode) = (low >> 6 & 7, low >> 2 & 7, first >> 2 & 3);
    let by_first = translation == 1 || translation == 3;
    let by_second = translation == 2 || translation == 3;
    if !(1..=4).contains(&translation)
        || by_second && !(1..=3).contains(&width)
        || by_first && mode > 1
        || translation == 3 && (first & ADDRESS) >> (30 + 9 * width) != 0
    {
        return Err(0x5b);
    }
    // Requests to execute are not offered; both are attributes of requests with a PASID alone.
    if request.pasid.is_some() && request.kind == Kind::Fetch {
        return Err(0x5c);
    }
    // SPT.6 is of every type of translation.
    if request.pasid.is_some() && request.privileged && !bit(first, 0) {
        return Err(0x5d);
    }
    let want = Want::of(request);
    let stages = Stages {
        memory,
        entry: [low, tags, first],
    };
    match translation {
        1 => stages.first(request.at, want),
        2 => stages.second(request.at, want),
        3 => stages.nested(request.at, want),
        _ if request.at >> 52 == 0 => Ok(request.at),
        _ => Err(0x83),
    }
}
