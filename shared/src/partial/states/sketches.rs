//! Keeps one [`crate::partial::sketch`] per group, by measure and type.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType as ArrowType, Decimal128Type, Float64Type};
use datasketches::kll::KllFloat;

use super::for_each_group;
use super::selection::Selection;
use crate::partial::sketch::distinct::Distinct;
use crate::partial::sketch::hash;
use crate::partial::sketch::listing::{Listing, counted_double};
use crate::partial::sketch::percentile::{self, Percentile, Wanted};
use crate::partial::sketch::top_k::TopK;
use crate::types::DataType;
use crate::view::{AggregateFunction, Precision};

/// The states of COUNT(DISTINCT), a percentile or TOP_K.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketches {
    pub precision: Precision,
    pub groups: Groups,
}

/// The kept values, one state per group.
#[derive(Debug, Clone, PartialEq)]
pub enum Groups {
    Distinct(Vec<Distinct>),
    /// Percentiles of INT, BIGINT, DATE and TIMESTAMP.
    Longs(Wanted, Vec<Percentile<i64>>),
    /// Percentiles of DOUBLE and DECIMAL.
    Doubles(Wanted, Vec<Percentile<KllFloat<f64>>>),
    /// TOP_K of BOOLEAN, INT, BIGINT, DOUBLE (its bits), DATE and TIMESTAMP.
    LongItems(Listing, Vec<TopK<i64>>),
    /// TOP_K of STRING and DECIMAL.
    TextItems(Listing, Vec<TopK<String>>),
}

impl Sketches {
    /// States of no groups for a function of a type.
    pub fn new(function: AggregateFunction, argument: DataType, precision: Precision) -> Sketches {
        let groups = match function {
            AggregateFunction::Percentile { fraction, continuous, descending } => {
                let wanted = Wanted { fraction, continuous, descending };
                match argument {
                    DataType::Double | DataType::Decimal { .. } => Groups::Doubles(wanted, Vec::new()),
                    DataType::String | DataType::Json => unreachable!("the parser refuses percentiles of {argument}"),
                    _ => Groups::Longs(wanted, Vec::new()),
                }
            }
            AggregateFunction::TopK { k } => {
                let listing = Listing { data_type: argument, k: usize::from(k) };
                match argument {
                    DataType::String | DataType::Decimal { .. } => Groups::TextItems(listing, Vec::new()),
                    _ => Groups::LongItems(listing, Vec::new()),
                }
            }
            _ => Groups::Distinct(Vec::new()),
        };
        Sketches { precision, groups }
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        match &self.groups {
            Groups::Distinct(groups) => groups.len(),
            Groups::Longs(_, groups) => groups.len(),
            Groups::Doubles(_, groups) => groups.len(),
            Groups::LongItems(_, groups) => groups.len(),
            Groups::TextItems(_, groups) => groups.len(),
        }
    }

