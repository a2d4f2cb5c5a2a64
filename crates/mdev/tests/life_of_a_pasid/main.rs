//! The life of a PASID over authority, table, translation cache, device and drain, in every order in
//! which two tenants, one engine and death can do things.
//!
//! [`world`] says what each room knows, [`protocol`] in which steps a container binds, unbinds and
//! frees, [`model`] what can happen next, [`properties`] what must hold. The model is explored
//! completely. Then something is left out ([`Without`]), and each time exactly what it is there for
//! must be found broken: a model in which nothing can go wrong shows nothing.
//!
//! [`replay`] ties it to the rooms: walks through the model are done on the real authority, container and
//! table, which must answer and look alike. Not tied are what the model says of an access in flight, of the
//! translation cache and of page requests, and the orders in which the steps of a call can be interrupted:
//! the rooms' own tests show those requirements.
//!
//! What is not in it: a second engine, exclusive owners, notifications, and the locks that forbid some
//! of these orders in the rooms.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod left_out;
mod model;
mod properties;
mod protocol;
mod replay;
mod world;

use stateright::{Checker, Model};

use model::Lives;
use protocol::Without;

/// Explores everything and says how much that was.
fn explore(quota: usize, works: usize) -> usize {
    let without = Without::Nothing;
    let lives = Lives {
        without,
        quota,
        works,
    };
    let checker = lives.checker().spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

#[test]
fn r7_r8_r15_r33_r48_r52_r65_hold_in_every_order_with_a_number_for_each_tenant() {
    let states = explore(1, 2);
    assert!(states > 150_000, "only {states} of some 156,000 states");
}

#[test]
fn r7_r8_r15_r33_r48_r52_r65_hold_in_every_order_where_one_tenant_may_have_all_numbers() {
    let states = explore(2, 2);
    assert!(states > 220_000, "only {states} of some 232,000 states");
}
