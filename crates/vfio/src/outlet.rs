use std::sync::{Arc, Mutex, PoisonError, Weak};

use palisade_iommu::{Fault, LookedUp, MayWait, PageRequest, QueueFull, Sink};
use palisade_units::{Bdf, GuestPasid};

/// Where the platform sends a tenant's faults and page requests: on to the tenant's unit, if it is
/// there. The unit owns the container, so this end knows it weakly.
#[derive(Default)]
pub(crate) struct Outlet {
    unit: Mutex<Option<Weak<dyn Sink>>>,
}

impl Outlet {
    pub(crate) fn set(&self, unit: &Arc<dyn Sink>) {
        *self.unit.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::downgrade(unit));
    }

    fn unit(&self) -> Option<Arc<dyn Sink>> {
        let unit = self.unit.lock().unwrap_or_else(PoisonError::into_inner);
        unit.as_ref()?.upgrade()
    }
}

impl Sink for Outlet {
    fn fault(&self, fault: Fault) {
        if let Some(unit) = self.unit() {
            unit.fault(fault);
        }
    }

    fn look_up(&self, bdf: Bdf, pasid: Option<GuestPasid>, wait: MayWait) -> LookedUp {
        self.unit()
            .map_or(LookedUp::Nothing, |unit| unit.look_up(bdf, pasid, wait))
    }

    fn page_request(&self, request: PageRequest) -> Result<(), QueueFull> {
        // Nobody could answer: as a queue without room, so that the request ends at once.
        self.unit().ok_or(QueueFull)?.page_request(request)
    }
}
