use super::{Opcode, Status};

/// What SWERR says was wrong: a [`Status`] of a descriptor whose record cannot be written, or one of the codes
/// below for what came in otherwise. Those from 80h on are this device's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ErrorCode(pub u8);

impl ErrorCode {
    /// Configuration space was changed in a way that an enabled device cannot go on with: it has halted.
    pub const PCI_CONFIG: Self = Self(0x51);
    /// CMD was written while a command was active.
    pub const COMMAND_ACTIVE: Self = Self(0x52);
    /// A descriptor came to a queue that is not enabled.
    pub const QUEUE_DISABLED: Self = Self(0x80);
    /// A descriptor came to a dedicated queue that was full.
    pub const QUEUE_FULL: Self = Self(0x81);
    /// A write to a portal was not aligned to its size, or to a portal that does not exist.
    pub const PORTAL_ACCESS: Self = Self(0x82);
    /// A descriptor of a shared queue, or an entry of the MSI-X permission table, names a PASID that may not
    /// be used here.
    pub const PASID_REFUSED: Self = Self(0x83);
}

impl From<Status> for ErrorCode {
    fn from(status: Status) -> Self {
        Self(status.code().0)
    }
}

/// The contents of SWERR (DSA §9.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareError {
    /// What was wrong.
    pub code: ErrorCode,
    /// The queue, where there is one.
    pub queue: Option<u8>,
    /// The descriptor's operation, where there is a descriptor.
    pub operation: Option<Opcode>,
    /// The PASID as the driver knows it; 0 where there is none.
    pub pasid: u32,
    /// The place in a batch, where the descriptor came from one.
    pub batch_index: Option<u16>,
    /// The flags that were wrong.
    pub invalid_flags: u32,
    /// The address that could not be accessed; 0 where there is none.
    pub fault_address: u64,
    /// The access was a write.
    pub write: bool,
    /// The access was privileged.
    pub privileged: bool,
}

impl SoftwareError {
    /// Bit 0 of the register: it holds an error.
    pub const VALID: u64 = 1 << 0;
    /// Bit 1 of the register: there were further errors.
    pub const OVERFLOW: u64 = 1 << 1;
    const DESCRIPTOR_VALID: u64 = 1 << 2;
    const QUEUE_VALID: u64 = 1 << 3;
    const BATCH: u64 = 1 << 4;
    const WRITE: u64 = 1 << 5;
    const PRIVILEGED: u64 = 1 << 6;
    const CODE: u32 = 8;
    const QUEUE: u32 = 16;
    const OPERATION: u32 = 32;
    const PASID: u32 = 40;

    /// An error that is about no queue and no descriptor.
    #[must_use]
    pub const fn of_device(code: ErrorCode) -> Self {
        Self {
            queue: None,
            ..Self::at_portal(code, 0)
        }
    }

    /// An error with nothing but its code and queue.
    #[must_use]
    pub const fn at_portal(code: ErrorCode, queue: u8) -> Self {
        Self {
            code,
            queue: Some(queue),
            operation: None,
            pasid: 0,
            batch_index: None,
            invalid_flags: 0,
            fault_address: 0,
            write: false,
            privileged: false,
        }
    }

    /// The register with this error in it.
    #[must_use]
    pub fn encode(&self) -> [u64; 4] {
        let flag = |on: bool, bit: u64| if on { bit } else { 0 };
        let first = Self::VALID
            | flag(self.operation.is_some(), Self::DESCRIPTOR_VALID)
            | flag(self.queue.is_some(), Self::QUEUE_VALID)
            | flag(self.batch_index.is_some(), Self::BATCH)
            | flag(self.write, Self::WRITE)
            | flag(self.privileged, Self::PRIVILEGED)
            | (u64::from(self.code.0) << Self::CODE)
            | (u64::from(self.queue.unwrap_or(0)) << Self::QUEUE)
            | (u64::from(self.operation.map_or(0, |opcode| opcode.0)) << Self::OPERATION)
            | (u64::from(self.pasid & 0xf_ffff) << Self::PASID);
        let second =
            u64::from(self.batch_index.unwrap_or(0)) | (u64::from(self.invalid_flags) << 32);
        [first, second, self.fault_address, 0]
    }

    /// The error that the register holds; `None` where it is not valid.
    #[must_use]
    pub fn decode(register: [u64; 4]) -> Option<Self> {
        let [first, second, fault_address, _] = register;
        let byte = |shift: u32| (first >> shift).to_le_bytes()[0];
        let has = |bit: u64| first & bit != 0;
        let [batch_low, batch_high, _, _, flags @ ..] = second.to_le_bytes();
        let [p0, p1, p2, ..] = (first >> Self::PASID).to_le_bytes();
        has(Self::VALID).then_some(Self {
            code: ErrorCode(byte(Self::CODE)),
            queue: has(Self::QUEUE_VALID).then_some(byte(Self::QUEUE)),
            operation: has(Self::DESCRIPTOR_VALID).then_some(Opcode(byte(Self::OPERATION))),
            pasid: u32::from_le_bytes([p0, p1, p2 & 0xf, 0]),
            batch_index: has(Self::BATCH).then_some(u16::from_le_bytes([batch_low, batch_high])),
            invalid_flags: u32::from_le_bytes(flags),
            fault_address,
            write: has(Self::WRITE),
            privileged: has(Self::PRIVILEGED),
        })
    }
}
