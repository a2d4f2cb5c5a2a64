//! R44, R61 to R66: a VMM that maps its memory, attaches its function and serves its page requests, all over a socket.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::*;
use palisade_container::{Attaching, Client, FaultQueue, FunctionInfo, Process};
use palisade_ioasid::PasidRange;
use palisade_iommu::{FaultReason, PageResponse, Requester};
use palisade_memory::Protection;
use palisade_units::{Access, Bdf, Gpa, GuestPasid, HostPasid, Iova};
use palisade_vfio::{Abi, FaultRecord};

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EOPNOTSUPP: i32 = 95;
const LONG: Duration = Duration::from_secs(30);

/// A client with memory, a function, a ring, and a process bound under the guest's number 700.
struct Vmm {
    world: World,
    client: Client,
    faults: FaultQueue,
    root: Gpa,
    pasid: HostPasid,
    _serving: Serving,
}

fn guest(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

impl Vmm {
    fn new(abi: Abi) -> Self {
        let world = World::offering();
        let (mut client, serving) = world.client(abi);
        let whole = Protection::ReadWrite;
        client
            .map(Gpa::new(0), RAM_BYTES, &world.ram.backing(), whole)
            .unwrap();
        client.attach(PLACE).unwrap();
        let faults = client.fault_queue().unwrap();
        let root = world.process(&[(BUFFER, 0x1000)]);
        world.ram.store_u64(0x1000, 0xa1).unwrap();
        let pasid = client.alloc_pasid(PasidRange::ALL).unwrap();
        client
            .bind(pasid, Some(guest(700)), Process::at(root))
            .unwrap();
        Self {
            world,
            client,
            faults,
            root,
            pasid,
            _serving: serving,
        }
    }

    /// The function asks for a page, and tells here what it is told.
    fn ask(&self, at: u64) -> mpsc::Receiver<PageResponse> {
        let (tell, told) = mpsc::channel();
        let by = Requester::new(Some(self.pasid.into()));
        let port = self.world.function.port();
        port.request_page(
            by,
            Iova::new(at),
            Access::READ,
            Box::new(move |response| tell.send(response).unwrap()),
        )
        .unwrap();
        told
    }

    fn next(&mut self) -> FaultRecord {
        self.faults.wait(LONG).unwrap().unwrap()
    }
}

#[test]
fn r44_memory_is_mapped_reached_and_unmapped() {
    for abi in BOTH {
        let mut vmm = Vmm::new(abi);
        let mut port = vmm.world.function.port();
        assert_eq!(read(&mut port, vmm.pasid, BUFFER), Some(0xa1));
        let ram = vmm.world.ram.backing();
        let again = vmm
            .client
            .map(Gpa::new(0), 0x1000, &ram, Protection::ReadOnly);
        assert_eq!(errno(again), EEXIST);
        assert_eq!(errno(vmm.client.unmap(Gpa::new(0), 0x1000)), ENOENT);
        vmm.client.unmap(Gpa::new(0), RAM_BYTES).unwrap();
        assert_eq!(read(&mut port, vmm.pasid, BUFFER), None);
        assert_eq!(vmm.client.unmap_all().unwrap(), 0);
        vmm.client
            .map(Gpa::new(0), RAM_BYTES, &ram, Protection::ReadOnly)
            .unwrap();
        assert_eq!(read(&mut port, vmm.pasid, BUFFER), Some(0xa1));
        assert_eq!(vmm.client.unmap_all().unwrap(), RAM_BYTES);
        assert_eq!(read(&mut port, vmm.pasid, BUFFER), None);
    }
}

#[test]
fn r43_functions_are_listed_attached_and_detached() {
    let mut vmm = Vmm::new(Abi::V7);
    let of = |attaching| FunctionInfo {
        guest_bdf: PLACE,
        attaching,
    };
    assert_eq!(vmm.client.functions().unwrap(), [of(Attaching::ByClient)]);
    assert_eq!(errno(vmm.client.attach(PLACE)), EEXIST);
    assert_eq!(errno(vmm.client.attach(Bdf::new(0, 5, 0))), ENODEV);
    vmm.client.detach(PLACE).unwrap();
    assert_eq!(errno(vmm.client.detach(PLACE)), ENODEV);
    assert_eq!(vmm.client.functions().unwrap(), [of(Attaching::Offered)]);
    let unbound = vmm.client.unbind(vmm.pasid);
    assert_eq!(errno(unbound), EOPNOTSUPP, "no function is left");

    let of_the_host = World::new();
    let (mut client, _serving) = of_the_host.client(Abi::V7);
    assert_eq!(client.functions().unwrap(), [of(Attaching::ByHost)]);
    assert_eq!(errno(client.detach(PLACE)), ENODEV);
    let refused = client.fault_queue().map(drop);
    assert_eq!(errno(refused), EOPNOTSUPP);
}

#[test]
fn r61_r66_faults_come_through_the_ring_in_the_guests_names() {
    for abi in BOTH {
        let mut vmm = Vmm::new(abi);
        assert_eq!(vmm.faults.take(), None);
        let refused = vmm.client.fault_queue().map(drop);
        assert_eq!(errno(refused), EBUSY);
        let mut port = vmm.world.function.port();
        for round in 1..4 {
            // The bell rings while the VMM sleeps.
            let (function, pasid) = (vmm.world.function.clone(), vmm.pasid);
            let device = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                read(&mut function.port(), pasid, BUFFER + round * 0x1000)
            });
            let FaultRecord::Fault(fault) = vmm.next() else {
                panic!("no fault");
            };
            assert_eq!((fault.bdf, fault.pasid), (PLACE, Some(guest(700))));
            assert_eq!(fault.at.get(), BUFFER + round * 0x1000);
            assert_eq!(fault.reason, FaultReason::FirstStageNotPresent);
            assert_eq!(device.join().unwrap(), None);
        }
        for _ in 0..600 {
            read(&mut port, vmm.pasid, BUFFER + 0x1000);
        }
        assert_eq!(vmm.faults.lost(), 600 - 512);
        let mut count = 0;
        while vmm.faults.take().is_some() {
            count += 1;
        }
        assert_eq!(count, 512);
        assert_eq!(vmm.faults.wait(Duration::ZERO).unwrap(), None);
    }
}

