//! Whose memory a device reaches, after any sequence of what tenants may do.

use std::collections::BTreeMap;

use palisade_ioasid::PasidRange;
use palisade_iommu::{DmaPort, FunctionHandle, Sharing, Space};
use palisade_units::{Gpa, HostPasid, PasidTag};
use proptest::prelude::*;

use super::world::*;
use crate::{Attachment, SpaceKey};

const TENANTS: usize = 2;
/// Numbers that guests use, and that devices are programmed with.
const NUMBERS: u32 = 10;
/// One page of each tenant, which says whose it is; both tenants see it at the same address.
const AT: u64 = 0x1000;

#[derive(Clone, Debug)]
enum Op {
    Attach {
        tenant: usize,
        mine: bool,
    },
    Detach {
        tenant: usize,
        mine: bool,
    },
    Alloc(usize),
    Free(usize, u32),
    /// Number 0 is for requests without a PASID.
    Bind {
        tenant: usize,
        mine: bool,
        number: u32,
        passes: bool,
    },
    Unbind {
        tenant: usize,
        mine: bool,
        number: u32,
    },
    UnmapMemory {
        tenant: usize,
        mine: bool,
    },
    Close(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (tenant, mine, number) = (0..TENANTS, any::<bool>(), 0..NUMBERS);
    let place = (tenant.clone(), mine);
    let entry = (tenant.clone(), mine, number.clone());
    prop_oneof![
        3 => place.clone().prop_map(|(tenant, mine)| Op::Attach { tenant, mine }),
        1 => place.clone().prop_map(|(tenant, mine)| Op::Detach { tenant, mine }),
        3 => tenant.clone().prop_map(Op::Alloc),
        2 => (tenant.clone(), number).prop_map(|(tenant, number)| Op::Free(tenant, number)),
        8 => (entry.clone(), any::<bool>()).prop_map(|((tenant, mine, number), passes)| {
            Op::Bind { tenant, mine, number, passes }
        }),
        3 => entry.prop_map(|(tenant, mine, number)| Op::Unbind { tenant, mine, number }),
        1 => place.prop_map(|(tenant, mine)| Op::UnmapMemory { tenant, mine }),
        1 => tenant.prop_map(Op::Close),
    ]
}

/// Two tenants with a slice each of one shared parent, and an exclusive parent each.
struct World {
    host: Host,
    tenants: Vec<Tenant>,
    processes: Vec<Space>,
    shared: FunctionHandle,
    own: Vec<FunctionHandle>,
    /// By tenant and whether it is on the exclusive parent.
    attached: BTreeMap<(usize, bool), Attachment>,
    /// Ports live as long as the parents, so that what they cache is tried too.
    shared_port: DmaPort,
    own_ports: Vec<DmaPort>,
}

/// What stands in a tenant's page.
fn mark(tenant: usize) -> u64 {
    0xa11c_e000 + tenant as u64
}

impl World {
    fn new() -> Self {
        let host = Host::new();
        let tenants: Vec<Tenant> = (1..).take(TENANTS).map(|n| host.tenant(n)).collect();
        let processes = tenants.iter().map(|t| t.process(&[(AT, AT)])).collect();
        for (number, tenant) in tenants.iter().enumerate() {
            tenant.ram.store_u64(AT, mark(number)).unwrap();
        }
        let shared = host.parent(0);
        let own: Vec<FunctionHandle> = (1..).take(TENANTS).map(|n| host.parent(n)).collect();
        Self {
            shared_port: shared.port(),
            own_ports: own.iter().map(FunctionHandle::port).collect(),
            host,
            tenants,
            processes,
            shared,
            own,
            attached: BTreeMap::new(),
        }
    }

    /// Does what can be done; refusals are other tests' business.
    fn step(&mut self, op: &Op) {
        let place = |mine| slot(if mine { 2 } else { 1 });
        let key = |number| {
            if number == 0 {
                SpaceKey::WithoutPasid
            } else {
                pasid(number)
            }
        };
        match *op {
            Op::Attach { tenant, mine } => {
                let (function, sharing) = if mine {
                    (&self.own[tenant], Sharing::Exclusive)
                } else {
                    (&self.shared, Sharing::Mediated)
                };
                if let Ok(new) = self.tenants[tenant].attach(place(mine), function, sharing) {
                    self.attached.insert((tenant, mine), new);
                }
            }
            Op::Detach { tenant, mine } => drop(self.attached.remove(&(tenant, mine))),
            Op::Alloc(tenant) => {
                let _ = self.tenants[tenant].container.alloc_pasid(PasidRange::ALL);
            }
            Op::Free(tenant, number) => {
                if let Ok(pasid) = HostPasid::new(number) {
                    let _ = self.tenants[tenant].container.free_pasid(pasid);
                }
            }
            Op::Bind {
                tenant,
                mine,
                number,
                passes,
            } => {
                let space = if passes {
                    Space::PassThrough
                } else {
                    self.processes[tenant]
                };
                let _ = self.tenants[tenant].bind(place(mine), key(number), space);
            }
            Op::Unbind {
                tenant,
                mine,
                number,
            } => {
                let _ = self.tenants[tenant]
                    .container
                    .unbind(place(mine), key(number));
            }
            Op::UnmapMemory { tenant, mine } => {
                if let Some(attachment) = self.attached.get(&(tenant, mine)) {
                    let _ = attachment.unmap(Gpa::new(0), RAM_BYTES);
                }
            }
            Op::Close(tenant) => self.tenants[tenant].container.close(),
        }
    }

    /// Programs every number into every device.
    fn check(&mut self) -> Result<usize, TestCaseError> {
        let mut reached = 0;
        for number in 0..NUMBERS + 20 {
            let tag = PasidTag::from(host(number));
            if let Ok(found) = read(&mut self.shared_port, Some(tag), AT) {
                // On a shared parent the number is the host's: it leads to whoever owns it.
                let owner = self.host.authority.owner_of(host(number)).map(|t| t.get());
                prop_assert_eq!(owner, Some(u32::try_from(found - mark(0)).unwrap() + 1));
                reached += 1;
            }
            for tenant in 0..TENANTS {
                if let Ok(found) = read(&mut self.own_ports[tenant], raw(number), AT) {
                    prop_assert_eq!(found, mark(tenant));
                    prop_assert!(self.attached.contains_key(&(tenant, true)));
                    reached += 1;
                }
            }
        }
        prop_assert!(
            read(&mut self.shared_port, None, AT).is_err(),
            "a shared parent has no address space of its own"
        );
        for tenant in 0..TENANTS {
            if let Ok(found) = read(&mut self.own_ports[tenant], None, AT) {
                prop_assert_eq!(found, mark(tenant));
            }
        }
        Ok(reached)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn r8_no_sequence_of_requests_lets_a_device_reach_the_other_tenant(
        ops in prop::collection::vec(op(), 1..100)
    ) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
            world.check()?;
        }
    }
}

#[test]
fn r8_the_check_sees_what_is_reached() {
    let mut world = World::new();
    for tenant in 0..TENANTS {
        world.step(&Op::Attach {
            tenant,
            mine: false,
        });
        world.step(&Op::Attach { tenant, mine: true });
        world.step(&Op::Bind {
            tenant,
            mine: false,
            number: 5,
            passes: false,
        });
        world.step(&Op::Bind {
            tenant,
            mine: true,
            number: 5,
            passes: false,
        });
    }
    // Each slice's default space passes through until its guest turns translation on.
    assert_eq!(world.check().unwrap(), 6);
}
