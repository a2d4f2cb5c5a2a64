//! Stopping while engines are at work on threads of their own.

use std::sync::atomic::AtomicBool;

use zerocopy::IntoBytes;

use super::*;

const LEN: u32 = 1 << 20;
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
                .with_record(RECORD + 64 + index * 32)
        })
        .collect();
    machine.host.write(FROM + 0x2f_0000, list.as_bytes());
    let mut place = machine;
    let over = AtomicBool::new(false);
    for round in 0..12_u32 {
        let crc = Descriptor::copy_crc(BUFFERS, BUFFERS + u64::from(LEN), LEN);
        let batch = Descriptor::batch(BUFFERS + 0x2f_0000, 8).with_pasid(5);
        place.driver.submit(0, &crc.with_record(RECORD));
        place.driver.submit(1, &batch.with_record(RECORD + 32));
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
            for _ in 0..(round * 4001) % 20_000 {
                std::hint::spin_loop();
            }
            place.migration().stop();
            let before = place.host.bytes(RECORD, 320);
            let next = place.moved(300 + round, &[(5, root)]);
            assert!(
                place.host.bytes(RECORD, 320) == before,
                "stopped is stopped"
            );
            next
        });
        next.run();
        for index in 0..10 {
            assert_eq!(next.status(index), Status::SUCCESS, "{index}");
        }
        next.run();
        assert_eq!(next.host.bytes(RECORD, 320), [0; 320]);
        place = next;
    }
}
