//! What a device says of itself, its regions and its interrupts.

use palisade_vfio_user::{Errno, wire::Command};

use crate::{
    case::{Case, File, differs, none, same},
    common::{BAR0_BYTES, VECTORS},
    peer::{Peer, words, words_of},
};

const DEVICE: &[Case] = &[same(
    "test_device_get_info",
    "8 bytes, or an argsz of 8: EINVAL; an argsz of 32: a reply of 16 with PCI, RESET, 9 regions and 5 interrupt types",
    "a_device_tells_what_it_is",
)];

const INTERRUPTS: &[Case] = &[
    same(
        "test_device_get_irq_info_bad_in",
        "8 bytes, an argsz of 8, or type 5: EINVAL",
        "an_interrupt_type_must_be_asked_for_as_it_should_be",
    ),
    differs(
        "test_device_get_irq_info",
        "a larger argsz is accepted; MSI-X has its vectors, error and request have one each, all with EVENTFD",
        "an_interrupt_type_tells_how_many_there_are",
        "error and request have none: a function has MSI-X and no more",
    ),
];

const NO_MAP: &str = "no region can be mapped: each access is served";

const REGIONS: &[Case] = &[
    same(
        "test_device_get_region_info_short_write",
        "8 bytes: EINVAL",
        "a_region_must_be_asked_for_as_it_should_be",
    ),
    same(
        "test_device_get_region_info_bad_argsz",
        "an argsz of 8: EINVAL",
        "a_region_must_be_asked_for_as_it_should_be",
    ),
    same(
        "test_device_get_region_info_bad_index",
        "region 9: EINVAL",
        "a_region_must_be_asked_for_as_it_should_be",
    ),
    same(
        "test_device_get_region_info_larger_argsz",
        "an argsz of 40: a reply of 32 with READ, WRITE, the size, no capabilities",
        "a_region_tells_its_size",
    ),
    none(
        "test_device_get_region_info_small_argsz_caps",
        "a region with mappable areas and no room for them: argsz says how much it would take",
        NO_MAP,
    ),
    differs(
        "test_device_get_region_info_caps",
        "a request that is as long as its argsz of 80: accepted, with the mappable areas and a descriptor",
        "a_request_may_bring_the_room_for_its_reply",
        "accepted, without areas and descriptor: no region can be mapped",
    ),
    same(
        "test_device_get_pci_config_space_info_implicit_pci_init",
        "configuration space of 4096 bytes, READ and WRITE",
        "a_region_tells_its_size",
    ),
    none(
        "test_device_get_pci_config_space_info_implicit_no_pci_init",
        "configuration space of a conventional device, 256 bytes",
        "each function is PCI Express",
    ),
    same(
        "test_device_get_region_info_32bit_bar_size_detection",
        "BARs of 32 bits are sized by writing all ones: 4, 8 and 16 KiB",
        "bars_of_32_bits_are_sized_by_writing_all_ones",
    ),
    same(
        "test_64bit_bar_size_detection_protocol",
        "BARs of 64 bits are sized by writing all ones to both halves: 4, 8 and 16 GiB",
        "bars_of_64_bits_are_sized_by_writing_all_ones",
    ),
];

const ZERO_SIZED: &[Case] = &[same(
    "test_device_get_region_info_zero_sized_region",
    "a region that is not there: no flags, no size, no capabilities",
    "a_region_that_is_not_there_is_empty",
)];

pub(crate) const FILES: [File; 4] = [
    File {
        name: "test_device_get_info.py",
        cases: DEVICE,
    },
    File {
        name: "test_device_get_irq_info.py",
        cases: INTERRUPTS,
    },
    File {
        name: "test_device_get_region_info.py",
        cases: REGIONS,
    },
    File {
        name: "test_device_get_region_info_zero_size.py",
        cases: ZERO_SIZED,
    },
];

const REGION: Command = Command::DeviceGetRegionInfo;
const IRQ: Command = Command::DeviceGetIrqInfo;

/// A request for a region.
fn region(argsz: u32, index: u32) -> Vec<u8> {
    words(&[argsz, 0, index, 0, 0, 0, 0, 0])
}

#[test]
fn a_device_tells_what_it_is() {
    let mut peer = Peer::any();
    let mut info = |payload: &[u32]| peer.ask(Command::DeviceGetInfo, &words(payload));
    assert_eq!(info(&[0, 0]), Err(Errno::INVAL));
    assert_eq!(info(&[8, 0, 0, 0]), Err(Errno::INVAL));
    const RESET_AND_PCI: u32 = 1 | 2;
    let reply = info(&[32, 0, 0, 0]).unwrap();
    assert_eq!(words_of(&reply), [16, RESET_AND_PCI, 9, 5]);
}

#[test]
fn an_interrupt_type_must_be_asked_for_as_it_should_be() {
    let mut peer = Peer::any();
    for payload in [&[0, 0][..], &[8, 0, 4, 0], &[16, 0, 5, 0]] {
        assert_eq!(peer.ask(IRQ, &words(payload)), Err(Errno::INVAL));
    }
}

#[test]
fn an_interrupt_type_tells_how_many_there_are() {
    let mut peer = Peer::any();
    let mut info = |argsz, index| words_of(&peer.ask(IRQ, &words(&[argsz, 0, index, 0])).unwrap());
    const EVENTFD: u32 = 1;
    for argsz in [16, 32] {
        assert_eq!(info(argsz, 2), [16, EVENTFD, 2, VECTORS.into()]);
        for index in [0, 1, 3, 4] {
            assert_eq!(info(argsz, index), [16, 0, index, 0]);
        }
    }
}

#[test]
fn a_region_must_be_asked_for_as_it_should_be() {
    let mut peer = Peer::any();
    for payload in [words(&[0, 0]), region(8, 1), region(32, 9)] {
        assert_eq!(peer.ask(REGION, &payload), Err(Errno::INVAL));
    }
}

#[test]
fn a_region_tells_its_size() {
    const READ_AND_WRITE: u32 = 1 | 2;
    let mut peer = Peer::any();
    for (index, size) in [(0, BAR0_BYTES as u32), (7, 4096)] {
        let reply = peer.ask(REGION, &region(40, index)).unwrap();
        let expected = [32, READ_AND_WRITE, index, 0, size, 0, 0, 0];
        assert_eq!(words_of(&reply), expected);
    }
}

#[test]
fn a_request_may_bring_the_room_for_its_reply() {
    let mut peer = Peer::any();
    let request = [region(80, 0), vec![0; 48]].concat();
    let reply = peer.ask(REGION, &request).unwrap();
    assert_eq!(
        words_of(&reply),
        words_of(&peer.ask(REGION, &region(32, 0)).unwrap())
    );
    for (command, payload) in [
        (IRQ, [32, 0, 2, 0]),
        (Command::DeviceGetInfo, [32, 0, 0, 0]),
    ] {
        let exact = peer.ask(command, &words(&payload)).unwrap();
        let longer = [words(&payload), vec![0; 16]].concat();
        assert_eq!(peer.ask(command, &longer), Ok(exact));
    }
}

#[test]
fn a_region_that_is_not_there_is_empty() {
    let mut peer = Peer::any();
    for index in [1, 3, 4, 5, 6, 8] {
        let reply = peer.ask(REGION, &region(32, index)).unwrap();
        assert_eq!(words_of(&reply), [32, 0, index, 0, 0, 0, 0, 0]);
    }
}
