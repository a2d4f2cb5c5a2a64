//! A VMM's requests on the connection of one of its functions, where it has agreed to that with us.

use std::{os::fd::OwnedFd, sync::Arc};

use palisade_units::PASID_BITS;
use palisade_vfio::{
    Abi,
    abi::{Number, Session, Vmm},
};
use palisade_vfio_user::{
    ContainerRequests, Errno, PasidOffer, RequestAnswer, RequestNumber, RequestReply,
    RequestSession,
    wire::pasid::{PasidCapability, RequestAbi},
};

/// Offers the requests, and nothing else of the extension: the function's accesses are translated here.
pub(super) fn offer(vmm: &Vmm) -> PasidOffer {
    PasidOffer {
        limits: PasidCapability {
            width: u8::try_from(PASID_BITS).unwrap_or(u8::MAX),
            ..PasidCapability::default()
        },
        cache: None,
        requests: Some(Arc::new(Requests(vmm.clone()))),
    }
}

struct Requests(Vmm);

impl ContainerRequests for Requests {
    fn connect(&self, abi: RequestAbi) -> Box<dyn RequestSession> {
        let abi = match abi {
            RequestAbi::V1 => Abi::V1,
            RequestAbi::V7 => Abi::V7,
        };
        Box::new(OneConnection(self.0.connect(abi)))
    }
}

struct OneConnection(Session);

impl RequestSession for OneConnection {
    fn request(
        &mut self,
        number: RequestNumber,
        argument: &[u8],
        descriptors: Vec<OwnedFd>,
        reply: RequestReply,
    ) {
        let number = Number::new(number.get());
        let answer = self.0.ioctl(number, argument, descriptors);
        let answer = answer.map(|answer| RequestAnswer {
            value: answer.value,
            written: answer.written,
            descriptors: answer.descriptors,
        });
        reply.send(answer.map_err(|errno| Errno::from_raw_os_error(errno.get())));
    }
}
