//! Decodes the changes of a table that are Avro: rows, or change events of Debezium.
//!
//! Rows are cast as those of a stream ([`super::avro`]). A deletion has a key alone, from the row before it or from the key of its record;
//! it is read as in a topic of JSON ([`super::table_changes`]), so that a key means the same in both.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch, nullif};
use arrow::datatypes::{DataType as ArrowType, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use kafka::TopicRecord;
use shared::stream::{ChangeFormat, Column, RowTable, Stream};
use shared::types::DataType;

use super::avro::{AvroRecords, RecordRows, WriterSchemas, read_alone, schema_id};
use super::column_cast::column_of;
use super::debezium::{ChangeFacts, WITHOUT_BEFORE};
use super::debezium_avro::{Envelopes, rows_at};
use super::records::{TextFormat, decode_records};
use super::reject_reason::RejectReason;
use super::table_changes::{KeptValues, OTHER_PARTITION};
use super::{DecodeError, Decoded, Options};

/// The values of a key, each as in JSON.
type KeyValues = Vec<Bytes>;

/// The name under which a key that is a value alone is read.
const KEY_ALONE: &str = "key";

/// What the records of a topic change.
struct Changes<'a> {
    records: AvroRecords<'a>,
    schemas: &'a WriterSchemas,
    table: RowTable,
    options: Options,
    /// The records that delete a row, each with the key as in JSON.
    deletions: Vec<(usize, Bytes)>,
    /// The keys before updates.
    keys_before: HashMap<usize, KeyValues>,
    /// The columns of written rows whose values the sender does not know.
    unknown: HashMap<usize, Vec<usize>>,
    /// The first record that deletes all rows.
    truncate: Option<usize>,
}

/// Reads the changes of `records`, in their order. A rejected one has its index in `records` as its line.
///
/// # Errors
/// Defects, and [`DecodeError::Truncate`] if a record deletes all rows.
pub(super) fn decode(
    stream: &Arc<Stream>,
    table: RowTable,
    schemas: &WriterSchemas,
    records: &[TopicRecord],
    options: Options,
) -> Result<Decoded, DecodeError> {
    let records = AvroRecords::new(stream, records, options);
    let (deletions, keys_before, unknown) = (Vec::new(), HashMap::new(), HashMap::new());
    let mut changes = Changes { records, schemas, table, options, deletions, keys_before, unknown, truncate: None };
    changes.read_tombstones();
    let mut written = Vec::new();
    for (id, (schema, indexes)) in changes.records.by_schema(schemas) {
        let Some(read) = changes.records.read(id, &schema, indexes)? else { continue };
        let read = match table.format.has_envelopes() {
            true => changes.rows_of_envelopes(read)?,
            false => changes.rows_without_deleted(read)?,
        };
        let read = changes.without_unknown(read)?;
        written.extend(changes.cast(read)?);
    }
    if let Some(record) = changes.truncate {
        return Err(DecodeError::Truncate { record });
    }
    changes.finish(written)
}

