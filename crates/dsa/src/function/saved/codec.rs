//! The bytes of a state, in sections as [`palisade_pci::saved`] has them. There is one way to write a state, and anything
//! else is refused.

use std::collections::BTreeSet;

use palisade_pci::CONFIG_SPACE_BYTES;
use palisade_pci::saved::{
    HEAD_BYTES, Read, Rest, SECTION_HEAD_BYTES, Sections, StateFormat, Unreadable,
};
use palisade_units::GuestPasid;
use zerocopy::IntoBytes;

use super::work::{MAX_TASK_BYTES, descriptor, put_task, task};
use super::{FunctionState, Held, MAX_HELD, QueueState, RegistersState, RunningState};
use crate::function::portal::{Piece, SLOTS, Target};
use crate::function::shape::Layout;
use crate::function::stale::Stale;
use crate::function::state::After;
use crate::spec::{DESCRIPTOR_BYTES, Portal};
use crate::task::LaneWork;
use crate::{MAX_QUEUES, Switch};

/// The sections, by kind.
mod kind {
    pub(super) const SHAPE: u32 = 1;
    pub(super) const CONFIG: u32 = 2;
    pub(super) const REGISTERS: u32 = 3;
    pub(super) const GROUPS: u32 = 4;
    pub(super) const VECTORS: u32 = 5;
    pub(super) const QUEUES: u32 = 6;
    pub(super) const BEGUN: u32 = 7;
    pub(super) const FRESH: u32 = 8;
    pub(super) const RUNNING: u32 = 9;
    pub(super) const PIECES: u32 = 10;
    pub(super) const HELD: u32 = 11;
    pub(super) const STALE: u32 = 12;
    pub(super) const COUNT: usize = 12;
}

/// How a command goes on, what was held, and where a PASID was left, by number.
mod tag {
    pub(super) const NOTHING: u8 = 0;
    pub(super) const DISABLE_QUEUES: u8 = 1;
    pub(super) const DISABLE_DEVICE: u8 = 2;
    pub(super) const WORD: u8 = 0;
    pub(super) const DESCRIPTOR: u8 = 1;
    pub(super) const PERMISSION: u8 = 0;
    pub(super) const QUEUE: u8 = 1;
}

const REGISTERS_BYTES: usize = 5 * 4 + 1 + 4 * 8;
const GROUP_BYTES: usize = 16 * 4;
/// A vector: its entry, that of its permission, whether it is owed.
const VECTOR_BYTES: usize = 4 * 4 + 4 + 1;
const QUEUE_BYTES: usize = 4 * 4 + 2;
/// A PASID on a queue.
const USE_BYTES: usize = 1 + 4;
const PIECE_BYTES: usize = 3 + 8 + DESCRIPTOR_BYTES;
const HELD_BYTES: usize = 3 + DESCRIPTOR_BYTES;
const STALE_BYTES: usize = 2 + 4;

/// What stands behind the head is not longer.
fn max_body_bytes(layout: &Layout) -> usize {
    let queues = usize::from(layout.queues);
    let size = layout.max_descriptors();
    kind::COUNT * SECTION_HEAD_BYTES
        + 16
        + CONFIG_SPACE_BYTES
        + REGISTERS_BYTES
        + GROUP_BYTES * usize::from(layout.shape.groups)
        + VECTOR_BYTES * usize::from(layout.vectors())
        + QUEUE_BYTES * queues
        + (1 + MAX_TASK_BYTES) * size
        + 32
        + USE_BYTES * size
        + PIECE_BYTES * queues * 2 * SLOTS
        + HELD_BYTES * MAX_HELD
        + STALE_BYTES * max_stale(layout)
}

/// No more PASIDs are left over: one for each vector, and one for each dedicated queue or descriptor.
fn max_stale(layout: &Layout) -> usize {
    let of_queues = usize::from(layout.queues) + layout.max_descriptors();
    usize::from(layout.vectors()) + of_queues
}

