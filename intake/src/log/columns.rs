//! Encodes rows as bytes and decodes them: Arrow IPC without the schema, which the segment's header holds.
//!
//! Strings travel as `Utf8`: writing string views would write the whole buffers they point into, which many batches share.
//! Reading copies no strings; it only rebuilds the views. Columns that a segment does not have, because they were added
//! later or removed before it was created, read as null.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringViewArray, new_null_array,
};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{MetadataVersion, reader, root_as_message};
use shared::stream::{Column, Stream, system_columns};
use shared::time::Micros;
use shared::types::timestamp_type;

use super::blank::blank;
use super::error::LogError;
use super::frame::{ALIGNMENT, FramePayload};

/// Encodes batches of a stream's log schema.
pub(crate) struct ColumnWriter {
    wire: SchemaRef,
    options: IpcWriteOptions,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
}

impl ColumnWriter {
    /// Creates an encoder for the declared `columns` and the watermark. Other columns of a batch are null and not written.
    pub fn new(columns: &[Column]) -> Self {
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)
            .expect("the alignment is one that the format allows");
        ColumnWriter {
            wire: wire_schema(columns),
            options,
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
        }
    }

    /// Encodes `rows`, a batch of the log schema; no bytes for no rows.
    pub fn encode(&mut self, rows: &RecordBatch) -> Result<FramePayload, LogError> {
        if rows.num_rows() == 0 {
            return Ok(FramePayload::default());
        }
        let on_wire = |column: &ArrayRef| match column.data_type() {
            ArrowType::Utf8View => cast(column, &ArrowType::Utf8),
            _ => Ok(column.clone()),
        };
        let (written, rest) = rows.columns().split_at(self.wire.fields().len() - 1);
        let written = written.iter().chain(rest.last());
        let columns = written.map(on_wire).collect::<Result<Vec<_>, ArrowError>>()?;
        let rows = RecordBatch::try_new(self.wire.clone(), columns)?;
        self.encode_wire(&rows)
    }

    /// Encodes rows as they are on the wire.
    pub fn encode_wire(&mut self, rows: &RecordBatch) -> Result<FramePayload, LogError> {
        let (_, encoded) = self.generator.encode(rows, &mut self.dictionaries, &self.options, &mut self.context)?;
        Ok(FramePayload { message: encoded.ipc_message, body: encoded.arrow_data })
    }
}

/// Decodes the frames of one segment into batches of the stream's current log schema.
pub(crate) struct ColumnReader {
    wire: SchemaRef,
    log: SchemaRef,
    /// The index on the wire of each column of the log schema; `None` if the segment does not have it.
    sources: Vec<Option<usize>>,
}

impl ColumnReader {
    /// Creates a decoder for the segment at `path`, created with `columns`. Refuses columns whose type has changed.
    pub fn new(path: &Path, columns: &[Column], stream: &Stream) -> Result<Self, LogError> {
        let refuse = |column: &str, reason: String| LogError::Columns {
            path: path.to_owned(),
            column: column.to_owned(),
            reason,
        };
        let mut sources = Vec::with_capacity(stream.columns.len() + 1);
        for (i, column) in stream.columns.iter().enumerate() {
            let source = columns.iter().position(|c| c.name == column.name);
            match source {
                Some(at) if columns[at].data_type != column.data_type => {
                    let (old, new) = (columns[at].data_type, column.data_type);
                    return Err(refuse(&column.name, format!("its type is {old} in the log and {new} in the stream")));
                }
                None if i == stream.event_time => {
                    return Err(refuse(&column.name, "the event time is not in the log".to_owned()));
                }
                _ => sources.push(source),
            }
        }
        sources.push(Some(columns.len()));
        Ok(ColumnReader { wire: wire_schema(columns), log: stream.log_schema(), sources })
    }

