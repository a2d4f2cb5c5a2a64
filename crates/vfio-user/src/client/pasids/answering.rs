use std::{collections::BTreeMap, fmt};

use palisade_units::{Access, Iova};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::handler::{PageAnswer, PasidHandler};
use crate::{
    client::ClientError,
    wire::{
        Command, Frame, Header, MAX_DATA_BYTES, ReplyWanted,
        pasid::{PageRequest, PageResponse, PasidCapability, Ranges, Tag, TaggedAccess, Wanted},
        push_frame,
    },
};

/// Answers what the server asks, by what a VMM's handler says.
pub(in crate::client) struct Answering {
    pub(in crate::client) agreed: PasidCapability,
    handler: Box<dyn PasidHandler>,
    /// The page request groups that are answered later, by their indices, and the headers they came with.
    groups: BTreeMap<u16, Header>,
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering")
            .field("agreed", &self.agreed)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl Answering {
    pub(in crate::client) fn new(agreed: PasidCapability, handler: Box<dyn PasidHandler>) -> Self {
        Self {
            agreed,
            handler,
            groups: BTreeMap::new(),
        }
    }

    /// Does what a command of the extension says, and appends its reply to `out`, now or later; whether it was one
    /// that a server sends.
    pub(in crate::client) fn take_command(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) -> bool {
        let command = Command::from_raw(frame.header.command.get());
        let wanted = frame.header.reply_wanted();
        let outcome = match (command, wanted) {
            (Some(Command::PasidDmaWrite), _) => self.write(frame.payload).map(Some),
            (Some(Command::PasidDmaRead), ReplyWanted::Yes) => self.read(frame.payload).map(Some),
            (Some(Command::PasidTranslate), ReplyWanted::Yes) => {
                self.translate(frame.payload).map(Some)
            }
            (Some(Command::PasidPageRequest), ReplyWanted::Yes) => {
                self.page_request(&frame.header, frame.payload)
            }
            // A question to which no answer is wanted.
            (Some(Command::PasidDmaRead | Command::PasidTranslate), ReplyWanted::No)
            | (Some(Command::PasidPageRequest), ReplyWanted::No) => Ok(None),
            _ => return false,
        };
        if wanted == ReplyWanted::Yes {
            match outcome {
                Ok(Some(payload)) => push_frame(out, Header::reply(&frame.header), &[&payload]),
                Ok(None) => {}
                Err(errno) => push_frame(out, Header::refusal(&frame.header, errno), &[]),
            }
        }
        true
    }

    /// Appends the answer to a group that was to be answered later.
    pub(in crate::client) fn respond(
        &mut self,
        group: u16,
        response: PageResponse,
        out: &mut Vec<u8>,
    ) -> Result<(), ClientError> {
        let header = self.groups.remove(&group);
        let header = header.ok_or(ClientError::NoSuchGroup(group))?;
        let answer = PageRequest::answer(group, response);
        push_frame(out, Header::reply(&header), &[answer.as_bytes()]);
        Ok(())
    }

    fn read(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (access, tag, rest) = self.tagged(payload)?;
        let reads = tag.access & (Access::READ | Access::WRITE) == Access::READ;
        let len = usize::try_from(access.count.get()).map_err(|_| Errno::INVAL)?;
        if !reads || !rest.is_empty() {
            return Err(Errno::INVAL);
        }
        let mut answer = payload.to_vec();
        answer.resize(TaggedAccess::BYTES + len, 0);
        let into = &mut answer[TaggedAccess::BYTES..];
        self.handler
            .read(tag, Iova::new(access.address.get()), into)?;
        Ok(answer)
    }

    fn write(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        let (access, tag, data) = self.tagged(payload)?;
        let writes = tag.access & !Access::PRIVILEGED == Access::WRITE;
        if !writes || access.count.get() != data.len() as u64 {
            return Err(Errno::INVAL);
        }
        self.handler
            .write(tag, Iova::new(access.address.get()), data)?;
        Ok(access.as_bytes().to_vec())
    }

    fn tagged<'a>(&self, payload: &'a [u8]) -> Result<(TaggedAccess, Tag, &'a [u8]), Errno> {
        let (access, rest) = TaggedAccess::read_from_prefix(payload).map_err(|_| Errno::INVAL)?;
        let tag = Tag::from_raw(access.pasid, access.access, self.agreed.width)?;
        let count = access.count.get();
        let last = count.checked_sub(1);
        let last = last.and_then(|more| access.address.get().checked_add(more));
        if last.is_none() || count > MAX_DATA_BYTES.into() {
            return Err(Errno::INVAL);
        }
        Ok((access, tag, rest))
    }

    fn translate(&mut self, payload: &[u8]) -> Result<Vec<u8>, Errno> {
        if self.agreed.max_invalidations == 0 {
            return Err(Errno::NOTSUP);
        }
        let wanted = Wanted::parse(payload, self.agreed.width)?;
        let ranges = self.handler.translate(&wanted)?;
        // The handler's mistake, and not the device's.
        let ranges = Ranges::new(ranges, &wanted).map_err(|_| Errno::IO)?;
        Ok(ranges.message())
    }

    fn page_request(&mut self, header: &Header, payload: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        if self.agreed.max_page_groups == 0 {
            return Err(Errno::NOTSUP);
        }
        let request = PageRequest::parse(payload, self.agreed.width)?;
        let group = request.group;
        if self.groups.contains_key(&group) {
            return Err(Errno::EXIST);
        }
        if self.groups.len() >= usize::from(self.agreed.max_page_groups) {
            return Err(Errno::BUSY);
        }
        match self.handler.page_request(request) {
            PageAnswer::Now(response) => {
                let answer = PageRequest::answer(group, response);
                Ok(Some(answer.as_bytes().to_vec()))
            }
            PageAnswer::Later => {
                self.groups.insert(group, *header);
                Ok(None)
            }
        }
    }
}
