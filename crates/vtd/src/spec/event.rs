//! Status and interrupt control of the three events: fault, invalidation completion, page request
//! (VT-d §11.4.7, §11.4.9, §11.4.11).

use bitfield_struct::bitfield;

bitflags::bitflags! {
    /// The status bits of FSTS_REG, without the index (VT-d §11.4.7.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FaultStatus: u32 {
        /// PFO: a fault found no free record; none is recorded until software clears this.
        const OVERFLOW = 1 << 0;
        /// PPF: a record holds a fault. Read-only; follows the records.
        const PENDING = 1 << 1;
        /// IQE: the invalidation queue stopped at an error.
        const QUEUE_ERROR = 1 << 4;
        /// ICE: a device TLB answered what nobody asked. Never set here: devices answer by returning.
        const COMPLETION_ERROR = 1 << 5;
        /// ITE: a device TLB did not answer.
        const TIME_OUT = 1 << 6;
        /// What keeps the unit from fetching descriptors until software clears it (VT-d §6.5.2.11).
        const STOPS_THE_QUEUE = Self::QUEUE_ERROR.bits() | Self::TIME_OUT.bits();
    }
}

/// FSTS_REG (VT-d §11.4.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultStatusRegister(u32);

impl FaultStatusRegister {
    /// The register with this value.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The register that shows a status and the index of the first pending record.
    #[must_use]
    pub const fn new(status: FaultStatus, first: u8) -> Self {
        Self(status.bits() | (first as u32) << 8)
    }

    /// The value.
    #[must_use]
    pub const fn into_bits(self) -> u32 {
        self.0
    }

    /// The status bits.
    #[must_use]
    pub const fn status(self) -> FaultStatus {
        FaultStatus::from_bits_truncate(self.0)
    }

    /// FRI: the index of the record that was the first to be filled since none was pending.
    #[must_use]
    pub const fn first_record(self) -> u8 {
        self.0.to_le_bytes()[1]
    }
}

/// FECTL_REG, IECTL_REG, PECTL_REG (VT-d §11.4.7.2, §11.4.9.5, §11.4.11.5).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EventControl {
    #[bits(30)]
    __: u32,
    /// IP: a message is held back.
    pub pending: bool,
    /// IM: messages are held back.
    pub masked: bool,
}

impl EventControl {
    /// The value after reset.
    pub const MASKED: Self = Self::new().with_masked(true);
}

bitflags::bitflags! {
    /// ICS_REG (VT-d §11.4.9.4).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CompletionStatus: u32 {
        /// IWC: a wait descriptor with its interrupt flag set has completed.
        const WAIT_COMPLETE = 1 << 0;
    }
}

bitflags::bitflags! {
    /// PRS_REG (VT-d §11.4.11.4).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PageRequestStatus: u32 {
        /// PPR: a request was put into the queue.
        const PENDING = 1 << 0;
        /// PRO: a request found the queue full; none is taken until software clears this.
        const OVERFLOW = 1 << 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_status_carries_the_index_in_bits_15_8() {
        let register = FaultStatusRegister::new(FaultStatus::PENDING, 0xab);
        assert_eq!(register.into_bits(), 0xab02);
        assert_eq!(register.first_record(), 0xab);
        assert_eq!(register.status(), FaultStatus::PENDING);
    }

    #[test]
    fn mask_and_pending_are_the_two_top_bits() {
        assert_eq!(EventControl::MASKED.into_bits(), 1 << 31);
        assert_eq!(EventControl::new().with_pending(true).into_bits(), 1 << 30);
    }
}
