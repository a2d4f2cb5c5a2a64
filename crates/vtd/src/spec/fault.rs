//! Fault records and the reasons of legacy mode (VT-d §7.1.3, §11.4.7.6).

use bitfield_struct::bitfield;
use palisade_units::{Access, Bdf, GuestPasid, Iova, PAGE_SHIFT};

use super::words_to_bytes;

/// A fault reason as it stands in a record (VT-d §7.1.3, Table 30).
///
/// Those of scalable mode have their names in the platform's own list; those of legacy mode, which
/// only a guest's unit reports, are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultCode(u8);

impl FaultCode {
    /// LRT.2: the root entry is not present.
    pub const LEGACY_ROOT_NOT_PRESENT: Self = Self(0x1);
    /// LCT.2: the context entry is not present.
    pub const LEGACY_CONTEXT_NOT_PRESENT: Self = Self(0x2);
    /// LCT.4: the context entry is programmed wrongly.
    pub const LEGACY_CONTEXT_INVALID: Self = Self(0x3);
    /// LGN.1: the address is beyond the width.
    pub const LEGACY_BEYOND_WIDTH: Self = Self(0x4);
    /// LGN.2: no write permission.
    pub const LEGACY_NOT_WRITABLE: Self = Self(0x5);
    /// LGN.3: no read permission.
    pub const LEGACY_NOT_READABLE: Self = Self(0x6);
    /// LSS.1: a paging entry could not be read.
    pub const LEGACY_PAGING_ACCESS: Self = Self(0x7);
    /// LRT.1: the root entry could not be read.
    pub const LEGACY_ROOT_ACCESS: Self = Self(0x8);
    /// LCT.1: the context entry could not be read.
    pub const LEGACY_CONTEXT_ACCESS: Self = Self(0x9);
    /// LRT.3: reserved bits of the root entry.
    pub const LEGACY_ROOT_RESERVED: Self = Self(0xa);
    /// LCT.3: reserved bits of the context entry.
    pub const LEGACY_CONTEXT_RESERVED: Self = Self(0xb);
    /// LSS.2: reserved bits of a paging entry.
    pub const LEGACY_PAGING_RESERVED: Self = Self(0xc);
    /// A translation or translated request that the context entry blocks. Only a device TLB makes one.
    pub const LEGACY_DEVICE_TLB_BLOCKED: Self = Self(0xd);
    /// LGN.4: the address is in the interrupt range.
    pub const LEGACY_INTERRUPT_RANGE: Self = Self(0xe);
    /// RTA.3: a page request in legacy mode.
    pub const LEGACY_PAGE_REQUEST: Self = Self(0x32);

    /// Whether a request for a translation that ends so is answered with what there is, if need be with no
    /// permission at all, and nothing is recorded: the device may ask for the page (VT-d §7.1.2, Table 30).
    #[must_use]
    pub const fn is_an_answer_to_ats(self) -> bool {
        matches!(
            self.0,
            0x4..=0x6 | 0x51 | 0x59 | 0x5c | 0x5d | 0x70..=0x77 | 0x79 | 0x80..=0x86 | 0x90
        )
    }

    /// The reason with this code.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self(code)
    }

    /// The code.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// T1 and T2: what kind of request faulted (VT-d §11.4.7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// T1 0, T2 0.
    Write,
    /// T1 0, T2 1.
    PageRequest,
    /// T1 1, T2 0.
    Read,
    /// T1 1, T2 1.
    Atomic,
}

#[bitfield(u64)]
#[derive(PartialEq, Eq)]
struct High {
    source: u16,
    #[bits(12)]
    __: u16,
    type_2: bool,
    privileged: bool,
    execute: bool,
    pasid_present: bool,
    reason: u8,
    #[bits(20)]
    pasid: u32,
    /// AT: 0 for an untranslated request, 1 for one for a translation.
    #[bits(2)]
    address_type: u8,
    type_1: bool,
    fault: bool,
}

/// FRCD_REG: a fault record (VT-d §11.4.7.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRecord {
    page: u64,
    high: High,
}

impl FaultRecord {
    /// A record that holds a fault.
    #[must_use]
    pub const fn new(
        source: Bdf,
        pasid: Option<GuestPasid>,
        at: Iova,
        access: Access,
        kind: RequestKind,
        reason: FaultCode,
    ) -> Self {
        let mut high = High::new()
            .with_source(source.requester_id())
            .with_reason(reason.get())
            .with_type_1(matches!(kind, RequestKind::Read | RequestKind::Atomic))
            .with_type_2(matches!(
                kind,
                RequestKind::PageRequest | RequestKind::Atomic
            ))
            .with_fault(true);
        // Privilege and execution are attributes of requests with a PASID alone.
        if let Some(pasid) = pasid {
            high = high
                .with_pasid_present(true)
                .with_pasid(pasid.get())
                .with_privileged(access.contains(Access::PRIVILEGED))
                .with_execute(access.contains(Access::EXECUTE));
        }
        Self {
            page: at.page_base().get(),
            high,
        }
    }

