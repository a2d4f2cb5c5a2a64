//! A device that works in the address spaces of a guest's processes, through a VMM that owns the IOMMU unit.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail like tests"
)]

mod common;

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::Duration,
};

use common::{
    Server,
    guest::{Guest, LIMIT, RAM_BYTES, Unit, answer_until, pasid, reads, writes},
};
use palisade_memory::Protection;
use palisade_units::{Access, Gpa, GuestPasid, Iova, PAGE_BYTES};
use palisade_vfio_user::{
    AskError, Client, ClientError, Errno, InvalidationDone, PasidOffer, PeerGone, PeerHandle,
    TranslationCache,
    wire::pasid::{
        Invalidation, PageResponse, PasidCapability, PasidScope, Tag, Translation, Wanted,
        WantedPage,
    },
};

const SOURCE: u64 = 0x7f00_0000_0000;
const TARGET: u64 = 0x7f00_1234_5000;

fn connected(offer: PasidOffer, guest: &Arc<Guest>) -> (Server, Client) {
    let (server, stream) = Server::offering(offer);
    let unit = Box::new(Unit(Arc::clone(guest)));
    let client = Client::with_pasids(stream, PasidCapability::default(), unit).unwrap();
    (server, client)
}

/// A guest whose process 5 has two pages at the source and two at the target.
fn guest() -> Arc<Guest> {
    let guest = Guest::new();
    guest.new_process(5);
    for n in 0..2 {
        let (from, to) = (guest.new_page(), guest.new_page());
        guest.ram.write(from, &[n as u8 + 1; 4096]).unwrap();
        guest.map(5, SOURCE + n * PAGE_BYTES, from, Access::READ);
        guest.map(5, TARGET + n * PAGE_BYTES, to, Access::WRITE);
    }
    guest
}

/// The toy: copies from one address of a process to another, and asks for pages that are not there.
fn copy(peer: &PeerHandle, raw: u32, from: u64, to: u64, len: usize) -> Result<(), AskError> {
    let data = retried(peer, raw, from, Access::READ, || {
        peer.read_tagged(reads(raw), Iova::new(from), len)?
            .wait(LIMIT)
    })?;
    retried(peer, raw, to, Access::WRITE, || {
        peer.write_tagged(writes(raw), Iova::new(to), &data)?
            .wait(LIMIT)
    })
}

fn retried<T>(
    peer: &PeerHandle,
    raw: u32,
    at: u64,
    access: Access,
    attempt: impl Fn() -> Result<T, AskError>,
) -> Result<T, AskError> {
    match attempt() {
        Err(AskError::Refused(Errno::FAULT)) => {}
        other => return other,
    }
    let page = WantedPage {
        at: Iova::new(at).page_base(),
        access,
    };
    match peer.request_pages(Some(pasid(raw)), &[page])?.wait(LIMIT)? {
        PageResponse::Success => attempt(),
        _ => Err(AskError::Refused(Errno::FAULT)),
    }
}

#[test]
fn a_device_copies_in_the_space_of_a_process() {
    let guest = guest();
    let (server, mut client) = connected(PasidOffer::default(), &guest);
    let peer = server.peer.clone();
    // Across the boundary of pages that lie apart.
    let device = thread::spawn(move || copy(&peer, 5, SOURCE + 0xf00, TARGET + 0xe80, 0x200));
    assert_eq!(answer_until(&mut client, device), Ok(()));

    let peer = server.peer.clone();
    let device = thread::spawn(move || {
        let read = peer.read_tagged(reads(5), Iova::new(TARGET + 0xe00), 0x300);
        read.unwrap().wait(LIMIT)
    });
    let read = answer_until(&mut client, device).unwrap();
    let expected = [vec![0; 0x80], vec![1; 0x100], vec![2; 0x100], vec![0; 0x80]].concat();
    assert_eq!(read, expected);
}

#[test]
fn an_interrupt_after_data_is_seen_after_it() {
    let guest = guest();
    let (server, mut client) = connected(PasidOffer::default(), &guest);
    for n in 1..50 {
        let written = server.peer.write_tagged(writes(5), Iova::new(TARGET), &[n]);
        server
            .peer
            .write_memory(Gpa::new(0xfee0_0000), &[n])
            .unwrap();
        let mut seen = 0;
        while seen == 0 {
            client.wait_messages(LIMIT).unwrap();
            seen = client.poll_messages(|_| {}).unwrap();
        }
        let place = guest.place_of(5, TARGET).unwrap();
        let mut data = [0];
        guest.ram.read(place, &mut data).unwrap();
        assert_eq!(data, [n]);
        assert_eq!(written.unwrap().wait(LIMIT), Ok(()));
    }
}

