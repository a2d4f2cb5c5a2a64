//! Configuration space, all of it the slice's own (PCIe 7.5, 7.7, 7.8, 10.5).

use palisade_dsa::spec::{PORTAL_BYTES, PORTALS_PER_QUEUE, REGISTERS_BYTES};

use super::Access::{ReadOnly, ReadWrite, ReadWriteStarts, WriteOneClears};
use super::{Access, Place, QUEUES, Reaches, TrappedRegister, Treatment};

const PORTALS_BYTES: u64 = QUEUES as u64 * PORTALS_PER_QUEUE * PORTAL_BYTES;

/// The address bits of a BAR of so many bytes, of which the lower word has these.
const fn address_bits(len_bytes: u64) -> u32 {
    let [a, b, c, d, ..] = (!(len_bytes - 1)).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Where bus master is, without which there is no work.
const COMMAND: u64 = 0x04;

/// Offset, length, name, what a write does, what it is for the guest.
type Row = (u64, u64, &'static str, Access, &'static str);

const ID: &str = "8086:0b25";
const SIZES: &str = "where the guest put the BAR; bits below its size stay zero";
const LINKS: &str = "what the capability is, and where the next one stands";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    (0x00, 2, "Vendor ID", ReadOnly, ID),
    (0x02, 2, "Device ID", ReadOnly, ID),
    (COMMAND, 2, "Command", ReadWrite(0x0546), "bus master has to be on to enable the device; turned off under an enabled one, it halts it"),
    (0x06, 2, "Status", WriteOneClears(0xf900), "there is a list of capabilities; errors are never set"),
    (0x08, 1, "Revision ID", ReadOnly, "0"),
    (0x09, 3, "Class Code", ReadOnly, "08 80 00: base system peripheral"),
    (0x0c, 1, "Cache Line Size", ReadWrite(0xff), "kept, without effect"),
    (0x0e, 1, "Header Type", ReadOnly, "0"),
    (0x10, 4, "BAR 0", ReadWrite(address_bits(REGISTERS_BYTES)), SIZES),
    (0x14, 4, "BAR 0, upper half", ReadWrite(u32::MAX), SIZES),
    (0x18, 4, "BAR 2", ReadWrite(address_bits(PORTALS_BYTES)), SIZES),
    (0x1c, 4, "BAR 2, upper half", ReadWrite(u32::MAX), SIZES),
    (0x2c, 2, "Subsystem Vendor ID", ReadOnly, "8086"),
    (0x2e, 2, "Subsystem ID", ReadOnly, "0"),
    (0x34, 1, "Capabilities Pointer", ReadOnly, "the first capability"),
    (0x3c, 1, "Interrupt Line", ReadWrite(0xff), "kept, without effect"),
    (0x40, 2, "PCI Express: header", ReadOnly, LINKS),
    (0x42, 2, "PCI Express Capabilities", ReadOnly, "root-complex integrated endpoint"),
    (0x44, 4, "Device Capabilities", ReadOnly, "function-level reset"),
    (0x48, 2, "Device Control", ReadWriteStarts { mask: 0x79ff, starts: 0x8000 }, "the topmost bit resets the slice and drops its work"),
    (0x4a, 2, "Device Status", WriteOneClears(0xf), "errors are never set"),
    (0x64, 4, "Device Capabilities 2", ReadOnly, "prefixes, without which there are no PASIDs"),
    (0x68, 2, "Device Control 2", ReadWrite(0x8010), "kept, without effect"),
    (0x7c, 2, "MSI-X: header", ReadOnly, LINKS),
    (0x7e, 2, "MSI-X Message Control", ReadWrite(0xc000), "two vectors; the VMM acts on enable and mask"),
    (0x80, 4, "MSI-X Table", ReadOnly, "in BAR 0"),
    (0x84, 4, "MSI-X PBA", ReadOnly, "in BAR 0"),
    (0x100, 4, "PASID: header", ReadOnly, LINKS),
    (0x104, 2, "PASID Capability", ReadOnly, "20 bits, privileged mode, no execute permission"),
    (0x106, 2, "PASID Control", ReadWrite(0x5), "what the slice's registers take; the parent's stays on"),
    (0x108, 4, "ATS: header", ReadOnly, LINKS),
    (0x10c, 2, "ATS Capability", ReadOnly, "page-aligned requests"),
    (0x10e, 2, "ATS Control", ReadWrite(0x801f), "whether engines keep translations of their own for its work; the rest is kept"),
    (0x110, 4, "PRI: header", ReadOnly, LINKS),
    (0x114, 2, "PRI Control", ReadWrite(0x1), "whether descriptors may wait for pages"),
    (0x116, 2, "PRI Status", WriteOneClears(0x3), "stopped while it is disabled; responses need a PASID"),
    (0x118, 4, "PRI Outstanding Capacity", ReadOnly, "512"),
    (0x11c, 4, "PRI Outstanding Allocation", ReadWrite(u32::MAX), "kept"),
];

/// The registers of configuration space, in the order of their offsets.
pub(super) fn registers() -> Vec<TrappedRegister> {
    let placed = |&(offset_bytes, len_bytes, name, access, emulated): &Row| TrappedRegister {
        place: Place::Config,
        name,
        offset_bytes,
        len_bytes,
        entries: 1,
        stride_bytes: len_bytes,
        treatment: Treatment::Trapped,
        access,
        emulated,
        reaches: match (access, offset_bytes) {
            (ReadWriteStarts { .. }, _) | (_, COMMAND) => Reaches::OwnWork,
            _ => Reaches::Nothing,
        },
        entry_points: &[],
    };
    ROWS.iter().map(placed).collect()
}
