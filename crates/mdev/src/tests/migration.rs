//! Devices that move to another host (R74): its accelerator, its IOMMU and its PASIDs are others, the guest's memory,
//! tables and numbers the same.

use std::collections::BTreeSet;

use palisade_dsa::spec::{
    Command, CommandError, CompletionRecord, Descriptor, Flags, InterruptPermission, QueueMode,
    Status,
};
use palisade_ioasid::PasidRange;
use palisade_iommu::PageResponse;
use palisade_pci::Migration;
use palisade_pci::saved::{HEAD_BYTES, StateFormat};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::rig::{Driver, Host, PERMISSIONS, SLOT, Tenant, dedicated, guest, run};
use crate::SliceType::{self, DedicatedQueue, SharedQueue};
use crate::{Assigned, Forwarded};

const RECORD: u64 = 0x8_0000;
const FROM: u64 = 0x10_0000;
const TO: u64 = 0x20_0000;
/// The guest's own numbers.
pub(super) const ONE: u32 = 0x111;
pub(super) const OTHER: u32 = 0x222;
const ENOENT: i32 = 2;

/// A host that gives out PASIDs from a number on: they are not met in a state by chance.
fn host(first: u32) -> Host {
    let (min, max) = (1, first - 1);
    Host::reserving(&[PasidRange { min, max }])
}

/// A tenant's device on a host.
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) tenant: Tenant,
    pub(super) assigned: Assigned,
    pub(super) driver: Driver,
}

/// What a tenant can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Slice(SliceType, Mode),
    Whole,
}

/// How the driver uses its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Dedicated,
    Shared,
}

pub(super) const KINDS: [Kind; 4] = [
    Kind::Slice(DedicatedQueue, Mode::Dedicated),
    Kind::Slice(DedicatedQueue, Mode::Shared),
    Kind::Slice(SharedQueue, Mode::Shared),
    Kind::Whole,
];

impl Kind {
    pub(super) fn mode(self) -> QueueMode {
        let is_shared = matches!(self, Self::Slice(_, Mode::Shared));
        dedicated(ONE).with_dedicated(!is_shared)
    }

    /// Assigns a device. Others have queues of the parent already, so many.
    fn assign(self, host: &Host, tenant: &Tenant, others: u32) -> Assigned {
        let Self::Slice(kind, _) = self else {
            let parent = &host.parent;
            let memory = tenant.guest.clone();
            return parent.exclusive(&tenant.container, SLOT, memory).unwrap();
        };
        for other in 0..others {
            let _ = host.slice(u128::from(other) + 100, DedicatedQueue);
        }
        let slice = host.slice(1, kind);
        assert_eq!(u32::from(slice.info().queue), others);
        slice
            .assign(&tenant.container, SLOT, tenant.guest.clone())
            .unwrap()
    }
}

impl Place {
    /// A device that its driver has brought up.
    pub(super) fn new(kind: Kind) -> Self {
        let host = host(0x5_4321);
        let tenant = host.tenant(1);
        let assigned = kind.assign(&host, &tenant, 0);
        let driver = Driver::bring_up(&assigned);
        Self {
            host,
            tenant,
            assigned,
            driver,
        }
    }

    /// The same guest's device on another host, as it comes out of reset, on another queue of its parent.
    pub(super) fn other(&self, kind: Kind) -> Self {
        let host = host(0x7_6543);
        let tenant = host.arrived(9, &self.tenant);
        let assigned = kind.assign(&host, &tenant, 3);
        let driver = Driver::new(&assigned);
        driver.function.migration().unwrap().stop();
        Self {
            host,
            tenant,
            assigned,
            driver,
        }
    }

    /// Binds a number of the guest's to a process with a record page and a source. Says where its table is.
    pub(super) fn process(&self, number: u32) -> u64 {
        let process = self.tenant.process(number);
        process.map(RECORD, RECORD, 1);
        process.map(FROM, FROM, 1);
        process.map(TO, TO, 1);
        process.root
    }

    pub(super) fn migration(&self) -> &dyn Migration {
        self.driver.function.migration().unwrap()
    }

    /// The state, in which no PASID of this host is.
    pub(super) fn save(&self) -> Vec<u8> {
        self.migration().stop();
        let bytes = self.migration().save().unwrap();
        let log = self.host.parent.forwarded().last();
        let mut hosts: BTreeSet<u32> = log.iter().map(|entry| entry.host.get()).collect();
        let bound = [ONE, OTHER].map(|number| self.tenant.container.translate(SLOT, guest(number)));
        let default = self.tenant.container.default_hold(SLOT);
        hosts.extend(
            bound
                .into_iter()
                .chain([default])
                .flatten()
                .map(|hold| hold.pasid().get()),
        );
        assert!(hosts.iter().all(|number| *number >= 0x5_4321));
        for (at, number) in numbers(&bytes) {
            assert!(
                !hosts.contains(&number),
                "PASID {number:#x} of the host at bit {at}"
            );
        }
        bytes
    }

