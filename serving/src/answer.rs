//! What does the reader see? Merged, ordered, cut to a page and finished: columns in the order of the answer.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;
use shared::evaluate::EvaluateError;
use shared::partial::codec::{WINDOW_END, WINDOW_START};
use shared::partial::finish::{Bounds, finish_measures};
use shared::partial::merge::{Grain, Layers, MergeError, Merged, Spec, merge_onto};
use shared::partial::states::{NO_GROUP, States};
use shared::types::DataType;
use shared::view::{Precision, View};
use shared::window::Window;

use crate::admission::Making;
use crate::approximate::exact_in;
use crate::figures::{Figures, FiguresError};
use crate::finality::{Finality, Judge};
use crate::live::LiveWindows;
use crate::order::page;
use crate::pin::Pinned;
use crate::query::Query;
use crate::query::as_of::AsOf;
use crate::query::cursor::Cursor;

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
    /// The layer in which an estimated measure is exact; `None`: all values are exact.
    pub exact_in: Option<&'static str>,
    /// The 95 % intervals of estimated values; NULL where a value is exact.
    pub bounds: Option<Bounds>,
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
    Figures(#[from] FiguresError),
    #[error("the measures could not be computed: {0}")]
    Measures(#[from] EvaluateError),
    #[error("the groups could not be decoded: {0}")]
    Keys(#[from] ArrowError),
}

impl Column {
    fn exact(name: String, data_type: DataType, role: Role, values: ArrayRef) -> Column {
        Column { name, data_type, role, values, overflowed: None, exact_in: None, bounds: None }
    }
}

impl Answer {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.layers.len()
    }
}

/// Answers `query` from what was pinned for it. Plain work; it waits only for who adds up the same at the same time.
pub fn answer(query: &Query, pinned: &Pinned, making: &Making) -> Result<Answer, AnswerError> {
    let published = &pinned.published;
    let view = published.view.as_ref();
    let spec = spec(view, query, &query.dimensions);
    let allowance = &making.allowance;
    let merged = match making.shares.of(query, pinned, &spec, allowance)? {
        Some(begun) => {
            let mut rest = pinned.parts(query.layer);
            rest.retain(|(_, layer)| *layer != Layers::BATCH);
            merge_onto(&spec, Some(&begun), &rest, allowance)?
        }
        None => merge_onto(&spec, None, &pinned.parts(query.layer), allowance)?,
    };
    let figures = Figures::new(view, &merged);
    let mut rows = figures.having((0..merged.len() as u32).collect())?;
    if let Some(shown) = &query.shown {
        rows = figures.passing(rows, shown, &query.dimensions)?;
    }
    let total = rows.len();
    let offset = query.cursor.map_or(0, |cursor| cursor.offset);
    let rows = page(view, query, &merged, &figures, rows, offset)?;
    drop(figures);
    let shown = offset.saturating_add(rows.len());
    let version = published.version.as_ref().map(|v| v.version);
    let as_of = query.as_of.and_then(|as_of| if let AsOf::At(time) = as_of { Some(time) } else { None });
    let next = (shown < total).then(|| Cursor { offset: shown, version, as_of }.written(query.fingerprint));

    let bounds = bounds(view, query, &merged, &rows);
    let live = LiveWindows::of(query, pinned)?;
    let judge = Judge {
        watermark: pinned.speed.watermark,
        allowed_lateness: published.stream.allowed_lateness,
        frozen_until: published.version.as_ref().map_or(i64::MIN, |version| version.frozen_until()),
        of_view: query.grain == Grain::Window,
    };
    let layers: Vec<Layers> = rows.iter().map(|row| merged.layers[*row as usize]).collect();
    let finality = rows.iter().zip(&bounds).map(|(row, bounds)| {
        let is_live = merged.layers[*row as usize].0 & Layers::SPEED.0 != 0;
        judge.judge(*bounds, is_live || live.as_ref().is_some_and(|live| live.touch(&merged, *row as usize)))
    });
    let finality = finality.collect();
    Ok(Answer { columns: columns(view, query, &merged, &rows, &bounds)?, layers, finality, next })
}

/// What to merge for `query`, into groups of `dimensions`.
pub fn spec<'a>(view: &'a View, query: &'a Query, dimensions: &'a [usize]) -> Spec<'a> {
    let (from, to, grain, filter) = (query.from, query.to, query.grain, query.filter.as_ref());
    Spec { view, from, to, grain, precision: Precision::Sketch, dimensions, speed_from: query.speed_from, filter }
}

type WindowBounds = (Option<i64>, Option<i64>);

fn bounds(view: &View, query: &Query, merged: &Merged, rows: &[u32]) -> Vec<WindowBounds> {
    let of_rows = |all: &[i64]| match all {
        [] => Vec::new(),
        all => rows.iter().map(|row| all[*row as usize]).collect::<Vec<_>>(),
    };
    query.window_bounds(view, &of_rows(&merged.windows), &of_rows(&merged.lasts))
}

fn columns(
    view: &View,
    query: &Query,
    merged: &Merged,
    rows: &[u32],
    bounds: &[WindowBounds],
) -> Result<Vec<Column>, AnswerError> {
    let mut columns = Vec::with_capacity(2 + query.dimensions.len() + query.measures.len());
    if view.window != Window::All {
        columns.push(window_column(WINDOW_START, bounds.iter().map(|(start, _)| *start)));
        columns.push(window_column(WINDOW_END, bounds.iter().map(|(_, end)| *end)));
    }
    let keys = rows.iter().map(|row| merged.keys.get(merged.groups[*row as usize]));
    let decoded = if query.dimensions.is_empty() { Vec::new() } else { merged.layout.decode(keys)? };
    for (dimension, values) in query.dimensions.iter().zip(decoded) {
        let dimension = &view.dimensions[*dimension];
        let (name, data_type) = (dimension.name.clone(), dimension.expression.data_type);
        columns.push(Column::exact(name, data_type, Role::Dimension, values));
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
            exact_in: exact_in(view, *index),
            bounds: finished.bounds.clone(),
        });
    }
    Ok(columns)
}

fn window_column(name: &str, values: impl Iterator<Item = Option<i64>>) -> Column {
    let values: TimestampMicrosecondArray = values.collect();
    let values: ArrayRef = Arc::new(values.with_timezone("UTC"));
    Column::exact(name.to_owned(), DataType::Timestamp, Role::Window, values)
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
