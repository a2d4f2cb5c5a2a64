use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    time::Duration,
};

use palisade_units::{Access, GuestPasid, Iova};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::asked::{NotAnAnswer, OnAnswer};
use crate::{
    PeerGone, PeerHandle,
    server::outgoing::Shared,
    wire::{
        Command,
        pasid::{
            PageGroupAnswer, PageRequest, PageResponse, PasidCapability, Ranges, Tag, TaggedAccess,
            Translation, Wanted, WantedPage,
        },
    },
};

/// Why a question to the VMM came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The VMM did not agree to the extension, or not to this part of it.
    #[error("the VMM has not agreed to this: negotiate it with VERSION")]
    NotAgreed,
    /// The question makes no sense, or is longer than the VMM takes.
    #[error("the request makes no sense, or is longer than the VMM takes")]
    Senseless,
    /// As many as the VMM takes wait for their answers.
    #[error("as many questions as the VMM takes wait for their answers")]
    Busy,
    /// The VMM refused. EFAULT where there is no translation for such an access, EACCES where the PASID is not
    /// one of the device's.
    #[error("the VMM refuses: {0}")]
    Refused(Errno),
    /// The VMM took longer than it was given.
    #[error("the VMM has not answered in time")]
    Late,
    /// The connection's own thread would wait for an answer that it has to take in itself.
    #[error("the connection's own thread cannot wait for an answer: wait on another one")]
    OwnThread,
    /// There is no VMM any more.
    #[error(transparent)]
    Gone(#[from] PeerGone),
}

/// An answer that is to come. Who drops it is not interested.
#[derive(Debug)]
pub struct Pending<T> {
    answer: Receiver<Result<T, AskError>>,
    shared: Arc<Shared>,
}

impl<T> Pending<T> {
    /// Waits for the answer. One that comes after the limit is dropped.
    ///
    /// # Errors
    /// [`AskError`] where there is none.
    pub fn wait(self, limit: Duration) -> Result<T, AskError> {
        if let Some(answer) = self.poll() {
            return answer;
        }
        if self.shared.is_own_thread() {
            return Err(AskError::OwnThread);
        }
        match self.answer.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(AskError::Late),
            Err(RecvTimeoutError::Disconnected) => Err(PeerGone.into()),
        }
    }

    /// The answer, if it has come; it is given out once.
    #[must_use]
    pub fn poll(&self) -> Option<Result<T, AskError>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(PeerGone.into())),
        }
    }
}

/// What the VMM says of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    ranges: Ranges,
    /// How many invalidations had come before it.
    epoch: u64,
}

impl Translated {
    /// The ranges, in order and without a gap, the first with the address that was asked for; none where there is no
    /// translation.
    #[must_use]
    pub fn ranges(&self) -> &[Translation] {
        self.ranges.as_slice()
    }
}

/// What the extension adds. Every question returns at once, to be waited for by a thread that is not the
/// connection's, and is refused before anything is sent where the VMM did not agree to it.
impl PeerHandle {
    /// What the VMM and this side agreed to; `None` before VERSION, and where the extension is off.
    #[must_use]
    pub fn pasids(&self) -> Option<PasidCapability> {
        self.shared.lock().asked.agreed()
    }

    /// Reads in the name of a PASID.
    ///
    /// # Errors
    /// [`AskError::Senseless`] for an access that does not read, or writes; for more than
    /// the VMM takes at a time.
    pub fn read_tagged(
        &self,
        tag: Tag,
        at: Iova,
        len_bytes: usize,
    ) -> Result<Pending<Vec<u8>>, AskError> {
        let reads = tag.access & (Access::READ | Access::WRITE) == Access::READ;
        let access = self.tagged(tag, at, len_bytes, reads)?;
        self.shared.ask(
            Command::PasidDmaRead,
            &[access.as_bytes()],
            move |payload, _| match TaggedAccess::read_from_prefix(payload) {
                Ok((echo, data)) if echo == access && data.len() == len_bytes => Ok(data.to_vec()),
                _ => Err(NotAnAnswer),
            },
        )
    }

    /// Writes in the name of a PASID. Writes are done in the order in which they are asked for.
    ///
    /// # Errors
    /// [`AskError::Senseless`] for an access that does not write, or does something else; for more than
    /// the VMM takes at a time.
    pub fn write_tagged(&self, tag: Tag, at: Iova, data: &[u8]) -> Result<Pending<()>, AskError> {
        let writes = tag.access & !Access::PRIVILEGED == Access::WRITE;
        let access = self.tagged(tag, at, data.len(), writes)?;
        self.shared.ask(
            Command::PasidDmaWrite,
            &[access.as_bytes(), data],
            move |payload, _| {
                if payload == access.as_bytes() {
                    Ok(())
                } else {
                    Err(NotAnAnswer)
                }
            },
        )
    }

    /// Asks where a range lies (an ATS translation request, PCIe 10.2.2).
    ///
    /// # Errors
    /// [`AskError::NotAgreed`] also where the device keeps no translations.
    pub fn translate(&self, wanted: Wanted) -> Result<Pending<Translated>, AskError> {
        let agreed = self.agreed()?;
        if agreed.max_invalidations == 0 {
            return Err(AskError::NotAgreed);
        }
        has_width(wanted.tag.pasid, agreed)?;
        if !wanted.makes_sense() {
            return Err(AskError::Senseless);
        }
        self.shared.ask(
            Command::PasidTranslate,
            &[wanted.message().as_bytes()],
            move |payload, epoch| {
                let ranges = Ranges::parse(payload, &wanted).map_err(|_| NotAnAnswer)?;
                Ok(Translated { ranges, epoch })
            },
        )
    }

