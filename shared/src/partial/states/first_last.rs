//! Keeps the first and the last value by event time, with the position that orders it.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

use super::NO_GROUP;
use super::selection::{EventPositions, Selection};
use crate::types::DataType;

/// The end of time that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    First,
    Last,
}

/// The values at one edge, one per group. NULL is not a value.
#[derive(Debug, Clone, PartialEq)]
pub struct FirstLastStates {
    pub edge: Edge,
    /// Time, offset and partition of the value; `None`: nothing seen.
    pub places: Vec<Option<(i64, i64, i64)>>,
    pub values: EdgeValues,
}

/// The values, by type.
#[derive(Debug, Clone, PartialEq)]
pub enum EdgeValues {
    /// BOOLEAN, INT, BIGINT, DATE, TIMESTAMP.
    Longs(Vec<i64>),
    /// Unscaled.
    Decimals(Vec<i128>),
    Doubles(Vec<f64>),
    /// Replaced in place: the last value of a stream in order changes with every event.
    Texts(Vec<String>),
}

impl FirstLastStates {
    /// Of no groups, for values of a type.
    pub fn new(edge: Edge, data_type: DataType) -> FirstLastStates {
        let values = match data_type {
            DataType::Decimal { .. } => EdgeValues::Decimals(Vec::new()),
            DataType::Double => EdgeValues::Doubles(Vec::new()),
            DataType::String | DataType::Json => EdgeValues::Texts(Vec::new()),
            _ => EdgeValues::Longs(Vec::new()),
        };
        FirstLastStates { edge, places: Vec::new(), values }
    }

    /// Returns, for each group, whether it has a value.
    pub fn seen(&self) -> Vec<bool> {
        self.places.iter().map(Option::is_some).collect()
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.places.resize(len, None);
        match &mut self.values {
            EdgeValues::Longs(values) => values.resize(len, 0),
            EdgeValues::Decimals(values) => values.resize(len, 0),
            EdgeValues::Doubles(values) => values.resize(len, 0.0),
            EdgeValues::Texts(values) => values.resize(len, String::new()),
        }
    }

    pub(super) fn observe(&mut self, selection: Selection<'_>, argument: &ArrayRef, places: &EventPositions<'_>) {
        let mut rows = EdgeRows { edge: self.edge, kept: &mut self.places, places };
        match &mut self.values {
            EdgeValues::Decimals(values) => rows.keep::<Decimal128Type, _>(selection, argument, values, |v| v),
            EdgeValues::Doubles(values) => rows.keep::<Float64Type, _>(selection, argument, values, |v| v),
            EdgeValues::Texts(values) => {
                let texts = argument.as_string_view();
                selection.for_each(|group, row| {
                    if texts.is_valid(row) && rows.takes(group, row) {
                        values[group].clear();
                        values[group].push_str(texts.value(row));
                    }
                });
            }
            EdgeValues::Longs(values) => match argument.data_type() {
                ArrowType::Int32 => rows.keep::<Int32Type, _>(selection, argument, values, i64::from),
                ArrowType::Date32 => rows.keep::<Date32Type, _>(selection, argument, values, i64::from),
                ArrowType::Timestamp(..) => {
                    rows.keep::<TimestampMicrosecondType, _>(selection, argument, values, |v| v);
                }
                ArrowType::Boolean => {
                    let flags = argument.as_boolean();
                    selection.for_each(|group, row| {
                        if flags.is_valid(row) && rows.takes(group, row) {
                            values[group] = i64::from(flags.value(row));
                        }
                    });
                }
                _ => rows.keep::<Int64Type, _>(selection, argument, values, |v| v),
            },
        }
    }

    pub(super) fn merge(&mut self, groups: &[u32], other: &FirstLastStates, first: usize) {
        for (row, group) in (first..).zip(groups).filter(|(_, group)| **group != NO_GROUP) {
            let group = *group as usize;
            let Some(place) = other.places[row] else { continue };
            if !self.edge.replaces(place, self.places[group]) {
                continue;
            }
            self.places[group] = Some(place);
            match (&mut self.values, &other.values) {
                (EdgeValues::Longs(ours), EdgeValues::Longs(theirs)) => ours[group] = theirs[row],
                (EdgeValues::Decimals(ours), EdgeValues::Decimals(theirs)) => ours[group] = theirs[row],
                (EdgeValues::Doubles(ours), EdgeValues::Doubles(theirs)) => ours[group] = theirs[row],
                (EdgeValues::Texts(ours), EdgeValues::Texts(theirs)) => ours[group].clone_from(&theirs[row]),
                (ours, theirs) => unreachable!("values of different types: {ours:?} and {theirs:?}"),
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let values = match &self.values {
            EdgeValues::Longs(values) => values.capacity() * 8,
            EdgeValues::Decimals(values) => values.capacity() * 16,
            EdgeValues::Doubles(values) => values.capacity() * 8,
            EdgeValues::Texts(values) => values.capacity() * 24 + values.iter().map(String::capacity).sum::<usize>(),
        };
        values + self.places.capacity() * size_of::<Option<(i64, i64, i64)>>()
    }
}

impl Edge {
    #[inline]
    fn replaces(self, new: (i64, i64, i64), old: Option<(i64, i64, i64)>) -> bool {
        match (self, old) {
            (_, None) => true,
            (Edge::First, Some(old)) => new < old,
            (Edge::Last, Some(old)) => new > old,
        }
    }
}

/// The rows of a batch that may replace the values at an edge.
struct EdgeRows<'a> {
    edge: Edge,
    kept: &'a mut [Option<(i64, i64, i64)>],
    places: &'a EventPositions<'a>,
}

impl EdgeRows<'_> {
    /// Returns whether the row replaces the value of its group, and notes its position if so.
    #[inline]
    fn takes(&mut self, group: usize, row: usize) -> bool {
        let place = self.places.of(row);
        let takes = self.edge.replaces(place, self.kept[group]);
        if takes {
            self.kept[group] = Some(place);
        }
        takes
    }

    #[inline]
    fn keep<T: ArrowPrimitiveType, V>(
        &mut self,
        selection: Selection<'_>,
        argument: &ArrayRef,
        values: &mut [V],
        convert: impl Fn(T::Native) -> V,
    ) {
        let column: &PrimitiveArray<T> = argument.as_primitive();
        selection.for_each(|group, row| {
            if column.is_valid(row) && self.takes(group, row) {
                values[group] = convert(column.value(row));
            }
        });
    }
}
