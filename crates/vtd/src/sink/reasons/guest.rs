//! Requests that fault, and what of the guest's tables recipes change to bring them about.

use std::sync::Arc;

use palisade_iommu::{Ats, OnMiss, Privilege, Requester};
use palisade_units::{Access, Bdf, Gpa, GuestPasid, Iova, PasidTag};
use palisade_vfio::Attachment;

use crate::spec::context::ContextEntry;
use crate::spec::pasid_table::{DirectoryEntry, PasidEntry};
use crate::testing::{FUNCTION, Rig, pasid};

/// Prepares a guest, and says which request is refused then.
pub(super) type Recipe = fn(&mut Rig) -> Request;

/// Where the guest has no memory.
pub(super) const NOWHERE: Gpa = Gpa::new(0x00de_adbe_e000);
/// What requests are for, unless the recipe says otherwise.
pub(super) const AT: Iova = Iova::new(0x7f12_3456_7000);

pub(super) fn five() -> GuestPasid {
    pasid(5)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Read,
    Write,
    Fetch,
    PrivilegedRead,
    AskForPage,
    /// A read by ATS: of what there is no translation for.
    ReadByAts,
}

/// One request of the device.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) pasid: Option<GuestPasid>,
    pub(super) at: Iova,
    pub(super) what: What,
    /// The function's attachment, where the rig has it not.
    pub(super) attachment: Option<Arc<Attachment>>,
}

impl Request {
    /// A read of PASID 5.
    pub(super) fn read() -> Self {
        Self {
            pasid: Some(five()),
            at: AT.checked_add(0x123).unwrap(),
            what: What::Read,
            attachment: None,
        }
    }

    pub(super) fn with(self, what: What) -> Self {
        Self { what, ..self }
    }

    pub(super) fn at(self, at: u64) -> Self {
        let at = Iova::new(at);
        Self { at, ..self }
    }

    pub(super) fn of(self, pasid: GuestPasid) -> Self {
        let pasid = Some(pasid);
        Self { pasid, ..self }
    }

    pub(super) fn without_pasid(self) -> Self {
        Self {
            pasid: None,
            ..self
        }
    }

    /// The function that makes the request.
    pub(super) fn source(&self) -> Bdf {
        let attachment = self.attachment.as_ref();
        attachment.map_or(FUNCTION, |attachment| attachment.guest_bdf())
    }

    /// Makes the request, which the platform refuses.
    pub(super) fn refused(&self, rig: &Rig) {
        let mut by = Requester::new(self.pasid.map(PasidTag::of_exclusive_owner));
        let mut port = rig.port();
        let mut bytes = [0x5a; 8];
        match self.what {
            What::Read => assert!(port.read(by, self.at, &mut bytes).is_err()),
            What::Write => assert!(port.write(by, self.at, &bytes).is_err()),
            What::Fetch => assert!(port.fetch(by, self.at, &mut bytes).is_err()),
            What::ReadByAts => {
                by.ats = Ats::On;
                assert!(port.read(by, self.at, &mut bytes).is_err());
            }
            What::PrivilegedRead => {
                by.privilege = Privilege::Privileged;
                assert!(port.read(by, self.at, &mut bytes).is_err());
            }
            What::AskForPage => {
                by.on_miss = OnMiss::Ask;
                let waiter = Box::new(|_| {});
                let asked = port.request_page(by, self.at, Access::WRITE, waiter);
                assert_eq!(asked, Ok(()), "the answer tells");
            }
        }
        assert_eq!(bytes, [0x5a; 8]);
    }
}

/// Adds to an address.
pub(super) fn plus(base: Gpa, offset: u64) -> Gpa {
    base.checked_add(offset).unwrap()
}

/// The half of the root entry that rules the function, whose device number is 16.
pub(super) fn root_entry(rig: &Rig) -> Gpa {
    plus(rig.root, 8)
}

pub(super) fn context_entry(rig: &Rig) -> Gpa {
    plus(rig.context_table, ContextEntry::offset_of(FUNCTION))
}

pub(super) fn directory_entry(rig: &Rig) -> Gpa {
    plus(rig.directory, DirectoryEntry::offset_of(five()))
}

pub(super) fn or(rig: &Rig, at: Gpa, bits: u64) {
    rig.store(at, &[rig.load(at) | bits]);
}

/// Gives PASID 5 an entry, and tells the unit.
pub(super) fn bind(rig: &mut Rig, entry: PasidEntry) {
    rig.set_entry(five(), entry);
    rig.tell_of(five());
}
