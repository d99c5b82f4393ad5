//! Describes a table in a PostgreSQL database that a table of Trueup follows: its rows, and then each of their changes.

use serde::{Deserialize, Serialize};

use super::event_source::RecordPart;
use super::outbox::OutboxSlot;
use super::transactions::Transactions;
use crate::ids::Name;

/// The table that is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseTable {
    /// The connection of the settings.
    pub connection: Name,
    /// `NAME` or `SCHEMA.NAME`.
    pub name: String,
    pub slot: OutboxSlot,
    #[serde(default)]
    pub transactions: Transactions,
}

impl DatabaseTable {
    /// The table in a few words.
    pub fn describe(&self) -> String {
        format!("table {}", self.name)
    }

    /// Whether changes of the table have the part.
    pub fn has(part: &RecordPart) -> bool {
        matches!(part, RecordPart::Timestamp | RecordPart::Operation | RecordPart::SourceTimestamp)
    }
}
