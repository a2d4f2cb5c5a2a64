use super::*;

/// A function with one process bound to PASID 1, its page 0x5000 at `to`.
fn warm(tenant: &Tenant, to: u64) -> (FunctionHandle, Claim, Process<'_>) {
    let function = function(&Iommu::new());
    let claim = tenant.own(&function);
    let process = tenant.process();
    process.map(0x5000, to);
    function
        .bind(tag(1), tenant.hold(), process.binding(1, 1))
        .unwrap();
    for page in 0..16 {
        tenant.shared.store_u64(page << 12, page).unwrap();
    }
    (function, claim, process)
}

#[test]
fn r41_a_stale_translation_stays_until_it_is_invalidated() {
    let tenant = Tenant::alone();
    for scope in [
        Scope::All,
        Scope::Tag(tag(1)),
        Scope::Pages {
            tag: tag(1),
            at: Iova::new(0x5000),
            len_bytes: 4096,
        },
    ] {
        let (function, _claim, process) = warm(&tenant, 0x1000);
        let mut port = function.port();
        assert_eq!(read(&mut port, tag(1), 0x5000), Ok(1));
        process.map(0x5000, 0x2000);
        assert_eq!(
            read(&mut port, tag(1), 0x5000),
            Ok(1),
            "the cache must be real"
        );
        function.invalidate(Scope::Tag(tag(2)), Cached::InUnit);
        assert_eq!(
            read(&mut port, tag(1), 0x5000),
            Ok(1),
            "another tag's scope"
        );
        function.invalidate(scope, Cached::InUnit);
        assert_eq!(read(&mut port, tag(1), 0x5000), Ok(2), "{scope:?}");
    }
}

#[test]
fn r41_reads_and_writes_are_cached_apart_so_that_a_first_write_marks_the_page_dirty() {
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x1000);
    let mut port = function.port();
    let entry = process.entry(0x5000, 1);
    read(&mut port, tag(1), 0x5000).unwrap();
    assert_eq!(tenant.shared.load_u64(entry).unwrap() & 0x60, 0x20);
    write(&mut port, tag(1), 0x5000, 7).unwrap();
    assert_eq!(tenant.shared.load_u64(entry).unwrap() & 0x60, 0x60);
}

#[test]
fn r41_a_page_that_is_mapped_later_needs_no_invalidation() {
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x1000);
    let mut port = function.port();
    assert!(read(&mut port, tag(1), 0x6000).is_err());
    process.map(0x6000, 0x3000);
    assert_eq!(read(&mut port, tag(1), 0x6000), Ok(3));
}

#[test]
fn r44_memory_that_was_unmapped_and_invalidated_is_reached_no_more() {
    let tenant = Tenant::alone();
    let (function, _claim, _process) = warm(&tenant, 0x1000);
    let mut port = function.port();
    assert_eq!(read(&mut port, tag(1), 0x5000), Ok(1));
    tenant.memory.unmap(Gpa::new(0), MEMORY_BYTES).unwrap();
    function.invalidate(Scope::All, Cached::InUnit);
    assert_eq!(
        refused(read(&mut port, tag(1), 0x5000)),
        FaultReason::FirstStageRootAccess
    );
    assert_eq!(tenant.shared.load_u64(0x1000), Ok(1));
}

#[test]
fn r44_other_memory_at_the_same_place_is_seen_after_the_invalidation() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    function
        .bind(tag(1), tenant.hold(), tenant.pass_through(1))
        .unwrap();
    let mut port = function.port();
    tenant.shared.store_u64(0x1000, 1).unwrap();
    assert_eq!(read(&mut port, tag(1), 0x1000), Ok(1));
    let other = SharedMemory::create("other", MEMORY_BYTES).unwrap();
    other.store_u64(0x1000, 2).unwrap();
    tenant.memory.unmap_all();
    let (at, protection) = (Gpa::new(0), Protection::ReadWrite);
    tenant
        .memory
        .map(at, MEMORY_BYTES, other.backing(), protection)
        .unwrap();
    function.invalidate(Scope::All, Cached::InUnit);
    assert_eq!(read(&mut port, tag(1), 0x1000), Ok(2));
}

