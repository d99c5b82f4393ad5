//! Compares what was served with the exact values that replace it, value by value, and names the cause of every difference.
//!
//! 1. [`served_rows`] collects what was served; [`pairing`] finds the dimensions and measures that the served and the exact
//!    definition have in common.
//! 2. [`mod@spans`] divides the windows into spans that fit in memory; [`mod@align`] puts the rows of a span side by side.
//! 3. [`difference`] compares two columns; [`causes`] and [`excluded_events`] explain what differs.
//! 4. [`history`] keeps the comparisons of all versions.

pub mod align;
pub mod causes;
pub mod difference;
pub mod excluded_events;
pub mod history;
pub mod pairing;
pub mod served_rows;
pub mod spans;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use lake::DataFile;
use shared::compare::{Cause, Causes, Comparison, DefinitionChange, Difference, MeasureDrift};
use shared::horizon::Horizon;
use shared::ids::{Offset, Partition, ViewName};
use shared::json_cell::json_cell;
use shared::limits::COMPARE_ROWS_MAX;
use shared::partial::block::Part;
use shared::partial::bucket::Bucket;
use shared::partial::finish::finish_measures;
use shared::partial::merge::{Grain, Layers, MergeSpec, Merged, merge_within};
use shared::time::Micros;
use shared::view::{Precision, View};
use shared::window::Window;

use crate::blocking::blocking;
use crate::failure::RunFailure;
use crate::recompute::budget::Budget;
use crate::reconcile::align::{AlignedRow, RowAlignment};
use crate::reconcile::causes::{CauseLookup, ServedKind};
use crate::reconcile::difference::{DriftSum, Intervals, ValueDifference, compare};
use crate::reconcile::excluded_events::RowId;
use crate::reconcile::pairing::Pairing;
use crate::reconcile::served_rows::ServedRows;
use crate::reconcile::spans::{BucketFile, spans};
use crate::versions::reader::VersionReader;

/// Number of differing values of one span above which all but the worst are dropped.
const CANDIDATES_MAX: usize = 64 * COMPARE_ROWS_MAX;

/// Limits of a reconciliation.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows held in memory at once.
    pub rows: u64,
    pub budget: Budget,
}

/// How far what was served was from the exact values.
#[derive(Debug)]
pub struct Reconciliation {
    pub rows_compared: u64,
    pub rows_equal: u64,
    pub measures: BTreeMap<String, MeasureDrift>,
    pub causes: Causes,
    /// What the new definition changed.
    pub definition: Option<DefinitionChange>,
    /// The worst differing values.
    pub rows: Vec<Difference>,
    /// Differing values that are not in `rows`.
    pub rows_omitted: u64,
}

impl Reconciliation {
    /// Returns the comparison of the version that publishes the exact values.
    pub fn into_comparison(
        self,
        view: ViewName,
        version: i64,
        compared_at: Micros,
        cut: BTreeMap<Partition, Offset>,
    ) -> Comparison {
        Comparison {
            view,
            version,
            compared_at,
            cut,
            rows_compared: self.rows_compared,
            rows_equal: self.rows_equal,
            measures: self.measures,
            causes: self.causes,
            definition: self.definition,
            rows: self.rows,
            rows_omitted: self.rows_omitted,
        }
    }
}

