use std::{os::fd::OwnedFd, sync::Arc};

use palisade_pci::{Bar, CONFIG_SPACE_BYTES, Function};
use rustix::io::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    ConnectionError,
    dma::{DmaMaps, MAX_MAPS},
    features::Features,
    interrupts::{IRQ_TYPES, Vectors},
    pasids::PasidOffer,
};
use crate::{
    ClientMemory, Region,
    wire::{
        Capabilities, Command, DEVICE_IS_PCI, DEVICE_RESETS, DeviceInfo, DmaMap, DmaUnmap, Frame,
        HEADER_BYTES, Header, IrqInfo, IrqSet, Kind, MAX_DATA_BYTES, REGION_READS, REGION_WRITES,
        RegionAccess, RegionInfo, RegionIoFds, ReplyWanted, SingleWrite, Version, WriteMultiHeader,
        pasid::PasidCapability, push_frame,
    },
};

/// What the peer has just told, and what of the extension was agreed with it.
pub(crate) struct Agreed {
    pub(crate) theirs: Capabilities,
    pub(crate) extension: Option<PasidCapability>,
}

/// What one peer has set up, and the function that it talks to. No input or output happens here.
pub(crate) struct Session {
    function: Arc<dyn Function>,
    memory: Arc<dyn ClientMemory>,
    agreed: Option<Capabilities>,
    maps: DmaMaps,
    /// Goes before the vectors: a function that the peer left in the middle of its migration is reset, and raises
    /// nothing.
    features: Features,
    vectors: Vectors,
}

impl Session {
    pub(crate) fn new(function: Arc<dyn Function>, memory: Arc<dyn ClientMemory>) -> Self {
        Self {
            features: Features::new(Arc::clone(&function), Arc::clone(&memory)),
            vectors: Vectors::new(Arc::clone(&function)),
            function,
            memory,
            agreed: None,
            maps: DmaMaps::default(),
        }
    }

    /// Does what a command says and appends its reply, if one is wanted, to `replies`. A command of many parts is
    /// given up between two of them when `is_stopped` says so. Returns the peer's capabilities when it has just
    /// told them, and what was agreed of the extension, if it is offered.
    ///
    /// # Errors
    /// Where there is no going on with this peer. What is merely refused is a reply with an error.
    pub(crate) fn handle(
        &mut self,
        frame: &Frame<'_>,
        descriptors: Vec<OwnedFd>,
        offer: Option<&PasidOffer>,
        is_stopped: &dyn Fn() -> bool,
        replies: &mut Vec<u8>,
    ) -> Result<Option<Agreed>, ConnectionError> {
        if self.agreed.is_none() {
            let agreed = self.negotiate(frame, offer, replies);
            if agreed.is_err() {
                refuse(replies, &frame.header, Errno::INVAL);
            }
            return agreed.map(Some);
        }
        let start = replies.len();
        replies.extend_from_slice(Header::reply(&frame.header).as_bytes());
        let outcome = self.dispatch(frame, descriptors, is_stopped, replies);
        if frame.header.reply_wanted() == ReplyWanted::No {
            replies.truncate(start);
            return Ok(None);
        }
        let header = match outcome {
            Ok(()) => Header::reply(&frame.header),
            Err(errno) => {
                replies.truncate(start + HEADER_BYTES);
                Header::refusal(&frame.header, errno)
            }
        };
        finish(replies, start, header);
        Ok(None)
    }

    fn negotiate(
        &mut self,
        frame: &Frame<'_>,
        offer: Option<&PasidOffer>,
        replies: &mut Vec<u8>,
    ) -> Result<Agreed, ConnectionError> {
        if frame.header.command.get() != Command::Version.raw() {
            return Err(ConnectionError::BeforeVersion(frame.header.command.get()));
        }
        let Ok((version, text)) = Version::read_from_prefix(frame.payload) else {
            return Err(ConnectionError::ShortVersion);
        };
        if version.major.get() != 0 {
            return Err(ConnectionError::Version(version.major.get()));
        }
        let theirs = Capabilities::parse(text)?;
        // To who does not offer it, the extension is one of the names that are not known.
        let extension = match offer {
            Some(offer) => PasidCapability::parse(text)?.map(|proposed| offer.agree(&proposed)),
            None => None,
        };
        // What is offered must be a part of what was proposed.
        let own = Capabilities::own(MAX_MAPS as u64);
        let migrates = theirs.migration_page_bytes.is_some() && self.function.migration().is_some();
        let ours = Capabilities {
            write_multi: theirs.write_multi,
            migration_page_bytes: own.migration_page_bytes.filter(|_| migrates),
            ..own
        };
        let start = replies.len();
        replies.extend_from_slice(Header::reply(&frame.header).as_bytes());
        let version = Version {
            major: 0.into(),
            minor: 0.into(),
        };
        replies.extend_from_slice(version.as_bytes());
        replies.extend_from_slice(&ours.text_with(extension.as_ref()));
        finish(replies, start, Header::reply(&frame.header));
        self.agreed = Some(theirs);
        Ok(Agreed { theirs, extension })
    }

