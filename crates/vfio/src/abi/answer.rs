use std::os::fd::OwnedFd;
use std::sync::Arc;

use zerocopy::{Immutable, IntoBytes};

/// What a request came to.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What the call returns.
    pub value: i32,
    /// What the argument begins with from now on; nothing where it stays as it was.
    pub written: Vec<u8>,
    /// What goes back beside the bytes.
    pub descriptors: Vec<Arc<OwnedFd>>,
}

impl Answer {
    /// The call returns this and changes nothing.
    pub(super) fn value(value: i32) -> Self {
        Self {
            value,
            ..Self::default()
        }
    }

    /// The call returns 0 and changes the argument.
    pub(super) fn written(argument: &(impl IntoBytes + Immutable)) -> Self {
        Self {
            written: argument.as_bytes().to_vec(),
            ..Self::default()
        }
    }
}
