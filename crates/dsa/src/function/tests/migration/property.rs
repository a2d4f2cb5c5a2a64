//! Any work, stopped at any moment, goes on elsewhere to the same end.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::tests::model::{self, Memory};
use crate::tests::operation::{Operation, memory, operation};

/// Where the operations' memory is, as each process sees it.
const BASE: u64 = FROM;
const PAGES: u64 = 32;
const PROCESSES: u32 = 3;
const FIRST: u32 = 5;
const LIST: u64 = 0x9_0000;
/// The most operations of a process.
const MOST: u64 = 4;

/// A process of the driver's, whose one batch runs its operations one after the other.
struct Job {
    number: u32,
    root: u64,
    operations: Vec<Operation>,
    missing: u32,
}

impl Job {
    fn index(&self) -> u64 {
        (self.number - FIRST).into()
    }

    /// Where a page is in memory.
    fn place(&self, page: u64) -> u64 {
        0x20_0000 + (self.index() * PAGES + PAGES - 1 - page) * 4096
    }

    fn bring(&self, host: &Host, page: u64) {
        let root = self.root;
        let process = crate::testing::Process { host, root };
        process.map(BASE + page * 4096, self.place(page), 1);
    }

    fn load(&self, host: &Host, memory: &Memory) {
        for (page, bytes) in (0..).zip(memory.bytes.chunks(4096)) {
            host.write(self.place(page), bytes);
        }
        let parts = (1..).zip(&self.operations).map(|(index, operation)| {
            let descriptor = operation.descriptor.with_flags(BLOCK);
            descriptor.with_record(self.record(index))
        });
        host.write(self.list(), parts.collect::<Vec<_>>().as_bytes());
    }

    fn memory(&self, host: &Host) -> Memory {
        let pages = (0..PAGES).flat_map(|page| host.bytes(self.place(page), 4096));
        Memory {
            base: BASE,
            bytes: pages.collect(),
        }
    }

    /// That of the batch is the first.
    fn record(&self, index: u64) -> u64 {
        RECORD + (self.index() * 8 + index) * 32
    }

    fn list(&self) -> u64 {
        LIST + self.index() * 0x400
    }

    /// The first process has a queue for itself, the others share one.
    fn submit(&self, machine: &Machine) {
        let count = u32::try_from(self.operations.len()).unwrap();
        let batch = Descriptor::batch(self.list(), count).with_record(self.record(0));
        let queue = u8::from(self.number != FIRST);
        machine.driver.submit(queue, &batch.with_pasid(self.number));
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// An engine runs so many turns.
    Run(u32),
    /// Some of the open page requests are answered.
    Answer(u32),
    /// The function is stopped and goes on where it is.
    Stop,
    /// It goes on elsewhere.
    Move,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1_u32..4).prop_map(Event::Run),
        4 => (1_u32..4).prop_map(Event::Answer),
        1 => Just(Event::Stop),
        2 => Just(Event::Move),
    ]
}

/// The world at large: where the function is now.
struct World {
    machine: Machine,
    jobs: Vec<Job>,
    records: std::collections::BTreeMap<u64, CompletionRecord>,
    moves: u32,
}

impl World {
    fn new(jobs: Vec<(Vec<Operation>, u32)>) -> Self {
        let machine = Machine::with(0x1000, &[dedicated(FIRST), shared()]);
        let jobs = (FIRST..).zip(jobs).map(|(number, (operations, missing))| {
            let process = machine.host.process(number + machine.by);
            process.map(RECORD, RECORD, 1);
            process.map(LIST, LIST, 1);
            let root = process.root;
            Job {
                number,
                root,
                operations,
                missing,
            }
        });
        let jobs: Vec<Job> = jobs.collect();
        for job in &jobs {
            for page in (0..PAGES).filter(|page| job.missing >> page & 1 == 0) {
                job.bring(&machine.host, page);
            }
        }
        Self {
            machine,
            jobs,
            records: std::collections::BTreeMap::new(),
            moves: 0,
        }
    }

