//! Describes where the events of a stream come from: clients that send them over HTTP, a topic or an outbox that Trueup
//! reads.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::database_table::DatabaseTable;
use super::outbox::{Outbox, OutboxPart};
use crate::ids::Name;
use crate::time::Micros;
use crate::types::DataType;

/// Where the events of a stream come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum EventSource {
    /// Clients send them.
    #[default]
    Http,
    /// Each record of a topic is an event.
    Kafka(KafkaTopic),
    /// Each row of an outbox in PostgreSQL, or each message, is an event.
    Postgres(Outbox),
    /// The rows of a table in PostgreSQL, and their changes, are those of a table.
    PostgresTable(DatabaseTable),
}

/// A topic of Kafka whose partition k becomes the partition k of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaTopic {
    /// The connection of the settings.
    pub connection: Name,
    pub topic: String,
    pub format: RecordFormat,
    pub start: TopicStart,
    /// The consumer group under which positions are reported to the broker. They are never read back.
    pub group: String,
    /// The topic that says where the transactions of the changes end, if these become visible whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_topic: Option<String>,
}

/// How the value of a record holds an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordFormat {
    /// One JSON object.
    Json,
    /// One line of CSV without a header: the columns in the order of their declaration.
    Csv,
    /// Avro behind the id of its schema in a schema registry (the wire format of Confluent).
    Avro,
    /// Protobuf behind the id of its schema, likewise.
    Protobuf,
    /// A row change as Debezium writes it in JSON: the event is the row after the change or, for a deletion, before it.
    DebeziumJson,
    /// The same in Avro, behind the id of its schema.
    DebeziumAvro,
}

impl RecordFormat {
    /// The values of the option `format`.
    pub const NAMES: [&str; 6] = ["json", "csv", "avro", "protobuf", "debezium-json", "debezium-avro"];

    /// The format with this name.
    pub fn named(name: &str) -> Option<RecordFormat> {
        match name {
            "json" => Some(RecordFormat::Json),
            "csv" => Some(RecordFormat::Csv),
            "avro" => Some(RecordFormat::Avro),
            "protobuf" => Some(RecordFormat::Protobuf),
            "debezium-json" => Some(RecordFormat::DebeziumJson),
            "debezium-avro" => Some(RecordFormat::DebeziumAvro),
            _ => None,
        }
    }
}

impl RecordFormat {
    /// Whether values name their schema in a registry.
    pub fn needs_registry(self) -> bool {
        matches!(self, RecordFormat::Avro | RecordFormat::Protobuf | RecordFormat::DebeziumAvro)
    }

    /// Whether values are changes of rows.
    pub fn has_changes(self) -> bool {
        matches!(self, RecordFormat::DebeziumJson | RecordFormat::DebeziumAvro)
    }
}

impl fmt::Display for RecordFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordFormat::Json => "json",
            RecordFormat::Csv => "csv",
            RecordFormat::Avro => "avro",
            RecordFormat::Protobuf => "protobuf",
            RecordFormat::DebeziumJson => "debezium-json",
            RecordFormat::DebeziumAvro => "debezium-avro",
        })
    }
}

/// Where reading starts, if the stream has no position yet. Partitions that the topic gains later start at their beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopicStart {
    /// The oldest record that the broker still has.
    Earliest,
    /// The first record written after reading has started.
    Latest,
    /// The first record whose timestamp is not before this one.
    Timestamp(Micros),
    /// By partition; those that are not listed start at their beginning.
    Offsets(BTreeMap<u32, i64>),
}

impl TopicStart {
    /// Reads the value of the option `start`; `None` if it is none of the forms.
    pub fn parse(text: &str) -> Option<TopicStart> {
        match text {
            "earliest" => return Some(TopicStart::Earliest),
            "latest" => return Some(TopicStart::Latest),
            _ => {}
        }
        if let Some(time) = Micros::parse(text) {
            return Some(TopicStart::Timestamp(time));
        }
        let mut offsets = BTreeMap::new();
        for pair in text.split(',') {
            let (partition, offset) = pair.split_once(':')?;
            let (partition, offset) = (partition.trim().parse::<u32>().ok()?, offset.trim().parse::<i64>().ok()?);
            if offset < 0 || offsets.insert(partition, offset).is_some() {
                return None;
            }
        }
        Some(TopicStart::Offsets(offsets))
    }
}

/// A part of a record beside its value, which a column can hold: `METADATA FROM 'key'`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordPart {
    /// When the record was written, by its producer's clock or the broker's.
    Timestamp,
    /// The key, as text.
    Key,
    Partition,
    Offset,
    /// The headers as a JSON object. The last of equal names counts; values that are not UTF-8 are `base64:` and their bytes.
    Headers,
    /// The header with this name, as text. The last of equal names counts.
    Header(String),
    /// The operation of a row change: `c` (created), `u` (updated), `d` (deleted) or `r` (read in a snapshot).
    Operation,
    /// Time at which the database changed the row.
    SourceTimestamp,
    /// A part of an event of an outbox.
    Outbox(OutboxPart),
}

