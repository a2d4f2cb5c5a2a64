//! R26 to R29: PASID_REQUEST.

use palisade_ioasid::Quota;

use super::*;

#[test]
fn r23_r24_r26_the_lowest_free_number_of_an_inclusive_range() {
    for abi in BOTH {
        let (host_side, alice, _function, _attachment, client) = client(abi);
        assert_eq!(client.alloc(10, 12), Ok(10));
        assert_eq!(client.alloc(10, 12), Ok(11));
        assert_eq!(client.alloc(10, 12), Ok(12));
        assert_eq!(client.alloc(10, 12), Err(ENOSPC));
        client.free(11).unwrap();
        assert_eq!(client.alloc(0, 11), Ok(2), "the function has 1");
        assert_eq!(client.alloc(11, 11), Ok(11));
        assert_eq!(client.alloc(12, 11), Err(EINVAL));
        assert_eq!(client.alloc((1 << 20) - 1, u32::MAX), Ok((1 << 20) - 1));
        assert_eq!(client.alloc(1 << 20, u32::MAX), Err(ENOSPC));
        let ledger = host_side.authority.ledger();
        assert_eq!(ledger.len(), 6);
        let of_alice = alice.container.set().tenant();
        assert!(ledger.iter().all(|entry| entry.tenant == of_alice));
    }
}

#[test]
fn r27_version_7_frees_exactly_what_the_client_took_in_a_range() {
    let (_host, alice, _function, _attachment, client) = client(Abi::V7);
    for n in [10, 11, 12, 13] {
        assert_eq!(client.alloc(n, n), Ok(n));
    }
    let free = |min, max| {
        let request = request_v7(2, min, max);
        client.ask(Request::PasidRequestV7, request.as_bytes())
    };
    assert_eq!(free(11, 12).unwrap().value, 0);
    assert_eq!(alice.container.allocated(), [guest(10), guest(13)]);
    assert_eq!(free(13, 12).unwrap_err(), EINVAL);
    assert_eq!(free(0, u32::MAX).unwrap().value, 0);
    assert_eq!(alice.container.allocated(), []);
    assert_eq!(alice.container.set().outstanding(), 1, "the function's own");
    assert_eq!(free(0, u32::MAX).unwrap().value, 0, "nothing is no error");
}

#[test]
fn r12_r27_version_1_frees_one_and_says_whose_it_was_not() {
    let (host_side, [alice, bob], _parent, _slices) = neighbours(slot(4), slot(4));
    let hers = Client::nesting(&vmm(&alice), Abi::V1);
    let his = Client::nesting(&vmm(&bob), Abi::V1);
    let n = hers.any();
    let of_the_function = bob.container.default_hold(slot(4)).unwrap().pasid();
    let books = host_side.books();
    assert_eq!(his.free(n), Err(EACCES));
    assert_eq!(his.free(999), Err(ENOENT));
    assert_eq!(his.free(of_the_function.get()), Err(ENOENT));
    assert_eq!(his.free(0), Err(EINVAL));
    assert_eq!(his.free(1 << 20), Err(EINVAL));
    assert_eq!(host_side.books(), books);
    hers.free(n).unwrap();
    assert_eq!(hers.free(n), Err(ENOENT));
}

#[test]
fn r28_without_nesting_without_pasids_without_a_domain_without_a_tenant() {
    let host_side = Host::new();
    for (number, abi) in [(1, Abi::V1), (2, Abi::V7)] {
        let alice = host_side.tenant(number);
        let vmm_of_alice = vmm(&alice);
        let without_domain = if abi == Abi::V1 { EFAULT } else { EOPNOTSUPP };
        let plain = Client::plain(&vmm_of_alice, abi);
        let nesting = Client::nesting(&vmm_of_alice, abi);
        assert_eq!(nesting.alloc(1, 9), Err(without_domain));
        assert_eq!(nesting.free(1), Err(without_domain));
        let process = alice.process(&[]);
        assert_eq!(nesting.bind(data(1, process)), Err(without_domain));
        assert_eq!(nesting.unbind(1), Err(without_domain));
        assert_eq!(nesting.invalidate(1, Form::Domain), Err(without_domain));

        let _function = alice.mediated(
            slot(4),
            &host_side.parent(8 + u8::try_from(number).unwrap()),
        );
        assert_eq!(plain.alloc(1, 9), Err(EOPNOTSUPP), "nothing chosen");
        plain.ask(Request::SetIommu, &3_u32.to_le_bytes()).unwrap();
        assert_eq!(plain.alloc(1, 9), Err(EOPNOTSUPP), "no nesting");
        assert_eq!(plain.bind(data(1, process)), Err(EOPNOTSUPP));
        let no_pasids = Unit {
            pasid_bits: 0,
            ..UNIT
        };
        let without = Vmm::new(alice.container.clone(), &[UNIT, no_pasids]);
        let without = Client::nesting(&without, abi);
        assert_eq!(without.alloc(1, 9), Err(EOPNOTSUPP), "no PASIDs");

        nesting.any();
        alice.container.set().close();
        assert_eq!(nesting.alloc(1, 9), Err(EINVAL), "no tenant");
        assert_eq!(nesting.bind(data(1, process)), Err(EINVAL));
    }
}

#[test]
fn r29_the_1001st_is_enospc_and_one_that_is_freed_can_be_had_again() {
    for abi in BOTH {
        let host_side = Host::new();
        let alice = host_side.tenant(1);
        let _function = alice.mediated(slot(4), &host_side.parent(1));
        let client = Client::nesting(&vmm(&alice), abi);
        // The function has one of the 1000.
        let taken: Vec<_> = (1..1000).map(|_| client.any()).collect();
        assert_eq!(client.alloc(1, u32::MAX), Err(ENOSPC));
        client.free(taken[500]).unwrap();
        assert_eq!(client.alloc(1, u32::MAX), Ok(taken[500]));
        assert_eq!(client.alloc(1, u32::MAX), Err(ENOSPC));
    }
}

#[test]
fn r29_the_quota_is_tuned_while_clients_are_at_work() {
    for abi in BOTH {
        let host_side = Host::new();
        let alice = host_side.tenant_with(1, Quota::Exactly(3));
        let _function = alice.mediated(slot(4), &host_side.parent(1));
        let client = Client::nesting(&vmm(&alice), abi);
        let set = alice.container.set();
        client.any();
        client.any();
        assert_eq!(client.alloc(1, 99), Err(ENOSPC));
        set.adjust(4).unwrap();
        client.any();
        assert_eq!(client.alloc(1, 99), Err(ENOSPC));
        assert_eq!(set.adjust(3).unwrap_err().errno(), EINVAL);
        assert_eq!(set.adjust(1 << 20).unwrap_err().errno(), ENOSPC);
        assert_eq!(set.quota(), 4);
    }
}

#[test]
fn r13_connections_of_one_vmm_share_its_quota_and_its_pasids() {
    let host_side = Host::new();
    let alice = host_side.tenant_with(1, Quota::Exactly(3));
    let _function = alice.mediated(slot(4), &host_side.parent(1));
    let vmm = vmm(&alice);
    let (one, two) = (
        Client::nesting(&vmm, Abi::V1),
        Client::nesting(&vmm, Abi::V7),
    );
    let n = one.any();
    two.any();
    assert_eq!(one.alloc(1, 99), Err(ENOSPC));
    two.free(n).unwrap();
    assert_eq!(one.alloc(1, 99), Ok(n));
}
