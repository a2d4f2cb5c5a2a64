//! The paging structures (VT-d §3.6 to §3.8, §9.7, §9.8).

use super::{ADDRESS, Kind, Memory, Request, bit};

/// What a request needs of a page.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) privileged: bool,
}

impl Want {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            read: request.kind != Kind::Write,
            write: request.kind == Kind::Write,
            privileged: request.privileged && request.pasid.is_some(),
        }
    }
}

/// Two page tables, as the first three words of a PASID entry describe them.
pub(super) struct Stages<'a> {
    pub(super) memory: &'a Memory<'a>,
    pub(super) entry: [u64; 3],
}

/// An entry that a walk used: where its word is, and what the word was.
struct Used {
    at: u64,
    word: u64,
}

/// How many address bits are below what an entry of a level maps.
fn shift(level: u32) -> u32 {
    3 + 9 * level
}

fn entry_of(table: u64, at: u64, level: u32) -> u64 {
    (table & ADDRESS) + (at >> shift(level)) % 512 * 8
}

/// The address in the page of a leaf.
fn through_leaf(word: u64, at: u64, level: u32) -> u64 {
    let offset = (1 << shift(level)) - 1;
    word & ADDRESS & !offset | at & offset
}

impl Stages<'_> {
    fn marks_second(&self) -> bool {
        bit(self.entry[0], 9)
    }

    /// PWSNP.
    fn snoops(&self) -> bool {
        bit(self.entry[1], 23)
    }

    fn width(&self) -> u32 {
        if self.entry[0] >> 2 & 7 == 1 {
            39
        } else if self.entry[0] >> 2 & 7 == 2 {
            48
        } else {
            57
        }
    }

    /// §3.7.
    pub(super) fn second(&self, at: u64, want: Want) -> Result<u64, u8> {
        if at >> self.width() != 0 {
            return Err(0x84);
        }
        let (mut level, mut table) = ((self.width() - 3) / 9 - 1, self.entry[0]);
        let top = level;
        let (mut readable, mut writable) = (true, true);
        let mut used = Vec::new();
        loop {
            let here = entry_of(table, at, level);
            let unreadable = if level == top { 0x7b } else { 0x78 };
            let word = self.memory.word(here).ok_or(unreadable)?;
            readable &= bit(word, 0);
            writable &= bit(word, 1);
            if !readable && !writable {
                return Err(0x79);
            }
            let large = bit(word, 7) && level > 1;
            let leads_on = level > 1 && !large;
            let misplaced = word & ((1 << shift(level)) - 1) & ADDRESS != 0;
            let wrong_shape = large && (level > 3 || misplaced);
            if wrong_shape || bit(word, 62) || leads_on && bit(word, 11) {
                return Err(0x7a);
            }
            used.push(Used { at: here, word });
            if !leads_on {
                break;
            }
            (level, table) = (level - 1, word);
        }
        if want.write && !writable {
            return Err(0x85);
        }
        if want.read && !readable {
            return Err(0x86);
        }
        let Some(leaf) = used.last().map(|leaf| leaf.word) else {
            return Err(0x7b);
        };
        let count = used.len();
        for (number, used) in (1..).zip(used) {
            let dirty = want.write && number == count;
            let marks = if dirty { 0x300 } else { 0x100 };
            if self.marks_second() && used.word & marks != marks {
                if !self.snoops() {
                    return Err(0x7c);
                }
                self.memory.mark(used.at, marks);
            }
        }
        Ok(through_leaf(leaf, at, level))
    }

    /// §3.6.
    pub(super) fn first(&self, at: u64, want: Want) -> Result<u64, u8> {
        let place = |at: u64, _: Touch| Ok(at);
        self.first_by(at, want, &place)
    }

    /// §3.8.
    pub(super) fn nested(&self, at: u64, want: Want) -> Result<u64, u8> {
        let place = |at: u64, touch: Touch| self.place(at, touch);
        let inner = self.first_by(at, want, &place)?;
        let reached = self.second(inner, want);
        // What an entry of the first stage says is too large wherever it leads to.
        reached.map_err(|code| if code == 0x84 { 0x74 } else { code })
    }

    /// Where an entry of the first stage is. That with SSADE it has to be writable to be read (VT-d §3.8.1) is left
    /// out, as the platform leaves it out: the conditions have no reason for it.
    fn place(&self, at: u64, touch: Touch) -> Result<u64, u8> {
        let write = touch == Touch::Mark;
        let want = Want {
            read: true,
            write,
            privileged: false,
        };
        let denied = match touch {
            Touch::ReadTop => 0x75,
            Touch::Read => 0x76,
            Touch::Mark => 0x77,
        };
        self.second(at, want).map_err(|code| match code {
            0x84 => 0x74,
            0x85 | 0x86 => denied,
            other => other,
        })
    }

    fn first_by(
        &self,
        at: u64,
        want: Want,
        place: &dyn Fn(u64, Touch) -> Result<u64, u8>,
    ) -> Result<u64, u8> {
        let [_, _, word] = self.entry;
        let top = if word >> 2 & 3 == 0 { 4 } else { 5 };
        let above = at >> (shift(top) + 8);
        if above != 0 && above != u64::MAX >> (shift(top) + 8) {
            return Err(0x80);
        }
        let (mut level, mut table) = (top, word);
        let (mut user, mut writable) = (true, true);
        let mut used = Vec::new();
        loop {
            let here = entry_of(table, at, level);
            let is_top = level == top;
            let (touch, unreadable) = if is_top {
                (Touch::ReadTop, 0x73)
            } else {
                (Touch::Read, 0x70)
            };
            let word = self.memory.word(place(here, touch)?).ok_or(unreadable)?;
            if !bit(word, 0) {
                return Err(0x71);
            }
            writable &= bit(word, 1);
            user &= bit(word, 2);
            let large = bit(word, 7) && level > 1;
            // Bit 12 is PAT there.
            let misplaced = word & ((1 << shift(level)) - 1) & ADDRESS & !0x1000 != 0;
            if large && (level > 3 || misplaced) {
                return Err(0x72);
            }
            used.push(Used { at: here, word });
            if level == 1 || large {
                break;
            }
            (level, table) = (level - 1, word);
        }
        if !want.privileged && !user {
            return Err(0x81);
        }
        let protected = !want.privileged || bit(word, 4);
        if want.write && protected && !writable {
            return Err(0x85);
        }
        let Some(leaf) = used.last().map(|leaf| leaf.word) else {
            return Err(0x73);
        };
        let extended = if bit(word, 7) { 1 << 10 } else { 0 };
        let count = used.len();
        for (number, used) in (1..).zip(used) {
            let dirty = want.write && number == count;
            let marks = extended | if dirty { 0x60 } else { 0x20 };
            if used.word & marks != marks {
                if !self.snoops() {
                    return Err(0x90);
                }
                let here = place(used.at, Touch::Mark)?;
                self.memory.mark(here, marks);
            }
        }
        Ok(through_leaf(leaf, at, level))
    }
}

/// What is done to an entry of the first stage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Touch {
    ReadTop,
    Read,
    Mark,
}
