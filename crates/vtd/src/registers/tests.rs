use palisade_units::{Access, Bdf, Iova};
use proptest::prelude::*;

use super::*;
use crate::spec::event::EventControl;
use crate::spec::fault::{FaultCode, FaultRecord, RequestKind};
use crate::unit::VcmdLayout;

fn registers() -> Registers {
    Registers::new(UnitConfig {
        vcmd: VcmdLayout::Current,
        ..UnitConfig::default()
    })
}

fn write32(registers: &mut Registers, offset: u64, value: u32) -> Vec<Effect> {
    registers.write(offset, &value.to_le_bytes())
}

fn write64(registers: &mut Registers, offset: u64, value: u64) -> Vec<Effect> {
    registers.write(offset, &value.to_le_bytes())
}

fn read32(registers: &Registers, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    registers.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn fault(page: u64) -> FaultRecord {
    FaultRecord::new(
        Bdf::new(0, 0x10, 0),
        None,
        Iova::new(page << 12),
        Access::WRITE,
        RequestKind::Write,
        FaultCode::new(0x59),
    )
}

fn unmask(registers: &mut Registers, control: u64) {
    write32(registers, control + 4, 0x77);
    write32(registers, control + 8, 0xfee0_0000);
    write32(registers, control + 12, 0x1);
    assert_eq!(write32(registers, control, 0), []);
}

const MESSAGE: Message = Message {
    address: 0x1_fee0_0000,
    data: 0x77,
};

#[test]
fn every_register_takes_exactly_the_bits_that_its_class_says() {
    for register in REGISTERS {
        let mut registers = registers();
        let ones = u64::MAX.to_le_bytes();
        let len = usize::try_from(register.width.bytes()).unwrap();
        registers.write(register.offset, &ones[..len]);
        let value = registers.get(register.offset, register.width);
        let mut expected = (register.reset & !register.clear_on_one) | register.writable;
        if register.offset == reg::ECAP {
            expected |= 1 << 44;
        }
        assert_eq!(value, expected, "{}", register.name);
    }
}

#[test]
fn a_quadword_may_be_written_by_halves() {
    let mut registers = registers();
    write32(&mut registers, reg::RTADDR, 0x1234_5400);
    write32(&mut registers, reg::RTADDR + 4, 0x7);
    assert_eq!(registers.qword(reg::RTADDR), 0x7_1234_5400);
    // The tail moves with its lower half, whatever the upper one.
    assert_eq!(
        write32(&mut registers, reg::IQT, 0x40),
        [Effect::QueueMoved]
    );
    assert_eq!(registers.queue_tail(), 0x40);
}

#[test]
fn one_write_may_cover_many_registers() {
    let mut registers = registers();
    let block: Vec<u8> = [0x77_u32, 0xfee0_0000, 0x1]
        .iter()
        .flat_map(|dword| dword.to_le_bytes())
        .collect();
    registers.write(reg::PEDATA, &block);
    assert_eq!(read32(&registers, reg::PEDATA), 0x77);
    assert_eq!(read32(&registers, reg::PEADDR), 0xfee0_0000);
    assert_eq!(read32(&registers, reg::PEUADDR), 0x1);
}

#[test]
fn what_holds_no_register_reads_as_zero_and_takes_nothing() {
    let mut registers = registers();
    for offset in [
        0x04, // after VER
        0x30, // between CCMD and FSTS
        0x48, 0x58, 0x5c, // advanced fault log, protected memory regions follow
        0x64, 0x68, 0x6c, 0x70, 0x78, // PMEN, PLMBASE, PLMLIMIT, PHMBASE, PHMLIMIT
        0x98, 0xb8, 0xbc, 0xd8, // IRTA
        0x100, 0x108, 0x110, 0x180, // MTRR
        0x300, 0x310, 0x31c, // performance monitoring
        0x400, 0x408, 0x410, 0x430, // ECMD, ECEO, ECRSP, ECCAP
        0xe08, 0xe18, // extended operand and response of virtual commands
        0x2000, 0x3ffc, // behind the fault records
    ] {
        write32(&mut registers, offset, u32::MAX);
        assert_eq!(read32(&registers, offset), 0, "{offset:#x}");
    }
}

#[test]
fn r60_the_first_fault_interrupts_and_the_next_ones_do_not() {
    let mut registers = registers();
    unmask(&mut registers, reg::FECTL);
    assert_eq!(registers.record(fault(1)), Some(MESSAGE));
    assert_eq!(registers.record(fault(2)), None);
    assert_eq!(read32(&registers, reg::FSTS), 0x2, "PPF, first record 0");
    // Both are taken; the next one interrupts again, and FRI says where it is.
    for record in 0..2 {
        write32(
            &mut registers,
            reg::FAULT_RECORDS + record * 16 + 12,
            1 << 31,
        );
    }
    assert_eq!(read32(&registers, reg::FSTS) & 0x2, 0);
    assert_eq!(registers.record(fault(3)), Some(MESSAGE));
    assert_eq!(read32(&registers, reg::FSTS), 0x202);
}

#[test]
fn r60_a_record_is_cleared_by_a_one_in_its_flag_alone() {
    let mut registers = registers();
    registers.record(fault(5));
    let at = reg::FAULT_RECORDS;
    write32(&mut registers, at + 12, 0x7fff_ffff);
    assert_eq!(read32(&registers, at + 12) >> 31, 1, "a zero keeps it");
    write32(&mut registers, at, 0);
    assert_eq!(read32(&registers, at), 5 << 12, "the rest is read-only");
    write32(&mut registers, at + 12, 1 << 31);
    assert_eq!(read32(&registers, at + 12) >> 31, 0);
    assert_eq!(
        read32(&registers, at + 12) & 0xff,
        0x59,
        "what it said stays"
    );
}

#[test]
fn r60_a_fault_that_finds_no_free_record_is_an_overflow() {
    let mut registers = registers();
    for page in 0..256 {
        registers.record(fault(page));
    }
    assert_eq!(read32(&registers, reg::FSTS) & 1, 0);
    registers.record(fault(256));
    assert_eq!(read32(&registers, reg::FSTS) & 1, 1);
    assert_eq!(
        read32(&registers, reg::FAULT_RECORDS),
        0,
        "the first one stands"
    );
    // Room alone is not enough: software clears the overflow too.
    write32(&mut registers, reg::FAULT_RECORDS + 12, 1 << 31);
    registers.record(fault(257));
    assert_eq!(read32(&registers, reg::FAULT_RECORDS), 0);
    write32(&mut registers, reg::FSTS, 1);
    registers.record(fault(258));
    assert_eq!(read32(&registers, reg::FAULT_RECORDS), 258 << 12);
}

#[test]
fn r60_the_whole_block_is_read_and_cleared_in_one_access() {
    let mut registers = registers();
    for page in 0..256 {
        registers.record(fault(page));
    }
    let mut block = vec![0; 4096];
    registers.read(reg::FAULT_RECORDS, &mut block);
    for (page, record) in (0_u64..).zip(block.chunks_exact(16)) {
        assert_eq!(record[..8], (page << 12).to_le_bytes());
        assert_eq!(record[15] >> 7, 1);
    }
    registers.write(reg::FAULT_RECORDS, &block);
    assert_eq!(read32(&registers, reg::FSTS) & 0x2, 0);
    registers.read(reg::FAULT_RECORDS, &mut block);
    assert!(block.chunks_exact(16).all(|record| record[15] >> 7 == 0));
}

#[test]
fn a_masked_event_is_pending_until_it_is_unmasked() {
    let mut registers = registers();
    unmask(&mut registers, reg::FECTL);
    write32(&mut registers, reg::FECTL, 1 << 31);
    assert_eq!(registers.record(fault(1)), None);
    let control = EventControl::from_bits(read32(&registers, reg::FECTL));
    assert!(control.masked() && control.pending());
    assert_eq!(
        write32(&mut registers, reg::FECTL, 0),
        [Effect::Send(MESSAGE)]
    );
    assert_eq!(read32(&registers, reg::FECTL), 0);
}

#[test]
fn a_pending_event_goes_when_software_has_dealt_with_it() {
    let mut registers = registers();
    registers.record(fault(1));
    assert_eq!(read32(&registers, reg::FECTL), 3 << 30);
    write32(&mut registers, reg::FAULT_RECORDS + 12, 1 << 31);
    assert_eq!(read32(&registers, reg::FECTL), 1 << 31);
    assert_eq!(write32(&mut registers, reg::FECTL, 0), []);
}

#[test]
fn a_wait_interrupts_once_until_its_status_is_cleared() {
    let mut registers = registers();
    unmask(&mut registers, reg::IECTL);
    assert_eq!(registers.complete_wait(), Some(MESSAGE));
    assert_eq!(registers.complete_wait(), None);
    write32(&mut registers, reg::ICS, 1);
    assert_eq!(read32(&registers, reg::ICS), 0);
    assert_eq!(registers.complete_wait(), Some(MESSAGE));
}

#[test]
fn clearing_a_queue_error_lets_the_queue_go_on() {
    let mut registers = registers();
    unmask(&mut registers, reg::FECTL);
    assert_eq!(
        registers.stop_queue(QueueError::DescriptorType),
        Some(MESSAGE)
    );
    assert_eq!(read32(&registers, reg::IQER), 3);
    assert_eq!(write32(&mut registers, reg::FSTS, 1), []);
    assert_eq!(
        write32(&mut registers, reg::FSTS, 1 << 4),
        [Effect::QueueMoved]
    );
    assert_eq!(read32(&registers, reg::FSTS), 0);
}

#[test]
fn r55_the_response_and_capability_registers_are_read_only() {
    for vcmd in [VcmdLayout::Current, VcmdLayout::Older] {
        let layout = vcmd.layout().unwrap();
        let mut registers = Registers::new(UnitConfig {
            vcmd,
            ..UnitConfig::default()
        });
        for offset in [layout.response_offset(), layout.capability_offset()] {
            let before = registers.qword(offset);
            assert_eq!(write64(&mut registers, offset, u64::MAX), []);
            assert_eq!(registers.qword(offset), before, "{offset:#x}");
        }
        assert_eq!(registers.qword(layout.capability_offset()) & 1, 1, "PAS");
        assert_eq!(registers.qword(reg::ECAP) >> 44 & 1, 1, "VCS");
    }
}

#[test]
fn r55_without_virtual_commands_their_registers_are_not_there() {
    let mut registers = Registers::new(UnitConfig::default());
    assert_eq!(registers.qword(reg::ECAP) >> 44 & 1, 0, "VCS");
    for offset in reg::VIRTUAL_COMMANDS.step_by(8) {
        assert_eq!(write64(&mut registers, offset, 1), []);
        assert_eq!(registers.qword(offset), 0, "{offset:#x}");
    }
}

#[test]
fn r55_a_write_while_a_response_is_pending_is_ignored() {
    for vcmd in [VcmdLayout::Current, VcmdLayout::Older] {
        let layout = vcmd.layout().unwrap();
        let mut registers = Registers::new(UnitConfig {
            vcmd,
            ..UnitConfig::default()
        });
        let allocate = layout.encode_command(VirtualCommand::AllocatePasid);
        assert_eq!(
            write64(&mut registers, layout.command_offset(), allocate),
            [Effect::VirtualCommand(VirtualCommand::AllocatePasid)]
        );
        assert_eq!(registers.qword(layout.response_offset()), 1, "IP");
        assert_eq!(
            write64(&mut registers, layout.command_offset(), 2),
            [],
            "no second command"
        );
        assert_eq!(registers.qword(layout.command_offset()), allocate);
        registers.respond(VirtualResponse::NoPasid);
        assert_eq!(registers.qword(layout.response_offset()) & 1, 0);
        assert_eq!(
            write64(&mut registers, layout.command_offset(), allocate).len(),
            1
        );
    }
}

#[test]
fn r55_by_halves_the_lower_one_starts_the_command() {
    let mut registers = registers();
    let pasid = palisade_units::GuestPasid::new(0xabcde).unwrap();
    let command = VirtualCommand::FreePasid(pasid);
    let [low, high] = [0xbcde_0002, 0xa];
    assert_eq!(write32(&mut registers, 0xe04, high), []);
    assert_eq!(
        write32(&mut registers, 0xe00, low),
        [Effect::VirtualCommand(command)]
    );
}

proptest! {
    /// The byte that an access reads does not depend on how wide the access is.
    #[test]
    fn reads_of_any_width_agree(
        writes in proptest::collection::vec((0_u64..0x1100, any::<u64>()), 0..40),
        offset in 0_u64..0x3000,
        len in 1_usize..200,
    ) {
        let mut registers = registers();
        for (offset, value) in writes {
            registers.write(offset & !3, &value.to_le_bytes());
        }
        let mut block = vec![0; len];
        registers.read(offset, &mut block);
        for (at, byte) in (offset..).zip(block) {
            let mut single = [0];
            registers.read(at, &mut single);
            prop_assert_eq!(single[0], byte);
        }
    }

    /// PPF is the logical OR of the flags, whatever is recorded and cleared.
    #[test]
    fn r60_pending_follows_the_records(
        steps in proptest::collection::vec(prop_oneof![
            3 => Just(None),
            1 => (0_u64..256).prop_map(Some),
        ], 0..600),
    ) {
        let mut registers = registers();
        for (page, step) in (0_u64..).zip(steps) {
            match step {
                None => {
                    registers.record(fault(page));
                }
                Some(record) => {
                    write32(&mut registers, reg::FAULT_RECORDS + record * 16 + 12, 1 << 31);
                }
            }
            let mut block = vec![0; 4096];
            registers.read(reg::FAULT_RECORDS, &mut block);
            let any = block.chunks_exact(16).any(|record| record[15] >> 7 == 1);
            prop_assert_eq!(read32(&registers, reg::FSTS) >> 1 & 1 == 1, any);
        }
    }
}
