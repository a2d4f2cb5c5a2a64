use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use palisade_ioasid::{Authority, PasidRange, PasidSet, Quota};
use palisade_iommu::{Iommu, PageResponse, PasidSupport, Sharing};
use palisade_pci::Function;
use palisade_units::{Access, Bdf, Iova, TenantId};

use super::*;
use crate::spec::command::Command;
use crate::spec::context::ContextFlags;
use crate::spec::descriptor::{InvDescriptor, PageGroupResponse, ResponseCode};
use crate::spec::page_request::GroupIndex;
use crate::spec::register as reg;
use crate::spec::virtual_command::{Layout, VirtualCommand, VirtualResponse};
use crate::testing::{FUNCTION, Messages, Rig, Setup, Space, connection, pasid};

mod golden;
mod hostile;
mod migration;

const AT: Iova = Iova::new(0x7f12_3456_7000);
const FAULT_MESSAGE: (u64, u32) = (0xfee0_1000, 0x41);
const VCMD: u64 = 0xe00;
const VCRSP: u64 = 0xe10;

fn with_virtual_commands() -> Rig {
    let mut rig = Rig::with(Setup {
        vcmd: VcmdLayout::Current,
        ..Setup::default()
    });
    rig.boot();
    rig
}

/// What the guest gets from its allocator.
fn allocate(rig: &Rig) -> Option<GuestPasid> {
    let layout = Layout::Current;
    rig.write64(VCMD, layout.encode_command(VirtualCommand::AllocatePasid));
    match layout.decode_allocation(rig.read64(VCRSP)) {
        VirtualResponse::Pasid(known) => GuestPasid::new(known.get()).ok(),
        _ => None,
    }
}

fn free(rig: &Rig, guest: GuestPasid) -> VirtualResponse {
    let layout = Layout::Current;
    rig.write64(
        VCMD,
        layout.encode_command(VirtualCommand::FreePasid(guest)),
    );
    layout.decode_free(rig.read64(VCRSP))
}

/// A host with a tenant of so many PASIDs, where another tenant, which is returned, has taken some.
#[must_use]
fn other_host(rig: &mut Rig, quota: u32, taken: u32) -> PasidSet {
    let authority = Authority::new(&[]);
    let other = authority.create_set(TenantId::new(1), Quota::default());
    let other = other.unwrap();
    for _ in 0..taken {
        other.alloc(PasidRange::ALL).unwrap();
    }
    let quota = Quota::Exactly(quota);
    let set = authority.create_set(TenantId::new(2), quota).unwrap();
    rig.container.close();
    rig.container = Container::new(set);
    rig.authority = authority;
    rig.iommu = Iommu::new();
    let host = Bdf::new(0x7a, 1, 0);
    let function = rig.iommu.add_function(host, PasidSupport::Width(20));
    rig.handle = function.unwrap();
    rig.attach(FUNCTION, rig.handle.clone(), Sharing::Exclusive);
    rig.messages = Arc::new(Messages::default());
    other
}

/// Restores a state in front of a guest's memory.
fn restore(rig: &mut Rig, state: &UnitState) -> Result<(), RestoreError> {
    let memory = connection(&rig.shared);
    let messages = Arc::clone(&rig.messages) as Arc<dyn MessageSignal>;
    rig.unit = Unit::restored(state, rig.container.clone(), memory, messages)?;
    Ok(())
}

/// Saves the unit, has its bytes read, and lets the guest go on with it on another host.
#[must_use]
fn moved(rig: &mut Rig) -> PasidSet {
    let state = UnitState::from_bytes(&rig.unit.save().to_bytes()).unwrap();
    let other = other_host(rig, 32, 5);
    restore(rig, &state).unwrap();
    other
}

fn registers(rig: &Rig) -> Vec<u8> {
    let mut bytes = vec![0; 0x2000];
    rig.unit
        .bar_read(palisade_pci::Bar::Bar0, 0, &mut bytes)
        .unwrap();
    bytes
}

#[test]
fn r74_a_guest_goes_on_with_its_registers_and_its_tables() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    let before = registers(&rig);
    let _other = moved(&mut rig);
    assert!(registers(&rig) == before);
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111), "bound again");
    // It binds, unbinds and waits as if nothing had been.
    let other = Space::with_page(&mut rig, AT, 0x2222);
    rig.bind(pasid(2), &other);
    assert_eq!(rig.read(Some(pasid(2)), AT), Ok(0x2222));
    rig.unbind(pasid(1));
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
}

#[test]
fn r74_with_translation_off_requests_pass_after_it_as_before() {
    let mut rig = Rig::new();
    let data = rig.frames(1);
    rig.store(data, &[0xfeed]);
    let _other = moved(&mut rig);
    assert_eq!(rig.read(None, Iova::new(data.get())), Ok(0xfeed));
    rig.boot();
    assert!(rig.read(None, Iova::new(data.get())).is_err());
}

