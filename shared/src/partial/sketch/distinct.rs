//! Counts the different values of a group: exactly while they are few, then with HyperLogLog.
//!
//! A large group also keeps a certain lower and upper bound. An exact count from batch is both at
//! once; a few events on top of a million then change the result by a few, not by the sketch's 3 %. Source of
//! the sketch: Flajolet, Fusy, Gandouet, Meunier 2007, "HyperLogLog: the analysis of a near-optimal cardinality estimation
//! algorithm"; estimator and bounds are those of Apache DataSketches.

use std::sync::Arc;

use datasketches::hll::HllSketch;
use hashbrown::HashTable;

use super::hll::{self, REGISTERS, Registers};
use super::{SketchError, Width, reserve_one};
use crate::view::Precision;

/// Values up to which a group is exact: 1 KiB, a quarter of the sketch.
pub const SMALL_MAX: usize = 64;

/// The library's intervals are this much too narrow to be sure of 95 %: measured, they held 94.3 % of 1500 times for a
/// million values.
const MARGIN: f64 = 1.1;

/// The state of one group.
#[derive(Debug, Clone)]
pub enum Distinct {
    /// The hashes of all values, ascending.
    Small(Vec<u128>),
    /// The hashes of all values, however many.
    Whole(Box<HashTable<u128>>),
    Large(Arc<Large>),
}

/// Registers, and what is certain beside them.
#[derive(Debug, Clone)]
pub struct Large {
    registers: Registers,
    at_least: u64,
    at_most: u64,
}

/// A count of different values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    pub count: u64,
    /// `None`: the count is exact.
    pub range: Option<(u64, u64)>,
}

impl Default for Distinct {
    fn default() -> Distinct {
        Distinct::Small(Vec::new())
    }
}

impl Distinct {
    /// Returns whether the group has no values.
    pub fn is_empty(&self) -> bool {
        matches!(self, Distinct::Small(hashes) if hashes.is_empty())
    }

    /// Adds the value with this hash.
    #[inline]
    pub fn insert(&mut self, hash: u128, precision: Precision) {
        match self {
            Distinct::Small(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    if hashes.len() < SMALL_MAX {
                        reserve_one(hashes);
                        hashes.insert(at, hash);
                    } else {
                        *self = grown(hashes, hash, precision);
                    }
                }
            }
            Distinct::Whole(table) => insert_whole(table, hash),
            Distinct::Large(large) => Arc::make_mut(large).insert(hash),
        }
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Distinct, precision: Precision) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = match other {
                Distinct::Whole(table) if precision == Precision::Sketch => bounded(table),
                other => other.clone(),
            };
            return;
        }
        match (&mut *self, other) {
            (Distinct::Large(large), Distinct::Large(theirs)) => Arc::make_mut(large).unite(theirs),
            (Distinct::Large(large), Distinct::Small(hashes)) => Arc::make_mut(large).extend(hashes),
            (Distinct::Large(large), Distinct::Whole(table)) => Arc::make_mut(large).extend(table.iter()),
            (_, Distinct::Small(hashes)) => hashes.iter().for_each(|hash| self.insert(*hash, precision)),
            (_, Distinct::Whole(table)) => table.iter().for_each(|hash| self.insert(*hash, precision)),
            (ours, Distinct::Large(theirs)) => {
                let mut large = Large::clone(theirs);
                match ours {
                    Distinct::Small(hashes) => large.extend(hashes.iter()),
                    Distinct::Whole(table) => large.extend(table.iter()),
                    Distinct::Large(_) => unreachable!("two large groups are merged above"),
                }
                *self = Distinct::Large(Arc::new(large));
            }
        }
    }

    /// The count, and the interval around it where it is not exact.
    pub fn estimate(&self, width: Width) -> Estimate {
        let large = match self {
            Distinct::Small(hashes) => return Estimate { count: hashes.len() as u64, range: None },
            Distinct::Whole(table) => return Estimate { count: table.len() as u64, range: None },
            Distinct::Large(large) => large,
        };
        if large.at_least == large.at_most {
            return Estimate { count: large.at_least, range: None };
        }
        let sketch = HllSketch::deserialize(&hll::image_of_registers(&large.registers))
            .expect("an image of our own can be read");
        // Only a value of its own makes a register nonzero.
        let at_least = large.at_least.max(large.registers.iter().filter(|value| **value > 0).count() as u64);
        let certain = |count: f64| (count as u64).clamp(at_least, large.at_most);
        let (estimate, deviations) = (sketch.estimate(), width.deviations());
        let low = certain((estimate - MARGIN * (estimate - sketch.lower_bound(deviations))).floor());
        let high = certain((estimate + MARGIN * (sketch.upper_bound(deviations) - estimate)).ceil());
        let count = certain(estimate.round());
        Estimate { count, range: Some((low, high)) }
    }

    /// The DataSketches image, HLL_8 with 2^12 registers; `None` if nothing has been seen.
    pub fn image(&self) -> Option<Vec<u8>> {
        match self {
            Distinct::Small(hashes) => (!hashes.is_empty()).then(|| hll::image_of_hashes(hashes)),
            Distinct::Whole(table) => {
                let mut registers = [0; REGISTERS];
                table.iter().for_each(|hash| _ = hll::enter(&mut registers, hll::coupon(*hash)));
                Some(hll::image_of_registers(&registers))
            }
            Distinct::Large(large) => Some(hll::image_of_registers(&large.registers)),
        }
    }

    /// The hashes of all values of a small group, 16 bytes each, little endian.
    pub fn hashes(&self) -> Option<Vec<u8>> {
        match self {
            Distinct::Small(hashes) if !hashes.is_empty() => {
                Some(hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect())
            }
            _ => None,
        }
    }

    /// Reads a stored state: the image, the hashes of a small group, the exact count if there is one.
    pub fn from_stored(
        image: Option<&[u8]>,
        hashes: Option<&[u8]>,
        exact: Option<i64>,
    ) -> Result<Distinct, SketchError> {
        if let Some(bytes) = hashes {
            let mut hashes: Vec<u128> =
                bytes.chunks_exact(16).map(|b| u128::from_le_bytes(b.try_into().expect("16 bytes"))).collect();
            hashes.sort_unstable();
            hashes.dedup();
            return Ok(Distinct::Small(hashes));
        }
        let Some(image) = image else { return Ok(Distinct::default()) };
        let (at_least, at_most) = match exact.and_then(|count| u64::try_from(count).ok()) {
            Some(count) => (count, count),
            None => (0, u64::MAX),
        };
        Ok(Distinct::Large(Arc::new(Large { registers: *hll::registers_of_image(image)?, at_least, at_most })))
    }

    /// Memory held outside of the value itself, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Distinct::Small(hashes) => hashes.capacity() * 16,
            Distinct::Whole(table) => table.allocation_size(),
            Distinct::Large(_) => size_of::<Large>() + 16,
        }
    }
}