/// No state of a function of this shape is longer.
pub(in crate::function) fn max_len_bytes(layout: &Layout) -> usize {
    HEAD_BYTES + max_body_bytes(layout)
}

/// The version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// It does not know of PASIDs that mean nothing any more: all are looked for; nor of read buffers. It is still read.
    One = 1,
    /// The one that is written.
    Two = 2,
}

fn format(layout: &Layout, version: Version) -> StateFormat {
    StateFormat {
        magic: *b"palisdsa",
        version: version as u32,
        max_body_bytes: max_body_bytes(layout),
    }
}

fn shape_bytes(layout: &Layout) -> Vec<u8> {
    let shape = layout.shape;
    let [low, high] = shape.total_size.to_le_bytes();
    vec![
        layout.queues,
        shape.dedicated.is_on().into(),
        shape.shared.is_on().into(),
        low,
        high,
        shape.groups,
        shape.engines,
    ]
}

fn words<const N: usize>(words: &[u32; N]) -> impl Iterator<Item = u8> {
    words.iter().flat_map(|word| word.to_le_bytes())
}

pub(super) fn encode(state: &FunctionState, layout: &Layout) -> Vec<u8> {
    encode_as(Version::Two, state, layout)
}

pub(super) fn encode_as(version: Version, state: &FunctionState, layout: &Layout) -> Vec<u8> {
    let mut body = Sections::default();
    body.add(kind::SHAPE, &shape_bytes(layout));
    body.add(kind::CONFIG, &state.config[..]);
    let registers = &state.registers;
    let mut bytes = vec![registers.device];
    for word in [
        registers.general_config,
        registers.general_control,
        registers.cause,
        registers.command_status,
    ] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(registers.error.iter().flat_map(|word| word.to_le_bytes()));
    body.add(kind::REGISTERS, &bytes);
    let groups = state.groups.iter().flat_map(words);
    body.add(kind::GROUPS, &groups.collect::<Vec<_>>());
    let mut bytes = Vec::new();
    for (number, (vector, permission)) in (0..).zip(state.vectors.iter().zip(&state.permissions)) {
        bytes.extend(words(vector));
        bytes.extend(permission.to_le_bytes());
        bytes.push(state.owed.contains(&number).into());
    }
    body.add(kind::VECTORS, &bytes);
    let (mut queues, mut begun, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
    for (number, queue) in (0..=u8::MAX).zip(&state.queues) {
        queues.extend(words(&queue.words));
        queues.push(queue.enabled.into());
        queues.push(queue.privileged.is_on().into());
        for task in &queue.work.begun {
            begun.push(number);
            put_task(task, &mut begun);
        }
        for descriptor in &queue.work.fresh {
            fresh.push(number);
            fresh.extend(descriptor.as_bytes());
        }
    }
    body.add(kind::QUEUES, &queues);
    body.add(kind::BEGUN, &begun);
    body.add(kind::FRESH, &fresh);
    body.add(kind::RUNNING, &running_bytes(state.running.as_ref()));
    let mut bytes = Vec::new();
    for (queue, piece) in &state.pieces {
        bytes.extend([*queue, portal_number(piece.portal), piece.slot]);
        bytes.extend(piece.present.to_le_bytes());
        bytes.extend(piece.bytes);
    }
    body.add(kind::PIECES, &bytes);
    let mut bytes = Vec::new();
    for held in &state.held {
        match held {
            Held::Word { offset, value } => {
                bytes.push(tag::WORD);
                bytes.extend(offset.to_le_bytes());
                bytes.extend(value.to_le_bytes());
            }
            Held::Descriptor(target, descriptor) => {
                let portal = portal_number(target.portal);
                bytes.extend([tag::DESCRIPTOR, target.queue, portal]);
                bytes.extend(descriptor.as_bytes());
            }
        }
    }
    body.add(kind::HELD, &bytes);
    if version == Version::Two {
        body.add(kind::STALE, &stale_bytes(&state.stale));
    }
    format(layout, version).with_head(&body.into_body())
}

fn stale_bytes(stale: &BTreeSet<Stale>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for one in stale {
        match *one {
            Stale::Permission { vector } => bytes.extend([tag::PERMISSION, vector]),
            Stale::Queue { number, name } => {
                bytes.extend([tag::QUEUE, number]);
                bytes.extend(name.get().to_le_bytes());
            }
        }
    }
    bytes
}

fn running_bytes(running: Option<&RunningState>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(running) = running else { return bytes };
    let (after, disables) = match running.after {
        After::Nothing => (tag::NOTHING, 0),
        After::DisableQueues(queues) => (tag::DISABLE_QUEUES, queues),
        After::DisableDevice => (tag::DISABLE_DEVICE, 0),
    };
    bytes.extend([after, running.interrupt.is_on().into()]);
    bytes.extend(disables.to_le_bytes());
    bytes.extend(running.queues.to_le_bytes());
    for (queue, name) in &running.uses {
        bytes.push(*queue);
        bytes.extend(name.get().to_le_bytes());
    }
    bytes
}

const fn portal_number(portal: Portal) -> u8 {
    match portal {
        Portal::Unlimited => 0,
        Portal::Limited => 1,
    }
}

fn portal(rest: &mut Rest<'_>) -> Read<Portal> {
    Ok(if rest.flag()? {
        Portal::Limited
    } else {
        Portal::Unlimited
    })
}

fn switch(rest: &mut Rest<'_>) -> Read<Switch> {
    Ok(if rest.flag()? {
        Switch::On
    } else {
        Switch::Off
    })
}

fn read_words<const N: usize>(rest: &mut Rest<'_>) -> Read<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        *word = rest.u32()?;
    }
    Ok(words)
}

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<FunctionState, Unreadable> {
    let (version, body) = match format(layout, Version::Two).body(bytes) {
        Err(Unreadable::Version(1)) => (Version::One, format(layout, Version::One).body(bytes)?),
        body => (Version::Two, body?),
    };
    let mut state = decode_body(body, version, layout).map_err(Unreadable::Senseless)?;
    if encode_as(version, &state, layout) != bytes {
        return Err(Unreadable::Senseless(
            "it is not written as a function writes it",
        ));
    }
    if version == Version::One {
        state.clear_read_buffers();
    }
    state.check(layout).map_err(Unreadable::Senseless)?;
    Ok(state)
}

