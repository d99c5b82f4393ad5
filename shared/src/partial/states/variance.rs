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
use super::exact::RESCALE;
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

impl Stored {
    /// Returns the variance, divided by n, or n - 1 for a sample, or its square root. `None`: of nothing, or of a sample of one.
    ///
    /// Every figure comes from here, so that a state that was stored and read back shows the same bits.
    pub fn variance(&self, sample: bool, root: bool) -> Option<f64> {
        let divisor = self.count - i64::from(sample);
        if self.count == 0 || divisor == 0 {
            return None;
        }
        if self.sum.nearest().is_nan() || self.squares.high.is_nan() {
            return Some(f64::NAN);
        }
        let (squares, power) = match self.squares {
            DoubleDouble { high, low } if high.is_infinite() => (low, RESCALE),
            DoubleDouble { high: 0.0, low } => (low, -RESCALE),
            usual => (usual.nearest(), 0),
        };
        let variance = squares / divisor as f64;
        let half = 2f64.powi(power / 2);
        Some(if root { variance.sqrt() * half } else { variance * half * half })
    }
}

/// A group that has had a value of unusual size. No value of it is NaN or infinite.
#[derive(Debug, Clone, PartialEq)]
enum WideGroup {
    /// Read back, and neither merged nor added to since.
    Stored(Stored),
    Exact(ExactSpread),
}

impl WideGroup {
    fn count(&self) -> i64 {
        match self {
            WideGroup::Stored(stored) => stored.count,
            WideGroup::Exact(exact) => exact.count,
        }
    }

    fn stored(&self) -> Stored {
        match self {
            WideGroup::Stored(stored) => *stored,
            WideGroup::Exact(exact) => exact.stored(),
        }
    }

    fn add_to(&self, exact: &mut ExactSpread) {
        match self {
            WideGroup::Stored(stored) => exact.merge_stored(stored),
            WideGroup::Exact(ours) => exact.merge(ours),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            WideGroup::Stored(_) => 0,
            WideGroup::Exact(exact) => exact.bytes(),
        }
    }
}

/// The states of all groups.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spreads {
    /// Of groups in `wide`, empty.
    groups: Vec<Spread>,
    wide: HashMap<u32, WideGroup>,
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
        self.stored().map(move |group| group.variance(sample, root))
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
        self.wide.insert(self.groups.len() as u32, WideGroup::Stored(stored));
        self.groups.push(Spread::default());
    }

    /// Appends a group, rounded.
    pub(super) fn push_exact(&mut self, exact: &ExactSpread) {
        let Stored { count, sum, squares } = exact.stored();
        let spread = Spread { count, sum, squares };
        if spread.is_usual() {
            return self.groups.push(spread);
        }
        self.wide.insert(self.groups.len() as u32, WideGroup::Exact(exact.clone()));
        self.groups.push(Spread::default());
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.groups.resize(len, Spread::default());
    }

    fn wide_of(&self, group: usize) -> Option<&WideGroup> {
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
            let count = spread.count + self.wide.remove(&(group as u32)).map_or(0, |wide| wide.count());
            *spread = Spread::not_a_number(count + 1);
            return;
        }
        self.widen(group).insert(DoubleDouble { high: value, low: 0.0 });
    }

    /// Returns the unrounded state of a group, made from the rounded one if it has none yet.
    fn widen(&mut self, group: usize) -> &mut ExactSpread {
        let spread = std::mem::take(&mut self.groups[group]);
        let wide = self.wide.entry(group as u32).or_insert_with(|| {
            let mut exact = ExactSpread::default();
            exact.merge_rounded(&spread);
            WideGroup::Exact(exact)
        });
        if let WideGroup::Stored(stored) = wide {
            let mut exact = ExactSpread::default();
            exact.merge_stored(stored);
            *wide = WideGroup::Exact(exact);
        }
        match wide {
            WideGroup::Exact(exact) => exact,
            WideGroup::Stored(_) => unreachable!("replaced above"),
        }
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
        let count = self.wide_of(group).map_or(self.groups[group].count, WideGroup::count);
        let their_count = wide.map_or(theirs.count, WideGroup::count);
        if their_count == 0 {
            return;
        }
        if self.groups[group].sum.high.is_nan() || theirs.sum.high.is_nan() {
            self.wide.remove(&(group as u32));
            self.groups[group] = Spread::not_a_number(count + their_count);
            return;
        }
        match wide {
            Some(wide) if count == 0 => {
                self.wide.insert(group as u32, wide.clone());
            }
            Some(wide) => wide.add_to(self.widen(group)),
            None => self.widen(group).merge_rounded(theirs),
        }
    }

    /// Adds a group to an exact state.
    pub(super) fn add_to(&self, row: usize, exact: &mut ExactSpread) {
        match self.wide_of(row) {
            Some(wide) => wide.add_to(exact),
            None => exact.merge_rounded(&self.groups[row]),
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let wide: usize = self.wide.values().map(|wide| size_of::<(u32, WideGroup)>() + wide.bytes()).sum();
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
