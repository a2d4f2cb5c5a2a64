//! Once for each transition, in order, to those who listened at the time.

use std::sync::{Arc, Barrier, Mutex};

use super::*;
use crate::{Data, Hold, Listener, Notification, PasidRange, Priority, Transition};

type Heard = Arc<Mutex<Vec<(&'static str, Notification)>>>;

/// Writes its name and what it was told into a list that several share.
struct Ear(&'static str, Heard);

impl Listener for Ear {
    fn notify(&self, notification: &Notification) {
        self.1.lock().unwrap().push((self.0, *notification));
    }
}

fn ear(name: &'static str, heard: &Heard) -> Arc<dyn Listener> {
    Arc::new(Ear(name, Arc::clone(heard)))
}

fn names(heard: &Heard) -> Vec<&'static str> {
    heard.lock().unwrap().drain(..).map(|(n, _)| n).collect()
}

fn kinds(heard: &Heard) -> Vec<Transition> {
    let mut heard = heard.lock().unwrap();
    heard.drain(..).map(|(_, told)| told.kind).collect()
}

#[test]
fn r50_listeners_are_told_in_the_order_cpu_iommu_device_last_per_set_and_global() {
    let authority = Authority::new(&[]);
    let heard = Heard::default();
    let alice = authority.create_set(ALICE, Quota::default()).unwrap();
    let bob = authority.create_set(BOB, Quota::default()).unwrap();
    let _subscriptions = [
        authority.listen(Priority::Last, ear("last", &heard)),
        alice.listen(Priority::Device, ear("her device", &heard)),
        authority.listen(Priority::Device, ear("device", &heard)),
        alice.listen(Priority::Cpu, ear("her cpu", &heard)),
        authority.listen(Priority::Iommu, ear("iommu", &heard)),
    ];
    alice.alloc(PasidRange::ALL).unwrap();
    let all = ["her cpu", "iommu", "her device", "device", "last"];
    assert_eq!(names(&heard), all);
    bob.alloc(PasidRange::ALL).unwrap();
    assert_eq!(names(&heard), ["iommu", "device", "last"]);
}

#[test]
fn r50_each_transition_is_told_once_and_a_refusal_not_at_all() {
    let authority = Authority::new(&[]);
    let heard = Heard::default();
    let _listening = authority.listen(Priority::Cpu, ear("cpu", &heard));
    let set = authority.create_set(ALICE, Quota::Exactly(1)).unwrap();
    let pasid = set.alloc(PasidRange::ALL).unwrap();
    assert!(set.alloc(PasidRange::ALL).is_err());
    set.attach_guest(GuestPasid::new(9).unwrap(), pasid)
        .unwrap();
    set.set_data(pasid, Some(Data(7))).unwrap();
    let hold = set.hold(pasid).unwrap();
    let first = hold.bind(PLACE).unwrap();
    let second = hold.bind(PLACE).unwrap();
    drop(first);
    let told = heard.lock().unwrap().pop().unwrap().1;
    let expected = Notification {
        kind: Transition::Bind,
        pasid,
        guest: GuestPasid::new(9).ok(),
        tenant: ALICE,
        data: Some(Data(7)),
    };
    assert_eq!(told, expected);
    assert_eq!(kinds(&heard), [Transition::Alloc]);
    set.free(pasid).unwrap();
    set.free(pasid).unwrap();
    assert_eq!(kinds(&heard), [Transition::Free]);
    drop((second, hold));
    assert_eq!(kinds(&heard), [Transition::Unbind]);
    set.alloc(PasidRange::ALL).unwrap();
    set.close();
    assert_eq!(kinds(&heard), [Transition::Alloc, Transition::Free]);
}

#[test]
fn r50_nothing_is_replayed_to_who_comes_later_nor_told_to_who_left() {
    let authority = Authority::new(&[]);
    let heard = Heard::default();
    let set = authority.create_set(ALICE, Quota::default()).unwrap();
    let pasid = set.alloc(PasidRange::ALL).unwrap();
    let listening = set.listen(Priority::Cpu, ear("cpu", &heard));
    assert_eq!(kinds(&heard), []);
    set.free(pasid).unwrap();
    assert_eq!(kinds(&heard), [Transition::Free]);
    drop(listening);
    set.alloc(PasidRange::ALL).unwrap();
    assert_eq!(kinds(&heard), []);
}

/// Lets go of a hold when it is told that the PASID was freed, as who programs hardware does.
struct LetsGo(Mutex<Option<Hold>>);

impl Listener for LetsGo {
    fn notify(&self, notification: &Notification) {
        if notification.kind == Transition::Free {
            let hold = self.0.lock().unwrap().take();
            drop(hold);
        }
    }
}

#[test]
fn r51_a_listener_that_lets_go_at_free_ends_the_life_within_free() {
    let authority = Authority::new(&[]);
    let set = authority.create_set(ALICE, Quota::default()).unwrap();
    let pasid = set.alloc(PasidRange::ALL).unwrap();
    let listener = Arc::new(LetsGo(Mutex::new(set.hold(pasid).ok())));
    let _listening = set.listen(Priority::Device, listener);
    set.free(pasid).unwrap();
    assert_eq!(authority.owner_of(pasid), None);
    let unknown = IoasidError::NotFound { pasid };
    assert_eq!(set.state_of(pasid), Err(unknown));
}

/// Allocates once more from within a call.
struct Nests(crate::PasidSet);

impl Listener for Nests {
    fn notify(&self, notification: &Notification) {
        if notification.kind == Transition::Alloc && notification.pasid.get() < 4 {
            self.0.alloc(PasidRange::ALL).unwrap();
        }
    }
}

#[test]
fn r50_what_a_listener_makes_happen_is_told_after_what_happened_before() {
    let authority = Authority::new(&[]);
    let heard = Heard::default();
    let set = authority.create_set(ALICE, Quota::default()).unwrap();
    let _nests = authority.listen(Priority::Cpu, Arc::new(Nests(set.clone())));
    let _listening = authority.listen(Priority::Last, ear("last", &heard));
    set.alloc(PasidRange::ALL).unwrap();
    let told: Vec<u32> = heard
        .lock()
        .unwrap()
        .iter()
        .map(|t| t.1.pasid.get())
        .collect();
    assert_eq!(told, [1, 2, 3, 4]);
}

/// Whether each PASID's transitions come in turn, from several threads that work at once.
struct InTurn(Mutex<Vec<Option<TenantId>>>);

impl Listener for InTurn {
    fn notify(&self, told: &Notification) {
        let at = told.pasid.get() as usize;
        let mut owners = self.0.lock().unwrap();
        let (before, after) = match told.kind {
            Transition::Alloc => (None, Some(told.tenant)),
            _ => (Some(told.tenant), None),
        };
        assert_eq!(owners[at], before, "{told:?}");
        owners[at] = after;
    }
}

#[test]
fn r50_the_order_of_transitions_holds_between_threads_and_a_call_returns_after_it_told() {
    const THREADS: u32 = 4;
    let authority = Authority::new(&[]);
    let listener = Arc::new(InTurn(Mutex::new(vec![None; 64])));
    let _listening = authority.listen(Priority::Iommu, listener.clone());
    let start = Arc::new(Barrier::new(THREADS as usize));
    let threads = (1..=THREADS).map(|me| {
        let tenant = TenantId::new(me);
        let set = authority.create_set(tenant, Quota::default()).unwrap();
        let (start, listener) = (Arc::clone(&start), Arc::clone(&listener));
        std::thread::spawn(move || {
            start.wait();
            for _ in 0..2000 {
                let pasid: HostPasid = set.alloc(PasidRange::ALL).unwrap();
                let owner = listener.0.lock().unwrap()[pasid.get() as usize];
                assert_eq!(owner, Some(tenant), "not told before the call returned");
                set.free(pasid).unwrap();
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    assert!(listener.0.lock().unwrap().iter().all(Option::is_none));
}

/// Panics whatever it is told.
struct Faulty;

impl Listener for Faulty {
    fn notify(&self, _: &Notification) {
        std::panic::panic_any("a listener's own mistake");
    }
}

fn panics<T>(call: impl FnOnce() -> T) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err()
}

#[test]
fn r50_a_listener_that_panics_keeps_nothing_from_the_others() {
    let authority = Authority::new(&[]);
    let heard = Heard::default();
    let alice = authority.create_set(ALICE, Quota::default()).unwrap();
    let _faulty = authority.listen(Priority::Cpu, Arc::new(Faulty));
    let _ear = authority.listen(Priority::Iommu, ear("iommu", &heard));
    assert!(panics(|| alice.alloc(PasidRange::ALL)), "the caller's too");
    assert!(panics(|| alice.alloc(PasidRange::ALL)));
    assert_eq!(kinds(&heard), [Transition::Alloc; 2]);
    assert_eq!(alice.owned().len(), 2, "it is out, as was told");
    assert!(panics(|| alice.free_range(PasidRange::ALL)));
    assert_eq!(
        kinds(&heard),
        [Transition::Free; 2],
        "one letter and the next"
    );
    assert_eq!(authority.outstanding(), 0);
}

#[test]
fn r50_r51_a_bind_whose_listener_panics_leaves_no_entry_behind() {
    let authority = Authority::new(&[]);
    let heard = Heard::default();
    let alice = authority.create_set(ALICE, Quota::default()).unwrap();
    let hold = alice.hold(alice.alloc(PasidRange::ALL).unwrap()).unwrap();
    let faulty = authority.listen(Priority::Cpu, Arc::new(Faulty));
    let ear = authority.listen(Priority::Iommu, ear("iommu", &heard));
    // Nobody gets the mark, so it goes at once, and its end is told while the thread panics.
    assert!(panics(|| hold.bind(PLACE)));
    assert_eq!(kinds(&heard), [Transition::Bind, Transition::Unbind]);
    drop((faulty, ear));
    let entry = &authority.ledger()[0];
    assert_eq!((entry.references, entry.bindings.len()), (1, 0));
}
