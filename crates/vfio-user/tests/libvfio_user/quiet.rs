//! What libvfio-user calls quiescing: what a device may do, and is told, around a change.

use std::{os::fd::AsFd, sync::Arc};

use palisade_memory::{Backing, Protection, SharedMemory};
use palisade_units::Gpa;
use palisade_vfio_user::{ClientMemory, Errno, wire::Command};

use crate::{
    case::{Case, File, none, same},
    common::Toy,
    config::{Device, MARK_AT},
    dma::map,
    errors::BUSY,
    peer::{Peer, words},
};

const OWNER: &str = "the owner of the memory is told of a range, and not the function, which finds it when it looks";

const CASES: &[Case] = &[
    none(
        "test_device_quiesced_no_quiesce_requested",
        "a device that says it is quiet when nobody asked: EINVAL",
        BUSY,
    ),
    same(
        "test_device_quiesce_error",
        "a range that a device refuses with an error: the peer has the error",
        "what_the_owner_of_the_memory_refuses_is_refused",
    ),
    none(
        "test_device_quiesce_error_after_busy",
        "a device that is busy and then fails: the range is not kept",
        BUSY,
    ),
    none(
        "test_allowed_funcs_in_quiesced_dma_register",
        "memory is reached while a device is told of it",
        OWNER,
    ),
    none(
        "test_allowed_funcs_in_quiesced_dma_unregister",
        "memory is reached while a device is told that it goes",
        OWNER,
    ),
    none(
        "test_allowed_funcs_in_quiesced_dma_register_busy",
        "the same after the device was busy",
        BUSY,
    ),
    none(
        "test_allowed_funcs_in_quiesced_dma_unregister_busy",
        "the same after the device was busy",
        BUSY,
    ),
    same(
        "test_allowed_funcs_in_quiesced_migration",
        "memory is reached while a device is brought to STOP",
        "a_function_reaches_memory_while_it_is_stopped",
    ),
    none(
        "test_allowed_funcs_in_quiesced_migration_busy",
        "the same after the device was busy",
        BUSY,
    ),
    same(
        "test_allowed_funcs_in_quiesced_reset",
        "memory is reached while a device is reset",
        "a_function_reaches_memory_while_it_is_reset",
    ),
    none(
        "test_allowed_funcs_in_quiesced_reset_busy",
        "the same after the device was busy",
        BUSY,
    ),
    same(
        "test_flr",
        "memory is reached while a device is reset by way of configuration space",
        "a_function_reaches_memory_while_it_is_reset",
    ),
];

pub(crate) const FILE: File = File {
    name: "test_quiesce.py",
    cases: CASES,
};

/// Memory whose owner has an error of its own.
struct Refusing;

impl ClientMemory for Refusing {
    fn map(&self, _: Gpa, _: u64, _: Protection, _: Option<Backing>) -> Result<(), Errno> {
        Err(Errno::NOTTY)
    }
    fn unmap(&self, _: Gpa, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn unmap_all(&self) {}
}

#[test]
fn what_the_owner_of_the_memory_refuses_is_refused() {
    let mut peer = Peer::of(Toy::new(), Arc::new(Refusing));
    let refused = peer.ask(Command::DmaMap, &map(0x1_0000, 0x1000));
    assert_eq!(refused, Err(Errno::NOTTY));
}

/// A device whose peer has announced the page to which the device writes.
fn with_memory() -> (Arc<Device>, Peer, SharedMemory) {
    let (device, mut peer) = Device::served(&[]);
    let page = SharedMemory::create("ram", 0x1000).unwrap();
    let backing = page.backing();
    let request = map(MARK_AT.get(), 0x1000);
    peer.ask_with(Command::DmaMap, &request, &[backing.fd.as_fd()])
        .unwrap();
    (device, peer, page)
}

fn mark(page: &SharedMemory) -> u8 {
    let mut mark = [0];
    page.read(0, &mut mark).unwrap();
    mark[0]
}

#[test]
fn a_function_reaches_memory_while_it_is_stopped() {
    const SET_STATE: u32 = 0x2_0002;
    const STOP: u32 = 1;
    let (_device, mut peer, page) = with_memory();
    let stop = words(&[16, SET_STATE, STOP, 0]);
    peer.ask(Command::DeviceFeature, &stop).unwrap();
    assert_eq!(mark(&page), 1);
}

#[test]
fn a_function_reaches_memory_while_it_is_reset() {
    const EXPRESS: u8 = 0x10;
    let (device, mut peer, page) = with_memory();
    peer.ask(Command::DeviceReset, &[]).unwrap();
    assert_eq!(mark(&page), 1);
    let config = device.config.lock().unwrap();
    let express = config.capability_offset(EXPRESS).unwrap();
    drop(config);
    peer.write(7, u64::from(express) + 8, &[0x00, 0x80])
        .unwrap();
    assert_eq!(mark(&page), 2);
}
