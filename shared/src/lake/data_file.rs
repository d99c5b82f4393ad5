//! What is one Parquet file of a table? Its place, its date, its size and what the log says of it.

use std::collections::{BTreeMap, HashMap};

use deltalake_core::kernel::{Add, LogicalFileView, Remove};

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, SystemClock};
use crate::time::Day;

/// One Parquet file of a table, written or committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Relative to the table.
    pub path: String,
    /// The date all its rows belong to; none where the table's partition column is null.
    pub partition: Option<Day>,
    pub size_bytes: i64,
    pub rows: i64,
    /// What the writer noted on the file; kept in the Delta log.
    pub tags: BTreeMap<String, String>,
    /// Delta's statistics: number of records, smallest and largest values, nulls.
    pub stats_json: Option<String>,
}

impl DataFile {
    pub(super) fn of_view(view: &LogicalFileView, partition_column: &str) -> DataFile {
        // The view keeps its tags to itself; the action it was read from is the public way to them.
        #[expect(deprecated)]
        let add = view.add_action();
        let day = add.partition_values.get(partition_column).cloned().flatten();
        let tags = add.tags.unwrap_or_default();
        DataFile {
            partition: day.as_deref().and_then(Day::parse),
            size_bytes: add.size,
            rows: view.num_records().and_then(|rows| i64::try_from(rows).ok()).unwrap_or(0),
            tags: tags.into_iter().filter_map(|(tag, value)| Some((tag, value?))).collect(),
            stats_json: add.stats,
            path: add.path,
        }
    }

    pub(super) fn add(&self, partition_column: &str) -> Add {
        let tags = self.tags.iter().map(|(tag, value)| (tag.clone(), Some(value.clone()))).collect();
        Add {
            path: self.path.clone(),
            partition_values: self.partition_values(partition_column),
            size: self.size_bytes,
            modification_time: now_ms(),
            data_change: true,
            stats: self.stats_json.clone(),
            tags: Some(tags),
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }
    }

    pub(super) fn remove(&self, partition_column: &str) -> Remove {
        Remove {
            path: self.path.clone(),
            data_change: true,
            deletion_timestamp: Some(now_ms()),
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition_values(partition_column)),
            size: Some(self.size_bytes),
            ..Remove::default()
        }
    }

    fn partition_values(&self, partition_column: &str) -> HashMap<String, Option<String>> {
        HashMap::from([(partition_column.to_owned(), self.partition.map(|day| day.to_string()))])
    }
}

/// Delta stamps files in milliseconds; nothing of ours depends on it.
fn now_ms() -> i64 {
    SystemClock.now().0.div_euclid(1_000)
}