#[test]
fn r74_fault_records_and_their_interrupt_go_along() {
    let mut rig = Rig::booted();
    for n in 0..3 {
        assert!(rig.read(Some(pasid(1)), Iova::new(n << 12)).is_err());
    }
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
    let first = rig.take_record().unwrap();
    assert_eq!(first.at(), Iova::new(0));
    let _other = moved(&mut rig);
    assert_eq!([1, 2].map(|n| rig.record(n).at().get()), [0x1000, 0x2000]);
    assert!(rig.read(Some(pasid(1)), Iova::new(0x3000)).is_err());
    assert_eq!(rig.record(3).at().get(), 0x3000, "the ring goes on");
    assert_eq!(rig.messages.take(), [], "the guest was told");
}

#[test]
fn r74_a_message_that_is_held_back_is_sent_by_who_has_the_unit_then() {
    let mut rig = Rig::booted();
    rig.write32(reg::FECTL, 1 << 31);
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    let _other = moved(&mut rig);
    assert_eq!(rig.messages.take(), []);
    rig.write32(reg::FECTL, 0);
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
}

#[test]
fn r74_a_queue_that_stopped_at_an_error_goes_on_once_it_is_cleared() {
    let mut rig = Rig::booted();
    let queue = rig.queue_base();
    // A tail off its alignment.
    rig.write32(reg::IQT, 0x10);
    assert_eq!(rig.read32(reg::FSTS) & 1 << 4, 1 << 4);
    let _other = moved(&mut rig);
    assert_eq!(rig.read32(reg::FSTS) & 1 << 4, 1 << 4);
    rig.write32(reg::IQT, 0);
    rig.write32(reg::FSTS, 1 << 4);
    rig.submit(&[]);
    assert_eq!(rig.queue_base(), queue);
}

#[test]
fn r74_what_stands_in_the_queue_is_done_with_the_next_access() {
    let mut rig = Rig::booted();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.set_entry(pasid(1), crate::testing::first_stage(&space));
    let wait = InvDescriptor::wait(
        rig.status_address(),
        0x5eed,
        crate::spec::descriptor::WaitFlags::empty(),
    );
    rig.enqueue(&[wait]);
    // The tail has moved, and the unit was stopped before it came to it.
    let mut state = rig.unit.save();
    let tail = crate::registers::KEPT.iter().position(|at| *at == reg::IQT);
    state.registers.values[tail.unwrap()] += 32;
    let _other = other_host(&mut rig, 32, 0);
    restore(&mut rig, &state).unwrap();
    assert_ne!(rig.status(), 0x5eed);
    let _ = rig.read32(reg::GSTS);
    assert_eq!(rig.status(), 0x5eed);
    assert_eq!(rig.read64(reg::IQH), rig.read64(reg::IQT));
}

#[test]
fn r74_what_the_guest_allocated_is_its_own_under_the_same_numbers() {
    let mut rig = with_virtual_commands();
    let [one, two] = [(); 2].map(|()| allocate(&rig).unwrap());
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(one, &space);
    let _other = moved(&mut rig);
    let here = rig.container.translate(FUNCTION, one).unwrap();
    assert_ne!(here.pasid().get(), one.get(), "another has it on this host");
    drop(here);
    assert_eq!(rig.read(Some(one), AT), Ok(0x1111));
    assert_eq!(rig.container.allocated(), [one, two]);
    let three = allocate(&rig).unwrap();
    assert!(three != one && three != two);
    assert_eq!(free(&rig, two), VirtualResponse::Done);
    assert_eq!(free(&rig, two), VirtualResponse::InvalidPasid);
    rig.unbind(one);
    assert_eq!(
        rig.container.allocated(),
        [one, three],
        "as long as it wants"
    );
    // And once more, with numbers that are not the host's.
    let _other = moved(&mut rig);
    assert_eq!(rig.container.allocated(), [one, three]);
}

#[test]
fn r57_without_the_quota_nothing_is_restored_and_nothing_is_kept() {
    let mut rig = with_virtual_commands();
    let all: Vec<_> = (0..4).map(|_| allocate(&rig).unwrap()).collect();
    let state = rig.unit.save();
    // One is for the function's requests without a PASID.
    let _other = other_host(&mut rig, 3, 0);
    let before = rig.authority.outstanding();
    let error = restore(&mut rig, &state).unwrap_err();
    assert!(
        matches!(error, RestoreError::Pasid { guest, .. } if guest == all[2] || guest == all[3])
    );
    assert_eq!(rig.authority.outstanding(), before);
    assert_eq!(rig.container.allocated(), []);
}

