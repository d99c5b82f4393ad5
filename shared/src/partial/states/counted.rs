//! Counts the values of rows that can be retracted: per group, value → assertions minus retractions.
//!
//! It is how a view over a table keeps every measure that a retraction cannot be taken out of otherwise: MIN, MAX, COUNT(DISTINCT),
//! variances, percentiles, TOP_K, and with their times FIRST_VALUE and LAST_VALUE ([`TimedValues`]). Both layers keep the same, so
//! nothing is approximated; values whose counts cancel are not kept. Merging adds the counts. The state between two cuts may have
//! negative counts: of values that rows had before.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::not;
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType,
};

use super::for_each_group;
use super::selection::Selection;
use crate::double::canonical;
use crate::partial::sketch::SketchError;
use crate::types::DataType;

/// The counts of one aggregate, one entry per group, by the type of its argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Counted<L, D, T> {
    /// BOOLEAN, INT, BIGINT, DATE, TIMESTAMP, and DOUBLE as [`sortable`].
    Longs(Vec<Counts<L>>),
    /// DECIMAL (unscaled).
    Decimals(Vec<Counts<D>>),
    Texts(Vec<Counts<T>>),
}

/// Values that are counted whenever they were.
pub type CountedValues = Counted<i64, i128, Box<str>>;

/// Values that are counted with the event time of their row, in microseconds, in the order of the times.
pub type TimedValues = Counted<(i64, i64), (i64, i128), (i64, Box<str>)>;

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

impl<T: Countable> Countable for (i64, T) {
    type Given = (i64, T);

    fn keep(given: &(i64, T)) -> (i64, T) {
        given.clone()
    }

    fn bytes_apart(&self) -> usize {
        self.1.bytes_apart()
    }

    fn write(&self, image: &mut Vec<u8>) {
        self.0.write(image);
        self.1.write(image);
    }

