//! Keeps the sum of the squared deviations from the mean, updated value by value and merge by merge.
//!
//! With n values of sum S and squared deviations D, and m more of sum T and deviations E, the merged deviations are
//! D + E + (n T - m S)² / (n m (n + m)); one more value is the case m = 1, E = 0.
//!
//! Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", which adds squares and never takes a
//! difference of two large ones. The terms that it does subtract, a value times n and the sum, have 106 bits, so that neither
//! a mean far from zero nor the order of events or merges shows in a DOUBLE, and equal values scatter by exactly 0. NaN or an
//! infinity among the values gives NaN. Groups with values so large or small that a square might not fit a DOUBLE are kept
//! unrounded ([`ExactSpread`]).

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType as ArrowType, Float64Type};
use hashbrown::HashMap;

use super::arithmetic::DoubleDouble;
use super::exact_variance::ExactSpread;
use super::selection::Selection;
use super::{NO_GROUP, for_each_group, observe_integers};

/// Magnitudes from 2^-400 to 2^470 have squares that fit, also when 2^40 of them are summed.
const EXPONENTS_USUAL: std::ops::Range<u64> = 1023 - 400..1023 + 470;
/// Squared deviations of such values that are not 0, and sums of such values, lie within.
pub(super) const SQUARES_MIN: f64 = 1.0e-275;
const SQUARES_MAX: f64 = 1e301;
const SUM_MAX: f64 = 1e150;
const SUM_MIN: f64 = 1e-150;

/// Returns whether the squares of a value can be added up as DOUBLEs.
#[inline]
fn is_usual(value: f64) -> bool {
    EXPONENTS_USUAL.contains(&(value.to_bits() >> 52 & 0x7ff)) || value == 0.0
}

/// Count, sum and squared deviations of one group; of DECIMAL the unscaled values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spread {
    pub count: i64,
    pub sum: DoubleDouble,
    /// The sum of the squared deviations from the mean.
    pub squares: DoubleDouble,
}

impl Spread {
    /// Of values that are not all finite.
    fn not_a_number(count: i64) -> Spread {
        let nan = DoubleDouble { high: f64::NAN, low: 0.0 };
        Spread { count, sum: nan, squares: nan }
    }

    #[inline]
    fn insert(&mut self, value: DoubleDouble) {
        let n = self.count as f64;
        if self.count > 0 {
            let apart = value.scaled(n).minus(self.sum).nearest();
            self.squares = self.squares.plus_one((apart / n) * (apart / (n + 1.0)));
        }
        self.count += 1;
        self.sum = self.sum.plus(value);
    }

    #[inline]
    fn merge(&mut self, other: &Spread) {
        if self.count > 0 && other.count > 0 {
            let (n, m) = (self.count as f64, other.count as f64);
            let apart = other.sum.scaled(n).minus(self.sum.scaled(m)).nearest();
            self.squares = self.squares.plus_one((apart / n) * (apart / m) / (n + m));
        }
        self.count += other.count;
        self.sum = self.sum.plus(other.sum);
        self.squares = self.squares.plus(other.squares);
    }

    /// Returns whether it is in the range in which states can be merged as DOUBLEs.
    fn is_usual(&self) -> bool {
        let (sum, squares) = (self.sum.nearest(), self.squares.nearest());
        let tiny = if self.squares.high == 0.0 { self.squares.low != 0.0 } else { squares < SQUARES_MIN };
        let sum_is_usual = sum == 0.0 || (SUM_MIN..=SUM_MAX).contains(&sum.abs());
        sum.is_nan() || sum_is_usual && squares <= SQUARES_MAX && !tiny
    }

    /// The variance, divided by n, or n - 1 for a sample. `None`: of nothing, or of a sample of one.
    pub fn variance(&self, sample: bool) -> Option<f64> {
        let divisor = self.count - i64::from(sample);
        if self.count == 0 || divisor == 0 {
            return None;
        }
        let squares = self.squares.nearest();
        Some(if self.sum.nearest().is_nan() { f64::NAN } else { squares / divisor as f64 })
    }
}

/// Sum and squared deviations as they are stored, from [`ExactSpread::stored`]: a sum or squares beyond the range of a
/// DOUBLE are infinite with the number times 2^-1200 as the low part, squares below it are 0 with the number times
/// 2^1200.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stored {
    pub count: i64,
    pub sum: DoubleDouble,
    pub squares: DoubleDouble,
}

/// The states of all groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spreads {
    /// Of groups in `wide`, empty.
    groups: Vec<Spread>,
    /// Groups that have had a value of unusual size. No value of them is NaN or infinite.
    wide: HashMap<u32, ExactSpread>,
}

