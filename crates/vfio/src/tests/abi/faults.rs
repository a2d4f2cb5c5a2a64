//! R61 to R66: FAULT_RING and PAGE_RESPONSE.

use std::fs::File;
use std::sync::Mutex;

use palisade_iommu::{
    Ats, Fault, FaultReason, GroupIndex, PageRequest, PageResponse as Response, PlaceInGroup,
    Requester,
};
use palisade_memory::{Backing, GuestMemory, Protection};
use palisade_units::{Access, Gpa, Iova};

use super::*;
use crate::FaultRecord;

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn ring_request() -> FaultRing {
    FaultRing {
        argsz: 16.into(),
        ..FaultRing::default()
    }
}

/// What a VMM does with its ring.
struct Ring {
    region: GuestMemory,
    tail: u32,
}

impl Ring {
    fn of(client: &Client) -> Self {
        let answer = client
            .ask_with(Request::FaultRing, ring_request().as_bytes(), null())
            .unwrap();
        let told = FaultRing::read_from_bytes(&answer.written).unwrap();
        let [fd] = &answer.descriptors[..] else {
            panic!("{answer:?}");
        };
        let region = GuestMemory::new();
        let backing = Backing::new(Arc::clone(fd), 0);
        region
            .map(
                Gpa::new(0),
                told.region_bytes.get(),
                backing,
                Protection::ReadWrite,
            )
            .unwrap();
        Self { region, tail: 0 }
    }

    fn head(&self) -> RingHead {
        self.region.read_object(Gpa::new(0)).unwrap()
    }

    fn next(&mut self) -> Option<[u8; 64]> {
        let head = self.head();
        if head.head.get() == self.tail {
            return None;
        }
        let at = RING_ENTRIES + u64::from(self.tail % head.entries.get()) * 64;
        let mut entry = [0; 64];
        self.region.read(Gpa::new(at), &mut entry).unwrap();
        self.tail += 1;
        self.region.store_u32(Gpa::new(4), self.tail).unwrap();
        Some(entry)
    }
}

type Told = Arc<Mutex<Vec<Response>>>;

/// The function asks for a page; what it is told comes to stand in what is returned.
fn ask(function: &FunctionHandle, n: u32, at: u64) -> Told {
    let told = Told::default();
    let waiter = Arc::clone(&told);
    let by = Requester::new(Some(host(n).into()));
    let waiter = Box::new(move |response| waiter.lock().unwrap().push(response));
    let port = function.port();
    port.request_page(by, Iova::new(at), Access::WRITE, waiter)
        .unwrap();
    told
}

fn response(name: u32, group: u32, code: u32) -> PageResponse {
    PageResponse {
        argsz: 32.into(),
        flags: 0.into(),
        place: place_of(4).into(),
        version: 1.into(),
        response_flags: 1.into(),
        pasid: name.into(),
        group: group.into(),
        code: code.into(),
    }
}

fn respond(client: &Client, response: PageResponse) -> Result<(), i32> {
    let answer = client.ask(Request::PageResponse, response.as_bytes())?;
    assert_eq!((answer.value, answer.written), (0, vec![]));
    Ok(())
}

#[test]
fn r61_entries_stand_in_the_ring_as_the_layouts_say() {
    let fault = Fault {
        bdf: slot(4),
        pasid: Some(guest(700)),
        at: Iova::new(0x9000),
        access: Access::READ | Access::PRIVILEGED,
        reason: FaultReason::FirstStageNotPresent,
        ats: Ats::On,
    };
    let request = PageRequest {
        bdf: slot(4),
        pasid: Some(guest(700)),
        at: Iova::new(BUFFER),
        access: Access::READ | Access::WRITE,
        group: GroupIndex::new(511),
        last_in_group: PlaceInGroup::Last,
    };
    let fault_entry = FaultEntry {
        kind: ENTRY_FAULT.into(),
        place: slot(4).requester_id().into(),
        code: 0x71,
        ats: 1,
        reason: 5.into(),
        flags: (FAULT_HAS_PASID | FAULT_HAS_ADDRESS).into(),
        pasid: 700.into(),
        permissions: (PERMISSION_READ | PERMISSION_PRIVILEGED).into(),
        address: 0x9000.into(),
        ..FaultEntry::default()
    };
    let request_entry = PageRequestEntry {
        kind: ENTRY_PAGE_REQUEST.into(),
        place: slot(4).requester_id().into(),
        flags: (REQUEST_HAS_PASID | REQUEST_IS_LAST | RESPONSE_NEEDS_PASID).into(),
        pasid: 700.into(),
        group: 511.into(),
        permissions: (PERMISSION_READ | PERMISSION_WRITE).into(),
        address: BUFFER.into(),
        ..PageRequestEntry::default()
    };
    let both = [
        (FaultRecord::Fault(fault), fault_entry.as_bytes()),
        (FaultRecord::PageRequest(request), request_entry.as_bytes()),
    ];
    for (record, entry) in both {
        let words = record.to_words();
        assert_eq!(words.as_bytes(), entry);
        let entry = entry.try_into().unwrap();
        assert_eq!(FaultRecord::from_bytes(entry), Some(record));
    }
    assert_eq!(FaultRecord::from_bytes(&[0; 64]), None);
}

