//! Which faults of requests for translations are recorded, and which are answers (VT-d §7.1.2, Table 30).

use palisade_iommu::{Ats, DmaError, FaultReason, Requester};
use palisade_units::PasidTag;

use super::RECIPES;
use super::guest::{AT, What, five};
use crate::spec::context::ContextFlags;
use crate::spec::descriptor::{ContextScope, InvDescriptor};
use crate::spec::register as reg;
use crate::testing::{FUNCTION, Rig, Space};

/// Those that a function is told of without a record: by a translation that allows nothing, or less than
/// it asked for.
const ANSWERS: [u8; 19] = [
    0x51, 0x59, 0x5c, 0x5d, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x79, 0x80, 0x81, 0x83,
    0x84, 0x86, 0x90,
];

#[test]
fn r59_what_is_no_fault_of_a_request_for_a_translation_has_no_record() {
    let (mut tried, mut answers) = (Vec::new(), Vec::new());
    for (reason, recipe) in RECIPES {
        let mut rig = Rig::booted();
        let request = recipe(&mut rig);
        if request.what != What::Read {
            continue;
        }
        tried.push(reason.code());
        request.with(What::ReadByAts).refused(&rig);
        if rig.read32(reg::FSTS) == 0 {
            answers.push(reason.code());
        } else {
            let record = rig.record(0);
            assert_eq!(record.reason().get(), reason.code());
            assert!(record.is_of_translation_request());
        }
    }
    assert!(tried.len() > 30, "most recipes are of reads");
    let expected = ANSWERS.into_iter().filter(|code| tried.contains(code));
    let expected: Vec<u8> = expected.collect();
    assert_eq!(answers, expected);
}

#[test]
fn r59_r60_44h_is_qualified_by_fpd() {
    let rig = Rig::booted();
    rig.set_context(FUNCTION, ContextFlags::FAULT_PROCESSING_DISABLE);
    let request = super::Request::read().with(What::ReadByAts);
    request.refused(&rig);
    assert_eq!(rig.read32(reg::FSTS), 0);
}

/// A device TLB that the guest takes away while there is something in it.
#[test]
fn r41_dte_that_is_cleared_counts_once_the_unit_is_told() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(five(), &space);
    let by = Requester {
        ats: Ats::On,
        ..Requester::new(Some(PasidTag::of_exclusive_owner(five())))
    };
    let mut port = rig.port();
    let mut read = || port.read(by, AT, &mut [0; 8]);
    assert_eq!(read(), Ok(()));
    rig.set_context(FUNCTION, ContextFlags::PASID);
    assert_eq!(read(), Ok(()), "cached");
    rig.submit(&[InvDescriptor::context_cache(ContextScope::Global)]);
    let reason = FaultReason::DeviceTlbDisabled;
    assert!(matches!(read(), Err(DmaError::Faulted { reason: told, .. }) if told == reason));
    let code = rig.take_record().unwrap().reason();
    assert_eq!(code.get(), 0x44);
    assert_eq!(rig.read(Some(five()), AT), Ok(0x1111), "untranslated");
}

/// Without a PASID an address of the interrupt range is not translated, so that the request is made as it is
/// (VT-d §7.1.3: S.1), and refused as such.
#[test]
fn r59_87h_of_a_function_with_ats_is_of_an_untranslated_request() {
    let rig = Rig::booted();
    let request = super::Request::read().without_pasid().at(0xfee0_0000);
    request.with(What::ReadByAts).refused(&rig);
    let record = rig.record(0);
    assert_eq!(record.reason().get(), 0x87);
    assert!(!record.is_of_translation_request());
}
