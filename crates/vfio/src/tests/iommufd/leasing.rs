//! Functions that the host attached: a client binds them as its devices, and the host takes them away.

use crate::tests::abi::Client;
use crate::{Abi, Attachment, SpaceKey};

use super::*;

/// A VMM that nothing is offered to. Its host has attached two slices, whose connections share the guest's memory.
fn hosted() -> (Rig, [Attachment; 2]) {
    let host_side = Host::new();
    let parents = [4, 5].map(|n| host_side.parent(n));
    hosted_on(host_side, parents)
}

fn hosted_on(host_side: Host, parents: [FunctionHandle; 2]) -> (Rig, [Attachment; 2]) {
    let alice = host_side.tenant(1);
    let attached = [PLACE, OTHER].into_iter().zip(&parents);
    let attached: Vec<_> = attached
        .map(|(at, parent)| alice.mediated(at, parent))
        .collect();
    let offers = Offers {
        units: vec![UNIT],
        faults: FaultDelivery::ByRing(Arc::new(Sockets)),
        ..Offers::default()
    };
    let vmm = Vmm::with(alice.container.clone(), offers);
    let rig = Rig {
        fd: vmm.connect_iommufd(),
        host_side,
        alice,
        parents,
        vmm,
    };
    (rig, attached.try_into().unwrap())
}

#[test]
fn r75_a_function_of_the_hosts_is_the_clients_until_it_is_closed() {
    let (rig, _attached) = hosted();
    rig.alice.ram.store_u64(0x1000, 0xa1).unwrap();
    let books = rig.host_side.books();
    assert_eq!(
        rig.sees_plainly(0x1000),
        Some(0xa1),
        "its connection's memory"
    );
    let (device, parent, process) = rig.begin(0xa1);
    assert_eq!(
        rig.sees_plainly(0x1000),
        None,
        "nothing until it is attached"
    );
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach(PLACE, parent).unwrap();
    rig.attach_pasid(PLACE, 700, nested).unwrap();
    assert_eq!(rig.sees_plainly(0x1000), Some(0xa1));
    assert_eq!(rig.sees(700, BUFFER), Some(0xa1));
    let space = 2;
    rig.unmap(space, 0, u64::MAX).unwrap();
    assert_eq!(
        rig.sees_plainly(0x1000),
        None,
        "no memory of the connection's"
    );
    assert_eq!(rig.sees(700, BUFFER), None);
    rig.close(PLACE).unwrap();
    assert_eq!(rig.sees_plainly(0x1000), Some(0xa1), "as it was");
    assert_eq!(rig.host_side.books(), books);
}

#[test]
fn r33_r75_the_end_of_a_client_gives_the_hosts_functions_back() {
    let (mut rig, _attached) = hosted();
    let books = rig.host_side.books();
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 700, nested).unwrap();
    let other = rig.vmm.connect_iommufd();
    drop(std::mem::replace(&mut rig.fd, other));
    assert_eq!(rig.sees_plainly(0x1000), Some(0xa1));
    assert_eq!(rig.host_side.books(), books);
    rig.bind(PLACE).unwrap();
}

#[test]
fn r75_one_client_has_a_function_at_a_time() {
    let (rig, _attached) = hosted();
    rig.bind(PLACE).unwrap();
    let other = rig.vmm.connect_iommufd();
    let bind = |place| {
        let number = Number::new(BIND);
        let answer = other.ioctl(On::Device(place), number, &words(&[16, 0, 0, 0]), vec![]);
        answer.map(drop).map_err(|refused| refused.errno.get())
    };
    assert_eq!(bind(PLACE), Err(EBUSY));
    assert_eq!(bind(Bdf::new(0, 9, 0)), Err(ENODEV), "nothing is there");
    bind(OTHER).unwrap();
    rig.close(PLACE).unwrap();
    bind(PLACE).unwrap();
}

/// A function is bound in one of two ways, never in both.
#[test]
fn r36_r75_binds_of_the_proposals_pass_a_device_by() {
    let (rig, _attached) = hosted();
    let client = Client::nesting(&rig.vmm, Abi::V7);
    let hers = client.any();
    let process = rig.process(0x1000, 0xa1);
    let bind = || client.bind(crate::tests::abi::data(hers, process));
    bind().unwrap();
    assert_eq!(rig.bind(PLACE), Err(EBUSY), "its PASID is bound");
    client.unbind(hers).unwrap();
    rig.bind(PLACE).unwrap();
    bind().unwrap();
    let has = |place| {
        !rig.alice
            .container
            .bound(place)
            .iter()
            .all(|(key, _)| *key == SpaceKey::WithoutPasid)
    };
    assert!(has(OTHER) && !has(PLACE));
    client.unbind(hers).unwrap();
    rig.bind(OTHER).unwrap();
    assert_eq!(bind(), Err(ENODEV), "no function is left to bind on");
}

/// Slices of one parent share the entry of a PASID: one that the proposals bind does not come to what is mapped for another.
#[test]
fn r8_r75_a_pasid_of_a_device_is_over_its_space_alone() {
    let host_side = Host::new();
    let parent = host_side.parent(4);
    let (rig, _attached) = hosted_on(host_side, [parent.clone(), parent]);
    let client = Client::nesting(&rig.vmm, Abi::V7);
    let taken = client.any();
    let (device, over, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, over, process).unwrap();
    rig.attach_pasid(PLACE, taken, nested).unwrap();
    let bind = || client.bind(crate::tests::abi::data(taken, process));
    assert_eq!(bind(), Err(EBUSY));
    rig.detach_pasid(PLACE, taken).unwrap();
    bind().unwrap();
    assert_eq!(rig.attach_pasid(PLACE, taken, nested), Err(EBUSY));
}

#[test]
fn r33_r75_a_device_that_the_host_took_away_is_gone() {
    let (rig, [attached, _other]) = hosted();
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 7, nested).unwrap();
    drop(attached);
    assert_eq!(rig.attach_pasid(PLACE, 8, nested), Err(ENODEV));
    // Another one comes to its place, and is bound by the proposals: it is none of this device's.
    let _again = rig.alice.mediated(PLACE, &rig.parents[0]);
    rig.alice.bind(PLACE, pasid(7), process).unwrap();
    assert_eq!(rig.attach_pasid(PLACE, 8, nested), Err(ENODEV));
    rig.detach_pasid(PLACE, 7).unwrap();
    rig.unmap(2, 0, u64::MAX).unwrap();
    assert_eq!(rig.bind(PLACE), Err(EINVAL), "closed first");
    rig.close(PLACE).unwrap();
    assert_eq!(rig.sees(7, BUFFER), Some(0xa1), "what it is bound to stays");
    rig.alice.container.unbind(PLACE, pasid(7)).unwrap();
    rig.bind(PLACE).unwrap();
}
