//! How are numbers added without losing digits? In 128 bits with overflow marked, and with the rounding error beside.

/// The sum that does not fit 128 bits. Once reached it stays; it finishes as NULL and is flagged.
pub const SUM_OVERFLOW: i128 = i128::MIN;

/// Adds, unless either side or the result does not fit: then the sum stays [`SUM_OVERFLOW`].
#[inline]
pub(super) fn add_checked(sum: i128, value: i128) -> i128 {
    if sum == SUM_OVERFLOW || value == SUM_OVERFLOW {
        return SUM_OVERFLOW;
    }
    sum.checked_add(value).unwrap_or(SUM_OVERFLOW)
}

#[inline]
pub(super) fn add_compensated(sum: &mut f64, correction: &mut f64, value: f64) {
    let total = *sum + value;
    *correction += if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
    *sum = total;
}

/// NaN of one sign, which `total_cmp` puts above every number, and zero of one sign.
#[inline]
pub(super) fn canonical(value: f64) -> f64 {
    if value.is_nan() { f64::NAN.abs() } else { value + 0.0 }
}

/// A number in two parts, the second at most half a unit in the last place of the first: about 106 bits of precision.
/// Sums and products after Dekker 1971, "A floating-point technique for extending the available precision", and
/// Hida, Li, Bailey 2000, "Quad-double arithmetic".
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DoubleDouble {
    pub high: f64,
    pub low: f64,
}

impl DoubleDouble {
    /// The integer, exactly up to 106 bits.
    #[inline]
    pub fn of_integer(value: i128) -> DoubleDouble {
        let high = value as f64;
        DoubleDouble { high, low: value.wrapping_sub(high as i128) as f64 }
    }

    /// The sum.
    #[inline]
    pub fn plus(self, other: DoubleDouble) -> DoubleDouble {
        let (sum, error) = two_sum(self.high, other.high);
        let (low, low_error) = two_sum(self.low, other.low);
        let (sum, error) = quick_two_sum(sum, error + low);
        let (high, low) = quick_two_sum(sum, error + low_error);
        DoubleDouble { high, low }
    }

    /// The difference.
    pub fn minus(self, other: DoubleDouble) -> DoubleDouble {
        self.plus(DoubleDouble { high: -other.high, low: -other.low })
    }

    /// The product.
    #[inline]
    pub fn times(self, other: DoubleDouble) -> DoubleDouble {
        let product = self.high * other.high;
        let error = self.high.mul_add(other.high, -product) + (self.high * other.low + self.low * other.high);
        let (high, low) = quick_two_sum(product, error);
        DoubleDouble { high, low }
    }

    /// The square.
    #[inline]
    pub fn square(self) -> DoubleDouble {
        self.times(self)
    }

    /// The quotient, by long division.
    pub fn over(self, divisor: f64) -> DoubleDouble {
        let times = |quotient: f64| {
            let product = quotient * divisor;
            DoubleDouble { high: product, low: quotient.mul_add(divisor, -product) }
        };
        let first = self.high / divisor;
        let rest = self.minus(times(first));
        let second = rest.high / divisor;
        let third = rest.minus(times(second)).high / divisor;
        let (high, low) = quick_two_sum(first, second);
        DoubleDouble { high, low }.plus(DoubleDouble { high: third, low: 0.0 })
    }
}

/// The rounded sum and what was rounded away.
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// The same where `a` is not smaller than `b`.
#[inline]
fn quick_two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}
