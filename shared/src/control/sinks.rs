//! Describes sinks as they run, and the trait that lists and controls them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{Name, Offset, Partition, SinkName, StreamName, ViewName};
use crate::sink::{Emit, SinkTarget};
use crate::time::Micros;

/// What a sink does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    /// It has not reached the brokers yet.
    Starting,
    Running,
    /// An operator paused it.
    Paused,
    /// The last attempt failed; it is repeated.
    Failing,
    /// It needs an operator: the error says why.
    Stopped,
}

impl SinkState {
    /// Returns the name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            SinkState::Starting => "starting",
            SinkState::Running => "running",
            SinkState::Paused => "paused",
            SinkState::Failing => "failing",
            SinkState::Stopped => "stopped",
        }
    }
}

/// A declared sink and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SinkStatus {
    pub name: SinkName,
    /// `null`: the sink is of a stream.
    pub view: Option<ViewName>,
    /// The stream whose events it writes; `null`: the sink is of a view.
    #[serde(default)]
    pub stream: Option<StreamName>,
    pub connection: Name,
    /// `null`: the sink sends its rows to the webhook of the connection.
    pub topic: Option<String>,
    /// `changes` or `final`; `null`: the sink is of a stream, and writes its events.
    #[schema(value_type = Option<String>)]
    pub emit: Option<Emit>,
    /// The columns of the key of records; of a sink of a stream, none if records have no key.
    pub key: Vec<String>,
    pub state: SinkState,
    /// Why it is failing or stopped.
    pub error: Option<String>,
    /// The last committed epoch; 0 before the first.
    pub epoch: u64,
    /// When it was committed by this process.
    pub committed_at: Option<Micros>,
    /// The log positions up to which every change is in the topic, by partition.
    pub position: BTreeMap<Partition, Offset>,
    /// Events after them.
    pub lag: u64,
    /// The batch version whose figures are in the topic.
    pub version: Option<i64>,
    /// With `emit = 'final'`: every row of windows that end at or before it is in the topic.
    #[serde(default)]
    pub watermark: Option<Micros>,
    /// Rows that the topic has; 0 of a sink of a stream, which does not remember its records.
    pub rows: u64,
    /// Records that this process has committed.
    pub records: u64,
}

impl SinkStatus {
    /// Returns the topic, or `webhook:NAME`.
    pub fn target(&self) -> String {
        self.topic.clone().unwrap_or_else(|| format!("{}{}", SinkTarget::WEBHOOK, self.connection))
    }

    /// Returns the view or the stream whose rows or events it writes.
    pub fn source(&self) -> &str {
        let view = self.view.as_ref().map(ViewName::as_str);
        view.or(self.stream.as_ref().map(StreamName::as_str)).unwrap_or_default()
    }
}

/// Where a sink starts to write rows again that the topic has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmitFrom {
    /// All rows, or all events that the stream still has.
    Start,
    /// Rows whose windows start at or after this time, or events with such a time.
    Time(Micros),
}

/// The reason why a sink was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    #[error("there is no sink called \"{0}\"")]
    Unknown(String),
    #[error("the view of the sink has no windows: use --from start")]
    NoWindows,
    #[error("cannot write the state of the sink: {0}")]
    Write(String),
}

/// The sinks of a server.
pub trait Sinks: Send + Sync {
    /// Returns every declared sink, by name.
    fn list(&self) -> Vec<SinkStatus>;

    /// Stops a sink after its present epoch, also over restarts.
    ///
    /// # Errors
    /// There is no such sink, or the change cannot be made durable.
    fn pause(&self, sink: &str) -> Result<SinkStatus, SinkError>;

    /// Starts a sink that is paused or stopped, and writes the rows of `from` again.
    ///
    /// # Errors
    /// There is no such sink, or the change cannot be made durable.
    fn resume(&self, sink: &str, from: Option<EmitFrom>) -> Result<SinkStatus, SinkError>;
}

/// The sinks of a server that has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSinks;

impl Sinks for NoSinks {
    fn list(&self) -> Vec<SinkStatus> {
        Vec::new()
    }

    fn pause(&self, sink: &str) -> Result<SinkStatus, SinkError> {
        Err(SinkError::Unknown(sink.to_owned()))
    }

    fn resume(&self, sink: &str, _: Option<EmitFrom>) -> Result<SinkStatus, SinkError> {
        Err(SinkError::Unknown(sink.to_owned()))
    }
}
