//! Decodes records of a topic whose values are Avro in the wire format of Confluent: a zero byte, the id of the writer's
//! schema, the body. Records of one schema are decoded together, and cast to the columns of the stream as a table is.
//!
//! The values may be change events of Debezium ([`super::debezium_avro`]), and changes of a table ([`super::avro_tables`]).
//!
//! A body that cannot be read spoils the decoder of its batch, so that batch is decoded again record by record.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use kafka::TopicRecord;
use shared::column_name::same;
use shared::stream::{RecordFormat, Stream};

use super::avro_tables;
use super::column_cast::{CastRows, ColumnCast};
use super::columns::Builder;
use super::debezium::ChangeFacts;
use super::debezium_avro::ChangedRows;
use super::outcome::{Outcome, oldest};
use super::records::RecordParts;
use super::row::Row;
use super::{DecodeError, Decoded, Options};

/// The first byte of a value, and the bytes before its body.
const MAGIC: u8 = 0;
pub(super) const PREFIX_BYTES: usize = 5;

/// Schemas of writers by id; an error says why records with the id cannot be read.
pub type WriterSchemas = HashMap<u32, Result<Arc<str>, String>>;

/// The id of the writer's schema; `None` if the value is not in the wire format.
pub fn schema_id(value: &[u8]) -> Option<u32> {
    match value {
        [MAGIC, id @ ..] => id.first_chunk::<4>().map(|id| u32::from_be_bytes(*id)),
        _ => None,
    }
}

/// Rows of some records, and the index of the record of each.
pub(super) struct RecordRows {
    pub records: Vec<usize>,
    pub rows: RecordBatch,
    /// Of change events: the facts of each.
    pub facts: Vec<ChangeFacts>,
}

/// Reads the events of `records`, in their order. A rejected one has its index in `records` as its line.
///
/// # Errors
/// Defects, and [`DecodeError::Truncate`] if a record deletes all rows of a table. Every record that cannot be read is a rejection.
pub fn decode_avro(
    stream: &Arc<Stream>,
    schemas: &WriterSchemas,
    records: &[TopicRecord],
    options: Options,
) -> Result<Decoded, DecodeError> {
    if let Some(table) = stream.table {
        return avro_tables::decode(stream, table, schemas, records, options);
    }
    let mut reader = AvroRecords::new(stream, records, options);
    let mut pieces: Vec<RecordRows> = Vec::new();
    for (id, (schema, indexes)) in reader.by_schema(schemas) {
        let Some(mut read) = reader.read(id, &schema, indexes)? else { continue };
        if reader.has_changes {
            read = reader.rows_of_changes(read)?;
        }
        pieces.extend(reader.cast(read, options)?);
    }
    let (rows, _) = in_order(stream, &pieces)?;
    let skipped = records.iter().filter(|record| reader.skips(record)).count();
    reader.outcome.lines_read = (records.len() - skipped) as u64;
    Ok(reader.outcome.decoded(stream, rows))
}

/// All rows in the order of their records, and the record of each; those of one record in the order of the pieces.
pub(super) fn in_order(stream: &Stream, pieces: &[RecordRows]) -> Result<(RecordBatch, Vec<usize>), ArrowError> {
    let all = match pieces {
        [] => return Ok((RecordBatch::new_empty(stream.schema()), Vec::new())),
        [one] => return Ok((one.rows.clone(), one.records.clone())),
        pieces => concat_batches(&stream.schema(), pieces.iter().map(|piece| &piece.rows))?,
    };
    let records: Vec<usize> = pieces.iter().flat_map(|piece| piece.records.iter().copied()).collect();
    let mut order: Vec<u32> = (0..records.len() as u32).collect();
    order.sort_by_key(|row| records[*row as usize]);
    let ordered = order.iter().map(|row| records[*row as usize]).collect();
    Ok((take_record_batch(&all, &UInt32Array::from(order))?, ordered))
}

/// The reading of some records.
pub(super) struct AvroRecords<'a> {
    pub stream: &'a Arc<Stream>,
    pub records: &'a [TopicRecord],
    /// Whether values are change events of Debezium.
    has_changes: bool,
    parts: RecordParts<'a>,
    pub outcome: Outcome,
}

