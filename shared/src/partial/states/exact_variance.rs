//! Computes variances from sums and sums of squares that are not rounded, whatever the range of the values.
//!
//! With S = Σ x and Q = Σ x², the squared deviations are D = Q - S² / n, the variance is D / n, or D / (n - 1) of a sample, and
//! the standard deviation its square root. D is computed with long integers and rounded once ([`ExactSpread::stored`]), and the
//! figures follow from it ([`Stored::variance`]): a variance is infinite only if it is itself too large, a standard deviation never is.

use arrow::datatypes::i256;

use super::arithmetic::DoubleDouble;
use super::exact::{ExactSum, Number, RESCALE, Total};
use super::for_each_group;
use super::variance::{Spread, Stored};

/// Integers may be given in halves: `HALF` times the one plus the other.
pub const HALF: i128 = 100_000_000_000_000;
/// DOUBLEs whose squares might not fit may be given times 2^-600 or 2^600.
pub const SCALED: i32 = 600;

/// The deviations of a group's values from a number near their mean, as another engine has added them up; all of them are too
/// small by 2^`power`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviations {
    pub count: i64,
    pub center: f64,
    /// The sum of the deviations.
    pub sum: f64,
    /// The sum of their squares.
    pub squares: f64,
    pub power: i32,
}

impl Deviations {
    /// Returns sum and squared deviations from the mean, as they are stored.
    pub fn stored(self) -> Stored {
        let Deviations { count, center, sum, squares, power } = self;
        let n = count.unsigned_abs();
        if n == 0 {
            return Stored { count, sum: DoubleDouble::default(), squares: DoubleDouble::default() };
        }
        if ![center, sum, squares].iter().all(|part| part.is_finite()) {
            let nan = DoubleDouble { high: f64::NAN, low: 0.0 };
            return Stored { count, sum: nan, squares: nan };
        }
        let mut total = Total::default();
        for bit in (0..63).filter(|bit| n >> bit & 1 == 1) {
            total.add_times_power(center, bit + power);
        }
        total.add_times_power(sum, power);
        let (high, low) = total.stored();
        let mut exact = ExactSpread { count, ..ExactSpread::default() };
        exact.sum.add(sum);
        exact.squares.add(squares);
        let squares = stored_squares(&exact.deviations().over(n).times_power(2 * power));
        Stored { count, sum: DoubleDouble { high, low }, squares }
    }
}

/// Count, sum and sum of squares of one group, none of them rounded; of DECIMAL the unscaled values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExactSpread {
    pub(super) count: i64,
    sum: Total,
    squares: ExactSum<8>,
}

impl ExactSpread {
    /// Returns the spread of integers h · [`HALF`] + l from the sums of h, l, h², h · l and l².
    pub fn of_halves(count: i64, [h, l, hh, hl, ll]: [i128; 5]) -> ExactSpread {
        let (wide, half) = (i256::from_i128, i256::from_i128(HALF));
        let mut spread = ExactSpread { count, ..ExactSpread::default() };
        add_integer(&mut spread.sum, wide(h) * half + wide(l));
        add_integer(&mut spread.squares, (wide(hh) * half + wide(hl) * wide(2)) * half + wide(ll));
        spread
    }

    #[inline]
    pub(super) fn insert(&mut self, value: DoubleDouble) {
        self.count += 1;
        self.add(value);
    }

    /// Inserts an integer a number of times.
    pub fn insert_integers(&mut self, value: i128, times: u64) {
        self.insert_times(DoubleDouble::of_integer(value), times);
    }

    /// Inserts a DOUBLE a number of times.
    pub fn insert_doubles(&mut self, value: f64, times: u64) {
        let high = if value.is_finite() { value } else { f64::NAN };
        self.insert_times(DoubleDouble { high, low: 0.0 }, times);
    }

    fn insert_times(&mut self, value: DoubleDouble, times: u64) {
        let mut doubled = ExactSpread::default();
        doubled.insert(value);
        // The values of each binary digit.
        for bit in 0..u64::BITS - times.leading_zeros() {
            if times >> bit & 1 == 1 {
                self.merge(&doubled);
            }
            doubled.merge(&doubled.clone());
        }
    }

    fn add(&mut self, DoubleDouble { high, low }: DoubleDouble) {
        self.sum.add(high);
        self.squares.add_product(high, high);
        if low != 0.0 {
            self.sum.add(low);
            self.squares.add_product(high, low);
            self.squares.add_product(high, low);
            self.squares.add_product(low, low);
        }
    }

    pub(super) fn merge(&mut self, other: &ExactSpread) {
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
    }

    /// Merges what was rounded before; only as good as that.
    pub(super) fn merge_rounded(&mut self, other: &Spread) {
        let Spread { count, sum, squares } = *other;
        self.merge_stored(&Stored { count, sum, squares });
    }

