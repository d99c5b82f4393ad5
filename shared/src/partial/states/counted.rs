//! Counts the values of rows that can be retracted: per group, value → assertions minus retractions.
//!
//! It is how a view over a table keeps every measure that a retraction cannot be taken out of otherwise: MIN, MAX, COUNT(DISTINCT),
//! variances, percentiles and TOP_K. Both layers keep the same, so nothing is approximated; values whose counts cancel are not
//! kept. Merging adds the counts. The state between two cuts may have negative counts: of values that rows had before.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::not;
use arrow::datatypes::{DataType as ArrowType, Decimal128Type, Float64Type};

use super::for_each_group;
use super::selection::Selection;
use crate::double::canonical;
use crate::partial::sketch::SketchError;
use crate::types::DataType;

/// The counted values of one aggregate, one entry per group.
#[derive(Debug, Clone, PartialEq)]
pub enum CountedValues {
    /// BOOLEAN, INT, BIGINT, DATE, TIMESTAMP, and DOUBLE as [`sortable`].
    Longs(Vec<Counts<i64>>),
    /// DECIMAL (unscaled).
    Decimals(Vec<Counts<i128>>),
    Texts(Vec<Counts<Box<str>>>),
}

/// The values of a group with their counts, in the order of the values. None is 0.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts<T> {
    counts: BTreeMap<T, i64>,
    /// Bytes that the values hold outside of the map.
    apart: usize,
}

/// A value that is counted.
pub trait Countable: Ord + Clone + Borrow<Self::Given> {
    /// The form in which a column has it.
    type Given: Ord + ?Sized;

    fn keep(given: &Self::Given) -> Self;

    /// Memory held outside of the value itself, in bytes.
    fn bytes_apart(&self) -> usize {
        0
    }

    /// Appends the value to a stored state.
    fn write(&self, image: &mut Vec<u8>);

    /// Reads what [`Countable::write`] has written from the start of `image`, which moves behind it.
    fn read(image: &mut &[u8]) -> Option<Self>;
}

impl Countable for i64 {
    type Given = i64;

    fn keep(given: &i64) -> i64 {
        *given
    }

    fn write(&self, image: &mut Vec<u8>) {
        image.extend(self.to_le_bytes());
    }

    fn read(image: &mut &[u8]) -> Option<i64> {
        image.split_off(..8).and_then(|bytes| bytes.try_into().ok()).map(i64::from_le_bytes)
    }
}

impl Countable for i128 {
    type Given = i128;

    fn keep(given: &i128) -> i128 {
        *given
    }

    fn write(&self, image: &mut Vec<u8>) {
        image.extend(self.to_le_bytes());
    }

    fn read(image: &mut &[u8]) -> Option<i128> {
        image.split_off(..16).and_then(|bytes| bytes.try_into().ok()).map(i128::from_le_bytes)
    }
}

impl Countable for Box<str> {
    type Given = str;

    fn keep(given: &str) -> Box<str> {
        Box::from(given)
    }

    fn bytes_apart(&self) -> usize {
        self.len()
    }

    fn write(&self, image: &mut Vec<u8>) {
        (self.len() as i64).write(image);
        image.extend(self.as_bytes());
    }

    fn read(image: &mut &[u8]) -> Option<Box<str>> {
        let length = usize::try_from(i64::read(image)?).ok()?;
        std::str::from_utf8(image.split_off(..length)?).ok().map(Box::from)
    }
}

impl<T> Default for Counts<T> {
    fn default() -> Counts<T> {
        Counts { counts: BTreeMap::new(), apart: 0 }
    }
}

impl<T: Countable> Counts<T> {
    /// Adds to the count of a value.
    #[inline]
    pub fn add(&mut self, value: &T::Given, count: i64) {
        match self.counts.get_mut(value) {
            Some(known) if *known + count != 0 => *known += count,
            Some(_) => {
                if let Some((value, _)) = self.counts.remove_entry(value) {
                    self.apart -= value.bytes_apart();
                }
            }
            None if count != 0 => {
                let value = T::keep(value);
                self.apart += value.bytes_apart();
                self.counts.insert(value, count);
            }
            None => {}
        }
    }

