//! R20, R43: functions that a client attaches and detaches.

use super::*;

fn list(client: &Client, argsz: u32) -> (u32, Vec<(u32, u32)>) {
    let request = FunctionList {
        argsz: argsz.into(),
        ..FunctionList::default()
    };
    let written = client
        .ask(Request::FunctionList, request.as_bytes())
        .unwrap()
        .written;
    assert!(written.len() <= argsz as usize);
    let (head, rest) = FunctionList::read_from_prefix(&written).unwrap();
    let entries = rest.chunks(8).map(|entry| {
        let entry = FunctionEntry::read_from_bytes(entry).unwrap();
        (entry.place.get(), entry.state.get())
    });
    (head.count.get(), entries.collect())
}

#[test]
fn a_client_sees_what_it_may_have_and_what_it_has() {
    let world = Alone::new();
    let of_the_host = world.host_side.parent(7);
    let _attached = world.alice.mediated(slot(7), &of_the_host);
    let client = Client::nesting(&world.vmm, Abi::V7);
    client.attach(5).unwrap();
    let all = [(place_of(4), 2), (place_of(5), 3), (place_of(7), 1)];
    assert_eq!(list(&client, 4096), (3, all.to_vec()));
    assert_eq!(list(&client, 12 + 24), (3, all.to_vec()));
    assert_eq!(list(&client, 12 + 23), (3, all[..2].to_vec()));
    assert_eq!(list(&client, 12), (3, vec![]));
    client.detach(5).unwrap();
    assert_eq!(list(&client, 4096).1[1], (place_of(5), 2));
}

#[test]
fn r43_a_client_attaches_what_is_offered_and_detaching_unbinds_it() {
    for abi in BOTH {
        let world = Alone::new();
        let client = world.client(abi);
        let n = client.any();
        let process = world.alice.process(&[(BUFFER, 0x1000)]);
        client.bind(data(n, process)).unwrap();
        let mut port = world.parents[0].port();
        assert!(read(&mut port, Some(host(n).into()), BUFFER).is_ok());
        client.detach(4).unwrap();
        assert!(read(&mut port, Some(host(n).into()), BUFFER).is_err());
        assert_eq!(world.host_side.iommu.audit(), []);
        assert_eq!(client.detach(4), Err(ENODEV));
        client.attach(4).unwrap();
        client.bind(data(n, process)).unwrap();
        assert!(read(&mut port, Some(host(n).into()), BUFFER).is_ok());
    }
}

#[test]
fn r20_what_is_not_offered_or_not_free_is_refused() {
    let world = Alone::new();
    let of_the_host = world.host_side.parent(7);
    let _attached = world.alice.mediated(slot(7), &of_the_host);
    let client = Client::nesting(&world.vmm, Abi::V7);
    assert_eq!(client.attach(6), Err(ENODEV));
    assert_eq!(client.attach(7), Err(ENODEV), "the host's to attach");
    assert_eq!(client.detach(7), Err(ENODEV), "and to detach");
    assert_eq!(client.place(Request::FunctionAttach, 1 << 16), Err(EINVAL));
    client.attach(4).unwrap();
    assert_eq!(client.attach(4), Err(EEXIST));
    // Another tenant has the parent for itself.
    let bob = world.host_side.tenant(2);
    let _his = bob.exclusive(slot(4), &world.parents[1]);
    assert_eq!(client.attach(5), Err(EBUSY));
    for flags in [1, u32::MAX] {
        let argument = FunctionPlace {
            argsz: 12.into(),
            flags: flags.into(),
            place: place_of(4).into(),
        };
        for request in [
            Request::FunctionAttach,
            Request::FunctionDetach,
            Request::FunctionList,
        ] {
            let refused = client.ask(request, argument.as_bytes());
            assert_eq!(refused.unwrap_err(), EINVAL);
        }
    }
}

#[test]
fn r33_functions_go_with_the_last_connection() {
    let world = Alone::new();
    let books = world.host_side.books();
    let one = world.client(Abi::V1);
    let two = Client::nesting(&world.vmm, Abi::V7);
    two.attach(5).unwrap();
    drop(two);
    assert_eq!(world.alice.container.guest_bdfs().len(), 2);
    drop(one);
    assert_eq!(world.alice.container.guest_bdfs(), []);
    assert_eq!(world.host_side.books(), books);
}
