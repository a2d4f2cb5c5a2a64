//! FAULT_RING and PAGE_RESPONSE: what a client is told of its functions, and what it answers.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use palisade_ioasid::Errno;
use palisade_iommu::{GroupIndex, PageResponse};
use palisade_units::GuestPasid;

use super::argument::Argument;
use super::functions::place;
use super::iommufd::ChannelPair;
use super::layout::{
    FaultRing as FaultRingLayout, PageResponse as PageResponseLayout, RESPONSE_FAILURE,
    RESPONSE_HAS_PASID, RESPONSE_INVALID, RESPONSE_SUCCESS, RESPONSE_VERSION,
};
use super::{AbiError, Answer, Session};
use crate::{Bell, FaultRing, SpaceKey};

/// Makes bells of the descriptors that clients send to be woken by.
pub trait Doorbells: Send + Sync {
    /// A bell that rings by writing to an eventfd. It must not wait for the client, who has the same eventfd.
    ///
    /// # Errors
    /// What the client is told: EINVAL for what is no eventfd.
    fn bell(&self, eventfd: OwnedFd) -> Result<Box<dyn Bell>, Errno>;

    /// A file by which a client is told, and answers, as a queue of an iommufd has it.
    ///
    /// # Errors
    /// What the client is told; EOPNOTSUPP where there are no such files, as at first.
    fn channel(&self) -> Result<ChannelPair, Errno> {
        Err(Errno::new(EOPNOTSUPP))
    }
}

const EOPNOTSUPP: i32 = 95;

/// The ring lives as long as the session that asked for it, and a VMM has one at a time.
pub(super) fn ring(
    session: &Session,
    argument: Argument<'_>,
    eventfd: OwnedFd,
) -> Result<Answer, AbiError> {
    let mut request: FaultRingLayout = argument.read()?;
    if request.flags.get() != 0 {
        return Err(AbiError::Flags(request.flags.get().into()));
    }
    let vmm = session.vmm();
    let doorbells = vmm.doorbells()?;
    let mut made = None;
    vmm.tell(|| {
        let bell = doorbells.bell(eventfd).map_err(AbiError::Host)?;
        let ring = FaultRing::new(bell).map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(ENOMEM);
            AbiError::Host(Errno::new(errno))
        })?;
        let ring = Arc::new(ring);
        session.keep_ring(Arc::clone(&ring))?;
        made = Some(Arc::clone(&ring));
        Ok(ring)
    })?;
    let ring = made.ok_or(AbiError::HasRing)?;
    request.region_bytes = ring.len_bytes().into();
    let mut answer = Answer::written(&request);
    answer.descriptors.push(ring.region().fd);
    Ok(answer)
}

const ENOMEM: i32 = 12;

/// Accepted once, of who the group belongs to.
pub(super) fn respond(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    let request: PageResponseLayout = argument.read()?;
    if request.flags.get() != 0 {
        return Err(AbiError::Flags(request.flags.get().into()));
    }
    if request.version.get() != RESPONSE_VERSION {
        return Err(AbiError::Value("the version of a page response is 1"));
    }
    let guest_bdf = place(request.place.get())?;
    let key = match request.response_flags.get() {
        0 => SpaceKey::WithoutPasid,
        RESPONSE_HAS_PASID => {
            let guest = GuestPasid::new(request.pasid.get());
            SpaceKey::Pasid(guest.map_err(|_| AbiError::Value("PASIDs go from 1 to 2^20 - 1"))?)
        }
        flags => return Err(AbiError::Flags(flags.into())),
    };
    let group = u16::try_from(request.group.get()).ok();
    let group = group.filter(|group| *group < GroupIndex::COUNT);
    let group = group.ok_or(AbiError::Value("groups go from 0 to 511"))?;
    let response = match request.code.get() {
        RESPONSE_SUCCESS => PageResponse::Success,
        RESPONSE_INVALID => PageResponse::Invalid,
        RESPONSE_FAILURE => PageResponse::Failure,
        _ => {
            return Err(AbiError::Value(
                "the codes of a page response go from 0 to 2",
            ));
        }
    };
    session
        .container()
        .respond(guest_bdf, key, GroupIndex::new(group), response)?;
    Ok(Answer::default())
}