impl<'a> AvroRecords<'a> {
    pub fn new(stream: &'a Arc<Stream>, records: &'a [TopicRecord], options: Options) -> AvroRecords<'a> {
        let has_changes = stream.topic().is_some_and(|topic| topic.format == RecordFormat::DebeziumAvro);
        AvroRecords { stream, records, has_changes, parts: RecordParts::new(stream), outcome: Outcome::new(options) }
    }

    pub fn reject(&mut self, index: usize, reason: &str) {
        let value = self.records[index].value.as_deref().unwrap_or_default();
        self.outcome.reject(index as u64, reason, || value.to_vec());
    }

    /// Returns whether the record has no value and is not rejected for it: Debezium writes a tombstone after each deletion, for
    /// compaction, and of a table a tombstone is a deletion itself.
    fn skips(&self, record: &TopicRecord) -> bool {
        (self.has_changes || self.stream.table.is_some()) && record.value.is_none()
    }

    /// Divides the records by their schema, and rejects those that have none.
    pub fn by_schema(&mut self, schemas: &WriterSchemas) -> BTreeMap<u32, (Arc<str>, Vec<usize>)> {
        let mut groups: BTreeMap<u32, (Arc<str>, Vec<usize>)> = BTreeMap::new();
        let mut row = Row::new(self.stream.columns.len(), 0);
        for (index, record) in self.records.iter().enumerate() {
            if self.skips(record) {
                continue;
            }
            row.clear();
            let schema = match (&record.value, self.parts.add(record, &mut row)) {
                (None, _) => Err("the record has no value (a tombstone)".to_owned()),
                (Some(_), Err(reason)) => Err(reason.to_string()),
                (Some(value), Ok(())) => match schema_id(value).map(|id| (id, schemas.get(&id))) {
                    Some((id, Some(Ok(schema)))) => Ok((id, schema)),
                    Some((_, Some(Err(reason)))) => Err(reason.clone()),
                    Some((id, None)) => Err(format!("schema {id}: it was not fetched")),
                    None => Err("the value does not begin with a zero byte and the id of a schema".to_owned()),
                },
            };
            match schema {
                Ok((id, schema)) => groups.entry(id).or_insert_with(|| (Arc::clone(schema), Vec::new())).1.push(index),
                Err(reason) => self.reject(index, &reason),
            }
        }
        groups
    }

    /// Decodes records of one schema. Rejects those whose body cannot be read.
    pub fn read(&mut self, id: u32, schema: &str, indexes: Vec<usize>) -> Result<Option<RecordRows>, ArrowError> {
        let records = self.records;
        let body = |index: &usize| records[*index].value.as_deref().unwrap_or_default();
        let mut decoder = match decoder(id, schema, indexes.len()) {
            Ok(decoder) => decoder,
            Err(error) => {
                indexes.iter().for_each(|index| self.reject(*index, &format!("schema {id}: {error}")));
                return Ok(None);
            }
        };
        if indexes.iter().all(|index| append(&mut decoder, body(index)).is_ok())
            && let Ok(Some(rows)) = decoder.flush()
            && rows.num_rows() == indexes.len()
        {
            return Ok(Some(RecordRows { records: indexes, rows, facts: Vec::new() }));
        }
        let (mut kept, mut batches) = (Vec::new(), Vec::new());
        let mut single: Option<Decoder> = None;
        for index in indexes {
            let mut fresh = match single.take() {
                Some(decoder) => decoder,
                None => self::decoder(id, schema, 1)?,
            };
            let read = append(&mut fresh, body(&index)).and_then(|()| fresh.flush().map_err(|error| error.to_string()));
            match read {
                Ok(Some(rows)) => {
                    kept.push(index);
                    batches.push(rows);
                    single = Some(fresh);
                }
                Ok(None) => self.reject(index, "the body is empty"),
                Err(reason) => self.reject(index, &format!("cannot read the body with schema {id}: {reason}")),
            }
        }
        let Some(first) = batches.first() else { return Ok(None) };
        Ok(Some(RecordRows { rows: concat_batches(&first.schema(), &batches)?, records: kept, facts: Vec::new() }))
    }

    /// Finds the rows in change events. Rejects the events that name none.
    fn rows_of_changes(&mut self, read: RecordRows) -> Result<RecordRows, ArrowError> {
        let ChangedRows { rows, facts, events, rejected } = ChangedRows::of(&read.rows)?;
        rejected.into_iter().for_each(|(event, reason)| self.reject(read.records[event], &reason));
        let records = events.into_iter().map(|event| read.records[event]).collect();
        Ok(RecordRows { records, rows, facts })
    }

    /// Casts decoded rows to the columns of the stream. Rejects those that do not fit.
    pub fn cast(&mut self, read: RecordRows, options: Options) -> Result<Option<RecordRows>, ArrowError> {
        let RecordRows { records, rows, facts } = read;
        if records.is_empty() {
            return Ok(None);
        }
        let rows = self.with_parts(&records, &facts, rows)?;
        let cast = match ColumnCast::new(self.stream, &rows.schema()) {
            Ok(cast) => cast.not_before(oldest(self.stream, options.arrived_at)),
            Err(error) => {
                records.iter().for_each(|index| self.reject(*index, &error.to_string()));
                return Ok(None);
            }
        };
        let CastRows { rows, rejected } = cast.apply(&rows, usize::MAX)?;
        self.outcome.unknown_fields += cast.unknown.len() as u64 * rows.num_rows() as u64;
        let mut is_kept = vec![true; records.len()];
        for (row, reason) in rejected {
            is_kept[row] = false;
            self.reject(records[row], &reason);
        }
        let kept: Vec<usize> =
            records.into_iter().zip(is_kept).filter(|(_, kept)| *kept).map(|(index, _)| index).collect();
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if let Some(column) = self.stream.source_offset() {
            columns[column] = Arc::new(Int64Array::from_iter_values(kept.iter().map(|i| self.records[*i].offset)));
        }
        let rows = RecordBatch::try_new(self.stream.schema(), columns)?;
        Ok(Some(RecordRows { records: kept, rows, facts: Vec::new() }))
    }

    /// Adds columns for the parts of records, in place of fields of the same name.
    fn with_parts(
        &self,
        records: &[usize],
        facts: &[ChangeFacts],
        rows: RecordBatch,
    ) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<_> = self.parts.columns().collect();
        if columns.is_empty() {
            return Ok(rows);
        }
        let mut builders: Vec<Builder> =
            columns.iter().map(|(_, column)| Builder::new(column.data_type, records.len())).collect();
        let mut row = Row::new(self.stream.columns.len(), 0);
        for (at, index) in records.iter().enumerate() {
            row.clear();
            if let Some(facts) = facts.get(at) {
                self.parts.add_change(facts, &mut row);
            }
            // It was accepted before.
            let _ = self.parts.add(&self.records[*index], &mut row);
            for (builder, (column, _)) in builders.iter_mut().zip(&columns) {
                builder.append(&row.cells[*column], &row.unescaped);
            }
        }
        let schema = rows.schema();
        let is_other = |name: &str| columns.iter().all(|(_, column)| !same(&column.name, name));
        let own = schema.fields().iter().zip(rows.columns()).filter(|(field, _)| is_other(field.name()));
        let (mut fields, mut arrays): (Vec<Field>, Vec<ArrayRef>) =
            own.map(|(field, array)| (field.as_ref().clone(), Arc::clone(array))).unzip();
        for (builder, (_, column)) in builders.into_iter().zip(&columns) {
            fields.push(Field::new(&column.name, column.data_type.arrow(), true));
            arrays.push(builder.finish());
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }
}

