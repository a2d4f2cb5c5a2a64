//! What can happen next, by whom, and what comes of it.

use stateright::{Model, Property};

use crate::properties;
use crate::protocol::{Step, Without};
use crate::world::{Goal, Life, Number, Operation, Stage, Tenant, Work, World};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The tenant's guest takes the lowest free number.
    Allocate(Tenant),
    /// The tenant's container begins what the guest asked for, or what its death asks for.
    Begin(Tenant, Goal, Number),
    /// It does the next step of it.
    Go(Tenant, Step, Number),
    /// The tenant's driver writes a descriptor with a number, and mediation lets it pass.
    Submit(Tenant, Number),
    /// The engine takes a descriptor from the queue.
    Take(Tenant, Number),
    /// It translates the next access of what it has in hand, by the cache or by the table.
    Translate,
    /// The access that was translated touches memory.
    Touch,
    /// It finds a page missing, asks for it and puts the descriptor aside.
    Ask,
    /// It finishes the descriptor, with whatever status.
    Finish,
    /// The tenant's unit answers a page request.
    Respond(Tenant, Number),
    /// The tenant's process dies.
    Kill(Tenant),
    /// The host drops what the dead tenant had in the queues.
    Retire(Tenant),
    /// The host has nothing left to do for the dead tenant.
    Bury(Tenant),
}

/// The life of PASIDs, with something left out or nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lives {
    pub(crate) without: Without,
    /// How many PASIDs a tenant may have out.
    pub(crate) quota: usize,
    /// How many descriptors are unfinished at a time, of both tenants together.
    pub(crate) works: usize,
}

