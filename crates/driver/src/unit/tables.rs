//! Root, context and PASID structures in the guest's memory (VT-d §9.2 to §9.6).

use crate::{error::DriverError, guest::Guest};
use palisade_units::{Bdf, Gpa, GuestPasid, PAGE_BYTES};
use palisade_vtd::spec::{
    context::{ContextEntry, ContextFlags, DirectorySize},
    pasid_table::{DirectoryEntry, PasidEntry},
    root::{ContextTablePointer, RootEntry},
};
use std::collections::BTreeMap;

/// The PASID by which requests without one are translated, as Linux chooses it.
pub(super) const RID_PASID: GuestPasid = match GuestPasid::new(0) {
    Ok(pasid) => pasid,
    Err(_) => unreachable!(),
};

/// What the unit walks to find a PASID's page table. Tables are made as they are needed and kept.
#[derive(Debug)]
pub(super) struct Tables {
    root: Gpa,
    contexts: BTreeMap<u64, Gpa>,
    functions: BTreeMap<Bdf, Directory>,
}

#[derive(Debug)]
struct Directory {
    at: Gpa,
    /// PASID tables by the offset of their directory entry.
    tables: BTreeMap<u64, Gpa>,
}

impl Tables {
    /// A root table that knows no function.
    pub(super) fn new(guest: &mut Guest) -> Result<Self, DriverError> {
        let root = guest.take_zeroed_run(1)?;
        Ok(Self {
            root,
            contexts: BTreeMap::new(),
            functions: BTreeMap::new(),
        })
    }

    /// The root table.
    pub(super) fn root(&self) -> Gpa {
        self.root
    }

    /// Gives a function a context entry with an empty PASID directory that reaches every PASID.
    pub(super) fn attach(&mut self, guest: &mut Guest, function: Bdf) -> Result<(), DriverError> {
        let half = RootEntry::offset_of(function);
        let context = table_below(guest, self.root, half, &mut self.contexts, |table| {
            ContextTablePointer::to(table).into_bits()
        })?;
        let size = DirectorySize::ALL_PASIDS;
        let bytes = u64::from(size.entries()) * DirectoryEntry::BYTES;
        let at = guest.take_zeroed_run(bytes.div_ceil(PAGE_BYTES))?;
        let flags = ContextFlags::DEVICE_TLB | ContextFlags::PASID | ContextFlags::PAGE_REQUESTS;
        let entry = ContextEntry::new(at, size, RID_PASID, flags);
        write_entry(
            guest,
            plus(context, ContextEntry::offset_of(function)),
            &entry.to_words(),
        )?;
        self.functions.insert(
            function,
            Directory {
                at,
                tables: BTreeMap::new(),
            },
        );
        Ok(())
    }

    /// Writes a PASID's entry, its first word last.
    pub(super) fn set(
        &mut self,
        guest: &mut Guest,
        function: Bdf,
        pasid: GuestPasid,
        entry: PasidEntry,
    ) -> Result<(), DriverError> {
        let directory = self
            .functions
            .get_mut(&function)
            .ok_or(DriverError::NoSuchFunction(function))?;
        let offset = DirectoryEntry::offset_of(pasid);
        let tables = &mut directory.tables;
        let table = table_below(guest, directory.at, offset, tables, |table| {
            DirectoryEntry::to(table).into_bits()
        })?;
        write_entry(
            guest,
            plus(table, PasidEntry::offset_of(pasid)),
            &entry.to_words(),
        )
    }

    /// Makes a PASID's entry not present; what else stands in it stays until [`Tables::wipe`].
    pub(super) fn clear(
        &self,
        guest: &Guest,
        function: Bdf,
        pasid: GuestPasid,
    ) -> Result<(), DriverError> {
        match self.entry_at(function, pasid)? {
            Some(at) => guest.store_u64(at, 0),
            None => Ok(()),
        }
    }

    /// Zeroes an entry that is not present and no longer cached.
    pub(super) fn wipe(
        &self,
        guest: &Guest,
        function: Bdf,
        pasid: GuestPasid,
    ) -> Result<(), DriverError> {
        match self.entry_at(function, pasid)? {
            Some(at) => write_entry(guest, at, &PasidEntry::not_present().to_words()),
            None => Ok(()),
        }
    }

    /// The functions that have a context entry.
    pub(super) fn functions(&self) -> impl Iterator<Item = Bdf> + '_ {
        self.functions.keys().copied()
    }

    fn entry_at(&self, function: Bdf, pasid: GuestPasid) -> Result<Option<Gpa>, DriverError> {
        let directory = self
            .functions
            .get(&function)
            .ok_or(DriverError::NoSuchFunction(function))?;
        let table = directory.tables.get(&DirectoryEntry::offset_of(pasid));
        Ok(table.map(|table| plus(*table, PasidEntry::offset_of(pasid))))
    }
}