/// Compares the served rows with the `exact` files, which are of the view of `causes`.
pub async fn reconcile(
    reader: &VersionReader,
    served: &ServedRows,
    exact: &[DataFile],
    causes: CauseLookup,
    limits: Limits,
) -> Result<Reconciliation, RunFailure> {
    let stream = Arc::clone(&causes.query.source.stream);
    let pairing = Arc::new(Pairing::new(&served.view, &causes.query.view, &stream));
    let rows_at_once = limits.rows.min(limits.budget.compared_rows()).max(1);
    // The hashes of groups of different dimensions differ: then a date is compared at once.
    let by_bucket = pairing.same_keys();
    let parts = |rows: u64, at_once: u64| if by_bucket { rows.div_ceil(at_once).max(1) } else { 1 };
    let explained = parts(causes.rows(), limits.budget.explained_rows()).next_power_of_two();
    let rows_of_all = rows_at_once.saturating_mul(explained);
    // Sessions may be stitched from rows of any dates.
    let rows_of_span = if pairing.exact.window.gap().is_some() { u64::MAX } else { rows_of_all };
    let spans = spans(&served.files, exact, served.shown_from, rows_of_span);
    let is_too_large = !by_bucket && spans.iter().any(|span| span.rows > limits.budget.compared_rows());
    let too_large = "a date has more rows than batch.memory_limit allows to compare while they are grouped differently";
    let not_comparable = pairing.not_comparable().or(is_too_large.then_some(too_large));
    let mut tally = Tally::new(&pairing);
    if not_comparable.is_none() {
        let generations: Arc<[Part]> = served.generations.clone().into();
        let mut causes = causes;
        for outer in Bucket::each_of(explained) {
            causes = causes.within(outer);
            for span in &spans {
                for bucket in outer.split(parts(span.rows, rows_of_all)) {
                    let rows = SpanRows {
                        old: loaded(reader, &pairing.served, &span.served, bucket).await?,
                        generations: Arc::clone(&generations),
                        new: loaded(reader, &pairing.exact, &span.exact, bucket).await?,
                        horizon: served.horizon,
                        from: span.from,
                        to: span.to,
                        bucket,
                    };
                    let pairing = Arc::clone(&pairing);
                    (tally, causes) = blocking(move || {
                        let tally = tally.with(&pairing, &causes, &rows)?;
                        Ok((tally, causes))
                    })
                    .await?;
                }
            }
        }
    }
    let definition = pairing.change(&stream, not_comparable);
    Ok(tally.finish(&pairing, definition))
}

/// Reads those of `files` that may hold groups in `bucket`.
async fn loaded(
    reader: &VersionReader,
    view: &Arc<View>,
    files: &[BucketFile],
    bucket: Bucket,
) -> Result<Vec<Arc<Part>>, RunFailure> {
    let mut parts = Vec::new();
    for (path, _) in files.iter().filter(|(_, of)| of.meets(bucket)) {
        parts.push(reader.file(view, path).await.map_err(RunFailure::Served)?);
    }
    Ok(parts)
}

/// The rows of one span and bucket.
struct SpanRows {
    /// Rows of the version that was active.
    old: Vec<Arc<Part>>,
    /// What speed made of the events since its seam.
    generations: Arc<[Part]>,
    /// The exact rows.
    new: Vec<Arc<Part>>,
    /// What retention had taken away from what was served.
    horizon: Horizon,
    /// Windows that start earlier are not compared; `None`: no bound.
    from: Option<Micros>,
    /// Windows that start here or later are not compared; `None`: no bound.
    to: Option<Micros>,
    bucket: Bucket,
}

impl SpanRows {
    /// Merges what was served: the old version, and speed where it was shown.
    fn served(&self, pairing: &Pairing) -> Result<Merged, RunFailure> {
        let old = self.old.iter().map(|part| (part.as_ref(), Layers::BATCH));
        let speed = self.generations.iter().map(|part| (part, Layers::SPEED));
        let parts: Vec<_> = old.chain(speed).collect();
        self.merged(&pairing.served, &pairing.served_dimensions, self.horizon, &parts)
    }

    /// Merges the exact rows.
    fn exact(&self, pairing: &Pairing) -> Result<Merged, RunFailure> {
        let parts: Vec<_> = self.new.iter().map(|part| (part.as_ref(), Layers::BATCH)).collect();
        self.merged(&pairing.exact, &pairing.exact_dimensions, Horizon::NONE, &parts)
    }

