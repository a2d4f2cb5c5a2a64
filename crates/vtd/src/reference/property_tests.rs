//! The unit and the platform against the naive walker, over random tables of every level and requests of
//! every kind.
//!
//! A plain run makes 20,000 translations. `PALISADE_TRANSLATIONS=1000000` makes so many, as the nightly run does:
//! some minutes.

use std::collections::{BTreeMap, BTreeSet};

use palisade_iommu::{DmaPort, FunctionHandle, PasidSupport, Privilege, Requester, Sharing};
use palisade_units::{Access, Bdf, Gpa, Iova, PasidTag};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::guests::{DATA, PASIDS, POOL_PAGES, SOURCES, Tables, page, round};
use super::{Answer, Kind, Memory, Request, UNQUALIFIED, translate};
use crate::spec::command::{Command, TranslationTableMode};
use crate::spec::descriptor::{ContextScope, InvDescriptor, IotlbScope, PasidCacheScope};
use crate::spec::fault::RequestKind;
use crate::spec::register as reg;
use crate::testing::{FUNCTION, MEMORY_BYTES, Rig, Setup, pasid};

/// How many tables follow each other in one guest.
const ROUNDS: usize = 2;
/// How many requests go to one set of tables.
const REQUESTS: usize = 100;

/// How many guests make as many translations as are asked for.
fn guests() -> u32 {
    let asked = std::env::var("PALISADE_TRANSLATIONS").ok();
    let translations = asked.map_or(20_000_usize, |text| {
        text.parse()
            .expect("PALISADE_TRANSLATIONS is a number of translations")
    });
    u32::try_from(translations.div_ceil(ROUNDS * REQUESTS)).unwrap()
}

/// A guest with a function of each source.
struct Guest {
    rig: Rig,
    ports: Vec<DmaPort>,
    /// The pages that the unit was told of.
    told: BTreeSet<u64>,
}

/// What was seen of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The word that was read, or that its address had after it was written.
    Word(u64),
    /// The reason in the record.
    Recorded(u8),
    /// Refused, and not recorded.
    Silent,
}

impl Guest {
    fn new() -> Self {
        let quota = 1 << 14;
        let mut rig = Rig::with(Setup {
            quota,
            ..Setup::default()
        });
        assert_eq!(SOURCES[0], FUNCTION.requester_id());
        let mut handles = vec![rig.handle.clone()];
        for source in &SOURCES[1..] {
            let host = Bdf::new(0x6b, u8::try_from(handles.len()).unwrap(), 0);
            let support = PasidSupport::Width(20);
            let handle = rig.iommu.add_function(host, support).unwrap();
            let function = Bdf::from_requester_id(*source);
            rig.attach(function, handle.clone(), Sharing::Exclusive);
            handles.push(handle);
        }
        rig.enable_queue();
        let ports = handles.iter().map(FunctionHandle::port).collect();
        Self {
            rig,
            ports,
            told: BTreeSet::new(),
        }
    }

    /// Puts tables into the memory, and tells the unit of all of them.
    fn take_over(&mut self, tables: &Tables) {
        let zeros = [0; 512];
        for number in 0..POOL_PAGES {
            self.rig.store(Gpa::new(page(number)), &zeros);
        }
        // Words that are all different, and no entries.
        for at in (page(DATA[0])..page(DATA[2] + 1)).step_by(8) {
            self.rig.store(Gpa::new(at), &[at << 16]);
        }
        for (at, word) in &tables.words {
            self.rig.store(Gpa::new(*at), &[*word]);
        }
        self.rig.root = Gpa::new(tables.root);
        let mode = match tables.mode {
            0 => TranslationTableMode::Legacy,
            1 => TranslationTableMode::Scalable,
            other => TranslationTableMode::Unsupported(u8::try_from(other).unwrap()),
        };
        self.rig.set_root_table(mode);
        self.rig.command(Command::TRANSLATION_ENABLE);
        self.tell();
    }

    fn ttm(&self) -> u64 {
        self.rig.read64(reg::RTADDR) >> 10 & 3
    }

