//! What works while the guest goes on: factorials, and copies by way of the port.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use palisade_iommu::{Ats, DmaError, DmaPort, OnMiss, PageResponse, Requester};
use palisade_units::{Access, Iova, PasidTag};

use crate::device::{Shared, locked};
use crate::registers::{Job, Outcome};

/// A longer copy is refused, so that whoever waits for the engine never waits long.
const LONGEST_BYTES: u64 = 1 << 20;

/// What an engine is told.
pub(crate) enum Message {
    Compute(u32),
    Copy(Job),
    /// The answer to the page request of that number.
    Page(u64, PageResponse),
    /// Drop what waits for a page, and say when it is so.
    Quiet(Sender<()>),
    End,
}

pub(crate) struct Engine {
    pub(crate) port: DmaPort,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: Receiver<Message>,
    /// For the answers to page requests.
    pub(crate) to_self: Sender<Message>,
    /// The copy that waits for a page, and where; how many pages were asked for so far.
    pub(crate) waiting: Option<(Job, Iova)>,
    pub(crate) asked: u64,
}

impl Engine {
    pub(crate) fn run(mut self) {
        while let Ok(message) = self.inbox.recv() {
            match message {
                Message::Compute(n) => {
                    let wanted = locked(&self.shared.registers).computed(factorial(n));
                    self.shared.interrupt(wanted);
                }
                Message::Copy(job) => self.copy(job),
                Message::Page(asked, response) if asked == self.asked => self.page(response),
                // The copy that asked was dropped meanwhile.
                Message::Page(..) => {}
                Message::Quiet(done) => {
                    if let Some((job, at)) = self.waiting.take() {
                        self.end(job, Outcome::Refused, at);
                    }
                    let _ = done.send(());
                }
                Message::End => return,
            }
        }
    }

    fn copy(&mut self, mut job: Job) {
        self.port.forget_stale();
        let (may_access, ats, on_miss) = {
            let config = locked(&self.shared.config);
            match (config.ats_enabled(), config.pri_enabled()) {
                (true, true) => (config.bus_master(), Ats::On, OnMiss::Ask),
                (true, false) => (config.bus_master(), Ats::On, OnMiss::Fault),
                (false, _) => (config.bus_master(), Ats::Off, OnMiss::Fault),
            }
        };
        if !may_access || job.done_bytes + job.left_bytes > LONGEST_BYTES {
            return self.end(job, Outcome::Refused, job.source);
        }
        let by = Requester {
            ats,
            on_miss,
            ..Requester::new(job.pasid.map(PasidTag::of_exclusive_owner))
        };
        let copied = loop {
            let copied = self
                .port
                .copy(by, job.source, by, job.destination, job.left_bytes);
            let done_bytes = copied.map_or_else(|stop| stop.done_bytes, |()| job.left_bytes);
            job.advance(done_bytes);
            match copied.map_err(|stop| stop.error) {
                // The unit is at work. This engine has nobody else to serve meanwhile.
                Err(DmaError::Later { .. }) => std::thread::yield_now(),
                ended => break ended,
            }
        };
        match copied {
            Ok(()) => self.end(job, Outcome::Done, job.source),
            Err(DmaError::NotPresent { at, access }) => self.ask(by, job, at, access),
            Err(error) => self.end(job, Outcome::Faulted, error.at()),
        }
    }

    fn ask(&mut self, by: Requester, job: Job, at: Iova, access: Access) {
        self.asked += 1;
        let (number, answers) = (self.asked, self.to_self.clone());
        let waiter = Box::new(move |response| {
            let _ = answers.send(Message::Page(number, response));
        });
        match self.port.request_page(by, at, access, waiter) {
            Ok(()) => self.waiting = Some((job, at)),
            Err(error) => self.end(job, Outcome::Faulted, error.at()),
        }
    }

    fn page(&mut self, response: PageResponse) {
        match (self.waiting.take(), response) {
            (Some((job, _)), PageResponse::Success) => self.copy(job),
            (Some((job, at)), _) => self.end(job, Outcome::NoPage, at),
            (None, _) => {}
        }
    }

    fn end(&self, job: Job, outcome: Outcome, at: Iova) {
        let wanted = locked(&self.shared.registers).copied(job, outcome, at);
        self.shared.interrupt(wanted);
    }
}

impl Job {
    fn advance(&mut self, bytes: u64) {
        let after = |at: Iova| Iova::new(at.get().wrapping_add(bytes));
        (self.source, self.destination) = (after(self.source), after(self.destination));
        self.done_bytes += bytes;
        self.left_bytes -= bytes;
    }
}

/// In 32 bits, of which those from 34 on have none but zeros.
fn factorial(n: u32) -> u32 {
    (1..=n.min(34)).fold(1, u32::wrapping_mul)
}
