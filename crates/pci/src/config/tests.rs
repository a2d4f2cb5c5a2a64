use proptest::prelude::*;

use super::*;
use crate::{
    ConfigError,
    capability::{
        BarOffset, Capability, ExtendedCapability, MsixLayout, PasidPermissions, ats, msix, pasid,
        pri, root_complex_endpoint,
    },
};

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x0b25,
    revision: 1,
    class: 0x08_80_00,
    subsystem_vendor: 0x8086,
    subsystem: 0x0010,
};

fn accelerator() -> ConfigSpace {
    let in_bar0 = |offset_bytes| BarOffset {
        bar: Bar::Bar0,
        offset_bytes,
    };
    ConfigSpace::builder(IDENTITY)
        .bar(Bar::Bar0, BarSpec::memory64(0x1_0000))
        .bar(Bar::Bar2, BarSpec::memory64(1 << 33))
        .bar(Bar::Bar4, BarSpec::memory32(0x4000))
        .capability(root_complex_endpoint())
        .capability(msix(MsixLayout {
            vectors: 9,
            table: in_bar0(0x2000),
            pending: in_bar0(0x3000),
        }))
        .extended_capability(pasid(PasidPermissions::PRIVILEGED))
        .extended_capability(ats())
        .extended_capability(pri(512))
        .build()
        .unwrap()
}

/// Finds an extended capability as a driver does, by the links.
fn walk_extended(space: &ConfigSpace, wanted: u32) -> Option<u16> {
    let mut at = 0x100;
    for _ in 0..64 {
        let header = space.dword(at);
        if header & 0xffff == wanted {
            return Some(at);
        }
        at = u16::try_from(header >> 20).unwrap();
        if at == 0 {
            return None;
        }
    }
    None
}

fn walk(space: &ConfigSpace, wanted: u16) -> Option<u16> {
    let mut at = space.word(0x34) & 0xff;
    for _ in 0..64 {
        if at == 0 {
            return None;
        }
        let header = space.word(at);
        if header & 0xff == wanted {
            return Some(at);
        }
        at = header >> 8;
    }
    None
}

#[test]
fn r32_the_pasid_capability_has_its_width_and_enable_bits() {
    let mut space = accelerator();
    let at = walk_extended(&space, 0x1b).unwrap();
    let capability = space.word(at + 4);
    assert_eq!((capability >> 8) & 0x1f, 20, "Max PASID Width");
    assert_eq!(capability & 0b110, 0b100, "privileged mode, no execute");
    assert!(!space.pasid_enabled());

    let effect = space.write(at + 6, &0xffff_u16.to_le_bytes());
    assert_eq!(effect, ConfigEffect::None);
    assert_eq!(
        space.word(at + 6),
        0b101,
        "enable, and only what is supported"
    );
    assert_eq!(space.word(at + 4), capability, "read-only");
    assert!(space.pasid_enabled());

    let _ = space.write(at + 6, &[0]);
    assert!(!space.pasid_enabled());
}

#[test]
fn r32_linux_finds_all_it_checks_before_it_enables_pasids() {
    let mut space = accelerator();
    let express = walk(&space, 0x10).unwrap();
    assert_eq!(
        space.word(express + 2),
        0x0092,
        "version 2, RC integrated endpoint"
    );
    assert_ne!(
        space.dword(express + 0x24) & (1 << 21),
        0,
        "End-End TLP prefix"
    );
    assert_ne!(
        space.dword(express + 4) & (1 << 28),
        0,
        "function-level reset"
    );

    let ats = walk_extended(&space, 0x0f).unwrap();
    assert_ne!(space.word(ats + 4) & (1 << 5), 0, "page-aligned requests");
    let pri = walk_extended(&space, 0x13).unwrap();
    assert_eq!(space.word(pri + 6), 0x8100, "PASID required, stopped");
    assert_eq!(space.dword(pri + 8), 512);

    let _ = space.write(ats + 6, &0x8000_u16.to_le_bytes());
    let _ = space.write(pri + 0xc, &32_u32.to_le_bytes());
    let _ = space.write(pri + 4, &1_u16.to_le_bytes());
    assert!(space.ats_enabled() && space.pri_enabled());
    assert_eq!(space.pri_allocation(), 32);
    assert_eq!(space.word(pri + 6), 0x8000, "no longer stopped");
}

