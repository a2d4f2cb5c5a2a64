//! Walks through the model, done on the real authority, container and table too, which must agree with it after
//! each call: who owns a number, where it is in its life, whether it has an entry, what the caller is told.
//!
//! A call runs to its end here, as no engine is at work; unfinished work is the hold that mediation takes for it.

use palisade_ioasid::{Authority, Hold, PasidRange, PasidState, Quota};
use palisade_iommu::{FunctionHandle, Iommu, PasidSupport, Sharing, Space};
use palisade_memory::GuestMemory;
use palisade_units::{Bdf, GuestPasid, HostPasid, TenantId};
use palisade_vfio::{Attachment, Container, SpaceKey, Terms, VfioError};
use stateright::Model;

use crate::model::{Action, Lives};
use crate::protocol::Without;
use crate::world::{Goal, Life, Number, State, Tenant, World};

const PARENT: Bdf = Bdf::new(0x6a, 1, 0);
const SLOT: Bdf = Bdf::new(0, 0x10, 0);
/// Each tenant's function has a PASID for requests without one. These come first.
const FIRST: u32 = 3;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;

/// What a tenant does as a whole.
#[derive(Clone, Copy, Debug)]
enum Call {
    Allocate,
    Bind(Number),
    Unbind(Number),
    Free(Number),
    Submit(Number),
    Finish,
    Die,
}

impl Call {
    /// Death is seldom.
    fn chosen_by(dice: u64) -> Self {
        let number = Number(usize::from(dice & 1 == 1));
        match dice / 2 % 61 {
            0 => Self::Die,
            1..=12 => Self::Allocate,
            13..=24 => Self::Bind(number),
            25..=32 => Self::Unbind(number),
            33..=42 => Self::Free(number),
            43..=52 => Self::Submit(number),
            _ => Self::Finish,
        }
    }
}

/// What the caller is told: nothing wrong, or an errno.
type Answer = Result<(), i32>;

/// The model, in which a call does all its steps in a row.
struct Predicted {
    lives: Lives,
    world: World,
}

impl Predicted {
    /// Does it if the model can.
    fn does(&mut self, action: Action) -> bool {
        let mut actions = Vec::new();
        self.lives.actions(&self.world, &mut actions);
        let next = actions
            .contains(&action)
            .then(|| self.lives.next_state(&self.world, action));
        let next = next.flatten();
        let possible = next.is_some();
        self.world = next.unwrap_or_else(|| self.world.clone());
        possible
    }

    /// Goes on with what a tenant's operation or death has begun.
    fn settle(&mut self, tenant: Tenant) {
        loop {
            let mut actions = Vec::new();
            self.lives.actions(&self.world, &mut actions);
            let dead = self.world.life(tenant) != Life::Alive;
            let next = actions.into_iter().find(|action| match action {
                Action::Go(of, ..) => *of == tenant,
                Action::Begin(of, ..) | Action::Retire(of) | Action::Bury(of) => {
                    dead && *of == tenant
                }
                _ => false,
            });
            if !next.is_some_and(|action| self.does(action)) {
                return;
            }
        }
    }

    fn call(&mut self, tenant: Tenant, call: Call) -> Answer {
        let begin = |goal, number| Action::Begin(tenant, goal, number);
        let answer = match call {
            Call::Allocate => self
                .does(Action::Allocate(tenant))
                .then_some(())
                .ok_or(ENOSPC),
            Call::Bind(number) => self
                .does(begin(Goal::Bind, number))
                .then_some(())
                .ok_or(ENOENT),
            Call::Unbind(number) => self
                .does(begin(Goal::Unbind, number))
                .then_some(())
                .ok_or(ENOENT),
            Call::Free(number) => {
                let owner = self.world.place(number).owner();
                let is_foreign = owner.is_some_and(|owner| owner != tenant);
                let refusal = if is_foreign { EACCES } else { ENOENT };
                let goals = [Goal::FreeBound, Goal::FreeUnbound];
                let begun = goals.into_iter().any(|goal| self.does(begin(goal, number)));
                begun.then_some(()).ok_or(refusal)
            }
            Call::Submit(number) => self
                .does(Action::Submit(tenant, number))
                .then_some(())
                .ok_or(ENOENT),
            Call::Finish => {
                let first = self.world.works_of(tenant).next().copied();
                if let Some(work) = first {
                    self.does(Action::Take(tenant, work.number));
                    self.does(Action::Finish);
                }
                Ok(())
            }
            Call::Die => {
                self.does(Action::Kill(tenant));
                Ok(())
            }
        };
        self.settle(tenant);
        answer
    }
}

/// The rooms.
struct Real {
    authority: Authority,
    iommu: Iommu,
    containers: [Container; 2],
    _attachments: [Attachment; 2],
    /// What mediation holds for unfinished work, by tenant.
    works: [Vec<Hold>; 2],
}

fn host(number: Number) -> HostPasid {
    HostPasid::new(FIRST + u32::from(number == Number(1))).unwrap()
}