#[test]
fn many_threads_of_a_device_ask_at_once() {
    let guest = guest();
    let (server, mut client) = connected(PasidOffer::default(), &guest);
    let device = |n: u8| {
        let peer = server.peer.clone();
        thread::spawn(move || {
            let at = Iova::new(TARGET + u64::from(n) * 64);
            for round in 0..100 {
                let data = [n ^ round; 64];
                let written = peer.write_tagged(writes(5), at, &data).unwrap();
                let read = peer.read_tagged(reads(5), at, 64).unwrap();
                assert_eq!(written.wait(LIMIT), Ok(()));
                assert_eq!(read.wait(LIMIT), Ok(data.to_vec()));
            }
        })
    };
    let threads: Vec<_> = (0..8).map(device).collect();
    for thread in threads {
        answer_until(&mut client, thread);
    }
}

#[test]
fn r2_processes_do_not_meet_and_permissions_hold() {
    let guest = guest();
    guest.new_process(6);
    let (server, mut client) = connected(PasidOffer::default(), &guest);
    let peer = server.peer.clone();
    let device = thread::spawn(move || {
        let read = |tag, at| peer.read_tagged(tag, Iova::new(at), 8)?.wait(LIMIT);
        let write = peer.write_tagged(writes(5), Iova::new(SOURCE), &[9]);
        [
            read(reads(6), SOURCE).map(|_| ()),
            read(reads(7), SOURCE).map(|_| ()),
            write.unwrap().wait(LIMIT),
            read(
                Tag {
                    pasid: None,
                    access: Access::READ,
                },
                SOURCE,
            )
            .map(|_| ()),
            copy(&peer, 6, SOURCE, TARGET, 8),
        ]
    });
    let refused = |errno| Err(AskError::Refused(errno));
    assert_eq!(
        answer_until(&mut client, device),
        [
            refused(Errno::FAULT),
            refused(Errno::ACCESS),
            refused(Errno::FAULT),
            refused(Errno::ACCESS),
            refused(Errno::FAULT),
        ]
    );
    assert_eq!(guest.page_requests.load(Ordering::Relaxed), 1);
}

#[test]
fn pages_that_are_not_there_are_asked_for() {
    let guest = guest();
    let away = guest.new_page();
    guest.ram.write(away, b"swapped").unwrap();
    guest.swap_out(5, 0x5000, away);
    let (server, mut client) = connected(PasidOffer::default(), &guest);
    let peer = server.peer.clone();
    let device = thread::spawn(move || copy(&peer, 5, 0x5000, TARGET, 7));
    assert_eq!(answer_until(&mut client, device), Ok(()));
    assert_eq!(guest.page_requests.load(Ordering::Relaxed), 1);
}

#[test]
fn groups_are_answered_late_and_in_any_order() {
    let guest = guest();
    *guest.later.lock().unwrap() = Some(Vec::new());
    let (server, mut client) = connected(PasidOffer::default(), &guest);
    let pages = |at: u64| {
        let page = WantedPage {
            at: Iova::new(at),
            access: Access::READ,
        };
        server.peer.request_pages(Some(pasid(5)), &[page]).unwrap()
    };
    let (first, second) = (pages(0x1000), pages(0x2000));
    while guest.later.lock().unwrap().as_ref().unwrap().len() < 2 {
        client.wait_messages(Duration::from_millis(2)).unwrap();
        client.poll_messages(|_| {}).unwrap();
    }
    let waiting = guest.later.lock().unwrap().take().unwrap();
    assert_eq!([waiting[0].group, waiting[1].group], [0, 1]);
    client
        .respond_to_pages(1, PageResponse::InvalidRequest)
        .unwrap();
    assert_eq!(second.wait(LIMIT), Ok(PageResponse::InvalidRequest));
    assert_eq!(first.poll(), None);
    client
        .respond_to_pages(0, PageResponse::ResponseFailure)
        .unwrap();
    assert_eq!(first.wait(LIMIT), Ok(PageResponse::ResponseFailure));
    let again = client.respond_to_pages(0, PageResponse::Success);
    assert!(matches!(again, Err(ClientError::NoSuchGroup(0))));
}

/// A device that keeps translations.
#[derive(Default)]
struct Kept {
    entries: Mutex<Vec<(GuestPasid, Translation)>>,
    /// Whether completions wait here until somebody drops or completes them.
    held: Mutex<Option<Vec<InvalidationDone>>>,
}

