//! How far was what we served from what is true? The served windows (old version and the generations up to the cut)
//! against the new exact ones, value by value, with the cause of every difference.

pub mod align;
pub mod causes;
pub mod difference;
pub mod excluded_events;
pub mod history;
pub mod json_cell;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use lake::DataFile;
use shared::changes::view::{same_measure, view_changes};
use shared::compare::{Cause, Causes, Comparison, DefinitionChange, Difference};
use shared::limits::COMPARE_ROWS_MAX;
use shared::partial::block::Part;
use shared::partial::bucket::{BUCKET_TAG, Bucket};
use shared::partial::finish::finish_measures;
use shared::partial::merge::{Grain, Layers, Merged, Spec, merge_within};
use shared::time::{Day, Micros};
use shared::view::{Dimension, Precision, View};
use shared::window::Window;

use crate::failure::RunFailure;
use crate::recompute::blocking;
use crate::recompute::budget::Budget;
use crate::reconcile::align::{Aligned, Row};
use crate::reconcile::causes::Explain;
use crate::reconcile::difference::{Differing, DriftSum, Intervals, compare};
use crate::reconcile::excluded_events::RowId;
use crate::reconcile::json_cell::json_cell;
use crate::versions::reader::Reader;

/// Differing values of one portion at which all but the worst are let go.
const CANDIDATES_MAX: usize = 64 * COMPARE_ROWS_MAX;

/// What was being served for the recomputed windows.
#[derive(Debug)]
pub struct Served {
    /// The definition that answered.
    pub view: Arc<View>,
    /// Files of the old version that are being replaced.
    pub files: Vec<DataFile>,
    /// What speed made of the events from the old seam up to the cut.
    pub generations: Vec<Part>,
    /// Windows that start before it are not compared (microseconds).
    pub from: i64,
    /// For windows that start before it, which are frozen, speed's figures were not served (microseconds).
    pub speed_from: i64,
}

/// Compares; `exact` are the new files of the view of `explain`. The comparison has neither version, time nor cut yet.
pub async fn reconcile(
    reader: &Reader,
    served: Served,
    exact: &[DataFile],
    explain: Explain,
    rows_at_once: u64,
    budget: Budget,
) -> Result<Comparison, RunFailure> {
    let view = Arc::clone(&explain.query.view);
    let served_view = Arc::clone(&served.view);
    let mut work = Work::new(Arc::clone(&served_view), Arc::clone(&view), explain);
    work.speed_from = served.speed_from;
    if work.not_comparable().is_none() {
        let generations: Arc<[Part]> = served.generations.into();
        let rows_at_once = rows_at_once.min(budget.compared_rows()).max(1);
        // Groups of different dimensions cannot be told apart by one hash: of those, a date is compared at once.
        let by_bucket = work.same_keys();
        let parts = |rows: u64, at_once: u64| if by_bucket { rows.div_ceil(at_once).max(1) } else { 1 };
        let explained = parts(work.explain.rows(), budget.explained_rows()).next_power_of_two();
        let rows_of_all = rows_at_once.saturating_mul(explained);
        // Sessions may be stitched from rows of any dates.
        let rows_of_portion = if matches!(view.window, Window::Session { .. }) { u64::MAX } else { rows_of_all };
        let portions = portions(&served.files, exact, served.from, rows_of_portion);
        work.is_too_large = !by_bucket && portions.iter().any(|portion| portion.rows > budget.compared_rows());
        let outers = if work.is_too_large { 0 } else { usize::MAX };
        for outer in Bucket::each_of(explained).take(outers) {
            work.explain = work.explain.within(outer);
            for portion in &portions {
                for bucket in outer.split(parts(portion.rows, rows_of_all)) {
                    let old = loaded(reader, &served_view, &portion.served, bucket).await?;
                    let new = loaded(reader, &view, &portion.exact, bucket).await?;
                    let generations = Arc::clone(&generations);
                    let (from, to) = (portion.from, portion.to);
                    work = blocking(move || {
                        work.compare((&old, &generations, &new), from, to, bucket)?;
                        Ok(work)
                    })
                    .await?;
                }
            }
        }
    }
    Ok(work.finish())
}

