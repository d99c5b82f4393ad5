//! Defines a sink: the rows of a view, written to a topic whenever they change, or once their windows are closed. It writes
//! nothing.
//!
//! The topic of a sink with `emit = 'changes'` is a table: after every epoch, the last committed record of each key is the row
//! of the view with this key, or a tombstone if the view has no such row. With `emit = 'final'` the same holds for the rows of
//! windows that the watermark has passed, and for no others.

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
    /// The `[connections.NAME]` of the settings with `kind = "kafka"`.
    pub connection: Name,
    pub topic: String,
    pub format: SinkFormat,
    pub emit: Emit,
    /// Shortest time between two epochs.
    pub every: Duration,
    /// The columns that are the key of a record, in the order of the view's key.
    pub key: Vec<KeyColumn>,
    /// Names the sink to the brokers: of two processes with the same one, the older is fenced.
    pub transactional_id: String,
    /// The statement that declared the sink.
    pub sql: String,
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
#[serde(rename_all = "lowercase")]
pub enum SinkFormat {
    #[default]
    Json,
    /// Avro behind the id of a schema that the sink registers.
    Avro,
}

impl SinkFormat {
    /// The values of the option `format`.
    pub const NAMES: [&str; 2] = ["json", "avro"];

    /// Returns the value of the option.
    pub fn name(self) -> &'static str {
        match self {
            SinkFormat::Json => "json",
            SinkFormat::Avro => "avro",
        }
    }

    /// Returns what the option's value `name` means.
    pub fn named(name: &str) -> Option<SinkFormat> {
        match name {
            "json" => Some(SinkFormat::Json),
            "avro" => Some(SinkFormat::Avro),
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

impl Sink {
    /// Returns the identity of the keys of the topic: where it differs, records of one definition do not replace those of
    /// another.
    pub fn key_hash(&self, view: &View) -> String {
        let names: Vec<&str> = self.key.iter().map(|column| column.name(view)).collect();
        let types: Vec<String> = view.dimensions.iter().map(|d| d.expression.data_type.to_string()).collect();
        let text = match self.format {
            // As it was before there were other formats.
            SinkFormat::Json => serde_json::to_vec(&(&self.topic, names, types, &view.window, self.emit)),
            format => serde_json::to_vec(&(&self.topic, names, types, &view.window, self.emit, format)),
        };
        format!("{:032x}", xxh3_128(&text.expect("a definition is plain data")))
    }

    /// Returns the shortest time between two epochs, as the option `every` has it.
    pub fn every_text(&self) -> String {
        let ms = self.every.as_millis();
        let (count, unit) = if ms.is_multiple_of(1_000) { (ms / 1_000, "second") } else { (ms, "millisecond") };
        format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
    }

    /// Describes the sink in lines, for `trueup check`.
    pub fn describe(&self, view: &View) -> String {
        let names: Vec<&str> = self.key.iter().map(|column| column.name(view)).collect();
        let key = if names.is_empty() { "one record".to_owned() } else { names.join(", ") };
        let writes = match self.emit {
            Emit::Changes => "whenever the value of a row changes; a tombstone when the view loses it",
            Emit::Final => "once the watermark has passed the window; a correction when the row changes later",
        };
        format!(
            "sink {} from view {}\n  {:<16} {} of connection {}, {}\n  {:<16} {}, every {}: {writes}\n  {:<16} {key}\n",
            self.name,
            self.view,
            "topic",
            self.topic,
            self.connection,
            self.format.name(),
            "emit",
            self.emit.name(),
            self.every_text(),
            "key"
        )
    }
}
