//! Layouts against numbers as the registers' users have them.

use super::*;
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn capabilities_have_their_bits() {
    let general = GeneralCapability::new()
        .with_block_on_fault(true)
        .with_command_capability(true)
        .with_max_transfer_shift(31)
        .with_max_batch_shift(10)
        .with_configurable(true);
    assert_eq!(general.into_bits(), 0x815f_0011);
    let queues = QueueCapability::new()
        .with_total_size(128)
        .with_queues(8)
        .with_shared_mode(true)
        .with_dedicated_mode(true)
        .with_priority(true);
    assert_eq!(queues.into_bits(), 0x000b_0000_0008_0080);
    let offsets = TableOffsets::new()
        .with_groups(4)
        .with_queues(5)
        .with_interrupt_permissions(6);
    assert_eq!(offsets.into_bits(), 0x0006_0005_0004);
}

#[test]
fn operations_are_bits() {
    let set = OperationCapability::of(&[Opcode::NO_OP, Opcode::MEMORY_MOVE, Opcode(0x41)]);
    assert_eq!(set.0, [0b1001, 0b10, 0, 0]);
    assert!(set.contains(Opcode::MEMORY_MOVE));
    assert!(!set.contains(Opcode(0xff)));
}

#[test]
fn a_command_names_its_queues() {
    let enable = Command::for_queue(Command::ENABLE_QUEUE, 17).with_interrupt(true);
    assert_eq!(enable.into_bits(), 0x8060_0011);
    let disable = Command::for_queue(Command::DISABLE_QUEUES, 17);
    assert_eq!(disable.into_bits(), 0x0071_0002);
    assert_eq!(disable.queues().collect::<Vec<_>>(), [17]);
    let status = CommandStatus::from_bits(0x8000_0121);
    assert!(status.active());
    assert_eq!(status.error(), CommandError::QUEUE_ENABLED);
    assert_eq!(status.result(), 1);
}

#[test]
fn a_queues_mode_word_holds_its_pasid() {
    let mode = QueueMode::new()
        .with_dedicated(true)
        .with_block_on_fault(true)
        .with_priority(10)
        .with_pasid(0xabcde)
        .with_pasid_enable(true);
    assert_eq!(mode.into_bits(), 0x1abc_dea3);
    assert_eq!(QueueState::new().with_enabled(true).into_bits(), 1 << 30);
    assert_eq!(
        InterruptPermission::from_bits(0xabcd_e008),
        InterruptPermission::new()
            .with_pasid(0xabcde)
            .with_pasid_enable(true)
    );
}

#[test]
fn a_descriptor_is_64_bytes_in_order() {
    let descriptor = Descriptor::memory_move(0x1111, 0x2222, 0x3333)
        .with_record(0x4440)
        .with_flags(Flags::BLOCK_ON_FAULT)
        .with_pasid(0x55555);
    let bytes = descriptor.as_bytes();
    assert_eq!(bytes[..8], [0x55, 0x55, 0x05, 0, 0x0e, 0, 0, 3]);
    assert_eq!(bytes[8..16], 0x4440_u64.to_le_bytes());
    assert_eq!(bytes[16..24], 0x1111_u64.to_le_bytes());
    assert_eq!(bytes[24..32], 0x2222_u64.to_le_bytes());
    assert_eq!(bytes[32..36], 0x3333_u32.to_le_bytes());
    assert_eq!(Descriptor::read_from_bytes(bytes).unwrap(), descriptor);
    assert_eq!(descriptor.opcode(), Opcode::MEMORY_MOVE);
}

#[test]
fn a_software_error_survives_its_register() {
    let error = SoftwareError {
        code: Status::RECORD_FAULT.into(),
        queue: Some(3),
        operation: Some(Opcode::MEMORY_MOVE),
        pasid: 0xabcde,
        batch_index: Some(7),
        invalid_flags: 0x40,
        fault_address: 0xdead_b000,
        write: true,
        privileged: false,
    };
    let register = error.encode();
    assert_eq!(register[0], 0x0abc_de03_0003_1a3d);
    assert_eq!(SoftwareError::decode(register), Some(error));
    assert_eq!(SoftwareError::decode([0; 4]), None);
}

#[test]
fn portals_are_four_pages_for_each_queue() {
    assert_eq!(portal_offset(0, Portal::Unlimited), 0);
    assert_eq!(portal_offset(2, Portal::Limited), 0x9000);
}

