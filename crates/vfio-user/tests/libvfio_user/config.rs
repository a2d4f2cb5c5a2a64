//! Configuration space: headers, capabilities and what can be written.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use palisade_memory::GuestMemory;
use palisade_pci::{
    AccessError, Bar, BarKind, BarSpec, ConfigEffect, ConfigError, ConfigSpace, Function, Identity,
    Interrupt, Migration, MigrationError, Prefetch,
    capability::{
        BarOffset, MsixLayout, PasidPermissions, ats, extended_id, id, msix, pasid, pri,
        root_complex_endpoint,
    },
};
use palisade_units::Gpa;

use crate::{
    case::{Case, File, differs, none, same},
    peer::Peer,
};

const BUILDER: &str = "capabilities are data of a function, put in their order by a builder that has neither places nor flags";
const IGNORED: &str = "the write is taken and changes nothing, as the hardware does: no driver expects an error of a write to configuration space";

const CAPS: &[Case] = &[
    none(
        "test_pci_cap_bad_flags",
        "a capability with unknown flags: EINVAL",
        BUILDER,
    ),
    none(
        "test_pci_cap_no_cb",
        "a capability that is to call somebody, and nobody to call: EINVAL",
        BUILDER,
    ),
    none(
        "test_pci_cap_unknown_cap",
        "a capability that is not known: ENOTSUP",
        BUILDER,
    ),
    none(
        "test_pci_cap_bad_pos",
        "a capability behind the end: EINVAL",
        BUILDER,
    ),
    differs(
        "test_add_caps",
        "capabilities are chained and found; a write to a header or to what is read-only is EPERM, to half a register EINVAL",
        "capabilities_are_chained_and_keep_what_is_read_only",
        IGNORED,
    ),
    differs(
        "test_pci_cap_write_px",
        "a function-level reset resets the device; a write beside the register, or of another width, is EINVAL",
        "a_function_level_reset_resets_the_function",
        "bytes may be written alone or together, as on the bus",
    ),
    none(
        "test_pci_cap_write_msi",
        "MSI: more vectors than there are is EINVAL; read-only bits stay",
        "a function has MSI-X and no MSI",
    ),
    same(
        "test_pci_cap_write_msix",
        "MSI-X: only enable and mask can be written, by either byte, and no byte beside them has an effect",
        "msix_control_takes_its_two_bits_and_no_others",
    ),
    differs(
        "test_pci_cap_write_pxdc2",
        "Device Control 2 keeps all that is written",
        "device_control_2_keeps_what_is_supported",
        "it keeps the two bits that Device Capabilities 2 says are there",
    ),
    differs(
        "test_pci_cap_write_pxlc2",
        "Link Control 2 keeps all that is written",
        "device_control_2_keeps_what_is_supported",
        "an endpoint of the root complex has no link: it reads as zero",
    ),
];

const EXTENDED: &[Case] = &[
    none(
        "test_pci_ext_cap_conventional",
        "an extended capability of a conventional device: EINVAL",
        "each function is PCI Express",
    ),
    none(
        "test_pci_ext_cap_unknown_cap",
        "an extended capability that is not known: ENOTSUP",
        BUILDER,
    ),
    none(
        "test_pci_ext_cap_bad_pos",
        "an extended capability that is not the first at 0x100: EINVAL",
        BUILDER,
    ),
    same(
        "test_add_ext_caps",
        "extended capabilities are chained from 0x100 on",
        "extended_capabilities_are_chained_and_keep_what_is_read_only",
    ),
    same(
        "test_find_ext_caps",
        "each is found by its number",
        "extended_capabilities_are_chained_and_keep_what_is_read_only",
    ),
    differs(
        "test_pci_ext_cap_write_hdr",
        "a write to a header: EPERM",
        "extended_capabilities_are_chained_and_keep_what_is_read_only",
        IGNORED,
    ),
    differs(
        "test_pci_ext_cap_readonly",
        "a write to what is read-only: EPERM",
        "extended_capabilities_are_chained_and_keep_what_is_read_only",
        IGNORED,
    ),
    none(
        "test_pci_ext_cap_callback",
        "a capability that the device answers for keeps what is written",
        BUILDER,
    ),
    differs(
        "test_pci_ext_cap_write_dsn",
        "a write to a serial number: EPERM, and it stays",
        "extended_capabilities_are_chained_and_keep_what_is_read_only",
        IGNORED,
    ),
    none(
        "test_pci_ext_cap_write_vendor",
        "a vendor's capability keeps what is written",
        BUILDER,
    ),
];