/// Prefix of the name of a header.
const HEADER: &str = "header:";

impl RecordPart {
    /// The names of all parts. The last one is a prefix: the name of a header follows.
    pub const NAMES: [&str; 13] = [
        "timestamp",
        "key",
        "partition",
        "offset",
        "headers",
        "op",
        "source.timestamp",
        "id",
        "aggregatetype",
        "aggregateid",
        "type",
        "lsn",
        HEADER,
    ];

    /// The part with this name.
    pub fn named(name: &str) -> Option<RecordPart> {
        match name {
            "timestamp" => Some(RecordPart::Timestamp),
            "key" => Some(RecordPart::Key),
            "partition" => Some(RecordPart::Partition),
            "offset" => Some(RecordPart::Offset),
            "headers" => Some(RecordPart::Headers),
            "op" => Some(RecordPart::Operation),
            "source.timestamp" => Some(RecordPart::SourceTimestamp),
            name => {
                if let Some(part) = OutboxPart::ALL.into_iter().find(|part| part.name() == name) {
                    return Some(RecordPart::Outbox(part));
                }
                let header = name.strip_prefix(HEADER).filter(|header| !header.is_empty())?;
                Some(RecordPart::Header(header.to_owned()))
            }
        }
    }

    /// Whether only row changes have the part.
    pub fn is_of_change(&self) -> bool {
        matches!(self, RecordPart::Operation | RecordPart::SourceTimestamp)
    }

    /// The types that a column of this part may have, in words; `None` if it may have `data_type`.
    pub fn refuses(&self, data_type: DataType) -> Option<&'static str> {
        let (fits, expected) = match self {
            RecordPart::Timestamp | RecordPart::SourceTimestamp => (data_type == DataType::Timestamp, "TIMESTAMP"),
            RecordPart::Key | RecordPart::Header(_) => {
                (matches!(data_type, DataType::String | DataType::Int | DataType::BigInt), "STRING, INT or BIGINT")
            }
            RecordPart::Partition => (matches!(data_type, DataType::Int | DataType::BigInt), "INT or BIGINT"),
            RecordPart::Offset => (data_type == DataType::BigInt, "BIGINT"),
            RecordPart::Headers | RecordPart::Operation => (data_type == DataType::String, "STRING"),
            RecordPart::Outbox(OutboxPart::Lsn) => (OutboxPart::Lsn.fits(data_type), "STRING"),
            RecordPart::Outbox(part) => (part.fits(data_type), "STRING, INT or BIGINT"),
        };
        (!fits).then_some(expected)
    }
}

impl fmt::Display for RecordPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordPart::Timestamp => "timestamp",
            RecordPart::Key => "key",
            RecordPart::Partition => "partition",
            RecordPart::Offset => "offset",
            RecordPart::Headers => "headers",
            RecordPart::Header(name) => return write!(f, "{HEADER}{name}"),
            RecordPart::Operation => "op",
            RecordPart::SourceTimestamp => "source.timestamp",
            RecordPart::Outbox(part) => part.name(),
        })
    }
}

/// Whether Kafka allows this name of a topic.
pub fn is_topic_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_words_times_or_offsets() {
        assert_eq!(TopicStart::parse("latest"), Some(TopicStart::Latest));
        assert_eq!(TopicStart::parse("1970-01-01T00:00:01Z"), Some(TopicStart::Timestamp(Micros(1_000_000))));
        assert_eq!(TopicStart::parse("0:42, 3:7"), Some(TopicStart::Offsets(BTreeMap::from([(0, 42), (3, 7)]))));
        for bad in ["", "newest", "0:42,0:43", "0:-1", "a:1", "1"] {
            assert_eq!(TopicStart::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_lead_to_their_values_and_back() {
        for name in RecordPart::NAMES {
            let name = if name == HEADER { "header:trace id" } else { name };
            assert!(RecordPart::named(name).is_some_and(|part| part.to_string() == name), "{name}");
        }
        assert_eq!(RecordPart::named(HEADER), None);
        assert!(RecordFormat::NAMES.iter().all(|n| RecordFormat::named(n).is_some_and(|f| f.to_string() == *n)));
    }

    #[test]
    fn topic_names_are_those_of_kafka() {
        assert!(is_topic_name("orders.v1_x-2"));
        for bad in ["", ".", "..", "a b", "ü", &"x".repeat(250)] {
            assert!(!is_topic_name(bad), "{bad}");
        }
    }
}
