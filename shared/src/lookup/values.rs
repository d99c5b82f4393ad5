//! Keeps the values of versions as columns, numbered in the order in which they came, and gathers those of any numbers.
//!
//! Columns grow in place, so every value is one access away. [`texts`](super::texts) has the columns of texts.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, NullBufferBuilder, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::nullif;
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use super::texts::TextColumn;
use crate::types::DataType;

/// The number that means no values: a version that deletes its row, or no version.
pub(super) const NO_ROW: u32 = u32::MAX;

/// How the values of a column are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As the Arrow type of the column.
    Plain,
    /// As a dictionary, if the column has one.
    Coded,
}

/// The numbers of the values that events see.
#[derive(Debug)]
pub(super) struct SeenRows {
    rows: Vec<u32>,
    /// Of the events that see no values; `None`: all see some.
    nulls: Option<NullBuffer>,
}

/// Values of one column.
pub(super) trait Column: fmt::Debug + Send + Sync {
    /// Adds values of its type.
    fn add(&mut self, values: &ArrayRef);

    /// Returns the values of `rows`.
    fn gather(&self, rows: &SeenRows, form: Form) -> Result<ArrayRef, ArrowError>;

    /// Memory, in bytes.
    fn bytes(&self) -> usize;
}

/// Columns of values.
#[derive(Debug)]
pub(super) struct Values {
    types: Vec<DataType>,
    columns: Vec<Box<dyn Column>>,
    len: u32,
}

/// Makes room for `more` values, and for a quarter of those that are there if there is none: columns of a large table do not double.
pub(super) fn grow<T>(values: &mut Vec<T>, more: usize) {
    if values.capacity() - values.len() < more {
        values.reserve_exact(more.max(values.len() / 4));
    }
}

impl SeenRows {
    pub fn new(rows: Vec<u32>) -> SeenRows {
        let are_seen = || BooleanBuffer::collect_bool(rows.len(), |at| rows[at] != NO_ROW);
        let nulls = rows.contains(&NO_ROW).then(|| NullBuffer::new(are_seen()));
        SeenRows { rows, nulls }
    }

    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Returns `column`, which has one value for each event, with NULL for those that see no values.
    pub fn mask(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        match &self.nulls {
            None => Ok(ArrayRef::clone(column)),
            Some(nulls) => nullif(column, &BooleanArray::new(!nulls.inner(), None)),
        }
    }

    /// The NULLs of values, of which `are_valid` has those of a column; `None`: it has no NULL.
    pub(super) fn nulls(&self, are_valid: &NullBufferBuilder) -> Option<NullBuffer> {
        if are_valid.as_slice().is_none() {
            return self.nulls.clone();
        }
        let is_valid = |at: usize| self.rows[at] != NO_ROW && are_valid.is_valid(self.rows[at] as usize);
        Some(NullBuffer::new(BooleanBuffer::collect_bool(self.rows.len(), is_valid)))
    }
}

impl Values {
    /// Returns no values, with columns of these types.
    pub fn new(types: Vec<DataType>) -> Values {
        Values { columns: types.iter().map(|data_type| column(*data_type)).collect(), types, len: 0 }
    }

    /// Number of values so far.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Memory of the values, in bytes.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.bytes()).sum()
    }

    /// Adds `rows` values.
    pub fn add(&mut self, rows: usize, columns: &[ArrayRef]) {
        self.len += rows as u32;
        for (column, values) in self.columns.iter_mut().zip(columns) {
            column.add(values);
        }
    }

    /// Returns the values of `rows` in a column, NULL for [`NO_ROW`].
    pub fn gather(&self, rows: &SeenRows, column: usize, form: Form) -> Result<ArrayRef, ArrowError> {
        self.columns[column].gather(rows, form)
    }

    /// Keeps the values with the numbers `rows`, in this order, and numbers them from 0.
    pub fn retain(&mut self, rows: Vec<u32>) -> Result<(), ArrowError> {
        let rows = SeenRows::new(rows);
        let mut kept = Values::new(std::mem::take(&mut self.types));
        let columns = self.columns.iter().map(|column| column.gather(&rows, Form::Plain));
        kept.add(rows.rows.len(), &columns.collect::<Result<Vec<_>, _>>()?);
        *self = kept;
        Ok(())
    }
}

fn column(data_type: DataType) -> Box<dyn Column> {
    fn fixed<T: ArrowPrimitiveType + fmt::Debug>(data_type: DataType) -> Box<dyn Column> {
        Box::new(FixedColumn::<T> {
            arrow: data_type.arrow(),
            values: Vec::new(),
            are_valid: NullBufferBuilder::new(0),
        })
    }
    match data_type {
        DataType::Boolean => Box::new(BooleanColumn(Vec::new())),
        DataType::Int => fixed::<Int32Type>(data_type),
        DataType::BigInt => fixed::<Int64Type>(data_type),
        DataType::Double => fixed::<Float64Type>(data_type),
        DataType::Decimal { .. } => fixed::<Decimal128Type>(data_type),
        DataType::Date => fixed::<Date32Type>(data_type),
        DataType::Timestamp => fixed::<TimestampMicrosecondType>(data_type),
        DataType::String | DataType::Json => Box::new(TextColumn::default()),
    }
}

