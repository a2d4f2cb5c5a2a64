use palisade_iommu::PageResponse;

use super::{Driver, GROUPS, QUEUES, dedicated, shared};
use crate::spec::{
    Command, CommandCode, CommandError, CommandStatus, Descriptor, ErrorCode, Flags, GroupFlags,
    QueueConfig, Status, register, table,
};
use crate::testing::{Host, run};

const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
const RECORD: u64 = 0x8_0000;

/// Where the flags of the first group stand.
const FLAGS: u64 = GROUPS + table::GRPCFG_FLAGS;

fn read_buffers(reserved: u8, allowed: u8) -> u32 {
    let flags = GroupFlags::new().with_read_buffers_reserved(reserved);
    flags.with_read_buffers_allowed(allowed).into_bits()
}

/// All of them in use, and the limit for one group: the values read back, as Linux shows them in sysfs.
#[test]
fn r69_read_buffers_are_given_to_groups() {
    let host = Host::new();
    let driver = Driver::new(&host);
    let total = driver.read(register::GRPCAP) >> 8 & 0xff;
    assert_eq!(total, 96);
    let limited = read_buffers(60, 60)
        | GroupFlags::new()
            .with_use_read_buffer_limit(true)
            .into_bits();
    driver.write(register::GENCFG, total);
    driver.write(FLAGS, limited);
    driver.write(FLAGS + 64, read_buffers(36, 96));
    driver.set_up(&[dedicated(1)]);
    driver.enable(0);
    driver.write(FLAGS, 0);
    assert_eq!(driver.read(FLAGS), limited, "locked");
    assert_eq!(driver.read(FLAGS + 64), read_buffers(36, 96));
    assert_eq!(driver.read(register::GENCFG), total);
    host.process(1).map(RECORD, RECORD, 1);
    driver.submit(0, &Descriptor::no_op().with_record(RECORD));
    run(&mut host.engine());
    assert_eq!(Status(host.bytes(RECORD, 1)[0]), Status::SUCCESS);
}

type Spoil<'a> = &'a dyn Fn(&Driver);

/// Enable Device with something wrong.
fn refused_device(spoil: impl Fn(&Driver)) -> CommandError {
    let host = Host::new();
    let driver = Driver::new(&host);
    driver.set_up_config_space();
    driver.configure(0, &dedicated(1));
    driver.write(GROUPS, 1);
    driver.write(GROUPS + table::GRPCFG_ENGINES, 1);
    spoil(&driver);
    driver.command(Command::ENABLE_DEVICE, 0)
}

