//! Aligns two tables: puts rows with the same window and group side by side.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use shared::partial::keys::KeyIndex;
use shared::partial::merge::Merged;
use shared::window::WindowId;

/// The rows of two tables side by side; a row that one of them lacks is `None` there.
#[derive(Debug)]
pub struct RowAlignment {
    served: UInt32Array,
    exact: UInt32Array,
}

/// A table that has an aligned row, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlignedRow {
    Served(usize),
    Exact(usize),
}

impl RowAlignment {
    /// Aligns two tables whose groups are of the same types.
    pub fn new(served: &Merged, exact: &Merged) -> RowAlignment {
        let mut index = KeyIndex::default();
        let served_ids: Vec<u32> = served.keys.iter().map(|key| index.id_of(key)).collect();
        let exact_ids: Vec<u32> = exact.keys.iter().map(|key| index.id_of(key)).collect();
        let row_of = |table: &Merged, ids: &[u32], row: usize| (table.windows[row], ids[table.groups[row] as usize]);
        let mut rest: HashMap<(WindowId, u32), u32> =
            (0..served.len()).map(|row| (row_of(served, &served_ids, row), row as u32)).collect();
        let mut pairs: Vec<(Option<u32>, Option<u32>)> =
            (0..exact.len()).map(|row| (rest.remove(&row_of(exact, &exact_ids, row)), Some(row as u32))).collect();
        let mut alone: Vec<u32> = rest.into_values().collect();
        alone.sort_unstable();
        pairs.extend(alone.into_iter().map(|row| (Some(row), None)));
        let (served, exact): (Vec<Option<u32>>, Vec<Option<u32>>) = pairs.into_iter().unzip();
        RowAlignment { served: served.into(), exact: exact.into() }
    }

    /// Returns the number of rows, of either table or both.
    pub fn row_count(&self) -> usize {
        self.served.len()
    }

    /// Returns a column of the served table, in aligned order; null where it lacks the row.
    pub fn served(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        take(column, &self.served, None)
    }

    /// Returns a column of the exact table, in aligned order; null where it lacks the row.
    pub fn exact(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        take(column, &self.exact, None)
    }

    /// Returns whether both tables have the row.
    pub fn in_both(&self, row: usize) -> bool {
        self.served.is_valid(row) && self.exact.is_valid(row)
    }

    /// Returns whether only the served table has the row.
    pub fn is_served_only(&self, row: usize) -> bool {
        self.exact.is_null(row)
    }

    /// Returns a table that has the row, the exact one if both do.
    pub fn find(&self, row: usize) -> AlignedRow {
        if self.exact.is_valid(row) {
            AlignedRow::Exact(self.exact.value(row) as usize)
        } else {
            AlignedRow::Served(self.served.value(row) as usize)
        }
    }
}
