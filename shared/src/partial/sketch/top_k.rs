//! Finds the most frequent values of a group: exactly while few are different, then with a frequent-items sketch.
//!
//! Source of the sketch: Anderson, Bevan, Lang, Liberty, Rhodes, Thaler 2017, "A high-performance algorithm for
//! identifying frequent items in data streams", as in Apache DataSketches. Its bounds hold for every value, always.

use std::borrow::Borrow;
use std::cmp::{Ordering, Reverse};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use datasketches::frequencies::{ErrorType, FrequentItemValue, FrequentItemsSketch};
use hashbrown::HashMap;

use super::{SketchError, reserve_one};
use crate::view::Precision;

/// Different values up to which a group is a plain list.
pub const LIST_MAX: usize = 64;
/// EventPositions of the sketch: three quarters of them are used, so that many different values are still counted exactly; beyond, a
/// count is off by at most 3.5 / 512 = 0.7 % of all values seen. 13 KiB for integers, 17 KiB and the texts for texts.
const SKETCH_PLACES: usize = 512;
/// Different values that the sketch keeps.
pub const SKETCH_ITEMS_MAX: usize = SKETCH_PLACES / 4 * 3;

/// A value that is counted.
pub trait Item: FrequentItemValue + Clone + Ord + Hash + Debug {
    /// Whether values hold memory outside of themselves.
    const HAS_BYTES: bool;

    /// Memory held outside of the value itself, in bytes.
    fn bytes(&self) -> usize;
}

impl Item for i64 {
    const HAS_BYTES: bool = false;

    fn bytes(&self) -> usize {
        0
    }
}

impl Item for String {
    const HAS_BYTES: bool = true;

    fn bytes(&self) -> usize {
        self.capacity()
    }
}

/// The state of one group.
#[derive(Debug, Clone)]
pub enum TopK<T> {
    /// All values and their counts, by value.
    List(Vec<(T, u64)>),
    /// All values and their counts, however many.
    Whole(Box<HashMap<T, u64>>),
    Large(Arc<Large<T>>),
}

/// A sketch, and the answer it stands for if that is known, as JSON.
#[derive(Debug, Clone)]
pub struct Large<T> {
    sketch: FrequentItemsSketch<T>,
    exact: Option<Arc<str>>,
    /// Bytes that the values in the sketch hold outside of it.
    item_bytes: usize,
}

/// A value, how often it was seen, and between which counts that certainly is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked<T> {
    pub value: T,
    pub count: u64,
    pub range: (u64, u64),
}

/// The most frequent values.
#[derive(Debug, Clone, PartialEq)]
pub enum Top<T> {
    /// Most frequent first; all ranges are single counts if the answer is exact.
    Items { items: Vec<Ranked<T>>, is_exact: bool },
    /// Known from batch, as JSON.
    Known(Arc<str>),
}

impl<T: Item> Default for TopK<T> {
    fn default() -> TopK<T> {
        TopK::List(Vec::new())
    }
}

impl<T: Item> TopK<T> {
    /// Returns the state of a group of `total` values, given the different ones and their counts: all of them, or
    /// [`SKETCH_ITEMS_MAX`] and one more of the most frequent. `exact` lists them, to keep beside a sketch.
    pub fn of_most_frequent(items: Vec<(T, u64)>, total: u64, exact: impl Fn(&TopK<T>) -> Arc<str>) -> TopK<T> {
        let known: u64 = items.iter().map(|(_, count)| count).sum();
        if items.len() <= LIST_MAX && known == total {
            let mut items = items;
            items.sort_unstable();
            return TopK::List(items);
        }
        let counts = items.into_iter().collect();
        let sketch = sketch_of_total(&counts, total);
        let whole = TopK::Whole(Box::new(counts));
        TopK::Large(Arc::new(Large::new(sketch, Some(exact(&whole)))))
    }

    /// Returns whether the group has no values.
    pub fn is_empty(&self) -> bool {
        matches!(self, TopK::List(items) if items.is_empty())
    }

    /// Adds `count` occurrences of a value.
    #[inline]
    pub fn insert<Q>(&mut self, value: &Q, count: u64, precision: Precision)
    where
        T: Borrow<Q>,
        Q: Ord + Hash + ToOwned<Owned = T> + ?Sized,
    {
        match self {
            TopK::List(items) => match items.binary_search_by(|(item, _)| item.borrow().cmp(value)) {
                Ok(at) => items[at].1 += count,
                Err(at) if items.len() < LIST_MAX => {
                    reserve_one(items);
                    items.insert(at, (value.to_owned(), count));
                }
                Err(_) => {
                    *self = grown(items, precision);
                    self.insert(value, count, precision);
                }
            },
            TopK::Whole(counts) => match counts.get_mut(value) {
                Some(known) => *known += count,
                None => _ = counts.insert(value.to_owned(), count),
            },
            TopK::Large(large) => {
                let large = Arc::make_mut(large);
                large.add(value, count);
            }
        }
    }

