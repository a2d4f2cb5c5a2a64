use palisade_units::{Gpa, Iova};

use super::Rig;

/// A page table of four levels in the guest's memory.
pub(crate) struct Space {
    pub(crate) root: Gpa,
}

impl Space {
    pub(crate) fn new(rig: &mut Rig) -> Self {
        Self {
            root: rig.frames(1),
        }
    }

    /// A space with one page of data, whose first word is `value`.
    pub(crate) fn with_page(rig: &mut Rig, at: Iova, value: u64) -> Self {
        let space = Self::new(rig);
        let page = space.map_new(rig, at);
        rig.store(page, &[value]);
        space
    }

    /// Maps a page of zeros; writable by user requests.
    pub(crate) fn map_new(&self, rig: &mut Rig, at: Iova) -> Gpa {
        let page = rig.frames(1);
        self.map(rig, at, page);
        page
    }

    pub(crate) fn map(&self, rig: &mut Rig, at: Iova, page: Gpa) {
        const PRESENT_WRITABLE_USER: u64 = 0b111;
        let mut table = self.root;
        for level in (1..=4_u32).rev() {
            let index = at.get() >> (12 + 9 * (level - 1)) & 0x1ff;
            let entry = Rig::at(table, index * 8);
            let mut value = rig.load(entry);
            if level == 1 {
                value = page.get() | PRESENT_WRITABLE_USER;
            } else if value & 1 == 0 {
                value = rig.frames(1).get() | PRESENT_WRITABLE_USER;
            }
            rig.store(entry, &[value]);
            table = Gpa::new(value & 0x000f_ffff_ffff_f000);
        }
    }

    /// Makes a page not present, without telling anyone.
    pub(crate) fn unmap(&self, rig: &Rig, at: Iova) {
        let mut table = self.root;
        for level in (2..=4_u32).rev() {
            let index = at.get() >> (12 + 9 * (level - 1)) & 0x1ff;
            table = Gpa::new(rig.load(Rig::at(table, index * 8)) & 0x000f_ffff_ffff_f000);
        }
        let index = at.get() >> 12 & 0x1ff;
        rig.store(Rig::at(table, index * 8), &[0]);
    }
}
