//! The commands of a slice, each with every error that `COMMANDS` says it may end with.

use std::collections::BTreeSet;

use palisade_dsa::spec::{
    Command, CommandCode, CommandError, Descriptor, GroupFlags, QueueLimits, QueueMode, Status,
    table,
};

use super::rig::{Driver, ENGINES, GROUPS, Host, QUEUES, SLOT, dedicated, run};
use crate::SliceType::{DedicatedQueue, SharedQueue};
use crate::{COMMANDS, Operand, SliceType};

const RECORD: u64 = 0x8_0000;
const SECOND_GROUP: u64 = table::GRPCFG_BYTES;

/// What is done to a driver before a command, from a device that is configured and not enabled.
type Before<'a> = &'a dyn Fn(&Driver);

fn done(driver: &Driver, code: CommandCode, operand: u32) {
    assert_eq!(driver.command(code, operand), CommandError::SUCCESS);
}

fn up(driver: &Driver) {
    done(driver, Command::ENABLE_DEVICE, 0);
}

/// How a command ends on a slice of its own.
fn ends(kind: SliceType, before: Before<'_>, code: CommandCode, operand: u32) -> CommandError {
    let host = Host::new();
    let alice = host.tenant(1);
    let slice = host.slice(1, kind);
    let assigned = slice
        .assign(&alice.container, SLOT, alice.guest.clone())
        .unwrap();
    let driver = Driver::configured(&assigned);
    before(&driver);
    driver.command(code, operand)
}

/// Every command with everything that is wrong with it.
fn cases() -> Vec<(CommandCode, CommandError, CommandError)> {
    let mut found = Vec::new();
    let mut case = |code, error, operand, before: Before<'_>| {
        found.push((code, error, ends(DedicatedQueue, before, code, operand)));
    };
    let mode = |mode: QueueMode| {
        move |driver: &Driver| {
            up(driver);
            driver.write(QUEUES + table::WQCFG_MODE, mode.into_bits());
        }
    };
    let none = |_: &Driver| ();
    use CommandError as E;

    let enable = Command::ENABLE_DEVICE;
    case(enable, E::DEVICE_ENABLED, 0, &up);
    case(enable, E::BUS_MASTER_OFF, 0, &|d| {
        d.function.config_write(4, &[0; 2]);
    });
    case(enable, E::QUEUE_SIZES, 0, &|d| d.write(QUEUES, 1025));
    case(enable, E::GROUP_QUEUES, 0, &|d| d.write(GROUPS, 0));
    case(enable, E::GROUP_ENGINES, 0, &|d| {
        d.write(ENGINES + SECOND_GROUP, 1);
    });
    case(enable, E::GROUP_WITHOUT_ENGINE, 0, &|d| d.write(ENGINES, 0));
    let flags = GroupFlags::new().with_read_buffers_reserved(97);
    case(enable, E::GROUP_READ_BUFFERS, 0, &|d| {
        d.write(GROUPS + table::GRPCFG_FLAGS, flags.into_bits());
    });
    case(Command::DISABLE_DEVICE, E::DISABLE_DISABLED, 0, &none);
    for code in [Command::DRAIN_ALL, Command::ABORT_ALL] {
        case(code, E::QUEUES_OF_DISABLED, 0, &none);
    }
    for code in [
        Command::DISABLE_QUEUES,
        Command::DRAIN_QUEUES,
        Command::ABORT_QUEUES,
        Command::RESET_QUEUES,
    ] {
        case(code, E::QUEUES_OF_DISABLED, 1, &none);
        case(code, E::INVALID_QUEUE, 0b10, &up);
        case(code, E::INVALID_QUEUE, 1 << 16 | 1, &up);
    }

    let enable = Command::ENABLE_QUEUE;
    case(enable, E::DEVICE_DISABLED, 0, &none);
    case(enable, E::INVALID_QUEUE, 1, &up);
    // Nobody gave the guest a PASID.
    case(enable, E::PASID_INVALID, 0, &mode(dedicated(1)));
    case(enable, E::QUEUE_ENABLED, 0, &|d| {
        mode(dedicated(0).with_pasid_enable(false))(d);
        done(d, enable, 0);
    });
    case(enable, E::QUEUE_SIZE, 0, &|d| {
        d.write(QUEUES, 0);
        up(d);
    });
    case(
        enable,
        E::QUEUE_PRIORITY,
        0,
        &mode(dedicated(0).with_priority(0)),
    );
    let shared = dedicated(0).with_dedicated(false);
    case(enable, E::QUEUE_MODE, 0, &|d| {
        d.write(QUEUES + table::WQCFG_THRESHOLD, 65);
        mode(shared)(d);
    });
    case(
        enable,
        E::PASID_ENABLE,
        0,
        &mode(shared.with_pasid_enable(false)),
    );
    case(enable, E::PASID_ENABLE, 0, &|d| {
        d.set_pasid_capability(0);
        mode(dedicated(1))(d);
    });
    case(
        enable,
        E::PASID_ENABLE,
        0,
        &mode(dedicated(1).with_privileged(true)),
    );
    case(enable, E::MAX_BATCH, 0, &|d| {
        let limits = QueueLimits::new().with_max_batch_shift(11);
        d.write(QUEUES + table::WQCFG_LIMITS, limits.into_bits());
        up(d);
    });
    for code in [Command::DRAIN_PASID, Command::ABORT_PASID] {
        case(code, E::PASID_INVALID, 1, &up);
    }
    found
}