const REALIZE: &[Case] = &[
    none(
        "test_vfu_realize_ctx_twice",
        "a device is completed twice: accepted",
        BUILDER,
    ),
    none(
        "test_vfu_unrealized_ctx",
        "a device that is not complete is served: EINVAL",
        BUILDER,
    ),
    none(
        "test_vfu_realize_ctx_default",
        "a device of defaults is completed",
        BUILDER,
    ),
    differs(
        "test_vfu_realize_ctx_pci_bars",
        "BARs tell their type: I/O, memory, 64 bits, prefetchable",
        "bars_tell_their_type",
        "without I/O space",
    ),
    differs(
        "test_vfu_realize_ctx_irqs",
        "a device with INTx has pin A",
        "the_header_says_that_there_are_capabilities_and_no_pin",
        "no pin: a function has MSI-X and no INTx",
    ),
    same(
        "test_vfu_realize_ctx_caps",
        "a device with a capability says in its status that there is a list",
        "the_header_says_that_there_are_capabilities_and_no_pin",
    ),
];

pub(crate) const FILES: [File; 3] = [
    File {
        name: "test_pci_caps.py",
        cases: CAPS,
    },
    File {
        name: "test_pci_ext_caps.py",
        cases: EXTENDED,
    },
    File {
        name: "test_vfu_realize_ctx.py",
        cases: REALIZE,
    },
];

/// A configuration space with all the capabilities that there are.
pub(crate) fn space(bars: &[(Bar, BarSpec)]) -> Result<ConfigSpace, ConfigError> {
    let place = |offset_bytes| BarOffset {
        bar: Bar::Bar0,
        offset_bytes,
    };
    let builder = ConfigSpace::builder(Identity {
        vendor: 0x1af4,
        device: 1,
        revision: 0,
        class: 0x08_8000,
        subsystem_vendor: 0,
        subsystem: 0,
    });
    bars.iter()
        .fold(builder, |builder, (bar, spec)| builder.bar(*bar, *spec))
        .capability(msix(MsixLayout {
            vectors: 8,
            table: place(0),
            pending: place(0x800),
        }))
        .capability(root_complex_endpoint())
        .extended_capability(ats())
        .extended_capability(pasid(PasidPermissions::empty()))
        .extended_capability(pri(16))
        .build()
}

/// A function that is its configuration space, and writes to memory when it is told to do something.
pub(crate) struct Device {
    pub(crate) config: Mutex<ConfigSpace>,
    pub(crate) memory: GuestMemory,
    pub(crate) resets: AtomicU64,
}

/// Where a [`Device`] writes.
pub(crate) const MARK_AT: Gpa = Gpa::new(0x1_0000);

impl Device {
    pub(crate) fn served(bars: &[(Bar, BarSpec)]) -> (Arc<Self>, Peer) {
        let device = Arc::new(Self {
            config: Mutex::new(space(bars).unwrap()),
            memory: GuestMemory::new(),
            resets: AtomicU64::new(0),
        });
        let peer = Peer::of(device.clone(), Arc::new(device.memory.clone()));
        (device, peer)
    }

    /// Adds one to what stands in memory, where there is some.
    fn mark(&self) {
        let mut mark = [0];
        if self.memory.read(MARK_AT, &mut mark).is_ok() {
            self.memory.write(MARK_AT, &[mark[0] + 1]).unwrap();
        }
    }
}

impl Function for Device {
    fn bar_len_bytes(&self, bar: Bar) -> u64 {
        self.config.lock().unwrap().bar_len_bytes(bar)
    }
    fn config_read(&self, offset: u16, into: &mut [u8]) {
        self.config.lock().unwrap().read(offset, into);
    }
    fn config_write(&self, offset: u16, from: &[u8]) {
        let effect = self.config.lock().unwrap().write(offset, from);
        if effect == ConfigEffect::FunctionLevelReset {
            self.reset();
        }
    }
    fn bar_read(&self, _: Bar, _: u64, into: &mut [u8]) -> Result<(), AccessError> {
        into.fill(0);
        Ok(())
    }
    fn bar_write(&self, _: Bar, _: u64, _: &[u8]) -> Result<(), AccessError> {
        Ok(())
    }
    fn msix_vectors(&self) -> u16 {
        8
    }
    fn set_vector(&self, _: u16, _: Option<Arc<dyn Interrupt>>) {}
    fn reset(&self) {
        self.config.lock().unwrap().reset();
        self.resets.fetch_add(1, Ordering::Relaxed);
        self.mark();
    }
    fn migration(&self) -> Option<&dyn Migration> {
        Some(self)
    }
}

