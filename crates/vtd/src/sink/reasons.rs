//! Every fault reason, from the guest's tables by an access of the device to the guest's fault record
//! (VT-d §7.1.3, Table 30).

mod device_tlb;
mod entries;
mod guest;
mod legacy;
mod stages;

use palisade_iommu::FaultReason;
use palisade_iommu::FaultReason::*;
use palisade_iommu::{Privilege, Requester};
use palisade_units::{Access, Iova, PasidTag};

use crate::spec::capability::EXTENDED;
use crate::spec::fault::{FaultCode, FaultRecord, RequestKind};
use crate::spec::pasid_table::PasidEntry;
use crate::spec::register as reg;
use crate::tables::code;
use crate::testing::{DOMAIN, FUNCTION, Rig, pasid};
use guest::{Recipe, Request, What};

const FAULT_MESSAGE: (u64, u32) = (0xfee0_1000, 0x41);

/// Lets a guest that has booted come to a request that faults, and returns its record.
fn record_of(recipe: Recipe) -> (Request, FaultRecord) {
    let mut rig = Rig::booted();
    let request = recipe(&mut rig);
    assert_eq!(rig.read32(reg::FSTS), 0, "nothing is wrong yet");
    request.refused(&rig);
    assert_eq!(
        rig.messages.take(),
        [FAULT_MESSAGE],
        "{request:?} faults once"
    );
    (request, rig.record(0))
}

/// Asserts that a recipe ends in a record with a code, which tells all of its request.
fn reaches(code: FaultCode, recipe: Recipe) {
    let (request, record) = record_of(recipe);
    assert_eq!(record.reason(), code, "{request:?}");
    assert!(record.pending());
    assert_eq!(record.source(), request.source());
    assert_eq!(record.pasid(), request.pasid);
    assert_eq!(record.at(), request.at.page_base());
    let (kind, access) = match request.what {
        What::Read | What::ReadByAts => (RequestKind::Read, Access::READ),
        What::Write => (RequestKind::Write, Access::WRITE),
        What::Fetch => (RequestKind::Read, Access::READ | Access::EXECUTE),
        What::PrivilegedRead => (RequestKind::Read, Access::READ | Access::PRIVILEGED),
        What::AskForPage => (RequestKind::PageRequest, Access::WRITE),
    };
    assert_eq!(record.kind(), kind, "T1 and T2");
    assert_eq!(record.access(), access, "EXE and PRIV");
    let asks = request.what == What::ReadByAts;
    assert_eq!(record.is_of_translation_request(), asks, "AT");
}

/// The reasons with a test for each, and the table of all of them.
macro_rules! reasons {
    ($($test:ident: $reason:ident by $recipe:path;)*) => {
        const RECIPES: &[(FaultReason, Recipe)] = &[$(($reason, $recipe)),*];

        $(
            #[test]
            fn $test() {
                reaches(code($reason), $recipe);
            }
        )*
    };
}

