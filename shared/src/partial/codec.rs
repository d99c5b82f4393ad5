//! How do partial aggregates look in a view's table? Columns that people read, then the states they were finished from.
//!
//! `window_start, window_end, dimensions.., measures..`, then per aggregate `i` the columns `_state_<i>_<part>`.
//! External readers use the first; Trueup merges the second. Writing and reading are the two directions of one mapping.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use crate::evaluate::EvaluateError;
use crate::partial::block::{Block, Part};
use crate::partial::finish::{finish, finish_measures};
use crate::partial::keys::{KeyIndex, KeyLayout};
use crate::partial::states::{SUM_OVERFLOW, States};
use crate::types::{DataType, timestamp_type};
use crate::view::{Aggregate, OutputColumn, Precision, View};
use crate::window::{ALL_TIME, Window};

/// The column a view's table is partitioned by: the UTC day of `window_start`.
pub const WINDOW_DATE: &str = "_window_date";
pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";

/// Why columns and partial aggregates could not be turned into each other.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error("the view's table has no column {0}")]
    MissingColumn(String),
}

/// Schema of a view's files, without the partition column.
pub fn table_schema(view: &View) -> SchemaRef {
    let mut fields = Vec::new();
    if view.window != Window::All {
        fields.push(Field::new(WINDOW_START, timestamp_type(), false));
        fields.push(Field::new(WINDOW_END, timestamp_type(), false));
    }
    fields.extend(view.dimensions.iter().map(|d| Field::new(&d.name, d.expression.data_type.arrow(), true)));
    for column in &view.output {
        if let OutputColumn::Measure(index) = column {
            let measure = &view.measures[*index];
            fields.push(Field::new(&measure.name, measure.expression.data_type.arrow(), true));
        }
    }
    fields.extend(state_fields(view));
    Arc::new(Schema::new(fields))
}

/// The state columns of all aggregates, in order.
pub fn state_fields(view: &View) -> Vec<Field> {
    view.aggregates.iter().enumerate().flat_map(|(i, a)| fields_of(i, a)).collect()
}

fn fields_of(index: usize, aggregate: &Aggregate) -> Vec<Field> {
    let field = |part: &str, data_type: ArrowType, nullable: bool| {
        Field::new(format!("_state_{index}_{part}"), data_type, nullable)
    };
    let argument = aggregate.argument.as_ref().map_or(DataType::BigInt, |a| a.data_type);
    match States::new(aggregate, Precision::Sketch) {
        States::Count(_) => vec![field("count", ArrowType::Int64, false)],
        States::Integers { .. } => {
            vec![field("sum", ArrowType::Decimal128(38, 0), true), field("count", ArrowType::Int64, false)]
        }
        States::Doubles { .. } => vec![
            field("sum", ArrowType::Float64, false),
            field("correction", ArrowType::Float64, false),
            field("count", ArrowType::Int64, false),
        ],
        _ => vec![field("value", argument.arrow(), true)],
    }
}

/// Start and end of the windows with these ids, in microseconds; `lasts` are the last events of sessions. `None`: no end.
pub fn window_bounds(view: &View, ids: &[i64], lasts: &[i64]) -> Vec<(i64, Option<i64>)> {
    if let Window::Session { gap } = view.window {
        return ids.iter().zip(lasts).map(|(first, last)| (*first, Some(last.saturating_add(gap)))).collect();
    }
    let mut before: Option<(i64, (i64, Option<i64>))> = None;
    let bounds = |id: &i64| match before {
        Some((same, bounds)) if same == *id => bounds,
        _ => {
            let bounds = view.window.bounds(*id);
            before = Some((*id, bounds));
            bounds
        }
    };
    ids.iter().map(bounds).collect()
}

/// The rows of a view's table, in the order given: `windows` are ids, `lasts` the last events of sessions (of other views
/// empty), one dimension column per dimension.
pub fn encode(
    view: &View,
    windows: &[i64],
    lasts: &[i64],
    dimensions: Vec<ArrayRef>,
    states: &[States],
) -> Result<RecordBatch, CodecError> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    if view.window != Window::All {
        let bounds = window_bounds(view, windows, lasts);
        let starts = bounds.iter().map(|(start, _)| *start).collect::<Vec<_>>();
        let ends = bounds.iter().map(|(_, end)| end.unwrap_or(i64::MAX)).collect::<Vec<_>>();
        columns.push(Arc::new(TimestampMicrosecondArray::from(starts).with_timezone("UTC")));
        columns.push(Arc::new(TimestampMicrosecondArray::from(ends).with_timezone("UTC")));
    }
    columns.extend(dimensions);
    let measures = finish_measures(view, states)?;
    for column in &view.output {
        if let OutputColumn::Measure(index) = column {
            columns.push(Arc::clone(&measures[*index].column));
        }
    }
    for (aggregate, states) in view.aggregates.iter().zip(states) {
        columns.extend(state_columns(aggregate, states));
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(windows.len()));
    Ok(RecordBatch::try_new_with_options(table_schema(view), columns, &options)?)
}

fn state_columns(aggregate: &Aggregate, states: &States) -> Vec<ArrayRef> {
    let counts = |counts: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(counts.to_vec())) };
    match states {
        States::Count(values) => vec![counts(values)],
        States::Integers { sums, counts: n } => {
            let limit = 10i128.pow(38);
            let sum = |s: &i128| (*s > -limit && *s < limit).then_some(*s);
            let column: Decimal128Array = sums.iter().map(sum).collect();
            let typed = column.with_precision_and_scale(38, 0).expect("checked to have 38 digits at most");
            vec![Arc::new(typed), counts(n)]
        }
        States::Doubles { sums, corrections, counts: n } => vec![
            Arc::new(Float64Array::from(sums.clone())),
            Arc::new(Float64Array::from(corrections.clone())),
            counts(n),
        ],
        _ => vec![finish(aggregate, states).column],
    }
}

