//! Which fault is reported where several apply (VT-d §7.1.3).
//!
//! Each kind of space has a list of defects in the order of their priority. Each defect alone is
//! reported as itself, and of each pair that can be there at once, the one that comes first.

use std::collections::BTreeMap;

use palisade_units::{Access, Gpa, Iova};

use super::naive::{self, Physical};
use super::{Prefix, translate};
use crate::space::{
    AccessedDirty, ExecuteRequests, FirstStage, Levels, NoExecute, PageWalkSnoop, SecondStage,
    Space, SupervisorRequests, WriteProtect,
};

/// An address that without a PASID is in the interrupt range.
const AT: u64 = 0xfee0_0123;
/// The page that the tables lead to.
const PAGE: u64 = 0xabc000;
/// The pages of the first stage's tables, from the root on.
const FIRST_PAGES: [u64; 4] = [0x1000, 0x2000, 0x3000, 0x4000];
const SECOND_ROOT: u64 = 0x8000;
/// Beyond the 48 bits of both stages, and of what a second stage leads to.
const FAR: u64 = 1 << 49;

#[derive(Clone, Copy, PartialEq)]
enum Stages {
    First,
    Second,
    Both,
}

/// A request that is served, before anything is broken.
struct Scene {
    memory: Physical,
    stages: Stages,
    first: FirstStage,
    second: SecondStage,
    at: u64,
    access: Access,
    prefix: Prefix,
    /// Where the second stage's entry for a page stands, by page and level.
    second_entries: BTreeMap<(u64, u64), u64>,
}

fn offset(address: u64, level: u64) -> u64 {
    (address >> (9 * level)) & 0xff8
}

/// Where the first stage's entry of a level stands.
fn first_entry(level: u64) -> u64 {
    ((5 - level) << 12) + offset(AT, level)
}

impl Scene {
    fn new(stages: Stages) -> Self {
        let mut scene = Self {
            memory: Physical {
                pages: (1..32).collect(),
                ..Physical::default()
            },
            stages,
            first: FirstStage {
                supervisor: SupervisorRequests::Allowed,
                execute: ExecuteRequests::Allowed,
                write_protect: WriteProtect::All,
                no_execute: NoExecute::Honoured,
                ..FirstStage::new(Gpa::new(FIRST_PAGES[0]), Levels::Four)
            },
            second: SecondStage {
                accessed_dirty: AccessedDirty::On,
                ..SecondStage::new(Gpa::new(SECOND_ROOT), Levels::Four)
            },
            at: AT,
            access: Access::READ,
            prefix: Prefix::Pasid,
            second_entries: BTreeMap::new(),
        };
        for level in 1..=4 {
            let next = if level == 1 { PAGE } else { (6 - level) << 12 };
            scene.memory.put(first_entry(level), next | 7);
        }
        if stages == Stages::Second {
            scene.lead(AT & !0xfff, PAGE);
        } else {
            for page in FIRST_PAGES.into_iter().chain([PAGE]) {
                scene.lead(page, page);
            }
        }
        scene
    }

    /// Leads a page through the second stage, by tables that are made where there are none.
    fn lead(&mut self, from: u64, to: u64) {
        let mut table = SECOND_ROOT;
        for level in (1..=4).rev() {
            let at = table + offset(from, level);
            self.second_entries.insert((from, level), at);
            let fresh = self.memory.words.borrow().keys().map(|at| at >> 12).max();
            let fresh = (fresh.unwrap_or(0).max(table >> 12) + 1) << 12;
            let entry = match self.memory.word(at) {
                _ if level == 1 => to | 3,
                Some(0) | None => fresh | 3,
                Some(there) => there,
            };
            self.memory.put(at, entry);
            table = entry & !0xfff;
        }
    }

    /// Changes an entry, whether or not it can be reached.
    fn change(&mut self, at: u64, change: impl Fn(u64) -> u64) {
        let words = self.memory.words.get_mut();
        let word = words.get_mut(&at).expect("the entry is there");
        *word = change(*word);
    }

