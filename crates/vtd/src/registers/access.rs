//! How wide an access is changes nothing, and each bit that a one clears goes alone.

use proptest::prelude::*;

use super::*;
use crate::spec::command::Granularity;
use crate::spec::fault::{FaultCode, FaultRecord, RequestKind};
use crate::unit::VcmdLayout;

fn write32(registers: &mut Registers, offset: u64, value: u32) -> Vec<Effect> {
    registers.write(offset, &value.to_le_bytes())
}

fn dword(registers: &Registers, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    registers.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn everything(registers: &Registers) -> Vec<u8> {
    let mut bytes = vec![0; 0x2100];
    registers.read(0, &mut bytes);
    bytes
}

fn a_fault() -> FaultRecord {
    FaultRecord::new(
        palisade_units::Bdf::new(0, 0x10, 0),
        None,
        palisade_units::Iova::new(0x5000),
        palisade_units::Access::READ,
        RequestKind::Read,
        FaultCode::new(0x59),
    )
}

/// Registers after some writes, some faults and every status that software clears.
fn used(writes: &[(u64, u64)], faults: usize) -> Registers {
    let mut registers = Registers::new(UnitConfig::default());
    for (offset, value) in writes {
        registers.write(*offset, &value.to_le_bytes());
    }
    for _ in 0..faults {
        registers.record(a_fault());
    }
    registers.raise_fault_event(FaultStatus::QUEUE_ERROR | FaultStatus::COMPLETION_ERROR);
    registers.raise_fault_event(FaultStatus::TIME_OUT);
    registers.complete_wait();
    registers
}

fn a_quadword() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => proptest::sample::select(REGISTERS).prop_map(|register| register.offset & !7),
        1 => (0_u64..0x200).prop_map(|index| index * 8),
        1 => (0x200_u64..0x420).prop_map(|index| index * 8),
    ]
}

proptest! {
    /// One access of 64 bits is the lower half, then the upper one (VT-d §11.2). The tail of the queue is
    /// looked at with each access to it, which is once more than needed.
    #[test]
    fn a_quadword_is_its_lower_half_then_its_upper_half(
        before in proptest::collection::vec((a_quadword(), any::<u64>()), 0..20),
        faults in 0_usize..300,
        offset in a_quadword(),
        value in any::<u64>(),
    ) {
        let (mut whole, mut halves) = (used(&before, faults), used(&before, faults));
        let [bytes @ .., _, _, _, _] = value.to_le_bytes();
        let [_, _, _, _, upper @ ..] = value.to_le_bytes();
        let mut at_once = whole.write(offset, &value.to_le_bytes());
        let mut one_by_one = halves.write(offset, &bytes);
        one_by_one.extend(halves.write(offset + 4, &upper));
        prop_assert_eq!(everything(&whole), everything(&halves), "{:#x}", offset);
        at_once.dedup();
        one_by_one.dedup();
        prop_assert_eq!(at_once, one_by_one);
    }
}

#[test]
fn the_tail_moves_with_either_half() {
    let mut registers = Registers::new(UnitConfig::default());
    write32(&mut registers, reg::IQT, 0x7_ffff);
    assert_eq!(registers.queue_tail(), 0x7_fff0);
    let moved = write32(&mut registers, reg::IQT + 4, u32::MAX);
    assert_eq!(moved, [Effect::QueueMoved]);
    assert_eq!(registers.queue_tail(), 0x7_fff0, "no bit of it is there");
}

#[test]
fn a_command_starts_with_the_half_that_has_its_bit() {
    for (register, low, high) in [
        (reg::CCMD, 0x0080_0005, 1 << 31 | 3 << 29),
        (reg::IOTLB, 0, 1 << 31 | 1 << 28 | 0x5),
    ] {
        let mut registers = Registers::new(UnitConfig::default());
        assert_eq!(write32(&mut registers, register, low), []);
        let started = write32(&mut registers, register + 4, high);
        match started.as_slice() {
            [Effect::ContextCommand(command)] => {
                assert_eq!(command.domain(), crate::spec::DomainId::new(5));
                assert_eq!(command.source().requester_id(), 0x80);
                assert_eq!(command.requested(), Granularity::Selective);
            }
            [Effect::IotlbCommand(command)] => {
                assert_eq!(command.domain(), crate::spec::DomainId::new(5));
                assert_eq!(command.requested(), Granularity::Global);
            }
            other => panic!("{other:?}"),
        }
        // Without its bit it starts nothing.
        assert_eq!(write32(&mut registers, register + 4, high & !(1 << 31)), []);
    }
}