/// The offsets are those of `dsa_hw_desc` in Linux's uapi header.
#[test]
fn what_is_specific_to_an_operation_stands_at_its_offset() {
    let source = DifTags {
        reference: 0x1111_2222,
        application_mask: 0x3333,
        application: 0x4444,
    };
    let destination = DifTags {
        reference: 0x5555_6666,
        application_mask: 0x7777,
        application: 0x8888,
    };
    let fields = DifFields {
        source_flags: 0xaa,
        destination_flags: 0xbb,
        source,
        destination,
        ..DifFields::of(DifBlock::Of4096)
    };
    let update = Descriptor::dif_update(1, 2, 3, fields);
    let bytes = update.as_bytes();
    assert_eq!(bytes[40..48], [0xaa, 0xbb, 2, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[48..52], 0x1111_2222_u32.to_le_bytes());
    assert_eq!(bytes[52..56], [0x33, 0x33, 0x44, 0x44]);
    assert_eq!(bytes[56..60], 0x5555_6666_u32.to_le_bytes());
    assert_eq!(bytes[60..64], [0x77, 0x77, 0x88, 0x88]);
    assert_eq!(update.dif_fields(), fields);

    let delta = CreateDelta {
        record: 0x1_2345,
        max_bytes: 80,
        expected: 0b010,
        ..CreateDelta::default()
    };
    let create = Descriptor::create_delta(1, 2, 8, delta);
    let bytes = create.as_bytes();
    assert_eq!(bytes[40..48], 0x1_2345_u64.to_le_bytes());
    assert_eq!(bytes[48..57], [80, 0, 0, 0, 0, 0, 0, 0, 2]);

    let crc = Descriptor::crc(1, 2).with_crc_seed(0x1234_5678);
    assert_eq!(crc.as_bytes()[40..44], 0x1234_5678_u32.to_le_bytes());
    let crc = Descriptor::crc(1, 2).with_crc_seed_at(0x9_8760);
    assert_eq!(crc.as_bytes()[4..8], [0, 0, 1, 0x10]);
    assert_eq!(crc.as_bytes()[48..56], 0x9_8760_u64.to_le_bytes());
    let dualcast = Descriptor::dualcast(1, 2, 0x3_0002, 4);
    assert_eq!(dualcast.as_bytes()[40..48], 0x3_0002_u64.to_le_bytes());
    let apply = Descriptor::apply_delta(1, 90, 2, 8);
    assert_eq!(apply.as_bytes()[40..44], [90, 0, 0, 0]);
    let pattern = 0x1111_2222_3333_4444_5555_6666_7777_8888;
    let fill = Descriptor::memory_fill_wide(pattern, 2, 4);
    assert_eq!(fill.as_bytes()[4..8], [0, 0, 4, 4]);
    assert_eq!(
        fill.as_bytes()[16..24],
        0x5555_6666_7777_8888_u64.to_le_bytes()
    );
    assert_eq!(
        fill.as_bytes()[40..48],
        0x1111_2222_3333_4444_u64.to_le_bytes()
    );
}

/// The offsets are those of `dsa_completion_record`.
#[test]
fn a_record_says_at_its_offset_what_is_specific_to_its_operation() {
    let bytes: Vec<u8> = (0..32).collect();
    let record = CompletionRecord::read_from_bytes(&bytes).unwrap();
    assert_eq!((record.status, record.result), (0, 1));
    assert_eq!(record.bytes_completed, 0x0706_0504);
    assert_eq!(record.fault_address, 0x0f0e_0d0c_0b0a_0908);
    assert_eq!(record.invalid_flags(), 0x12_1110);
    assert_eq!(
        (record.crc(), record.delta_bytes()),
        (0x1312_1110, 0x1312_1110)
    );
    let source = DifTags {
        reference: 0x1312_1110,
        application_mask: 0x1514,
        application: 0x1716,
    };
    let destination = DifTags {
        reference: 0x1b1a_1918,
        application_mask: 0x1d1c,
        application: 0x1f1e,
    };
    assert_eq!(record.source_tags(), source);
    assert_eq!(record.destination_tags(), destination);
}

#[test]
fn an_integrity_field_has_its_highest_bytes_first() {
    let dif = Dif {
        guard: 0x0102,
        application: 0x0304,
        reference: 0x0506_0708,
    };
    assert_eq!(dif.to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(Dif::from_bytes(dif.to_bytes()), dif);
    let sizes = DifBlock::ALL.map(|block| (block.bytes(), block.bytes_with_field()));
    assert_eq!(sizes, [(512, 520), (520, 528), (4096, 4104), (4104, 4112)]);
}
