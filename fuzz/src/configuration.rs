//! The configuration of a host.

use std::path::Path;

use palisade_host::config::HostConfig;

/// A file: read, or refused with a line that is in it.
pub(crate) fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = HostConfig::parse(Path::new("host.toml"), &text) {
        assert!(error.to_string().starts_with("host.toml"), "{error}");
    }
}