impl Migration for Device {
    fn stop(&self) {
        self.mark();
    }
    fn start(&self) -> Result<(), MigrationError> {
        Ok(())
    }
    fn save(&self) -> Result<Vec<u8>, MigrationError> {
        Ok(Vec::new())
    }
    fn restore(&self, _: &[u8]) -> Result<(), MigrationError> {
        Ok(())
    }
    fn max_state_len_bytes(&self) -> usize {
        0
    }
}

const CONFIG: u32 = 7;

fn read(peer: &mut Peer, at: u64) -> u32 {
    let bytes = peer.read(CONFIG, at, 4).unwrap();
    u32::from_le_bytes(bytes.try_into().unwrap())
}

fn write(peer: &mut Peer, at: u64, data: &[u8]) {
    peer.write(CONFIG, at, data).unwrap();
}

/// The places of the capabilities, by their numbers, as a driver finds them.
fn capabilities(peer: &mut Peer) -> Vec<(u8, u64)> {
    let mut found = Vec::new();
    let mut next = u64::from(peer.read(CONFIG, 0x34, 1).unwrap()[0]);
    while next != 0 {
        let header = peer.read(CONFIG, next, 2).unwrap();
        found.push((header[0], next));
        next = header[1].into();
    }
    found
}

/// The same for those from 0x100 on.
fn extended(peer: &mut Peer) -> Vec<(u16, u64)> {
    let mut found = Vec::new();
    let mut next = 0x100;
    while next != 0 {
        let header = read(peer, next);
        found.push((header as u16, next));
        next = u64::from(header >> 20);
    }
    found
}

/// The sizes that a driver finds when it writes all ones.
fn sizes(peer: &mut Peer) -> [u64; 6] {
    let registers = [0x10_u64, 0x14, 0x18, 0x1c, 0x20, 0x24].map(|at| {
        let before = peer.read(CONFIG, at, 4).unwrap();
        write(peer, at, &[0xff; 4]);
        let ones = read(peer, at);
        write(peer, at, &before);
        ones
    });
    let mut sizes = [0; 6];
    let mut at = 0;
    while at < 6 {
        let low = registers[at];
        let wide = low & 0b110 == 0b100;
        let high = if wide { registers[at + 1] } else { u32::MAX };
        let mask = u64::from(high) << 32 | u64::from(low & !0xf);
        sizes[at] = if low == 0 { 0 } else { mask.wrapping_neg() };
        at += if wide { 2 } else { 1 };
    }
    sizes
}

#[test]
fn bars_of_32_bits_are_sized_by_writing_all_ones() {
    let (_device, mut peer) = Device::served(&[
        (Bar::Bar1, BarSpec::memory32(0x1000)),
        (Bar::Bar2, BarSpec::memory32(0x2000)),
        (Bar::Bar3, BarSpec::memory32(0x4000)),
    ]);
    assert_eq!(sizes(&mut peer), [0, 0x1000, 0x2000, 0x4000, 0, 0]);
}

#[test]
fn bars_of_64_bits_are_sized_by_writing_all_ones() {
    const GIB: u64 = 1 << 30;
    let (_device, mut peer) = Device::served(&[
        (Bar::Bar0, BarSpec::memory64(4 * GIB)),
        (Bar::Bar2, BarSpec::memory64(8 * GIB)),
        (Bar::Bar4, BarSpec::memory64(16 * GIB)),
    ]);
    assert_eq!(sizes(&mut peer), [4 * GIB, 0, 8 * GIB, 0, 16 * GIB, 0]);
}

#[test]
fn bars_tell_their_type() {
    let wide = BarSpec {
        kind: BarKind::Memory64,
        prefetch: Prefetch::NotPrefetchable,
        len_bytes: 0x10_0000,
    };
    let (_device, mut peer) = Device::served(&[
        (Bar::Bar1, BarSpec::memory32(0x1000)),
        (Bar::Bar2, wide),
        (Bar::Bar4, BarSpec::memory64(0x4000_0000)),
    ]);
    let types = [0x14, 0x18, 0x20].map(|at| read(&mut peer, at));
    assert_eq!(types, [0b0000, 0b0100, 0b1100]);
}