    /// Merges what [`ExactSpread::stored`] returned.
    pub(super) fn merge_stored(&mut self, other: &Stored) {
        let Stored { count, sum, squares } = *other;
        if count == 0 {
            return;
        }
        self.count += count;
        let is_beyond = sum.high.is_infinite() && sum.low != 0.0;
        let parts = if is_beyond { [(sum.low, RESCALE), (0.0, 0)] } else { [(sum.high, 0), (sum.low, 0)] };
        let mut total = Total::default();
        parts.iter().for_each(|(part, power)| total.add_times_power(*part, *power));
        let n = count.unsigned_abs();
        let mean = total.nearest_over(n);
        if (squares.high, squares.low) == (0.0, 0.0) && (is_beyond || sum.low == 0.0) {
            // Equal DOUBLEs: n times the mean, exactly, so that they do not scatter whatever their size.
            for power in (0..63).filter(|power| n >> power & 1 == 1) {
                self.sum.add_times_power(mean, power);
                self.squares.add_product_times_power(mean, mean, power);
            }
            return;
        }
        self.sum.merge(&total);
        match squares {
            DoubleDouble { high: f64::INFINITY, low } if low != 0.0 => self.squares.add_times_power(low, RESCALE),
            DoubleDouble { high: 0.0, low } => self.squares.add_times_power(low, -RESCALE),
            DoubleDouble { high, low } => {
                self.squares.add(high);
                self.squares.add(low);
            }
        }
        // The square of the sum over n, as the squares were taken around the mean: twice 53 bits of the mean times the sum.
        let mut rest = total;
        rest.add_product(-mean, n as f64);
        let missing = rest.nearest_over(n);
        for (part, power) in parts {
            self.squares.add_product_times_power(mean, part, power);
            self.squares.add_product_times_power(missing, part, power);
        }
    }

    /// Returns n times the squared deviations, n Q - S².
    fn deviations(&self) -> Number {
        self.squares.number().times_integer(self.count.unsigned_abs()).minus(&self.sum.number().squared())
    }

    fn is_special(&self) -> bool {
        self.sum.is_special() || self.squares.is_special()
    }

    /// Returns sum and squared deviations rounded once, to 106 bits each; what does not fit a DOUBLE to 53 bits.
    pub fn stored(&self) -> Stored {
        let (high, low) = self.sum.stored();
        let sum = DoubleDouble { high, low };
        if self.count == 0 || self.is_special() {
            let squares = DoubleDouble { high: high * 0.0, low: 0.0 };
            return Stored { count: self.count, sum, squares };
        }
        let squares = stored_squares(&self.deviations().over(self.count.unsigned_abs()));
        Stored { count: self.count, sum, squares }
    }

    /// Memory held outside of the value itself, in bytes.
    pub fn bytes(&self) -> usize {
        self.sum.bytes() + self.squares.bytes()
    }
}

/// Rounds squared deviations as they are stored.
fn stored_squares(exact: &Number) -> DoubleDouble {
    match exact.nearest() {
        f64::INFINITY => DoubleDouble { high: f64::INFINITY, low: exact.clone().times_power(-RESCALE).nearest() },
        tiny if tiny < super::variance::SQUARES_MIN && !exact.is_zero() => {
            DoubleDouble { high: 0.0, low: exact.clone().times_power(RESCALE).nearest() }
        }
        _ => exact.double_double(),
    }
}

/// Adds an integer exactly.
fn add_integer<const N: usize>(sum: &mut ExactSum<N>, value: i256) {
    let sign = if value.is_negative() { -1.0 } else { 1.0 };
    for (at, word) in value.wrapping_abs().to_le_bytes().chunks_exact(4).enumerate() {
        let word = word.iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        sum.add_times_power(sign * f64::from(word), 32 * at as i32);
    }
}