/// The table that an entry of another points to, by the entry's offset in bytes. It is made and
/// pointed to if there is none.
fn table_below(
    guest: &mut Guest,
    above: Gpa,
    offset: u64,
    known: &mut BTreeMap<u64, Gpa>,
    pointer_to: impl FnOnce(Gpa) -> u64,
) -> Result<Gpa, DriverError> {
    if let Some(table) = known.get(&offset) {
        return Ok(*table);
    }
    let table = guest.take_zeroed_run(1)?;
    guest.store_u64(plus(above, offset), pointer_to(table))?;
    known.insert(offset, table);
    Ok(table)
}

/// Writes the words of an entry from the last to the first, which makes it present.
fn write_entry(guest: &Guest, at: Gpa, words: &[u64]) -> Result<(), DriverError> {
    for (index, word) in words.iter().enumerate().rev() {
        guest.store_u64(plus(at, index as u64 * 8), *word)?;
    }
    Ok(())
}

const fn plus(at: Gpa, bytes: u64) -> Gpa {
    Gpa::new(at.get() + bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_vtd::spec::{
        DomainId,
        pasid_table::{FirstStageFlags, PagingMode},
    };

    fn pasid(raw: u32) -> GuestPasid {
        GuestPasid::new(raw).unwrap()
    }

    /// Finds an entry as hardware does: root, context, directory, table, by shifts alone.
    fn naive(guest: &Guest, root: Gpa, function: Bdf, pasid: u64) -> Option<[u64; 8]> {
        let load = |at: u64| guest.load_u64(Gpa::new(at)).unwrap();
        let present = |word: u64| (word & 1 != 0).then_some(word & !0xfff);
        let devfn = u64::from(function.devfn());
        let pointer = load(root.get() + u64::from(function.bus()) * 16 + (devfn >> 7) * 8);
        let context = present(pointer)? + (devfn & 0x7f) * 32;
        let directory = present(load(context))?;
        let entries = 1_u64 << (((load(context) >> 9) & 7) + 7);
        assert!(pasid >> 6 < entries);
        let table = present(load(directory + (pasid >> 6) * 8))?;
        let entry = table + (pasid & 63) * 64;
        present(load(entry))?;
        Some(std::array::from_fn(|word| load(entry + word as u64 * 8)))
    }

    #[test]
    fn r14_each_function_has_pasids_of_its_own() {
        let mut guest = Guest::new(8 << 20).unwrap();
        let mut tables = Tables::new(&mut guest).unwrap();
        let functions = [
            Bdf::new(0, 0x10, 0),
            Bdf::new(0, 2, 1),
            Bdf::new(7, 0x1f, 7),
        ];
        for function in functions {
            tables.attach(&mut guest, function).unwrap();
        }
        let entry = |root: u64| {
            let (mode, flags) = (PagingMode::FourLevel, FirstStageFlags::empty());
            PasidEntry::first_stage(Gpa::new(root), mode, DomainId::new(1), flags)
        };
        tables
            .set(&mut guest, functions[0], pasid(0xfffff), entry(0x5000))
            .unwrap();
        tables
            .set(&mut guest, functions[1], pasid(1), entry(0x6000))
            .unwrap();
        let root = tables.root();
        assert_eq!(
            naive(&guest, root, functions[0], 0xfffff),
            Some(entry(0x5000).to_words())
        );
        assert_eq!(
            naive(&guest, root, functions[1], 1),
            Some(entry(0x6000).to_words())
        );
        assert_eq!(naive(&guest, root, functions[0], 1), None);
        assert_eq!(naive(&guest, root, functions[1], 0xfffff), None);
        assert_eq!(naive(&guest, root, functions[2], 1), None);
        assert_eq!(naive(&guest, root, Bdf::new(0, 0x10, 1), 1), None);
        tables.clear(&guest, functions[1], pasid(1)).unwrap();
        assert_eq!(naive(&guest, root, functions[1], 1), None);
        tables.wipe(&guest, functions[1], pasid(1)).unwrap();
    }

    #[test]
    fn a_function_that_was_not_attached_has_no_entries() {
        let mut guest = Guest::new(8 << 20).unwrap();
        let mut tables = Tables::new(&mut guest).unwrap();
        let entry = PasidEntry::pass_through(DomainId::new(1));
        let refused = tables.set(&mut guest, Bdf::new(0, 1, 0), pasid(1), entry);
        assert!(matches!(refused, Err(DriverError::NoSuchFunction(_))));
    }
}