/// Values of one width.
#[derive(Debug)]
struct FixedColumn<T: ArrowPrimitiveType> {
    arrow: ArrowType,
    values: Vec<T::Native>,
    are_valid: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType + fmt::Debug> Column for FixedColumn<T> {
    fn add(&mut self, values: &ArrayRef) {
        let values = values.as_primitive::<T>();
        grow(&mut self.values, values.len());
        self.values.extend_from_slice(values.values());
        add_nulls(&mut self.are_valid, values.nulls(), values.len());
    }

    fn gather(&self, rows: &SeenRows, _form: Form) -> Result<ArrayRef, ArrowError> {
        let value = |row: &u32| self.values.get(*row as usize).copied().unwrap_or_default();
        let values: Vec<T::Native> = rows.rows.iter().map(value).collect();
        let column = PrimitiveArray::<T>::try_new(values.into(), rows.nulls(&self.are_valid))?;
        Ok(Arc::new(column.with_data_type(self.arrow.clone())))
    }

    fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T::Native>() + self.are_valid.allocated_size()
    }
}

/// Adds the NULLs of `len` values.
pub(super) fn add_nulls(are_valid: &mut NullBufferBuilder, nulls: Option<&NullBuffer>, len: usize) {
    match nulls {
        Some(nulls) => are_valid.append_buffer(nulls),
        None => are_valid.append_n_non_nulls(len),
    }
}

#[derive(Debug)]
struct BooleanColumn(Vec<Option<bool>>);

impl Column for BooleanColumn {
    fn add(&mut self, values: &ArrayRef) {
        let values = values.as_boolean();
        grow(&mut self.0, values.len());
        self.0.extend(values);
    }

    fn gather(&self, rows: &SeenRows, _form: Form) -> Result<ArrayRef, ArrowError> {
        let value = |row: &u32| self.0.get(*row as usize).copied().flatten();
        Ok(Arc::new(rows.rows.iter().map(value).collect::<BooleanArray>()))
    }

    fn bytes(&self) -> usize {
        self.0.capacity()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, UInt32Array};
    use arrow::compute::{cast, concat, take};
    use proptest::prelude::*;

    use super::*;

    const TYPES: [DataType; 8] = [
        DataType::Boolean,
        DataType::Int,
        DataType::BigInt,
        DataType::Double,
        DataType::Decimal { precision: 20, scale: 2 },
        DataType::String,
        DataType::Date,
        DataType::Timestamp,
    ];

    /// Columns of all types with the same small numbers.
    fn columns(numbers: &[Option<i64>]) -> Vec<ArrayRef> {
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
        let of_type = |data_type: &DataType| {
            let narrow = match data_type {
                DataType::Date => cast(&numbers, &ArrowType::Int32).expect("small"),
                _ => Arc::clone(&numbers),
            };
            cast(&narrow, &data_type.arrow()).expect("every type has small numbers")
        };
        TYPES.iter().map(of_type).collect()
    }

    proptest! {
        #[test]
        fn the_values_of_any_numbers_are_gathered(
            added in prop::collection::vec(prop::collection::vec(prop::option::weighted(0.8, 0i64..99), 0..20), 1..5),
            without_null: bool,
            picked in prop::collection::vec(prop::option::weighted(0.9, any::<prop::sample::Index>()), 0..60),
        ) {
            let mut values = Values::new(TYPES.to_vec());
            let mut all = vec![Vec::new(); TYPES.len()];
            for numbers in &added {
                let numbers: Vec<_> = numbers.iter().map(|n| if without_null { n.or(Some(5)) } else { *n }).collect();
                let columns = columns(&numbers);
                values.add(numbers.len(), &columns);
                all.iter_mut().zip(columns).for_each(|(all, column)| all.push(column));
            }
            let len = added.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(values.len() as usize, len);
            let picked: Vec<Option<u32>> =
                picked.iter().map(|at| at.filter(|_| len > 0).map(|at| at.index(len) as u32)).collect();
            let rows = SeenRows::new(picked.iter().map(|row| row.unwrap_or(NO_ROW)).collect());
            let at = UInt32Array::from(picked.clone());
            let expected = |column: usize| {
                let chunks: Vec<&dyn Array> = all[column].iter().map(AsRef::as_ref).collect();
                take(&concat(&chunks).expect("one type"), &at, None).expect("numbers")
            };
            for column in 0..TYPES.len() {
                prop_assert_eq!(&values.gather(&rows, column, Form::Plain).expect("gathers"), &expected(column));
            }
            // Only these stay.
            let kept: Vec<u32> = picked.iter().flatten().copied().collect();
            let before: Vec<ArrayRef> = (0..TYPES.len())
                .map(|column| take(&expected(column), &UInt32Array::from_iter_values(
                    (0..picked.len() as u32).filter(|at| picked[*at as usize].is_some())), None).expect("numbers"))
                .collect();
            let rest = SeenRows::new((0..kept.len() as u32).collect());
            values.retain(kept).expect("gathers");
            for (column, before) in before.iter().enumerate() {
                prop_assert_eq!(&values.gather(&rest, column, Form::Plain).expect("gathers"), before);
            }
        }
    }
}
