//! Describes a declared stream: its columns and where events hold their values, the event time, the event id, the options.

pub mod database_table;
pub mod event_source;
mod field_path;
pub mod outbox;
pub mod row_table;
pub mod time_format;
mod transactions;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

pub use self::database_table::DatabaseTable;
pub use self::event_source::{EventSource, KafkaTopic, RecordFormat, RecordPart, TopicStart};
pub use self::field_path::{FieldPath, InvalidPointer};
pub use self::outbox::{Outbox, OutboxColumns, OutboxMode, OutboxPart, OutboxSlot};
pub use self::row_table::{ChangeFormat, KeyColumns, RowTable};
pub use self::time_format::{TimeFormat, UnixUnit};
pub use self::transactions::Transactions;
use crate::column_name;
use crate::ids::{Name, StreamName};
use crate::retention::Retention;
use crate::types::{DataType, timestamp_type};

/// Names of the columns the system adds to a stream's own, in the log's batches and in the archive.
pub mod system_columns {
    /// INT: the partition the event was written to.
    pub const PARTITION: &str = "_partition";
    /// BIGINT: the event's offset in its partition.
    pub const OFFSET: &str = "_offset";
    /// TIMESTAMP: when the event was accepted.
    pub const ARRIVED_AT: &str = "_arrived_at";
    /// TIMESTAMP, null before the first event: the partition's watermark just before this event.
    pub const WATERMARK: &str = "_watermark";
    /// BIGINT, only in streams with an entity: the number of the event among those of its entity, from 1.
    pub const SEQUENCE: &str = "_sequence";
    /// BIGINT, only in streams that read a topic: the offset of the event's record in its partition of the topic. Those of the
    /// stream are dense, those of a topic have holes. In streams that read a database: the number of the row or change, from 0.
    pub const SOURCE_OFFSET: &str = "_source_offset";
    /// BOOLEAN, only in tables: whether the event retracts the row that it holds, instead of asserting it. The last declared
    /// column.
    pub const RETRACTED: &str = "_retracted";
    /// DATE: the UTC day of the event time; the archive's partition column.
    pub const EVENT_DATE: &str = "_event_date";
}

/// One declared column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// In its own spelling; matched without case. Tables of the lake have it so.
    pub name: String,
    pub data_type: DataType,
    /// Where the JSON of an event holds the value; `None`: in the member called exactly `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<FieldPath>,
    /// How events write a TIMESTAMP; `None`: as RFC 3339 or as milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<TimeFormat>,
    /// Whether texts hold a DECIMAL as its unscaled value in Base64, two's complement, the highest byte first: `FORMAT 'base64'`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_base64: bool,
    /// The part of a record that the column holds, instead of a part of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<RecordPart>,
}

impl Column {
    /// A column that is read from the member of its own name.
    pub fn new(name: impl Into<String>, data_type: DataType) -> Column {
        Column { name: name.into(), data_type, field: None, format: None, is_base64: false, metadata: None }
    }

    /// Where the JSON of an event holds the value.
    pub fn field(&self) -> Cow<'_, FieldPath> {
        match &self.field {
            Some(field) => Cow::Borrowed(field),
            None => Cow::Owned(FieldPath::member(self.name.as_str())),
        }
    }

    /// The column under the spelling `stored`, still read from the same member.
    fn spelled(self, stored: &str) -> Column {
        let field = self.metadata.is_none().then(|| self.field().into_owned());
        Column { name: stored.to_owned(), field, ..self }
    }
}

/// What stands behind the column's name in its declaration: `TIMESTAMP FROM '/sent/at' FORMAT 'unix_s'`.
impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: String| text.replace('\'', "''");
        write!(f, "{}", self.data_type)?;
        if let Some(part) = &self.metadata {
            write!(f, " METADATA FROM '{}'", quoted(part.to_string()))?;
        }
        if let Some(field) = &self.field {
            write!(f, " FROM '{}'", quoted(field.to_string()))?;
        }
        match &self.format {
            Some(format) => write!(f, " FORMAT '{}'", quoted(format.to_string())),
            None if self.is_base64 => f.write_str(" FORMAT 'base64'"),
            None => Ok(()),
        }
    }
}

