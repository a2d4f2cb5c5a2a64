//! Reading and writing regions, and by what else they could be reached.

use palisade_pci::{Bar, BarSpec};
use palisade_vfio_user::{
    Errno,
    wire::{Command, MAX_DATA_BYTES},
};

use crate::{
    case::{Case, File, differs, none, same},
    config::{Device, space},
    peer::{Peer, longs, words, words_of},
};

const TYPES: &str =
    "a region is a method's result and not set up: what is no region cannot be said";
const NO_MAP: &str = "no region can be mapped: each access is served";
const NO_FDS: &str = "no region is reached by a descriptor: each access is served";

const SETUP: &[Case] = &[
    none(
        "test_setup_region_bad_flags",
        "a region with unknown flags, or none: EINVAL",
        TYPES,
    ),
    none(
        "test_setup_region_bad_mmap_areas",
        "mappable areas without a count, a list, a descriptor or room: EINVAL",
        NO_MAP,
    ),
    none(
        "test_setup_region_bad_index",
        "region -2, or 9: EINVAL",
        TYPES,
    ),
    none(
        "test_setup_region_bad_pci",
        "configuration space as memory: EINVAL",
        TYPES,
    ),
    differs(
        "test_setup_region_64bit_bar_odd_indices",
        "a BAR of 64 bits at an odd place: EINVAL",
        "a_bar_of_64_bits_takes_the_next_register",
        "an error at place 5 alone, which has no next register; PCI wants no more",
    ),
    same(
        "test_setup_region_64bit_even_then_odd_fails",
        "a BAR in the upper half of one of 64 bits: EINVAL",
        "a_bar_of_64_bits_takes_the_next_register",
    ),
    same(
        "test_setup_region_64bit_odd_then_even_fails",
        "a BAR of 64 bits whose upper half is taken: EINVAL",
        "a_bar_of_64_bits_takes_the_next_register",
    ),
    none(
        "test_setup_region_cfg_always_cb_nocb",
        "configuration space that is to call nobody: EINVAL",
        TYPES,
    ),
    same(
        "test_setup_region_cfg_always_cb",
        "a device that answers for configuration space itself",
        "configuration_space_is_the_functions_own",
    ),
    same(
        "test_region_offset_overflow",
        "256 bytes from offset 2^64-1 on: EINVAL",
        "an_access_ends_where_its_region_ends",
    ),
    same(
        "test_access_region_zero_count",
        "no bytes are read and written: accepted",
        "an_access_of_no_bytes_is_accepted",
    ),
    same(
        "test_access_region_large_count",
        "more is read than the server gives at a time: EINVAL",
        "an_access_ends_where_its_region_ends",
    ),
    same(
        "test_region_offset_too_short",
        "a write of 8 bytes, which is half of its fixed part: EINVAL",
        "an_access_says_where_it_goes",
    ),
    same(
        "test_setup_region_large_64bit_bar_sizes",
        "BARs of 4 and 8 GiB tell their size",
        "a_region_may_be_larger_than_4_gib",
    ),
];

const SENSE: &str = "descriptors_must_be_asked_for_as_they_should_be";
const NONE: &str = "no_descriptor_reaches_a_region";

const IO_FDS: &[Case] = &[
    same(
        "test_device_get_region_io_fds_bad_flags",
        "a flag: EINVAL",
        SENSE,
    ),
    same(
        "test_device_get_region_io_fds_bad_count",
        "a count of 1: EINVAL",
        SENSE,
    ),
    same(
        "test_device_get_region_io_fds_buffer_too_small",
        "an argsz below the reply's fixed part: EINVAL",
        SENSE,
    ),
    same(
        "test_device_get_region_io_fds_buffer_too_large",
        "an argsz above what the server gives at a time: EINVAL",
        SENSE,
    ),
    same(
        "test_device_get_region_io_fds_no_fds",
        "a region without descriptors: a reply with a count of 0",
        NONE,
    ),
    same(
        "test_device_get_region_io_fds_no_regions_setup",
        "a region that is not there: EINVAL",
        SENSE,
    ),
    same(
        "test_device_get_region_io_fds_region_no_mmap",
        "a region that cannot be mapped: a reply with a count of 0",
        NONE,
    ),
    same(
        "test_device_get_region_io_fds_region_out_of_range",
        "region 512: EINVAL",
        SENSE,
    ),
    none(
        "test_device_get_region_io_fds_fds_read_write",
        "six descriptors come and are written and read",
        NO_FDS,
    ),
    none(
        "test_device_get_region_io_fds_full",
        "six descriptors with their offsets and sizes fill the reply",
        NO_FDS,
    ),
    none(
        "test_device_get_region_io_fds_fds_read_write_nothing",
        "no room for the six there are: argsz says how much it would take",
        NO_FDS,
    ),
    none(
        "test_device_get_region_io_fds_fds_read_write_dupe_fd",
        "one descriptor for two offsets comes once",
        NO_FDS,
    ),
    none(
        "test_device_get_region_io_fds_ioeventfd_invalid_size",
        "a descriptor for a place that reaches beyond its region: refused",
        NO_FDS,
    ),
    none(
        "test_device_get_region_io_fds_invalid_fd",
        "places without a descriptor are told with one of -1",
        NO_FDS,
    ),
];

