//! Cases of the library's own calls, of which a peer sees nothing.

use crate::case::{Case, File, differs, none};

const ARGUMENTS: &str = "a connection is made of a socket, a function and its memory: there are no numbers for kinds of them";

const CREATE: &[Case] = &[
    none(
        "test_vfu_create_ctx_bad_trans",
        "a transport that does not exist: ENOTSUP",
        ARGUMENTS,
    ),
    none(
        "test_vfu_create_ctx_bad_flags",
        "unknown flags: EINVAL",
        ARGUMENTS,
    ),
    none(
        "test_vfu_create_ctx_bad_dev_type",
        "a device that is not PCI: ENOTSUP",
        ARGUMENTS,
    ),
    none(
        "test_vfu_create_ctx_default",
        "defaults are accepted",
        ARGUMENTS,
    ),
];

const DESTROY: &[Case] = &[differs(
    "test_destroy_ctx",
    "a server that is given up: the device is reset, not asked to be quiet, and the socket's file goes",
    "a_connection_is_stopped_while_it_sleeps_and_while_it_is_busy",
    "a connection ends when it is told to; device and file are the owner's",
)];

pub(crate) const FILES: [File; 2] = [
    File {
        name: "test_destroy.py",
        cases: DESTROY,
    },
    File {
        name: "test_vfu_create_ctx.py",
        cases: CREATE,
    },
];
