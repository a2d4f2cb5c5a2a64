//! The device over plain memory and an IOMMU: what its driver, the guest's unit and a process see.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod rig;

use edu::registers::{self, Outcome};
use palisade_iommu::{Cached, DmaError, PageResponse, Requester, Scope};
use palisade_pci::{AccessError, Bar, Function};
use palisade_units::{Access, Iova};
use rig::{Rig, tag};

#[test]
fn the_device_says_who_it_is_and_that_it_lives() {
    let rig = Rig::new();
    assert_eq!(rig.config_u32(0), 0xed01_1234);
    assert_eq!(rig.read(registers::IDENTIFICATION), 0x0100_00ed);
    rig.write(registers::LIVENESS, 0x1234_5678);
    assert_eq!(rig.read(registers::LIVENESS), 0xedcb_a987);
}

#[test]
fn a_factorial_is_computed_beside_the_driver_and_told_by_an_interrupt() {
    let rig = Rig::new();
    rig.write(registers::STATUS, registers::INTERRUPT_WHEN_COMPUTED);
    for (n, factorial) in [(0, 1), (5, 120), (12, 479_001_600), (33, 1 << 31), (34, 0)] {
        rig.write(registers::FACTORIAL, n);
        rig.interrupted();
        assert_eq!(rig.read(registers::STATUS) & registers::COMPUTING, 0);
        assert_eq!(rig.read(registers::FACTORIAL), factorial);
        assert_eq!(rig.read(registers::CAUSE), registers::COMPUTED);
        rig.write(registers::ACKNOWLEDGE, registers::COMPUTED);
        assert_eq!(rig.read(registers::CAUSE), 0);
    }
}

#[test]
fn r76_a_copy_is_by_a_processs_addresses_or_by_the_machines() {
    let rig = Rig::new();
    rig.enable_pasid();
    rig.map(0x5000, 0x20_0000);
    rig.map(0x6000, 0x30_0000);
    rig.shared.store_u64(0x20_0ff8, 0x6d65_6d6f_7279).unwrap();
    rig.work_for(Some(rig::PROCESS));
    rig.start(0x5ff8, 0x6000, 8);
    rig.interrupted();
    assert_eq!(rig.read(registers::RESULT), Outcome::Done as u32);
    assert_eq!(rig.read_u64(registers::DONE), 8);
    assert_eq!(rig.read(registers::CAUSE), registers::COPIED);
    assert_eq!(rig.memory(0x30_0000), 0x6d65_6d6f_7279);
    // The same numbers, without a process.
    rig.work_for(None);
    rig.shared.store_u64(0x5ff8, 1).unwrap();
    rig.start(0x5ff8, 0x6000, 8);
    assert_eq!(rig.outcome(), Outcome::Done as u32);
    assert_eq!(rig.memory(0x6000), 1);
    assert_eq!(rig.memory(0x30_0000), 0x6d65_6d6f_7279);
}

#[test]
fn doorbells_of_32_bits_do_what_those_of_64_do() {
    let rig = Rig::new();
    rig.shared.store_u64(0x2000, 77).unwrap();
    for (at, value) in [
        (registers::SOURCE, 0x2000),
        (registers::SOURCE + 4, 0),
        (registers::DESTINATION, 0x3000),
        (registers::DESTINATION + 4, 0),
        (registers::COUNT, 8),
        (registers::COUNT + 4, 0),
        (registers::COMMAND + 4, 1),
        (registers::COMMAND, registers::START),
    ] {
        assert_eq!(rig.memory(0x3000), 0, "nothing but the last one starts");
        rig.write(at, value);
    }
    assert_eq!(rig.outcome(), Outcome::Done as u32);
    assert_eq!(rig.memory(0x3000), 77);
    rig.not_interrupted();
}

#[test]
fn other_widths_are_refused() {
    let rig = Rig::new();
    for (at, len) in [(0, 1), (0, 2), (2, 4), (4, 8), (0, 16)] {
        let error = rig.edu.bar_write(Bar::Bar0, at, &vec![0; len]);
        assert!(
            matches!(error, Err(AccessError::Width { .. })),
            "{len} at {at}"
        );
    }
}

