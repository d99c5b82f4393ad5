//! Defines how runs and streams are observed and controlled: plain status values, and the traits that provide them.
//! The shapes are those of the HTTP API.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::compare::Comparison;
use crate::handoff::HandoffError;
use crate::ids::{Offset, Partition, StreamName, ViewName};
use crate::time::{Day, Micros};
use crate::version::BatchVersion;

/// Where a run stands.
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
    /// Will the run change no more?
    pub fn is_over(self) -> bool {
        matches!(self, RunState::Published | RunState::Failed | RunState::Cancelled)
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RunProgress {
    /// Window dates to recompute, and those done.
    pub dates: u64,
    pub dates_done: u64,
    /// Events read.
    pub rows: u64,
    /// Bytes of the archive files to read.
    pub bytes: u64,
    /// Bytes of them read so far: only footers and needed columns are, some of them more than once.
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
    /// Windows that are recomputed whether or not anything changed there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<DateRange>,
    /// What asked for it: `schedule`, `request`, `backfill`, `definition`, `start`, `retry`.
    pub trigger: String,
    /// How many times it has been tried, this time included.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
    /// The first of the attempts, if this is a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// When what failed is tried again, unless another run of the view comes first.
    #[serde(default)]
    pub retry_at: Option<Micros>,
    #[schema(value_type = Option<BTreeMap<String, Offset>>)]
    pub cut: Option<BTreeMap<Partition, Offset>>,
    pub version: Option<i64>,
    pub queued_at: Micros,
    pub started_at: Option<Micros>,
    pub finished_at: Option<Micros>,
    /// How long it ran, once it is over.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    pub progress: RunProgress,
    pub error: Option<String>,
}

fn first_attempt() -> u32 {
    1
}

/// Which runs to list: all, if nothing is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFilter {
    pub view: Option<String>,
    pub state: Option<RunState>,
    /// Those older than this one.
    pub before: Option<String>,
    pub limit: usize,
}

/// Some runs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunPage {
    pub runs: Vec<Run>,
    /// The run before which the rest are; `None` at the end.
    pub next: Option<String>,
}

/// How the latest runs of a view ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunEnds {
    pub last_success: Option<Run>,
    pub last_failure: Option<Run>,
    /// When a failed run is tried again.
    pub retry_at: Option<Micros>,
}

/// Days `from..to` (UTC): of windows, those on which they start.
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
    /// Is `day` one of the days?
    pub fn contains(&self, day: Day) -> bool {
        self.from <= day && day < self.to
    }
}

/// What to recompute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunScope {
    /// Everything, not only what changed.
    pub full: bool,
    /// These windows, besides what changed.
    pub range: Option<DateRange>,
}

impl RunScope {
    /// What changed since the last version.
    pub const CHANGED: RunScope = RunScope { full: false, range: None };
    /// Everything.
    pub const FULL: RunScope = RunScope { full: true, range: None };
}

/// What a vacuum of a view's table did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cleaned {
    pub view: ViewName,
    /// The oldest version whose files stay; `None`: there is no version yet.
    pub kept_from: Option<i64>,
    /// Files deleted, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Remains of interrupted writes.
    pub unfinished: u64,
    /// Unneeded files that are not old enough yet.
    pub too_young: u64,
    /// Entries of the table's log that were let go.
    pub log_entries: u64,
}

impl Cleaned {
    /// Nothing done yet.
    pub fn nothing(view: ViewName) -> Cleaned {
        Cleaned { view, kept_from: None, files: 0, bytes: 0, unfinished: 0, too_young: 0, log_entries: 0 }
    }
}

/// What a compaction of a stream's archive did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Compacted {
    pub stream: StreamName,
    /// Event dates of which files were rewritten.
    pub dates: u64,
    /// Files of the archive before and after.
    pub files_before: u64,
    pub files_after: u64,
    /// Of these, files that were rewritten, and what of; with their rows and bytes.
    pub files_read: u64,
    pub files_written: u64,
    pub rows: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    /// Files that were deleted, with their bytes, and that will be when they are old enough.
    pub files_deleted: u64,
    pub bytes_deleted: u64,
    pub files_too_young: u64,
    /// Dates that were left as they are because others changed the archive meanwhile.
    pub conflicts: u64,
    /// Event dates, files and events that the stream's retention dropped. The files are deleted later, with those that
    /// were rewritten.
    #[serde(default)]
    pub dates_dropped: u64,
    #[serde(default)]
    pub files_dropped: u64,
    #[serde(default)]
    pub events_dropped: u64,
    /// The first event date that the archive has left; `None`: nothing was ever dropped.
    #[serde(default)]
    pub retained_from: Option<String>,
}

