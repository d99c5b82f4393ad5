//! Reads a table as of one version: its columns, its files, and what Trueup noted in its properties.

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;
use deltalake_core::DeltaTable;
use serde::de::DeserializeOwned;

use super::log_keys::{DEDUP_HORIZON_KEY, DROPPED_KEY, LOST_KEY};
use super::readable::{check_protocol, checked_version, guarded_now};
use super::{DataFile, DroppedEvents, LakeError, LostEvents, data_file};

/// A table as of one version.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSnapshot {
    pub version: i64,
    /// The table's columns with the partition column, as readers of the files see them (strings as `Utf8`).
    pub schema: SchemaRef,
    /// All files, by path.
    pub files: Vec<DataFile>,
    /// Everything that retention has dropped; `None`: nothing yet.
    pub dropped: Option<DroppedEvents>,
    /// The events of files that are lost; `None`: none are.
    pub lost: Option<LostEvents>,
    /// The smallest number of events among which intake ever removed duplicates; `None`: it was never noted.
    pub dedup_horizon_events: Option<u64>,
}

impl TableSnapshot {
    /// Returns whether there is a file at `path`.
    pub fn holds(&self, path: &str) -> bool {
        self.files.binary_search_by(|file| file.path.as_str().cmp(path)).is_ok()
    }

    /// Reads a loaded state.
    ///
    /// # Errors
    /// If another program wrote what cannot be read: see [`super::readable`].
    pub(super) fn of(delta: &DeltaTable, table: &str, partition_column: &str) -> Result<TableSnapshot, LakeError> {
        guarded_now(table, || TableSnapshot::read(delta, table, partition_column))
    }

    fn read(delta: &DeltaTable, table: &str, partition_column: &str) -> Result<TableSnapshot, LakeError> {
        let state = delta.snapshot()?;
        check_protocol(table, state)?;
        let schema = state.snapshot().arrow_schema();
        let undated = data_file::undated(&schema, partition_column);
        let from_log = |view| data_file::from_log(&view, table, partition_column, undated);
        let mut files = state.log_data().iter().map(from_log).collect::<Result<Vec<DataFile>, LakeError>>()?;
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let properties = state.metadata().configuration();
        Ok(TableSnapshot {
            version: checked_version(table, Some(state.version()))?,
            schema,
            files,
            dropped: property(properties, table, DROPPED_KEY)?,
            lost: property(properties, table, LOST_KEY)?,
            dedup_horizon_events: property(properties, table, DEDUP_HORIZON_KEY)?,
        })
    }
}

/// Reads a property of the table, written as JSON; `None`: it is not set.
fn property<T: DeserializeOwned>(
    properties: &HashMap<String, String>,
    table: &str,
    key: &str,
) -> Result<Option<T>, LakeError> {
    let read = properties.get(key).map(|text| serde_json::from_str(text)).transpose();
    read.map_err(|error| {
        let reason = format!("cannot read the table property \"{key}\": {error}");
        LakeError::Schema { table: table.to_owned(), reason }
    })
}
