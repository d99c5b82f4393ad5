//! Defines a sink: the rows of a view, written to a topic or sent to a webhook whenever they change, or once their windows are
//! closed. It writes nothing.
//!
//! The topic of a sink with `emit = 'changes'` is a table: after every epoch, the last committed record of each key is the row
//! of the view with this key, or a tombstone if the view has no such row. With `emit = 'final'` the same holds for the rows of
//! windows that the watermark has passed, and for no others. A webhook that applies the rows in order has the same table.
//!
//! [`mod@crate::event_sink`] defines sinks of streams, which have the same targets.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::alert::{KeyColumn, key_columns};
use crate::ids::{Name, SinkName, ViewName};
use crate::view::View;
use crate::window::Window;

/// A declared sink, checked against its view.
#[derive(Debug, Clone, PartialEq)]
pub struct Sink {
    pub name: SinkName,
    pub view: ViewName,
    pub target: SinkTarget,
    pub emit: Emit,
    /// Shortest time between two epochs.
    pub every: Duration,
    /// The columns that are the key of a record, in the order of the view's key.
    pub key: Vec<KeyColumn>,
    /// The statement that declared the sink.
    pub sql: String,
}

/// Where a sink writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkTarget {
    Topic(SinkTopic),
    /// The `[connections.NAME]` of the settings with `kind = "webhook"`.
    Webhook(Name),
}

/// The topic of a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkTopic {
    /// The `[connections.NAME]` of the settings with `kind = "kafka"`.
    pub connection: Name,
    pub topic: String,
    pub format: SinkFormat,
    /// Names the sink to the brokers: of two processes with the same one, the older is fenced.
    pub transactional_id: String,
}

impl SinkTarget {
    /// The kind of the target in the option `to`, before the name of the connection.
    pub const WEBHOOK: &str = "webhook:";

    /// Returns the connection of the settings.
    pub fn connection(&self) -> &Name {
        match self {
            SinkTarget::Topic(topic) => &topic.connection,
            SinkTarget::Webhook(connection) => connection,
        }
    }

    /// Returns the topic, if the target is one.
    pub fn topic(&self) -> Option<&SinkTopic> {
        match self {
            SinkTarget::Topic(topic) => Some(topic),
            SinkTarget::Webhook(_) => None,
        }
    }

    /// Returns the encoding of keys and values.
    pub fn format(&self) -> SinkFormat {
        self.topic().map_or(SinkFormat::Json, |topic| topic.format)
    }

    /// Returns the name under which the sink `name` writes: that of its transactions, or its own.
    pub fn writer_id<'a>(&'a self, name: &'a SinkName) -> &'a str {
        self.topic().map_or(name.as_str(), |topic| &topic.transactional_id)
    }

    /// Describes the target in a line, for `trueup check`.
    pub(crate) fn describe(&self) -> String {
        let (kind, target) = match self {
            SinkTarget::Topic(SinkTopic { connection, topic, format, .. }) => {
                ("topic", format!("{topic} of connection {connection}, {}", format.name()))
            }
            SinkTarget::Webhook(connection) => ("webhook", format!("connection {connection}, json")),
        };
        format!("{kind:<16} {target}")
    }
}

impl fmt::Display for SinkTarget {
    /// The topic, or `webhook:NAME`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkTarget::Topic(topic) => f.write_str(&topic.topic),
            SinkTarget::Webhook(connection) => write!(f, "{}{connection}", SinkTarget::WEBHOOK),
        }
    }
}

/// When a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emit {
    /// Whenever it has changed.
    Changes,
    /// Once the watermark has passed the end of its window, and again whenever it has changed after that.
    Final,
}

impl Emit {
    /// The values of the option `emit`.
    pub const NAMES: [&str; 2] = ["changes", "final"];