    /// Tells the unit of everything.
    fn tell(&mut self) {
        let mut everything = vec![InvDescriptor::context_cache(ContextScope::Global)];
        match self.ttm() {
            0 => {}
            1 => everything.push(InvDescriptor::pasid_cache(PasidCacheScope::Global)),
            // The queue stops in a mode that there is not.
            _ => return,
        }
        everything.push(InvDescriptor::iotlb(IotlbScope::Global));
        self.rig.submit(&everything);
        self.told = self.pages_to_tell_of();
    }

    /// The pages that requests come by before they come to page tables.
    fn pages_to_tell_of(&self) -> BTreeSet<u64> {
        let load = |at| self.load(at);
        let rtaddr = self.rig.read64(reg::RTADDR);
        let mut pages = BTreeSet::new();
        for source in SOURCES {
            for pasid in PASIDS.map(Some).into_iter().chain([None]) {
                let request = Request {
                    source,
                    pasid,
                    at: 0,
                    kind: Kind::Read,
                    privileged: false,
                };
                let memory = Memory::new(&load);
                translate(&memory, rtaddr, &request);
                pages.append(&mut memory.told.borrow_mut());
            }
        }
        pages
    }

    fn load(&self, at: u64) -> Option<u64> {
        (at < MEMORY_BYTES).then(|| self.rig.load(Gpa::new(at)))
    }

    /// Makes a request, which writes `value` if it writes.
    fn make(&mut self, request: &Request, value: u64) -> Result<u64, ()> {
        let source = SOURCES.iter().position(|source| *source == request.source);
        let port = &mut self.ports[source.unwrap()];
        let tag = request.pasid.map(pasid).map(PasidTag::of_exclusive_owner);
        let by = Requester {
            privilege: if request.privileged {
                Privilege::Privileged
            } else {
                Privilege::User
            },
            ..Requester::new(tag)
        };
        let at = Iova::new(request.at);
        let mut bytes = value.to_le_bytes();
        let done = match request.kind {
            Kind::Read => port.read(by, at, &mut bytes),
            Kind::Fetch => port.fetch(by, at, &mut bytes),
            Kind::Write => port.write(by, at, &bytes),
        };
        done.map(|()| u64::from_le_bytes(bytes)).map_err(|_| ())
    }

    /// The reason in the record of a request, which tells all of it.
    fn recorded(&self, request: &Request) -> Seen {
        if self.rig.read32(reg::FSTS) & 0xff == 0 {
            return Seen::Silent;
        }
        let record = self.rig.take_record().unwrap();
        assert_eq!(self.rig.read32(reg::FSTS) & 0xff, 0, "one record");
        assert_eq!(record.source().requester_id(), request.source);
        assert_eq!(record.pasid(), request.pasid.map(pasid));
        assert_eq!(record.at(), Iova::new(request.at).page_base());
        let (kind, mut access) = match request.kind {
            Kind::Read => (RequestKind::Read, Access::READ),
            Kind::Fetch => (RequestKind::Read, Access::READ | Access::EXECUTE),
            Kind::Write => (RequestKind::Write, Access::WRITE),
        };
        access.set(Access::PRIVILEGED, request.privileged);
        if request.pasid.is_none() {
            access.remove(Access::PRIVILEGED | Access::EXECUTE);
        }
        assert_eq!((record.kind(), record.access()), (kind, access));
        Seen::Recorded(record.reason().get())
    }

    /// What has to be seen of a request, by what the walker says, and the marks that it leaves.
    fn expected(&self, request: &Request, value: u64) -> (Answer, Seen, BTreeMap<u64, u64>) {
        let load = |at| self.load(at);
        let memory = Memory::new(&load);
        let rtaddr = self.rig.read64(reg::RTADDR);
        let answer = translate(&memory, rtaddr, request);
        let word = answer.reached.map(|at| memory.word(at));
        let code = match word {
            Ok(Some(_)) if request.kind == Kind::Write => {
                return (answer, Seen::Word(value), memory.marked.into_inner());
            }
            Ok(Some(word)) => return (answer, Seen::Word(word), memory.marked.into_inner()),
            // Where the guest has no memory its last stage, the host's own, has no entry.
            Ok(None) if self.ttm() == 1 => 0x79,
            Ok(None) if request.kind == Kind::Write => 0x5,
            Ok(None) => 0x6,
            Err(code) => code,
        };
        let seen = if answer.silenced && !UNQUALIFIED.contains(&code) {
            Seen::Silent
        } else {
            Seen::Recorded(code)
        };
        (answer, seen, memory.marked.into_inner())
    }

