//! Writes results in the format that the client asks for, by extension or by `Accept`.
//!
//! [`cells`] writes single values, [`flat`] lays columns out for formats without objects. [`json`], [`ndjson`], [`csv`],
//! [`parquet`] and [`arrow_stream`] write one format each, [`json_events`] the events of a stream.

pub mod arrow_stream;
pub(crate) mod cells;
pub mod csv;
mod flat;
pub mod json;
pub mod json_events;
pub mod json_rows;
pub mod ndjson;
pub mod parquet;

use shared::partial::query_budget::{Exceeded, QueryBudget};

/// Bytes that a response grows by between two checks.
const CHECKED_EVERY_BYTES: usize = 256 * 1024;

/// Keeps a response that is being written within the memory and the time of its query.
struct ResponseSize<'a> {
    budget: &'a QueryBudget,
    next_check: usize,
}

impl<'a> ResponseSize<'a> {
    fn within(budget: &'a QueryBudget) -> ResponseSize<'a> {
        ResponseSize { budget, next_check: CHECKED_EVERY_BYTES }
    }

    /// Fails if a response of `bytes` so far is too large, or its query is over.
    fn check(&mut self, bytes: usize) -> Result<(), Exceeded> {
        if bytes < self.next_check {
            return Ok(());
        }
        self.next_check = bytes + CHECKED_EVERY_BYTES;
        self.budget.check(bytes)
    }
}

/// A format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Ndjson,
    Csv,
    Parquet,
    Arrow,
}

const MEDIA_TYPES: [(&str, Format); 9] = [
    ("application/json", Format::Json),
    ("application/x-ndjson", Format::Ndjson),
    ("application/ndjson", Format::Ndjson),
    ("application/jsonl", Format::Ndjson),
    ("text/csv", Format::Csv),
    ("application/vnd.apache.parquet", Format::Parquet),
    ("application/x-parquet", Format::Parquet),
    ("application/vnd.apache.arrow.stream", Format::Arrow),
    ("application/vnd.apache.arrow.file", Format::Arrow),
];

