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
