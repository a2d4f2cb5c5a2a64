use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc};

use palisade_memory::{Backing, Protection};
use palisade_units::Gpa;
use rustix::io::Errno;

use crate::{
    ClientMemory,
    wire::{DmaMap, DmaMapFlags, DmaUnmap, DmaUnmapFlags, MAP_PAGE_BYTES},
};

/// How many maps one connection may have. A VMM has a few dozen; the host's kernel has tens of
/// thousands for all tenants together.
pub(crate) const MAX_MAPS: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Backed,
    NoBacking,
}

/// The ranges that the peer has announced.
#[derive(Debug, Default)]
pub(crate) struct DmaMaps {
    /// By start: the last address, and whether anything can be reached in it.
    ranges: BTreeMap<u64, (u64, Reach)>,
}

impl DmaMaps {
    pub(crate) fn map(
        &mut self,
        memory: &dyn ClientMemory,
        request: &DmaMap,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Errno> {
        if request.argsz.get() < DmaMap::ARGSZ {
            return Err(Errno::INVAL);
        }
        let flags = DmaMapFlags::from_bits(request.flags.get()).ok_or(Errno::INVAL)?;
        let how = flags & (DmaMapFlags::MAP | DmaMapFlags::FILE_IO);
        if how == DmaMapFlags::FILE_IO {
            return Err(Errno::NOTSUP);
        }
        if !how.is_empty() && (how != DmaMapFlags::MAP || descriptors.is_empty()) {
            return Err(Errno::INVAL);
        }
        let flags = flags - how;
        let protection = if flags == DmaMapFlags::READ {
            Protection::ReadOnly
        } else if flags == DmaMapFlags::READ | DmaMapFlags::WRITE {
            Protection::ReadWrite
        } else if flags == DmaMapFlags::WRITE {
            return Err(Errno::NOTSUP);
        } else {
            return Err(Errno::INVAL);
        };
        let (start, len_bytes) = (request.address.get(), request.len_bytes.get());
        let last = last_of(start, len_bytes)?;
        if self.first_overlapping(start, last).is_some() {
            return Err(Errno::EXIST);
        }
        if self.ranges.len() >= MAX_MAPS {
            return Err(Errno::NOSPC);
        }
        let mut descriptors = descriptors.into_iter();
        let backing = descriptors.next().map(|fd| Backing {
            fd: Arc::new(fd),
            offset_bytes: request.offset_bytes.get(),
        });
        if descriptors.next().is_some() {
            return Err(Errno::INVAL);
        }
        let reach = if backing.is_some() {
            Reach::Backed
        } else {
            Reach::NoBacking
        };
        memory.map(Gpa::new(start), len_bytes, protection, backing)?;
        self.ranges.insert(start, (last, reach));
        Ok(())
    }

    pub(crate) fn unmap(
        &mut self,
        memory: &dyn ClientMemory,
        request: &DmaUnmap,
    ) -> Result<(), Errno> {
        if request.argsz.get() < DmaUnmap::ARGSZ {
            return Err(Errno::INVAL);
        }
        let flags = DmaUnmapFlags::from_bits(request.flags.get()).ok_or(Errno::INVAL)?;
        if flags == DmaUnmapFlags::GET_DIRTY_BITMAP {
            return Err(Errno::NOTSUP);
        }
        if flags.contains(DmaUnmapFlags::ALL) {
            let range = (request.address.get(), request.len_bytes.get());
            if flags != DmaUnmapFlags::ALL || range != (0, 0) {
                return Err(Errno::INVAL);
            }
            memory.unmap_all();
            self.ranges.clear();
            return Ok(());
        }
        let start = request.address.get();
        let last = last_of(start, request.len_bytes.get())?;
        let covered = self.covered(start, last)?;
        for (from, to, reach) in covered {
            let done = memory.unmap(Gpa::new(from), to - from + 1);
            match (done, reach) {
                (Ok(()), _) | (Err(Errno::NOENT), Reach::NoBacking) => {}
                (Err(errno), _) => return Err(errno),
            }
            self.ranges.remove(&from);
        }
        Ok(())
    }

    /// The ranges that lie in `start..=last`, none of which may reach beyond it.
    fn covered(&self, start: u64, last: u64) -> Result<Vec<(u64, u64, Reach)>, Errno> {
        match self.first_overlapping(start, last) {
            None => return Err(Errno::NOENT),
            Some(first) if first < start => return Err(Errno::INVAL),
            Some(_) => {}
        }
        let inside = self.ranges.range(start..=last);
        let covered: Vec<_> = inside
            .map(|(from, (to, reach))| (*from, *to, *reach))
            .collect();
        if covered.iter().any(|(_, to, _)| *to > last) {
            return Err(Errno::INVAL);
        }
        Ok(covered)
    }

    fn first_overlapping(&self, start: u64, last: u64) -> Option<u64> {
        let before = self.ranges.range(..start).next_back();
        if let Some((from, (to, _))) = before
            && *to >= start
        {
            return Some(*from);
        }
        self.ranges
            .range(start..=last)
            .next()
            .map(|(from, _)| *from)
    }
}

fn last_of(start: u64, len_bytes: u64) -> Result<u64, Errno> {
    if len_bytes == 0 || !(start | len_bytes).is_multiple_of(MAP_PAGE_BYTES) {
        return Err(Errno::INVAL);
    }
    start.checked_add(len_bytes - 1).ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use proptest::prelude::*;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    /// Pages that are mapped, and what was refused.
    #[derive(Default)]
    struct Pages(Mutex<std::collections::BTreeSet<u64>>);

    impl ClientMemory for Pages {
        fn map(
            &self,
            at: Gpa,
            len: u64,
            _: Protection,
            backing: Option<Backing>,
        ) -> Result<(), Errno> {
            assert!(backing.is_some());
            let mut pages = self.0.lock().unwrap();
            for page in 0..len / 4096 {
                assert!(pages.insert(at.get() + page * 4096), "mapped twice");
            }
            Ok(())
        }
        fn unmap(&self, at: Gpa, len: u64) -> Result<(), Errno> {
            let mut pages = self.0.lock().unwrap();
            for page in 0..len / 4096 {
                assert!(pages.remove(&(at.get() + page * 4096)), "was not mapped");
            }
            Ok(())
        }
        fn unmap_all(&self) {
            self.0.lock().unwrap().clear();
        }
    }

    /// Backs nothing and remembers nothing.
    struct Nothing;

    impl ClientMemory for Nothing {
        fn map(&self, _: Gpa, _: u64, _: Protection, _: Option<Backing>) -> Result<(), Errno> {
            Ok(())
        }
        fn unmap(&self, _: Gpa, _: u64) -> Result<(), Errno> {
            Err(Errno::NOENT)
        }
        fn unmap_all(&self) {}
    }

    fn map(at: u64, len: u64) -> DmaMap {
        DmaMap {
            argsz: 32.into(),
            flags: 3.into(),
            offset_bytes: 0.into(),
            address: at.into(),
            len_bytes: len.into(),
        }
    }

    fn unmap(at: u64, len: u64) -> DmaUnmap {
        DmaUnmap {
            argsz: 24.into(),
            flags: 0.into(),
            address: at.into(),
            len_bytes: len.into(),
        }
    }

    fn descriptor() -> Vec<OwnedFd> {
        vec![eventfd(0, EventfdFlags::empty()).unwrap()]
    }

    #[test]
    fn requests_that_make_no_sense_have_their_errno() {
        let mut maps = DmaMaps::default();
        let refused = |maps: &mut DmaMaps, request| maps.map(&Nothing, &request, vec![]);
        for (at, len) in [(0, 0), (1, 4096), (0, 4097), (u64::MAX - 4095, 8192)] {
            assert_eq!(refused(&mut maps, map(at, len)), Err(Errno::INVAL));
        }
        let with_flags = |flags: u32| DmaMap {
            flags: flags.into(),
            ..map(0, 4096)
        };
        assert_eq!(refused(&mut maps, with_flags(0)), Err(Errno::INVAL));
        assert_eq!(refused(&mut maps, with_flags(2)), Err(Errno::NOTSUP));
        assert_eq!(refused(&mut maps, with_flags(5)), Err(Errno::INVAL));
        assert_eq!(refused(&mut maps, with_flags(9)), Err(Errno::NOTSUP));
        assert_eq!(refused(&mut maps, with_flags(16)), Err(Errno::INVAL));
        assert_eq!(refused(&mut maps, map(u64::MAX - 4095, 4096)), Ok(()));
        let two = [descriptor(), descriptor()].into_iter().flatten().collect();
        assert_eq!(maps.map(&Nothing, &map(0, 4096), two), Err(Errno::INVAL));
    }

    #[test]
    fn a_range_without_a_backing_may_be_forgotten_by_its_owner() {
        let mut maps = DmaMaps::default();
        assert_eq!(maps.map(&Nothing, &map(0, 4096), vec![]), Ok(()));
        assert_eq!(maps.unmap(&Nothing, &unmap(0, 4096)), Ok(()));
        assert_eq!(maps.map(&Nothing, &map(0, 4096), descriptor()), Ok(()));
        assert_eq!(maps.unmap(&Nothing, &unmap(0, 4096)), Err(Errno::NOENT));
    }

    #[test]
    fn unmap_takes_whole_ranges_and_no_parts() {
        let (mut maps, pages) = (DmaMaps::default(), Pages::default());
        for at in [0x1000, 0x4000] {
            assert_eq!(maps.map(&pages, &map(at, 0x2000), descriptor()), Ok(()));
        }
        assert_eq!(
            maps.map(&pages, &map(0x2000, 0x1000), descriptor()),
            Err(Errno::EXIST)
        );
        assert_eq!(
            maps.unmap(&pages, &unmap(0x1000, 0x1000)),
            Err(Errno::INVAL)
        );
        assert_eq!(
            maps.unmap(&pages, &unmap(0x2000, 0x4000)),
            Err(Errno::INVAL)
        );
        assert_eq!(
            maps.unmap(&pages, &unmap(0x3000, 0x1000)),
            Err(Errno::NOENT)
        );
        assert_eq!(maps.unmap(&pages, &unmap(0, 0x10000)), Ok(()));
        assert_eq!(maps.map(&pages, &map(0x2000, 0x1000), descriptor()), Ok(()));
        let all = DmaUnmap {
            flags: 2.into(),
            ..unmap(0, 0)
        };
        assert_eq!(maps.unmap(&pages, &all), Ok(()));
        assert!(pages.0.lock().unwrap().is_empty());
    }

    #[test]
    fn r78_maps_are_bounded() {
        let mut maps = DmaMaps::default();
        for n in 0..MAX_MAPS as u64 {
            assert_eq!(maps.map(&Nothing, &map(n * 4096, 4096), vec![]), Ok(()));
        }
        let more = map(1 << 40, 4096);
        assert_eq!(maps.map(&Nothing, &more, vec![]), Err(Errno::NOSPC));
        assert_eq!(maps.unmap(&Nothing, &unmap(0, 4096)), Ok(()));
        assert_eq!(maps.map(&Nothing, &more, vec![]), Ok(()));
    }

    proptest! {
        /// Against a set of pages: what is accepted never overlaps and never leaves a part behind.
        #[test]
        fn the_table_and_the_memory_agree(steps in proptest::collection::vec((any::<bool>(), 0_u64..16, 1_u64..6), 1..80)) {
            let (mut maps, pages) = (DmaMaps::default(), Pages::default());
            for (is_map, page, count) in steps {
                let range = page..page + count;
                let mapped = |p: &u64| pages.0.lock().unwrap().contains(&(p * 4096));
                if is_map {
                    let free = !range.clone().any(|p| mapped(&p));
                    let done = maps.map(&pages, &map(page * 4096, count * 4096), descriptor());
                    prop_assert_eq!(done.is_ok(), free);
                } else {
                    let some = range.clone().any(|p| mapped(&p));
                    let done = maps.unmap(&pages, &unmap(page * 4096, count * 4096));
                    prop_assert!(some || done == Err(Errno::NOENT));
                    if done.is_ok() {
                        prop_assert!(!range.clone().any(|p| mapped(&p)));
                    }
                }
                let held: u64 = maps.ranges.iter().map(|(from, (to, _))| (to - from + 1) / 4096).sum();
                prop_assert_eq!(held, pages.0.lock().unwrap().len() as u64);
            }
        }
    }
}