#[test]
fn r41_translations_that_share_a_line_displace_each_other() {
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x1000);
    // 4 MiB apart: the same line of the cache.
    process.map(0x40_5000, 0x2000);
    let mut port = function.port();
    for _ in 0..3 {
        assert_eq!(read(&mut port, tag(1), 0x5000), Ok(1));
        assert_eq!(read(&mut port, tag(1), 0x40_5000), Ok(2));
    }
}

#[test]
fn r37_pages_of_every_size_are_reached_through_the_cache() {
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x1000);
    process.put(0x20_0000, 2, 0x20_0000 | PAGE | LARGE);
    process.put(0x4000_0000, 3, PAGE | LARGE);
    tenant.shared.store_u64(0x3f_f000, 0xfeed).unwrap();
    let mut port = function.port();
    for _ in 0..2 {
        assert_eq!(read(&mut port, tag(1), 0x3f_f000), Ok(0xfeed));
        assert_eq!(read(&mut port, tag(1), 0x4000_0000 + 0x3f_f000), Ok(0xfeed));
        // The gigabyte goes on beyond memory.
        let beyond = read(&mut port, tag(1), 0x4000_0000 + MEMORY_BYTES);
        assert_eq!(refused(beyond), FaultReason::SecondStageNotPresent);
    }
}

#[test]
fn r38_privileged_and_user_requests_are_cached_apart() {
    let tenant = Tenant::alone();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    let process = tenant.process();
    process.put(0x5000, 1, 0x1000 | 3);
    let first = FirstStage {
        supervisor: SupervisorRequests::Allowed,
        ..FirstStage::new(Gpa::new(process.root), Levels::Four)
    };
    let binding = tenant.binding(1, Space::FirstStage(first), Some(guest(1)));
    function.bind(tag(1), tenant.hold(), binding).unwrap();
    let mut port = function.port();
    let privileged = Requester {
        privilege: Privilege::Privileged,
        ..by(tag(1))
    };
    assert_eq!(
        port.read(privileged, Iova::new(0x5000), &mut [0; 8]),
        Ok(())
    );
    assert_eq!(
        refused(read(&mut port, tag(1), 0x5000)),
        FaultReason::SupervisorPage
    );
}

#[test]
fn accesses_cross_pages_and_say_where_they_stop() {
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x3000);
    process.map(0x6000, 0x1000);
    let mut port = function.port();
    let data: Vec<u8> = (0..=255).cycle().take(0x1800).collect();
    port.write(by(tag(1)), Iova::new(0x5400), &data).unwrap();
    let mut back = vec![0; data.len()];
    port.read(by(tag(1)), Iova::new(0x5400), &mut back).unwrap();
    assert_eq!(back, data);
    let mut first = [0; 4];
    tenant.shared.read(0x1000, &mut first).unwrap();
    assert_eq!(first, data[0xc00..0xc04]);

    let beyond = port.write(by(tag(1)), Iova::new(0x5801), &data);
    assert_eq!(beyond.unwrap_err().at(), Iova::new(0x7000));
}

#[test]
fn fills_go_on_with_the_pattern_across_pages() {
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x3000);
    process.map(0x6000, 0x1000);
    let mut port = function.port();
    let pattern = u64::from_le_bytes(*b"abcdefgh");
    port.fill(by(tag(1)), Iova::new(0x5ffd), 12, pattern)
        .unwrap();
    let mut bytes = [0; 12];
    port.read(by(tag(1)), Iova::new(0x5ffd), &mut bytes)
        .unwrap();
    assert_eq!(&bytes, b"abcdefghabcd");
}

#[test]
fn a_range_that_runs_over_the_end_of_the_space_faults() {
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x3000);
    process.map(0xffff_ffff_ffff_f000, 0x1000);
    let mut port = function.port();
    let last = Iova::new(0xffff_ffff_ffff_fff8);
    assert_eq!(port.write(by(tag(1)), last, &[1; 8]), Ok(()));
    let over = port.write(by(tag(1)), last, &[1; 9]);
    assert_eq!(refused(over), FaultReason::NotCanonical);
}

