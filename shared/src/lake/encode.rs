//! How do rows become a Parquet file, and which statistics does Delta get of it? Plain CPU work, no store.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int32Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowWriter, ArrowWriterOptions};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};

use super::LakeError;
use crate::time::{Day, Micros};

/// Rows of a row group: small enough that a reader's threads share a file, large enough for dictionaries to pay.
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// Rows looked at to tell whether a column's values repeat.
const SAMPLE_ROWS: usize = 1024;
/// First and last day with a four-digit year, in days since 1970: what every reader of a date takes.
const READABLE_DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;

/// A Parquet file and what Delta's log says of it.
pub(super) struct Encoded {
    pub bytes: Bytes,
    pub rows: i64,
    pub stats_json: String,
}

/// Whether every reader of the lake takes `day` as the date of a file: its year has four digits.
pub fn is_readable(day: Day) -> bool {
    READABLE_DAYS.contains(&day.0)
}

/// Encodes `batches`, all of `schema`: zstd, dictionaries, statistics, and types as Parquet alone tells them, so that
/// readers that do not know our Arrow types see strings and UTC timestamps.
pub(super) fn encode(schema: SchemaRef, batches: &[RecordBatch]) -> Result<Encoded, LakeError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by("trueup".to_owned());
    for (index, field) in schema.fields().iter().enumerate() {
        if batches.first().is_some_and(|batch| rarely_repeats(batch.column(index))) {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
        }
    }
    let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema.clone(), options)?;
    for batch in batches {
        writer.write(batch)?;
    }
    let bytes = Bytes::from(writer.into_inner()?);
    let rows = batches.iter().map(|batch| batch.num_rows() as i64).sum();
    Ok(Encoded { bytes, rows, stats_json: stats(&schema, batches, rows).to_string() })
}

/// Would a dictionary only cost time? Told from a sample: event ids and addresses hardly ever repeat. Numbers keep theirs:
/// it makes less work for zstd. In a small file neither the dictionary nor the sample is worth a thought.
fn rarely_repeats(column: &ArrayRef) -> bool {
    let Some(texts) = column.as_string_view_opt().filter(|texts| texts.len() >= SAMPLE_ROWS * 16) else {
        return false;
    };
    let rows = (0..texts.len()).step_by(texts.len().div_ceil(SAMPLE_ROWS)).filter(|row| texts.is_valid(*row));
    let sample: Vec<&str> = rows.map(|row| texts.value(row)).collect();
    sample.iter().collect::<HashSet<_>>().len() > sample.len() * 9 / 10
}

/// Delta's statistics: nulls of every plain column, smallest and largest value of integers, dates and timestamps.
/// Other columns have none, which readers take as "may hold anything".
fn stats(schema: &SchemaRef, batches: &[RecordBatch], rows: i64) -> Value {
    let (mut smallest, mut largest, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (index, field) in schema.fields().iter().enumerate().filter(|(_, field)| !field.data_type().is_nested()) {
        let columns: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(index)).collect();
        let missing: usize = columns.iter().map(|column| column.null_count()).sum();
        nulls.insert(field.name().clone(), json!(missing));
        if let Some((low, high)) = bounds(field.data_type(), &columns) {
            smallest.insert(field.name().clone(), low);
            largest.insert(field.name().clone(), high);
        }
    }
    json!({"numRecords": rows, "minValues": smallest, "maxValues": largest, "nullCount": nulls})
}

fn bounds(data_type: &DataType, columns: &[&ArrayRef]) -> Option<(Value, Value)> {
    let pair = |(low, high), text: fn(i64) -> Option<String>| Some((json!(text(low)?), json!(text(high)?)));
    match data_type {
        DataType::Int32 => range::<Int32Type>(columns).map(|(low, high)| (json!(low), json!(high))),
        DataType::Int64 => range::<Int64Type>(columns).map(|(low, high)| (json!(low), json!(high))),
        DataType::Date32 => pair(range::<Date32Type>(columns).map(|(a, b)| (a.into(), b.into()))?, date_text),
        DataType::Timestamp(TimeUnit::Microsecond, _) => pair(range::<TimestampMicrosecondType>(columns)?, time_text),
        _ => None,
    }
}

fn range<T: ArrowPrimitiveType<Native: Ord>>(columns: &[&ArrayRef]) -> Option<(T::Native, T::Native)> {
    let low = columns.iter().filter_map(|column| min(column.as_primitive::<T>())).min()?;
    let high = columns.iter().filter_map(|column| max(column.as_primitive::<T>())).max()?;
    Some((low, high))
}

fn date_text(days: i64) -> Option<String> {
    let day = Day(i32::try_from(days).ok()?);
    is_readable(day).then(|| day.to_string())
}

fn time_text(micros: i64) -> Option<String> {
    is_readable(Micros(micros).day()).then(|| Micros(micros).to_string())
}
