//! Tenants in real processes at a daemon's sockets.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use palisade_host::control;
use palisade_vfio_user::{
    Client, Region,
    wire::{REGION_READS, REGION_WRITES},
};

use crate::host::{self, Daemon, FIRST, PATIENCE, TenantProcess, copy_of_a_page, palisade};

const MIB: u64 = 1 << 20;

#[test]
fn sigterm_ends_it_cleanly_with_a_tenant_at_work() {
    let mut daemon = Daemon::start();
    let alice = TenantProcess::start(&daemon, "alice", 1 << 40);
    alice.wait_for("progress");
    assert!(daemon.end().success());
    let left: Vec<_> = fs::read_dir(daemon.folder())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["host.toml"], "its sockets are gone");
    alice.kill();
}

#[test]
fn r33_a_tenant_that_is_killed_at_work_gives_everything_back() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ledger().outstanding, 0);
    let bob = TenantProcess::start(&daemon, "bob", 64 * MIB);
    let alice = TenantProcess::start(&daemon, "alice", 1 << 40);
    alice.wait_for("progress");
    assert!(daemon.ledger().outstanding > 0);
    alice.kill();
    daemon.wait_for_end_of("alice");
    // Bob went on, and another process may be alice now.
    assert_eq!(bob.wait_for("copied")["verified"], true);
    let alice = TenantProcess::start(&daemon, "alice", 8 * MIB);
    assert_eq!(alice.wait_for("copied")["verified"], true);
    alice.finish();
    bob.finish();
    daemon.wait_for_end_of("alice");
    daemon.wait_for_end_of("bob");
    assert_eq!(daemon.ledger().outstanding, 0);
}

#[test]
fn a_tenant_is_one_process() {
    let daemon = Daemon::start();
    let alice = TenantProcess::start(&daemon, "alice", 8 * MIB);
    alice.wait_for("copied");
    // Her second function is free, but this is another process.
    assert!(Client::connect(daemon.socket("alice-1")).is_err());
    alice.finish();
    daemon.wait_for_end_of("alice");
    assert!(Client::connect(daemon.socket("alice-1")).is_ok());
}

