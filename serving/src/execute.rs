//! Executes queries: merges the pinned parts, filters, orders, cuts to a page and finishes measures.
//!
//! Only rows on the page are finished in full; [`crate::lazy_measures`] computes what filters and orders read of the others.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;
use shared::evaluate::EvaluateError;
use shared::horizon::Horizon;
use shared::partial::codec::{WINDOW_END, WINDOW_START};
use shared::partial::finish::{Bounds, finish_measures_within};
use shared::partial::merge::{Grain, Layers, MergeError, Merged, merge_onto};
use shared::partial::query_budget::{Exceeded, QueryBudget};
use shared::partial::states::{NO_GROUP, States};
use shared::types::DataType;
use shared::view::{Precision, View};
use shared::window::{Window, WindowId};

use crate::admission::QueryContext;
use crate::approximate::exact_in;
use crate::finality::{Finality, Judge};
use crate::lazy_measures::{FailedGroups, LazyMeasures, MeasuresError};
use crate::live_windows::LiveWindows;
use crate::order::page;
use crate::pin::ViewPin;
use crate::query::bound::{BoundQuery, WindowBounds};
use crate::query::cursor::Cursor;

/// The role of a column in a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnRole {
    Window,
    Dimension,
    Measure,
}

/// A column of a result.
#[derive(Debug)]
pub struct ResultColumn {
    pub name: String,
    pub data_type: DataType,
    pub role: ColumnRole,
    pub values: ArrayRef,
    /// Rows whose value does not fit its type and is NULL.
    pub overflowed: Option<BooleanBuffer>,
    /// The layer in which an estimated measure is exact; `None` if all values are exact.
    pub exact_in: Option<&'static str>,
    /// The 95 % intervals of estimated values; NULL where a value is exact.
    pub bounds: Option<Bounds>,
}

/// The rows of a result, by column.
#[derive(Debug)]
pub struct QueryResult {
    pub columns: Vec<ResultColumn>,
    pub layers: Vec<Layers>,
    pub finality: Vec<Finality>,
    /// The cursor of the next page, if there is one.
    pub next: Option<String>,
    /// Rows that are excluded, because the HAVING of the view fails for them; `None`: none.
    pub failed_groups: Option<FailedGroups>,
}

