//! The authority beside a naive model of it: the same operations, the same answers, the same ledger.

use std::collections::BTreeMap;

use palisade_units::{GuestPasid, HostPasid, TenantId};
use proptest::prelude::*;

use crate::{Authority, Data, Hold, IoasidError, PasidRange, PasidSet, PasidState, Quota};

const CAPACITY: u32 = 6;
const TENANTS: usize = 2;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

#[derive(Clone, Debug)]
enum Op {
    Create(usize, Option<u32>),
    Close(usize),
    Adjust(usize, u32),
    Alloc(usize, u32, u32),
    Free(usize, u32),
    FreeRange(usize, u32, u32),
    Hold(usize, u32),
    CloneHold(usize),
    DropHold(usize),
    Pair(usize, u32, u32),
    Unpair(usize, u32),
    Find(usize, u32),
    SetData(usize, u32, Option<u64>),
    Data(usize, u32),
    Reserve(u32, u32),
    Unreserve(usize),
}

fn ids() -> std::ops::Range<u32> {
    0..CAPACITY + 2
}

fn op() -> impl Strategy<Value = Op> {
    let (set, id, guest, hold) = (0..TENANTS, 0..CAPACITY + 2, 0..3u32, 0..16usize);
    prop_oneof![
        3 => (set.clone(), prop::option::of(0..CAPACITY)).prop_map(|(s, q)| Op::Create(s, q)),
        1 => set.clone().prop_map(Op::Close),
        1 => (set.clone(), 0..CAPACITY + 2).prop_map(|(s, q)| Op::Adjust(s, q)),
        6 => (set.clone(), id.clone(), id.clone()).prop_map(|(s, a, b)| Op::Alloc(s, a, b)),
        4 => (set.clone(), id.clone()).prop_map(|(s, i)| Op::Free(s, i)),
        1 => (set.clone(), id.clone(), id.clone()).prop_map(|(s, a, b)| Op::FreeRange(s, a, b)),
        4 => (set.clone(), id.clone()).prop_map(|(s, i)| Op::Hold(s, i)),
        1 => hold.clone().prop_map(Op::CloneHold),
        4 => hold.prop_map(Op::DropHold),
        6 => (set.clone(), guest.clone(), id).prop_map(|(s, g, i)| Op::Pair(s, g, i)),
        1 => (set.clone(), guest.clone()).prop_map(|(s, g)| Op::Unpair(s, g)),
        4 => (set.clone(), guest).prop_map(|(s, g)| Op::Find(s, g)),
        2 => (set.clone(), ids(), prop::option::of(0..9u64)).prop_map(|(s, i, d)| Op::SetData(s, i, d)),
        2 => (set, ids()).prop_map(|(s, i)| Op::Data(s, i)),
        1 => (ids(), ids()).prop_map(|(a, b)| Op::Reserve(a, b)),
        1 => (0..4usize).prop_map(Op::Unreserve),
    ]
}

/// One id that is out. `set` counts the sets that ever were, so that a later one is another.
#[derive(Clone, Debug, PartialEq)]
struct Id {
    set: u32,
    tenant: usize,
    references: u32,
    is_pending: bool,
    guest: Option<u32>,
    data: Option<u64>,
}

#[derive(Clone, Debug)]
struct Set {
    number: u32,
    tenant: usize,
    quota: u32,
    is_closed: bool,
}

/// Everything in plain maps, every question answered by looking at all of it.
#[derive(Default)]
struct Model {
    ids: BTreeMap<u32, Id>,
    sets: Vec<Set>,
    /// The set that each tenant's newest handle speaks of.
    newest: [u32; TENANTS],
    created: u32,
    reserved: Vec<(u32, u32)>,
}

impl Model {
    fn unreserved(&self) -> u32 {
        let reserved = (1..=CAPACITY).filter(|id| self.is_reserved(*id)).count();
        let quotas: u32 = self.sets.iter().map(|set| set.quota).sum();
        CAPACITY - quotas - u32::try_from(reserved).unwrap()
    }

