//! How are runs and streams watched and steered? Plain status values and the doors behind which they are kept;
//! the shapes are those of the HTTP contract.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::compare::Comparison;
use crate::handoff::HandoffError;
use crate::ids::{Offset, Partition, StreamName, ViewName};
use crate::time::Micros;
use crate::version::BatchVersion;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Queued,
    Running,
    Published,
    Failed,
    Cancelled,
}

impl RunState {
    /// Will the run change no more?
    pub fn is_over(self) -> bool {
        matches!(self, RunState::Published | RunState::Failed | RunState::Cancelled)
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunProgress {
    /// Window dates to recompute, and those done.
    pub dates: u64,
    pub dates_done: u64,
    /// Events read.
    pub rows: u64,
    /// Bytes of the archive files to read.
    pub bytes: u64,
}

/// One batch run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub id: String,
    pub view: ViewName,
    pub state: RunState,
    pub full: bool,
    /// What asked for it: `schedule`, `request`, `definition`.
    pub trigger: String,
    pub cut: Option<BTreeMap<Partition, Offset>>,
    pub version: Option<i64>,
    pub queued_at: Micros,
    pub started_at: Option<Micros>,
    pub finished_at: Option<Micros>,
    pub progress: RunProgress,
    pub error: Option<String>,
}

/// Why a run could not be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("there is no view called \"{0}\"")]
    UnknownView(String),
    #[error("there is no run \"{0}\"")]
    UnknownRun(String),
    #[error("the batch layer is stopping")]
    Stopping,
}

/// The batch layer, as those see it who steer it.
pub trait Runs: Send + Sync {
    /// Asks for a run. A run of the view that is already waiting is returned instead of a second one.
    fn request(&self, view: &str, full: bool) -> Result<Run, RunError>;
    /// Runs of this process, newest first.
    fn list(&self) -> Vec<Run>;
    fn get(&self, id: &str) -> Option<Run>;
    /// Stops a waiting or running run; one that is over stays as it is.
    fn cancel(&self, id: &str) -> Result<Run, RunError>;
    /// When the schedule starts the view's next run.
    fn next_run(&self, view: &str) -> Option<Micros>;
    /// The view's versions that can still be told of, newest first (at most `limit`).
    fn versions(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<BatchVersion>, HandoffError>>;
    /// The reconciliation of a version; `None` asks for the latest.
    fn comparison(&self, view: &str, version: Option<i64>) -> BoxFuture<'_, Result<Option<Comparison>, HandoffError>>;
}

/// One partition of a stream, as seen now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionStatus {
    pub partition: Partition,
    /// Oldest offset still in the log.
    pub log_start: Offset,
    /// Next offset to be given.
    pub head: Offset,
    /// Everything before it is in the archive.
    pub archived: Offset,
    pub watermark: Option<Micros>,
    /// Since the process started.
    pub accepted: u64,
    pub duplicates: u64,
    pub late: u64,
    /// Events too far ahead of their arrival to move the watermark.
    pub ahead: u64,
    pub log_bytes: u64,
    pub last_arrival: Option<Micros>,
    pub archive_error: Option<String>,
}

/// A stream, as seen now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    pub name: StreamName,
    pub columns: Vec<StreamColumn>,
    pub partitions: Vec<PartitionStatus>,
    /// Lines refused and fields left out since the process started.
    pub rejected: u64,
    pub unknown_fields: u64,
    /// Accepted events per second, over the last ten seconds.
    pub events_per_second: f64,
}

/// A declared column, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: String,
    /// `event time`, `primary key` or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// Intake, as those see it who watch it.
pub trait Streams: Send + Sync {
    fn list(&self) -> Vec<StreamStatus>;
}