impl Changes<'_> {
    fn stream(&self) -> &Arc<Stream> {
        self.records.stream
    }

    fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.records.stream.row_key()
    }

    /// The values of the key among the fields of a record; `None`: it does not have all of the fields.
    fn keys(&self, rows: &RecordBatch) -> Option<Vec<ArrayRef>> {
        let schema = rows.schema();
        self.key_columns().map(|column| Some(Arc::clone(rows.column(column_of(&schema, column)?)))).collect()
    }

    fn no_key(&self) -> String {
        RejectReason::NoPrimaryKey { column: &self.records.stream.columns[self.table.key.first()] }.to_string()
    }

    /// A record without a value deletes the row that its key names.
    fn read_tombstones(&mut self) {
        let records = self.records.records;
        for (index, _) in records.iter().enumerate().filter(|(_, record)| record.value.is_none()) {
            let key = self.record_key(index);
            self.delete(index, key);
        }
    }

    fn delete(&mut self, index: usize, key: Result<Bytes, String>) {
        match key {
            Ok(key) => self.deletions.push((index, key)),
            Err(reason) => self.records.reject(index, &reason),
        }
    }

    /// The key of a record: Avro, or as in a topic of JSON.
    fn record_key(&self, index: usize) -> Result<Bytes, String> {
        let key = self.records.records[index].key.as_ref().ok_or_else(|| self.no_key())?;
        let Some(id) = schema_id(key) else { return Ok(key.clone()) };
        let schema = match self.schemas.get(&id) {
            Some(Ok(schema)) => schema,
            Some(Err(reason)) => return Err(format!("the key of the record: {reason}")),
            None => return Err(format!("the key of the record: schema {id}: it was not fetched")),
        };
        let (schema, is_alone) = as_record(schema)?;
        let read =
            read_alone(id, &schema, key).map_err(|reason| format!("cannot read the key with schema {id}: {reason}"))?;
        let keys = if is_alone { Some(vec![Arc::clone(read.column(0))]) } else { self.keys(&read) };
        let keys = keys.filter(|keys| keys.len() == self.table.key.len()).ok_or_else(|| {
            let names: Vec<&str> = self.key_columns().map(|column| column.name.as_str()).collect();
            format!("the key of the record does not have the field {}", names.join(" or "))
        })?;
        key_values(&keys, 0).map(joined_key).ok_or_else(|| self.no_key())
    }

    /// The rows that change events write; the others delete rows, or are rejected.
    fn rows_of_envelopes(&mut self, read: RecordRows) -> Result<RecordRows, ArrowError> {
        let envelopes = Envelopes::of(&read.rows);
        let before = envelopes.before();
        let keys_before: Option<Vec<ArrayRef>> = before.and_then(|before| {
            let names = Schema::new(before.fields().clone());
            self.key_columns().map(|column| Some(Arc::clone(before.column(column_of(&names, column)?)))).collect()
        });
        let no_key = self.no_key();
        // The key of the row before the change, if that row is there.
        let key_before = |event: usize| {
            let key = || keys_before.as_ref().and_then(|keys| key_values(keys, event)).ok_or_else(|| no_key.clone());
            before.is_some_and(|before| before.is_valid(event)).then(key)
        };
        let (mut rows, mut records, mut facts): (Vec<usize>, Vec<usize>, Vec<ChangeFacts>) = Default::default();
        for (event, index) in read.records.iter().copied().enumerate() {
            if envelopes.is_truncate(event) {
                match self.stream().partitions {
                    1 => self.truncate = Some(self.truncate.map_or(index, |first| first.min(index))),
                    _ => self.records.reject(index, &RejectReason::TruncateOfPartitions.to_string()),
                }
                continue;
            }
            match envelopes.facts(event) {
                Ok(of_event) if of_event.is_deletion() => {
                    let without_key = self.records.records[index].key.is_none();
                    let key = match key_before(event) {
                        Some(key) => key.map(joined_key),
                        None if without_key => Err(WITHOUT_BEFORE.to_string()),
                        None => self.record_key(index),
                    };
                    self.delete(index, key);
                }
                Ok(of_event) if envelopes.has_after(event) => {
                    match key_before(event).filter(|_| of_event.operation == "u") {
                        Some(Ok(key)) => _ = self.keys_before.insert(index, key),
                        Some(Err(reason)) => {
                            self.records.reject(index, &reason);
                            continue;
                        }
                        None => {}
                    }
                    rows.push(event);
                    records.push(index);
                    facts.push(of_event);
                }
                Ok(of_event) => self.records.reject(index, &of_event.without_row().to_string()),
                Err(reason) => self.records.reject(index, &reason),
            }
        }
        let rows = rows_at(envelopes.after(), &rows)?;
        Ok(RecordRows { records, rows, facts })
    }

    /// The rows without the mark of a deletion; the others delete the row of their key.
    fn rows_without_deleted(&mut self, read: RecordRows) -> Result<RecordRows, ArrowError> {
        let deleted = read.rows.column_by_name(RowTable::DELETED);
        let Some(deleted) = deleted.and_then(|deleted| deleted.as_boolean_opt()) else { return Ok(read) };
        let is_deleted = |row: usize| deleted.is_valid(row) && deleted.value(row);
        let keys = self.keys(&read.rows);
        for (row, index) in read.records.iter().copied().enumerate().filter(|(row, _)| is_deleted(*row)) {
            let key = keys.as_ref().and_then(|keys| key_values(keys, row));
            let key = key.map(joined_key).ok_or_else(|| self.no_key());
            self.delete(index, key);
        }
        let is_kept: BooleanArray = (0..read.rows.num_rows()).map(|row| Some(!is_deleted(row))).collect();
        let records = read.records.iter().zip(is_kept.values()).filter(|(_, kept)| *kept).map(|(index, _)| *index);
        Ok(RecordRows {
            records: records.collect(),
            rows: filter_record_batch(&read.rows, &is_kept)?,
            facts: Vec::new(),
        })
    }

    /// Empties the values that Debezium does not know, and notes their columns.
    fn without_unknown(&mut self, read: RecordRows) -> Result<RecordRows, ArrowError> {
        if self.table.format != ChangeFormat::Debezium || read.records.is_empty() {
            return Ok(read);
        }
        let schema = read.rows.schema();
        let mut columns = read.rows.columns().to_vec();
        for (index, column) in self.records.stream.own_columns().filter(|(index, _)| !self.table.key.contains(index)) {
            let Some(at) = column_of(&schema, column) else { continue };
            let Some(texts) = read.rows.column(at).as_string_opt::<i32>() else { continue };
            let is_unknown: BooleanArray =
                texts.iter().map(|text| Some(text == Some(ChangeFormat::UNAVAILABLE))).collect();
            if is_unknown.true_count() > 0 {
                for row in is_unknown.values().set_indices() {
                    self.unknown.entry(read.records[row]).or_default().push(index);
                }
                columns[at] = nullif(&columns[at], &is_unknown)?;
            }
        }
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(RecordRows { rows: RecordBatch::try_new(schema, columns)?, ..read })
    }

    /// Casts rows to the columns of the table. Rejects those that do not fit, and changes of a key that may be in another partition.
    fn cast(&mut self, read: RecordRows) -> Result<Option<RecordRows>, ArrowError> {
        let Some(cast) = self.records.cast(read, self.options)? else { return Ok(None) };
        let keys: Vec<ArrayRef> = self.table.key.iter().map(|index| Arc::clone(cast.rows.column(*index))).collect();
        let are_texts: Vec<bool> = self.key_columns().map(|column| column.data_type == DataType::String).collect();
        let mut is_kept = vec![true; cast.records.len()];
        for (row, index) in cast.records.iter().copied().enumerate() {
            let key = key_values(&keys, row);
            let is_equal = |(is_text, (key, before)): (&bool, (&Bytes, &Bytes))| {
                let before: &[u8] = if *is_text { before } else { without_quotes(before) };
                key.as_ref() == before
            };
            let is_other = |before: &KeyValues| {
                key.as_ref().is_none_or(|key| !are_texts.iter().zip(key.iter().zip(before)).all(is_equal))
            };
            match self.keys_before.get(&index).is_some_and(is_other) {
                true if self.stream().partitions > 1 => {
                    is_kept[row] = false;
                    self.records.reject(index, &OTHER_PARTITION.to_string());
                }
                true => {}
                false => _ = self.keys_before.remove(&index),
            }
        }
        let records =
            cast.records.into_iter().zip(&is_kept).filter(|(_, kept)| **kept).map(|(index, _)| index).collect();
        let rows = filter_record_batch(&cast.rows, &BooleanArray::from(is_kept))?;
        let mut columns = rows.columns().to_vec();
        if let Some(retracted) = self.stream().retracted() {
            columns[retracted] = Arc::new(BooleanArray::from(vec![false; rows.num_rows()]));
        }
        let rows = RecordBatch::try_new(rows.schema(), columns)?;
        Ok(Some(RecordRows { records, rows, facts: Vec::new() }))
    }

    /// Deletions as rows.
    fn deleted(&mut self, deletions: &[(usize, Bytes)]) -> Result<Option<RecordRows>, DecodeError> {
        let record = |(index, key): &(usize, Bytes)| {
            let TopicRecord { partition, offset, timestamp_ms, .. } = self.records.records[*index];
            let key = Some(key.clone());
            TopicRecord { partition, offset, timestamp_ms, key, value: None, headers: Vec::new() }
        };
        let records: Vec<TopicRecord> = deletions.iter().map(record).collect();
        let Decoded { rows, malformed, .. } = decode_records(self.stream(), TextFormat::Json, &records, self.options)?;
        for rejected in malformed {
            self.records.reject(deletions[rejected.line as usize].0, &rejected.reason);
        }
        let offsets = self.stream().source_offset().map(|column| rows.column(column).as_primitive::<Int64Type>());
        let by_offset: BTreeMap<i64, usize> =
            records.iter().zip(deletions).map(|(r, (index, _))| (r.offset, *index)).collect();
        let offsets = offsets.into_iter().flat_map(|offsets| offsets.values().iter());
        let records = offsets.filter_map(|offset| by_offset.get(offset).copied()).collect();
        Ok(Some(RecordRows { records, rows, facts: Vec::new() }).filter(|deleted| !deleted.records.is_empty()))
    }

    /// All changes in the order of their records; of a change of a key, the deletion comes first.
    fn finish(mut self, written: Vec<RecordRows>) -> Result<Decoded, DecodeError> {
        // Only rows that were accepted: both changes or none.
        let accepted = written.iter().flat_map(|rows| rows.records.iter().copied());
        let mut renamed: Vec<(usize, Bytes)> =
            accepted.filter_map(|index| Some((index, joined_key(self.keys_before.remove(&index)?)))).collect();
        renamed.sort_unstable_by_key(|(index, _)| *index);
        let is_renamed: Vec<usize> = renamed.iter().map(|(index, _)| *index).collect();
        let mut deletions = std::mem::take(&mut self.deletions);
        deletions.extend(renamed);
        deletions.sort_by_key(|(index, _)| *index);
        let mut pieces: Vec<RecordRows> = self.deleted(&deletions)?.into_iter().collect();
        pieces.extend(written);
        let (rows, records) = super::avro::in_order(self.stream(), &pieces)?;
        let added = is_renamed.len() as u64;
        let mut kept = Vec::new();
        for (row, index) in records.iter().enumerate() {
            // A deletion before it has the same record.
            if records.get(row + 1) == Some(index) {
                continue;
            }
            if let Some(columns) = self.unknown.remove(index) {
                kept.push(KeptValues { row, columns, is_renamed: is_renamed.binary_search(index).is_ok() });
            }
        }
        let stream = Arc::clone(self.stream());
        self.records.outcome.lines_read = self.records.records.len() as u64;
        let mut decoded = self.records.outcome.decoded(&stream, rows);
        if let Some(changes) = &mut decoded.changes {
            (changes.kept, changes.added) = (kept, added);
        }
        Ok(decoded)
    }
}

