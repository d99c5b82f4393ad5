//! Computes exact values within bounded memory. Event dates are read in order, several small ones with one query and a
//! large one with several; each window date is written as soon as it is complete.
//!
//! 1. [`scan`] reads archive files; [`duplicates`] finds events that are in them twice, and [`frozen_sessions`] those that
//!    belong to sessions that cannot be recomputed.
//! 2. [`verdicts`] finds the events that the speed layer excludes, if the archive is to be folded as that layer does; [`late_sessions`]
//!    judges those of sessions.
//! 3. [`reduce`] lets Polars group what it can; [`fold`] folds all other views, in passes if memory is short ([`budget`]).
//! 4. [`staging`] writes the rows of each complete window date.
//!
//! [`on_spark`] lets Apache Spark compute the states instead, and makes the same rows from them.

pub mod budget;
pub mod duplicates;
pub mod events;
pub mod failed;
pub mod fold;
pub mod frozen_sessions;
pub mod generations;
pub mod late_sessions;
pub mod on_spark;
pub mod reduce;
pub mod repeated_hashes;
pub mod scan;
pub mod staging;
pub mod verdicts;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lake::{DataFile, LakeError, LocalFiles};
use shared::date_partition::DatePartition;
use shared::failed_events::FailedEvents;
use shared::partial::bucket::Bucket;
use shared::partial::keys::KeyLayout;
use shared::time::{Day, Micros};
use shared::window::{PaneStart, Window};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::blocking::blocking;
use crate::failure::RunFailure;
use crate::plan::{ArchiveFile, EventDate, Plan};
use crate::recompute::budget::Budget;
use crate::recompute::fold::bounded_fold::Capacity;
use crate::recompute::fold::folding::EventFold;
use crate::recompute::fold::passes::{Duplicates, Passes, ReadChunk};
use crate::recompute::fold::slices::{Emit, FinishedDate, windows_of_date};
use crate::recompute::reduce::group_by::{ArchiveQuery, RowSelection};
use crate::recompute::reduce::partial_rows::PartialRows;
use crate::recompute::staging::Staging;
use crate::watch::Watch;

/// Largest number of rows of one query: Polars counts in 32 bits.
const COUNTABLE_ROWS: u64 = u32::MAX as u64 - 1;

/// How the work is divided.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Rows of one query, unless one event date has to be read at once.
    pub query_rows: u64,
    /// Files written at the same time.
    pub writes: usize,
    /// Search for duplicates.
    pub dedup: bool,
    pub budget: Budget,
}

/// Called with the number of window dates that have become complete.
pub type DatesDone<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// The exact rows of the plan's window dates, in files that are not committed yet.
#[derive(Debug)]
pub struct ExactFiles {
    pub files: Vec<DataFile>,
    /// The longest session in the files, from its first event to its end, in microseconds.
    pub longest_session_us: i64,
    /// Duplicates: events whose id came before, with the files they are in.
    pub duplicates: Duplicates,
    /// The end of the last session that was read and that retention drops; `None`: there was none.
    pub dropped_sessions_end: Option<Micros>,
    /// Events of the dates read that are in no row, because an expression of the view failed for them.
    pub failed: FailedEvents,
}

/// What the computing thread reports.
pub(crate) enum Progress {
    Finished(FinishedDate),
    /// A number of window dates have become complete.
    Done(u64),
}

/// Computes and writes everything that the plan asks for. On an error some files may have been staged.
pub async fn recompute(
    query: &ArchiveQuery,
    plan: &Plan,
    bounds: Bounds,
    watch: &Watch,
    staging: &Arc<Staging>,
    dates_done: DatesDone<'_>,
) -> Result<ExactFiles, RunFailure> {
    // A run that is tried again starts with none.
    let _ = watch.failed.lock().take();
    let types = query.view.dimensions.iter().map(|d| d.expression.data_type).collect();
    let layout = Arc::new(KeyLayout::new(types)?);
    let is_part = !plan.everything || plan.horizon.first_computed().is_some();
    let (sender, progress) = mpsc::channel(1);
    let work = Recomputation {
        query: query.clone(),
        layout,
        read: plan.read.clone(),
        requested: is_part.then(|| plan.window_dates.clone()),
        remaining: plan.window_dates.clone(),
        retained_from: plan.horizon.retained_from(),
        bounds,
        watch: watch.clone(),
        progress: sender,
        duplicates: Vec::new(),
        dropped_sessions_end: None,
    };
    let computing = blocking(move || work.run());
    let (computed, written) = tokio::join!(computing, write_all(progress, bounds, staging, dates_done));
    if watch.cancel.is_set() {
        return Err(RunFailure::Cancelled);
    }
    written?;
    let Findings { duplicates, dropped_sessions_end } = computed?;
    let (files, longest_session_us) = (staging.files(), staging.longest_session_us());
    let failed = watch.failed.lock().take();
    Ok(ExactFiles { files, longest_session_us, duplicates, dropped_sessions_end, failed })
}

