//! Orders the rows of a merged table and cuts them to a page of row numbers. Only rows up to the end of the page are sorted.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, DynComparator, Float64Array, make_comparator};
use arrow::compute::SortOptions;
use arrow::datatypes::Float64Type;
use arrow::error::ArrowError;
use shared::partial::merge::Merged;
use shared::view::View;
use shared::window::Window;

use crate::lazy_measures::{LazyMeasures, MeasuresError};
use crate::query::{OrderBy, OrderKey, Query};

/// Returns those of `rows` from `offset` on, at most `query.limit`, in the query's order. Window and then dimensions break
/// ties, so the order is always total.
pub fn page(
    view: &View,
    query: &Query,
    merged: &Merged,
    measures: &LazyMeasures<'_>,
    mut rows: Vec<u32>,
    offset: usize,
) -> Result<Vec<u32>, MeasuresError> {
    let end = offset.saturating_add(query.limit);
    let ranks = ranks(merged);
    let natural = |row: u32| (merged.windows[row as usize], ranks[merged.groups[row as usize] as usize]);
    if query.order.is_empty() {
        keep_first(&mut rows, end, |a, b| natural(*a).cmp(&natural(*b)));
    } else {
        let keys = comparators(view, query, merged, measures)?;
        keep_first(&mut rows, end, |a, b| {
            let decided = keys.iter().map(|key| key.compare(merged, *a, *b)).find(|order| order.is_ne());
            decided.unwrap_or_else(|| natural(*a).cmp(&natural(*b)))
        });
    }
    rows.drain(..offset.min(rows.len()));
    Ok(rows)
}

/// Sorts the first `end` rows to the front and drops the others.
fn keep_first(rows: &mut Vec<u32>, end: usize, compare: impl Fn(&u32, &u32) -> Ordering) {
    if end < rows.len() {
        rows.select_nth_unstable_by(end, &compare);
        rows.truncate(end);
    }
    rows.sort_unstable_by(compare);
}

/// Returns the rank of each key among all keys, by the values of their dimensions (NULL first).
fn ranks(merged: &Merged) -> Vec<u32> {
    let keys: Vec<&[u8]> = merged.keys.iter().collect();
    let mut sorted: Vec<u32> = (0..keys.len() as u32).collect();
    sorted.sort_unstable_by_key(|key| keys[*key as usize]);
    let mut ranks = vec![0; keys.len()];
    for (rank, key) in sorted.iter().enumerate() {
        ranks[*key as usize] = rank as u32;
    }
    ranks
}

/// Compares two rows by one column.
enum KeyComparator {
    /// Start or end of the window of each row.
    Window { bounds: Vec<i64>, descending: bool },
    /// Indexed by key.
    Group(DynComparator),
    /// Indexed by row.
    Row(DynComparator),
}

impl KeyComparator {
    #[inline]
    fn compare(&self, merged: &Merged, a: u32, b: u32) -> Ordering {
        let (a, b) = (a as usize, b as usize);
        match self {
            KeyComparator::Window { bounds, descending: false } => bounds[a].cmp(&bounds[b]),
            KeyComparator::Window { bounds, descending: true } => bounds[b].cmp(&bounds[a]),
            KeyComparator::Group(compare) => compare(merged.groups[a] as usize, merged.groups[b] as usize),
            KeyComparator::Row(compare) => compare(a, b),
        }
    }
}

fn comparators(
    view: &View,
    query: &Query,
    merged: &Merged,
    measures: &LazyMeasures<'_>,
) -> Result<Vec<KeyComparator>, MeasuresError> {
    let by_dimension = query.order.iter().any(|key| matches!(key.by, OrderBy::Dimension(_)));
    let dimensions = if by_dimension { merged.layout.decode(merged.keys.iter())? } else { Vec::new() };
    let comparator = |key: &OrderKey| {
        Ok(match key.by {
            OrderBy::WindowStart => KeyComparator::Window { bounds: starts(view, merged), descending: key.descending },
            OrderBy::WindowEnd => KeyComparator::Window { bounds: ends(merged), descending: key.descending },
            OrderBy::Dimension(dimension) => {
                let at = query.dimensions.iter().position(|d| *d == dimension);
                let at = at.expect("a query orders only by dimensions it groups by");
                KeyComparator::Group(compare_values(&dimensions[at], key.descending)?)
            }
            OrderBy::Measure(measure) => {
                KeyComparator::Row(compare_values(&measures.measure(measure)?, key.descending)?)
            }
        })
    };
    query.order.iter().map(comparator).collect()
}

/// Returns values that sort like the starts of the windows.
fn starts(view: &View, merged: &Merged) -> Vec<i64> {
    match view.window {
        // Windows share their start, and ids are those of their last panes.
        Window::Cumulate { .. } => merged.windows.iter().map(|id| view.window.bounds(*id).0.0).collect(),
        _ => ids(merged),
    }
}

/// Returns values that sort like the ends of the windows: the last events of sessions, otherwise the ids themselves.
fn ends(merged: &Merged) -> Vec<i64> {
    if merged.lasts.is_empty() { ids(merged) } else { merged.lasts.clone() }
}

fn ids(merged: &Merged) -> Vec<i64> {
    merged.windows.iter().map(|id| id.0).collect()
}

/// Compares values; NULL is the smallest and NaN the largest.
fn compare_values(column: &ArrayRef, descending: bool) -> Result<DynComparator, ArrowError> {
    let column: ArrayRef = match column.as_primitive_opt::<Float64Type>() {
        Some(floats) => {
            let canonical: Float64Array = floats.unary(|x| if x.is_nan() { f64::NAN.abs() } else { x + 0.0 });
            Arc::new(canonical)
        }
        None => Arc::clone(column),
    };
    let options = SortOptions { descending, nulls_first: !descending };
    make_comparator(column.as_ref(), column.as_ref(), options)
}
