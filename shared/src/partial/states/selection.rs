//! Selects rows of a batch with their groups, and gives the position of each row in the stream.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{DataType as ArrowType, Date32Type, Int32Type, Int64Type, TimestampMicrosecondType};

/// The rows of a batch to observe and the group of each: `groups[i]` is that of row `rows[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    pub groups: &'a [u32],
    pub rows: &'a [u32],
    /// `FILTER (WHERE ..)`: rows for which it is not true are skipped.
    pub mask: Option<&'a BooleanArray>,
}

impl Selection<'_> {
    #[inline]
    pub(super) fn for_each(self, mut each: impl FnMut(usize, usize)) {
        match self.mask {
            None => {
                for (&group, &row) in self.groups.iter().zip(self.rows) {
                    each(group as usize, row as usize);
                }
            }
            Some(mask) => {
                for (&group, &row) in self.groups.iter().zip(self.rows) {
                    let row = row as usize;
                    if mask.is_valid(row) && mask.value(row) {
                        each(group as usize, row);
                    }
                }
            }
        }
    }

    #[inline]
    pub(super) fn for_each_value<T: ArrowPrimitiveType>(
        self,
        values: &PrimitiveArray<T>,
        mut each: impl FnMut(usize, T::Native),
    ) {
        let raw = values.values();
        match values.nulls() {
            None => self.for_each(|group, row| each(group, raw[row])),
            Some(nulls) => self.for_each(|group, row| {
                if nulls.is_valid(row) {
                    each(group, raw[row]);
                }
            }),
        }
    }

    /// Every value as an i64 that sorts like it: BOOLEAN, INT, BIGINT, DATE, TIMESTAMP.
    pub(super) fn for_each_ordered(self, values: &ArrayRef, mut each: impl FnMut(usize, i64)) {
        match values.data_type() {
            ArrowType::Int32 => self.for_each_value::<Int32Type>(values.as_primitive(), |g, v| each(g, i64::from(v))),
            ArrowType::Date32 => self.for_each_value::<Date32Type>(values.as_primitive(), |g, v| each(g, i64::from(v))),
            ArrowType::Timestamp(..) => self.for_each_value::<TimestampMicrosecondType>(values.as_primitive(), each),
            ArrowType::Boolean => {
                let values = values.as_boolean();
                self.for_each(|group, row| {
                    if values.is_valid(row) {
                        each(group, i64::from(values.value(row)));
                    }
                });
            }
            _ => self.for_each_value::<Int64Type>(values.as_primitive(), each),
        }
    }
}

/// Event time and log position of the rows of a batch. One entry per row, selected or not.
#[derive(Debug, Clone, Copy)]
pub struct EventPositions<'a> {
    /// Event times, in microseconds.
    pub times: &'a [i64],
    pub offsets: Offsets<'a>,
}

/// Partition and offset of every row.
#[derive(Debug, Clone, Copy)]
pub enum Offsets<'a> {
    /// Of one partition, one after the other: row `r` has offset `first + r`.
    Run { partition: i64, first: i64 },
    /// One entry per row.
    Listed { partitions: &'a [i64], offsets: &'a [i64] },
}

impl EventPositions<'_> {
    /// Returns the key that orders events: time, then offset, then partition.
    #[inline]
    pub fn of(&self, row: usize) -> (i64, i64, i64) {
        let (offset, partition) = match self.offsets {
            Offsets::Run { partition, first } => (first + row as i64, partition),
            Offsets::Listed { partitions, offsets } => (offsets[row], partitions[row]),
        };
        (self.times[row], offset, partition)
    }
}