reasons! {
    r59_30h_a_reserved_translation_mode: RootTableInvalid by entries::reserved_mode;
    r59_31h_a_pasid_in_legacy_mode: ModeForbidsPasid by legacy::with_pasid;
    r59_38h_root_entry_access: RootEntryAccess by entries::root_out_of_memory;
    r59_39h_root_entry_not_present: RootEntryNotPresent by entries::root_absent;
    r59_3ah_root_entry_reserved: RootEntryReserved by entries::root_reserved;
    r59_40h_context_entry_access: ContextEntryAccess by entries::context_out_of_memory;
    r59_41h_context_entry_not_present: ContextEntryNotPresent by entries::context_absent;
    r59_42h_context_entry_reserved: ContextEntryReserved by entries::context_reserved;
    r59_43h_context_entry_invalid: ContextEntryInvalid by entries::context_invalid;
    r59_44h_device_tlbs_off: DeviceTlbDisabled by entries::device_tlbs_off;
    r59_45h_pasids_off: PasidDisabled by entries::pasids_off;
    r59_46h_pasid_too_large: PasidTooLarge by entries::pasid_too_large;
    r59_47h_page_requests_off: PageRequestDisabled by entries::page_requests_off;
    r59_48h_rid_pasid_in_a_request: RidPasidInvalid by entries::rid_pasid;
    r59_50h_directory_access: PasidDirectoryAccess by entries::directory_out_of_memory;
    r59_51h_directory_not_present: PasidDirectoryNotPresent by entries::directory_absent;
    r59_52h_directory_reserved: PasidDirectoryReserved by entries::directory_reserved;
    r59_58h_pasid_entry_access: PasidEntryAccess by entries::entry_out_of_memory;
    r59_59h_pasid_entry_not_present: PasidEntryNotPresent by entries::entry_absent;
    r59_5ah_pasid_entry_reserved: PasidEntryReserved by entries::entry_reserved;
    r59_5bh_pasid_entry_invalid: PasidEntryInvalid by entries::entry_invalid;
    r59_5ch_execution_disabled: ExecuteRequestDisabled by stages::fetch;
    r59_5dh_supervisor_requests_disabled: SupervisorRequestDisabled by stages::privileged;
    r59_70h_first_stage_access: FirstStageAccess by stages::first_out_of_memory;
    r59_71h_first_stage_not_present: FirstStageNotPresent by stages::first_absent;
    r59_72h_first_stage_reserved: FirstStageReserved by stages::first_reserved;
    r59_73h_first_stage_root_access: FirstStageRootAccess by stages::first_root_out_of_memory;
    r59_74h_first_stage_beyond_width: FirstStageBeyondWidth by stages::table_beyond_width;
    r59_75h_first_stage_root_unreadable: FirstStageRootUnreadable by stages::root_unreadable;
    r59_76h_first_stage_unreadable: FirstStageUnreadable by stages::table_unreadable;
    r59_77h_first_stage_unwritable: FirstStageUnwritable by stages::table_unwritable;
    r59_78h_second_stage_access: SecondStageAccess by stages::second_out_of_memory;
    r59_79h_second_stage_not_present: SecondStageNotPresent by stages::second_absent;
    r59_7ah_second_stage_reserved: SecondStageReserved by stages::second_reserved;
    r59_7bh_second_stage_root_access: SecondStageRootAccess by stages::second_root_out_of_memory;
    r59_7ch_second_stage_mark_without_snooping: SecondStageMarkIncoherent by stages::second_mark_incoherent;
    r59_7dh_second_stage_mark_failed: SecondStageMarkFailed by stages::second_mark_failed;
    r59_80h_not_canonical: NotCanonical by stages::not_canonical;
    r59_81h_supervisor_page: SupervisorPage by stages::supervisor_page;
    r59_83h_beyond_the_hosts_width: BeyondHostWidth by stages::beyond_host_width;
    r59_84h_beyond_the_second_stage: BeyondSecondStageWidth by stages::beyond_second_stage;
    r59_85h_not_writable: NotWritable by stages::not_writable;
    r59_86h_not_readable: NotReadable by stages::not_readable;
    r59_87h_the_interrupt_range: InterruptRange by stages::interrupt_range;
    r59_90h_first_stage_mark_without_snooping: FirstStageMarkIncoherent by stages::first_mark_incoherent;
    r59_91h_marks_cannot_be_set: FirstStageMarkFailed by stages::mark_failed;
}

/// The reasons that no guest can bring about here, and why.
const ABSENT: &[(FaultReason, &str)] = &[(
    NotExecutable,
    "82h needs ERE, which ECAP.ERS does not offer: a request to execute ends in 5Ch before",
)];

#[test]
fn r59_every_reason_reaches_a_record() {
    for reason in FaultReason::ALL {
        let recipes: Vec<_> = RECIPES.iter().filter(|(of, _)| of == reason).collect();
        let absent = ABSENT.iter().filter(|(of, _)| of == reason).count();
        assert_eq!(recipes.len() + absent, 1, "{reason}");
        for (_, recipe) in recipes {
            reaches(code(*reason), *recipe);
        }
    }
}

