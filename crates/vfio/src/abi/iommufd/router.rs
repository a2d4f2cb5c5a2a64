//! Who of a client's queues is told of what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use palisade_iommu::{Fault, PageRequest, QueueFull, Sink};
use palisade_units::Bdf;

use super::ObjectId;
use super::events::EventQueue;
use super::fault_queue::{Asker, FaultQueue};
use crate::SpaceKey;
use crate::abi::vmm::locked;

/// Where the page requests of a device go, under one key.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) device: ObjectId,
    pub(super) queue: Arc<FaultQueue>,
}

/// A device's name at its virtual unit, and the queue of that.
pub(super) type Named = (Bdf, Arc<EventQueue>);

/// The sink of a client's devices. Its locks are held over nothing but look-ups: it is called while the client's own
/// requests wait for the platform.
#[derive(Default)]
pub(super) struct Router {
    routes: Mutex<BTreeMap<Asker, Route>>,
    events: Mutex<BTreeMap<Bdf, Named>>,
}

impl Router {
    /// Asker now on page requests of these go there; says where they went.
    pub(super) fn set(&self, from: Asker, route: Option<Route>) -> Option<Route> {
        let mut routes = locked(&self.routes);
        match route {
            Some(route) => routes.insert(from, route),
            None => routes.remove(&from),
        }
    }

    pub(super) fn set_events(&self, events: BTreeMap<Bdf, Named>) {
        *locked(&self.events) = events;
    }
}

impl Sink for Router {
    fn fault(&self, fault: Fault) {
        let named = locked(&self.events).get(&fault.bdf).cloned();
        if let Some((name, queue)) = named {
            queue.put(&fault, name);
        }
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        let from = Asker {
            place: request.bdf,
            key: request
                .pasid
                .map_or(SpaceKey::WithoutPasid, SpaceKey::Pasid),
        };
        let route = locked(&self.routes).get(&from).cloned();
        // Nobody asked to answer: as a queue without room, so that the request ends at once.
        let Route { device, queue } = route.ok_or(QueueFull)?;
        queue.put(&request, from, device)
    }
}