    /// Decodes all columns of a frame with `rows` rows.
    pub fn decode(&self, rows: usize, message: &[u8], body: &Buffer) -> Result<RecordBatch, ArrowError> {
        if rows == 0 {
            return Ok(RecordBatch::new_empty(self.log.clone()));
        }
        let wire = self.read(message, body, None)?;
        let column = |(field, source): (&Arc<Field>, &Option<usize>)| match source {
            Some(at) => from_wire(wire.column(*at)),
            None => new_null_array(field.data_type(), rows),
        };
        let columns = self.log.fields().iter().zip(&self.sources).map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.log.clone(), columns, &options)
    }

    /// Decodes only the column at `index` of the log schema.
    pub fn decode_column(
        &self,
        index: usize,
        rows: usize,
        message: &[u8],
        body: &Buffer,
    ) -> Result<ArrayRef, ArrowError> {
        match self.sources[index] {
            Some(at) if rows > 0 => Ok(from_wire(self.read(message, body, Some(&[at]))?.column(0))),
            _ => Ok(new_null_array(self.log.field(index).data_type(), rows)),
        }
    }

    /// Decodes a frame as it is on the wire, with the rows blank that `erased` finds by their entities and sequences, and their
    /// number; `None`: there are none. They were accepted at `accepted_at`.
    pub fn blanked(
        &self,
        message: &[u8],
        body: &Buffer,
        stream: &Stream,
        accepted_at: Micros,
        erased: &dyn Fn(&ArrayRef, &ArrayRef) -> Option<BooleanArray>,
    ) -> Result<Option<(RecordBatch, u64)>, ArrowError> {
        let rows = self.read(message, body, None)?;
        let Some(entity) = stream.entity.and_then(|entity| rows.column_by_name(&stream.columns[entity].name)) else {
            return Ok(None);
        };
        let Some(sequences) = rows.column_by_name(system_columns::SEQUENCE) else { return Ok(None) };
        match erased(entity, sequences) {
            Some(erased) => Ok(Some((blank(&rows, stream, &erased, accepted_at)?, erased.true_count() as u64))),
            None => Ok(None),
        }
    }

    fn read(&self, message: &[u8], body: &Buffer, columns: Option<&[usize]>) -> Result<RecordBatch, ArrowError> {
        let message = root_as_message(message).map_err(|e| ArrowError::IpcError(e.to_string()))?;
        let batch = message
            .header_as_record_batch()
            .ok_or_else(|| ArrowError::IpcError("a frame of the log does not hold a record batch".to_owned()))?;
        reader::read_record_batch(body, batch, self.wire.clone(), &HashMap::new(), columns, &message.version())
    }
}

fn wire_schema(columns: &[Column]) -> SchemaRef {
    let on_wire = |column: &Column| match column.data_type.arrow() {
        ArrowType::Utf8View => Field::new(&column.name, ArrowType::Utf8, true),
        other => Field::new(&column.name, other, true),
    };
    let mut fields: Vec<Field> = columns.iter().map(on_wire).collect();
    fields.push(Field::new(system_columns::WATERMARK, timestamp_type(), true));
    Arc::new(Schema::new(fields))
}

fn from_wire(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        ArrowType::Utf8 => Arc::new(StringViewArray::from(column.as_string::<i32>())),
        _ => column.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{rows, stream};
    use super::*;

    #[test]
    fn a_column_that_was_added_later_reads_as_null() {
        let new = stream();
        let mut old = new.columns.clone();
        old.retain(|c| c.name != "text");
        let mut writer = ColumnWriter::new(&old);
        let full = rows(0, &[(Some("a"), 1), (None, 2)]);
        let without: Vec<usize> =
            (0..full.num_columns()).filter(|i| full.schema().field(*i).name() != "text").collect();
        let payload = writer.encode(&full.project(&without).expect("columns exist")).expect("encodes");
        let reader = ColumnReader::new(Path::new("x.log"), &old, &new).expect("compatible");
        let back = reader.decode(2, &payload.message, &Buffer::from_vec(payload.body)).expect("decodes");
        assert_eq!(back.schema(), new.log_schema());
        assert_eq!(back.column_by_name("text").map(|c| c.null_count()), Some(2));
        assert_eq!(back.column_by_name("id"), full.column_by_name("id"));
    }

    #[test]
    fn a_removed_column_is_not_written_and_reads_as_it_was_written_before() {
        let stream = stream();
        let full = rows(0, &[(Some("a"), 1), (None, 2)]);
        let old = ColumnWriter::new(&stream.columns).encode(&full).expect("encodes");
        let mut fewer = stream.clone();
        let ok = fewer.columns.pop().expect("a column");
        fewer.declared -= 1;
        let now = fewer.with_removed([ok]);
        assert_eq!((now.declared().len(), now.columns.len()), (5, 6));
        let new = ColumnWriter::new(now.declared()).encode(&full).expect("encodes");
        for (columns, payload, nulls) in [(&stream.columns[..], old, 0), (now.declared(), new, 2)] {
            let reader = ColumnReader::new(Path::new("x.log"), columns, &now).expect("compatible");
            let back = reader.decode(2, &payload.message, &Buffer::from_vec(payload.body)).expect("decodes");
            assert_eq!(back.schema(), now.log_schema());
            assert_eq!(back.column_by_name("ok").map(|c| c.null_count()), Some(nulls));
            assert_eq!(back.column_by_name("_watermark"), full.column_by_name("_watermark"));
        }
    }

    #[test]
    fn a_column_with_another_type_is_refused() {
        let mut old = stream().columns;
        old[2].data_type = shared::types::DataType::Double;
        assert!(matches!(ColumnReader::new(Path::new("x.log"), &old, &stream()), Err(LogError::Columns { .. })));
    }
}
