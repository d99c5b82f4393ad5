//! Explains why a served value was not the exact one: looks up which rows late events, historical events, duplicates,
//! retention, failed or erased events and changes of joined tables changed. Each lookup reads the archive once, when it is first needed.

use std::cell::OnceCell;

use shared::compare::Cause;
use shared::date_partition::DatePartition;
use shared::failed_events::FailedDifference;
use shared::horizon::Horizon;
use shared::ids::Partition;
use shared::partial::bucket::Bucket;
use shared::time::MICROS_PER_DAY;
use shared::window::Window;

use crate::failure::RunFailure;
use crate::plan::{ArchiveFile, Plan};
use crate::recompute::ExactFiles;
use crate::recompute::fold::passes::Duplicates;
use crate::recompute::reduce::group_by::{ArchiveQuery, RowSelection};
use crate::reconcile::excluded_events::{ExcludedEvents, RowId};
use crate::watch::Watch;

/// The events that could explain the differences of a run.
#[derive(Debug)]
pub struct CauseLookup {
    pub query: ArchiveQuery,
    /// Files with events since the old seam, of dates that the archive still has.
    new_files: Vec<ArchiveFile>,
    /// Files that may have late events of one side alone: those with events since the old seam, unless one side excludes all.
    late_files: Vec<ArchiveFile>,
    /// Files with events since the old seam, of dates that the archive has dropped.
    dropped_date_files: Vec<ArchiveFile>,
    /// Every file that the run read.
    read_files: Vec<ArchiveFile>,
    /// What retention takes away from the new version.
    horizon: Horizon,
    /// Positions of duplicates, with the files they are in.
    duplicates: Duplicates,
    /// The spans of event time on whose dates events have been erased, both ends included.
    erased: Vec<(i64, i64)>,
    /// When events happened that failed in one layer and not in the other.
    failed: FailedDifference,
    /// The spans of event time, half-open, in which events may see other rows of joined tables than when they were folded.
    looked_up: Vec<(i64, i64)>,
    watch: Watch,
    /// The groups that causes are looked up for.
    bucket: Bucket,
    found: Found,
}

/// The rows that each kind of event fell into, once they have been looked up.
#[derive(Debug, Default)]
struct Found {
    late: OnceCell<ExcludedEvents>,
    historical: OnceCell<ExcludedEvents>,
    duplicate: OnceCell<ExcludedEvents>,
    of_dropped_dates: OnceCell<ExcludedEvents>,
    of_frozen_windows: OnceCell<ExcludedEvents>,
    of_dropped_sessions: OnceCell<ExcludedEvents>,
}

/// What a served value that differs from the exact one was said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedKind {
    /// Exact.
    Exact,
    /// An estimate, and the exact value lies within its interval.
    InsideBounds,
    /// An estimate, and the exact value lies outside its interval.
    OutsideBounds,
}

impl CauseLookup {
    /// Returns a lookup for the differences of a run, without having read anything.
    pub fn new(
        query: ArchiveQuery,
        plan: &Plan,
        exact: &ExactFiles,
        failed: FailedDifference,
        watch: Watch,
    ) -> CauseLookup {
        CauseLookup {
            query,
            new_files: plan.new_files.clone(),
            late_files: plan.new_files.clone(),
            dropped_date_files: plan.dropped_date_files.clone(),
            read_files: plan.read.iter().flat_map(|date| date.files.clone()).collect(),
            horizon: plan.horizon,
            duplicates: exact.duplicates.clone(),
            erased: plan.newly_erased.iter().map(|date| span_of(*date)).collect(),
            failed,
            looked_up: Vec::new(),
            watch,
            bucket: Bucket::ALL,
            found: Found::default(),
        }
    }

    /// Returns a lookup for two sides one of which excludes every late event, not only those since the old seam.
    pub fn with_late_events_of_all(self) -> CauseLookup {
        CauseLookup { late_files: self.read_files.clone(), ..self }
    }

    /// Adds the spans of event time in which changes of joined tables may have come after an event.
    pub fn with_lookups(self, looked_up: Vec<(i64, i64)>) -> CauseLookup {
        CauseLookup { looked_up, ..self }
    }

    /// Returns a lookup for the groups in `bucket` alone; drops what was found for others.
    pub fn within(self, bucket: Bucket) -> CauseLookup {
        CauseLookup { bucket, found: Found::default(), ..self }
    }

    /// Returns an upper bound on the events that are held to look up causes.
    pub fn rows(&self) -> u64 {
        let files = match self.query.view.window {
            Window::Session { .. } => &self.read_files,
            _ => &self.late_files,
        };
        files.iter().chain(&self.dropped_date_files).map(|file| file.tags.rows).sum()
    }

    /// Returns why a value of this row differs by more than rounding. Blocking.
    pub fn cause(&self, row: RowId<'_>, served: ServedKind) -> Result<Cause, RunFailure> {
        if served == ServedKind::InsideBounds {
            return Ok(Cause::Sketch);
        }
        if self.has_retained_events(row)? || self.is_of_dropped_session(row)? {
            return Ok(Cause::Retention);
        }
        if found(&self.found.late, || self.late())?.contains(row) {
            return Ok(Cause::Late);
        }
        if found(&self.found.historical, || self.historical())?.contains(row) {
            return Ok(Cause::Historical);
        }
        let is_duplicate = found(&self.found.duplicate, || self.duplicates())?.contains(row);
        Ok(match served {
            _ if is_duplicate => Cause::Duplicate,
            _ if self.has_failed_in_one_layer(row) => Cause::Failed,
            _ if self.has_erased_events(row) => Cause::Erased,
            _ if self.has_changed_lookups(row) => Cause::Lookup,
            // An interval holds the exact value most of the time, not always.
            ServedKind::OutsideBounds => Cause::Sketch,
            _ => Cause::Unexplained,
        })
    }