    fn change_second(&mut self, page: u64, level: u64, change: impl Fn(u64) -> u64) {
        self.change(self.second_entries[&(page, level)], change);
    }

    /// The page of the second stage's table that has the entry for a page.
    fn second_table(&self, page: u64, level: u64) -> u64 {
        self.second_entries[&(page, level)] >> 12
    }

    fn report(&self) -> Result<u64, u8> {
        let space = match self.stages {
            Stages::First => Space::FirstStage(self.first),
            Stages::Second => Space::SecondStage(self.second),
            Stages::Both => Space::Nested(self.first, self.second),
        };
        let (at, has_pasid) = (self.at, self.prefix == Prefix::Pasid);
        let reference = self.memory.clone();
        let naive = naive::translate(&space, &reference, at, self.access, has_pasid);
        let said = translate(
            &space,
            &self.memory,
            Iova::new(at),
            self.access,
            self.prefix,
        );
        let said = said
            .map(|leaf| leaf.at.get())
            .map_err(|refusal| refusal.reason.code());
        assert_eq!(naive.map(|(at, _)| at), said, "the naive walker");
        said
    }
}

/// Something wrong, and what is reported for it.
struct Defect {
    code: u8,
    what: String,
    make: Box<dyn Fn(&mut Scene)>,
}

#[derive(Default)]
struct Defects(Vec<Defect>);

impl Defects {
    fn add(&mut self, code: u8, what: impl Into<String>, make: impl Fn(&mut Scene) + 'static) {
        self.0.push(Defect {
            code,
            what: what.into(),
            make: Box::new(make),
        });
    }

    /// What is decided before a table is looked at.
    fn request(&mut self) {
        // It is an interrupt, and nothing is remapped (VT-d §3.14).
        self.add(0x87, "interrupt", |scene| scene.prefix = Prefix::None);
    }

    fn pasid_entry(&mut self) {
        self.add(0x5c, "ERE clear", |scene| {
            scene.access |= Access::EXECUTE;
            scene.first.execute = ExecuteRequests::Refused;
        });
        self.add(0x5d, "SRE clear", |scene| {
            scene.access |= Access::PRIVILEGED;
            scene.first.supervisor = SupervisorRequests::Refused;
        });
        self.add(0x80, "not canonical", |scene| scene.at |= 1 << 60);
    }

    fn first_entry(&mut self, level: u64) {
        self.add(0x71, format!("P of {level}"), move |scene| {
            scene.change(first_entry(level), |word| word & !1);
        });
        self.add(0x72, format!("reserved of {level}"), move |scene| {
            let bits = match level {
                // Nothing is reserved in the last entry but XD, unless it is honoured.
                1 => {
                    scene.first.no_execute = NoExecute::Reserved;
                    1 << 63
                }
                2 | 3 => 1 << 7 | 1 << 13,
                _ => 1 << 7,
            };
            scene.change(first_entry(level), |word| word | bits);
        });
    }

    fn first_permissions(&mut self) {
        self.add(0x81, "U/S", |scene| {
            scene.change(first_entry(2), |word| word & !4);
        });
        self.add(0x82, "XD", |scene| {
            scene.access |= Access::EXECUTE;
            scene.change(first_entry(3), |word| word | 1 << 63);
        });
        self.add(0x85, "W", |scene| {
            scene.access |= Access::WRITE;
            scene.change(first_entry(4), |word| word & !2);
        });
    }

    fn first_snoop(&mut self) {
        self.add(0x90, "PWSNP of the first", |scene| {
            scene.first.page_walk_snoop = PageWalkSnoop::Off;
        });
    }

