use palisade_units::layout;
use zerocopy::native_endian::{I32, U32};

/// The longest argument of a request, and the most that an answer may change of one: as much as fits into a message of
/// the container socket.
pub const MAX_ARGUMENT_BYTES: usize = 4080;

layout! {
    /// CONTAINER_REQUEST, before the argument.
    ContainerRequest, 8, {
        /// The number of the request.
        number: U32 = 0,
        /// Zero.
        reserved: U32 = 4,
    }
}

layout! {
    /// The answer to CONTAINER_REQUEST, before what the argument begins with from now on.
    ContainerAnswer, 8, {
        /// What the call returns.
        value: I32 = 0,
        /// Zero.
        reserved: U32 = 4,
    }
}