/// A key; `None` if one of its values is NULL.
fn key_values(keys: &[ArrayRef], row: usize) -> Option<KeyValues> {
    keys.iter().map(|values| value_json(values, row)).collect()
}

/// A key as records of JSON have it.
fn joined_key(mut values: KeyValues) -> Bytes {
    match values.len() {
        1 => values.remove(0),
        _ => [b"[".as_slice(), &values.join(&b","[..]), b"]"].concat().into(),
    }
}

/// A value as it is in JSON; `None` if it is NULL.
fn value_json(values: &ArrayRef, row: usize) -> Option<Bytes> {
    let value = match values.data_type() {
        ArrowType::Dictionary(_, values_type) => cast(&values.slice(row, 1), values_type).ok()?,
        _ => values.slice(row, 1),
    };
    let text = value.is_valid(0).then(|| array_value_to_string(&value, 0).ok()).flatten()?;
    Some(if value.data_type().is_integer() { text.into() } else { serde_json::to_vec(&text).ok()?.into() })
}

/// The key of a number, which may be a text.
fn without_quotes(key: &[u8]) -> &[u8] {
    key.strip_prefix(b"\"").and_then(|key| key.strip_suffix(b"\"")).unwrap_or(key)
}

/// A schema whose values are records: a value alone is written as a record of one field is. Also returns whether it is one.
fn as_record(schema: &str) -> Result<(String, bool), String> {
    let parsed: serde_json::Value = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    if parsed.get("type").is_some_and(|kind| kind == "record") {
        return Ok((schema.to_owned(), false));
    }
    let fields = serde_json::json!([{"name": KEY_ALONE, "type": parsed}]);
    Ok((serde_json::json!({"type": "record", "name": KEY_ALONE, "fields": fields}).to_string(), true))
}