    /// The way of a page through the second stage down to its last entry.
    fn second_tables(&mut self, page: u64) {
        for level in (1..=4).rev() {
            let code = if level == 4 { 0x7b } else { 0x78 };
            self.add(code, format!("table {level} of {page:x}"), move |scene| {
                let table = scene.second_table(page, level);
                scene.memory.pages.remove(&table);
            });
            self.add(0x79, format!("R and W {level} of {page:x}"), move |scene| {
                scene.change_second(page, level, |word| word & !3);
            });
            self.add(
                0x7a,
                format!("reserved {level} of {page:x}"),
                move |scene| {
                    scene.change_second(page, level, |word| word | 1 << 62);
                },
            );
        }
    }

    fn second_marks(&mut self, page: u64) {
        self.add(0x7c, "PWSNP of the second", |scene| {
            scene.second.page_walk_snoop = PageWalkSnoop::Off;
        });
        self.add(0x7d, "read-only second stage", move |scene| {
            let table = scene.second_table(page, 3);
            scene.memory.read_only.insert(table);
        });
    }

    /// Fails unless each is reported as itself and each pair as the first of both. `apart` names
    /// pairs that cannot be there at once.
    fn check(&self, stages: Stages, apart: &[(&str, &str)]) {
        assert_eq!(Scene::new(stages).report(), Ok(PAGE | AT & 0xfff));
        let mut pairs = 0;
        for (number, first) in self.0.iter().enumerate() {
            let mut scene = Scene::new(stages);
            (first.make)(&mut scene);
            assert_eq!(scene.report(), Err(first.code), "{} alone", first.what);
            for second in &self.0[number + 1..] {
                if apart.contains(&(&first.what, &second.what)) {
                    continue;
                }
                let mut scene = Scene::new(stages);
                (second.make)(&mut scene);
                (first.make)(&mut scene);
                let (one, other) = (&first.what, &second.what);
                assert_eq!(scene.report(), Err(first.code), "{one} before {other}");
                pairs += 1;
            }
        }
        let all = self.0.len() * (self.0.len() - 1) / 2;
        assert_eq!(pairs, all - apart.len(), "an excepted pair has other names");
    }
}

/// Another address is not in the interrupt range.
const INTERRUPT_OR_NOT_CANONICAL: (&str, &str) = ("interrupt", "not canonical");

#[test]
fn r59_priority_of_every_pair_in_a_first_stage() {
    let mut defects = Defects::default();
    defects.request();
    defects.pasid_entry();
    for level in (1..=4).rev() {
        let code = if level == 4 { 0x73 } else { 0x70 };
        defects.add(code, format!("table {level}"), move |scene| {
            scene.memory.pages.remove(&(5 - level));
        });
        defects.first_entry(level);
    }
    defects.first_permissions();
    defects.first_snoop();
    defects.add(0x91, "read-only", |scene| {
        scene.memory.read_only.insert(1);
    });
    defects.add(0x87, "to the interrupt range", |scene| {
        scene.change(first_entry(1), |word| word & !PAGE | 0xfee0_1000);
    });
    defects.check(Stages::First, &[INTERRUPT_OR_NOT_CANONICAL]);
}

#[test]
fn r59_priority_of_every_pair_in_a_second_stage() {
    const OWN: u64 = AT & !0xfff;
    let mut defects = Defects::default();
    defects.request();
    defects.add(0x84, "beyond the width", |scene| scene.at |= FAR);
    defects.second_tables(OWN);
    defects.add(0x85, "W", |scene| {
        scene.access |= Access::WRITE;
        scene.change_second(OWN, 2, |word| word & !2);
    });
    defects.add(0x86, "R", |scene| {
        scene.change_second(OWN, 3, |word| word & !1);
    });
    defects.second_marks(OWN);
    defects.add(0x87, "to the interrupt range", |scene| {
        scene.change_second(OWN, 1, |word| word & !PAGE | 0xfee0_1000);
    });
    // What has neither right is not present, by 79h.
    let apart = [("interrupt", "beyond the width"), ("W", "R")];
    defects.check(Stages::Second, &apart);
}

