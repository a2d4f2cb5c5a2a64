//! Each part of the drain and of what surrounds it is needed: without it, the requirement that it is there
//! for is broken, by a path that says how.

use stateright::{Checker, HasDiscoveries, Model};

use crate::model::{Action, Lives};
use crate::properties::{
    R8_R16, R15, R19, R33, R33_STEPS, R39, R41, R52_ACCESS, R52_RESPONSE, R65,
};
use crate::protocol::{Step, Without};
use crate::world::{Life, Number, World};

/// A way to break a requirement, up to where it breaks.
struct Counterexample {
    actions: Vec<Action>,
    last: World,
}

impl Counterexample {
    /// What the last thing was, and what happened before it.
    fn end(&self) -> (Action, &[Action]) {
        let (last, before) = self
            .actions
            .split_last()
            .unwrap_or_else(|| panic!("no actions"));
        (*last, before)
    }
}

/// How each of these is broken when something is left out.
fn broken<const N: usize>(without: Without, names: [&'static str; N]) -> [Counterexample; N] {
    let lives = Lives {
        without,
        quota: 1,
        works: 2,
    };
    let checker = lives
        .checker()
        .finish_when(HasDiscoveries::AllOf(names.into()))
        .spawn_bfs()
        .join();
    names.map(|name| {
        let path = checker.assert_any_discovery(name);
        println!("without {without:?}, not {name}:\n{path}");
        cut(path.into_vec(), |world| {
            (lives.property(name).condition)(&lives, world)
        })
    })
}

/// The path to the first state where the requirement does not hold.
fn cut(path: Vec<(World, Option<Action>)>, holds: impl Fn(&World) -> bool) -> Counterexample {
    let mut actions = Vec::new();
    for (world, next) in path {
        if !holds(&world) {
            return Counterexample {
                actions,
                last: world,
            };
        }
        actions.extend(next);
    }
    panic!("it holds all the way");
}

/// Whether `before` has a submit by a number of one tenant and then its allocation by the other.
fn number_changed_hands(before: &[Action]) -> bool {
    let submitted = before.iter().position(|a| matches!(a, Action::Submit(..)));
    submitted.is_some_and(|at| {
        let Action::Submit(first, _) = before[at] else {
            return false;
        };
        before[at..]
            .iter()
            .any(|action| matches!(action, Action::Allocate(next) if *next != first))
    })
}

#[test]
fn r52_fails_without_the_drain() {
    let [access, response, request] = broken(Without::Drain, [R52_ACCESS, R52_RESPONSE, R65]);

    let (last, before) = access.end();
    assert_eq!(last, Action::Touch, "the late access is the last thing");
    assert!(number_changed_hands(before));

    let (last, before) = response.end();
    let Action::Respond(late, number) = last else {
        panic!("not a late response but {last:?}");
    };
    assert_eq!(response.last.place(number).owner(), Some(late));
    assert!(number_changed_hands(before) && before.contains(&Action::Ask));

    let (last, before) = request.end();
    assert!(matches!(last, Action::Go(_, Step::Free, _)));
    assert!(
        before.contains(&Action::Ask),
        "asked, never answered, freed"
    );
}

#[test]
fn r39_fails_without_the_wait_for_accesses() {
    let [access] = broken(Without::WaitForAccesses, [R39]);
    let (last, before) = access.end();
    assert!(matches!(
        last,
        Action::Go(_, Step::DropHold | Step::Free, _)
    ));
    assert!(before.contains(&Action::Translate) && access.last.in_flight(Number(0)));
}

#[test]
fn r33_r65_fail_without_the_answers_to_open_requests() {
    for request in broken(Without::AnswerToRequests, [R33, R65]) {
        let (_, before) = request.end();
        assert!(before.contains(&Action::Ask));
        let open = request
            .last
            .places
            .iter()
            .any(|place| place.asked.is_some());
        assert!(open, "nobody answers any more");
    }
}

#[test]
fn r52_fails_when_unfinished_work_holds_no_number() {
    let [access, foreign] = broken(Without::HoldOfWork, [R52_ACCESS, R8_R16]);
    for path in [access, foreign] {
        let (last, before) = path.end();
        assert_eq!(last, Action::Touch);
        assert!(number_changed_hands(before));
    }
}

#[test]
fn r8_r41_fail_without_the_invalidation() {
    let [cached, foreign] = broken(Without::Invalidation, [R41, R8_R16]);
    assert!(matches!(cached.end().0, Action::Go(_, Step::DropHold, _)));
    let (last, before) = foreign.end();
    assert_eq!(last, Action::Touch);
    let invalidated = |action: &Action| matches!(action, Action::Go(_, Step::Invalidate, _));
    assert!(!before.iter().any(invalidated));
}

#[test]
fn r41_fails_when_an_overtaken_access_fills_the_cache() {
    let [cached] = broken(Without::Generations, [R41]);
    let (_, before) = cached.end();
    let at = |what: fn(&Action) -> bool| before.iter().rposition(what);
    let invalidated = at(|action| matches!(action, Action::Go(_, Step::Invalidate, _)));
    assert!(invalidated < at(|action| *action == Action::Touch));
}

#[test]
fn r15_fails_when_the_hold_goes_before_the_entry() {
    let [entry] = broken(Without::EntryBeforeHold, [R15]);
    assert!(matches!(entry.end().0, Action::Go(_, Step::Free, _)));
    assert!(entry.last.place(Number(0)).entry.is_some());
}

#[test]
fn r33_fails_when_work_in_hand_of_the_dead_is_put_aside() {
    let [stuck] = broken(Without::RetirementAtParking, [R33_STEPS]);
    assert!(stuck.last.lives.contains(&Life::Retired) || !stuck.last.works.is_empty());
}

#[test]
fn r8_r19_fail_without_mediation() {
    let [foreign, given] = broken(Without::Mediation, [R8_R16, R19]);
    assert_eq!(foreign.end().0, Action::Touch);
    let Action::Submit(by, number) = given.end().0 else {
        panic!("not a hostile submit");
    };
    assert_ne!(given.last.place(number).owner(), Some(by));
}
