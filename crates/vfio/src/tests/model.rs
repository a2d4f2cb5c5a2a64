//! Containers of two tenants on two parents beside a naive model: the same operations, the same
//! answers, and the same entries on the platform.

use std::collections::{BTreeMap, BTreeSet};

use palisade_ioasid::PasidRange;
use palisade_iommu::{FunctionHandle, Sharing, Space};
use proptest::prelude::*;

use super::world::*;
use crate::{Attachment, SpaceKey};

const TENANTS: usize = 2;
const SLOTS: usize = 3;
const PARENTS: usize = 2;

#[derive(Clone, Debug)]
enum Op {
    Attach(usize, usize, usize, bool),
    Detach(usize, usize),
    Alloc(usize),
    /// Frees the PASID with this number.
    Free(usize, u32),
    /// 0 means requests without a PASID.
    Bind(usize, usize, u32, usize),
    Unbind(usize, usize, u32),
    Close(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (tenant, slot, number) = (0..TENANTS, 0..SLOTS, 1..12u32);
    let key = 0..12u32;
    prop_oneof![
        4 => (tenant.clone(), slot.clone(), 0..PARENTS, prop::bool::weighted(0.2))
            .prop_map(|(t, s, p, exclusive)| Op::Attach(t, s, p, exclusive)),
        1 => (tenant.clone(), slot.clone()).prop_map(|(t, s)| Op::Detach(t, s)),
        3 => tenant.clone().prop_map(Op::Alloc),
        3 => (tenant.clone(), number).prop_map(|(t, n)| Op::Free(t, n)),
        9 => (tenant.clone(), slot.clone(), key.clone(), 0..2usize)
            .prop_map(|(t, s, k, space)| Op::Bind(t, s, k, space)),
        4 => (tenant.clone(), slot, key).prop_map(|(t, s, k)| Op::Unbind(t, s, k)),
        1 => tenant.prop_map(Op::Close),
    ]
}

/// What is attached in one slot of one tenant. Keys and spaces by the numbers of the operations;
/// space 0 is to pass through.
struct Function {
    parent: usize,
    is_exclusive: bool,
    bound: BTreeMap<u32, usize>,
}

#[derive(Default)]
struct Client {
    functions: BTreeMap<usize, Function>,
    allocated: BTreeSet<u32>,
}

impl Client {
    /// The guest's own numbers that are bound somewhere.
    fn own(&self) -> BTreeSet<u32> {
        let bound = self.functions.values().flat_map(|f| f.bound.keys());
        let pasids = bound.copied().filter(|key| *key != 0);
        pasids.filter(|n| !self.allocated.contains(n)).collect()
    }

    fn charged(&self) -> usize {
        self.functions.len() + self.allocated.len() + self.own().len()
    }

    fn bind(&mut self, slot: usize, key: u32, space: usize) -> Result<(), i32> {
        let Some(function) = self.functions.get(&slot) else {
            return Err(ENODEV);
        };
        if function.bound.get(&key) == Some(&space) {
            return Ok(());
        }
        let parent = function.parent;
        let mut others = self.functions.iter().filter(|(other, function)| {
            // Mediated devices of one parent share an entry; each has its own without a PASID.
            **other != slot && function.parent == parent && key != 0
        });
        let differs = |function: &Function| function.bound.get(&key).is_some_and(|s| *s != space);
        if others.clone().any(|(_, other)| differs(other)) {
            return Err(EBUSY);
        }
        let is_shared = others.any(|(_, other)| other.bound.contains_key(&key));
        let function = self.functions.get_mut(&slot).ok_or(ENODEV)?;
        if is_shared && function.bound.contains_key(&key) {
            return Err(EBUSY);
        }
        function.bound.insert(key, space);
        Ok(())
    }
}

fn key(number: u32) -> SpaceKey {
    match number {
        0 => SpaceKey::WithoutPasid,
        n => pasid(n),
    }
}

fn at(slot: usize) -> palisade_units::Bdf {
    super::world::slot(u8::try_from(slot).unwrap())
}

struct World {
    host: Host,
    parents: [FunctionHandle; PARENTS],
    tenants: [Tenant; TENANTS],
    spaces: [[Space; 2]; TENANTS],
    attachments: BTreeMap<(usize, usize), Attachment>,
    clients: [Client; TENANTS],
}

impl World {
    fn new() -> Self {
        let host = Host::new();
        let tenants = [host.tenant(0), host.tenant(1)];
        Self {
            parents: [host.parent(1), host.parent(2)],
            spaces: tenants
                .each_ref()
                .map(|tenant| [Space::PassThrough, tenant.process(&[])]),
            tenants,
            host,
            attachments: BTreeMap::new(),
            clients: Default::default(),
        }
    }

    fn claims_of(&self, parent: usize) -> impl Iterator<Item = &Function> {
        let all = self.clients.iter().flat_map(|c| c.functions.values());
        all.filter(move |function| function.parent == parent)
    }