/// Reads one value, whose schema is a record.
pub(super) fn read_alone(id: u32, schema: &str, value: &[u8]) -> Result<RecordBatch, String> {
    let mut decoder = decoder(id, schema, 1).map_err(|error| error.to_string())?;
    append(&mut decoder, value)?;
    let rows = decoder.flush().map_err(|error| error.to_string())?;
    rows.ok_or_else(|| "the body is empty".to_owned())
}

/// A decoder of up to `rows` records of one schema.
fn decoder(id: u32, schema: &str, rows: usize) -> Result<Decoder, ArrowError> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(id), AvroSchema::new(schema.to_owned()))?;
    // Room for one more, so that a value that holds two bodies is noticed.
    // Views of texts would be made by the decoder, which turns null into an empty text then (arrow-avro 59).
    ReaderBuilder::new().with_batch_size(rows + 1).with_writer_schema_store(store).build_decoder()
}

/// Decodes one value: exactly one body, to its end.
fn append(decoder: &mut Decoder, value: &[u8]) -> Result<(), String> {
    let before = decoder.capacity();
    let read = decoder.decode(value).map_err(|error| error.to_string())?;
    match (read == value.len() && read >= PREFIX_BYTES, before - decoder.capacity()) {
        (true, 1) => Ok(()),
        (false, 0 | 1) => Err("it ends early, or bytes follow it".to_owned()),
        _ => Err("it holds more than one record".to_owned()),
    }
}