#[test]
fn r62_r63_page_requests_are_served_over_the_socket() {
    for abi in BOTH {
        let mut vmm = Vmm::new(abi);
        let at = BUFFER + 0x5000;
        let told = vmm.ask(at + 8);
        let FaultRecord::PageRequest(request) = vmm.next() else {
            panic!("no page request");
        };
        assert_eq!((request.bdf, request.pasid), (PLACE, Some(guest(700))));
        assert_eq!(request.at.get(), at);
        vmm.world.map(vmm.root.get(), at, 0x1000);
        let mut respond = |pasid| {
            let success = PageResponse::Success;
            vmm.client
                .respond(request.bdf, pasid, request.group, success)
        };
        assert_eq!(errno(respond(None)), ENOENT);
        assert_eq!(errno(respond(Some(guest(701)))), ENOENT);
        assert!(told.try_recv().is_err());
        respond(request.pasid).unwrap();
        assert_eq!(errno(respond(request.pasid)), ENOENT, "once");
        assert_eq!(told.recv_timeout(LONG), Ok(PageResponse::Success));
        let mut port = vmm.world.function.port();
        assert_eq!(read(&mut port, vmm.pasid, at), Some(0xa1));
        for response in [PageResponse::Invalid, PageResponse::Failure] {
            let told = vmm.ask(BUFFER + 0x6000);
            let FaultRecord::PageRequest(request) = vmm.next() else {
                panic!("no page request");
            };
            let Vmm { client, .. } = &mut vmm;
            client
                .respond(request.bdf, request.pasid, request.group, response)
                .unwrap();
            assert_eq!(told.recv_timeout(LONG), Ok(response));
        }
    }
}

#[test]
fn r65_the_end_of_a_client_answers_what_it_did_not() {
    for abi in BOTH {
        let world = World::offering();
        let before = world.books();
        let vmm = Vmm::new(abi);
        let told = vmm.ask(BUFFER + 0x5000);
        assert!(told.try_recv().is_err());
        let Vmm {
            world: of_the_vmm,
            client,
            ..
        } = vmm;
        drop(client);
        assert_eq!(told.recv_timeout(LONG), Ok(PageResponse::Invalid));
        of_the_vmm.wait_for(&before);
        // And the next one begins with nothing.
        let (mut next, _serving) = of_the_vmm.client(abi);
        assert_eq!(next.unmap_all().unwrap(), 0);
        next.attach(PLACE).unwrap();
        next.fault_queue().unwrap();
    }
}

#[test]
fn r64_a_full_ring_answers_page_requests_and_goes_on_when_there_is_room() {
    let mut vmm = Vmm::new(Abi::V7);
    let mut port = vmm.world.function.port();
    for _ in 0..512 {
        read(&mut port, vmm.pasid, BUFFER + 0x1000);
    }
    let told = vmm.ask(BUFFER + 0x5000);
    assert_eq!(told.recv_timeout(LONG), Ok(PageResponse::Failure));
    assert!(vmm.faults.take().is_some());
    let told = vmm.ask(BUFFER + 0x5000);
    assert!(told.try_recv().is_err());
    vmm.client.unbind(vmm.pasid).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(PageResponse::Invalid));
}