    pub(super) fn run(&self) {
        run(&mut self.host.parent.engine());
    }

    pub(super) fn status(&self, index: u64) -> Status {
        self.tenant.record(RECORD + index * 32).status()
    }

    /// The log of what this host's parent got, each of it the tenant's.
    pub(super) fn forwarded(&self) -> Vec<Forwarded> {
        let log = self.host.parent.forwarded().last();
        for entry in &log {
            let owner = self.host.authority.owner_of(entry.host);
            assert_eq!(owner, Some(entry.tenant));
        }
        log
    }
}

/// All numbers of 20 bits, wherever they start.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = (usize, u32)> {
    let window = |at: usize| {
        let four = bytes.get(at / 8..at / 8 + 4)?;
        let word = u32::from_le_bytes(four.try_into().ok()?);
        Some((at, word >> (at % 8) & 0xf_ffff))
    };
    (0..bytes.len() * 8).filter_map(window)
}

pub(super) fn copy(index: u64, pasid: u32) -> Descriptor {
    let copy = Descriptor::memory_move(FROM, TO + index * 8, 8);
    copy.with_record(RECORD + index * 32).with_pasid(pasid)
}

#[test]
fn r74_work_goes_on_by_the_pasids_of_the_other_host() {
    for kind in KINDS {
        let place = Place::new(kind);
        let root = place.process(ONE);
        place.tenant.memory.write(FROM, b"contents").unwrap();
        assert_eq!(place.driver.enable(kind.mode()), CommandError::SUCCESS);
        let permission = InterruptPermission::new()
            .with_pasid_enable(true)
            .with_pasid(ONE);
        place.driver.write(PERMISSIONS + 8, permission.into_bits());
        for index in 0..3 {
            place.driver.submit(&copy(index, ONE));
        }
        // One that waits for a page, and a drain that waits for it.
        let beyond = Descriptor::memory_move(FROM, TO + 0x1000, 8);
        let beyond = beyond.with_flags(Flags::BLOCK_ON_FAULT);
        place
            .driver
            .submit(&beyond.with_pasid(ONE).with_record(RECORD + 96));
        place.run();
        assert_eq!(place.tenant.unit.take_requests().len(), 1);
        assert!(place.driver.command_now(Command::DRAIN_PASID, ONE).active());
        place.driver.submit(&copy(4, ONE));
        for index in 0..3 {
            assert_eq!(place.status(index), Status::SUCCESS);
        }
        let bytes = place.save();
        let other = place.other(kind);
        other.migration().restore(&bytes).unwrap();
        other.tenant.bind(SLOT, ONE, root);
        assert!(other.save() == bytes);
        assert_eq!(other.forwarded(), []);
        other.migration().start().unwrap();
        place.run();
        other.run();
        assert_eq!(other.status(4), Status::SUCCESS, "{kind:?}");
        let request = other.tenant.unit.take_requests()[0];
        assert_eq!(request.pasid, Some(guest(ONE)));
        // The page that is asked for is given in the guest's table, by who made it.
        place
            .tenant
            .process_of(root)
            .map(TO + 0x1000, TO + 0x1000, 1);
        let key = palisade_vfio::SpaceKey::Pasid(guest(ONE));
        let container = &other.tenant.container;
        container
            .respond(SLOT, key, request.group, PageResponse::Success)
            .unwrap();
        other.run();
        assert_eq!(other.status(3), Status::SUCCESS);
        assert_eq!(other.tenant.bytes(TO + 0x1000, 8), b"contents");
        assert_eq!(
            other.driver.command(Command::DRAIN_ALL, 0),
            CommandError::SUCCESS
        );
        assert_eq!(other.driver.error(), None);
        assert_eq!(other.tenant.unit.take_faults(), []);
        let host = other.tenant.host_of(ONE);
        assert!(other.forwarded().iter().all(|entry| entry.host == host));
        assert_eq!(other.forwarded().is_empty(), kind == Kind::Whole);
        // Nothing of it is left on either host.
        for one in [place, other] {
            one.assigned.release();
            one.tenant.container.close();
        }
    }
}

