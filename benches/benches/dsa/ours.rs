use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow, bail, ensure};
use palisade_dsa::spec::{
    COMPLETION_RECORD_BYTES, CompletionRecord, DESCRIPTOR_BYTES, Descriptor, SoftwareError, Status,
};
use palisade_dsa::{
    Accelerator, Client, Doorbell, Engine, Identity, Lane, Progress, Rules, Session, Switch,
};
use palisade_ioasid::{Authority, PasidRange, Quota};
use palisade_iommu::{
    Ats, Binding, Claim, DeviceTlb, Fault, FaultProcessing, FirstStage, FunctionHandle, Iommu,
    Levels, PageRequest, PasidSupport, Privilege, QueueFull, Sharing, Sink, Space,
    SupervisorRequests, UserId,
};
use palisade_memory::{GuestMemory, Protection};
use palisade_units::{Bdf, Gpa, PasidTag, TenantId};
use vm_memory::{Bytes, VolatileSlice};
use zerocopy::{FromBytes, IntoBytes};

use crate::Runner;
use crate::layout::{
    DATA_BYTES, DRIVER_BYTES, DRIVER_IOVA, Ground, JOBS, Job, Layout, MEMORY_BYTES, PAGE_BYTES,
    TABLES, index,
};
use crate::work::Work;

/// Bits of an entry: present, writable, user, accessed, dirty.
const ENTRY: u64 = 0x67;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Where records stand, from the start of the lists: first those of jobs, then those of batches.
const RECORDS: usize = JOBS * DESCRIPTOR_BYTES;
const BATCH_RECORDS: usize = RECORDS + JOBS * COMPLETION_RECORD_BYTES;
/// How many descriptors of a lane may be unfinished.
const CAPACITY: u16 = 64;

/// How descriptors are submitted: the next when the record of the last was seen.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    /// One by one.
    Single,
    /// In batches of so many.
    Batches(usize),
}

/// Nothing is to fault: its record would say so.
struct Unheard;

impl Sink for Unheard {
    fn fault(&self, _: Fault) {}

    fn page_request(&self, _: PageRequest) -> Result<(), QueueFull> {
        Err(QueueFull)
    }
}

impl Client for Unheard {
    fn software_error(&self, _: SoftwareError) {}

    fn interrupt(&self, _: u16) {}

    fn may_interrupt(&self, _: u16, _: &Session) -> bool {
        false
    }

    fn page_requests(&self) -> Switch {
        Switch::Off
    }

    fn ats(&self) -> Ats {
        Ats::Off
    }
}

/// The engine runs on the thread that submits: nobody sleeps.
impl Doorbell for Unheard {
    fn ring(&self) {}
}

/// Writes the tables of one process of a guest.
fn write_tables(memory: &GuestMemory, layout: &Layout) -> Result<()> {
    for at in (TABLES..MEMORY_BYTES).step_by(8) {
        memory.store_u64(Gpa::new(at), 0)?;
    }
    let mut next = TABLES + PAGE_BYTES;
    for (iova, page) in layout.mappings() {
        let mut table = TABLES;
        for level in (2..=4).rev() {
            let entry_at = Gpa::new(table + ((iova >> (9 * level)) & 0xff8));
            if memory.load_u64(entry_at)? == 0 {
                memory.store_u64(entry_at, next | ENTRY)?;
                next += PAGE_BYTES;
            }
            table = memory.load_u64(entry_at)? & ADDRESS;
        }
        let leaf_at = Gpa::new(table + ((iova >> 9) & 0xff8));
        memory
            .store_u64(leaf_at, page | ENTRY)
            .context("the tables are full")?;
    }
    Ok(())
}

/// A tenant with a queue for itself, and a process whose PASID is bound.
pub(crate) struct Tenant<'a> {
    ground: &'a Ground,
    layout: &'a Layout,
    work: Work,
    /// Data before a trace and after it.
    data: (Vec<u8>, Vec<u8>),
    jobs: Vec<Job>,
    lane: Lane,
    /// Lists and records, as the tenant has them mapped.
    driver: VolatileSlice<'a>,
    /// What is submitted, and where the records of that are, from the start of the lists.
    submissions: Vec<(Descriptor, usize)>,
    /// With it the binding would go.
    _claim: Claim,
}

