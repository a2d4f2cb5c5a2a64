use palisade_dsa::spec::{CommandError, Descriptor, Flags, Status};
use palisade_iommu::{FaultReason, PageResponse};
use palisade_units::Iova;
use proptest::prelude::*;

use super::rig::{Driver, Host, Process, SLOT, Tenant, dedicated, run};
use crate::SliceType::{DedicatedQueue, SharedQueue};

const RECORD: u64 = 0x8_0000;
/// Where the buffer of a process stands, by its own addresses.
const BUFFER: u64 = 0x7f12_3450_0000;
const PAGES: u64 = 32;

/// A process whose buffer lies in memory page by page backwards; which pages its table has is for later.
struct Buffer<'a> {
    tenant: &'a Tenant,
    process: Process<'a>,
    start: u64,
}

impl<'a> Buffer<'a> {
    fn new(tenant: &'a Tenant, pasid: u32, start: u64) -> Self {
        let process = tenant.process(pasid);
        process.map(RECORD, RECORD, 1);
        Self {
            tenant,
            process,
            start,
        }
    }

    fn place(&self, page: u64) -> u64 {
        self.start + (PAGES - 1 - page) * 4096
    }

    fn map(&self, page: u64) {
        self.process.map(BUFFER + page * 4096, self.place(page), 1);
    }

    fn fill(&self, seed: u8) -> Vec<u8> {
        let bytes: Vec<u8> = (0..PAGES * 4096)
            .map(|i| (i * 31 + i / 4093).to_le_bytes()[0].wrapping_add(seed))
            .collect();
        for (page, part) in (0..).zip(bytes.chunks(4096)) {
            self.tenant.memory.write(self.place(page), part).unwrap();
        }
        bytes
    }

    fn seen(&self) -> Vec<u8> {
        (0..PAGES)
            .flat_map(|page| self.tenant.bytes(self.place(page), 4096))
            .collect()
    }

