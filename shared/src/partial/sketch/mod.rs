//! Keeps the values of a group that a single number cannot represent: all values of small groups, an Apache
//! DataSketches sketch of large ones; for batch, all values.
//!
//! One file per measure: [`distinct`], [`percentile`], [`top_k`]; [`hash`] says which bits stand for a value and
//! [`hll`] how registers look to other libraries. Which sketch with which error, and why: `docs/accuracy.md`.
//!
//! Every kind obeys the same laws: nothing merged in changes nothing; what was exact stays so while it fits its limits,
//! whatever the order; a sketch that came from batch with its exact value keeps that value until something is added.

pub mod distinct;
pub mod hash;
pub mod hll;
pub mod listing;
pub mod percentile;
#[cfg(test)]
mod tests;
pub mod top_k;

use datasketches::common::NumStdDev;

/// Why a stored state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SketchError {
    #[error("the stored sketch could not be read: {0}")]
    Image(#[from] datasketches::error::Error),
    #[error("a stored sketch has {found} of the form; states have {wanted}")]
    OtherForm { found: String, wanted: &'static str },
    #[error("a stored sum has {0} bytes, not 32")]
    SumLength(usize),
}

/// How wide an interval is, in standard deviations of a normal distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// 95 %: what answers show.
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
