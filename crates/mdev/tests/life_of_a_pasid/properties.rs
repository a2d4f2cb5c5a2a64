//! What must hold in every state, and what must happen in some, so that the former says something.

use stateright::{Model, Property};

use crate::model::{Action, Lives};
use crate::protocol::Step;
use crate::world::{Freed, Goal, Life, Number, Place, Stage, State, Tenant, Work, World};

pub(crate) const R7: &str = "R7: no live PASID is owned by two tenants";
pub(crate) const R8_R16: &str = "R8, R16: no access reaches another tenant's memory";
pub(crate) const R15: &str = "R15: a present entry's PASID is out to the tenant it was bound for";
pub(crate) const R19: &str = "R19: the device has a tenant's own PASIDs alone";
pub(crate) const R29: &str = "R29: no tenant has more out than its quota";
pub(crate) const R33: &str = "R33: of a tenant that is gone nothing is left";
pub(crate) const R33_STEPS: &str = "R33: killed at any step, the host alone brings it to its end";
pub(crate) const R39: &str = "R39: once unbound, nothing in flight uses it";
pub(crate) const R41: &str = "R41: once unbound, nothing of it is cached";
pub(crate) const R48_REUSE: &str = "R48: no reuse before the last put";
pub(crate) const R48_HOLDS: &str = "R48: holds are those of entries and work";
pub(crate) const R48_LATE: &str = "R48: no new reference to what was freed";
pub(crate) const R52_ACCESS: &str = "R52: no late access by a PASID that has changed hands";
pub(crate) const R52_RESPONSE: &str =
    "R52: no late page response at a PASID that has changed hands";
pub(crate) const R65: &str = "R65: page requests are answered before their PASID is reclaimed";

pub(crate) fn all() -> Vec<Property<Lives>> {
    let mut all = vec![
        Property::always(R7, |_, world: &World| {
            every(world, |_, place| {
                let owners = place.in_set.iter().filter(|has| **has).count();
                owners + usize::from(place.is_free) == 1
            })
        }),
        Property::always(R8_R16, |_, world: &World| !world.broken.foreign_memory),
        Property::always(R15, |_, world: &World| {
            every(world, |_, place| {
                place
                    .entry
                    .is_none_or(|tenant| place.owner() == Some(tenant))
            })
        }),
        Property::always(R19, |_, world: &World| {
            world
                .works
                .iter()
                .all(|work| world.place(work.number).owner() == Some(work.by))
        }),
        Property::always(R29, |model: &Lives, world: &World| {
            Tenant::ALL
                .into_iter()
                .all(|tenant| world.outstanding(tenant) <= model.quota)
        }),
        Property::always(R33, |_, world: &World| {
            let mut gone = Tenant::ALL.into_iter();
            gone.all(|tenant| world.life(tenant) != Life::Gone || nothing_is_left(world, tenant))
        }),
        Property::always(R33_STEPS, |model: &Lives, world: &World| {
            is_brought_to_its_end(*model, world)
        }),
        Property::always(R39, |model: &Lives, world: &World| {
            world.works.iter().all(|work| match work.stage {
                Stage::InFlight { memory, .. } => is_reachable(*model, world, work.number, memory),
                _ => true,
            })
        }),
        Property::always(R41, |model: &Lives, world: &World| {
            every(world, |number, place| {
                place
                    .cached
                    .is_none_or(|tenant| is_reachable(*model, world, number, tenant))
            })
        }),
        Property::always(R48_REUSE, |_, world: &World| {
            every(world, |_, place| !(place.is_free && place.holds > 0))
        }),
        Property::always(R48_HOLDS, |model: &Lives, world: &World| {
            every(world, |number, place| {
                usize::from(place.holds) == users(*model, world, number)
            })
        }),
        Property::always(R48_LATE, |_, world: &World| !world.broken.late_reference),
        Property::always(R52_ACCESS, |_, world: &World| !world.broken.late_access),
        Property::always(R52_RESPONSE, |_, world: &World| !world.broken.late_response),
        Property::always(R65, |_, world: &World| {
            every(world, |_, place| {
                place
                    .asked
                    .is_none_or(|tenant| place.owner() == Some(tenant))
            })
        }),
    ];
    all.extend(reachable());
    all
}