/// Writes finished dates as they come, a few at a time, until the computing thread ends or a write fails.
pub(crate) async fn write_all(
    mut progress: mpsc::Receiver<Progress>,
    bounds: Bounds,
    staging: &Arc<Staging>,
    dates_done: DatesDone<'_>,
) -> Result<(), RunFailure> {
    let mut writes: JoinSet<Result<usize, LakeError>> = JoinSet::new();
    let (mut waiting_bytes, mut result) = (0, Ok(()));
    while let Some(report) = progress.recv().await {
        let date = match report {
            Progress::Done(more) => {
                dates_done(more);
                continue;
            }
            Progress::Finished(date) => date,
        };
        let bytes = date.bytes();
        let is_full = |waiting| waiting + bytes > bounds.budget.writes_bytes();
        while !writes.is_empty() && (writes.len() >= bounds.writes || is_full(waiting_bytes)) {
            waiting_bytes -= written(writes.join_next().await, &mut result);
        }
        if result.is_err() {
            break;
        }
        waiting_bytes += bytes;
        let staging = Arc::clone(staging);
        writes.spawn(async move { staging.write(date).await });
    }
    // The computing thread notices that its reports have no reader.
    drop(progress);
    while let Some(done) = writes.join_next().await {
        written(Some(done), &mut result);
    }
    result
}

type WriteOutcome = Result<Result<usize, LakeError>, tokio::task::JoinError>;

/// Returns the bytes that need not be held any longer, and keeps the first failure in `result`.
fn written(done: Option<WriteOutcome>, result: &mut Result<(), RunFailure>) -> usize {
    let failure = match done {
        None => return 0,
        Some(Ok(Ok(bytes))) => return bytes,
        Some(Ok(Err(error))) => error.into(),
        Some(Err(error)) => error.into(),
    };
    if result.is_ok() {
        *result = Err(failure);
    }
    0
}

/// Builds the rows of window dates from events, by one of two ways.
enum DateBuilder {
    Reduce(PartialRows),
    Fold(Box<EventFold>),
}

impl DateBuilder {
    fn new(work: &Recomputation) -> DateBuilder {
        let (view, layout) = (Arc::clone(&work.query.view), Arc::clone(&work.layout));
        let (budget, requested) = (work.bounds.budget, work.requested.clone());
        // Polars reads whole files; one with too many rows for it is folded while it is read.
        let files = work.read.iter().flat_map(|date| &date.files);
        let most = files.map(|file| file.tags.rows).max().unwrap_or(0);
        match work.query.is_reducible() && most <= budget.grouped_rows() {
            true => DateBuilder::Reduce(PartialRows::new(view, layout, requested)),
            false => {
                let fold = EventFold::new(view, layout, work.query.precision(), budget, requested, Bucket::ALL);
                DateBuilder::Fold(Box::new(fold.dropping_before(work.retained_from)))
            }
        }
    }

    fn add(
        &mut self,
        query: &ArchiveQuery,
        files: &[ArchiveFile],
        rows: RowSelection<'_>,
        watch: &Watch,
        budget: Budget,
    ) -> Result<Capacity, RunFailure> {
        match self {
            DateBuilder::Reduce(partial) => {
                partial.add(&query.states(files, rows, watch)?)?;
                Ok(if partial.bytes() > budget.pieces_bytes() { Capacity::Full } else { Capacity::Fits })
            }
            DateBuilder::Fold(fold) => fold.add(query, files, rows, watch, &mut |_| Ok(Capacity::Full)),
        }
    }