#[test]
fn r76_a_missing_page_is_asked_for_and_the_copy_goes_on_when_it_comes() {
    let rig = Rig::new();
    rig.enable_pasid();
    rig.enable_ats();
    rig.enable_page_requests();
    rig.map(0x5000, 0x20_0000);
    rig.map(0x6000, 0x21_0000);
    rig.map(0x8000, 0x30_0000);
    rig.work_for(Some(rig::PROCESS));
    rig.start(0x5000, 0x8000, 8192);
    let asked = rig.page_request(0);
    assert_eq!((asked.at, asked.access), (Iova::new(0x9000), Access::WRITE));
    assert_eq!(asked.pasid.map(|pasid| pasid.get()), Some(rig::PROCESS));
    assert_ne!(rig.read(registers::COMMAND) & registers::START, 0);
    // The driver is not held up meanwhile.
    rig.write(registers::FACTORIAL, 4);
    rig.map(0x9000, 0x31_0000);
    rig.shared.store_u64(0x21_0ff8, 5).unwrap();
    rig.function
        .respond(Some(tag()), asked.group, PageResponse::Success)
        .unwrap();
    rig.interrupted();
    assert_eq!(rig.read(registers::RESULT), Outcome::Done as u32);
    assert_eq!(rig.read_u64(registers::DONE), 8192);
    assert_eq!(rig.memory(0x31_0ff8), 5);
    assert_eq!(rig.read(registers::FACTORIAL), 24);
    // The next one does not come.
    rig.start(0x5000, 0xa000, 8);
    let asked = rig.page_request(1);
    rig.function
        .respond(Some(tag()), asked.group, PageResponse::Invalid)
        .unwrap();
    rig.interrupted();
    assert_eq!(rig.read(registers::RESULT), Outcome::NoPage as u32);
    assert_eq!(rig.read_u64(registers::STOPPED_AT), 0xa000);
    assert!(rig.told.faults.lock().unwrap().is_empty());
}

#[test]
fn r16_a_wrong_address_is_told_to_the_driver_and_to_the_unit() {
    let rig = Rig::new();
    rig.enable_pasid();
    rig.map(0x5000, 0x20_0000);
    rig.work_for(Some(rig::PROCESS));
    rig.start(0x5000, 0x8010, 8);
    rig.interrupted();
    assert_eq!(rig.read(registers::RESULT), Outcome::Faulted as u32);
    assert_eq!(rig.read_u64(registers::STOPPED_AT), 0x8010);
    assert_eq!(rig.read_u64(registers::DONE), 0);
    let faults = rig.told.faults.lock().unwrap();
    assert_eq!(faults[0].at, Iova::new(0x8010));
}

#[test]
fn a_pasid_that_the_guests_kernel_did_not_enable_is_refused_by_the_platform() {
    let rig = Rig::new();
    rig.map(0x5000, 0x20_0000);
    rig.work_for(Some(rig::PROCESS));
    rig.start(0x5000, 0x5008, 8);
    assert_eq!(rig.outcome(), Outcome::Faulted as u32);
}

#[test]
fn without_bus_mastering_nothing_is_accessed_and_nothing_interrupts() {
    let rig = Rig::new();
    rig.edu.config_write(4, &[0b010]);
    rig.shared.store_u64(0x2000, 77).unwrap();
    rig.start(0x2000, 0x3000, 8);
    assert_eq!(rig.outcome(), Outcome::Refused as u32);
    assert_eq!(rig.memory(0x3000), 0);
    rig.not_interrupted();
}

#[test]
fn a_copy_that_is_too_long_is_refused() {
    let rig = Rig::new();
    for len_bytes in [(1 << 20) + 1, u64::MAX] {
        rig.start(0, 0x3000, len_bytes);
        assert_eq!(rig.outcome(), Outcome::Refused as u32);
    }
}

#[test]
fn a_function_level_reset_drops_what_waits_and_takes_every_right() {
    let rig = Rig::new();
    rig.enable_pasid();
    rig.enable_ats();
    rig.enable_page_requests();
    rig.work_for(Some(rig::PROCESS));
    rig.start(0x5000, 0x8000, 8);
    let asked = rig.page_request(0);
    // Device Control of the PCI Express capability, which is the first.
    let express = u16::try_from(rig.config_u32(0x34) & 0xff).unwrap();
    rig.edu.config_write(express + 8, &[0, 0x80]);
    assert_eq!(rig.read(registers::COMMAND), 0);
    assert_eq!(rig.read(registers::PASID), 0);
    assert_eq!(rig.config_u32(4) & 0xffff, 0);
    // The answer comes too late, and the platform lets no PASID pass.
    rig.map(0x5000, 0x20_0000);
    rig.map(0x8000, 0x30_0000);
    rig.function
        .respond(Some(tag()), asked.group, PageResponse::Success)
        .unwrap();
    let by = Requester::new(Some(tag()));
    let read = rig.function.port().read(by, Iova::new(0x5000), &mut [0; 8]);
    assert!(matches!(read, Err(DmaError::Faulted { .. })));
    assert_eq!(rig.outcome(), 0);
}

#[test]
fn with_ats_the_device_keeps_a_translation_until_its_own_is_invalidated() {
    let rig = Rig::new();
    rig.enable_pasid();
    rig.enable_ats();
    rig.map(0x5000, 0x20_0000);
    rig.map(0x6000, 0x30_0000);
    rig.work_for(Some(rig::PROCESS));
    let copy = || {
        rig.start(0x5000, 0x6000, 8);
        rig.interrupted();
        rig.memory(0x30_0000)
    };
    rig.shared.store_u64(0x20_0000, 1).unwrap();
    rig.shared.store_u64(0x21_0000, 2).unwrap();
    assert_eq!(copy(), 1);
    rig.map(0x5000, 0x21_0000);
    let scope = Scope::Tag(Some(tag()));
    rig.function.invalidate(scope, Cached::InUnit);
    assert_eq!(copy(), 1);
    rig.function.invalidate(scope, Cached::InDevices);
    assert_eq!(copy(), 2);
}
