//! Arguments whose first word is their size, and data that they speak of.

use zerocopy::{FromBytes, Immutable, IntoBytes, little_endian::U32};

use super::IommufdError;
use crate::abi::Answer;

/// How far an answer may reach.
const FARTHEST: u64 = 4080;

/// A message's bytes: an argument, and behind it the data that it names by offsets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    bytes: &'a [u8],
    size: u32,
}

impl<'a> Message<'a> {
    /// Takes the argument's word for its size.
    pub(super) fn new(bytes: &'a [u8], shortest: u32) -> Result<Self, IommufdError> {
        let (size, _) = U32::read_from_prefix(bytes).map_err(|_| IommufdError::Missing)?;
        let size = size.get();
        if size < shortest {
            return Err(IommufdError::Short { size, shortest });
        }
        Ok(Self { bytes, size })
    }

    /// The structure that the argument is. One that is shorter has zeroes in what it leaves out; one that is longer
    /// must have them in what is not known here.
    pub(super) fn read<T>(&self) -> Result<T, IommufdError>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let argument = self.bytes.get(..self.size as usize);
        extended(argument.ok_or(IommufdError::Missing)?)
    }

    /// Bytes that the argument names. They stand behind it.
    pub(super) fn data(&self, at: u64, len_bytes: u64) -> Result<&'a [u8], IommufdError> {
        let start = usize::try_from(at).map_err(|_| IommufdError::Missing)?;
        let len_bytes = usize::try_from(len_bytes).map_err(|_| IommufdError::Missing)?;
        let end = start.checked_add(len_bytes).ok_or(IommufdError::Missing)?;
        if at < u64::from(self.size) {
            return Err(IommufdError::Missing);
        }
        self.bytes.get(start..end).ok_or(IommufdError::Missing)
    }

    /// The argument as it is from now on: no more of it than its size.
    pub(super) fn written(&self, argument: &(impl IntoBytes + Immutable)) -> Answer {
        let mut answer = Answer::written(argument);
        answer.written.truncate(self.size as usize);
        answer
    }

    /// The argument with `told` in a room of so many bytes at an offset behind it. What the room has beyond that comes
    /// back as zeroes, and so does what lies between.
    pub(super) fn written_with(
        &self,
        argument: &(impl IntoBytes + Immutable),
        (at, room): (u64, u64),
        told: &[u8],
    ) -> Result<Answer, IommufdError> {
        let mut answer = self.written(argument);
        if room == 0 {
            return Ok(answer);
        }
        let end = at.checked_add(room).filter(|end| *end <= FARTHEST);
        let end = end.filter(|_| at >= u64::from(self.size));
        let end = end.and_then(|end| usize::try_from(end).ok());
        let at = usize::try_from(at).map_err(|_| IommufdError::Missing)?;
        answer.written.resize(end.ok_or(IommufdError::Missing)?, 0);
        let room = answer.written.get_mut(at..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(told) {
            *to = *from;
        }
        Ok(answer)
    }
}

/// A structure of bytes that may be fewer or more of them.
pub(super) fn extended<T>(bytes: &[u8]) -> Result<T, IommufdError>
where
    T: FromBytes + IntoBytes + Immutable,
{
    let known = bytes.len().min(size_of::<T>());
    let (known, beyond) = bytes.split_at(known);
    if beyond.iter().any(|byte| *byte != 0) {
        return Err(IommufdError::Beyond);
    }
    let mut read = T::new_zeroed();
    for (to, from) in read.as_mut_bytes().iter_mut().zip(known) {
        *to = *from;
    }
    Ok(read)
}

/// What is not known of flags is not offered.
pub(super) fn known_flags(flags: u32, known: u32) -> Result<(), IommufdError> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(IommufdError::NotOffered("a flag"))
    }
}

/// A field that means nothing yet.
pub(super) fn reserved(field: u32) -> Result<(), IommufdError> {
    if field == 0 {
        Ok(())
    } else {
        Err(IommufdError::NotOffered("a value in a reserved field"))
    }
}
