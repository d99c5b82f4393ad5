//! Describes batch runs, vacuum and compaction, and the trait through which they are requested.
//!
//! Names by stage: a *run* is requested, queued and executed; each *attempt* at it computes a *plan*; an attempt that succeeds
//! publishes a *version*.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::compare::Comparison;
use crate::engine::Engine;
use crate::handoff::HandoffError;
use crate::ids::{Offset, Partition, StreamName, ViewName};
use crate::time::{Day, Micros};
use crate::version::BatchVersion;

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    Queued,
    Running,
    Published,
    Failed,
    Cancelled,
}

impl std::str::FromStr for RunState {
    type Err = String;

    fn from_str(text: &str) -> Result<RunState, String> {
        match text {
            "queued" => Ok(RunState::Queued),
            "running" => Ok(RunState::Running),
            "published" => Ok(RunState::Published),
            "failed" => Ok(RunState::Failed),
            "cancelled" => Ok(RunState::Cancelled),
            _ => Err(format!("expected queued, running, published, failed or cancelled, found \"{text}\"")),
        }
    }
}

impl RunState {
    /// Returns whether the run has ended.
    pub fn is_over(self) -> bool {
        matches!(self, RunState::Published | RunState::Failed | RunState::Cancelled)
    }
}

/// The progress of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RunProgress {
    /// Window dates to recompute.
    pub dates: u64,
    /// Window dates recomputed so far.
    pub dates_done: u64,
    /// Events read.
    pub rows: u64,
    /// Bytes of the archive files to read.
    pub bytes: u64,
    /// Bytes of them read so far: only footers and needed columns, some of them more than once.
    #[serde(default)]
    pub bytes_read: u64,
}

/// One batch run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    pub id: String,
    pub view: ViewName,
    pub state: RunState,
    pub full: bool,
    /// Days whose windows are recomputed even if their events have not changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<DateRange>,
    /// The trigger: `schedule`, `request`, `backfill`, `checkpoint`, `definition`, `layers`, `start`, `retry`.
    pub trigger: String,
    /// Number of the attempt, from 1.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
    /// The run of the first attempt, if this is a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// When a failed run is retried, unless another run of the view starts before.
    #[serde(default)]
    pub retry_at: Option<Micros>,
    #[schema(value_type = Option<BTreeMap<String, Offset>>)]
    pub cut: Option<BTreeMap<Partition, Offset>>,
    pub version: Option<i64>,
    pub queued_at: Micros,
    pub started_at: Option<Micros>,
    pub finished_at: Option<Micros>,
    /// Duration in milliseconds, once it has ended.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    pub progress: RunProgress,
    /// The engine that computes it, once the plan has decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    pub error: Option<String>,
}

fn first_attempt() -> u32 {
    1
}

/// The runs to list; `None` does not restrict them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFilter {
    pub view: Option<String>,
    pub state: Option<RunState>,
    /// Only runs older than this one.
    pub before: Option<String>,
    pub limit: usize,
}

/// A page of runs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunPage {
    pub runs: Vec<Run>,
    /// The value of `before` for the next page; `None` at the end.
    pub next: Option<String>,
}

/// The last success and the last failure of a view's runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunEnds {
    pub last_success: Option<Run>,
    pub last_failure: Option<Run>,
    /// When a failed run is retried.
    pub retry_at: Option<Micros>,
}

/// Days `from..to` (UTC) on which windows start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DateRange {
    #[serde(with = "day_text")]
    #[schema(value_type = String, format = Date)]
    pub from: Day,
    /// Not included.
    #[serde(with = "day_text")]
    #[schema(value_type = String, format = Date)]
    pub to: Day,
}

/// Days as `YYYY-MM-DD`.
mod day_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::time::Day;

    pub fn serialize<S: Serializer>(day: &Day, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(day)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Day, D::Error> {
        let text = String::deserialize(deserializer)?;
        let day = Day::parse(&text).filter(|day| day.to_string() == text);
        day.ok_or_else(|| de::Error::custom(format!("expected a date such as 2001-01-31, found \"{text}\"")))
    }
}

impl DateRange {
    /// Returns whether `day` is in the range.
    pub fn contains(&self, day: Day) -> bool {
        self.from <= day && day < self.to
    }
}

/// The windows that a run recomputes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunScope {
    /// All windows, not only changed ones.
    pub full: bool,
    /// These windows, in addition to changed ones.
    pub range: Option<DateRange>,
}

impl RunScope {
    /// Windows with events since the last version.
    pub const CHANGED: RunScope = RunScope { full: false, range: None };
    /// All windows.
    pub const FULL: RunScope = RunScope { full: true, range: None };
}

/// The result of a vacuum of a view's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Cleaned)]
pub struct VacuumReport {
    pub view: ViewName,
    /// The oldest version whose files are kept; `None`: there is no version yet.
    pub kept_from: Option<i64>,
    /// Files deleted.
    pub files: u64,
    /// Bytes of the deleted files.
    pub bytes: u64,
    /// Files of interrupted writes that were deleted.
    pub unfinished: u64,
    /// Unused files that are not old enough to be deleted.
    pub too_young: u64,
    /// Entries of the table's log that were deleted.
    pub log_entries: u64,
}