/// What happens in some state.
fn reachable() -> Vec<Property<Lives>> {
    vec![
        Property::sometimes(
            "a number is given to the other tenant",
            |_, world: &World| {
                world.reclaimed.is_some_and(|(number, before)| {
                    let owner = world.place(number).owner();
                    owner.is_some_and(|now| now != before)
                })
            },
        ),
        Property::sometimes(
            "an access is in flight when its number is freed",
            |_, world: &World| freeing(world, World::in_flight),
        ),
        Property::sometimes(
            "a page request is open when its number is freed",
            |_, world: &World| freeing(world, |world, number| world.place(number).asked.is_some()),
        ),
        Property::sometimes(
            "work is queued when its number is freed",
            |_, world: &World| {
                freeing(world, |world, number| {
                    world
                        .works
                        .iter()
                        .any(|work| (work.number, work.stage) == (number, Stage::Queued))
                })
            },
        ),
        Property::sometimes(
            "a freed number waits for its last hold",
            |_, world: &World| {
                world
                    .places
                    .iter()
                    .any(|place| place.state() == State::FreePending)
            },
        ),
        Property::sometimes("an invalidation overtakes an access", |_, world: &World| {
            let stale = |work: &Work| matches!(work.stage, Stage::InFlight { is_stale: true, .. });
            world.works.iter().any(stale)
        }),
        Property::sometimes(
            "a tenant dies in the middle of a bind",
            |_, world: &World| {
                Tenant::ALL.into_iter().any(|tenant| {
                    let goal = world.operation(tenant).map(|one| (one.goal, one.done));
                    is_dying(world, tenant) && goal == Some((Goal::Bind, 1))
                })
            },
        ),
        Property::sometimes(
            "a tenant dies with an access in flight",
            |_, world: &World| {
                world.works.iter().any(|work| {
                    is_dying(world, work.by) && matches!(work.stage, Stage::InFlight { .. })
                })
            },
        ),
        Property::sometimes(
            "both tenants have a page request open",
            |_, world: &World| {
                let asked = |tenant| world.places.iter().any(|place| place.asked == Some(tenant));
                Tenant::ALL.into_iter().all(asked)
            },
        ),
        Property::sometimes("both tenants are gone", |_, world: &World| {
            world.lives == [Life::Gone; 2]
        }),
    ]
}

/// Whether some free of a number with an entry is about to begin, where this is so.
fn freeing(world: &World, what: fn(&World, Number) -> bool) -> bool {
    let mut operations = world.operations.iter().flatten();
    operations.any(|one| one.goal == Goal::FreeBound && one.done == 0 && what(world, one.number))
}

fn is_dying(world: &World, tenant: Tenant) -> bool {
    matches!(world.life(tenant), Life::Killed | Life::Retired)
}

fn every(world: &World, holds: impl Fn(Number, &Place) -> bool) -> bool {
    Number::all().all(|number| holds(number, world.place(number)))
}

/// Whether accesses by a number may lead to a tenant's memory: there is the entry, or it is being taken away
/// and its hold was not dropped yet.
fn is_reachable(model: Lives, world: &World, number: Number, memory: Tenant) -> bool {
    let being_unbound = world.operation(memory).is_some_and(|one| {
        let done = &model.without.steps(one.goal)[..one.done];
        one.number == number
            && matches!(one.goal, Goal::Unbind | Goal::FreeBound)
            && !done.contains(&Step::DropHold)
    });
    world.place(number).entry == Some(memory) || being_unbound
}

/// Who has a reference to a number: the entry, from before it is put until after it was taken away, and work.
fn users(model: Lives, world: &World, number: Number) -> usize {
    let bound = |tenant| {
        let operation = world.operation(tenant).filter(|one| one.number == number);
        match operation {
            Some(one) => {
                let done = &model.without.steps(one.goal)[..one.done];
                let before = one.goal == Goal::Unbind || one.goal == Goal::FreeBound;
                (before || done.contains(&Step::TakeHold)) && !done.contains(&Step::DropHold)
            }
            None => world.place(number).entry == Some(tenant),
        }
    };
    let entries = Tenant::ALL
        .into_iter()
        .filter(|tenant| bound(*tenant))
        .count();
    let works = world
        .works
        .iter()
        .filter(|work| work.number == number)
        .count();
    entries + if model.without.work_holds() { works } else { 0 }
}

fn nothing_is_left(world: &World, tenant: Tenant) -> bool {
    let nowhere = every(world, |_, place| {
        let of = [place.owner(), place.entry, place.cached, place.asked];
        !of.contains(&Some(tenant))
    });
    nowhere && world.works_of(tenant).next().is_none() && world.operation(tenant).is_none()
}

/// Kills both tenants here and lets the host go on alone: no tenant's answer is needed for the end, at
/// which every number is free and nobody holds one.
fn is_brought_to_its_end(model: Lives, world: &World) -> bool {
    let mut world = world.clone();
    for tenant in Tenant::ALL {
        if world.life(tenant) == Life::Alive {
            let killed = model.next_state(&world, Action::Kill(tenant));
            world = killed.unwrap_or(world);
        }
    }
    let mut actions = Vec::new();
    // Each unfinished descriptor and each number takes fewer steps than ten.
    for _ in 0..100 {
        actions.clear();
        model.actions(&world, &mut actions);
        // The engine's last choice is to finish what it has in hand; it is fair, and does so at last.
        let Some(next) = actions
            .pop()
            .and_then(|action| model.next_state(&world, action))
        else {
            break;
        };
        world = next;
    }
    let clean = |_: Number, place: &Place| {
        place.is_free && place.freed == Freed::No && place.holds == 0 && place.entry.is_none()
    };
    world.lives == [Life::Gone; 2] && world.works.is_empty() && every(&world, clean)
}
