use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use palisade_ioasid::PasidRange;
use palisade_iommu::{Cached, Space};
use palisade_memory::Protection;
use palisade_units::Gpa;

use super::world::*;
use crate::{GuestScope, SpaceKey};

const BUFFER: u64 = 0x7f00_0000_0000;

/// Legal: bound and then freed, so nothing is left; or freed and then bound as a number of the
/// guest's own, so the pair is one that the bind made. Never an entry whose PASID was freed.
#[test]
fn r42_bind_and_free_of_one_pasid_end_in_one_of_two_legal_states() {
    let host_side = Host::new();
    let alice = host_side.tenant(1);
    let _function = alice.mediated(slot(4), &host_side.parent(1));
    let books = host_side.books();
    let container = &alice.container;
    for _ in 0..300 {
        let n = container.alloc_pasid(PasidRange::ALL).unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                alice
                    .bind(slot(4), pasid(n.get()), Space::PassThrough)
                    .unwrap();
            });
            start.wait();
            container.free_pasid(n).unwrap();
        });
        for entry in host_side.iommu.audit() {
            assert_eq!(
                host_side.authority.owner_of(entry.host_pasid),
                Some(entry.tenant)
            );
            assert!(
                container.set().hold(entry.host_pasid).is_ok(),
                "it was freed"
            );
        }
        match container.bound(slot(4)).len() {
            1 => assert_eq!(host_side.books(), books),
            _ => {
                assert_eq!(errno(container.free_pasid(n)), ENOENT);
                container.unbind(slot(4), pasid(n.get())).unwrap();
                assert_eq!(host_side.books(), books);
            }
        }
    }
}

/// The unit's thread binds, a device's thread translates, another removes memory, engines read, and
/// the operator closes: nobody waits for ever, and nothing is left.
#[test]
fn r13_threads_of_one_tenant_call_in_at_once_and_the_books_balance() {
    const ROUNDS: u32 = 400;
    let host_side = Host::new();
    let (alice, bob) = (host_side.tenant(1), host_side.tenant(2));
    let parent = host_side.parent(1);
    let attachment = alice.mediated(slot(4), &parent);
    let _second = alice.mediated(slot(5), &parent);
    let _his = bob.mediated(slot(4), &parent);
    bob.ram.store_u64(0x1000, 0xb0b).unwrap();
    bob.bind(slot(4), pasid(1), Space::PassThrough).unwrap();
    let his = bob.container.translate(slot(4), guest(1)).unwrap();
    let books = host_side.books();
    let space = alice.process(&[(BUFFER, 0x1000)]);
    let container = &alice.container;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers = [
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let key = pasid(1 + round % 3);
                    let at = slot(4 + u8::from(round % 2 == 0));
                    let _ = alice.bind(at, key, space);
                    container.invalidate(at, GuestScope::Key(key), Cached::InUnit);
                    if round % 5 != 0 {
                        let _ = container.unbind(at, key);
                    }
                }
            }),
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    if let Ok(n) = container.alloc_pasid(PasidRange::ALL) {
                        let _ = alice.bind(slot(4), pasid(n.get()), space);
                        if round % 3 != 0 {
                            // Gone already if a close came in between.
                            let _ = container.free_pasid(n);
                        }
                    }
                    let _ = alice.bind(slot(5), SpaceKey::WithoutPasid, Space::PassThrough);
                }
            }),
            scope.spawn(|| {
                for round in 0..ROUNDS {
                    let at = Gpa::new(2 * RAM_BYTES);
                    let memory = attachment.memory();
                    memory
                        .map(at, 0x1000, alice.ram.backing(), Protection::ReadWrite)
                        .unwrap();
                    attachment.unmap(at, 0x1000).unwrap();
                    if round % 100 == 99 {
                        container.close();
                    }
                }
            }),
        ];
        scope.spawn(|| {
            let mut port = parent.port();
            while !is_over.load(Ordering::Relaxed) {
                for number in 0..8 {
                    if let Ok(hold) = container.translate(slot(4), guest(number)) {
                        let _ = read(&mut port, holding(&hold), BUFFER);
                    }
                }
                assert_eq!(read(&mut port, holding(&his), 0x1000), Ok(0xb0b));
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    container.close();
    assert_eq!(host_side.books(), books);
}
