//! IOMMU_FAULT_QUEUE_ALLOC and IOMMU_VEVENTQ_ALLOC.

use std::sync::Arc;

use super::argument::{Message, known_flags, reserved};
use super::events::EventQueue;
use super::fault_queue::FaultQueue;
use super::layout::{FaultQueueAlloc, VEVENTQ_TYPE_VTD, VeventqAlloc};
use super::objects::Object;
use super::{ChannelPair, Iommufd, IommufdError, ObjectId, virtual_unit};
use crate::abi::{AbiError, Answer};

/// How many files a client may have the host keep open.
const MOST_FILES: usize = 64;

pub(super) fn alloc_faults(
    session: &Iommufd,
    message: Message<'_>,
) -> Result<Answer, IommufdError> {
    let mut request: FaultQueueAlloc = message.read()?;
    known_flags(request.flags.get(), 0)?;
    let ChannelPair { host, client } = channel(session)?;
    let queue = FaultQueue::new(host);
    let id = session.objects().add(Object::FaultQueue(Arc::new(queue)))?;
    request.out_fault_id = id.get().into();
    request.out_fault_fd = 0.into();
    let mut answer = message.written(&request);
    answer.descriptors.push(Arc::new(client));
    Ok(answer)
}

pub(super) fn alloc_events(
    session: &Iommufd,
    message: Message<'_>,
) -> Result<Answer, IommufdError> {
    let mut request: VeventqAlloc = message.read()?;
    known_flags(request.flags.get(), 0)?;
    reserved(request.reserved.get())?;
    if request.veventq_type.get() != VEVENTQ_TYPE_VTD {
        return Err(IommufdError::NotOffered("a queue of events of that type"));
    }
    if request.veventq_depth.get() == 0 {
        return Err(IommufdError::Value(
            "a queue has room for one event at least",
        ));
    }
    let unit = ObjectId::new(request.viommu_id.get());
    session.objects().virtual_unit(unit)?;
    let ChannelPair { host, client } = channel(session)?;
    let mut objects = session.objects();
    objects.virtual_unit(unit)?;
    let of_it = |object: &Object| matches!(object, Object::EventQueue(of, _) if *of == unit);
    if objects.all().any(|(_, object)| of_it(object)) {
        return Err(IommufdError::Exists(
            "the virtual unit has a queue of events already",
        ));
    }
    let queue = Arc::new(EventQueue::new(host));
    let id = objects.add(Object::EventQueue(unit, queue))?;
    virtual_unit::name_devices(&objects, session.router());
    request.out_veventq_id = id.get().into();
    request.out_veventq_fd = 0.into();
    let mut answer = message.written(&request);
    answer.descriptors.push(Arc::new(client));
    Ok(answer)
}

fn channel(session: &Iommufd) -> Result<ChannelPair, IommufdError> {
    let doorbells = session.vmm().doorbells()?;
    let is_file =
        |object: &Object| matches!(object, Object::FaultQueue(_) | Object::EventQueue(..));
    let files = {
        let objects = session.objects();
        objects.all().filter(|(_, object)| is_file(object)).count()
    };
    if files >= MOST_FILES {
        return Err(IommufdError::TooMany);
    }
    session.be_told()?;
    Ok(doorbells.channel().map_err(AbiError::Host)?)
}
