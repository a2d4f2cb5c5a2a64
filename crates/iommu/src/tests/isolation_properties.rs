use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Pages of 4 KiB that a process may map, in memory and in addresses.
const PAGES: u64 = 16;

#[derive(Clone, Debug)]
enum Step {
    Map {
        tag: usize,
        page: u64,
        to: u64,
    },
    Unmap {
        tag: usize,
        page: u64,
    },
    Write {
        tag: usize,
        page: u64,
        word: u64,
    },
    Read {
        tag: usize,
        page: u64,
    },
    Copy {
        from: (usize, u64),
        to: (usize, u64),
    },
}

fn step(tags: usize) -> impl Strategy<Value = Step> {
    let (tag, page) = (move || 0..tags, || 0..PAGES);
    prop_oneof![
        (tag(), page(), page()).prop_map(|(tag, page, to)| Step::Map { tag, page, to }),
        (tag(), page()).prop_map(|(tag, page)| Step::Unmap { tag, page }),
        (tag(), page(), any::<u64>()).prop_map(|(tag, page, word)| Step::Write { tag, page, word }),
        (tag(), page()).prop_map(|(tag, page)| Step::Read { tag, page }),
        ((tag(), page()), (tag(), page())).prop_map(|(from, to)| Step::Copy { from, to }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn r2_n_pasids_are_n_disjoint_spaces(steps in proptest::collection::vec(step(5), 1..120)) {
        let (iommu, tenant) = (Iommu::new(), Tenant::alone());
        let function = function(&iommu);
        let _claim = tenant.own(&function);
        let processes: Vec<_> = (0..5).map(|_| tenant.process()).collect();
        // The first has no PASID.
        let tags = [None, tag(0), tag(1), tag(64), tag(0xfffff)];
        for (process, tag) in processes.iter().zip(tags) {
            function.bind(tag, tenant.hold(), process.binding(1, 0)).unwrap();
        }
        let mut port = function.port();
        let mut spaces = vec![BTreeMap::<u64, u64>::new(); 5];
        let mut memory = BTreeMap::<u64, u64>::new();
        for step in steps {
            match step {
                Step::Map { tag, page, to } => {
                    processes[tag].map(page << 12, to << 12);
                    spaces[tag].insert(page, to);
                    function.invalidate(Scope::Tag(tags[tag]), Cached::InUnit);
                }
                Step::Unmap { tag, page } => {
                    processes[tag].put(page << 12, 1, 0);
                    spaces[tag].remove(&page);
                    let (at, len_bytes) = (Iova::new(page << 12), 4096);
                    function.invalidate(Scope::Pages { tag: tags[tag], at, len_bytes }, Cached::InUnit);
                }
                Step::Write { tag, page, word } => {
                    let done = write(&mut port, tags[tag], page << 12, word);
                    let target = spaces[tag].get(&page);
                    prop_assert_eq!(done.is_ok(), target.is_some());
                    target.map(|to| memory.insert(*to, word));
                }
                Step::Read { tag, page } => {
                    let word = read(&mut port, tags[tag], page << 12);
                    let expected = spaces[tag].get(&page).map(|to| memory.get(to).copied().unwrap_or(0));
                    prop_assert_eq!(word.ok(), expected);
                }
                Step::Copy { from, to } => {
                    let (source, target) = (by(tags[from.0]), by(tags[to.0]));
                    let (at, at_target) = (Iova::new(from.1 << 12), Iova::new(to.1 << 12));
                    let done = port.copy(source, at, target, at_target, 4096);
                    let places = (spaces[from.0].get(&from.1), spaces[to.0].get(&to.1));
                    prop_assert_eq!(done.is_ok(), places.0.is_some() && places.1.is_some());
                    if let (Some(from), Some(to)) = places {
                        let word = memory.get(from).copied().unwrap_or(0);
                        memory.insert(*to, word);
                    }
                }
            }
        }
    }

    /// Every page of a tenant's memory starts with the tenant's mark, and all that tenants write is
    /// marked so too; whatever they do, no mark of one is ever seen by, or in, the other.
    #[test]
    fn r8_no_operation_reaches_the_other_tenants_memory(
        steps in proptest::collection::vec((0_usize..2, hostile()), 1..150),
    ) {
        let authority = Authority::new(&[]);
        let tenants = [Tenant::new(&authority, 1), Tenant::new(&authority, 2)];
        let iommu = Iommu::new();
        let shared = function(&iommu);
        let mark = |tenant: usize| (tenant as u64 + 1) << 56;
        let mut holds = Vec::new();
        let mut claims = Vec::new();
        let mut processes = Vec::new();
        for (number, tenant) in tenants.iter().enumerate() {
            claims.push(shared.claim(tenant.id, Sharing::Mediated).unwrap());
            for page in 0..PAGES {
                tenant.shared.store_u64(page << 12, mark(number) | page).unwrap();
            }
            holds.push([tenant.hold(), tenant.hold()]);
            processes.push([tenant.process(), tenant.process()]);
        }
        let mut ports = [shared.port(), shared.port()];
        for (who, step) in steps {
            let user = UserId(who as u64);
            match step {
                Hostile::Bind { pasid, process, other } => {
                    // With `other`, the PASID is one of the neighbour's.
                    let target = if other { 1 - who } else { who };
                    let tag = shared_tag(holds[target][pasid].pasid());
                    let hold = holds[who][pasid].clone();
                    let binding = processes[who][process].binding(user.0, 1);
                    let done = shared.bind(tag, hold, binding);
                    // What is one's own is bound, and nothing else.
                    prop_assert_eq!(done.is_ok(), !other, "{:?}", done);
                }
                Hostile::Unbind { pasid } => {
                    let _ = shared.unbind(shared_tag(holds[who][pasid].pasid()), user);
                }
                Hostile::Map { process, page, to } => {
                    processes[who][process].map(page << 12, to << 12);
                }
                Hostile::Invalidate => shared.invalidate(Scope::All, Cached::InUnit),
                Hostile::Read { pasid, page } => {
                    let tag = shared_tag(holds[who][pasid].pasid());
                    if let Ok(word) = read(&mut ports[who], tag, page << 12) {
                        prop_assert!(word == 0 || word >> 56 == mark(who) >> 56, "{word:#x} seen by {who}");
                    }
                }
                Hostile::Write { pasid, page } => {
                    let tag = shared_tag(holds[who][pasid].pasid());
                    let _ = write(&mut ports[who], tag, page << 12, mark(who) | 0xbad);
                }
            }
        }
        for (number, tenant) in tenants.iter().enumerate() {
            for page in 0..PAGES {
                let word = tenant.shared.load_u64(page << 12).unwrap();
                prop_assert_eq!(word >> 56, mark(number) >> 56, "page {} of tenant {}", page, number);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Hostile {
    Bind {
        pasid: usize,
        process: usize,
        other: bool,
    },
    Unbind {
        pasid: usize,
    },
    Map {
        process: usize,
        page: u64,
        to: u64,
    },
    Invalidate,
    Read {
        pasid: usize,
        page: u64,
    },
    Write {
        pasid: usize,
        page: u64,
    },
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let (two, page) = (|| 0_usize..2, || 0..PAGES);
    // Beyond memory as well.
    let target = prop_oneof![8 => 0..PAGES, 1 => (MEMORY_BYTES >> 12)..(MEMORY_BYTES >> 12) + 4];
    prop_oneof![
        2 => (two(), two(), proptest::bool::weighted(0.2))
            .prop_map(|(pasid, process, other)| Hostile::Bind { pasid, process, other }),
        1 => two().prop_map(|pasid| Hostile::Unbind { pasid }),
        5 => (two(), page(), target)
            .prop_map(|(process, page, to)| Hostile::Map { process, page, to }),
        1 => Just(Hostile::Invalidate),
        6 => (two(), page()).prop_map(|(pasid, page)| Hostile::Read { pasid, page }),
        6 => (two(), page()).prop_map(|(pasid, page)| Hostile::Write { pasid, page }),
    ]
}
