mod dirty;
mod kept;
mod model;
mod slices;
mod space;
mod vanish;

use crate::{GuestMemory, MapError, Protection, SharedMemory};
use palisade_units::Gpa;

const PAGE: u64 = palisade_units::PAGE_BYTES;

fn ram(pages: u64) -> SharedMemory {
    SharedMemory::create("test-ram", pages * PAGE).unwrap()
}

/// Maps memory of its own at `at`.
fn map(memory: &GuestMemory, at: u64, pages: u64) -> Result<SharedMemory, MapError> {
    let ram = ram(pages);
    let backing = ram.backing();
    memory.map(Gpa::new(at), pages * PAGE, backing, Protection::ReadWrite)?;
    Ok(ram)
}
