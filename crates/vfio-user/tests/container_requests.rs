//! The container's requests on the device's own connection: the same calls, the same bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    thread,
};

use common::{
    Server,
    guest::{Guest, Unit},
};
use palisade_container::EventFds;
use palisade_ioasid::{Authority, Quota};
use palisade_units::TenantId;
use palisade_vfio::{
    Abi, Container,
    abi::{FaultDelivery, Number, Offers, Session, Vmm},
};
use palisade_vfio_user::{
    Client, ClientError, ContainerRequests, Errno, PasidOffer, RequestAnswer, RequestNumber,
    RequestReply, RequestSession,
    wire::pasid::{PasidCapability, RequestAbi},
};
use rustix::event::{EventfdFlags, eventfd};

const SET_IOMMU: u32 = 0x3b66;
const GET_INFO: u32 = 0x3b70;
const PASID_REQUEST_V7: u32 = 0x3b76;
const FAULT_RING: u32 = 0x3bf3;
const IOASID_ALLOCATE: u32 = 0x6966;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// How a host serves them: this is all that it takes.
struct Requests(Vmm);

impl ContainerRequests for Requests {
    fn connect(&self, abi: RequestAbi) -> Box<dyn RequestSession> {
        let abi = match abi {
            RequestAbi::V1 => Abi::V1,
            RequestAbi::V7 => Abi::V7,
        };
        Box::new(OneVmm(self.0.connect(abi)))
    }
}

struct OneVmm(Session);

impl RequestSession for OneVmm {
    fn request(
        &mut self,
        number: RequestNumber,
        argument: &[u8],
        descriptors: Vec<OwnedFd>,
        reply: RequestReply,
    ) {
        let outcome = self
            .0
            .ioctl(Number::new(number.get()), argument, descriptors);
        reply.send(match outcome {
            Ok(answer) => Ok(RequestAnswer {
                value: answer.value,
                written: answer.written,
                descriptors: answer.descriptors,
            }),
            Err(errno) => Err(Errno::from_raw_os_error(errno.get())),
        });
    }
}

fn vmm() -> (Authority, Vmm) {
    let authority = Authority::new(&[]);
    let set = authority.create_set(TenantId::new(1), Quota::default());
    let offers = Offers {
        faults: FaultDelivery::ByRing(Arc::new(EventFds::default())),
        ..Offers::default()
    };
    let vmm = Vmm::with(Container::new(set.unwrap()), offers);
    (authority, vmm)
}

fn serving(requests: impl ContainerRequests + 'static) -> (Server, UnixStream) {
    Server::offering(PasidOffer {
        requests: Some(Arc::new(requests)),
        ..PasidOffer::default()
    })
}

fn connected(stream: UnixStream, abi: RequestAbi) -> Client {
    let proposal = PasidCapability {
        requests: Some(abi),
        ..PasidCapability::default()
    };
    Client::with_pasids(stream, proposal, Box::new(Unit(Guest::new()))).unwrap()
}

#[test]
fn every_call_has_the_same_answer_as_without_a_connection() {
    let calls = [
        (0x3b64, words(&[])),
        (0x3b65, words(&[6])),
        (0x3b65, words(&[9])),
        (GET_INFO, words(&[24, 0, 0, 0, 0, 0])),
        (GET_INFO, words(&[0; 2])),
        (SET_IOMMU, words(&[6])),
        (SET_IOMMU, words(&[6])),
        (GET_INFO, [words(&[88]), vec![0; 84]].concat()),
        (PASID_REQUEST_V7, words(&[16, 1, 10, 20])),
        (PASID_REQUEST_V7, words(&[16, 1, 10, 20])),
        (PASID_REQUEST_V7, words(&[16, 2, 10, 20])),
        (0x3b7a, words(&[20, 1, 30, 40, 0])),
        (0x3b7b, words(&[80, 1])),
        (IOASID_ALLOCATE, words(&[16, 0, 50, 60])),
        (FAULT_RING, words(&[16, 0, 0, 0])),
        (0x3b00, words(&[])),
        (u32::MAX, vec![0xff; 4080]),
    ];
    for abi in [RequestAbi::V1, RequestAbi::V7] {
        let (_authority, here) = vmm();
        let direct = here.connect(if abi == RequestAbi::V1 {
            Abi::V1
        } else {
            Abi::V7
        });
        let (_other_authority, there) = vmm();
        let (_server, stream) = serving(Requests(there));
        let mut client = connected(stream, abi);
        assert_eq!(client.pasids().unwrap().requests, Some(abi));
        for (number, argument) in &calls {
            let expected = direct
                .ioctl(Number::new(*number), argument, Vec::new())
                .map(|answer| (answer.value, answer.written))
                .map_err(|errno| Some(errno.get()));
            let told = client
                .container_request(RequestNumber::new(*number), argument, &[])
                .map(|reply| (reply.value, reply.written))
                .map_err(|error| error.errno().map(Errno::raw_os_error));
            assert_eq!(told, expected, "{number:#x} {argument:x?}");
        }
    }
}

