//! Spaces, tables and devices: what they are made of, and what keeps them.

use palisade_memory::Limits;

use super::*;

#[test]
fn r75_ids_are_the_lowest_that_are_free() {
    let rig = Rig::new();
    assert_eq!([(); 3].map(|()| rig.space().unwrap()), [1, 2, 3]);
    rig.destroy(2).unwrap();
    assert_eq!(rig.space(), Ok(2));
    for id in [0, 4, u32::MAX] {
        assert_eq!(rig.destroy(id), Err(ENOENT));
    }
}

#[test]
fn r75_an_object_in_use_stays() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 7, nested).unwrap();
    let space = 2;
    for id in [space, parent, nested, device] {
        assert_eq!(rig.destroy(id), Err(EBUSY), "{id}");
    }
    rig.detach_pasid(PLACE, 7).unwrap();
    for id in [nested, parent, space] {
        rig.destroy(id).unwrap();
        assert_eq!(rig.destroy(id), Err(ENOENT));
    }
    assert_eq!(rig.destroy(device), Err(EBUSY), "until its file is closed");
    rig.close(PLACE).unwrap();
    assert_eq!(rig.destroy(device), Err(ENOENT));
}

#[test]
fn r75_an_object_of_another_type_is_not_found() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(1);
    let space = 2;
    assert_eq!(rig.map_file(parent, 7, RAM_BYTES, 0x1000), Err(ENOENT));
    assert_eq!(rig.unmap(device, 0, u64::MAX), Err(ENOENT));
    assert_eq!(rig.table(0, space, space), Err(ENOENT), "no device");
    assert_eq!(rig.table(0, device, 99), Err(ENOENT));
    assert_eq!(rig.table(0, device, device), Err(EINVAL));
    let faults = rig.nested_with(FAULT_ID_VALID, device, (parent, space), process);
    assert_eq!(faults, Err(ENOENT));
    assert_eq!(rig.attach(PLACE, 99), Err(ENOENT));
    assert_eq!(rig.attach(PLACE, device), Err(EINVAL));
}

#[test]
fn r75_a_nested_table_has_a_parent_and_data_that_fit() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(1);
    let plain = rig.table(PASID, device, 2).unwrap();
    assert_eq!(rig.nested(0, device, plain, process), Err(EINVAL));
    let nested = rig.nested(0, device, parent, process).unwrap();
    assert_eq!(rig.nested(0, device, nested, process), Err(EINVAL));
    assert_eq!(
        rig.nested(NEST_PARENT, device, parent, process),
        Err(EOPNOTSUPP)
    );
    assert_eq!(
        rig.table(0, device, parent),
        Err(EOPNOTSUPP),
        "without data"
    );
    let with = |data_type: u32, len: u32, at: u32, data: &[u8]| {
        let head = words(&[48, 0, device, parent, 0, 0, data_type, len, at, 0, 0, 0]);
        let answer = rig.ask(HWPT_ALLOC, &[&head[..], data].concat());
        answer.map(|answer| word(&answer.written, 16))
    };
    let data = |flags: u64, root: u64, width: u32, reserved: u32| {
        let quads = [flags, root].map(u64::to_le_bytes).concat();
        [quads, words(&[width, reserved])].concat()
    };
    let good = data(7, 0x8_0000, 57, 0);
    with(1, 24, 48, &good).unwrap();
    with(1, 32, 48, &[good.clone(), vec![0; 8]].concat()).unwrap();
    let beyond = [good.clone(), words(&[0, 1])].concat();
    assert_eq!(with(1, 32, 48, &beyond), Err(E2BIG));
    assert_eq!(with(1, 16, 48, &good), Err(EINVAL), "too short");
    assert_eq!(with(1, 24, 48, &good[..23]), Err(EFAULT));
    assert_eq!(with(1, 24, 47, &good), Err(EFAULT), "inside the argument");
    assert_eq!(with(1, 24, u32::MAX, &good), Err(EFAULT));
    assert_eq!(with(1, 0, 48, &good), Err(EINVAL));
    assert_eq!(with(0, 24, 48, &good), Err(EINVAL));
    assert_eq!(with(2, 24, 48, &good), Err(EOPNOTSUPP), "another unit's");
    for (bad, errno) in [
        (data(8, 0x8_0000, 48, 0), EOPNOTSUPP),
        (data(0, 0x8_0000, 48, 1), EOPNOTSUPP),
        (data(0, 0x8_0000, 39, 0), EINVAL),
        (data(0, 0x8_0800, 48, 0), EINVAL),
    ] {
        assert_eq!(with(1, 24, 48, &bad), Err(errno));
    }
}

