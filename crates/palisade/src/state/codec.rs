//! The bytes of the state: a first line with magic, version, length and checksum, and a JSON document.
//!
//! ```text
//! palisade-state 2 LENGTH CHECKSUM
//! {"quotas":{...},...}
//! ```
//!
//! Version 2 is what is written, and version 1 is read too.
//!
//! The length is that of the document in bytes, its end of line included; the checksum its CRC-32C in eight
//! hexadecimal digits. There is one way to write a state, and anything else is refused.

use crc32c::crc32c;
use palisade_units::{Bdf, PASID_COUNT};
use serde::Serialize;
use uuid::Uuid;

use super::{KEPT_MAX, KeptMdev, MDEVS_MAX, RunTime, version_1::RunTime1};
use crate::config::{SOCKET_PATH_MAX_BYTES, is_name, is_on_root_bus};

const MAGIC: &str = "palisade-state ";

/// A version of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    /// With functions made at run time.
    Two,
}

impl Version {
    const fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
        }
    }

    fn named(text: &str) -> Option<Self> {
        [Self::One, Self::Two]
            .into_iter()
            .find(|version| version.name() == text)
    }
}

/// A first line is not longer: magic, version, length and checksum.
const FIRST_LINE_MAX_BYTES: usize = 64;

/// Why bytes are not a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It does not begin as one.
    #[error("this is no state of palisade: it does not begin with \"palisade-state\"")]
    Foreign,
    /// A later or earlier palisade wrote it.
    #[error(
        "this is a state of version {0}, and this palisade reads versions 1 and 2: start the palisade that wrote it"
    )]
    Version(String),
    /// The beginning is there, and not even its first line is whole.
    #[error("the state is torn: it ends within its first line")]
    Cut,
    /// The end is missing, or there is more behind it.
    #[error("the state is torn: {found} bytes stand where its first line announces {announced}")]
    Torn {
        /// How many bytes there are behind the first line.
        found: usize,
        /// How many there have to be.
        announced: String,
    },
    /// Bytes have changed.
    #[error("the state is damaged: its checksum does not fit")]
    Damaged,
    /// The checksum fits, and yet no palisade wrote this.
    #[error("the state makes no sense: {0}")]
    Senseless(String),
}

fn first_line(version: Version, document: &[u8]) -> String {
    let (version, len_bytes, checksum) = (version.name(), document.len(), crc32c(document));
    format!("{MAGIC}{version} {len_bytes} {checksum:08x}\n")
}

/// The bytes of a state.
pub(super) fn encode(state: &RunTime) -> Result<Vec<u8>, serde_json::Error> {
    encode_as(Version::Two, state)
}

fn encode_as(version: Version, state: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut document = serde_json::to_vec(state)?;
    document.push(b'\n');
    let mut bytes = first_line(version, &document).into_bytes();
    bytes.append(&mut document);
    Ok(bytes)
}

/// The state in a document, and the bytes that a palisade writes for it.
fn parse(version: Version, document: &[u8]) -> Result<(RunTime, Vec<u8>), serde_json::Error> {
    match version {
        Version::One => {
            let old: RunTime1 = serde_json::from_slice(document)?;
            let again = encode_as(version, &old)?;
            Ok((old.into(), again))
        }
        Version::Two => {
            let state: RunTime = serde_json::from_slice(document)?;
            let again = encode_as(version, &state)?;
            Ok((state, again))
        }
    }
}

