//! The bytes of a state.
//!
//! ```text
//! 0   "palisvtd"
//! 8   version, length of what follows the head in bytes, CRC-32C of the head so far and of what follows
//! 20  sections: kind, length in bytes, that many bytes; each kind once, in the order of the kinds
//! ```
//!
//! All numbers are little-endian; those of the head and of sections have 32 bits. There is one way to
//! write a state, and anything else is refused.

use std::collections::BTreeSet;

use crc32c::{crc32c, crc32c_append};
use palisade_iommu::GroupIndex;
use palisade_units::{Bdf, GuestPasid, PASID_COUNT};

use super::UnitState;
use crate::config_space::{CONFIG_BYTES, PresenceState};
use crate::registers::{KEPT, RegistersState};
use crate::sink::{CAPACITY, Group};
use crate::{CachingMode, UnitConfig, VcmdLayout};

/// In the byte that says how the unit was made, beside the layout of virtual commands.
const CACHING_MODE_OFF: u8 = 1 << 7;
const MAGIC: &[u8; 8] = b"palisvtd";
/// The version that is written, and the only one that is read.
pub(super) const VERSION: u32 = 1;
pub(super) const HEAD_BYTES: usize = 20;
/// A state whose guest allocated every PASID is not longer.
const MAX_BYTES: usize = 8 << 20;

/// Why bytes are not the state of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// They do not begin as one.
    #[error("this is no state of a unit")]
    Foreign,
    /// Another version of the format.
    #[error(
        "this is the state of a unit in version {0}, and version {VERSION} is read: restore it where it was saved"
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
    /// The checksum fits, and yet no unit wrote this.
    #[error("the state makes no sense: {0}")]
    Senseless(&'static str),
}

/// The sections, by kind.
mod kind {
    pub(super) const CONFIG: u32 = 1;
    pub(super) const REGISTERS: u32 = 2;
    pub(super) const TRANSLATION: u32 = 3;
    pub(super) const RECORDS: u32 = 4;
    pub(super) const PRESENCE: u32 = 5;
    pub(super) const OWED: u32 = 6;
    pub(super) const ALLOCATED: u32 = 7;
}

/// CRC-32C (RFC 3720 §12.1) of what precedes the checksum and of what follows it.
pub(super) fn checksum(head: &[u8], body: &[u8]) -> u32 {
    crc32c_append(crc32c(head), body)
}

fn len_u32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// A head for what follows it.
pub(super) fn with_head(body: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(len_u32(body).to_le_bytes());
    let checksum = checksum(&bytes, body);
    bytes.extend(checksum.to_le_bytes());
    bytes.extend(body);
    bytes
}

pub(super) fn encode(state: &UnitState) -> Vec<u8> {
    let mut body = Vec::new();
    let mut section = |kind: u32, bytes: Vec<u8>| {
        body.extend(kind.to_le_bytes());
        body.extend(len_u32(&bytes).to_le_bytes());
        body.extend(bytes);
    };
    let vcmd = match state.config.vcmd {
        VcmdLayout::Off => 0,
        VcmdLayout::Current => 1,
        VcmdLayout::Older => 2,
    };
    let caching_mode = match state.config.caching_mode {
        CachingMode::On => 0,
        CachingMode::Off => CACHING_MODE_OFF,
    };
    section(kind::CONFIG, vec![vcmd | caching_mode]);
    let RegistersState {
        values,
        root,
        records,
        positions,
        virtual_command,
        virtual_response,
        response_pending,
    } = &state.registers;
    let values = KEPT.iter().zip(values);
    let values = values.flat_map(|(offset, value)| [*offset, *value]);
    section(kind::REGISTERS, values.flat_map(u64::to_le_bytes).collect());
    let words = [*root, *virtual_command, *virtual_response];
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    bytes.push((*response_pending).into());
    section(kind::TRANSLATION, bytes);
    let mut bytes = positions.to_vec();
    for (index, record) in records {
        bytes.push(*index);
        bytes.extend(record);
    }
    section(kind::RECORDS, bytes);
    let presence = &state.presence;
    let mut bytes = vec![presence.hidden.into(), presence.bar0_base.is_some().into()];
    bytes.extend(presence.bar0_base.unwrap_or(0).to_le_bytes());
    bytes.extend(presence.header);
    section(kind::PRESENCE, bytes);
    let mut bytes = Vec::new();
    for group in &state.owed {
        bytes.extend(group.function.requester_id().to_le_bytes());
        bytes.extend(group.index.get().to_le_bytes());
        // No PASID has so many bits.
        let pasid = group.pasid.map_or(u32::MAX, GuestPasid::get);
        bytes.extend(pasid.to_le_bytes());
    }
    section(kind::OWED, bytes);
    let numbers = state.allocated.iter().map(|guest| guest.get());
    let bytes = numbers.flat_map(u32::to_le_bytes).collect();
    section(kind::ALLOCATED, bytes);
    with_head(&body)
}