    fn merged(
        &self,
        view: &View,
        dimensions: &[usize],
        horizon: Horizon,
        parts: &[(&Part, Layers)],
    ) -> Result<Merged, RunFailure> {
        let (from, to) = (self.from.unwrap_or(Micros::MIN), self.to.unwrap_or(Micros(i64::MAX)));
        let windows = view.window.ids_starting_in(from, to);
        let of_table = matches!(view.window, Window::TableSession { .. });
        let (grain, precision) = (if of_table { Grain::Sessions } else { Grain::Window }, Precision::Sketch);
        let spec = MergeSpec { view, windows, grain, precision, dimensions, horizon, permitted: None, filter: None };
        Ok(merge_within(&spec, parts, self.bucket)?)
    }
}

/// The two sides of a span, aligned.
struct AlignedSpan<'a> {
    served: &'a Merged,
    exact: &'a Merged,
    rows: RowAlignment,
}

impl AlignedSpan<'_> {
    /// Returns a table that has the aligned row, and the row's number there.
    fn find(&self, row: usize) -> (&Merged, usize) {
        match self.rows.find(row) {
            AlignedRow::Served(row) => (self.served, row),
            AlignedRow::Exact(row) => (self.exact, row),
        }
    }
}

/// A differing value, and the columns it is in.
struct Candidate {
    /// Index into the measures of the pairing.
    measure: usize,
    difference: ValueDifference,
}

/// Counts over all spans so far.
#[derive(Debug)]
struct Tally {
    /// One per measure of the pairing.
    drifts: Vec<DriftSum>,
    causes: Causes,
    rows_compared: u64,
    rows_equal: u64,
    differing: u64,
    worst: Vec<(f64, Difference)>,
}

impl Tally {
    fn new(pairing: &Pairing) -> Tally {
        Tally {
            drifts: vec![DriftSum::default(); pairing.measures.len()],
            causes: Causes::default(),
            rows_compared: 0,
            rows_equal: 0,
            differing: 0,
            worst: Vec::new(),
        }
    }

    /// Returns the counts with those of one more span. Blocking.
    fn with(mut self, pairing: &Pairing, lookup: &CauseLookup, span: &SpanRows) -> Result<Tally, RunFailure> {
        let (served, exact) = (span.served(pairing)?, span.exact(pairing)?);
        let aligned = AlignedSpan { served: &served, exact: &exact, rows: RowAlignment::new(&served, &exact) };
        let served_columns = finish_measures(&pairing.served, &served.states)?;
        let exact_columns = finish_measures(&pairing.exact, &exact.states)?;
        let mut equal: BooleanArray =
            (0..aligned.rows.row_count()).map(|row| Some(aligned.rows.in_both(row))).collect();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut columns: Vec<(ArrayRef, ArrayRef)> = Vec::new();
        for (number, measure) in pairing.measures.iter().enumerate() {
            let left = aligned.rows.served(&served_columns[measure.served].column)?;
            let right = aligned.rows.exact(&exact_columns[measure.exact].column)?;
            let intervals = match &served_columns[measure.served].bounds {
                Some(bounds) => {
                    Some(Intervals { low: aligned.rows.served(&bounds.low)?, high: aligned.rows.served(&bounds.high)? })
                }
                None => None,
            };
            let estimated = match &exact_columns[measure.exact].bounds {
                Some(bounds) => Some(aligned.rows.exact(&bounds.low)?),
                None => None,
            };
            let cause = |row: usize, kind: ServedKind| {
                if !measure.same {
                    return Ok(Cause::Definition);
                }
                // The rows of a replay have estimates too.
                if estimated.as_ref().is_some_and(|low| low.is_valid(row)) {
                    return Ok(Cause::Sketch);
                }
                let (table, row) = aligned.find(row);
                let (window, key) = (table.windows[row], table.keys.get(table.groups[row]));
                lookup.cause(RowId { window, last: table.lasts.get(row).copied(), key }, kind)
            };
            let (causes, differing) = (&mut self.causes, &mut self.differing);
            let each = |difference: ValueDifference| {
                causes.count(difference.cause);
                *differing += 1;
                // A row of an erased entity must not live on in a list.
                let is_gone = lookup.has_erased() && aligned.rows.is_served_only(difference.row);
                if is_gone || difference.cause == Cause::Erased {
                    return;
                }
                candidates.push(Candidate { measure: number, difference });
                if candidates.len() >= CANDIDATES_MAX {
                    keep_worst(&mut candidates);
                }
            };
            let same = compare(&left, intervals.as_ref(), &right, &mut self.drifts[number], cause, each)?;
            equal = arrow::compute::and(&equal, &same)?;
            columns.push((left, right));
        }
        self.rows_compared += aligned.rows.row_count() as u64;
        self.rows_equal += equal.true_count() as u64;
        keep_worst(&mut candidates);
        for candidate in &candidates {
            let (left, right) = &columns[candidate.measure];
            let described = describe(pairing, candidate, &aligned, left, right)?;
            self.worst.push((candidate.difference.error, described));
        }
        // Stable: of equally bad values the first stay first.
        self.worst.sort_by(|a, b| worse_first((a.1.cause, a.0), (b.1.cause, b.0)));
        self.worst.truncate(COMPARE_ROWS_MAX);
        Ok(self)
    }