    /// Returns the value of the option.
    pub fn name(self) -> &'static str {
        match self {
            Emit::Changes => "changes",
            Emit::Final => "final",
        }
    }

    /// Returns what the option's value `name` means.
    pub fn named(name: &str) -> Option<Emit> {
        match name {
            "changes" => Some(Emit::Changes),
            "final" => Some(Emit::Final),
            _ => None,
        }
    }
}

/// The encoding of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SinkFormat {
    #[default]
    Json,
    /// Avro behind the id of a schema that the sink registers.
    Avro,
    /// Changes of rows in envelopes, as Debezium writes them in JSON.
    DebeziumJson,
}

impl SinkFormat {
    /// The values of the option `format`.
    pub const NAMES: [&str; 3] = ["json", "avro", "debezium-json"];

    /// Returns the value of the option.
    pub fn name(self) -> &'static str {
        match self {
            SinkFormat::Json => "json",
            SinkFormat::Avro => "avro",
            SinkFormat::DebeziumJson => "debezium-json",
        }
    }

    /// Returns what the option's value `name` means.
    pub fn named(name: &str) -> Option<SinkFormat> {
        match name {
            "json" => Some(SinkFormat::Json),
            "avro" => Some(SinkFormat::Avro),
            "debezium-json" => Some(SinkFormat::DebeziumJson),
            _ => None,
        }
    }
}

/// Returns the columns that identify a row of `view`; the end of a window only where several have the same start.
pub fn row_key(view: &View) -> Vec<KeyColumn> {
    let is_key = |column: &KeyColumn| match column {
        KeyColumn::WindowEnd => matches!(view.window, Window::Cumulate { .. }),
        KeyColumn::WindowStart | KeyColumn::Dimension(_) => true,
    };
    key_columns(view).into_iter().filter(is_key).collect()
}

/// Returns the shortest time between two epochs, as the option `every` has it.
pub fn every_text(every: Duration) -> String {
    let ms = every.as_millis();
    let (count, unit) = if ms.is_multiple_of(1_000) { (ms / 1_000, "second") } else { (ms, "millisecond") };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

impl Sink {
    /// Returns the identity of the keys of the target: where it differs, records of one definition do not replace those of
    /// another.
    pub fn key_hash(&self, view: &View) -> String {
        let names: Vec<&str> = self.key.iter().map(|column| column.name(view)).collect();
        let types: Vec<String> = view.dimensions.iter().map(|d| d.expression.data_type.to_string()).collect();
        let text = match &self.target {
            // The receiver behind a connection can be replaced as brokers can.
            SinkTarget::Webhook(_) => serde_json::to_vec(&(SinkTarget::WEBHOOK, names, types, &view.window, self.emit)),
            // As it was before there were other formats.
            SinkTarget::Topic(SinkTopic { topic, format: SinkFormat::Json, .. }) => {
                serde_json::to_vec(&(topic, names, types, &view.window, self.emit))
            }
            SinkTarget::Topic(SinkTopic { topic, format, .. }) => {
                serde_json::to_vec(&(topic, names, types, &view.window, self.emit, format))
            }
        };
        format!("{:032x}", xxh3_128(&text.expect("a definition is plain data")))
    }

    /// Describes the sink in lines, for `trueup check`.
    pub fn describe(&self, view: &View) -> String {
        let names: Vec<&str> = self.key.iter().map(|column| column.name(view)).collect();
        let key = if names.is_empty() { "one record".to_owned() } else { names.join(", ") };
        let writes = match self.emit {
            Emit::Changes if self.target.topic().is_none() => {
                "whenever the value of a row changes; a deletion when the view loses it"
            }
            Emit::Changes => "whenever the value of a row changes; a tombstone when the view loses it",
            Emit::Final => "once the watermark has passed the window; a correction when the row changes later",
        };
        format!(
            "sink {} from view {}\n  {}\n  {:<16} {}, every {}: {writes}\n  {:<16} {key}\n",
            self.name,
            self.view,
            self.target.describe(),
            "emit",
            self.emit.name(),
            every_text(self.every),
            "key"
        )
    }
}
