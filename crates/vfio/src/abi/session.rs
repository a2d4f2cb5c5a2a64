use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use palisade_ioasid::Errno;

use super::argument::Argument;
use super::layout::{Head, OP_BIND, OP_INVALIDATE, OP_UNBIND};
use super::vmm::Inner;
use super::{
    AbiError, Answer, Nested, Number, Request, Vmm, bind, faults, functions, info, invalidate,
    ioasid, memory, pasid,
};
use crate::{Abi, Container, FaultRing, Nesting, PasidRequests};

/// The version of VFIO, and of `/dev/ioasid`.
const API_VERSION: i32 = 0;
/// The bits of NESTING_OP's flags that say what is wanted.
const OP_MASK: u32 = 0xffff;

/// One connection of a VMM: the requests that it makes, as bytes.
///
/// Requests may come from any thread. Whatever they took goes back with the last session of the [`Vmm`].
#[derive(Debug)]
pub struct Session {
    vmm: Vmm,
    abi: Abi,
    nesting: OnceLock<Nesting>,
    /// Goes after the last session of the VMM has cleaned up: until then it is told of what ends.
    ring: OnceLock<Arc<FaultRing>>,
}

impl Session {
    pub(super) fn new(vmm: Vmm, abi: Abi) -> Self {
        Self {
            vmm,
            abi,
            nesting: OnceLock::new(),
            ring: OnceLock::new(),
        }
    }

    /// Does what a request says. Descriptors that the request does not take are closed.
    ///
    /// # Errors
    /// What the call fails with. ENOTTY for a number that is unknown, or of the other proposal; EFAULT where the
    /// argument ends before the request does; EINVAL, EOPNOTSUPP and those of the [`Container`] as the proposals
    /// have them. Nothing has changed then.
    pub fn ioctl(
        &self,
        number: Number,
        argument: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, Errno> {
        self.try_ioctl(number, argument, descriptors)
            .map_err(|error| {
                tracing::debug!(%number, %error, "a request is refused");
                error.errno()
            })
    }

    /// [`Session::ioctl`], which says more of why not.
    ///
    /// # Errors
    /// As there.
    pub fn try_ioctl(
        &self,
        number: Number,
        argument: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, AbiError> {
        let request = Request::from_number(number).ok_or(AbiError::Unknown(number))?;
        if request.only_in().is_some_and(|abi| abi != self.abi) {
            return Err(AbiError::OtherVersion(request));
        }
        let (wanted, got) = (request.descriptors(), descriptors.len());
        if wanted != got {
            return Err(AbiError::Descriptors { wanted, got });
        }
        match descriptors.into_iter().next() {
            Some(descriptor) => self.with_descriptor(request, argument, descriptor),
            None => self.without_descriptor(request, argument),
        }
    }

    fn with_descriptor(
        &self,
        request: Request,
        argument: &[u8],
        descriptor: OwnedFd,
    ) -> Result<Answer, AbiError> {
        match request {
            Request::MapDma => memory::map(self, Argument::new(argument)?, descriptor),
            Request::FaultRing => faults::ring(self, Argument::new(argument)?, descriptor),
            _ => Err(AbiError::Descriptors { wanted: 0, got: 1 }),
        }
    }

    fn without_descriptor(&self, request: Request, argument: &[u8]) -> Result<Answer, AbiError> {
        match request {
            Request::GetApiVersion => Ok(Answer::value(API_VERSION)),
            Request::CheckExtension => info::check_extension(self, argument),
            Request::SetIommu => info::set_iommu(self, argument),
            Request::GetInfo => info::get_info(self, Argument::new(argument)?),
            Request::PasidRequestV7 => pasid::request_v7(self, Argument::new(argument)?),
            Request::NestingOp => self.nesting_op(Argument::new(argument)?),
            Request::PasidRequestV1 => pasid::request_v1(self, Argument::new(argument)?),
            Request::Bind => bind::request_v1(self, Argument::new(argument)?),
            Request::CacheInvalidate => invalidate::request_v1(self, Argument::new(argument)?),
            Request::UnmapDma => memory::unmap(self, Argument::new(argument)?),
            Request::FunctionList => functions::list(self.vmm(), argument),
            Request::FunctionAttach => functions::attach(self, Argument::new(argument)?),
            Request::FunctionDetach => functions::detach(self, Argument::new(argument)?),
            Request::IoasidGetApiVersion => Ok(Answer::value(API_VERSION)),
            Request::IoasidGetInfo => ioasid::get_info(Argument::new(argument)?),
            Request::IoasidAllocate => ioasid::allocate(self, Argument::new(argument)?),
            Request::IoasidFree => ioasid::free(self, argument),
            Request::PageResponse => faults::respond(self, Argument::new(argument)?),
            Request::MapDma | Request::FaultRing => {
                Err(AbiError::Descriptors { wanted: 1, got: 0 })
            }
        }
    }

    fn nesting_op(&self, argument: Argument<'_>) -> Result<Answer, AbiError> {
        let flags = argument.flags()?;
        let data = argument.after(Head::ARGSZ);
        if flags & !OP_MASK != 0 {
            return Err(AbiError::Flags(flags.into()));
        }
        match flags {
            OP_BIND => bind::bind(self, data),
            OP_UNBIND => bind::unbind(self, data),
            OP_INVALIDATE => invalidate::invalidate(self, data),
            _ => Err(AbiError::Flags(flags.into())),
        }
    }

    /// Which of the proposals the client speaks.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.abi
    }

    pub(super) fn container(&self) -> &Container {
        &self.vmm.inner.container
    }

    pub(super) fn vmm(&self) -> &Inner {
        &self.vmm.inner
    }

    pub(super) fn keep_ring(&self, ring: Arc<FaultRing>) -> Result<(), AbiError> {
        self.ring.set(ring).map_err(|_| AbiError::HasRing)
    }

    pub(super) fn nested(&self) -> Nested {
        self.vmm.inner.nested
    }

    pub(super) fn nesting(&self) -> Nesting {
        self.nesting.get().copied().unwrap_or(Nesting::Off)
    }

    pub(super) fn choose(&self, nesting: Nesting) -> Result<(), AbiError> {
        let chosen = self.nesting.set(nesting);
        chosen.map_err(|_| AbiError::Value("how memory is translated was chosen already"))
    }

    /// The tenant's PASIDs, under the conditions that the proposals have for them: nesting was chosen, and the
    /// hardware has PASIDs.
    pub(super) fn pasid_requests(&self) -> PasidRequests {
        let nesting = if self.nested().has_pasids() {
            self.nesting()
        } else {
            Nesting::Off
        };
        self.container().pasid_requests(self.abi, nesting)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.vmm.inner.leave();
    }
}
