//! The few registers that a hostile owner of the function pokes behind the driver's back.

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

/// Command: enable the work queue that the operand names.
pub const ENABLE_WQ: u32 = 6;
/// Command: disable the work queues of the operand: a bit in 15:0, the group of sixteen in 19:16.
pub const DISABLE_WQ: u32 = 7;

/// In a queue's entry: the word with mode, priority and PASID.
pub const WQCFG_PASID_WORD: usize = 8;
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
    }
}
