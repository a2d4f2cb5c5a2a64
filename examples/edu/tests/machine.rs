//! The device as it is served, behind sockets, with a unit that the guest's kernel programs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::path::Path;
use std::sync::Arc;

use edu::{Edu, registers as reg};
use palisade_driver::{
    Content, Guest, Kernel, LIMIT, Link, Patience, UnitDriver, page_table::Rights,
};
use palisade_host::config::HostConfig;
use palisade_host::host::{OwnHost, OwnMachine};
use palisade_pci::Bar;
use palisade_units::{Bdf, GuestPasid, Iova, PageSize};
use palisade_vfio_user::Region;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::AsFd;

const EDU: Bdf = Bdf::new(0, 0x11, 0);
const SOURCE: Iova = Iova::new(0x7f00_0000_0000);
const DESTINATION: Iova = Iova::new(0x7f10_0000_0000);
const TEXT: &[u8; 20] = b"by my own addresses.";

struct Machine {
    kernel: Kernel,
    edu: Link,
    _host: OwnHost,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// As Linux has it when the device's driver is there: the unit translates, memory, bus mastering, PASID, page
    /// requests and ATS are on.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = OwnMachine {
            unit_socket: folder.path().join("unit.sock"),
            socket: folder.path().join("edu.sock"),
            guest_bdf: EDU,
            quota: 10,
        };
        let make = |function| Ok(Edu::new(function)? as Arc<_>);
        let host = OwnHost::serve(&places, Box::new(make)).unwrap();
        let mut guest = Guest::new(16 << 20).unwrap();
        let unit = Link::connect(&places.unit_socket, "unit", &guest).unwrap();
        let mut edu = Link::connect(&places.socket, "edu", &guest).unwrap();
        let unit = UnitDriver::bring_up(unit, &mut guest, &[EDU]).unwrap();
        let kernel = Kernel::new(guest, unit);
        let mut config = |at, value: u16| edu.write(Region::Config, at, &value.to_le_bytes());
        config(4, 0b110).unwrap();
        // PASID, PRI, ATS: in the order in which the device has them, from 0x100 on.
        config(0x106, 1).unwrap();
        config(0x114, 1).unwrap();
        config(0x10e, 1 << 15).unwrap();
        Self {
            kernel,
            edu,
            _host: host,
            _folder: folder,
        }
    }

    /// A process whose source is in memory, and whose destination is there once somebody asks.
    fn process(&mut self) -> GuestPasid {
        let pasid = self.kernel.start_process().unwrap();
        self.kernel.bind(EDU, pasid).unwrap();
        let (process, guest) = self.kernel.process_and_guest(pasid).unwrap();
        let frame = guest.take_zeroed(PageSize::Size4K).unwrap();
        guest.write(frame.at, TEXT).unwrap();
        process
            .space_mut()
            .map(guest, SOURCE, frame, Rights::ReadWrite)
            .unwrap();
        process
            .declare(DESTINATION, 4096, Content::Zeros, Rights::ReadWrite)
            .unwrap();
        pasid
    }

    fn register(&mut self, at: u64) -> u32 {
        self.edu.read_u32(Bar::Bar0, at).unwrap()
    }

    /// Copies for a process and says how it ended, while the kernel serves page requests.
    fn copy(&mut self, pasid: u32, from: Iova, to: Iova) -> u32 {
        for (at, value) in [
            (reg::SOURCE, from.get()),
            (reg::DESTINATION, to.get()),
            (reg::COUNT, TEXT.len() as u64),
        ] {
            self.edu.write_u64(Bar::Bar0, at, value).unwrap();
        }
        let pasid = pasid | reg::PASID_ENABLE;
        self.edu.write_u32(Bar::Bar0, reg::PASID, pasid).unwrap();
        let command = reg::START | reg::INTERRUPT_WHEN_COPIED;
        self.edu
            .write_u32(Bar::Bar0, reg::COMMAND, command)
            .unwrap();
        let mut patience = Patience::new(LIMIT);
        while self.register(reg::COMMAND) & reg::START != 0 {
            let kernel = &mut self.kernel;
            self.edu.take_events(|event| kernel.note(event)).unwrap();
            self.kernel.serve().unwrap();
            patience.pause(|| "the copy".to_owned()).unwrap();
        }
        self.register(reg::RESULT)
    }

    fn seen(&self, pasid: GuestPasid, at: Iova) -> [u8; TEXT.len()] {
        let mut text = [0; TEXT.len()];
        let process = self.kernel.process(pasid).unwrap();
        process
            .space()
            .read(self.kernel.guest(), at, &mut text)
            .unwrap();
        text
    }
}

