//! How does one aggregate accumulate? Its states for many groups, one vector per part of a state.
//!
//! Laws, tested in `states/tests.rs` and in `tests/`: observing events in any split and any order and merging the
//! results gives the state of observing them all; `grow` adds identities.
//!
//! Float sums are compensated (Neumaier 1974, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher
//! Summen"): the sum of the rounding errors is carried beside the sum.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

use crate::types::DataType;
use crate::view::{Aggregate, AggregateFunction, Precision};

/// When and where the rows of a batch happened: FIRST_VALUE and LAST_VALUE ask.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Event times, in microseconds.
    pub times: &'a [i64],
    pub offsets: Offsets<'a>,
}

/// The place in the log of each row.
#[derive(Debug, Clone, Copy)]
pub enum Offsets<'a> {
    /// Consecutive: row `r` has offset `first + r`.
    Run { partition: i64, first: i64 },
    /// One by one.
    Listed { partitions: &'a [i64], offsets: &'a [i64] },
}

/// The sum that does not fit 128 bits. Once reached it stays; it finishes as NULL and is flagged.
pub const SUM_OVERFLOW: i128 = i128::MIN;

/// Marks a row that belongs to no group.
pub const NO_GROUP: u32 = u32::MAX;

/// Which end of the order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extreme {
    Min,
    Max,
}

/// The states of one aggregate, one per group.
#[derive(Debug, Clone, PartialEq)]
pub enum States {
    Count(Vec<i64>),
    /// SUM and AVG of INT, BIGINT and DECIMAL (unscaled).
    Integers {
        sums: Vec<i128>,
        counts: Vec<i64>,
    },
    /// SUM and AVG of DOUBLE.
    Doubles {
        sums: Vec<f64>,
        corrections: Vec<f64>,
        counts: Vec<i64>,
    },
    /// MIN and MAX of BOOLEAN, INT, BIGINT, DATE, TIMESTAMP.
    Ordered {
        extreme: Extreme,
        values: Vec<i64>,
        seen: Vec<bool>,
    },
    /// MIN and MAX of DECIMAL (unscaled).
    Decimals {
        extreme: Extreme,
        values: Vec<i128>,
        seen: Vec<bool>,
    },
    /// MIN and MAX of DOUBLE; NaN is the greatest.
    Floats {
        extreme: Extreme,
        values: Vec<f64>,
        seen: Vec<bool>,
    },
    /// MIN and MAX of STRING, by bytes.
    Texts {
        extreme: Extreme,
        values: Vec<Option<Box<str>>>,
    },
}

/// The rows of a batch to observe and the group of each: `groups[i]` is that of row `rows[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    pub groups: &'a [u32],
    pub rows: &'a [u32],
    /// `FILTER (WHERE ..)`: rows where it is not true are left out.
    pub mask: Option<&'a BooleanArray>,
}