    /// Returns the values that the rows have, in their order, and how many rows have each.
    pub fn present(&self) -> impl Iterator<Item = (&T, u64)> {
        let positive = |(value, count): (_, &i64)| u64::try_from(*count).ok().map(|count| (value, count));
        self.counts.iter().filter_map(positive)
    }

    fn merge(&mut self, other: &Counts<T>) {
        other.counts.iter().for_each(|(value, count)| self.add(value.borrow(), *count));
    }

    /// Returns the stored form: each value and its count, 8 bytes little endian. `None`: no values.
    pub fn image(&self) -> Option<Vec<u8>> {
        if self.counts.is_empty() {
            return None;
        }
        let mut image = Vec::new();
        for (value, count) in &self.counts {
            value.write(&mut image);
            count.write(&mut image);
        }
        Some(image)
    }

    fn from_image(image: Option<&[u8]>) -> Result<Counts<T>, SketchError> {
        let (mut counts, mut rest) = (Counts::default(), image.unwrap_or_default());
        while !rest.is_empty() {
            let value = T::read(&mut rest).ok_or(SketchError::CountedValues)?;
            let count = i64::read(&mut rest).ok_or(SketchError::CountedValues)?;
            counts.add(value.borrow(), count);
        }
        Ok(counts)
    }

    fn bytes(&self) -> usize {
        // The nodes of the map are two thirds full on average.
        self.counts.len() * (size_of::<T>() + 8) * 3 / 2 + self.apart
    }
}

