//! Encodes rows as a Parquet file, with the statistics that Delta records. CPU work only, without a store.

use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{Array, ArrayAccessor, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};

use super::LakeError;
use shared::date_partition::DatePartition;
use shared::time::{Day, Micros};

/// Rows of a row group: small enough that a reader's threads share a file, large enough for dictionaries to pay.
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// Rows sampled to decide whether a column's values repeat.
const SAMPLE_ROWS: usize = 1024;

/// A Parquet file and its entry in Delta's log.
pub struct Encoded {
    pub bytes: Bytes,
    pub rows: i64,
    pub stats_json: String,
}

/// Encodes `batches`, all of `schema`, as one file.
///
/// # Errors
/// A batch is not of `schema`.
pub fn encode(schema: SchemaRef, batches: &[RecordBatch]) -> Result<Encoded, LakeError> {
    let mut encoder = Encoder::new(schema, batches.first())?;
    for batch in batches {
        encoder.write(batch)?;
    }
    encoder.finish()
}

/// Encodes successive batches into a file: zstd, dictionaries, statistics, and plain Parquet types without the Arrow
/// schema, so that other readers see strings and UTC timestamps. Encoded bytes stay in memory.
pub(super) struct Encoder {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
    columns: Vec<ColumnStats>,
    rows: i64,
}

/// Statistics of one column so far.
#[derive(Default)]
struct ColumnStats {
    nulls: usize,
    /// Smallest and largest value, for types that have them recorded.
    range: Option<(i64, i64)>,
}

impl Encoder {
    /// Starts an empty file; `sample` decides the encoding of columns.
    pub fn new(schema: SchemaRef, sample: Option<&RecordBatch>) -> Result<Encoder, LakeError> {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by("trueup".to_owned());
        for (index, field) in schema.fields().iter().enumerate() {
            let path = ColumnPath::from(field.name().as_str());
            properties = match sample.and_then(|batch| encoding_without_dictionary(batch.column(index))) {
                Some(encoding) => {
                    properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding)
                }
                None => properties,
            };
        }
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), schema.clone(), options)?;
        let columns = schema.fields().iter().map(|_| ColumnStats::default()).collect();
        Ok(Encoder { schema, writer, columns, rows: 0 })
    }

    /// Appends the rows of `batch`.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), LakeError> {
        self.writer.write(batch)?;
        self.rows += batch.num_rows() as i64;
        for (stats, column) in self.columns.iter_mut().zip(batch.columns()) {
            stats.nulls += column.null_count();
            let both = |a: (i64, i64), b: (i64, i64)| (a.0.min(b.0), a.1.max(b.1));
            stats.range = match (stats.range, range_of(column)) {
                (Some(before), Some(more)) => Some(both(before, more)),
                (before, more) => before.or(more),
            };
        }
        Ok(())
    }

    /// Finishes and returns the whole file.
    pub fn finish(self) -> Result<Encoded, LakeError> {
        let bytes = Bytes::from(self.writer.into_inner()?);
        let stats_json = stats(&self.schema, &self.columns, self.rows).to_string();
        Ok(Encoded { bytes, rows: self.rows, stats_json })
    }
}

/// Returns the encoding of a column for which a dictionary would only cost time, judged by a sample: ids and times hardly
/// ever repeat. Integers and times are then stored as differences; texts as they are. For a small file, neither the
/// dictionary nor the sample matters.
fn encoding_without_dictionary(column: &ArrayRef) -> Option<Encoding> {
    if column.len() < SAMPLE_ROWS * 16 {
        return None;
    }
    if let Some(texts) = column.as_string_view_opt() {
        return rarely_repeat(texts).then_some(Encoding::PLAIN);
    }
    let repeats_rarely = match column.data_type() {
        DataType::Int32 => rarely_repeat(column.as_primitive::<Int32Type>()),
        DataType::Int64 => rarely_repeat(column.as_primitive::<Int64Type>()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            rarely_repeat(column.as_primitive::<TimestampMicrosecondType>())
        }
        _ => false,
    };
    repeats_rarely.then_some(Encoding::DELTA_BINARY_PACKED)
}

fn rarely_repeat<A: ArrayAccessor<Item: Eq + Hash>>(values: A) -> bool {
    let rows = (0..values.len()).step_by(values.len().div_ceil(SAMPLE_ROWS)).filter(|row| values.is_valid(*row));
    let sample: Vec<A::Item> = rows.map(|row| values.value(row)).collect();
    sample.iter().collect::<HashSet<_>>().len() > sample.len() * 9 / 10
}

/// Returns Delta's statistics: nulls of every plain column, smallest and largest value of integers, dates and
/// timestamps. Other columns have none, which readers interpret as "may hold anything".
fn stats(schema: &SchemaRef, columns: &[ColumnStats], rows: i64) -> Value {
    let (mut smallest, mut largest, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (field, column) in schema.fields().iter().zip(columns).filter(|(field, _)| !field.data_type().is_nested()) {
        nulls.insert(field.name().clone(), json!(column.nulls));
        if let Some((low, high)) = column.range.and_then(|range| bounds(field.data_type(), range)) {
            smallest.insert(field.name().clone(), low);
            largest.insert(field.name().clone(), high);
        }
    }
    json!({"numRecords": rows, "minValues": smallest, "maxValues": largest, "nullCount": nulls})
}

fn bounds(data_type: &DataType, (low, high): (i64, i64)) -> Option<(Value, Value)> {
    let text = match data_type {
        DataType::Date32 => date_text,
        DataType::Timestamp(TimeUnit::Microsecond, _) => time_text,
        _ => return Some((json!(low), json!(high))),
    };
    Some((json!(text(low)?), json!(text(high)?)))
}

fn range_of(column: &ArrayRef) -> Option<(i64, i64)> {
    match column.data_type() {
        DataType::Int32 => range::<Int32Type>(column),
        DataType::Int64 => range::<Int64Type>(column),
        DataType::Date32 => range::<Date32Type>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => range::<TimestampMicrosecondType>(column),
        _ => None,
    }
}

fn range<T: ArrowPrimitiveType<Native: Into<i64>>>(column: &ArrayRef) -> Option<(i64, i64)> {
    let column = column.as_primitive::<T>();
    Some((min(column)?.into(), max(column)?.into()))
}

/// Returns whether every reader of the lake accepts `day`.
fn is_readable(day: Day) -> bool {
    DatePartition::of_day(day) == DatePartition::Day(day)
}

fn date_text(days: i64) -> Option<String> {
    let day = Day(i32::try_from(days).ok()?);
    is_readable(day).then(|| day.to_string())
}

fn time_text(micros: i64) -> Option<String> {
    is_readable(Micros(micros).day()).then(|| Micros(micros).to_string())
}
