//! Numbers the rows of a merged table by window and key, without hashing if windows and keys are few for the rows.

use hashbrown::HashTable;

use crate::partial::states::NO_GROUP;
use crate::window::WindowId;

/// Cells of a dense table that are always worth clearing.
const DENSE_CELLS_MIN: usize = 1 << 14;

/// Rows of (window, key), numbered from 0.
#[derive(Debug)]
pub struct RowIndex {
    pub windows: Vec<WindowId>,
    pub groups: Vec<u32>,
    found: Lookup,
}

#[derive(Debug)]
enum Lookup {
    /// A cell for every window and key.
    Dense {
        first: WindowId,
        size: i64,
        keys: usize,
        table: Vec<u32>,
    },
    Sparse(HashTable<u32>),
}

/// The windows that rows may have, from `first` to `last`.
#[derive(Debug, Clone, Copy)]
pub struct WindowSpan {
    pub first: WindowId,
    pub last: WindowId,
    pub spacing: Spacing,
}

/// The distance between windows.
#[derive(Debug, Clone, Copy)]
pub enum Spacing {
    /// There is only one.
    Single,
    /// Microseconds.
    Even(i64),
    /// As a calendar or the events have it.
    Uneven,
}

/// The position at which the rows of one window are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLine {
    window: WindowId,
    line: usize,
}

impl RowIndex {
    /// Returns a table without rows; at most `candidates` will be looked up, with keys below `keys`.
    pub fn new(windows: WindowSpan, keys: usize, candidates: usize) -> RowIndex {
        let size = match windows.spacing {
            Spacing::Single => i64::MAX,
            Spacing::Even(size) => size,
            Spacing::Uneven => {
                return RowIndex { windows: Vec::new(), groups: Vec::new(), found: Lookup::Sparse(HashTable::new()) };
            }
        };
        let span = windows.last.0.checked_sub(windows.first.0).filter(|span| *span >= 0);
        let lines = span.and_then(|span| usize::try_from(span / size).ok()).and_then(|last| last.checked_add(1));
        let cells = lines.and_then(|lines| lines.checked_mul(keys));
        // More than a few cells for each lookup would cost more to clear than the hashing they save.
        let found = match cells.filter(|cells| *cells <= DENSE_CELLS_MIN.max(4 * candidates)) {
            Some(cells) => Lookup::Dense { first: windows.first, size, keys, table: vec![NO_GROUP; cells] },
            None => Lookup::Sparse(HashTable::new()),
        };
        RowIndex { windows: Vec::new(), groups: Vec::new(), found }
    }

    /// Returns the lookup position of `window`, computed once for neighbours that share it.
    #[inline]
    pub fn place(&self, window: WindowId) -> RowLine {
        let line = match &self.found {
            Lookup::Dense { first, size, keys, .. } => ((window.0 - first.0) / size) as usize * keys,
            Lookup::Sparse(_) => 0,
        };
        RowLine { window, line }
    }

    /// Returns the number of the row of `key` in a window; a new one if there was none.
    #[inline]
    pub fn row_of(&mut self, place: RowLine, key: u32) -> u32 {
        let RowIndex { windows, groups, found } = self;
        let row = windows.len() as u32;
        match found {
            Lookup::Dense { table, .. } => {
                let cell = &mut table[place.line + key as usize];
                if *cell != NO_GROUP {
                    return *cell;
                }
                *cell = row;
            }
            Lookup::Sparse(table) => {
                let hash = hash(place.window, key);
                let same = |row: &u32| windows[*row as usize] == place.window && groups[*row as usize] == key;
                if let Some(row) = table.find(hash, same) {
                    return *row;
                }
                table.insert_unique(hash, row, |row| self::hash(windows[*row as usize], groups[*row as usize]));
            }
        }
        windows.push(place.window);
        groups.push(key);
        row
    }
}

#[inline]
fn hash(window: WindowId, key: u32) -> u64 {
    let x = u128::from((window.0 as u64) ^ (u64::from(key) << 32).rotate_left(13)) * 0x9e37_79b9_7f4a_7c15;
    (x as u64) ^ ((x >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(rows: &mut RowIndex) -> Vec<u32> {
        let asked = [(30, 0), (0, 1), (30, 0), (30, 1), (-20, 1), (0, 1), (-20, 1)];
        asked.iter().map(|(window, key)| rows.row_of(rows.place(WindowId(*window)), *key)).collect()
    }

    #[test]
    fn dense_and_sparse_tables_give_the_same_numbers() {
        let windows = WindowSpan { first: WindowId(-20), last: WindowId(30), spacing: Spacing::Even(10) };
        let mut dense = RowIndex::new(windows, 2, 7);
        let mut sparse =
            RowIndex::new(WindowSpan { last: WindowId(i64::MAX / 2), spacing: Spacing::Even(1), ..windows }, 2, 7);
        assert!(matches!((&dense.found, &sparse.found), (Lookup::Dense { .. }, Lookup::Sparse(_))));
        assert_eq!(numbered(&mut dense), [0, 1, 0, 2, 3, 1, 3]);
        assert_eq!(numbered(&mut sparse), [0, 1, 0, 2, 3, 1, 3]);
        assert_eq!((&dense.windows, &dense.groups), (&sparse.windows, &sparse.groups));
    }

    #[test]
    fn extremes_do_not_overflow() {
        for (first, last) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (0, i64::MAX)] {
            let mut rows = RowIndex::new(
                WindowSpan { first: WindowId(first), last: WindowId(last), spacing: Spacing::Even(1) },
                3,
                10,
            );
            assert_eq!(rows.row_of(rows.place(WindowId::MAX), 2), 0);
        }
        let mut one =
            RowIndex::new(WindowSpan { first: WindowId(0), last: WindowId(0), spacing: Spacing::Single }, 3, 10);
        assert_eq!(one.row_of(one.place(WindowId(0)), 2), 0);
    }
}