impl<'a> Tenant<'a> {
    fn new(
        (ground, layout): (&'a Ground, &'a Layout),
        (work, way): (Work, Way),
        function: &FunctionHandle,
        lane: Lane,
        (authority, id): (&Authority, TenantId),
    ) -> Result<Self> {
        let memory = GuestMemory::new();
        let backing = ground.backing();
        memory.map(Gpa::new(0), MEMORY_BYTES, backing, Protection::ReadWrite)?;
        write_tables(&memory, layout)?;
        let claim = function.claim(id, Sharing::Mediated)?;
        let set = authority.create_set(id, Quota::Exactly(1))?;
        let pasid = set.alloc(PasidRange::ALL)?;
        let tag = PasidTag::from(pasid);
        let binding = Binding {
            user: UserId(id.get().into()),
            space: Space::FirstStage(FirstStage::new(Gpa::new(TABLES), Levels::Four)),
            memory,
            sink: Arc::new(Unheard),
            guest_bdf: Bdf::new(0, 0x10, 0),
            guest_pasid: None,
            fault_disable: FaultProcessing::Report,
            device_tlb: DeviceTlb::Allowed,
            supervisor: SupervisorRequests::Refused,
        };
        function.bind(Some(tag), set.hold(pasid)?, binding)?;
        let identity = Identity {
            tag: Some(tag),
            hold: Some(set.hold(pasid)?),
        };
        let rules = Rules {
            number: 0,
            capacity: CAPACITY,
            block_on_fault: Switch::Off,
            ats: Switch::Off,
            privileged: Switch::Off,
            max_transfer_bytes: 1 << 31,
            max_batch: u32::try_from(JOBS)?,
        };
        let session = Session::new(identity, Privilege::User, None, rules, Arc::new(Unheard));
        lane.open(Some(Arc::new(session)));

        let jobs = layout.trace();
        let driver = ground.slice(DATA_BYTES, index(DRIVER_BYTES))?;
        let descriptors: Vec<(Descriptor, usize)> = jobs
            .iter()
            .enumerate()
            .map(|(number, job)| {
                let record_at = RECORDS + number * COMPLETION_RECORD_BYTES;
                let descriptor = work.descriptor(*job, layout.len_bytes);
                (with_record(descriptor, record_at), record_at)
            })
            .collect();
        for (number, (descriptor, _)) in descriptors.iter().enumerate() {
            driver.write_slice(descriptor.as_bytes(), number * DESCRIPTOR_BYTES)?;
        }
        let submissions = match way {
            Way::Single => descriptors,
            Way::Batches(size) => (0..JOBS / size)
                .map(|number| {
                    let list = DRIVER_IOVA + (number * size * DESCRIPTOR_BYTES) as u64;
                    let record_at = BATCH_RECORDS + number * COMPLETION_RECORD_BYTES;
                    let batch = Descriptor::batch(list, u32::try_from(size)?);
                    Ok((with_record(batch, record_at), record_at))
                })
                .collect::<Result<_>>()?,
        };
        Ok(Self {
            data: work.data(layout, &jobs, &ground.image),
            ground,
            layout,
            work,
            jobs,
            lane,
            driver,
            submissions,
            _claim: claim,
        })
    }

    /// Its queue.
    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// What comes at this place of its trace, and the place of the record.
    pub(crate) fn submission(&self, number: usize) -> (Descriptor, usize) {
        self.submissions[number % self.submissions.len()]
    }

    /// Submits what comes at this place of its trace, and gives the place of the record.
    pub(crate) fn submit_next(&self, number: usize) -> Result<usize> {
        let (descriptor, record_at) = self.submission(number);
        self.submit(descriptor)?;
        Ok(record_at)
    }

    /// Submits from this place of its trace on until the queue is full. Gives the place to go on from.
    pub(crate) fn fill_up(&self, mut number: usize) -> usize {
        while self.lane.pending() < CAPACITY.into() && self.submit_next(number).is_ok() {
            number += 1;
        }
        number
    }

    /// Waits until nothing is left of its work.
    pub(crate) fn settle(&self) {
        while self.lane.pending() > 0 {
            std::thread::yield_now();
        }
    }

    fn submit(&self, descriptor: Descriptor) -> Result<()> {
        self.lane
            .submit(descriptor, None, CAPACITY)
            .map_err(|error| anyhow!("a descriptor was not taken: {error:?}"))
    }

