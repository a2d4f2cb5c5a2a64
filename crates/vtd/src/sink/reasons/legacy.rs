//! The reasons of legacy mode, which has codes of its own (VT-d §7.1.3).

use palisade_units::Gpa;

use super::guest::{AT, NOWHERE, Request, What, plus};
use super::reaches;
use crate::spec::DomainId;
use crate::spec::command::TranslationTableMode;
use crate::spec::context::AddressWidth;
use crate::spec::descriptor::{ContextScope, InvDescriptor};
use crate::spec::fault::FaultCode;
use crate::spec::legacy_context::{LegacyContextEntry, LegacyTranslation};
use crate::spec::register as reg;
use crate::testing::{FUNCTION, Rig};

const OPEN: u64 = 0b11;
const LARGE: u64 = 1 << 7;

/// The tables of a guest in legacy mode, with a second stage that leads to one page.
struct Legacy {
    context: Gpa,
    /// The entries of the second stage, from the top on.
    stages: [Gpa; 4],
}

/// Puts a guest into legacy mode, with something wrong in its tables.
fn legacy(rig: &mut Rig, spoil: impl FnOnce(&mut Rig, &Legacy)) -> Request {
    rig.root = rig.frames(1);
    let contexts = rig.frames(1);
    rig.store(rig.root, &[contexts.get() | 1, 0]);
    let top = rig.frames(1);
    let mut stages = [top; 4];
    let mut table = top;
    for (entry, shift) in stages.iter_mut().zip([39, 30, 21, 12]) {
        *entry = plus(table, (AT.get() >> shift & 0x1ff) * 8);
        table = rig.frames(1);
        rig.store(*entry, &[table.get() | OPEN]);
    }
    let entry = LegacyContextEntry::new(
        LegacyTranslation::SecondStage,
        top,
        AddressWidth::FourLevel,
        DomainId::new(3),
    );
    let context = plus(contexts, LegacyContextEntry::offset_of(FUNCTION));
    rig.store(context, &entry.to_words());
    spoil(rig, &Legacy { context, stages });
    rig.set_root_table(TranslationTableMode::Legacy);
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
    Request::read().without_pasid()
}

pub(super) fn with_pasid(rig: &mut Rig) -> Request {
    legacy(rig, |_, _| {});
    Request::read()
}

/// Tests by code and recipe.
macro_rules! legacy_reasons {
    ($($test:ident: $code:ident by $recipe:expr;)*) => {
        $(
            #[test]
            fn $test() {
                reaches(FaultCode::$code, $recipe);
            }
        )*

        #[test]
        fn r59_every_legacy_reason_has_a_recipe() {
            let mut codes = vec![$(FaultCode::$code.get()),*];
            codes.sort_unstable();
            codes.dedup();
            assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0x32]);
        }
    };
}

