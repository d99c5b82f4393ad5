//! A table of rows by key that reads one line of memory for most events.
//!
//! An open hash table whose buckets are lines of the cache: a line has the keys of a few rows, and what almost all events need of them: the
//! values of the newest version, and from when on it is seen for certain. The rest of a row is elsewhere, at the same place. Rows are never
//! removed: a table with fewer is a new one. `hashbrown` reads the bits of the hash first and the row afterwards, which are two places in
//! memory.

use std::array;
use std::fmt::Debug;

use super::values::NO_ROW;

/// The history of a row with one version.
pub(super) const NO_HISTORY: u32 = u32::MAX;
/// Lines of an empty table.
const LINES_MIN: usize = 4;
/// A period has 2^21 microseconds, some two seconds: its number takes half as much memory as a time.
const PERIOD_BITS: u32 = 21;

/// Rows by numbers.
pub(super) type NumberTable = KeyTable<i64, 4>;
/// Rows by texts, of which 96 bits of hash are the key.
pub(super) type TextTable = KeyTable<[u32; 3], 3>;

/// The key of a row.
pub(super) trait Key: Copy + Eq + Default + Debug {
    /// Returns its bits, spread over a hash.
    fn hash(self) -> u64;
}

/// The newest version of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newest {
    pub time: i64,
    pub row: u32,
    /// Index into the histories, or [`NO_HISTORY`].
    pub history: u32,
}

/// The part of a row that is read first.
#[derive(Debug, Clone, Copy)]
struct Entry<K> {
    key: K,
    /// Events of this period and later ones see the newest version.
    certain: i32,
    row: u32,
}

/// Some rows, in one line of the cache. An empty place comes after all rows.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line<K, const ROWS: usize>([Entry<K>; ROWS]);

/// Rows by key, `ROWS` in each line.
#[derive(Debug)]
pub(super) struct KeyTable<K, const ROWS: usize> {
    lines: Vec<Line<K, ROWS>>,
    /// The times of the newest versions, by place.
    times: Vec<i64>,
    /// Indexes into the histories, by place.
    histories: Vec<u32>,
    len: usize,
}

