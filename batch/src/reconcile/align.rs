//! Which row of one table is which of another? Rows with the same window and group, side by side.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use shared::partial::keys::KeyIndex;
use shared::partial::merge::Merged;

/// The rows of two tables side by side; a row that one of them lacks is `None` there.
#[derive(Debug)]
pub struct Aligned {
    served: UInt32Array,
    exact: UInt32Array,
}

/// One side of an aligned row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    Served(usize),
    Exact(usize),
}

impl Aligned {
    /// Aligns two tables whose groups are of the same types.
    pub fn new(served: &Merged, exact: &Merged) -> Aligned {
        let mut index = KeyIndex::default();
        let served_ids: Vec<u32> = served.keys.iter().map(|key| index.id_of(key)).collect();
        let exact_ids: Vec<u32> = exact.keys.iter().map(|key| index.id_of(key)).collect();
        let row_of = |table: &Merged, ids: &[u32], row: usize| (table.windows[row], ids[table.groups[row] as usize]);
        let mut rest: HashMap<(i64, u32), u32> =
            (0..served.len()).map(|row| (row_of(served, &served_ids, row), row as u32)).collect();
        let mut pairs: Vec<(Option<u32>, Option<u32>)> =
            (0..exact.len()).map(|row| (rest.remove(&row_of(exact, &exact_ids, row)), Some(row as u32))).collect();
        let mut alone: Vec<u32> = rest.into_values().collect();
        alone.sort_unstable();
        pairs.extend(alone.into_iter().map(|row| (Some(row), None)));
        let (served, exact): (Vec<Option<u32>>, Vec<Option<u32>>) = pairs.into_iter().unzip();
        Aligned { served: served.into(), exact: exact.into() }
    }

    /// Number of rows, of either table or both.
    pub fn len(&self) -> usize {
        self.served.len()
    }

    /// A column of the first table, in aligned order; null where it lacks the row.
    pub fn served(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        take(column, &self.served, None)
    }

    /// A column of the second table, in aligned order; null where it lacks the row.
    pub fn exact(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        take(column, &self.exact, None)
    }

    /// Do both tables have the row?
    pub fn in_both(&self, row: usize) -> bool {
        self.served.is_valid(row) && self.exact.is_valid(row)
    }

    /// A table that has the row, and its number there.
    pub fn find(&self, row: usize) -> Row {
        if self.exact.is_valid(row) {
            Row::Exact(self.exact.value(row) as usize)
        } else {
            Row::Served(self.served.value(row) as usize)
        }
    }
}
