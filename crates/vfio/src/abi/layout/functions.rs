//! The requests for functions.

use palisade_units::layout;
use zerocopy::little_endian::U32;

/// FUNCTION_LIST: the function is attached.
pub const FUNCTION_ATTACHED: u32 = 1;
/// FUNCTION_LIST: the client attaches and detaches it.
pub const FUNCTION_OFFERED: u32 = 2;

layout! {
    /// FUNCTION_LIST. Room for entries comes behind it.
    FunctionList, 12, {
        /// The size, with the room for entries.
        argsz: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// Written back: how many functions there are, of which as many follow as there is room for.
        count: U32 = 8,
    }
}

layout! {
    /// An entry of a FUNCTION_LIST.
    FunctionEntry, 8, {
        /// The function's place in the guest: bus in bits 15:8, device in 7:3, function in 2:0.
        place: U32 = 0,
        /// [`FUNCTION_ATTACHED`] and the one after it.
        state: U32 = 4,
    }
}

layout! {
    /// FUNCTION_ATTACH and FUNCTION_DETACH.
    FunctionPlace, 12, {
        /// The size.
        argsz: U32 = 0,
        /// Zero.
        flags: U32 = 4,
        /// The function's place in the guest, as in a [`FunctionEntry`].
        place: U32 = 8,
    }
}