    fn read(image: &mut &[u8]) -> Option<(i64, T)> {
        Some((i64::read(image)?, T::read(image)?))
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
    pub fn present(&self) -> impl DoubleEndedIterator<Item = (&T, u64)> {
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

impl<L: Countable, D: Countable, T: Countable> Counted<L, D, T> {
    /// Returns no groups of values of a type.
    pub fn new(argument: DataType) -> Self {
        match argument {
            DataType::Decimal { .. } => Counted::Decimals(Vec::new()),
            DataType::String | DataType::Json => Counted::Texts(Vec::new()),
            _ => Counted::Longs(Vec::new()),
        }
    }

    /// Returns the number of groups.
    pub fn len(&self) -> usize {
        match self {
            Counted::Longs(groups) => groups.len(),
            Counted::Decimals(groups) => groups.len(),
            Counted::Texts(groups) => groups.len(),
        }
    }

    /// Returns whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn resize(&mut self, len: usize) {
        match self {
            Counted::Longs(groups) => groups.resize_with(len, Counts::default),
            Counted::Decimals(groups) => groups.resize_with(len, Counts::default),
            Counted::Texts(groups) => groups.resize_with(len, Counts::default),
        }
    }

    pub(super) fn merge(&mut self, groups: &[u32], other: &Self, rows: std::ops::Range<usize>) {
        fn add<C: Countable>(ours: &mut [Counts<C>], groups: &[u32], theirs: &[Counts<C>]) {
            for_each_group(groups, theirs, |group, theirs| ours[group].merge(theirs));
        }
        match (self, other) {
            (Counted::Longs(ours), Counted::Longs(theirs)) => add(ours, groups, &theirs[rows]),
            (Counted::Decimals(ours), Counted::Decimals(theirs)) => add(ours, groups, &theirs[rows]),
            (Counted::Texts(ours), Counted::Texts(theirs)) => add(ours, groups, &theirs[rows]),
            _ => unreachable!("values of one aggregate have one type"),
        }
    }

    /// Returns the stored form of each group; `None`: it has no values.
    pub fn images(&self) -> Vec<Option<Vec<u8>>> {
        match self {
            Counted::Longs(groups) => groups.iter().map(Counts::image).collect(),
            Counted::Decimals(groups) => groups.iter().map(Counts::image).collect(),
            Counted::Texts(groups) => groups.iter().map(Counts::image).collect(),
        }
    }

    /// Reads the stored groups of values of a type.
    pub fn from_images<'a>(
        argument: DataType,
        images: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Self, SketchError> {
        Ok(match Self::new(argument) {
            Counted::Longs(_) => Counted::Longs(images.map(Counts::from_image).collect::<Result<_, _>>()?),
            Counted::Decimals(_) => Counted::Decimals(images.map(Counts::from_image).collect::<Result<_, _>>()?),
            Counted::Texts(_) => Counted::Texts(images.map(Counts::from_image).collect::<Result<_, _>>()?),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        fn of<C: Countable>(groups: &Vec<Counts<C>>) -> usize {
            groups.capacity() * size_of::<Counts<C>>() + groups.iter().map(Counts::bytes).sum::<usize>()
        }
        match self {
            Counted::Longs(groups) => of(groups),
            Counted::Decimals(groups) => of(groups),
            Counted::Texts(groups) => of(groups),
        }
    }
}

/// Calls `each` with the assertions and 1, and with the retractions and -1: `selection.mask` is true of the ones and false of the
/// others.
fn by_sign(selection: Selection<'_>, mut each: impl FnMut(Selection<'_>, i64)) {
    let asserted = selection.mask.expect("a signed aggregate has a sign");
    let retracted = not(asserted).expect("booleans have an opposite");
    for (rows, count) in [(asserted, 1), (&retracted, -1)] {
        each(Selection { mask: Some(rows), ..selection }, count);
    }
}

impl CountedValues {
    /// Adds the values of assertions and takes those of retractions back.
    pub(super) fn observe(&mut self, selection: Selection<'_>, argument: &ArrayRef) {
        by_sign(selection, |selection, count| match self {
            Counted::Longs(groups) if *argument.data_type() == ArrowType::Float64 => {
                selection.for_each_value::<Float64Type>(argument.as_primitive(), |group, value| {
                    groups[group].add(&sortable(value), count);
                });
            }
            Counted::Longs(groups) => {
                selection.for_each_ordered(argument, |group, value| groups[group].add(&value, count));
            }
            Counted::Decimals(groups) => {
                selection.for_each_value::<Decimal128Type>(argument.as_primitive(), |group, value| {
                    groups[group].add(&value, count);
                });
            }
            Counted::Texts(groups) => {
                let texts = argument.as_string_view();
                selection.for_each(|group, row| {
                    if texts.is_valid(row) {
                        groups[group].add(texts.value(row), count);
                    }
                });
            }
        });
    }
}

impl TimedValues {
    /// Adds the values of assertions with their times and takes those of retractions back. A retraction has the time of its
    /// assertion, but another position in the log, so positions cannot order rows of equal times: their values do.
    pub(super) fn observe(&mut self, selection: Selection<'_>, argument: &ArrayRef, times: &[i64]) {
        fn add<C: Countable>(
            groups: &mut [Counts<(i64, C)>],
            (selection, count): (Selection<'_>, i64),
            (argument, times): (&ArrayRef, &[i64]),
            value: impl Fn(usize) -> C,
        ) {
            selection.for_each(|group, row| {
                if argument.is_valid(row) {
                    groups[group].add(&(times[row], value(row)), count);
                }
            });
        }
        by_sign(selection, |selection, count| match self {
            Counted::Longs(groups) => {
                add(groups, (selection, count), (argument, times), sorting_values(argument));
            }
            Counted::Decimals(groups) => {
                let values = argument.as_primitive::<Decimal128Type>();
                add(groups, (selection, count), (argument, times), |row| values.value(row));
            }
            Counted::Texts(groups) => {
                let texts = argument.as_string_view();
                add(groups, (selection, count), (argument, times), |row| Box::from(texts.value(row)));
            }
        });
    }
}

/// Returns what reads the values of a column as the numbers that sort like them.
fn sorting_values(column: &ArrayRef) -> Box<dyn Fn(usize) -> i64 + '_> {
    match column.data_type() {
        ArrowType::Boolean => {
            let values = column.as_boolean();
            Box::new(move |row| i64::from(values.value(row)))
        }
        ArrowType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            Box::new(move |row| sortable(values.value(row)))
        }
        ArrowType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            Box::new(move |row| i64::from(values.value(row)))
        }
        ArrowType::Date32 => {
            let values = column.as_primitive::<Date32Type>();
            Box::new(move |row| i64::from(values.value(row)))
        }
        ArrowType::Timestamp(..) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            Box::new(move |row| values.value(row))
        }
        _ => {
            let values = column.as_primitive::<Int64Type>();
            Box::new(move |row| values.value(row))
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
        fn check<T: Countable + std::fmt::Debug>(value: &T::Given) {
            let mut counts = Counts::<T>::default();
            counts.add(value, 3);
            let image = counts.image().expect("a value");
            for length in 1..image.len() {
                assert!(Counts::<T>::from_image(Some(&image[..length])).is_err(), "{length} bytes");
            }
            assert_eq!(Counts::from_image(Some(&image)).expect("whole"), counts);
        }
        check::<Box<str>>("text");
        check::<(i64, Box<str>)>(&(-1, Box::from("text")));
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