pub(super) fn decode(bytes: &[u8]) -> Result<UnitState, Unreadable> {
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Unreadable::Foreign);
    };
    if magic != MAGIC {
        return Err(Unreadable::Foreign);
    }
    let torn = |found| Unreadable::Torn {
        found,
        announced: 0,
    };
    let (version, rest) = rest.split_first_chunk().ok_or(torn(0))?;
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let (announced, rest) = rest.split_first_chunk().ok_or(torn(0))?;
    let (checksum, body) = rest.split_first_chunk().ok_or(torn(0))?;
    let announced = u32::from_le_bytes(*announced);
    if announced != len_u32(body) || body.len() > MAX_BYTES {
        let found = body.len();
        return Err(Unreadable::Torn { found, announced });
    }
    let head = bytes.get(..HEAD_BYTES - 4).unwrap_or_default();
    if u32::from_le_bytes(*checksum) != self::checksum(head, body) {
        return Err(Unreadable::Damaged);
    }
    let state = decode_body(body).map_err(Unreadable::Senseless)?;
    state.check().map_err(Unreadable::Senseless)?;
    if encode(&state) != bytes {
        return Err(Unreadable::Senseless(
            "it is not written as a unit writes it",
        ));
    }
    Ok(state)
}

/// What is left to read of something.
struct Rest<'a>(&'a [u8]);

type Read<T> = Result<T, &'static str>;

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("a section ends early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn flag(&mut self) -> Read<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a flag is neither 0 nor 1"),
        }
    }

    fn section(&mut self, kind: u32) -> Read<Rest<'a>> {
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
    fn items<T>(mut self, most: usize, read: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut items = Vec::new();
        while !self.0.is_empty() {
            if items.len() == most {
                return Err("a section has too many items");
            }
            items.push(read(&mut self)?);
        }
        Ok(items)
    }

    fn end(self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("there is more than there should be")
        }
    }
}

fn decode_body(body: &[u8]) -> Read<UnitState> {
    let mut body = Rest(body);
    let mut section = body.section(kind::CONFIG)?;
    let [config]: [u8; 1] = section.array()?;
    let vcmd = match config & !CACHING_MODE_OFF {
        0 => VcmdLayout::Off,
        1 => VcmdLayout::Current,
        2 => VcmdLayout::Older,
        _ => return Err("the layout of virtual commands is not known"),
    };
    let caching_mode = match config & CACHING_MODE_OFF {
        0 => CachingMode::On,
        _ => CachingMode::Off,
    };
    section.end()?;
    let mut section = body.section(kind::REGISTERS)?;
    let mut values = [0; KEPT.len()];
    for (offset, value) in KEPT.iter().zip(&mut values) {
        if section.u64()? != *offset {
            return Err("a register is missing, or one is not known");
        }
        *value = section.u64()?;
    }
    section.end()?;
    let mut section = body.section(kind::TRANSLATION)?;
    let (root, virtual_command) = (section.u64()?, section.u64()?);
    let (virtual_response, response_pending) = (section.u64()?, section.flag()?);
    section.end()?;
    let mut section = body.section(kind::RECORDS)?;
    let positions = section.array()?;
    let records = section.items(256, |rest| {
        let [index] = rest.array()?;
        Ok((index, rest.array()?))
    })?;
    let mut section = body.section(kind::PRESENCE)?;
    let (hidden, decoded) = (section.flag()?, section.flag()?);
    let base = section.u64()?;
    let header: [u8; CONFIG_BYTES] = section.array()?;
    section.end()?;
    let owed = body.section(kind::OWED)?.items(CAPACITY, |rest| {
        let function = Bdf::from_requester_id(rest.u16()?);
        let index = GroupIndex::new(rest.u16()?);
        let pasid = match rest.u32()? {
            u32::MAX => None,
            raw => Some(GuestPasid::new(raw).map_err(|_| "there is no such PASID")?),
        };
        Ok(Group {
            function,
            pasid,
            index,
        })
    })?;
    let most = usize::try_from(PASID_COUNT).unwrap_or(usize::MAX);
    let allocated = body.section(kind::ALLOCATED)?.items(most, |rest| {
        GuestPasid::new(rest.u32()?).map_err(|_| "there is no such PASID")
    })?;
    body.end()?;
    Ok(UnitState {
        config: UnitConfig { vcmd, caching_mode },
        registers: RegistersState {
            values,
            root,
            records,
            positions,
            virtual_command,
            virtual_response,
            response_pending,
        },
        presence: PresenceState {
            hidden,
            bar0_base: decoded.then_some(base),
            header,
        },
        owed: owed.into_iter().collect::<BTreeSet<_>>(),
        allocated: allocated.into_iter().collect(),
    })
}
