use palisade_units::{GuestPasid, HostPasid, PASID_COUNT};

use crate::{PasidState, Sequence};

/// Names a set for ever: numbers are not used again, so a stale handle finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetId(pub(crate) u32);

/// A word that its owner attaches to a PASID. The authority passes it on and does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Data(pub u64);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freed {
    No,
    /// Still referred to; the number comes back with the last hold.
    Pending,
}

/// What is kept for one PASID that is out.
pub(crate) struct Record {
    /// The event of its allocation.
    pub(crate) since: Sequence,
    pub(crate) set: SetId,
    pub(crate) references: u32,
    /// How many entries in tables were told of.
    pub(crate) bindings: u32,
    /// The guest's name for it. Once the PASID is freed this is a label only: the pair is gone.
    guest: PackedGuest,
    pub(crate) freed: Freed,
}

/// A guest's number or none in four bytes.
#[derive(Clone, Copy)]
struct PackedGuest(u32);

impl PackedGuest {
    const NONE: Self = Self(u32::MAX);
}

impl Record {
    pub(crate) fn new(set: SetId, since: Sequence) -> Self {
        Self {
            since,
            set,
            references: 0,
            bindings: 0,
            guest: PackedGuest::NONE,
            freed: Freed::No,
        }
    }

    pub(crate) fn guest(&self) -> Option<GuestPasid> {
        GuestPasid::new(self.guest.0).ok()
    }

    pub(crate) fn set_guest(&mut self, guest: Option<GuestPasid>) {
        self.guest = guest.map_or(PackedGuest::NONE, |guest| PackedGuest(guest.get()));
    }

    pub(crate) fn state(&self) -> PasidState {
        match (self.freed, self.references) {
            (Freed::Pending, _) => PasidState::FreePending,
            (Freed::No, 0) => PasidState::Idle,
            (Freed::No, _) => PasidState::Active,
        }
    }
}

const CHUNK: u32 = 1024;

/// Records by PASID, in chunks that appear with the first id in them.
pub(crate) struct Records {
    chunks: Vec<Vec<Option<Record>>>,
}

impl Records {
    pub(crate) fn new() -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with(to_index(PASID_COUNT / CHUNK), Vec::new);
        Self { chunks }
    }

    pub(crate) fn get(&self, pasid: HostPasid) -> Option<&Record> {
        let chunk = self.chunks.get(to_index(pasid.get() / CHUNK))?;
        chunk.get(to_index(pasid.get() % CHUNK))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, pasid: HostPasid) -> Option<&mut Record> {
        let chunk = self.chunks.get_mut(to_index(pasid.get() / CHUNK))?;
        chunk.get_mut(to_index(pasid.get() % CHUNK))?.as_mut()
    }

    /// The place of a record, made if its chunk was never used.
    pub(crate) fn slot(&mut self, pasid: HostPasid) -> &mut Option<Record> {
        let chunk = &mut self.chunks[to_index(pasid.get() / CHUNK)];
        if chunk.is_empty() {
            chunk.reserve_exact(to_index(CHUNK));
            chunk.resize_with(to_index(CHUNK), || None);
        }
        &mut chunk[to_index(pasid.get() % CHUNK)]
    }
}

fn to_index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
impl Records {
    pub(crate) fn footprint_bytes(&self) -> usize {
        let records = self.chunks.iter().map(Vec::capacity).sum::<usize>();
        records * size_of::<Option<Record>>() + self.chunks.capacity() * size_of::<Vec<()>>()
    }
}