#[test]
fn r69_enable_device_has_its_errors() {
    assert_eq!(refused_device(|_| ()), CommandError::SUCCESS);
    let cases: [(Spoil<'_>, CommandError); 11] = [
        (
            &|driver| {
                assert_eq!(
                    driver.command(Command::ENABLE_DEVICE, 0),
                    CommandError::SUCCESS
                )
            },
            CommandError::DEVICE_ENABLED,
        ),
        (
            &|driver| palisade_pci::Function::config_write(&*driver.function, 4, &[0; 2]),
            CommandError::BUS_MASTER_OFF,
        ),
        (
            &|driver| driver.write(QUEUES, 1025),
            CommandError::QUEUE_SIZES,
        ),
        (
            &|driver| driver.write(GROUPS, 0),
            CommandError::GROUP_QUEUES,
        ),
        (
            &|driver| {
                driver.write(GROUPS + 64, 1);
                driver.write(GROUPS + 64 + table::GRPCFG_ENGINES, 2);
            },
            CommandError::GROUP_QUEUES,
        ),
        (
            &|driver| driver.write(GROUPS + 64 + table::GRPCFG_ENGINES, 1),
            CommandError::GROUP_ENGINES,
        ),
        (
            &|driver| driver.write(GROUPS + table::GRPCFG_ENGINES, 0),
            CommandError::GROUP_WITHOUT_ENGINE,
        ),
        // More reserved than there are, in two groups; allowed less than reserved, or more than there are.
        (
            &|driver| {
                driver.write(FLAGS, read_buffers(50, 50));
                driver.write(FLAGS + 64, read_buffers(47, 47));
            },
            CommandError::GROUP_READ_BUFFERS,
        ),
        (
            &|driver| driver.write(FLAGS, read_buffers(8, 7)),
            CommandError::GROUP_READ_BUFFERS,
        ),
        (
            &|driver| driver.write(FLAGS + 64, read_buffers(0, 97)),
            CommandError::GROUP_READ_BUFFERS,
        ),
        (
            &|driver| driver.write(register::GENCFG, 97),
            CommandError::GROUP_READ_BUFFERS,
        ),
    ];
    for (spoil, error) in cases {
        assert_eq!(refused_device(spoil), error);
    }
}

#[test]
fn r69_enable_queue_has_its_errors() {
    let good = dedicated(1);
    let mode = good.mode;
    let cases = [
        (QueueConfig { size: 0, ..good }, CommandError::QUEUE_SIZE),
        (
            QueueConfig {
                mode: mode.with_priority(0),
                ..good
            },
            CommandError::QUEUE_PRIORITY,
        ),
        (
            QueueConfig {
                threshold: 0,
                ..shared()
            },
            CommandError::QUEUE_MODE,
        ),
        (
            QueueConfig {
                threshold: 17,
                ..shared()
            },
            CommandError::QUEUE_MODE,
        ),
        (
            QueueConfig {
                mode: shared().mode.with_pasid_enable(false),
                ..shared()
            },
            CommandError::PASID_ENABLE,
        ),
        (
            QueueConfig {
                limits: good.limits.with_max_batch_shift(11),
                ..good
            },
            CommandError::MAX_BATCH,
        ),
    ];
    for (config, error) in cases {
        let host = Host::new();
        let driver = Driver::enabled(&host, &[good, config]);
        assert_eq!(
            driver.command(Command::ENABLE_QUEUE, 1),
            error,
            "{config:?}"
        );
        driver.enable(0);
    }
    let host = Host::new();
    let driver = Driver::enabled(&host, &[good]);
    driver.enable(0);
    assert_eq!(
        driver.command(Command::ENABLE_QUEUE, 0),
        CommandError::QUEUE_ENABLED
    );
    assert_eq!(
        driver.command(Command::ENABLE_QUEUE, 8),
        CommandError::INVALID_QUEUE
    );
    assert_eq!(
        driver.command(Command::ENABLE_QUEUE, 0xf_ffff),
        CommandError::INVALID_QUEUE
    );
    let off = Driver::new(&host);
    assert_eq!(
        off.command(Command::ENABLE_QUEUE, 0),
        CommandError::DEVICE_DISABLED
    );
}

#[test]
fn r69_other_commands_have_their_errors() {
    let host = Host::new();
    let off = Driver::new(&host);
    assert_eq!(
        off.command(Command::DISABLE_DEVICE, 0),
        CommandError::DISABLE_DISABLED
    );
    let of_queues = [
        Command::DISABLE_QUEUES,
        Command::DRAIN_QUEUES,
        Command::ABORT_QUEUES,
        Command::RESET_QUEUES,
    ];
    for code in of_queues
        .into_iter()
        .chain([Command::DRAIN_ALL, Command::ABORT_ALL])
    {
        assert_eq!(off.command(code, 1), CommandError::QUEUES_OF_DISABLED);
    }
    let driver = Driver::enabled(&host, &[dedicated(1)]);
    for code in of_queues {
        assert_eq!(driver.command(code, 1 << 8), CommandError::INVALID_QUEUE);
        assert_eq!(
            driver.command(code, 1 << 16 | 1),
            CommandError::INVALID_QUEUE
        );
        assert_eq!(
            driver.command(code, 1),
            CommandError::SUCCESS,
            "though it is not enabled"
        );
    }
    for code in (0..32).filter(|code| !(1..=12).contains(code)) {
        let error = driver.command(CommandCode(code), 0);
        assert_eq!(error, CommandError::INVALID_COMMAND, "{code}");
    }
    // A PASID that nobody uses is drained at once.
    assert_eq!(
        driver.command(Command::DRAIN_PASID, 77),
        CommandError::SUCCESS
    );
    assert_eq!(
        driver.command(Command::ABORT_PASID, 77),
        CommandError::SUCCESS
    );
}

fn blocking() -> Descriptor {
    let copy = Descriptor::memory_move(FROM, TO, 8).with_record(RECORD);
    copy.with_flags(Flags::BLOCK_ON_FAULT)
}

fn status(host: &Host) -> Status {
    Status(host.bytes(RECORD, 1)[0])
}

#[test]
fn r72_a_command_that_waits_for_pages_stays_active_until_they_are_answered() {
    let codes = [
        (Command::DRAIN_ALL, 0, 1),
        (Command::DRAIN_QUEUES, 1, 1),
        (Command::DRAIN_PASID, 5, 1),
        (Command::DISABLE_QUEUES, 1, 0),
        (Command::DISABLE_DEVICE, 0, 0),
    ];
    for (code, operand, enabled_after) in codes {
        let host = Host::new();
        let process = host.process(5);
        process.map(FROM, FROM, 1);
        process.map(RECORD, RECORD, 1);
        let driver = Driver::enabled(&host, &[dedicated(5)]);
        driver.enable(0);
        driver.submit(0, &blocking());
        let mut engine = host.engine();
        run(&mut engine);
        let line = driver.line(0);
        let command = Command::of(code).with_operand(operand).with_interrupt(true);
        assert!(driver.command_now(command).active());
        // Another command is not taken meanwhile.
        driver.write(
            register::CMD,
            Command::of(Command::ENABLE_DEVICE).into_bits(),
        );
        assert!(CommandStatus::from_bits(driver.read(register::CMDSTS)).active());
        assert_eq!(driver.error().unwrap().code, ErrorCode::COMMAND_ACTIVE);
        driver.write(register::INTCAUSE, 1);
        assert_eq!((line.count(), driver.read(register::INTCAUSE)), (0, 0));
        process.map(TO, TO, 1);
        host.answer(PageResponse::Success);
        run(&mut engine);
        assert_eq!((line.count(), driver.read(register::INTCAUSE)), (1, 2));
        assert_eq!(driver.read(register::CMDSTS), 0);
        assert_eq!(driver.read(QUEUES + 24) >> 30, enabled_after);
        assert_eq!(status(&host), Status::SUCCESS);
    }
}

#[test]
fn r72_disabling_a_queue_waits_for_what_engines_have() {
    let host = Host::new();
    host.process(5).map(0, 0, 0xb00);
    let driver = Driver::enabled(&host, &[dedicated(5)]);
    let mut engine = host.engine();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                engine.run(4);
            }
        });
        for round in 0..50_u8 {
            driver.enable(0);
            for _ in 0..8 {
                driver.submit(0, &Descriptor::memory_fill(round.into(), FROM, 1 << 20));
            }
            assert_eq!(
                driver.command(Command::DISABLE_QUEUES, 1),
                CommandError::SUCCESS
            );
            assert_eq!(
                host.bytes(FROM + (1 << 20) - 8, 1),
                [round],
                "the last byte is there"
            );
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_eq!(driver.error(), None);
}

