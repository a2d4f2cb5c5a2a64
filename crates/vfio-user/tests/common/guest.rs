//! A guest with processes of its own address spaces, and the IOMMU unit by which its VMM answers a device.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use palisade_memory::SharedMemory;
use palisade_units::{Access, Gpa, GuestPasid, Iova, PAGE_BYTES};
use palisade_vfio_user::{
    Client, Errno, PageAnswer, PasidHandler,
    wire::pasid::{PageRequest, PageResponse, Tag, Translation, Wanted},
};

pub(crate) const RAM_BYTES: u64 = 1 << 20;
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;

pub(crate) fn pasid(raw: u32) -> GuestPasid {
    GuestPasid::new(raw).unwrap()
}

pub(crate) fn reads(raw: u32) -> Tag {
    Tag::new(pasid(raw), Access::READ)
}

pub(crate) fn writes(raw: u32) -> Tag {
    Tag::new(pasid(raw), Access::WRITE)
}

/// Memory with page tables in it, four levels of 512 entries as on x86.
pub(crate) struct Guest {
    pub(crate) ram: SharedMemory,
    next_free: AtomicU64,
    roots: Mutex<BTreeMap<GuestPasid, u64>>,
    /// Pages that are mapped when a device asks for them.
    swapped: Mutex<BTreeMap<(GuestPasid, u64), u64>>,
    /// Page requests that are answered later, where there is a list.
    pub(crate) later: Mutex<Option<Vec<PageRequest>>>,
    pub(crate) page_requests: AtomicU64,
}