#[test]
fn r74_a_slice_does_not_start_before_its_pasids_mean_something_here() {
    for kind in [KINDS[0], KINDS[2]] {
        let place = Place::new(kind);
        let roots = [ONE, OTHER].map(|number| (number, place.process(number)));
        assert_eq!(place.driver.enable(kind.mode()), CommandError::SUCCESS);
        place.driver.submit(&copy(0, ONE));
        let permission = InterruptPermission::new()
            .with_pasid_enable(true)
            .with_pasid(OTHER);
        place.driver.write(PERMISSIONS + 8, permission.into_bits());
        let bytes = place.save();
        let other = place.other(kind);
        other.migration().restore(&bytes).unwrap();
        // Another tenant of this host has both numbers, as its guest's and as the host's own.
        let foreign = other.host.tenant(10);
        let slice = other.host.slice(200, SharedQueue);
        let _assigned = slice.assign(&foreign.container, SLOT, foreign.guest.clone());
        foreign.process(ONE);
        foreign.process(OTHER);
        for (number, root) in roots {
            let error = other.migration().start().unwrap_err();
            assert_eq!(error.errno().raw_os_error(), ENOENT);
            other.run();
            assert_eq!(other.status(0), Status::NONE);
            other.tenant.bind(SLOT, number, root);
        }
        other.migration().start().unwrap();
        other.run();
        assert_eq!(other.status(0), Status::SUCCESS);
        let own = [ONE, OTHER].map(|number| other.tenant.host_of(number));
        assert!(
            other
                .forwarded()
                .iter()
                .all(|entry| own.contains(&entry.host))
        );
    }
}

#[test]
fn r71_r74_a_queue_without_pasids_has_the_slices_default_space_here() {
    let kind = KINDS[0];
    let place = Place::new(kind);
    place.tenant.memory.write(FROM, b"contents").unwrap();
    let without = dedicated(0).with_pasid_enable(false);
    assert_eq!(place.driver.enable(without), CommandError::SUCCESS);
    place.driver.submit(&copy(0, 0));
    let bytes = place.save();
    let other = place.other(kind);
    other.migration().restore(&bytes).unwrap();
    other.migration().start().unwrap();
    other.run();
    assert_eq!(other.status(0), Status::SUCCESS);
    assert_eq!(other.tenant.bytes(TO, 8), b"contents");
    let [entry] = other.forwarded()[..] else {
        panic!("one queue, one PASID");
    };
    let default = other.tenant.container.default_hold(SLOT).unwrap();
    assert_eq!(entry.host, default.pasid());
}

#[test]
fn r19_r74_no_state_programs_what_is_not_the_tenants() {
    let kind = KINDS[2];
    let place = Place::new(kind);
    place.process(ONE);
    assert_eq!(place.driver.enable(kind.mode()), CommandError::SUCCESS);
    place.driver.submit(&copy(0, ONE));
    place.driver.submit(&copy(1, ONE));
    let bytes = place.save();
    let other = place.other(kind);
    // Bob has the number that the state is made to name, in both ways of counting.
    let bob = other.host.tenant(10);
    let slice = other.host.slice(200, SharedQueue);
    let _bobs = slice.assign(&bob.container, SLOT, bob.guest.clone());
    bob.process(OTHER);
    let root = place.tenant.process(ONE).root;
    other.tenant.bind(SLOT, ONE, root);
    for foreign in [OTHER, bob.host_of(OTHER).get()] {
        let forged = forged(&bytes, foreign);
        other.migration().restore(&forged).unwrap();
        let error = other.migration().start().unwrap_err();
        assert_eq!(error.errno().raw_os_error(), ENOENT);
        other.run();
    }
    let own = other.tenant.host_of(ONE);
    assert!(other.forwarded().iter().all(|entry| entry.host == own));
    assert_eq!(other.driver.error(), None);
}

/// A state whose last descriptor has another PASID.
fn forged(bytes: &[u8], pasid: u32) -> Vec<u8> {
    let (from, to) = (copy(1, ONE), copy(1, pasid));
    let mut body = bytes[HEAD_BYTES..].to_vec();
    let mut windows = body.windows(64);
    let at = windows
        .position(|window| window == from.as_bytes())
        .unwrap();
    body[at..at + 64].copy_from_slice(to.as_bytes());
    with_head(&body)
}

