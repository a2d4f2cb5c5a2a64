//! Dualcast, fills with 16 bytes, cache flushes (DSA §8.3).

use super::scattered::{BASE, PAGES, Scattered};
use super::{BLOCK, Dedicated};
use crate::spec::{Descriptor, DifBlock, DifFields, Flags, Status};
use crate::testing::Host;

#[test]
fn a_dualcast_copies_to_two_places() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let mut memory = scattered.memory();
    let data: Vec<u8> = (0..0x2345_u32)
        .map(|i| (i % 251).to_le_bytes()[0])
        .collect();
    memory.put(BASE + 3, &data);
    scattered.load(&memory);
    let (to, also_to) = (BASE + 0x8567, BASE + 0x1_0567);
    let record = scattered.run(Descriptor::dualcast(BASE + 3, to, also_to, 0x2345));
    assert_eq!(record.status(), Status::SUCCESS);
    let memory = scattered.memory();
    assert!(memory.at(to, 0x2345) == data && memory.at(also_to, 0x2345) == data);
}

#[test]
fn a_dualcast_has_completed_what_both_places_have() {
    let host = Host::new();
    let mut missing = [false; PAGES];
    missing[0x11] = true;
    let mut scattered = Scattered::new(&host, &missing);
    let (to, also_to) = (BASE + 0x8800, BASE + 0x1_0800);
    let record = scattered.run(Descriptor::dualcast(BASE, to, also_to, 0x2000));
    assert_eq!(record.status(), Status::PAGE_FAULT.with_write());
    assert_eq!(
        (record.bytes_completed, record.fault_address),
        (0x800, BASE + 0x1_1000)
    );
}

#[test]
fn a_pattern_of_16_bytes_is_repeated_lowest_first() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let pattern = u128::from_le_bytes(*b"0123456789abcdef");
    let record = scattered.run(Descriptor::memory_fill_wide(pattern, BASE + 0xff5, 37));
    assert_eq!(record.status(), Status::SUCCESS);
    assert_eq!(
        scattered.memory().at(BASE + 0xff4, 39),
        b"\x000123456789abcdef0123456789abcdef01234\0"
    );
    // Where both halves are one, it is a pattern of eight.
    let pattern = u128::from_le_bytes(*b"abcdefghabcdefgh");
    scattered.run(Descriptor::memory_fill_wide(pattern, BASE, 11));
    assert_eq!(scattered.memory().at(BASE, 12), b"abcdefghabc\0");
}

/// A flush changes nothing, but its pages must be there.
#[test]
fn a_cache_flush_needs_its_pages() {
    let host = Host::new();
    let mut missing = [false; PAGES];
    missing[2] = true;
    let mut scattered = Scattered::new(&host, &missing);
    let before = scattered.memory();
    let flush = Descriptor::cache_flush(BASE + 0xf00, 0x2000);
    let record = scattered.run(flush);
    assert_eq!(record.status(), Status::PAGE_FAULT);
    assert_eq!(
        (record.bytes_completed, record.fault_address),
        (0x1100, BASE + 0x2000)
    );
    assert_eq!(
        scattered.run(flush.with_flags(BLOCK)).status(),
        Status::SUCCESS
    );
    assert!(scattered.memory() == before);
}

/// A large operation of any kind leaves room for others: it ends its turn in time and goes on later.
#[test]
fn r67_no_operation_holds_up_another_queue() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let record = 0xb0_0000;
    let len = 4 << 20;
    let fields = DifFields::of(DifBlock::Of512);
    let large = [
        Descriptor::memory_fill_wide(1, 0x60_0000, len),
        Descriptor::dualcast(0, 0x40_0000, 0x60_0000, 2 << 20),
        Descriptor::crc(0, len),
        Descriptor::copy_crc(0, 0x60_0000, len),
        Descriptor::dif_insert(0, 0x60_0000, len, fields),
        Descriptor::cache_flush(0, len),
    ];
    for descriptor in large {
        let greedy = Dedicated::open(&host, 0, 5);
        let modest = Dedicated::open(&host, 7, 5);
        let mut engine = host.engine();
        greedy.submit(descriptor.with_record(record));
        modest.submit(Descriptor::no_op().with_record(record + 32));
        engine.run(2);
        let done = |at| super::record(&host, at).status();
        assert_eq!(done(record + 32), Status::SUCCESS);
        assert_eq!(done(record), Status::NONE, "{descriptor:x?}");
        crate::testing::run(&mut engine);
        assert_eq!(done(record), Status::SUCCESS);
    }
}

/// A turn is a quarter of a mebibyte: what takes several of them comes out as if there were none.
#[test]
fn operations_go_on_from_turn_to_turn() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb01);
    let queue = Dedicated::open(&host, 0, 5);
    let mut engine = host.engine();
    let mut run = |descriptor: Descriptor| {
        queue.submit(descriptor.with_record(0xb0_0000));
        crate::testing::run(&mut engine);
        super::record(&host, 0xb0_0000)
    };
    let len = 1_u32 << 20;
    let data: Vec<u8> = (0..len)
        .map(|i| (i * 3 + i / 4099).to_le_bytes()[0])
        .collect();
    host.write(0, &data);
    let (to, also_to, whole) = (0x20_0000, 0x40_0000, len / 512 * 520);
    let record = run(Descriptor::copy_crc(0, to, len));
    assert_eq!(record.crc(), super::model::crc32c(&data, 0, Flags::empty()));
    assert!(host.bytes(to, data.len()) == data);
    run(Descriptor::memory_fill_wide(5, to, len));
    let filled = 5_u128.to_le_bytes().repeat(data.len() / 16);
    assert!(host.bytes(to, data.len()) == filled);
    run(Descriptor::dualcast(0, to, also_to, len));
    assert!(host.bytes(to, data.len()) == data && host.bytes(also_to, data.len()) == data);
    let fields = DifFields::of(DifBlock::Of512);
    run(Descriptor::dif_insert(0, to, len, fields));
    let blocks = super::model::with_fields(&data, &fields);
    assert!(host.bytes(to, blocks.len()) == blocks);
    let check = run(Descriptor::dif_check(to, whole, fields));
    assert_eq!(check.status(), Status::SUCCESS);
    assert_eq!(check.source_tags().reference, len / 512);
    run(Descriptor::dif_strip(
        to,
        also_to + 0x10_0000,
        whole,
        fields,
    ));
    assert!(host.bytes(also_to + 0x10_0000, data.len()) == data);
}
