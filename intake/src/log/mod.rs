//! Stores the events of a partition durably: a segmented, checksummed log of Arrow batches with group commit.
//!
//! It decides nothing about duplicates, lateness or who may write: `partition` does.
//! Reading order: [`frame`] and [`segment`] are the bytes, [`mod@columns`] the rows in them; [`append`] writes, [`recover`]
//! opens after a crash, [`rewrite`] repeats writes in doubt, [`replay`] reads; [`disk`] makes the file calls and [`io`]
//! judges their errors, [`store`] is what they share and deletes old segments; [`mod@inspect`] reads a log that it does not
//! open.

mod append;
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
mod segment;
mod settings;
mod store;
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
pub use settings::LogSettings;
pub use store::Backlog;
pub(crate) use store::SegmentStore;
pub use totals::Totals;
