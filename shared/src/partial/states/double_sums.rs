//! Sums of DOUBLEs for the speed layer, one per group, whose range is not limited by that of a DOUBLE.
//!
//! A sum is kept with the sum of its rounding errors (Neumaier 1974, "Rundungsfehleranalyse einiger Verfahren zur Summation
//! endlicher Summen"). A group whose running sum leaves the range of a DOUBLE is kept as an exact sum from then on (see
//! [`ExactSum`](super::exact::ExactSum)); that is rare, and costs other groups one comparison per value. NaN and the infinities
//! follow the rule of real numbers: NaN if there is a NaN or infinities of both signs, otherwise the infinity that occurred.
//! A result is therefore the sum of the values in any order, infinite only if the sum itself is too large.

use hashbrown::HashMap;

use super::NO_GROUP;
use super::exact::Total;

/// One sum per group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DoubleSums {
    /// Infinite for groups that are in `wide`.
    sums: Vec<f64>,
    corrections: Vec<f64>,
    /// Sums of finite values that have left the range of a DOUBLE.
    wide: HashMap<u32, Total>,
}

/// One sum, as a group has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DoubleSum<'a> {
    /// A finite sum and what to add to it.
    Rounded(f64, f64),
    /// A sum that has left the range of a DOUBLE, and may have come back.
    Wide(&'a Total),
    /// NaN or an infinity, because of such values.
    Special(f64),
}

impl DoubleSums {
    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.sums.len()
    }

    /// Returns whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Returns the sum of a group.
    pub fn get(&self, group: usize) -> DoubleSum<'_> {
        let sum = self.sums[group];
        if sum.is_finite() {
            return DoubleSum::Rounded(sum, self.corrections[group]);
        }
        self.wide.get(&(group as u32)).map_or(DoubleSum::Special(sum), DoubleSum::Wide)
    }

    /// Returns all sums in the order of their groups.
    pub fn iter(&self) -> impl Iterator<Item = DoubleSum<'_>> {
        (0..self.len()).map(|group| self.get(group))
    }

    /// Appends a group.
    pub fn push(&mut self, sum: DoubleSum<'_>) {
        let (sum, correction) = match sum {
            DoubleSum::Rounded(sum, correction) => (sum, correction),
            DoubleSum::Special(value) => (value, 0.0),
            DoubleSum::Wide(total) => {
                self.wide.insert(self.sums.len() as u32, total.clone());
                (f64::INFINITY, 0.0)
            }
        };
        self.sums.push(sum);
        self.corrections.push(correction);
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.sums.resize(len, 0.0);
        self.corrections.resize(len, 0.0);
    }

    #[inline]
    pub(super) fn add(&mut self, group: usize, value: f64) {
        let sum = self.sums[group];
        let total = sum + value;
        if !total.is_finite() {
            return self.add_beyond(group, value);
        }
        self.corrections[group] += if sum.abs() >= value.abs() { (sum - total) + value } else { (value - total) + sum };
        self.sums[group] = total;
    }

    /// Adds to a sum that is not finite, or would not be.
    #[cold]
    fn add_beyond(&mut self, group: usize, value: f64) {
        let (sum, key) = (self.sums[group], group as u32);
        if sum.is_nan() {
            return;
        }
        if !value.is_finite() {
            let is_special = !sum.is_finite() && self.wide.remove(&key).is_none();
            self.sums[group] = if is_special { sum + value } else { value };
            self.corrections[group] = 0.0;
            return;
        }
        if let Some(total) = self.wide.get_mut(&key) {
            return total.add(value);
        }
        if sum.is_finite() {
            let mut total = Total::default();
            [sum, self.corrections[group], value].into_iter().for_each(|part| total.add(part));
            self.wide.insert(key, total);
            (self.sums[group], self.corrections[group]) = (f64::INFINITY, 0.0);
        }
    }

    fn add_sum(&mut self, group: usize, sum: DoubleSum<'_>) {
        match sum {
            DoubleSum::Special(value) => self.add(group, value),
            DoubleSum::Rounded(sum, correction) => {
                self.add(group, sum);
                if self.sums[group].is_finite() {
                    self.corrections[group] += correction;
                } else if let Some(total) = self.wide.get_mut(&(group as u32)) {
                    total.add(correction);
                }
            }
            DoubleSum::Wide(theirs) => {
                let mut total = theirs.clone();
                match self.get(group) {
                    DoubleSum::Special(_) => return,
                    DoubleSum::Wide(ours) => total.merge(ours),
                    DoubleSum::Rounded(sum, correction) => {
                        total.add(sum);
                        total.add(correction);
                    }
                }
                self.wide.insert(group as u32, total);
                (self.sums[group], self.corrections[group]) = (f64::INFINITY, 0.0);
            }
        }
    }

    /// Merges row `first + i` of `other` into group `groups[i]`.
    pub(super) fn merge(&mut self, groups: &[u32], other: &DoubleSums, first: usize) {
        for (row, group) in (first..).zip(groups).filter(|(_, group)| **group != NO_GROUP) {
            self.add_sum(*group as usize, other.get(row));
        }
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let wide: usize = self.wide.values().map(|total| size_of::<(u32, Total)>() + total.bytes()).sum();
        (self.sums.capacity() + self.corrections.capacity()) * 8 + wide
    }
}

