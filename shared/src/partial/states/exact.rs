//! Adds DOUBLEs exactly: the sum does not depend on the order of values or on how they were split.
//!
//! Every finite DOUBLE is m · 2^e with integers m and e, so a sum of them is an integer in units of the smallest power
//! of two. It is kept as a long fixed-point number whose limbs have room for carries, and rounded once, when it is
//! finished.
//!
//! Source: Neal 2015, "Fast exact summation using small and large superaccumulators". Most groups' values lie within a
//! few powers of ten, so a group keeps only the few limbs that its values touch, and all of them where they lie wide
//! apart. Batch sums like this, and so a run's result does not depend on files, portions, threads or what was
//! recomputed.

use super::arithmetic::DoubleDouble;

/// Bits of a limb; the rest of its 64 bits takes what additions carry.
// I5: sums are exact until they are rounded once, so incremental and full runs agree.
const LIMB_BITS: u32 = 32;
const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;
/// The first limb begins at this power of two: below the product of the two smallest DOUBLEs.
const LOWEST: i32 = -2176;
/// Limbs up to above the sum of 2^63 products of the largest DOUBLEs.
const LIMBS: usize = 136;
/// Sums and squares that do not fit a DOUBLE are stored times 2^-1200 or 2^1200: products of the largest and of the smallest
/// DOUBLEs fit then.
pub(super) const RESCALE: i32 = 1200;
/// Additions after which carries move on. A limb overflows only after twice as many.
const ADDITIONS_MAX: u32 = 1 << 30;

const NAN: u8 = 1;
const PLUS_INFINITY: u8 = 2;
const MINUS_INFINITY: u8 = 4;

/// An exact sum, of which up to `N` neighbouring limbs are kept in place.
#[derive(Debug, Clone)]
pub struct ExactSum<const N: usize> {
    few: [i64; N],
    /// All limbs, once `few` could not hold what was added.
    all: Option<Box<[i64; LIMBS]>>,
    additions: u32,
    /// Number of the first limb of `few`.
    first: u8,
    /// Flags for values that were NaN or infinite.
    special: u8,
}

/// A sum of DOUBLEs with their count.
pub type Total = ExactSum<4>;

impl<const N: usize> Default for ExactSum<N> {
    fn default() -> ExactSum<N> {
        ExactSum { few: [0; N], all: None, additions: 0, first: 0, special: 0 }
    }
}

impl<const N: usize> ExactSum<N> {
    /// Adds a DOUBLE.
    #[inline]
    pub fn add(&mut self, value: f64) {
        match parts(value) {
            Ok((mantissa, exponent)) => self.add_scaled(u128::from(mantissa), exponent, value < 0.0),
            Err(special) => self.special |= special,
        }
    }

    /// Adds `value` times 2^`power`.
    pub(super) fn add_times_power(&mut self, value: f64, power: i32) {
        match parts(value) {
            Ok((mantissa, exponent)) => {
                // Bits below the first limb are lost: 2^-2176 is less than the square of the smallest DOUBLE.
                let lost = (LOWEST - exponent - power).clamp(0, 63);
                self.add_scaled(u128::from(mantissa >> lost), (exponent + power).max(LOWEST), value < 0.0);
            }
            Err(special) => self.special |= special,
        }
    }

    /// Adds the product of two DOUBLEs, unrounded.
    #[inline]
    pub fn add_product(&mut self, a: f64, b: f64) {
        self.add_product_times_power(a, b, 0);
    }

