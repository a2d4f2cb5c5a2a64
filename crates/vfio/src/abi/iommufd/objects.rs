//! What a client has made, by ids.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use palisade_iommu::Space;
use palisade_memory::GuestMemory;
use palisade_units::Bdf;

use super::IommufdError;
use super::events::EventQueue;
use super::fault_queue::FaultQueue;
use crate::{Attachment, SpaceKey, Terms};

/// How many objects a client may have.
const MOST: usize = 4096;
/// How many of them may be spaces, each of which may map as much as a VMM may.
const MOST_SPACES: usize = 16;

/// The name of an object, not 0. The lowest one that is free is given to the next object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(u32);

impl ObjectId {
    /// The id with this number.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who made a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MadeBy {
    /// The client, who destroys it.
    Client,
    /// An attach to a space. It goes when nothing is attached to it.
    Attach,
}

/// Whether something was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Yes,
    No,
}

impl Asked {
    pub(super) fn of(flags: u32, flag: u32) -> Self {
        if flags & flag == 0 {
            Self::No
        } else {
            Self::Yes
        }
    }
}

/// What a table translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing: the addresses are those of its space.
    OfSpace {
        /// Whether others may be nested in it.
        parent: Asked,
    },
    /// A guest's first stage, whose tables and results are in the space of its parent.
    Nested(Terms),
}

/// A table that devices may be attached to.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) stage: Stage,
    /// A space; or a parent or a virtual unit.
    pub(super) over: ObjectId,
    /// What is in that space.
    pub(super) memory: GuestMemory,
    /// Whether PASIDs may be attached to it.
    pub(super) pasids: Asked,
    pub(super) faults: Option<(ObjectId, Arc<FaultQueue>)>,
    pub(super) made_by: MadeBy,
}

impl Table {
    pub(super) fn terms(&self) -> Terms {
        match self.stage {
            Stage::OfSpace { .. } => Terms::UNTRANSLATED,
            Stage::Nested(terms) => terms,
        }
    }

    pub(super) fn is_nested(&self) -> bool {
        matches!(self.terms().space, Space::FirstStage(_))
    }
}

/// A device that is bound.
pub(super) struct Device {
    pub(super) place: Bdf,
    pub(super) attachment: Attachment,
    /// The tables that it is attached to.
    pub(super) tables: BTreeMap<SpaceKey, ObjectId>,
}

/// A device's name at a virtual unit.
pub(super) struct VirtualDevice {
    pub(super) unit: ObjectId,
    pub(super) device: ObjectId,
    pub(super) name: Bdf,
}

pub(super) enum Object {
    Space(GuestMemory),
    Table(Table),
    Device(Device),
    FaultQueue(Arc<FaultQueue>),
    /// Over a parent.
    VirtualUnit(ObjectId),
    VirtualDevice(VirtualDevice),
    EventQueue(ObjectId, Arc<EventQueue>),
}

impl Object {
    /// Whether it is in use by a file of the client's: of the device, or of the queue.
    fn has_open_file(&self) -> bool {
        match self {
            Self::Device(_) => true,
            Self::FaultQueue(queue) => queue.is_open(),
            Self::EventQueue(_, queue) => queue.is_open(),
            Self::Space(_) | Self::Table(_) | Self::VirtualUnit(_) | Self::VirtualDevice(_) => {
                false
            }
        }
    }

    /// Whether this keeps another object from being destroyed.
    fn uses(&self, id: ObjectId) -> bool {
        match self {
            Self::Space(_) | Self::FaultQueue(_) => false,
            Self::Table(table) => {
                let faults = table.faults.as_ref();
                table.over == id || faults.is_some_and(|(queue, _)| *queue == id)
            }
            Self::Device(device) => device.tables.values().any(|table| *table == id),
            Self::VirtualUnit(parent) => *parent == id,
            Self::VirtualDevice(one) => one.unit == id || one.device == id,
            Self::EventQueue(unit, _) => *unit == id,
        }
    }
}

/// All objects of one client.
#[derive(Default)]
pub(super) struct Objects(BTreeMap<ObjectId, Object>);

