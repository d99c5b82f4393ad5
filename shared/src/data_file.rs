//! Describes one Parquet file of a table: its path, its date, its size and the notes of its writer.
//!
//! The `lake` crate reads these from the Delta log and writes them to it; other crates only pass them on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::date_partition::DatePartition;

/// One Parquet file of a table, written or committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Relative to the table.
    pub path: String,
    /// The date all its rows belong to.
    pub partition: DatePartition,
    pub size_bytes: i64,
    pub rows: i64,
    /// What the writer noted on the file; kept in the Delta log.
    pub tags: BTreeMap<String, String>,
    /// Delta's statistics: number of records, smallest and largest values, nulls.
    pub stats_json: Option<String>,
}
