//! The unit as a function that is stopped, and goes on there or on another host.

use palisade_iommu::{LookedUp, MayWait, Sink};
use palisade_pci::{Bar, Migration};
use rustix::io::Errno;

use super::*;

fn migration(rig: &Rig) -> &dyn Migration {
    rig.unit.migration().unwrap()
}

fn stop_and_save(rig: &Rig) -> Vec<u8> {
    migration(rig).stop();
    let bytes = migration(rig).save().unwrap();
    assert!(bytes.len() <= migration(rig).max_state_len_bytes());
    bytes
}

/// Goes to another host, where a unit waits that was stopped as it came out of reset.
#[must_use]
fn arrive(rig: &mut Rig, quota: u32) -> PasidSet {
    let config = rig.unit.save().config();
    let other = other_host(rig, quota, 5);
    let memory = connection(&rig.shared);
    let messages = Arc::clone(&rig.messages) as Arc<dyn MessageSignal>;
    rig.unit = Unit::new(config, rig.container.clone(), memory, messages);
    migration(rig).stop();
    other
}

#[test]
fn r74_a_stopped_unit_tells_its_guest_of_nothing_until_it_goes_on() {
    let mut rig = Rig::booted();
    let queue = rig.set_page_request_queue(0);
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(pasid(1), &space);
    migration(&rig).stop();
    migration(&rig).stop();
    assert!(rig.read(Some(pasid(2)), AT).is_err());
    let asked = ask(&rig, 1);
    assert_eq!(rig.messages.take(), []);
    assert_eq!(rig.read64(reg::PQT), 0);
    assert_eq!(rig.load(queue), 0, "its memory is as it was");
    assert!(
        asked.try_recv().is_err(),
        "nor does the device hear anything"
    );
    let status = rig.status();
    let wait = InvDescriptor::wait(
        rig.status_address(),
        0x5eed,
        crate::spec::descriptor::WaitFlags::empty(),
    );
    rig.enqueue(&[wait]);
    rig.ring();
    let _ = rig.read32(reg::GSTS);
    assert_eq!(rig.status(), status);
    migration(&rig).start().unwrap();
    migration(&rig).start().unwrap();
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE], "once");
    assert_eq!(rig.status(), 0x5eed);
    assert_eq!(asked.try_recv(), Ok(PageResponse::Success), "it asks again");
    assert_eq!(rig.read(Some(pasid(1)), AT), Ok(0x1111));
}

#[test]
fn r74_a_unit_binds_on_the_other_host_when_it_goes_on() {
    let mut rig = with_virtual_commands();
    let known = allocate(&rig).unwrap();
    let space = Space::with_page(&mut rig, AT, 0x1111);
    rig.bind(known, &space);
    rig.bind(pasid(0x99), &space);
    let before = registers(&rig);
    let bytes = stop_and_save(&rig);
    let _other = arrive(&mut rig, 32);
    let outstanding = rig.authority.outstanding();
    migration(&rig).restore(&bytes).unwrap();
    assert_eq!(rig.authority.outstanding(), outstanding, "nothing is taken");
    assert!(rig.read(Some(known), AT).is_err(), "nor bound");
    rig.unit.attached(FUNCTION);
    assert!(rig.read(Some(known), AT).is_err(), "whoever comes");
    assert_eq!(
        rig.unit.look_up(FUNCTION, Some(known), MayWait::Yes),
        LookedUp::Nothing
    );
    let _ = rig.messages.take();
    migration(&rig).restore(&bytes).unwrap();
    assert!(migration(&rig).save().unwrap() == bytes);
    assert!(registers(&rig) == before);
    migration(&rig).start().unwrap();
    for number in [known, pasid(0x99)] {
        assert_eq!(rig.read(Some(number), AT), Ok(0x1111));
    }
    assert_eq!(rig.container.allocated(), [known]);
    assert!(registers(&rig) == before);
    assert_eq!(rig.messages.take(), []);
    // And it serves its guest.
    rig.unbind(pasid(0x99));
    assert!(rig.read(Some(pasid(0x99)), AT).is_err());
}

#[test]
fn r57_r74_without_the_quota_it_does_not_go_on_and_with_it_it_does() {
    let mut rig = with_virtual_commands();
    let all: Vec<_> = (0..3).map(|_| allocate(&rig).unwrap()).collect();
    let bytes = stop_and_save(&rig);
    let _other = arrive(&mut rig, 5);
    migration(&rig).restore(&bytes).unwrap();
    // Somebody of the tenant's has taken what is left but for one.
    let set = rig.container.set().clone();
    let taken: Vec<_> = std::iter::from_fn(|| set.alloc(PasidRange::ALL).ok()).collect();
    set.free(taken[0]).unwrap();
    for _ in 0..2 {
        let error = migration(&rig).start().unwrap_err();
        assert_eq!(error.errno(), Errno::NOSPC);
        assert_eq!(rig.container.allocated(), []);
        assert!(migration(&rig).save().unwrap() == bytes);
    }
    for pasid in &taken[1..] {
        set.free(*pasid).unwrap();
    }
    migration(&rig).start().unwrap();
    assert_eq!(rig.container.allocated(), all);
}

#[test]
fn r74_a_message_that_a_stopped_unit_owes_is_sent_where_it_goes_on() {
    let mut rig = Rig::booted();
    migration(&rig).stop();
    assert!(rig.read(Some(pasid(1)), AT).is_err());
    let bytes = stop_and_save(&rig);
    let _other = arrive(&mut rig, 32);
    migration(&rig).restore(&bytes).unwrap();
    assert_eq!(rig.messages.take(), []);
    migration(&rig).start().unwrap();
    assert_eq!(rig.messages.take(), [FAULT_MESSAGE]);
    assert_eq!(rig.take_record().unwrap().at(), AT);
}

#[test]
fn r74_only_a_stopped_unit_is_saved_or_restored_and_only_into_its_like() {
    let mut rig = with_virtual_commands();
    let save = |rig: &Rig| migration(rig).save().map_err(|error| error.errno());
    assert_eq!(save(&rig), Err(Errno::BUSY));
    let bytes = stop_and_save(&rig);
    // What the guest writes is kept, and is no part of a state.
    rig.write32(reg::FECTL, 0);
    assert_eq!(save(&rig), Err(Errno::BUSY));
    let too_much = [0; 0x1004];
    let error = rig.unit.bar_write(Bar::Bar0, 0, &too_much).unwrap_err();
    assert_eq!(error.errno(), Errno::AGAIN);
    migration(&rig).start().unwrap();
    let restore = |rig: &Rig, bytes: &[u8]| {
        let restored = migration(rig).restore(bytes);
        restored.map_err(|error| error.errno())
    };
    assert_eq!(restore(&rig, &bytes), Err(Errno::BUSY));
    let _other = arrive(&mut rig, 32);
    let fresh = save(&rig);
    for len in 0..bytes.len() {
        assert_eq!(restore(&rig, &bytes[..len]), Err(Errno::INVAL));
    }
    assert_eq!(save(&rig), fresh, "it is as new");
    let without = Rig::new();
    migration(&without).stop();
    assert_eq!(restore(&without, &bytes), Err(Errno::INVAL));
    // A reset leaves nothing of what was restored.
    restore(&rig, &bytes).unwrap();
    rig.unit.reset();
    assert_eq!(save(&rig), fresh);
    migration(&rig).start().unwrap();
    assert_eq!(rig.read32(reg::GSTS), 0);
}