impl Objects {
    /// Takes an object in, under the lowest free id.
    pub(super) fn add(&mut self, object: Object) -> Result<ObjectId, IommufdError> {
        let spaces = |objects: &Self| {
            let all = objects.0.values();
            all.filter(|one| matches!(one, Object::Space(_))).count()
        };
        let is_space = matches!(object, Object::Space(_));
        if self.0.len() >= MOST || is_space && spaces(self) >= MOST_SPACES {
            return Err(IommufdError::TooMany);
        }
        let mut free = 1;
        for id in self.0.keys() {
            if id.get() != free {
                break;
            }
            free += 1;
        }
        let id = ObjectId(free);
        self.0.insert(id, object);
        Ok(id)
    }

    pub(super) fn get(&self, id: ObjectId) -> Result<&Object, IommufdError> {
        self.0.get(&id).ok_or(IommufdError::NoObject(id))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
        self.0.iter().map(|(id, object)| (*id, object))
    }

    pub(super) fn space(&self, id: ObjectId) -> Result<&GuestMemory, IommufdError> {
        match self.get(id)? {
            Object::Space(memory) => Ok(memory),
            _ => Err(IommufdError::NoObject(id)),
        }
    }

    pub(super) fn table(&self, id: ObjectId) -> Result<&Table, IommufdError> {
        match self.get(id)? {
            Object::Table(table) => Ok(table),
            _ => Err(IommufdError::NoObject(id)),
        }
    }

    pub(super) fn device(&self, id: ObjectId) -> Result<&Device, IommufdError> {
        match self.get(id)? {
            Object::Device(device) => Ok(device),
            _ => Err(IommufdError::NoObject(id)),
        }
    }

    pub(super) fn device_mut(&mut self, id: ObjectId) -> Result<&mut Device, IommufdError> {
        match self.0.get_mut(&id) {
            Some(Object::Device(device)) => Ok(device),
            _ => Err(IommufdError::NoObject(id)),
        }
    }

    pub(super) fn fault_queue(&self, id: ObjectId) -> Result<&Arc<FaultQueue>, IommufdError> {
        match self.get(id)? {
            Object::FaultQueue(queue) => Ok(queue),
            _ => Err(IommufdError::NoObject(id)),
        }
    }

    /// The parent that a virtual unit is over.
    pub(super) fn virtual_unit(&self, id: ObjectId) -> Result<ObjectId, IommufdError> {
        match self.get(id)? {
            Object::VirtualUnit(parent) => Ok(*parent),
            _ => Err(IommufdError::NoObject(id)),
        }
    }

    /// The bound device at a place.
    pub(super) fn device_at(&self, place: Bdf) -> Option<ObjectId> {
        let at = |object: &Object| matches!(object, Object::Device(one) if one.place == place);
        let mut all = self.all();
        all.find(|(_, object)| at(object)).map(|(id, _)| id)
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = (ObjectId, &Device)> {
        self.all().filter_map(|(id, object)| match object {
            Object::Device(device) => Some((id, device)),
            _ => None,
        })
    }

    pub(super) fn is_used(&self, id: ObjectId) -> bool {
        self.0.values().any(|object| object.uses(id))
    }

    /// Takes out what nothing uses. A device is in use as long as it is bound, and a queue as long as its file is open.
    pub(super) fn destroy(&mut self, id: ObjectId) -> Result<Object, IommufdError> {
        let object = self.get(id)?;
        if object.has_open_file() || self.is_used(id) {
            return Err(IommufdError::InUse(id));
        }
        self.remove(id)
    }

    pub(super) fn remove(&mut self, id: ObjectId) -> Result<Object, IommufdError> {
        self.0.remove(&id).ok_or(IommufdError::NoObject(id))
    }

    /// A table that an attach made, and that nothing is attached to any more, goes.
    pub(super) fn tidy(&mut self, id: ObjectId) {
        let by_attach = |table: &Table| table.made_by == MadeBy::Attach;
        if self.table(id).is_ok_and(by_attach) && !self.is_used(id) {
            self.0.remove(&id);
        }
    }

    /// Takes out everything.
    pub(super) fn take(&mut self) -> Vec<Object> {
        std::mem::take(&mut self.0).into_values().collect()
    }
}
