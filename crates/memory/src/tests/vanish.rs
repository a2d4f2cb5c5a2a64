//! A tenant that takes its memory away (R78: no input kills the process).

use super::{PAGE, map, ram};
use crate::{GuestMemory, MemoryError, Protection};
use palisade_units::Gpa;
use rustix::fs::ftruncate;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, ptr, thread};

const AT: Gpa = Gpa::new(0x4000);

#[test]
fn r78_a_truncated_region_is_an_error_and_others_go_on() {
    let memory = GuestMemory::new();
    let doomed = map(&memory, AT.get(), 4).unwrap();
    let other = map(&memory, 0x10_0000, 1).unwrap();
    other.store_u64(0, 5).unwrap();
    let kept = memory.page(AT, 4 * PAGE).unwrap();
    let end = AT.checked_add(2 * PAGE).unwrap();
    ftruncate(&doomed.backing().fd, 2 * PAGE).unwrap();

    assert_eq!(memory.load_u64(AT), Ok(0), "the pages that are left work");
    let gone = MemoryError::Vanished { at: end };
    assert_eq!(memory.read(end, &mut [0; 100]), Err(gone));
    let gone = MemoryError::Vanished { at: AT };
    assert_eq!(memory.load_u64(AT), Err(gone), "one page gone, all gone");
    assert_eq!(kept.write(0, &[1]), Err(gone));
    assert_eq!(memory.load_u64(Gpa::new(0x10_0000)), Ok(5));

    memory.unmap(AT, 4 * PAGE).unwrap();
    map(&memory, AT.get(), 4).unwrap();
    assert_eq!(memory.load_u64(end), Ok(0), "other memory, not marked");
}

#[test]
fn r78_every_kind_of_access_survives_the_hole() {
    type Access = fn(&GuestMemory) -> Result<(), MemoryError>;
    let accesses: [Access; 12] = [
        |m| m.read(AT, &mut [0; 4096]),
        |m| m.read(AT, &mut [0; 8]),
        |m| m.read(AT, &mut [0; 3]),
        |m| m.write(AT, &[1; 4096]),
        |m| m.write(AT, &[1; 4]),
        |m| m.load_u64(AT).map(drop),
        |m| m.store_u32(AT, 1),
        |m| m.fetch_or_u64(AT, 1).map(drop),
        |m| m.compare_exchange_u64(AT, 0, 1).map(drop),
        |m| m.page(AT, PAGE)?.fill(0, PAGE, 1),
        |m| m.page(AT, PAGE)?.fill_pattern(0, PAGE, 0x1234),
        |m| m.page(AT, PAGE)?.store_u8(0, 1),
    ];
    for (index, access) in accesses.into_iter().enumerate() {
        let memory = GuestMemory::new();
        let ram = map(&memory, AT.get(), 1).unwrap();
        ftruncate(&ram.backing().fd, 0).unwrap();
        let gone = Err(MemoryError::Vanished { at: AT });
        assert_eq!(access(&memory), gone, "access {index}");
    }
}

#[test]
fn r78_a_copy_tells_which_side_is_gone() {
    let memory = GuestMemory::new();
    let (source, target) = (Gpa::new(0), Gpa::new(0x10_0000));
    let first = map(&memory, source.get(), 1).unwrap();
    let second = map(&memory, target.get(), 1).unwrap();
    let from = memory.page(source, PAGE).unwrap();
    let to = memory.page(target, PAGE).unwrap();
    ftruncate(&second.backing().fd, 0).unwrap();
    let copied = from.copy_to(0, &to, 0, PAGE);
    assert_eq!(copied, Err(MemoryError::Vanished { at: target }));
    ftruncate(&first.backing().fd, 0).unwrap();
    let copied = from.copy_to(0, &to, 0, PAGE);
    assert_eq!(copied, Err(MemoryError::Vanished { at: target }));
    map(&memory, 0x20_0000, 1).unwrap();
    let to = memory.page(Gpa::new(0x20_0000), PAGE).unwrap();
    let copied = from.copy_to(8, &to, 0, 8);
    let at = Gpa::new(8);
    assert_eq!(copied, Err(MemoryError::Vanished { at }));
}

#[test]
fn r78_a_read_only_region_may_vanish_too() {
    let memory = GuestMemory::new();
    let ram = ram(1);
    memory
        .map(AT, PAGE, ram.backing(), Protection::ReadOnly)
        .unwrap();
    ftruncate(&ram.backing().fd, 0).unwrap();
    let gone = MemoryError::Vanished { at: AT };
    assert_eq!(memory.load_u64(AT), Err(gone));
}