#[test]
fn r61_r66_a_client_reads_its_faults_in_its_guests_names() {
    for abi in BOTH {
        let world = Alone::new();
        let client = world.client(abi);
        let mut ring = Ring::of(&client);
        let head = ring.head();
        assert_eq!((head.entries.get(), head.entry_bytes.get()), (512, 64));
        let n = client.any();
        client
            .bind(named(n, 700, world.alice.process(&[])))
            .unwrap();
        let mut port = world.parents[0].port();
        for page in 0..3 {
            read(&mut port, Some(host(n).into()), BUFFER + page * 0x1000).unwrap_err();
        }
        assert_eq!(world.bells.rung(), 1);
        for page in 0..3 {
            let entry = FaultEntry::read_from_bytes(&ring.next().unwrap()).unwrap();
            assert_eq!(entry.kind.get(), ENTRY_FAULT);
            assert_eq!(u32::from(entry.place.get()), place_of(4));
            assert_eq!(entry.pasid.get(), 700);
            assert_eq!(entry.address.get(), BUFFER + page * 0x1000);
        }
        assert_eq!(ring.next(), None);
        read(&mut port, Some(host(n).into()), BUFFER).unwrap_err();
        assert_eq!(world.bells.rung(), 2);
    }
}

#[test]
fn r61_what_finds_no_room_is_counted() {
    let world = Alone::new();
    let client = world.client(Abi::V7);
    let mut ring = Ring::of(&client);
    let n = client.any();
    client.bind(data(n, world.alice.process(&[]))).unwrap();
    let mut port = world.parents[0].port();
    for _ in 0..515 {
        read(&mut port, Some(host(n).into()), BUFFER).unwrap_err();
    }
    assert_eq!(ring.head().lost.get(), 3);
    // A page request finds none either, and is answered at once (R64).
    let told = ask(&world.parents[0], n, BUFFER);
    assert_eq!(*told.lock().unwrap(), [Response::Failure]);
    ring.next().unwrap();
    let told = ask(&world.parents[0], n, BUFFER);
    assert_eq!(*told.lock().unwrap(), []);
}

#[test]
fn r62_r63_a_page_request_is_answered_by_its_group() {
    for abi in BOTH {
        let world = Alone::new();
        let client = world.client(abi);
        let mut ring = Ring::of(&client);
        let n = client.any();
        client
            .bind(named(n, 700, world.alice.process(&[])))
            .unwrap();
        for (code, expected) in [
            (RESPONSE_SUCCESS, Response::Success),
            (RESPONSE_INVALID, Response::Invalid),
            (RESPONSE_FAILURE, Response::Failure),
        ] {
            let told = ask(&world.parents[0], n, BUFFER + 0x123);
            let entry = PageRequestEntry::read_from_bytes(&ring.next().unwrap()).unwrap();
            assert_eq!(entry.kind.get(), ENTRY_PAGE_REQUEST);
            assert_eq!((entry.pasid.get(), entry.flags.get()), (700, 1 | 2 | 8));
            assert_eq!(entry.address.get(), BUFFER);
            let good = response(700, entry.group.get(), code);
            let other_group = (entry.group.get() + 1) % 512;
            for (wrong, errno) in [
                (
                    PageResponse {
                        version: 0.into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        version: 2.into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        flags: 1.into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        response_flags: 2.into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        pasid: (1 << 20).into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        group: 512.into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        group: (1 << 16).into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        code: 3.into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        place: (1 << 16).into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        argsz: 31.into(),
                        ..good
                    },
                    EINVAL,
                ),
                (
                    PageResponse {
                        place: place_of(5).into(),
                        ..good
                    },
                    ENODEV,
                ),
                (
                    PageResponse {
                        group: other_group.into(),
                        ..good
                    },
                    ENOENT,
                ),
                (
                    PageResponse {
                        response_flags: 0.into(),
                        ..good
                    },
                    ENOENT,
                ),
                // The host's number for it is not the guest's.
                (
                    PageResponse {
                        pasid: n.into(),
                        ..good
                    },
                    ENOENT,
                ),
            ] {
                assert_eq!(respond(&client, wrong), Err(errno), "{wrong:?}");
            }
            assert_eq!(*told.lock().unwrap(), []);
            respond(&client, good).unwrap();
            assert_eq!(*told.lock().unwrap(), [expected]);
        }
    }
}

