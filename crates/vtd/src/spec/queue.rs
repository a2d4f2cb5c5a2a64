//! Addresses, sizes and errors of the invalidation queue and the page request queue (VT-d §11.4.9,
//! §11.4.11).

use bitfield_struct::bitfield;
use palisade_units::{Gpa, PAGE_BYTES};

use super::{page_address, page_number};

/// DW: the width of an invalidation descriptor (VT-d §11.4.9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DescriptorWidth {
    /// 128 bits: legacy mode only.
    Bits128,
    /// 256 bits.
    Bits256,
}

impl DescriptorWidth {
    const fn from_bits(bit: u8) -> Self {
        if bit == 0 {
            Self::Bits128
        } else {
            Self::Bits256
        }
    }

    const fn into_bits(self) -> u8 {
        match self {
            Self::Bits128 => 0,
            Self::Bits256 => 1,
        }
    }

    /// The width in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bits128 => 16,
            Self::Bits256 => 32,
        }
    }
}

/// The size of a queue: 2^order pages, order 0 to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOrder(u8);

impl QueueOrder {
    /// 2^order pages; `None` from 8 on.
    #[must_use]
    pub const fn new(order: u8) -> Option<Self> {
        if order < 8 { Some(Self(order)) } else { None }
    }

    const fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    const fn into_bits(self) -> u8 {
        self.0
    }

    /// The size of the queue in bytes: 4 KiB to 512 KiB.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        PAGE_BYTES << self.0
    }
}

/// IQA_REG (VT-d §11.4.9.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvalidationQueueAddress {
    /// QS.
    #[bits(3)]
    pub order: QueueOrder,
    __: u8,
    /// DW.
    #[bits(1)]
    pub width: DescriptorWidth,
    #[bits(52)]
    page: u64,
}

impl InvalidationQueueAddress {
    /// A queue of 2^order pages at `base`.
    #[must_use]
    pub const fn at(base: Gpa, order: QueueOrder, width: DescriptorWidth) -> Self {
        Self::new()
            .with_page(page_number(base))
            .with_order(order)
            .with_width(width)
    }

    /// The address of the queue.
    #[must_use]
    pub const fn base(self) -> Gpa {
        page_address(self.page())
    }
}

/// PQA_REG (VT-d §11.4.11.3).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageRequestQueueAddress {
    /// PQS.
    #[bits(3)]
    pub order: QueueOrder,
    #[bits(9)]
    __: u16,
    #[bits(52)]
    page: u64,
}

impl PageRequestQueueAddress {
    /// A queue of 2^order pages at `base`.
    #[must_use]
    pub const fn at(base: Gpa, order: QueueOrder) -> Self {
        Self::new().with_page(page_number(base)).with_order(order)
    }

    /// The address of the queue.
    #[must_use]
    pub const fn base(self) -> Gpa {
        page_address(self.page())
    }
}

/// IQEI: what stopped the invalidation queue (VT-d §11.4.9.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// 1: the tail lies beyond the queue.
    InvalidTail,
    /// 2: the descriptor could not be read.
    DescriptorAccess,
    /// 3: no descriptor has this type, or not in this mode.
    DescriptorType,
    /// 4: reserved bits, or a reserved value of a field.
    ReservedField,
    /// 5: 128-bit descriptors in scalable mode.
    DescriptorWidth,
    /// 6: the tail is not a multiple of the descriptor width.
    TailMisaligned,
    /// 7: the translation table mode is not valid.
    TranslationTableMode,
}

impl QueueError {
    /// The value of the field.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::InvalidTail => 1,
            Self::DescriptorAccess => 2,
            Self::DescriptorType => 3,
            Self::ReservedField => 4,
            Self::DescriptorWidth => 5,
            Self::TailMisaligned => 6,
            Self::TranslationTableMode => 7,
        }
    }
}

/// IQERCD_REG (VT-d §11.4.9.9).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueErrorRecord {
    /// IQEI, while FSTS.IQE is set.
    #[bits(4)]
    pub error: u8,
    #[bits(28)]
    __: u32,
    /// ITESID, while FSTS.ITE is set: the function whose TLB did not answer.
    pub time_out_source: u16,
    /// ICESID, while FSTS.ICE is set. That does not happen here: no device answers what nobody asked.
    pub completion_source: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_sets_up_256_wide_descriptors_in_two_pages() {
        let order = QueueOrder::new(1).unwrap();
        let queue = InvalidationQueueAddress::at(Gpa::new(0x7000), order, DescriptorWidth::Bits256);
        assert_eq!(queue.into_bits(), 0x7801);
        assert_eq!(order.bytes() / DescriptorWidth::Bits256.bytes(), 256);
    }

    #[test]
    fn a_page_request_queue_of_order_4_has_2048_entries() {
        let order = QueueOrder::new(4).unwrap();
        let queue = PageRequestQueueAddress::at(Gpa::new(0x10_0000), order);
        assert_eq!(queue.into_bits(), 0x10_0004);
        assert_eq!(order.bytes() / 32, 2048);
    }
}
