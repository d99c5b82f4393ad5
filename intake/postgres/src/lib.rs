//! Reads outboxes and the changes of tables in PostgreSQL, over ordinary connections.
//!
//! It knows nothing about streams or the log. [`OutboxReader`] is what a reader of events needs; [`SlotReader`] implements it
//! with logical decoding, [`PollingReader`] with queries, and [`TableReader`] for the rows of a table and their changes.
//! [`settings`] describes how a database is reached.

mod catalog;
mod columns;
mod error;
mod followed;
mod lsn;
mod pgoutput;
mod polling_reader;
mod reader;
mod seen;
mod session;
pub mod settings;
mod slot;
mod slot_reader;
mod sql;
mod table_reader;
mod tls;

pub use columns::{ColumnUse, TakenColumn};
pub use error::OutboxError;
pub use polling_reader::{PolledTable, PollingReader};
pub use reader::{OutboxReader, OutboxRow, ReadEnd, ReadRows, RowEffect, Start};
pub use settings::ConnectionSettings;
pub use slot::SlotNames;
pub use slot_reader::{SlotContent, SlotReader};
pub use table_reader::{FollowedTable, TableReader};
