//! Data integrity fields (DSA §8.3: DIF check, insert, strip, update).

use super::model::with_fields;
use super::scattered::{BASE, Scattered};
use crate::spec::{
    Descriptor, DifBlock, DifDestination, DifFields, DifFlags, DifMismatch, DifSource, DifTags,
    Status,
};
use crate::testing::Host;

const FROM: u64 = BASE;
const TO: u64 = BASE + 0x1_0000;

fn data(len: u32) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 3 + i / 97).to_le_bytes()[0])
        .collect()
}

fn tags(reference: u32, application: u16) -> DifTags {
    DifTags {
        reference,
        application_mask: 0,
        application,
    }
}

fn put(scattered: &Scattered<'_>, bytes: &[u8]) -> u32 {
    let mut memory = scattered.memory();
    memory.put(FROM, bytes);
    scattered.load(&memory);
    u32::try_from(bytes.len()).unwrap()
}

/// Guard, application tag and reference tag, highest byte first; the reference tag increases, the application tag does not.
#[test]
fn a_field_is_behind_each_block() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let mut block = vec![0; 512];
    block[..9].copy_from_slice(b"123456789");
    let len = put(&scattered, &[block.clone(), vec![0; 512]].concat());
    let fields = DifFields {
        destination: tags(0xabba, 0xface),
        ..DifFields::of(DifBlock::Of512)
    };
    let record = scattered.run(Descriptor::dif_insert(FROM, TO, len, fields));
    assert_eq!(record.status(), Status::SUCCESS);
    assert_eq!(record.destination_tags(), tags(0xabbc, 0xface));
    let memory = scattered.memory();
    assert_eq!(memory.at(TO, 512), block);
    assert_eq!(memory.at(TO + 512 + 2, 6), b"\xfa\xce\0\0\xab\xba");
    assert_eq!(memory.at(TO + 520, 512), [0; 512]);
    assert_eq!(memory.at(TO + 1032, 8), b"\0\0\xfa\xce\0\0\xab\xbb");
}

#[test]
fn what_was_inserted_is_right_and_can_be_stripped() {
    for block in DifBlock::ALL {
        for guards in [
            DifFlags::empty(),
            DifFlags::INVERT_SEED,
            DifFlags::INVERT_RESULT,
            DifFlags::all(),
        ] {
            let host = Host::new();
            let mut scattered = Scattered::new(&host, &[]);
            let data = data(block.bytes() * 3);
            let len = put(&scattered, &data);
            let whole = block.bytes_with_field() * 3;
            let mut fields = DifFields::of(block);
            fields.flags |= guards.bits();
            fields.destination = tags(7, 8);
            let insert = Descriptor::dif_insert(FROM, TO, len, fields);
            assert_eq!(scattered.run(insert).status(), Status::SUCCESS);
            fields.source = fields.destination;
            fields.destination = DifTags::ZERO;
            let check = scattered.run(Descriptor::dif_check(TO, whole, fields));
            assert_eq!((check.status(), check.result), (Status::SUCCESS, 0));
            assert_eq!(check.source_tags(), tags(10, 8));
            put(&scattered, &vec![0; data.len()]);
            let strip = scattered.run(Descriptor::dif_strip(TO, FROM, whole, fields));
            assert_eq!(strip.status(), Status::SUCCESS);
            assert!(scattered.memory().at(FROM, data.len()) == data);
        }
    }
}