    fn finish(self, pairing: &Pairing, definition: Option<DefinitionChange>) -> Reconciliation {
        let names = pairing.measures.iter().map(|measure| pairing.exact.measures[measure.exact].name.clone());
        let measures = names.zip(self.drifts.into_iter().map(DriftSum::drift)).collect();
        let rows: Vec<Difference> = self.worst.into_iter().map(|(_, difference)| difference).collect();
        Reconciliation {
            rows_compared: self.rows_compared,
            rows_equal: self.rows_equal,
            measures,
            causes: self.causes,
            definition,
            rows_omitted: self.differing - rows.len() as u64,
            rows,
        }
    }
}

/// Describes a differing value for readers.
fn describe(
    pairing: &Pairing,
    candidate: &Candidate,
    aligned: &AlignedSpan<'_>,
    left: &ArrayRef,
    right: &ArrayRef,
) -> Result<Difference, RunFailure> {
    let Candidate { measure, difference } = candidate;
    let (table, row) = aligned.find(difference.row);
    let window = table.windows[row];
    let mut dimensions = BTreeMap::new();
    if !pairing.exact_dimensions.is_empty() {
        let values = table.layout.decode(std::iter::once(table.keys.get(table.groups[row])))?;
        for (dimension, value) in pairing.exact_dimensions.iter().zip(&values) {
            dimensions.insert(pairing.exact.dimensions[*dimension].name.clone(), json_cell(value, 0));
        }
    }
    let view = &pairing.exact;
    Ok(Difference {
        window_start: (view.window != Window::All).then_some(view.window.bounds(window).0),
        dimensions,
        measure: view.measures[pairing.measures[*measure].exact].name.clone(),
        served: json_cell(left, difference.row),
        exact: json_cell(right, difference.row),
        cause: difference.cause,
    })
}

fn keep_worst(candidates: &mut Vec<Candidate>) {
    let rank = |candidate: &Candidate| (candidate.difference.cause, candidate.difference.error);
    candidates.sort_by(|a, b| worse_first(rank(a), rank(b)));
    candidates.truncate(COMPARE_ROWS_MAX);
}

/// Orders unexplained values first, then those with the largest error.
fn worse_first(a: (Cause, f64), b: (Cause, f64)) -> Ordering {
    let unexplained = |cause: Cause| cause == Cause::Unexplained;
    unexplained(b.0).cmp(&unexplained(a.0)).then(b.1.total_cmp(&a.1))
}