#[test]
fn r69_each_command_ends_with_the_errors_that_the_map_names() {
    let mut shown = BTreeSet::new();
    for (code, error, found) in cases() {
        assert_eq!(found, error, "{code:?}");
        shown.insert((code, error));
    }
    let named = COMMANDS
        .iter()
        .flat_map(|rule| rule.errors.iter().map(|error| (rule.code, *error)));
    assert_eq!(shown, named.collect());
}

#[test]
fn r69_a_slice_of_a_shared_queue_is_never_a_dedicated_one() {
    let before = |driver: &Driver| {
        up(driver);
        driver.write(QUEUES + table::WQCFG_MODE, dedicated(0).into_bits());
    };
    let error = ends(SharedQueue, &before, Command::ENABLE_QUEUE, 0);
    assert_eq!(error, CommandError::QUEUE_MODE);
}

#[test]
fn r69_a_slice_refuses_all_commands_that_the_map_does_not_name() {
    for code in (0..32).map(CommandCode) {
        if COMMANDS.iter().any(|rule| rule.code == code) {
            continue;
        }
        for before in [&(|_: &Driver| ()) as Before<'_>, &up] {
            let error = ends(DedicatedQueue, before, code, 0);
            assert_eq!(error, CommandError::INVALID_COMMAND, "{code:?}");
        }
    }
}

#[test]
fn r69_a_halted_slice_refuses_all_commands() {
    let halted = |driver: &Driver| {
        up(driver);
        driver.function.config_write(4, &[0; 2]);
        driver.function.config_write(4, &6_u16.to_le_bytes());
    };
    for code in (0..32).map(CommandCode) {
        let error = ends(DedicatedQueue, &halted, code, 1);
        assert_eq!(error, CommandError::HARDWARE, "{code:?}");
    }
}

/// On one that shares its queue with another: what the other queued is done in the end.
#[test]
fn r69_each_command_succeeds_and_is_about_its_own_slice() {
    let host = Host::new();
    let (alice, _alices, alices) = host.with_slice(1, SharedQueue);
    let (bob, _bobs, bobs) = host.with_slice(2, SharedQueue);
    for (tenant, driver) in [(&alice, &alices), (&bob, &bobs)] {
        tenant.process(5).map(RECORD, RECORD, 1);
        done(driver, Command::DISABLE_DEVICE, 0);
    }
    let shared = dedicated(0).with_dedicated(false);
    for rule in COMMANDS {
        done(&bobs, Command::ENABLE_DEVICE, 0);
        assert_eq!(bobs.enable(shared), CommandError::SUCCESS);
        bobs.submit(&Descriptor::no_op().with_pasid(5).with_record(RECORD));
        // Alice's is up but for what the command is to do.
        if rule.code != Command::ENABLE_DEVICE {
            done(&alices, Command::ENABLE_DEVICE, 0);
            alices.write(QUEUES + table::WQCFG_MODE, shared.into_bits());
        }
        if ![Command::ENABLE_DEVICE, Command::ENABLE_QUEUE].contains(&rule.code) {
            done(&alices, Command::ENABLE_QUEUE, 0);
        }
        let operand = match rule.operand {
            Operand::None | Operand::Queue => 0,
            Operand::Queues => 1,
            Operand::Pasid => 5,
        };
        done(&alices, rule.code, operand);
        run(&mut host.parent.engine());
        assert_eq!(
            bob.record(RECORD).status(),
            Status::SUCCESS,
            "{}",
            rule.name
        );
        assert_eq!(alice.record(RECORD).status(), Status::NONE);
        done(&bobs, Command::DISABLE_DEVICE, 0);
        done(&alices, Command::RESET_DEVICE, 0);
        alices.configure();
    }
}