/// The state of bytes.
///
/// # Errors
/// [`Unreadable`] for anything but what [`encode`] writes, or wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<RunTime, Unreadable> {
    let Some(after_magic) = bytes.strip_prefix(MAGIC.as_bytes()) else {
        // The beginning of the magic and nothing else, or nothing at all, is a file that was cut there.
        return Err(match MAGIC.as_bytes().starts_with(bytes) {
            true => Unreadable::Cut,
            false => Unreadable::Foreign,
        });
    };
    let mut beginning = after_magic.iter().take(FIRST_LINE_MAX_BYTES);
    let end = beginning.position(|b| *b == b'\n').ok_or(Unreadable::Cut)?;
    let (line, rest) = after_magic.split_at(end);
    let document = rest.strip_prefix(b"\n").unwrap_or(rest);
    let line = std::str::from_utf8(line).map_err(|_| Unreadable::Damaged)?;
    let mut words = line.split(' ');
    let version = words.next().unwrap_or_default();
    let Some(version) = Version::named(version) else {
        return Err(Unreadable::Version(version.escape_debug().to_string()));
    };
    let announced = words.next().unwrap_or_default();
    if announced != document.len().to_string() {
        return Err(Unreadable::Torn {
            found: document.len(),
            announced: announced.escape_debug().to_string(),
        });
    }
    if !bytes.starts_with(first_line(version, document).as_bytes()) {
        return Err(Unreadable::Damaged);
    }
    let senseless = |what: String| Unreadable::Senseless(what);
    let (state, again) = parse(version, document).map_err(|e| senseless(e.to_string()))?;
    check(&state).map_err(senseless)?;
    if again != bytes {
        return Err(senseless(
            "it is not written as a palisade writes it".to_owned(),
        ));
    }
    Ok(state)
}

/// What is true of every state that a daemon keeps.
fn check(state: &RunTime) -> Result<(), String> {
    let kinds = [
        state.quotas.len(),
        state.groups.len(),
        state.limits.len(),
        state.reserved.len(),
    ];
    if kinds.iter().any(|kept| *kept > KEPT_MAX) {
        return Err(format!("more than {KEPT_MAX} changes of one kind"));
    }
    if state.mdevs.len() > MDEVS_MAX {
        return Err(format!("more than {MDEVS_MAX} functions"));
    }
    for (uuid, mdev) in &state.mdevs {
        check_mdev(uuid, mdev)?;
    }
    let names = state.quotas.keys().chain(state.groups.keys());
    let names = names.chain(state.limits.keys());
    let mut names = names.chain(state.groups.values().flatten());
    if let Some(name) = names.find(|name| !is_name(name)) {
        return Err(format!("{name:?} is no name"));
    }
    let limits = state.limits.values().flatten();
    if let Some(number) = state
        .quotas
        .values()
        .chain(limits)
        .find(|n| **n >= PASID_COUNT)
    {
        return Err(format!("{number} is more than there are PASIDs"));
    }
    let mut free_from = 1;
    for &(min, max) in &state.reserved {
        if min < free_from || max < min || max >= PASID_COUNT {
            return Err(format!(
                "{min}-{max} is no range, or overlaps the one before it"
            ));
        }
        free_from = max + 1;
    }
    // A way up passes each group once at the most, and then one that the configuration has.
    let longest = state.groups.len() + 1;
    for name in state.groups.keys() {
        let above = |name: &&String| state.groups.get(*name).and_then(Option::as_ref);
        if std::iter::successors(Some(name), above)
            .nth(longest)
            .is_some()
        {
            return Err(format!("group {name:?} is below itself"));
        }
    }
    Ok(())
}

/// What is true of every function that a daemon keeps.
fn check_mdev(uuid: &str, mdev: &KeptMdev) -> Result<(), String> {
    let canonical = Uuid::parse_str(uuid).is_ok_and(|parsed| parsed.to_string() == uuid);
    let place: Option<Bdf> = mdev.guest_bdf.parse().ok();
    let placed = place.is_some_and(|bdf| is_on_root_bus(bdf) && bdf.to_string() == mdev.guest_bdf);
    let socket = mdev.socket.starts_with('/') && mdev.socket.len() <= SOCKET_PATH_MAX_BYTES;
    if canonical && placed && socket && is_name(&mdev.parent) && is_name(&mdev.tenant) {
        Ok(())
    } else {
        Err(format!("function {uuid:?} is none that was made"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720 §B.4, and the usual check value.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }
}
