//! The few registers that an owner of the function pokes without the driver, or behind its back.

/// Version of the architecture.
pub const VERSION: usize = 0x00;
/// Capabilities of work queues. Bits 27:24: log2 of an entry's size in the table, less five.
pub const WQCAP: usize = 0x20;
/// Where the tables are, in units of [`TABLE_UNIT_BYTES`]. Bits 31:16: the work queues' table.
pub const OFFSETS: usize = 0x60;
/// The unit of [`OFFSETS`].
pub const TABLE_UNIT_BYTES: usize = 0x100;
/// Commands: operand in bits 19:0, command in bits 24:20.
pub const CMD: usize = 0xA0;
/// Outcome of a command: error in bits 7:0, active in bit 31.
pub const CMDSTS: usize = 0xA8;
/// [`CMDSTS`]: the command is being done.
pub const CMDSTS_ACTIVE: u32 = 1 << 31;

/// Command: enable the device.
pub const ENABLE_DEVICE: u32 = 1;
/// Command: bring the device back to where it started.
pub const RESET_DEVICE: u32 = 5;
/// Command: enable the work queue that the operand names.
pub const ENABLE_WQ: u32 = 6;
/// Command: disable the work queues of the operand: a bit in 15:0, the group of sixteen in 19:16.
pub const DISABLE_WQ: u32 = 7;

/// In a queue's entry: the word with its size in descriptors.
pub const WQCFG_SIZE_WORD: usize = 0;
/// In a queue's entry: the word with its threshold, which a dedicated queue has no use for.
pub const WQCFG_THRESHOLD_WORD: usize = 4;
/// In a queue's entry: the word with the largest transfer in bits 4:0, as a power of two, and the largest batch
/// in bits 8:5.
pub const WQCFG_LIMITS_WORD: usize = 12;
/// In a queue's mode word: one user, and requests without a PASID unless [`WQCFG_PASID_ENABLE`] is set too.
pub const WQCFG_DEDICATED: u32 = 1;
/// Priority in that word, from 1 on.
pub const WQCFG_PRIORITY_SHIFT: u32 = 4;
/// In a group's entry: a bit for each of its queues.
pub const GRPCFG_QUEUES: usize = 0;
/// In a group's entry: a bit for each of its engines.
pub const GRPCFG_ENGINES: usize = 32;

/// In a queue's entry: the word with mode, priority and PASID.
pub const WQCFG_PASID_WORD: usize = 8;
/// The queue leaves translating to the platform: it makes no use of ATS.
pub const WQCFG_ATS_DISABLE: u32 = 1 << 2;
/// PASID in that word, 20 bits from here.
pub const WQCFG_PASID_SHIFT: u32 = 8;
/// The PASID of that word counts.
pub const WQCFG_PASID_ENABLE: u32 = 1 << 28;
/// In a queue's entry: the word with its state in bits 31:30, one of which is enabled.
pub const WQCFG_STATE_WORD: usize = 24;
/// PASIDs have so many bits.
pub const PASID_BITS: u32 = 20;

/// The size in bytes of a queue's entry, from [`WQCAP`].
#[must_use]
pub fn wqcfg_entry_bytes(wqcap: u64) -> usize {
    let shift = (wqcap >> 24) & 0xF;
    32 << shift
}

/// Where the groups' table starts, from [`OFFSETS`].
#[must_use]
pub fn grpcfg_table_offset(offsets: u64) -> usize {
    let [low, high, ..] = offsets.to_le_bytes();
    usize::from(u16::from_le_bytes([low, high])) * TABLE_UNIT_BYTES
}

/// Where the work queues' table starts, from [`OFFSETS`].
#[must_use]
pub fn wqcfg_table_offset(offsets: u64) -> usize {
    let [_, _, low, high, ..] = offsets.to_le_bytes();
    usize::from(u16::from_le_bytes([low, high])) * TABLE_UNIT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_where_the_registers_say() {
        assert_eq!(wqcfg_entry_bytes(0x0000_0000_0108_0080), 64);
        assert_eq!(wqcfg_entry_bytes(0x0008_0080), 32);
        assert_eq!(wqcfg_table_offset(0x0007_0006_0005_0004), 0x500);
        assert_eq!(grpcfg_table_offset(0x0007_0006_0005_0004), 0x400);
    }
}
