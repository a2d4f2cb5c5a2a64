//! BIND, and the first two operations of NESTING_OP: a guest's first stage for a PASID.

use palisade_iommu::{ExtendedAccessed, FirstStage, Levels, NoExecute, Space, SupervisorRequests};
use palisade_units::{Gpa, GuestPasid, HostPasid};

use super::argument::Argument;
use super::layout::{
    BIND, BIND_VERSION, BindData, FORMAT_VTD, GUEST_PASID_VALID, Head, UNBIND, VTD_CD, VTD_EAFE,
    VTD_EMTE, VTD_PCD, VTD_PWT, VTD_SRE,
};
use super::pasid::pasid;
use super::{AbiError, Answer, Nested, Session};
use crate::Terms;

/// BIND of version 1.
pub(super) fn request_v1(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    let flags = argument.flags()?;
    let data = argument.after(Head::BYTES);
    match flags {
        BIND => bind(session, data),
        UNBIND => unbind(session, data),
        flags => Err(AbiError::Flags(flags.into())),
    }
}

pub(super) fn bind(session: &Session, data: Argument<'_>) -> Result<Answer, AbiError> {
    let data: BindData = data.read()?;
    let (taken, name) = names(&data)?;
    let stage = first_stage(&data, &session.nested())?;
    let terms = Terms::new(Space::FirstStage(stage));
    session.pasid_requests().check()?;
    session.container().bind_allocated(taken, name, terms)?;
    Ok(Answer::default())
}

/// Only the PASID counts; what it is bound to need not be told again.
pub(super) fn unbind(session: &Session, data: Argument<'_>) -> Result<Answer, AbiError> {
    let data: BindData = data.read()?;
    let (taken, _) = names(&data)?;
    session.pasid_requests().check()?;
    session.container().unbind_allocated(taken)?;
    Ok(Answer::default())
}

/// The PASID that was taken, and what the guest calls it: the same number, unless it says otherwise.
fn names(data: &BindData) -> Result<(HostPasid, GuestPasid), AbiError> {
    if data.version.get() != BIND_VERSION {
        return Err(AbiError::Value("the version of bind data is 1"));
    }
    if data.format.get() != FORMAT_VTD {
        return Err(AbiError::Value(
            "the one format of page tables is VT-d's, 1",
        ));
    }
    if data.padding != [0; 12] {
        return Err(AbiError::Value("the padding of bind data is not zero"));
    }
    let taken = pasid(data.hpasid.get())?;
    let named = match data.flags.get() {
        0 => taken,
        GUEST_PASID_VALID => pasid(data.gpasid.get())?,
        flags => return Err(AbiError::Flags(flags)),
    };
    let name = GuestPasid::new(named.get());
    let name = name.map_err(|_| AbiError::Value("PASIDs go from 1 to 2^20 - 1"))?;
    Ok((taken, name))
}

/// Of what the platform can do only what the client was told that its units can.
fn first_stage(data: &BindData, nested: &Nested) -> Result<FirstStage, AbiError> {
    let levels = match data.addr_width.get() {
        48 => Levels::Four,
        57 if nested.address_bits >= 57 => Levels::Five,
        _ => {
            return Err(AbiError::Value(
                "a first stage translates 48 bits, or 57 where the units do",
            ));
        }
    };
    let flags = data.vtd_flags.get();
    let memory_types = VTD_PCD | VTD_PWT | VTD_EMTE | VTD_CD;
    if flags & !(VTD_SRE | VTD_EAFE | memory_types) != 0 {
        return Err(AbiError::Flags(flags));
    }
    if flags & memory_types != 0 {
        return Err(AbiError::NotOffered("control of memory types (ECAP.MTS)"));
    }
    if flags & VTD_SRE != 0 && !nested.has_supervisor_requests() {
        return Err(AbiError::NotOffered("privileged requests (ECAP.SRS)"));
    }
    if flags & VTD_EAFE != 0 && !nested.has_extended_accessed() {
        return Err(AbiError::NotOffered(
            "the extended accessed flag (ECAP.EAFS)",
        ));
    }
    let mut stage = FirstStage::new(Gpa::new(data.gpgd.get()), levels);
    stage.supervisor = SupervisorRequests::from_bit(flags & VTD_SRE != 0);
    stage.extended_accessed = ExtendedAccessed::from_bit(flags & VTD_EAFE != 0);
    // As where a unit reads the entry: bit 63 of a table entry always means no execution.
    stage.no_execute = NoExecute::Honoured;
    Ok(stage)
}
