use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use palisade_ioasid::Errno;
use palisade_units::Bdf;

use super::argument::Message;
use super::fault_queue::FaultQueue;
use super::objects::{Object, Objects};
use super::router::Router;
use super::{
    Family, IommufdError, IommufdRequest, On, attach, device, hardware, invalidate, queues, space,
    table, virtual_unit,
};
use crate::Container;
use crate::abi::vmm::{Inner, locked};
use crate::abi::{AbiError, Answer, Number, Vmm, functions};

/// A request that failed, and what of its argument changed all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the call fails with.
    pub errno: Errno,
    /// What the argument begins with from now on: of IOMMU_HWPT_INVALIDATE, which says how many entries were done, and
    /// of IOMMU_IOAS_IOVA_RANGES, which says how many ranges there are.
    pub written: Vec<u8>,
}

/// One connection of a VMM: an iommufd with its objects and devices.
///
/// Requests may come from any thread, and follow one another. When this goes, its devices are detached and unbound, and
/// all objects are gone.
pub struct Iommufd {
    vmm: Vmm,
    objects: Mutex<Objects>,
    router: Arc<Router>,
    /// Whether the router is the tenant's sink.
    is_told: Mutex<bool>,
}

impl Iommufd {
    pub(in crate::abi) fn new(vmm: Vmm) -> Self {
        Self {
            vmm,
            objects: Mutex::default(),
            router: Arc::default(),
            is_told: Mutex::default(),
        }
    }

    /// Does what a request says. Descriptors that the request does not take are closed.
    ///
    /// # Errors
    /// [`Refused`]. Nothing has changed then, but for invalidations, of which it tells.
    pub fn ioctl(
        &self,
        on: On,
        number: Number,
        argument: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Answer, Refused> {
        let mut written = Vec::new();
        let outcome = self.try_ioctl(on, number, argument, descriptors, &mut written);
        outcome.map_err(|error| {
            tracing::debug!(%number, %error, "a request to an iommufd is refused");
            let errno = error.errno();
            Refused { errno, written }
        })
    }

    fn try_ioctl(
        &self,
        on: On,
        number: Number,
        argument: &[u8],
        descriptors: Vec<OwnedFd>,
        written: &mut Vec<u8>,
    ) -> Result<Answer, IommufdError> {
        let request = IommufdRequest::from_number(number).ok_or(IommufdError::Unknown(number))?;
        if request == IommufdRequest::IoasMapFile && on == On::Iommufd {
            return space::map(
                self,
                Message::new(argument, request.shortest())?,
                descriptors,
            );
        }
        if !descriptors.is_empty() {
            let got = descriptors.len();
            return Err(AbiError::Descriptors { wanted: 0, got }.into());
        }
        match (request.family(), on) {
            (Family::Iommufd, On::Iommufd) => self.on_iommufd(request, argument, written),
            (Family::Device, On::Device(place)) => self.on_device(request, place, argument),
            _ => Err(IommufdError::OtherFile(request)),
        }
    }

    fn on_iommufd(
        &self,
        request: IommufdRequest,
        argument: &[u8],
        written: &mut Vec<u8>,
    ) -> Result<Answer, IommufdError> {
        use IommufdRequest as R;
        if request == R::FunctionList {
            return Ok(functions::list(self.vmm(), argument)?);
        }
        let message = Message::new(argument, request.shortest())?;
        match request {
            R::Destroy => self.destroy(message),
            R::IoasAlloc => space::alloc(self, message),
            R::IoasIovaRanges => space::ranges(self, message, written),
            R::IoasUnmap => space::unmap(self, message),
            R::HwptAlloc => table::alloc(self, message),
            R::GetHwInfo => hardware::info(self, message),
            R::HwptInvalidate => invalidate::invalidate(self, message, written),
            R::FaultQueueAlloc => queues::alloc_faults(self, message),
            R::ViommuAlloc => virtual_unit::alloc(self, message),
            R::VdeviceAlloc => virtual_unit::alloc_device(self, message),
            R::VeventqAlloc => queues::alloc_events(self, message),
            other => Err(IommufdError::OtherFile(other)),
        }
    }

    fn on_device(
        &self,
        request: IommufdRequest,
        place: Bdf,
        argument: &[u8],
    ) -> Result<Answer, IommufdError> {
        match request {
            IommufdRequest::DeviceBind => device::bind(self, place, argument),
            IommufdRequest::DeviceAttach => attach::attach(self, place, argument),
            IommufdRequest::DeviceDetach => attach::detach(self, place, argument),
            IommufdRequest::DeviceClose => device::close(self, place, argument),
            other => Err(IommufdError::OtherFile(other)),
        }
    }

    /// The queues whose files a client may have written to, or closed.
    pub fn queues(&self) -> Vec<Queue> {
        let objects = self.objects();
        let queues = objects.all().filter_map(|(_, object)| match object {
            Object::FaultQueue(queue) if !queue.is_over() => Some(Queue(Arc::clone(queue))),
            _ => None,
        });
        queues.collect()
    }

    /// Does what a client wrote to the file of a queue: answers page requests. What makes no sense there is passed over.
    /// Does not wait for the client.
    pub fn serve(&self, queue: &Queue) {
        queue.0.serve(self.container());
    }

    fn destroy(&self, message: Message<'_>) -> Result<Answer, IommufdError> {
        let request: super::layout::Destroy = message.read()?;
        let mut objects = self.objects();
        let gone = objects.destroy(super::ObjectId::new(request.id.get()))?;
        virtual_unit::name_devices(&objects, &self.router);
        drop(objects);
        drop(gone);
        Ok(Answer::default())
    }

    pub(super) fn container(&self) -> &Container {
        &self.vmm().container
    }

    pub(super) fn vmm(&self) -> &Inner {
        &self.vmm.inner
    }

    pub(super) fn objects(&self) -> MutexGuard<'_, Objects> {
        locked(&self.objects)
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// From now on the devices' faults and page requests come here, if they may.
    pub(super) fn be_told(&self) -> Result<(), IommufdError> {
        let mut is_told = locked(&self.is_told);
        if !*is_told {
            self.vmm().tell(|| Ok(Arc::clone(&self.router)))?;
            *is_told = true;
        }
        Ok(())
    }
}

/// A queue of page requests, to wait for what its client writes.
pub struct Queue(Arc<FaultQueue>);

impl Queue {
    /// What is readable where the client wrote something, or has closed its end.
    #[must_use]
    pub fn readable(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.readable()
    }
}

impl Drop for Iommufd {
    fn drop(&mut self) {
        // Devices first, as by closing each: what they are attached to is used until then.
        let (devices, others): (Vec<_>, Vec<_>) = {
            let all = self.objects().take().into_iter();
            all.partition(|object| matches!(object, Object::Device(_)))
        };
        drop(devices);
        drop(others);
        self.vmm().leave();
    }
}

impl std::fmt::Debug for Iommufd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Iommufd of {:?}", self.vmm)
    }
}
