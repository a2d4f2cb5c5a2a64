use super::Origin;
use crate::session::Session;
use crate::spec::{Flags, Opcode};

/// Flags that any operation takes.
const COMMON: Flags = Flags::RECORD_ADDRESS_VALID
    .union(Flags::REQUEST_RECORD)
    .union(Flags::REQUEST_INTERRUPT)
    .union(Flags::RECORD_CLASS)
    .union(Flags::STRICT_ORDER);
const FIRST: Flags = Flags::FIRST_CLASS;
const SECOND: Flags = Flags::SECOND_CLASS;
const BOTH: Flags = FIRST.union(SECOND);
const ALL_CLASSES: Flags = BOTH.union(Flags::THIRD_CLASS);
/// Flags of the operations that compute a CRC: their seed is the third address.
const CRC: Flags = Flags::THIRD_CLASS
    .union(Flags::READ_CRC_SEED)
    .union(Flags::BYPASS_CRC_INVERSION)
    .union(Flags::BYPASS_DATA_REFLECTION);
const CACHE_CONTROL: Flags = Flags::CACHE_CONTROL;

/// The flags that an operation takes: a traffic class for each address it has, cache control for what it writes.
#[inline]
pub(super) fn allowed(opcode: Opcode, origin: Origin, session: &Session) -> Flags {
    let own = match opcode {
        Opcode::BATCH | Opcode::DIF_CHECK => FIRST,
        Opcode::MEMORY_MOVE
        | Opcode::APPLY_DELTA
        | Opcode::DIF_INSERT
        | Opcode::DIF_STRIP
        | Opcode::DIF_UPDATE => BOTH | CACHE_CONTROL,
        Opcode::MEMORY_FILL => SECOND | CACHE_CONTROL | Flags::WIDE_PATTERN,
        Opcode::COMPARE => BOTH | Flags::CHECK_RESULT,
        Opcode::COMPARE_PATTERN => FIRST | Flags::CHECK_RESULT,
        Opcode::CREATE_DELTA => ALL_CLASSES | CACHE_CONTROL | Flags::CHECK_RESULT,
        Opcode::DUALCAST => ALL_CLASSES | CACHE_CONTROL,
        Opcode::CRC => FIRST | CRC,
        Opcode::COPY_CRC => BOTH | CACHE_CONTROL | CRC,
        // GENCAP has no cache control for flushes.
        Opcode::CACHE_FLUSH => SECOND,
        _ => Flags::empty(),
    };
    let mut allowed = COMMON | own;
    if origin == Origin::Batch {
        allowed |= Flags::FENCE;
    }
    let touches_memory = !matches!(opcode, Opcode::NO_OP | Opcode::DRAIN);
    if touches_memory && session.rules.block_on_fault.is_on() {
        allowed |= Flags::BLOCK_ON_FAULT;
    }
    allowed
}
