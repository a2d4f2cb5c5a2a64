//! What the saved states of all functions have in common: a head that tells torn and damaged bytes from whole ones,
//! sections behind it, and a reader that runs past no end.
//!
//! ```text
//! 0   eight bytes that say what it is the state of
//! 8   version, length of what follows the head in bytes, CRC-32C of the head so far and of what follows
//! 20  sections: kind, length in bytes, that many bytes; each kind once, in the order of the kinds
//! ```
//!
//! All numbers are little-endian; those of the head and of sections have 32 bits.

use crc32c::{crc32c, crc32c_append};

use crate::MigrationError;

/// Why bytes are not a saved state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// They do not begin as one of this kind.
    #[error("this is no state of such a function")]
    Foreign,
    /// Another version of the format.
    #[error(
        "this is a state in version {0}, which is not read here: restore it where it was saved"
    )]
    Version(u32),
    /// The end is missing, or there is more behind it.
    #[error("the state is torn: {found} bytes stand behind its head, which announces {announced}")]
    Torn {
        /// How many there are.
        found: usize,
        /// How many there have to be.
        announced: u32,
    },
    /// Bytes have changed.
    #[error("the state is damaged: its checksum does not fit")]
    Damaged,
    /// The checksum fits, and yet no such function wrote this.
    #[error("the state makes no sense: {0}")]
    Senseless(&'static str),
}

impl From<Unreadable> for MigrationError {
    fn from(error: Unreadable) -> Self {
        Self::senseless(error.to_string())
    }
}

/// The length of a head in bytes.
pub const HEAD_BYTES: usize = 20;
/// What a section has besides its contents, in bytes.
pub const SECTION_HEAD_BYTES: usize = 8;

/// A kind of state.
#[derive(Clone, Copy, Debug)]
pub struct StateFormat {
    /// What its bytes begin with.
    pub magic: [u8; 8],
    /// The version that is written, and the only one that is read.
    pub version: u32,
    /// What stands behind the head is not longer.
    pub max_body_bytes: usize,
}

/// CRC-32C (RFC 3720 §12.1) of what precedes the checksum and of what follows it.
fn checksum(head: &[u8], body: &[u8]) -> u32 {
    crc32c_append(crc32c(head), body)
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

impl StateFormat {
    /// Puts a head before a body.
    #[must_use]
    pub fn with_head(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(len_u32(body).to_le_bytes());
        let checksum = checksum(&bytes, body);
        bytes.extend(checksum.to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// The body of a state.
    ///
    /// # Errors
    /// [`Unreadable`], but never [`Unreadable::Senseless`]: the body is not looked at.
    pub fn body<'a>(&self, bytes: &'a [u8]) -> Result<Rest<'a>, Unreadable> {
        let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(Unreadable::Foreign);
        };
        if *magic != self.magic {
            return Err(Unreadable::Foreign);
        }
        let torn = |found| Unreadable::Torn {
            found,
            announced: 0,
        };
        let (version, rest) = rest.split_first_chunk().ok_or(torn(0))?;
        let version = u32::from_le_bytes(*version);
        if version != self.version {
            return Err(Unreadable::Version(version));
        }
        let (announced, rest) = rest.split_first_chunk().ok_or(torn(0))?;
        let (expected, body) = rest.split_first_chunk().ok_or(torn(0))?;
        let announced = u32::from_le_bytes(*announced);
        if announced != len_u32(body) || body.len() > self.max_body_bytes {
            let found = body.len();
            return Err(Unreadable::Torn { found, announced });
        }
        let head = bytes.get(..HEAD_BYTES - 4).unwrap_or_default();
        if u32::from_le_bytes(*expected) != checksum(head, body) {
            return Err(Unreadable::Damaged);
        }
        Ok(Rest(body))
    }
}

/// A body that is being put together.
#[derive(Clone, Debug, Default)]
pub struct Sections {
    bytes: Vec<u8>,
}

impl Sections {
    /// Adds a section.
    pub fn add(&mut self, kind: u32, contents: &[u8]) {
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(len_u32(contents).to_le_bytes());
        self.bytes.extend(contents);
    }

    /// All of them.
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.bytes
    }
}

/// What is left to read of something.
#[derive(Clone, Copy, Debug)]
pub struct Rest<'a>(&'a [u8]);

/// What was read, or why it makes no sense.
pub type Read<T> = Result<T, &'static str>;

impl<'a> Rest<'a> {
    /// The next bytes, so many.
    ///
    /// # Errors
    /// Where there are not so many, as with all that follow.
    pub fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("a section ends early")?;
        self.0 = rest;
        Ok(*taken)
    }

    /// The next number of 64 bits.
    ///
    /// # Errors
    /// As with [`Rest::array`].
    pub fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next number of 32 bits.
    ///
    /// # Errors
    /// As with [`Rest::array`].
    pub fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next number of 16 bits.
    ///
    /// # Errors
    /// As with [`Rest::array`].
    pub fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next byte.
    ///
    /// # Errors
    /// As with [`Rest::array`].
    pub fn u8(&mut self) -> Read<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next byte, which says yes or no.
    ///
    /// # Errors
    /// Where it says anything else.
    pub fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a flag is neither 0 nor 1"),
        }
    }

    /// The next section, of this kind.
    ///
    /// # Errors
    /// Where another one stands, or one that is longer than what is left.
    pub fn section(&mut self, kind: u32) -> Read<Rest<'a>> {
        if self.u32()? != kind {
            return Err("a section is missing, or one is not known");
        }
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        let split = self.0.split_at_checked(len);
        let (section, rest) = split.ok_or("a section ends early")?;
        self.0 = rest;
        Ok(Rest(section))
    }

    /// Items until the end, with a bound on their number.
    ///
    /// # Errors
    /// Where there are more, or one of them makes no sense.
    pub fn items<T>(
        mut self,
        most: usize,
        mut read: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let mut items = Vec::new();
        while !self.0.is_empty() {
            if items.len() == most {
                return Err("a section has too many items");
            }
            items.push(read(&mut self)?);
        }
        Ok(items)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Where something is.
    pub fn end(self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("there is more than there should be")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: StateFormat = StateFormat {
        magic: *b"palitest",
        version: 3,
        max_body_bytes: 64,
    };

    #[test]
    fn what_was_put_together_is_taken_apart() {
        let mut sections = Sections::default();
        sections.add(1, &[7, 1]);
        sections.add(2, &[1, 0, 2, 0]);
        let bytes = FORMAT.with_head(&sections.into_body());
        let mut body = FORMAT.body(&bytes).unwrap();
        let mut one = body.section(1).unwrap();
        assert_eq!((one.u8(), one.flag()), (Ok(7), Ok(true)));
        one.end().unwrap();
        assert_eq!(body.section(2).unwrap().items(2, Rest::u16), Ok(vec![1, 2]));
        body.end().unwrap();
    }

    #[test]
    fn bounds_are_kept() {
        let long = FORMAT.with_head(&[0; 65]);
        assert!(matches!(FORMAT.body(&long), Err(Unreadable::Torn { .. })));
        assert!(Rest(&[0; 3]).items(2, Rest::u8).is_err());
        assert!(Rest(&[0; 3]).items(2, Rest::u16).is_err());
        assert!(Rest(&[2]).flag().is_err());
        assert!(Rest(&[1, 0, 0, 0, 255, 255, 255, 255]).section(1).is_err());
        assert!(Rest(&[0]).end().is_err());
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let bytes = FORMAT.with_head(b"contents");
        for at in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(FORMAT.body(&bytes).is_err(), "bit {at}");
        }
    }
}
