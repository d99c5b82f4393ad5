//! How do a partition's events survive? A segmented, checksummed log of Arrow batches with group commit.
//!
//! It stores and gives back; it decides nothing about duplicates, lateness or who may write: that is `partition`.
//! Reading order: [`frame`] and [`segment`] are the bytes, [`columns`] the rows in them; [`append`] writes, [`recover`]
//! opens after a crash, [`replay`] reads, [`store`] is what they share and where old segments go;
//! [`mod@look`] sees a log from outside.

mod append;
mod columns;
mod cursor;
mod error;
mod frame;
mod inspect;
mod recover;
mod replay;
mod segment;
mod settings;
mod store;
mod totals;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use append::{Appender, open};
pub use error::{CommitError, LogError};
pub use inspect::{LogContents, look};
pub(crate) use replay::{batches, column};
pub use settings::{IoFaults, IoStep, LogSettings};
pub(crate) use store::Store;
pub use totals::Totals;