/// Returns the number that sorts like a DOUBLE; NaN is the greatest, and there is one zero.
#[inline]
pub fn sortable(value: f64) -> i64 {
    let bits = canonical(value).to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// Returns the DOUBLE of [`sortable`].
#[inline]
pub fn double_of(sortable: i64) -> f64 {
    f64::from_bits((sortable ^ ((sortable >> 63) as u64 >> 1) as i64) as u64)
}

impl CountedValues {
    /// Returns no groups of values of a type.
    pub fn new(argument: DataType) -> CountedValues {
        match argument {
            DataType::Decimal { .. } => CountedValues::Decimals(Vec::new()),
            DataType::String | DataType::Json => CountedValues::Texts(Vec::new()),
            _ => CountedValues::Longs(Vec::new()),
        }
    }

    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        match self {
            CountedValues::Longs(groups) => groups.len(),
            CountedValues::Decimals(groups) => groups.len(),
            CountedValues::Texts(groups) => groups.len(),
        }
    }

    /// Returns whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn resize(&mut self, len: usize) {
        match self {
            CountedValues::Longs(groups) => groups.resize_with(len, Counts::default),
            CountedValues::Decimals(groups) => groups.resize_with(len, Counts::default),
            CountedValues::Texts(groups) => groups.resize_with(len, Counts::default),
        }
    }

    /// Adds the values of assertions and takes those of retractions back: `selection.mask` is true of the ones and false of the
    /// others.
    pub(super) fn observe(&mut self, selection: Selection<'_>, argument: &ArrayRef) {
        let asserted = selection.mask.expect("a signed aggregate has a sign");
        let retracted = not(asserted).expect("booleans have an opposite");
        for (rows, count) in [(asserted, 1), (&retracted, -1)] {
            let selection = Selection { mask: Some(rows), ..selection };
            match self {
                CountedValues::Longs(groups) if *argument.data_type() == ArrowType::Float64 => {
                    selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                        groups[group].add(&sortable(value), count);
                    });
                }
                CountedValues::Longs(groups) => {
                    selection.for_each_ordered(argument, |group, value| groups[group].add(&value, count));
                }
                CountedValues::Decimals(groups) => {
                    selection.for_each_value::<Decimal128Type>(argument.as_primitive(), |group, value| {
                        groups[group].add(&value, count);
                    });
                }
                CountedValues::Texts(groups) => {
                    let texts = argument.as_string_view();
                    selection.for_each(|group, row| {
                        if texts.is_valid(row) {
                            groups[group].add(texts.value(row), count);
                        }
                    });
                }
            }
        }
    }

    pub(super) fn merge(&mut self, groups: &[u32], other: &CountedValues, rows: std::ops::Range<usize>) {
        match (self, other) {
            (CountedValues::Longs(ours), CountedValues::Longs(theirs)) => {
                for_each_group(groups, &theirs[rows], |group, theirs| ours[group].merge(theirs));
            }
            (CountedValues::Decimals(ours), CountedValues::Decimals(theirs)) => {
                for_each_group(groups, &theirs[rows], |group, theirs| ours[group].merge(theirs));
            }
            (CountedValues::Texts(ours), CountedValues::Texts(theirs)) => {
                for_each_group(groups, &theirs[rows], |group, theirs| ours[group].merge(theirs));
            }
            (ours, theirs) => unreachable!("values of different types: {ours:?} and {theirs:?}"),
        }
    }

    /// Reads the stored groups of values of a type.
    pub fn from_images<'a>(
        argument: DataType,
        images: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<CountedValues, SketchError> {
        Ok(match CountedValues::new(argument) {
            CountedValues::Longs(_) => CountedValues::Longs(images.map(Counts::from_image).collect::<Result<_, _>>()?),
            CountedValues::Decimals(_) => {
                CountedValues::Decimals(images.map(Counts::from_image).collect::<Result<_, _>>()?)
            }
            CountedValues::Texts(_) => CountedValues::Texts(images.map(Counts::from_image).collect::<Result<_, _>>()?),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        fn of<T: Countable>(groups: &Vec<Counts<T>>) -> usize {
            groups.capacity() * size_of::<Counts<T>>() + groups.iter().map(Counts::bytes).sum::<usize>()
        }
        match self {
            CountedValues::Longs(groups) => of(groups),
            CountedValues::Decimals(groups) => of(groups),
            CountedValues::Texts(groups) => of(groups),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_sort_like_their_numbers() {
        let values = [f64::NEG_INFINITY, -1e300, -1.5, -1e-320, 0.0, 1e-320, 2.5, f64::INFINITY, f64::NAN];
        let numbers: Vec<i64> = values.iter().map(|value| sortable(*value)).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert_eq!(sortable(-0.0), sortable(0.0));
        for value in values {
            assert_eq!(double_of(sortable(value)).to_bits(), canonical(value).to_bits());
        }
    }

    #[test]
    fn a_damaged_image_is_an_error() {
        let mut counts = Counts::<Box<str>>::default();
        counts.add("text", 3);
        let image = counts.image().expect("a value");
        for length in 1..image.len() {
            assert!(Counts::<Box<str>>::from_image(Some(&image[..length])).is_err(), "{length} bytes");
        }
        assert_eq!(Counts::from_image(Some(&image)).expect("whole"), counts);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_list(changes in prop::collection::vec(("[a-c]{0,2}", -3i64..4), 0..60), cut in 0usize..60) {
            let (mut counts, mut rest) = (Counts::<Box<str>>::default(), Counts::<Box<str>>::default());
            let mut list = BTreeMap::new();
            for (number, (text, count)) in changes.iter().enumerate() {
                if number < cut { counts.add(text, *count) } else { rest.add(text, *count) }
                *list.entry(text.clone()).or_insert(0i64) += count;
            }
            counts.merge(&rest);
            list.retain(|_, count| *count != 0);
            let expected: Vec<(String, u64)> =
                list.iter().filter(|(_, count)| **count > 0).map(|(text, count)| (text.clone(), *count as u64)).collect();
            let found: Vec<(String, u64)> = counts.present().map(|(text, count)| (text.to_string(), count)).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(counts.counts.len(), list.len());
            prop_assert_eq!(counts.apart, list.keys().map(String::len).sum::<usize>());
            prop_assert_eq!(Counts::from_image(counts.image().as_deref()).expect("its own image"), counts);
        }
    }
}
