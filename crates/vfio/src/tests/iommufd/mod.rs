//! R75: an iommufd's requests, as bytes.

mod attaching;
mod invalidating;
mod objects;
mod queues;
mod shape;
mod virtual_units;

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use palisade_ioasid::Errno;
use palisade_iommu::{FunctionHandle, QueueFull, Sharing, Space};
use palisade_memory::Limits;
use palisade_units::Bdf;

use super::abi::UNIT;
use super::world::*;
use crate::Bell;
use crate::abi::iommufd::{Channel, ChannelPair, Iommufd, On, Taken};
use crate::abi::{Answer, Doorbells, FaultDelivery, Number, Offer, Offers, Vmm};

pub(super) const E2BIG: i32 = 7;
pub(super) const EBADF: i32 = 9;
pub(super) const EFAULT: i32 = 14;
pub(super) const ENOTTY: i32 = 25;
pub(super) const BUFFER: u64 = 0x7f00_0000_0000;
pub(super) const PLACE: Bdf = Bdf::new(0, 4, 0);
const OTHER: Bdf = Bdf::new(0, 5, 0);

const DESTROY: u32 = 0x3b80;
const IOAS_ALLOC: u32 = 0x3b81;
const IOAS_UNMAP: u32 = 0x3b86;
const HWPT_ALLOC: u32 = 0x3b89;
const GET_HW_INFO: u32 = 0x3b8a;
const HWPT_INVALIDATE: u32 = 0x3b8d;
const FAULT_QUEUE_ALLOC: u32 = 0x3b8e;
const IOAS_MAP_FILE: u32 = 0x3b8f;
const VIOMMU_ALLOC: u32 = 0x3b90;
const VDEVICE_ALLOC: u32 = 0x3b91;
const VEVENTQ_ALLOC: u32 = 0x3b93;
const BIND: u32 = 0x3b76;
const ATTACH: u32 = 0x3b77;
const DETACH: u32 = 0x3b78;
const CLOSE: u32 = 0x3bf2;

const NEST_PARENT: u32 = 1;
const FAULT_ID_VALID: u32 = 4;
const PASID: u32 = 8;

/// Files that are pairs of datagram sockets.
struct Sockets;

struct Socket(UnixDatagram);

impl Channel for Socket {
    fn put(&self, record: &[u8]) -> Result<(), QueueFull> {
        self.0.send(record).map(|_| ()).map_err(|_| QueueFull)
    }

