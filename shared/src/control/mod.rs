//! Defines how batch runs, streams and alerts are observed and controlled: plain status values and the traits that provide them.
//!
//! The shapes are those of the HTTP contract. [`runs`]: runs, vacuum, compaction. [`streams`]: partitions, lateness, quarantine.
//! [`alerts`]: raised alerts. [`erasures`]: erased entities. [`sinks`]: views
//! that are written to topics.

mod alerts;
mod erasures;
mod runs;
mod sinks;
mod streams;

pub use self::alerts::*;
pub use self::erasures::*;
pub use self::runs::*;
pub use self::sinks::*;
pub use self::streams::*;
