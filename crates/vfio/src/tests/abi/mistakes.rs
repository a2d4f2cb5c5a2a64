//! The mistakes of the proposals' own implementations, which must not come back.

use std::sync::{Arc, Mutex};

use palisade_ioasid::{PasidState, Quota};
use palisade_iommu::{PageResponse, PasidEnable, PasidSupport, Requester};
use palisade_units::{Access, Bdf, Iova};

use super::*;

#[test]
fn b1_r26_enospc_is_not_hidden_behind_efault() {
    let (_host, _alice, _function, _attachment, client) = client(Abi::V1);
    assert_eq!(client.alloc(5, 5), Ok(5));
    assert_eq!(client.alloc(5, 5), Err(ENOSPC));
}

#[test]
fn b2_r25_nothing_past_argsz_is_read_or_written() {
    for abi in BOTH {
        let (_host, alice, _function, _attachment, client) = client(abi);
        let n = client.any();
        // Whole and right, but that the size stops before the last field: what stands there is not looked at.
        let (bind, unbind) = match abi {
            Abi::V1 => ((Request::Bind, 1), (Request::Bind, 2)),
            Abi::V7 => ((Request::NestingOp, 0), (Request::NestingOp, 1)),
        };
        for (request, flags) in [bind, unbind] {
            let mut argument = headed(flags, data(n, alice.process(&[])).as_bytes());
            argument[..4].copy_from_slice(&79_u32.to_le_bytes());
            assert_eq!(client.ask(request, &argument).unwrap_err(), EINVAL);
        }
        // What comes after the request makes no difference, within argsz or past it.
        for (argsz, rest) in [(80_u32, 0xff), (4096, 0xff), (80, 0), (4096, 0)] {
            let mut argument = headed(bind.1, data(n, alice.process(&[])).as_bytes());
            argument[..4].copy_from_slice(&argsz.to_le_bytes());
            argument.resize(4096, rest);
            assert_eq!(client.ask(bind.0, &argument).unwrap().written, []);
        }
    }
    let (_host, _alice, _function, _attachment, client) = client(Abi::V1);
    for argsz in 20..64_u32 {
        let request = PasidAllocateV1 {
            argsz: argsz.into(),
            flags: 1.into(),
            max: 999.into(),
            ..PasidAllocateV1::default()
        };
        let argument = [request.as_bytes(), &[0xee; 64]].concat();
        let written = client.ask(Request::PasidRequestV1, &argument).unwrap();
        assert_eq!(written.written.len(), 20);
    }
}

/// Two functions, of which one has its PASIDs off: what binding on both says.
fn bind_beside_a_failing_function(abi: Abi, failing: usize) -> Result<(), i32> {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let parents = [host_side.parent(1), host_side.parent(2)];
    let _one = alice.mediated(slot(1), &parents[0]);
    let _two = alice.mediated(slot(2), &parents[1]);
    let client = Client::nesting(&vmm(&alice), abi);
    let n = client.any();
    let process = alice.process(&[(BUFFER, 0x1000)]);
    parents[failing].set_pasid_enabled(PasidEnable::Off);
    let bound = client.bind(data(n, process));
    for parent in &parents {
        assert!(read(&mut parent.port(), Some(host(n).into()), BUFFER).is_err());
    }
    bound
}

#[test]
fn b3_r36_a_bind_that_failed_on_the_first_function_is_no_success() {
    for abi in BOTH {
        assert_eq!(bind_beside_a_failing_function(abi, 0), Err(EOPNOTSUPP));
    }
}

#[test]
fn b4_r36_a_bind_that_failed_on_the_last_function_is_no_success() {
    for abi in BOTH {
        assert_eq!(bind_beside_a_failing_function(abi, 1), Err(EOPNOTSUPP));
    }
}

#[test]
fn b5_r30_get_info_works_on_hardware_without_pasids() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let function = host_side
        .iommu
        .add_function(Bdf::new(0x6b, 0, 0), PasidSupport::None)
        .unwrap();
    let _attachment = alice.exclusive(slot(4), &function);
    let without = Unit {
        pasid_bits: 0,
        ecap: UNIT.ecap & !(1 << 40),
        ..UNIT
    };
    let vmm = Vmm::new(alice.container.clone(), &[without]);
    for (abi, whole) in [(Abi::V1, 40), (Abi::V7, 80)] {
        let client = Client::nesting(&vmm, abi);
        let argument = [256_u32.to_le_bytes(), [0; 4], [0; 4], [0; 4]].concat();
        let answer = client.ask(Request::GetInfo, &argument).unwrap();
        assert_eq!(answer.written.len(), whole);
        let told = match abi {
            // PASID requests: no. Formats: VT-d.
            Abi::V1 => (answer.written[32], answer.written[36]),
            // Format: VT-d. Features: invalidation alone.
            Abi::V7 => (answer.written[36 + 4], answer.written[36]),
        };
        let expected = if abi == Abi::V1 { (0, 1) } else { (4, 1) };
        assert_eq!(told, expected);
    }
}

#[test]
fn b6_a_charge_is_given_back_on_every_way_out() {
    for abi in BOTH {
        let (_host, alice, _function, _attachment, client) = client(abi);
        let set = alice.container.set();
        let n = client.any();
        let process = alice.process(&[]);
        let charged = set.outstanding();
        for _ in 0..10 {
            client.alloc(9, 8).unwrap_err();
            client.alloc(n, n).unwrap_err();
            client.alloc(1 << 20, u32::MAX).unwrap_err();
            let crooked = BindData {
                gpgd: 0x123.into(),
                ..named(n, 700, process)
            };
            client.bind(crooked).unwrap_err();
            client.bind(data(999, process)).unwrap_err();
            client.bind(named(n, 700, process)).unwrap();
            client.unbind(n).unwrap();
            assert_eq!(set.outstanding(), charged);
        }
        client.free(n).unwrap();
        assert_eq!(set.outstanding(), charged - 1);
    }
}

