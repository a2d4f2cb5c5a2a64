//! R44: MAP_DMA and UNMAP_DMA.

use std::fs::File;

use palisade_iommu::FaultReason;

use super::*;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

fn ram_file(world: &Alone) -> OwnedFd {
    world.alice.ram.backing().fd.try_clone().unwrap()
}

fn unmap(client: &Client, flags: u32, at: u64, len: u64) -> Result<u64, i32> {
    let request = UnmapDma {
        argsz: 24.into(),
        flags: flags.into(),
        iova: at.into(),
        size: len.into(),
    };
    let answer = client.ask(Request::UnmapDma, request.as_bytes())?;
    assert_eq!(answer.value, 0);
    let back = UnmapDma::read_from_bytes(&answer.written).unwrap();
    Ok(back.size.get())
}

#[test]
fn r44_memory_that_is_unmapped_is_reached_by_no_translation_any_more() {
    for abi in BOTH {
        let world = Alone::new();
        let client = Client::nesting(&world.vmm, abi);
        // Tables in one half, data in the other.
        let half = RAM_BYTES / 2;
        for at in [0, half] {
            let request = map_request(3, at, at, half);
            let mapped = client.ask_with(Request::MapDma, request.as_bytes(), ram_file(&world));
            assert_eq!(mapped.unwrap().written, []);
        }
        client.attach(4).unwrap();
        client.attach(5).unwrap();
        world.alice.ram.store_u64(0x1000, 0xa1).unwrap();
        let n = client.any();
        let process = world.alice.process(&[(BUFFER, 0x1000)]);
        client.bind(data(n, process)).unwrap();
        let tag = Some(host(n).into());
        let mut ports = [world.parents[0].port(), world.parents[1].port()];
        for port in &mut ports {
            assert_eq!(read(port, tag, BUFFER), Ok(0xa1));
        }
        assert_eq!(unmap(&client, 0, 0, half), Ok(half));
        for port in &mut ports {
            assert!(read(port, tag, BUFFER).is_err());
        }
        let again = map_request(1, 0, 0, half);
        client
            .ask_with(Request::MapDma, again.as_bytes(), ram_file(&world))
            .unwrap();
        assert_eq!(read(&mut ports[0], tag, BUFFER), Ok(0xa1));
        assert_eq!(
            write(&mut ports[0], tag, BUFFER, 1),
            Err(FaultReason::NotWritable),
            "mapped to be read"
        );
        // Now the tables.
        assert_eq!(unmap(&client, 0, half, half), Ok(half));
        for port in &mut ports {
            assert!(read(port, tag, BUFFER).is_err());
        }
        assert_eq!(unmap(&client, 2, 0, 0), Ok(half));
        assert_eq!(unmap(&client, 2, 0, 0), Ok(0));
    }
}

#[test]
fn r25_memory_that_cannot_be_mapped_or_unmapped_is_refused() {
    let world = Alone::new();
    let client = Client::nesting(&world.vmm, Abi::V7);
    let map = |request: MapDma| {
        let mapped = client.ask_with(Request::MapDma, request.as_bytes(), ram_file(&world));
        mapped.map(|_| ()).unwrap_err()
    };
    for flags in [0, 4, 7, u32::MAX] {
        assert_eq!(map(map_request(flags, 0, 0, 0x1000)), EINVAL);
    }
    assert_eq!(map(map_request(2, 0, 0, 0x1000)), EOPNOTSUPP);
    for (offset, at, len) in [
        (0, 0, 0),
        (1, 0, 0x1000),
        (0, 1, 0x1000),
        (0, 0, 0x1001),
        (0, u64::MAX - 0xfff, 0x2000),
        (RAM_BYTES, 0, 0x1000),
        (u64::MAX - 0xfff, 0, 0x1000),
    ] {
        let refused = map(map_request(3, offset, at, len));
        assert_eq!(refused, EINVAL, "{offset:#x} {at:#x} {len:#x}");
    }
    let short = MapDma {
        argsz: 31.into(),
        ..map_request(3, 0, 0, 0x1000)
    };
    assert_eq!(map(short), EINVAL);
    let good = map_request(3, 0, 0, 0x1000);
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    let not_mappable = client.ask_with(Request::MapDma, good.as_bytes(), null);
    assert_eq!(not_mappable.unwrap_err(), ENODEV);
    assert_eq!(
        client.ask(Request::MapDma, good.as_bytes()).unwrap_err(),
        EINVAL
    );
    client
        .ask_with(Request::MapDma, good.as_bytes(), ram_file(&world))
        .unwrap();
    assert_eq!(map(good), EEXIST);
    for flags in [1, 3, 4, u32::MAX] {
        assert_eq!(unmap(&client, flags, 0, 0x1000), Err(EINVAL));
    }
    assert_eq!(unmap(&client, 2, 0, 0x1000), Err(EINVAL));
    assert_eq!(unmap(&client, 0, 0, 0x2000), Err(ENOENT));
    assert_eq!(unmap(&client, 0, 0x1000, 0x1000), Err(ENOENT));
    assert_eq!(unmap(&client, 0, 0, 0), Err(EINVAL));
    assert_eq!(unmap(&client, 0, 0, 0x1000), Ok(0x1000));
}

#[test]
fn r33_memory_goes_with_the_last_connection() {
    let world = Alone::new();
    let one = world.client(Abi::V1);
    let two = Client::nesting(&world.vmm, Abi::V7);
    drop(one);
    assert_eq!(two.map_ram(&world.alice), Err(EEXIST));
    drop(two);
    let three = Client::nesting(&world.vmm, Abi::V7);
    three.map_ram(&world.alice).unwrap();
}

#[test]
fn r78_memory_is_bounded() {
    let world = Alone::new();
    let client = Client::nesting(&world.vmm, Abi::V7);
    let map = |n: u64| {
        let request = map_request(3, 0, n * 0x1000, 0x1000);
        let mapped = client.ask_with(Request::MapDma, request.as_bytes(), ram_file(&world));
        mapped.map(|_| ())
    };
    for n in 0..1024 {
        map(n).unwrap();
    }
    assert_eq!(map(1024), Err(ENOSPC));
    assert_eq!(unmap(&client, 0, 0, 1024 * 0x1000), Ok(1024 * 0x1000));
    map(1024).unwrap();
}