    /// Whether no invalidation has come since this answer. Who keeps a translation asks this under the lock under
    /// which it is kept, and which [`super::TranslationCache::invalidate`] takes: where it is so, either the
    /// invalidation finds the translation, or the translation is not kept.
    #[must_use]
    pub fn is_current(&self, translated: &Translated) -> bool {
        self.shared.epoch() == translated.epoch
    }

    /// Asks for pages to be brought in (a page request group, PCIe 10.4.1). The index of the group is the lowest that
    /// is free.
    ///
    /// # Errors
    /// [`AskError::NotAgreed`] also where the VMM takes no page requests.
    pub fn request_pages(
        &self,
        pasid: Option<GuestPasid>,
        pages: &[WantedPage],
    ) -> Result<Pending<PageResponse>, AskError> {
        let agreed = self.agreed()?;
        if agreed.max_page_groups == 0 {
            return Err(AskError::NotAgreed);
        }
        has_width(pasid, agreed)?;
        let mut request = PageRequest {
            pasid,
            group: 0,
            pages: pages.to_vec(),
        };
        if !request.makes_sense() {
            return Err(AskError::Senseless);
        }
        self.shared.ask_pages(|group| {
            request.group = group;
            (
                request.message(),
                move |payload: &[u8], _| match PageGroupAnswer::read_from_bytes(payload) {
                    Ok(answer) if answer.group.get() == u32::from(group) => {
                        PageResponse::from_raw(answer.code.get()).ok_or(NotAnAnswer)
                    }
                    _ => Err(NotAnAnswer),
                },
            )
        })
    }

    fn agreed(&self) -> Result<PasidCapability, AskError> {
        self.pasids().ok_or(AskError::NotAgreed)
    }

    fn tagged(
        &self,
        tag: Tag,
        at: Iova,
        len_bytes: usize,
        fits: bool,
    ) -> Result<TaggedAccess, AskError> {
        let (agreed, limit) = {
            let queue = self.shared.lock();
            let agreed = queue.asked.agreed().ok_or(AskError::NotAgreed)?;
            (agreed, queue.max_data_bytes)
        };
        has_width(tag.pasid, agreed)?;
        let count = len_bytes as u64;
        let last = count.checked_sub(1).and_then(|more| at.checked_add(more));
        if !fits || !tag.makes_sense() || len_bytes > limit || last.is_none() {
            return Err(AskError::Senseless);
        }
        Ok(tag.at(at, count))
    }
}

fn has_width(pasid: Option<GuestPasid>, agreed: PasidCapability) -> Result<(), AskError> {
    let raw = pasid.map_or(0, GuestPasid::get);
    if raw >> agreed.width == 0 {
        Ok(())
    } else {
        Err(AskError::Senseless)
    }
}

impl Shared {
    fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        command: Command,
        parts: &[&[u8]],
        decode: impl FnOnce(&[u8], u64) -> Result<T, NotAnAnswer> + Send + 'static,
    ) -> Result<Pending<T>, AskError> {
        let (sender, answer) = sync_channel(1);
        let mut queue = self.lock();
        if !queue.asked.has_room() {
            return Err(AskError::Busy);
        }
        let id = queue.asked.free_id(queue.message_id);
        self.send_question(&mut queue, id, command, parts)?;
        queue
            .asked
            .expect(id, command, None, on_answer(sender, decode));
        drop(queue);
        Ok(Pending {
            answer,
            shared: Arc::clone(self),
        })
    }

    fn ask_pages<T, D>(
        self: &Arc<Self>,
        message: impl FnOnce(u16) -> (Vec<u8>, D),
    ) -> Result<Pending<T>, AskError>
    where
        T: Send + 'static,
        D: FnOnce(&[u8], u64) -> Result<T, NotAnAnswer> + Send + 'static,
    {
        let (sender, answer) = sync_channel(1);
        let command = Command::PasidPageRequest;
        let mut queue = self.lock();
        let group = queue.asked.free_group();
        let group = group.ok_or(AskError::Busy)?;
        let (payload, decode) = message(group);
        let id = queue.asked.free_id(queue.message_id);
        self.send_question(&mut queue, id, command, &[&payload])?;
        queue
            .asked
            .expect(id, command, Some(group), on_answer(sender, decode));
        drop(queue);
        Ok(Pending {
            answer,
            shared: Arc::clone(self),
        })
    }
}

fn on_answer<T: Send + 'static>(
    sender: SyncSender<Result<T, AskError>>,
    decode: impl FnOnce(&[u8], u64) -> Result<T, NotAnAnswer> + Send + 'static,
) -> OnAnswer {
    Box::new(move |outcome, epoch| {
        let answer = match outcome {
            Ok(payload) => Ok(decode(payload, epoch)?),
            Err(errno) => Err(AskError::Refused(errno)),
        };
        // Nobody may be interested any more.
        let _ = sender.try_send(answer);
        Ok(())
    })
}
