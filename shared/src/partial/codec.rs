//! Writes partial aggregates as rows of a view's table, and reads them back: readable columns first, then states.
//!
//! `window_start, window_end, dimensions.., measures..`, then per aggregate `i` the columns `_state_<i>_<part>`.
//! External readers use the first; Trueup merges the second. Writing and reading are the two directions of one mapping.

mod gathered;
mod state_columns;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;

pub use self::gathered::gathered;
use self::state_columns::state_columns;
pub use self::state_columns::{decode_states, integer_sum_columns, state_fields};
use crate::evaluate::EvaluateError;
use crate::partial::block::{Block, Part};
use crate::partial::finish::finish_measures;
use crate::partial::keys::{KeyIndex, KeyLayout};
use crate::partial::sketch::SketchError;
use crate::partial::states::States;
use crate::time::Micros;
use crate::types::timestamp_type;
use crate::view::{OutputColumn, View};
use crate::window::{Window, WindowId};

/// The column a view's table is partitioned by: the UTC day of `window_start`.
pub const WINDOW_DATE: &str = "_window_date";
pub const WINDOW_START: &str = "window_start";
pub const WINDOW_END: &str = "window_end";

/// The reason why columns could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    #[error("the view's table does not have a column {0}")]
    MissingColumn(String),
    #[error("the column {0} does not have the expected type")]
    WrongType(String),
    #[error("could not read the states of aggregate {index}")]
    Sketch { index: usize, source: SketchError },
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

/// Returns start and end of the windows with these ids; `lasts` are the last events of sessions, in microseconds (of a table's event
/// times that are not joined to sessions empty). `None`: no end.
pub fn window_bounds(view: &View, ids: &[WindowId], lasts: &[i64]) -> Vec<(Micros, Option<Micros>)> {
    if let Some(gap) = view.window.gap() {
        // An event time of a table that is not joined yet is a session of its own.
        let lasts = lasts.iter().copied().chain(ids[lasts.len()..].iter().map(|id| id.0));
        return ids
            .iter()
            .zip(lasts)
            .map(|(first, last)| (Micros(first.0), Some(Micros(last.saturating_add(gap)))))
            .collect();
    }
    let mut before: Option<(WindowId, (Micros, Option<Micros>))> = None;
    let bounds = |id: &WindowId| match before {
        Some((same, bounds)) if same == *id => bounds,
        _ => {
            let bounds = view.window.bounds(*id);
            before = Some((*id, bounds));
            bounds
        }
    };
    ids.iter().map(bounds).collect()
}

/// Returns the rows of a view's table, in the given order: `windows` are ids, `lasts` the last events of sessions (of other views
/// empty), one dimension column per dimension.
pub fn encode(
    view: &View,
    windows: &[WindowId],
    lasts: &[i64],
    dimensions: Vec<ArrayRef>,
    states: &[States],
) -> Result<RecordBatch, CodecError> {
    let mut columns: Vec<ArrayRef> = Vec::new();
    if view.window != Window::All {
        let bounds = window_bounds(view, windows, lasts);
        let starts = bounds.iter().map(|(start, _)| start.0).collect::<Vec<_>>();
        let ends = bounds.iter().map(|(_, end)| end.map_or(i64::MAX, |end| end.0)).collect::<Vec<_>>();
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
        columns.extend(state_columns(aggregate, states)?);
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(windows.len()));
    Ok(RecordBatch::try_new_with_options(table_schema(view), columns, &options)?)
}

/// Reads a part from batches of a view's table.
pub fn decode(view: &View, layout: &Arc<KeyLayout>, batches: &[RecordBatch]) -> Result<Part, CodecError> {
    let mut decoder = PartDecoder::new(view, layout);
    batches.iter().try_for_each(|batch| decoder.add(batch))?;
    Ok(decoder.finish())
}

/// Reads a part from batches of a view's table, one after the other, so that they need not be in memory at once.
pub struct PartDecoder<'a> {
    view: &'a View,
    layout: &'a Arc<KeyLayout>,
    index: KeyIndex,
    blocks: Vec<Arc<Block>>,
}

impl PartDecoder<'_> {
    /// Returns a decoder that has read nothing yet.
    pub fn new<'a>(view: &'a View, layout: &'a Arc<KeyLayout>) -> PartDecoder<'a> {
        PartDecoder { view, layout, index: KeyIndex::default(), blocks: Vec::new() }
    }

    /// Reads one more batch, as a block. It is sorted if its rows are in the order of their windows.
    pub fn add(&mut self, batch: &RecordBatch) -> Result<(), CodecError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let PartDecoder { view, layout, index, blocks } = self;
        let times = |name: &str| match batch.column_by_name(name) {
            Some(column) => {
                Ok(cast(column, &timestamp_type())?.as_primitive::<TimestampMicrosecondType>().values().to_vec())
            }
            None => Err(CodecError::MissingColumn(name.to_owned())),
        };
        let ids = |starts: Vec<i64>| starts.into_iter().map(WindowId).collect();
        let mut lasts = Vec::new();
        let windows: Vec<WindowId> = match view.window {
            Window::All => vec![WindowId::ALL_TIME; batch.num_rows()],
            // Windows that share their start are known by their last pane.
            Window::Cumulate { .. } => {
                times(WINDOW_END)?.iter().map(|end| view.window.pane_of(Micros(end - 1)).window()).collect()
            }
            Window::Session { gap } => {
                lasts = times(WINDOW_END)?.iter().map(|end| end - gap).collect();
                ids(times(WINDOW_START)?)
            }
            _ => ids(times(WINDOW_START)?),
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
        let smallest = windows.iter().copied().min().unwrap_or(WindowId::MAX);
        let largest = windows.iter().copied().max().unwrap_or(WindowId::MIN);
        let states = decode_states(view, batch)?;
        blocks.push(Arc::new(Block { windows, lasts, keys, states, window_range: (smallest, largest), sorted }));
        Ok(())
    }

    /// Returns the part with all rows that were read.
    pub fn finish(self) -> Part {
        let keys = self.index.keys().clone();
        Part { layout: Arc::clone(self.layout), panes: false, keys, blocks: self.blocks }
    }
}
