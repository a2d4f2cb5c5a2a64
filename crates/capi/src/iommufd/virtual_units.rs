//! Virtual units and devices, and their events.

use std::os::fd::AsRawFd;

use palisade_container::Events;
use palisade_vfio::abi::iommufd::ObjectId;
use safer_ffi::prelude::*;

use super::{Iommufd, making, with};
use crate::error::{call, give_back, needed};
use crate::faults::timeout;
use crate::functions::place;

/// An event of a virtual unit: a fault, as the guest's driver reads it.
#[derive_ReprC(rename = "palisade_event")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The lower half of the fault record (VT-d §11.4.7.6): the page.
    pub low: u64,
    /// The upper half: the source, by the device's name at the unit, the reason, and the PASID.
    pub high: u64,
    /// Its number. Numbers that are missing are of events that found no room.
    pub sequence: u32,
    /// Zero.
    pub reserved: u32,
}

/// A queue of a virtual unit's events, with its file.
#[derive_ReprC(rename = "palisade_event_queue")]
#[repr(opaque)]
pub struct EventQueue {
    inner: Events,
}

/// Makes a virtual unit over a parent. EINVAL; ENOENT, EOPNOTSUPP.
#[ffi_export]
pub fn palisade_iommufd_virtual_unit(
    iommufd: Option<&Iommufd>,
    device: u32,
    parent: u32,
    unit: Option<Out<'_, u32>>,
) -> i32 {
    call(|| {
        let (device, parent) = (ObjectId::new(device), ObjectId::new(parent));
        making(iommufd, unit, |client| client.virtual_unit(device, parent))
    })
}

/// Gives a device its name at a virtual unit, a place by `PALISADE_BDF`. EINVAL; ENOENT, EEXIST.
#[ffi_export]
pub fn palisade_iommufd_virtual_device(
    iommufd: Option<&Iommufd>,
    unit: u32,
    device: u32,
    guest_bdf: u32,
    virtual_device: Option<Out<'_, u32>>,
) -> i32 {
    call(|| {
        let name = place(guest_bdf)?;
        let (unit, device) = (ObjectId::new(unit), ObjectId::new(device));
        making(iommufd, virtual_device, |client| {
            client.virtual_device(unit, device, name)
        })
    })
}

/// Makes the queue of a virtual unit's events. `*queue` is for `palisade_iommufd_free_event_queue` to take back, before the
/// iommufd or after it; it is null where this fails.
///
/// EINVAL; ENOENT, EEXIST where it has one, and the errors of `palisade_iommufd_open_page_queue`.
#[ffi_export]
pub fn palisade_iommufd_open_event_queue(
    iommufd: Option<&Iommufd>,
    unit: u32,
    queue: Option<Out<'_, Option<repr_c::Box<EventQueue>>>>,
) -> i32 {
    call(|| {
        let mut queue = needed(queue, "where the queue goes")?;
        queue.reborrow().write(None);
        let inner = with(iommufd, |client| client.events(ObjectId::new(unit)))?;
        queue.write(Some(Box::new(EventQueue { inner }).into()));
        Ok(0)
    })
}

/// Gives a queue back, and closes its file. Null is passed over.
#[ffi_export]
pub fn palisade_iommufd_free_event_queue(queue: Option<repr_c::Box<EventQueue>>) {
    give_back(queue);
}

/// The id of a queue, to destroy it by when it was given back; 0 for null.
#[ffi_export]
#[must_use]
pub fn palisade_iommufd_event_queue_id(queue: Option<&EventQueue>) -> u32 {
    queue.map_or(0, |queue| queue.inner.id.get())
}

/// Returns the descriptor that polls as readable when there is an event to take, or the queue has gone. It is the queue's:
/// do not read or close it. EINVAL.
#[ffi_export]
pub fn palisade_iommufd_event_queue_fd(queue: Option<&EventQueue>) -> i32 {
    call(|| Ok(needed(queue, "the queue")?.inner.file().as_raw_fd()))
}

/// Waits for an event, so many milliseconds at the most, without a limit if negative, and takes it. Returns 1, or 0 where
/// none came, or a signal did. EINVAL; ECONNRESET where the queue has gone.
#[ffi_export]
pub fn palisade_iommufd_wait_event(
    queue: Option<&EventQueue>,
    timeout_ms: i32,
    event: Option<Out<'_, Event>>,
) -> i32 {
    call(|| {
        let (queue, event) = (needed(queue, "the queue")?, needed(event, "the event")?);
        Ok(match queue.inner.wait(timeout(timeout_ms))? {
            None => 0,
            Some((sequence, [low, high])) => {
                event.write(Event {
                    low,
                    high,
                    sequence,
                    reserved: 0,
                });
                1
            }
        })
    })
}
