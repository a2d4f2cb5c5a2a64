//! What an invalidation leaves, and what it takes with it.

use super::*;

/// A process with pages at `at`, each leading to the frame 0x10_0000; and the same pages to 0x11_0000 in
/// the tables, but not in the cache of the port.
fn stale<'a>(tenant: &'a Tenant, pages: &[u64]) -> (FunctionHandle, Claim, Process<'a>, DmaPort) {
    let function = function(&Iommu::new());
    let claim = tenant.own(&function);
    let process = tenant.process();
    tenant.shared.store_u64(0x10_0000, 1).unwrap();
    tenant.shared.store_u64(0x11_0000, 2).unwrap();
    function
        .bind(tag(1), tenant.hold(), process.binding(1, 1))
        .unwrap();
    let mut port = function.port();
    for at in pages {
        process.map(*at, 0x10_0000);
        assert_eq!(read(&mut port, tag(1), *at), Ok(1));
        process.map(*at, 0x11_0000);
    }
    (function, claim, process, port)
}

fn pages(at: u64, len_bytes: u64) -> Scope {
    Scope::Pages {
        tag: tag(1),
        at: Iova::new(at),
        len_bytes,
    }
}

#[test]
fn r40_an_invalidation_of_pages_touches_those_pages_alone() {
    let tenant = Tenant::alone();
    let all = [0x5000, 0x6000, 0x7000, 0x8000, 0x20_0000];
    let (function, _claim, _process, mut port) = stale(&tenant, &all);
    function.invalidate(pages(0x6fff, 2), Cached::InUnit);
    let seen = all.map(|at| read(&mut port, tag(1), at).unwrap());
    assert_eq!(seen, [1, 2, 2, 1, 1]);
    function.invalidate(pages(0x5000, 0), Cached::InUnit);
    assert_eq!(read(&mut port, tag(1), 0x5000), Ok(1));
    // So many that all lines are looked at.
    function.invalidate(pages(0x8000, 0x1f_9000), Cached::InUnit);
    let seen = all.map(|at| read(&mut port, tag(1), at).unwrap());
    assert_eq!(seen, [1, 2, 2, 2, 2]);
}

#[test]
fn r40_more_invalidations_than_are_noted_take_everything() {
    let tenant = Tenant::alone();
    let (function, _claim, _process, mut port) = stale(&tenant, &[0x5000, 0x6000]);
    for _ in 0..100 {
        function.invalidate(pages(0x6000, 1), Cached::InUnit);
    }
    assert_eq!(read(&mut port, tag(1), 0x6000), Ok(2));
    assert_eq!(read(&mut port, tag(1), 0x5000), Ok(2));
}

#[test]
fn r41_one_address_of_a_large_page_takes_all_its_pieces() {
    let tenant = Tenant::alone();
    let (function, _claim, process, mut port) = stale(&tenant, &[]);
    tenant.shared.store_u64(0x60_0000, 7).unwrap();
    process.put(0x4000_0000, 3, PAGE | LARGE);
    for at in [0x4010_0000, 0x4060_0000] {
        read(&mut port, tag(1), at).unwrap();
    }
    process.put(0x4000_0000, 3, 0);
    function.invalidate(pages(0x7000_0000, 1), Cached::InUnit);
    assert!(read(&mut port, tag(1), 0x4010_0000).is_err());
    assert!(read(&mut port, tag(1), 0x4060_0000).is_err());
}

#[test]
fn r41_a_table_stays_until_a_page_in_it_is_invalidated() {
    let tenant = Tenant::alone();
    let (function, _claim, process, mut port) = stale(&tenant, &[0x5000]);
    process.map(0x6000, 0x10_0000).map(0x7000, 0x10_0000);
    let (old, new) = (process.entry(0, 1), tenant.table());
    tenant
        .shared
        .store_u64(new + 0x30, 0x11_0000 | PAGE)
        .unwrap();
    tenant
        .shared
        .store_u64(new + 0x38, 0x11_0000 | PAGE)
        .unwrap();
    // Marked, as what may be taken without a walk is.
    tenant
        .shared
        .store_u64(old + 0x30, 0x10_0000 | PAGE | 0x20)
        .unwrap();
    process.put(0, 2, new | PAGE);
    assert_eq!(
        read(&mut port, tag(1), 0x6000),
        Ok(1),
        "the cache must be real"
    );
    function.invalidate(pages(0x20_0000, 1), Cached::InUnit);
    tenant
        .shared
        .store_u64(old + 0x38, 0x10_0000 | PAGE | 0x20)
        .unwrap();
    assert_eq!(
        read(&mut port, tag(1), 0x7000),
        Ok(1),
        "another table's page"
    );
    function.invalidate(pages(0x8000, 1), Cached::InUnit);
    assert_eq!(
        read(&mut port, tag(1), 0x7000),
        Ok(1),
        "another page's translation"
    );
    function.invalidate(pages(0x7000, 1), Cached::InUnit);
    assert_eq!(read(&mut port, tag(1), 0x7000), Ok(2));
    function.invalidate(pages(0x6000, 1), Cached::InUnit);
    assert_eq!(read(&mut port, tag(1), 0x6000), Ok(2));
}

