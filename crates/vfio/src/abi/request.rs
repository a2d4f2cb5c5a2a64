use std::fmt;

use crate::Abi;

/// The number of a request, as a call of `ioctl` has it: `_IO(type, number)`, which is the type in bits 15:8
/// and the number in bits 7:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(u32);

impl Number {
    /// The number with this value.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The request +`n` of VFIO: `_IO(';', 100 + n)`.
    #[must_use]
    pub const fn vfio(n: u8) -> Self {
        Self((b';' as u32) << 8 | 100_u8.wrapping_add(n) as u32)
    }

    /// The request +`n` of the proposed `/dev/ioasid`: `_IO('i', 100 + n)`.
    #[must_use]
    pub const fn ioasid(n: u8) -> Self {
        Self((b'i' as u32) << 8 | 100_u8.wrapping_add(n) as u32)
    }

    /// The value.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $family:ident + $n:literal, $text:literal, $abi:expr;)*) => {
        /// What can be asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Request {
            $($(#[$doc])* $name,)*
        }

        impl Request {
            /// Every request, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The request's place after the base of its family: +n.
            #[must_use]
            pub const fn n(self) -> u8 {
                match self {
                    $(Self::$name => $n,)*
                }
            }

            /// The number of the call.
            #[must_use]
            pub const fn number(self) -> Number {
                match self {
                    $(Self::$name => Number::$family($n),)*
                }
            }

            /// Its name as C code spells it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Who may ask for it: clients of one of the proposals, or (`None`) of both.
            #[must_use]
            pub const fn only_in(self) -> Option<Abi> {
                match self {
                    $(Self::$name => $abi,)*
                }
            }
        }
    };
}

requests! {
    /// Which version of VFIO is spoken: 0.
    GetApiVersion = vfio + 0, "VFIO_GET_API_VERSION", None;
    /// Whether an extension is there.
    CheckExtension = vfio + 1, "VFIO_CHECK_EXTENSION", None;
    /// Chooses how memory is translated: with nesting, or without.
    SetIommu = vfio + 2, "VFIO_SET_IOMMU", None;
    /// What the platform can do, with a chain of capabilities.
    GetInfo = vfio + 12, "VFIO_IOMMU_GET_INFO", None;
    /// Maps memory of the client, whose file comes with it, for its functions.
    MapDma = vfio + 13, "VFIO_IOMMU_MAP_DMA", None;
    /// Unmaps it.
    UnmapDma = vfio + 14, "VFIO_IOMMU_UNMAP_DMA", None;
    /// Version 7: takes a PASID, or frees a range of them.
    PasidRequestV7 = vfio + 18, "VFIO_IOMMU_PASID_REQUEST", Some(Abi::V7);
    /// Version 7: binds, unbinds, invalidates.
    NestingOp = vfio + 19, "VFIO_IOMMU_NESTING_OP", Some(Abi::V7);
    /// Version 1: takes a PASID, or frees one.
    PasidRequestV1 = vfio + 22, "VFIO_IOMMU_PASID_REQUEST", Some(Abi::V1);
    /// Version 1: binds, unbinds.
    Bind = vfio + 23, "VFIO_IOMMU_BIND", Some(Abi::V1);
    /// Version 1: invalidates.
    CacheInvalidate = vfio + 24, "VFIO_IOMMU_CACHE_INVALIDATE", Some(Abi::V1);
    /// Lists the functions that the client has or may have. This and those after it are no requests of VFIO's.
    FunctionList = vfio + 140, "PALISADE_FUNCTION_LIST", None;
    /// Attaches a function.
    FunctionAttach = vfio + 141, "PALISADE_FUNCTION_ATTACH", None;
    /// Detaches one.
    FunctionDetach = vfio + 142, "PALISADE_FUNCTION_DETACH", None;
    /// Has faults and page requests delivered in a ring of shared memory.
    FaultRing = vfio + 143, "PALISADE_FAULT_RING", None;
    /// Answers a page request group.
    PageResponse = vfio + 144, "PALISADE_PAGE_RESPONSE", None;
    /// Which version of `/dev/ioasid` is spoken: 0.
    IoasidGetApiVersion = ioasid + 0, "IOASID_GET_API_VERSION", None;
    /// How many bits a PASID has.
    IoasidGetInfo = ioasid + 1, "IOASID_GET_INFO", None;
    /// Takes a PASID.
    IoasidAllocate = ioasid + 2, "IOASID_REQUEST_ALLOC", None;
    /// Frees one.
    IoasidFree = ioasid + 3, "IOASID_REQUEST_FREE", None;
}

impl Request {
    /// How many descriptors come with it.
    #[must_use]
    pub const fn descriptors(self) -> usize {
        match self {
            Self::MapDma | Self::FaultRing => 1,
            _ => 0,
        }
    }

    /// The request with this number; `None` where there is none.
    #[must_use]
    pub fn from_number(number: Number) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|request| request.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r23_r24_r34_r54_numbers_are_those_of_the_proposals() {
        assert_eq!(Request::CheckExtension.number().get(), 0x3b65);
        assert_eq!(Request::PasidRequestV7.number().get(), 0x3b76);
        assert_eq!(Request::NestingOp.number().get(), 0x3b77);
        assert_eq!(Request::PasidRequestV1.number().get(), 0x3b7a);
        assert_eq!(Request::Bind.number().get(), 0x3b7b);
        assert_eq!(Request::CacheInvalidate.number().get(), 0x3b7c);
        assert_eq!(Request::IoasidGetApiVersion.number().get(), 0x6964);
        assert_eq!(Request::IoasidFree.number().get(), 0x6967);
    }

    #[test]
    fn numbers_and_requests_agree_and_ascend() {
        let numbers: Vec<_> = Request::ALL.iter().map(|one| one.number()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b));
        for request in Request::ALL {
            assert_eq!(Request::from_number(request.number()), Some(*request));
        }
        assert_eq!(Request::from_number(Number::vfio(99)), None);
        assert_eq!(Request::from_number(Number::new(u32::MAX)), None);
    }
}
