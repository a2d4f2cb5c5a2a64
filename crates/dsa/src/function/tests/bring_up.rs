use palisade_iommu::PageResponse;
use palisade_pci::{Bar, Function};
use palisade_units::Iova;
use zerocopy::{FromBytes, IntoBytes};

use super::Driver;
use crate::lock::locked;
use crate::spec::{CompletionRecord, Descriptor, Flags, Status};
use crate::testing::{Host, run};

const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
const RECORD: u64 = 0x8_0000;

impl Driver {
    /// A command as Linux gives it once interrupts are set up.
    fn linux_command(&self, code: u32, operand: u32) -> u32 {
        let line = self.line(0);
        self.write(0xa0, (1 << 31) | (code << 20) | operand);
        assert_eq!(line.count(), 1, "Linux sleeps until the interrupt");
        let cause = self.read(0x98);
        assert_eq!(cause, 2);
        self.write(0x98, cause);
        assert_eq!(self.read(0x98), 0);
        self.read(0xa8)
    }

    /// WQCFG as Linux writes it: first it reads what is sticky, then it writes all words.
    fn linux_queue_config(&self, queue: u64, words: [u32; 8]) {
        for (offset, word) in (0x800 + queue * 32..).step_by(4).zip(words) {
            let sticky = self.read(offset);
            self.write(offset, word | (sticky & !0xf_ffff));
        }
    }
}

/// The registers that Linux's idxd reads and writes, in its order, from probe to a user's queue with a
/// PASID, one copy with a page request, and the way back.
#[test]
fn the_sequence_of_linux_idxd_brings_a_user_queue_up_and_down() {
    let host = Host::new();
    let driver = Driver::new(&host);
    driver.set_up_config_space();
    let mut engine = host.engine();

    // Probe: version, state, reset by polling.
    assert_eq!(driver.read(0x00), 0x100);
    assert_eq!(driver.read(0x90) & 3, 0, "not halted");
    driver.write(0xa0, 5 << 20);
    assert_eq!(driver.read(0xa8), 0, "neither active nor an error");

    // Capabilities.
    let quad = |at: u64| u64::from(driver.read(at)) | (u64::from(driver.read(at + 4)) << 32);
    let general = quad(0x10);
    assert_eq!(
        general & 0b1_0001,
        0b1_0001,
        "block on fault, command capability"
    );
    assert_eq!(general >> 31 & 1, 1, "configurable");
    assert_eq!((general >> 16 & 0x1f, general >> 21 & 0xf), (31, 10));
    assert_eq!(
        general >> 13 & 0b111,
        0,
        "no event log, no batch continuation"
    );
    assert_eq!(
        driver.read(0xb0),
        0x1ffe,
        "no interrupt handles: handles are vectors"
    );
    let queues = quad(0x20);
    assert_eq!(
        (queues & 0xffff, queues >> 16 & 0xff, queues >> 24 & 0xf),
        (1024, 8, 0)
    );
    assert_eq!(queues >> 48 & 0b1011, 0b1011, "shared, dedicated, priority");
    assert_eq!(queues >> 52 & 0b11, 0b01, "occupancy, without an interrupt");
    assert_eq!((quad(0x30) & 0xff, quad(0x38) & 0xff), (4, 4));
    assert_eq!(
        quad(0x30) >> 8,
        0x360,
        "96 read buffers, for groups, with a limit"
    );
    assert_eq!(
        [quad(0x40), quad(0x48), quad(0x50), quad(0x58)],
        [0x1_003f_03ff, 0, 0, 0]
    );
    assert_eq!(quad(0x60), 0x0010_0008_0004);
    assert_eq!(quad(0x68), 0, "no interrupt store, no performance monitor");
    assert_eq!(
        driver.function.msix_vectors(),
        9,
        "one for the device, one for each queue"
    );

    // Interrupts.
    let control = driver.read(0x88);
    driver.write(0x88, control | 0b11);

    // `dsa0` to `idxd`: queue 0 and engine 0 in group 0, then enable.
    driver.linux_queue_config(0, [16, 0, 0xa3, 0x95, 0, 0, 0, 0]);
    let group_zero = |driver: &Driver| {
        driver.write(0x80, driver.read(0x80));
        for group in 0..4 {
            let in_group = u32::from(group == 0);
            for quad in 0..4 {
                let value = if quad == 0 { in_group } else { 0 };
                let bytes = u64::from(value).to_le_bytes();
                driver
                    .function
                    .bar_write(Bar::Bar0, 0x400 + group * 64 + quad * 8, &bytes)
                    .unwrap();
            }
            driver.write(0x420 + group * 64, in_group);
            driver.write(0x428 + group * 64, 0x0600_0009);
        }
    };
    group_zero(&driver);
    assert_eq!(driver.linux_command(1, 0), 0);
    assert_eq!(driver.read(0x90) & 3, 1);

    // `wq0.0` to `user`: configuration again, while the device is enabled, then the queue.
    driver.write(0x808, driver.read(0x808));
    driver.linux_queue_config(0, [16, 0, 0xa3, 0x95, 0, 0, 0, 0]);
    group_zero(&driver);
    assert_eq!(driver.linux_command(6, 0), 0);
    assert_eq!(driver.read(0x818) >> 30, 1, "the state says enabled");

    // open(): the process's PASID goes into the queue's configuration.
    let process = host.process(1);
    process.map(FROM, FROM, 2);
    process.map(RECORD, RECORD, 1);
    assert_eq!(driver.linux_command(7, 1), 0);
    driver.write(0x808, driver.read(0x808) | (1 << 28) | (1 << 8));
    assert_eq!(driver.linux_command(6, 0), 0);

    // The process submits by eight stores to the limited portal.
    let data: Vec<u8> = (0..0x1800_u32)
        .map(|i| (i % 241).to_le_bytes()[0])
        .collect();
    host.write(FROM, &data);
    let copy = Descriptor::memory_move(FROM, TO, 0x1800)
        .with_record(RECORD)
        .with_flags(Flags::BLOCK_ON_FAULT | Flags::CACHE_CONTROL);
    for (i, store) in (0..).zip(copy.as_bytes().chunks(8)) {
        driver
            .function
            .bar_write(Bar::Bar2, 0x1000 + i * 8, store)
            .unwrap();
    }
    run(&mut engine);
    for page in [TO, TO + 0x1000] {
        assert_eq!(locked(&host.unit.requests)[0].at, Iova::new(page));
        process.map(page, page, 1);
        assert_eq!(host.answer(PageResponse::Success), 1);
        run(&mut engine);
    }
    let record = CompletionRecord::read_from_bytes(&host.bytes(RECORD, 32)).unwrap();
    assert_eq!(record.status(), Status::SUCCESS);
    assert_eq!(host.bytes(TO, 0x1800), data);

    // close(), then unbind: PASID off, drain and reset of the queue, disable and reset of the device.
    assert_eq!(driver.linux_command(7, 1), 0);
    driver.write(0x808, driver.read(0x808) & 0xff);
    assert_eq!(driver.linux_command(6, 0), 0);
    assert_eq!(driver.linux_command(8, 1), 0);
    assert_eq!(driver.linux_command(10, 1), 0);
    assert_eq!(
        [0x800, 0x808, 0x80c, 0x818].map(|at| driver.read(at)),
        [16, 0, 0, 0]
    );
    assert_eq!(driver.linux_command(2, 0), 0);
    assert_eq!(driver.linux_command(5, 0), 0);
    assert_eq!(
        [0x800, 0x400, 0x420, 0x90].map(|at| driver.read(at)),
        [0, 0, 0, 0]
    );
    assert_eq!(driver.error(), None);
}
