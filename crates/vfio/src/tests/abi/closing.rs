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
