//! Where each register stands and what software may do with its bits (VT-d §11.4).

use super::capability;

/// The size of the BAR that holds the registers: page 0, the fault records in page 1, the rest reserved.
pub const BAR_LEN_BYTES: u64 = 16 * 1024;
/// The size of the page that holds every register but the fault records.
pub const REGISTER_PAGE_BYTES: u64 = 4096;

/// Architecture version (VT-d §11.4.1).
pub const VER: u64 = 0x00;
/// Capabilities (VT-d §11.4.2).
pub const CAP: u64 = 0x08;
/// Extended capabilities (VT-d §11.4.3).
pub const ECAP: u64 = 0x10;
/// Global command (VT-d §11.4.4.1).
pub const GCMD: u64 = 0x18;
/// Global status (VT-d §11.4.4.2).
pub const GSTS: u64 = 0x1c;
/// Root table address (VT-d §11.4.5).
pub const RTADDR: u64 = 0x20;
/// Context command (VT-d §11.4.6.1).
pub const CCMD: u64 = 0x28;
/// Fault status (VT-d §11.4.7.1).
pub const FSTS: u64 = 0x34;
/// Fault event control (VT-d §11.4.7.2).
pub const FECTL: u64 = 0x38;
/// Fault event data (VT-d §11.4.7.3).
pub const FEDATA: u64 = 0x3c;
/// Fault event address (VT-d §11.4.7.4).
pub const FEADDR: u64 = 0x40;
/// Fault event upper address (VT-d §11.4.7.5).
pub const FEUADDR: u64 = 0x44;
/// Invalidation queue head (VT-d §11.4.9.1).
pub const IQH: u64 = 0x80;
/// Invalidation queue tail (VT-d §11.4.9.2).
pub const IQT: u64 = 0x88;
/// Invalidation queue address (VT-d §11.4.9.3).
pub const IQA: u64 = 0x90;
/// Invalidation completion status (VT-d §11.4.9.4).
pub const ICS: u64 = 0x9c;
/// Invalidation event control (VT-d §11.4.9.5).
pub const IECTL: u64 = 0xa0;
/// Invalidation event data (VT-d §11.4.9.6).
pub const IEDATA: u64 = 0xa4;
/// Invalidation event address (VT-d §11.4.9.7).
pub const IEADDR: u64 = 0xa8;
/// Invalidation event upper address (VT-d §11.4.9.8).
pub const IEUADDR: u64 = 0xac;
/// Invalidation queue error record (VT-d §11.4.9.9).
pub const IQER: u64 = 0xb0;
/// Page request queue head (VT-d §11.4.11.1).
pub const PQH: u64 = 0xc0;
/// Page request queue tail (VT-d §11.4.11.2).
pub const PQT: u64 = 0xc8;
/// Page request queue address (VT-d §11.4.11.3).
pub const PQA: u64 = 0xd0;
/// Page request status (VT-d §11.4.11.4).
pub const PRS: u64 = 0xdc;
/// Page request event control (VT-d §11.4.11.5).
pub const PECTL: u64 = 0xe0;
/// Page request event data (VT-d §11.4.11.6).
pub const PEDATA: u64 = 0xe4;
/// Page request event address (VT-d §11.4.11.7).
pub const PEADDR: u64 = 0xe8;
/// Page request event upper address (VT-d §11.4.11.8).
pub const PEUADDR: u64 = 0xec;
/// Invalidate address (VT-d §11.4.6.4), at the offset that ECAP.IRO names.
pub const IVA: u64 = 0xf0;
/// IOTLB invalidate (VT-d §11.4.6.3), after the invalidate address.
pub const IOTLB: u64 = IVA + 8;
/// Virtual command, its operands, its response and its capabilities (VT-d §11.4.16); see
/// [`virtual_command`](super::virtual_command) for who stands where.
pub const VIRTUAL_COMMANDS: core::ops::Range<u64> = 0xe00..0xe50;
/// The fault records (VT-d §11.4.7.6), at the offset that CAP.FRO names.
pub const FAULT_RECORDS: u64 = 0x1000;
/// The size of one fault record.
pub const FAULT_RECORD_BYTES: u64 = 16;
/// How many fault records there are.
pub const FAULT_RECORD_COUNT: u64 = 256;

/// The width of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits.
    Dword,
    /// 64 bits, which software may also access as two aligned halves (VT-d §11.2).
    Qword,
}

impl Width {
    /// The width in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }
}

/// One register: where it stands, what it reads as after reset, and what a write does to its bits
/// (VT-d §11.3). Bits in neither mask are read-only or reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The specification's abbreviation.
    pub name: &'static str,
    /// The offset in bytes.
    pub offset: u64,
    /// 32 or 64 bits.
    pub width: Width,
    /// The value after reset.
    pub reset: u64,
    /// RW: bits that take the written value.
    pub writable: u64,
    /// RW1C: bits that a written one clears.
    pub clear_on_one: u64,
    /// WO: bits that a write hands to the unit and that read as zero.
    pub write_only: u64,
}

impl Register {
    pub(super) const fn new(name: &'static str, offset: u64, width: Width) -> Self {
        Self {
            name,
            offset,
            width,
            reset: 0,
            writable: 0,
            clear_on_one: 0,
            write_only: 0,
        }
    }

    pub(super) const fn reset(mut self, value: u64) -> Self {
        self.reset = value;
        self
    }

    pub(super) const fn writable(mut self, mask: u64) -> Self {
        self.writable = mask;
        self
    }

    const fn clear_on_one(mut self, mask: u64) -> Self {
        self.clear_on_one = mask;
        self
    }

    const fn write_only(mut self, mask: u64) -> Self {
        self.write_only = mask;
        self
    }
}