impl Model for Lives {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for tenant in Tenant::ALL {
            self.actions_of_tenant(world, tenant, actions);
            self.actions_for_the_dead(world, tenant, actions);
            if let Some(Operation { goal, number, done }) = world.operation(tenant) {
                let next = self.without.steps(goal)[done];
                if next != Step::WaitForAccesses || !world.in_flight(number) {
                    actions.push(Action::Go(tenant, next, number));
                }
            }
        }
        self.actions_of_engine(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Allocate(tenant) => {
                let number = world.lowest_free()?;
                let place = world.place_mut(number);
                place.is_free = false;
                place.in_set[tenant.index()] = true;
            }
            Action::Begin(tenant, goal, number) => {
                let done = 0;
                world.reclaimed = None;
                world.operations[tenant.index()] = Some(Operation { goal, number, done });
            }
            Action::Go(tenant, step, number) => self.go(&mut world, tenant, step, number),
            Action::Submit(by, number) => {
                if self.without.work_holds() {
                    world.take_hold(number);
                }
                let stage = Stage::Queued;
                world.works.push(Work { by, number, stage });
            }
            Action::Take(by, number) => {
                let queued = |work: &&mut Work| {
                    (work.by, work.number, work.stage) == (by, number, Stage::Queued)
                };
                world.works.iter_mut().find(queued)?.stage = Stage::InHand;
            }
            Action::Translate => {
                let work = in_hand(&mut world)?;
                let number = work.number;
                let place = world.place(number);
                let memory = place.cached.or(place.entry)?;
                let is_stale = false;
                in_hand(&mut world)?.stage = Stage::InFlight { memory, is_stale };
            }
            Action::Touch => self.touch(&mut world)?,
            Action::Ask => {
                let work = in_hand(&mut world)?;
                work.stage = Stage::Parked;
                let number = work.number;
                let place = world.place_mut(number);
                place.asked = place.asked.or(place.entry);
            }
            Action::Finish => {
                let index = world.works.iter().position(Work::is_with_engine)?;
                let work = world.works.remove(index);
                self.finished(&mut world, work);
            }
            Action::Respond(tenant, number) => {
                let late = world.place(number).asked != Some(tenant);
                world.broken.late_response |= late;
                answer(&mut world, number);
            }
            Action::Kill(tenant) => world.lives[tenant.index()] = Life::Killed,
            Action::Retire(tenant) => {
                let (dropped, kept) = world
                    .works
                    .iter()
                    .partition::<Vec<_>, _>(|work| work.by == tenant && !work.is_with_engine());
                world.works = kept;
                for work in dropped {
                    self.finished(&mut world, work);
                }
                world.lives[tenant.index()] = Life::Retired;
            }
            Action::Bury(tenant) => world.lives[tenant.index()] = Life::Gone,
        }
        world.works.sort_unstable();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Lives {
    fn actions_of_tenant(self, world: &World, tenant: Tenant, actions: &mut Vec<Action>) {
        if world.life(tenant) != Life::Alive {
            return;
        }
        actions.push(Action::Kill(tenant));
        for number in Number::all() {
            let place = world.place(number);
            let may_submit = place.is_live_for(tenant) || self.without == Without::Mediation;
            if may_submit && world.works.len() < self.works {
                actions.push(Action::Submit(tenant, number));
            }
            if place.entry == Some(tenant) && place.asked.is_some() {
                actions.push(Action::Respond(tenant, number));
            }
        }
        if world.operation(tenant).is_some() {
            return;
        }
        if world.outstanding(tenant) < self.quota && world.lowest_free().is_some() {
            actions.push(Action::Allocate(tenant));
        }
        for number in Number::all() {
            let place = world.place(number);
            if place.is_live_for(tenant) {
                let goals: &[Goal] = if place.entry == Some(tenant) {
                    &[Goal::Unbind, Goal::FreeBound]
                } else {
                    &[Goal::Bind, Goal::FreeUnbound]
                };
                actions.extend(
                    goals
                        .iter()
                        .map(|goal| Action::Begin(tenant, *goal, number)),
                );
            }
        }
    }

    /// What the host does by itself once a tenant's process died: empty its queues, wait for the engine,
    /// free its numbers as if it had asked for that.
    fn actions_for_the_dead(self, world: &World, tenant: Tenant, actions: &mut Vec<Action>) {
        if world.operation(tenant).is_some() {
            return;
        }
        match world.life(tenant) {
            Life::Killed => actions.push(Action::Retire(tenant)),
            Life::Retired if world.works_of(tenant).next().is_none() => {
                let owned = Number::all().find(|number| world.place(*number).is_live_for(tenant));
                actions.push(match owned {
                    Some(number) if world.place(number).entry == Some(tenant) => {
                        Action::Begin(tenant, Goal::FreeBound, number)
                    }
                    Some(number) => Action::Begin(tenant, Goal::FreeUnbound, number),
                    None => Action::Bury(tenant),
                });
            }
            Life::Alive | Life::Retired | Life::Gone => {}
        }
    }

    fn actions_of_engine(self, world: &World, actions: &mut Vec<Action>) {
        let Some(work) = world.works.iter().find(|work| work.is_with_engine()) else {
            let queued = world
                .works
                .iter()
                .filter(|work| work.stage == Stage::Queued);
            let mut takes: Vec<_> = queued
                .map(|work| Action::Take(work.by, work.number))
                .collect();
            takes.dedup();
            actions.extend(takes);
            return;
        };
        if work.stage != Stage::InHand {
            actions.push(Action::Touch);
            return;
        }
        let place = world.place(work.number);
        if place.cached.or(place.entry).is_some() {
            actions.push(Action::Translate);
        }
        // Of a tenant whose queues were emptied nothing is put aside any more.
        let may_be_parked = world.life(work.by) != Life::Retired;
        if place.entry.is_some() && (may_be_parked || self.without == Without::RetirementAtParking)
        {
            actions.push(Action::Ask);
        }
        actions.push(Action::Finish);
    }

    fn go(self, world: &mut World, tenant: Tenant, step: Step, number: Number) {
        match step {
            Step::TakeHold => world.take_hold(number),
            Step::PutEntry => world.place_mut(number).entry = Some(tenant),
            Step::RemoveEntry => world.place_mut(number).entry = None,
            Step::Invalidate => {
                world.place_mut(number).cached = None;
                for work in world.works.iter_mut().filter(|work| work.number == number) {
                    if let Stage::InFlight { is_stale, .. } = &mut work.stage {
                        *is_stale = true;
                    }
                }
            }
            // Begun only once there is none.
            Step::WaitForAccesses => {}
            Step::AnswerRequests => answer(world, number),
            Step::DropHold => world.drop_hold(number),
            Step::Free => world.free(number),
        }
        let operation = &mut world.operations[tenant.index()];
        *operation = operation
            .map(|operation| Operation {
                done: operation.done + 1,
                ..operation
            })
            .filter(|operation| operation.done < self.without.steps(operation.goal).len());
    }

    fn touch(self, world: &mut World) -> Option<()> {
        let work = world.works.iter_mut().find(|work| work.is_with_engine())?;
        let Stage::InFlight { memory, is_stale } = work.stage else {
            return None;
        };
        work.stage = Stage::InHand;
        let Work { by, number, .. } = *work;
        let owner = world.place(number).owner();
        if !is_stale || self.without == Without::Generations {
            world.place_mut(number).cached = Some(memory);
        }
        world.broken.foreign_memory |= memory != by;
        world.broken.late_access |= owner.is_some_and(|owner| owner != by);
        Some(())
    }

    fn finished(self, world: &mut World, work: Work) {
        if self.without.work_holds() {
            world.drop_hold(work.number);
        }
    }
}

fn in_hand(world: &mut World) -> Option<&mut Work> {
    let mut works = world.works.iter_mut();
    works.find(|work| work.stage == Stage::InHand)
}

/// Closes what is open of a number; what waits for it goes back to the queue.
fn answer(world: &mut World, number: Number) {
    world.place_mut(number).asked = None;
    for work in &mut world.works {
        if work.number == number && work.stage == Stage::Parked {
            work.stage = Stage::Queued;
        }
    }
}
