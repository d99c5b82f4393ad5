//! Describes sinks as they were declared last, and reads from their books what is stored of them, without changing it.

use std::io;
use std::path::Path;

use alerts::book_file::BookError;
use serde::{Deserialize, Serialize};
use shared::event_sink::EventSink;
use shared::ids::{Name, SinkName, StreamName, ViewName};
use shared::sink::{Emit, Sink, SinkFormat, SinkTarget, every_text};
use shared::stream::Stream;
use shared::view::View;

use crate::book::StoredBook;

/// The options of a sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkDeclaration {
    /// `None`: the sink is of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewName>,
    /// `None`: the sink is of a view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamName>,
    /// Of a sink of a stream: its joins as SQL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joins: Vec<String>,
    /// Of a sink of a stream: its condition as SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Of a sink of a stream: its columns as SQL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    pub connection: Name,
    /// `None`: the webhook of the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Absent from declarations of earlier programs, which wrote JSON.
    #[serde(default)]
    pub format: SinkFormat,
    /// `None`: the sink writes the events of a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emit: Option<Emit>,
    /// The columns of the key of records.
    pub key: Vec<String>,
    /// The shortest time between two epochs.
    pub every: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transactional_id: Option<String>,
}

impl SinkDeclaration {
    /// Describes a declared sink.
    pub fn of(sink: &Sink, view: &View) -> SinkDeclaration {
        let topic = sink.target.topic();
        SinkDeclaration {
            view: Some(sink.view.clone()),
            stream: None,
            joins: Vec::new(),
            filter: None,
            columns: Vec::new(),
            connection: sink.target.connection().clone(),
            topic: topic.map(|topic| topic.topic.clone()),
            format: sink.target.format(),
            emit: Some(sink.emit),
            key: sink.key.iter().map(|column| column.name(view).to_owned()).collect(),
            every: every_text(sink.every),
            transactional_id: topic.map(|topic| topic.transactional_id.clone()),
        }
    }

    /// Describes a declared sink of a stream.
    pub fn of_events(sink: &EventSink, stream: &Stream) -> SinkDeclaration {
        let topic = sink.target.topic();
        SinkDeclaration {
            view: None,
            stream: Some(sink.stream.clone()),
            joins: sink.joins_sql(stream),
            filter: sink.filter_sql(stream),
            columns: sink.columns_sql(stream),
            connection: sink.target.connection().clone(),
            topic: topic.map(|topic| topic.topic.clone()),
            format: sink.target.format(),
            emit: None,
            key: sink.key_names().map(str::to_owned).collect(),
            every: every_text(sink.every),
            transactional_id: topic.map(|topic| topic.transactional_id.clone()),
        }
    }
}

impl SinkDeclaration {
    /// Returns the topic, or `webhook:NAME`.
    pub fn target(&self) -> String {
        self.topic.clone().unwrap_or_else(|| format!("{}{}", SinkTarget::WEBHOOK, self.connection))
    }
}

/// The stored state of a sink, declared or not.
#[derive(Debug)]
pub struct StoredSink {
    pub name: SinkName,
    pub book: StoredBook,
}

/// Returns the sinks whose books are in `folder`.
///
/// # Errors
/// A book cannot be read, or is damaged.
pub fn stored_sinks(folder: &Path) -> Result<Vec<StoredSink>, BookError> {
    let failed = |error: io::Error| BookError::Io { path: folder.to_owned(), error };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut stored = Vec::new();
    for entry in entries {
        let file = entry.map_err(failed)?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(".log")?.parse::<SinkName>().ok());
        if let Some(name) = name {
            stored.push(StoredSink { book: StoredBook::read(folder, &name)?, name });
        }
    }
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(stored)
}
