//! What does a stream look like? Its columns, which one is the event time, which one the event id, and its options.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::ids::StreamName;
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
    /// DATE: the UTC day of the event time; the archive's partition column.
    pub const EVENT_DATE: &str = "_event_date";
}

/// One declared column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub data_type: DataType,
}

/// What to do with fields of an event that the stream does not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownFields {
    /// Leave them out and count them.
    Ignore,
    /// Reject the line.
    Reject,
}

/// A declared stream, checked: indices are valid and the event time is a TIMESTAMP column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    pub name: StreamName,
    /// The declared columns, then those that were declared once and still stand in what is stored.
    pub columns: Vec<Column>,
    /// How many of the columns are declared: values are taken from events for these alone.
    pub declared: usize,
    /// Index of the event id's column, for dedup.
    pub primary_key: Option<usize>,
    /// Index of the event time's column (TIMESTAMP, never null).
    pub event_time: usize,
    /// How far the watermark stays behind the latest event time.
    pub watermark_delay: Duration,
    /// How far behind the watermark a window is still open for the speed layer.
    pub allowed_lateness: Duration,
    /// Event times further ahead of the arrival time than this do not move the watermark.
    pub max_ahead: Duration,
    /// A partition without events for this long does not hold the watermark of the stream back.
    pub idle_timeout: Duration,
    pub unknown_fields: UnknownFields,
    /// How far back, by event time, the archive keeps events; `None`: for ever.
    #[serde(default)]
    pub retention: Option<Retention>,
    /// Number of partitions; at least 1.
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

    /// The columns that events may have.
    pub fn declared(&self) -> &[Column] {
        &self.columns[..self.declared]
    }

    /// The stream with columns that what is stored has and the declaration has not: always null in new events. A definition
    /// that still reads them goes on being understood.
    pub fn with_removed(mut self, removed: impl IntoIterator<Item = Column>) -> Stream {
        for column in removed {
            if self.column(&column.name).is_none() {
                self.columns.push(column);
            }
        }
        self
    }

    /// Index of the column called `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    fn fields(&self) -> Vec<Field> {
        let field = |(i, c): (usize, &Column)| Field::new(&c.name, c.data_type.arrow(), i != self.event_time);
        self.columns.iter().enumerate().map(field).collect()
    }
}
