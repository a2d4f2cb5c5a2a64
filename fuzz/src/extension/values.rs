//! Numbers that are mostly plausible, each made from one byte of an input.

use arbitrary::{Result, Unstructured};
use palisade_units::{Access, GuestPasid};
use palisade_vfio_user::wire::pasid::{PasidCapability, RequestAbi, Tag};
use palisade_vfio_user::wire::{Command, HEADER_BYTES, Header, ReplyWanted};
use zerocopy::IntoBytes;

/// One of these.
pub(super) fn one_of<T: Copy>(those: &[T], input: &mut Unstructured<'_>) -> Result<T> {
    input.choose(those).copied()
}

pub(super) fn pasid(input: &mut Unstructured<'_>) -> Result<u32> {
    const PASIDS: [u32; 8] = [5, 0, 1, 6, 255, 0xf_ffff, 0x10_0000, u32::MAX];
    one_of(&PASIDS, input)
}

pub(super) fn address(input: &mut Unstructured<'_>) -> Result<u64> {
    const ADDRESSES: [u64; 8] = [
        0x1000,
        0,
        0x2000,
        0x1234,
        0x7f00_0000_0000,
        u64::MAX - 0xfff,
        u64::MAX - 0x1fff,
        u64::MAX,
    ];
    one_of(&ADDRESSES, input)
}

pub(super) fn len_bytes(input: &mut Unstructured<'_>) -> Result<u64> {
    const LENGTHS: [u64; 10] = [
        0x1000,
        8,
        0x2000,
        1,
        0,
        0x1001,
        0x1_0000,
        0x1_0001,
        0xffff_ffff_ffff_f000,
        u64::MAX,
    ];
    one_of(&LENGTHS, input)
}

/// An access, and whether it has a PASID: bits 3:0 and bit 7 of a byte.
pub(super) fn access(input: &mut Unstructured<'_>) -> Result<(Access, Named)> {
    let byte: u8 = input.arbitrary()?;
    let named = if byte & 0x80 == 0 {
        Named::No
    } else {
        Named::Yes
    };
    Ok((Access::from_bits_truncate(byte & 0xf), named))
}

/// Whether a request has a PASID.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    Yes,
    No,
}

impl Named {
    /// The PASID, if there is to be one and it is one.
    pub(super) fn then(self, raw: u32) -> Option<GuestPasid> {
        GuestPasid::new(raw).ok().filter(|_| self == Self::Yes)
    }
}

/// In whose name a device asks.
pub(super) fn tag(input: &mut Unstructured<'_>) -> Result<Tag> {
    let raw = pasid(input)?;
    let (access, named) = access(input)?;
    Ok(Tag {
        pasid: named.then(raw),
        access,
    })
}

/// In whose name a message says that it asks: now and then what cannot be.
pub(super) fn raw_tag(input: &mut Unstructured<'_>) -> Result<[u32; 2]> {
    let raw = pasid(input)?;
    let byte: u8 = input.arbitrary()?;
    let has_pasid = if byte & 0x80 == 0 { 0 } else { Tag::HAS_PASID };
    Ok([raw, u32::from(byte & 0x1f) | has_pasid])
}

/// Limits of the extension.
pub(super) fn capability(input: &mut Unstructured<'_>) -> Result<PasidCapability> {
    Ok(PasidCapability {
        width: one_of(&[20, 8, 1, 16], input)?,
        max_commands: one_of(&[4, 1, 2, 1024], input)?,
        max_page_groups: one_of(&[2, 0, 1, 512], input)?,
        max_invalidations: one_of(&[2, 0, 1, 1024], input)?,
        requests: one_of(&[Some(RequestAbi::V7), None, Some(RequestAbi::V1)], input)?,
    })
}

/// A command whose reply is wanted unless the byte's last three bits are set.
pub(super) fn command(number: u16, input: &mut Unstructured<'_>) -> Result<Header> {
    let byte: u8 = input.arbitrary()?;
    let wanted = if byte & 7 == 7 {
        ReplyWanted::No
    } else {
        ReplyWanted::Yes
    };
    let mut header = Header::command(u16::from(byte >> 3), Command::Version, wanted);
    header.command = number.into();
    Ok(header)
}

/// A message, its size set.
pub(super) fn message(mut header: Header, parts: &[&[u8]]) -> Vec<u8> {
    let payload = parts.concat();
    let size = HEADER_BYTES + payload.len();
    header.size = u32::try_from(size).unwrap_or(u32::MAX).into();
    [header.as_bytes(), &payload].concat()
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Some bytes, as many as a byte says.
pub(super) fn some_bytes(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len: u8 = input.arbitrary()?;
    Ok(input.bytes(usize::from(len).min(input.len()))?.to_vec())
}