impl Kept {
    fn find(&self, pasid: GuestPasid, at: u64) -> Option<Gpa> {
        let entries = self.entries.lock().unwrap();
        let entry = entries.iter().find(|(owner, entry)| {
            *owner == pasid && (entry.at.get()..entry.at.get() + entry.len_bytes).contains(&at)
        });
        let (_, entry) = entry?;
        entry.translated?.checked_add(at - entry.at.get())
    }
}

impl TranslationCache for Kept {
    fn invalidate(&self, what: Invalidation, done: InvalidationDone) {
        let mut entries = self.entries.lock().unwrap();
        entries.retain(|(pasid, entry)| !what.contains(Some(*pasid), entry.at));
        match &mut *self.held.lock().unwrap() {
            Some(held) => held.push(done),
            None => done.complete(),
        }
    }
}

fn wanted(at: u64, len_bytes: u64) -> Wanted {
    Wanted {
        tag: reads(5),
        at: Iova::new(at),
        len_bytes,
        max_ranges: 8,
    }
}

fn keeping(cache: &Arc<Kept>) -> PasidOffer {
    PasidOffer {
        cache: Some(Arc::clone(cache) as _),
        ..PasidOffer::default()
    }
}

#[test]
fn a_device_keeps_translations_until_they_are_invalidated() {
    let (guest, cache) = (guest(), Arc::new(Kept::default()));
    let (server, mut client) = connected(keeping(&cache), &guest);
    let backing = guest.ram.backing();
    client
        .dma_map(Gpa::new(0), RAM_BYTES, &backing, Protection::ReadWrite)
        .unwrap();
    let (peer, kept) = (server.peer.clone(), Arc::clone(&cache));
    let ask = move || {
        let answer = peer.translate(wanted(SOURCE, 0x2000)).unwrap();
        let answer = answer.wait(LIMIT).unwrap();
        let mut entries = kept.entries.lock().unwrap();
        let is_current = peer.is_current(&answer);
        if is_current {
            entries.extend(answer.ranges().iter().map(|range| (pasid(5), *range)));
        }
        (is_current, answer.ranges().len())
    };
    let device = thread::spawn(ask.clone());
    assert_eq!(answer_until(&mut client, device), (true, 2));

    // The memory itself, and nothing over the connection.
    let mut bytes = [0; 4];
    let at = cache.find(pasid(5), SOURCE + 0x1010).unwrap();
    server.memory.read(at, &mut bytes).unwrap();
    assert_eq!(bytes, [2; 4]);

    guest.unmap(5, SOURCE + 0x1000);
    client
        .invalidate(Invalidation {
            pasids: PasidScope::One(pasid(5)),
            range: Some((Iova::new(SOURCE + 0x1000), PAGE_BYTES)),
        })
        .unwrap();
    assert_eq!(cache.find(pasid(5), SOURCE + 0x1010), None);
    assert!(cache.find(pasid(5), SOURCE).is_some());
    let device = thread::spawn(ask);
    assert_eq!(answer_until(&mut client, device), (true, 1));
}

#[test]
fn an_answer_from_before_an_invalidation_is_not_kept() {
    let (guest, cache) = (guest(), Arc::new(Kept::default()));
    let (server, mut client) = connected(keeping(&cache), &guest);
    let pending = server.peer.translate(wanted(SOURCE, 1)).unwrap();
    client.wait_messages(LIMIT).unwrap();
    client.poll_messages(|_| {}).unwrap();
    let all = Invalidation {
        pasids: PasidScope::All,
        range: None,
    };
    client.invalidate(all).unwrap();
    let answer = pending.wait(LIMIT).unwrap();
    assert!(!server.peer.is_current(&answer));
}

#[test]
fn an_invalidation_waits_for_the_device_and_the_device_is_answered_meanwhile() {
    let (guest, cache) = (guest(), Arc::new(Kept::default()));
    *cache.held.lock().unwrap() = Some(Vec::new());
    let (server, mut client) = connected(keeping(&cache), &guest);
    let (peer, kept) = (server.peer.clone(), Arc::clone(&cache));
    let device = thread::spawn(move || {
        let done = loop {
            if let Some(done) = kept.held.lock().unwrap().as_mut().unwrap().pop() {
                break done;
            }
            thread::yield_now();
        };
        copy(&peer, 5, SOURCE, TARGET, 16).unwrap();
        done.complete();
        // The next one is forgotten, which the VMM must not take for done.
        *kept.held.lock().unwrap() = Some(Vec::new());
        while kept.held.lock().unwrap().as_mut().unwrap().pop().is_none() {
            thread::yield_now();
        }
    });
    let all = Invalidation {
        pasids: PasidScope::All,
        range: None,
    };
    client.invalidate(all).unwrap();
    let forgotten = client.invalidate(all).unwrap_err();
    assert_eq!(forgotten.errno(), Some(Errno::IO));
    device.join().unwrap();
}