#[test]
fn garbage_costs_its_sender_the_connection_and_nobody_else_anything() {
    let daemon = Daemon::start();
    let alice = TenantProcess::start(&daemon, "alice", 64 * MIB);
    for garbage in [&[0xff; 64][..], &[0; 16], &b"GET / HTTP/1.1\r\n\r\n"[..]] {
        let mut stream = UnixStream::connect(daemon.socket("bob-0")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(garbage).unwrap();
        // An error is reported or not; then the connection ends.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // Half a frame, and then nothing any more.
    UnixStream::connect(daemon.socket("bob-unit"))
        .unwrap()
        .write_all(&[1, 0, 1])
        .unwrap();
    assert_eq!(alice.wait_for("copied")["verified"], true);
    alice.finish();
    let bob = TenantProcess::start(&daemon, "bob", 8 * MIB);
    assert_eq!(bob.wait_for("copied")["verified"], true);
    bob.finish();
}

#[test]
fn memory_that_vanishes_costs_its_tenant_the_access_and_the_host_nothing() {
    let daemon = Daemon::start();
    let mut bob = daemon.connect("bob", 64 * MIB).unwrap();
    let copy = copy_of_a_page(bob.start_process().unwrap());
    bob.plant(copy.process, copy.from, &[7; 4096]).unwrap();
    bob.plant(copy.process, copy.to, &[0; 4096]).unwrap();
    bob.copy(FIRST, copy).unwrap();
    let backing = bob.kernel().guest().backing();
    rustix::fs::ftruncate(&backing.fd, 0).unwrap();
    // Its tables, queues and records are gone with its memory.
    assert!(bob.copy(FIRST, copy).is_err());
    let alice = TenantProcess::start(&daemon, "alice", 8 * MIB);
    assert_eq!(alice.wait_for("copied")["verified"], true);
    alice.finish();
    drop(bob);
    daemon.wait_for_end_of("bob");
    assert_eq!(daemon.ledger().outstanding, 0);
}

#[test]
fn r9_the_ledger_shows_what_the_guest_was_given() {
    let daemon = Daemon::start();
    let alice = TenantProcess::start(&daemon, "alice", 8 * MIB);
    let given = alice.wait_for("copied")["host_pasids"].clone();
    let said = palisade()
        .args(["ctl", "ledger", "--json", "--socket"])
        .arg(daemon.socket("control"))
        .output()
        .unwrap();
    let ledger: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    let pasids = ledger["tenants"][0]["pasids"].as_array().unwrap();
    // The guest's number for what it allocated is the host's; the function's default has none.
    let guests: Vec<_> = pasids.iter().filter(|p| !p["guest"].is_null()).collect();
    assert!(guests.iter().all(|p| p["pasid"] == p["guest"]), "{ledger}");
    let numbers: Vec<_> = guests.iter().map(|p| p["pasid"].clone()).collect();
    assert_eq!(serde_json::Value::from(numbers), given);
    alice.finish();
}

/// How many ranges of tenants' memory a daemon has mapped.
fn mapped(daemon: &Daemon) -> usize {
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    maps.lines().filter(|line| line.contains("/memfd:")).count()
}

#[test]
fn r33_the_memory_of_a_tenant_that_is_gone_is_let_go() {
    let daemon = Daemon::start();
    let alice = TenantProcess::start(&daemon, "alice", 8 * MIB);
    alice.wait_for("copied");
    assert!(mapped(&daemon) > 0);
    alice.kill();
    daemon.wait_for_end_of("alice");
    host::wait_until("nothing of the tenant's memory is mapped", || {
        mapped(&daemon) == 0
    });
}

/// The process's addresses are all tenants': one that maps, touches and unmaps must not use them up.
#[test]
fn r44_memory_that_a_tenant_takes_back_is_let_go_while_it_stays() {
    let daemon = Daemon::start();
    let mut bob = daemon.connect("bob", 64 * MIB).unwrap();
    let copy = copy_of_a_page(bob.start_process().unwrap());
    bob.plant(copy.process, copy.from, &[7; 4096]).unwrap();
    bob.plant(copy.process, copy.to, &[0; 4096]).unwrap();
    bob.copy(FIRST, copy).unwrap();
    assert_eq!(mapped(&daemon), 2, "the unit's and the function's");
    let (accelerator, _) = bob.accelerator_and_kernel(FIRST).unwrap();
    let client = accelerator.link_mut().client_mut();
    client.dma_unmap_all().unwrap();
    host::wait_until("the function's memory is not mapped", || {
        mapped(&daemon) == 1
    });
}

#[test]
fn r18_a_client_is_offered_no_page_to_map() {
    let daemon = Daemon::start();
    for name in ["alice-unit", "alice-0", "alice-1"] {
        let mut client = Client::connect(daemon.socket(name)).unwrap();
        let mut regions = 0;
        for region in (0..Region::COUNT).filter_map(Region::from_index) {
            let info = client.region_info(region).unwrap();
            assert_eq!(
                info.flags & !(REGION_READS | REGION_WRITES),
                0,
                "{name} {region:?}"
            );
            regions += usize::from(info.len_bytes > 0);
        }
        // Registers and configuration space at the least: there was something to look at.
        assert!(regions >= 2, "{name}");
    }
}

#[test]
fn r79_the_events_say_who_allocated_bound_and_freed() {
    let daemon = Daemon::start();
    let alice = TenantProcess::start(&daemon, "alice", 8 * MIB);
    let given = alice.wait_for("copied")["host_pasids"][0].as_u64().unwrap();
    alice.finish();
    daemon.wait_for_end_of("alice");
    let page = control::ask_events(&daemon.socket("control"), 0).unwrap();
    let of_it = page
        .events
        .iter()
        .filter(|e| e.pasid.map(u64::from) == Some(given));
    let of_it: Vec<_> = of_it
        .filter(|e| e.tenant.as_deref() == Some("alice"))
        .collect();
    let position = |what: &str| of_it.iter().position(|e| e.what == what).unwrap();
    assert!(position("allocated") < position("bound"), "{of_it:?}");
    assert!(position("bound") < position("unbound"), "{of_it:?}");
    assert!(position("unbound") < position("freed"), "{of_it:?}");
    let later = control::ask_events(&daemon.socket("control"), page.next).unwrap();
    assert_eq!((later.events, later.dropped), (Vec::new(), 0));
}
