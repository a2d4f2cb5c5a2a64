//! Fault records as software finds them (VT-d §7.2.1, §7.3).

use palisade_units::Iova;

use crate::spec::event::{FaultStatus, FaultStatusRegister};
use crate::spec::pasid_table::PasidEntry;
use crate::spec::register as reg;
use crate::testing::{Rig, Space, pasid};

const FAULT_MESSAGE: (u64, u32) = (0xfee0_1000, 0x41);
const PFO: u32 = FaultStatus::OVERFLOW.bits();
const PPF: u32 = FaultStatus::PENDING.bits();
const RECORDS: u64 = reg::FAULT_RECORD_COUNT;

/// A guest whose PASIDs 1 and 2 have empty page tables, and 3 none and FPD.
fn rig() -> Rig {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    rig.bind(pasid(2), &space);
    let silent = PasidEntry::not_present().with_fault_processing_disabled();
    rig.set_entry(pasid(3), silent);
    rig.tell_of(pasid(3));
    rig
}

fn fault(rig: &Rig, raw: u32, page: u64) {
    assert!(rig.read(Some(pasid(raw)), Iova::new(page << 12)).is_err());
}

fn status(rig: &Rig) -> FaultStatusRegister {
    FaultStatusRegister::from_bits(rig.read32(reg::FSTS))
}

/// Clears F of a record, and nothing else.
fn clear(rig: &Rig, index: u64) {
    let at = reg::FAULT_RECORDS + index * reg::FAULT_RECORD_BYTES;
    rig.write32(at + 12, 1 << 31);
}

/// What record `index` says of its address, and whether it is pending.
fn page(rig: &Rig, index: u64) -> (u64, bool) {
    let record = rig.record(index);
    (record.at().get() >> 12, record.pending())
}

#[test]
fn r60_a_fault_that_fpd_silences_is_no_overflow_of_a_full_log() {
    let rig = rig();
    for n in 0..RECORDS {
        fault(&rig, 1, n);
    }
    fault(&rig, 3, 0);
    assert_eq!(rig.read32(reg::FSTS) & PFO, 0);
    fault(&rig, 2, 0);
    assert_eq!(rig.read32(reg::FSTS) & PFO, PFO);
}

#[test]
fn r60_several_faults_stand_in_their_order_and_the_first_interrupts() {
    let rig = rig();
    for n in 1..=3 {
        fault(&rig, 1, n);
    }
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
    assert_eq!(status(&rig).first_record(), 0);
    for n in 0..3 {
        assert_eq!(page(&rig, n), (n + 1, true));
    }
    assert_eq!(page(&rig, 3), (0, false));
}

#[test]
fn r60_a_one_clears_one_record_and_ppf_follows_the_last() {
    let rig = rig();
    for n in 1..=3 {
        fault(&rig, 1, n);
    }
    clear(&rig, 1);
    assert_eq!(
        [0, 1, 2].map(|n| page(&rig, n)),
        [(1, true), (2, false), (3, true)],
        "a cleared record keeps what it says"
    );
    assert_eq!(rig.read32(reg::FSTS) & PPF, PPF);
    clear(&rig, 0);
    clear(&rig, 2);
    assert_eq!(rig.read32(reg::FSTS) & PPF, 0);
    // A zero clears nothing, and PPF itself is read-only.
    fault(&rig, 1, 4);
    rig.write32(reg::FAULT_RECORDS + 3 * reg::FAULT_RECORD_BYTES + 12, 0);
    rig.write32(reg::FSTS, PPF);
    assert_eq!(page(&rig, 3), (4, true));
    assert_eq!(rig.read32(reg::FSTS) & PPF, PPF);
}

#[test]
fn r60_one_interrupt_until_software_has_cleared_everything() {
    let rig = rig();
    fault(&rig, 1, 1);
    fault(&rig, 1, 2);
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
    clear(&rig, 0);
    fault(&rig, 1, 3);
    assert_eq!(rig.messages.take(), [], "one is pending still");
    clear(&rig, 1);
    clear(&rig, 2);
    fault(&rig, 1, 4);
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
}

#[test]
fn r60_fri_names_the_first_pending_record_after_the_ring_wrapped() {
    let rig = rig();
    for n in 0..RECORDS - 1 {
        fault(&rig, 1, n);
        clear(&rig, n);
    }
    for n in 1..=3 {
        fault(&rig, 1, n);
    }
    assert_eq!(status(&rig).first_record(), 255);
    // Software goes round from there.
    assert_eq!(
        [255, 0, 1].map(|n| page(&rig, n)),
        [(1, true), (2, true), (3, true)]
    );
    assert_eq!(page(&rig, 2), (2, false), "what stood there before");
    for n in [255, 0, 1] {
        clear(&rig, n);
    }
    fault(&rig, 1, 9);
    assert_eq!(status(&rig).first_record(), 2);
    assert_eq!(page(&rig, 2), (9, true));
}

#[test]
fn r60_after_an_overflow_nothing_is_recorded_until_software_clears_it() {
    let rig = rig();
    for n in 0..=RECORDS {
        fault(&rig, 1, n);
    }
    assert_eq!(rig.read32(reg::FSTS), PFO | PPF);
    assert_eq!(
        rig.messages.take(),
        [FAULT_MESSAGE],
        "an overflow finds faults pending, and so interrupts nobody"
    );
    // Room alone is not enough.
    for n in 0..RECORDS {
        clear(&rig, n);
    }
    assert_eq!(rig.read32(reg::FSTS), PFO);
    fault(&rig, 2, 7);
    assert_eq!(page(&rig, 0), (0, false));
    rig.write32(reg::FSTS, PFO);
    assert_eq!(rig.read32(reg::FSTS), 0);
    fault(&rig, 2, 8);
    assert_eq!(page(&rig, 0), (8, true));
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
}

#[test]
fn r60_an_overflow_is_cleared_alone_and_the_records_stay() {
    let rig = rig();
    for n in 0..=RECORDS {
        fault(&rig, 1, n);
    }
    rig.write32(reg::FSTS, PFO);
    assert_eq!(rig.read32(reg::FSTS), PPF);
    assert!((0..RECORDS).all(|n| page(&rig, n) == (n, true)));
    // The log is as full as it was.
    fault(&rig, 1, 0);
    assert_eq!(rig.read32(reg::FSTS), PFO | PPF);
}