    /// Adds all values of `other`. `exact` lists all values and counts, to keep beside the sketch that replaces them.
    pub fn merge(&mut self, other: &TopK<T>, precision: Precision, exact: impl Fn(&TopK<T>) -> Arc<str>) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = match other {
                TopK::Whole(counts) if precision == Precision::Sketch && counts.len() <= LIST_MAX => {
                    let mut items: Vec<(T, u64)> = counts.iter().map(|(item, count)| (item.clone(), *count)).collect();
                    items.sort_unstable();
                    TopK::List(items)
                }
                TopK::Whole(counts) if precision == Precision::Sketch => {
                    TopK::Large(Arc::new(Large::new(sketch_of(counts), Some(exact(other)))))
                }
                other => other.clone(),
            };
            return;
        }
        match (&mut *self, other) {
            (_, TopK::List(items)) => items.iter().for_each(|(item, count)| self.insert(item, *count, precision)),
            (TopK::Large(large), TopK::Large(theirs)) => Arc::make_mut(large).unite(&theirs.sketch),
            (TopK::Large(large), TopK::Whole(counts)) => Arc::make_mut(large).unite(&sketch_of(counts)),
            (_, TopK::Whole(counts)) => {
                // In the order of the values, so that what comes of it does not depend on the order of the map.
                let mut items: Vec<(&T, u64)> = counts.iter().map(|(item, count)| (item, *count)).collect();
                items.sort_unstable();
                items.into_iter().for_each(|(item, count)| self.insert(item, count, precision));
            }
            (ours, TopK::Large(theirs)) => {
                let mut large = Large::clone(theirs);
                match ours {
                    TopK::List(items) => items.iter().for_each(|(item, count)| large.add(item, *count)),
                    TopK::Whole(counts) => large.unite(&sketch_of(counts)),
                    TopK::Large(_) => unreachable!("two sketches are merged above"),
                }
                *self = TopK::Large(Arc::new(large));
            }
        }
    }

    /// The `k` most frequent values; equal counts in the order of `compare`. `None`: of nothing.
    pub fn top(&self, k: usize, compare: impl Fn(&T, &T) -> Ordering) -> Option<Top<T>> {
        let certain = |value: &T, count: u64| Ranked { value: value.clone(), count, range: (count, count) };
        let (mut items, is_exact): (Vec<Ranked<T>>, bool) = match self {
            TopK::List(items) if items.is_empty() => return None,
            TopK::List(items) => (items.iter().map(|(item, count)| certain(item, *count)).collect(), true),
            TopK::Whole(counts) => {
                // Few of many: the rest is not copied.
                let mut all: Vec<(&T, u64)> = counts.iter().map(|(item, count)| (item, *count)).collect();
                let order = |a: &(&T, u64), b: &(&T, u64)| b.1.cmp(&a.1).then_with(|| compare(a.0, b.0));
                if all.len() > k && k > 0 {
                    all.select_nth_unstable_by(k - 1, order);
                    all.truncate(k);
                }
                (all.into_iter().map(|(item, count)| certain(item, count)).collect(), true)
            }
            TopK::Large(large) => {
                if let Some(exact) = &large.exact {
                    return Some(Top::Known(Arc::clone(exact)));
                }
                let rows = large.sketch.frequent_items_with_threshold(ErrorType::NoFalseNegatives, 0);
                let ranked = rows.into_iter().map(|row| Ranked {
                    value: row.item().clone(),
                    count: row.estimate(),
                    range: (row.lower_bound(), row.upper_bound()),
                });
                (ranked.collect(), large.sketch.maximum_error() == 0)
            }
        };
        items.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| compare(&a.value, &b.value)));
        items.truncate(k);
        Some(Top::Items { items, is_exact })
    }

    /// The DataSketches image, frequent items with 512 places; `None` if nothing has been seen.
    pub fn image(&self) -> Option<Vec<u8>> {
        match self {
            TopK::List(items) if items.is_empty() => None,
            TopK::List(items) => {
                let mut sketch = new_sketch();
                items.iter().for_each(|(item, count)| sketch.update_with_count_ref(item, *count));
                Some(sketch.serialize())
            }
            TopK::Whole(counts) => Some(sketch_of(counts).serialize()),
            TopK::Large(large) => Some(large.sketch.serialize()),
        }
    }

    /// Reads a stored state: the image, and the list as JSON if there is an exact one.
    pub fn from_stored(image: Option<&[u8]>, exact: Option<&str>) -> Result<TopK<T>, SketchError> {
        let Some(image) = image else { return Ok(TopK::default()) };
        let sketch = FrequentItemsSketch::<T>::deserialize(image)?;
        if sketch.maximum_error() > 0 || sketch.num_active_items() > LIST_MAX {
            return Ok(TopK::Large(Arc::new(Large::new(sketch, exact.map(Arc::from)))));
        }
        let rows = sketch.frequent_items_with_threshold(ErrorType::NoFalseNegatives, 0);
        let mut items: Vec<(T, u64)> = rows.into_iter().map(|row| (row.item().clone(), row.estimate())).collect();
        items.sort_unstable();
        Ok(TopK::List(items))
    }

    /// Memory held outside of the value itself, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            TopK::List(items) => {
                items.capacity() * size_of::<(T, u64)>() + items.iter().map(|(item, _)| item.bytes()).sum::<usize>()
            }
            TopK::Whole(counts) => counts.allocation_size() + counts.keys().map(Item::bytes).sum::<usize>(),
            TopK::Large(large) => {
                let exact = large.exact.as_ref().map_or(0, |exact| exact.len());
                size_of::<Large<T>>() + 16 + large.sketch.estimated_size() + large.item_bytes + exact
            }
        }
    }
}