legacy_reasons! {
    r59_1h_root_entry_not_present: LEGACY_ROOT_NOT_PRESENT by |rig| {
        legacy(rig, |rig, _| rig.store(rig.root, &[0, 0]))
    };
    r59_2h_context_entry_not_present: LEGACY_CONTEXT_NOT_PRESENT by |rig| {
        legacy(rig, |rig, tables| rig.store(tables.context, &[0, 0]))
    };
    r59_3h_context_entry_invalid: LEGACY_CONTEXT_INVALID by |rig| {
        legacy(rig, |rig, tables| {
            // A width that CAP.SAGAW does not offer.
            let high = rig.load(plus(tables.context, 8));
            rig.store(plus(tables.context, 8), &[high | 0b111]);
        })
    };
    r59_4h_beyond_the_width: LEGACY_BEYOND_WIDTH by |rig| legacy(rig, |_, _| {}).at(1 << 48);
    r59_5h_not_writable: LEGACY_NOT_WRITABLE by |rig| {
        let request = legacy(rig, |rig, tables| {
            rig.store(tables.stages[3], &[0x1000 | 0b01]);
        });
        request.with(What::Write)
    };
    r59_5h_of_a_write_where_nothing_is_present: LEGACY_NOT_WRITABLE by |rig| {
        legacy(rig, |rig, tables| rig.store(tables.stages[2], &[0])).with(What::Write)
    };
    r59_6h_not_readable: LEGACY_NOT_READABLE by |rig| {
        legacy(rig, |rig, tables| rig.store(tables.stages[3], &[0x1000 | 0b10]))
    };
    r59_6h_of_a_read_where_nothing_is_present: LEGACY_NOT_READABLE by |rig| {
        legacy(rig, |rig, tables| rig.store(tables.stages[1], &[0]))
    };
    r59_7h_paging_entry_access: LEGACY_PAGING_ACCESS by |rig| {
        legacy(rig, |rig, tables| rig.store(tables.stages[0], &[NOWHERE.get() | OPEN]))
    };
    r59_8h_root_entry_access: LEGACY_ROOT_ACCESS by |rig| legacy(rig, |rig, _| rig.root = NOWHERE);
    r59_9h_context_entry_access: LEGACY_CONTEXT_ACCESS by |rig| {
        legacy(rig, |rig, _| rig.store(rig.root, &[NOWHERE.get() | 1, 0]))
    };
    r59_ah_root_entry_reserved: LEGACY_ROOT_RESERVED by |rig| {
        legacy(rig, |rig, _| rig.store(plus(rig.root, 8), &[1 << 63]))
    };
    r59_bh_context_entry_reserved: LEGACY_CONTEXT_RESERVED by |rig| {
        legacy(rig, |rig, tables| {
            let high = rig.load(plus(tables.context, 8));
            rig.store(plus(tables.context, 8), &[high | 1 << 24]);
        })
    };
    r59_ch_paging_entry_reserved: LEGACY_PAGING_RESERVED by |rig| {
        legacy(rig, |rig, tables| {
            let top = rig.load(tables.stages[0]);
            rig.store(tables.stages[0], &[top | LARGE]);
        })
    };
    r59_dh_a_device_tlb_of_a_type_without_one: LEGACY_DEVICE_TLB_BLOCKED by |rig| {
        legacy(rig, |_, _| {}).with(What::ReadByAts)
    };
    r59_eh_the_interrupt_range: LEGACY_INTERRUPT_RANGE by |rig| {
        legacy(rig, |rig, tables| rig.store(tables.stages[3], &[0xfee0_0000 | OPEN]))
    };
    r59_eh_of_an_address_of_the_range: LEGACY_INTERRUPT_RANGE by |rig| {
        legacy(rig, |_, _| {}).at(0xfee0_0000)
    };
    r59_32h_a_page_request_in_legacy_mode: LEGACY_PAGE_REQUEST by |rig| {
        legacy(rig, |_, _| {}).with(What::AskForPage)
    };
}

#[test]
fn r60_fpd_of_a_legacy_context_entry_silences_its_faults() {
    const FPD: u64 = 1 << 1;
    let silent = |spoil: fn(&mut Rig, &Legacy)| {
        let mut rig = Rig::booted();
        let request = legacy(&mut rig, |rig, tables| {
            rig.store(tables.context, &[rig.load(tables.context) | FPD]);
            spoil(rig, tables);
        });
        request.refused(&rig);
        rig.read32(reg::FSTS) == 0
    };
    // Of a walk, of the entry itself, present or not.
    assert!(silent(|rig, tables| rig.store(tables.stages[3], &[0])));
    assert!(silent(|rig, tables| rig.store(tables.context, &[FPD, 0])));
    assert!(silent(|rig, tables| rig.store(tables.context, &[0b1111, 0])));
    // The root entry has no say, and its faults are not qualified.
    assert!(!silent(|rig, _| rig.store(rig.root, &[0, 0])));
}