pub(super) fn merge_spread(ours: &mut [ExactSpread], groups: &[u32], theirs: &[ExactSpread]) {
    for_each_group(groups, theirs, |group, spread| ours[group].merge(spread));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spread_of(values: &[f64]) -> ExactSpread {
        let mut spread = ExactSpread::default();
        values.iter().for_each(|value| spread.insert(DoubleDouble { high: *value, low: 0.0 }));
        spread
    }

    #[test]
    fn equal_values_have_variance_zero_and_others_an_exact_one() {
        let variance = |values: &[f64], sample| spread_of(values).stored().variance(sample, false);
        assert_eq!(variance(&[0.1, 0.1, 0.1], true), Some(0.0));
        assert_eq!(variance(&[1e15 + 1.0, 1e15 + 2.0, 1e15 + 3.0], true), Some(1.0));
        assert_eq!(variance(&[1e-200, 3e-200], false), Some(0.0), "a square below the smallest DOUBLE");
        assert!(variance(&[1.0, f64::INFINITY], false).expect("two values").is_nan());
        assert_eq!(variance(&[7.0], false), Some(0.0));
        assert_eq!(variance(&[7.0], true), None);
        assert_eq!(variance(&[], false), None);
    }

    #[test]
    fn the_range_of_values_is_not_a_limit() {
        let deviation = |values: &[f64]| spread_of(values).stored().variance(false, true).expect("some values");
        assert_eq!(spread_of(&[1e308, 1e308, 1e308]).stored().variance(false, false), Some(0.0));
        assert_eq!(spread_of(&[1e308, -1e308]).stored().variance(false, false), Some(f64::INFINITY));
        assert!((deviation(&[1e308, -1e308]) / 1e308 - 1.0).abs() < 1e-15);
        assert!((deviation(&[1e-200, 3e-200]) / 1e-200 - 1.0).abs() < 1e-15);
    }

    /// What an engine adds up that takes deviations from `center`.
    fn deviations(values: &[f64], center: f64, power: i32) -> Deviations {
        let scale = 2f64.powi(-power);
        let deviation = |value: &f64| value * scale - center;
        let (sum, squares) = (values.iter().map(deviation).sum(), values.iter().map(|v| deviation(v).powi(2)).sum());
        Deviations { count: values.len() as i64, center, sum, squares, power }
    }

    #[test]
    fn deviations_from_a_number_near_the_mean_give_the_variance() {
        for (values, center, power) in [
            (vec![1e9 + 1.0, 1e9 + 2.0, 1e9 + 4.0], 1e9 + 2.0, 0),
            (vec![-3.5, 7.25, 0.125, 11.0], 3.0, 0),
            (vec![1e308, -1e308, 1.5e308], 0.0, SCALED),
            (vec![1e-200, 3e-200, -5e-324], 0.0, -SCALED),
            (vec![7.0], 7.0, 0),
        ] {
            let (found, exact) = (deviations(&values, center, power).stored(), spread_of(&values).stored());
            assert_eq!(found.sum.nearest(), exact.sum.nearest(), "{values:?}");
            for (sample, root) in [(false, false), (true, false), (false, true), (true, true)] {
                match (found.variance(sample, root), exact.variance(sample, root)) {
                    (Some(a), Some(b)) => {
                        assert!(a == b || (a / b - 1.0).abs() < 1e-14, "{values:?}: {a:e} is not {b:e}")
                    }
                    (a, b) => assert_eq!(a, b, "{values:?}"),
                }
            }
        }
        assert_eq!(deviations(&[], 0.0, 0).stored().variance(false, false), None);
        let special = deviations(&[1.0, f64::INFINITY], f64::INFINITY, 0).stored();
        assert!(special.variance(false, false).expect("two values").is_nan());
    }

    #[test]
    fn halves_of_integers_give_the_exact_variance() {
        let largest = 10i128.pow(28) - 1;
        for values in [
            vec![i128::from(i64::MIN), i128::from(i64::MAX), -1, 0, HALF, -HALF - 1],
            vec![largest, -largest, largest - 1, HALF * HALF / 10],
            vec![1_000_000_001, 1_000_000_002, 1_000_000_004],
            vec![],
        ] {
            let halves = |value: &i128| (value / HALF, value % HALF);
            let sum = |of: fn((i128, i128)) -> i128| values.iter().map(halves).map(of).sum::<i128>();
            let sums =
                [sum(|(h, _)| h), sum(|(_, l)| l), sum(|(h, _)| h * h), sum(|(h, l)| h * l), sum(|(_, l)| l * l)];
            let mut exact = ExactSpread::default();
            values.iter().for_each(|value| exact.insert(DoubleDouble::of_integer(*value)));
            assert_eq!(ExactSpread::of_halves(values.len() as i64, sums).stored(), exact.stored(), "{values:?}");
        }
    }

    fn value() -> impl Strategy<Value = f64> {
        let ends = [1e308, -1e308, f64::MAX, 1e200, -3e160, 1e-200, 5e-324, 0.1, 1e300];
        prop_oneof![4 => -1e3..1e3f64, 2 => any::<f64>(), 4 => prop::sample::select(ends.to_vec())]
    }

    proptest! {
        #[test]
        fn variances_do_not_depend_on_order_splits_or_storage(values in prop::collection::vec(value(), 0..30), at in 0usize..30) {
            let at = at.min(values.len());
            let (whole, mut merged) = (spread_of(&values), spread_of(&values[..at]));
            merged.merge(&spread_of(&values[at..]));
            prop_assert_eq!(&whole, &merged);
            let mut read = ExactSpread::default();
            read.merge_stored(&whole.stored());
            for (sample, root) in [(false, false), (true, false), (false, true), (true, true)] {
                match (read.stored().variance(sample, root), whole.stored().variance(sample, root)) {
                    (Some(a), Some(b)) => {
                        let same = a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * b.abs() + f64::MIN_POSITIVE;
                        prop_assert!(same, "{a:e} is not {b:e}");
                    }
                    (a, b) => prop_assert_eq!(a, b),
                }
            }
        }
    }
}
