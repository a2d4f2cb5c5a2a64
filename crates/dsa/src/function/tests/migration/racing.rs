//! Stopping while engines are at work on threads of their own.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use zerocopy::IntoBytes;

use super::*;

const LEN: u32 = 1 << 20;
/// How many copies there are, each with a record; that of the batch is behind them, then those of its parts.
const COPIES: u64 = 4;
/// The process's buffers.
const BUFFERS: u64 = 0x100_0000;

/// Ends the engines, whatever comes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A function goes back and forth while two engines of each host copy and compute. Each descriptor completes once.
#[test]
fn r74_whenever_it_is_stopped_each_descriptor_completes_once() {
    let machine = Machine::with(100, &[dedicated(5), shared()]);
    let process = machine.host.process(105);
    process.map(RECORD, RECORD, 1);
    process.map(BUFFERS, FROM, 0x300);
    let root = process.root;
    let list: Vec<Descriptor> = (0..8)
        .map(|index| {
            Descriptor::memory_fill(index, BUFFERS + 0x20_0000, 0x100)
                .with_record(RECORD + (COPIES + 1 + index) * 32)
        })
        .collect();
    machine.host.write(FROM + 0x2f_0000, list.as_bytes());
    let mut place = machine;
    let over = AtomicBool::new(false);
    for round in 0..30_u32 {
        let crc = Descriptor::copy_crc(BUFFERS, BUFFERS + u64::from(LEN), LEN);
        for index in 0..COPIES {
            place
                .driver
                .submit(0, &crc.with_record(RECORD + index * 32));
        }
        let batch = Descriptor::batch(BUFFERS + 0x2f_0000, 8).with_pasid(5);
        let record = RECORD + COPIES * 32;
        place.driver.submit(1, &batch.with_record(record));
        over.store(false, Ordering::SeqCst);
        let next = std::thread::scope(|scope| {
            for _ in 0..2 {
                let mut engine = place.engine();
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        engine.run(1);
                    }
                });
            }
            let _ends = Ends(&over);
            // From before they begin until after they are done.
            std::thread::sleep(Duration::from_micros(u64::from(round) * 83));
            let bytes = place.stop_and_save();
            let before = place.host.bytes(RECORD, 512);
            let next = place.moved(300 + round, &[(5, root)]);
            let after = place.host.bytes(RECORD, 512);
            assert!(after == before, "stopped is stopped");
            assert!(place.stop_and_save() == bytes, "round {round}");
            next
        });
        next.run();
        for index in 0..COPIES + 9 {
            assert_eq!(next.status(index), Status::SUCCESS, "{index}");
        }
        next.run();
        assert_eq!(next.host.bytes(RECORD, 512), [0; 512]);
        place = next;
    }
}
