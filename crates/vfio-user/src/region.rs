use palisade_pci::Bar;

/// A region of a PCI device as VFIO numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Region {
    /// What a base address register maps; index 0 to 5.
    Bar(Bar),
    /// The expansion ROM; index 6.
    Rom,
    /// Configuration space; index 7.
    Config,
    /// Legacy VGA; index 8.
    Vga,
}

impl Region {
    /// How many there are.
    pub const COUNT: u32 = 9;

    /// The index on the wire.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Self::Bar(bar) => bar.index() as u32,
            Self::Rom => 6,
            Self::Config => 7,
            Self::Vga => 8,
        }
    }

    /// The region with this index; `None` from 9 on.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        match index {
            6 => Some(Self::Rom),
            7 => Some(Self::Config),
            8 => Some(Self::Vga),
            _ => Bar::from_index(u8::try_from(index).ok()?).map(Self::Bar),
        }
    }
}

impl From<Bar> for Region {
    fn from(bar: Bar) -> Self {
        Self::Bar(bar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_one_region() {
        for index in 0..Region::COUNT {
            assert_eq!(Region::from_index(index).map(Region::index), Some(index));
        }
        assert_eq!(Region::from_index(9), None);
        assert_eq!(Region::from_index(256), None);
    }
}
