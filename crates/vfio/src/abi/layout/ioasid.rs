//! The requests of the proposed `/dev/ioasid`.

use palisade_units::layout;
use zerocopy::little_endian::U32;

layout! {
    /// IOASID_GET_INFO.
    IoasidInfo, 12, {
        /// The size.
        argsz: U32 = 0,
        /// Written back: zero.
        flags: U32 = 4,
        /// Written back: how many bits a PASID has.
        ioasid_bits: U32 = 8,
    }
}

layout! {
    /// IOASID_REQUEST_ALLOC. The PASID is the call's value.
    IoasidAllocate, 16, {
        /// The size.
        argsz: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// The lowest number that is wanted.
        min: U32 = 8,
        /// The highest.
        max: U32 = 12,
    }
}
