//! Decodes records of a topic: each value is one event, accepted or rejected by itself, and columns may hold other parts of
//! the record: its key, its timestamp, its headers, its partition and its offset. [`super::debezium`] reads changes of rows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use csv_core::{ReadRecordResult, Reader};
use kafka::TopicRecord;
use serde_json::{Map, Value};
use shared::stream::{Column, RecordPart, Stream};

use super::avro::{PREFIX_BYTES, schema_id};
use super::debezium::{ChangeFacts, RowChange};
use super::reject_reason::RejectReason;
use super::row::{Cell, Row};
use super::session::Session;
use super::{DecodeError, Decoded, Options, text_value};

/// Marks the bytes of a header that are not UTF-8.
const BASE64_PREFIX: &str = "base64:";
const MICROS_PER_MILLI: i64 = 1_000;

/// How a text holds an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// One JSON object.
    Json,
    /// One line of CSV without a header.
    Csv,
    /// A row change as Debezium writes it.
    Change,
}

/// Reads the events of `records` with values of text, in their order. A rejected one has its index in `records` as its line.
///
/// # Errors
/// [`DecodeError::TooManyEvents`] beyond [`Options::values_max`], and [`DecodeError::Truncate`] if a record deletes all rows. All else is
/// a rejection of single records.
pub fn decode_records<'a>(
    stream: &'a Stream,
    format: TextFormat,
    records: &'a [TopicRecord],
    options: Options,
) -> Result<Decoded, DecodeError> {
    let bytes = records.iter().map(TopicRecord::bytes).sum();
    let mut session = Session::new(stream, options, bytes, true);
    let parts = RecordParts::new(stream);
    let mut line = CsvLine::new(stream);
    for (index, record) in (0..).zip(records) {
        if stream.table.is_some() {
            let parts = RecordPlace { parts: &parts, record };
            session.read_table_record(index, record.value.as_deref().map(without_schema_id), parts);
            if let Some(record) = session.truncate {
                return Err(DecodeError::Truncate { record });
            }
            continue;
        }
        let Some(value) = &record.value else {
            // Debezium writes a tombstone after each deletion, for compaction.
            if format == TextFormat::Change {
                continue;
            }
            session.reject(index, record.key.as_deref().unwrap_or_default(), RejectReason::NoValue);
            continue;
        };
        let value = match format {
            TextFormat::Json | TextFormat::Change => without_schema_id(value),
            TextFormat::Csv => value,
        };
        let text = match simdutf8::compat::from_utf8(value) {
            Ok(text) => text,
            Err(error) => {
                session.reject(index, value, RejectReason::NotUtf8 { column: error.valid_up_to() + 1 });
                continue;
            }
        };
        match format {
            TextFormat::Json => session.read_record(index, text, |row| parts.add(record, row)),
            TextFormat::Change => match RowChange::read(text) {
                Ok(change) => session.read_record(index, change.row, |row| {
                    parts.add_change(&change.facts, row);
                    parts.add(record, row)
                }),
                Err(reason) => session.reject(index, value, reason),
            },
            TextFormat::Csv => {
                let max = session.event_bytes_max();
                let row = session.row();
                let read = line.read(text, max, row);
                match read.and_then(|()| parts.add(record, row)) {
                    Ok(()) => session.settle(index, || value),
                    Err(reason) => session.reject(index, value, reason),
                }
            }
        }
    }
    session.finish()
}

/// A record of a topic, and the columns that hold parts of it.
pub(super) struct RecordPlace<'r, 'p, 'a> {
    pub parts: &'p RecordParts<'a>,
    pub record: &'r TopicRecord,
}

/// A value without the zero byte and the id that serializers with a schema registry write in front of JSON.
pub(super) fn without_schema_id(value: &[u8]) -> &[u8] {
    match schema_id(value) {
        Some(_) => &value[PREFIX_BYTES..],
        None => value,
    }
}

/// The columns of a stream that hold parts of records.
pub(super) struct RecordParts<'a> {
    columns: Vec<(usize, &'a Column, &'a RecordPart)>,
    source_offset: Option<usize>,
}

