//! Fault records from the driver's side (VT-d §7.3, §11.4.7).

use crate::{error::DriverError, link::Link};
use palisade_pci::Bar;
use palisade_units::{Access, Bdf, GuestPasid, Iova};
use palisade_vtd::spec::{
    capability::Capabilities,
    event::{FaultStatus, FaultStatusRegister},
    fault::{FaultCode, FaultRecord},
    register,
};

/// A fault of the IOMMU as the guest reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// The function whose request it was.
    pub bdf: Bdf,
    /// Its PASID; none where the request had none.
    pub pasid: Option<GuestPasid>,
    /// The page that was asked for.
    pub at: Iova,
    /// What was wanted there.
    pub access: Access,
    /// Why it was refused.
    pub reason: FaultCode,
}

/// What one look at the fault records found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The faults, oldest first.
    pub reports: Vec<FaultReport>,
    /// Whether further faults found no free record.
    pub overflow: Overflow,
}

/// Whether faults were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// None.
    #[default]
    None,
    /// Some, how many is not known.
    Lost,
}

/// Where the records stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultRecords {
    offset: u64,
    count: usize,
}

impl FaultRecords {
    /// As the capabilities say.
    pub(super) fn of(capabilities: Capabilities) -> Self {
        Self {
            offset: u64::from(capabilities.fault_record_offset()) * 16,
            count: usize::from(capabilities.fault_records()) + 1,
        }
    }

    /// How many faults can be pending at once.
    pub(super) fn count(self) -> usize {
        self.count
    }

    /// Reads all records that hold a fault in one access, and clears them in another.
    pub(super) fn take(self, link: &mut Link) -> Result<Faults, DriverError> {
        let status = FaultStatusRegister::from_bits(link.read_u32(Bar::Bar0, register::FSTS)?);
        let overflow = status.status().contains(FaultStatus::OVERFLOW);
        if !status.status().contains(FaultStatus::PENDING) && !overflow {
            return Ok(Faults::default());
        }
        let record_bytes = usize::try_from(register::FAULT_RECORD_BYTES).unwrap_or(16);
        let mut block = vec![0; self.count * record_bytes];
        link.read(Bar::Bar0, self.offset, &mut block)?;
        let (reports, clear) = decode(&block, usize::from(status.first_record()));
        link.write(Bar::Bar0, self.offset, &clear)?;
        if overflow {
            // Only after the records: nothing is recorded until this bit is clear.
            link.write_u32(Bar::Bar0, register::FSTS, FaultStatus::OVERFLOW.bits())?;
        }
        let overflow = if overflow {
            Overflow::Lost
        } else {
            Overflow::None
        };
        Ok(Faults { reports, overflow })
    }
}

/// The faults of a block of records, from the record `first` on, and what is written to clear them.
fn decode(block: &[u8], first: usize) -> (Vec<FaultReport>, Vec<u8>) {
    let mut clear = vec![0; block.len()];
    let mut reports = Vec::new();
    let count = block.len() / 16;
    for step in 0..count {
        let index = (first + step) % count;
        let words: [u64; 2] = std::array::from_fn(|word| {
            let at = index * 16 + word * 8;
            block[at..at + 8]
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte))
        });
        let record = FaultRecord::from_words(words);
        if record.pending() {
            reports.push(FaultReport {
                bdf: record.source(),
                pasid: record.pasid(),
                at: record.at(),
                access: record.access(),
                reason: record.reason(),
            });
            // F is the top bit of the record.
            clear[index * 16 + 15] = 0x80;
        }
    }
    (reports, clear)
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_vtd::spec::fault::RequestKind;

    fn record(pasid: u32, at: u64) -> FaultRecord {
        FaultRecord::new(
            Bdf::new(0, 0x11, 0),
            Some(GuestPasid::new(pasid).unwrap()),
            Iova::new(at),
            Access::READ,
            RequestKind::Read,
            FaultCode::new(0x59),
        )
    }

    #[test]
    fn r16_a_record_tells_function_pasid_address_access_and_reason() {
        let mut block = [0; 64];
        block[16..32].copy_from_slice(&record(0x1_2345, 0x7f00_0000_1000).to_bytes());
        let (reports, clear) = decode(&block, 0);
        let expected = FaultReport {
            bdf: Bdf::new(0, 0x11, 0),
            pasid: Some(GuestPasid::new(0x1_2345).unwrap()),
            at: Iova::new(0x7f00_0000_1000),
            access: Access::READ,
            reason: FaultCode::new(0x59),
        };
        assert_eq!(reports, [expected]);
        assert_eq!(clear.iter().filter(|byte| **byte != 0).count(), 1);
        assert_eq!(clear[31], 0x80);
    }

    #[test]
    fn r60_faults_come_in_order_from_the_first_pending_record_on() {
        let mut block = [0; 64];
        for (index, pasid) in [(3, 1), (0, 2), (1, 3)] {
            block[index * 16..][..16].copy_from_slice(&record(pasid, 0x1000).to_bytes());
        }
        block[32..48].copy_from_slice(&record(9, 0x2000).cleared().to_bytes());
        let (reports, _) = decode(&block, 3);
        let pasids: Vec<u32> = reports.iter().map(|r| r.pasid.unwrap().get()).collect();
        assert_eq!(pasids, [1, 2, 3]);
    }
}
