//! Sizes, unknown numbers, and the errors that Linux has for them.

use super::*;

#[test]
fn r75_a_size_is_the_first_word_and_is_not_too_small() {
    let rig = Rig::new();
    for (number, shortest) in [
        (DESTROY, 8),
        (IOAS_ALLOC, 12),
        (IOAS_UNMAP, 24),
        (HWPT_ALLOC, 24),
        (GET_HW_INFO, 32),
        (HWPT_INVALIDATE, 32),
        (FAULT_QUEUE_ALLOC, 16),
        (IOAS_MAP_FILE, 40),
        (VIOMMU_ALLOC, 24),
        (VDEVICE_ALLOC, 24),
        (VEVENTQ_ALLOC, 32),
    ] {
        let mut bytes = words(&[shortest - 1]);
        bytes.resize(64, 0);
        assert_eq!(rig.ask(number, &bytes).unwrap_err(), EINVAL, "{number:#x}");
        bytes[..4].copy_from_slice(&shortest.to_le_bytes());
        let short = shortest as usize - 1;
        let missing = rig.ask(number, &bytes[..short]).unwrap_err();
        assert_eq!(missing, EFAULT, "{number:#x}");
        assert_eq!(rig.ask(number, &[0; 3]).unwrap_err(), EFAULT);
    }
}

#[test]
fn r75_what_is_longer_is_accepted_where_the_rest_is_zero() {
    let rig = Rig::new();
    let answer = rig.ask(IOAS_ALLOC, &words(&[20, 0, 0, 0, 0])).unwrap();
    assert_eq!(answer.written, words(&[20, 0, 1]));
    let beyond = rig.ask(IOAS_ALLOC, &words(&[20, 0, 0, 0, 1]));
    assert_eq!(beyond.unwrap_err(), E2BIG);
    // What comes with the message beyond the size is not looked at.
    rig.ask(IOAS_ALLOC, &words(&[12, 0, 0, 7, 7])).unwrap();
}

#[test]
fn r75_no_more_is_written_back_than_the_size_has() {
    let rig = Rig::new();
    let device = rig.bind(PLACE).unwrap();
    let space = rig.space().unwrap();
    let answer = rig.ask(HWPT_ALLOC, &words(&[24, 0, device, space, 0, 0]));
    assert_eq!(
        answer.unwrap().written,
        words(&[24, 0, device, space, 3, 0])
    );
}

#[test]
fn r75_numbers_belong_to_files() {
    let rig = Rig::new();
    let device = On::Device(PLACE);
    for number in [DESTROY, IOAS_ALLOC, HWPT_ALLOC, IOAS_MAP_FILE] {
        let refused = rig.ask_on(device, number, &[64; 64]);
        assert_eq!(refused.unwrap_err(), ENOTTY, "{number:#x}");
    }
    for number in [
        BIND, ATTACH, DETACH, CLOSE, 0x3b85, 0x3b92, 0x3b94, 0x3b65, 0,
    ] {
        let refused = rig.ask(number, &[64; 64]);
        assert_eq!(refused.unwrap_err(), ENOTTY, "{number:#x}");
    }
}

#[test]
fn r75_unknown_flags_and_reserved_fields_are_not_supported() {
    let rig = Rig::new();
    assert_eq!(
        rig.ask(IOAS_ALLOC, &words(&[12, 1, 0])).unwrap_err(),
        EOPNOTSUPP
    );
    let queue = rig.ask(FAULT_QUEUE_ALLOC, &words(&[16, 1, 0, 0]));
    assert_eq!(queue.unwrap_err(), EOPNOTSUPP);
    let device = rig.bind(PLACE).unwrap();
    let space = rig.space().unwrap();
    for flags in [2, 16, NEST_PARENT | FAULT_ID_VALID] {
        assert_eq!(rig.table(flags, device, space), Err(EOPNOTSUPP), "{flags}");
    }
    let reserved = rig.ask(HWPT_ALLOC, &words(&[24, 0, device, space, 0, 1]));
    assert_eq!(reserved.unwrap_err(), EOPNOTSUPP);
    // VFIO's own requests have another convention.
    let bind = rig.ask_on(On::Device(OTHER), BIND, &words(&[16, 1, 0, 0]));
    assert_eq!(bind.unwrap_err(), EINVAL);
    let attach = rig.ask_on(On::Device(PLACE), ATTACH, &words(&[12, 2, space]));
    assert_eq!(attach.unwrap_err(), EINVAL);
    let short = rig.ask_on(On::Device(PLACE), ATTACH, &words(&[12, 1, space]));
    assert_eq!(short.unwrap_err(), EINVAL, "a PASID that is not there");
}

#[test]
fn r75_hardware_is_told_of_as_much_as_there_is_room_for() {
    let rig = Rig::new();
    let device = rig.bind(PLACE).unwrap();
    let ask = |flags, room, at, data_type| {
        let request = words(&[40, flags, device, room, at, 0, data_type, 0, 0, 0]);
        rig.ask(GET_HW_INFO, &request).map(|answer| answer.written)
    };
    let told = ask(0, 32, 48, 99).unwrap();
    assert_eq!(told.len(), 80);
    let head = [words(&[40, 0, device, 24, 48, 0, 1]), vec![20, 0, 0, 0]].concat();
    assert_eq!(told[..32], head);
    assert_eq!(told[32..48], [0; 16]);
    assert_eq!((quad(&told, 56), quad(&told, 64)), (UNIT.cap, UNIT.ecap));
    assert_eq!(told[72..], [0; 8]);
    let cut = ask(1, 12, 40, 1).unwrap();
    assert_eq!(cut.len(), 52);
    assert_eq!(cut[48..], told[56..60]);
    assert_eq!(ask(0, 0, 0, 0).unwrap().len(), 40);
    assert_eq!(ask(1, 0, 0, 2).unwrap_err(), EOPNOTSUPP);
    assert_eq!(ask(2, 0, 0, 0).unwrap_err(), EOPNOTSUPP);
    for (room, at) in [(24, 39), (24, 4080), (u32::MAX, 40), (1, u32::MAX)] {
        assert_eq!(ask(0, room, at, 0).unwrap_err(), EFAULT, "{room} at {at}");
    }
    let unknown = rig.ask(GET_HW_INFO, &words(&[32, 0, 77, 0, 0, 0, 0, 0]));
    assert_eq!(unknown.unwrap_err(), ENOENT);
}
