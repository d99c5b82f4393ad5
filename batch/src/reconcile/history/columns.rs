//! Encodes comparisons as rows of a table that any Delta reader understands: one row per measure, with the figures of the
//! whole version repeated and the differing values of the measure as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use serde_json::{Map, Value};
use shared::compare::{Causes, Comparison, Difference, MeasureDrift};
use shared::double::read_exactly;
use shared::ids::ViewName;
use shared::time::Micros;
use shared::types::timestamp_type;

/// The DATE column that partitions the files: the day of the comparison.
pub const COMPARED_DATE: &str = "compared_date";

/// Columns with one count each; the causes are their names in the contract, and follow.
const COUNTS: [&str; 5] = ["version", "rows_compared", "rows_equal", "equal", "estimates"];
const ERRORS: [&str; 4] = ["max_abs_error", "max_rel_error", "mean_rel_error", "drift"];

/// Why a row is not part of a comparison.
#[derive(Debug, thiserror::Error)]
pub enum ColumnsError {
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("column {column}: {reason}")]
    Column { column: &'static str, reason: String },
}

/// The table's columns, without the partition's.
pub fn schema() -> SchemaRef {
    let count = |name: &str| Field::new(name, DataType::Int64, true);
    let mut fields = vec![Field::new("compared_at", timestamp_type(), false)];
    fields.extend(COUNTS.map(count));
    fields.push(Field::new("measure", DataType::Utf8, true));
    fields.extend(ERRORS.map(|name| Field::new(name, DataType::Float64, true)));
    fields.push(Field::new("inside_bounds", DataType::Float64, true));
    fields.extend(causes(&Causes::default()).iter().map(|(cause, _)| count(&format!("cause_{cause}"))));
    fields.push(count("rows_omitted"));
    fields.extend(["cut", "definition", "differences"].map(|name| Field::new(name, DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

/// The causes by name, in their order in the contract.
fn causes(causes: &Causes) -> Vec<(String, i64)> {
    let Ok(Value::Object(all)) = serde_json::to_value(causes) else { unreachable!("causes are an object of counts") };
    all.into_iter().map(|(cause, count)| (cause, count.as_i64().unwrap_or(i64::MAX))).collect()
}

/// The rows of one reconciliation. One without measures has a row without a measure.
pub fn rows(comparison: &Comparison) -> Result<RecordBatch, ColumnsError> {
    let measures: Vec<(Option<&str>, MeasureDrift)> = match comparison.measures.is_empty() {
        true => vec![(None, MeasureDrift::default())],
        false => comparison.measures.iter().map(|(name, drift)| (Some(name.as_str()), *drift)).collect(),
    };
    let long = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let counts = |of: &dyn Fn(&MeasureDrift) -> i64| -> ArrayRef {
        Arc::new(measures.iter().map(|(_, drift)| Some(of(drift))).collect::<Int64Array>())
    };
    let doubles = |of: &dyn Fn(&MeasureDrift) -> Option<f64>| -> ArrayRef {
        Arc::new(measures.iter().map(|(_, drift)| of(drift)).collect::<Float64Array>())
    };
    let texts = |of: &dyn Fn(Option<&str>) -> Option<String>| -> ArrayRef {
        Arc::new(measures.iter().map(|(name, _)| of(*name)).collect::<StringArray>())
    };
    let times = TimestampMicrosecondArray::from(vec![comparison.compared_at.0; measures.len()]).with_timezone("UTC");
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(times),
        counts(&|_| comparison.version),
        counts(&|_| long(comparison.rows_compared)),
        counts(&|_| long(comparison.rows_equal)),
        counts(&|drift| long(drift.equal)),
        counts(&|drift| long(drift.estimates)),
        texts(&|name| name.map(str::to_owned)),
        doubles(&|drift| Some(drift.max_abs_error)),
        doubles(&|drift| Some(drift.max_rel_error)),
        doubles(&|drift| Some(drift.mean_rel_error)),
        doubles(&|measure| Some(measure.drift)),
        doubles(&|drift| drift.inside_bounds),
    ];
    columns.extend(causes(&comparison.causes).into_iter().map(|(_, count)| counts(&|_| count)));
    columns.push(counts(&|_| long(comparison.rows_omitted)));
    let cut = serde_json::to_string(&comparison.cut).expect("offsets by partition are plain data");
    columns.push(texts(&|_| Some(cut.clone())));
    let definition = comparison.definition.as_ref();
    let definition = definition.map(|change| serde_json::to_string(change).expect("a change is plain data"));
    columns.push(texts(&|_| definition.clone()));
    let differing: Vec<(usize, &Difference)> = comparison.rows.iter().enumerate().collect();
    columns.push(texts(&|name| {
        // Each with its place among all, so that reading gives them in the same order.
        let of_measure: Vec<&(usize, &Difference)> =
            differing.iter().filter(|(_, difference)| name.is_none_or(|name| difference.measure == name)).collect();
        Some(serde_json::to_string(&of_measure).expect("differences are plain data"))
    }));
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// The reconciliation that [`rows`] wrote. A cause or column that the file does not have yet is 0.
pub fn read(view: &ViewName, batches: &[RecordBatch]) -> Result<Option<Comparison>, ColumnsError> {
    let mut found: Option<Comparison> = None;
    let mut differing: Vec<(usize, Difference)> = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let count = |name: &str| long_at(batch, name, row).unwrap_or(0);
            let unsigned = |name: &str| u64::try_from(count(name)).unwrap_or(0);
            let double = |name: &str| double_at(batch, name, row);
            let comparison = match &mut found {
                Some(comparison) => comparison,
                none => none.insert(Comparison {
                    view: view.clone(),
                    version: count("version"),
                    compared_at: Micros(time_at(batch, row)),
                    cut: parsed("cut", text_at(batch, "cut", row))?,
                    rows_compared: unsigned("rows_compared"),
                    rows_equal: unsigned("rows_equal"),
                    measures: BTreeMap::new(),
                    causes: read_causes(&unsigned)?,
                    definition: parsed("definition", text_at(batch, "definition", row))?,
                    rows: Vec::new(),
                    rows_omitted: unsigned("rows_omitted"),
                }),
            };
            if let Some(measure) = text_at(batch, "measure", row) {
                let drift = MeasureDrift {
                    equal: unsigned("equal"),
                    max_abs_error: double("max_abs_error").unwrap_or(0.0),
                    max_rel_error: double("max_rel_error").unwrap_or(0.0),
                    mean_rel_error: double("mean_rel_error").unwrap_or(0.0),
                    drift: double("drift").unwrap_or(0.0),
                    estimates: unsigned("estimates"),
                    inside_bounds: double("inside_bounds"),
                };
                comparison.measures.insert(measure, drift);
            }
            differing.extend(parsed::<Vec<(usize, Difference)>>("differences", text_at(batch, "differences", row))?);
        }
    }
    differing.sort_by_key(|(place, _)| *place);
    if let Some(comparison) = &mut found {
        comparison.rows = differing.into_iter().map(|(_, difference)| difference).collect();
    }
    Ok(found)
}

fn read_causes(count: &dyn Fn(&str) -> u64) -> Result<Causes, ColumnsError> {
    let known = causes(&Causes::default());
    let all: Map<String, Value> =
        known.into_iter().map(|(cause, _)| (cause.clone(), Value::from(count(&format!("cause_{cause}"))))).collect();
    serde_json::from_value(Value::Object(all)).map_err(|e| wrong("causes", e.to_string()))
}

fn parsed<T: serde::de::DeserializeOwned + Default>(
    column: &'static str,
    text: Option<String>,
) -> Result<T, ColumnsError> {
    let Some(text) = text else { return Ok(T::default()) };
    let read = read_exactly(&text).and_then(serde_json::from_value);
    read.map_err(|e| wrong(column, e.to_string()))
}

fn wrong(column: &'static str, reason: String) -> ColumnsError {
    ColumnsError::Column { column, reason }
}

fn long_at(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn double_at(batch: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(name)?.as_primitive_opt::<Float64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn time_at(batch: &RecordBatch, row: usize) -> i64 {
    let column = batch.column_by_name("compared_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
    column.map_or(0, |column| column.value(row))
}

fn text_at(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name)?;
    let text = match column.as_string_opt::<i32>() {
        Some(texts) => texts.is_valid(row).then(|| texts.value(row)),
        None => column.as_string_view_opt().and_then(|texts| texts.is_valid(row).then(|| texts.value(row))),
    };
    text.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::compare::{Cause, DefinitionChange};
    use shared::ids::{Offset, Partition};

    use super::*;

    fn difference(measure: &str, served: impl Into<Value>, cause: Cause) -> Difference {
        Difference {
            window_start: Some(Micros(7_000_000)),
            dimensions: BTreeMap::from([("origin".to_owned(), json!("ATL \"x\""))]),
            measure: measure.to_owned(),
            served: served.into(),
            exact: json!(null),
            cause,
        }
    }

    #[test]
    fn a_reconciliation_round_trips_through_its_rows() {
        let view: ViewName = "departures".parse().expect("a name");
        let drift = MeasureDrift {
            equal: 3,
            max_abs_error: f64::MAX,
            max_rel_error: f64::INFINITY,
            mean_rel_error: 5e-324,
            drift: 0.25,
            estimates: 2,
            inside_bounds: None,
        };
        let whole = Comparison {
            view: view.clone(),
            version: 12,
            compared_at: Micros(1_700_000_000_000_001),
            cut: BTreeMap::from([(Partition(0), Offset(5)), (Partition(3), Offset(9))]),
            rows_compared: 10,
            rows_equal: 7,
            measures: BTreeMap::from([
                ("b".to_owned(), drift),
                ("a".to_owned(), MeasureDrift { inside_bounds: Some(0.5), ..drift }),
            ]),
            causes: Causes { late: 2, sketch: 1, ..Causes::default() },
            definition: Some(DefinitionChange {
                before: "SELECT 1".to_owned(),
                after: "SELECT 2".to_owned(),
                changes: Vec::new(),
                compared_by: vec!["origin".to_owned()],
                not_comparable: None,
            }),
            rows: vec![
                difference("b", 1, Cause::Late),
                difference("a", 2, Cause::Sketch),
                // `serde_json` reads it a unit in the last place off.
                difference("b", 987654.3210123457, Cause::Late),
            ],
            rows_omitted: 4,
        };
        let bare = Comparison { measures: BTreeMap::new(), rows: Vec::new(), definition: None, ..whole.clone() };
        for comparison in [whole, bare] {
            let batch = rows(&comparison).expect("rows");
            assert_eq!(read(&view, &[batch]).expect("readable"), Some(comparison));
        }
        assert_eq!(read(&view, &[]).expect("readable"), None);
    }
}
