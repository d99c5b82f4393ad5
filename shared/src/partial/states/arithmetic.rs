//! Implements arithmetic with pairs of DOUBLEs, which carry about 106 bits.

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
    #[inline]
    pub fn minus(self, other: DoubleDouble) -> DoubleDouble {
        self.plus(DoubleDouble { high: -other.high, low: -other.low })
    }

    /// The sum with a DOUBLE.
    #[inline]
    pub fn plus_one(self, other: f64) -> DoubleDouble {
        let (sum, error) = two_sum(self.high, other);
        let (high, low) = quick_two_sum(sum, error + self.low);
        DoubleDouble { high, low }
    }

    /// The product with a DOUBLE.
    #[inline]
    pub fn scaled(self, factor: f64) -> DoubleDouble {
        let product = self.high * factor;
        let error = self.high.mul_add(factor, -product);
        let (high, low) = quick_two_sum(product, self.low.mul_add(factor, error));
        DoubleDouble { high, low }
    }

    /// The nearest DOUBLE.
    #[inline]
    pub fn nearest(self) -> f64 {
        self.high + self.low
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
