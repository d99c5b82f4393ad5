//! Describes the state of streams: partitions, lateness, late events and rejected lines, and the trait that lists them.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{Offset, Partition, StreamName};
use crate::time::Micros;

/// The present state of one partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PartitionStatus {
    pub partition: Partition,
    /// Oldest offset in the log.
    pub log_start: Offset,
    /// Offset after the last durable event.
    pub head: Offset,
    /// Everything before it is in the archive.
    pub archived: Offset,
    pub watermark: Option<Micros>,
    /// Accepted events since the partition's first event.
    pub accepted: u64,
    /// Duplicates since then.
    pub duplicates: u64,
    /// Late events since then.
    pub late: u64,
    /// Events since then that were too far ahead of their arrival to move the watermark.
    pub ahead: u64,
    pub log_bytes: u64,
    /// Bytes of the log that its live readers have not processed yet, by reader: `archive` and `speed`.
    #[serde(default)]
    pub backlog_bytes: BTreeMap<String, u64>,
    pub last_arrival: Option<Micros>,
    pub archive_error: Option<String>,
    /// Of a table: its current rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowsStatus>,
}

/// The current rows of a partition of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RowsStatus {
    pub count: u64,
    /// The memory that they take.
    pub bytes: u64,
}

/// The present state of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StreamStatus {
    pub name: StreamName,
    pub columns: Vec<StreamColumn>,
    pub partitions: Vec<PartitionStatus>,
    /// Historical events, as of a few seconds ago.
    #[serde(default)]
    pub historical: u64,
    /// Lines rejected since the process started.
    pub rejected: u64,
    /// Fields ignored since the process started because the stream does not declare them.
    pub unknown_fields: u64,
    /// Accepted events per second, over the last ten seconds.
    pub events_per_second: f64,
    /// The smallest watermark of the partitions that are not idle; it never goes back while the process runs.
    #[serde(default)]
    pub watermark: Option<Micros>,
    #[serde(default)]
    pub settings: TimeSettings,
    /// How far back, by event time, the archive keeps events, written as in the option: `2 years`. `None`: for ever.
    #[serde(default)]
    pub retention: Option<String>,
    /// The first event date that the archive keeps, as of a few seconds ago; `None`: no date has been dropped.
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
    /// The topic or the outbox that the stream reads; `None`: clients send its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
}

/// The time settings of a stream's declaration, each written as in the option: `90 minutes`.
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

/// Measured delays of events behind the latest event time of their partition, without events too far ahead.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Lateness {
    /// Events measured: those since the process started, and those at the end of the log at that time.
    pub measured: u64,
    /// Delay in milliseconds by quantile (`p50` to `p99.9`), within 1 %. 0: in order.
    pub quantiles_ms: BTreeMap<String, f64>,
    /// Largest delay in milliseconds, exactly.
    pub max_ms: f64,
    /// Share of the measured events that are behind the watermark under the present settings.
    pub behind_watermark_share: f64,
    /// Share of the measured events that are late under the present settings.
    pub late_share: f64,
    pub suggested: SuggestedTime,
}

/// Settings under which one event in a hundred is behind the watermark, and one in a thousand is late.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SuggestedTime {
    pub watermark_delay: String,
    pub allowed_lateness: String,
}

/// Counts of the quarantine of rejected lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct QuarantineCounts {
    /// Rejected lines since the stream's first, or since the quarantine was last cleared.
    pub total: u64,
    /// Lines that can be listed.
    pub kept: u64,
    /// Lines that are no longer kept: the oldest, and those beyond the limit of one request.
    pub dropped: u64,
}

/// A page of accepted events of one kind, newest first.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// All events of the kind since the stream's first event.
    pub total: u64,
    /// Events that can be listed: the newest ones.
    pub kept: u64,
    pub kept_max: u64,
    /// The stream's columns, `_partition`, `_offset`, `_arrived_at`, `_watermark`, and what was measured of each event.
    pub rows: RecordBatch,
    /// Cursor of the next page; `None` at the end.
    pub next: Option<String>,
}

/// A rejected line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quarantined {
    /// From 1, in order of arrival.
    pub number: u64,
    pub arrived_at: Micros,
    /// Line of the request's body, or number of the array's element, from 1.
    pub line: u64,
    pub reason: String,
    /// The line as received; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Bytes of the whole line.
    pub bytes: u64,
    /// Whether `text` has only the first of them.
    #[serde(default)]
    pub truncated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The record that it was, if the stream reads a topic or an outbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordAddress>,
}

/// The place of a record in Kafka, or of a row in an outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordAddress {
    pub topic: String,
    pub partition: u32,
    pub offset: i64,
}

/// The present state of a stream's source, if it reads a topic or an outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceStatus {
    /// `kafka` or `postgres`.
    pub kind: String,
    /// The connection of the settings.
    pub connection: String,
    /// The topic, or the table or messages of the outbox.
    pub topic: String,
    /// The consumer group under which positions are reported, or the replication slot; empty for an outbox that is polled.
    pub group: String,
    /// `connecting`, `reading`, `paused` (events arrive faster than they can be written) or `failing`.
    pub state: SourceState,
    /// The last error, until reading succeeds again; or why it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Records that the topic has and the stream has not read, as of the last response of the brokers; `None`: unknown. Of an
    /// outbox that is decoded: at least so many.
    pub lag: Option<u64>,
    /// Offsets that the brokers had deleted before they were read, since the process started.
    pub missed: u64,
    /// Bytes of its write-ahead log that the database keeps for the replication slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained_bytes: Option<u64>,
    pub partitions: Vec<SourcePartitionStatus>,
}

/// What a reader of a topic does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    Connecting,
    Reading,
    Paused,
    Failing,
}

/// The position in one partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourcePartitionStatus {
    pub partition: Partition,
    /// The next offset to read; everything before it is durable. `None`: reading has not started.
    pub position: Option<i64>,
    /// The offset after the newest record, as of the last response of its broker.
    pub end: Option<i64>,
    pub lag: Option<u64>,
}

/// A page of rejected lines, newest first.
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

/// The requested page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRange {
    pub limit: usize,
    pub cursor: Option<String>,
}

/// The kind of accepted events to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Late events.
    Late,
    /// Events too far ahead of their arrival to move the watermark.
    Ahead,
}

/// The reason why a stream's events could not be listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("there is no stream called \"{0}\"")]
    UnknownStream(String),
    #[error("invalid cursor \"{0}\": not issued by this server")]
    BadCursor(String),
    #[error("{0}")]
    Failed(String),
}

/// A declared column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamColumn {
    pub name: String,
    #[serde(rename = "type")]
    pub data_type: String,
    /// `event time`, `primary key`, `entity`, `sequence` (of an entity's events), `source offset`, `removed` (only in stored events, no longer declared) or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Position of the value in an event, as a JSON Pointer; `None`: the field called `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Declared format of a TIMESTAMP in events, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The part of a record that the column holds instead, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

/// Observation of intake.
pub trait Streams: Send + Sync {
    /// Returns the present state of every stream.
    fn list(&self) -> Vec<StreamStatus>;
    /// Lists accepted events of one kind, newest first.
    fn events(&self, stream: &str, kind: EventKind, range: &ListRange) -> Result<EventPage, StreamError>;
    /// Lists rejected lines, newest first.
    fn quarantine(&self, stream: &str, range: &ListRange) -> Result<QuarantinePage, StreamError>;
    /// Clears the quarantine and returns the number of lines it had. Blocking.
    fn empty_quarantine(&self, stream: &str) -> Result<u64, StreamError>;
}