    fn dropped_sessions_end(&self) -> Option<Micros> {
        match self {
            DateBuilder::Reduce(_) => None,
            DateBuilder::Fold(fold) => fold.dropped_sessions_end(),
        }
    }

    fn finish(&mut self, through: Option<Day>, emit: Emit<'_>) -> Result<Vec<DatePartition>, RunFailure> {
        match (self, through) {
            (DateBuilder::Reduce(partial), Some(day)) => partial.finish_through(day, emit),
            (DateBuilder::Reduce(partial), None) => partial.finish_all(emit),
            (DateBuilder::Fold(fold), Some(day)) => fold.finish_through(day, emit),
            (DateBuilder::Fold(fold), None) => fold.finish_all(emit),
        }
    }
}

/// What a recomputation found besides the rows.
#[derive(Debug)]
struct Findings {
    duplicates: Duplicates,
    dropped_sessions_end: Option<Micros>,
}

/// The work of the computing thread.
struct Recomputation {
    query: ArchiveQuery,
    layout: Arc<KeyLayout>,
    read: Vec<EventDate>,
    /// The window dates to keep; `None`: all.
    requested: Option<BTreeSet<DatePartition>>,
    /// Window dates that have not been emitted yet.
    remaining: BTreeSet<DatePartition>,
    /// Sessions that start earlier are dropped; `None`: none are.
    retained_from: Option<Day>,
    bounds: Bounds,
    watch: Watch,
    progress: mpsc::Sender<Progress>,
    duplicates: Duplicates,
    dropped_sessions_end: Option<Micros>,
}

impl Recomputation {
    /// Computes everything. Blocking.
    fn run(mut self) -> Result<Findings, RunFailure> {
        if self.stream()? == Capacity::Full {
            self.in_passes()?;
        }
        Ok(Findings { duplicates: self.duplicates, dropped_sessions_end: self.dropped_sessions_end })
    }

    /// Computes event dates in order, with all groups at once. Stops where they do not fit.
    fn stream(&mut self) -> Result<Capacity, RunFailure> {
        let mut dates = DateBuilder::new(self);
        let mut chunks = chunks(&self.read, self.bounds)?.into_iter().peekable();
        // Dropped, it stops the reads that are still under way.
        let mut ahead: JoinSet<Option<LocalFiles>> = JoinSet::new();
        while let Some(chunk) = chunks.next() {
            let Recomputation { query, watch, bounds, progress, .. } = self;
            let fetched = Handle::current().block_on(ahead.join_next());
            let _held = fetched.and_then(Result::ok).flatten();
            if let Some(next) = chunks.peek() {
                let next: Vec<DataFile> = next.files.iter().map(|f| f.file.clone()).collect();
                ahead.spawn_on(fetch_ahead(query.clone(), next, bounds.dedup, watch.clone()), &Handle::current());
            }
            let removed = match bounds.dedup {
                true => duplicates::find(&query.source, &chunk.files, bounds.budget.ids_bytes(), watch)?,
                false => None,
            };
            if !chunk.files.is_empty() {
                let before = watch.rows.load(Ordering::SeqCst);
                let rows = query.without(removed.as_ref());
                if dates.add(query, &chunk.files, rows, watch, bounds.budget)? == Capacity::Full {
                    return Ok(Capacity::Full);
                }
                check_rows(&chunk.files, watch.rows.load(Ordering::SeqCst) - before)?;
            }
            let mut emit = |date| send(progress, Progress::Finished(date));
            let done = match chunk.through {
                _ if chunk.is_last => dates.finish(None, &mut emit)?,
                Some(day) => dates.finish(Some(day), &mut emit)?,
                None => Vec::new(),
            };
            send(progress, Progress::Done(done.len() as u64))?;
            done.iter().for_each(|date| _ = self.remaining.remove(date));
            self.dropped_sessions_end = self.dropped_sessions_end.max(dates.dropped_sessions_end());
            self.duplicates.extend(removed.map(|positions| (chunk.files, positions)));
        }
        Ok(Capacity::Fits)
    }