    /// Runs one operation on both and gives both answers.
    fn step(&mut self, op: &Op) -> (Result<(), i32>, Result<(), i32>) {
        let plain = |answer: Result<(), crate::VfioError>| answer.map_err(|e| e.errno());
        match *op {
            Op::Attach(tenant, slot, parent, is_exclusive) => {
                let taken = self.clients[tenant].functions.contains_key(&slot);
                let mut others = self.claims_of(parent);
                let expected = if taken {
                    Err(EEXIST)
                } else if others.any(|other| is_exclusive || other.is_exclusive) {
                    Err(EBUSY)
                } else {
                    Ok(())
                };
                let sharing = if is_exclusive {
                    Sharing::Exclusive
                } else {
                    Sharing::Mediated
                };
                drop(others);
                let got = self.tenants[tenant].attach(at(slot), &self.parents[parent], sharing);
                let got = got.map(|attachment| {
                    self.attachments.insert((tenant, slot), attachment);
                    let function = Function {
                        parent,
                        is_exclusive,
                        bound: BTreeMap::from([(0, 0)]),
                    };
                    self.clients[tenant].functions.insert(slot, function);
                });
                (plain(got), expected)
            }
            Op::Detach(tenant, slot) => {
                self.attachments.remove(&(tenant, slot));
                self.clients[tenant].functions.remove(&slot);
                (Ok(()), Ok(()))
            }
            Op::Alloc(tenant) => {
                let got = self.tenants[tenant].container.alloc_pasid(PasidRange::ALL);
                let client = &mut self.clients[tenant];
                let got = got.map(|pasid| {
                    assert!(
                        !client.own().contains(&pasid.get()),
                        "it means something else"
                    );
                    assert!(client.allocated.insert(pasid.get()), "given out twice");
                });
                (plain(got), Ok(()))
            }
            Op::Free(tenant, number) => {
                let owner = self.host.authority.owner_of(host(number));
                let mine = Some(self.tenants[tenant].container.set().tenant());
                let client = &mut self.clients[tenant];
                let expected = if client.allocated.remove(&number) {
                    for function in client.functions.values_mut() {
                        function.bound.remove(&number);
                    }
                    Ok(())
                } else if owner.is_some() && owner != mine {
                    Err(EACCES)
                } else {
                    Err(ENOENT)
                };
                let got = self.tenants[tenant].container.free_pasid(host(number));
                (plain(got), expected)
            }
            Op::Bind(tenant, slot, number, space) => (
                plain(self.tenants[tenant].bind(at(slot), key(number), self.spaces[tenant][space])),
                self.clients[tenant].bind(slot, number, space),
            ),
            Op::Unbind(tenant, slot, number) => {
                let function = self.clients[tenant].functions.get_mut(&slot);
                let expected = function.ok_or(ENODEV).and_then(|function| {
                    let gone = function.bound.remove(&number);
                    gone.map(drop).ok_or(ENOENT)
                });
                let container = &self.tenants[tenant].container;
                (plain(container.unbind(at(slot), key(number))), expected)
            }
            Op::Close(tenant) => {
                self.tenants[tenant].container.close();
                self.clients[tenant].allocated.clear();
                for function in self.clients[tenant].functions.values_mut() {
                    function.bound = BTreeMap::from([(0, 0)]);
                }
                (Ok(()), Ok(()))
            }
        }
    }

    fn check(&self) {
        for (index, (tenant, client)) in self.tenants.iter().zip(&self.clients).enumerate() {
            let outstanding = tenant.container.set().outstanding();
            assert_eq!(usize::try_from(outstanding).unwrap(), client.charged());
            for (slot, function) in &client.functions {
                let bound = function.bound.iter();
                let expected: Vec<_> = bound
                    .map(|(number, space)| (key(*number), self.spaces[index][*space]))
                    .collect();
                assert_eq!(tenant.container.bound(at(*slot)), expected);
            }
        }
        let audit = self.host.iommu.audit();
        let users: usize = audit.iter().map(|entry| entry.users).sum();
        let clients = self.clients.iter().flat_map(|c| c.functions.values());
        assert_eq!(users, clients.map(|f| f.bound.len()).sum::<usize>());
        for entry in audit {
            let owner = self.host.authority.owner_of(entry.host_pasid);
            assert_eq!(owner, Some(entry.tenant));
            let tenant = usize::try_from(entry.tenant.get()).unwrap();
            let mut functions = self.clients[tenant].functions.values();
            let bdf = |f: &Function| self.parents[f.parent].bdf();
            assert!(functions.any(|f| bdf(f) == entry.bdf), "no right to it");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn r15_r12_every_sequence_of_requests_answers_and_leaves_entries_as_the_model(
        ops in prop::collection::vec(op(), 1..80)
    ) {
        let mut world = World::new();
        for op in &ops {
            let (got, expected) = world.step(op);
            prop_assert_eq!(got, expected, "{:?}", op);
            world.check();
        }
        world.attachments.clear();
        for tenant in &world.tenants {
            tenant.container.close();
        }
        prop_assert_eq!(world.host.authority.ledger(), []);
        prop_assert_eq!(world.host.iommu.audit(), []);
    }
}
