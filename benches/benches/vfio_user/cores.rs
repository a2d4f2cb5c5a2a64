use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the two ends of a connection run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Both on the same processor, which each leaves to the other.
    OneCore,
    /// Each on a processor of its own.
    TwoCores,
}

/// The processors that the bench may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    client: usize,
    other: Option<usize>,
}

impl Cores {
    pub(crate) fn new() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        Ok(Self {
            client: usable.next().context("there is no processor to run on")?,
            other: usable.next(),
        })
    }

    /// Whether each end can have one of its own.
    pub(crate) const fn are_two(self) -> bool {
        self.other.is_some()
    }

    /// Binds the calling thread, which is a client, to its processor.
    pub(crate) fn pin_client(self) -> Result<()> {
        pin(self.client)
    }

    /// The same for a server.
    pub(crate) fn pin_server(self, placement: Placement) -> Result<()> {
        match placement {
            Placement::OneCore => pin(self.client),
            Placement::TwoCores => pin(self.other.context("there is one processor only")?),
        }
    }
}

fn pin(cpu: usize) -> Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).context("binding to one processor")
}