    /// Serves page requests until the engine has nothing to do. Says how many there were.
    fn serve(&self, engine: &mut palisade_dsa::Engine) -> u64 {
        let mut served = 0;
        loop {
            run(engine);
            let requests = self.tenant.unit.take_requests();
            if requests.is_empty() {
                return served;
            }
            for request in requests {
                self.map((request.at.get() - BUFFER) / 4096);
                let key = palisade_vfio::SpaceKey::Pasid(request.pasid.unwrap());
                let response = PageResponse::Success;
                self.tenant
                    .container
                    .respond(SLOT, key, request.group, response)
                    .unwrap();
                served += 1;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn r73_copies_by_pasid_with_page_requests_are_what_software_copies(
        mapped in any::<u32>(),
        copies in proptest::collection::vec((0..0x1_8000_u64, 0..0x1_8000_u64, 1..0x8000_u32), 1..10),
        shared in any::<bool>(),
    ) {
        let host = Host::new();
        let kind = if shared { SharedQueue } else { DedicatedQueue };
        let (tenant, _assigned, driver) = host.with_slice(1, kind);
        let buffer = Buffer::new(&tenant, 33, 0x10_0000);
        for page in (0..PAGES).filter(|page| mapped >> page & 1 == 1) {
            buffer.map(page);
        }
        let mut expected = buffer.fill(1);
        let mode = dedicated(33).with_dedicated(!shared);
        prop_assert_eq!(driver.enable(mode), CommandError::SUCCESS);
        let mut engine = host.parent.engine();
        for (from, to, len) in copies {
            let copy = Descriptor::memory_move(BUFFER + from, BUFFER + to, len);
            let copy = copy.with_record(RECORD).with_flags(Flags::BLOCK_ON_FAULT);
            driver.submit(&copy.with_pasid(33));
            buffer.serve(&mut engine);
            prop_assert_eq!(tenant.record(RECORD).status(), Status::SUCCESS);
            let index = |at: u64| usize::try_from(at).unwrap();
            let source = index(from)..index(from + u64::from(len));
            expected.copy_within(source, index(to));
        }
        prop_assert!(buffer.seen() == expected);
        prop_assert_eq!(driver.error(), None);
        prop_assert_eq!(tenant.unit.take_faults(), vec![]);
    }
}

#[test]
fn r66_what_the_guest_sees_has_its_own_names() {
    let host = Host::new();
    let (tenant, _assigned, driver) = host.with_slice(1, DedicatedQueue);
    // So that the host's number differs from the guest's.
    let other = host.tenant(2);
    (0..20).for_each(|_| _ = other.alloc());
    tenant.process(0xabcde).map(RECORD, RECORD, 1);
    assert_ne!(tenant.host_of(0xabcde).get(), 0xabcde);
    assert_eq!(driver.enable(dedicated(0xabcde)), CommandError::SUCCESS);
    let mut engine = host.parent.engine();
    let copy = Descriptor::memory_move(RECORD, BUFFER, 8);
    driver.submit(&copy.with_record(RECORD));
    driver.submit(&copy.with_flags(Flags::BLOCK_ON_FAULT));
    run(&mut engine);
    let fault = tenant.unit.take_faults()[0];
    assert_eq!((fault.bdf, fault.pasid.unwrap().get()), (SLOT, 0xabcde));
    assert_eq!(
        (fault.reason, fault.at),
        (FaultReason::FirstStageNotPresent, Iova::new(BUFFER))
    );
    let request = tenant.unit.take_requests()[0];
    assert_eq!((request.bdf, request.pasid.unwrap().get()), (SLOT, 0xabcde));
    driver.submit(&Descriptor { size: 0, ..copy });
    run(&mut engine);
    assert_eq!(driver.error().unwrap().pasid, 0xabcde);
}

#[test]
fn r16_r66_work_by_a_pasid_that_is_not_bound_faults_in_the_guests_names() {
    for kind in [DedicatedQueue, SharedQueue] {
        let host = Host::new();
        let (other, _others, _) = host.with_slice(1, kind);
        let (tenant, _assigned, driver) = host.with_slice(2, kind);
        let own = tenant.alloc().get();
        let mode = dedicated(own).with_dedicated(kind == DedicatedQueue);
        assert_eq!(driver.enable(mode), CommandError::SUCCESS);
        let copy = Descriptor::memory_move(BUFFER, BUFFER + 4096, 8).with_pasid(own);
        driver.submit(&copy.with_record(RECORD));
        run(&mut host.parent.engine());
        let faults = tenant.unit.take_faults();
        assert!(!faults.is_empty());
        for fault in faults {
            assert_eq!((fault.bdf, fault.pasid.unwrap().get()), (SLOT, own));
            assert_eq!(fault.reason, FaultReason::PasidEntryNotPresent);
        }
        assert_eq!(other.unit.take_faults(), []);
    }
}

#[test]
fn r67_a_tenants_storms_leave_another_its_share() {
    for kind in [DedicatedQueue, SharedQueue] {
        let host = Host::new();
        let (modest, _modests, modests) = host.with_slice(1, kind);
        let (greedy, _greedys, greedys) = host.with_slice(2, kind);
        modest.process(1).map(RECORD, RECORD, 1);
        let process = greedy.process(1);
        process.map(0x10_0000, 0x10_0000, 1);
        process.map(0x20_0000, 0x20_0000, 0x300);
        let enable = |driver: &Driver| {
            let mode = dedicated(1).with_dedicated(kind == DedicatedQueue);
            assert_eq!(driver.enable(mode), CommandError::SUCCESS);
        };
        enable(&modests);
        enable(&greedys);
        let mut engine = host.parent.engine();
        for page in 0..20 {
            let missing = Descriptor::memory_move(0x10_0000, BUFFER + page * 4096, 8);
            greedys.submit(&missing.with_flags(Flags::BLOCK_ON_FAULT).with_pasid(1));
            greedys.submit(&missing.with_pasid(1));
            let large = Descriptor::memory_move(0x20_0000, 0x38_0000, 0x18_0000);
            greedys.submit(&large.with_pasid(1));
        }
        for _ in 0..10 {
            modests.submit(&Descriptor::no_op().with_pasid(1).with_record(RECORD));
            let mut turns = 0;
            while modest.record(RECORD).status() != Status::SUCCESS {
                engine.run(1);
                turns += 1;
                assert!(turns <= 3, "starved");
            }
            greedy.answer(PageResponse::Success);
        }
    }
}
