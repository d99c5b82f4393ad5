//! Casts the columns of a Parquet file to those of a stream. Types are widened where nothing is lost; a value that its column
//! cannot hold rejects its row, as in JSON.
//!
//! Columns are found by name, in their own spelling or else without case; FROM does not apply to files with columns. FORMAT
//! does, where the file has numbers or texts for a TIMESTAMP.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray,
    make_array, new_null_array,
};
use arrow::compute::{cast, filter_record_batch, max, min};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use shared::column_name;
use shared::stream::{Column, Stream, TimeFormat, UnknownFields};
use shared::time::MICROS_PER_DAY;
use shared::types::DataType;

use super::timestamp::{formatted, in_range};

/// How the columns of one file become those of a stream.
#[derive(Debug, Clone)]
pub struct ParquetCast {
    stream: Arc<Stream>,
    /// For each column of the stream its place in the file; `None`: the file lacks it, and it is NULL.
    sources: Vec<Option<usize>>,
    /// Columns of the stream that the file lacks, and columns of the file that the stream does not declare.
    pub missing: Vec<String>,
    pub unknown: Vec<String>,
}

/// Why a file's columns do not fit: a reason for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its columns do not fit the stream: {}", .0.join("; "))]
pub struct CastError(pub Vec<String>);

/// The rows of a batch: those that are events, and the rejected ones.
#[derive(Debug)]
pub struct CastRows {
    /// [`Stream::schema`].
    pub rows: RecordBatch,
    /// Index of each rejected row in the batch, with the reason.
    pub rejected: Vec<(usize, String)>,
}

impl ParquetCast {
    /// Matches the columns of `schema` with those of `stream`. Errors: types that cannot be cast, no event time.
    pub fn new(stream: &Arc<Stream>, schema: &Schema) -> Result<ParquetCast, CastError> {
        let mut fit =
            ParquetCast { stream: Arc::clone(stream), sources: Vec::new(), missing: Vec::new(), unknown: Vec::new() };
        let mut wrong = Vec::new();
        for (index, column) in stream.columns.iter().enumerate() {
            let source = column_of(schema, &column.name);
            match source.map(|source| schema.field(source).data_type()) {
                Some(found) if !takes(column, found) => {
                    wrong.push(format!("{}: {} cannot be read from {found}", column.name, column.data_type));
                }
                None if index == stream.event_time => {
                    wrong.push(format!("{}: the event time is missing", column.name));
                }
                None if Some(index) == stream.primary_key => {
                    wrong.push(format!("{}: the primary key is missing", column.name));
                }
                None => fit.missing.push(column.name.clone()),
                Some(_) => {}
            }
            fit.sources.push(source);
        }
        let unread = |(index, _): &(usize, _)| !fit.sources.contains(&Some(*index));
        let unknown = schema.fields().iter().enumerate().filter(unread).map(|(_, field)| field.name().clone());
        fit.unknown = unknown.collect();
        if stream.unknown_fields == UnknownFields::Reject {
            wrong.extend(fit.unknown.iter().map(|name| format!("{name}: the stream does not declare it")));
        }
        if wrong.is_empty() { Ok(fit) } else { Err(CastError(wrong)) }
    }

    /// The events among rows of the file.
    pub fn apply(&self, batch: &RecordBatch) -> Result<CastRows, ArrowError> {
        let mut rejections = Rejections { of: vec![None; batch.num_rows()], any: false };
        let mut columns = Vec::with_capacity(self.sources.len());
        for (index, (column, source)) in self.stream.columns.iter().zip(&self.sources).enumerate() {
            let Some(source) = source else {
                columns.push(new_null_array(&column.data_type.arrow(), batch.num_rows()));
                continue;
            };
            let found = batch.column(*source);
            let values = converted(found, column)?;
            if values.null_count() > found.null_count() {
                rejections.add(column, |row| found.is_valid(row) && values.is_null(row));
            }
            check_values(&values, column, &mut rejections);
            if index == self.stream.event_time && found.null_count() > 0 {
                let missing = |_: &Column| format!("{}: the event time is missing", column.name);
                rejections.add_as(column, |row| found.is_null(row), missing);
            }
            if Some(index) == self.stream.primary_key && found.null_count() > 0 {
                let missing = |_: &Column| format!("{}: the primary key may not be null", column.name);
                rejections.add_as(column, |row| found.is_null(row), missing);
            }
            columns.push(plain_zero(values));
        }
        let rejected: Vec<(usize, String)> =
            rejections.of.iter_mut().enumerate().filter_map(|(row, reason)| Some((row, reason.take()?))).collect();
        // The event time is never null in the schema, but may be in rejected rows.
        let schema = if rejected.is_empty() { self.stream.schema() } else { all_nullable(&self.stream.schema()) };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        if !rejected.is_empty() {
            let mut keep = vec![true; batch.num_rows()];
            rejected.iter().for_each(|(row, _)| keep[*row] = false);
            rows = filter_record_batch(&rows, &BooleanArray::from(keep))?;
            rows = RecordBatch::try_new(self.stream.schema(), rows.columns().to_vec())?;
        }
        Ok(CastRows { rows, rejected })
    }
}

