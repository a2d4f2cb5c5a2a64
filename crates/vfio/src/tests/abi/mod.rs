//! The requests as bytes, in both their forms.

mod binding;
mod closing;
mod faults;
mod functions;
mod hostile;
mod info;
mod invalidating;
mod ioasid;
mod memory;
mod mistakes;
mod pasids;
mod shape;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::world::*;
use crate::abi::layout::*;
use crate::abi::{
    Answer, Doorbells, FaultDelivery, Nested, Number, Offer, Offers, Request, Session, StageFormat,
    Unit, Vmm,
};
use crate::{Abi, Attachment, Bell};
use palisade_ioasid::Errno;
use palisade_iommu::{FunctionHandle, Sharing, Space};

pub(super) const BOTH: [Abi; 2] = [Abi::V1, Abi::V7];
pub(super) const BUFFER: u64 = 0x7f00_0000_0000;
pub(super) const EFAULT: i32 = 14;
pub(super) const ENOTTY: i32 = 25;

/// A unit as every guest of this host has it, in numbers that do not matter here.
pub(in crate::tests) const UNIT: Unit = Unit {
    format: StageFormat::VtD,
    address_bits: 57,
    pasid_bits: 20,
    cap: 0x00d2_ff01_0038_0e06,
    ecap: 0x0003_ef9e_a4f0_10c7,
};

/// A VMM's connection, which asks in bytes and nothing else.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) abi: Abi,
}

/// A granularity with what is named by it.
pub(super) enum Form {
    Domain,
    Pasid(InvalidatePasid),
    Address(InvalidateAddress),
}

pub(super) fn vmm(tenant: &Tenant) -> Vmm {
    Vmm::new(tenant.container.clone(), &[UNIT])
}

impl Client {
    /// A client that chose nesting.
    pub(super) fn nesting(vmm: &Vmm, abi: Abi) -> Self {
        let client = Self::plain(vmm, abi);
        let nesting = 6_u32.to_le_bytes();
        client.ask(Request::SetIommu, &nesting).unwrap();
        client
    }

    /// A client that chose nothing yet.
    pub(super) fn plain(vmm: &Vmm, abi: Abi) -> Self {
        let session = vmm.connect(abi);
        Self { session, abi }
    }

    pub(super) fn ask(&self, request: Request, argument: &[u8]) -> Result<Answer, i32> {
        let answer = self.session.ioctl(request.number(), argument, Vec::new());
        answer.map_err(Errno::get)
    }

    /// With a descriptor beside it.
    pub(super) fn ask_with(
        &self,
        request: Request,
        argument: &[u8],
        fd: OwnedFd,
    ) -> Result<Answer, i32> {
        let answer = self.session.ioctl(request.number(), argument, vec![fd]);
        answer.map_err(Errno::get)
    }

    pub(super) fn number(&self, number: u32) -> Result<Answer, i32> {
        let answer = self.session.ioctl(Number::new(number), &[0; 64], vec![]);
        answer.map_err(Errno::get)
    }

    pub(super) fn alloc(&self, min: u32, max: u32) -> Result<u32, i32> {
        match self.abi {
            Abi::V1 => {
                let request = PasidAllocateV1 {
                    argsz: 20.into(),
                    flags: 1.into(),
                    min: min.into(),
                    max: max.into(),
                    result: 0.into(),
                };
                let answer = self.ask(Request::PasidRequestV1, request.as_bytes())?;
                assert_eq!(answer.value, 0);
                let back = PasidAllocateV1::read_from_bytes(&answer.written).unwrap();
                assert_eq!(answer.written[..16], request.as_bytes()[..16]);
                Ok(back.result.get())
            }
            Abi::V7 => {
                let answer =
                    self.ask(Request::PasidRequestV7, request_v7(1, min, max).as_bytes())?;
                assert_eq!(answer.written, []);
                Ok(u32::try_from(answer.value).unwrap())
            }
        }
    }

