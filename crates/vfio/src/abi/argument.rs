use zerocopy::{FromBytes, little_endian::U32};

use super::AbiError;
use super::layout::Head;

/// The bytes of an argument that its own size allows to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Argument<'a> {
    bytes: &'a [u8],
    argsz: u32,
}

impl<'a> Argument<'a> {
    /// Takes an argument at its word: no byte past `argsz` is read, or written back.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, AbiError> {
        let (argsz, _) = U32::read_from_prefix(bytes).map_err(|_| AbiError::Missing)?;
        let argsz = argsz.get();
        Ok(Self { bytes, argsz }.cut(argsz))
    }

    pub(super) fn flags(&self) -> Result<u32, AbiError> {
        Ok(self.read::<Head>()?.flags.get())
    }

    /// The size that it says it has.
    pub(super) fn argsz(&self) -> u32 {
        self.argsz
    }

    /// The structure that it begins with.
    pub(super) fn read<T: FromBytes>(&self) -> Result<T, AbiError> {
        let (argsz, needed) = (self.argsz, size_of::<T>());
        if (argsz as usize) < needed {
            return Err(AbiError::Short { argsz, needed });
        }
        let (read, _) = T::read_from_prefix(self.bytes).map_err(|_| AbiError::Missing)?;
        Ok(read)
    }

    /// What comes after so many bytes that were read already.
    pub(super) fn after(&self, len_bytes: u32) -> Self {
        Self {
            bytes: self.bytes.get(len_bytes as usize..).unwrap_or_default(),
            argsz: self.argsz.saturating_sub(len_bytes),
        }
    }

    /// The first bytes of it, where it has more.
    pub(super) fn cut(&self, argsz: u32) -> Self {
        let argsz = argsz.min(self.argsz);
        Self {
            bytes: self.bytes.get(..argsz as usize).unwrap_or(self.bytes),
            argsz,
        }
    }
}