impl VacuumReport {
    /// Returns the result of a vacuum or compaction that has not done anything.
    pub fn nothing(view: ViewName) -> VacuumReport {
        VacuumReport { view, kept_from: None, files: 0, bytes: 0, unfinished: 0, too_young: 0, log_entries: 0 }
    }
}

/// The result of a compaction of a stream's archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Compacted)]
pub struct CompactionReport {
    pub stream: StreamName,
    /// Event dates whose files were rewritten.
    pub dates: u64,
    /// Files of the archive before.
    pub files_before: u64,
    /// Files of the archive after.
    pub files_after: u64,
    /// Files that were replaced.
    pub files_read: u64,
    /// Files that replace them.
    pub files_written: u64,
    /// Rows of these files.
    pub rows: u64,
    /// Bytes of the replaced files.
    pub bytes_read: u64,
    /// Bytes of the new files.
    pub bytes_written: u64,
    /// Replaced files that were deleted.
    pub files_deleted: u64,
    /// Bytes of the deleted files.
    pub bytes_deleted: u64,
    /// Replaced files that are not old enough to be deleted.
    pub files_too_young: u64,
    /// Dates that were skipped because another writer changed the archive meanwhile.
    pub conflicts: u64,
    /// Event dates that the stream's retention dropped.
    #[serde(default)]
    pub dates_dropped: u64,
    /// Files that it dropped. They are deleted later, with those that were rewritten.
    #[serde(default)]
    pub files_dropped: u64,
    /// Events that it dropped.
    #[serde(default)]
    pub events_dropped: u64,
    /// The first event date that the archive keeps; `None`: no date has been dropped.
    #[serde(default)]
    pub retained_from: Option<String>,
}

impl CompactionReport {
    /// Returns the result of a vacuum or compaction that has not done anything.
    pub fn nothing(stream: StreamName) -> CompactionReport {
        CompactionReport {
            stream,
            dates: 0,
            files_before: 0,
            files_after: 0,
            files_read: 0,
            files_written: 0,
            rows: 0,
            bytes_read: 0,
            bytes_written: 0,
            files_deleted: 0,
            bytes_deleted: 0,
            files_too_young: 0,
            conflicts: 0,
            dates_dropped: 0,
            files_dropped: 0,
            events_dropped: 0,
            retained_from: None,
        }
    }
}

/// The reason why a request for a run failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("there is no view called \"{0}\"")]
    UnknownView(String),
    #[error("there is no run \"{0}\"")]
    UnknownRun(String),
    #[error("the batch layer is stopping")]
    Stopping,
    #[error(
        "{0} has no batch runs: it is declared with layers = 'speed'. To publish its state: trueup checkpoint {0}. To have \
         exact figures: layers = 'both'"
    )]
    SpeedAlone(ViewName),
    #[error(
        "{0} has no checkpoints: batch runs publish its versions. To start one: trueup batch run {0}. To have checkpoints \
         instead: layers = 'speed'"
    )]
    HasBatch(ViewName),
    #[error(
        "windows from {from} on cannot be recomputed: the stream's retention has dropped the events before \
         {retained_from}, and the windows that start before it are frozen. Ask for days from {retained_from} on"
    )]
    Dropped { from: Day, retained_from: Day },
}

/// Control of the batch layer.
pub trait Runs: Send + Sync {
    /// Requests a run. A waiting run of the view is returned instead of a second one.
    fn request(&self, view: &str, scope: RunScope) -> Result<Run, RunError>;
    /// Requests a checkpoint of a view of the speed layer alone; `full`: replays the archive.
    fn checkpoint(&self, view: &str, full: bool) -> Result<Run, RunError>;
    /// Lists runs, newest first, including those of earlier processes.
    ///
    /// Errors: the filter names an unknown view or run.
    fn list(&self, filter: &RunFilter) -> Result<RunPage, RunError>;
    /// The last success and the last failure of a view's runs.
    fn ends(&self, view: &str) -> RunEnds;
    /// Returns a run by its id.
    fn get(&self, id: &str) -> Option<Run>;
    /// Cancels a waiting or running run, and the pending retry of a failed one. A run that has ended does not change.
    fn cancel(&self, id: &str) -> Result<Run, RunError>;
    /// Returns when the schedule starts the view's next run.
    fn next_run(&self, view: &str) -> Option<Micros>;
    /// Returns the view's versions whose notes are kept, newest first (at most `limit`).
    fn versions(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<BatchVersion>, HandoffError>>;
    /// Returns the number of versions of the view that can be queried, the newest included.
    fn versions_kept(&self, view: &str) -> usize;
    /// Deletes files of the view's table that have been unused for `older_than` (`None`: the setting).
    fn vacuum(&self, view: &str, older_than: Option<Duration>) -> BoxFuture<'_, Result<VacuumReport, HandoffError>>;
    /// Rewrites small files of the stream's archive into few, then deletes files that have been unused for `older_than`
    /// (`None`: keeps them). Waits for a compaction in progress.
    fn compact(
        &self,
        stream: &str,
        older_than: Option<Duration>,
    ) -> BoxFuture<'_, Result<Option<CompactionReport>, HandoffError>>;
    /// Returns the comparison of a version; `None`: of the latest.
    fn comparison(&self, view: &str, version: Option<i64>) -> BoxFuture<'_, Result<Option<Comparison>, HandoffError>>;
    /// Returns the latest comparisons, newest first (at most `limit`), without their rows.
    fn drift(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<Comparison>, HandoffError>>;
}