    /// Computes the window dates that are left, each in as many passes as it takes.
    fn in_passes(&mut self) -> Result<(), RunFailure> {
        let Recomputation { query, layout, bounds, watch, progress, duplicates, retained_from, .. } = self;
        let retained_from = *retained_from;
        let passes = Passes { query, layout, budget: bounds.budget, dedup: bounds.dedup, watch, retained_from };
        let mut emit = |date| send(progress, Progress::Finished(date));
        let window = query.view.window;
        let mut anywhere = BTreeSet::new();
        for date in std::mem::take(&mut self.remaining) {
            let Some(days) = date.day().and_then(|day| window.event_days_of(day)) else {
                anywhere.insert(date);
                continue;
            };
            let read = self.read.iter().filter(|read| read.date.day().is_some_and(|day| days.contains(&day.0)));
            let files: Vec<ArchiveFile> = read.flat_map(|date| date.files.clone()).collect();
            let chunk = ReadChunk { files, through: None, is_last: true };
            let panes = window.panes_of(&windows_of_date(window, date));
            passes.run(&[chunk], BTreeSet::from([date]), panes, duplicates, &mut emit)?;
            send(progress, Progress::Done(1))?;
        }
        // The reach of dropped sessions must be known too.
        if !anywhere.is_empty() || (matches!(window, Window::Session { .. }) && retained_from.is_some()) {
            let chunks = chunks(&self.read, *bounds)?;
            let dates = anywhere.len() as u64;
            let end = passes.run(&chunks, anywhere, PaneStart::EVERY, duplicates, &mut emit)?;
            self.dropped_sessions_end = self.dropped_sessions_end.max(end);
            send(progress, Progress::Done(dates))?;
        }
        Ok(())
    }
}

/// Fetches the files of the next query to this machine. Errors are ignored here: they occur again when the files are read.
async fn fetch_ahead(query: ArchiveQuery, files: Vec<DataFile>, dedup: bool, watch: Watch) -> Option<LocalFiles> {
    if !query.source.table.has_room_for(&files) {
        return None;
    }
    query.source.hold(&files, &query.columns_read(dedup), &watch).await.ok()
}

/// Sends a report. Fails only if writing has failed, which is the better reason.
pub(crate) fn send(progress: &mpsc::Sender<Progress>, report: Progress) -> Result<(), RunFailure> {
    progress.blocking_send(report).map_err(|_| RunFailure::Cancelled)
}

/// Divides the files to read into queries.
fn chunks(read: &[EventDate], bounds: Bounds) -> Result<Vec<ReadChunk>, RunFailure> {
    let mut chunks: Vec<ReadChunk> = Vec::new();
    let mut open: Vec<ArchiveFile> = Vec::new();
    let rows_of = |files: &[ArchiveFile]| files.iter().map(|f| f.tags.rows).sum::<u64>();
    let query_rows = bounds.query_rows.min(COUNTABLE_ROWS).min(bounds.budget.grouped_rows()).max(1);
    let mut complete: Option<Day> = None;
    for EventDate { date, files } in read {
        let rows = rows_of(files);
        if !open.is_empty() && rows_of(&open) + rows > query_rows {
            chunks.push(ReadChunk { files: std::mem::take(&mut open), through: complete, is_last: false });
        }
        if bounds.dedup && rows > COUNTABLE_ROWS {
            return Err(RunFailure::DateTooLarge(date.to_string()));
        }
        for file in files {
            let too_many = !open.is_empty() && rows_of(&open) + file.tags.rows > query_rows;
            if !bounds.dedup && too_many {
                chunks.push(ReadChunk { files: std::mem::take(&mut open), through: complete, is_last: false });
            }
            open.push(file.clone());
        }
        complete = date.day();
    }
    chunks.push(ReadChunk { files: open, through: complete, is_last: true });
    Ok(chunks)
}

/// Checks that every row that the archive notes was read. Each file's own number of rows was checked before.
fn check_rows(files: &[ArchiveFile], found: u64) -> Result<(), RunFailure> {
    let expected: u64 = files.iter().map(|f| f.tags.rows).sum();
    if found == expected {
        return Ok(());
    }
    let dates = || files.iter().map(|f| f.file.partition);
    let name = |date: Option<DatePartition>| date.unwrap_or(DatePartition::Undated).to_string();
    let (first, last) = (name(dates().min()), name(dates().max()));
    Err(RunFailure::RowsOfDates { first, last, expected, found })
}