impl<T: Item> Large<T> {
    fn new(sketch: FrequentItemsSketch<T>, exact: Option<Arc<str>>) -> Large<T> {
        let item_bytes = item_bytes(&sketch);
        Large { sketch, exact, item_bytes }
    }

    fn add<Q>(&mut self, value: &Q, count: u64)
    where
        T: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = T> + ?Sized,
    {
        self.exact = None;
        let before = self.sketch.num_active_items();
        self.sketch.update_with_count_ref(value, count);
        if !T::HAS_BYTES {
            return;
        }
        match self.sketch.num_active_items() {
            after if after > before => self.item_bytes += value.to_owned().bytes(),
            after if after == before => {}
            // The sketch has dropped rare values, as it does now and then.
            _ => self.item_bytes = item_bytes(&self.sketch),
        }
    }

    fn unite(&mut self, other: &FrequentItemsSketch<T>) {
        self.exact = None;
        self.sketch.merge(other);
        self.item_bytes = item_bytes(&self.sketch);
    }
}

/// The bytes that the values in a sketch hold outside of it. Copies them, so it is called only when many have changed.
fn item_bytes<T: Item>(sketch: &FrequentItemsSketch<T>) -> usize {
    if !T::HAS_BYTES {
        return 0;
    }
    let rows = sketch.frequent_items_with_threshold(ErrorType::NoFalseNegatives, 0);
    rows.iter().map(|row| row.item().bytes()).sum()
}

impl<T: Item> PartialEq for TopK<T> {
    fn eq(&self, other: &TopK<T>) -> bool {
        match (self, other) {
            (TopK::List(a), TopK::List(b)) => a == b,
            (TopK::Whole(a), TopK::Whole(b)) => a == b,
            (TopK::Large(a), TopK::Large(b)) => {
                let all = |sketch: &FrequentItemsSketch<T>| {
                    let rows = sketch.frequent_items_with_threshold(ErrorType::NoFalseNegatives, 0);
                    let mut rows: Vec<_> = rows.iter().map(|row| (row.item().clone(), row.upper_bound())).collect();
                    rows.sort_unstable();
                    (rows, sketch.total_weight(), sketch.maximum_error())
                };
                a.exact == b.exact && all(&a.sketch) == all(&b.sketch)
            }
            _ => false,
        }
    }
}

fn new_sketch<T: Item>() -> FrequentItemsSketch<T> {
    FrequentItemsSketch::new(SKETCH_PLACES).expect("the number of places is a power of two in range")
}

/// The sketch of values whose counts are all known: the most frequent with their counts, and the count of the next as
/// the error. That is the best that fits, where taking in the values one by one gives the best that one pass can.
fn sketch_of<T: Item>(counts: &HashMap<T, u64>) -> FrequentItemsSketch<T> {
    sketch_of_total(counts, counts.values().sum())
}

/// The same for the most frequent values, one more than fit, of `total` ones.
fn sketch_of_total<T: Item>(counts: &HashMap<T, u64>, total: u64) -> FrequentItemsSketch<T> {
    let mut items: Vec<(&T, u64)> = counts.iter().map(|(item, count)| (item, *count)).collect();
    items.sort_unstable_by_key(|(item, count)| (Reverse(*count), *item));
    let mut sketch = new_sketch();
    let error = items.get(sketch.maximum_map_capacity()).map_or(0, |(_, count)| *count);
    for (item, count) in items.iter().take_while(|(_, count)| *count > error) {
        sketch.update_with_count_ref(*item, count - error);
    }
    if error == 0 {
        return sketch;
    }
    if sketch.is_empty() {
        // All counts are equal, and none is worth a place: nothing is known but the error.
        sketch.update_with_count_ref(items[0].0, 1);
    }
    // The image has the number of all values and the error behind its first 16 bytes.
    let mut image = sketch.serialize();
    image[16..24].copy_from_slice(&total.to_le_bytes());
    image[24..32].copy_from_slice(&error.to_le_bytes());
    FrequentItemsSketch::deserialize(&image).expect("an image with another error can be read")
}

/// A list with one value too many.
#[cold]
fn grown<T: Item>(items: &mut Vec<(T, u64)>, precision: Precision) -> TopK<T> {
    let items = std::mem::take(items);
    match precision {
        Precision::Exact => TopK::Whole(Box::new(items.into_iter().collect())),
        Precision::Sketch => {
            let mut sketch = new_sketch();
            items.into_iter().for_each(|(item, count)| sketch.update_with_count(item, count));
            TopK::Large(Arc::new(Large::new(sketch, None)))
        }
    }
}