    /// Adds the product of two DOUBLEs times 2^`power`, unrounded.
    #[inline]
    pub(super) fn add_product_times_power(&mut self, a: f64, b: f64, power: i32) {
        match (parts(a), parts(b)) {
            (Ok((m, e)), Ok((n, f))) => {
                self.add_scaled(u128::from(m) * u128::from(n), e + f + power, (a < 0.0) != (b < 0.0));
            }
            _ => self.special |= NAN,
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &ExactSum<N>) {
        self.special |= other.special;
        let (first, limbs) = other.limbs();
        let Some(low) = limbs.iter().position(|limb| *limb != 0) else { return };
        let high = limbs.iter().rposition(|limb| *limb != 0).unwrap_or(low);
        let additions = self.additions.saturating_add(other.additions);
        let ours = self.room(first + low, high + 1 - low);
        ours.iter_mut().zip(&limbs[low..=high]).for_each(|(ours, theirs)| *ours += theirs);
        self.added(additions);
    }

    /// The nearest DOUBLE.
    pub fn nearest(&self) -> f64 {
        match self.special {
            0 => Number::of(self).nearest(),
            PLUS_INFINITY => f64::INFINITY,
            MINUS_INFINITY => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }

    /// Returns the DOUBLE nearest to the sum divided by `count`.
    pub fn nearest_over(&self, count: u64) -> f64 {
        if self.special != 0 || count < 2 {
            return self.nearest();
        }
        let number = Number::of(self);
        let magnitude = number.over(count).nearest();
        if number.is_negative { -magnitude } else { magnitude }
    }

    /// Returns the DOUBLE nearest to the sum times 2^`power`.
    pub(super) fn nearest_times_power(&self, power: i32) -> f64 {
        if self.special != 0 { self.nearest() } else { Number::of(self).times_power(power).nearest() }
    }

    /// Returns whether a value was not finite.
    pub(super) fn is_special(&self) -> bool {
        self.special != 0
    }

    /// Returns the sum of the finite values as a long number.
    pub(super) fn number(&self) -> Number {
        Number::of(self)
    }

    /// The nearest DOUBLE, and the one nearest to what is missing then.
    pub fn nearest_two(&self) -> (f64, f64) {
        let sum = self.nearest();
        if !sum.is_finite() {
            return (sum, 0.0);
        }
        let mut rest = self.clone();
        rest.add(-sum);
        (sum, rest.nearest())
    }

    /// Returns the sum as it is stored: the two nearest DOUBLEs, or, where it is beyond their range, an infinity and
    /// the DOUBLE nearest to the sum times 2^-1200.
    pub fn stored(&self) -> (f64, f64) {
        match self.nearest_two() {
            (high, _) if high.is_infinite() && self.special == 0 => (high, self.nearest_times_power(-RESCALE)),
            both => both,
        }
    }

    /// Returns the sum that [`ExactSum::stored`] returned.
    pub fn from_stored(high: f64, low: f64) -> ExactSum<N> {
        let mut sum = ExactSum::default();
        if high.is_infinite() && low != 0.0 {
            sum.add_times_power(low, RESCALE);
        } else {
            sum.add(high);
            sum.add(low);
        }
        sum
    }

    /// Memory held outside of the value itself, in bytes.
    pub fn bytes(&self) -> usize {
        if self.all.is_some() { LIMBS * 8 } else { 0 }
    }

    #[inline]
    fn add_scaled(&mut self, mantissa: u128, exponent: i32, is_negative: bool) {
        if mantissa == 0 {
            return;
        }
        // Round numbers touch fewer limbs without their zeros.
        let zeros = mantissa.trailing_zeros();
        let (mantissa, position) = (mantissa >> zeros, (exponent - LOWEST) as u32 + zeros);
        let (limb, shift) = (position / LIMB_BITS, position % LIMB_BITS);
        let bits = 128 - mantissa.leading_zeros() + shift;
        let count = bits.div_ceil(LIMB_BITS) as usize;
        let limbs = self.room(limb as usize, count);
        let mut digit = (mantissa as u64) << shift & LIMB_MASK;
        let mut rest = mantissa >> (LIMB_BITS - shift);
        for limb in limbs {
            *limb += if is_negative { -(digit as i64) } else { digit as i64 };
            digit = rest as u64 & LIMB_MASK;
            rest >>= LIMB_BITS;
        }
        self.added(self.additions + 1);
    }

    /// The limbs `from..from + count`, to add to.
    #[inline]
    fn room(&mut self, from: usize, count: usize) -> &mut [i64] {
        if self.all.is_none() {
            let first = self.first as usize;
            if from >= first && from + count <= first + N && self.additions > 0 {
                return &mut self.few[from - first..from - first + count];
            }
            self.make_room(from, count);
        }
        match &mut self.all {
            Some(all) => &mut all[from..from + count],
            None => {
                let at = from - self.first as usize;
                &mut self.few[at..at + count]
            }
        }
    }

    #[cold]
    fn make_room(&mut self, from: usize, count: usize) {
        let first = self.first as usize;
        let used = |(at, limb): (usize, &i64)| (*limb != 0).then_some(first + at);
        let low = self.few.iter().enumerate().find_map(used).unwrap_or(from).min(from);
        let high = self.few.iter().enumerate().rev().find_map(used).unwrap_or(from).max(from + count - 1);
        if high - low < N {
            // Spare limbs are on both sides.
            let begin = low.saturating_sub((N - (high + 1 - low)) / 2);
            let mut moved = [0; N];
            for (at, limb) in self.few.iter().enumerate().filter(|(_, limb)| **limb != 0) {
                moved[first + at - begin] = *limb;
            }
            (self.few, self.first) = (moved, begin as u8);
        } else {
            self.widen();
        }
    }

    fn widen(&mut self) {
        let mut all = Box::new([0; LIMBS]);
        for (at, limb) in self.few.iter().enumerate().filter(|(_, limb)| **limb != 0) {
            all[self.first as usize + at] = *limb;
        }
        self.few = [0; N];
        self.all = Some(all);
    }

    #[inline]
    fn added(&mut self, additions: u32) {
        self.additions = additions;
        if additions > ADDITIONS_MAX {
            self.carry();
        }
    }

    #[cold]
    fn carry(&mut self) {
        if self.all.is_none() {
            self.widen();
        }
        let Some(all) = &mut self.all else { return };
        let mut carry = 0;
        for limb in &mut all[..LIMBS - 1] {
            *limb += carry;
            carry = *limb >> LIMB_BITS;
            *limb &= LIMB_MASK as i64;
        }
        all[LIMBS - 1] += carry;
        self.additions = 1;
    }

    /// The limbs in use, and which is the first of them.
    fn limbs(&self) -> (usize, &[i64]) {
        match &self.all {
            Some(all) => (0, all.as_slice()),
            None => (self.first as usize, &self.few),
        }
    }
}

/// Equal sums, however they came about.
impl<const N: usize> PartialEq for ExactSum<N> {
    fn eq(&self, other: &ExactSum<N>) -> bool {
        self.special == other.special && (self.special != 0 || Number::of(self) == Number::of(other))
    }
}

/// A finite DOUBLE as an integer times a power of two, without its sign; or what it is instead.
#[inline]
fn parts(value: f64) -> Result<(u64, i32), u8> {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    match exponent {
        0 => Ok((fraction, -1074)),
        0x7ff if fraction != 0 => Err(NAN),
        0x7ff => Err(if value > 0.0 { PLUS_INFINITY } else { MINUS_INFINITY }),
        _ => Ok((fraction | 1 << 52, exponent - 1075)),
    }
}

/// A long number: digits of 32 bits, the least first, times a power of two.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    is_negative: bool,
    digits: Vec<u32>,
    exponent: i32,
}

impl Number {
    fn of<const N: usize>(sum: &ExactSum<N>) -> Number {
        let (first, limbs) = sum.limbs();
        let mut digits = Vec::with_capacity(limbs.len() + 2);
        let mut carry = 0i64;
        for limb in limbs {
            let digit = limb + carry;
            digits.push(digit as u32);
            carry = digit >> LIMB_BITS;
        }
        digits.extend([carry as u32, (carry >> LIMB_BITS) as u32]);
        let is_negative = carry < 0;
        if is_negative {
            let mut borrow = true;
            for digit in &mut digits {
                (*digit, borrow) = (!*digit).overflowing_add(u32::from(borrow));
            }
        }
        Number { is_negative, digits, exponent: LOWEST + first as i32 * LIMB_BITS as i32 }.trimmed()
    }