#[test]
fn r44_r75_memory_is_mapped_from_files_and_unmapped() {
    let rig = Rig::new();
    rig.bind(PLACE).unwrap();
    let space = rig.space().unwrap();
    rig.attach(PLACE, space).unwrap();
    rig.alice.ram.store_u64(0, 0xa1).unwrap();
    assert_eq!(rig.sees_plainly(0x4000), None);
    rig.map_file(space, 5, 0x4000, 0x1000).unwrap();
    rig.map_file(space, 7, 0x8000, 0x1000).unwrap();
    assert_eq!(rig.sees_plainly(0x4000), Some(0xa1));
    assert_eq!(rig.map_file(space, 7, 0x4000, 0x1000), Err(EEXIST));
    for (flags, errno) in [
        (6, EOPNOTSUPP),
        (3, EOPNOTSUPP),
        (1, EINVAL),
        (15, EOPNOTSUPP),
    ] {
        assert_eq!(rig.map_file(space, flags, 0, 0x1000), Err(errno), "{flags}");
    }
    const EOVERFLOW: i32 = 75;
    assert_eq!(rig.map_file(space, 7, !0xfff, 0x2000), Err(EOVERFLOW));
    assert_eq!(rig.map_file(space, 7, 0x800, 0x1000), Err(EINVAL));
    assert_eq!(rig.unmap(space, 0x4000, 0x800), Err(ENOENT), "it is cut");
    assert_eq!(rig.unmap(space, 0x4000, 0), Err(EINVAL));
    assert_eq!(rig.unmap(space, !0xfff, 0x2000), Err(EOVERFLOW));
    assert_eq!(rig.unmap(space, 0x5000, 0x1000), Err(ENOENT));
    assert_eq!(rig.unmap(space, 0x4000, 0x1000), Ok(0x1000));
    assert_eq!(rig.sees_plainly(0x4000), None);
    assert_eq!(rig.sees_plainly(0x8000), Some(0xa1));
    assert_eq!(rig.unmap(space, 0, u64::MAX), Ok(0x1000));
    assert_eq!(rig.sees_plainly(0x8000), None);
    let without = [words(&[40, 7, space, 0]), vec![0; 24]].concat();
    assert_eq!(rig.ask(IOAS_MAP_FILE, &without).unwrap_err(), EBADF);
}

/// As VMMs do that unmap a section, or one half of all addresses, whatever is in it.
#[test]
fn r75_a_range_may_have_holes_and_cuts_no_map() {
    let rig = Rig::new();
    let space = rig.space().unwrap();
    for at in [0x4000, 0x8000, 0x1_0000] {
        rig.map_file(space, 7, at, 0x2000).unwrap();
    }
    assert_eq!(rig.unmap(space, 0x5000, 0x8000), Err(ENOENT));
    assert_eq!(rig.unmap(space, 0, 0x9000), Err(ENOENT));
    assert_eq!(rig.unmap(space, 0, 0xa000), Ok(0x4000));
    assert_eq!(rig.unmap(space, 0, 0xa000), Err(ENOENT));
    assert_eq!(rig.unmap(space, 1 << 63, 1 << 63), Err(ENOENT));
    assert_eq!(rig.unmap(space, 0, 1 << 63), Ok(0x2000));
    assert_eq!(rig.unmap(space, 0, u64::MAX), Ok(0), "everything");
}

#[test]
fn r75_where_memory_may_be_mapped_is_told() {
    let rig = Rig::new();
    const EMSGSIZE: i32 = 90;
    let space = rig.space().unwrap();
    let ask = |id, room, at| {
        let request = words(&[32, id, room, 0, at, 0, 0, 0]);
        let answer = rig
            .fd
            .ioctl(On::Iommufd, Number::new(0x3b84), &request, vec![]);
        let answer = answer.map(|answer| answer.written);
        answer.map_err(|refused| (refused.errno.get(), refused.written))
    };
    let told = ask(space, 9, 32).unwrap();
    assert_eq!(told.len(), 64);
    assert_eq!((word(&told, 8), quad(&told, 24)), (2, 4096));
    let ends = [32, 40, 48, 56].map(|at| quad(&told, at));
    assert_eq!(ends, [0, 0xfedf_ffff, 0xfef0_0000, (1 << 52) - 1]);
    let (errno, written) = ask(space, 1, 32).unwrap_err();
    assert_eq!((errno, word(&written, 8)), (EMSGSIZE, 2));
    assert_eq!(ask(space, 2, 31).unwrap_err().0, EFAULT);
    assert_eq!(ask(9, 2, 32).unwrap_err().0, ENOENT);
    for (at, outcome) in [
        (0xfee0_0000, Err(EINVAL)),
        (0xfedf_f000, Err(EINVAL)),
        (0xfede_f000, Ok(())),
        (0xfef0_0000, Ok(())),
        (1 << 52, Err(EINVAL)),
    ] {
        assert_eq!(rig.map_file(space, 7, at, 0x1_1000), outcome, "{at:#x}");
    }
}

