use core::fmt;

bitflags::bitflags! {
    /// What a request wants to do, as a PASID TLP prefix and the request type say it (PCIe 6.20).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// The request reads.
        const READ = 1;
        /// The request writes.
        const WRITE = 2;
        /// The request fetches instructions.
        const EXECUTE = 4;
        /// The request is of privileged mode; without it, user mode.
        const PRIVILEGED = 8;
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (flag, word) in [
            (Self::READ, "read"),
            (Self::WRITE, "write"),
            (Self::EXECUTE, "execute"),
            (Self::PRIVILEGED, "privileged"),
        ] {
            if self.contains(flag) {
                if !first {
                    f.write_str("+")?;
                }
                f.write_str(word)?;
                first = false;
            }
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

/// The sizes that a leaf of a page table can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageSize {
    /// 4 KiB, a leaf of level 1.
    Size4K,
    /// 2 MiB, a leaf of level 2.
    Size2M,
    /// 1 GiB, a leaf of level 3.
    Size1G,
}

impl PageSize {
    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The number of address bits below the page number.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Size4K => 12,
            Self::Size2M => 21,
            Self::Size1G => 30,
        }
    }

    /// The size of a leaf at a level of the table, counted from 1; `None` where no leaf may stand.
    #[must_use]
    pub const fn of_level(level: u8) -> Option<Self> {
        match level {
            1 => Some(Self::Size4K),
            2 => Some(Self::Size2M),
            3 => Some(Self::Size1G),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn access_reads_as_words() {
        assert_eq!(
            (Access::READ | Access::PRIVILEGED).to_string(),
            "read+privileged"
        );
        assert_eq!(Access::empty().to_string(), "none");
    }

    #[test]
    fn leaves_stand_on_the_three_lowest_levels() {
        assert_eq!(PageSize::of_level(2).map(PageSize::bytes), Some(2 << 20));
        assert_eq!(PageSize::of_level(4), None);
    }
}
