//! A table of rows by key that reads one line of memory for most keys.
//!
//! An open hash table whose buckets are lines of the cache, with two rows in each. Rows are never removed: a table with fewer is a new one.
//! `hashbrown` reads the bits of the hash first and the row afterwards, which are two places in memory.

use super::values::NO_ROW;

/// The history of a row with one version.
pub(super) const NO_HISTORY: u32 = u32::MAX;
/// Lines of an empty table.
const LINES_MIN: usize = 4;

/// A row with its newest version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest {
    /// A number itself, or 128 bits of hash of a text.
    pub key: u128,
    pub time: i64,
    pub row: u32,
    /// Index into the histories, or [`NO_HISTORY`].
    pub history: u32,
}

/// Two rows in one line of the cache. The second comes after the first.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line([Newest; 2]);

/// Rows by key.
#[derive(Debug)]
pub(super) struct KeyTable {
    lines: Vec<Line>,
    len: usize,
}

/// The place of a row in the table.
#[derive(Debug, Clone, Copy)]
struct Place {
    line: usize,
    at: usize,
}

/// What the first line of a key says: the place of a row that may have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstLook(u32);

impl FirstLook {
    /// No row of the line may have the key.
    const ELSEWHERE: u32 = u32::MAX;
}

/// Spreads the bits of a key over a hash.
#[inline]
fn hash_of(key: u128) -> u64 {
    let folded = (key as u64) ^ ((key >> 64) as u64);
    let product = u128::from(folded).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Newest {
    /// No event sees it.
    const EMPTY: Newest = Newest { key: 0, time: i64::MAX, row: NO_ROW, history: NO_HISTORY };

    /// A row that is deleted has a history.
    #[inline]
    fn is_empty(&self) -> bool {
        self.row == NO_ROW && self.history == NO_HISTORY
    }
}

impl KeyTable {
    pub fn new() -> KeyTable {
        KeyTable { lines: vec![Line([Newest::EMPTY; 2]); LINES_MIN], len: 0 }
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    /// All rows, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Newest> {
        self.lines.iter().flat_map(|line| &line.0).filter(|newest| !newest.is_empty())
    }

    #[inline]
    fn first_line(&self, key: u128) -> usize {
        (u128::from(hash_of(key)).wrapping_mul(self.lines.len() as u128) >> 64) as usize
    }

    /// Reads the first line of a key. Nothing depends on what is read there, so looks at several keys overlap.
    #[inline]
    pub fn first_look(&self, key: u128) -> FirstLook {
        let line = self.first_line(key);
        let [one, two] = &self.lines[line].0;
        // Half of a key is enough for almost all rows, and takes half the time.
        let (is_one, is_two) = (one.key as u64 == key as u64, two.key as u64 == key as u64);
        let place = (line as u32) << 1 | u32::from(is_two & !is_one);
        FirstLook(place | u32::from(is_one | is_two).wrapping_sub(1))
    }

    /// Returns the row with a key at which a look was taken; if there is none, nothing or an empty one.
    #[inline]
    pub fn after(&self, FirstLook(place): FirstLook, key: u128) -> Option<&Newest> {
        if place != FirstLook::ELSEWHERE {
            let newest = &self.lines[(place >> 1) as usize].0[(place & 1) as usize];
            // An empty place seems to have the key 0. If a line has one, no later line has that key.
            if newest.key == key {
                return Some(newest);
            }
        }
        self.place_of(key).ok().map(|Place { line, at }| &self.lines[line].0[at])
    }

    /// Returns the row with a key.
    pub fn find_mut(&mut self, key: u128) -> Option<&mut Newest> {
        let Place { line, at } = self.place_of(key).ok()?;
        Some(&mut self.lines[line].0[at])
    }

    /// Returns the row with the key of `newest`; `None`: there was none, and `newest` is added.
    pub fn find_or_add(&mut self, newest: Newest) -> Option<&mut Newest> {
        if (self.len + 1) * 4 > self.lines.len() * 2 * 3 {
            self.grow();
        }
        let place = self.place_of(newest.key);
        let (Ok(Place { line, at }) | Err(Place { line, at })) = place;
        let known = &mut self.lines[line].0[at];
        if place.is_ok() {
            return Some(known);
        }
        *known = newest;
        self.len += 1;
        None
    }

    /// The place of a key, or the one where it would be. There is always an empty one.
    fn place_of(&self, key: u128) -> Result<Place, Place> {
        let mut line = self.first_line(key);
        loop {
            for (at, newest) in self.lines[line].0.iter().enumerate() {
                if newest.is_empty() {
                    return Err(Place { line, at });
                }
                if newest.key == key {
                    return Ok(Place { line, at });
                }
            }
            line = if line + 1 == self.lines.len() { 0 } else { line + 1 };
        }
    }

    /// Makes half as much room again. Lines keep their order, so both tables are read from front to back.
    fn grow(&mut self) {
        let lines = vec![Line([Newest::EMPTY; 2]); self.lines.len() / 2 * 3];
        let before = std::mem::replace(self, KeyTable { lines, len: 0 });
        for newest in before.iter() {
            self.find_or_add(*newest);
        }
    }
}