impl Selection<'_> {
    #[inline]
    fn for_each(self, mut each: impl FnMut(usize, usize)) {
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
    fn for_each_value<T: ArrowPrimitiveType>(self, values: &PrimitiveArray<T>, mut each: impl FnMut(usize, T::Native)) {
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
    fn for_each_ordered(self, values: &ArrayRef, mut each: impl FnMut(usize, i64)) {
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

impl States {
    /// States of no groups for `aggregate`.
    pub fn new(aggregate: &Aggregate, _precision: Precision) -> States {
        let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
        let extreme = match aggregate.function {
            AggregateFunction::Count => return States::Count(Vec::new()),
            AggregateFunction::Sum | AggregateFunction::Avg if argument == DataType::Double => {
                return States::Doubles { sums: Vec::new(), corrections: Vec::new(), counts: Vec::new() };
            }
            AggregateFunction::Sum | AggregateFunction::Avg => {
                return States::Integers { sums: Vec::new(), counts: Vec::new() };
            }
            AggregateFunction::Min => Extreme::Min,
            AggregateFunction::Max => Extreme::Max,
            other => unreachable!("the parser does not name {other:?} yet"),
        };
        match argument {
            DataType::Double => States::Floats { extreme, values: Vec::new(), seen: Vec::new() },
            DataType::Decimal { .. } => States::Decimals { extreme, values: Vec::new(), seen: Vec::new() },
            DataType::String => States::Texts { extreme, values: Vec::new() },
            _ => States::Ordered { extreme, values: Vec::new(), seen: Vec::new() },
        }
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        match self {
            States::Count(counts) | States::Integers { counts, .. } | States::Doubles { counts, .. } => counts.len(),
            States::Ordered { seen, .. } | States::Decimals { seen, .. } | States::Floats { seen, .. } => seen.len(),
            States::Texts { values, .. } => values.len(),
        }
    }

    /// Are there no groups?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds `more` groups that have seen nothing.
    pub fn grow(&mut self, more: usize) {
        let len = self.len() + more;
        match self {
            States::Count(counts) => counts.resize(len, 0),
            States::Integers { sums, counts } => {
                sums.resize(len, 0);
                counts.resize(len, 0);
            }
            States::Doubles { sums, corrections, counts } => {
                sums.resize(len, 0.0);
                corrections.resize(len, 0.0);
                counts.resize(len, 0);
            }
            States::Ordered { values, seen, .. } => {
                values.resize(len, 0);
                seen.resize(len, false);
            }
            States::Decimals { values, seen, .. } => {
                values.resize(len, 0);
                seen.resize(len, false);
            }
            States::Floats { values, seen, .. } => {
                values.resize(len, 0.0);
                seen.resize(len, false);
            }
            States::Texts { values, .. } => values.resize(len, None),
        }
    }

    /// Takes in values: row `rows[i]` of `argument` into group `groups[i]`. `COUNT(*)` has no argument.
    /// The argument has the Arrow type of the aggregate's argument.
    pub fn observe(&mut self, selection: Selection<'_>, argument: Option<&ArrayRef>, _places: &Places<'_>) {
        let Some(argument) = argument else {
            if let States::Count(counts) = self {
                selection.for_each(|group, _| counts[group] += 1);
            }
            return;
        };
        match self {
            States::Count(counts) => match argument.logical_nulls() {
                None => selection.for_each(|group, _| counts[group] += 1),
                Some(nulls) => selection.for_each(|group, row| counts[group] += i64::from(nulls.is_valid(row))),
            },
            States::Integers { sums, counts } => {
                let add = |group: usize, value: i128| {
                    sums[group] = add_checked(sums[group], value);
                    counts[group] += 1;
                };
                observe_integers(selection, argument, add);
            }
            States::Doubles { sums, corrections, counts } => {
                selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                    add_compensated(&mut sums[group], &mut corrections[group], value);
                    counts[group] += 1;
                });
            }
            States::Ordered { extreme, values, seen } => {
                let extreme = *extreme;
                selection.for_each_ordered(argument, |group, value| {
                    keep(&mut values[group], &mut seen[group], value, |new, old| extreme.prefers(new.cmp(&old)));
                });
            }
            States::Decimals { extreme, values, seen } => {
                let extreme = *extreme;
                selection.for_each_value::<Decimal128Type>(argument.as_primitive(), |group, value| {
                    keep(&mut values[group], &mut seen[group], value, |new, old| extreme.prefers(new.cmp(&old)));
                });
            }
            States::Floats { extreme, values, seen } => {
                let extreme = *extreme;
                selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                    let value = canonical(value);
                    keep(&mut values[group], &mut seen[group], value, |new, old| extreme.prefers(new.total_cmp(&old)));
                });
            }
            States::Texts { extreme, values } => {
                let texts = argument.as_string_view();
                selection.for_each(|group, row| {
                    if texts.is_valid(row) {
                        keep_text(&mut values[group], texts.value(row), *extreme);
                    }
                });
            }
        }
    }

    /// Merges row `first + i` of `other` into group `groups[i]`; [`NO_GROUP`] skips a row. Both are of one aggregate.
    pub fn merge(&mut self, groups: &[u32], other: &States, first: usize) {
        let rows = first..first + groups.len();
        match (self, other) {
            (States::Count(counts), States::Count(theirs)) => {
                for_each_group(groups, &theirs[rows], |group, count| counts[group] += count);
            }
            (States::Integers { sums, counts }, States::Integers { sums: s, counts: c }) => {
                for_each_group(groups, &s[rows.clone()], |group, sum| sums[group] = add_checked(sums[group], *sum));
                for_each_group(groups, &c[rows], |group, count| counts[group] += count);
            }
            (States::Doubles { sums, corrections, counts }, States::Doubles { sums: s, corrections: e, counts: c }) => {
                for_each_group(groups, &s[rows.clone()], |group, sum| {
                    add_compensated(&mut sums[group], &mut corrections[group], *sum);
                });
                for_each_group(groups, &e[rows.clone()], |group, correction| corrections[group] += correction);
                for_each_group(groups, &c[rows], |group, count| counts[group] += count);
            }
            (States::Ordered { extreme, values, seen }, States::Ordered { values: v, seen: s, .. }) => {
                keep_extremes(groups, (values, seen), (&v[rows.clone()], &s[rows]), *extreme, i64::cmp);
            }
            (States::Decimals { extreme, values, seen }, States::Decimals { values: v, seen: s, .. }) => {
                keep_extremes(groups, (values, seen), (&v[rows.clone()], &s[rows]), *extreme, i128::cmp);
            }
            (States::Floats { extreme, values, seen }, States::Floats { values: v, seen: s, .. }) => {
                keep_extremes(groups, (values, seen), (&v[rows.clone()], &s[rows]), *extreme, f64::total_cmp);
            }
            (States::Texts { extreme, values }, States::Texts { values: v, .. }) => {
                for_each_group(groups, &v[rows], |group, text| {
                    if let Some(text) = text {
                        keep_text(&mut values[group], text, *extreme);
                    }
                });
            }
            (this, other) => unreachable!("states of different aggregates: {this:?} and {other:?}"),
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            States::Count(counts) => counts.capacity() * 8,
            States::Integers { sums, counts } => sums.capacity() * 16 + counts.capacity() * 8,
            States::Doubles { sums, corrections, counts } => {
                (sums.capacity() + corrections.capacity() + counts.capacity()) * 8
            }
            States::Ordered { values, seen, .. } => values.capacity() * 8 + seen.capacity(),
            States::Decimals { values, seen, .. } => values.capacity() * 16 + seen.capacity(),
            States::Floats { values, seen, .. } => values.capacity() * 8 + seen.capacity(),
            States::Texts { values, .. } => {
                values.capacity() * 16 + values.iter().flatten().map(|t| t.len()).sum::<usize>()
            }
        }
    }
}

