use std::collections::BTreeMap;

use palisade_units::Access;
use proptest::prelude::*;

use super::*;

#[test]
fn r1_without_the_capability_requests_translate_by_the_function_alone() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = iommu.add_function(HOST, PasidSupport::None).unwrap();
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.map(0x5000, 0x1000);
    tenant.shared.store_u64(0x1000, 0xabcd).unwrap();
    let untagged = tenant.binding(1, process.space(), None);
    function.bind(None, tenant.hold(), untagged).unwrap();
    let mut port = function.port();
    assert_eq!(read(&mut port, None, 0x5000), Ok(0xabcd));
    assert_eq!(
        refused(read(&mut port, tag(1), 0x5000)),
        FaultReason::PasidDisabled
    );
}

#[test]
fn r1_requests_without_a_pasid_share_no_space_with_those_that_have_one() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    let (plain, tagged) = (tenant.process(), tenant.process());
    plain.map(0x5000, 0x1000);
    tagged.map(0x6000, 0x2000);
    function
        .bind(None, tenant.hold(), tenant.binding(1, plain.space(), None))
        .unwrap();
    function
        .bind(tag(0), tenant.hold(), tagged.binding(1, 0))
        .unwrap();
    let mut port = function.port();
    assert!(read(&mut port, None, 0x5000).is_ok());
    assert!(read(&mut port, tag(0), 0x6000).is_ok());
    assert_eq!(
        refused(read(&mut port, None, 0x6000)),
        FaultReason::FirstStageNotPresent
    );
    assert_eq!(
        refused(read(&mut port, tag(0), 0x5000)),
        FaultReason::FirstStageNotPresent
    );
}

#[test]
fn r4_allocating_gives_no_access_until_the_pasid_is_bound() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = function.claim(tenant.id, Sharing::Mediated).unwrap();
    let process = tenant.process();
    process.map(0x5000, 0x1000);
    let hold = tenant.hold();
    let tag = shared_tag(hold.pasid());
    let mut port = function.port();
    assert_eq!(
        refused(read(&mut port, tag, 0x5000)),
        FaultReason::PasidEntryNotPresent
    );
    function.bind(tag, hold, process.binding(1, 7)).unwrap();
    assert!(read(&mut port, tag, 0x5000).is_ok());
    // Programming one that was never allocated gives nothing either.
    let other = Some(PasidTag::of_exclusive_owner(guest(999)));
    assert_eq!(
        refused(read(&mut port, other, 0x5000)),
        FaultReason::PasidEntryNotPresent
    );
}

#[test]
fn r5_a_pasid_beyond_the_width_faults_and_is_not_bound() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = iommu.add_function(HOST, PasidSupport::Width(4)).unwrap();
    let _claim = tenant.own(&function);
    let refusal = function.bind(tag(16), tenant.hold(), tenant.pass_through(1));
    assert!(matches!(
        refusal,
        Err(IommuError::PasidTooLarge { width: 4, .. })
    ));
    function
        .bind(tag(15), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    assert!(read(&mut port, tag(15), 0).is_ok());
    assert_eq!(
        refused(read(&mut port, tag(16), 0)),
        FaultReason::PasidTooLarge
    );
    let told = tenant.sink.faults();
    assert_eq!(told.last().map(|fault| fault.pasid), Some(Some(guest(16))));
}

#[test]
fn r5_disabled_pasids_fault_even_where_the_translation_was_cached() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    function
        .bind(None, tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    assert!(read(&mut port, tag(1), 0).is_ok());
    function.set_pasid_enabled(PasidEnable::Off);
    assert_eq!(
        refused(read(&mut port, tag(1), 0)),
        FaultReason::PasidDisabled
    );
    assert!(read(&mut port, None, 0).is_ok());
    let refusal = function.bind(tag(2), tenant.hold(), tenant.pass_through(1));
    assert!(matches!(refusal, Err(IommuError::PasidDisabled { .. })));
    function.set_pasid_enabled(PasidEnable::On);
    assert!(read(&mut port, tag(1), 0).is_ok());
}

#[test]
fn r5_binding_a_pasid_without_the_capability_is_refused() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = iommu.add_function(HOST, PasidSupport::None).unwrap();
    let _claim = tenant.own(&function);
    let refusal = function.bind(tag(1), tenant.hold(), tenant.pass_through(1));
    assert!(matches!(refusal, Err(IommuError::PasidUnsupported { .. })));
    assert_eq!(refusal.unwrap_err().errno(), 95);
}