    /// Whether a record was written. It is cleared for the next.
    pub(crate) fn is_complete(&self, record_at: usize) -> Result<bool> {
        let [status, ..] = self
            .driver
            .load::<u64>(record_at, Ordering::Acquire)?
            .to_le_bytes();
        match Status(status) {
            Status::NONE => Ok(false),
            Status::SUCCESS => {
                self.driver.store(0_u64, record_at, Ordering::Relaxed)?;
                Ok(true)
            }
            other => bail!("a descriptor ended with: {other}"),
        }
    }

    /// Puts everything in the place where a trace finds it: no record is there.
    pub(crate) fn reset(&self) -> Result<()> {
        let records = vec![0; JOBS * COMPLETION_RECORD_BYTES];
        self.driver.write_slice(&records, RECORDS)?;
        self.ground.load(&self.data.0)
    }

    /// Whether all was done as the trace says.
    pub(crate) fn check(&self) -> Result<()> {
        let right = self.ground.holds(&self.data.1)?;
        ensure!(right, "memory is not what the trace makes of it");
        for (number, job) in self.jobs.iter().enumerate() {
            let mut bytes = [0; COMPLETION_RECORD_BYTES];
            let at = RECORDS + number * COMPLETION_RECORD_BYTES;
            self.driver.read_slice(&mut bytes, at)?;
            let mut record = CompletionRecord::read_from_bytes(&bytes).unwrap_or_default();
            if self.submissions.len() == JOBS {
                // It was looked at and cleared as it came.
                record.status = Status::SUCCESS.0;
            }
            self.work.check(self.layout, *job, &self.data.1, &record)?;
        }
        Ok(())
    }
}

fn with_record(descriptor: Descriptor, record_at: usize) -> Descriptor {
    descriptor.with_record(DRIVER_IOVA + record_at as u64)
}

/// A function with an engine that serves the queues of its tenants.
pub(crate) struct Ours<'a> {
    tenants: Vec<Tenant<'a>>,
    engine: Engine,
}

impl<'a> Ours<'a> {
    /// A tenant for each ground, who all do the same.
    pub(crate) fn new(
        grounds: &'a [Ground],
        layout: &'a Layout,
        work: Work,
        way: Way,
    ) -> Result<Self> {
        Self::of(grounds.iter().map(|ground| (ground, layout, way)), work)
    }

    /// Tenants with what they have and do.
    pub(crate) fn of(
        all: impl IntoIterator<Item = (&'a Ground, &'a Layout, Way)>,
        work: Work,
    ) -> Result<Self> {
        let function = Iommu::new().add_function(Bdf::new(0x6a, 1, 0), PasidSupport::Width(20))?;
        let accelerator = Accelerator::new(8, Arc::new(Unheard));
        let authority = Authority::new(&[]);
        let mut tenants = Vec::new();
        for (number, (ground, layout, way)) in (0_u8..).zip(all) {
            let lane = accelerator.lane(number)?;
            let id = TenantId::new(u32::from(number) + 1);
            tenants.push(Tenant::new(
                (ground, layout),
                (work, way),
                &function,
                lane,
                (&authority, id),
            )?);
        }
        Ok(Self {
            engine: accelerator.engine(function.port()),
            tenants,
        })
    }
}

impl<'a> Ours<'a> {
    /// The tenants, and the engine for another thread.
    pub(crate) fn into_parts(self) -> (Vec<Tenant<'a>>, Engine) {
        (self.tenants, self.engine)
    }
}

/// Runs the engine until a record is there.
fn wait(engine: &mut Engine, tenant: &Tenant<'_>, record_at: usize) -> Result<()> {
    while !tenant.is_complete(record_at)? {
        if engine.run(u32::from(CAPACITY)) == Progress::Idle {
            bail!("the engine rests and there is no record");
        }
    }
    Ok(())
}

impl Runner for Ours<'_> {
    fn prepare(&mut self) -> Result<()> {
        self.tenants.iter().try_for_each(Tenant::reset)
    }

    fn pass(&mut self) -> Result<usize> {
        let Self { tenants, engine } = self;
        let submissions = tenants.first().map_or(0, |tenant| tenant.submissions.len());
        for number in 0..submissions {
            for tenant in &*tenants {
                tenant.submit(tenant.submissions[number].0)?;
            }
            for tenant in &*tenants {
                wait(engine, tenant, tenant.submissions[number].1)?;
            }
        }
        Ok(tenants.len() * JOBS)
    }

    fn check(&mut self) -> Result<()> {
        self.tenants.iter().try_for_each(Tenant::check)
    }
}
