//! A VMM's day, with calls that have types, over a real socket.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use common::*;
use palisade_container::{Capability, Client, ClientError, Info, Invalidate, Process, Which};
use palisade_ioasid::PasidRange;
use palisade_units::{GuestPasid, HostPasid, Iova};
use palisade_vfio::abi::{Extension, Number, Request};
use palisade_vfio::{Abi, Nesting};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

fn guest(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

#[test]
fn r23_r24_r39_allocate_bind_reach_unbind_free() {
    for abi in BOTH {
        let world = World::new();
        let books = world.books();
        let (mut client, serving) = world.client(abi);
        world.ram.store_u64(0x1000, 0xa1).unwrap();
        let process = Process::at(world.process(&[(BUFFER, 0x1000)]));
        let n = client.alloc_pasid(PasidRange { min: 10, max: 20 }).unwrap();
        assert_eq!(n.get(), 10);
        let mut port = world.function.port();
        assert_eq!(read(&mut port, n, BUFFER), None);
        client.bind(n, Some(guest(700)), process).unwrap();
        assert_eq!(read(&mut port, n, BUFFER), Some(0xa1));
        assert_eq!(
            world
                .container
                .translate(PLACE, guest(700))
                .unwrap()
                .pasid(),
            n
        );
        client.unbind(n).unwrap();
        assert_eq!(read(&mut port, n, BUFFER), None);
        client.free_pasid(n).unwrap();
        assert_eq!(world.books(), books);
        drop(client);
        assert_eq!(serving.end(), Ok(()));
    }
}

#[test]
fn r40_r41_invalidation_reaches_what_it_names() {
    for abi in BOTH {
        let world = World::new();
        let (mut client, _serving) = world.client(abi);
        world.ram.store_u64(0x1000, 0xa1).unwrap();
        world.ram.store_u64(0x2000, 0xa2).unwrap();
        let root = world.process(&[(BUFFER, 0x1000)]);
        let n = client.alloc_pasid(PasidRange::ALL).unwrap();
        client.bind(n, None, Process::at(root)).unwrap();
        let mut port = world.function.port();
        let page = |pasid, count| Invalidate::Pages {
            pasid,
            at: Iova::new(BUFFER),
            granule_bytes: 4096,
            count,
        };
        let leaves = Invalidate::Leaves {
            pasid: Some(n),
            at: Iova::new(BUFFER),
            granule_bytes: 4096,
            count: 1,
        };
        let mut turn = [(0x2000, 0xa2), (0x1000, 0xa1)].into_iter().cycle();
        assert_eq!(read(&mut port, n, BUFFER), Some(0xa1));
        for what in [
            Invalidate::All,
            Invalidate::Pasid(n),
            page(Some(n), 1),
            leaves,
        ] {
            let (phys, value) = turn.next().unwrap();
            let stale = read(&mut port, n, BUFFER);
            world.map(root.get(), BUFFER, phys);
            client
                .invalidate(Which::PasidEntries, Invalidate::All)
                .unwrap();
            assert_eq!(read(&mut port, n, BUFFER), stale, "caches are real");
            client.invalidate(Which::Translations, what).unwrap();
            assert_eq!(read(&mut port, n, BUFFER), Some(value), "{what:?}");
        }
        let both = Which::TranslationsAndDevices;
        client.invalidate(both, Invalidate::Pasid(n)).unwrap();
        client.invalidate(Which::InDevices, page(None, 3)).unwrap();
        assert_eq!(
            errno(client.invalidate(Which::InDevices, Invalidate::All)),
            EINVAL
        );
        assert_eq!(errno(client.invalidate(both, page(Some(n), 0))), EINVAL);
    }
}

#[test]
fn r30_r31_r34_what_the_platform_can_do() {
    for abi in BOTH {
        let world = World::new();
        let (client, _serving) = world.connect(abi);
        let mut client = client.unwrap();
        let plain = Info {
            page_sizes: !0xfff,
            capability: None,
        };
        assert_eq!(client.info().unwrap(), plain);
        assert_eq!(client.check_extension(Extension::Nesting).unwrap(), 1);
        let uapi = client.check_extension(Extension::NestingUapi).unwrap();
        assert_eq!(uapi, i32::from(abi == Abi::V1));
        client.set_nesting(Nesting::On).unwrap();
        let told = match abi {
            Abi::V1 => Capability::V1 {
                nesting: 1,
                formats: 1,
            },
            Abi::V7 => Capability::V7 {
                format: 1,
                features: 7,
                address_bits: 57,
                pasid_bits: 20,
                cap: UNIT.cap,
                ecap: UNIT.ecap,
            },
        };
        assert_eq!(client.info().unwrap().capability, Some(told));
        assert_eq!(errno(client.set_nesting(Nesting::Off)), EINVAL);
    }
}

#[test]
fn r12_r26_r28_errors_come_through_and_the_connection_goes_on() {
    for abi in BOTH {
        let world = World::new();
        let (plain, _serving) = world.connect(abi);
        let refused = plain.unwrap().alloc_pasid(PasidRange::ALL);
        assert_eq!(errno(refused), EOPNOTSUPP);
        let (mut client, _serving) = world.client(abi);
        let process = Process::at(world.process(&[]));
        let unknown = HostPasid::new(999).unwrap();
        assert_eq!(errno(client.bind(unknown, None, process)), ENOENT);
        assert_eq!(errno(client.unbind(unknown)), ENOENT);
        let n = client.alloc_pasid(PasidRange::only(50)).unwrap();
        assert_eq!(errno(client.alloc_pasid(PasidRange::only(50))), ENOSPC);
        let inverted = PasidRange { min: 2, max: 1 };
        assert_eq!(errno(client.alloc_pasid(inverted)), EINVAL);
        let zero = HostPasid::new(0).unwrap();
        assert_eq!(errno(client.bind(zero, None, process)), EINVAL);
        let other = world
            .authority
            .create_set(
                palisade_units::TenantId::new(2),
                palisade_ioasid::Quota::default(),
            )
            .unwrap();
        let foreign = other.alloc(PasidRange::ALL).unwrap();
        assert_eq!(errno(client.bind(foreign, None, process)), EACCES);
        match abi {
            Abi::V1 => {
                assert_eq!(errno(client.free_pasid(foreign)), EACCES);
                let refused = client.free_pasids(PasidRange::ALL);
                assert!(matches!(refused, Err(ClientError::NotInThisVersion(_))));
            }
            Abi::V7 => {
                client.free_pasid(foreign).unwrap();
                client
                    .free_pasids(PasidRange {
                        min: 0,
                        max: u32::MAX,
                    })
                    .unwrap();
            }
        }
        assert!(other.state_of(foreign).is_ok());
        let ioctl = client.ioctl(Number::vfio(77), &[0; 8], &[]);
        assert_eq!(errno(ioctl), ENOTTY);
        let of_other = match abi {
            Abi::V1 => Request::NestingOp,
            Abi::V7 => Request::Bind,
        };
        assert_eq!(
            errno(client.ioctl(of_other.number(), &[0; 80], &[])),
            ENOTTY
        );
        assert_eq!(client.info().unwrap().page_sizes, !0xfff);
        let _ = n;
    }
}

#[test]
fn r13_r33_connections_of_one_vmm_share_and_the_last_one_takes_all_along() {
    let world = World::new();
    let books = world.books();
    let (mut one, first) = world.client(Abi::V1);
    let (mut two, second) = world.client(Abi::V7);
    let n = one.alloc_pasid(PasidRange::ALL).unwrap();
    let process = Process::at(world.process(&[(BUFFER, 0x1000)]));
    two.bind(n, None, process).unwrap();
    drop(one);
    assert_eq!(first.end(), Ok(()));
    let mut port = world.function.port();
    assert!(read(&mut port, n, BUFFER).is_some());
    drop(two);
    assert_eq!(second.end(), Ok(()));
    assert_eq!(world.books(), books);
    assert_eq!(read(&mut port, n, BUFFER), None);
}

#[test]
fn what_is_too_long_or_too_much_is_not_sent() {
    let world = World::new();
    let (mut client, _serving) = world.client(Abi::V7);
    let number = Request::GetInfo.number();
    let too_long = client.ioctl(number, &[0; 4081], &[]);
    assert!(matches!(too_long, Err(ClientError::TooLong)));
    let zero = std::fs::File::open("/dev/zero").unwrap();
    let five = [std::os::fd::AsFd::as_fd(&zero); 5];
    let too_many = client.ioctl(number, &[0; 16], &five);
    assert!(matches!(
        too_many,
        Err(ClientError::TooManyDescriptors(5, 4))
    ));
    client.info().unwrap();
}

#[test]
fn r42_requests_of_many_connections_at_once() {
    let world = World::new();
    let books = world.books();
    let root = world.process(&[(BUFFER, 0x1000)]);
    let day = |mut client: Client| {
        for _ in 0..50 {
            let n = client.alloc_pasid(PasidRange::ALL).unwrap();
            client.bind(n, None, Process::at(root)).unwrap();
            client
                .invalidate(Which::Translations, Invalidate::Pasid(n))
                .unwrap();
            client.free_pasid(n).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for abi in [Abi::V1, Abi::V7, Abi::V1, Abi::V7] {
            let (client, _serving) = world.client(abi);
            scope.spawn(move || day(client));
        }
    });
    world.wait_for(&books);
}

#[test]
fn r54_pasids_are_taken_as_from_dev_ioasid() {
    for abi in BOTH {
        let world = World::new();
        let (client, _serving) = world.connect(abi);
        let mut client = client.unwrap();
        assert_eq!(client.ioasid_bits().unwrap(), 20);
        let n = client.ioasid_alloc(PasidRange::only(40)).unwrap();
        assert_eq!(errno(client.ioasid_alloc(PasidRange::only(40))), ENOSPC);
        client.set_nesting(Nesting::On).unwrap();
        world.ram.store_u64(0x1000, 0xa1).unwrap();
        let process = Process::at(world.process(&[(BUFFER, 0x1000)]));
        client.bind(n, None, process).unwrap();
        let mut port = world.function.port();
        assert_eq!(read(&mut port, n, BUFFER), Some(0xa1));
        client.ioasid_free(n).unwrap();
        assert_eq!(read(&mut port, n, BUFFER), None);
        assert_eq!(errno(client.ioasid_free(n)), ENOENT);
    }
}
