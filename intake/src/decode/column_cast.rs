//! Casts the columns of a table, such as a Parquet file or an Arrow stream, to those of a stream. A value that its column
//! cannot hold rejects its row, as in JSON.
//!
//! Columns are found by name, in their own spelling or else without case; FROM gives another name, but does not reach into nested
//! values. FORMAT applies where the table has numbers or texts for a TIMESTAMP.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, RecordBatchOptions, StringViewArray,
    TimestampMicrosecondArray, make_array, new_null_array,
};
use arrow::compute::{cast, filter_record_batch, max, min};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Float64Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use shared::column_name;
use shared::explain::duration;
use shared::limits::EVENT_LINE_BYTES_MAX;
use shared::stream::{Column, Stream, TimeFormat, UnixUnit, UnknownFields};
use shared::time::{MICROS_PER_DAY, Micros};
use shared::types::DataType;

use super::columns::Builder;
use super::reject_reason::RejectReason;
use super::row::Cell;
use super::text_value;
use super::timestamp::in_range;

/// How the columns of one table become those of a stream.
#[derive(Debug, Clone)]
pub struct ColumnCast {
    stream: Arc<Stream>,
    /// Event times before this are too old.
    oldest: Micros,
    /// For each column of the stream its place in the table; `None`: the table lacks it, and it is NULL.
    sources: Vec<Option<usize>>,
    /// Columns of the stream that the table lacks, and columns of the table that the stream does not declare.
    pub missing: Vec<String>,
    pub unknown: Vec<String>,
}

/// Why the columns of a table do not fit: a reason for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the columns do not fit the stream: {}", .0.join("; "))]
pub struct CastError(pub Vec<String>);

/// The rows of a batch: those that are events, and the rejected ones.
#[derive(Debug)]
pub struct CastRows {
    /// [`Stream::schema`].
    pub rows: RecordBatch,
    /// Index of each rejected row in the batch, with the reason; the first ones, if there are more than were asked for.
    pub rejected: Vec<(usize, String)>,
}

