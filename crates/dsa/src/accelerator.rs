use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use palisade_iommu::{DmaPort, PageResponse};

use crate::engine::Engine;
use crate::lane::{LaneShared, ParkId, SubmitError};
use crate::queue::{Lane, Left, Queue, Turn};
use crate::task::Task;

/// The most work queues that an accelerator can have.
pub const MAX_QUEUES: u8 = 64;

/// Tells the threads that run engines that there is something to do. Called by whoever submits and by
/// whoever answers page requests; must be cheap when an engine is awake, and must not be lost when one
/// is about to sleep.
pub trait Doorbell: Send + Sync {
    /// There is something to do.
    fn ring(&self);
}

/// How much an accelerator has done, for its operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Descriptors that were completed, with whatever status.
    pub descriptors: u64,
    /// Page requests that were sent.
    pub page_requests: u64,
    /// Software errors that were reported.
    pub software_errors: u64,
}

/// The core: work queues and the engines that serve them. It knows tags, sessions and ports; it
/// knows no registers and no guests.
#[derive(Clone)]
pub struct Accelerator {
    core: Arc<Core>,
}

/// There is no such queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the accelerator has {queues} work queues: there is no number {index}")]
pub struct NoSuchQueue {
    /// The number asked for.
    pub index: u8,
    /// How many there are.
    pub queues: u8,
}

impl Accelerator {
    /// An accelerator with this many work queues, at least one and at most [`MAX_QUEUES`]; what is
    /// outside is brought to the nearest.
    #[must_use]
    pub fn new(queues: u8, doorbell: Arc<dyn Doorbell>) -> Self {
        let queues = queues.clamp(1, MAX_QUEUES);
        Self {
            core: Arc::new(Core {
                queues: (0..queues).map(|_| Queue::default()).collect(),
                ready: AtomicU64::new(0),
                doorbell,
                engines: AtomicUsize::new(0),
                counters: AtomicCounters::default(),
            }),
        }
    }

    /// How many work queues there are.
    #[must_use]
    pub fn queues(&self) -> u8 {
        // At most 64.
        u8::try_from(self.core.queues.len()).unwrap_or(MAX_QUEUES)
    }

    /// A place for one client on a queue.
    ///
    /// # Errors
    /// [`NoSuchQueue`].
    pub fn lane(&self, queue: u8) -> Result<Lane, NoSuchQueue> {
        let queues = self.queues();
        if queue >= queues {
            return Err(NoSuchQueue {
                index: queue,
                queues,
            });
        }
        Ok(Lane::add(Arc::clone(&self.core), queue.into()))
    }

    /// An engine that does its accesses through this port. Each engine serves each queue in turn.
    #[must_use]
    pub fn engine(&self, port: DmaPort) -> Engine {
        let number = self.core.engines.fetch_add(1, Ordering::Relaxed);
        Engine::new(Arc::clone(&self.core), port, number)
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let counters = &self.core.counters;
        Counters {
            descriptors: counters.descriptors.load(Ordering::Relaxed),
            page_requests: counters.page_requests.load(Ordering::Relaxed),
            software_errors: counters.software_errors.load(Ordering::Relaxed),
        }
    }
}

#[derive(Default)]
pub(crate) struct AtomicCounters {
    pub(crate) descriptors: AtomicU64,
    pub(crate) page_requests: AtomicU64,
    pub(crate) software_errors: AtomicU64,
}

pub(crate) struct Core {
    /// Never empty.
    queues: Box<[Queue]>,
    /// Bit n: queue n may have something to do. Changed under the lock of the queue.
    ready: AtomicU64,
    doorbell: Arc<dyn Doorbell>,
    engines: AtomicUsize,
    pub(crate) counters: AtomicCounters,
}

impl Core {
    pub(crate) fn with_queue<T>(&self, queue: usize, what: impl FnOnce(&Queue) -> T) -> T {
        what(&self.queues[queue % self.queues.len()])
    }

    pub(crate) fn submit(
        &self,
        queue: usize,
        what: impl FnOnce(&Queue, &mut dyn FnMut()) -> Result<(), SubmitError>,
    ) -> Result<(), SubmitError> {
        let mut woke = false;
        let result = self.with_queue(queue, |place| what(place, &mut || woke = self.mark(queue)));
        if woke {
            self.doorbell.ring();
        }
        result
    }

    /// Whether no queue has anything to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready.load(Ordering::SeqCst) == 0
    }

    /// Marks a queue as having something to do. Says whether it was not marked before.
    fn mark(&self, queue: usize) -> bool {
        let bit = 1 << queue;
        self.ready.load(Ordering::Relaxed) & bit == 0
            && self.ready.fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    fn update(&self, queue: usize, left: Left) {
        let bit = 1 << queue;
        let marked = self.ready.load(Ordering::Relaxed) & bit != 0;
        match left {
            Left::Nothing if marked => {
                self.ready.fetch_and(!bit, Ordering::SeqCst);
            }
            Left::Something if !marked => {
                self.ready.fetch_or(bit, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    /// Takes a turn's worth from the next queue at or after `cursor` that has something.
    pub(crate) fn take(
        &self,
        cursor: &mut u32,
        into: &mut VecDeque<Task>,
    ) -> Option<(usize, Turn)> {
        loop {
            let ready = self.ready.load(Ordering::SeqCst);
            if ready == 0 {
                return None;
            }
            let ahead = ready.rotate_right(*cursor).trailing_zeros();
            let number = (*cursor + ahead) % u64::BITS;
            *cursor = (number + 1) % u64::BITS;
            let queue = number as usize;
            let turn = self.with_queue(queue, |place| {
                place.take(into, |left| self.update(queue, left))
            });
            if let Some(turn) = turn {
                let alone = self.engines.load(Ordering::Relaxed) < 2;
                if turn.left == Left::Something && !alone {
                    self.doorbell.ring();
                }
                return Some((queue, turn));
            }
        }
    }

    pub(crate) fn answer(&self, queue: usize, lane: usize, id: ParkId, response: PageResponse) {
        let mut woke = false;
        self.with_queue(queue, |place| {
            place.answer(lane, id, response, || woke = self.mark(queue));
        });
        if woke {
            self.doorbell.ring();
        }
    }

    pub(crate) fn resume(&self, queue: usize, lane: usize, task: Task) {
        self.with_queue(queue, |place| {
            place.resume(lane, task, || {
                self.mark(queue);
            });
        });
    }

    /// Has engines look at a queue that may have something to do.
    pub(crate) fn look(&self, queue: usize) {
        self.with_queue(queue, |place| {
            place.look_again(|left| self.update(queue, left));
        });
        self.doorbell.ring();
    }

    /// Counts descriptors of a lane as finished.
    pub(crate) fn finish(&self, queue: usize, shared: &LaneShared, count: u64) {
        shared.tally.finish(count);
        if shared.barrier.load(Ordering::SeqCst) {
            self.look(queue);
        }
    }
}