    /// The record of a request for a translation.
    #[must_use]
    pub const fn of_translation_request(self) -> Self {
        Self {
            high: self.high.with_address_type(1),
            ..self
        }
    }

    /// Whether it is of a request for a translation.
    #[must_use]
    pub const fn is_of_translation_request(self) -> bool {
        self.high.address_type() == 1
    }

    /// From the words as the registers show them.
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [low, high] = words;
        Self {
            page: low,
            high: High::from_bits(high),
        }
    }

    /// The words as the registers show them.
    #[must_use]
    pub const fn to_words(self) -> [u64; 2] {
        [self.page, self.high.into_bits()]
    }

    /// The bytes as the registers show them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        words_to_bytes!(self.to_words(), 2)
    }

    /// F: the record holds a fault that software has not cleared.
    #[must_use]
    pub const fn pending(self) -> bool {
        self.high.fault()
    }

    /// The same record as software leaves it: F clear, the rest as it was.
    #[must_use]
    pub const fn cleared(self) -> Self {
        Self {
            page: self.page,
            high: self.high.with_fault(false),
        }
    }

    /// SID: the function whose request faulted.
    #[must_use]
    pub const fn source(self) -> Bdf {
        Bdf::from_requester_id(self.high.source())
    }

    /// PV, where PP says that there is one.
    #[must_use]
    pub const fn pasid(self) -> Option<GuestPasid> {
        match (
            self.high.pasid_present(),
            GuestPasid::new(self.high.pasid()),
        ) {
            (true, Ok(pasid)) => Some(pasid),
            _ => None,
        }
    }

    /// FI: the start of the page of the request.
    #[must_use]
    pub const fn at(self) -> Iova {
        Iova::new(self.page >> PAGE_SHIFT << PAGE_SHIFT)
    }

    /// T1 and T2.
    #[must_use]
    pub const fn kind(self) -> RequestKind {
        match (self.high.type_1(), self.high.type_2()) {
            (false, false) => RequestKind::Write,
            (false, true) => RequestKind::PageRequest,
            (true, false) => RequestKind::Read,
            (true, true) => RequestKind::Atomic,
        }
    }

    /// What the request wanted, as far as the record tells.
    #[must_use]
    pub fn access(self) -> Access {
        let mut access = match self.kind() {
            RequestKind::Write | RequestKind::PageRequest => Access::WRITE,
            RequestKind::Read => Access::READ,
            RequestKind::Atomic => Access::READ | Access::WRITE,
        };
        access.set(Access::PRIVILEGED, self.high.privileged());
        access.set(Access::EXECUTE, self.high.execute());
        access
    }

    /// FR: why.
    #[must_use]
    pub const fn reason(self) -> FaultCode {
        FaultCode::new(self.high.reason())
    }
}

const _: () = assert!(size_of::<FaultRecord>() as u64 == super::register::FAULT_RECORD_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_bits() {
        let record = FaultRecord::new(
            Bdf::new(0, 0x10, 1),
            Some(GuestPasid::new(0x5).unwrap()),
            Iova::new(0x7fff_1234_5678),
            Access::READ | Access::PRIVILEGED,
            RequestKind::Read,
            FaultCode::new(0x59),
        );
        let [low, high] = record.to_words();
        assert_eq!(low, 0x7fff_1234_5000);
        let expected = 1 << 63 | 1 << 62 | 0x5 << 40 | 0x59 << 32 | 1 << 31 | 1 << 29 | 0x81;
        assert_eq!(high, expected);
        let read = FaultRecord::from_words([low, high]);
        assert_eq!(read, record);
        assert_eq!(read.access(), Access::READ | Access::PRIVILEGED);
        assert_eq!(read.pasid().map(GuestPasid::get), Some(5));
    }

    #[test]
    fn a_cleared_record_keeps_what_it_says() {
        let record = FaultRecord::new(
            Bdf::new(0, 1, 0),
            None,
            Iova::new(0x1000),
            Access::WRITE,
            RequestKind::Write,
            FaultCode::LEGACY_NOT_WRITABLE,
        );
        assert!(record.pending());
        assert!(!record.cleared().pending());
        assert_eq!(record.cleared().reason(), record.reason());
        assert_eq!(record.pasid(), None);
    }
}
