//! Describes a table: a stream whose events are the changes of rows, each a retraction of the row before it, an assertion of the
//! row after it, or both.
//!
//! A table is the rows that are asserted and not retracted. A retraction has the values of the row that it retracts, its event
//! time included, so in every window and group the assertions minus the retractions are the rows of the table.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What makes a stream a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowTable {
    /// Index of the column whose value names a row: never null, a STRING, INT or BIGINT.
    pub key: usize,
    pub format: ChangeFormat,
}

/// How a JSON text says what changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeFormat {
    /// The row after the change. The member `_deleted` with the value true deletes it, as a record without a value does.
    Upsert,
    /// A row change as Debezium writes it.
    Debezium,
    /// A row change that was decoded from the log of PostgreSQL: the same envelope, with a mark of values that are not known which
    /// no text of a database can be. No statement names it.
    Postgres,
}

impl RowTable {
    /// The allowed lateness of changes: longer than any two event times are apart, so no change is ever late.
    pub const LATENESS: Duration = Duration::from_secs(100_000 * 366 * 24 * 60 * 60);
    /// The member that deletes a row.
    pub const DELETED: &str = "_deleted";
}

impl ChangeFormat {
    /// The text of a value that did not change and that Debezium does not know.
    pub const UNAVAILABLE: &str = "__debezium_unavailable_value";
    /// The same for [`ChangeFormat::Postgres`]: PostgreSQL has no text with a zero.
    pub const UNCHANGED: &str = "\0unchanged";

    /// Whether a change is an envelope around the row.
    pub fn has_envelopes(self) -> bool {
        self != ChangeFormat::Upsert
    }

    /// The values of the option `format` of a table.
    pub const NAMES: [&str; 2] = ["json", "debezium-json"];

    /// Returns the format with this name.
    pub fn named(name: &str) -> Option<ChangeFormat> {
        match name {
            "json" => Some(ChangeFormat::Upsert),
            "debezium-json" => Some(ChangeFormat::Debezium),
            _ => None,
        }
    }
}

impl fmt::Display for ChangeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChangeFormat::Upsert => "json",
            ChangeFormat::Debezium => "debezium-json",
            ChangeFormat::Postgres => "decoded",
        })
    }
}