    fn answer(&self, most: u32) {
        let mut requests = std::mem::take(&mut *locked(&self.machine.host.unit.requests));
        for _ in 0..most {
            let Some(request) = requests.pop() else { break };
            let number = request.pasid.unwrap().get();
            let of_request = |job: &&Job| job.number + self.machine.by == number;
            let job = self.jobs.iter().find(of_request).unwrap();
            job.bring(&self.machine.host, (request.at.get() - BASE) / 4096);
            let host = &self.machine.host;
            host.respond(number, request.group, PageResponse::Success);
        }
        locked(&self.machine.host.unit.requests).extend(requests);
    }

    /// Takes the records that were written. Each is written once.
    fn collect(&mut self) {
        for at in (RECORD..RECORD + 0x400).step_by(32) {
            let bytes = self.machine.host.bytes(at, 32);
            let record = CompletionRecord::read_from_bytes(&bytes).unwrap();
            if record.status() != Status::NONE {
                self.machine.host.write(at, &[0; 32]);
                let before = self.records.insert(at, record);
                assert_eq!(before, None, "a second record at {at:x}");
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Run(turns) => {
                self.machine.engine().run(turns);
            }
            Event::Answer(most) => self.answer(most),
            Event::Stop => {
                self.machine.migration().stop();
                self.machine.migration().start().unwrap();
            }
            Event::Move => {
                self.moves += 1;
                let processes: Vec<_> =
                    self.jobs.iter().map(|job| (job.number, job.root)).collect();
                self.machine = self.machine.moved(0x1000 * (self.moves + 1), &processes);
            }
        }
        self.collect();
    }

    fn finish(&mut self) {
        for _ in 0..500 {
            self.machine.run();
            self.collect();
            if locked(&self.machine.host.unit.requests).is_empty() {
                return;
            }
            self.answer(u32::MAX);
        }
        panic!("the work does not come to an end");
    }
}

fn jobs() -> impl Strategy<Value = Vec<(Vec<Operation>, u32)>> {
    let most = usize::try_from(MOST).unwrap();
    let operations = proptest::collection::vec(operation(), 2..=most);
    let missing = prop_oneof![Just(0), Just(u32::MAX), any::<u32>()];
    proptest::collection::vec((operations, missing), PROCESSES as usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn r74_any_work_comes_to_the_same_end_wherever_it_goes_on(
        jobs in jobs(),
        memories in proptest::collection::vec(memory(), PROCESSES as usize),
        events in proptest::collection::vec(event(), 0..30),
    ) {
        let mut world = World::new(jobs);
        let mut expected = Vec::new();
        for (job, memory) in world.jobs.iter().zip(memories) {
            let mut memory = memory;
            for operation in &job.operations {
                operation.prepare(&mut memory);
            }
            job.load(&world.machine.host, &memory);
            job.submit(&world.machine);
            expected.push(memory);
        }
        for event in events {
            world.happen(event);
        }
        world.finish();
        for (job, mut memory) in world.jobs.iter().zip(expected) {
            let mut failed = false;
            for (index, operation) in (1..).zip(&job.operations) {
                let by_software = model::run(&operation.descriptor, &mut memory);
                prop_assert_eq!(world.records.get(&job.record(index)), Some(&by_software));
                failed |= by_software.status() != Status::SUCCESS;
            }
            let of_batch = world.records.get(&job.record(0)).unwrap();
            let status = if failed { Status::BATCH_FAILED } else { Status::SUCCESS };
            prop_assert_eq!(of_batch.status(), status);
            prop_assert!(job.memory(&world.machine.host) == memory);
        }
        prop_assert_eq!(world.machine.driver.error(), None);
        prop_assert_eq!(locked(&world.machine.host.unit.faults).len(), 0);
    }
}
