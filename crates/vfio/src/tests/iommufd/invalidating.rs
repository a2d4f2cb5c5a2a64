//! IOMMU_HWPT_INVALIDATE: arrays of entries, and how many of them were done.

use super::*;

const ALL: u64 = u64::MAX;

/// Address, pages, flags, reserved.
type Entry = (u64, u64, u32, u32);

fn bytes((addr, pages, flags, reserved): Entry) -> Vec<u8> {
    let range = [addr, pages].map(u64::to_le_bytes).concat();
    [range, words(&[flags, reserved])].concat()
}

/// How many were done, with the errno if one was refused.
fn invalidate(rig: &Rig, table: u32, entries: &[Entry]) -> (u32, Option<i32>) {
    let count = u32::try_from(entries.len()).unwrap();
    let head = words(&[32, table, 32, 0, 0, 24, count, 0]);
    let data: Vec<u8> = entries.iter().copied().flat_map(bytes).collect();
    raw_invalidate(rig, &[head, data].concat())
}

fn raw_invalidate(rig: &Rig, argument: &[u8]) -> (u32, Option<i32>) {
    let number = Number::new(HWPT_INVALIDATE);
    match rig.fd.ioctl(On::Iommufd, number, argument, vec![]) {
        Ok(answer) => (word(&answer.written, 24), None),
        Err(refused) => (word(&refused.written, 24), Some(refused.errno.get())),
    }
}

#[test]
fn r40_r41_r75_what_is_named_is_forgotten() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    rig.alice.ram.store_u64(0x2000, 0xa2).unwrap();
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 7, nested).unwrap();
    let hold = rig.alice.container.translate(PLACE, guest(7)).unwrap();
    let mut port = rig.parents[0].port();
    let mut see = |at| read(&mut port, holding(&hold), at).unwrap();
    let mut turn = [(0x2000, 0xa2), (0x1000, 0xa1)].into_iter().cycle();
    assert_eq!(see(BUFFER), 0xa1);
    for entry in [
        (0, ALL, 0, 0),
        (BUFFER, 1, 0, 0),
        (BUFFER - 0x1000, 2, 1, 0),
    ] {
        let (page, value) = turn.next().unwrap();
        let stale = see(BUFFER);
        rig.alice.map(process, BUFFER, page);
        let elsewhere = (BUFFER + 0x1000, 1, 0, 0);
        assert_eq!(invalidate(&rig, nested, &[elsewhere]), (1, None));
        assert_eq!(see(BUFFER), stale, "caches are real");
        assert_eq!(invalidate(&rig, nested, &[elsewhere, entry]), (2, None));
        assert_eq!(see(BUFFER), value, "{entry:?}");
    }
}

#[test]
fn r75_entries_are_done_up_to_the_first_that_is_refused() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    rig.attach_pasid(PLACE, 7, nested).unwrap();
    let good = (BUFFER, 1, 0, 0);
    for (bad, errno) in [
        ((BUFFER, 1, 2, 0), EOPNOTSUPP),
        ((BUFFER, 1, 0, 1), EOPNOTSUPP),
        ((BUFFER + 8, 1, 0, 0), EINVAL),
        ((BUFFER, ALL, 0, 0), EINVAL),
    ] {
        let outcome = invalidate(&rig, nested, &[good, good, bad, good]);
        assert_eq!(outcome, (2, Some(errno)), "{bad:?}");
    }
    // A range to the end and beyond, and none at all.
    let edges = [
        (!0xfff, ALL - 1, 0, 0),
        (0, ALL / 2, 1, 0),
        (BUFFER, 0, 0, 0),
    ];
    assert_eq!(invalidate(&rig, nested, &edges), (3, None));
}

#[test]
fn r75_r78_an_array_is_in_the_message() {
    let rig = Rig::new();
    let (device, parent, process) = rig.begin(0xa1);
    let nested = rig.nested(PASID, device, parent, process).unwrap();
    let ask = |table: u32, [at, kind, len, count]: [u32; 4], data: usize| {
        let head = words(&[32, table, at, 0, kind, len, count, 0]);
        raw_invalidate(&rig, &[head, vec![0; data]].concat())
    };
    assert_eq!(ask(nested, [0, 0, 0, 0], 0), (0, None), "a question");
    assert_eq!(ask(nested, [0, 1, 0, 0], 0), (0, Some(EINVAL)));
    assert_eq!(ask(nested, [32, 0, 24, 3], 48), (2, Some(EFAULT)));
    assert_eq!(ask(nested, [32, 0, 24, u32::MAX], 48), (2, Some(EFAULT)));
    assert_eq!(ask(nested, [32, 0, 0, 1], 24), (0, Some(EINVAL)));
    assert_eq!(ask(nested, [0, 0, 24, 1], 24), (0, Some(EINVAL)));
    assert_eq!(ask(nested, [32, 0, 23, 1], 24), (0, Some(EINVAL)));
    assert_eq!(ask(nested, [31, 0, 24, 1], 24), (0, Some(EFAULT)));
    assert_eq!(ask(nested, [32, 0, 40, 2], 80), (2, None));
    assert_eq!(ask(parent, [32, 0, 24, 1], 24), (0, Some(EINVAL)));
    assert_eq!(ask(device, [32, 0, 24, 1], 24), (0, Some(EINVAL)));
    assert_eq!(ask(99, [32, 0, 24, 1], 24), (0, Some(ENOENT)));
}
