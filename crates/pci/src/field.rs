/// A register of configuration space, or a part of one: where it stands, what it reads as after reset, and what
/// a write does to each of its bits. Bits in neither mask are read-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    offset: u16,
    width_bytes: u8,
    value: u32,
    writable: u32,
    write_one_clears: u32,
}

impl Field {
    const fn new(offset: u16, width_bytes: u8, value: u32) -> Self {
        Self {
            offset,
            width_bytes,
            value,
            writable: 0,
            write_one_clears: 0,
        }
    }

    /// A read-only byte.
    #[must_use]
    pub const fn byte(offset: u16, value: u8) -> Self {
        Self::new(offset, 1, value as u32)
    }

    /// A read-only 16-bit register.
    #[must_use]
    pub const fn word(offset: u16, value: u16) -> Self {
        Self::new(offset, 2, value as u32)
    }

    /// A read-only 32-bit register.
    #[must_use]
    pub const fn dword(offset: u16, value: u32) -> Self {
        Self::new(offset, 4, value)
    }

    /// The same field, in which software may write the bits of `mask`.
    #[must_use]
    pub const fn writable(mut self, mask: u32) -> Self {
        self.writable = mask;
        self
    }

    /// The same field, in which writing a one clears a bit of `mask`.
    #[must_use]
    pub const fn write_one_clears(mut self, mask: u32) -> Self {
        self.write_one_clears = mask;
        self
    }

    /// The offset past the last byte.
    pub(crate) fn end(&self) -> usize {
        usize::from(self.offset) + usize::from(self.width_bytes)
    }

    /// Each byte as (offset, value, writable bits, write-one-to-clear bits).
    pub(crate) fn bytes(&self) -> impl Iterator<Item = (usize, u8, u8, u8)> {
        let value = self.value.to_le_bytes();
        let writable = self.writable.to_le_bytes();
        let clears = self.write_one_clears.to_le_bytes();
        let start = usize::from(self.offset);
        (0..usize::from(self.width_bytes))
            .map(move |i| (start + i, value[i], writable[i], clears[i]))
    }
}