/// The states of all aggregates from a batch that has their columns.
pub fn decode_states(view: &View, batch: &RecordBatch) -> Result<Vec<States>, CodecError> {
    let states = view.aggregates.iter().enumerate().map(|(i, aggregate)| {
        let mut columns = Vec::new();
        for field in fields_of(i, aggregate) {
            let column =
                batch.column_by_name(field.name()).ok_or_else(|| CodecError::MissingColumn(field.name().clone()))?;
            columns.push(cast(column, field.data_type())?);
        }
        Ok(states_from(aggregate, &columns))
    });
    states.collect()
}

fn states_from(aggregate: &Aggregate, columns: &[ArrayRef]) -> States {
    let longs = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().to_vec();
    let doubles = |column: &ArrayRef| column.as_primitive::<Float64Type>().values().to_vec();
    let seen = |column: &ArrayRef| (0..column.len()).map(|row| column.is_valid(row)).collect::<Vec<_>>();
    match States::new(aggregate, Precision::Sketch) {
        States::Count(_) => States::Count(longs(&columns[0])),
        States::Integers { .. } => {
            let sums = columns[0].as_primitive::<Decimal128Type>();
            let sums = sums.iter().map(|s| s.unwrap_or(SUM_OVERFLOW)).collect();
            States::Integers { sums, counts: longs(&columns[1]) }
        }
        States::Doubles { .. } => States::Doubles {
            sums: doubles(&columns[0]),
            corrections: doubles(&columns[1]),
            counts: longs(&columns[2]),
        },
        States::Ordered { extreme, .. } => {
            States::Ordered { extreme, values: ordered_values(&columns[0]), seen: seen(&columns[0]) }
        }
        States::Decimals { extreme, .. } => {
            let values = columns[0].as_primitive::<Decimal128Type>().values().to_vec();
            States::Decimals { extreme, values, seen: seen(&columns[0]) }
        }
        States::Floats { extreme, .. } => {
            States::Floats { extreme, values: doubles(&columns[0]), seen: seen(&columns[0]) }
        }
        States::Texts { extreme, .. } => {
            let values = columns[0].as_string_view().iter().map(|t| t.map(Box::from)).collect();
            States::Texts { extreme, values }
        }
    }
}

fn ordered_values(column: &ArrayRef) -> Vec<i64> {
    match column.data_type() {
        ArrowType::Boolean => column.as_boolean().iter().map(|b| i64::from(b == Some(true))).collect(),
        ArrowType::Int32 => column.as_primitive::<Int32Type>().values().iter().map(|v| i64::from(*v)).collect(),
        ArrowType::Date32 => column.as_primitive::<Date32Type>().values().iter().map(|v| i64::from(*v)).collect(),
        ArrowType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
        _ => column.as_primitive::<Int64Type>().values().to_vec(),
    }
}

/// A part from batches of a view's table. Rows in the order of their windows make its block sorted.
pub fn decode(view: &View, layout: &Arc<KeyLayout>, batches: &[RecordBatch]) -> Result<Part, CodecError> {
    let mut index = KeyIndex::default();
    let mut blocks = Vec::with_capacity(batches.len());
    for batch in batches.iter().filter(|b| b.num_rows() > 0) {
        let times = |name: &str| match batch.column_by_name(name) {
            Some(column) => {
                Ok(cast(column, &timestamp_type())?.as_primitive::<TimestampMicrosecondType>().values().to_vec())
            }
            None => Err(CodecError::MissingColumn(name.to_owned())),
        };
        let mut lasts = Vec::new();
        let windows = match view.window {
            Window::All => vec![ALL_TIME.0; batch.num_rows()],
            // Windows that share their start are known by their last pane.
            Window::Cumulate { .. } => times(WINDOW_END)?.iter().map(|end| view.window.pane_of(end - 1)).collect(),
            Window::Session { gap } => {
                lasts = times(WINDOW_END)?.iter().map(|end| end - gap).collect();
                times(WINDOW_START)?
            }
            _ => times(WINDOW_START)?,
        };
        let keys = if view.dimensions.is_empty() {
            vec![index.id_of(&[]); batch.num_rows()]
        } else {
            let dimension = |d: &crate::view::Dimension| {
                let column = batch.column_by_name(&d.name).ok_or_else(|| CodecError::MissingColumn(d.name.clone()))?;
                Ok::<_, CodecError>(cast(column, &d.expression.data_type.arrow())?)
            };
            let columns = view.dimensions.iter().map(dimension).collect::<Result<Vec<_>, _>>()?;
            layout.encode(&columns)?.iter().map(|row| index.id_of(row.as_ref())).collect()
        };
        let sorted = windows.is_sorted();
        let smallest = windows.iter().copied().min().unwrap_or(i64::MAX);
        let largest = windows.iter().copied().max().unwrap_or(i64::MIN);
        let states = decode_states(view, batch)?;
        blocks.push(Arc::new(Block { windows, lasts, keys, states, window_range: (smallest, largest), sorted }));
    }
    Ok(Part { layout: Arc::clone(layout), panes: false, keys: index.keys().clone(), blocks })
}