#[test]
fn b10_r63_a_page_request_is_answered_once() {
    for abi in BOTH {
        let world = Alone::new();
        let client = world.client(abi);
        let mut ring = Ring::of(&client);
        let n = client.any();
        client.bind(data(n, world.alice.process(&[]))).unwrap();
        let told = ask(&world.parents[0], n, BUFFER);
        let entry = PageRequestEntry::read_from_bytes(&ring.next().unwrap()).unwrap();
        let good = response(n, entry.group.get(), RESPONSE_SUCCESS);
        respond(&client, good).unwrap();
        assert_eq!(respond(&client, good), Err(ENOENT));
        assert_eq!(*told.lock().unwrap(), [Response::Success]);
    }
}

#[test]
fn r63_one_tenant_does_not_answer_for_another() {
    let (_host, [alice, bob], parent, _slices) = neighbours(slot(4), slot(4));
    let hers = Client::nesting(&vmm(&alice), Abi::V7);
    let his = Client::nesting(&vmm(&bob), Abi::V7);
    let n = hers.any();
    hers.bind(named(n, 700, alice.process(&[]))).unwrap();
    let m = his.any();
    his.bind(named(m, 700, bob.process(&[]))).unwrap();
    let told = ask(&parent, n, BUFFER);
    let group = alice.unit.requests.lock().unwrap()[0].group;
    let good = response(700, group.get().into(), RESPONSE_INVALID);
    assert_eq!(respond(&his, good), Err(ENOENT));
    assert_eq!(*told.lock().unwrap(), []);
    respond(&hers, good).unwrap();
    assert_eq!(*told.lock().unwrap(), [Response::Invalid]);
}

#[test]
fn r65_every_end_of_a_binding_answers_what_waits() {
    type EndIt = fn(Client, u32);
    let ends: [EndIt; 4] = [
        |client, n| client.unbind(n).unwrap(),
        |client, n| client.free(n).unwrap(),
        |client, _| client.detach(4).unwrap(),
        |client, _| drop(client),
    ];
    for abi in BOTH {
        for end in ends {
            let world = Alone::new();
            let client = world.client(abi);
            let _ring = Ring::of(&client);
            let n = client.any();
            client.bind(data(n, world.alice.process(&[]))).unwrap();
            let told = ask(&world.parents[0], n, BUFFER);
            assert_eq!(*told.lock().unwrap(), []);
            end(client, n);
            assert_eq!(*told.lock().unwrap(), [Response::Invalid]);
        }
    }
}

#[test]
fn a_vmm_has_one_ring_at_a_time_and_only_where_the_host_says_so() {
    let world = Alone::new();
    let one = world.client(Abi::V7);
    let two = Client::nesting(&world.vmm, Abi::V1);
    let ask = |client: &Client| {
        let answer = client.ask_with(Request::FaultRing, ring_request().as_bytes(), null());
        answer.map(|answer| answer.value)
    };
    assert_eq!(ask(&one), Ok(0));
    assert_eq!(ask(&one), Err(EBUSY));
    assert_eq!(ask(&two), Err(EBUSY));
    drop(one);
    assert_eq!(ask(&two), Ok(0));
    let refused = two.ask(Request::FaultRing, ring_request().as_bytes());
    assert_eq!(refused.unwrap_err(), EINVAL, "without its eventfd");

    let (_host, _alice, _function, _attachment, client) = client(Abi::V7);
    assert_eq!(ask(&client), Err(EOPNOTSUPP));
}
