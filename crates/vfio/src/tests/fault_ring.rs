//! R61: faults for a VMM, in a bounded ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use palisade_iommu::{
    Ats, Fault, FaultReason, GroupIndex, PageRequest, PlaceInGroup, QueueFull, Sharing, Sink,
};
use palisade_memory::{GuestMemory, Protection};
use palisade_units::{Access, Gpa, Iova};
use proptest::prelude::*;

use super::world::*;
use crate::{Bell, FaultRecord, FaultRing};

const BUFFER: u64 = 0x7f00_0000_0000;
const CAPACITY: u32 = 512;

/// A ring, what its VMM has mapped, and how often its bell rang.
struct Vmm {
    ring: Arc<FaultRing>,
    region: GuestMemory,
    rung: Arc<AtomicUsize>,
}

impl Vmm {
    fn new() -> Self {
        let rung = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&rung);
        let bell: Box<dyn Bell> = Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let ring = Arc::new(FaultRing::new(bell).unwrap());
        let region = GuestMemory::new();
        let whole = Protection::ReadWrite;
        region
            .map(Gpa::new(0), ring.len_bytes(), ring.region(), whole)
            .unwrap();
        Self { ring, region, rung }
    }

    fn head(&self) -> u32 {
        self.region.load_u32(Gpa::new(0)).unwrap()
    }

    fn set_tail(&self, tail: u32) {
        self.region.store_u32(Gpa::new(4), tail).unwrap();
    }

    fn rung(&self) -> usize {
        self.rung.load(Ordering::Relaxed)
    }

    fn word(&self, at: u64) -> u64 {
        self.region.load_u64(Gpa::new(at)).unwrap()
    }
}

fn fault(number: u64) -> Fault {
    Fault {
        bdf: slot(4),
        pasid: Some(guest(777)),
        at: Iova::new(number << 12),
        access: Access::READ,
        reason: FaultReason::FirstStageNotPresent,
        ats: Ats::Off,
    }
}

fn request(number: u16) -> PageRequest {
    PageRequest {
        bdf: slot(4),
        pasid: Some(guest(777)),
        at: Iova::new(BUFFER),
        access: Access::READ | Access::WRITE,
        group: GroupIndex::new(number),
        last_in_group: PlaceInGroup::Last,
    }
}

#[test]
fn r61_a_vmm_reads_head_entry_and_count_from_the_region_that_it_maps() {
    let vmm = Vmm::new();
    assert_eq!(vmm.word(8), 64 << 32 | 512);
    vmm.ring.fault(fault(9));
    vmm.ring.page_request(request(3)).unwrap();
    assert_eq!(vmm.head(), 2);
    // A fault: kind, place 00:04.0 and code 71h; class 5, PASID and address valid; PASID, read; address.
    assert_eq!(vmm.word(4096), 0x0071_0020_0000_0001);
    assert_eq!(vmm.word(4104), 3 << 32 | 5);
    assert_eq!(vmm.word(4112), 1 << 32 | 777);
    assert_eq!(vmm.word(4120), 0x9000);
    // A page request: kind, place; last, with a PASID that the answer names; group, read and write.
    assert_eq!(vmm.word(4160), 0x20 << 32 | 2);
    assert_eq!(vmm.word(4168), 777 << 32 | 1 | 2 | 8);
    assert_eq!(vmm.word(4176), 3 << 32 | 3);
    assert_eq!(vmm.word(4184), BUFFER);
    assert_eq!(vmm.ring.take(), Some(FaultRecord::Fault(fault(9))));
    let asked = FaultRecord::PageRequest(request(3));
    assert_eq!(vmm.ring.take(), Some(asked));
    assert_eq!(vmm.ring.take(), None);
}

#[test]
fn r61_every_reason_comes_out_as_it_went_in_with_and_without_a_pasid() {
    let vmm = Vmm::new();
    for reason in FaultReason::ALL {
        for (pasid, ats) in [(None, Ats::On), (Some(guest(0xf_ffff)), Ats::Off)] {
            let access = Access::EXECUTE | Access::PRIVILEGED;
            let fault = Fault {
                pasid,
                access,
                reason: *reason,
                ats,
                ..fault(1)
            };
            vmm.ring.fault(fault);
            assert_eq!(vmm.ring.take(), Some(FaultRecord::Fault(fault)));
        }
    }
}

#[test]
fn r61_the_bell_rings_from_empty_to_non_empty_and_only_then() {
    let vmm = Vmm::new();
    for n in 0..3 {
        vmm.ring.fault(fault(n));
    }
    assert_eq!(vmm.rung(), 1);
    vmm.set_tail(2);
    vmm.ring.fault(fault(3));
    assert_eq!(vmm.rung(), 1);
    vmm.set_tail(4);
    vmm.ring.fault(fault(4));
    assert_eq!(vmm.rung(), 2);
}