/// The operation ends at the block, and the result has a bit for each part of the field that does not agree.
#[test]
fn a_check_says_what_does_not_agree_and_where() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let fields = DifFields {
        source: tags(0x100, 0x200),
        ..DifFields::of(DifBlock::Of520)
    };
    let right = with_fields(&data(520 * 3), &fields);
    let cases = [
        (5, DifMismatch::GUARD),
        (520, DifMismatch::GUARD),
        (522, DifMismatch::APPLICATION),
        (527, DifMismatch::REFERENCE),
    ];
    for (at, mismatch) in cases {
        let mut bytes = right.clone();
        bytes[528 * 2 + at] ^= 0x40;
        let len = put(&scattered, &bytes);
        let check = scattered.run(Descriptor::dif_check(FROM, len, fields));
        assert_eq!(check.status(), Status::DIF_MISMATCH);
        assert_eq!(DifMismatch::from_bits_retain(check.result), mismatch);
        assert_eq!(check.bytes_completed, 528 * 2);
        assert_eq!(check.source_tags(), tags(0x102, 0x200));
        // A strip and an update copy what is before.
        let strip = scattered.run(Descriptor::dif_strip(FROM, TO, len, fields));
        assert_eq!(
            (strip.status(), strip.result),
            (check.status(), check.result)
        );
        assert_eq!(scattered.memory().at(TO + 520 * 2, 520), [0; 520]);
    }
}

#[test]
fn parts_of_a_check_can_be_turned_off() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let fields = DifFields {
        source: tags(1, 2),
        ..DifFields::of(DifBlock::Of512)
    };
    let mut bytes = with_fields(&data(512), &fields);
    bytes[512..].copy_from_slice(&[0; 8]);
    let len = put(&scattered, &bytes);
    let mut result = |rules: DifSource, mask: u16| {
        let mut fields = fields;
        fields.source_flags = rules.bits();
        fields.source.application_mask = mask;
        let record = scattered.run(Descriptor::dif_check(FROM, len, fields));
        DifMismatch::from_bits_retain(record.result)
    };
    let all = DifMismatch::GUARD | DifMismatch::APPLICATION | DifMismatch::REFERENCE;
    assert_eq!(result(DifSource::empty(), 0), all);
    assert_eq!(result(DifSource::IGNORE_GUARD, 0), all - DifMismatch::GUARD);
    assert_eq!(
        result(DifSource::IGNORE_REFERENCE, 0),
        all - DifMismatch::REFERENCE
    );
    assert_eq!(
        result(DifSource::empty(), 0xffff),
        all - DifMismatch::APPLICATION
    );
    assert_eq!(
        result(DifSource::empty(), 0x0002),
        all - DifMismatch::APPLICATION
    );
    assert_eq!(result(DifSource::empty(), 0x0001), all);
}

/// Tags of all ones may say that a block was never written, and is not to be checked.
#[test]
fn ones_turn_checks_off_or_are_an_error() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let check = |scattered: &mut Scattered<'_>, field: &[u8; 8], rules: DifSource| {
        let bytes = [data(512), field.to_vec()].concat();
        let len = put(scattered, &bytes);
        let fields = DifFields {
            source_flags: rules.bits(),
            ..DifFields::of(DifBlock::Of512)
        };
        let record = scattered.run(Descriptor::dif_check(FROM, len, fields));
        DifMismatch::from_bits_retain(record.result)
    };
    let (none, some) = (
        DifMismatch::empty(),
        DifMismatch::all() - DifMismatch::ALL_ONES,
    );
    let application = b"\0\0\xff\xff\0\0\0\0";
    let both = b"\0\0\xff\xff\xff\xff\xff\xff";
    let all = &[0xff; 8];
    for field in [application, both, all] {
        assert_ne!(check(&mut scattered, field, DifSource::empty()), none);
        let rules = DifSource::APPLICATION_ONES;
        assert_eq!(check(&mut scattered, field, rules), none);
    }
    let rules = DifSource::TAGS_ONES;
    assert_ne!(check(&mut scattered, application, rules), none);
    assert_eq!(check(&mut scattered, both, rules), none);
    let rules = DifSource::ALL_ONES;
    assert_eq!(check(&mut scattered, both, rules), some);
    assert_eq!(check(&mut scattered, all, rules), none);
    let rules = DifSource::ALL_ONES | DifSource::ALL_ONES_IS_ERROR;
    assert_eq!(check(&mut scattered, all, rules), DifMismatch::ALL_ONES);
    let rules = DifSource::ALL_ONES_IS_ERROR;
    assert_eq!(check(&mut scattered, all, rules), some, "not looked for");
}