    pub(super) fn any(&self) -> u32 {
        self.alloc(1, u32::MAX).unwrap()
    }

    pub(super) fn free(&self, pasid: u32) -> Result<(), i32> {
        let answer = match self.abi {
            Abi::V1 => {
                let request = PasidFreeV1 {
                    argsz: 12.into(),
                    flags: 2.into(),
                    free_pasid: pasid.into(),
                };
                self.ask(Request::PasidRequestV1, request.as_bytes())
            }
            Abi::V7 => {
                let request = request_v7(2, pasid, pasid);
                self.ask(Request::PasidRequestV7, request.as_bytes())
            }
        }?;
        assert_eq!((answer.value, answer.written), (0, vec![]));
        Ok(())
    }

    pub(super) fn bind(&self, data: BindData) -> Result<(), i32> {
        let (request, flags) = match self.abi {
            Abi::V1 => (Request::Bind, 1),
            Abi::V7 => (Request::NestingOp, 0),
        };
        self.with_data(request, flags, data.as_bytes())
    }

    pub(super) fn unbind(&self, pasid: u32) -> Result<(), i32> {
        let data = BindData {
            version: 1.into(),
            format: 1.into(),
            hpasid: u64::from(pasid).into(),
            ..BindData::default()
        };
        let (request, flags) = match self.abi {
            Abi::V1 => (Request::Bind, 2),
            Abi::V7 => (Request::NestingOp, 1),
        };
        self.with_data(request, flags, data.as_bytes())
    }

    pub(super) fn invalidate(&self, cache: u8, form: Form) -> Result<(), i32> {
        let (granularity, form) = match &form {
            Form::Domain => (0, &[][..]),
            Form::Pasid(form) => (1, form.as_bytes()),
            Form::Address(form) => (2, form.as_bytes()),
        };
        self.invalidate_raw(cache, granularity, form)
    }

    pub(super) fn invalidate_raw(
        &self,
        cache: u8,
        granularity: u8,
        form: &[u8],
    ) -> Result<(), i32> {
        let head = InvalidateData {
            version_or_argsz: match self.abi {
                Abi::V1 => 1,
                Abi::V7 => 8 + u32::try_from(form.len()).unwrap(),
            }
            .into(),
            cache,
            granularity,
            padding: [0; 2],
        };
        let (request, flags) = match self.abi {
            Abi::V1 => (Request::CacheInvalidate, 0),
            Abi::V7 => (Request::NestingOp, 2),
        };
        self.with_data(request, flags, &[head.as_bytes(), form].concat())
    }

    fn with_data(&self, request: Request, flags: u32, data: &[u8]) -> Result<(), i32> {
        let answer = self.ask(request, &headed(flags, data))?;
        assert_eq!((answer.value, answer.written), (0, vec![]));
        Ok(())
    }
}

pub(super) fn headed(flags: u32, data: &[u8]) -> Vec<u8> {
    let head = Head {
        argsz: u32::try_from(8 + data.len()).unwrap().into(),
        flags: flags.into(),
    };
    [head.as_bytes(), data].concat()
}

pub(super) fn request_v7(flags: u32, min: u32, max: u32) -> PasidRequestV7 {
    PasidRequestV7 {
        argsz: 16.into(),
        flags: flags.into(),
        min: min.into(),
        max: max.into(),
    }
}

/// The bind data of a process of four levels.
pub(super) fn data(pasid: u32, process: Space) -> BindData {
    let Space::FirstStage(first) = process else {
        panic!("not a process");
    };
    BindData {
        version: 1.into(),
        format: 1.into(),
        gpgd: first.root.get().into(),
        hpasid: u64::from(pasid).into(),
        addr_width: 48.into(),
        ..BindData::default()
    }
}

/// The same, of which the guest says that it calls the PASID otherwise.
pub(super) fn named(pasid: u32, name: u32, process: Space) -> BindData {
    BindData {
        flags: 1.into(),
        gpasid: u64::from(name).into(),
        ..data(pasid, process)
    }
}

