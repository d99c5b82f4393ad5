//! What does the reader see? Merged, ordered, cut to a page and finished: columns in the order of the answer.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;
use shared::evaluate::EvaluateError;
use shared::partial::codec::{WINDOW_END, WINDOW_START};
use shared::partial::finish::finish_measures;
use shared::partial::merge::{Grain, Layers, MergeError, Merged, Spec, merge};
use shared::partial::states::{NO_GROUP, States};
use shared::types::DataType;
use shared::view::{Precision, View};
use shared::window::Window;

use crate::finality::{Finality, Judge};
use crate::order::{OrderError, page};
use crate::pin::Pinned;
use crate::query::cursor::Cursor;
use crate::query::{LayerChoice, Query};

/// What a column of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Window,
    Dimension,
    Measure,
}

/// A column of an answer.
#[derive(Debug)]
pub struct Column {
    pub name: String,
    pub data_type: DataType,
    pub role: Role,
    pub values: ArrayRef,
    /// Rows whose value did not fit its type; it is NULL there.
    pub overflowed: Option<BooleanBuffer>,
}

/// The rows of an answer, by column.
#[derive(Debug)]
pub struct Answer {
    pub columns: Vec<Column>,
    pub layers: Vec<Layers>,
    pub finality: Vec<Finality>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

/// Why a query could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    Order(#[from] OrderError),
    #[error("the measures could not be computed: {0}")]
    Measures(#[from] EvaluateError),
    #[error("the groups could not be decoded: {0}")]
    Keys(#[from] ArrowError),
}

impl Answer {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.layers.len()
    }
}

/// Answers `query` from what was pinned for it. Plain work, no waiting.
pub fn answer(query: &Query, pinned: &Pinned) -> Result<Answer, AnswerError> {
    let published = &pinned.published;
    let view = published.view.as_ref();
    let merged = merge(&spec(view, query, &query.dimensions), &pinned.parts(query.layer))?;
    let offset = query.cursor.map_or(0, |cursor| cursor.offset);
    let rows = page(view, query, &merged, offset)?;
    let shown = offset.saturating_add(rows.len());
    let version = published.version.as_ref().map(|v| v.version);
    let next = (shown < merged.len()).then(|| Cursor { offset: shown, version }.written(query.fingerprint));

    let layers: Vec<Layers> = rows.iter().map(|row| merged.layers[*row as usize]).collect();
    let windows: Vec<i64> = rows.iter().map(|row| merged.windows[*row as usize]).collect();
    let live = live_windows(query, pinned)?;
    let judge = Judge { watermark: pinned.speed.watermark, allowed_lateness: published.stream.allowed_lateness };
    let finality = windows.iter().zip(&layers).map(|(window, layers)| {
        let is_live = layers.0 & Layers::SPEED.0 != 0 || live.as_ref().is_some_and(|live| live.contains(window));
        judge.judge(query.window_end(view.window, *window), is_live)
    });
    let finality = finality.collect();
    Ok(Answer { columns: columns(view, query, &merged, &rows, &windows)?, layers, finality, next })
}

fn spec<'a>(view: &'a View, query: &'a Query, dimensions: &'a [usize]) -> Spec<'a> {
    let (from, to, grain, filter) = (query.from, query.to, query.grain, query.filter.as_ref());
    Spec { view, from, to, grain, dimensions, filter }
}

/// The windows that speed has a part in, where the rows themselves cannot tell: an answer from batch alone.
fn live_windows(query: &Query, pinned: &Pinned) -> Result<Option<HashSet<i64>>, MergeError> {
    if query.layer != LayerChoice::Batch {
        return Ok(None);
    }
    let speed = pinned.parts(LayerChoice::Speed);
    let merged = merge(&spec(&pinned.published.view, query, &[]), &speed)?;
    Ok(Some(merged.windows.into_iter().collect()))
}

fn columns(
    view: &View,
    query: &Query,
    merged: &Merged,
    rows: &[u32],
    windows: &[i64],
) -> Result<Vec<Column>, AnswerError> {
    let mut columns = Vec::with_capacity(2 + query.dimensions.len() + query.measures.len());
    if view.window != Window::All {
        let starts = windows.iter().map(|w| window_start(view.window, query, *w));
        let ends = windows.iter().map(|w| query.window_end(view.window, *w));
        columns.push(window_column(WINDOW_START, starts));
        columns.push(window_column(WINDOW_END, ends));
    }
    let keys = rows.iter().map(|row| merged.keys.get(merged.groups[*row as usize]));
    let decoded = if query.dimensions.is_empty() { Vec::new() } else { merged.layout.decode(keys)? };
    for (dimension, values) in query.dimensions.iter().zip(decoded) {
        let dimension = &view.dimensions[*dimension];
        let (name, data_type) = (dimension.name.clone(), dimension.expression.data_type);
        columns.push(Column { name, data_type, role: Role::Dimension, values, overflowed: None });
    }
    let finished = finish_measures(view, &gathered(view, merged, rows))?;
    for index in &query.measures {
        let (measure, finished) = (&view.measures[*index], &finished[*index]);
        columns.push(Column {
            name: measure.name.clone(),
            data_type: measure.expression.data_type,
            role: Role::Measure,
            values: Arc::clone(&finished.column),
            overflowed: finished.overflowed.clone(),
        });
    }
    Ok(columns)
}

fn window_start(window: Window, query: &Query, start: i64) -> Option<i64> {
    if query.grain == Grain::All { query.span(window).0 } else { Some(start) }
}

fn window_column(name: &str, values: impl Iterator<Item = Option<i64>>) -> Column {
    let values: TimestampMicrosecondArray = values.collect();
    let values: ArrayRef = Arc::new(values.with_timezone("UTC"));
    Column { name: name.to_owned(), data_type: DataType::Timestamp, role: Role::Window, values, overflowed: None }
}

/// The states of `rows`, in their order: merged into empty ones, which changes nothing.
fn gathered(view: &View, merged: &Merged, rows: &[u32]) -> Vec<States> {
    let mut targets = vec![NO_GROUP; merged.len()];
    for (target, row) in rows.iter().enumerate() {
        targets[*row as usize] = target as u32;
    }
    let gather = |(aggregate, states): (_, &States)| {
        let mut gathered = States::new(aggregate, Precision::Sketch);
        gathered.grow(rows.len());
        gathered.merge(&targets, states, 0);
        gathered
    };
    view.aggregates.iter().zip(&merged.states).map(gather).collect()
}
