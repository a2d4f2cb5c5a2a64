//! Devices and PASIDs that are attached, replaced and detached.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn r39_r75_a_process_is_reached_by_its_pasid() {
    let rig = Rig::new();
    let books = rig.host_side.books();
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    assert_eq!(rig.sees(700, BUFFER), None);
    assert_eq!(rig.attach_pasid(PLACE, 700, nested), Ok(nested));
    assert_eq!(rig.sees(700, BUFFER), Some(0xa1));
    assert_eq!(rig.sees_plainly(0x1000), None, "not attached");
    assert_eq!(rig.attach(PLACE, parent), Ok(parent));
    assert_eq!(rig.sees_plainly(0x1000), Some(0xa1));
    rig.detach_pasid(PLACE, 700).unwrap();
    assert_eq!(rig.sees(700, BUFFER), None);
    rig.detach_pasid(PLACE, 700).unwrap();
    rig.detach(PLACE).unwrap();
    assert_eq!(rig.sees_plainly(0x1000), None);
    rig.close(PLACE).unwrap();
    assert_eq!(rig.host_side.books(), books);
}

#[test]
fn r75_an_exclusive_function_is_attached_the_same_way() {
    let rig = Rig::with(Sharing::Exclusive, FaultDelivery::Elsewhere);
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 700, nested).unwrap();
    let mut port = rig.parents[0].port();
    assert_eq!(read(&mut port, raw(700), BUFFER).ok(), Some(0xa1));
    assert_eq!(read(&mut port, raw(701), BUFFER).ok(), None);
    assert_eq!(read(&mut port, None, 0x1000).ok(), None);
    rig.attach(PLACE, nested).unwrap();
    assert_eq!(read(&mut port, None, BUFFER).ok(), Some(0xa1));
}

#[test]
fn r75_to_attach_again_is_to_replace() {
    let rig = Rig::new();
    let (device, parent, one) = rig.begin(0xa1);
    let two = rig.process(0x2000, 0xa2);
    let [one, two] = [one, two].map(|process| rig.nested(PASID, device, parent, process).unwrap());
    rig.attach_pasid(PLACE, 7, one).unwrap();
    let books = rig.host_side.books();
    rig.attach_pasid(PLACE, 7, two).unwrap();
    assert_eq!(rig.sees(7, BUFFER), Some(0xa2));
    assert_eq!(rig.host_side.books(), books, "the same PASID of the host");
    rig.destroy(one).unwrap();
    assert_eq!(rig.destroy(two), Err(EBUSY));
    rig.attach_pasid(PLACE, 7, two).unwrap();
}

/// At no moment neither: a device that reads on and on never meets nothing.
#[test]
fn r42_r75_replacing_is_one_step() {
    let rig = Rig::new();
    let (device, parent, one) = rig.begin(0xa1);
    let two = rig.process(0x2000, 0xa2);
    let tables = [one, two].map(|process| rig.nested(PASID, device, parent, process).unwrap());
    rig.attach_pasid(PLACE, 7, tables[0]).unwrap();
    let hold = rig.alice.container.translate(PLACE, guest(7)).unwrap();
    let mut port = rig.parents[0].port();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut met = [0_u32; 2];
            while !is_over.load(Ordering::Relaxed) || met[0] == 0 {
                match read(&mut port, holding(&hold), BUFFER) {
                    Ok(0xa1) => met[0] += 1,
                    Ok(0xa2) => met[1] += 1,
                    other => panic!("{other:?}"),
                }
            }
            met
        });
        for n in 0..2000 {
            let table = tables[(n + 1) % 2];
            rig.attach_pasid(PLACE, 7, table).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap()[0] > 0);
    });
}

#[test]
fn r75_where_the_new_one_is_refused_the_old_one_stays() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    let not_for_pasids = rig.nested(0, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 7, nested).unwrap();
    for wrong in [not_for_pasids, device, 2, 99] {
        let errno = if wrong == 99 { ENOENT } else { EINVAL };
        assert_eq!(rig.attach_pasid(PLACE, 7, wrong), Err(errno), "{wrong}");
        assert_eq!(rig.sees(7, BUFFER), Some(0xa1));
    }
    assert_eq!(rig.destroy(nested), Err(EBUSY));
    rig.destroy(not_for_pasids).unwrap();
}