    fn take(&self, into: &mut [u8]) -> Taken {
        match self.0.recv(into) {
            Ok(len) => Taken::Bytes(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Taken::Nothing,
            Err(_) => Taken::Over,
        }
    }

    /// The other end of such a socket is felt only by sending to it.
    fn is_open(&self) -> bool {
        self.0.send(&[]).is_ok()
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Doorbells for Sockets {
    fn bell(&self, _: OwnedFd) -> Result<Box<dyn Bell>, Errno> {
        Ok(Box::new(|| ()))
    }

    fn channel(&self) -> Result<ChannelPair, Errno> {
        let (host, client) = UnixDatagram::pair().unwrap();
        host.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        Ok(ChannelPair {
            host: Box::new(Socket(host)),
            client: client.into(),
        })
    }
}

/// A host with one tenant, whose VMM speaks of an iommufd. Two functions are offered.
pub(super) struct Rig {
    pub(super) host_side: Host,
    pub(super) alice: Tenant,
    pub(super) parents: [FunctionHandle; 2],
    pub(super) vmm: Vmm,
    pub(super) fd: Iommufd,
}

impl Rig {
    fn new() -> Self {
        Self::with(Sharing::Mediated, FaultDelivery::ByRing(Arc::new(Sockets)))
    }

    fn with(sharing: Sharing, faults: FaultDelivery) -> Self {
        let host_side = Host::new();
        let parents = [4, 5].map(|n| host_side.parent(n));
        Self::of(host_side, parents, (sharing, faults), Limits::DEFAULT)
    }

    /// Two slices of one parent.
    fn of_one_parent() -> Self {
        let host_side = Host::new();
        let parent = host_side.parent(4);
        let faults = FaultDelivery::ByRing(Arc::new(Sockets));
        let parents = [parent.clone(), parent];
        Self::of(
            host_side,
            parents,
            (Sharing::Mediated, faults),
            Limits::DEFAULT,
        )
    }

    /// A VMM that may map so much.
    fn limited_to(limits: Limits) -> Self {
        let host_side = Host::new();
        let parents = [4, 5].map(|n| host_side.parent(n));
        let how = (Sharing::Mediated, FaultDelivery::Elsewhere);
        Self::of(host_side, parents, how, limits)
    }

    fn of(
        host_side: Host,
        parents: [FunctionHandle; 2],
        (sharing, faults): (Sharing, FaultDelivery),
        memory: Limits,
    ) -> Self {
        let alice = host_side.tenant(1);
        let offer = |(guest_bdf, parent): (Bdf, &FunctionHandle)| Offer {
            guest_bdf,
            function: parent.clone(),
            sharing,
        };
        let offers = Offers {
            units: vec![UNIT],
            functions: [PLACE, OTHER]
                .into_iter()
                .zip(&parents)
                .map(offer)
                .collect(),
            faults,
            memory,
        };
        let vmm = Vmm::with(alice.container.clone(), offers);
        Self {
            fd: vmm.connect_iommufd(),
            host_side,
            alice,
            parents,
            vmm,
        }
    }

    fn ask_on(&self, on: On, number: u32, argument: &[u8]) -> Result<Answer, i32> {
        let answer = self.fd.ioctl(on, Number::new(number), argument, vec![]);
        answer.map_err(|refused| refused.errno.get())
    }

    fn ask(&self, number: u32, argument: &[u8]) -> Result<Answer, i32> {
        self.ask_on(On::Iommufd, number, argument)
    }

    /// Binds the device at a place.
    fn bind(&self, place: Bdf) -> Result<u32, i32> {
        let answer = self.ask_on(On::Device(place), BIND, &words(&[16, 0, 0, 0]))?;
        Ok(word(&answer.written, 12))
    }

    fn close(&self, place: Bdf) -> Result<(), i32> {
        let request = words(&[12, 0, place.requester_id().into()]);
        self.ask_on(On::Device(place), CLOSE, &request).map(drop)
    }

    fn space(&self) -> Result<u32, i32> {
        let answer = self.ask(IOAS_ALLOC, &words(&[12, 0, 0]))?;
        Ok(word(&answer.written, 8))
    }

    fn map_file(&self, ioas: u32, flags: u32, at: u64, len_bytes: u64) -> Result<(), i32> {
        let mut request = words(&[40, flags, ioas, 0]);
        request.extend([0, len_bytes, at].map(u64::to_le_bytes).concat());
        let ram = self.alice.ram.backing().fd.try_clone().unwrap();
        let number = Number::new(IOAS_MAP_FILE);
        let answer = self.fd.ioctl(On::Iommufd, number, &request, vec![ram]);
        answer.map(drop).map_err(|refused| refused.errno.get())
    }

    /// A space that all of the guest's memory is mapped into.
    fn guest_space(&self) -> u32 {
        let space = self.space().unwrap();
        self.map_file(space, 7, 0, RAM_BYTES).unwrap();
        space
    }

    fn unmap(&self, ioas: u32, at: u64, len_bytes: u64) -> Result<u64, i32> {
        let mut request = words(&[24, ioas]);
        request.extend([at, len_bytes].map(u64::to_le_bytes).concat());
        let answer = self.ask(IOAS_UNMAP, &request)?;
        Ok(quad(&answer.written, 16))
    }

    fn table(&self, flags: u32, device: u32, over: u32) -> Result<u32, i32> {
        let request = [words(&[48, flags, device, over]), vec![0; 32]].concat();
        let answer = self.ask(HWPT_ALLOC, &request)?;
        Ok(word(&answer.written, 16))
    }

    fn nested(&self, flags: u32, device: u32, over: u32, process: Space) -> Result<u32, i32> {
        self.nested_with(flags, device, (over, 0), process)
    }

    /// The second of a pair is a fault queue.
    fn nested_with(
        &self,
        flags: u32,
        device: u32,
        (over, queue): (u32, u32),
        process: Space,
    ) -> Result<u32, i32> {
        let Space::FirstStage(first) = process else {
            panic!("not a process");
        };
        let mut request = words(&[48, flags, device, over, 0, 0, 1, 24, 48, 0, queue, 0]);
        request.extend([0, first.root.get()].map(u64::to_le_bytes).concat());
        request.extend(words(&[48, 0]));
        let answer = self.ask(HWPT_ALLOC, &request)?;
        Ok(word(&answer.written, 16))
    }

    fn attach(&self, place: Bdf, table: u32) -> Result<u32, i32> {
        let answer = self.ask_on(On::Device(place), ATTACH, &words(&[12, 0, table]))?;
        assert_eq!(answer.written.len(), 12);
        Ok(word(&answer.written, 8))
    }

    fn attach_pasid(&self, place: Bdf, pasid: u32, table: u32) -> Result<u32, i32> {
        let request = words(&[16, 1, table, pasid]);
        let answer = self.ask_on(On::Device(place), ATTACH, &request)?;
        Ok(word(&answer.written, 8))
    }

    fn detach(&self, place: Bdf) -> Result<(), i32> {
        let request = words(&[8, 0]);
        self.ask_on(On::Device(place), DETACH, &request).map(drop)
    }

    fn detach_pasid(&self, place: Bdf, pasid: u32) -> Result<(), i32> {
        let request = words(&[12, 1, pasid]);
        self.ask_on(On::Device(place), DETACH, &request).map(drop)
    }

    fn destroy(&self, id: u32) -> Result<(), i32> {
        self.ask(DESTROY, &words(&[8, id])).map(drop)
    }

    /// What the device at slot 4 sees that was programmed with a PASID of the guest.
    fn sees(&self, pasid: u32, at: u64) -> Option<u64> {
        let hold = self.alice.container.translate(PLACE, guest(pasid)).ok()?;
        let mut port = self.parents[0].port();
        read(&mut port, holding(&hold), at).ok()
    }

    /// The same without a PASID.
    fn sees_plainly(&self, at: u64) -> Option<u64> {
        let hold = self.alice.container.default_hold(PLACE).ok()?;
        let mut port = self.parents[0].port();
        read(&mut port, holding(&hold), at).ok()
    }

    /// A bound device, a parent that is over the guest's memory, and a process that has `value` in its buffer.
    fn begin(&self, value: u64) -> (u32, u32, Space) {
        let device = self.bind(PLACE).unwrap();
        let space = self.guest_space();
        let parent = self.table(NEST_PARENT | PASID, device, space).unwrap();
        (device, parent, self.process(0x1000, value))
    }

    fn process(&self, page: u64, value: u64) -> Space {
        self.alice.ram.store_u64(page, value).unwrap();
        self.alice.process(&[(BUFFER, page)])
    }
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().copied().flat_map(u32::to_le_bytes).collect()
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(super) fn quad(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}