/// The reason why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error(transparent)]
    LazyMeasures(#[from] MeasuresError),
    #[error("cannot compute the measures: {0}")]
    Measures(#[from] EvaluateError),
    #[error("cannot decode the groups: {0}")]
    Keys(#[from] ArrowError),
    #[error(transparent)]
    Response(#[from] Exceeded),
}

impl ResultColumn {
    fn exact(name: String, data_type: DataType, role: ColumnRole, values: ArrayRef) -> ResultColumn {
        ResultColumn { name, data_type, role, values, overflowed: None, exact_in: None, bounds: None }
    }
}

impl QueryResult {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.layers.len()
    }

    /// Returns whether the layers of `pinned` account for every event, and no row is excluded because it failed.
    pub fn is_complete(&self, pinned: &ViewPin) -> bool {
        pinned.complete && self.failed_groups.is_none()
    }
}

/// Executes `query` on the state that was pinned for it. Blocks only while another query computes the same batch merge.
pub fn execute(query: &BoundQuery, pinned: &ViewPin, context: &QueryContext) -> Result<QueryResult, ExecuteError> {
    let published = &pinned.published;
    let view = published.view.as_ref();
    let dimensions = &query.request.dimensions;
    let spec = query.merge_spec(view, dimensions);
    let allowance = &context.allowance;
    let merged = match context.merge_cache.of(query, pinned, &spec, allowance)? {
        Some(base) => {
            let mut rest = pinned.parts(query.layer);
            rest.retain(|(_, layer)| !layer.is_of_version());
            merge_onto(&spec, Some(&base), &rest, allowance)?
        }
        None => merge_onto(&spec, None, &pinned.parts(query.layer), allowance)?,
    };
    let measures = LazyMeasures::new(view, &merged, allowance);
    let (mut rows, failed_groups) = measures.having((0..merged.len() as u32).collect())?;
    if let Some(failed) = &failed_groups {
        report_failed(view, failed);
    }
    if let Some(row_filter) = &query.request.row_filter {
        rows = measures.passing(rows, row_filter, dimensions)?;
    }
    let total = rows.len();
    let offset = query.request.cursor.map_or(0, |cursor| cursor.offset);
    let rows = page(view, &query.request, &merged, &measures, rows, offset)?;
    drop(measures);
    let shown = offset.saturating_add(rows.len());
    let version = published.version.as_ref().map(|v| v.version);
    let as_of = query.instant.map(|instant| instant.0);
    let next = (shown < total).then(|| Cursor { offset: shown, version, as_of }.encode(query.request.fingerprint));

    let bounds = bounds(view, query, &merged, &rows);
    let live = LiveWindows::of(query, pinned, allowance)?;
    let judge = Judge {
        watermark: pinned.speed.watermark,
        allowed_lateness: published.stream.allowed_lateness,
        horizon: Horizon::of(published),
        of_view: matches!(query.request.grain, Grain::Window | Grain::Sessions),
        failed: pinned.failed_events(query.layer),
    };
    let layers: Vec<Layers> = rows.iter().map(|row| merged.layers[*row as usize]).collect();
    let finality = rows.iter().zip(&bounds).map(|(row, bounds)| {
        // Of a checkpoint too: late events are missing, and nothing adds them.
        let is_live = !merged.layers[*row as usize].is_exact();
        judge.judge(*bounds, is_live || live.as_ref().is_some_and(|live| live.touch(&merged, *row as usize)))
    });
    let finality = finality.collect();
    let columns = columns((view, query), &merged, (&rows, &bounds), allowance)?;
    Ok(QueryResult { columns, layers, finality, next, failed_groups })
}

fn report_failed(view: &View, failed: &FailedGroups) {
    let (view, FailedGroups { count, reason }) = (&view.name, failed);
    metrics::counter!("trueup_failed_rows_total", "view" => view.to_string()).increment(*count);
    tracing::debug!(%view, rows = count, reason, "rows excluded from a result: the HAVING of the view failed");
}

fn bounds(view: &View, query: &BoundQuery, merged: &Merged, rows: &[u32]) -> Vec<WindowBounds> {
    let ids: Vec<WindowId> = rows.iter().map(|row| merged.windows[*row as usize]).collect();
    let lasts: Vec<i64> = match merged.lasts.as_slice() {
        [] => Vec::new(),
        all => rows.iter().map(|row| all[*row as usize]).collect(),
    };
    query.window_bounds(view, &ids, &lasts)
}

fn columns(
    (view, query): (&View, &BoundQuery),
    merged: &Merged,
    (rows, bounds): (&[u32], &[WindowBounds]),
    allowance: &QueryBudget,
) -> Result<Vec<ResultColumn>, ExecuteError> {
    let mut columns = Vec::with_capacity(2 + query.request.dimensions.len() + query.request.measures.len());
    if view.window != Window::All {
        columns.push(window_column(WINDOW_START, bounds.iter().map(|(start, _)| *start)));
        columns.push(window_column(WINDOW_END, bounds.iter().map(|(_, end)| *end)));
    }
    let keys = rows.iter().map(|row| merged.keys.get(merged.groups[*row as usize]));
    let decoded = if query.request.dimensions.is_empty() { Vec::new() } else { merged.layout.decode(keys)? };
    for (dimension, values) in query.request.dimensions.iter().zip(decoded) {
        let dimension = &view.dimensions[*dimension];
        let (name, data_type) = (dimension.name.clone(), dimension.expression.data_type);
        columns.push(ResultColumn::exact(name, data_type, ColumnRole::Dimension, values));
    }
    let finished = finish_measures_within(view, &gathered(view, merged, rows), allowance)?;
    for index in &query.request.measures {
        let (measure, finished) = (&view.measures[*index], &finished[*index]);
        columns.push(ResultColumn {
            name: measure.name.clone(),
            data_type: measure.expression.data_type,
            role: ColumnRole::Measure,
            values: Arc::clone(&finished.column),
            overflowed: finished.overflowed.clone(),
            exact_in: exact_in(view, *index),
            bounds: finished.bounds.clone(),
        });
    }
    Ok(columns)
}

fn window_column(name: &str, values: impl Iterator<Item = Option<i64>>) -> ResultColumn {
    let values: TimestampMicrosecondArray = values.collect();
    let values: ArrayRef = Arc::new(values.with_timezone("UTC"));
    ResultColumn::exact(name.to_owned(), DataType::Timestamp, ColumnRole::Window, values)
}

/// Gathers the states of `rows`, in their order, by merging them into empty ones.
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