    fn trimmed(mut self) -> Number {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
        }
        if self.digits.is_empty() {
            return Number { is_negative: false, digits: self.digits, exponent: 0 };
        }
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..zeros);
        self.exponent += zeros as i32 * LIMB_BITS as i32;
        self
    }

    /// Number of bits, and their place among those of the digits.
    fn bits(&self) -> u32 {
        self.digits.last().map_or(0, |top| self.digits.len() as u32 * LIMB_BITS - top.leading_zeros())
    }

    /// Up to 64 bits from place `from` on.
    fn bits_from(&self, from: u32, count: u32) -> u64 {
        let digit = |at: usize| u128::from(self.digits.get(at).copied().unwrap_or(0));
        let at = (from / LIMB_BITS) as usize;
        let window = digit(at) | digit(at + 1) << 32 | digit(at + 2) << 64;
        (window >> (from % LIMB_BITS)) as u64 & (u64::MAX >> (64 - count))
    }

    pub(super) fn nearest(&self) -> f64 {
        let bits = self.bits();
        if bits == 0 {
            return 0.0;
        }
        // A DOUBLE has no bits below 2^-1074.
        let lowest = (bits as i32 - 53).max(-1074 - self.exponent);
        let magnitude = if lowest <= 0 {
            scaled(self.bits_from(0, bits.min(64)), self.exponent)
        } else if lowest as u32 > bits {
            0.0
        } else {
            let lowest = lowest as u32;
            let whole = if lowest == bits { 0 } else { self.bits_from(lowest, bits - lowest) };
            let half = self.bits_from(lowest - 1, 1) == 1;
            let below = (0..(lowest - 1).div_ceil(LIMB_BITS)).any(|at| {
                let count = (lowest - 1 - at * LIMB_BITS).min(LIMB_BITS);
                self.bits_from(at * LIMB_BITS, count) != 0
            });
            let up = half && (below || whole & 1 == 1);
            scaled(whole + u64::from(up), self.exponent + lowest as i32)
        };
        if self.is_negative { -magnitude } else { magnitude }
    }

    /// Returns whether it is 0.
    pub(super) fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// Returns the number times 2^`power`.
    pub(super) fn times_power(mut self, power: i32) -> Number {
        if !self.is_zero() {
            self.exponent += power;
        }
        self
    }

    /// Returns the square.
    pub(super) fn squared(&self) -> Number {
        self.times(&self.digits, self.exponent)
    }

    /// Returns the product with an integer.
    pub(super) fn times_integer(&self, factor: u64) -> Number {
        self.times(&[factor as u32, (factor >> LIMB_BITS) as u32], 0)
    }

    /// The first 106 bits.
    pub(super) fn double_double(&self) -> DoubleDouble {
        let bits = self.bits();
        let piece = |skipped: u32| {
            let count = bits.saturating_sub(skipped).min(53);
            let from = bits.saturating_sub(skipped + count);
            if count == 0 { 0.0 } else { scaled(self.bits_from(from, count), self.exponent + from as i32) }
        };
        let sum = DoubleDouble { high: piece(0), low: 0.0 }.plus_one(piece(53));
        let sign = if self.is_negative { -1.0 } else { 1.0 };
        DoubleDouble { high: sign * sum.high, low: sign * sum.low }
    }

    /// The product without its sign.
    pub(super) fn times(&self, other: &[u32], exponent: i32) -> Number {
        let mut digits = vec![0u32; self.digits.len() + other.len() + 1];
        for (at, a) in self.digits.iter().enumerate() {
            let mut carry = 0u64;
            for (b, to) in other.iter().zip(&mut digits[at..]) {
                let sum = u64::from(*a) * u64::from(*b) + u64::from(*to) + carry;
                *to = sum as u32;
                carry = sum >> LIMB_BITS;
            }
            digits[at + other.len()] = carry as u32;
        }
        Number { is_negative: false, digits, exponent: self.exponent + exponent }.trimmed()
    }

    /// The difference of two numbers without sign; 0 if the second is larger, as only rounding before can make it.
    /// Exponents differ by whole digits.
    pub(super) fn minus(&self, other: &Number) -> Number {
        let exponent = self.exponent.min(other.exponent);
        let aligned = |number: &Number| {
            let mut digits = vec![0; ((number.exponent - exponent) / LIMB_BITS as i32) as usize];
            digits.extend(&number.digits);
            digits
        };
        let (mut digits, theirs) = (aligned(self), aligned(other));
        let mut borrow = false;
        for (at, ours) in digits.iter_mut().enumerate() {
            let (less, first) = ours.overflowing_sub(theirs.get(at).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            (*ours, borrow) = (less, first || second);
        }
        if borrow || theirs.iter().skip(digits.len()).any(|digit| *digit != 0) {
            digits.clear();
        }
        Number { is_negative: false, digits, exponent }.trimmed()
    }

    /// The quotient without its sign, with at least 128 bits.
    pub(super) fn over(&self, divisor: u64) -> Number {
        const MORE: usize = 6;
        let mut digits = vec![0; MORE];
        digits.extend(&self.digits);
        let mut rest = 0u64;
        for digit in digits.iter_mut().rev() {
            let dividend = u128::from(rest) << LIMB_BITS | u128::from(*digit);
            *digit = (dividend / u128::from(divisor)) as u32;
            rest = (dividend % u128::from(divisor)) as u64;
        }
        Number { is_negative: false, digits, exponent: self.exponent - (MORE as u32 * LIMB_BITS) as i32 }.trimmed()
    }
}

