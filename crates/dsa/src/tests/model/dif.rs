use zerocopy::IntoBytes;

use super::{Memory, t10_guard};
use crate::spec::{
    CompletionRecord, Descriptor, DifDestination, DifFields, DifSource, DifTags, Opcode, Status,
};

/// Blocks of data, with the fields that a check by these rules expects.
pub(in super::super) fn with_fields(data: &[u8], fields: &DifFields) -> Vec<u8> {
    let rules = fields.source_rules();
    let mut tags = fields.source;
    let mut whole = Vec::new();
    for block in data.chunks(fields.block().bytes() as usize) {
        whole.extend(block);
        whole.extend(t10_guard(block, fields.guards()).to_be_bytes());
        whole.extend(tags.application.to_be_bytes());
        whole.extend(tags.reference.to_be_bytes());
        next(
            &mut tags,
            rules.contains(DifSource::REFERENCE_FIXED),
            rules.contains(DifSource::APPLICATION_INCREASES),
        );
    }
    whole
}

pub(super) fn run(descriptor: &Descriptor, memory: &mut Memory) -> CompletionRecord {
    let fields = descriptor.dif_fields();
    let opcode = descriptor.opcode();
    let len = fields.block().bytes() as usize;
    let reads_fields = opcode != Opcode::DIF_INSERT;
    let stride = if reads_fields { len + 8 } else { len };
    let source = memory
        .at(descriptor.first, descriptor.size as usize)
        .to_vec();
    let mut out = Vec::new();
    let (mut from, mut to) = (fields.source, fields.destination);
    let mut record = CompletionRecord {
        status: Status::SUCCESS.0,
        ..CompletionRecord::default()
    };
    for (number, whole) in source.chunks(stride).enumerate() {
        let (block, field) = whole.split_at(len);
        if reads_fields {
            let result = mismatch(&fields, from, block, field);
            if result != 0 {
                record.status = Status::DIF_MISMATCH.0;
                record.result = result;
                record.bytes_completed = u32::try_from(number * stride).unwrap();
                break;
            }
        }
        match opcode {
            Opcode::DIF_INSERT => {
                out.extend(block);
                out.extend(t10_guard(block, fields.guards()).to_be_bytes());
                out.extend((to.application & !to.application_mask).to_be_bytes());
                out.extend(to.reference.to_be_bytes());
            }
            Opcode::DIF_STRIP => out.extend(block),
            Opcode::DIF_UPDATE => {
                let guard = t10_guard(block, fields.guards()).to_be_bytes();
                let application = (to.application & !to.application_mask).to_be_bytes();
                let reference = to.reference.to_be_bytes();
                let passes = |what| fields.destination_rules().contains(what);
                let pick =
                    |flag, old: &[u8], new: &[u8]| if passes(flag) { old } else { new }.to_vec();
                out.extend(block);
                out.extend(pick(DifDestination::PASS_GUARD, &field[..2], &guard));
                out.extend(pick(
                    DifDestination::PASS_APPLICATION,
                    &field[2..4],
                    &application,
                ));
                out.extend(pick(
                    DifDestination::PASS_REFERENCE,
                    &field[4..],
                    &reference,
                ));
            }
            _ => {}
        }
        let (source, destination) = (fields.source_rules(), fields.destination_rules());
        next(
            &mut from,
            source.contains(DifSource::REFERENCE_FIXED),
            source.contains(DifSource::APPLICATION_INCREASES),
        );
        next(
            &mut to,
            destination.contains(DifDestination::REFERENCE_FIXED),
            destination.contains(DifDestination::APPLICATION_INCREASES),
        );
    }
    if !out.is_empty() {
        memory.put(descriptor.second, &out);
    }
    if reads_fields {
        record.specific[..8].copy_from_slice(from.as_bytes());
    }
    if matches!(opcode, Opcode::DIF_INSERT | Opcode::DIF_UPDATE) {
        record.specific[8..].copy_from_slice(to.as_bytes());
    }
    record
}

fn next(tags: &mut DifTags, reference_fixed: bool, application_increases: bool) {
    if !reference_fixed {
        tags.reference = tags.reference.wrapping_add(1);
    }
    if application_increases {
        tags.application = tags.application.wrapping_add(1);
    }
}

fn mismatch(fields: &DifFields, tags: DifTags, block: &[u8], field: &[u8]) -> u8 {
    let is = |rule| fields.source_rules().contains(rule);
    let ones = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0xff);
    if is(DifSource::ALL_ONES) && ones(field) {
        return if is(DifSource::ALL_ONES_IS_ERROR) {
            8
        } else {
            0
        };
    }
    if is(DifSource::APPLICATION_ONES) && ones(&field[2..4]) {
        return 0;
    }
    if is(DifSource::TAGS_ONES) && ones(&field[2..]) {
        return 0;
    }
    let mut result = 0;
    if !is(DifSource::IGNORE_GUARD) && t10_guard(block, fields.guards()).to_be_bytes() != field[..2]
    {
        result |= 1;
    }
    let application = u16::from_be_bytes([field[2], field[3]]);
    if application & !tags.application_mask != tags.application & !tags.application_mask {
        result |= 2;
    }
    if !is(DifSource::IGNORE_REFERENCE) && tags.reference.to_be_bytes() != field[4..] {
        result |= 4;
    }
    result
}