#[test]
fn r61_the_bell_rings_for_a_vmm_that_takes_the_last_record_while_another_comes() {
    let vmm = Vmm::new();
    vmm.ring.fault(fault(1));
    // It sees the head as it was, and goes to sleep.
    let takes_it = || vmm.set_tail(vmm.head());
    let record = FaultRecord::Fault(fault(2));
    vmm.ring.put_while(record, takes_it).unwrap();
    assert_eq!(vmm.rung(), 2);
    assert_eq!(vmm.ring.take(), Some(record));
}

#[test]
fn r61_what_finds_no_room_is_counted_and_what_is_there_stays() {
    let vmm = Vmm::new();
    for n in 0..600 {
        vmm.ring.fault(fault(n));
    }
    assert_eq!((vmm.head(), vmm.ring.lost()), (CAPACITY, 88));
    assert_eq!(vmm.word(16), 88);
    // A page request is not lost but refused: the platform answers it.
    assert_eq!(vmm.ring.page_request(request(1)), Err(QueueFull));
    assert_eq!(vmm.ring.lost(), 88);
    for n in 0..512 {
        assert_eq!(vmm.ring.take(), Some(FaultRecord::Fault(fault(n))));
    }
    vmm.ring.fault(fault(1000));
    assert_eq!(vmm.ring.take(), Some(FaultRecord::Fault(fault(1000))));
    assert_eq!((vmm.rung(), vmm.ring.lost()), (2, 88));
}

#[test]
fn r61_a_tail_that_makes_no_sense_is_as_if_it_had_not_been_written() {
    let vmm = Vmm::new();
    for n in 0..u64::from(CAPACITY) {
        vmm.ring.fault(fault(n));
    }
    for tail in [CAPACITY + 1, 1 << 31, u32::MAX, u32::MAX - CAPACITY] {
        vmm.set_tail(tail);
        vmm.ring.fault(fault(0));
        assert_eq!(vmm.head(), CAPACITY);
    }
    assert_eq!(vmm.ring.lost(), 4);
    vmm.set_tail(511);
    assert_eq!(vmm.ring.take(), Some(FaultRecord::Fault(fault(511))));
    // Backwards, to what was taken already.
    vmm.set_tail(7);
    assert_eq!(vmm.ring.take(), None);
}

#[test]
fn r61_a_vmm_that_writes_over_everything_gets_nonsense_and_the_ring_goes_on() {
    let vmm = Vmm::new();
    vmm.ring.fault(fault(1));
    for at in (0..vmm.ring.len_bytes()).step_by(8) {
        vmm.region.store_u64(Gpa::new(at), u64::MAX).unwrap();
    }
    assert_eq!(vmm.ring.take(), None);
    vmm.ring.fault(fault(2));
    assert_eq!(vmm.head(), 2);
    assert_eq!(vmm.ring.take(), Some(FaultRecord::Fault(fault(2))));
}

#[test]
fn r61_r78_a_vmm_that_cuts_its_region_off_is_told_nothing_and_the_ring_goes_on() {
    let ring = FaultRing::new(Box::new(|| ())).unwrap();
    ring.fault(fault(1));
    let file = std::fs::File::from(ring.region().fd.try_clone().unwrap());
    file.set_len(0).unwrap();
    for number in 2..5 {
        ring.fault(fault(number));
        assert_eq!(ring.page_request(request(1)), Err(QueueFull));
    }
    assert_eq!(ring.lost(), 3);
    assert_eq!(ring.take(), None);
    // Neither does it help to make it longer than it was.
    file.set_len(1 << 40).unwrap();
    assert_eq!(ring.page_request(request(1)), Err(QueueFull));
}

#[test]
fn r61_r66_a_ring_that_is_a_containers_sink_has_its_faults_in_the_guests_names() {
    let (_host, alice, parent, _function) = alone(Sharing::Mediated);
    let vmm = Vmm::new();
    alice.container.set_sink(vmm.ring.clone());
    let space = alice.process(&[]);
    alice.bind(slot(4), pasid(777), space).unwrap();
    let hold = alice.container.translate(slot(4), guest(777)).unwrap();
    assert_ne!(hold.pasid().get(), 777);
    read(&mut parent.port(), holding(&hold), BUFFER).unwrap_err();
    let told = Fault {
        at: Iova::new(BUFFER),
        ..fault(0)
    };
    assert_eq!(vmm.ring.take(), Some(FaultRecord::Fault(told)));
    assert_eq!((vmm.rung(), vmm.ring.take()), (1, None));
}