#[test]
fn copies_say_how_far_they_came_and_which_side_stopped_them() {
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x10_0000);
    for page in 0..40 {
        process.map(0x10_0000 + (page << 12), 0x20_0000 + ((page ^ 1) << 12));
        process.map(0x80_0000 + (page << 12), 0x30_0000 + (page << 12));
    }
    let data: Vec<u8> = (0_u32..40 << 10)
        .flat_map(|n| (n * 7).to_le_bytes())
        .collect();
    let mut port = function.port();
    let who = by(tag(1));
    port.write(who, Iova::new(0x10_0000), &data).unwrap();
    let (from, to) = (Iova::new(0x10_0003), Iova::new(0x80_0801));
    port.copy(who, from, who, to, 0x2_5000).unwrap();
    let mut back = vec![0; 0x2_5000];
    port.read(who, to, &mut back).unwrap();
    assert_eq!(back, data[3..0x2_5003]);

    let stopped = port.copy(who, from, who, to, 0x10_0000).unwrap_err();
    assert_eq!(
        (stopped.done_bytes, stopped.side),
        (0x2_77ff, Side::Destination)
    );
    assert_eq!(stopped.error.at(), Iova::new(0x82_8000));
    let stopped = port
        .copy(asking(tag(1)), Iova::new(0), who, to, 1)
        .unwrap_err();
    assert_eq!((stopped.done_bytes, stopped.side), (0, Side::Source));
    let (at, access) = (Iova::new(0), palisade_units::Access::READ);
    assert_eq!(stopped.error, DmaError::NotPresent { at, access });
}

#[test]
fn copies_over_contiguous_memory_come_out_as_page_by_page_even_where_they_overlap() {
    const BASE: usize = 0x10_0000;
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x10_0000);
    for page in 0..40 {
        process.map(0x10_0000 + (page << 12), 0x20_0000 + (page << 12));
    }
    let data: Vec<u8> = (0_u32..40 << 10)
        .flat_map(|n| (n * 7).to_le_bytes())
        .collect();
    let mut port = function.port();
    let who = by(tag(1));
    let iova = |offset: usize| Iova::new((BASE + offset) as u64);
    let cases = [
        (0x100, 0x1_8200, 0x9000),
        (0x100, 0x1200, 0x2_2000),
        (0x1200, 0x100, 0x2_2000),
        (0x1000, 0x2000, 0x6000),
    ];
    for (from, to, len) in cases {
        port.write(who, iova(0), &data).unwrap();
        let mut back = vec![0; data.len()];
        port.read(who, iova(0), &mut back).unwrap();
        port.copy(who, iova(from), who, iova(to), len as u64)
            .unwrap();
        port.read(who, iova(0), &mut back).unwrap();
        let mut expected = data.clone();
        let mut done = 0;
        while done < len {
            let left = |at: usize| 0x1000 - (at + done) % 0x1000;
            let piece = left(from).min(left(to)).min(len - done);
            let start = from + done;
            expected.copy_within(start..start + piece, to + done);
            done += piece;
        }
        assert!(back == expected, "from {from:#x} to {to:#x}");
    }
}

/// How often a file is mapped in this process.
fn mappings(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(name)).count()
}

#[test]
fn r72_a_port_that_forgets_keeps_no_memory_that_is_gone_and_all_that_is_not() {
    const NAME: &str = "memory-that-goes";
    const AT: u64 = 1 << 30;
    let tenant = Tenant::alone();
    let (function, _claim, process) = warm(&tenant, 0x1000);
    let goes = SharedMemory::create(NAME, 0x1000).unwrap();
    let others = mappings(NAME);
    let backing = goes.backing();
    let at = Gpa::new(AT);
    let memory = &tenant.memory;
    memory
        .map(at, 0x1000, backing, Protection::ReadWrite)
        .unwrap();
    let pass = tenant.pass_through(2);
    function.bind(tag(2), tenant.hold(), pass).unwrap();
    let pass = tenant.pass_through(3);
    function.bind(None, tenant.hold(), pass).unwrap();
    let mut port = function.port();
    assert_eq!(read(&mut port, tag(1), 0x5000), Ok(1));
    for of in [tag(2), None] {
        assert_eq!(read(&mut port, of, AT), Ok(0));
        write(&mut port, of, AT, 0).unwrap();
    }
    memory.unmap(at, 0x1000).unwrap();
    for of in [tag(2), None] {
        port.forget_stale();
        assert_eq!(mappings(NAME), others + 1, "it may be in use still");
        function.invalidate(Scope::Tag(of), Cached::InUnit);
    }
    port.forget_stale();
    assert_eq!(mappings(NAME), others);
    // What was not invalidated is there as it was.
    process.map(0x5000, 0x2000);
    assert_eq!(read(&mut port, tag(1), 0x5000), Ok(1));
}
