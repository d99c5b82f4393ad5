//! Describes a table: a stream whose events are the changes of rows, each a retraction of the row before it, an assertion of the
//! row after it, or both.
//!
//! A table is the rows that are asserted and not retracted. A retraction has the values of the row that it retracts, its event
//! time included, so in every window and group the assertions minus the retractions are the rows of the table.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::KEY_COLUMNS_MAX;

/// What makes a stream a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowTable {
    pub key: KeyColumns,
    pub format: ChangeFormat,
}

/// The indexes of the columns whose values together name a row, in the order of the key: never null, each a STRING, INT or BIGINT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumns {
    /// Those behind `count` are 0.
    indexes: [usize; KEY_COLUMNS_MAX],
    count: usize,
}

impl KeyColumns {
    /// Returns the key of these columns; `None`: they are none, or too many.
    pub fn new(columns: &[usize]) -> Option<KeyColumns> {
        let mut indexes = [0; KEY_COLUMNS_MAX];
        indexes.get_mut(..columns.len())?.copy_from_slice(columns);
        (!columns.is_empty()).then_some(KeyColumns { indexes, count: columns.len() })
    }

    /// Returns the first column.
    pub fn first(&self) -> usize {
        self.indexes[0]
    }

    /// Returns the column, if it is the only one.
    pub fn only(&self) -> Option<usize> {
        (self.count == 1).then_some(self.indexes[0])
    }
}

impl Deref for KeyColumns {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.indexes[..self.count]
    }
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
