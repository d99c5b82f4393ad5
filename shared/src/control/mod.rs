//! Defines how batch runs and streams are observed and controlled: plain status values and the traits that provide them.
//!
//! The shapes are those of the HTTP contract. [`runs`]: runs, vacuum, compaction. [`streams`]: partitions, lateness, quarantine.

mod runs;
mod streams;

pub use self::runs::*;
pub use self::streams::*;
