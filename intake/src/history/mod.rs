//! How do old events enter? Straight into the archive, past the log and the speed layer, each exactly once.
//!
//! [`mod@identity`] tells input files apart, [`writer`] commits events, [`parts`] is how they become files, [`watch`] how a running server learns how many there are.
//! Their places are in [`shared::ids::Partition::HISTORY`], dense in the order taken in. How far the partition goes, and
//! how far each input file has been taken in, are transactions of the archive's table: they move in the very commit that
//! adds the rows. So a process that is killed at any moment goes on where it was, and of two that work at once one has to
//! give its rows new places.

mod identity;
mod parts;
mod watch;
mod writer;

pub use identity::identity;
pub use watch::HistoryWatch;
pub use writer::{Chunk, DONE, HistoryError, HistorySettings, HistoryWriter, Standing, Step, Taken};