#[test]
fn r38_a_page_taken_without_a_walk_has_the_rights_of_all_levels() {
    let tenant = Tenant::alone();
    let (_function, _claim, process, mut port) = stale(&tenant, &[]);
    process.map(0x5000, 0x10_0000);
    let table = process.entry(0, 1);
    process.put(0, 2, table | READ_ONLY_PAGE);
    // The first read walks, the second takes the last step, by a table that may not be written.
    tenant
        .shared
        .store_u64(table + 0x30, 0x10_0000 | PAGE | 0x60)
        .unwrap();
    assert_eq!(read(&mut port, tag(1), 0x5000), Ok(1));
    assert_eq!(read(&mut port, tag(1), 0x6000), Ok(1));
    let refusal = refused(write(&mut port, tag(1), 0x6000, 3));
    assert_eq!(refusal, FaultReason::NotWritable);
    // The page of a supervisor, and one with a reserved bit.
    tenant
        .shared
        .store_u64(table + 0x38, 0x10_0000 | 0x63)
        .unwrap();
    let refusal = refused(read(&mut port, tag(1), 0x7000));
    assert_eq!(refusal, FaultReason::SupervisorPage);
    tenant
        .shared
        .store_u64(table + 0x40, 1 << 63 | 0x10_0000 | 0x67)
        .unwrap();
    let refusal = refused(read(&mut port, tag(1), 0x8000));
    assert_eq!(refusal, FaultReason::FirstStageReserved);
}

#[test]
fn r38_a_page_taken_without_a_walk_is_marked_as_by_one() {
    let tenant = Tenant::alone();
    let (_function, _claim, process, mut port) = stale(&tenant, &[0x5000]);
    process.map(0x6000, 0x10_0000);
    let entry = process.entry(0x6000, 1);
    read(&mut port, tag(1), 0x6000).unwrap();
    assert_eq!(tenant.shared.load_u64(entry).unwrap() & 0x60, 0x20);
    write(&mut port, tag(1), 0x6000, 1).unwrap();
    assert_eq!(tenant.shared.load_u64(entry).unwrap() & 0x60, 0x60);
}

#[test]
fn r39_one_announcement_is_for_several_accesses_and_each_sees_invalidations() {
    let tenant = Tenant::alone();
    let (function, _claim, _process, mut port) = stale(&tenant, &[0x5000]);
    let mut bytes = [0; 8];
    let at = Iova::new(0x5000);
    port.in_one_piece(|work| {
        work.read(by(tag(1)), at, &mut bytes).unwrap();
        assert_eq!(bytes[0], 1);
        // It waits for the end of the piece, but what it says is heard at once.
        std::thread::scope(|scope| {
            let invalidation =
                scope.spawn(|| function.invalidate(pages(0x5000, 1), Cached::InUnit));
            while bytes[0] == 1 {
                work.read(by(tag(1)), at, &mut bytes).unwrap();
            }
            // Sixty-four accesses later at the latest.
            while !invalidation.is_finished() {
                work.read(by(tag(1)), at, &mut bytes).unwrap();
            }
        });
        assert_eq!(bytes[0], 2);
    });
}

#[test]
fn what_is_published_is_written_whole_or_without_its_first_word() {
    let tenant = Tenant::alone();
    let (function, _claim, process, mut port) = stale(&tenant, &[0x5000]);
    process.map(0x6000, 0x12_0000);
    let words = |at: u64| [0, 8, 16, 24].map(|word| tenant.shared.load_u64(at + word).unwrap());
    let data: Vec<u8> = [1_u64, 2, 3, 4]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    // Not cached yet, then cached, then in two pages.
    for (at, place) in [(0x6020, 0x12_0020), (0x6040, 0x12_0040)] {
        let done = port.in_one_piece(|work| work.publish(by(tag(1)), Iova::new(at), &data));
        assert_eq!(done, Ok(()));
        assert_eq!(words(place), [1, 2, 3, 4]);
    }
    process.map(0x7000, 0x13_0000);
    port.publish(by(tag(1)), Iova::new(0x6ff0), &data).unwrap();
    assert_eq!(words(0x13_0000)[..2], [3, 4]);
    assert_eq!(words(0x12_0fe0)[2..], [1, 2]);
    // The last page has no other behind it.
    let refusal = refused(port.publish(by(tag(1)), Iova::new(0x7ff0), &data));
    assert_eq!(refusal, FaultReason::FirstStageNotPresent);
    assert_eq!(words(0x13_0fe0)[2], 0);
    assert_eq!(function.faults(), 1);
}

#[test]
fn r38_an_address_that_is_expected_is_neither_marked_nor_refused() {
    let tenant = Tenant::alone();
    let (function, _claim, process, mut port) = stale(&tenant, &[0x5000]);
    process.map(0x6000, 0x10_0000);
    let entry = process.entry(0x6000, 1);
    port.in_one_piece(|work| {
        for at in [0x5000, 0x6000, 0x9000, u64::MAX] {
            work.expect(by(tag(1)), Iova::new(at));
            work.expect(by(tag(2)), Iova::new(at));
        }
    });
    assert_eq!(tenant.shared.load_u64(entry), Ok(0x10_0000 | PAGE));
    assert_eq!(function.faults(), 0);
}

#[test]
fn r39_a_fault_within_a_piece_of_work_is_told_when_nothing_is_in_flight() {
    struct Invalidates(FunctionHandle);
    impl Sink for Invalidates {
        fn fault(&self, _: Fault) {
            self.0.invalidate(Scope::All, Cached::InUnit);
        }

        fn page_request(&self, _: PageRequest) -> Result<(), QueueFull> {
            Err(QueueFull)
        }
    }
    let tenant = Tenant::alone();
    let (function, _claim, process, mut port) = stale(&tenant, &[0x5000]);
    let binding = Binding {
        sink: Arc::new(Invalidates(function.clone())),
        ..process.binding(1, 1)
    };
    function.bind(tag(1), tenant.hold(), binding).unwrap();
    let reason = port.in_one_piece(|work| {
        work.read(by(tag(1)), Iova::new(0x5000), &mut [0; 8])
            .unwrap();
        refused(work.read(by(tag(1)), Iova::new(0x9000), &mut [0; 8]))
    });
    assert_eq!(reason, FaultReason::FirstStageNotPresent);
}
