//! Keeps values of groups for measures that need them: all of small groups, a DataSketches sketch of large ones.
//!
//! Batch keeps all values. One file per measure: [`distinct`], [`percentile`], [`top_k`]; [`hash`] defines the hashed bits and
//! [`hll`] the registers as other libraries read them. `docs/accuracy.md` says which sketch with which error, and why.
//!
//! Laws: merging an empty state changes nothing; an exact state stays exact while it fits its limits, in any order; a sketch
//! that batch stored with its exact value keeps that value until something is added.

pub mod distinct;
pub mod hash;
pub mod hll;
pub mod listing;
pub mod percentile;
#[cfg(test)]
mod tests;
pub mod top_k;

use datasketches::common::NumStdDev;

/// The reason why a stored state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SketchError {
    #[error("could not read a stored sketch: {0}")]
    Image(#[from] datasketches::error::Error),
    #[error("a stored sketch has {found}, expected {wanted}")]
    OtherForm { found: String, wanted: &'static str },
    #[error("a stored sum has {0} bytes, not 32")]
    SumLength(usize),
    #[error("stored values and their counts end too early")]
    CountedValues,
}

/// The width of an interval, in standard deviations of a normal distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 95 %: the width of shown intervals.
    Two,
    /// 99.7 %: for the parts of a composed measure, so that the union of their risks stays below 5 %.
    Three,
}

impl Width {
    fn deviations(self) -> NumStdDev {
        match self {
            Width::Two => NumStdDev::Two,
            Width::Three => NumStdDev::Three,
        }
    }
}

/// Makes room for one more item, for half as many again at most: groups are many and mostly small.
#[inline]
fn reserve_one<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        let first = (32 / size_of::<T>()).max(1);
        items.reserve_exact(first.max(items.len() / 2));
    }
}