#[test]
fn r75_pasids_are_for_tables_that_were_made_for_them() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let with = rig.nested(PASID, device, parent, process).unwrap();
    let without = rig.nested(0, device, parent, process).unwrap();
    rig.attach(PLACE, without).unwrap();
    assert_eq!(rig.attach_pasid(PLACE, 7, with), Err(EINVAL), "beside it");
    rig.attach(PLACE, with).unwrap();
    rig.attach_pasid(PLACE, 7, with).unwrap();
    assert_eq!(rig.attach(PLACE, without), Err(EINVAL), "beside it");
    assert_eq!(
        rig.attach(PLACE, 2),
        Err(EINVAL),
        "a space's own table is not"
    );
    rig.detach_pasid(PLACE, 7).unwrap();
    rig.attach(PLACE, without).unwrap();
    for pasid in [0, 1 << 20, u32::MAX] {
        assert_eq!(rig.attach_pasid(PLACE, pasid, with), Err(EINVAL));
        assert_eq!(rig.detach_pasid(PLACE, pasid), Err(EINVAL));
    }
}

#[test]
fn r75_a_space_has_a_table_of_its_own_while_something_is_attached() {
    let rig = Rig::new();
    rig.alice.ram.store_u64(0x1000, 0xa1).unwrap();
    for place in [PLACE, OTHER] {
        rig.bind(place).unwrap();
    }
    let space = rig.guest_space();
    let table = rig.attach(PLACE, space).unwrap();
    assert_eq!(table, 4);
    assert_eq!(rig.attach(OTHER, space), Ok(table));
    assert_eq!(rig.sees_plainly(0x1000), Some(0xa1));
    rig.detach(PLACE).unwrap();
    assert_eq!(rig.destroy(table), Err(EBUSY));
    rig.detach(OTHER).unwrap();
    assert_eq!(rig.destroy(table), Err(ENOENT));
    rig.destroy(space).unwrap();
    assert_eq!(rig.attach(PLACE, space), Err(ENOENT));
}

#[test]
fn r75_each_table_is_over_its_own_space() {
    let rig = Rig::new();
    let (device, _, process) = rig.begin(0xa1);
    let empty = rig.space().unwrap();
    let parent = rig.table(NEST_PARENT | PASID, device, empty).unwrap();
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 7, nested).unwrap();
    assert_eq!(rig.sees(7, BUFFER), None, "neither table nor page is there");
    rig.map_file(empty, 7, 0, RAM_BYTES).unwrap();
    assert_eq!(rig.sees(7, BUFFER), Some(0xa1));
    rig.unmap(empty, 0, RAM_BYTES).unwrap();
    assert_eq!(rig.sees(7, BUFFER), None);
}

#[test]
fn r33_r75_a_connection_takes_everything_along() {
    let rig = Rig::new();
    let books = rig.host_side.books();
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach(PLACE, parent).unwrap();
    for pasid in 1..=20 {
        rig.attach_pasid(PLACE, pasid, nested).unwrap();
    }
    let Rig { fd, host_side, .. } = rig;
    drop(fd);
    assert_eq!(host_side.books(), books);
}

#[test]
fn r12_r75_what_is_beyond_the_quota_is_refused() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    let mut attached = 0;
    let refused = (1..1 << 20).find_map(|pasid| {
        let outcome = rig.attach_pasid(PLACE, pasid, nested);
        attached += u32::from(outcome.is_ok());
        outcome.err()
    });
    assert_eq!(refused, Some(ENOSPC));
    assert_eq!(rig.sees(attached, BUFFER), Some(0xa1));
}

/// Slices of one parent share the entry of a PASID, which ends in one memory: a device never reaches what was mapped
/// into the space of another one's table.
#[test]
fn r8_r75_a_pasid_is_over_one_space_on_a_parent() {
    let rig = Rig::of_one_parent();
    let (device, parent, process) = rig.begin(0xa1);
    rig.bind(OTHER).unwrap();
    let empty = rig.space().unwrap();
    let over_empty = rig.table(NEST_PARENT | PASID, device, empty).unwrap();
    let hers = rig.nested(PASID, device, parent, process).unwrap();
    let same_root = rig.nested(PASID, device, over_empty, process).unwrap();
    let second_of_parent = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 7, hers).unwrap();
    assert_eq!(rig.attach_pasid(OTHER, 7, same_root), Err(EBUSY));
    rig.attach_pasid(PLACE, 8, parent).unwrap();
    assert_eq!(rig.attach_pasid(OTHER, 8, over_empty), Err(EBUSY));
    // The same memory, and the same table in it.
    rig.attach_pasid(OTHER, 7, second_of_parent).unwrap();
    assert_eq!(rig.attach_pasid(PLACE, 7, same_root), Err(EBUSY));
    rig.detach_pasid(OTHER, 7).unwrap();
    rig.attach_pasid(PLACE, 7, same_root).unwrap();
    assert_eq!(rig.sees(7, BUFFER), None);
}
