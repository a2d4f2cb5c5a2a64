//! What is looked at before anything of a descriptor is done (DSA §5, §8).

mod buffers;
mod flags;
mod reserved;

use crate::record;
use crate::session::Session;
use crate::spec::{CompletionRecord, Descriptor, Flags, Opcode, OperationCapability, Status};

/// The operations that exist here; what OPCAP says.
pub const OPERATIONS: OperationCapability = OperationCapability::of(&[
    Opcode::NO_OP,
    Opcode::BATCH,
    Opcode::DRAIN,
    Opcode::MEMORY_MOVE,
    Opcode::MEMORY_FILL,
    Opcode::COMPARE,
    Opcode::COMPARE_PATTERN,
    Opcode::CREATE_DELTA,
    Opcode::APPLY_DELTA,
    Opcode::DUALCAST,
    Opcode::CRC,
    Opcode::COPY_CRC,
    Opcode::DIF_CHECK,
    Opcode::DIF_INSERT,
    Opcode::DIF_STRIP,
    Opcode::DIF_UPDATE,
    Opcode::CACHE_FLUSH,
]);

/// Where a descriptor came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Portal,
    Batch,
}

/// What is wrong with a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrong {
    /// Its completion record says so.
    Record(CompletionRecord),
    /// It has no completion record that could be written.
    NoRecord(Status),
}

fn wrong(status: Status) -> Wrong {
    Wrong::Record(CompletionRecord {
        status: status.0,
        ..CompletionRecord::default()
    })
}

const RECORD_ALIGNMENT: u64 = 32;

/// Looks for anything that the specification forbids.
#[inline]
pub(crate) fn check(
    descriptor: &Descriptor,
    origin: Origin,
    session: &Session,
) -> Result<(), Wrong> {
    let (opcode, flags) = (descriptor.opcode(), descriptor.flags());
    let has_record = flags.contains(Flags::RECORD_ADDRESS_VALID);
    if !has_record && flags.contains(Flags::REQUEST_RECORD) {
        return Err(Wrong::Record(record::invalid_flags(Flags::REQUEST_RECORD)));
    }
    if has_record
        && !descriptor
            .completion_address
            .is_multiple_of(RECORD_ALIGNMENT)
    {
        return Err(Wrong::NoRecord(Status::RECORD_ALIGNMENT));
    }
    let nested = matches!(opcode, Opcode::BATCH | Opcode::DRAIN) && origin == Origin::Batch;
    if nested || !OPERATIONS.contains(opcode) {
        return Err(wrong(Status::UNSUPPORTED_OPERATION));
    }
    let invalid = flags.difference(flags::allowed(opcode, origin, session));
    if !invalid.is_empty() {
        return Err(Wrong::Record(record::invalid_flags(invalid)));
    }
    if reserved::is_used(descriptor) {
        return Err(wrong(Status::RESERVED_NOT_ZERO));
    }
    if origin == Origin::Portal && session.refuses_privilege(descriptor) {
        return Err(wrong(Status::PRIVILEGE));
    }
    let interrupt = flags.contains(Flags::REQUEST_INTERRUPT);
    let handle = descriptor.interrupt_handle;
    if interrupt && !session.client.may_interrupt(handle, session) {
        return Err(wrong(Status::INTERRUPT_HANDLE));
    }
    buffers::check(descriptor, session)
}
