//! What completion records say of operations.

use crate::op::{self, SoFar, Yield};
use crate::spec::{CompletionRecord, DeltaResult, Descriptor, Flags, Opcode, Status};
use crate::task::Blocked;

/// Of an operation that came to its end.
pub(crate) fn completed(descriptor: &Descriptor, done: Yield, so_far: &SoFar) -> CompletionRecord {
    let checks = descriptor.flags().contains(Flags::CHECK_RESULT);
    let unexpected = checks && !is_expected(descriptor, done.result);
    let status = if done.status == Status::SUCCESS && unexpected {
        Status::SUCCESS_UNEXPECTED
    } else {
        done.status
    };
    CompletionRecord {
        status: status.0,
        result: done.result,
        bytes_completed: done.bytes_completed,
        specific: so_far.report(),
        ..CompletionRecord::default()
    }
}

/// Of an operation that a page fault ended, or a page request that was refused: what was done, and what is
/// needed to go on.
pub(crate) fn partial(
    descriptor: &Descriptor,
    status: Status,
    on: Blocked,
    so_far: &SoFar,
) -> CompletionRecord {
    let status = if op::was_write(on) {
        status.with_write()
    } else {
        status
    };
    CompletionRecord {
        status: status.0,
        result: op::direction_result(descriptor),
        bytes_completed: so_far.done_bytes,
        fault_address: on.at.get(),
        specific: so_far.report(),
        ..CompletionRecord::default()
    }
}

/// Whether a record is to be written.
#[inline]
pub(crate) fn is_wanted(flags: Flags, status: Status) -> bool {
    let wanted = flags.contains(Flags::REQUEST_RECORD) || status.code() != Status::SUCCESS;
    wanted && flags.contains(Flags::RECORD_ADDRESS_VALID)
}

/// Of a descriptor with invalid flags.
pub(crate) fn invalid_flags(flags: Flags) -> CompletionRecord {
    let mut record = CompletionRecord {
        status: Status::INVALID_FLAGS.0,
        ..CompletionRecord::default()
    };
    let (word, _) = record.specific.split_at_mut(4);
    word.copy_from_slice(&flags.bits().to_le_bytes());
    record
}

fn is_expected(descriptor: &Descriptor, result: u8) -> bool {
    match descriptor.opcode() {
        // A bit for each result, where others have one result.
        Opcode::CREATE_DELTA => {
            descriptor.create_delta_fields().expected & DeltaResult(result).mask() != 0
        }
        _ => result == descriptor.specific[0] & 3,
    }
}