/// The reference tag increases unless it is fixed, the application tag is fixed unless it increases; both wrap.
#[test]
fn tags_increase_as_their_flags_say() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let len = put(&scattered, &data(512 * 2));
    let mut fields = DifFields {
        destination: tags(u32::MAX, u16::MAX),
        ..DifFields::of(DifBlock::Of512)
    };
    let mut second_field = |flags: DifDestination| {
        fields.destination_flags = flags.bits();
        let record = scattered.run(Descriptor::dif_insert(FROM, TO, len, fields));
        assert_eq!(record.status(), Status::SUCCESS);
        scattered.memory().at(TO + 512 * 2 + 8 + 2, 6).to_vec()
    };
    assert_eq!(second_field(DifDestination::empty()), b"\xff\xff\0\0\0\0");
    assert_eq!(
        second_field(DifDestination::REFERENCE_FIXED),
        b"\xff\xff\xff\xff\xff\xff"
    );
    assert_eq!(
        second_field(DifDestination::APPLICATION_INCREASES),
        b"\0\0\0\0\0\0"
    );
}

#[test]
fn an_update_computes_fields_anew_or_passes_parts_of_them_on() {
    let host = Host::new();
    let mut scattered = Scattered::new(&host, &[]);
    let mut fields = DifFields {
        source: tags(1, 2),
        source_flags: DifSource::IGNORE_GUARD.bits(),
        ..DifFields::of(DifBlock::Of4096)
    };
    let mut bytes = with_fields(&data(4096), &fields);
    bytes[4096..4098].copy_from_slice(b"gd");
    let len = put(&scattered, &bytes);
    fields.destination = DifTags {
        reference: 0x0304_0506,
        application_mask: 0x00f0,
        application: 0x0708,
    };
    let guard = with_fields(&data(4096), &fields)[4096..4098].to_vec();
    let mut field = |flags: DifDestination| {
        fields.destination_flags = flags.bits();
        let record = scattered.run(Descriptor::dif_update(FROM, TO, len, fields));
        assert_eq!(record.status(), Status::SUCCESS);
        assert_eq!(record.source_tags(), tags(2, 2));
        scattered.memory().at(TO + 4096, 8).to_vec()
    };
    let new: &[u8] = b"\x07\x08\x03\x04\x05\x06";
    assert_eq!(field(DifDestination::empty()), [&guard, new].concat());
    assert_eq!(field(DifDestination::PASS_GUARD), [b"gd", new].concat());
    assert_eq!(
        field(DifDestination::PASS_APPLICATION)[2..],
        *b"\0\x02\x03\x04\x05\x06"
    );
    assert_eq!(
        field(DifDestination::PASS_REFERENCE)[2..],
        *b"\x07\x08\0\0\0\x01"
    );
}

/// A fault in the midst of a block leaves the blocks before it, and the tags to go on with.
#[test]
fn a_fault_leaves_whole_blocks_and_the_next_tags() {
    let host = Host::new();
    let mut missing = [false; 32];
    missing[1] = true;
    let mut scattered = Scattered::new(&host, &missing);
    let mut fields = DifFields {
        destination: tags(0x10, 0x20),
        ..DifFields::of(DifBlock::Of512)
    };
    let insert = Descriptor::dif_insert(FROM + 0xb00, TO, 0x600, fields);
    let record = scattered.run(insert);
    assert_eq!(record.status(), Status::PAGE_FAULT);
    assert_eq!(
        (record.bytes_completed, record.fault_address),
        (0x400, FROM + 0x1000)
    );
    assert_eq!(record.destination_tags(), tags(0x12, 0x20));
    fields.source = tags(0x10, 0x20);
    let update = Descriptor::dif_update(TO, FROM + 0xe00, 520 * 2, fields);
    let record = scattered.run(update);
    assert_eq!(record.status(), Status::PAGE_FAULT.with_write());
    assert_eq!(
        (record.bytes_completed, record.fault_address),
        (0, FROM + 0x1000)
    );
    assert_eq!(record.source_tags(), tags(0x10, 0x20));
}
