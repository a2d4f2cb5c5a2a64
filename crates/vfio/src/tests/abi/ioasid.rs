//! R54: the shape of the proposed `/dev/ioasid`.

use palisade_ioasid::Quota;

use super::*;

fn alloc(client: &Client, min: u32, max: u32) -> Result<u32, i32> {
    let request = IoasidAllocate {
        argsz: 16.into(),
        flags: 0.into(),
        min: min.into(),
        max: max.into(),
    };
    let answer = client.ask(Request::IoasidAllocate, request.as_bytes())?;
    assert_eq!(answer.written, []);
    Ok(u32::try_from(answer.value).unwrap())
}

fn free(client: &Client, pasid: u32) -> Result<(), i32> {
    let answer = client.ask(Request::IoasidFree, &pasid.to_le_bytes())?;
    assert_eq!((answer.value, answer.written), (0, vec![]));
    Ok(())
}

#[test]
fn r54_version_and_width() {
    let (_host, _alice, _function, _attachment, client) = client(Abi::V7);
    let version = client.ask(Request::IoasidGetApiVersion, &[]).unwrap();
    assert_eq!(version.value, 0);
    let info = client.ask(
        Request::IoasidGetInfo,
        &[12, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9],
    );
    let expected = [12, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0];
    assert_eq!(info.unwrap().written, expected);
    let short = [11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let refused = client.ask(Request::IoasidGetInfo, &short);
    assert_eq!(refused.unwrap_err(), EINVAL);
}

#[test]
fn r26_r54_numbers_are_taken_without_nesting_and_without_a_function_and_grant_nothing() {
    let host_side = Host::new();
    let alice = host_side.tenant_with(1, Quota::Exactly(2));
    let client = Client::plain(&vmm(&alice), Abi::V1);
    assert_eq!(alloc(&client, 10, 20), Ok(10));
    assert_eq!(alloc(&client, 10, 10), Err(ENOSPC));
    assert_eq!(alloc(&client, 20, 10), Err(EINVAL));
    assert_eq!(alloc(&client, 0, u32::MAX), Ok(1));
    assert_eq!(alloc(&client, 0, u32::MAX), Err(ENOSPC), "the quota");
    assert_eq!(host_side.iommu.audit(), []);
    free(&client, 10).unwrap();
    assert_eq!(free(&client, 10), Err(ENOENT));
    for wrong in [0, 1 << 20, u32::MAX] {
        assert_eq!(free(&client, wrong), Err(EINVAL));
    }
    assert_eq!(
        client.ask(Request::IoasidFree, &[1, 0]).unwrap_err(),
        EFAULT
    );
    let flags = headed(1, &[1, 0, 0, 0, 9, 0, 0, 0]);
    assert_eq!(
        client.ask(Request::IoasidAllocate, &flags).unwrap_err(),
        EINVAL
    );
    drop(client);
    assert_eq!(host_side.authority.outstanding(), 0);
}

#[test]
fn r12_r54_one_tenant_does_not_free_anothers() {
    let (host_side, [alice, bob], _parent, _slices) = neighbours(slot(4), slot(4));
    let hers = Client::plain(&vmm(&alice), Abi::V7);
    let his = Client::plain(&vmm(&bob), Abi::V7);
    let n = alloc(&hers, 1, 99).unwrap();
    let books = host_side.books();
    assert_eq!(free(&his, n), Err(EACCES));
    assert_eq!(host_side.books(), books);
}

#[test]
fn r54_what_is_taken_here_is_bound_there() {
    for abi in BOTH {
        let (_host, alice, function, _attachment, client) = client(abi);
        alice.ram.store_u64(0x1000, 0xa1).unwrap();
        let n = alloc(&client, 1, 99).unwrap();
        let process = alice.process(&[(BUFFER, 0x1000)]);
        client.bind(named(n, 700, process)).unwrap();
        let mut port = function.port();
        assert_eq!(read(&mut port, Some(host(n).into()), BUFFER), Ok(0xa1));
        free(&client, n).unwrap();
        assert!(read(&mut port, Some(host(n).into()), BUFFER).is_err());
        let m = client.any();
        free(&client, m).unwrap();
    }
}
