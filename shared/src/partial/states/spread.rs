//! How widely do values scatter? Variance from the sums of values and of their squares, each in 106 bits.
//!
//! The textbook formula loses half of its digits twice over where the mean is far from zero; with twice the digits it
//! does not, and unlike running means its sums do not depend on the order in which states are merged, but for rounding in
//! the last of 106 bits. NaN or an infinity among the values gives NaN; so do values beyond 10^150, whose squares no
//! longer fit.

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType as ArrowType, Float64Type};

use super::arithmetic::DoubleDouble;
use super::selection::Selection;
use super::{for_each_group, observe_integers};

/// Count, sum and sum of squares of one group; of DECIMAL the unscaled values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spread {
    pub count: i64,
    pub sum: DoubleDouble,
    pub squares: DoubleDouble,
}

impl Spread {
    #[inline]
    fn insert(&mut self, value: DoubleDouble) {
        self.count += 1;
        self.sum = self.sum.plus(value);
        self.squares = self.squares.plus(value.square());
    }

    #[inline]
    fn merge(&mut self, other: &Spread) {
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
        let n = self.count as f64;
        let deviations = self.squares.minus(self.sum.square().over(n));
        // Below this nothing but rounding is left: n values that are all equal have none.
        let noise = self.squares.high * (n.sqrt() * 2f64.powi(-104) + 2f64.powi(-102));
        if deviations.high.abs() <= noise {
            return Some(0.0);
        }
        Some((deviations.high / divisor as f64).max(0.0) + deviations.high * 0.0)
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