impl ColumnCast {
    /// Matches the columns of `schema` with those of `stream`. Errors: types that cannot be cast, no event time.
    pub fn new(stream: &Arc<Stream>, schema: &Schema) -> Result<ColumnCast, CastError> {
        let mut fit = ColumnCast {
            stream: Arc::clone(stream),
            oldest: Micros::MIN,
            sources: Vec::new(),
            missing: Vec::new(),
            unknown: Vec::new(),
        };
        let mut wrong = Vec::new();
        for (index, column) in stream.columns.iter().enumerate() {
            if Some(index) == stream.sequence() || Some(index) == stream.source_offset() {
                fit.sources.push(None);
                continue;
            }
            let source = column_of(schema, column);
            match source.map(|source| schema.field(source).data_type()) {
                Some(found) if !takes(column, found) => {
                    wrong.push(format!("{}: {} cannot be read from {found}", column.name, column.data_type));
                }
                None if index == stream.event_time => {
                    wrong.push(format!("{}: the event time is missing", column.name));
                }
                None if Some(index) == stream.primary_key || is_key(stream, index) => {
                    wrong.push(format!("{}: the primary key is missing", column.name));
                }
                None if Some(index) == stream.entity => wrong.push(format!("{}: the entity is missing", column.name)),
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

    /// Rejects event times before `oldest`, which the stream's `max_age` gives.
    pub(super) fn not_before(self, oldest: Micros) -> ColumnCast {
        ColumnCast { oldest, ..self }
    }

    /// The events among rows of the table. Gives the reasons against the first `reasons_max` rejected rows.
    pub fn apply(&self, batch: &RecordBatch, reasons_max: usize) -> Result<CastRows, ArrowError> {
        let mut rejections = Rejections::new(batch.num_rows(), reasons_max);
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
            if self.stream.table.is_some_and(|rows| rows.key.only() == Some(index)) {
                let empty = |column: &Column| RejectReason::EmptyKey { column }.to_string();
                rejections.add_as(column, |row| is_empty_text(&values, row), empty);
            }
            let is_primary = Some(index) == self.stream.primary_key || is_key(&self.stream, index);
            if is_primary && found.null_count() > 0 {
                let missing = |_: &Column| format!("{}: the primary key may not be null", column.name);
                rejections.add_as(column, |row| found.is_null(row), missing);
            }
            if Some(index) == self.stream.entity {
                let missing = |_: &Column| RejectReason::NoEntity { column }.to_string();
                let is_missing = |row| found.is_null(row) || is_empty_text(&values, row);
                rejections.add_as(column, is_missing, missing);
            }
            if index == self.stream.event_time {
                self.check_age(&values, column, &mut rejections);
            }
            columns.push(plain_zero(values));
        }
        check_lengths(&columns, &mut rejections);
        // The event time is never null in the schema, but may be in rejected rows.
        let schema =
            if rejections.rows.is_empty() { self.stream.schema() } else { all_nullable(&self.stream.schema()) };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        if !rejections.rows.is_empty() {
            let keep: Vec<bool> = rejections.rows.iter().map(|is_rejected| !is_rejected).collect();
            rows = filter_record_batch(&rows, &BooleanArray::from(keep))?;
            rows = RecordBatch::try_new(self.stream.schema(), rows.columns().to_vec())?;
        }
        Ok(CastRows { rows, rejected: rejections.reasons.into_iter().collect() })
    }

    fn check_age(&self, values: &ArrayRef, column: &Column, rejections: &mut Rejections) {
        let times = values.as_primitive::<TimestampMicrosecondType>();
        if min(times).is_none_or(|first| first >= self.oldest.0) {
            return;
        }
        let max_age = duration(self.stream.max_age.unwrap_or_default());
        let reason = |row: usize| {
            RejectReason::TooOld { column, time: Micros(times.value(row)), max_age: max_age.clone() }.to_string()
        };
        rejections.add_each(|row| times.is_valid(row) && times.value(row) < self.oldest.0, reason);
    }
}

/// Whether a column is the key of a table.
fn is_key(stream: &Stream, index: usize) -> bool {
    stream.table.is_some_and(|rows| rows.key.contains(&index))
}

fn is_empty_text(values: &ArrayRef, row: usize) -> bool {
    values.as_string_view_opt().is_some_and(|texts| texts.is_valid(row) && texts.value(row).is_empty())
}

/// Rejects rows whose texts are together longer than an event may be.
fn check_lengths(columns: &[ArrayRef], rejections: &mut Rejections) {
    let texts: Vec<_> = columns.iter().filter_map(|column| column.as_string_view_opt()).collect();
    if texts.iter().map(|texts| texts.total_buffer_bytes_used()).sum::<usize>() <= EVENT_LINE_BYTES_MAX {
        return;
    }
    let length = |row: usize| texts.iter().map(|texts| texts.views()[row] as u32 as usize).sum::<usize>();
    let reason = |_| RejectReason::TooLong { max: EVENT_LINE_BYTES_MAX }.to_string();
    rejections.add_each(|row| length(row) > EVENT_LINE_BYTES_MAX, reason);
}

/// The rejected rows, and the first reason against each of the first ones.
struct Rejections {
    rows_all: usize,
    /// For each row whether it is rejected; empty until one is.
    rows: Vec<bool>,
    reasons: BTreeMap<usize, String>,
    reasons_max: usize,
}

impl Rejections {
    fn new(rows_all: usize, reasons_max: usize) -> Rejections {
        Rejections { rows_all, rows: Vec::new(), reasons: BTreeMap::new(), reasons_max }
    }

    fn add(&mut self, column: &Column, is_wrong: impl Fn(usize) -> bool) {
        self.add_as(column, is_wrong, |column| format!("{}: not a value of {}", column.name, column.data_type));
    }

    fn add_as(&mut self, column: &Column, is_wrong: impl Fn(usize) -> bool, reason: impl Fn(&Column) -> String) {
        self.add_each(is_wrong, |_| reason(column));
    }

    fn add_each(&mut self, is_wrong: impl Fn(usize) -> bool, reason: impl Fn(usize) -> String) {
        for row in 0..self.rows_all {
            if self.rows.get(row).is_none_or(|is_rejected| !is_rejected) && is_wrong(row) {
                if self.rows.is_empty() {
                    self.rows = vec![false; self.rows_all];
                }
                self.rows[row] = true;
                let is_full = self.reasons.len() >= self.reasons_max;
                if is_full && self.reasons.last_key_value().is_none_or(|(last, _)| *last < row) {
                    continue;
                }
                if is_full {
                    self.reasons.pop_last();
                }
                self.reasons.insert(row, reason(row));
            }
        }
    }
}

/// The column of `schema` that `column` is read from.
pub fn column_of(schema: &Schema, column: &Column) -> Option<usize> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    place_of(column, &names)
}

/// The place of `column` among the names of a table: in its own spelling, or else without case, or else under the name that
/// FROM gives a field of the event itself.
pub(super) fn place_of(column: &Column, names: &[&str]) -> Option<usize> {
    let place = |wanted: &str| {
        let exact = names.iter().position(|name| *name == wanted);
        exact.or_else(|| names.iter().position(|name| column_name::same(name, wanted)))
    };
    place(&column.name).or_else(|| match column.field().levels() {
        [name] => place(name),
        _ => None,
    })
}

/// Returns whether the column can be read from one of the type `found`, value by value.
fn takes(column: &Column, found: &ArrowType) -> bool {
    let found = plain_type(found);
    match column.data_type {
        DataType::Boolean => matches!(found, ArrowType::Boolean),
        DataType::Int | DataType::BigInt => found.is_integer() || found.is_floating() || is_text(found),
        DataType::Double => found.is_integer() || found.is_floating(),
        DataType::Decimal { .. } => {
            let exact = matches!(found, ArrowType::Decimal128(..) | ArrowType::Decimal256(..));
            exact || found.is_integer() || found.is_floating() || is_text(found)
        }
        DataType::String => is_text(found),
        DataType::Date => matches!(found, ArrowType::Date32 | ArrowType::Date64) || is_text(found),
        DataType::Timestamp => matches!(found, ArrowType::Timestamp(..)) || found.is_integer() || is_text(found),
        DataType::Json => false,
    }
}

/// The type of the values: of a dictionary, those that it numbers.
fn plain_type(found: &ArrowType) -> &ArrowType {
    match found {
        ArrowType::Dictionary(_, values) => values,
        other => other,
    }
}

fn is_text(found: &ArrowType) -> bool {
    matches!(found, ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View)
}

/// The values in the stream's type; NULL where a value does not fit it. Times without a zone are UTC.
fn converted(found: &ArrayRef, column: &Column) -> Result<ArrayRef, ArrowError> {
    let wanted = column.data_type;
    let plain = plain_type(found.data_type());
    match plain {
        ArrowType::Timestamp(unit, _) => {
            let values = cast(found, plain)?;
            // Not a cast of the type with its zone, which would read times without a zone as local ones.
            let plain = retyped(&values, ArrowType::Timestamp(*unit, None))?;
            retyped(&cast(&plain, &ArrowType::Timestamp(TimeUnit::Microsecond, None))?, wanted.arrow())
        }
        // Dictionaries stay shared: a view of each row, not a copy of its text.
        text if is_text(text) => {
            let texts = cast(found, &ArrowType::Utf8View)?;
            match wanted {
                DataType::String => Ok(texts),
                _ => Ok(texts_as(texts.as_string_view(), column)),
            }
        }
        number if wanted == DataType::Timestamp && number.is_integer() => {
            numbers_as_times(&cast(found, number)?, column)
        }
        // Only whole numbers fit, and decimals by their shortest form, as in JSON.
        number if number.is_floating() && wanted != DataType::Double => {
            let texts = cast(&cast(found, number)?, &ArrowType::Utf8View)?;
            Ok(texts_as(texts.as_string_view(), column))
        }
        other => cast(&cast(found, other)?, &wanted.arrow()),
    }
}

/// The same values under another type of the same layout.
fn retyped(array: &ArrayRef, to: ArrowType) -> Result<ArrayRef, ArrowError> {
    Ok(make_array(array.to_data().into_builder().data_type(to).build()?))
}

/// The values that texts stand for.
fn texts_as(texts: &StringViewArray, column: &Column) -> ArrayRef {
    let mut values = Builder::new(column.data_type, texts.len());
    for text in texts.iter() {
        let cell = text.and_then(|text| text_value::read(column, text).ok());
        values.append(&cell.unwrap_or(Cell::Null), "");
    }
    values.finish()
}

/// Times of integers: milliseconds since 1970, or as the column's format says.
fn numbers_as_times(found: &ArrayRef, column: &Column) -> Result<ArrayRef, ArrowError> {
    let unit = match &column.format {
        None => UnixUnit::Millis,
        Some(TimeFormat::Unix(unit)) => *unit,
        // Such as 20261128 for '%Y%m%d'.
        Some(_) => return Ok(texts_as(cast(found, &ArrowType::Utf8View)?.as_string_view(), column)),
    };
    let counts = cast(found, &ArrowType::Int64)?;
    let times: TimestampMicrosecondArray =
        counts.as_primitive::<Int64Type>().iter().map(|count| unit.micros(count?)).collect();
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
        let fit = ColumnCast::new(&stream(""), &rows.schema()).expect("fits");
        assert_eq!((fit.missing.clone(), fit.unknown.clone()), (vec!["day".to_owned()], vec!["other".to_owned()]));
        let fitted = fit.apply(&rows, 9).expect("converts");
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
        let fitted = ColumnCast::new(&stream(""), &rows.schema()).expect("fits").apply(&rows, 9).expect("converts");
        let reasons: Vec<(usize, &str)> = fitted.rejected.iter().map(|(row, why)| (*row, why.as_str())).collect();
        // The first reason of a row counts, in the order of the columns.
        assert_eq!(reasons, [(1, "id: the primary key may not be null"), (2, "id: the primary key may not be null")]);
        assert_eq!(fitted.rows.num_rows(), 1);
        let without = batch(vec![("at", at())]);
        let refused = ColumnCast::new(&stream(""), &without.schema()).expect_err("the primary key is missing");
        assert_eq!(refused.0, ["id: the primary key is missing"]);
    }

    #[test]
    fn columns_of_wrong_types_are_reported_one_by_one() {
        let schema = Schema::new(vec![
            Field::new("at", ArrowType::Boolean, true),
            Field::new("n", ArrowType::Binary, true),
            Field::new("more", ArrowType::Int32, true),
        ]);
        let misfit = ColumnCast::new(&stream(", unknown_fields = 'reject'"), &schema).expect_err("does not fit");
        assert_eq!(
            misfit.0,
            [
                "id: the primary key is missing",
                "at: TIMESTAMP cannot be read from Boolean",
                "n: INT cannot be read from Binary",
                "more: the stream does not declare it"
            ]
        );
    }
}