fn guest(number: Number) -> GuestPasid {
    GuestPasid::new(host(number).get()).unwrap()
}

fn id(tenant: Tenant) -> TenantId {
    TenantId::new(1 + u32::from(tenant == Tenant::Bob))
}

impl Real {
    fn new() -> Self {
        let rest = PasidRange {
            min: FIRST + 2,
            ..PasidRange::ALL
        };
        let authority = Authority::new(&[rest]);
        let iommu = Iommu::new();
        let function = iommu.add_function(PARENT, PasidSupport::Width(20)).unwrap();
        let containers = Tenant::ALL.map(|tenant| {
            let set = authority.create_set(id(tenant), Quota::Exactly(2));
            Container::new(set.unwrap())
        });
        let attach = |container: &Container, function: &FunctionHandle| {
            let memory = GuestMemory::new();
            container
                .attach(SLOT, function.clone(), Sharing::Mediated, memory)
                .unwrap()
        };
        Self {
            _attachments: [
                attach(&containers[0], &function),
                attach(&containers[1], &function),
            ],
            authority,
            iommu,
            containers,
            works: Default::default(),
        }
    }

    fn call(&mut self, tenant: Tenant, call: Call) -> Answer {
        let container = &self.containers[tenant.index()];
        let works = &mut self.works[tenant.index()];
        let key = |number| SpaceKey::Pasid(guest(number));
        let told = |answer: Result<(), VfioError>| answer.map_err(|error| error.errno());
        match call {
            Call::Allocate => told(container.alloc_pasid(PasidRange::ALL).map(drop)),
            Call::Bind(number) => {
                let terms = Terms::new(Space::PassThrough);
                told(container.bind(SLOT, key(number), terms))
            }
            Call::Unbind(number) => told(container.unbind(SLOT, key(number))),
            Call::Free(number) => told(container.free_pasid(host(number))),
            Call::Submit(number) => told(
                container
                    .translate(SLOT, guest(number))
                    .map(|hold| works.push(hold)),
            ),
            Call::Finish => {
                works.sort_by_key(Hold::pasid);
                works.drain(..works.len().min(1)).for_each(drop);
                Ok(())
            }
            Call::Die => {
                works.clear();
                container.close();
                Ok(())
            }
        }
    }

    /// Owner, place in life and entry of a number.
    fn view(&self, number: Number) -> (Option<TenantId>, State, Option<TenantId>) {
        let pasid = host(number);
        let ledger = self.authority.ledger();
        let listed = ledger.iter().find(|entry| entry.pasid == pasid);
        let state = listed.map_or(State::Free, |entry| match entry.state {
            PasidState::Idle => State::Idle,
            PasidState::Active => State::Active,
            PasidState::FreePending => State::FreePending,
        });
        let audit = self.iommu.audit();
        let entry = audit.iter().find(|entry| entry.host_pasid == pasid);
        (
            self.authority.owner_of(pasid),
            state,
            entry.map(|entry| entry.tenant),
        )
    }
}

/// The next number of a sequence that its seed decides (xorshift).
fn roll(dice: &mut u64) -> u64 {
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    *dice >> 11
}

/// Whether a call is one that both sides understand alike: a bind of a number that is not the guest's would, in the
/// rooms, be one of a number of its own; a device takes no more than the model has room for; the dead call nobody.
fn is_comparable(predicted: &Predicted, tenant: Tenant, call: Call) -> bool {
    let world = &predicted.world;
    let of_its_own = match call {
        Call::Bind(number) => {
            let place = world.place(number);
            place.is_live_for(tenant) && place.entry.is_none()
        }
        Call::Submit(_) => world.works.len() < predicted.lives.works,
        _ => true,
    };
    world.life(tenant) == Life::Alive && of_its_own
}

#[test]
fn r7_r12_r15_r29_r48_the_rooms_answer_and_end_as_the_model_says() {
    let (mut calls, mut refused, mut pending) = (0, 0, 0);
    for seed in 1..=200_u64 {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut real = Real::new();
        let mut predicted = Predicted {
            lives: Lives {
                without: Without::Nothing,
                quota: 1,
                works: 2,
            },
            world: World::new(),
        };
        for step in 0..150 {
            let tenant = Tenant::ALL[usize::from(roll(&mut dice) & 1 == 1)];
            let call = Call::chosen_by(roll(&mut dice));
            if !is_comparable(&predicted, tenant, call) {
                continue;
            }
            let expected = predicted.call(tenant, call);
            let at = format!("seed {seed}, step {step}: {tenant:?} {call:?}");
            assert_eq!(real.call(tenant, call), expected, "{at}");
            for number in Number::all() {
                let place = predicted.world.place(number);
                let view = (place.owner().map(id), place.state(), place.entry.map(id));
                assert_eq!(real.view(number), view, "{number:?} after {at}");
                pending += usize::from(place.state() == State::FreePending);
            }
            calls += 1;
            refused += usize::from(expected.is_err());
        }
    }
    assert!(
        calls > 5_000 && refused > 500 && pending > 100,
        "{calls} {refused} {pending}"
    );
}