    /// Returns whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn resize(&mut self, len: usize) {
        match &mut self.groups {
            Groups::Distinct(groups) => groups.resize_with(len, Distinct::default),
            Groups::Longs(_, groups) => groups.resize_with(len, Percentile::default),
            Groups::Doubles(_, groups) => groups.resize_with(len, Percentile::default),
            Groups::LongItems(_, groups) => groups.resize_with(len, TopK::default),
            Groups::TextItems(_, groups) => groups.resize_with(len, TopK::default),
        }
    }

    pub(super) fn observe(&mut self, selection: Selection<'_>, argument: &ArrayRef) {
        let precision = self.precision;
        match &mut self.groups {
            Groups::Distinct(groups) => {
                for_each_hash(selection, argument, |group, hash| groups[group].insert(hash, precision));
            }
            Groups::Longs(_, groups) => {
                selection.for_each_ordered(argument, |group, value| groups[group].insert(value, precision));
            }
            Groups::Doubles(_, groups) => for_each_double(selection, argument, |group, value| {
                if let Some(value) = percentile::double(value) {
                    groups[group].insert(value, precision);
                }
            }),
            Groups::LongItems(_, groups) if *argument.data_type() == ArrowType::Float64 => {
                selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                    groups[group].insert(&counted_double(value), 1, precision);
                });
            }
            Groups::LongItems(_, groups) => {
                selection.for_each_ordered(argument, |group, value| groups[group].insert(&value, 1, precision));
            }
            Groups::TextItems(_, groups) => {
                for_each_text(selection, argument, |group, text| groups[group].insert(text, 1, precision));
            }
        }
    }

    pub(super) fn merge(&mut self, groups: &[u32], other: &Sketches, rows: Range<usize>) {
        let precision = self.precision;
        match (&mut self.groups, &other.groups) {
            (Groups::Distinct(ours), Groups::Distinct(theirs)) => {
                for_each_group(groups, &theirs[rows], |group, theirs| ours[group].merge(theirs, precision));
            }
            (Groups::Longs(wanted, ours), Groups::Longs(_, theirs)) => {
                for_each_group(groups, &theirs[rows], |group, theirs| ours[group].merge(theirs, precision, *wanted));
            }
            (Groups::Doubles(wanted, ours), Groups::Doubles(_, theirs)) => {
                for_each_group(groups, &theirs[rows], |group, theirs| ours[group].merge(theirs, precision, *wanted));
            }
            (Groups::LongItems(listing, ours), Groups::LongItems(_, theirs)) => {
                let exact = |counts: &TopK<i64>| listing.of_longs(counts).map_or_else(|| Arc::from("[]"), |l| l.text);
                for_each_group(groups, &theirs[rows], |group, theirs| ours[group].merge(theirs, precision, exact));
            }
            (Groups::TextItems(listing, ours), Groups::TextItems(_, theirs)) => {
                let exact =
                    |counts: &TopK<String>| listing.of_texts(counts).map_or_else(|| Arc::from("[]"), |l| l.text);
                for_each_group(groups, &theirs[rows], |group, theirs| ours[group].merge(theirs, precision, exact));
            }
            (ours, theirs) => unreachable!("states of different aggregates: {ours:?} and {theirs:?}"),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        fn of<T>(groups: &Vec<T>, bytes: impl Fn(&T) -> usize) -> usize {
            groups.capacity() * size_of::<T>() + groups.iter().map(bytes).sum::<usize>()
        }
        match &self.groups {
            Groups::Distinct(groups) => of(groups, Distinct::bytes),
            Groups::Longs(_, groups) => of(groups, Percentile::bytes),
            Groups::Doubles(_, groups) => of(groups, Percentile::bytes),
            Groups::LongItems(_, groups) => of(groups, TopK::bytes),
            Groups::TextItems(_, groups) => of(groups, TopK::bytes),
        }
    }
}

/// Calls `each` with the group and the hash of every selected value that is not NULL.
fn for_each_hash(selection: Selection<'_>, values: &ArrayRef, mut each: impl FnMut(usize, u128)) {
    match values.data_type() {
        ArrowType::Float64 => {
            selection.for_each_value::<Float64Type>(values.as_primitive(), |g, v| each(g, hash::of_double(v)));
        }
        ArrowType::Utf8View | ArrowType::Decimal128(..) => {
            for_each_text(selection, values, |group, text| each(group, hash::of_text(text)));
        }
        _ => selection.for_each_ordered(values, |group, value| each(group, hash::of_long(value))),
    }
}

/// The selected values of a STRING or DECIMAL column as texts.
fn for_each_text(selection: Selection<'_>, values: &ArrayRef, mut each: impl FnMut(usize, &str)) {
    if let ArrowType::Decimal128(_, scale) = values.data_type() {
        let mut text = String::new();
        selection.for_each_value::<Decimal128Type>(values.as_primitive(), |group, value| {
            text.clear();
            crate::decimal::write_decimal(value, *scale, &mut text);
            each(group, &text);
        });
    } else {
        let texts = values.as_string_view();
        selection.for_each(|group, row| {
            if texts.is_valid(row) {
                each(group, texts.value(row));
            }
        });
    }
}

/// The selected values of a DOUBLE or DECIMAL column as DOUBLE.
fn for_each_double(selection: Selection<'_>, values: &ArrayRef, mut each: impl FnMut(usize, f64)) {
    if let ArrowType::Decimal128(_, scale) = values.data_type() {
        let unit = 10f64.powi(i32::from(*scale));
        selection
            .for_each_value::<Decimal128Type>(values.as_primitive(), |group, value| each(group, value as f64 / unit));
    } else {
        selection.for_each_value::<Float64Type>(values.as_primitive(), each);
    }
}
