//! Functions, and the memory that they reach.

use std::os::fd::AsFd;

use palisade_memory::{Backing, Protection};
use palisade_units::{Bdf, Gpa};
use palisade_vfio::abi::Request;
use palisade_vfio::abi::layout::{
    FUNCTION_ATTACHED, FUNCTION_OFFERED, FunctionEntry, FunctionList, FunctionPlace, MAP_READ,
    MAP_WRITE, MapDma, UNMAP_ALL, UnmapDma,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{Client, ClientError, starts_with};

/// Room for as many functions as an answer holds.
const LIST_ROOM: u32 = 4000;

/// Who attaches a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attaching {
    /// The host has attached it.
    ByHost,
    /// The client may, and has not.
    Offered,
    /// The client has.
    ByClient,
}

/// A function of a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its place in the guest.
    pub guest_bdf: Bdf,
    /// Who attaches it.
    pub attaching: Attaching,
}

impl Client {
    /// The functions that the VMM has or may have, by their places.
    ///
    /// # Errors
    /// Those of the socket; [`ClientError::Answer`] where what comes makes no sense.
    pub fn functions(&mut self) -> Result<Vec<FunctionInfo>, ClientError> {
        let reply = self.request(Request::FunctionList, list_request().as_bytes())?;
        listed(&reply.written)
    }

    /// Attaches a function that is offered. It reaches the memory that the VMM has mapped.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENODEV where none is offered, EEXIST where it is attached, EBUSY where another
    /// tenant has it, ENOSPC beyond the quota.
    pub fn attach(&mut self, guest_bdf: Bdf) -> Result<(), ClientError> {
        self.at(Request::FunctionAttach, guest_bdf)
    }

    /// Detaches a function that the VMM attached. Everything on it is unbound and drained.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: ENODEV.
    pub fn detach(&mut self, guest_bdf: Bdf) -> Result<(), ClientError> {
        self.at(Request::FunctionDetach, guest_bdf)
    }

    fn at(&mut self, request: Request, guest_bdf: Bdf) -> Result<(), ClientError> {
        let place = FunctionPlace {
            argsz: FunctionPlace::ARGSZ.into(),
            flags: 0.into(),
            place: u32::from(guest_bdf.requester_id()).into(),
        };
        self.request(request, place.as_bytes())?;
        Ok(())
    }

    /// Maps a part of a file as guest memory.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL, EEXIST where there is memory, EACCES where the file is not open for it,
    /// ENODEV where it cannot be mapped, ENOSPC.
    pub fn map(
        &mut self,
        at: Gpa,
        len_bytes: u64,
        backing: &Backing,
        protection: Protection,
    ) -> Result<(), ClientError> {
        let flags = match protection {
            Protection::ReadOnly => MAP_READ,
            Protection::ReadWrite => MAP_READ | MAP_WRITE,
        };
        let request = MapDma {
            argsz: MapDma::ARGSZ.into(),
            flags: flags.into(),
            vaddr: backing.offset_bytes.into(),
            iova: at.get().into(),
            size: len_bytes.into(),
        };
        let number = Request::MapDma.number();
        self.ioctl(number, request.as_bytes(), &[backing.fd.as_fd()])?;
        Ok(())
    }

    /// Unmaps memory, of whole maps. When this returns, no function reaches it.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: EINVAL; ENOENT where the range has a hole or cuts a map.
    pub fn unmap(&mut self, at: Gpa, len_bytes: u64) -> Result<(), ClientError> {
        self.unmap_by(0, at, len_bytes)?;
        Ok(())
    }

    /// Unmaps all memory, and says how many bytes that were.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn unmap_all(&mut self) -> Result<u64, ClientError> {
        self.unmap_by(UNMAP_ALL, Gpa::new(0), 0)
    }

    fn unmap_by(&mut self, flags: u32, at: Gpa, len_bytes: u64) -> Result<u64, ClientError> {
        let request = UnmapDma {
            argsz: UnmapDma::ARGSZ.into(),
            flags: flags.into(),
            iova: at.get().into(),
            size: len_bytes.into(),
        };
        let reply = self.request(Request::UnmapDma, request.as_bytes())?;
        Ok(starts_with::<UnmapDma>(&reply.written)?.size.get())
    }
}

/// A list with room for as many functions as an answer holds.
pub(super) fn list_request() -> FunctionList {
    FunctionList {
        argsz: LIST_ROOM.into(),
        ..FunctionList::default()
    }
}

/// What an answer to that says.
pub(super) fn listed(written: &[u8]) -> Result<Vec<FunctionInfo>, ClientError> {
    let entries = written.get(FunctionList::BYTES..);
    let entries = entries.ok_or(ClientError::Answer)?;
    let entry = |entry: &[u8]| {
        let entry = FunctionEntry::read_from_bytes(entry).map_err(|_| ClientError::Answer)?;
        let place = u16::try_from(entry.place.get()).map_err(|_| ClientError::Answer)?;
        let attaching = match entry.state.get() {
            FUNCTION_ATTACHED => Attaching::ByHost,
            FUNCTION_OFFERED => Attaching::Offered,
            BY_CLIENT => Attaching::ByClient,
            _ => return Err(ClientError::Answer),
        };
        Ok(FunctionInfo {
            guest_bdf: Bdf::from_requester_id(place),
            attaching,
        })
    };
    let entries = entries.chunks(FunctionEntry::BYTES);
    entries.map(entry).collect()
}

const BY_CLIENT: u32 = FUNCTION_ATTACHED | FUNCTION_OFFERED;
