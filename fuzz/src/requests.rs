//! What a VMM asks for by the requests of the proposals, and what its function does meanwhile.

use arbitrary::Unstructured;
use palisade_iommu::{DmaPort, FunctionHandle, Requester};
use palisade_mdev::SliceType;
use palisade_units::{Access, HostPasid, Iova};
use palisade_vfio::Abi;

use crate::calls::{self, Call};
use crate::unit::value;
use crate::world::{MEMORY_BYTES, SLOT, WHOLE_SLOT, World};

/// How many steps one input makes.
pub(crate) const STEPS: usize = 256;

pub(crate) fn requests_v1(bytes: &[u8]) {
    requests(Abi::V1, bytes);
}

pub(crate) fn requests_v7(bytes: &[u8]) {
    requests(Abi::V7, bytes);
}

fn requests(abi: Abi, bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let world = world();
    let (vmm, function) = world.vmm();
    let session = vmm.connect(abi);
    let mut device = Device::of(function);
    // What is refused is an answer.
    let ask = |call: Call| drop(session.ioctl(call.number, &call.argument, call.descriptors));
    let opening = calls::opening(&mut input).unwrap_or(0);
    let first = |step| calls::first_of_proposals(&world, abi, step);
    (0..opening).filter_map(first).for_each(ask);
    for _ in 0..STEPS {
        let step = beside(&world, &mut device, &mut input)
            .and_then(|()| calls::of_proposals(&world, abi, &mut input))
            .map(ask);
        if step.is_err() {
            break;
        }
    }
    world.check();
    drop(session);
    all_is_given_back(&world, &device);
}

/// A world whose tenant is known by its requests.
pub(crate) fn world() -> World {
    World::plain(SliceType::DedicatedQueue)
}

/// What must hold when the last connection of a VMM has gone.
pub(crate) fn all_is_given_back(world: &World, device: &Device) {
    world.check();
    assert_eq!(world.container.guest_bdfs(), [SLOT, WHOLE_SLOT]);
    assert_eq!(device.function.outstanding_page_requests(), 0);
    assert_eq!(world.container.allocated(), []);
}

/// The function that the VMM may attach.
pub(crate) struct Device {
    pub(crate) function: FunctionHandle,
    // Made when it is first used: its caches take longer to make than all the rest.
    port: Option<DmaPort>,
}

impl Device {
    pub(crate) fn of(function: FunctionHandle) -> Self {
        Self {
            function,
            port: None,
        }
    }

    fn port(&mut self) -> &mut DmaPort {
        self.port.get_or_insert_with(|| self.function.port())
    }
}

/// What happens beside the requests: the guest writes, and its device works.
pub(crate) fn beside(
    world: &World,
    device: &mut Device,
    input: &mut Unstructured<'_>,
) -> arbitrary::Result<()> {
    if input.is_empty() {
        return Err(arbitrary::Error::NotEnoughData);
    }
    match input.int_in_range(0..=7)? {
        0 => {
            let at = input.int_in_range(0..=MEMORY_BYTES / 8 - 1)? * 8;
            world.shared.store_u64(at, value(input)?).expect("inside");
        }
        1 => access(device, input)?,
        2 => {
            let by = requester(input)?;
            let at = Iova::new(input.int_in_range(0..=16_u64)? << 12);
            let port = device.port();
            // Whoever is told that there is no page gives up.
            let _ = port.request_page(by, at, Access::READ, Box::new(|_| ()));
        }
        _ => {}
    }
    Ok(())
}

fn access(device: &mut Device, input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let by = requester(input)?;
    let at = Iova::new(match input.int_in_range(0..=1)? {
        0 => input.arbitrary()?,
        _ => input.int_in_range(0..=2 * MEMORY_BYTES)?,
    });
    let mut bytes = vec![0; input.int_in_range(0..=5000)?];
    let is_write = input.arbitrary()?;
    let port = device.port();
    // Faults are answers.
    let _ = if is_write {
        port.write(by, at, &bytes)
    } else {
        port.read(by, at, &mut bytes)
    };
    Ok(())
}

/// By a PASID of the host, or without one.
fn requester(input: &mut Unstructured<'_>) -> arbitrary::Result<Requester> {
    let pasid = HostPasid::new(calls::pasid(input)?).ok();
    let pasid = pasid.filter(|pasid| pasid.get() != 0);
    Ok(Requester::new(pasid.map(Into::into)))
}