/// The bytes of a structure with its own size in front.
pub(super) fn sized<T: IntoBytes + Immutable>(structure: &T) -> Vec<u8> {
    let mut bytes = structure.as_bytes().to_vec();
    let len = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// A tenant with one function at slot 4, and its client.
pub(super) fn client(abi: Abi) -> (Host, Tenant, FunctionHandle, Attachment, Client) {
    let (host_side, alice, function, attachment) = alone(Sharing::Mediated);
    let client = Client::nesting(&vmm(&alice), abi);
    (host_side, alice, function, attachment, client)
}

pub(super) fn nested_of(units: &[Unit]) -> Nested {
    Nested::of(units)
}

/// Bells that count how often all of them rang, whatever the descriptor.
#[derive(Clone, Default)]
pub(super) struct Counting(pub(super) Arc<AtomicUsize>);

impl Doorbells for Counting {
    fn bell(&self, _: OwnedFd) -> Result<Box<dyn Bell>, Errno> {
        let count = Arc::clone(&self.0);
        Ok(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }))
    }
}

impl Counting {
    pub(super) fn rung(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A tenant whose VMM attaches its functions itself: slices at slots 4 and 5, of parents of these numbers.
pub(super) struct Alone {
    pub(super) host_side: Host,
    pub(super) alice: Tenant,
    pub(super) parents: [FunctionHandle; 2],
    pub(super) bells: Counting,
    pub(super) vmm: Vmm,
}

impl Alone {
    pub(super) fn new() -> Self {
        let host_side = Host::new();
        let alice = host_side.tenant(1);
        let parents = [4, 5].map(|n| host_side.parent(n));
        let bells = Counting::default();
        let offers = Offers {
            units: vec![UNIT],
            functions: [4, 5]
                .into_iter()
                .zip(&parents)
                .map(|(n, parent)| Offer {
                    guest_bdf: slot(n),
                    function: parent.clone(),
                    sharing: Sharing::Mediated,
                })
                .collect(),
            faults: FaultDelivery::ByRing(Arc::new(bells.clone())),
            ..Offers::default()
        };
        Self {
            vmm: Vmm::with(alice.container.clone(), offers),
            host_side,
            alice,
            parents,
            bells,
        }
    }

    /// A client that has mapped the guest's memory and attached the function at slot 4.
    pub(super) fn client(&self, abi: Abi) -> Client {
        let client = Client::nesting(&self.vmm, abi);
        client.map_ram(&self.alice).unwrap();
        client.attach(4).unwrap();
        client
    }
}

/// The place of the function at a slot, as requests name it.
pub(super) fn place_of(device: u8) -> u32 {
    u32::from(slot(device).requester_id())
}

impl Client {
    pub(super) fn map_ram(&self, tenant: &Tenant) -> Result<(), i32> {
        let file = tenant.ram.backing().fd.try_clone().unwrap();
        let request = map_request(3, 0, 0, RAM_BYTES);
        self.ask_with(Request::MapDma, request.as_bytes(), file)?;
        Ok(())
    }

    pub(super) fn attach(&self, device: u8) -> Result<(), i32> {
        self.place(Request::FunctionAttach, place_of(device))
    }

    pub(super) fn detach(&self, device: u8) -> Result<(), i32> {
        self.place(Request::FunctionDetach, place_of(device))
    }

    pub(super) fn place(&self, request: Request, place: u32) -> Result<(), i32> {
        let argument = FunctionPlace {
            argsz: 12.into(),
            flags: 0.into(),
            place: place.into(),
        };
        let answer = self.ask(request, argument.as_bytes())?;
        assert_eq!((answer.value, answer.written), (0, vec![]));
        Ok(())
    }
}

pub(super) fn map_request(flags: u32, offset: u64, at: u64, len: u64) -> MapDma {
    MapDma {
        argsz: 32.into(),
        flags: flags.into(),
        vaddr: offset.into(),
        iova: at.into(),
        size: len.into(),
    }
}
