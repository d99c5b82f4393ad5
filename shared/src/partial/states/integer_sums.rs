//! Sums of integers that cannot overflow, one per group. Whether a sum fits its SQL type is decided when it is finished.
//!
//! A sum is low + carry · 2^128 with a signed 128-bit low part. Carries are kept only once one of them is not 0: sums of INT and
//! BIGINT never have one (2^63 values of 64 bits fit), nor do DECIMALs of up to 19 digits. Addition modulo 2^128 with a carry is
//! associative and commutative, so a sum does not depend on the order of values or on how they were split.

use arrow::datatypes::i256;

use super::for_each_group;

/// Marks a sum of which an earlier version of Trueup stored only that it did not fit 38 digits. It stays unknown.
const UNKNOWN: i64 = i64::MIN;

/// One sum per group.
#[derive(Debug, Clone, Default)]
pub struct IntegerSums {
    lows: Vec<i128>,
    /// Empty while all carries are 0.
    carries: Vec<i64>,
}

impl IntegerSums {
    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        self.lows.len()
    }

    /// Returns whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.lows.is_empty()
    }

    /// Returns the sum of a group; `None`: it is not known.
    pub fn get(&self, group: usize) -> Option<i256> {
        let carry = self.carries.get(group).copied().unwrap_or(0);
        let high = i128::from(carry) - i128::from(self.lows[group] < 0);
        (carry != UNKNOWN).then(|| i256::from_parts(self.lows[group] as u128, high))
    }

    /// Returns whether the sum of a group is 0.
    pub fn is_zero(&self, group: usize) -> bool {
        self.get(group) == Some(i256::ZERO)
    }

    /// Returns all sums in the order of their groups.
    pub fn iter(&self) -> impl Iterator<Item = Option<i256>> + '_ {
        (0..self.len()).map(|group| self.get(group))
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.lows.resize(len, 0);
        if !self.carries.is_empty() {
            self.carries.resize(len, 0);
        }
    }

    #[inline]
    pub(super) fn add(&mut self, group: usize, value: i128) {
        let (low, overflows) = self.lows[group].overflowing_add(value);
        self.lows[group] = low;
        if overflows {
            self.carry(group, if value < 0 { -1 } else { 1 });
        }
    }

    #[cold]
    fn carry(&mut self, group: usize, by: i64) {
        self.carries.resize(self.lows.len(), 0);
        let carry = &mut self.carries[group];
        *carry = if *carry == UNKNOWN || by == UNKNOWN { UNKNOWN } else { *carry + by };
    }

    /// Merges row `first + i` of `other` into group `groups[i]`.
    pub(super) fn merge(&mut self, groups: &[u32], other: &IntegerSums, first: usize) {
        let rows = first..first + groups.len();
        for_each_group(groups, &other.lows[rows.clone()], |group, low| self.add(group, *low));
        if !other.carries.is_empty() {
            for_each_group(groups, &other.carries[rows], |group, carry| {
                if *carry != 0 {
                    self.carry(group, *carry);
                }
            });
        }
    }

    /// Returns the memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.lows.capacity() * 16 + self.carries.capacity() * 8
    }
}

impl FromIterator<Option<i256>> for IntegerSums {
    /// Collects one sum per group; `None`: it is not known.
    fn from_iter<I: IntoIterator<Item = Option<i256>>>(sums: I) -> IntegerSums {
        let mut all = IntegerSums::default();
        for (group, sum) in sums.into_iter().enumerate() {
            all.resize(group + 1);
            let (low, high) = sum.unwrap_or(i256::ZERO).to_parts();
            let low = low as i128;
            all.lows[group] = low;
            // Sums of fewer than 2^63 values of 128 bits have carries of less than 64 bits.
            let carry = i64::try_from(high + i128::from(low < 0)).unwrap_or(UNKNOWN);
            match sum {
                None => all.carry(group, UNKNOWN),
                Some(_) if carry != 0 => all.carry(group, carry),
                Some(_) => {}
            }
        }
        all
    }
}

/// Equal sums, whether or not carries are kept.
impl PartialEq for IntegerSums {
    fn eq(&self, other: &IntegerSums) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sums(values: &[i128]) -> IntegerSums {
        let mut sums = IntegerSums::default();
        sums.resize(1);
        values.iter().for_each(|value| sums.add(0, *value));
        sums
    }

    #[test]
    fn an_unknown_sum_stays_unknown() {
        let mut unknown: IntegerSums = [None].into_iter().collect();
        unknown.add(0, 5);
        assert_eq!(unknown.get(0), None);
        let mut known = sums(&[i128::MAX, i128::MAX]);
        known.merge(&[0], &unknown, 0);
        known.add(0, i128::MAX);
        assert_eq!(known.get(0), None);
    }

    proptest! {
        #[test]
        fn sums_equal_those_of_256_bit_integers(
            values in prop::collection::vec(prop_oneof![any::<i128>(), Just(i128::MAX), Just(i128::MIN)], 0..40),
            at in 0usize..40,
        ) {
            let exact = values.iter().fold(i256::ZERO, |sum, value| sum.wrapping_add(i256::from_i128(*value)));
            prop_assert_eq!(sums(&values).get(0), Some(exact));
            let at = at.min(values.len());
            let mut merged = sums(&values[at..]);
            merged.merge(&[0], &sums(&values[..at]), 0);
            prop_assert_eq!(merged.get(0), Some(exact));
            let copied: IntegerSums = merged.iter().collect();
            prop_assert_eq!(copied, merged);
        }
    }
}