const ALIGNED_PAGE: u64 = !0xfff;
const INTERRUPT_MASKED: u64 = super::event::EventControl::MASKED.into_bits() as u64;
const MESSAGE_DATA: u64 = 0xffff_ffff;
const MESSAGE_ADDRESS: u64 = 0xffff_fffc;
const MESSAGE_UPPER_ADDRESS: u64 = 0xffff_ffff;
const QUEUE_OFFSET: u64 = 0x7_fff0;
const PAGE_QUEUE_OFFSET: u64 = 0x7_ffe0;

/// Every register of page 0, in the order of their offsets, but those of virtual commands: which of them
/// stands where is for [`Layout::registers`](super::virtual_command::Layout::registers) to say.
///
/// What a write-only field reads as is undefined, so those that the unit needs later are kept like
/// read-write ones. The event data registers keep all 32 bits: older revisions have an extended half
/// there.
pub const REGISTERS: &[Register] = {
    use Width::{Dword, Qword};
    &[
        Register::new("VER_REG", VER, Dword).reset(capability::VERSION as u64),
        Register::new("CAP_REG", CAP, Qword).reset(capability::CAPABILITIES.into_bits()),
        Register::new("ECAP_REG", ECAP, Qword).reset(capability::EXTENDED.into_bits()),
        Register::new("GCMD_REG", GCMD, Dword).write_only(0xffff_ffff),
        Register::new("GSTS_REG", GSTS, Dword),
        Register::new("RTADDR_REG", RTADDR, Qword).writable(ALIGNED_PAGE | 0xc00),
        Register::new("CCMD_REG", CCMD, Qword)
            .writable(0x6000_0003_ffff_ffff)
            .write_only(1 << 63),
        Register::new("FSTS_REG", FSTS, Dword).clear_on_one(0x71),
        Register::new("FECTL_REG", FECTL, Dword)
            .reset(INTERRUPT_MASKED)
            .writable(INTERRUPT_MASKED),
        Register::new("FEDATA_REG", FEDATA, Dword).writable(MESSAGE_DATA),
        Register::new("FEADDR_REG", FEADDR, Dword).writable(MESSAGE_ADDRESS),
        Register::new("FEUADDR_REG", FEUADDR, Dword).writable(MESSAGE_UPPER_ADDRESS),
        Register::new("IQH_REG", IQH, Qword),
        Register::new("IQT_REG", IQT, Qword).writable(QUEUE_OFFSET),
        Register::new("IQA_REG", IQA, Qword).writable(ALIGNED_PAGE | 0x807),
        Register::new("ICS_REG", ICS, Dword).clear_on_one(1),
        Register::new("IECTL_REG", IECTL, Dword)
            .reset(INTERRUPT_MASKED)
            .writable(INTERRUPT_MASKED),
        Register::new("IEDATA_REG", IEDATA, Dword).writable(MESSAGE_DATA),
        Register::new("IEADDR_REG", IEADDR, Dword).writable(MESSAGE_ADDRESS),
        Register::new("IEUADDR_REG", IEUADDR, Dword).writable(MESSAGE_UPPER_ADDRESS),
        Register::new("IQERCD_REG", IQER, Qword),
        Register::new("PQH_REG", PQH, Qword).writable(PAGE_QUEUE_OFFSET),
        Register::new("PQT_REG", PQT, Qword).writable(PAGE_QUEUE_OFFSET),
        Register::new("PQA_REG", PQA, Qword).writable(ALIGNED_PAGE | 0x7),
        Register::new("PRS_REG", PRS, Dword).clear_on_one(3),
        Register::new("PECTL_REG", PECTL, Dword)
            .reset(INTERRUPT_MASKED)
            .writable(INTERRUPT_MASKED),
        Register::new("PEDATA_REG", PEDATA, Dword).writable(MESSAGE_DATA),
        Register::new("PEADDR_REG", PEADDR, Dword).writable(MESSAGE_ADDRESS),
        Register::new("PEUADDR_REG", PEUADDR, Dword).writable(MESSAGE_UPPER_ADDRESS),
        Register::new("IVA_REG", IVA, Qword).writable(ALIGNED_PAGE | 0x7f),
        Register::new("IOTLB_REG", IOTLB, Qword)
            .writable(0x3003_ffff_0000_0000)
            .write_only(1 << 63),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_sorted_aligned_and_apart() {
        let mut end = 0;
        for register in REGISTERS {
            let width = register.width.bytes();
            assert!(register.offset >= end, "{} overlaps", register.name);
            assert_eq!(register.offset % width, 0, "{}", register.name);
            end = register.offset + width;
        }
        assert!(end <= VIRTUAL_COMMANDS.start);
        const { assert!(VIRTUAL_COMMANDS.end <= REGISTER_PAGE_BYTES) };
    }

    #[test]
    fn no_bit_has_two_access_classes() {
        for register in REGISTERS {
            let Register {
                writable,
                clear_on_one,
                write_only,
                ..
            } = *register;
            assert_eq!(writable & clear_on_one, 0, "{}", register.name);
            assert_eq!(writable & write_only, 0, "{}", register.name);
            assert_eq!(clear_on_one & write_only, 0, "{}", register.name);
        }
    }

    #[test]
    fn a_dword_has_no_bits_above_31() {
        for register in REGISTERS.iter().filter(|r| r.width == Width::Dword) {
            let bits = register.writable | register.clear_on_one | register.write_only;
            assert_eq!((bits | register.reset) >> 32, 0, "{}", register.name);
        }
    }

    #[test]
    fn the_events_come_up_masked() {
        for offset in [FECTL, IECTL, PECTL] {
            let register = REGISTERS.iter().find(|r| r.offset == offset);
            assert_eq!(register.map(|r| r.reset), Some(1 << 31));
        }
    }
}
