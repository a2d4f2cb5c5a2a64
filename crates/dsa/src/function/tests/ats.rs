//! Translations that the function keeps, where its driver lets it (PCIe 10.5.1), and queues that make no use
//! of them.

use palisade_iommu::{Cached, Scope};
use palisade_pci::Function;
use palisade_pci::capability::extended_id;

use super::{Driver, dedicated};
use crate::spec::{Descriptor, QueueConfig, Status};
use crate::testing::{Host, run};

const FROM: u64 = 0x10_0000;
const OTHER: u64 = 0x11_0000;
const TO: u64 = 0x20_0000;
const RECORD: u64 = 0x8_0000;

/// A queue whose requests use ATS and one whose do not, and what each copies from a page after the page's
/// translation was changed and forgotten in some caches.
fn copies_after(cached: Cached, ats_enable: u16) -> [u8; 2] {
    let host = Host::new();
    let process = host.process(5);
    for at in [FROM, TO, RECORD] {
        process.map(at, at, 1);
    }
    host.write(FROM, &[1]);
    host.write(OTHER, &[2]);
    let without = QueueConfig {
        mode: dedicated(5).mode.with_ats_disable(true),
        ..dedicated(5)
    };
    let driver = Driver::enabled(&host, &[dedicated(5), without]);
    let ats = driver.extended(extended_id::ATS, 6);
    driver.function.config_write(ats, &ats_enable.to_le_bytes());
    driver.enable(0);
    driver.enable(1);
    let mut engine = host.engine();
    let mut copied = |queue| {
        let copy = Descriptor::memory_move(FROM, TO, 1).with_record(RECORD);
        driver.submit(queue, &copy);
        run(&mut engine);
        assert_eq!(Status(host.bytes(RECORD, 1)[0]), Status::SUCCESS);
        host.bytes(TO, 1)[0]
    };
    // Again after each change: both use the same places of the engine's caches.
    [0, 1].map(|queue| {
        process.map(FROM, FROM, 1);
        host.function.invalidate(Scope::All, Cached::Everywhere);
        assert_eq!(copied(queue), 1);
        process.map(FROM, OTHER, 1);
        assert_eq!(copied(queue), 1, "stale");
        host.function.invalidate(Scope::All, cached);
        copied(queue)
    })
}

const ENABLED: u16 = 1 << 15;

#[test]
fn r41_a_queue_keeps_its_own_translations_unless_it_was_told_not_to() {
    assert_eq!(copies_after(Cached::InUnit, ENABLED), [1, 2]);
    assert_eq!(copies_after(Cached::InDevices, ENABLED), [2, 1]);
}

#[test]
fn r41_with_ats_off_no_queue_keeps_translations() {
    assert_eq!(copies_after(Cached::InUnit, 0), [2, 2]);
    assert_eq!(copies_after(Cached::InDevices, 0), [1, 1]);
}

/// What the function kept before ATS was turned off is not there when it is turned on again (PCIe 10.5.1.3).
#[test]
fn r41_a_function_that_is_given_ats_again_has_kept_nothing() {
    let host = Host::new();
    let process = host.process(5);
    for at in [FROM, TO, RECORD] {
        process.map(at, at, 1);
    }
    host.write(FROM, &[1]);
    host.write(OTHER, &[2]);
    let driver = Driver::enabled(&host, &[dedicated(5)]);
    driver.enable(0);
    let mut engine = host.engine();
    let mut copied = || {
        let copy = Descriptor::memory_move(FROM, TO, 1).with_record(RECORD);
        driver.submit(0, &copy);
        run(&mut engine);
        host.bytes(TO, 1)[0]
    };
    assert_eq!(copied(), 1);
    process.map(FROM, OTHER, 1);
    assert_eq!(copied(), 1, "stale");
    let ats = driver.extended(extended_id::ATS, 6);
    for control in [0, ENABLED] {
        driver.function.config_write(ats, &control.to_le_bytes());
    }
    assert_eq!(copied(), 2);
}
