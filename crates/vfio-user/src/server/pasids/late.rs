use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::offer::RequestAnswer;
use crate::{
    server::outgoing::Shared,
    wire::{
        Header, ReplyWanted,
        pasid::{ContainerAnswer, MAX_ARGUMENT_BYTES},
        push_frame,
    },
};

/// How many commands wait for a reply that may come late.
#[derive(Debug, Default)]
pub(crate) struct LateCounts {
    invalidations: AtomicU16,
    requests: AtomicU16,
}

/// Which of the counts a command is in.
#[derive(Clone, Copy, Debug)]
pub(super) enum LateKind {
    Invalidation,
    Request,
}

impl LateCounts {
    fn of(&self, kind: LateKind) -> &AtomicU16 {
        match kind {
            LateKind::Invalidation => &self.invalidations,
            LateKind::Request => &self.requests,
        }
    }
}

/// A reply that is owed. One that is forgotten is a refusal.
#[derive(Debug)]
struct LateReply {
    shared: Arc<Shared>,
    to: Header,
    kind: LateKind,
    is_sent: bool,
}

impl LateReply {
    /// `None` where `limit` of the kind are owed already.
    fn new(shared: &Arc<Shared>, to: Header, kind: LateKind, limit: u16) -> Option<Self> {
        let one_more = |n: u16| (n < limit).then(|| n + 1);
        let count = shared.late.of(kind);
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Self {
            shared: Arc::clone(shared),
            to,
            kind,
            is_sent: false,
        })
    }

    fn send(&mut self, outcome: Result<(&[&[u8]], RequestAnswer), Errno>) {
        self.is_sent = true;
        // First, so that a peer which has the reply may send the next one.
        self.shared
            .late
            .of(self.kind)
            .fetch_sub(1, Ordering::Relaxed);
        if self.to.reply_wanted() == ReplyWanted::No {
            return;
        }
        let mut message = Vec::new();
        let (header, parts, descriptors) = match &outcome {
            Ok((parts, answer)) => (Header::reply(&self.to), *parts, &answer.descriptors[..]),
            Err(errno) => (Header::refusal(&self.to, *errno), &[][..], &[][..]),
        };
        push_frame(&mut message, header, parts);
        // A peer that is gone needs none.
        let _ = self.shared.send_late(message, descriptors.to_vec());
    }
}

impl Drop for LateReply {
    fn drop(&mut self) {
        if !self.is_sent {
            self.send(Err(Errno::IO));
        }
    }
}

/// The completion of an invalidation, which the VMM waits for. Dropped without a word it is a refusal with EIO.
#[derive(Debug)]
pub struct InvalidationDone(LateReply);

impl InvalidationDone {
    pub(super) fn new(shared: &Arc<Shared>, to: Header, limit: u16) -> Option<Self> {
        LateReply::new(shared, to, LateKind::Invalidation, limit).map(Self)
    }

    /// The translations are forgotten, no access uses them, and what they were used for is done.
    pub fn complete(mut self) {
        self.0.send(Ok((&[], RequestAnswer::default())));
    }
}

/// What a request came to is said here. Dropped without a word it is a refusal with EIO.
#[derive(Debug)]
pub struct RequestReply {
    late: LateReply,
    max_descriptors: u64,
}

impl RequestReply {
    pub(super) fn new(
        shared: &Arc<Shared>,
        to: Header,
        limit: u16,
        max_descriptors: u64,
    ) -> Option<Self> {
        Some(Self {
            late: LateReply::new(shared, to, LateKind::Request, limit)?,
            max_descriptors,
        })
    }

    /// It came to this. An answer that is longer than a message may be, or has more descriptors than the VMM takes,
    /// is told as EMSGSIZE.
    pub fn send(mut self, outcome: Result<RequestAnswer, Errno>) {
        let outcome = outcome.and_then(|answer| {
            let fits = answer.written.len() <= MAX_ARGUMENT_BYTES
                && answer.descriptors.len() as u64 <= self.max_descriptors;
            if fits {
                Ok(answer)
            } else {
                Err(Errno::MSGSIZE)
            }
        });
        match outcome {
            Ok(mut answer) => {
                let head = ContainerAnswer {
                    value: answer.value.into(),
                    reserved: 0.into(),
                };
                let written = std::mem::take(&mut answer.written);
                let parts: [&[u8]; 2] = [head.as_bytes(), &written];
                self.late.send(Ok((&parts, answer)));
            }
            Err(errno) => self.late.send(Err(errno)),
        }
    }
}
