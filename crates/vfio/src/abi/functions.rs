//! The functions that a client attaches and detaches.

use std::collections::BTreeMap;
use std::sync::Arc;

use palisade_units::Bdf;
use zerocopy::IntoBytes;

use super::argument::Argument;
use super::layout::{
    FUNCTION_ATTACHED, FUNCTION_OFFERED, FunctionEntry, FunctionList, FunctionPlace,
};
use super::vmm::Inner;
use super::{AbiError, Answer, Session};

/// A function's place in the guest, from a field that is wider.
pub(super) fn place(raw: u32) -> Result<Bdf, AbiError> {
    let id = u16::try_from(raw).map_err(|_| AbiError::Value("a place has 16 bits"))?;
    Ok(Bdf::from_requester_id(id))
}

fn named(argument: Argument<'_>) -> Result<Bdf, AbiError> {
    let request: FunctionPlace = argument.read()?;
    match request.flags.get() {
        0 => place(request.place.get()),
        flags => Err(AbiError::Flags(flags.into())),
    }
}

/// The function reaches what the client maps.
pub(super) fn attach(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    let guest_bdf = named(argument)?;
    let vmm = session.vmm();
    let mut offered = vmm.offered.iter();
    let offer = offered.find(|offer| offer.guest_bdf == guest_bdf);
    let offer = offer.ok_or(AbiError::NoFunction(guest_bdf))?;
    let (function, memory) = (offer.function.clone(), vmm.memory.clone());
    // Held until the function is in the list: memory that is removed meanwhile is forgotten by it, too.
    let mut attached = vmm.attached();
    let attachment = session
        .container()
        .attach(guest_bdf, function, offer.sharing, memory)?;
    attached.insert(guest_bdf, Arc::new(attachment));
    Ok(Answer::default())
}

/// Everything on the function is unbound and drained when this returns.
pub(super) fn detach(session: &Session, argument: Argument<'_>) -> Result<Answer, AbiError> {
    let guest_bdf = named(argument)?;
    let attached = || session.vmm().attached();
    let attachment = attached().get(&guest_bdf).map(Arc::clone);
    let attachment = attachment.ok_or(AbiError::NoFunction(guest_bdf))?;
    // It stays in the list until then: memory that is removed meanwhile is forgotten by it, too.
    attachment.detach();
    let mut attached = attached();
    if attached
        .get(&guest_bdf)
        .is_some_and(|now| Arc::ptr_eq(now, &attachment))
    {
        attached.remove(&guest_bdf);
    }
    Ok(Answer::default())
}

pub(super) fn list(vmm: &Inner, argument: &[u8]) -> Result<Answer, AbiError> {
    let argument = Argument::new(argument)?;
    let mut request: FunctionList = argument.read()?;
    if request.flags.get() != 0 {
        return Err(AbiError::Flags(request.flags.get().into()));
    }
    let offered = vmm.offered.iter().map(|offer| offer.guest_bdf);
    let mut all: BTreeMap<Bdf, u32> = offered.map(|place| (place, FUNCTION_OFFERED)).collect();
    for place in vmm.container.guest_bdfs() {
        *all.entry(place).or_default() |= FUNCTION_ATTACHED;
    }
    request.count = u32::try_from(all.len()).unwrap_or(u32::MAX).into();
    let room = argument.after(FunctionList::ARGSZ).argsz() / FunctionEntry::ARGSZ;
    let mut written = request.as_bytes().to_vec();
    for (place, state) in all.iter().take(room as usize) {
        let entry = FunctionEntry {
            place: u32::from(place.requester_id()).into(),
            state: (*state).into(),
        };
        written.extend_from_slice(entry.as_bytes());
    }
    Ok(Answer {
        written,
        ..Answer::default()
    })
}
