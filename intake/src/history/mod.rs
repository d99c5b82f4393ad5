//! Writes historical events straight into the archive, bypassing the log and the speed layer, each exactly once.
//!
//! [`mod@identity`] identifies input files, [`writer`] commits events, [`parts`] divides them into files, and [`watch`]
//! counts them for a running server. Their positions are in [`shared::ids::Partition::HISTORY`], dense in the order of
//! ingestion. The end of that partition and the progress of each input file are transactions of the archive's table:
//! they move in the same commit that adds the rows. So a process that is killed at any moment continues where it was,
//! and of two that commit at the same time one has to assign new positions to its rows.

mod identity;
mod parts;
mod watch;
mod writer;

pub use identity::identity;
pub use watch::HistoryWatch;
pub use writer::{
    Chunk, CommittedChunk, DONE, FileProgress, HistoryError, HistorySettings, HistoryWriter, ProgressChange,
};