/// A device that waits where it must not.
#[derive(Default)]
struct Waits {
    peer: Mutex<Option<PeerHandle>>,
    found: Mutex<Option<AskError>>,
}

impl TranslationCache for Waits {
    fn invalidate(&self, _: Invalidation, done: InvalidationDone) {
        let peer = self.peer.lock().unwrap().clone().unwrap();
        let read = peer.read_tagged(reads(5), Iova::new(SOURCE), 1).unwrap();
        *self.found.lock().unwrap() = read.wait(LIMIT).err();
        done.complete();
    }
}

#[test]
fn the_connections_own_thread_is_told_that_it_waits_in_vain() {
    let waits = Arc::new(Waits::default());
    let offer = PasidOffer {
        cache: Some(Arc::clone(&waits) as _),
        ..PasidOffer::default()
    };
    let (server, mut client) = connected(offer, &guest());
    *waits.peer.lock().unwrap() = Some(server.peer.clone());
    let all = Invalidation {
        pasids: PasidScope::All,
        range: None,
    };
    client.invalidate(all).unwrap();
    assert_eq!(*waits.found.lock().unwrap(), Some(AskError::OwnThread));
}

#[test]
fn what_was_not_agreed_is_refused_before_anything_is_sent() {
    let page = [WantedPage {
        at: Iova::new(0),
        access: Access::READ,
    }];
    let (server, _client) = Server::with_client();
    let peer = &server.peer;
    assert_eq!(peer.pasids(), None);
    let refused = peer.read_tagged(reads(5), Iova::new(0), 1).unwrap_err();
    assert_eq!(refused, AskError::NotAgreed);
    let refused = peer.request_pages(None, &page).unwrap_err();
    assert_eq!(refused, AskError::NotAgreed);

    let narrow = PasidCapability {
        width: 4,
        max_page_groups: 0,
        max_commands: 1,
        ..PasidCapability::default()
    };
    let (server, stream) = Server::offering(PasidOffer::default());
    let mut client = Client::with_pasids(stream, narrow, Box::new(Unit(guest()))).unwrap();
    let peer = &server.peer;
    let agreed = client.pasids().unwrap();
    assert_eq!((agreed.width, agreed.max_invalidations), (4, 0));
    assert_eq!(
        peer.request_pages(None, &page).unwrap_err(),
        AskError::NotAgreed
    );
    assert_eq!(
        peer.translate(wanted(0, 1)).unwrap_err(),
        AskError::NotAgreed
    );
    let all = Invalidation {
        pasids: PasidScope::All,
        range: None,
    };
    assert!(matches!(
        client.invalidate(all),
        Err(ClientError::NotAgreed)
    ));
    let senseless = |tag, len| peer.read_tagged(tag, Iova::new(0), len).unwrap_err();
    assert_eq!(senseless(reads(16), 1), AskError::Senseless);
    assert_eq!(senseless(writes(5), 1), AskError::Senseless);
    assert_eq!(senseless(reads(5), 0), AskError::Senseless);
    assert_eq!(senseless(reads(5), 65_537), AskError::Senseless);

    let first = peer.read_tagged(reads(5), Iova::new(0), 1).unwrap();
    assert_eq!(
        peer.read_tagged(reads(5), Iova::new(0), 1).unwrap_err(),
        AskError::Busy
    );
    // Too late is no reason to forget that it is unanswered.
    assert_eq!(first.wait(Duration::ZERO), Err(AskError::Late));
    assert_eq!(
        peer.read_tagged(reads(5), Iova::new(0), 1).unwrap_err(),
        AskError::Busy
    );
    drop(client);
    let gone = server.peer.clone();
    server.end().unwrap();
    assert_eq!(
        gone.read_tagged(reads(5), Iova::new(0), 1).unwrap_err(),
        AskError::Gone(PeerGone)
    );
}

#[test]
fn r78_who_waits_for_a_vmm_that_goes_is_told() {
    let (server, client) = connected(PasidOffer::default(), &guest());
    let pending = server
        .peer
        .read_tagged(reads(5), Iova::new(SOURCE), 1)
        .unwrap();
    drop(client);
    assert!(matches!(pending.wait(LIMIT), Err(AskError::Gone(_))));
    let _ = server.end();
}
