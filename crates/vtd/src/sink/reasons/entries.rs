//! What is wrong on the way from the root to the PASID entry.

use super::guest::{
    NOWHERE, Request, What, bind, context_entry, directory_entry, five, or, plus, root_entry,
};
use crate::spec::command::TranslationTableMode;
use crate::spec::context::{ContextEntry, ContextFlags, DirectorySize, GUEST_PASID_ZERO};
use crate::spec::pasid_table::{DirectoryEntry, PasidEntry};
use crate::testing::{DOMAIN, FUNCTION, Rig, Space, all_flags, first_stage, pasid};

pub(super) fn reserved_mode(rig: &mut Rig) -> Request {
    rig.set_root_table(TranslationTableMode::Unsupported(2));
    Request::read()
}

pub(super) fn root_out_of_memory(rig: &mut Rig) -> Request {
    rig.root = NOWHERE;
    rig.set_root_table(TranslationTableMode::Scalable);
    Request::read()
}

pub(super) fn root_absent(rig: &mut Rig) -> Request {
    // The other half has no say, nor has what stands beside P.
    rig.store(rig.root, &[!0, !1]);
    Request::read()
}

pub(super) fn root_reserved(rig: &mut Rig) -> Request {
    or(rig, root_entry(rig), 1 << 11);
    Request::read()
}

pub(super) fn context_out_of_memory(rig: &mut Rig) -> Request {
    rig.store(root_entry(rig), &[NOWHERE.get() | 1]);
    Request::read()
}

pub(super) fn context_absent(rig: &mut Rig) -> Request {
    rig.store(context_entry(rig), &[!0b11, !0, !0, !0]);
    Request::read()
}

pub(super) fn context_reserved(rig: &mut Rig) -> Request {
    or(rig, plus(context_entry(rig), 24), 1 << 63);
    Request::read()
}

pub(super) fn context_invalid(rig: &mut Rig) -> Request {
    // Page requests without a device TLB.
    rig.set_context(FUNCTION, ContextFlags::PASID | ContextFlags::PAGE_REQUESTS);
    Request::read()
}

pub(super) fn device_tlbs_off(rig: &mut Rig) -> Request {
    // Before all that comes after the context entry: PASIDs are off as well.
    rig.set_context(FUNCTION, ContextFlags::empty());
    Request::read().with(What::ReadByAts)
}

pub(super) fn pasids_off(rig: &mut Rig) -> Request {
    rig.set_context(FUNCTION, ContextFlags::DEVICE_TLB);
    Request::read().with(What::Write)
}

pub(super) fn pasid_too_large(rig: &mut Rig) -> Request {
    let smallest = DirectorySize::new(0).unwrap();
    let entry = ContextEntry::new(rig.directory, smallest, GUEST_PASID_ZERO, all_flags());
    rig.set_context_entry(FUNCTION, entry);
    Request::read().of(pasid(8192))
}

pub(super) fn page_requests_off(rig: &mut Rig) -> Request {
    let space = Space::new(rig);
    bind(rig, first_stage(&space));
    rig.set_context(FUNCTION, ContextFlags::DEVICE_TLB | ContextFlags::PASID);
    Request::read().with(What::AskForPage)
}

pub(super) fn rid_pasid(_: &mut Rig) -> Request {
    Request::read().of(GUEST_PASID_ZERO)
}

pub(super) fn directory_out_of_memory(rig: &mut Rig) -> Request {
    let size = DirectorySize::ALL_PASIDS;
    let entry = ContextEntry::new(NOWHERE, size, GUEST_PASID_ZERO, all_flags());
    rig.set_context_entry(FUNCTION, entry);
    Request::read()
}

pub(super) fn directory_absent(rig: &mut Rig) -> Request {
    rig.store(directory_entry(rig), &[!0b11]);
    Request::read()
}

pub(super) fn directory_reserved(rig: &mut Rig) -> Request {
    rig.entry_at(five());
    or(rig, directory_entry(rig), 1 << 52);
    Request::read()
}

pub(super) fn entry_out_of_memory(rig: &mut Rig) -> Request {
    let entry = DirectoryEntry::to(NOWHERE);
    rig.store(directory_entry(rig), &[entry.into_bits()]);
    Request::read()
}

pub(super) fn entry_absent(rig: &mut Rig) -> Request {
    let at = rig.entry_at(five());
    rig.store(at, &[!0b11, !0, !0, !0, !0, !0, !0, !0]);
    Request::read().with(What::Write)
}

pub(super) fn entry_reserved(rig: &mut Rig) -> Request {
    let mut words = PasidEntry::pass_through(DOMAIN).to_words();
    words[7] = 1 << 63;
    bind(rig, PasidEntry::from_words(words));
    Request::read()
}

pub(super) fn entry_invalid(rig: &mut Rig) -> Request {
    let mut words = PasidEntry::pass_through(DOMAIN).to_words();
    words[0] = words[0] & !(7 << 6) | 5 << 6;
    bind(rig, PasidEntry::from_words(words));
    Request::read()
}
