//! A work queue of one's own, opened through the kernel.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use palisade_memory::DeviceWindow;

use super::{CompletionRecord, Copy, Descriptor, Outcome};

/// One page of the portal is what a process may map.
const PORTAL_LEN_BYTES: usize = 4096;

/// How long an operation may take, page requests and an emulated processor included.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open work queue, dedicated unless a PASID is set, with this process's address space bound to it.
#[derive(Debug)]
pub struct WorkQueue {
    portal: DeviceWindow,
    /// What each descriptor says, of a shared queue.
    pasid: Option<u32>,
    // The kernel takes the address space away when the file is closed.
    _file: std::fs::File,
}

/// An operation that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Finished {
    /// How.
    pub outcome: Outcome,
    /// After how long, from the last store to the portal.
    pub took: Duration,
}

/// The device has not written the completion record in good time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the operation has not completed after {} s", PATIENCE.as_secs())]
pub struct TimedOut;

impl WorkQueue {
    /// Opens the queue's device file, `/dev/dsa/wqD.Q`.
    ///
    /// # Errors
    /// The kernel cannot open it, which includes that it cannot bind the address space, or does not map it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let portal = DeviceWindow::map(&file, PORTAL_LEN_BYTES)
            .with_context(|| format!("cannot map the portal of {}", path.display()))?;
        Ok(Self {
            portal,
            pasid: None,
            _file: file,
        })
    }

    /// Has each descriptor carry a PASID, as a shared queue wants it.
    pub fn set_pasid(&mut self, pasid: u32) {
        self.pasid = Some(pasid);
    }

    /// Gives the device a descriptor.
    ///
    /// Eight stores of eight bytes: the one instruction that does it at once is not in every emulated
    /// processor, and the device puts the words together.
    pub fn submit(&self, descriptor: Descriptor) {
        for (index, word) in descriptor.0.into_iter().enumerate() {
            self.portal.store_u64(index * 8, word);
        }
    }

    /// Does a copy and waits for its end.
    ///
    /// # Errors
    /// It does not end in good time.
    pub fn copy(&self, copy: Copy) -> Result<Finished, TimedOut> {
        let record = Box::new(CompletionRecord::default());
        // Touched, so that the record itself never needs a page request.
        record.clear();
        let descriptor = Descriptor::copy(copy, record.address());
        self.submit(match self.pasid {
            Some(pasid) => descriptor.with_pasid(pasid),
            None => descriptor,
        });
        let submitted = Instant::now();
        match wait(&record, submitted) {
            Ok(finished) => Ok(finished),
            Err(late) => {
                // The device may still write it: its memory must stay what it is.
                Box::leak(record);
                Err(late)
            }
        }
    }
}

fn wait(record: &CompletionRecord, submitted: Instant) -> Result<Finished, TimedOut> {
    loop {
        if let Some(outcome) = record.outcome() {
            let took = submitted.elapsed();
            return Ok(Finished { outcome, took });
        }
        if submitted.elapsed() > PATIENCE {
            return Err(TimedOut);
        }
        std::thread::yield_now();
    }
}