#[test]
fn the_header_says_who_the_function_is() {
    let space = accelerator();
    assert_eq!(space.dword(0x00), 0x0b25_8086);
    assert_eq!(space.dword(0x08), 0x0880_0001);
    assert_eq!(space.dword(0x2c), 0x0010_8086);
    assert_ne!(space.word(0x06) & (1 << 4), 0, "has a capability list");
}

#[test]
fn bars_tell_their_size_when_all_ones_are_written() {
    let mut space = accelerator();
    for bar in Bar::ALL {
        let _ = space.write(bar.config_offset(), &[0xff; 4]);
    }
    assert_eq!(space.dword(0x10), 0xffff_000c);
    assert_eq!(space.dword(0x14), 0xffff_ffff);
    assert_eq!(space.dword(0x18), 0x0000_000c);
    assert_eq!(space.dword(0x1c), 0xffff_fffe);
    assert_eq!(space.dword(0x20), 0xffff_c000);
    assert_eq!(space.dword(0x24), 0);

    let _ = space.write(0x10, &0xfebf_1234_u32.to_le_bytes());
    let _ = space.write(0x14, &[2, 0, 0, 0]);
    assert_eq!(space.bar_address(Bar::Bar0), Some(0x2_febf_0000));
    assert_eq!(space.bar_address(Bar::Bar1), None);
    assert_eq!(space.bar_len_bytes(Bar::Bar2), 1 << 33);
    assert_eq!(space.bar_len_bytes(Bar::Bar3), 0);
}

#[test]
fn command_bits_can_be_asked_for() {
    let mut space = accelerator();
    assert!(!space.memory_enabled() && !space.bus_master());
    let _ = space.write(0x04, &[0x06]);
    assert!(space.memory_enabled() && space.bus_master());
    let msix = walk(&space, 0x11).unwrap();
    assert_eq!(space.word(msix + 2), 8, "nine vectors");
    assert_eq!(space.dword(msix + 4), 0x2000);
    let _ = space.write(msix + 2, &0x8000_u16.to_le_bytes());
    assert!(space.msix_enabled());
}

#[test]
fn a_function_level_reset_is_asked_for_and_does_not_stick() {
    let mut space = accelerator();
    let control = walk(&space, 0x10).unwrap() + 8;
    let before = space.word(control);
    let _ = space.write(0x04, &[0x06]);
    let asked = space.write(control, &(before | 0x8000).to_le_bytes());
    assert_eq!(asked, ConfigEffect::FunctionLevelReset);
    assert_eq!(space.word(control), before);
    assert_eq!(
        space.write(control, &before.to_le_bytes()),
        ConfigEffect::None
    );
    space.reset();
    assert!(!space.bus_master());
}

