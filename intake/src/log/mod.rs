//! Stores the events of a partition durably: a segmented, checksummed log of Arrow batches with group commit.
//!
//! It decides nothing about duplicates, lateness or who may write: `partition` does.
//! Reading order: [`frame`] and [`segment`] are the bytes, [`mod@columns`] the rows in them; [`append`] writes, [`recover`]
//! opens after a crash, [`rewrite`] repeats writes in doubt, [`replay`] reads; [`disk`] makes the file calls and [`io`]
//! judges their errors, [`store`] is what they share and deletes old segments; [`mod@inspect`] reads a log that it does not
//! open. [`tombstones`] says which entities are erased: [`blank`] takes their events out of rows, [`mod@scrub`] out of segments.

mod append;
mod blank;
mod columns;
mod cursor;
mod disk;
mod error;
mod frame;
mod inspect;
mod io;
mod recover;
mod replay;
mod rewrite;
mod scrub;
mod segment;
mod settings;
mod source_position;
mod store;
mod tombstones;
mod totals;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use append::{Appender, open};
pub use disk::{FolderLock, LocalDisk, LogDisk, LogFile, OpenFile};
pub use error::{CommitError, LogError};
pub use inspect::{LogContents, inspect};
pub use io::{Exhausted, IoFaults, IoStep, local_disk, with_faults};
pub use replay::MatchingRows;
pub(crate) use replay::{batches, columns, matching};
pub(crate) use scrub::scrub;
pub use settings::LogSettings;
pub use source_position::SourcePosition;
pub use store::Backlog;
pub(crate) use store::SegmentStore;
pub use tombstones::{EntityHash, Tombstone, Tombstones};
pub use totals::Totals;
