//! The bytes of a state, in sections as [`palisade_pci::saved`] has them. There is one way to write a state, and anything
//! else is refused.

use std::collections::BTreeSet;

use palisade_iommu::GroupIndex;
use palisade_pci::saved::{HEAD_BYTES, Read, Rest, Sections, StateFormat, Unreadable};
use palisade_units::{Bdf, GuestPasid, PASID_COUNT};

use super::UnitState;
use crate::config_space::{CONFIG_BYTES, PresenceState};
use crate::registers::{KEPT, RegistersState};
use crate::sink::{CAPACITY, Group};
use crate::{CachingMode, UnitConfig, VcmdLayout};

/// In the byte that says how the unit was made, beside the layout of virtual commands.
const CACHING_MODE_OFF: u8 = 1 << 7;
/// A state whose guest allocated every PASID is not longer.
const MAX_BYTES: usize = 8 << 20;
pub(super) const MAX_LEN_BYTES: usize = HEAD_BYTES + MAX_BYTES;

pub(super) const FORMAT: StateFormat = StateFormat {
    magic: *b"palisvtd",
    version: 1,
    max_body_bytes: MAX_BYTES,
};

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

pub(super) fn encode(state: &UnitState) -> Vec<u8> {
    let mut body = Sections::default();
    let mut section = |kind: u32, bytes: Vec<u8>| body.add(kind, &bytes);
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
    FORMAT.with_head(&body.into_body())
}

pub(super) fn decode(bytes: &[u8]) -> Result<UnitState, Unreadable> {
    let body = FORMAT.body(bytes)?;
    let state = decode_body(body).map_err(Unreadable::Senseless)?;
    state.check().map_err(Unreadable::Senseless)?;
    if encode(&state) != bytes {
        return Err(Unreadable::Senseless(
            "it is not written as a unit writes it",
        ));
    }
    Ok(state)
}

fn decode_body(mut body: Rest<'_>) -> Read<UnitState> {
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
