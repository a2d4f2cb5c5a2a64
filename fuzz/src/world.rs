//! A host with two tenants, of which one is hostile.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use arbitrary::Unstructured;
use palisade_container::EventFds;
use palisade_dsa::{Doorbell, Engine, Progress};
use palisade_ioasid::{Authority, Quota};
use palisade_iommu::{
    DmaPort, FirstStage, FunctionHandle, Iommu, Levels, PasidSupport, Sharing, Space,
};
use palisade_mdev::{Assigned, Parent, Registry, Shape, SliceType, Whole};
use palisade_memory::{GuestMemory, Protection, SharedMemory};
use palisade_units::{Bdf, Gpa, GuestPasid, TenantId};
use palisade_vfio::abi::{FaultDelivery, Offer, Offers, StageFormat, Vmm};
use palisade_vfio::{Container, SpaceKey, Terms};
use palisade_vtd::{CachingMode, MessageSignal, Unit, UnitConfig, VcmdLayout};
use uuid::Uuid;

use crate::driver::Driver;

pub(crate) const MEMORY_BYTES: u64 = 1 << 20;
const VICTIM_BYTES: u64 = 8 << 10;
/// What the hostile tenant may have.
pub(crate) const QUOTA: u32 = 8;
pub(crate) const SLOT: Bdf = Bdf::new(0, 0x10, 0);
pub(crate) const WHOLE_SLOT: Bdf = Bdf::new(0, 0x11, 0);
const PARENT: Bdf = Bdf::new(0x6a, 1, 0);
const SECOND_PARENT: Bdf = Bdf::new(0x6a, 2, 0);
const THIRD_PARENT: Bdf = Bdf::new(0x6a, 3, 0);
/// Where the hostile tenant's VMM may attach a function by itself.
pub(crate) const OFFERED_SLOT: Bdf = Bdf::new(0, 0x12, 0);
/// What the victim's memory is full of.
const SECRET: u64 = 0x5ec7_e700_5ec7_e700;
/// The engine's turns for one input: enough for what an input can submit.
const TURNS: u32 = 4096;

thread_local! {
    // Its tables of all PASIDs take longer to make than a world.
    static AUTHORITY: Authority = Authority::new(&[]);
    static TENANTS: Cell<u32> = const { Cell::new(0) };
}

struct Silent;

impl Doorbell for Silent {
    fn ring(&self) {}
}

impl MessageSignal for Silent {
    fn send(&self, _: u64, _: u32) {}
}

/// The host, seen from the hostile tenant.
pub(crate) struct World {
    authority: Authority,
    iommu: Iommu,
    parent: Arc<Parent>,
    second: Arc<Parent>,
    // Made when they are first used: their caches take longer to make than all the rest.
    engines: OnceLock<Mutex<[Engine; 2]>>,
    port: OnceLock<Mutex<DmaPort>>,
    pub(crate) shared: SharedMemory,
    pub(crate) guest: GuestMemory,
    pub(crate) unit: Arc<Unit>,
    pub(crate) container: Container,
    pub(crate) slice: Assigned,
    pub(crate) whole: Assigned,
    hostile: TenantId,
    victim: Victim,
    _kept: (Registry, Arc<Whole>),
    // Goes last.
    _books: Books,
}

struct Victim {
    tenant: TenantId,
    memory: SharedMemory,
    outstanding: u32,
    _assigned: Assigned,
    _container: Container,
}

fn memory(name: &str, len_bytes: u64) -> (SharedMemory, GuestMemory) {
    let shared = SharedMemory::create(name, len_bytes).expect("memory");
    let guest = GuestMemory::new();
    let at = Gpa::new(0);
    let mapped = guest.map(at, len_bytes, shared.backing(), Protection::ReadWrite);
    mapped.expect("an empty space");
    (shared, guest)
}

fn parent(iommu: &Iommu, name: &str, at: Bdf) -> Arc<Parent> {
    let function = iommu.add_function(at, PasidSupport::Width(20));
    let function = function.expect("a free place");
    Parent::new(name, function, Shape::default(), Arc::new(Silent))
}

impl World {
    /// The same as [`World::new`], with a unit that is told of new entries and takes no virtual commands.
    pub(crate) fn plain(kind: SliceType) -> Self {
        let config = UnitConfig {
            vcmd: VcmdLayout::Off,
            caching_mode: CachingMode::On,
        };
        Self::new(config, kind)
    }

    /// One of those, with a slice of whatever kind the input says.
    pub(crate) fn of_any_kind(input: &mut Unstructured<'_>) -> (Self, SliceType) {
        let kind = input.choose(&SliceType::ALL).copied();
        let kind = kind.unwrap_or(SliceType::SharedQueue);
        (Self::plain(kind), kind)
    }

    /// Binds PASID 1 of both functions.
    pub(crate) fn bind_both(&self, space: Space) {
        let key = SpaceKey::Pasid(GuestPasid::new(1).expect("a PASID"));
        for slot in [SLOT, WHOLE_SLOT] {
            let bound = self.container.bind(slot, key, Terms::new(space));
            bound.expect("an own function");
        }
    }

