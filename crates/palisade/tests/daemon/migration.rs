//! A tenant's devices move from one daemon to another (R74).

use palisade_driver::{AllocatorKind, Content};
use palisade_driver::{
    Copy, DriverError, FunctionAddress, MissingPage, Outstanding, Pattern, Tenant,
    page_table::Rights,
};
use palisade_dsa::spec::Status;
use palisade_units::{Bdf, Gpa, GuestPasid, Iova};

use crate::host::{CONFIG, Daemon, FIRST, copies_a_page, copy_of_a_page};

const MIB: u64 = 1 << 20;
const SECOND: Bdf = Bdf::new(0, 0x12, 0);
const PAGES: u64 = 16;
const FROM: Iova = Iova::new(0x5100_0000_0000);
const TO: Iova = Iova::new(0x5200_0000_0000);
const MEMORY: u64 = 64 * MIB;

/// The usual host, where a tenant's guest takes its PASIDs from the host or has numbers of its own.
fn start(allocator: AllocatorKind) -> Daemon {
    let commands = match allocator {
        AllocatorKind::Guest => "off",
        AllocatorKind::Host(_) => "current",
    };
    let unit = |name: &str| format!("unit = {{ socket = \"{name}-unit.sock\"");
    let config = ["alice", "bob"]
        .iter()
        .fold(CONFIG.to_owned(), |config, name| {
            let with = format!("{}, virtual_commands = \"{commands}\"", unit(name));
            config.replace(&unit(name), &with)
        });
    Daemon::start_in(tempfile::tempdir().unwrap(), &config)
}

/// A host on which others have the first PASIDs.
fn start_with_others(allocator: AllocatorKind, other: &str) -> (Daemon, Tenant) {
    let daemon = start(allocator);
    let mut other = daemon.connect(other, 16 * MIB).unwrap();
    for _ in 0..3 {
        other.start_process().unwrap();
    }
    (daemon, other)
}

fn at(daemon: &Daemon, tenant: &str, functions: &[Bdf]) -> Vec<FunctionAddress> {
    let address = |(number, bdf): (usize, &Bdf)| FunctionAddress {
        bdf: *bdf,
        socket: daemon.socket(&format!("{tenant}-{number}")),
    };
    functions.iter().enumerate().map(address).collect()
}

/// The tenant's numbers in a ledger: the host's, and the guest's.
fn numbers(daemon: &Daemon, tenant: &str) -> Vec<(u32, Option<u32>)> {
    let ledger = daemon.ledger();
    let own = ledger.tenants.iter().find(|t| t.name == tenant).unwrap();
    own.pasids.iter().map(|p| (p.pasid, p.guest)).collect()
}

/// Pages that are not there before they are asked for, and copies of each that wait for them.
fn copies_on_demand(tenant: &mut Tenant, process: GuestPasid) -> Vec<Copy> {
    let (owner, _) = tenant.kernel_mut().process_and_guest(process).unwrap();
    let pattern = Content::Pattern(Pattern(process.get().into()));
    let len_bytes = PAGES * 4096;
    owner
        .declare(FROM, len_bytes, pattern, Rights::ReadOnly)
        .unwrap();
    owner
        .declare(TO, len_bytes, Content::Zeros, Rights::ReadWrite)
        .unwrap();
    let copy = |page: u64| Copy {
        process,
        from: Iova::new(FROM.get() + page * 4096),
        to: Iova::new(TO.get() + page * 4096),
        len_bytes: 4096,
        missing: MissingPage::Wait,
    };
    (0..PAGES).map(copy).collect()
}

#[track_caller]
fn arrived(tenant: &Tenant, process: GuestPasid) {
    let mut copied = vec![0; usize::try_from(PAGES * 4096).unwrap()];
    tenant.peek(process, TO, &mut copied).unwrap();
    let pattern = Pattern(process.get().into());
    assert_eq!(pattern.difference(0, &copied), None);
}

/// A move was refused, and what the tenant had under way is done where it was.
fn stayed(tenant: &mut Tenant, refused: &Result<(), DriverError>, outstanding: Outstanding) {
    assert!(
        matches!(refused, Err(DriverError::Transport { .. })),
        "{refused:?}"
    );
    let ended = tenant.complete(outstanding).unwrap();
    assert!(
        ended.iter().all(|copy| copy.status == Status::SUCCESS),
        "{ended:?}"
    );
}