impl DoubleSum<'_> {
    /// Returns the sum divided by `count`, rounded once where it does not fit a DOUBLE undivided.
    pub fn over(&self, count: u64) -> f64 {
        let exact = |total: &Total| total.nearest_over(count);
        match self {
            DoubleSum::Special(value) => *value,
            DoubleSum::Wide(total) => exact(total),
            DoubleSum::Rounded(sum, correction) => {
                let rounded = sum + correction;
                if rounded.is_finite() {
                    return rounded / count as f64;
                }
                let mut total = Total::default();
                total.add(*sum);
                total.add(*correction);
                exact(&total)
            }
        }
    }
}

/// Adds a sum of the speed layer to an exact one.
pub(super) fn add_to(total: &mut Total, sum: DoubleSum<'_>) {
    match sum {
        DoubleSum::Special(value) => total.add(value),
        DoubleSum::Wide(theirs) => total.merge(theirs),
        DoubleSum::Rounded(sum, correction) => {
            total.add(sum);
            total.add(correction);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sums(values: &[f64]) -> DoubleSums {
        let mut sums = DoubleSums::default();
        sums.resize(1);
        values.iter().for_each(|value| sums.add(0, *value));
        sums
    }

    #[test]
    fn a_sum_may_leave_the_range_and_return() {
        assert_eq!(sums(&[1e308, 1e308, -1e308]).get(0).over(1), 1e308);
        assert_eq!(sums(&[1e308, 1e308]).get(0).over(1), f64::INFINITY);
        assert_eq!(sums(&[1e308, 1e308]).get(0).over(2), 1e308);
        assert_eq!(sums(&[1e308, 1e308, f64::NEG_INFINITY, 1.0]).get(0).over(1), f64::NEG_INFINITY);
        assert!(sums(&[f64::INFINITY, 1e308, 1e308, f64::NEG_INFINITY]).get(0).over(1).is_nan());
        assert!(sums(&[f64::NAN, f64::INFINITY, 1.0]).get(0).over(1).is_nan());
    }

    fn value() -> impl Strategy<Value = f64> {
        let special = [f64::MAX, -f64::MAX, 1e308, -1e308, 1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        prop_oneof![6 => prop::sample::select(special[..5].to_vec()), 1 => prop::sample::select(special.to_vec())]
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_order_or_splits(
            (values, shuffled) in prop::collection::vec(value(), 1..20).prop_flat_map(|values| {
                (Just(values.clone()), Just(values).prop_shuffle())
            }),
            at in 0usize..20,
            count in 1u64..5,
        ) {
            let mut exact = Total::default();
            values.iter().for_each(|value| exact.add(*value));
            let expected = exact.nearest_over(count);
            let at = at.min(values.len());
            let mut merged = sums(&shuffled[at..]);
            merged.merge(&[0], &sums(&shuffled[..at]), 0);
            for found in [sums(&values).get(0).over(count), sums(&shuffled).get(0).over(count), merged.get(0).over(count)] {
                // MAX and 1.5 are further apart than the digits of a sum and its correction reach.
                let same = found == expected || found.is_nan() && expected.is_nan() || (found - expected).abs() < 100.0 + 1e-15 * expected.abs();
                prop_assert!(same, "{found:e} is not {expected:e}");
            }
        }
    }
}