impl Compacted {
    /// Nothing done yet.
    pub fn nothing(stream: StreamName) -> Compacted {
        Compacted {
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

/// Why a run could not be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("there is no view called \"{0}\"")]
    UnknownView(String),
    #[error("there is no run \"{0}\"")]
    UnknownRun(String),
    #[error("the batch layer is stopping")]
    Stopping,
    #[error(
        "windows from {from} on cannot be recomputed: the stream's retention has dropped the events before \
         {retained_from}, and the windows that start before it are frozen. Ask for days from {retained_from} on"
    )]
    Dropped { from: Day, retained_from: Day },
}

/// The batch layer, as those see it who steer it.
pub trait Runs: Send + Sync {
    /// Asks for a run. A run of the view that is already waiting is returned instead of a second one.
    fn request(&self, view: &str, scope: RunScope) -> Result<Run, RunError>;
    /// Lists runs, newest first, including those of earlier processes. The view or run of a filter must exist.
    fn list(&self, filter: &RunFilter) -> Result<RunPage, RunError>;
    /// How the latest runs of a view ended.
    fn ends(&self, view: &str) -> RunEnds;
    fn get(&self, id: &str) -> Option<Run>;
    /// Stops a waiting or running run, and the retry that a failed one waits for; otherwise one that is over stays as
    /// it is.
    fn cancel(&self, id: &str) -> Result<Run, RunError>;
    /// When the schedule starts the view's next run.
    fn next_run(&self, view: &str) -> Option<Micros>;
    /// Lists the view's versions that still have an entry, newest first (at most `limit`).
    fn versions(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<BatchVersion>, HandoffError>>;
    /// Returns how many versions of the view can be queried, including the newest.
    fn versions_kept(&self, view: &str) -> usize;
    /// Deletes files of the view's table that have been unneeded for `older_than` (`None`: the time in the settings).
    fn vacuum(&self, view: &str, older_than: Option<Duration>) -> BoxFuture<'_, Result<Cleaned, HandoffError>>;
    /// Rewrites small files of the stream's archive into few; then deletes files that have been unneeded
    /// for `older_than` (`None`: leaves them). Waits for a compaction in progress.
    fn compact(
        &self,
        stream: &str,
        older_than: Option<Duration>,
    ) -> BoxFuture<'_, Result<Option<Compacted>, HandoffError>>;
    /// The reconciliation of a version; `None` asks for the latest.
    fn comparison(&self, view: &str, version: Option<i64>) -> BoxFuture<'_, Result<Option<Comparison>, HandoffError>>;
    /// The latest reconciliations, newest first (at most `limit`), without their rows.
    fn drift(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<Comparison>, HandoffError>>;
}

/// One partition of a stream, as seen now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PartitionStatus {
    pub partition: Partition,
    /// Oldest offset still in the log.
    pub log_start: Offset,
    /// Next offset to be given.
    pub head: Offset,
    /// Everything before it is in the archive.
    pub archived: Offset,
    pub watermark: Option<Micros>,
    /// Since the partition's first event, as are the next three.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamStatus {
    pub name: StreamName,
    pub columns: Vec<StreamColumn>,
    pub partitions: Vec<PartitionStatus>,
    /// Events that were put into the archive directly, as of a few seconds ago.
    #[serde(default)]
    pub historical: u64,
    /// Lines rejected and fields ignored since the process started.
    pub rejected: u64,
    pub unknown_fields: u64,
    /// Accepted events per second, over the last ten seconds.
    pub events_per_second: f64,
    /// The smallest of the partitions that are not idle; never goes back while the process lives.
    #[serde(default)]
    pub watermark: Option<Micros>,
    #[serde(default)]
    pub settings: TimeSettings,
    /// How far back, by event time, the archive keeps events, as the option takes it: `2 years`. `None`: for ever.
    #[serde(default)]
    pub retention: Option<String>,
    /// Events of earlier dates have been dropped, as of a few seconds ago; `None`: nothing was.
    #[serde(default)]
    pub retained_from: Option<String>,
    /// `None` before the first event.
    #[serde(default)]
    pub lateness: Option<Lateness>,
    #[serde(default)]
    pub quarantine: QuarantineCounts,
    /// A hint if most events lie before 1980 or far ahead of their arrival.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicious_times: Option<String>,
}

/// What a stream's declaration says of time, each as the option takes it: `90 minutes`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct TimeSettings {
    pub watermark_delay: String,
    pub allowed_lateness: String,
    pub max_ahead: String,
    /// Older events are rejected; `None`: none is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<String>,
    pub idle_timeout: String,
}