#[inline]
fn spread(bits: u64) -> u64 {
    let product = u128::from(bits).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Key for i64 {
    #[inline]
    fn hash(self) -> u64 {
        spread(self.cast_unsigned())
    }
}

impl Key for [u32; 3] {
    #[inline]
    fn hash(self) -> u64 {
        let [low, high, _] = self;
        spread(u64::from(low) | u64::from(high) << 32)
    }
}

/// The period of a time. Those of times that are too far away for its bits are one.
#[inline]
fn period_of(time: i64) -> i32 {
    (time >> PERIOD_BITS).clamp(i64::from(i32::MIN), i64::from(i32::MAX - 2)) as i32
}

/// The first period that is after a time, or that begins with it. It is neither the first nor the last period of events, because these have
/// earlier and later times, too.
fn certain_from(time: i64) -> i32 {
    let period = time >> PERIOD_BITS;
    let first = if period << PERIOD_BITS == time { period } else { period + 1 };
    first.clamp(i64::from(i32::MIN + 1), i64::from(i32::MAX - 1)) as i32
}

impl<K: Key> Entry<K> {
    /// The period from which on an empty place is certain: no event has it.
    const NEVER: i32 = i32::MAX;

    fn empty() -> Entry<K> {
        Entry { key: K::default(), certain: Self::NEVER, row: NO_ROW }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.certain == Self::NEVER
    }
}

impl<K: Key, const ROWS: usize> KeyTable<K, ROWS> {
    pub fn new() -> KeyTable<K, ROWS> {
        KeyTable::with_lines(LINES_MIN)
    }

    fn with_lines(lines: usize) -> KeyTable<K, ROWS> {
        let empty = Line(array::from_fn(|_| Entry::empty()));
        KeyTable {
            lines: vec![empty; lines],
            times: vec![i64::MAX; lines * ROWS],
            histories: vec![NO_HISTORY; lines * ROWS],
            len: 0,
        }
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line<K, ROWS>>()
            + self.times.capacity() * size_of::<i64>()
            + self.histories.capacity() * size_of::<u32>()
    }

    /// All rows, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (K, Newest)> {
        let entries = self.lines.iter().flat_map(|line| &line.0).enumerate();
        entries.filter(|(_, entry)| !entry.is_empty()).map(|(place, entry)| (entry.key, self.newest(place)))
    }

    /// Returns the number of the line in which the row with a key is, unless others had no room.
    #[inline]
    pub fn first_line(&self, key: K) -> u32 {
        (u128::from(key.hash()).wrapping_mul(self.lines.len() as u128) >> 64) as u32
    }

    #[inline]
    fn entry(&self, place: usize) -> &Entry<K> {
        &self.lines[place / ROWS].0[place % ROWS]
    }

    /// Reads something of a line and no more, so that many such reads wait for memory at the same time; after it, the line is in the cache.
    #[inline]
    pub fn touch(&self, line: u32) -> u32 {
        self.lines[line as usize].0[0].row
    }

    /// Returns the row that an event with this key and time sees, if the key is in `line`, the first of its lines, and the event sees the newest
    /// version for certain. Compares all keys of the line, because the place of a key in it cannot be predicted.
    #[inline]
    pub fn certain_in(&self, line: u32, key: K, time: i64) -> Option<u32> {
        let Line(entries) = &self.lines[line as usize];
        let equal = entries.iter().enumerate().fold(0, |bits, (at, entry)| bits | u32::from(entry.key == key) << at);
        // An empty place has the key 0, which a row before it may have.
        let entry = &entries[(equal.trailing_zeros() as usize).min(ROWS - 1)];
        (equal != 0 && entry.certain <= period_of(time)).then_some(entry.row)
    }

    /// Returns the newest version at a place; that of an empty place is never seen.
    pub fn newest(&self, place: usize) -> Newest {
        Newest { time: self.times[place], row: self.entry(place).row, history: self.histories[place] }
    }

    /// Replaces the newest version at a place.
    pub fn set(&mut self, place: usize, Newest { time, row, history }: Newest) {
        let entry = &mut self.lines[place / ROWS].0[place % ROWS];
        (entry.certain, entry.row) = (certain_from(time), row);
        (self.times[place], self.histories[place]) = (time, history);
    }

    /// Returns the place of the row with a key.
    pub fn find(&self, key: K) -> Option<usize> {
        self.place_of(key).ok()
    }

    /// Returns the place of the row with this key; `None`: there was none, and `newest` is added.
    pub fn find_or_add(&mut self, key: K, newest: Newest) -> Option<usize> {
        if (self.len + 1) * 4 > self.times.len() * 3 {
            self.grow();
        }
        match self.place_of(key) {
            Ok(place) => Some(place),
            Err(place) => {
                self.lines[place / ROWS].0[place % ROWS].key = key;
                self.set(place, newest);
                self.len += 1;
                None
            }
        }
    }

    /// The place of a key, or the one where it would be. There is always an empty one.
    fn place_of(&self, key: K) -> Result<usize, usize> {
        let mut line = self.first_line(key) as usize;
        loop {
            for (at, entry) in self.lines[line].0.iter().enumerate() {
                if entry.is_empty() {
                    return Err(line * ROWS + at);
                }
                if entry.key == key {
                    return Ok(line * ROWS + at);
                }
            }
            line = if line + 1 == self.lines.len() { 0 } else { line + 1 };
        }
    }

    /// Makes half as much room again. Lines keep their order, so both tables are read from front to back.
    fn grow(&mut self) {
        let more = KeyTable::with_lines(self.lines.len() / 2 * 3);
        let before = std::mem::replace(self, more);
        for (key, newest) in before.iter() {
            self.find_or_add(key, newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_version_is_certain_for_no_event_before_it(time: i64, before in 1..i64::MAX, after in 0..i64::MAX) {
            let mut table = NumberTable::new();
            prop_assert_eq!(table.find_or_add(7, Newest { time, row: 1, history: NO_HISTORY }), None);
            let line = table.first_line(7);
            for near in [1, 1 << PERIOD_BITS, before] {
                prop_assert_eq!(table.certain_in(line, 7, time.saturating_sub(near)).filter(|_| time > i64::MIN), None);
            }
            prop_assert!(matches!(table.certain_in(line, 7, time.saturating_add(after)), None | Some(1)));
        }

        #[test]
        fn a_version_is_certain_a_period_later(time in -(1i64 << 50)..1 << 50, after in 0i64..1 << 50) {
            let mut table = TextTable::new();
            prop_assert_eq!(table.find_or_add([1, 2, 3], Newest { time, row: 1, history: NO_HISTORY }), None);
            let line = table.first_line([1, 2, 3]);
            prop_assert_eq!(table.certain_in(line, [1, 2, 3], time + (1 << PERIOD_BITS) + after), Some(1));
        }
    }

    #[test]
    fn rows_fill_lines_of_the_cache() {
        assert_eq!((size_of::<Line<i64, 4>>(), size_of::<Line<[u32; 3], 3>>()), (64, 64));
    }
}