#[test]
fn descriptors_travel_both_ways_and_all_goes_back_with_the_connection() {
    let (authority, vmm) = vmm();
    let (server, stream) = serving(Requests(vmm));
    let mut client = connected(stream, RequestAbi::V7);
    let call = |client: &mut Client, number, argument: &[u8]| {
        let reply = client.container_request(RequestNumber::new(number), argument, &[]);
        reply.unwrap().value
    };
    let taken = call(&mut client, IOASID_ALLOCATE, &words(&[16, 0, 10, 20]));
    assert_eq!(taken, 10);
    assert_eq!(authority.outstanding(), 1);

    let bell = eventfd(0, EventfdFlags::empty()).unwrap();
    let ring = RequestNumber::new(FAULT_RING);
    let argument = words(&[16, 0, 0, 0]);
    let reply = client
        .container_request(ring, &argument, &[bell.as_fd()])
        .unwrap();
    assert_eq!(reply.descriptors.len(), 1, "the file of the ring");
    let len_bytes = u64::from_le_bytes(reply.written[8..16].try_into().unwrap());
    let file = rustix::fs::fstat(&reply.descriptors[0]).unwrap();
    assert_eq!(file.st_size.cast_unsigned(), len_bytes);

    drop(client);
    server.end().unwrap();
    assert_eq!(authority.outstanding(), 0);
}

/// Answers as it is told, from a thread of its own.
struct Odd(Mutex<Vec<Option<Result<RequestAnswer, Errno>>>>);

impl ContainerRequests for Odd {
    fn connect(&self, _: RequestAbi) -> Box<dyn RequestSession> {
        let mut answers = std::mem::take(&mut *self.0.lock().unwrap());
        answers.reverse();
        Box::new(OddSession(answers))
    }
}

struct OddSession(Vec<Option<Result<RequestAnswer, Errno>>>);

impl RequestSession for OddSession {
    fn request(&mut self, _: RequestNumber, _: &[u8], _: Vec<OwnedFd>, reply: RequestReply) {
        let answer = self.0.pop().unwrap();
        thread::spawn(move || match answer {
            Some(answer) => reply.send(answer),
            None => drop(reply),
        });
    }
}

#[test]
fn answers_come_late_or_not_at_all_and_are_no_longer_than_a_message() {
    let file = || Arc::new(eventfd(0, EventfdFlags::empty()).unwrap());
    let of = |written: usize, descriptors: usize| RequestAnswer {
        value: -3,
        written: vec![7; written],
        descriptors: (0..descriptors).map(|_| file()).collect(),
    };
    let (_server, stream) = serving(Odd(Mutex::new(vec![
        Some(Ok(of(4080, 16))),
        None,
        Some(Ok(of(4081, 0))),
        Some(Ok(of(0, 17))),
        Some(Err(Errno::NOSPC)),
        Some(Ok(of(0, 0))),
    ])));
    let mut client = connected(stream, RequestAbi::V1);
    let mut call = || client.container_request(RequestNumber::new(1), &[], &[]);
    let first = call().unwrap();
    assert_eq!((first.value, first.written), (-3, vec![7; 4080]));
    assert_eq!(first.descriptors.len(), 16);
    for errno in [Errno::IO, Errno::MSGSIZE, Errno::MSGSIZE, Errno::NOSPC] {
        assert_eq!(call().unwrap_err().errno(), Some(errno));
    }
    let last = call().unwrap();
    assert!(last.written.is_empty() && last.descriptors.is_empty());
    let long = client.container_request(RequestNumber::new(1), &[0; 4081], &[]);
    assert!(matches!(long, Err(ClientError::Length(4081))));
}

#[test]
fn without_an_agreement_there_are_no_requests() {
    let (_server, stream) = Server::offering(PasidOffer::default());
    let mut client = connected(stream, RequestAbi::V7);
    assert_eq!(client.pasids().unwrap().requests, None);
    let refused = client.container_request(RequestNumber::new(0), &[], &[]);
    assert!(matches!(refused, Err(ClientError::NotAgreed)));
}