fn decode_body(mut body: Rest<'_>, version: Version, layout: &Layout) -> Read<FunctionState> {
    let shape = body.section(kind::SHAPE)?.items(16, Rest::u8)?;
    if shape != shape_bytes(layout) {
        return Err("it is of a function of another shape: restore it into one of the same");
    }
    let mut section = body.section(kind::CONFIG)?;
    let config = Box::new(section.array()?);
    section.end()?;
    let mut section = body.section(kind::REGISTERS)?;
    let registers = RegistersState {
        device: section.u8()?,
        general_config: section.u32()?,
        general_control: section.u32()?,
        cause: section.u32()?,
        command_status: section.u32()?,
        error: [
            section.u64()?,
            section.u64()?,
            section.u64()?,
            section.u64()?,
        ],
    };
    section.end()?;
    let groups = body.section(kind::GROUPS)?;
    let groups = groups.items(layout.shape.groups.into(), read_words)?;
    let vectors = body.section(kind::VECTORS)?;
    let vectors = vectors.items(layout.vectors().into(), |rest| {
        Ok((read_words(rest)?, rest.u32()?, rest.flag()?))
    })?;
    let owed = (0_u16..).zip(&vectors).filter(|(_, vector)| vector.2);
    let owed = owed.map(|(number, _)| number).collect::<BTreeSet<_>>();
    let queues = body.section(kind::QUEUES)?;
    let mut queues = queues.items(layout.queues.into(), |rest| {
        Ok(QueueState {
            words: read_words(rest)?,
            enabled: rest.flag()?,
            privileged: switch(rest)?,
            work: LaneWork::default(),
        })
    })?;
    let size = layout.max_descriptors();
    let no_queue = "there is work on a queue that does not exist";
    for (queue, task) in body
        .section(kind::BEGUN)?
        .items(size, |rest| Ok((rest.u8()?, task(rest)?)))?
    {
        let queue = queues.get_mut(usize::from(queue)).ok_or(no_queue)?;
        queue.work.begun.push(task);
    }
    for (queue, fresh) in body
        .section(kind::FRESH)?
        .items(size, |rest| Ok((rest.u8()?, descriptor(rest)?)))?
    {
        let queue = queues.get_mut(usize::from(queue)).ok_or(no_queue)?;
        queue.work.fresh.push(fresh);
    }
    let running = running(body.section(kind::RUNNING)?, layout)?;
    let most = usize::from(MAX_QUEUES) * 2 * SLOTS;
    let pieces = body.section(kind::PIECES)?.items(most, |rest| {
        let queue = rest.u8()?;
        let piece = Piece {
            portal: portal(rest)?,
            slot: rest.u8()?,
            present: rest.u64()?,
            bytes: rest.array()?,
        };
        Ok((queue, piece))
    })?;
    let held = body.section(kind::HELD)?.items(MAX_HELD, held)?;
    let stale = match version {
        Version::One => Vec::new(),
        Version::Two => body.section(kind::STALE)?.items(max_stale(layout), stale)?,
    };
    body.end()?;
    Ok(FunctionState {
        config,
        registers,
        groups,
        queues,
        permissions: vectors.iter().map(|vector| vector.1).collect(),
        vectors: vectors.into_iter().map(|vector| vector.0).collect(),
        owed,
        running,
        pieces,
        held,
        stale: stale.into_iter().collect(),
    })
}

