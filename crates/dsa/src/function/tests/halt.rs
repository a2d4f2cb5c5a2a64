//! The halted state: what brings a device into it, and what out of it.

use palisade_pci::{Function, capability::extended_id};

use super::{Driver, dedicated};
use crate::spec::{
    Command, CommandError, Descriptor, DeviceState, ErrorCode, Flags, GeneralStatus, ResetType,
    register,
};
use crate::testing::{Host, run};

const MEMORY: [u8; 2] = [0b010, 0];
const MEMORY_AND_BUS_MASTER: [u8; 2] = [0b110, 0];
const COMMAND: u16 = 4;

fn status(driver: &Driver) -> (DeviceState, ResetType) {
    let status = GeneralStatus::from_bits(driver.read(register::GENSTS));
    (status.state(), status.reset_type())
}

#[test]
fn an_enabled_device_that_loses_the_bus_halts() {
    let host = Host::new();
    host.process(5);
    let driver = Driver::enabled(&host, &[dedicated(5)]);
    driver.enable(0);
    let line = driver.line(0);
    driver.write(register::GENCTRL, 0b10);
    // It waits for a page that will not come.
    let copy = Descriptor::memory_move(0, 0x1000, 8).with_flags(Flags::BLOCK_ON_FAULT);
    driver.submit(0, &copy);
    run(&mut host.engine());
    driver.function.config_write(COMMAND, &MEMORY);
    assert_eq!(status(&driver), (DeviceState::Halted, ResetType::Function));
    assert_eq!(line.count(), 1);
    assert_eq!(driver.read(register::INTCAUSE), 0b1_0001);
    let error = driver.error().unwrap();
    assert_eq!(
        (error.code, error.queue, error.operation),
        (ErrorCode::PCI_CONFIG, None, None)
    );
    assert_eq!(host.function.outstanding_page_requests(), 1);
    // What comes now finds no queue.
    driver.submit(0, &copy);
    assert_eq!(driver.error().unwrap().code, ErrorCode::QUEUE_DISABLED);
}

#[test]
fn a_halted_device_comes_back_by_a_function_level_reset() {
    let host = Host::new();
    let driver = Driver::enabled(&host, &[dedicated(5)]);
    driver.function.config_write(COMMAND, &MEMORY);
    driver
        .function
        .config_write(COMMAND, &MEMORY_AND_BUS_MASTER);
    for code in [
        Command::ENABLE_DEVICE,
        Command::DISABLE_DEVICE,
        Command::RESET_DEVICE,
        Command::DRAIN_ALL,
        Command::ENABLE_QUEUE,
    ] {
        assert_eq!(driver.command(code, 0), CommandError::HARDWARE);
        assert_eq!(status(&driver).0, DeviceState::Halted);
    }
    let queue = driver.read(super::QUEUES);
    driver.write(super::QUEUES, 0);
    assert_eq!(driver.read(super::QUEUES), queue, "locked");
    Function::reset(&*driver.function);
    assert_eq!(
        status(&driver),
        (DeviceState::Disabled, ResetType::Software)
    );
    driver.set_up_config_space();
    assert_eq!(
        driver.command(Command::ENABLE_DEVICE, 0),
        CommandError::SUCCESS
    );
}

#[test]
fn a_disabled_device_does_without_the_bus() {
    let host = Host::new();
    let driver = Driver::new(&host);
    driver.set_up_config_space();
    driver.function.config_write(COMMAND, &MEMORY);
    assert_eq!(status(&driver).0, DeviceState::Disabled);
    assert_eq!(driver.error(), None);
    // Nor does an enabled one halt when something else is written.
    let driver = Driver::enabled(&host, &[dedicated(5)]);
    let pri = driver.extended(extended_id::PRI, 4);
    driver.function.config_write(pri, &[0, 0]);
    driver
        .function
        .config_write(COMMAND, &MEMORY_AND_BUS_MASTER);
    assert_eq!(status(&driver).0, DeviceState::Enabled);
}

#[test]
fn a_command_beside_another_is_an_error() {
    let host = Host::new();
    host.process(5);
    let driver = Driver::enabled(&host, &[dedicated(5)]);
    driver.enable(0);
    let copy = Descriptor::memory_move(0, 0x1000, 8).with_flags(Flags::BLOCK_ON_FAULT);
    driver.submit(0, &copy);
    run(&mut host.engine());
    let drain = Command::of(Command::DRAIN_ALL);
    assert!(driver.command_now(drain).active());
    assert_eq!(driver.error(), None);
    assert!(driver.command_now(drain).active());
    assert_eq!(driver.error().unwrap().code, ErrorCode::COMMAND_ACTIVE);
}