    fn is_reserved(&self, id: u32) -> bool {
        let mut ranges = self.reserved.iter();
        ranges.any(|(min, max)| (*min..=*max).contains(&id))
    }

    /// Numbers beyond the capacity are kept from the start.
    fn reserve(&mut self, min: u32, max: u32) -> Result<u32, i32> {
        if min == 0 || min > max {
            return Err(EINVAL);
        }
        let taken = |id| id > CAPACITY || self.ids.contains_key(&id) || self.is_reserved(id);
        if (min..=max).any(taken) {
            return Err(EBUSY);
        }
        if max - min + 1 > self.unreserved() {
            return Err(ENOSPC);
        }
        self.reserved.push((min, max));
        Ok(0)
    }

    fn out(&self, number: u32) -> u32 {
        u32::try_from(self.ids.values().filter(|id| id.set == number).count()).unwrap()
    }

    fn open(&mut self, tenant: usize) -> Result<&mut Set, i32> {
        let number = self.newest[tenant];
        let set = self.sets.iter_mut().find(|set| set.number == number);
        set.filter(|set| !set.is_closed).ok_or(EINVAL)
    }

    fn mine(&mut self, tenant: usize, id: u32) -> Result<&mut Id, i32> {
        let number = self.newest[tenant];
        match self.ids.get_mut(&id) {
            None => Err(ENOENT),
            Some(found) if found.set != number => Err(EACCES),
            Some(found) => Ok(found),
        }
    }

    fn live(&mut self, tenant: usize, id: u32) -> Result<&mut Id, i32> {
        self.mine(tenant, id)
            .and_then(|id| if id.is_pending { Err(EBUSY) } else { Ok(id) })
    }

    fn paired(&mut self, tenant: usize, guest: u32) -> Result<u32, i32> {
        let number = self.open(tenant)?.number;
        let mut pairs = self.ids.iter();
        let pair =
            pairs.find(|(_, id)| id.set == number && !id.is_pending && id.guest == Some(guest));
        pair.map(|(id, _)| *id).ok_or(ENOENT)
    }

    fn sweep(&mut self) {
        self.ids.retain(|_, id| !id.is_pending || id.references > 0);
        let out: Vec<u32> = self.ids.values().map(|id| id.set).collect();
        self.sets
            .retain(|set| !set.is_closed || out.contains(&set.number));
    }

    fn create(&mut self, tenant: usize, quota: Option<u32>) -> Result<u32, i32> {
        if self.sets.iter().any(|set| set.tenant == tenant) {
            return Err(EEXIST);
        }
        let left = self.unreserved();
        if quota.is_some_and(|quota| quota > left) || (quota.is_none() && left == 0) {
            return Err(ENOSPC);
        }
        self.created += 1;
        self.newest[tenant] = self.created;
        self.sets.push(Set {
            number: self.created,
            tenant,
            quota: quota.unwrap_or(left),
            is_closed: false,
        });
        Ok(0)
    }

    fn adjust(&mut self, tenant: usize, quota: u32) -> Result<u32, i32> {
        let left = self.unreserved();
        let (number, has) = self.open(tenant).map(|set| (set.number, set.quota))?;
        if quota < self.out(number) {
            return Err(EINVAL);
        }
        if quota > has + left {
            return Err(ENOSPC);
        }
        self.open(tenant)?.quota = quota;
        Ok(0)
    }

    fn alloc(&mut self, tenant: usize, min: u32, max: u32) -> Result<u32, i32> {
        if min > max {
            return Err(EINVAL);
        }
        let (number, quota) = self.open(tenant).map(|set| (set.number, set.quota))?;
        if self.out(number) >= quota {
            return Err(ENOSPC);
        }
        let id = (1..=CAPACITY).find(|id| {
            (min..=max).contains(id) && !self.ids.contains_key(id) && !self.is_reserved(*id)
        });
        let id = id.ok_or(ENOSPC)?;
        let fresh = Id {
            set: number,
            tenant,
            references: 0,
            is_pending: false,
            guest: None,
            data: None,
        };
        self.ids.insert(id, fresh);
        Ok(id)
    }