const SHADOW: &[Case] = &[
    same(
        "test_shadow_ioeventfd_none",
        "a region without descriptors: a reply with a count of 0",
        NONE,
    ),
    none(
        "test_shadow_ioeventfd",
        "a descriptor and memory beside it, in which the value stands that was written",
        NO_FDS,
    ),
];

pub(crate) const FILES: [File; 3] = [
    File {
        name: "test_device_get_region_io_fds.py",
        cases: IO_FDS,
    },
    File {
        name: "test_setup_region.py",
        cases: SETUP,
    },
    File {
        name: "test_shadow_ioeventfd.py",
        cases: SHADOW,
    },
];

const CONFIG: u32 = 7;

#[test]
fn a_bar_of_64_bits_takes_the_next_register() {
    let (wide, narrow) = (BarSpec::memory64(0x1000), BarSpec::memory32(0x1000));
    assert!(space(&[(Bar::Bar5, wide)]).is_err());
    for (first, second) in [
        (Bar::Bar0, Bar::Bar1),
        (Bar::Bar2, Bar::Bar3),
        (Bar::Bar4, Bar::Bar5),
    ] {
        assert!(space(&[(first, wide)]).is_ok());
        assert!(space(&[(first, wide), (second, narrow)]).is_err());
        assert!(space(&[(second, narrow), (first, wide)]).is_err());
    }
}

#[test]
fn configuration_space_is_the_functions_own() {
    // The toy has bytes of its own there, and no header.
    assert_eq!(Peer::any().read(CONFIG, 0, 2), Ok(vec![0, 1]));
}

#[test]
fn an_access_ends_where_its_region_ends() {
    let mut peer = Peer::any();
    assert_eq!(peer.read(CONFIG, u64::MAX, 256), Err(Errno::INVAL));
    assert_eq!(peer.read(CONFIG, 0, MAX_DATA_BYTES + 8), Err(Errno::INVAL));
    assert_eq!(peer.read(2, 0, MAX_DATA_BYTES + 8), Err(Errno::INVAL));
    assert_eq!(peer.read(2, 0, MAX_DATA_BYTES).unwrap().len(), 65_536);
}

#[test]
fn an_access_of_no_bytes_is_accepted() {
    let mut peer = Peer::any();
    assert_eq!(peer.read(0, 0, 0), Ok(vec![]));
    assert_eq!(peer.write(0, 0, &[]), Ok(()));
    // The function, which takes writes of eight bytes here and no others, does not hear of it.
    assert_eq!(peer.write(2, 0, &[]), Ok(()));
    assert_eq!(peer.write(2, 0, &[0; 4]), Err(Errno::INVAL));
    assert_eq!(peer.read(9, 0, 0), Err(Errno::INVAL));
    assert_eq!(peer.read(1, 1, 0), Err(Errno::INVAL));
}

#[test]
fn an_access_says_where_it_goes() {
    let half = Peer::any().ask(Command::RegionWrite, &longs(&[0]));
    assert_eq!(half, Err(Errno::INVAL));
}

#[test]
fn a_region_may_be_larger_than_4_gib() {
    const GIB: u64 = 1 << 30;
    let bars = [
        (Bar::Bar2, BarSpec::memory64(4 * GIB)),
        (Bar::Bar4, BarSpec::memory64(8 * GIB)),
    ];
    let (_device, mut peer) = Device::served(&bars);
    for (index, gib) in [(2, 4), (3, 0), (4, 8), (5, 0)] {
        let request = words(&[40, 0, index, 0, 0, 0, 0, 0]);
        let reply = peer.ask(Command::DeviceGetRegionInfo, &request).unwrap();
        let words = words_of(&reply);
        assert_eq!((words[0], words[2]), (32, index));
        assert_eq!(reply[16..24], (gib * GIB).to_ne_bytes());
    }
}

fn io_fds(
    peer: &mut Peer,
    argsz: u32,
    flags: u32,
    index: u32,
    count: u32,
) -> Result<Vec<u32>, Errno> {
    let request = words(&[argsz, flags, index, count]);
    let reply = peer.ask(Command::DeviceGetRegionIoFds, &request)?;
    Ok(words_of(&reply))
}

#[test]
fn descriptors_must_be_asked_for_as_they_should_be() {
    let mut peer = Peer::any();
    for (argsz, flags, index, count) in [
        (176, 1, 2, 0),
        (176, 0, 2, 1),
        (15, 0, 2, 0),
        (MAX_DATA_BYTES + 1, 0, 2, 0),
        (512, 0, 3, 0),
        (512, 0, 512, 0),
    ] {
        let refused = io_fds(&mut peer, argsz, flags, index, count);
        assert_eq!(refused, Err(Errno::INVAL));
    }
}

#[test]
fn no_descriptor_reaches_a_region() {
    let mut peer = Peer::any();
    for index in [0, 2, 7] {
        assert_eq!(
            io_fds(&mut peer, 512, 0, index, 0),
            Ok(vec![16, 0, index, 0])
        );
    }
}
