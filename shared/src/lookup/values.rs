//! Keeps the values of versions as columns, numbered in the order in which they came, and gathers those of any numbers.
//!
//! New values are a chunk of their own. Chunks of similar size are joined, so there are few, and each value is copied few times.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::DataType as ArrowType;
use arrow::error::ArrowError;

/// The number that means no values: a version that deletes its row, or no version.
pub(super) const NO_ROW: u32 = u32::MAX;

/// Columns of values. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Values {
    types: Arc<[ArrowType]>,
    chunks: Vec<Chunk>,
}

#[derive(Debug, Clone)]
struct Chunk {
    /// Number of its first row.
    first: u32,
    rows: usize,
    columns: Arc<[ArrayRef]>,
    bytes: usize,
}

impl Chunk {
    fn new(first: u32, rows: usize, columns: Vec<ArrayRef>) -> Chunk {
        let columns: Arc<[ArrayRef]> = columns.into_iter().map(compact).collect();
        let bytes = columns.iter().map(|column| column.get_array_memory_size()).sum();
        Chunk { first, rows, columns, bytes }
    }
}

/// Texts share buffers with what they were taken from: a copy of their own is smaller.
fn compact(column: ArrayRef) -> ArrayRef {
    match column.as_string_view_opt() {
        Some(texts) => Arc::new(texts.gc()),
        None => column,
    }
}

impl Values {
    /// Returns no values, with columns of these types.
    pub fn new(types: Vec<ArrowType>) -> Values {
        Values { types: types.into(), chunks: Vec::new() }
    }

    /// Number of values so far.
    pub fn len(&self) -> u32 {
        self.chunks.last().map_or(0, |last| last.first + last.rows as u32)
    }

    /// Memory of the values, in bytes.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// Adds `rows` values.
    pub fn add(&mut self, rows: usize, columns: Vec<ArrayRef>) -> Result<(), ArrowError> {
        if rows == 0 {
            return Ok(());
        }
        let mut last = Chunk::new(self.len(), rows, columns);
        while let Some(before) = self.chunks.pop_if(|before| before.rows <= 2 * last.rows) {
            let both = |index: usize| concat(&[before.columns[index].as_ref(), last.columns[index].as_ref()]);
            let columns = (0..self.types.len()).map(both).collect::<Result<Vec<_>, _>>()?;
            last = Chunk::new(before.first, before.rows + last.rows, columns);
        }
        self.chunks.push(last);
        Ok(())
    }

    /// Returns the columns `wanted` of the numbers `rows`, NULL for [`NO_ROW`].
    pub fn gather(&self, rows: &[u32], wanted: &[usize]) -> Result<Vec<ArrayRef>, ArrowError> {
        match self.chunks.as_slice() {
            [] => Ok(wanted.iter().map(|index| new_null_array(&self.types[*index], rows.len())).collect()),
            [one] => {
                let rows: UInt32Array = rows.iter().map(|row| (*row != NO_ROW).then_some(*row)).collect();
                wanted.iter().map(|index| take(one.columns[*index].as_ref(), &rows, None)).collect()
            }
            chunks => {
                let place = |row: &u32| match *row {
                    NO_ROW => (0, 0),
                    row => {
                        let chunk = chunks.partition_point(|chunk| chunk.first <= row);
                        (chunk, (row - chunks[chunk - 1].first) as usize)
                    }
                };
                let places: Vec<(usize, usize)> = rows.iter().map(place).collect();
                let gathered = |index: &usize| {
                    let none = new_null_array(&self.types[*index], 1);
                    let columns = chunks.iter().map(|chunk| chunk.columns[*index].as_ref());
                    let columns: Vec<&dyn Array> = std::iter::once(none.as_ref()).chain(columns).collect();
                    interleave(&columns, &places)
                };
                wanted.iter().map(gathered).collect()
            }
        }
    }

    /// Keeps the values with the numbers `rows`, in this order, and numbers them from 0.
    pub fn retain(&mut self, rows: &[u32]) -> Result<(), ArrowError> {
        let all: Vec<usize> = (0..self.types.len()).collect();
        let columns = self.gather(rows, &all)?;
        self.chunks.clear();
        self.add(rows.len(), columns)
    }
}