fn running(mut section: Rest<'_>, layout: &Layout) -> Read<Option<RunningState>> {
    if section.is_empty() {
        return Ok(None);
    }
    let after = section.u8()?;
    let interrupt = switch(&mut section)?;
    let disables = section.u64()?;
    let after = match after {
        tag::NOTHING => After::Nothing,
        tag::DISABLE_QUEUES => After::DisableQueues(disables),
        tag::DISABLE_DEVICE => After::DisableDevice,
        _ => return Err("a command is not known"),
    };
    let queues = section.u64()?;
    let uses = section.items(layout.max_descriptors(), |rest| {
        let queue = rest.u8()?;
        let name = GuestPasid::new(rest.u32()?).map_err(|_| "there is no such PASID")?;
        Ok((queue, name))
    })?;
    Ok(Some(RunningState {
        after,
        interrupt,
        queues,
        uses,
    }))
}

fn stale(rest: &mut Rest<'_>) -> Read<Stale> {
    match rest.u8()? {
        tag::PERMISSION => Ok(Stale::Permission { vector: rest.u8()? }),
        tag::QUEUE => Ok(Stale::Queue {
            number: rest.u8()?,
            name: GuestPasid::new(rest.u32()?).map_err(|_| "there is no such PASID")?,
        }),
        _ => Err("where a PASID was left is not known"),
    }
}

fn held(rest: &mut Rest<'_>) -> Read<Held> {
    match rest.u8()? {
        tag::WORD => Ok(Held::Word {
            offset: rest.u64()?,
            value: rest.u32()?,
        }),
        tag::DESCRIPTOR => {
            let target = Target {
                queue: rest.u8()?,
                portal: portal(rest)?,
            };
            Ok(Held::Descriptor(target, descriptor(rest)?))
        }
        _ => Err("what was held is not known"),
    }
}
