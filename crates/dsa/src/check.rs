//! What is looked at before anything of a descriptor is done (DSA §5, §8).

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

const RESERVED_IDENTITY: u32 = 0x7ff0_0000;
const RECORD_ALIGNMENT: u64 = 32;
const LIST_ALIGNMENT: u64 = 64;

/// Flags that any operation takes.
const COMMON_FLAGS: Flags = Flags::RECORD_ADDRESS_VALID
    .union(Flags::REQUEST_RECORD)
    .union(Flags::REQUEST_INTERRUPT)
    .union(Flags::RECORD_CLASS)
    .union(Flags::STRICT_ORDER);

fn allowed_flags(opcode: Opcode, origin: Origin, session: &Session) -> Flags {
    let mut allowed = COMMON_FLAGS;
    if origin == Origin::Batch {
        allowed |= Flags::FENCE;
    }
    let classes = Flags::FIRST_CLASS | Flags::SECOND_CLASS;
    allowed |= match opcode {
        Opcode::BATCH => Flags::FIRST_CLASS,
        Opcode::MEMORY_MOVE | Opcode::MEMORY_FILL => classes | Flags::CACHE_CONTROL,
        Opcode::COMPARE | Opcode::COMPARE_PATTERN => classes | Flags::CHECK_RESULT,
        _ => Flags::empty(),
    };
    let touches_memory = !matches!(opcode, Opcode::NO_OP | Opcode::DRAIN);
    if touches_memory && session.rules.block_on_fault.is_on() {
        allowed |= Flags::BLOCK_ON_FAULT;
    }
    allowed
}

/// Looks for anything that the specification forbids.
pub(crate) fn check(
    descriptor: &Descriptor,
    origin: Origin,
    session: &Session,
) -> Result<(), Wrong> {
    let (opcode, flags) = (descriptor.opcode(), descriptor.flags());
    let has_record = flags.contains(Flags::RECORD_ADDRESS_VALID);
    if !has_record && flags.contains(Flags::REQUEST_RECORD) {
        return Err(Wrong::NoRecord(Status::RECORD_ALIGNMENT));
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
    let invalid = flags.difference(allowed_flags(opcode, origin, session));
    if !invalid.is_empty() {
        return Err(Wrong::Record(CompletionRecord {
            status: Status::INVALID_FLAGS.0,
            invalid_flags: invalid.bits(),
            ..CompletionRecord::default()
        }));
    }
    if has_reserved_bits(descriptor, opcode) {
        return Err(wrong(Status::RESERVED_NOT_ZERO));
    }
    let interrupt = flags.contains(Flags::REQUEST_INTERRUPT);
    let handle = descriptor.interrupt_handle;
    if interrupt && !session.client.may_interrupt(handle, session) {
        return Err(wrong(Status::INTERRUPT_HANDLE));
    }
    check_ranges(descriptor, opcode, session)
}

fn has_reserved_bits(descriptor: &Descriptor, opcode: Opcode) -> bool {
    let used = match opcode {
        // The expected result.
        Opcode::COMPARE | Opcode::COMPARE_PATTERN => 1,
        _ => 0,
    };
    descriptor.identity & RESERVED_IDENTITY != 0
        || descriptor.reserved != 0
        || descriptor.specific.iter().skip(used).any(|byte| *byte != 0)
}

fn check_ranges(descriptor: &Descriptor, opcode: Opcode, session: &Session) -> Result<(), Wrong> {
    let Descriptor {
        first,
        second,
        size,
        ..
    } = *descriptor;
    let in_memory = match opcode {
        Opcode::BATCH => {
            if size < 2 || size > session.rules.max_batch {
                return Err(wrong(Status::DESCRIPTOR_COUNT));
            }
            if !first.is_multiple_of(LIST_ALIGNMENT) {
                return Err(wrong(Status::LIST_ALIGNMENT));
            }
            return within(first, u64::from(size) * LIST_ALIGNMENT);
        }
        Opcode::MEMORY_MOVE | Opcode::COMPARE => [Some(first), Some(second)],
        Opcode::MEMORY_FILL => [Some(second), None],
        Opcode::COMPARE_PATTERN => [Some(first), None],
        _ => return Ok(()),
    };
    if size == 0 || u64::from(size) > session.rules.max_transfer_bytes {
        return Err(wrong(Status::TRANSFER_SIZE));
    }
    let mut buffers = in_memory.into_iter().flatten();
    buffers.try_for_each(|start| within(start, size.into()))
}

/// A range that runs past the end of the space has no translation.
fn within(start: u64, len_bytes: u64) -> Result<(), Wrong> {
    match start.checked_add(len_bytes) {
        Some(_) => Ok(()),
        None => Err(Wrong::Record(CompletionRecord {
            status: Status::TRANSLATION.0,
            fault_address: start,
            ..CompletionRecord::default()
        })),
    }
}