    fn free_range(&mut self, tenant: usize, min: u32, max: u32) -> u32 {
        let number = self.newest[tenant];
        let mut freed = 0;
        for (id, record) in &mut self.ids {
            if record.set == number && !record.is_pending && min <= *id && *id <= max {
                record.is_pending = true;
                freed += 1;
            }
        }
        freed
    }

    fn pair(&mut self, tenant: usize, guest: u32, id: u32) -> Result<u32, i32> {
        if self.live(tenant, id)?.guest.is_some() || self.paired(tenant, guest).is_ok() {
            return Err(EINVAL);
        }
        self.live(tenant, id)?.guest = Some(guest);
        Ok(0)
    }
}

/// The authority, with a handle of the newest set for each tenant and every hold taken so far.
struct Real {
    authority: Authority,
    sets: [Option<PasidSet>; TENANTS],
    holds: Vec<Hold>,
}

fn host(raw: u32) -> HostPasid {
    HostPasid::new(raw).unwrap()
}

fn guest(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

impl Real {
    fn new() -> Self {
        let beyond = PasidRange {
            min: CAPACITY + 1,
            max: u32::MAX,
        };
        Self {
            authority: Authority::new(&[beyond]),
            sets: [const { None }; TENANTS],
            holds: Vec::new(),
        }
    }

    /// Runs one operation on both and gives both answers.
    fn step(&mut self, model: &mut Model, op: &Op) -> (Result<u32, i32>, Result<u32, i32>) {
        let plain = |answer: Result<(), IoasidError>| answer.map(|()| 0);
        if let Op::Create(tenant, quota) = *op {
            let name = TenantId::new(u32::try_from(tenant).unwrap());
            let wanted = quota.map_or(Quota::AllThatIsLeft, Quota::Exactly);
            let created = self.authority.create_set(name, wanted).map(|set| {
                self.sets[tenant] = Some(set);
                0
            });
            return (created.map_err(|e| e.errno()), model.create(tenant, quota));
        }
        if let Op::Reserve(min, max) = *op {
            let answer = self.authority.reserve(PasidRange { min, max });
            let answer = plain(answer).map_err(|e| e.errno());
            return (answer, model.reserve(min, max));
        }
        if let Op::Unreserve(at) = *op {
            if at >= model.reserved.len() {
                return (Ok(0), Ok(0));
            }
            let (min, max) = model.reserved.remove(at);
            let answer = self.authority.unreserve(PasidRange { min, max });
            return (plain(answer).map_err(|e| e.errno()), Ok(0));
        }
        let (Op::Close(tenant)
        | Op::Adjust(tenant, _)
        | Op::Alloc(tenant, ..)
        | Op::Free(tenant, _)
        | Op::FreeRange(tenant, ..)
        | Op::Hold(tenant, _)
        | Op::Pair(tenant, ..)
        | Op::Unpair(tenant, _)
        | Op::SetData(tenant, ..)
        | Op::Data(tenant, _)
        | Op::Find(tenant, _)) = *op
        else {
            self.step_hold(model, op);
            return (Ok(0), Ok(0));
        };
        let Some(set) = &self.sets[tenant] else {
            return (Ok(0), Ok(0));
        };
        let mut keep = |hold: Hold| {
            let pasid = hold.pasid().get();
            self.holds.push(hold);
            pasid
        };
        let (real, expected) = match *op {
            Op::Close(_) => {
                set.close();
                model.free_range(tenant, 0, CAPACITY);
                if let Ok(open) = model.open(tenant) {
                    open.is_closed = true;
                }
                (Ok(0), Ok(0))
            }
            Op::Adjust(_, quota) => (plain(set.adjust(quota)), model.adjust(tenant, quota)),
            Op::Alloc(_, min, max) => (
                set.alloc(PasidRange { min, max }).map(HostPasid::get),
                model.alloc(tenant, min, max),
            ),
            Op::Free(_, id) => (
                plain(set.free(host(id))),
                model
                    .mine(tenant, id)
                    .map(|id| id.is_pending = true)
                    .map(|()| 0),
            ),
            Op::FreeRange(_, min, max) => (
                Ok(set.free_range(PasidRange { min, max })),
                Ok(model.free_range(tenant, min, max)),
            ),
            Op::Hold(_, id) => (
                set.hold(host(id)).map(&mut keep),
                model.live(tenant, id).map(|found| {
                    found.references += 1;
                    id
                }),
            ),
            Op::Pair(_, number, id) => (
                plain(set.attach_guest(guest(number), host(id))),
                model.pair(tenant, number, id),
            ),
            Op::Unpair(_, number) => (
                set.detach_guest(guest(number)).map(HostPasid::get),
                model.paired(tenant, number).inspect(|id| {
                    model.ids.get_mut(id).unwrap().guest = None;
                }),
            ),
            Op::Find(_, number) => (
                set.find_guest(guest(number)).map(&mut keep),
                model.paired(tenant, number).inspect(|id| {
                    model.ids.get_mut(id).unwrap().references += 1;
                }),
            ),
            Op::SetData(_, id, data) => (
                plain(set.set_data(host(id), data.map(Data))),
                model.mine(tenant, id).map(|found| {
                    found.data = data;
                    0
                }),
            ),
            Op::Data(_, id) => {
                let plain =
                    |data: Option<u64>| data.map_or(99, |data| u32::try_from(data).unwrap());
                (
                    set.find(host(id))
                        .map(|data| plain(data.map(|data| data.0))),
                    model.mine(tenant, id).map(|found| plain(found.data)),
                )
            }
            Op::Create(..)
            | Op::CloneHold(_)
            | Op::DropHold(_)
            | Op::Reserve(..)
            | Op::Unreserve(_) => (Ok(0), Ok(0)),
        };
        (real.map_err(|error| error.errno()), expected)
    }

    fn step_hold(&mut self, model: &mut Model, op: &Op) {
        if self.holds.is_empty() {
            return;
        }
        match *op {
            Op::CloneHold(at) => {
                let copy = self.holds[at % self.holds.len()].clone();
                model.ids.get_mut(&copy.pasid().get()).unwrap().references += 1;
                self.holds.push(copy);
            }
            Op::DropHold(at) => {
                let gone = self.holds.swap_remove(at % self.holds.len());
                model.ids.get_mut(&gone.pasid().get()).unwrap().references -= 1;
            }
            _ => {}
        }
    }

    fn ledger(&self) -> BTreeMap<u32, (u32, u32, bool, Option<u32>)> {
        let entries = self.authority.ledger().into_iter().map(|entry| {
            assert_eq!(
                entry.state == PasidState::Active,
                entry.references > 0 && entry.state != PasidState::FreePending
            );
            (
                entry.pasid.get(),
                (
                    entry.tenant.get(),
                    entry.references,
                    entry.state == PasidState::FreePending,
                    entry.guest.map(GuestPasid::get),
                ),
            )
        });
        entries.collect()
    }
}

proptest! {
    #[test]
    fn r48_r49_r47_every_sequence_of_operations_answers_as_the_model(
        ops in prop::collection::vec(op(), 1..200)
    ) {
        let (mut real, mut model) = (Real::new(), Model::default());
        for op in &ops {
            let (got, expected) = real.step(&mut model, op);
            prop_assert_eq!(got, expected, "{:?}", op);
            model.sweep();
            let expected: BTreeMap<_, _> = model.ids.iter().map(|(id, record)| {
                let tenant = u32::try_from(record.tenant).unwrap();
                (*id, (tenant, record.references, record.is_pending, record.guest))
            }).collect();
            for number in 0..CAPACITY + 2 {
                let (pasid, entry) = (host(number), expected.get(&number));
                let owner = entry.map(|entry| TenantId::new(entry.0));
                prop_assert_eq!(real.authority.owner_of(pasid), owner, "after {:?}", op);
                let is_pending = entry.is_some_and(|entry| entry.2);
                prop_assert_eq!(real.authority.is_free_pending(pasid), is_pending);
            }
            prop_assert_eq!(real.ledger(), expected, "after {:?}", op);
            prop_assert_eq!(real.authority.unreserved(), model.unreserved(), "after {:?}", op);
        }
    }
}