/// Moves a tenant with copies under way that wait for pages, and has them end at the other host.
fn moves(name: &str, allocator: AllocatorKind, functions: &[Bdf]) {
    let source = start(allocator);
    let (target, _other) =
        start_with_others(allocator, if name == "alice" { "bob" } else { "alice" });
    let mut tenant = source
        .connect_to(name, &at(&source, name, functions), MEMORY)
        .unwrap();
    assert_eq!(tenant.allocator(), allocator);
    let mut outstanding = Vec::new();
    let mut processes = Vec::new();
    for bdf in functions {
        let process = tenant.start_process().unwrap();
        let copies = copies_on_demand(&mut tenant, process);
        outstanding.push(tenant.submit(*bdf, &copies).unwrap());
        processes.push(process);
    }
    let before = numbers(&source, name);
    tenant
        .move_to(
            &target.socket(&format!("{name}-unit")),
            &at(&target, name, functions),
        )
        .unwrap();
    for outstanding in outstanding {
        let ended = tenant.complete(outstanding).unwrap();
        assert_eq!(ended.len(), usize::try_from(PAGES).unwrap());
        assert!(
            ended.iter().all(|copy| copy.status == Status::SUCCESS),
            "{ended:?}"
        );
    }
    for process in &processes {
        arrived(&tenant, *process);
    }
    // Nothing is left behind, and the guest has the numbers that it had, which are others of the host's.
    source.wait_for_end_of(name);
    let after = numbers(&target, name);
    let guests = |numbers: &[(u32, Option<u32>)]| -> Vec<_> {
        let mut guests: Vec<_> = numbers.iter().filter_map(|(_, guest)| *guest).collect();
        guests.sort_unstable();
        guests
    };
    assert_eq!(guests(&after), guests(&before));
    assert!(
        before.iter().all(|pair| !after.contains(pair)),
        "{before:?} {after:?}"
    );
    // It is a tenant like any other there.
    for bdf in functions {
        assert!(copies_a_page(&mut tenant, *bdf));
    }
    assert_eq!(tenant.take_faults().unwrap(), []);
    for process in processes {
        tenant.end_process(process).unwrap();
    }
    tenant.finish().unwrap();
    drop(tenant);
    target.wait_for_end_of(name);
}

const HOSTS: AllocatorKind =
    AllocatorKind::Host(palisade_vtd::spec::virtual_command::Layout::Current);

#[test]
fn r74_two_slices_move_with_copies_under_way_and_the_guests_own_pasids() {
    moves("alice", AllocatorKind::Guest, &[FIRST, SECOND]);
}

#[test]
fn r74_two_slices_move_with_copies_under_way_and_pasids_of_the_host() {
    moves("alice", HOSTS, &[FIRST, SECOND]);
}

#[test]
fn r74_a_slice_and_an_exclusive_function_move_with_copies_under_way() {
    moves("bob", HOSTS, &[FIRST, SECOND]);
}

#[test]
fn r74_a_tenant_whose_pasids_the_new_host_does_not_give_goes_on_where_it_was() {
    let source = start(HOSTS);
    let (target, _other) = start_with_others(HOSTS, "bob");
    // The slice takes one, and the guest's two find no room.
    target.done(&["quota", "alice", "2"]);
    let mut tenant = source
        .connect_to("alice", &at(&source, "alice", &[FIRST]), MEMORY)
        .unwrap();
    let process = tenant.start_process().unwrap();
    tenant.start_process().unwrap();
    let copies = copies_on_demand(&mut tenant, process);
    let outstanding = tenant.submit(FIRST, &copies).unwrap();
    let unit = target.socket("alice-unit");
    let refused = tenant.move_to(&unit, &at(&target, "alice", &[FIRST]));
    stayed(&mut tenant, &refused, outstanding);
    arrived(&tenant, process);
    target.wait_for_end_of("alice");
    tenant.finish().unwrap();
}

#[test]
fn r74_what_the_accelerator_writes_is_logged_until_it_is_told() {
    let source = start(AllocatorKind::Guest);
    let mut tenant = source
        .connect_to("alice", &at(&source, "alice", &[FIRST]), MEMORY)
        .unwrap();
    let copy = copy_of_a_page(tenant.start_process().unwrap());
    tenant.plant(copy.process, copy.from, &[7; 4096]).unwrap();
    tenant.plant(copy.process, copy.to, &[0; 4096]).unwrap();
    let written = |tenant: &mut Tenant| {
        let (accelerator, _) = tenant.accelerator_and_kernel(FIRST).unwrap();
        let client = accelerator.link_mut().client_mut();
        client.dirty_pages(Gpa::new(0), MEMORY).unwrap()
    };
    // Whatever the process sees there lies somewhere in the guest's memory.
    let to = {
        let space = tenant.kernel().process(copy.process).unwrap().space();
        let leaf = space.walk(tenant.kernel().guest(), copy.to).unwrap();
        leaf.unwrap().frame.at
    };
    tenant.copy(FIRST, copy).unwrap();
    let (accelerator, _) = tenant.accelerator_and_kernel(FIRST).unwrap();
    let client = accelerator.link_mut().client_mut();
    assert_eq!(client.start_dma_logging(4096, &[]).unwrap(), 4096);
    assert_eq!(written(&mut tenant), []);
    for _ in 0..3 {
        tenant.copy(FIRST, copy).unwrap();
        let pages = written(&mut tenant);
        assert!(pages.contains(&to), "{to} is not in {pages:?}");
        // The copy and its record, and what the walks marked: not all that there is.
        assert!(pages.len() < 16, "{pages:?}");
        assert_eq!(written(&mut tenant), [], "told once");
    }
}

#[test]
fn r74_a_tenant_that_is_refused_goes_on_where_it_was() {
    let source = start(AllocatorKind::Guest);
    let target = start(AllocatorKind::Guest);
    let mut tenant = source
        .connect_to("alice", &at(&source, "alice", &[FIRST]), MEMORY)
        .unwrap();
    let process = tenant.start_process().unwrap();
    let copies = copies_on_demand(&mut tenant, process);
    let outstanding = tenant.submit(FIRST, &copies).unwrap();
    // The whole of a parent is no slice.
    let whole = FunctionAddress {
        bdf: FIRST,
        socket: target.socket("bob-1"),
    };
    let refused = tenant.move_to(&target.socket("bob-unit"), &[whole]);
    stayed(&mut tenant, &refused, outstanding);
    arrived(&tenant, process);
    target.wait_for_end_of("bob");
    tenant.finish().unwrap();
}