#[test]
fn r76_a_guests_process_has_its_memory_copied_and_its_pages_brought_in() {
    let mut machine = Machine::start();
    let interrupt = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    machine
        .edu
        .client_mut()
        .set_irqs(0, &[interrupt.as_fd()])
        .unwrap();
    let pasid = machine.process();
    let ended = machine.copy(pasid.get(), SOURCE, DESTINATION);
    assert_eq!(ended, reg::Outcome::Done as u32);
    assert_eq!(&machine.seen(pasid, DESTINATION), TEXT);
    assert!(machine.kernel.requests().served >= 1);
    // The end can be read of the registers before the interrupt has come.
    let mut wanted = [PollFd::new(&interrupt, PollFlags::IN)];
    let limit = Timespec::try_from(LIMIT).unwrap();
    assert_eq!(poll(&mut wanted, Some(&limit)), Ok(1));
    let mut count = [0; 8];
    rustix::io::read(&interrupt, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
}

#[test]
fn r3_two_processes_have_the_same_addresses_and_not_the_same_memory() {
    let mut machine = Machine::start();
    let (one, other) = (machine.process(), machine.process());
    let ended = machine.copy(one.get(), SOURCE, DESTINATION);
    assert_eq!(ended, reg::Outcome::Done as u32);
    let ended = machine.copy(other.get(), SOURCE, SOURCE.checked_add(64).unwrap());
    assert_eq!(ended, reg::Outcome::Done as u32);
    assert_eq!(&machine.seen(other, SOURCE.checked_add(64).unwrap()), TEXT);
    let empty = [0; TEXT.len()];
    assert_eq!(machine.seen(one, SOURCE.checked_add(64).unwrap()), empty);
}

#[test]
fn r16_a_pasid_that_nobody_bound_faults_and_the_kernel_is_told() {
    let mut machine = Machine::start();
    let pasid = machine.process();
    // To ask for a translation that there is not is no fault: the device makes its requests untranslated.
    machine.edu.write(Region::Config, 0x10e, &[0, 0]).unwrap();
    let ended = machine.copy(0xdead, SOURCE, DESTINATION);
    assert_eq!(ended, reg::Outcome::Faulted as u32);
    let faults = machine.kernel.take_faults().unwrap().reports;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0].bdf, EDU);
    assert_eq!(faults[0].pasid.map(GuestPasid::get), Some(0xdead));
    // After the process's end its number leads nowhere either.
    machine.kernel.end_process(pasid).unwrap();
    let ended = machine.copy(pasid.get(), SOURCE, DESTINATION);
    assert_eq!(ended, reg::Outcome::Faulted as u32);
}

#[test]
fn the_launchers_file_names_the_sockets_that_are_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("machine.toml");
    let config = HostConfig::load(&file).unwrap();
    let [tenant] = &config.tenants[..] else {
        panic!("one tenant");
    };
    let main = include_str!("../src/main.rs");
    for socket in [tenant.iommu.socket(), &tenant.functions[0].socket] {
        let name = socket.file_name().unwrap().to_str().unwrap();
        assert!(main.contains(&format!("folder.join({name:?})")), "{name}");
    }
    assert_eq!(tenant.functions[0].guest_bdf, EDU);
}

#[test]
fn the_next_guest_finds_a_new_device() {
    let mut machine = Machine::start();
    machine.edu.write_u32(Bar::Bar0, reg::LIVENESS, 7).unwrap();
    let Machine {
        kernel,
        edu,
        _host,
        _folder,
    } = machine;
    drop((kernel, edu));
    let guest = Guest::new(1 << 20).unwrap();
    let socket = _folder.path().join("edu.sock");
    let mut edu = Link::connect(&socket, "edu", &guest).unwrap();
    assert_eq!(edu.read_u32(Bar::Bar0, reg::LIVENESS).unwrap(), 0);
    assert_eq!(
        edu.read_u32(Bar::Bar0, reg::IDENTIFICATION).unwrap(),
        reg::IDENTITY
    );
}