/// How intake treats fields of an event that the stream does not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownFields {
    /// Ignore and count them.
    Ignore,
    /// Reject the line.
    Reject,
}

/// A declared stream, checked: indices are valid and the event time is a TIMESTAMP column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    pub name: StreamName,
    /// The declared columns, then columns of an earlier declaration that stored events still have.
    pub columns: Vec<Column>,
    /// Where its events come from.
    #[serde(default)]
    pub source: EventSource,
    /// How many of the columns are declared; only these are read from events.
    pub declared: usize,
    /// Index of the event id's column, for dedup.
    pub primary_key: Option<usize>,
    /// Index of the column that names the entity of an event: never null, a STRING, INT or BIGINT. All events of an entity are
    /// in one partition, numbered in its order in the column `_sequence`, the last declared one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<usize>,
    /// Set if it is a table, whose events assert and retract rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<RowTable>,
    /// Index of the event time's column (TIMESTAMP, never null).
    pub event_time: usize,
    /// How far the watermark stays behind the latest event time.
    pub watermark_delay: Duration,
    /// How far behind the watermark a window is still open for the speed layer.
    pub allowed_lateness: Duration,
    /// Event times further ahead of the arrival time than this do not move the watermark.
    pub max_ahead: Duration,
    /// Events older than this on arrival are rejected; `None`: none is too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// A partition without events for this long does not hold the watermark of the stream back.
    pub idle_timeout: Duration,
    pub unknown_fields: UnknownFields,
    /// How far back, by event time, the archive keeps events; `None`: for ever.
    #[serde(default)]
    pub retention: Option<Retention>,
    /// Number of partitions; at least 1. If it reads a topic, those of the topic, which may become more; as declared it is 1.
    pub partitions: u32,
    /// The statement that declared the stream.
    pub sql: String,
}