#[test]
fn b7_a_charge_is_given_back_to_whom_it_was_taken_from() {
    for abi in BOTH {
        let host_side = Host::new();
        let (alice, bob) = (
            host_side.tenant_with(1, Quota::Exactly(2)),
            host_side.tenant_with(2, Quota::Exactly(2)),
        );
        let parent = host_side.parent(1);
        let _slices = (
            alice.mediated(slot(4), &parent),
            bob.mediated(slot(4), &parent),
        );
        let hers = Client::nesting(&vmm(&alice), abi);
        let his = Client::nesting(&vmm(&bob), abi);
        let n = hers.any();
        // By range or by number, and at his end: hers stays out, and charged to her.
        let _ = his.free(n);
        drop(his);
        assert_eq!(alice.container.set().outstanding(), 2);
        assert_eq!(hers.alloc(1, 99), Err(ENOSPC));
        assert_eq!(bob.container.set().outstanding(), 1);
        drop(hers);
        assert_eq!(alice.container.set().outstanding(), 1);
    }
}

#[test]
fn b8_a_guest_pasid_that_is_unknown_has_no_number_of_the_hosts_to_program() {
    for abi in BOTH {
        let (_host, alice, _function, _attachment, client) = client(abi);
        let n = client.any();
        client.bind(named(n, 700, alice.process(&[]))).unwrap();
        for unknown in [n, 0, 1, 699, 701, (1 << 20) - 1] {
            let refused = alice.container.translate(slot(4), guest(unknown));
            assert_eq!(errno(refused), ENOENT);
        }
        let known = alice.container.translate(slot(4), guest(700)).unwrap();
        assert_eq!(known.pasid(), host(n));
    }
}

#[test]
fn b9_no_request_keeps_a_reference() {
    for abi in BOTH {
        let (_host, alice, _function, _attachment, client) = client(abi);
        let set = alice.container.set();
        let n = client.any();
        let process = alice.process(&[]);
        let by_pasid = InvalidatePasid {
            flags: 1.into(),
            pasid: u64::from(n).into(),
            ..InvalidatePasid::default()
        };
        for _ in 0..3 {
            client.bind(named(n, 700, process)).unwrap();
            client.bind(named(n, 701, process)).unwrap_err();
            client.invalidate(1, Form::Pasid(by_pasid)).unwrap();
            client.invalidate(1, Form::Domain).unwrap();
            client.unbind(n).unwrap();
            client.unbind(n).unwrap_err();
            client.invalidate(1, Form::Pasid(by_pasid)).unwrap();
        }
        assert_eq!(set.state_of(host(n)), Ok(PasidState::Idle));
        client.free(n).unwrap();
        assert_eq!(
            set.state_of(host(n)).unwrap_err().errno(),
            ENOENT,
            "gone at once"
        );
    }
}

#[test]
fn b11_r12_a_bind_by_who_does_not_own_the_pasid_is_refused() {
    for abi in BOTH {
        let (host_side, [alice, bob], _parent, _slices) = neighbours(slot(4), slot(4));
        let hers = Client::nesting(&vmm(&alice), abi);
        let his = Client::nesting(&vmm(&bob), abi);
        let n = hers.any();
        let books = host_side.books();
        assert_eq!(his.bind(data(n, bob.process(&[]))), Err(EACCES));
        assert_eq!(host_side.books(), books);
    }
}

#[test]
fn b12_r65_an_unbind_answers_the_page_requests_that_are_open() {
    for abi in BOTH {
        for by_free in [true, false] {
            let (_host, alice, function, _attachment, client) = client(abi);
            let n = client.any();
            client.bind(data(n, alice.process(&[]))).unwrap();
            let told = Arc::new(Mutex::new(Vec::new()));
            let waiter = Arc::clone(&told);
            function
                .port()
                .request_page(
                    Requester::new(Some(host(n).into())),
                    Iova::new(BUFFER),
                    Access::READ,
                    Box::new(move |response| waiter.lock().unwrap().push(response)),
                )
                .unwrap();
            assert_eq!(function.outstanding_page_requests(), 1);
            if by_free {
                client.free(n).unwrap();
            } else {
                client.unbind(n).unwrap();
            }
            assert_eq!(*told.lock().unwrap(), [PageResponse::Invalid]);
            assert_eq!(function.outstanding_page_requests(), 0);
        }
    }
}

#[test]
fn b13_r39_a_second_mediated_device_of_one_parent_is_bound_too() {
    for abi in BOTH {
        let host_side = Host::new();
        let alice = host_side.tenant(1);
        let parent = host_side.parent(1);
        let one = alice.mediated(slot(4), &parent);
        let _two = alice.mediated(slot(5), &parent);
        let client = Client::nesting(&vmm(&alice), abi);
        let n = client.any();
        client
            .bind(data(n, alice.process(&[(BUFFER, 0x1000)])))
            .unwrap();
        let entry = |users| {
            let audit = host_side.iommu.audit();
            let mut entries = audit.iter().filter(|entry| entry.host_pasid == host(n));
            assert_eq!(entries.next().map(|entry| entry.users), users);
        };
        entry(Some(2));
        one.detach();
        entry(Some(1));
        assert!(read(&mut parent.port(), Some(host(n).into()), BUFFER).is_ok());
        client.unbind(n).unwrap();
        entry(None);
    }
}
