//! A space against a naive model: one byte of `Vec` for each byte of the space.

use super::{PAGE, ram};
use crate::{Backing, GuestMemory, MapError, MemoryError, Protection, SharedMemory};
use palisade_units::Gpa;
use proptest::prelude::*;

/// The pages of the modelled space; it does not start at zero, so that holes lie on both sides.
const PAGES: u64 = 12;
const BASE: u64 = 0x7_0000;
/// The pages of the one file that all regions are of.
const FILE_PAGES: u64 = 6;

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u64,
    pages: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Map(Range, u64, Protection),
    Unmap(Range),
    UnmapAll,
    Write(u64, Vec<u8>),
    Read(u64, usize),
    StoreWord(u64, u64),
    LoadWord(u64),
    Exchange(u64, u64, u64),
    Copy(u64, u64, u64),
    Fill(u64, u64, u64),
}

/// The naive space: which byte of the file each address is, and what regions there are.
#[derive(Default)]
struct Model {
    file: Vec<u8>,
    regions: Vec<(Range, u64, Protection)>,
}

impl Model {
    fn region(&self, at: u64) -> Option<&(Range, u64, Protection)> {
        let page = at.checked_sub(BASE)? / PAGE;
        let mut regions = self.regions.iter();
        regions.find(|(range, ..)| (range.first..range.first + range.pages).contains(&page))
    }

    fn byte(&self, at: u64) -> Result<usize, MemoryError> {
        let (range, file_page, _) = self.region(at).ok_or(unmapped(at))?;
        let offset = at - BASE - range.first * PAGE + file_page * PAGE;
        Ok(usize::try_from(offset).unwrap())
    }

    fn bytes(&self, at: u64, len: u64) -> Result<Vec<usize>, MemoryError> {
        (at..at + len).map(|at| self.byte(at)).collect()
    }

    /// The bytes of a range that may be written: the first page or region that refuses tells.
    fn writable(&self, at: u64, len: u64) -> Result<Vec<usize>, MemoryError> {
        let mut bytes = Vec::new();
        let mut last = None;
        for here in at..at + len {
            let region = self.region(here).ok_or(unmapped(here))?;
            let start = region.0.first;
            if last != Some(start) && region.2 == Protection::ReadOnly {
                return Err(MemoryError::ReadOnly { at: Gpa::new(here) });
            }
            last = Some(start);
            bytes.push(self.byte(here)?);
        }
        Ok(bytes)
    }

    /// As `bytes`, of a range that must lie in one region.
    fn slice(&self, at: u64, len: u64) -> Result<Vec<usize>, MemoryError> {
        let (range, ..) = self.region(at).ok_or(unmapped(at))?;
        let end = BASE + (range.first + range.pages) * PAGE;
        if at + len > end {
            return Err(unmapped(end));
        }
        self.bytes(at, len)
    }

    fn word(&self, at: u64) -> Result<u64, MemoryError> {
        let bytes = self.bytes(at, 8)?;
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = self.file[from];
        }
        Ok(u64::from_le_bytes(word))
    }

    fn write(&mut self, at: u64, data: &[u8]) -> Result<(), MemoryError> {
        let places = self.writable(at, data.len() as u64)?;
        for (place, byte) in places.into_iter().zip(data) {
            self.file[place] = *byte;
        }
        Ok(())
    }

    fn store_word(&mut self, at: u64, value: u64) -> Result<(), MemoryError> {
        aligned(at)?;
        self.write(at, &value.to_le_bytes())
    }

    fn map(&mut self, range: Range, file_page: u64, protection: Protection) -> bool {
        let pages = range.first..range.first + range.pages;
        let fits = range.pages > 0 && file_page + range.pages <= FILE_PAGES;
        let is_free = pages
            .clone()
            .all(|it| self.region(BASE + it * PAGE).is_none());
        if fits && is_free {
            self.regions.push((range, file_page, protection));
        }
        fits && is_free
    }

    fn unmap(&mut self, range: Range) -> bool {
        let inside = |it: &Range| {
            it.first >= range.first && it.first + it.pages <= range.first + range.pages
        };
        let whole = self.regions.iter().filter(|it| inside(&it.0));
        let covered: u64 = whole.map(|it| it.0.pages).sum();
        let is_exact = range.pages > 0 && covered == range.pages;
        if is_exact {
            self.regions.retain(|it| !inside(&it.0));
        }
        is_exact
    }
}