    /// Compares what a request comes to with what the walker says.
    fn compare(&mut self, request: &Request, value: u64) -> Result<(), TestCaseError> {
        let (answer, expected, marked) = self.expected(request, value);
        // What is written may lie in a table, which is then to be as it was, but for marks.
        let written = answer.reached.ok().filter(|_| request.kind == Kind::Write);
        let before = written.and_then(|at| marked.get(&at).copied().or_else(|| self.load(at)));
        let seen = match (self.make(request, value), written.zip(before)) {
            (Err(()), _) => self.recorded(request),
            (Ok(_), Some((at, before))) => {
                let now = self.rig.load(Gpa::new(at));
                self.rig.store(Gpa::new(at), &[before]);
                Seen::Word(now)
            }
            (Ok(word), None) => Seen::Word(word),
        };
        prop_assert_eq!(seen, expected, "{:x?}: {:x?}", request, answer);
        let mut changed = false;
        for (at, word) in marked {
            let now = self.load(at);
            prop_assert_eq!(now, Some(word), "the mark at {:x} of {:x?}", at, request);
            changed |= self.told.contains(&(at >> 12));
        }
        // Tables that lie in each other are marked too, and then say something else.
        if changed {
            self.tell();
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: guests(),
        ..ProptestConfig::default()
    })]

    /// Also after other tables, of another mode, have taken the place of the first.
    #[test]
    fn r37_r38_r59_r60_requests_end_as_a_naive_walk_from_the_root_table_says(
        rounds in proptest::collection::vec(round(REQUESTS), ROUNDS),
    ) {
        let mut guest = Guest::new();
        for (tables, requests) in rounds {
            guest.take_over(&tables);
            for (value, request) in (1_u64..).zip(&requests) {
                guest.compare(request, value << 32 | 0x5a00)?;
            }
        }
    }
}

/// What agrees is worth as much as what occurs: a fixed run ends in every reason that a request of this
/// model can have, recorded and silenced, and succeeds in every way.
#[test]
fn the_random_tables_lead_to_every_reason() {
    let mut seen = BTreeSet::new();
    let mut runner = TestRunner::deterministic();
    for _ in 0..800 {
        let (tables, requests) = round(REQUESTS).new_tree(&mut runner).unwrap().current();
        let words: BTreeMap<u64, u64> = tables.words.into_iter().collect();
        let load = |at| (at < MEMORY_BYTES).then(|| words.get(&at).copied().unwrap_or_default());
        for request in requests {
            let rtaddr = tables.root | tables.mode << 10;
            let answer = translate(&Memory::new(&load), rtaddr, &request);
            let silent = answer.reached.is_err() && answer.silenced;
            seen.insert((answer.reached.map(|_| tables.mode), silent));
        }
    }
    let first_met = [0x1, 0x8, 0x9, 0xa, 0x30, 0x31, 0x38, 0x39, 0x3a, 0x40];
    let legacy = [0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xe];
    let entries = [
        0x41, 0x42, 0x43, 0x45, 0x46, 0x48, 0x50, 0x51, 0x52, 0x58, 0x59, 0x5a, 0x5b, 0x5c, 0x5d,
    ];
    let stages = [
        0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x7b, 0x7c, 0x80, 0x81,
        0x83, 0x84, 0x85, 0x86, 0x87, 0x90,
    ];
    let reported = [&first_met[..], &legacy, &entries, &stages].concat();
    let silenced = [&legacy[..], &entries, &stages].concat();
    for (codes, silent) in [(reported, false), (silenced, true)] {
        for code in codes {
            assert!(seen.contains(&(Err(code), silent)), "{code:x}h, {silent}");
        }
    }
    for mode in [0, 1] {
        assert!(seen.contains(&(Ok(mode), false)), "TTM {mode}");
    }
}
