//! The bytes of a queue's work.

use palisade_pci::saved::{Read, Rest};
use palisade_units::{Access, Iova};
use zerocopy::{FromBytes, IntoBytes};

use crate::op::{Carry, SoFar, Tags};
use crate::spec::{
    COMPLETION_RECORD_BYTES, CompletionRecord, DESCRIPTOR_BYTES, Descriptor, DifTags,
};
use crate::task::{Batch, BegunTask, Blocked, Stage, Work};

/// No task that was begun has more bytes: two descriptors, one with a record, the counts of a batch, a page.
pub(super) const MAX_TASK_BYTES: usize = 2 * DESCRIPTOR_BYTES + COMPLETION_RECORD_BYTES + 32;

mod stage {
    pub(super) const FRESH: u8 = 0;
    pub(super) const RUNNING: u8 = 1;
    pub(super) const FETCHING: u8 = 2;
    pub(super) const RECORDING: u8 = 3;
}

mod carry {
    pub(super) const NOTHING: u8 = 0;
    pub(super) const CRC: u8 = 1;
    pub(super) const DELTA_BYTES: u8 = 2;
    pub(super) const DELTA_OFFSET: u8 = 3;
    pub(super) const TAGS: u8 = 4;
}

/// Which tags an operation has.
const SOURCE: u8 = 1;
const DESTINATION: u8 = 2;

pub(super) fn put_task(task: &BegunTask, into: &mut Vec<u8>) {
    let BegunTask {
        work,
        batch,
        refused,
    } = task;
    into.extend(work.descriptor.as_bytes());
    match work.stage {
        Stage::Fresh => into.push(stage::FRESH),
        Stage::Running(so_far) => {
            into.push(stage::RUNNING);
            put_so_far(so_far, into);
        }
        Stage::Fetching => into.push(stage::FETCHING),
        Stage::Recording(record) => {
            into.push(stage::RECORDING);
            into.extend(record.as_bytes());
        }
    }
    into.push(batch.is_some().into());
    if let Some(batch) = batch {
        into.extend(batch.work.descriptor.as_bytes());
        for count in [batch.taken, batch.completed, batch.failed] {
            into.extend(count.to_le_bytes());
        }
    }
    into.push(refused.is_some().into());
    if let Some(Blocked { at, access }) = refused {
        into.extend(at.get().to_le_bytes());
        into.push(access.bits());
    }
}

pub(super) fn task(rest: &mut Rest<'_>) -> Read<BegunTask> {
    let descriptor = descriptor(rest)?;
    let stage = match rest.u8()? {
        stage::FRESH => Stage::Fresh,
        stage::RUNNING => Stage::Running(so_far(rest)?),
        stage::FETCHING => Stage::Fetching,
        stage::RECORDING => Stage::Recording(record(rest)?),
        _ => return Err("a descriptor is in a stage that is not known"),
    };
    let batch = if rest.flag()? {
        Some(Batch {
            work: Work {
                descriptor: self::descriptor(rest)?,
                stage: Stage::Fetching,
            },
            taken: rest.u32()?,
            completed: rest.u32()?,
            failed: rest.u32()?,
        })
    } else {
        None
    };
    let refused = if rest.flag()? {
        Some(Blocked {
            at: Iova::new(rest.u64()?),
            access: Access::from_bits(rest.u8()?).ok_or("an access is not known")?,
        })
    } else {
        None
    };
    Ok(BegunTask {
        work: Work { descriptor, stage },
        batch,
        refused,
    })
}

pub(super) fn descriptor(rest: &mut Rest<'_>) -> Read<Descriptor> {
    let bytes: [u8; DESCRIPTOR_BYTES] = rest.array()?;
    Ok(zerocopy::transmute!(bytes))
}

fn record(rest: &mut Rest<'_>) -> Read<CompletionRecord> {
    let bytes: [u8; COMPLETION_RECORD_BYTES] = rest.array()?;
    Ok(zerocopy::transmute!(bytes))
}

fn put_so_far(so_far: SoFar, into: &mut Vec<u8>) {
    into.extend(so_far.done_bytes.to_le_bytes());
    let mut put = |kind: u8, bytes: &[u8]| {
        into.push(kind);
        into.extend(bytes);
    };
    match so_far.carry {
        Carry::Nothing => put(carry::NOTHING, &[]),
        Carry::Crc(crc) => put(carry::CRC, &crc.to_le_bytes()),
        Carry::DeltaBytes(bytes) => put(carry::DELTA_BYTES, &bytes.to_le_bytes()),
        Carry::DeltaOffset(offset) => put(carry::DELTA_OFFSET, &offset.to_le_bytes()),
        Carry::Tags(Tags {
            source,
            destination,
        }) => {
            let which = source.map_or(0, |_| SOURCE) | destination.map_or(0, |_| DESTINATION);
            put(carry::TAGS, &[which]);
            for tags in [source, destination].into_iter().flatten() {
                into.extend(tags.as_bytes());
            }
        }
    }
}

fn so_far(rest: &mut Rest<'_>) -> Read<SoFar> {
    let done_bytes = rest.u32()?;
    let carry = match rest.u8()? {
        carry::NOTHING => Carry::Nothing,
        carry::CRC => Carry::Crc(rest.u32()?),
        carry::DELTA_BYTES => Carry::DeltaBytes(rest.u32()?),
        carry::DELTA_OFFSET => Carry::DeltaOffset(rest.u16()?),
        carry::TAGS => {
            let which = rest.u8()?;
            if which & !(SOURCE | DESTINATION) != 0 {
                return Err("there are more tags than two");
            }
            let mut tags = |bit| (which & bit != 0).then(|| self::tags(rest)).transpose();
            Carry::Tags(Tags {
                source: tags(SOURCE)?,
                destination: tags(DESTINATION)?,
            })
        }
        _ => return Err("an operation takes along what is not known"),
    };
    Ok(SoFar { done_bytes, carry })
}

fn tags(rest: &mut Rest<'_>) -> Read<DifTags> {
    let bytes: [u8; size_of::<DifTags>()] = rest.array()?;
    DifTags::read_from_bytes(&bytes).map_err(|_| "tags have another size")
}