impl Stream {
    /// The columns as an Arrow schema. All are nullable but the event time.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields()))
    }

    /// Schema of a batch in the log: the columns, then `_watermark`.
    pub fn log_schema(&self) -> SchemaRef {
        let mut fields = self.fields();
        fields.push(Field::new(system_columns::WATERMARK, timestamp_type(), true));
        Arc::new(Schema::new(fields))
    }

    /// Schema of the archive's files, without the partition column `_event_date`.
    pub fn archive_schema(&self) -> SchemaRef {
        let mut fields = self.fields();
        fields.push(Field::new(system_columns::PARTITION, DataType::Int.arrow(), false));
        fields.push(Field::new(system_columns::OFFSET, DataType::BigInt.arrow(), false));
        fields.push(Field::new(system_columns::ARRIVED_AT, timestamp_type(), false));
        fields.push(Field::new(system_columns::WATERMARK, timestamp_type(), true));
        Arc::new(Schema::new(fields))
    }

    /// The columns that new events have: those that were declared, and those that the system adds.
    pub fn declared(&self) -> &[Column] {
        &self.columns[..self.declared]
    }

    /// The columns of the declaration, with their indexes: not `_sequence`, `_source_offset` and `_retracted`, which the system
    /// adds.
    pub fn own_columns(&self) -> impl Iterator<Item = (usize, &Column)> {
        let added = [self.sequence(), self.source_offset(), self.retracted()];
        self.declared().iter().enumerate().filter(move |(index, _)| !added.contains(&Some(*index)))
    }

    /// The columns that are read from events, with their indexes: those of the declaration that hold no part of a record.
    pub fn read_columns(&self) -> impl Iterator<Item = (usize, &Column)> {
        self.own_columns().filter(|(_, column)| column.metadata.is_none())
    }

    /// The columns that are read from JSON, with their indexes: of a table whose changes are its rows, `_retracted` too.
    pub fn json_columns(&self) -> impl Iterator<Item = (usize, &Column)> {
        let is_row = self.table.is_some_and(|table| table.format == ChangeFormat::Upsert);
        let deleted = self.retracted().filter(|_| is_row).map(|index| (index, &self.columns[index]));
        self.read_columns().chain(deleted)
    }

    /// The topic that the stream reads, if it does.
    pub fn topic(&self) -> Option<&KafkaTopic> {
        match &self.source {
            EventSource::Kafka(topic) => Some(topic),
            EventSource::Http | EventSource::Postgres(_) | EventSource::PostgresTable(_) => None,
        }
    }

    /// The outbox that the stream reads, if it does.
    pub fn outbox(&self) -> Option<&Outbox> {
        match &self.source {
            EventSource::Postgres(outbox) => Some(outbox),
            EventSource::Http | EventSource::Kafka(_) | EventSource::PostgresTable(_) => None,
        }
    }

    /// The connection to the database that the stream or table reads, if it does.
    pub fn database(&self) -> Option<&Name> {
        match &self.source {
            EventSource::Postgres(outbox) => Some(&outbox.connection),
            EventSource::PostgresTable(table) => Some(&table.connection),
            EventSource::Http | EventSource::Kafka(_) => None,
        }
    }

    /// How the changes of a transaction of its source become visible.
    pub fn transactions(&self) -> Transactions {
        match &self.source {
            EventSource::PostgresTable(table) => table.transactions,
            EventSource::Kafka(KafkaTopic { transaction_topic: Some(_), .. }) => Transactions::Whole,
            EventSource::Http | EventSource::Kafka(_) | EventSource::Postgres(_) => Transactions::Parts,
        }
    }

    /// Whether clients send its events.
    pub fn is_sent(&self) -> bool {
        self.source == EventSource::Http
    }

    /// Makes the stream accept events from clients instead of reading a topic or an outbox. Columns that hold parts of records are
    /// then read from the fields of the same names; parts of row changes stay what they are.
    pub fn detach(&mut self) {
        self.source = EventSource::Http;
        let has_changes = self.table.is_some_and(|table| table.format.has_envelopes());
        if let Some(table) = self.table.as_mut().filter(|_| has_changes) {
            table.format = ChangeFormat::Debezium;
        }
        for column in &mut self.columns {
            column.metadata = column.metadata.take().filter(|part| has_changes && part.is_of_change());
        }
    }

    /// Index of the column `_source_offset`, if the stream reads a topic or an outbox.
    pub fn source_offset(&self) -> Option<usize> {
        (!self.is_sent()).then(|| self.declared - 1 - usize::from(self.table.is_some()))
    }

    /// Index of the column `_retracted`, if it is a table.
    pub fn retracted(&self) -> Option<usize> {
        self.table.map(|_| self.declared - 1)
    }

    /// The columns of a table's key, in its order; none if it is not a table.
    pub fn row_key(&self) -> impl Iterator<Item = &Column> {
        self.table.iter().flat_map(|table| table.key.iter()).map(move |index| &self.columns[*index])
    }

    /// "table" or "stream".
    pub fn kind(&self) -> &'static str {
        if self.table.is_some() { "table" } else { "stream" }
    }

    /// Index of the column `_sequence`, if the stream has an entity.
    pub fn sequence(&self) -> Option<usize> {
        self.entity.map(|_| self.declared - 1)
    }

    /// The stream with the columns that only stored events have, NULL in new ones. Definitions that read them stay valid.
    pub fn with_removed(mut self, removed: impl IntoIterator<Item = Column>) -> Stream {
        for column in removed {
            if self.column(&column.name).is_none() {
                self.columns.push(column);
            }
        }
        self
    }

    /// The stream with its columns spelled as `stored` spells them. A table cannot have two columns that differ by case
    /// alone, so another spelling of a stored column is the same column; it is read from events by its declared spelling.
    pub fn with_stored_spelling(mut self, stored: &[Column]) -> Stream {
        for column in &mut self.columns {
            let known = stored.iter().find(|known| column_name::same(&known.name, &column.name));
            if let Some(known) = known.filter(|known| known.name != column.name) {
                *column = column.clone().spelled(&known.name);
            }
        }
        self
    }

    /// Index of the column called `name`, in any case.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| column_name::same(&c.name, name))
    }

    fn fields(&self) -> Vec<Field> {
        let field = |(i, c): (usize, &Column)| Field::new(&c.name, c.data_type.arrow(), i != self.event_time);
        self.columns.iter().enumerate().map(field).collect()
    }
}