/// PFO, IQE, ICE and ITE: each is cleared by its own one, and what is zero stays. PPF is the records' and
/// cannot be cleared here.
#[test]
fn each_fault_status_is_cleared_alone() {
    let bits = [
        FaultStatus::OVERFLOW,
        FaultStatus::QUEUE_ERROR,
        FaultStatus::COMPLETION_ERROR,
        FaultStatus::TIME_OUT,
    ];
    let all = bits.into_iter().collect::<FaultStatus>() | FaultStatus::PENDING;
    for bit in bits {
        let mut registers = used(&[], 257);
        assert_eq!(registers.fault_status(), all);
        write32(&mut registers, reg::FSTS, 0);
        assert_eq!(registers.fault_status(), all, "zeros clear nothing");
        let effects = write32(&mut registers, reg::FSTS, bit.bits());
        assert_eq!(registers.fault_status(), all - bit);
        let goes_on = FaultStatus::STOPS_THE_QUEUE.contains(bit);
        assert_eq!(effects.contains(&Effect::QueueMoved), goes_on, "{bit:?}");
        write32(&mut registers, reg::FSTS, u32::MAX);
        assert_eq!(registers.fault_status(), FaultStatus::PENDING);
    }
}

/// The queue stands while either is set (VT-d §6.5.2.11); an answer that nobody asked for does not stop it.
#[test]
fn an_error_and_a_time_out_stop_the_queue() {
    for (status, runs) in [
        (FaultStatus::QUEUE_ERROR, false),
        (FaultStatus::TIME_OUT, false),
        (FaultStatus::COMPLETION_ERROR, true),
        (FaultStatus::OVERFLOW, true),
    ] {
        let mut registers = Registers::new(UnitConfig::default());
        registers.set_status(Command::QUEUED_INVALIDATION_ENABLE, Switch::On);
        registers.raise_fault_event(status);
        assert_eq!(registers.queue_runs(), runs, "{status:?}");
        write32(&mut registers, reg::FSTS, status.bits());
        assert!(registers.queue_runs());
    }
}

#[test]
fn the_record_of_a_queue_error_stays_until_the_next_one() {
    let mut registers = Registers::new(UnitConfig::default());
    registers.stop_queue(QueueError::ReservedField);
    write32(&mut registers, reg::FSTS, 1 << 4);
    assert_eq!(dword(&registers, reg::IQER), 4);
    write32(&mut registers, reg::IQER, u32::MAX);
    assert_eq!(dword(&registers, reg::IQER), 4, "read-only");
    registers.stop_queue(QueueError::InvalidTail);
    assert_eq!(dword(&registers, reg::IQER), 1);
}

#[test]
fn the_completion_event_waits_behind_its_mask_and_goes_with_its_status() {
    let mut registers = Registers::new(UnitConfig::default());
    write32(&mut registers, reg::IEDATA, 0x42);
    write32(&mut registers, reg::IEADDR, 0xfee0_2000);
    assert_eq!(registers.complete_wait(), None);
    assert_eq!(dword(&registers, reg::IECTL), 3 << 30, "masked, pending");
    let message = Message {
        address: 0xfee0_2000,
        data: 0x42,
    };
    assert_eq!(
        write32(&mut registers, reg::IECTL, 0),
        [Effect::Send(message)]
    );
    assert_eq!(dword(&registers, reg::IECTL), 0);
    // Again, but software sees the status first.
    write32(&mut registers, reg::IECTL, 1 << 31);
    write32(&mut registers, reg::ICS, 1);
    assert_eq!(registers.complete_wait(), None);
    write32(&mut registers, reg::ICS, 1);
    assert_eq!(dword(&registers, reg::IECTL), 1 << 31);
    assert_eq!(write32(&mut registers, reg::IECTL, 0), []);
}

#[test]
fn r55_the_virtual_command_registers_take_what_their_classes_say() {
    for vcmd in [VcmdLayout::Current, VcmdLayout::Older] {
        let layout = vcmd.layout().unwrap();
        for register in layout.registers() {
            let mut registers = Registers::new(UnitConfig {
                vcmd,
                ..UnitConfig::default()
            });
            assert_eq!(registers.qword(register.offset), register.reset);
            registers.write(register.offset, &u64::MAX.to_le_bytes());
            let value = registers.qword(register.offset);
            assert_eq!(
                value,
                register.reset | register.writable,
                "{}",
                register.name
            );
        }
    }
}
