//! The interrupt address range (VT-d §3.14), seen through a port and its caches.

use super::*;

const START: u64 = 0xfee0_0000;
const END: u64 = 0xfef0_0000;
/// The page of 2 MiB that holds the range, and memory after it.
const AROUND: u64 = 0xfee0_0000;

/// A tenant with memory in the range and around it, and a space of every kind, by tags 1 to 4, that
/// leads large pages there to themselves.
fn tenant() -> (Tenant, Vec<Space>) {
    let tenant = Tenant::alone();
    let there = SharedMemory::create("there", 4 << 20).unwrap();
    let (at, backing) = (Gpa::new(AROUND - (2 << 20)), there.backing());
    tenant
        .memory
        .map(at, 4 << 20, backing, Protection::ReadWrite)
        .unwrap();
    let identity = |flags: u64| {
        let (top, next) = (tenant.table(), tenant.table());
        let put = |at, word| tenant.shared.store_u64(at, word).unwrap();
        put(top, next | flags);
        put(next + 3 * 8, (3 << 30) | flags | LARGE);
        put(next, flags | LARGE);
        Gpa::new(top)
    };
    let first = FirstStage::new(identity(PAGE), Levels::Four);
    let second = SecondStage::new(identity(3), Levels::Four);
    let spaces = vec![
        Space::PassThrough,
        Space::FirstStage(first),
        Space::SecondStage(second),
        Space::Nested(first, second),
    ];
    (tenant, spaces)
}

#[test]
fn r59_87h_a_large_page_that_holds_the_range_is_not_cached_over_it() {
    let (tenant, spaces) = tenant();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    for (number, space) in (1..).zip(spaces) {
        let binding = tenant.binding(1, space, Some(guest(number)));
        function.bind(tag(number), tenant.hold(), binding).unwrap();
        let mut port = function.port();
        for _ in 0..2 {
            for served in [START - 8, END, AROUND + (2 << 20) - 8] {
                assert_eq!(read(&mut port, tag(number), served), Ok(0), "{space:?}");
                write(&mut port, tag(number), served, 0).unwrap();
            }
            for blocked in [START, END - 8] {
                let result = read(&mut port, tag(number), blocked);
                assert_eq!(refused(result), FaultReason::InterruptRange, "{space:?}");
                let result = write(&mut port, tag(number), blocked, 0);
                assert_eq!(refused(result), FaultReason::InterruptRange, "{space:?}");
            }
        }
    }
}

#[test]
fn r59_87h_a_request_without_a_pasid_is_refused_there_whatever_is_mapped() {
    let (tenant, spaces) = tenant();
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    for space in spaces {
        let binding = tenant.binding(1, space, None);
        function.bind(None, tenant.hold(), binding).unwrap();
        let mut port = function.port();
        assert_eq!(read(&mut port, None, START - 8), Ok(0));
        let result = write(&mut port, None, START, 1);
        assert_eq!(refused(result), FaultReason::InterruptRange, "{space:?}");
    }
}

#[test]
fn r59_87h_a_large_page_around_the_range_is_not_cached_over_it_wherever_it_leads() {
    let tenant = Tenant::alone();
    let there = SharedMemory::create("there", 2 << 20).unwrap();
    let elsewhere = 4 << 30;
    let (at, backing) = (Gpa::new(elsewhere), there.backing());
    tenant
        .memory
        .map(at, 2 << 20, backing, Protection::ReadWrite)
        .unwrap();
    let root = |flags: u64| {
        let (top, next, last) = (tenant.table(), tenant.table(), tenant.table());
        let put = |at, word| tenant.shared.store_u64(at, word).unwrap();
        put(top, next | flags);
        put(next + 3 * 8, last | flags);
        put(last + (AROUND >> 21 & 0x1ff) * 8, elsewhere | flags | LARGE);
        Gpa::new(top)
    };
    let first = FirstStage::new(root(PAGE), Levels::Four);
    let second = SecondStage::new(root(3), Levels::Four);
    let function = function(&Iommu::new());
    let _claim = tenant.own(&function);
    for (number, space) in [
        (1, Space::FirstStage(first)),
        (2, Space::SecondStage(second)),
    ] {
        for tag in [None, tag(number)] {
            let binding = tenant.binding(1, space, tag.map(|_| guest(number)));
            function.bind(tag, tenant.hold(), binding).unwrap();
            let mut port = function.port();
            for served in [END, AROUND + (2 << 20) - 8] {
                assert_eq!(read(&mut port, tag, served), Ok(0), "{space:?}");
                write(&mut port, tag, served, 0).unwrap();
            }
            for at in [START, END - 8] {
                let results = [
                    read(&mut port, tag, at),
                    write(&mut port, tag, at, 1).map(|()| 0),
                ];
                for result in results {
                    match tag {
                        None => assert_eq!(refused(result), FaultReason::InterruptRange),
                        Some(_) => assert!(result.is_ok(), "{space:?}"),
                    }
                }
            }
        }
    }
}
