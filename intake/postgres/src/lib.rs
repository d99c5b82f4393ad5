//! Reads outboxes in PostgreSQL, over ordinary connections.
//!
//! It knows nothing about streams or the log. [`OutboxReader`] is what a reader of events needs; [`SlotReader`] implements it
//! with logical decoding, [`PollingReader`] with queries. [`settings`] describes how a database is reached.

mod catalog;
mod error;
mod lsn;
mod pgoutput;
mod polling_reader;
mod reader;
mod session;
pub mod settings;
mod slot_reader;
mod sql;
mod tls;

pub use error::OutboxError;
pub use polling_reader::{PolledTable, PollingReader};
pub use reader::{OutboxReader, OutboxRow, ReadEnd, ReadRows, Start};
pub use settings::ConnectionSettings;
pub use slot_reader::{SlotContent, SlotNames, SlotReader};