impl PartialEq for Distinct {
    fn eq(&self, other: &Distinct) -> bool {
        let same = |table: &HashTable<u128>, hashes: &[u128]| {
            table.len() == hashes.len() && hashes.iter().all(|hash| table.find(*hash as u64, |h| h == hash).is_some())
        };
        match (self, other) {
            (Distinct::Small(a), Distinct::Small(b)) => a == b,
            (Distinct::Whole(a), Distinct::Whole(b)) => same(a, &b.iter().copied().collect::<Vec<_>>()),
            (Distinct::Large(a), Distinct::Large(b)) => a.registers == b.registers,
            _ => false,
        }
    }
}

impl Large {
    #[inline]
    fn insert(&mut self, hash: u128) {
        let is_new = hll::enter(&mut self.registers, hll::coupon(hash));
        self.at_most = self.at_most.saturating_add(1);
        self.at_least += u64::from(is_new);
    }

    /// Different values, which may have been seen before. Only one not seen before can raise a register.
    fn extend<'a>(&mut self, hashes: impl IntoIterator<Item = &'a u128>) {
        hashes.into_iter().for_each(|hash| self.insert(*hash));
    }

    fn unite(&mut self, other: &Large) {
        hll::unite(&mut self.registers, &other.registers);
        self.at_least = self.at_least.max(other.at_least);
        self.at_most = self.at_most.saturating_add(other.at_most);
    }
}

fn insert_whole(table: &mut HashTable<u128>, hash: u128) {
    table.entry(hash as u64, |h| *h == hash, |h| *h as u64).or_insert(hash);
}

/// A small group with one value too many.
#[cold]
fn grown(hashes: &[u128], hash: u128, precision: Precision) -> Distinct {
    let mut table = HashTable::with_capacity(4 * SMALL_MAX);
    hashes.iter().chain([&hash]).for_each(|hash| insert_whole(&mut table, *hash));
    match precision {
        Precision::Exact => Distinct::Whole(Box::new(table)),
        Precision::Sketch => bounded(&table),
    }
}

/// Some values in bounded memory, and how many they are.
fn bounded(table: &HashTable<u128>) -> Distinct {
    if table.len() <= SMALL_MAX {
        let mut hashes: Vec<u128> = table.iter().copied().collect();
        hashes.sort_unstable();
        return Distinct::Small(hashes);
    }
    let mut large = Large { registers: [0; REGISTERS], at_least: 0, at_most: 0 };
    large.extend(table.iter());
    (large.at_least, large.at_most) = (table.len() as u64, table.len() as u64);
    Distinct::Large(Arc::new(large))
}