/// How far behind the latest event time of their partition events came, as measured, without events that are ahead.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Lateness {
    /// Events measured: since the process started, and the tail of the log it then found.
    pub measured: u64,
    /// Milliseconds by quantile (`p50` to `p99.9`), each within 1 %. 0: in order.
    pub quantiles_ms: BTreeMap<String, f64>,
    /// The largest, exactly.
    pub max_ms: f64,
    /// Share of the measured events that the present settings would place behind the watermark, and of those that they
    /// would call late.
    pub behind_watermark_share: f64,
    pub late_share: f64,
    pub suggested: SuggestedTime,
}

/// Settings under which one event in a hundred comes behind the watermark, and one in a thousand late.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SuggestedTime {
    pub watermark_delay: String,
    pub allowed_lateness: String,
}

/// Counts of rejected lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct QuarantineCounts {
    /// Lines since the stream's first rejected one, or since the quarantine was last emptied.
    pub total: u64,
    /// Those that can be read.
    pub kept: u64,
    /// Those that can no longer be: the oldest, and what one request had too many of.
    pub dropped: u64,
}

/// Accepted events of one kind, newest first.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// All events of the kind since the stream's first event.
    pub total: u64,
    /// The newest of them, which can be listed.
    pub kept: u64,
    pub kept_max: u64,
    /// The stream's columns, `_partition`, `_offset`, `_arrived_at`, `_watermark`, and what was measured of each event.
    pub rows: RecordBatch,
    /// Cursor of the next page; `None` at the end.
    pub next: Option<String>,
}

/// A line that was not an event of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quarantined {
    /// From 1, in order of arrival.
    pub number: u64,
    pub arrived_at: Micros,
    /// Line of the request's body, or number of the array's element, from 1.
    pub line: u64,
    pub reason: String,
    /// The line as it came; what is not UTF-8 is replaced.
    pub text: String,
    /// Bytes of the whole line, and whether `text` has only the first of them.
    pub bytes: u64,
    #[serde(default)]
    pub truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// Rejected lines, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuarantinePage {
    #[serde(flatten)]
    pub counts: QuarantineCounts,
    pub kept_max: u64,
    pub kept_bytes_max: u64,
    pub lines: Vec<Quarantined>,
    /// Cursor of the next page; `None` at the end.
    pub next: Option<String>,
}

/// A part of a list: entries after where an earlier one ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRange {
    pub limit: usize,
    pub cursor: Option<String>,
}

/// Which accepted events to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Came after allowed lateness.
    Late,
    /// Too far ahead of their arrival to move the watermark.
    Ahead,
}

/// Why a stream's events cannot be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("there is no stream called \"{0}\"")]
    UnknownStream(String),
    #[error("cursor: \"{0}\" is not one that an answer gave")]
    BadCursor(String),
    #[error("{0}")]
    Failed(String),
}

/// A declared column, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: String,
    /// `event time`, `primary key`, `removed` (only in stored events, no longer declared) or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where events hold the value, as a JSON Pointer; `None`: in the field called `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// How events write a TIMESTAMP, if it was declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// Intake, as those see it who watch it.
pub trait Streams: Send + Sync {
    fn list(&self) -> Vec<StreamStatus>;
    /// Accepted events of one kind, newest first.
    fn events(&self, stream: &str, kind: EventKind, range: &ListRange) -> Result<EventPage, StreamError>;
    /// Rejected lines, newest first.
    fn quarantine(&self, stream: &str, range: &ListRange) -> Result<QuarantinePage, StreamError>;
    /// Deletes all rejected lines and returns how many were kept. Blocking.
    fn empty_quarantine(&self, stream: &str) -> Result<u64, StreamError>;
}