/// `whole` times 2^`exponent`; `whole` has up to 53 bits, or 54 after rounding up.
fn scaled(whole: u64, exponent: i32) -> f64 {
    if exponent > 971 {
        // A number of few digits may fit all the same.
        return scaled(whole, 971) * f64::from_bits(((exponent - 971).min(1023) as u64 + 1023) << 52);
    }
    let power = match exponent {
        ..-1074 => return scaled(whole.checked_shr((-1074 - exponent) as u32).unwrap_or(0), -1074),
        -1074..-1022 => f64::from_bits(1 << (exponent + 1074)),
        _ => f64::from_bits(((exponent + 1023) as u64) << 52),
    };
    whole as f64 * power
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum_of(values: &[f64]) -> Total {
        let mut sum = Total::default();
        values.iter().for_each(|value| sum.add(*value));
        sum
    }

    #[test]
    fn nothing_is_lost_however_far_apart_values_are() {
        assert_eq!(sum_of(&[1e300, 1.0, -1e300]).nearest(), 1.0);
        assert_eq!(sum_of(&[0.1; 10]).nearest(), 1.0, "the exact sum of ten times the DOUBLE 0.1 is nearest to 1");
        assert_eq!(sum_of(&[2f64.powi(1023)]).nearest(), 2f64.powi(1023), "one digit, far from the point");
        assert_eq!(sum_of(&[f64::MAX, f64::MAX]).nearest(), f64::INFINITY);
        assert_eq!(sum_of(&[f64::MAX, f64::MAX, -f64::MAX]).nearest(), f64::MAX);
        assert_eq!(sum_of(&[5e-324, 5e-324, -2.0, 2.0]).nearest(), 1e-323);
        assert_eq!(sum_of(&[-0.0, -0.0]).nearest().to_bits(), 0.0f64.to_bits());
        assert!(sum_of(&[f64::INFINITY, f64::NEG_INFINITY]).nearest().is_nan());
        assert_eq!(sum_of(&[f64::NEG_INFINITY, 1.0]).nearest(), f64::NEG_INFINITY);
        let half = 1.0 + f64::EPSILON / 2.0;
        assert_eq!(sum_of(&[1.0, f64::EPSILON / 2.0]).nearest(), half, "a tie goes to the even one");
        assert_eq!(
            sum_of(&[1.0, f64::EPSILON / 2.0, 1e-300]).nearest(),
            1.0 + f64::EPSILON,
            "a little more than a tie"
        );
        assert_eq!(sum_of(&[1.0, 1e-20]).nearest_two(), (1.0, 1e-20));
    }

    #[test]
    fn carries_move_on_before_a_limb_is_full() {
        let mut sum = sum_of(&[4294967295.0, -0.5]);
        sum.additions = ADDITIONS_MAX;
        sum.add(4294967295.0);
        assert_eq!((sum.additions, sum.nearest()), (1, 2.0 * 4294967295.0 - 0.5));
        let mut negative = sum_of(&[-1.0]);
        negative.additions = ADDITIONS_MAX;
        negative.add(-1.5);
        assert_eq!(negative.nearest(), -2.5);
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![4 => -1e3..1e3f64, 2 => any::<f64>(), 1 => Just(1e300), 1 => Just(-5e-324), 1 => Just(0.1)]
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_order_or_splits(mut values in prop::collection::vec(value(), 0..40), at in 0usize..40) {
            let at = at.min(values.len());
            let whole = sum_of(&values);
            let (mut left, right) = (sum_of(&values[..at]), sum_of(&values[at..]));
            left.merge(&right);
            let bits = |sum: &Total| (sum.nearest().to_bits(), sum.nearest_two().1.to_bits());
            prop_assert_eq!(bits(&whole), bits(&left));
            values.reverse();
            prop_assert_eq!(bits(&whole), bits(&sum_of(&values)));
        }

        #[test]
        fn integers_are_summed_as_integers(values in prop::collection::vec(any::<i64>(), 0..50)) {
            let doubles: Vec<f64> = values.iter().map(|v| *v as f64).collect();
            let exact: i128 = doubles.iter().map(|v| *v as i128).sum();
            prop_assert_eq!(sum_of(&doubles).nearest(), exact as f64);
        }
    }
}