#[test]
fn r11_all_tags_of_a_hostile_owner_reach_only_what_the_owner_bound() {
    let authority = Authority::new(&[]);
    let (iommu, alice, bob) = (
        Iommu::new(),
        Tenant::new(&authority, 1),
        Tenant::new(&authority, 2),
    );
    let function = function(&iommu);
    let _claim = bob.own(&function);
    let other = iommu
        .add_function(Bdf::new(0x6a, 2, 0), PasidSupport::Width(20))
        .unwrap();
    let _alices = alice.own(&other);
    for number in 1..=1000 {
        // Alice's PASIDs are bound elsewhere; the same numbers are no entries of bob's function.
        other
            .bind(tag(number), alice.hold(), alice.pass_through(1))
            .unwrap();
    }
    alice.shared.store_u64(0x3000, 0xa11ce).unwrap();
    bob.shared.store_u64(0x3000, 0xb0b).unwrap();
    let own = [0, 5, 1024, (1 << 20) - 1];
    for number in own {
        function
            .bind(tag(number), bob.hold(), bob.pass_through(2))
            .unwrap();
    }
    let mut port = function.port();
    let (mut reached, mut faulted) = (Vec::new(), 0);
    for number in 0..1 << 20 {
        match read(&mut port, tag(number), 0x3000) {
            Ok(word) => reached.push((number, word)),
            Err(DmaError::Faulted {
                reason: FaultReason::PasidEntryNotPresent,
                ..
            }) => {
                faulted += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(reached, own.map(|number| (number, 0xb0b)));
    assert_eq!(faulted, (1 << 20) - own.len());
    assert_eq!(function.faults(), faulted as u64);
    assert_eq!(alice.sink.faults(), []);
}

#[test]
fn r14_each_function_has_a_table_of_its_own() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let one = function(&iommu);
    let two = iommu
        .add_function(Bdf::new(0x6a, 2, 0), PasidSupport::Width(20))
        .unwrap();
    let _claims = (tenant.own(&one), tenant.own(&two));
    one.bind(tag(3), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    assert!(read(&mut one.port(), tag(3), 0).is_ok());
    let reason = refused(read(&mut two.port(), tag(3), 0));
    assert_eq!(reason, FaultReason::PasidEntryNotPresent);
}

#[test]
fn r16_a_wrong_pasid_faults_once_and_touches_nothing() {
    let (iommu, tenant) = (Iommu::new(), Tenant::alone());
    let function = function(&iommu);
    let _claim = tenant.own(&function);
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    assert!(write(&mut port, tag(2), 0x4000, u64::MAX).is_err());
    assert_eq!(tenant.shared.load_u64(0x4000), Ok(0));
    let expected = Fault {
        bdf: GUEST,
        pasid: Some(guest(2)),
        at: Iova::new(0x4000),
        access: Access::WRITE,
        reason: FaultReason::PasidEntryNotPresent,
    };
    assert_eq!(tenant.sink.faults(), [expected]);
    // Others go on.
    assert_eq!(write(&mut port, tag(1), 0x4000, 5), Ok(()));
}

#[test]
fn r17_entries_of_both_tenants_live_in_one_table() {
    let authority = Authority::new(&[]);
    let tenants = [Tenant::new(&authority, 1), Tenant::new(&authority, 2)];
    let iommu = Iommu::new();
    let function = function(&iommu);
    let mut port = function.port();
    let mut claims = Vec::new();
    for tenant in &tenants {
        claims.push(function.claim(tenant.id, Sharing::Mediated).unwrap());
        tenant
            .shared
            .store_u64(0x1000, tenant.id.get().into())
            .unwrap();
        let (process, hold) = (tenant.process(), tenant.hold());
        process.map(0x7000, 0x1000);
        // Both guests call it 1.
        function
            .bind(
                shared_tag(hold.pasid()),
                hold,
                process.binding(tenant.id.get().into(), 1),
            )
            .unwrap();
    }
    let audit = iommu.audit();
    assert_eq!(
        audit.iter().map(|entry| entry.tenant).collect::<Vec<_>>(),
        [tenants[0].id, tenants[1].id]
    );
    for entry in audit {
        assert_eq!(
            read(&mut port, entry.tag, 0x7000),
            Ok(entry.tenant.get().into())
        );
    }
}

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
                    function.invalidate(Scope::Tag(tags[tag]));
                }
                Step::Unmap { tag, page } => {
                    processes[tag].put(page << 12, 1, 0);
                    spaces[tag].remove(&page);
                    let (at, len_bytes) = (Iova::new(page << 12), 4096);
                    function.invalidate(Scope::Pages { tag: tags[tag], at, len_bytes });
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
                Hostile::Invalidate => shared.invalidate(Scope::All),
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
