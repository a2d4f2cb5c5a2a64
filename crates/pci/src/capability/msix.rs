use crate::{
    Bar, Field,
    capability::{Capability, id},
};

/// A place in a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarOffset {
    /// The BAR.
    pub bar: Bar,
    /// The offset in bytes; the low three bits are dropped, as the register has no room for them.
    pub offset_bytes: u32,
}

impl BarOffset {
    fn register(self) -> u32 {
        (self.offset_bytes & !7) | u32::from(self.bar.index())
    }
}

/// Where MSI-X keeps its two arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// The number of vectors, 1 to 2048; what is outside is brought to the nearest.
    pub vectors: u16,
    /// The table, 16 bytes for each vector.
    pub table: BarOffset,
    /// The pending bits, one for each vector, in 8-byte words.
    pub pending: BarOffset,
}

const FUNCTION_MASK: u32 = 1 << 14;
const ENABLE: u32 = 1 << 15;

/// MSI-X (PCIe 7.7.2).
#[must_use]
pub fn msix(layout: MsixLayout) -> Capability {
    let vectors = layout.vectors.clamp(1, 2048);
    Capability::new(
        id::MSIX,
        12,
        vec![
            Field::word(0x02, vectors - 1).writable(FUNCTION_MASK | ENABLE),
            Field::dword(0x04, layout.table.register()),
            Field::dword(0x08, layout.pending.register()),
        ],
    )
}
