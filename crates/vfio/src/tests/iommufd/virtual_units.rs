//! Virtual units and devices, and the queue of their events.

use std::os::unix::net::UnixDatagram;

use super::*;

const VTD: u32 = 0x8000_0001;
/// What the guest calls the device.
const NAME: u64 = 0x1234;

impl Rig {
    fn unit(&self, kind: u32, device: u32, parent: u32) -> Result<u32, i32> {
        let answer = self.ask(VIOMMU_ALLOC, &words(&[24, 0, kind, device, parent, 0]))?;
        Ok(word(&answer.written, 20))
    }

    fn virtual_device(&self, unit: u32, device: u32, name: u64) -> Result<u32, i32> {
        let request = [words(&[24, unit, device, 0]), name.to_le_bytes().to_vec()].concat();
        let answer = self.ask(VDEVICE_ALLOC, &request)?;
        Ok(word(&answer.written, 12))
    }

    fn events(&self, unit: u32, kind: u32, depth: u32) -> Result<(u32, UnixDatagram), i32> {
        let request = words(&[32, 0, unit, kind, depth, 0, 0, 0]);
        let answer = self.ask(VEVENTQ_ALLOC, &request)?;
        let file = answer.descriptors[0].try_clone().unwrap();
        Ok((word(&answer.written, 20), file.into()))
    }
}

fn next(file: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 256];
    let len = file.recv(&mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

#[test]
fn r62_r75_a_fault_is_told_in_the_names_of_the_virtual_device() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let unit = rig.unit(VTD, device, parent).unwrap();
    let nested = rig.nested(PASID, device, unit, process).unwrap();
    rig.attach_pasid(PLACE, 7, nested).unwrap();
    assert_eq!(rig.sees(7, BUFFER), Some(0xa1), "nested by way of the unit");
    let (_, file) = rig.events(unit, VTD, 16).unwrap();
    assert_eq!(rig.sees(7, BUFFER + 0x1000), None);
    assert_eq!(next(&file), None, "the device has no name yet");
    rig.virtual_device(unit, device, NAME).unwrap();
    for sequence in 0..2 {
        assert_eq!(rig.sees(7, BUFFER + 0x1234), None);
        let event = next(&file).unwrap();
        assert_eq!(event.len(), 24);
        assert_eq!((word(&event, 0), word(&event, 4)), (0, sequence));
        assert_eq!(quad(&event, 8), BUFFER + 0x1000);
        let high = quad(&event, 16);
        assert_eq!(high & 0xffff, NAME);
        assert_eq!(
            high >> 32 & 0xff,
            0x71,
            "the page is not there (VT-d §7.1.3)"
        );
        assert_eq!(high >> 40 & 0xf_ffff, 7);
        assert_eq!(high >> 60, 0b1100, "F, and T1 for a read");
        assert_eq!(high >> 31 & 1, 1, "a PASID");
    }
    assert_eq!(next(&file), None);
}

/// A header alone tells that events are missing, the number of the last one in it, before the first that has room again.
#[test]
fn r61_r75_events_that_found_no_room_are_told_of() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let unit = rig.unit(VTD, device, parent).unwrap();
    let nested = rig.nested(PASID, device, unit, process).unwrap();
    rig.attach_pasid(PLACE, 7, nested).unwrap();
    rig.virtual_device(unit, device, NAME).unwrap();
    let (_, file) = rig.events(unit, VTD, 1).unwrap();
    const FAULTS: u32 = 1000;
    for _ in 0..FAULTS {
        assert_eq!(rig.sees(7, BUFFER + 0x1000), None);
    }
    let told = std::iter::from_fn(|| next(&file)).count();
    assert!((1..FAULTS as usize).contains(&told), "{told}");
    assert_eq!(rig.sees(7, BUFFER + 0x1000), None);
    assert_eq!(next(&file).unwrap(), words(&[1, FAULTS - 1]));
    let event = next(&file).unwrap();
    assert_eq!(event.len(), 24);
    assert_eq!((word(&event, 0), word(&event, 4)), (0, FAULTS));
    assert_eq!(rig.sees(7, BUFFER + 0x1000), None);
    let event = next(&file).unwrap();
    assert_eq!((word(&event, 0), word(&event, 4)), (0, FAULTS + 1));
    assert_eq!(next(&file), None);
}

#[test]
fn r75_units_devices_and_queues_keep_one_another() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let unit = rig.unit(VTD, device, parent).unwrap();
    let nested = rig.nested(PASID, device, unit, process).unwrap();
    let virtual_device = rig.virtual_device(unit, device, NAME).unwrap();
    let (queue, file) = rig.events(unit, VTD, 1).unwrap();
    assert_eq!(rig.destroy(queue), Err(EBUSY), "its file is open");
    drop(file);
    assert_eq!(rig.destroy(parent), Err(EBUSY));
    for user in [nested, virtual_device, queue] {
        assert_eq!(rig.destroy(unit), Err(EBUSY));
        rig.destroy(user).unwrap();
    }
    rig.destroy(unit).unwrap();
    rig.destroy(parent).unwrap();
}

#[test]
fn r75_what_no_unit_of_the_host_backs_is_not_supported() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    for kind in [0, 1, 2, VTD + 1] {
        assert_eq!(rig.unit(kind, device, parent), Err(EOPNOTSUPP), "{kind:#x}");
    }
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    assert_eq!(rig.unit(VTD, device, nested), Err(EINVAL));
    assert_eq!(rig.unit(VTD, device, 2), Err(ENOENT));
    assert_eq!(rig.unit(VTD, 99, parent), Err(ENOENT));
    let unit = rig.unit(VTD, device, parent).unwrap();
    for kind in [0, 1, 2] {
        assert_eq!(rig.events(unit, kind, 8).unwrap_err(), EOPNOTSUPP);
    }
    assert_eq!(rig.events(unit, VTD, 0).unwrap_err(), EINVAL);
    assert_eq!(rig.events(parent, VTD, 8).unwrap_err(), ENOENT);
    let _queue = rig.events(unit, VTD, 8).unwrap();
    assert_eq!(rig.events(unit, VTD, 8).unwrap_err(), EEXIST);
    let by_unit = words(&[32, unit, 0, 0, 0, 0, 0, 0]);
    assert_eq!(rig.ask(HWPT_INVALIDATE, &by_unit).unwrap_err(), EOPNOTSUPP);
}

#[test]
fn r75_a_device_has_one_name_and_a_name_one_device() {
    let rig = Rig::new();
    let (device, parent, _) = rig.begin(0xa1);
    let other = rig.bind(OTHER).unwrap();
    let unit = rig.unit(VTD, device, parent).unwrap();
    assert_eq!(rig.virtual_device(unit, device, 1 << 16), Err(EINVAL));
    assert_eq!(rig.virtual_device(parent, device, NAME), Err(ENOENT));
    assert_eq!(rig.virtual_device(unit, 99, NAME), Err(ENOENT));
    let named = rig.virtual_device(unit, device, NAME).unwrap();
    assert_eq!(rig.virtual_device(unit, device, NAME + 1), Err(EEXIST));
    assert_eq!(rig.virtual_device(unit, other, NAME), Err(EEXIST));
    rig.virtual_device(unit, other, NAME + 1).unwrap();
    rig.close(PLACE).unwrap();
    assert_eq!(rig.destroy(named), Err(ENOENT), "it went with the device");
}
