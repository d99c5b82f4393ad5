//! How widely do values scatter? The sum of the squared deviations from their mean, carried along as values come.
//!
//! Source: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", which adds squares and never takes a
//! difference of two large ones. What it does subtract, a value times n and the sum, is kept in 106 bits, so that neither
//! a mean far from zero nor the order of events or merges shows in a DOUBLE, and equal values scatter by exactly 0. NaN or an
//! infinity among the values gives NaN.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType as ArrowType, Float64Type};

use super::arithmetic::DoubleDouble;
use super::selection::Selection;
use super::{for_each_group, observe_integers};

/// Count, sum and squared deviations of one group; of DECIMAL the unscaled values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spread {
    pub count: i64,
    pub sum: DoubleDouble,
    /// The sum of the squared deviations from the mean.
    pub squares: DoubleDouble,
}

impl Spread {
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

/// Takes the selected values into their groups.
pub(super) fn observe(groups: &mut [Spread], selection: Selection<'_>, argument: &ArrayRef) {
    if *argument.data_type() == ArrowType::Float64 {
        selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
            let high = if value.is_finite() { value } else { f64::NAN };
            groups[group].insert(DoubleDouble { high, low: 0.0 });
        });
    } else {
        observe_integers(selection, argument, |group, value| groups[group].insert(DoubleDouble::of_integer(value)));
    }
}

pub(super) fn merge(ours: &mut [Spread], groups: &[u32], theirs: &[Spread]) {
    for_each_group(groups, theirs, |group, spread| ours[group].merge(spread));
}
