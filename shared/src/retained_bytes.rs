//! Counts the memory that record batches keep alive, each allocation once: columns share buffers, and a slice keeps the
//! whole buffer that it is a slice of.

use std::collections::HashSet;

use arrow::array::{Array, ArrayData, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;

/// The allocations of several batches.
#[derive(Debug, Default)]
pub struct RetainedBytes {
    /// Start addresses.
    allocations: HashSet<usize>,
    bytes: usize,
}

impl RetainedBytes {
    /// Adds the allocations of a batch.
    pub fn add(&mut self, rows: &RecordBatch) {
        rows.columns().iter().for_each(|column| self.add_array(&column.to_data()));
    }

    /// Bytes of all allocations.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn add_array(&mut self, array: &ArrayData) {
        array.buffers().iter().for_each(|buffer| self.add_buffer(buffer));
        if let Some(nulls) = array.nulls() {
            self.add_buffer(nulls.buffer());
        }
        array.child_data().iter().for_each(|child| self.add_array(child));
    }

    fn add_buffer(&mut self, buffer: &Buffer) {
        if self.allocations.insert(buffer.data_ptr().as_ptr() as usize) {
            self.bytes += buffer.capacity();
        }
    }
}

/// Bytes of memory that a batch keeps alive.
pub fn retained_bytes(rows: &RecordBatch) -> usize {
    let mut retained = RetainedBytes::default();
    retained.add(rows);
    retained.bytes()
}

/// Bytes of the rows themselves, without other data in the buffers that they share.
pub fn row_bytes(rows: &RecordBatch) -> usize {
    let of_column = |column: &dyn Array| match column.data_type() {
        DataType::Utf8View => column.len() * 16 + column.as_string_view().total_buffer_bytes_used(),
        other => column.len() * other.primitive_width().unwrap_or(1),
    };
    rows.columns().iter().map(|column| of_column(column.as_ref())).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn an_allocation_counts_once_and_whole_however_small_the_slices_of_it_are() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
        let texts: ArrayRef =
            Arc::new(StringViewArray::from_iter_values((0..100).map(|i| format!("a text of some length {i}"))));
        let of = |columns: Vec<(&str, ArrayRef)>| RecordBatch::try_from_iter(columns).expect("columns");
        let once = retained_bytes(&of(vec![("a", Arc::clone(&numbers))]));
        assert!((80_000..90_000).contains(&once), "{once}");
        let sliced = of(vec![("a", numbers.slice(5, 2)), ("b", numbers.slice(9_000, 2))]);
        assert_eq!(retained_bytes(&sliced), once);
        let text = retained_bytes(&of(vec![("t", Arc::clone(&texts))]));
        assert!(text > 100 * (16 + 20), "{text}");
        let mut all = RetainedBytes::default();
        all.add(&sliced);
        all.add(&of(vec![("t", texts)]));
        all.add(&sliced);
        assert_eq!(all.bytes(), once + text);
    }
}