    /// Appends the payload of the reply to `out`.
    fn dispatch(
        &mut self,
        frame: &Frame<'_>,
        descriptors: Vec<OwnedFd>,
        is_stopped: &dyn Fn() -> bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let payload = frame.payload;
        let Some(command) = Command::from_raw(frame.header.command.get()) else {
            return Err(Errno::NOTSUP);
        };
        match command {
            Command::RegionWrite => self.region_write(payload, out),
            Command::RegionRead => self.region_read(payload, out),
            Command::RegionWriteMulti => self.region_write_multi(payload, is_stopped, out),
            Command::DmaMap => {
                let request = exactly::<DmaMap>(payload)?;
                self.maps.map(&*self.memory, &request, descriptors)
            }
            Command::DmaUnmap => {
                let request = exactly::<DmaUnmap>(payload)?;
                self.maps.unmap(&*self.memory, &request)?;
                out.extend_from_slice(payload);
                Ok(())
            }
            Command::DeviceGetInfo => {
                // A client may send all of the room that it has for the reply.
                let (request, _) = starts_with::<DeviceInfo>(payload)?;
                has_room(request.argsz.get(), DeviceInfo::ARGSZ)?;
                out.extend_from_slice(device_info().as_bytes());
                Ok(())
            }
            Command::DeviceGetRegionInfo => {
                // A client may send all of the room that it has for the reply.
                let (request, _) = starts_with::<RegionInfo>(payload)?;
                has_room(request.argsz.get(), RegionInfo::ARGSZ)?;
                out.extend_from_slice(self.region_info(request.index.get())?.as_bytes());
                Ok(())
            }
            Command::DeviceGetIrqInfo => {
                // A client may send all of the room that it has for the reply.
                let (request, _) = starts_with::<IrqInfo>(payload)?;
                has_room(request.argsz.get(), IrqInfo::ARGSZ)?;
                out.extend_from_slice(self.vectors.info(request.index.get())?.as_bytes());
                Ok(())
            }
            Command::DeviceSetIrqs => {
                let (request, data) = starts_with::<IrqSet>(payload)?;
                self.vectors.set(&request, data, descriptors)
            }
            Command::DeviceReset => {
                if !payload.is_empty() {
                    return Err(Errno::INVAL);
                }
                self.features.migrating.reset()
            }
            Command::DeviceFeature => self.features.request(payload, out),
            Command::MigrationDataRead => {
                let limit_bytes = self.agreed.unwrap_or_default().max_data_bytes;
                self.features.migrating.read(payload, limit_bytes, out)
            }
            Command::MigrationDataWrite => self.features.migrating.write(payload),
            // Once is enough, and the other two go the other way.
            Command::Version | Command::DmaRead | Command::DmaWrite => Err(Errno::INVAL),
            Command::DeviceGetRegionIoFds => self.region_io_fds(payload, out),
            Command::DirtyPages => Err(Errno::NOTSUP),
            // Where the extension was not agreed to, these are commands that the protocol does not have.
            Command::PasidDmaRead
            | Command::PasidDmaWrite
            | Command::PasidTranslate
            | Command::PasidPageRequest
            | Command::PasidInvalidate
            | Command::ContainerRequest => Err(Errno::NOTSUP),
        }
    }

    fn region_len_bytes(&self, region: Region) -> u64 {
        match region {
            Region::Bar(bar) => self.function.bar_len_bytes(bar),
            Region::Config => CONFIG_SPACE_BYTES as u64,
            Region::Rom | Region::Vga => 0,
        }
    }

    fn region_info(&self, index: u32) -> Result<RegionInfo, Errno> {
        let region = Region::from_index(index).ok_or(Errno::INVAL)?;
        let len_bytes = self.region_len_bytes(region);
        let flags = if len_bytes == 0 {
            0
        } else {
            REGION_READS | REGION_WRITES
        };
        Ok(RegionInfo {
            argsz: RegionInfo::ARGSZ.into(),
            flags: flags.into(),
            index: index.into(),
            cap_offset: 0.into(),
            len_bytes: len_bytes.into(),
            offset_bytes: 0.into(),
        })
    }

    /// Tells by which descriptors a region can be reached: by none.
    fn region_io_fds(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        let request = exactly::<RegionIoFds>(payload)?;
        let argsz = request.argsz.get();
        has_room(argsz, RegionIoFds::ARGSZ)?;
        let region = Region::from_index(request.index.get()).ok_or(Errno::INVAL)?;
        let asks = (request.flags.get(), request.count.get());
        if argsz > MAX_DATA_BYTES || asks != (0, 0) || self.region_len_bytes(region) == 0 {
            return Err(Errno::INVAL);
        }
        let reply = RegionIoFds {
            argsz: RegionIoFds::ARGSZ.into(),
            ..request
        };
        out.extend_from_slice(reply.as_bytes());
        Ok(())
    }