    /// A hostile tenant with a unit, a slice beside one of the victim's, and a whole function.
    pub(crate) fn new(config: UnitConfig, kind: SliceType) -> Self {
        let authority = AUTHORITY.with(Authority::clone);
        let books = Books {
            authority: authority.clone(),
            before: authority.outstanding(),
        };
        let tenants = TENANTS.with(|tenants| {
            let next = tenants.get() + 2;
            tenants.set(next);
            [next - 1, next].map(TenantId::new)
        });
        let [hostile, victim] = tenants;
        let iommu = Iommu::new();
        let parent = self::parent(&iommu, "dsa0", PARENT);
        let second = self::parent(&iommu, "dsa1", SECOND_PARENT);
        let registry = Registry::new();
        let slice = |number, kind| {
            let uuid = Uuid::from_u128(number);
            registry.create(uuid, &parent, kind).expect("a free queue")
        };
        let container = |tenant, quota| {
            let set = authority.create_set(tenant, Quota::Exactly(quota));
            Container::new(set.expect("a new tenant"))
        };
        let victim = {
            let container = container(victim, QUOTA);
            let (memory, guest) = memory("victim", VICTIM_BYTES);
            for at in (0..VICTIM_BYTES).step_by(8) {
                memory.store_u64(at, SECRET).expect("inside");
            }
            let slice = slice(2, SliceType::SharedQueue);
            let assigned = slice.assign(&container, SLOT, guest).expect("a free slice");
            Driver::new(&assigned).turn_on();
            let space = Space::FirstStage(FirstStage::new(Gpa::new(0), Levels::Four));
            let number = GuestPasid::new(1).expect("a PASID");
            container
                .bind(SLOT, SpaceKey::Pasid(number), Terms::new(space))
                .expect("an own function");
            Victim {
                tenant: victim,
                memory,
                outstanding: authority.outstanding(),
                _assigned: assigned,
                _container: container,
            }
        };
        let (shared, guest) = memory("hostile", MEMORY_BYTES);
        let container = container(hostile, QUOTA);
        let unit = Unit::new(
            config,
            container.clone(),
            guest.clone(),
            Arc::new(Silent) as _,
        );
        let whole = second.claim(hostile).expect("an unused parent");
        let assigned = slice(1, kind)
            .assign(&container, SLOT, guest.clone())
            .expect("a free slice");
        let whole_assigned = whole
            .assign(&container, WHOLE_SLOT, guest.clone())
            .expect("an unused function");
        for (at, assigned) in [(SLOT, &assigned), (WHOLE_SLOT, &whole_assigned)] {
            Driver::new(assigned).turn_on();
            unit.attached(at);
        }
        Self {
            authority,
            iommu,
            parent,
            second,
            engines: OnceLock::new(),
            port: OnceLock::new(),
            shared,
            guest,
            unit,
            container,
            slice: assigned,
            whole: whole_assigned,
            hostile,
            victim,
            _kept: (registry, whole),
            _books: books,
        }
    }

    /// The hostile tenant as its VMM asks for it, with a function that it may attach by itself.
    pub(crate) fn vmm(&self) -> (Vmm, FunctionHandle) {
        let function = self
            .iommu
            .add_function(THIRD_PARENT, PasidSupport::Width(20));
        let function = function.expect("a free place");
        let offers = Offers {
            units: vec![palisade_vfio::abi::Unit {
                format: StageFormat::VtD,
                address_bits: 57,
                pasid_bits: 20,
                cap: 0,
                ecap: u64::MAX,
            }],
            functions: vec![Offer {
                guest_bdf: OFFERED_SLOT,
                function: function.clone(),
                sharing: Sharing::Mediated,
            }],
            faults: FaultDelivery::ByRing(Arc::new(EventFds::default())),
            ..Offers::default()
        };
        (Vmm::with(self.container.clone(), offers), function)
    }

    /// The whole function's way to memory.
    pub(crate) fn port(&self) -> MutexGuard<'_, DmaPort> {
        let port = || Mutex::new(self.second.function().port());
        let port = self.port.get_or_init(port);
        port.lock().expect("no panic before")
    }

    /// Lets the engines work until nothing is left that can be done.
    pub(crate) fn work(&self) {
        let engines = || Mutex::new([self.parent.engine(), self.second.engine()]);
        let engines = self.engines.get_or_init(engines);
        let mut engines = engines.lock().expect("no panic before");
        for _ in 0..TURNS {
            let idle = engines.iter_mut().map(|engine| engine.run(64));
            if idle.filter(|done| *done == Progress::Idle).count() == 2 {
                return;
            }
        }
        panic!("the engines do not come to rest");
    }

    /// What must hold whatever the tenant did.
    pub(crate) fn check(&self) {
        let own = self.authority.outstanding() - self.victim.outstanding;
        assert!(own <= QUOTA, "{own} PASIDs");
        for entry in self.iommu.audit() {
            let owner = self.authority.owner_of(entry.host_pasid);
            assert_eq!(owner, Some(entry.tenant), "{entry:?}");
        }
        for forwarded in self.parent.forwarded().last() {
            if forwarded.tenant == self.hostile {
                let owner = self.authority.owner_of(forwarded.host);
                assert_ne!(owner, Some(self.victim.tenant), "{forwarded:?}");
            }
        }
        for at in (0..VICTIM_BYTES).step_by(8) {
            assert_eq!(self.victim.memory.load_u64(at), Ok(SECRET), "at {at:#x}");
        }
    }
}

/// Checks, once everything of a world is gone, that all that it had is given back (R33, R72).
struct Books {
    authority: Authority,
    before: u32,
}

impl Drop for Books {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.authority.outstanding(), self.before, "PASIDs leak");
        }
    }
}
