//! R33: the end of a VMM.

use super::*;

#[test]
fn r33_the_last_connection_takes_everything_along_and_not_the_ones_before() {
    for abi in BOTH {
        let (host_side, alice, function, _attachment) = alone(Sharing::Mediated);
        let before = host_side.books();
        let vmm = vmm(&alice);
        for _ in 0..2 {
            let (one, two) = (Client::nesting(&vmm, abi), Client::nesting(&vmm, abi));
            let process = alice.process(&[(BUFFER, 0x1000)]);
            let (n, _) = (one.any(), two.any());
            one.bind(named(n, 77, process)).unwrap();
            let mut port = function.port();
            drop(one);
            assert!(read(&mut port, Some(host(n).into()), BUFFER).is_ok());
            two.unbind(n).unwrap();
            two.bind(data(n, process)).unwrap();
            drop(two);
            assert!(read(&mut port, Some(host(n).into()), BUFFER).is_err());
            assert_eq!(host_side.books(), before);
        }
    }
}

#[test]
fn r33_one_tenant_that_goes_leaves_the_other_alone() {
    let (_host, [alice, bob], _parent, _slices) = neighbours(slot(4), slot(4));
    let hers = Client::nesting(&vmm(&alice), Abi::V1);
    let his = Client::nesting(&vmm(&bob), Abi::V7);
    hers.any();
    let n = his.any();
    his.bind(data(n, bob.process(&[]))).unwrap();
    drop(hers);
    assert_eq!(alice.container.allocated(), []);
    assert_eq!(bob.container.allocated(), [guest(n)]);
    his.unbind(n).unwrap();
}

#[test]
fn r13_two_containers_of_one_tenant_share_its_quota_and_end_apart() {
    let host_side = Host::new();
    let alice = host_side.tenant_with(1, palisade_ioasid::Quota::Exactly(4));
    let (first, second) = (host_side.parent(1), host_side.parent(2));
    let _one = alice.mediated(slot(4), &first);
    let other = crate::Container::new(alice.container.set().clone());
    let _two = other
        .attach(slot(4), second, Sharing::Mediated, alice.connection())
        .unwrap();
    let one = Client::nesting(&vmm(&alice), Abi::V1);
    let two = Client::nesting(&Vmm::new(other, &[UNIT]), Abi::V7);
    let (n, m) = (one.any(), two.any());
    assert_eq!(one.alloc(1, 99), Err(ENOSPC));
    // Each binds and frees its own.
    let process = alice.process(&[]);
    assert_eq!(one.bind(data(m, process)), Err(ENOENT));
    assert_eq!(one.free(m), Err(ENOENT));
    two.bind(data(m, process)).unwrap();
    drop(one);
    assert_eq!(two.alloc(n, n), Ok(n));
    two.unbind(m).unwrap();
}