#[test]
fn r75_a_device_is_bound_once_and_reaches_nothing_until_it_is_attached() {
    let rig = Rig::new();
    let books = rig.host_side.books();
    assert_eq!(rig.attach(PLACE, 1), Err(EINVAL), "not bound");
    assert_eq!(rig.bind(Bdf::new(0, 9, 0)), Err(ENODEV));
    rig.alice.ram.store_u64(0, 0xa1).unwrap();
    rig.guest_space();
    let device = rig.bind(PLACE).unwrap();
    assert_eq!(rig.bind(PLACE), Err(EINVAL));
    assert_eq!(rig.sees_plainly(0), None);
    assert_eq!(device, 2);
    let mut rig = rig;
    let other = rig.vmm.connect_iommufd();
    let first = std::mem::replace(&mut rig.fd, other);
    assert_eq!(rig.bind(PLACE), Err(EEXIST), "another connection has it");
    drop(first);
    assert_eq!(rig.bind(PLACE), Ok(1));
    rig.close(PLACE).unwrap();
    assert_eq!(rig.close(PLACE), Err(ENODEV));
    assert_eq!(rig.host_side.books(), books);
}

#[test]
fn r78_objects_are_bounded() {
    let rig = Rig::new();
    const ENOMEM: i32 = 12;
    let spaces = std::iter::repeat_with(|| rig.space()).take_while(Result::is_ok);
    assert_eq!(spaces.count(), 16);
    assert_eq!(rig.space(), Err(ENOMEM));
    let device = {
        rig.destroy(1).unwrap();
        rig.bind(PLACE).unwrap()
    };
    let tables = std::iter::repeat_with(|| rig.table(0, device, 2)).take_while(Result::is_ok);
    assert_eq!(tables.count(), 4096 - 16);
    assert_eq!(rig.table(0, device, 2), Err(ENOMEM));
}

/// Mappings are finite and all tenants share them: neither more spaces nor more connections give a VMM more.
#[test]
fn r78_what_the_spaces_of_a_vmm_map_is_bounded_together() {
    let rig = Rig::limited_to(Limits {
        regions: 3,
        bytes: 8 << 12,
    });
    let [one, two] = [(); 2].map(|()| rig.space().unwrap());
    rig.map_file(one, 7, 0, 0x1000).unwrap();
    rig.map_file(one, 7, 0x1000, 0x1000).unwrap();
    rig.map_file(two, 7, 0, 0x1000).unwrap();
    assert_eq!(rig.map_file(two, 7, 0x1000, 0x1000), Err(ENOSPC));
    let mut rig = rig;
    let other = rig.vmm.connect_iommufd();
    let first = std::mem::replace(&mut rig.fd, other);
    let three = rig.space().unwrap();
    assert_eq!(rig.map_file(three, 7, 0, 0x1000), Err(ENOSPC));
    // What is unmapped, destroyed or gone with its connection can be had again; bytes count as regions do.
    let other = std::mem::replace(&mut rig.fd, first);
    rig.unmap(one, 0x1000, 0x1000).unwrap();
    assert_eq!(rig.map_file(two, 7, 0x1000, 0x7000), Err(ENOSPC));
    rig.map_file(two, 7, 0x1000, 0x6000).unwrap();
    rig.destroy(two).unwrap();
    rig.map_file(one, 7, 0x1000, 0x7000).unwrap();
    drop(std::mem::replace(&mut rig.fd, other));
    rig.map_file(three, 7, 0, 0x8000).unwrap();
}

/// What devices remember of memory that was unmapped does not keep a VMM from mapping it again.
#[test]
fn r44_r78_what_is_unmapped_can_be_mapped_again_at_once() {
    let rig = Rig::limited_to(Limits {
        regions: 1,
        bytes: RAM_BYTES,
    });
    rig.bind(PLACE).unwrap();
    let space = rig.guest_space();
    rig.attach(PLACE, space).unwrap();
    let hold = rig.alice.container.default_hold(PLACE).unwrap();
    let mut port = rig.parents[0].port();
    for _ in 0..3 {
        read(&mut port, holding(&hold), 0x1000).unwrap();
        rig.unmap(space, 0, RAM_BYTES).unwrap();
        rig.map_file(space, 7, 0, RAM_BYTES).unwrap();
    }
}
