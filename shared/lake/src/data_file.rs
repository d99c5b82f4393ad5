//! Converts [`DataFile`] to and from the actions of a Delta log.

use std::collections::HashMap;

use arrow::datatypes::Schema;
use deltalake_core::kernel::{Add, LogicalFileView, Remove};
use shared::clock::{Clock, SystemClock};
use shared::data_file::DataFile;
use shared::date_partition::DatePartition;
use shared::partial::codec::{WINDOW_DATE, WINDOW_START};
use shared::time::Day;

use super::LakeError;
use super::readable::check_file;

/// Returns what a null in the partition column of a table with these columns means. The table of a view without window
/// starts has one window, over all time.
pub(crate) fn undated(columns: &Schema, partition_column: &str) -> DatePartition {
    let has_one_window = partition_column == WINDOW_DATE && columns.index_of(WINDOW_START).is_err();
    if has_one_window { DatePartition::AllTime } else { DatePartition::Undated }
}

/// Reads a file's entry in the Delta log. `undated` is the partition of a file without a day.
///
/// # Errors
/// If another program wrote an entry that this one would read wrongly.
pub(crate) fn from_log(
    view: &LogicalFileView,
    table: &str,
    partition_column: &str,
    undated: DatePartition,
) -> Result<DataFile, LakeError> {
    // The view keeps its tags private; the action it was read from is the public access to them.
    #[expect(deprecated)]
    let add = view.add_action();
    // Statistics that another program wrote may be anything; without statistics a file counts as empty.
    let rows = view.num_records().map_or(0, |rows| i64::try_from(rows).unwrap_or(i64::MAX));
    check_file(table, &add, rows, partition_column)?;
    let day = add.partition_values.get(partition_column).cloned().flatten();
    let tags = add.tags.unwrap_or_default();
    Ok(DataFile {
        partition: day.as_deref().and_then(Day::parse).map_or(undated, DatePartition::Day),
        size_bytes: add.size,
        rows,
        tags: tags.into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect(),
        stats_json: add.stats,
        path: add.path,
    })
}

/// Returns the Delta action that adds `file`. `data_change` says whether the table's rows change.
pub(crate) fn add_action(file: &DataFile, partition_column: &str, data_change: bool) -> Add {
    let tags = file.tags.iter().map(|(tag, value)| (tag.clone(), Some(value.clone()))).collect();
    Add {
        path: file.path.clone(),
        partition_values: partition_values(file, partition_column),
        size: file.size_bytes,
        modification_time: now_ms(),
        data_change,
        stats: file.stats_json.clone(),
        tags: Some(tags),
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    }
}

/// Returns the Delta action that removes `file`. `data_change` says whether the table's rows change.
pub(crate) fn remove_action(file: &DataFile, partition_column: &str, data_change: bool) -> Remove {
    Remove {
        path: file.path.clone(),
        data_change,
        deletion_timestamp: Some(now_ms()),
        extended_file_metadata: Some(true),
        partition_values: Some(partition_values(file, partition_column)),
        size: Some(file.size_bytes),
        ..Remove::default()
    }
}

fn partition_values(file: &DataFile, partition_column: &str) -> HashMap<String, Option<String>> {
    HashMap::from([(partition_column.to_owned(), file.partition.day().map(|day| day.to_string()))])
}

/// Delta stamps files in milliseconds; Trueup does not depend on the stamps.
fn now_ms() -> i64 {
    SystemClock.now().0.div_euclid(1_000)
}