#[test]
fn the_header_says_that_there_are_capabilities_and_no_pin() {
    let (_device, mut peer) = Device::served(&[]);
    assert_eq!(read(&mut peer, 0x04) >> 16, 1 << 4);
    assert_eq!(peer.read(CONFIG, 0x3d, 1), Ok(vec![0]));
}

#[test]
fn capabilities_are_chained_and_keep_what_is_read_only() {
    let (_device, mut peer) = Device::served(&[]);
    let found = capabilities(&mut peer);
    let numbers: Vec<u8> = found.iter().map(|it| it.0).collect();
    assert_eq!(numbers, [id::MSIX, id::EXPRESS]);
    let (_, express) = found[1];
    let before = peer.read(CONFIG, express, 8).unwrap();
    // The header and the capabilities register; half a register; one and a half.
    for (at, len) in [(0, 1), (0, 8), (3, 2), (2, 1), (5, 3)] {
        write(&mut peer, express + at, &vec![0x5a; len]);
        assert_eq!(peer.read(CONFIG, express, 8).unwrap(), before);
    }
}

#[test]
fn a_function_level_reset_resets_the_function() {
    let (device, mut peer) = Device::served(&[]);
    let control = capabilities(&mut peer)[1].1 + 8;
    let resets = |device: &Device| device.resets.load(Ordering::Relaxed);
    write(&mut peer, control, &[0x00, 0x80]);
    assert_eq!(resets(&device), 1);
    // The bit in its byte alone, and with the registers on both sides.
    write(&mut peer, control + 1, &[0x80]);
    write(&mut peer, control - 1, &[0, 0, 0x80, 0]);
    assert_eq!(resets(&device), 3);
    // Beside it.
    write(&mut peer, control, &[0x80]);
    write(&mut peer, control + 2, &[0x80, 0x80]);
    assert_eq!(resets(&device), 3);
}

#[test]
fn msix_control_takes_its_two_bits_and_no_others() {
    const ENABLE_AND_MASK: u16 = 0xc000;
    const SEVEN: u16 = 7;
    let (_device, mut peer) = Device::served(&[]);
    let (_, at) = capabilities(&mut peer)[0];
    let control = |peer: &mut Peer| {
        let bytes = peer.read(CONFIG, at + 2, 2).unwrap();
        u16::from_le_bytes(bytes.try_into().unwrap())
    };
    let before = peer.read(CONFIG, at, 2).unwrap();
    write(&mut peer, at + 2, &[0xff; 2]);
    assert_eq!(control(&mut peer), ENABLE_AND_MASK | SEVEN);
    write(&mut peer, at + 2, &[0; 2]);
    assert_eq!(control(&mut peer), SEVEN);
    // The upper byte with one of the next register, as some versions of QEMU write it.
    let table = peer.read(CONFIG, at + 4, 8).unwrap();
    write(&mut peer, at + 3, &[0xc0, 0xff]);
    assert_eq!(control(&mut peer), ENABLE_AND_MASK | SEVEN);
    assert_eq!(peer.read(CONFIG, at + 4, 8).unwrap(), table);
    write(&mut peer, at + 4, &[0]);
    assert_eq!(control(&mut peer), ENABLE_AND_MASK | SEVEN);
    assert_eq!(peer.read(CONFIG, at, 2).unwrap(), before);
}

#[test]
fn device_control_2_keeps_what_is_supported() {
    let (_device, mut peer) = Device::served(&[]);
    let (_, express) = capabilities(&mut peer)[1];
    write(&mut peer, express + 0x28, &[0xff; 2]);
    assert_eq!(read(&mut peer, express + 0x28), 0x8010);
    write(&mut peer, express + 0x30, &[0xbe, 0xef]);
    assert_eq!(read(&mut peer, express + 0x30), 0);
}

#[test]
fn extended_capabilities_are_chained_and_keep_what_is_read_only() {
    let (_device, mut peer) = Device::served(&[]);
    let found = extended(&mut peer);
    let numbers: Vec<u16> = found.iter().map(|it| it.0).collect();
    let ids = [extended_id::ATS, extended_id::PASID, extended_id::PRI];
    assert_eq!(numbers, ids);
    assert_eq!(found[0].1, 0x100);
    for (_, at) in found {
        // The header, and the register behind it with what it says is there.
        for at in [at, at + 4] {
            let before = peer.read(CONFIG, at, 2).unwrap();
            write(&mut peer, at, &[1]);
            assert_eq!(peer.read(CONFIG, at, 2).unwrap()[1], before[1]);
        }
    }
    assert_eq!(extended(&mut peer).len(), ids.len());
}