impl Format {
    /// Returns the format that an `Accept` header asks for: the known media type with the largest weight, the first among
    /// equals. JSON if the client accepts anything; `None` if it accepts no known format.
    pub fn accepted(header: Option<&str>) -> Option<Format> {
        let Some(header) = header.filter(|h| !h.trim().is_empty()) else { return Some(Format::Json) };
        let mut best: Option<(f32, Format)> = None;
        for range in header.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let known = MEDIA_TYPES.iter().find(|(name, _)| *name == media).map(|(_, format)| *format);
            let format = known.or(match media.as_str() {
                "*/*" | "application/*" => Some(Format::Json),
                "text/*" => Some(Format::Csv),
                _ => None,
            });
            if let Some(format) = format
                && weight > best.map_or(0.0, |(w, _)| w)
            {
                best = Some((weight, format));
            }
        }
        best.map(|(_, format)| format)
    }

    /// Returns the value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Parquet => "application/vnd.apache.parquet",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringViewArray};
    use arrow::datatypes::Int64Type;
    use arrow::ipc::reader::StreamReader;
    use shared::partial::finish::Bounds;
    use shared::partial::merge::Layers;
    use shared::types::DataType;

    use super::*;
    use crate::execute::{ColumnRole, QueryResult, ResultColumn};
    use crate::finality::Finality;

    /// Two measures of three rows: `destinations`, estimated in the last, and `top`, estimated in the first.
    fn estimates() -> QueryResult {
        let numbers = |all: [Option<i64>; 3]| Arc::new(Int64Array::from(all.to_vec())) as ArrayRef;
        let texts = |all: [Option<&str>; 3]| Arc::new(StringViewArray::from(all.to_vec())) as ArrayRef;
        let column = |name: &str, data_type, values, bounds| ResultColumn {
            name: name.to_owned(),
            data_type,
            role: ColumnRole::Measure,
            values,
            overflowed: None,
            exact_in: Some("batch"),
            bounds,
        };
        let destinations = Bounds { low: numbers([None, None, Some(37)]), high: numbers([None, None, Some(39)]) };
        let top =
            Bounds { low: texts([Some("[[\"a\",5]]"), None, None]), high: texts([Some("[[\"a\",7]]"), None, None]) };
        let counts = texts([Some("[[\"a\",6]]"), Some("[]"), None]);
        QueryResult {
            columns: vec![
                column("destinations", DataType::BigInt, numbers([Some(1), Some(2), Some(38)]), Some(destinations)),
                column("top", DataType::Json, counts, Some(top)),
                column("median", DataType::Double, Arc::new(Float64Array::from(vec![1.5, 2.0, 3.0])), None),
            ],
            layers: vec![Layers::SPEED, Layers::BATCH, Layers(3)],
            finality: vec![Finality::Open; 3],
            next: None,
            failed_groups: None,
        }
    }

    #[test]
    fn a_response_is_checked_as_it_grows() {
        let budget = QueryBudget { bytes_max: 1 << 20, ..QueryBudget::unlimited() };
        let mut size = ResponseSize::within(&budget);
        let refused = (0..100).map(|n| n * 50_000).find(|bytes| size.check(*bytes).is_err());
        assert!(refused.is_some_and(|bytes| (1 << 20..2 << 20).contains(&bytes)), "{refused:?}");
    }

    #[test]
    fn files_are_refused_before_they_are_written() {
        let budget = QueryBudget { bytes_max: 100, ..QueryBudget::unlimited() };
        for written in [parquet::write(&estimates(), &budget), arrow_stream::write(&estimates(), &budget)] {
            assert!(matches!(written, Err(parquet::WriteError::TooLarge(Exceeded::Bytes { bytes_max: 100 }))));
        }
    }

    #[test]
    fn bounds_are_shown_where_values_are_estimated() {
        let lines =
            String::from_utf8(ndjson::write(&estimates(), &QueryBudget::unlimited()).expect("fits")).expect("UTF-8");
        let expected = [
            r#"{"destinations":1,"top":[["a",6]],"median":1.5,"_layer":"speed","_finality":"open","_bounds":{"top":[[["a",5]],[["a",7]]]}}"#,
            r#"{"destinations":2,"top":[],"median":2.0,"_layer":"batch","_finality":"open"}"#,
            r#"{"destinations":38,"top":null,"median":3.0,"_layer":"merged","_finality":"open","_bounds":{"destinations":[37,39]}}"#,
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn flat_formats_have_two_more_columns_for_estimated_measures() {
        let text =
            String::from_utf8(csv::write(&estimates(), &QueryBudget::unlimited()).expect("fits")).expect("UTF-8");
        let expected = [
            "destinations,destinations_low,destinations_high,top,top_low,top_high,median,median_low,median_high,_layer,_finality",
            r#"1,,,"[[""a"",6]]","[[""a"",5]]","[[""a"",7]]",1.5,,,speed,open"#,
            "2,,,[],,,2.0,,,batch,open",
            "38,37,39,,,,3.0,,,merged,open",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        let file = bytes::Bytes::from(parquet::write(&estimates(), &QueryBudget::unlimited()).expect("a file"));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a file").build().expect("a reader");
        let rows = reader.map(|batch| batch.expect("rows")).next().expect("a batch");
        let stream = arrow_stream::write(&estimates(), &QueryBudget::unlimited()).expect("a stream");
        let mut streamed = StreamReader::try_new(stream.as_slice(), None).expect("a stream");
        assert_eq!(streamed.next().expect("a batch").expect("rows"), rows, "an Arrow stream is the same batch");
        assert!(streamed.next().is_none());
        let low = rows.column_by_name("destinations_low").expect("a column").as_primitive::<Int64Type>();
        assert_eq!(low.iter().collect::<Vec<_>>(), [None, None, Some(37)]);
        assert_eq!(rows.column_by_name("median_high").expect("a column").null_count(), 3);
        assert_eq!(rows.column_by_name("top_high").expect("a column").as_string_view().value(0), "[[\"a\",7]]");
    }

    #[test]
    fn accept_is_evaluated_by_weight_then_by_order() {
        let cases = [
            (None, Some(Format::Json)),
            (Some(""), Some(Format::Json)),
            (Some("*/*"), Some(Format::Json)),
            (Some("text/html, application/xhtml+xml, */*;q=0.8"), Some(Format::Json)),
            (Some("text/csv"), Some(Format::Csv)),
            (Some("application/json;q=0.5, TEXT/CSV"), Some(Format::Csv)),
            (Some("application/x-ndjson, application/json"), Some(Format::Ndjson)),
            (Some("application/vnd.apache.parquet"), Some(Format::Parquet)),
            (Some("application/vnd.apache.arrow.stream"), Some(Format::Arrow)),
            (Some("text/html"), None),
            (Some("text/csv;q=0"), None),
        ];
        for (header, expected) in cases {
            assert_eq!(Format::accepted(header), expected, "{header:?}");
        }
    }
}