#[test]
fn r78_threads_that_fault_together_all_learn_it() {
    for _ in 0..50 {
        let memory = GuestMemory::new();
        let ram = map(&memory, AT.get(), 64).unwrap();
        thread::scope(|scope| {
            for reader in 0..3_u64 {
                let memory = &memory;
                scope.spawn(move || {
                    for step in reader.. {
                        let at = AT.checked_add(step % 64 * PAGE).unwrap();
                        match memory.store_u64(at, step) {
                            Ok(()) => {}
                            Err(MemoryError::Vanished { .. }) => break,
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
            ftruncate(&ram.backing().fd, 0).unwrap();
        });
    }
}

/// Slots come and go on one thread while another faults again and again.
#[test]
fn r78_regions_come_and_go_while_others_vanish() {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let memory = GuestMemory::new();
                // More than one chunk of slots.
                for index in 0..100 {
                    map(&memory, index * PAGE, 1).unwrap();
                    let at = Gpa::new(index * PAGE);
                    assert_eq!(memory.fetch_or_u64(at, index), Ok(0));
                }
            }
        });
        for _ in 0..200 {
            let memory = GuestMemory::new();
            let ram = map(&memory, AT.get(), 1).unwrap();
            ftruncate(&ram.backing().fd, 0).unwrap();
            assert!(memory.load_u64(AT).is_err());
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// The variable that tells the test binary to be a child, and which.
const CHILD: &str = "PALISADE_MEMORY_TEST_CHILD";

/// Runs this test binary again as the child of that name; what became of it.
fn run_child(name: &str) -> ExitStatus {
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::vanish::child", "--include-ignored"])
        .env(CHILD, name)
        .output();
    status.unwrap().status
}

#[test]
fn a_foreign_sigbus_still_kills() {
    let status = run_child("fault");
    assert_eq!(status.signal(), Some(libc::SIGBUS));
}

#[test]
fn a_sigbus_that_someone_sent_still_kills() {
    let status = run_child("sent");
    assert_eq!(status.signal(), Some(libc::SIGBUS));
}

#[test]
fn a_foreign_sigbus_goes_to_the_handler_from_before() {
    assert_eq!(run_child("chained fault").code(), Some(42));
    assert_eq!(run_child("chained sent").code(), Some(42));
}

#[test]
fn a_sigbus_that_is_ignored_stays_ignored() {
    assert_eq!(run_child("ignored sent").code(), Some(7));
    assert_eq!(run_child("ignored fault").signal(), Some(libc::SIGBUS));
}

extern "C" fn exit_with_42(_signal: libc::c_int) {
    // SAFETY: `_exit` may be called in a handler.
    unsafe { libc::_exit(42) };
}

/// Not a test by itself: the process that the tests above look at.
#[test]
#[ignore = "the tests above run it as a child"]
fn child() {
    let Ok(name) = env::var(CHILD) else { return };
    let handler: extern "C" fn(libc::c_int) = exit_with_42;
    let before = match name.split(' ').next() {
        Some("chained") => Some(handler as usize),
        Some("ignored") => Some(libc::SIG_IGN),
        _ => None,
    };
    if let Some(action) = before {
        // SAFETY: the action is a number that `signal` knows, or a handler of its signature.
        unsafe { libc::signal(libc::SIGBUS, action) };
    }
    let memory = GuestMemory::new();
    let ours = map(&memory, AT.get(), 1).unwrap();
    ftruncate(&ours.backing().fd, 0).unwrap();
    assert!(memory.load_u64(AT).is_err(), "the handler is in place");

    if name.ends_with("sent") {
        // SAFETY: sends a signal to this thread.
        unsafe { libc::raise(libc::SIGBUS) };
    } else {
        let file = ram(1).backing().fd;
        let (access, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
        // SAFETY: the kernel chooses the address, so nothing is replaced.
        let mapped =
            unsafe { rustix::mm::mmap(ptr::null_mut(), 4096, access, flags, &file, 0) }.unwrap();
        ftruncate(&file, 0).unwrap();
        // SAFETY: the page is mapped; that it faults is what the child is for.
        unsafe { mapped.cast::<u8>().read_volatile() };
    }
    // SAFETY: ends the process.
    unsafe { libc::_exit(7) };
}