/// The rows of those of `files` that may hold groups in `bucket`.
async fn loaded(
    reader: &Reader,
    view: &Arc<View>,
    files: &[(String, Bucket)],
    bucket: Bucket,
) -> Result<Vec<Arc<Part>>, RunFailure> {
    let mut parts = Vec::new();
    for (path, _) in files.iter().filter(|(_, of)| of.meets(bucket)) {
        parts.push(reader.file(view, path).await.map_err(RunFailure::Served)?);
    }
    Ok(parts)
}

/// A measure that both definitions have.
#[derive(Debug, Clone, Copy)]
struct Shared {
    /// Its places.
    served: usize,
    exact: usize,
    /// Does it mean the same, so that a difference has another cause than the definition?
    same: bool,
}

/// Consecutive window dates that are compared together.
#[derive(Debug, Default)]
struct Portion {
    from: i64,
    to: i64,
    served: Vec<(String, Bucket)>,
    exact: Vec<(String, Bucket)>,
    rows: u64,
}

/// A file's path, and the keys it has rows of.
type BucketFile = (String, Bucket);

/// Cuts time up so that no portion has many more than `rows_at_once` rows. Together they cover all from `from` on, so that
/// windows that only speed has are compared as well.
fn portions(served: &[DataFile], exact: &[DataFile], from: i64, rows_at_once: u64) -> Vec<Portion> {
    let dates: BTreeSet<Option<Day>> = served.iter().chain(exact).map(|f| f.partition).collect();
    // Windows of dates that files cannot be kept apart by lie anywhere.
    let split = !dates.contains(&None);
    let mut portions = Vec::new();
    let mut open = Portion { from, ..Portion::default() };
    let by_date = |files: &[DataFile]| {
        let mut dates: BTreeMap<Option<Day>, (Vec<BucketFile>, u64)> = BTreeMap::new();
        for file in files {
            let (files, rows) = dates.entry(file.partition).or_default();
            files.push((file.path.clone(), Bucket::of_tag(file.tags.get(BUCKET_TAG))));
            *rows += u64::try_from(file.rows).unwrap_or(0);
        }
        dates
    };
    let (mut served, mut exact) = (by_date(served), by_date(exact));
    for date in dates {
        let (old, old_rows) = served.remove(&date).unwrap_or_default();
        let (new, new_rows) = exact.remove(&date).unwrap_or_default();
        let more = old_rows + new_rows;
        if let Some(day) = date.filter(|_| split && open.rows > 0 && open.rows + more > rows_at_once) {
            open.to = day.start().0;
            let next = Portion { from: open.to, ..Portion::default() };
            portions.push(std::mem::replace(&mut open, next));
        }
        open.rows += more;
        open.served.extend(old);
        open.exact.extend(new);
    }
    open.to = i64::MAX;
    portions.push(open);
    portions
}

/// A comparison under way.
#[derive(Debug)]
struct Work {
    served_view: Arc<View>,
    exact_view: Arc<View>,
    /// The dimensions that both group by, as indices into those of the served and of the exact view.
    dimensions: (Vec<usize>, Vec<usize>),
    measures: Vec<Shared>,
    explain: Explain,
    /// As [`Served`] has it.
    speed_from: i64,
    /// Does a date have more rows than memory allows to compare at once, though they cannot be compared in parts?
    is_too_large: bool,
    drifts: Vec<DriftSum>,
    causes: Causes,
    rows_compared: u64,
    rows_equal: u64,
    differing: u64,
    worst: Vec<(f64, Difference)>,
}

impl Work {
    fn new(served_view: Arc<View>, exact_view: Arc<View>, explain: Explain) -> Work {
        let dimension = |(exact, dimension): (usize, &Dimension)| {
            let served = served_view.dimensions.iter().position(|served| served == dimension)?;
            Some((served, exact))
        };
        let dimensions: (Vec<usize>, Vec<usize>) =
            exact_view.dimensions.iter().enumerate().filter_map(dimension).unzip();
        let same_groups = [&served_view, &exact_view].iter().all(|view| view.dimensions.len() == dimensions.0.len());
        let stream = &explain.query.source.stream;
        let pair = |(exact, measure): (usize, &shared::view::Measure)| {
            let served = served_view.measure(&measure.name)?;
            let same_type = served_view.measures[served].expression.data_type == measure.expression.data_type;
            let same = same_groups && same_measure(&served_view, served, &exact_view, exact, stream);
            same_type.then_some(Shared { served, exact, same })
        };
        let measures: Vec<Shared> = exact_view.measures.iter().enumerate().filter_map(pair).collect();
        let drifts = vec![DriftSum::default(); measures.len()];
        Work {
            served_view,
            exact_view,
            dimensions,
            measures,
            explain,
            speed_from: i64::MIN,
            is_too_large: false,
            drifts,
            causes: Causes::default(),
            rows_compared: 0,
            rows_equal: 0,
            differing: 0,
            worst: Vec::new(),
        }
    }