/// The first reason against each row.
struct Rejections {
    of: Vec<Option<String>>,
    any: bool,
}

impl Rejections {
    fn add(&mut self, column: &Column, is_wrong: impl Fn(usize) -> bool) {
        self.add_as(column, is_wrong, |column| format!("{}: not a value of {}", column.name, column.data_type));
    }

    fn add_as(&mut self, column: &Column, is_wrong: impl Fn(usize) -> bool, reason: impl Fn(&Column) -> String) {
        for row in 0..self.of.len() {
            if self.of[row].is_none() && is_wrong(row) {
                self.of[row] = Some(reason(column));
                self.any = true;
            }
        }
    }
}

/// The column of `schema` called `name`: in this spelling, or else without case.
pub fn column_of(schema: &Schema, name: &str) -> Option<usize> {
    let position =
        |matches: fn(&str, &str) -> bool| schema.fields().iter().position(|field| matches(field.name(), name));
    position(|a, b| a == b).or_else(|| position(column_name::same))
}

/// Returns whether the column can be read from one of the type `found`, value by value.
fn takes(column: &Column, found: &ArrowType) -> bool {
    match column.data_type {
        DataType::Boolean => matches!(found, ArrowType::Boolean),
        DataType::Int | DataType::BigInt => found.is_integer(),
        DataType::Double => found.is_integer() || found.is_floating(),
        DataType::Decimal { .. } => {
            found.is_integer() || matches!(found, ArrowType::Decimal128(..) | ArrowType::Decimal256(..))
        }
        DataType::String => is_text(found),
        DataType::Date => matches!(found, ArrowType::Date32 | ArrowType::Date64),
        DataType::Timestamp => match &column.format {
            _ if matches!(found, ArrowType::Timestamp(..)) => true,
            Some(TimeFormat::Unix(_)) => found.is_integer() || is_text(found),
            Some(_) => is_text(found),
            None => false,
        },
        DataType::Json => false,
    }
}

fn is_text(found: &ArrowType) -> bool {
    matches!(found, ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View)
}

/// The values in the stream's type; NULL where a value does not fit it. Times without a zone are UTC.
fn converted(found: &ArrayRef, column: &Column) -> Result<ArrayRef, ArrowError> {
    let wanted = column.data_type;
    let ArrowType::Timestamp(unit, _) = found.data_type() else {
        return match &column.format {
            Some(format) => formatted_times(found, format),
            None => cast(found, &wanted.arrow()),
        };
    };
    let retyped = |array: &ArrayRef, to: ArrowType| -> Result<ArrayRef, ArrowError> {
        Ok(make_array(array.to_data().into_builder().data_type(to).build()?))
    };
    let plain = retyped(found, ArrowType::Timestamp(*unit, None))?;
    retyped(&cast(&plain, &ArrowType::Timestamp(TimeUnit::Microsecond, None))?, wanted.arrow())
}

/// Times of numbers or texts, by the column's format.
fn formatted_times(found: &ArrayRef, format: &TimeFormat) -> Result<ArrayRef, ArrowError> {
    let times: TimestampMicrosecondArray = match format {
        TimeFormat::Unix(unit) if found.data_type().is_integer() => {
            let counts = cast(found, &ArrowType::Int64)?;
            counts.as_primitive::<Int64Type>().iter().map(|count| unit.micros(count?)).collect()
        }
        format => {
            let texts = cast(found, &ArrowType::Utf8View)?;
            texts.as_string_view().iter().map(|text| formatted(text?, format).ok()).collect()
        }
    };
    Ok(Arc::new(times.with_timezone("UTC")))
}

fn check_values(values: &ArrayRef, column: &Column, rejections: &mut Rejections) {
    match column.data_type {
        DataType::Double => {
            let doubles = values.as_primitive::<Float64Type>();
            // One pass that the compiler makes wide; rows are looked at only if there is something to find.
            if doubles.values().iter().any(|value| !value.is_finite()) {
                rejections.add(column, |row| doubles.is_valid(row) && !doubles.value(row).is_finite());
            }
        }
        DataType::Timestamp => {
            let times = values.as_primitive::<TimestampMicrosecondType>();
            let outside = |time: Option<i64>| time.is_some_and(|time| in_range(time).is_err());
            if outside(min(times)) || outside(max(times)) {
                rejections.add(column, |row| times.is_valid(row) && in_range(times.value(row)).is_err());
            }
        }
        DataType::Date => {
            let days = values.as_primitive::<Date32Type>();
            let wrong = |day: i32| in_range(i64::from(day).saturating_mul(MICROS_PER_DAY)).is_err();
            if min(days).is_some_and(wrong) || max(days).is_some_and(wrong) {
                rejections.add(column, |row| days.is_valid(row) && wrong(days.value(row)));
            }
        }
        _ => {}
    }
}