#[test]
fn r59_priority_of_every_pair_under_nesting() {
    let mut defects = Defects::default();
    defects.request();
    defects.pasid_entry();
    // The second stage's tables are common to all pages, so what is wrong with them is found with the
    // first stage's root.
    defects.second_tables(FIRST_PAGES[0]);
    defects.add(0x75, "R of the root", |scene| {
        scene.change_second(FIRST_PAGES[0], 1, |word| word & !1);
    });
    defects.second_marks(FIRST_PAGES[0]);
    defects.add(0x73, "table 4", |scene| {
        scene.memory.pages.remove(&1);
    });
    defects.first_entry(4);
    for level in (1..=3).rev() {
        let page = (5 - level) << 12;
        defects.add(
            0x74,
            format!("table {level} beyond the width"),
            move |scene| {
                scene.change(first_entry(level + 1), |word| word | FAR);
            },
        );
        defects.add(0x79, format!("R and W of table {level}"), move |scene| {
            scene.change_second(page, 1, |word| word & !3);
        });
        defects.add(0x76, format!("R of table {level}"), move |scene| {
            scene.change_second(page, 1, |word| word & !1);
        });
        defects.add(0x70, format!("table {level}"), move |scene| {
            scene.memory.pages.remove(&(page >> 12));
        });
        defects.first_entry(level);
    }
    defects.first_permissions();
    defects.first_snoop();
    defects.add(0x77, "W of the root", |scene| {
        scene.change_second(FIRST_PAGES[0], 1, |word| word & !2);
    });
    defects.add(0x91, "read-only", |scene| {
        scene.memory.read_only.insert(1);
    });
    defects.add(0x74, "page beyond the width", |scene| {
        scene.change(first_entry(1), |word| word | FAR);
    });
    defects.add(0x79, "R and W of the page", |scene| {
        scene.change_second(PAGE, 1, |word| word & !3);
    });
    defects.add(0x85, "W of the page", |scene| {
        scene.access |= Access::WRITE;
        scene.change_second(PAGE, 1, |word| word & !2);
    });
    defects.add(0x86, "R of the page", |scene| {
        scene.change_second(PAGE, 1, |word| word & !1);
    });
    defects.add(0x87, "to the interrupt range", |scene| {
        scene.change_second(PAGE, 1, |word| word & !PAGE | 0xfee0_1000);
    });
    let apart = [
        INTERRUPT_OR_NOT_CANONICAL,
        ("W of the page", "R of the page"),
        ("R of the root", "W of the root"),
    ];
    defects.check(Stages::Both, &apart);
}

#[test]
fn r59_priority_of_the_interrupt_range_over_what_is_beyond_reach() {
    // No table can be read, and none is: the request is not remapped.
    let memory = Physical::default();
    let first = FirstStage::new(Gpa::new(FIRST_PAGES[0]), Levels::Four);
    let second = SecondStage::new(Gpa::new(SECOND_ROOT), Levels::Three);
    for space in [
        Space::FirstStage(first),
        Space::SecondStage(second),
        Space::Nested(first, second),
        Space::PassThrough,
    ] {
        for at in [0xfee0_0000, 0xfeef_ffff] {
            let access = Access::WRITE | Access::PRIVILEGED | Access::EXECUTE;
            let said = translate(&space, &memory, Iova::new(at), access, Prefix::None);
            assert_eq!(said.unwrap_err().reason.code(), 0x87, "{space:?}");
        }
    }
}

#[test]
fn r59_83h_before_87h_cannot_be_and_each_is_itself() {
    let memory = Physical::default();
    for (at, code) in [(1 << 52, 0x83), (1 << 52 | AT, 0x83), (AT, 0x87)] {
        for prefix in [Prefix::Pasid, Prefix::None] {
            let space = Space::PassThrough;
            let said = translate(&space, &memory, Iova::new(at), Access::READ, prefix);
            assert_eq!(said.unwrap_err().reason.code(), code, "{at:x}");
        }
    }
}