fn with_head(body: &[u8]) -> Vec<u8> {
    let format = StateFormat {
        magic: *b"palisdsa",
        version: 2,
        max_body_bytes: usize::MAX,
    };
    format.with_head(body)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever bytes come: what reaches the parent is the tenant's own, and another tenant's memory is as it was.
    #[test]
    fn r8_r19_r74_no_bytes_reach_what_is_not_the_tenants(
        shared in prop::sample::select(vec![KINDS[0], KINDS[2]]),
        // Behind configuration space.
        changes in proptest::collection::vec((0x1000_usize..0x2000, any::<u8>()), 1..4),
        anything in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let place = Place::new(shared);
        let root = place.process(ONE);
        prop_assert_eq!(place.driver.enable(shared.mode()), CommandError::SUCCESS);
        place.driver.submit(&copy(0, ONE));
        place.driver.submit(&copy(1, ONE));
        let mut body = place.save()[HEAD_BYTES..].to_vec();
        for (at, with) in changes {
            let index = at % body.len();
            body[index] ^= with;
        }
        let other = place.other(shared);
        let bob = other.host.tenant(10);
        let slice = other.host.slice(200, SharedQueue);
        let _bobs = slice.assign(&bob.container, SLOT, bob.guest.clone());
        let process = bob.process(OTHER);
        process.map(RECORD, RECORD, 1);
        process.map(TO, TO, 1);
        other.tenant.bind(SLOT, ONE, root);
        prop_assert!(other.migration().restore(&with_head(&anything)).is_err());
        if other.migration().restore(&with_head(&body)).is_ok() {
            let _ = other.migration().start();
        }
        other.run();
        for entry in other.forwarded() {
            prop_assert_eq!(entry.tenant, other.tenant.id());
        }
        prop_assert_eq!(bob.bytes(RECORD, 64), vec![0; 64]);
        prop_assert_eq!(bob.bytes(TO, 64), vec![0; 64]);
    }
}

/// Lets the device go on on another host, where the unit has bound its process.
fn moved(place: &Place, kind: Kind, root: u64) -> Place {
    let bytes = place.save();
    let other = place.other(kind);
    other.migration().restore(&bytes).unwrap();
    other.tenant.bind(SLOT, ONE, root);
    other.migration().start().unwrap();
    other
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Copies between pages that come when they are asked for, from host to host.
    #[test]
    fn r73_r74_copies_come_out_as_by_software_however_often_the_device_moves(
        kind in prop::sample::select(KINDS.to_vec()),
        copies in proptest::collection::vec((0..0x8000_u64, 0..0x8000_u64, 1..0x4000_u32, 0_u32..4), 1..6),
    ) {
        const BUFFER: u64 = 0x30_0000;
        let first = Place::new(kind);
        let root = first.process(ONE);
        let mut expected: Vec<u8> = (0..0x1_0000_u32).map(|i| (i * 31 + i / 4093).to_le_bytes()[0]).collect();
        first.tenant.memory.write(BUFFER, &expected).unwrap();
        prop_assert_eq!(first.driver.enable(kind.mode()), CommandError::SUCCESS);
        let mut later: Option<Place> = None;
        for (from, to, len, moves) in copies {
            let copy = Descriptor::memory_move(BUFFER + from, BUFFER + 0x8000 + to / 2, len);
            let copy = copy.with_flags(Flags::BLOCK_ON_FAULT).with_record(RECORD);
            let place = later.as_ref().unwrap_or(&first);
            place.driver.submit(&copy.with_pasid(ONE));
            for _ in 0..moves {
                let place = later.as_ref().unwrap_or(&first);
                place.host.parent.engine().run(1);
                later = Some(moved(place, kind, root));
            }
            let place = later.as_ref().unwrap_or(&first);
            let mut record = CompletionRecord::default();
            while record.status() == Status::NONE {
                place.run();
                let bytes = place.tenant.bytes(RECORD, 32);
                record = CompletionRecord::read_from_bytes(&bytes).unwrap();
                for request in place.tenant.unit.take_requests() {
                    let page = request.at.get() & !0xfff;
                    // By who made the table.
                    first.tenant.process_of(root).map(page, page, 1);
                    let key = palisade_vfio::SpaceKey::Pasid(guest(ONE));
                    let container = &place.tenant.container;
                    container.respond(SLOT, key, request.group, PageResponse::Success).unwrap();
                }
            }
            prop_assert_eq!(place.status(0), Status::SUCCESS);
            let index = |at: u64| usize::try_from(at).unwrap();
            let source = index(from)..index(from + u64::from(len));
            expected.copy_within(source, index(0x8000 + to / 2));
        }
        let place = later.as_ref().unwrap_or(&first);
        place.run();
        prop_assert_eq!(place.status(0), Status::NONE);
        prop_assert!(place.tenant.bytes(BUFFER, expected.len()) == expected);
        prop_assert_eq!(place.driver.error(), None);
    }
}