/// Makes -0.0 zero, as in JSON.
fn plain_zero(values: ArrayRef) -> ArrayRef {
    match values.as_primitive_opt::<Float64Type>() {
        Some(doubles) => Arc::new(doubles.unary::<_, Float64Type>(|value| value + 0.0)) as Arc<Float64Array>,
        None => values,
    }
}

fn all_nullable(schema: &Schema) -> Arc<Schema> {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::Field;

    use super::*;

    fn stream(options: &str) -> Arc<Stream> {
        let sql = format!(
            "CREATE STREAM s (id STRING PRIMARY KEY, at TIMESTAMP, n INT, x DOUBLE, day DATE) WITH (event_time = 'at'{options});"
        );
        Arc::new(shared::sql::parse_definitions(&[("s".to_owned(), sql)]).expect("right").streams.remove(0))
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).expect("columns")
    }

    #[test]
    fn types_are_widened_and_rows_that_do_not_fit_are_rejected_alone() {
        let rows = batch(vec![
            ("n", Arc::new(Int64Array::from(vec![Some(1), Some(1 << 40), None, Some(3), Some(4)]))),
            ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(1), Some(2), Some(3), None, Some(i64::MAX)]))),
            ("id", Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"]))),
            ("x", Arc::new(Float64Array::from(vec![-0.0, 1.0, f64::NAN, 1.0, 1.0]))),
            ("other", Arc::new(Int32Array::from(vec![0; 5]))),
        ]);
        let fit = ParquetCast::new(&stream(""), &rows.schema()).expect("fits");
        assert_eq!((fit.missing.clone(), fit.unknown.clone()), (vec!["day".to_owned()], vec!["other".to_owned()]));
        let fitted = fit.apply(&rows).expect("converts");
        let reasons: Vec<(usize, &str)> = fitted.rejected.iter().map(|(row, why)| (*row, why.as_str())).collect();
        assert_eq!(
            reasons,
            [
                (1, "n: not a value of INT"),
                (2, "x: not a value of DOUBLE"),
                (3, "at: the event time is missing"),
                (4, "at: not a value of TIMESTAMP")
            ]
        );
        assert_eq!(fitted.rows.num_rows(), 1);
        assert_eq!(fitted.rows.schema(), stream("").schema());
        assert!(fitted.rows.column(3).as_primitive::<Float64Type>().value(0).is_sign_positive());
        assert_eq!(fitted.rows.column(1).as_primitive::<TimestampMicrosecondType>().value(0), 1000);
    }

    #[test]
    fn rows_without_a_primary_key_are_rejected_and_a_file_without_it_is_refused() {
        let at = || Arc::new(TimestampMillisecondArray::from(vec![Some(1), None, Some(3)])) as ArrayRef;
        let rows =
            batch(vec![("at", at()), ("id", Arc::new(StringArray::from(vec![Some("a"), None, None])) as ArrayRef)]);
        let fitted = ParquetCast::new(&stream(""), &rows.schema()).expect("fits").apply(&rows).expect("converts");
        let reasons: Vec<(usize, &str)> = fitted.rejected.iter().map(|(row, why)| (*row, why.as_str())).collect();
        // The first reason of a row counts, in the order of the columns.
        assert_eq!(reasons, [(1, "id: the primary key may not be null"), (2, "id: the primary key may not be null")]);
        assert_eq!(fitted.rows.num_rows(), 1);
        let without = batch(vec![("at", at())]);
        let refused = ParquetCast::new(&stream(""), &without.schema()).expect_err("the primary key is missing");
        assert_eq!(refused.0, ["id: the primary key is missing"]);
    }

    #[test]
    fn columns_of_wrong_types_are_reported_one_by_one() {
        let schema = Schema::new(vec![
            Field::new("at", ArrowType::Utf8, true),
            Field::new("n", ArrowType::Float64, true),
            Field::new("more", ArrowType::Int32, true),
        ]);
        let misfit = ParquetCast::new(&stream(", unknown_fields = 'reject'"), &schema).expect_err("does not fit");
        assert_eq!(
            misfit.0,
            [
                "id: the primary key is missing",
                "at: TIMESTAMP cannot be read from Utf8",
                "n: INT cannot be read from Float64",
                "more: the stream does not declare it"
            ]
        );
    }
}