impl<'a> RecordParts<'a> {
    pub(super) fn new(stream: &'a Stream) -> RecordParts<'a> {
        let columns =
            stream.own_columns().filter_map(|(index, column)| Some((index, column, column.metadata.as_ref()?)));
        RecordParts { columns: columns.collect(), source_offset: stream.source_offset() }
    }

    /// The columns, with their indexes.
    pub(super) fn columns(&self) -> impl Iterator<Item = (usize, &'a Column)> {
        self.columns.iter().map(|(index, column, _)| (*index, *column))
    }

    /// Adds the parts that only row changes have.
    pub(super) fn add_change(&self, change: &ChangeFacts, row: &mut Row<'_>) {
        for (index, _, part) in &self.columns {
            row.cells[*index] = match part {
                RecordPart::Operation => Cell::Text(change.operation),
                RecordPart::SourceTimestamp => match change.source_ms {
                    Some(ms) => Cell::Integer(ms.saturating_mul(MICROS_PER_MILLI)),
                    None => Cell::Null,
                },
                _ => continue,
            };
        }
    }

    /// Adds the parts of `record` to the row.
    pub(super) fn add<'r>(&self, record: &'r TopicRecord, row: &mut Row<'r>) -> Result<(), RejectReason<'a>> {
        for (index, column, part) in &self.columns {
            row.cells[*index] = match part {
                RecordPart::Timestamp => Cell::Integer(record.timestamp_ms.saturating_mul(MICROS_PER_MILLI)),
                RecordPart::Partition => Cell::Integer(record.partition.into()),
                RecordPart::Offset => Cell::Integer(record.offset),
                RecordPart::Key => text(column, part, record.key.as_deref())?,
                RecordPart::Header(name) => {
                    let last = record.headers.iter().rev().find(|(header, _)| header == name);
                    text(column, part, last.and_then(|(_, value)| value.as_deref()))?
                }
                RecordPart::Outbox(name) => {
                    let found = record.headers.iter().find(|(header, _)| header == name.name());
                    text(column, part, found.and_then(|(_, value)| value.as_deref()))?
                }
                RecordPart::Operation | RecordPart::SourceTimestamp => continue,
                RecordPart::Headers => {
                    let start = row.unescaped.len();
                    row.unescaped.push_str(&headers(record).to_string());
                    Cell::Unescaped { start, end: row.unescaped.len() }
                }
            };
        }
        if let Some(index) = self.source_offset {
            row.cells[index] = Cell::Integer(record.offset);
        }
        Ok(())
    }
}

/// Reads a part that is text.
fn text<'r, 'a>(
    column: &'a Column,
    part: &'a RecordPart,
    bytes: Option<&'r [u8]>,
) -> Result<Cell<'r>, RejectReason<'a>> {
    let Some(bytes) = bytes else { return Ok(Cell::Null) };
    let text = std::str::from_utf8(bytes).map_err(|_| RejectReason::PartNotUtf8 { column, part })?;
    text_value::read(column, text).map_err(|_| RejectReason::NotValue { column, text: text.to_owned() })
}

/// The headers as an object.
fn headers(record: &TopicRecord) -> Value {
    let value = |value: &Option<bytes::Bytes>| match value {
        None => Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::from(text),
            Err(_) => Value::from(format!("{BASE64_PREFIX}{}", STANDARD.encode(bytes))),
        },
    };
    Value::Object(record.headers.iter().map(|(name, bytes)| (name.clone(), value(bytes))).collect::<Map<_, _>>())
}

/// Reads values that are one line of CSV, into buffers that are used again.
struct CsvLine<'a> {
    columns: Vec<(usize, &'a Column)>,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a> CsvLine<'a> {
    fn new(stream: &'a Stream) -> CsvLine<'a> {
        let columns: Vec<_> = stream.read_columns().collect();
        // One more field than are valid.
        CsvLine { ends: vec![0; columns.len() + 2], columns, fields: Vec::new() }
    }

    /// Reads `text` into an empty row.
    fn read<'r>(&mut self, text: &str, bytes_max: usize, row: &mut Row<'r>) -> Result<(), RejectReason<'a>> {
        if text.len() > bytes_max {
            return Err(RejectReason::TooLong { max: bytes_max });
        }
        let expected = self.columns.len();
        let count = self.split(text.as_bytes());
        if count != expected {
            return Err(RejectReason::FieldCount { expected, found: count });
        }
        let mut start = 0;
        for ((index, column), end) in self.columns.iter().zip(&self.ends) {
            let field = std::str::from_utf8(&self.fields[start..*end]).unwrap_or_default();
            start = *end;
            row.cells[*index] = match field {
                "" => Cell::Null,
                field => match text_value::read(column, field) {
                    Ok(cell) => cell.detached(&mut row.unescaped),
                    Err(_) => return Err(RejectReason::NotValue { column, text: field.to_owned() }),
                },
            };
        }
        Ok(())
    }

    /// Splits `text` into fields and returns how many it has, as far as they fit. Text behind its first line counts as one more.
    fn split(&mut self, text: &[u8]) -> usize {
        self.fields.resize(self.fields.len().max(text.len() + 1), 0);
        let (mut reader, mut rest, mut bytes, mut ends) = (Reader::new(), text, 0, 0);
        loop {
            let (result, read, written, ended) =
                reader.read_record(rest, &mut self.fields[bytes..], &mut self.ends[ends..]);
            (rest, bytes, ends) = (&rest[read..], bytes + written, ends + ended);
            match result {
                // The next call, without input, ends the record.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record if rest.trim_ascii().is_empty() => return ends,
                ReadRecordResult::Record | ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    return ends + 1;
                }
                ReadRecordResult::End => return ends,
            }
        }
    }
}