impl Spreads {
    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Returns whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Returns the variance of each group, divided by n, or n - 1 for a sample, or its square root.
    pub fn variances(&self, sample: bool, root: bool) -> impl Iterator<Item = Option<f64>> + '_ {
        (0..self.len()).map(move |group| match self.wide_of(group) {
            Some(wide) => wide.variance(sample, root),
            None => self.groups[group].variance(sample).map(|v| if root { v.sqrt() } else { v }),
        })
    }

    /// Returns each group as it is stored.
    pub fn stored(&self) -> impl Iterator<Item = Stored> + '_ {
        (0..self.len()).map(|group| match self.wide_of(group) {
            Some(wide) => wide.stored(),
            None => {
                let Spread { count, sum, squares } = self.groups[group];
                Stored { count, sum, squares }
            }
        })
    }

    /// Appends a group as it was stored.
    pub fn push_stored(&mut self, stored: Stored) {
        let Stored { count, sum, squares } = stored;
        if sum.high.is_infinite() && sum.low == 0.0 {
            // An earlier version of Trueup has stored the overflow only.
            return self.groups.push(Spread::not_a_number(count));
        }
        let spread = Spread { count, sum, squares };
        if spread.is_usual() {
            return self.groups.push(spread);
        }
        let mut wide = ExactSpread::default();
        wide.merge_stored(&stored);
        self.wide.insert(self.groups.len() as u32, wide);
        self.groups.push(Spread::default());
    }

    /// Appends a group, rounded.
    pub(super) fn push_exact(&mut self, exact: &ExactSpread) {
        let Stored { count, sum, squares } = exact.stored();
        let spread = Spread { count, sum, squares };
        if spread.is_usual() {
            return self.groups.push(spread);
        }
        self.wide.insert(self.groups.len() as u32, exact.clone());
        self.groups.push(Spread::default());
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.groups.resize(len, Spread::default());
    }

    fn wide_of(&self, group: usize) -> Option<&ExactSpread> {
        if self.wide.is_empty() { None } else { self.wide.get(&(group as u32)) }
    }

    /// Adds the selected values to their groups.
    pub(super) fn observe(&mut self, selection: Selection<'_>, argument: &ArrayRef) {
        if *argument.data_type() == ArrowType::Float64 {
            selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                if is_usual(value) && self.wide_of(group).is_none() {
                    self.groups[group].insert(DoubleDouble { high: value, low: 0.0 });
                } else {
                    self.insert_unusual(group, value);
                }
            });
        } else {
            let groups = &mut self.groups;
            observe_integers(selection, argument, |group, value| groups[group].insert(DoubleDouble::of_integer(value)));
        }
    }

    #[cold]
    fn insert_unusual(&mut self, group: usize, value: f64) {
        let spread = &mut self.groups[group];
        if !value.is_finite() || spread.sum.high.is_nan() {
            let count = spread.count + self.wide.remove(&(group as u32)).map_or(0, |wide| wide.count);
            *spread = Spread::not_a_number(count + 1);
            return;
        }
        self.widen(group).insert(DoubleDouble { high: value, low: 0.0 });
    }

    /// Returns the unrounded state of a group, made from the rounded one if it has none yet.
    fn widen(&mut self, group: usize) -> &mut ExactSpread {
        let spread = std::mem::take(&mut self.groups[group]);
        let wide = self.wide.entry(group as u32).or_default();
        wide.merge_rounded(&spread);
        wide
    }

    /// Merges row `first + i` of `other` into group `groups[i]`.
    pub(super) fn merge(&mut self, groups: &[u32], other: &Spreads, first: usize) {
        let rows = first..first + groups.len();
        if self.wide.is_empty() && other.wide.is_empty() {
            return for_each_group(groups, &other.groups[rows], |group, spread| self.groups[group].merge(spread));
        }
        for (row, group) in rows.zip(groups).filter(|(_, group)| **group != NO_GROUP) {
            self.merge_group(*group as usize, other, row);
        }
    }

    #[cold]
    fn merge_group(&mut self, group: usize, other: &Spreads, row: usize) {
        let (theirs, wide) = (&other.groups[row], other.wide_of(row));
        if wide.is_none() && self.wide_of(group).is_none() {
            return self.groups[group].merge(theirs);
        }
        let count = self.wide_of(group).map_or(self.groups[group].count, |wide| wide.count);
        if self.groups[group].sum.high.is_nan() || theirs.sum.high.is_nan() {
            self.wide.remove(&(group as u32));
            self.groups[group] = Spread::not_a_number(count + wide.map_or(theirs.count, |wide| wide.count));
            return;
        }
        let ours = self.widen(group);
        match wide {
            Some(wide) => ours.merge(wide),
            None => ours.merge_rounded(theirs),
        }
    }

    /// Adds a group to an exact state.
    pub(super) fn add_to(&self, row: usize, exact: &mut ExactSpread) {
        match self.wide_of(row) {
            Some(wide) => exact.merge(wide),
            None => exact.merge_rounded(&self.groups[row]),
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let wide: usize = self.wide.values().map(|wide| size_of::<(u32, ExactSpread)>() + wide.bytes()).sum();
        self.groups.capacity() * size_of::<Spread>() + wide
    }
}

/// Adds the selected values to their groups, unrounded.
pub(super) fn observe_exact(groups: &mut [ExactSpread], selection: Selection<'_>, argument: &ArrayRef) {
    if *argument.data_type() == ArrowType::Float64 {
        selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
            let high = if value.is_finite() { value } else { f64::NAN };
            groups[group].insert(DoubleDouble { high, low: 0.0 });
        });
    } else {
        observe_integers(selection, argument, |group, value| groups[group].insert(DoubleDouble::of_integer(value)));
    }
}