#[test]
fn r61_r67_the_storm_of_one_tenant_costs_the_other_no_record_and_no_ring_of_the_bell() {
    let (_host, [alice, bob], parent, _slices) = neighbours(slot(4), slot(9));
    let (hers, his) = (Vmm::new(), Vmm::new());
    alice.container.set_sink(hers.ring.clone());
    bob.container.set_sink(his.ring.clone());
    let [storm, single] = [(&alice, 4), (&bob, 9)].map(|(tenant, at)| {
        let space = tenant.process(&[]);
        tenant.bind(slot(at), pasid(777), space).unwrap();
        tenant.container.translate(slot(at), guest(777)).unwrap()
    });
    let mut port = parent.port();
    for _ in 0..10_000 {
        read(&mut port, holding(&storm), BUFFER).unwrap_err();
    }
    read(&mut port, holding(&single), BUFFER).unwrap_err();
    assert_eq!((hers.head(), hers.rung()), (CAPACITY, 1));
    assert_eq!(hers.ring.lost(), 10_000 - u64::from(CAPACITY));
    assert_eq!((his.head(), his.rung(), his.ring.lost()), (1, 1, 0));
    let told = Fault {
        bdf: slot(9),
        at: Iova::new(BUFFER),
        ..fault(0)
    };
    assert_eq!(his.ring.take(), Some(FaultRecord::Fault(told)));
}

#[test]
fn r61_no_record_is_left_in_a_ring_whose_vmm_waits_for_the_bell() {
    const RECORDS: u32 = 20_000;
    let (bell, wakes) = std::sync::mpsc::channel();
    let bell: Box<dyn Bell> = Box::new(move || bell.send(()).unwrap());
    let ring = FaultRing::new(bell).unwrap();
    let region = GuestMemory::new();
    let whole = Protection::ReadWrite;
    region
        .map(Gpa::new(0), ring.len_bytes(), ring.region(), whole)
        .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..RECORDS {
                while ring.page_request(request(1)).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        // Sleeps only when it saw the ring empty, so a bell that does not ring fails the test.
        let mut tail = 0;
        while tail < RECORDS {
            let head = region.load_u32(Gpa::new(0)).unwrap();
            if head == tail {
                let patience = std::time::Duration::from_secs(60);
                wakes.recv_timeout(patience).unwrap();
                continue;
            }
            tail = head;
            region.store_u32(Gpa::new(4), tail).unwrap();
            std::sync::atomic::fence(Ordering::SeqCst);
        }
    });
}

#[derive(Clone, Debug)]
enum Step {
    /// So many faults.
    Put(u16),
    /// The VMM takes one.
    Take,
    /// The VMM moves its tail past so many of those that are there.
    Skip(u16),
    /// The VMM writes anything.
    Tail(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u16..300).prop_map(Step::Put),
        Just(Step::Take),
        (0u16..600).prop_map(Step::Skip),
        any::<u32>().prop_map(Step::Tail),
        (0u32..2000).prop_map(Step::Tail),
    ]
}

/// What a ring does, slowly: records in a queue, and how many left it.
#[derive(Default)]
struct Model {
    queue: VecDeque<u64>,
    gone: u32,
    tail: u32,
    lost: u64,
    rung: usize,
}

impl Model {
    fn look_at_tail(&mut self) {
        let further = (0..=self.queue.len()).find(|n| self.gone + number(*n) == self.tail);
        for _ in 0..further.unwrap_or(0) {
            self.queue.pop_front();
            self.gone += 1;
        }
    }

    fn put(&mut self, n: u64) {
        self.look_at_tail();
        if self.queue.len() == FaultRing::CAPACITY {
            self.lost += 1;
            return;
        }
        if self.queue.is_empty() {
            self.rung += 1;
        }
        self.queue.push_back(n);
    }

    fn take(&mut self) -> Option<u64> {
        self.look_at_tail();
        let taken = self.queue.pop_front()?;
        self.gone += 1;
        self.tail = self.gone;
        Some(taken)
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn r61_the_ring_is_a_bounded_queue_whatever_stands_in_the_tail(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let vmm = Vmm::new();
        let mut model = Model::default();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Put(count) => for _ in 0..count {
                    vmm.ring.fault(fault(next));
                    model.put(next);
                    next += 1;
                },
                Step::Take => {
                    let expected = model.take().map(|n| FaultRecord::Fault(fault(n)));
                    prop_assert_eq!(vmm.ring.take(), expected);
                }
                Step::Skip(count) => {
                    let there = number(model.queue.len());
                    model.tail = model.gone + u32::from(count).min(there);
                    vmm.set_tail(model.tail);
                }
                Step::Tail(tail) => {
                    model.tail = tail;
                    vmm.set_tail(tail);
                }
            }
            prop_assert_eq!(vmm.ring.lost(), model.lost);
            prop_assert_eq!(vmm.rung(), model.rung);
            prop_assert_eq!(vmm.head(), model.gone + number(model.queue.len()));
        }
    }
}
