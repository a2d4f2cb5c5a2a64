//! `include/palisade.h` is what this crate says.
//!
//! `UPDATE_DOCS=1 cargo test -p palisade-c --lib` writes it anew.

use std::path::Path;

use safer_ffi::headers::builder;

const BANNER: &str = "/*
 * libpalisade: a VMM's requests at the container socket of palisade.
 * Made from crates/capi by its tests, which also check that it is up to date.
 */
";

const RULES: &str = "

/*
 * What holds for every call:
 *
 * - It returns 0, or what its description says, or an errno, negated, of which the description names those
 *   that mean something. Any call may also end with an errno of the socket: ECONNRESET when the server has
 *   closed the connection, EPROTO when it does not speak the protocol. palisade_last_error has the reason in words.
 * - What is passed stays the caller's: texts, structures and descriptors are not kept. What is given out through a
 *   pointer to a pointer is to be given back, once, to the function that the description names. Nothing is written through
 *   other pointers unless the call succeeds.
 * - A handle may be used by several threads, whose calls on it wait for one another. While one gives it back, no other
 *   may use it. A fault queue is a handle of its own: one thread can wait at it while others make requests.
 *   Calls on the queues of an iommufd do not wait for one another.
 * - As long as the VMM has no function, PASIDs are neither given nor taken back, bound, unbound or invalidated: EFAULT
 *   in version 1, EOPNOTSUPP in version 7. palisade_ioasid_alloc and palisade_ioasid_free need none.
 * - A call waits for the server's answer, however long that takes.
 * - A null pointer where something is needed, a number that does not exist and a length that cannot be are EINVAL.
 * - A bug in the library is ENOTRECOVERABLE, from then on for every call on the same handle.
 * - A child of fork must not use its parent's handles. Descriptors are closed by exec.
 * - palisade_open_fault_queue installs a handler of SIGBUS, which passes on what is not about the queue's memory.
 *   Handlers that are installed later must do the same. SIGPIPE is never raised.
 */

/* The place of a function in the guest. */
#define PALISADE_BDF(bus, device, function) \\
    ((uint32_t) ((bus) << 8 | (device) << 3 | (function)))
";

fn made() -> String {
    let mut bytes = Vec::new();
    builder()
        .with_guard("PALISADE_H")
        .with_banner(BANNER)
        .with_text_after_guard(RULES)
        .to_writer(&mut bytes)
        .generate()
        .unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_header_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/palisade.h");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, made()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(
        found == made(),
        "include/palisade.h is not what the code says: run this test with UPDATE_DOCS=1"
    );
}