#[test]
fn r65_aborts_and_resets_drop_what_waits_for_pages() {
    let ways: [&dyn Fn(&Driver); 6] = [
        &|driver| assert_eq!(driver.command(Command::ABORT_ALL, 0), CommandError::SUCCESS),
        &|driver| {
            assert_eq!(
                driver.command(Command::ABORT_QUEUES, 1),
                CommandError::SUCCESS
            )
        },
        &|driver| {
            assert_eq!(
                driver.command(Command::RESET_QUEUES, 1),
                CommandError::SUCCESS
            )
        },
        &|driver| {
            assert_eq!(
                driver.command(Command::ABORT_PASID, 5),
                CommandError::SUCCESS
            )
        },
        &|driver| {
            assert_eq!(
                driver.command(Command::RESET_DEVICE, 0),
                CommandError::SUCCESS
            )
        },
        &|driver| palisade_pci::Function::reset(&*driver.function),
    ];
    for abort in ways {
        let host = Host::new();
        let process = host.process(5);
        process.map(FROM, FROM, 1);
        process.map(RECORD, RECORD, 1);
        let driver = Driver::enabled(&host, &[dedicated(5)]);
        driver.enable(0);
        driver.submit(0, &blocking());
        let mut engine = host.engine();
        run(&mut engine);
        abort(&driver);
        process.map(TO, TO, 1);
        assert_eq!(host.answer(PageResponse::Success), 1, "a late answer");
        run(&mut engine);
        assert_eq!(status(&host), Status::NONE);
        assert_eq!(driver.error(), None);
    }
}

/// Each queue has work of the PASID, and none of it ends by itself.
#[test]
fn r65_an_abort_by_pasid_drops_what_waits_for_pages_on_every_queue() {
    let host = Host::new();
    let process = host.process(5);
    process.map(FROM, FROM, 1);
    let driver = Driver::enabled(&host, &[shared(), shared(), shared()]);
    for queue in 0..3 {
        driver.enable(queue.into());
        driver.submit(queue, &blocking().with_pasid(5));
    }
    run(&mut host.engine());
    assert_eq!(host.function.outstanding_page_requests(), 3);
    let (done, is_done) = std::sync::mpsc::channel();
    let function = std::sync::Arc::clone(&driver.function);
    std::thread::spawn(move || {
        let driver = Driver { function };
        let error = driver.command(Command::ABORT_PASID, 5);
        done.send(error).unwrap();
    });
    let ended = is_done.recv_timeout(std::time::Duration::from_secs(10));
    // Whoever still waits is let go before the test fails.
    host.answer(PageResponse::Invalid);
    run(&mut host.engine());
    assert_eq!(ended, Ok(CommandError::SUCCESS));
}

#[test]
fn r65_a_reset_is_taken_while_a_drain_waits() {
    let host = Host::new();
    host.process(5).map(FROM, FROM, 1);
    let driver = Driver::enabled(&host, &[dedicated(5)]);
    driver.enable(0);
    driver.submit(0, &blocking());
    run(&mut host.engine());
    let line = driver.line(0);
    let drain = Command::of(Command::DISABLE_DEVICE).with_interrupt(true);
    assert!(driver.command_now(drain).active());
    assert_eq!(
        driver.command(Command::RESET_DEVICE, 0),
        CommandError::SUCCESS
    );
    assert_eq!(line.count(), 0, "of the drain that was given up");
    assert_eq!(driver.read(register::GENSTS), 0);
}

#[test]
fn resetting_queues_keeps_their_sizes() {
    let host = Host::new();
    let driver = Driver::enabled(&host, &[dedicated(1), dedicated(2)]);
    driver.enable(0);
    assert_eq!(
        driver.command(Command::RESET_QUEUES, 1),
        CommandError::SUCCESS
    );
    let words = |queue: u64| [0, 4, 8, 12].map(|at| driver.read(QUEUES + queue * 32 + at));
    assert_eq!(words(0), [16, 0, 0, 0]);
    assert_eq!(words(1), dedicated(2).words());
}