#[test]
fn r59_what_does_not_occur_is_what_is_not_offered() {
    let codes: Vec<_> = ABSENT.iter().map(|(reason, _)| reason.code()).collect();
    assert_eq!(codes, [0x82]);
    assert!(!EXTENDED.execute_requests(), "82h");
}

/// SRE is of every type of translation, and Linux sets it in entries of its own second stages.
#[test]
fn r38_5dh_without_a_first_stage() {
    reaches(
        code(SupervisorRequestDisabled),
        stages::privileged_behind_a_second_stage,
    );
    reaches(
        code(SupervisorRequestDisabled),
        stages::privileged_and_passed_through,
    );
    let mut rig = Rig::booted();
    let entry = PasidEntry::pass_through(DOMAIN).with_supervisor_requests();
    guest::bind(&mut rig, entry);
    let by = Requester {
        privilege: Privilege::Privileged,
        ..Requester::new(Some(PasidTag::of_exclusive_owner(guest::five())))
    };
    let read = rig.port().read(by, Iova::new(0x1000), &mut [0; 8]);
    assert_eq!(read, Ok(()));
}

/// The page-table reasons of nested translation are those of its stages too.
#[test]
fn r59_78h_7ah_7bh_79h_of_the_second_stage_under_a_first() {
    reaches(code(SecondStageAccess), stages::nested_out_of_memory);
    reaches(code(SecondStageReserved), stages::nested_reserved);
    reaches(
        code(SecondStageRootAccess),
        stages::nested_root_out_of_memory,
    );
    reaches(code(SecondStageNotPresent), stages::nested_absent);
    reaches(code(NotWritable), stages::nested_not_writable);
}

#[test]
fn r59_87h_by_translation_and_without_a_pasid() {
    reaches(
        code(InterruptRange),
        stages::interrupt_range_without_a_pasid,
    );
    reaches(
        code(InterruptRange),
        stages::interrupt_range_behind_a_second_stage,
    );
}

/// T1 and T2, EXE and PRIV, PP and PASID, for each kind of request (VT-d §11.4.7.6).
#[test]
fn r60_a_record_says_what_kind_of_request_it_was() {
    use palisade_iommu::{Ats, Fault, Sink};

    let rig = Rig::booted();
    let at = Iova::new(0x1234);
    let words = |pasid, access| {
        rig.unit.fault(Fault {
            bdf: FUNCTION,
            pasid,
            at,
            access,
            reason: FirstStageNotPresent,
            ats: Ats::Off,
        });
        rig.take_record().unwrap().to_words()
    };
    let with = Some(pasid(0xabcde));
    let base = 1 << 63 | 0x71 << 32 | 0x80;
    let tagged = base | 0xabcde << 40 | 1 << 31;
    let (t1, t2, exe, privileged) = (1 << 62, 1 << 28, 1 << 30, 1 << 29);
    let (read, write) = (Access::READ, Access::WRITE);
    for (pasid, access, high) in [
        (with, write, tagged),
        (with, read, tagged | t1),
        (with, read | write, tagged | t1 | t2),
        (with, read | Access::EXECUTE, tagged | t1 | exe),
        (with, read | Access::PRIVILEGED, tagged | t1 | privileged),
        (with, write | Access::PRIVILEGED, tagged | privileged),
        (None, write, base),
        (None, read, base | t1),
        // Both are fields of requests with a PASID alone.
        (None, read | Access::EXECUTE | Access::PRIVILEGED, base | t1),
    ] {
        assert_eq!(words(pasid, access), [0x1000, high], "{access:?}");
    }
}

#[test]
fn r59_a_request_that_is_refused_moves_no_byte() {
    let mut rig = Rig::booted();
    let (request, page) = stages::read_only_page(&mut rig);
    request.refused(&rig);
    assert_eq!(rig.load(page), 0);
}