#[test]
fn a_problem_stays_until_a_one_is_written() {
    let mut space = accelerator();
    let status = walk_extended(&space, 0x13).unwrap() + 6;
    space.report_page_request_problem(PageRequestProblem::ResponseFailure);
    space.report_page_request_problem(PageRequestProblem::UnexpectedGroup);
    let _ = space.write(status, &[0]);
    assert_eq!(space.word(status) & 3, 3);
    let _ = space.write(status, &[1]);
    assert_eq!(space.word(status) & 3, 2);
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let builder = || ConfigSpace::builder(IDENTITY);
    let refused = |b: ConfigSpaceBuilder| b.build().map(|_| ()).unwrap_err();
    assert_eq!(
        refused(builder().bar(Bar::Bar0, BarSpec::memory32(24))),
        ConfigError::BarSize(Bar::Bar0, 24)
    );
    assert_eq!(
        refused(builder().bar(Bar::Bar5, BarSpec::memory64(4096))),
        ConfigError::BarTaken(Bar::Bar5)
    );
    let twice = builder()
        .bar(Bar::Bar0, BarSpec::memory64(4096))
        .bar(Bar::Bar1, BarSpec::memory32(4096));
    assert_eq!(refused(twice), ConfigError::BarTaken(Bar::Bar1));
    assert_eq!(
        refused(builder().capability(Capability::new(9, 0xc4, vec![]))),
        ConfigError::NoRoom(9)
    );
    assert_eq!(
        refused(builder().extended_capability(ExtendedCapability::new(1, 1, 0xf04, vec![]))),
        ConfigError::NoExtendedRoom(1)
    );
    let outside = Capability::new(9, 4, vec![Field::word(3, 0)]);
    assert_eq!(
        refused(builder().capability(outside)),
        ConfigError::FieldOutside(9, 4)
    );
}

proptest! {
    /// Any offset, any length: nothing panics, read-only bits stay, and what is beyond reads as ones.
    #[test]
    fn r78_no_access_to_configuration_space_panics(
        writes in proptest::collection::vec((any::<u16>(), proptest::collection::vec(any::<u8>(), 0..80)), 0..40),
        offset: u16,
        len in 0_usize..5000,
    ) {
        let mut space = accelerator();
        let pristine = space.clone();
        for (at, bytes) in &writes {
            let _ = space.write(at % 4200, bytes);
        }
        for at in 0..CONFIG_SPACE_BYTES {
            let fixed = !space.writable[at] & !space.write_one_clears[at];
            let stopped = usize::from(space.extended_capability_offset(0x13).unwrap()) + 7;
            if at != stopped {
                prop_assert_eq!(space.values[at] & fixed, pristine.values[at] & fixed);
            }
        }
        let mut read = vec![0; len];
        space.read(offset, &mut read);
        let inside = CONFIG_SPACE_BYTES.saturating_sub(offset.into()).min(len);
        prop_assert!(read[inside..].iter().all(|byte| *byte == 0xff));
        space.reset();
        prop_assert_eq!(&space.values[..], &pristine.values[..]);
    }
}

fn whole(space: &ConfigSpace) -> [u8; CONFIG_SPACE_BYTES] {
    let mut bytes = [0; CONFIG_SPACE_BYTES];
    space.read(0, &mut bytes);
    bytes
}

#[test]
fn r74_a_space_takes_over_what_the_driver_wrote_into_another_one() {
    let mut space = accelerator();
    let _ = space.write(0x04, &[6, 0]);
    let _ = space.write(0x10, &0xfeb0_0000_u32.to_le_bytes());
    let pri = walk_extended(&space, 0x13).unwrap();
    let _ = space.write(pri + 4, &[1, 0]);
    space.report_page_request_problem(PageRequestProblem::ResponseFailure);
    let mut other = accelerator();
    other.restore(&whole(&space)).unwrap();
    assert!(whole(&other) == whole(&space));
    assert!(other.bus_master() && other.pri_enabled());
    other.reset();
    assert!(whole(&other) == whole(&accelerator()));
}

#[test]
fn r74_bits_that_no_driver_can_change_are_not_taken_over() {
    let space = accelerator();
    let pri = usize::from(walk_extended(&space, 0x13).unwrap());
    for (at, bit) in [(0, 1), (0x10, 8), (0x34, 4), (0x100, 1), (pri + 7, 1)] {
        let mut bytes = whole(&space);
        bytes[at] ^= bit;
        let mut other = accelerator();
        assert_eq!(other.restore(&bytes), Err(NotOfThisSpace { at }));
        assert!(whole(&other) == whole(&space));
    }
}