    /// Why rows of the two definitions cannot be told to be the same.
    fn not_comparable(&self) -> Option<&'static str> {
        if self.served_view.window != self.exact_view.window {
            return Some("their windows are not the same");
        }
        if self.is_too_large {
            return Some(
                "a date has more rows than batch.memory_limit lets compare while they are grouped differently",
            );
        }
        self.measures.is_empty().then_some("they have no measure of the same name and type")
    }

    /// Are groups of both views the same bytes?
    fn same_keys(&self) -> bool {
        let all = |view: &View, kept: &[usize]| kept.iter().copied().eq(0..view.dimensions.len());
        all(&self.served_view, &self.dimensions.0) && all(&self.exact_view, &self.dimensions.1)
    }

    /// Compares the windows `from..to` of the groups in `bucket`.
    fn compare(
        &mut self,
        (old, speed, new): (&[Arc<Part>], &[Part], &[Arc<Part>]),
        from: i64,
        to: i64,
        bucket: Bucket,
    ) -> Result<(), RunFailure> {
        let old = old.iter().map(|part| (part.as_ref(), Layers::BATCH));
        let speed = speed.iter().map(|part| (part, Layers::SPEED));
        let served: Vec<_> = old.chain(speed).collect();
        let bounds = (from, to, self.speed_from);
        let served = merged(&self.served_view, &self.dimensions.0, bounds, &served, bucket)?;
        let new: Vec<_> = new.iter().map(|part| (part.as_ref(), Layers::BATCH)).collect();
        let exact = merged(&self.exact_view, &self.dimensions.1, (from, to, i64::MIN), &new, bucket)?;
        let aligned = Aligned::new(&served, &exact);
        let served_columns = finish_measures(&self.served_view, &served.states)?;
        let exact_columns = finish_measures(&self.exact_view, &exact.states)?;
        let mut equal: BooleanArray = (0..aligned.len()).map(|row| Some(aligned.in_both(row))).collect();
        let mut candidates: Vec<(usize, Differing)> = Vec::new();
        let mut columns: Vec<(ArrayRef, ArrayRef)> = Vec::new();
        for (number, measure) in self.measures.iter().enumerate() {
            let left = aligned.served(&served_columns[measure.served].column)?;
            let right = aligned.exact(&exact_columns[measure.exact].column)?;
            let explain = &self.explain;
            let intervals = match &served_columns[measure.served].bounds {
                Some(bounds) => {
                    Some(Intervals { low: aligned.served(&bounds.low)?, high: aligned.served(&bounds.high)? })
                }
                None => None,
            };
            let cause = |row: usize, stands: causes::Served| {
                if !measure.same {
                    return Ok(Cause::Definition);
                }
                let (table, row) = match aligned.find(row) {
                    Row::Served(row) => (&served, row),
                    Row::Exact(row) => (&exact, row),
                };
                let (window, key) = (table.windows[row], table.keys.get(table.groups[row]));
                explain.cause(RowId { window, last: table.lasts.get(row).copied(), key }, stands)
            };
            let (causes, differing) = (&mut self.causes, &mut self.differing);
            let each = |found: Differing| {
                causes.count(found.cause);
                *differing += 1;
                candidates.push((number, found));
                if candidates.len() >= CANDIDATES_MAX {
                    keep_worst(&mut candidates);
                }
            };
            let same = compare(&left, intervals.as_ref(), &right, &mut self.drifts[number], cause, each)?;
            equal = arrow::compute::and(&equal, &same)?;
            columns.push((left, right));
        }
        self.rows_compared += aligned.len() as u64;
        self.rows_equal += equal.true_count() as u64;
        keep_worst(&mut candidates);
        self.describe(&candidates, &columns, &aligned, &served, &exact)
    }

    /// Puts the differing values of a portion into words and keeps the worst of all so far.
    fn describe(
        &mut self,
        candidates: &[(usize, Differing)],
        columns: &[(ArrayRef, ArrayRef)],
        aligned: &Aligned,
        served: &Merged,
        exact: &Merged,
    ) -> Result<(), RunFailure> {
        for (number, found) in candidates {
            let (table, row) = match aligned.find(found.row) {
                Row::Served(row) => (served, row),
                Row::Exact(row) => (exact, row),
            };
            let window = table.windows[row];
            let mut dimensions = BTreeMap::new();
            if !self.dimensions.1.is_empty() {
                let values = table.layout.decode(std::iter::once(table.keys.get(table.groups[row])))?;
                for (dimension, value) in self.dimensions.1.iter().zip(&values) {
                    dimensions.insert(self.exact_view.dimensions[*dimension].name.clone(), json_cell(value, 0));
                }
            }
            let (left, right) = &columns[*number];
            let difference = Difference {
                window_start: (self.exact_view.window != Window::All)
                    .then_some(Micros(self.exact_view.window.bounds(window).0)),
                dimensions,
                measure: self.exact_view.measures[self.measures[*number].exact].name.clone(),
                served: json_cell(left, found.row),
                exact: json_cell(right, found.row),
                cause: found.cause,
            };
            self.worst.push((found.error, difference));
        }
        // Stable: of equally bad ones the first stay first.
        self.worst.sort_by(|a, b| worse_first((a.1.cause, a.0), (b.1.cause, b.0)));
        self.worst.truncate(COMPARE_ROWS_MAX);
        Ok(())
    }

    fn definition(&self) -> Option<DefinitionChange> {
        let (before, after) = (&self.served_view, &self.exact_view);
        if before.definition_hash() == after.definition_hash() {
            return None;
        }
        let name = |index: &usize| after.dimensions[*index].name.clone();
        Some(DefinitionChange {
            before: before.sql.clone(),
            after: after.sql.clone(),
            changes: view_changes(before, after, &self.explain.query.source.stream),
            compared_by: self.dimensions.1.iter().map(name).collect(),
            not_comparable: self.not_comparable().map(str::to_owned),
        })
    }

    fn finish(self) -> Comparison {
        let definition = self.definition();
        let name = |measure: &Shared| self.exact_view.measures[measure.exact].name.clone();
        let measures = self.measures.iter().map(name).zip(self.drifts.into_iter().map(DriftSum::drift)).collect();
        let rows: Vec<Difference> = self.worst.into_iter().map(|(_, difference)| difference).collect();
        Comparison {
            view: self.exact_view.name.clone(),
            version: 0,
            compared_at: Micros(0),
            cut: BTreeMap::new(),
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

fn merged(
    view: &View,
    dimensions: &[usize],
    (from, to, speed_from): (i64, i64, i64),
    parts: &[(&Part, Layers)],
    bucket: Bucket,
) -> Result<Merged, RunFailure> {
    let (speed_from, _) = view.window.ids_starting_in(speed_from, i64::MAX);
    let (from, to) = view.window.ids_starting_in(from, to);
    let (grain, precision) = (Grain::Window, Precision::Sketch);
    let spec = Spec { view, from, to, grain, precision, dimensions, speed_from, filter: None };
    Ok(merge_within(&spec, parts, bucket)?)
}

fn keep_worst(candidates: &mut Vec<(usize, Differing)>) {
    candidates.sort_by(|(_, a), (_, b)| worse_first((a.cause, a.error), (b.cause, b.error)));
    candidates.truncate(COMPARE_ROWS_MAX);
}

/// Unexplained ones come first, then those with the largest error.
fn worse_first(a: (Cause, f64), b: (Cause, f64)) -> Ordering {
    let unexplained = |cause: Cause| cause == Cause::Unexplained;
    unexplained(b.0).cmp(&unexplained(a.0)).then(b.1.total_cmp(&a.1))
}
