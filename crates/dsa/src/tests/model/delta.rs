use super::{Memory, with_words};
use crate::spec::{CompletionRecord, Descriptor, Status};

pub(super) fn create(descriptor: &Descriptor, memory: &mut Memory) -> CompletionRecord {
    let fields = descriptor.create_delta_fields();
    let mut delta = Vec::new();
    let mut record = CompletionRecord {
        status: Status::SUCCESS.0,
        ..CompletionRecord::default()
    };
    for at in (0..descriptor.size).step_by(8) {
        let word = memory.at(descriptor.first + u64::from(at), 8);
        let other = memory.at(descriptor.second + u64::from(at), 8);
        if word == other {
            continue;
        }
        if delta.len() + 10 > fields.max_bytes as usize {
            record.result = 2;
            record.bytes_completed = at;
            break;
        }
        record.result = 1;
        delta.extend(u16::try_from(at / 8).unwrap().to_le_bytes());
        delta.extend(other);
    }
    memory.put(fields.record, &delta);
    with_words(record, &[u32::try_from(delta.len()).unwrap()])
}

pub(super) fn apply(descriptor: &Descriptor, memory: &mut Memory) -> CompletionRecord {
    let delta = memory
        .at(descriptor.first, descriptor.delta_bytes() as usize)
        .to_vec();
    let mut status = Status::SUCCESS;
    let (mut done, mut last) = (0, None);
    for entry in delta.chunks(10) {
        let offset = u16::from_le_bytes([entry[0], entry[1]]);
        let at = u64::from(offset) * 8;
        if last.is_some_and(|last| offset <= last) {
            status = Status::DELTA_ORDER;
        } else if at >= u64::from(descriptor.size) {
            status = Status::DELTA_OFFSET;
        }
        if status != Status::SUCCESS {
            break;
        }
        memory.put(descriptor.second + at, &entry[2..]);
        last = Some(offset);
        done += 10;
    }
    CompletionRecord {
        status: status.0,
        bytes_completed: if status == Status::SUCCESS { 0 } else { done },
        ..CompletionRecord::default()
    }
}