    /// Where an access goes, after the checks that the function need not make.
    fn target(&self, offset_bytes: u64, region: u32, count: u32) -> Result<Target, Errno> {
        let region = Region::from_index(region).ok_or(Errno::INVAL)?;
        let end = offset_bytes.checked_add(count.into()).ok_or(Errno::INVAL)?;
        if count > MAX_DATA_BYTES || end > self.region_len_bytes(region) {
            return Err(Errno::INVAL);
        }
        if count == 0 {
            return Ok(Target::Nothing);
        }
        match region {
            Region::Bar(bar) => Ok(Target::Bar(bar, offset_bytes)),
            Region::Config => u16::try_from(offset_bytes)
                .map(Target::Config)
                .map_err(|_| Errno::INVAL),
            Region::Rom | Region::Vga => Err(Errno::INVAL),
        }
    }

    fn write(&self, target: Target, data: &[u8]) -> Result<(), Errno> {
        match target {
            Target::Nothing => Ok(()),
            Target::Bar(bar, offset_bytes) => self
                .function
                .bar_write(bar, offset_bytes, data)
                .map_err(palisade_pci::AccessError::errno),
            Target::Config(offset) => {
                self.function.config_write(offset, data);
                Ok(())
            }
        }
    }

    fn region_read(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        let access = exactly::<RegionAccess>(payload)?;
        let count = access.count.get();
        let target = self.target(access.offset_bytes.get(), access.region.get(), count)?;
        out.extend_from_slice(payload);
        let data = out.len();
        out.resize(data + count as usize, 0);
        match target {
            Target::Nothing => Ok(()),
            Target::Bar(bar, offset_bytes) => self
                .function
                .bar_read(bar, offset_bytes, &mut out[data..])
                .map_err(palisade_pci::AccessError::errno),
            Target::Config(offset) => {
                self.function.config_read(offset, &mut out[data..]);
                Ok(())
            }
        }
    }

    fn region_write(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Errno> {
        let (access, data) = starts_with::<RegionAccess>(payload)?;
        let count = access.count.get();
        if data.len() != count as usize {
            return Err(Errno::INVAL);
        }
        let target = self.target(access.offset_bytes.get(), access.region.get(), count)?;
        self.write(target, data)?;
        out.extend_from_slice(access.as_bytes());
        Ok(())
    }

    /// In order, up to the first that is refused.
    fn region_write_multi(
        &self,
        payload: &[u8],
        is_stopped: &dyn Fn() -> bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Errno> {
        let (header, rest) = starts_with::<WriteMultiHeader>(payload)?;
        let (writes, odd) = rest.as_chunks::<{ SingleWrite::BYTES }>();
        if !odd.is_empty() || writes.len() as u64 != header.count.get() {
            return Err(Errno::INVAL);
        }
        for write in writes {
            if is_stopped() {
                return Err(Errno::CANCELED);
            }
            let write = exactly::<SingleWrite>(write)?;
            let count = write.count.get();
            let data = write.data.get(..count as usize).ok_or(Errno::INVAL)?;
            let target = self.target(write.offset_bytes.get(), write.region.get(), count)?;
            self.write(target, data)?;
        }
        out.extend_from_slice(header.as_bytes());
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Target {
    /// An access of no bytes, of which the function does not hear.
    Nothing,
    Bar(Bar, u64),
    Config(u16),
}

fn device_info() -> DeviceInfo {
    DeviceInfo {
        argsz: DeviceInfo::ARGSZ.into(),
        flags: (DEVICE_RESETS | DEVICE_IS_PCI).into(),
        regions: Region::COUNT.into(),
        irqs: IRQ_TYPES.into(),
    }
}

/// Appends the reply to a command that is refused, if it wants one.
pub(super) fn refuse(replies: &mut Vec<u8>, to: &Header, errno: Errno) {
    if to.kind() == Some(Kind::Command) && to.reply_wanted() == ReplyWanted::Yes {
        push_frame(replies, Header::refusal(to, errno), &[]);
    }
}

/// Puts the header before a reply whose payload is complete.
fn finish(replies: &mut [u8], start: usize, mut header: Header) {
    let size = u32::try_from(replies.len() - start).unwrap_or(u32::MAX);
    header.size = size.into();
    replies[start..start + HEADER_BYTES].copy_from_slice(header.as_bytes());
}

pub(super) fn exactly<T: FromBytes>(payload: &[u8]) -> Result<T, Errno> {
    T::read_from_bytes(payload).map_err(|_| Errno::INVAL)
}

pub(super) fn starts_with<T: FromBytes>(payload: &[u8]) -> Result<(T, &[u8]), Errno> {
    T::read_from_prefix(payload).map_err(|_| Errno::INVAL)
}

pub(super) fn has_room(argsz: u32, needed: u32) -> Result<(), Errno> {
    if argsz < needed {
        return Err(Errno::INVAL);
    }
    Ok(())
}