impl Extreme {
    #[inline]
    fn prefers(self, new_to_old: std::cmp::Ordering) -> bool {
        match self {
            Extreme::Min => new_to_old.is_lt(),
            Extreme::Max => new_to_old.is_gt(),
        }
    }
}

fn observe_integers(selection: Selection<'_>, argument: &ArrayRef, mut add: impl FnMut(usize, i128)) {
    match argument.data_type() {
        ArrowType::Int32 => {
            selection.for_each_value::<Int32Type>(argument.as_primitive(), |g, v| add(g, i128::from(v)))
        }
        ArrowType::Decimal128(..) => selection.for_each_value::<Decimal128Type>(argument.as_primitive(), add),
        _ => selection.for_each_value::<Int64Type>(argument.as_primitive(), |g, v| add(g, i128::from(v))),
    }
}

/// Adds, unless either side or the result does not fit: then the sum stays [`SUM_OVERFLOW`].
#[inline]
fn add_checked(sum: i128, value: i128) -> i128 {
    if sum == SUM_OVERFLOW || value == SUM_OVERFLOW {
        return SUM_OVERFLOW;
    }
    sum.checked_add(value).unwrap_or(SUM_OVERFLOW)
}

#[inline]
fn add_compensated(sum: &mut f64, correction: &mut f64, value: f64) {
    let total = *sum + value;
    *correction += if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
    *sum = total;
}

/// NaN of one sign, which `total_cmp` puts above every number, and zero of one sign.
#[inline]
fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::NAN.abs() } else { value + 0.0 }
}

#[inline]
fn keep<T: Copy>(value: &mut T, seen: &mut bool, new: T, prefer: impl Fn(T, T) -> bool) {
    if !*seen || prefer(new, *value) {
        *value = new;
        *seen = true;
    }
}

/// Calls `each` with the group and the value of every row that has a group.
#[inline]
fn for_each_group<T>(groups: &[u32], values: &[T], mut each: impl FnMut(usize, &T)) {
    for (group, value) in groups.iter().zip(values) {
        if *group != NO_GROUP {
            each(*group as usize, value);
        }
    }
}

/// Merges the values that were seen into the extremes of their groups.
#[inline]
fn keep_extremes<T: Copy>(
    groups: &[u32],
    (values, seen): (&mut [T], &mut [bool]),
    (theirs, theirs_seen): (&[T], &[bool]),
    extreme: Extreme,
    compare: impl Fn(&T, &T) -> std::cmp::Ordering,
) {
    for ((group, new), is_seen) in groups.iter().zip(theirs).zip(theirs_seen) {
        if *is_seen && *group != NO_GROUP {
            let group = *group as usize;
            keep(&mut values[group], &mut seen[group], *new, |new, old| extreme.prefers(compare(&new, &old)));
        }
    }
}

fn keep_text(value: &mut Option<Box<str>>, new: &str, extreme: Extreme) {
    let better = value.as_deref().is_none_or(|old| extreme.prefers(new.as_bytes().cmp(old.as_bytes())));
    if better {
        *value = Some(Box::from(new));
    }
}

#[cfg(test)]
mod tests;