impl Guest {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ram: SharedMemory::create("guest", RAM_BYTES).unwrap(),
            next_free: AtomicU64::new(PAGE_BYTES),
            roots: Mutex::default(),
            swapped: Mutex::default(),
            later: Mutex::new(None),
            page_requests: AtomicU64::new(0),
        })
    }

    pub(crate) fn new_page(&self) -> u64 {
        self.next_free.fetch_add(PAGE_BYTES, Ordering::Relaxed)
    }

    pub(crate) fn new_process(&self, raw: u32) {
        let root = self.new_page();
        self.roots.lock().unwrap().insert(pasid(raw), root);
    }

    fn entry(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.ram.read(at, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn slot(&self, pasid: GuestPasid, page: u64, make: bool) -> Option<u64> {
        let mut table = *self.roots.lock().unwrap().get(&pasid)?;
        for level in [39, 30, 21] {
            let at = table + (page >> level & 511) * 8;
            if self.entry(at) & PRESENT == 0 {
                if !make {
                    return None;
                }
                let next = self.new_page() | PRESENT | WRITABLE;
                self.ram.write(at, &next.to_le_bytes()).unwrap();
            }
            table = self.entry(at) & !(PAGE_BYTES - 1);
        }
        Some(table + (page >> 12 & 511) * 8)
    }

    /// Maps a page of a process, to be written as well unless `access` says otherwise.
    pub(crate) fn map(&self, raw: u32, page: u64, to: u64, access: Access) {
        let slot = self.slot(pasid(raw), page, true).unwrap();
        let writable = if access.contains(Access::WRITE) {
            WRITABLE
        } else {
            0
        };
        let entry = to | PRESENT | writable;
        self.ram.write(slot, &entry.to_le_bytes()).unwrap();
    }

    pub(crate) fn unmap(&self, raw: u32, page: u64) {
        let slot = self.slot(pasid(raw), page, false).unwrap();
        self.ram.write(slot, &[0; 8]).unwrap();
    }

    /// The page is not there until somebody asks for it.
    pub(crate) fn swap_out(&self, raw: u32, page: u64, to: u64) {
        let key = (pasid(raw), page);
        self.swapped.lock().unwrap().insert(key, to);
    }

    fn walk(&self, pasid: GuestPasid, at: u64) -> Option<(u64, Access)> {
        let entry = self.entry(self.slot(pasid, at, false)?);
        let access = if entry & WRITABLE == 0 {
            Access::READ
        } else {
            Access::READ | Access::WRITE
        };
        (entry & PRESENT != 0).then_some((entry & !(PAGE_BYTES - 1), access))
    }

    /// Where an address of a process lies in the guest's memory.
    pub(crate) fn place_of(&self, raw: u32, at: u64) -> Option<u64> {
        let (page, _) = self.walk(pasid(raw), at)?;
        Some(page + at % PAGE_BYTES)
    }

    fn places(&self, tag: Tag, at: Iova, len: usize) -> Result<Vec<(u64, usize)>, Errno> {
        let pasid = tag.pasid.ok_or(Errno::ACCESS)?;
        if !self.roots.lock().unwrap().contains_key(&pasid) {
            return Err(Errno::ACCESS);
        }
        let (mut at, mut left, mut places) = (at.get(), len, Vec::new());
        while left > 0 {
            let (page, permitted) = self.walk(pasid, at).ok_or(Errno::FAULT)?;
            if !permitted.contains(tag.access & (Access::READ | Access::WRITE)) {
                return Err(Errno::FAULT);
            }
            let offset = at % PAGE_BYTES;
            let part = left.min((PAGE_BYTES - offset) as usize);
            places.push((page + offset, part));
            at += part as u64;
            left -= part;
        }
        Ok(places)
    }

    /// Brings in what was asked for.
    pub(crate) fn bring_in(&self, request: &PageRequest) -> PageResponse {
        let Some(pasid) = request.pasid else {
            return PageResponse::InvalidRequest;
        };
        for page in &request.pages {
            let to = self.swapped.lock().unwrap().remove(&(pasid, page.at.get()));
            let Some(to) = to else {
                return PageResponse::InvalidRequest;
            };
            self.map(pasid.get(), page.at.get(), to, Access::WRITE);
        }
        PageResponse::Success
    }
}

/// The VMM's IOMMU unit.
pub(crate) struct Unit(pub(crate) Arc<Guest>);

impl PasidHandler for Unit {
    fn read(&mut self, tag: Tag, at: Iova, into: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        for (place, len) in self.0.places(tag, at, into.len())? {
            self.0.ram.read(place, &mut into[done..done + len]).unwrap();
            done += len;
        }
        Ok(())
    }

    fn write(&mut self, tag: Tag, at: Iova, data: &[u8]) -> Result<(), Errno> {
        let mut done = 0;
        for (place, len) in self.0.places(tag, at, data.len())? {
            self.0.ram.write(place, &data[done..done + len]).unwrap();
            done += len;
        }
        Ok(())
    }

    fn translate(&mut self, wanted: &Wanted) -> Result<Vec<Translation>, Errno> {
        let pasid = wanted.tag.pasid.ok_or(Errno::ACCESS)?;
        let (mut at, mut ranges) = (wanted.at.page_base(), Vec::new());
        while at.get() < wanted.at.get() + wanted.len_bytes
            && ranges.len() < wanted.max_ranges as usize
            && let Some((to, permissions)) = self.0.walk(pasid, at.get())
        {
            ranges.push(Translation {
                at,
                len_bytes: PAGE_BYTES,
                permissions,
                translated: Some(Gpa::new(to)),
            });
            at = Iova::new(at.get() + PAGE_BYTES);
        }
        Ok(ranges)
    }

    fn page_request(&mut self, request: PageRequest) -> PageAnswer {
        self.0.page_requests.fetch_add(1, Ordering::Relaxed);
        if let Some(later) = &mut *self.0.later.lock().unwrap() {
            later.push(request);
            return PageAnswer::Later;
        }
        PageAnswer::Now(self.0.bring_in(&request))
    }
}

/// Answers the device until it is done.
pub(crate) fn answer_until<T>(client: &mut Client, device: JoinHandle<T>) -> T {
    while !device.is_finished() {
        client.wait_messages(Duration::from_millis(2)).unwrap();
        client.poll_messages(|_| {}).unwrap();
    }
    device.join().unwrap()
}