fn unmapped(at: u64) -> MemoryError {
    MemoryError::Unmapped { at: Gpa::new(at) }
}

fn aligned(at: u64) -> Result<(), MemoryError> {
    let misaligned = MemoryError::Misaligned { at: Gpa::new(at) };
    at.is_multiple_of(8).then_some(()).ok_or(misaligned)
}

fn address() -> impl Strategy<Value = u64> {
    let edges = (0..=PAGES, 0..160_u64).prop_map(|(page, off)| BASE + page * PAGE + off - 80);
    prop_oneof![
        3 => edges.clone(),
        3 => edges.prop_map(|at| at & !7),
        1 => BASE..BASE + PAGES * PAGE,
    ]
}

fn range() -> impl Strategy<Value = Range> {
    (0..PAGES, 0..5_u64).prop_map(|(first, pages)| Range { first, pages })
}

fn protection() -> impl Strategy<Value = Protection> {
    prop_oneof![
        4 => Just(Protection::ReadWrite),
        1 => Just(Protection::ReadOnly),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let lengths = || prop_oneof![4 => 0..80_u64, 1 => 0..3 * PAGE];
    prop_oneof![
        6 => (range(), 0..FILE_PAGES, protection()).prop_map(|(r, f, p)| Step::Map(r, f, p)),
        2 => range().prop_map(Step::Unmap),
        1 => Just(Step::UnmapAll),
        4 => (address(), prop::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(at, data)| Step::Write(at, data)),
        1 => (address(), any::<u8>(), lengths()).prop_map(|(at, byte, len)| {
            Step::Write(at, vec![byte; usize::try_from(len).unwrap()])
        }),
        4 => (address(), lengths())
            .prop_map(|(at, len)| Step::Read(at, usize::try_from(len).unwrap())),
        2 => (address(), any::<u64>()).prop_map(|(at, value)| Step::StoreWord(at, value)),
        2 => address().prop_map(Step::LoadWord),
        1 => (address(), 0..2_u64, any::<u64>())
            .prop_map(|(at, old, new)| Step::Exchange(at, old, new)),
        2 => (address(), address(), lengths()).prop_map(|(from, to, len)| Step::Copy(from, to, len)),
        1 => (address(), lengths(), any::<u64>()).prop_map(|(at, len, p)| Step::Fill(at, len, p)),
    ]
}

fn len_of(range: Range) -> u64 {
    range.pages * PAGE
}

fn start_of(range: Range) -> Gpa {
    Gpa::new(BASE + range.first * PAGE)
}

/// Takes one step in the space and in the model, and compares what they say.
fn take(
    step: Step,
    memory: &GuestMemory,
    model: &mut Model,
    file: &SharedMemory,
) -> Result<(), TestCaseError> {
    match step {
        Step::Map(range, file_page, protection) => {
            let backing = Backing {
                offset_bytes: file_page * PAGE,
                ..file.backing()
            };
            let before = memory.generation();
            let mapped = memory.map(start_of(range), len_of(range), backing, protection);
            prop_assert_eq!(mapped.is_ok(), model.map(range, file_page, protection));
            prop_assert_eq!(memory.generation() != before, mapped.is_ok());
        }
        Step::Unmap(range) => {
            let unmapped = memory.unmap(start_of(range), len_of(range));
            prop_assert_eq!(unmapped.is_ok(), model.unmap(range));
            if range.pages == 0 {
                prop_assert_eq!(unmapped, Err(MapError::Empty));
            }
        }
        Step::UnmapAll => {
            memory.unmap_all();
            model.regions.clear();
        }
        Step::Write(at, data) => {
            let written = memory.write(Gpa::new(at), &data);
            prop_assert_eq!(written, model.write(at, &data));
        }
        Step::Read(at, len) => {
            let mut seen = vec![0; len];
            let read = memory.read(Gpa::new(at), &mut seen).map(|()| seen);
            let bytes = model.bytes(at, len as u64);
            let expected = bytes.map(|it| it.into_iter().map(|i| model.file[i]).collect());
            prop_assert_eq!(read, expected);
        }
        Step::StoreWord(at, value) => {
            let stored = memory.store_u64(Gpa::new(at), value);
            prop_assert_eq!(stored, model.store_word(at, value));
        }
        Step::LoadWord(at) => {
            let expected = aligned(at).and_then(|()| model.word(at));
            prop_assert_eq!(memory.load_u64(Gpa::new(at)), expected);
        }
        Step::Exchange(at, old, new) => {
            let expected = aligned(at)
                .and_then(|()| model.writable(at, 8))
                .and_then(|_| model.word(at))
                .and_then(|seen| match seen == old {
                    true => model.store_word(at, new).map(|()| Ok(seen)),
                    false => Ok(Err(seen)),
                });
            let exchanged = memory.compare_exchange_u64(Gpa::new(at), old, new);
            prop_assert_eq!(exchanged, expected);
        }
        Step::Copy(from, to, len) => {
            let slices = memory
                .page(Gpa::new(from), len)
                .and_then(|from| Ok((from, memory.page(Gpa::new(to), len)?)));
            let places = model
                .slice(from, len)
                .and_then(|from| Ok((from, model.slice(to, len)?)));
            let (Ok((source, target)), Ok(places)) = (&slices, &places) else {
                prop_assert_eq!(slices.err(), places.err());
                return Ok(());
            };
            // Two regions of one file, which overlap in it, are two memories to a copy.
            let one_region =
                model.region(from).map(|it| it.0.first) == model.region(to).map(|it| it.0.first);
            let apart = places.0.iter().all(|it| !places.1.contains(it));
            if !one_region && !apart {
                return Ok(());
            }
            let copied = source.copy_to(0, target, 0, len);
            if model
                .region(to)
                .is_some_and(|it| it.2 == Protection::ReadOnly)
            {
                prop_assert_eq!(copied, Err(MemoryError::ReadOnly { at: Gpa::new(to) }));
                return Ok(());
            }
            prop_assert_eq!(copied, Ok(()));
            let data: Vec<u8> = places.0.iter().map(|it| model.file[*it]).collect();
            for (place, byte) in places.1.iter().zip(data) {
                model.file[*place] = byte;
            }
        }
        Step::Fill(at, len, pattern) => {
            let filled = memory
                .page(Gpa::new(at), len)
                .and_then(|it| it.fill_pattern(0, len, pattern));
            let data: Vec<u8> = pattern.to_le_bytes().into_iter().cycle().collect_len(len);
            let expected = match model.slice(at, len) {
                Ok(_) if len == 0 => match model.region(at).map(|it| it.2) {
                    Some(Protection::ReadOnly) => Err(MemoryError::ReadOnly { at: Gpa::new(at) }),
                    _ => Ok(()),
                },
                Ok(_) => model.write(at, &data),
                Err(error) => Err(error),
            };
            prop_assert_eq!(filled, expected);
        }
    }
    Ok(())
}

trait CollectLen: Iterator<Item = u8> + Sized {
    fn collect_len(self, len: u64) -> Vec<u8> {
        self.take(usize::try_from(len).unwrap()).collect()
    }
}
impl<I: Iterator<Item = u8>> CollectLen for I {}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_space_does_what_the_naive_one_does(steps in prop::collection::vec(step(), 1..60)) {
        let memory = GuestMemory::new();
        let file = ram(FILE_PAGES);
        let mut model = Model {
            file: vec![0; usize::try_from(FILE_PAGES * PAGE).unwrap()],
            regions: Vec::new(),
        };
        for step in steps {
            take(step, &memory, &mut model, &file)?;
        }
        let mut contents = model.file.clone();
        file.read(0, &mut contents).unwrap();
        prop_assert!(contents == model.file, "a byte was written that no step wrote");
    }
}