#[test]
fn r55_a_command_without_a_response_gets_one() {
    let mut rig = with_virtual_commands();
    let mut state = rig.unit.save();
    state.registers.virtual_command = Layout::Current.encode_command(VirtualCommand::AllocatePasid);
    state.registers.virtual_response = Layout::Current.encode_response(VirtualResponse::InProgress);
    state.registers.response_pending = true;
    let _other = other_host(&mut rig, 32, 0);
    restore(&mut rig, &state).unwrap();
    let response = Layout::Current.decode_allocation(rig.read64(VCRSP));
    assert!(matches!(response, VirtualResponse::Pasid(_)));
    assert_eq!(rig.container.allocated().len(), 1);
}

/// Asks for a page of a PASID and returns where the answer comes.
fn ask(rig: &Rig, raw: u32) -> Receiver<PageResponse> {
    let (to, from) = channel();
    let to = Mutex::new(to);
    let waiter = Box::new(move |response| {
        // Whoever no longer listens does not want the answer.
        let _ = to.lock().unwrap().send(response);
    });
    rig.port()
        .request_page(Rig::asking(pasid(raw)), AT, Access::WRITE, waiter)
        .unwrap();
    from
}

fn answer(raw: u32, group: GroupIndex, code: ResponseCode) -> InvDescriptor {
    InvDescriptor::page_group_response(PageGroupResponse {
        requester: FUNCTION,
        pasid: Some(pasid(raw)),
        group,
        code,
    })
}

#[test]
fn r63_r74_an_answer_to_a_request_of_before_is_not_taken_for_a_later_ones() {
    let mut rig = Rig::booted();
    let queue = rig.set_page_request_queue(0);
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let _before = ask(&rig, 1);
    let old = rig.page_request(queue, 0);
    let _other = moved(&mut rig);
    assert_eq!(rig.read64(reg::PQT), 32, "the guest finds it in its queue");

    // This platform begins with the same index: the device is to ask again, by the next one.
    let mut asked = ask(&rig, 1);
    while asked.try_recv() == Ok(PageResponse::Success) {
        asked = ask(&rig, 1);
    }
    let new = rig.page_request(queue, 1);
    assert_ne!(new.group, old.group);
    rig.submit(&[answer(1, old.group, ResponseCode::Failure)]);
    assert!(asked.try_recv().is_err(), "that was for the one of before");
    rig.submit(&[answer(1, new.group, ResponseCode::Success)]);
    assert_eq!(asked.try_recv(), Ok(PageResponse::Success));
    assert_eq!(rig.unit.save().owed, BTreeSet::new());
}

#[test]
fn r65_r74_requests_of_what_is_unbound_are_owed_no_answer() {
    let mut rig = Rig::booted();
    let space = Space::new(&mut rig);
    rig.bind(pasid(1), &space);
    let _open = ask(&rig, 1);
    assert_eq!(rig.unit.save().owed.len(), 1);
    rig.unbind(pasid(1));
    assert_eq!(rig.unit.save().owed.len(), 0);
}

#[test]
fn r74_what_found_the_page_request_queue_full_is_the_devices_to_ask_again() {
    let mut rig = Rig::booted();
    rig.set_page_request_queue(0);
    let space = Space::new(&mut rig);
    for raw in 1..=3 {
        rig.bind(pasid(raw), &space);
    }
    let _asked: Vec<_> = (0..130).map(|n| ask(&rig, 1 + n / 60)).collect();
    assert_eq!(rig.read32(reg::PRS) & 2, 2);
    let state = rig.unit.save();
    assert_eq!(state.owed.len(), 127, "as many as the guest was told of");
}

#[test]
fn a_unit_that_hid_stays_hidden_where_firmware_placed_it() {
    let mut rig = Rig::new();
    rig.unit.config_write(0x10, &0xfebf_0000_u32.to_le_bytes());
    rig.unit.config_write(0x04, &[6, 0]);
    let mut id = [0; 4];
    let _other = moved(&mut rig);
    rig.unit.config_read(0, &mut id);
    assert_ne!(id, [0xff; 4], "no register was accessed yet");
    assert_eq!(rig.unit.bar0_base(), Some(0xfebf_0000));
    let _ = rig.read32(reg::VER);
    let _other = moved(&mut rig);
    rig.unit.config_read(0, &mut id);
    assert_eq!(id, [0xff; 4]);
    assert_eq!(rig.unit.bar0_base(), Some(0xfebf_0000));
    // A reset shows it again.
    rig.unit.reset();
    rig.unit.config_read(0, &mut id);
    assert_ne!(id, [0xff; 4]);
}

#[test]
fn a_reset_after_it_leaves_nothing() {
    let mut rig = with_virtual_commands();
    allocate(&rig).unwrap();
    let _other = moved(&mut rig);
    rig.unit.reset();
    assert_eq!(rig.container.allocated(), []);
    assert_eq!(rig.read32(reg::GSTS), 0);
    let state = rig.unit.save();
    let fresh = Rig::with(Setup {
        vcmd: VcmdLayout::Current,
        ..Setup::default()
    });
    assert_eq!(state.registers, fresh.unit.save().registers);
}