    /// Returns whether an event fell into `row` that was excluded because its windows or its session are frozen.
    fn has_retained_events(&self, row: RowId<'_>) -> Result<bool, RunFailure> {
        let window = self.query.view.window;
        let is_frozen = window != Window::All && self.horizon.is_frozen(window.bounds(row.window).0);
        if is_frozen {
            return Ok(found(&self.found.of_frozen_windows, || self.of_frozen_windows())?.contains(row));
        }
        // Only sessions can bring events of dropped dates into computed rows.
        if self.dropped_date_files.is_empty() || !matches!(window, Window::Session { .. }) {
            return Ok(false);
        }
        Ok(found(&self.found.of_dropped_dates, || self.of_dropped_dates())?.contains(row))
    }

    /// Returns whether an event may belong to `row` that failed in one layer alone: in speed, whose fold of a generation may
    /// fail as a whole, or in a version by an earlier program. Only its time is known, not its group.
    fn has_failed_in_one_layer(&self, row: RowId<'_>) -> bool {
        let (from, to) = self.reach(row);
        self.failed.touches(from, to)
    }

    /// Returns whether events have been erased since the active version, so that rows may have gone altogether.
    pub fn has_erased(&self) -> bool {
        !self.erased.is_empty()
    }

    /// Returns whether an erased event may have belonged to `row`: the archive no longer has it, so only its date is known.
    fn has_erased_events(&self, row: RowId<'_>) -> bool {
        let (from, to) = self.reach(row);
        self.erased.iter().any(|(first, last)| *first < to && *last >= from)
    }

    /// Returns whether an event may belong to `row`, or have belonged to it, that sees another row of a table now. Only its time is
    /// known.
    fn has_changed_lookups(&self, row: RowId<'_>) -> bool {
        let (from, to) = self.reach(row);
        self.looked_up.iter().any(|(first, end)| *first < to && *end > from)
    }

    /// Returns the span of event time of the events that can belong to `row`, half-open.
    fn reach(&self, row: RowId<'_>) -> (i64, i64) {
        let window = self.query.view.window;
        match (window, row.last) {
            (Window::All, _) => (i64::MIN, i64::MAX),
            (Window::Session { gap } | Window::TableSession { gap }, Some(last)) => {
                (row.window.0.saturating_sub(gap), last.saturating_add(gap))
            }
            _ => {
                let (start, end) = window.bounds(row.window);
                (start.0, end.map_or(i64::MAX, |end| end.0))
            }
        }
    }

    /// Returns whether `row` has events that belong to a dropped session.
    fn is_of_dropped_session(&self, row: RowId<'_>) -> Result<bool, RunFailure> {
        let (Window::Session { gap }, Some(first)) = (self.query.view.window, self.horizon.first_shown()) else {
            return Ok(false);
        };
        let read = || Ok(self.events_of(&self.read_files)?.of_sessions_before(gap, first.0));
        Ok(found(&self.found.of_dropped_sessions, read)?.contains(row))
    }

    fn late(&self) -> Result<ExcludedEvents, RunFailure> {
        ExcludedEvents::late(&self.query, &self.late_files, &self.read_files, self.bucket, &self.watch)
    }

    fn historical(&self) -> Result<ExcludedEvents, RunFailure> {
        let is_historical = |file: &&ArchiveFile| file.tags.partition == Partition::HISTORY;
        let files: Vec<ArchiveFile> = self.new_files.iter().filter(is_historical).cloned().collect();
        self.events_of(&files)
    }

    fn duplicates(&self) -> Result<ExcludedEvents, RunFailure> {
        let mut events = ExcludedEvents::new(self.query.view.window, self.bucket);
        for (files, positions) in &self.duplicates {
            events.add_all(&self.query, files, RowSelection::Only(positions), &self.watch)?;
        }
        Ok(events)
    }

    fn of_dropped_dates(&self) -> Result<ExcludedEvents, RunFailure> {
        self.events_of(&self.dropped_date_files)
    }

    fn of_frozen_windows(&self) -> Result<ExcludedEvents, RunFailure> {
        let mut events = self.of_dropped_dates()?;
        events.add_all(&self.query, &self.new_files, RowSelection::All, &self.watch)?;
        Ok(events)
    }

    fn events_of(&self, files: &[ArchiveFile]) -> Result<ExcludedEvents, RunFailure> {
        let mut events = ExcludedEvents::new(self.query.view.window, self.bucket);
        events.add_all(&self.query, files, RowSelection::All, &self.watch)?;
        Ok(events)
    }
}

/// Returns the event times that a date can have, both ends included.
fn span_of(date: DatePartition) -> (i64, i64) {
    match date.day() {
        Some(day) => (day.start().0, day.start().0.saturating_add(MICROS_PER_DAY - 1)),
        None => (i64::MIN, i64::MAX),
    }
}

/// Returns what is in `cell`, after looking it up if it is empty.
fn found(
    cell: &OnceCell<ExcludedEvents>,
    look_up: impl FnOnce() -> Result<ExcludedEvents, RunFailure>,
) -> Result<&ExcludedEvents, RunFailure> {
    if let Some(events) = cell.get() {
        return Ok(events);
    }
    let events = look_up()?;
    Ok(cell.get_or_init(|| events))
}
