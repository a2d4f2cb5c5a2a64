//! Device TLBs that do not answer (VT-d §6.5.2.11).

use palisade_units::Bdf;

use crate::spec::descriptor::{InvDescriptor, PageRange, WaitFlags};
use crate::spec::event::FaultStatus;
use crate::spec::register as reg;
use crate::testing::{FUNCTION, Rig, pasid};

const NOBODY: Bdf = Bdf::new(0, 0x1f, 7);
const NOBODY_ELSE: Bdf = Bdf::new(0, 0x1f, 6);
const TIME_OUT: u32 = FaultStatus::TIME_OUT.bits();

fn wait(rig: &Rig, data: u32) -> InvDescriptor {
    InvDescriptor::wait(rig.status_address(), data, WaitFlags::empty())
}

fn of_nobody(function: Bdf) -> [InvDescriptor; 2] {
    [
        InvDescriptor::dev_tlb(function, PageRange::ALL),
        InvDescriptor::pasid_dev_tlb(function, pasid(1), PageRange::ALL),
    ]
}

/// ITESID.
fn source(rig: &Rig) -> u64 {
    rig.read64(reg::IQER) >> 32
}

#[test]
fn ite_a_function_that_is_not_there_times_out_and_the_wait_behind_it_is_aborted() {
    for descriptor in of_nobody(NOBODY) {
        let mut rig = Rig::booted();
        let waits = [wait(&rig, 0x77), wait(&rig, 0x78)];
        rig.enqueue(&[descriptor, waits[0], waits[1]]);
        rig.ring();
        assert_eq!(rig.read32(reg::FSTS) & TIME_OUT, TIME_OUT);
        assert_eq!(source(&rig), NOBODY.requester_id().into());
        assert_eq!(rig.messages.take(), [(0xfee0_1000, 0x41)], "a fault event");
        assert_eq!(rig.status(), 0, "no wait is complete");
        assert_eq!(rig.read64(reg::IQH), 64, "behind the wait that was fetched");
        // Nothing is fetched, whatever the tail.
        rig.ring();
        assert_eq!(rig.read64(reg::IQH), 64);
        // Software clears it, and the queue goes on.
        rig.write32(reg::FSTS, TIME_OUT);
        assert_eq!(rig.status(), 0x78);
        assert_eq!(rig.read64(reg::IQH), 96);
        assert_eq!(rig.read32(reg::FSTS), 0);
    }
}

#[test]
fn ite_without_a_wait_the_queue_stops_at_its_tail() {
    let mut rig = Rig::booted();
    let [descriptor, _] = of_nobody(NOBODY);
    rig.enqueue(&[descriptor]);
    rig.ring();
    assert_eq!(rig.read32(reg::FSTS) & TIME_OUT, TIME_OUT);
    assert_eq!(rig.read64(reg::IQH), 32);
}

#[test]
fn ite_the_first_function_is_recorded_until_software_clears_the_status() {
    let mut rig = Rig::booted();
    let ([one, _], [other, _]) = (of_nobody(NOBODY), of_nobody(NOBODY_ELSE));
    rig.enqueue(&[one, other]);
    rig.ring();
    assert_eq!(source(&rig), NOBODY.requester_id().into());
    rig.write32(reg::FSTS, TIME_OUT);
    rig.enqueue(&[other]);
    rig.ring();
    assert_eq!(source(&rig), NOBODY_ELSE.requester_id().into());
}

#[test]
fn ite_what_the_queue_names_beside_it_is_done() {
    let mut rig = Rig::booted();
    let [of_nobody, _] = of_nobody(NOBODY);
    let of_function = InvDescriptor::dev_tlb(FUNCTION, PageRange::ALL);
    rig.enqueue(&[of_function, of_nobody, of_function]);
    rig.ring();
    assert_eq!(rig.read64(reg::IQH), 96);
    assert_eq!(source(&rig), NOBODY.requester_id().into());
    // What Linux does then: the same again, where the function is.
    rig.write32(reg::FSTS, TIME_OUT);
    rig.submit(&[of_function]);
}
