//! How are exact values computed within bounded memory? Event date after event date, several small ones with one query,
//! a large one with several; each window date is written as soon as it is whole.

pub mod budget;
pub mod duplicates;
pub mod events;
pub mod fold;
pub mod frozen_sessions;
pub mod reduce;
pub mod scan;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use lake::{DataFile, Held, LakeError, Table};
use parking_lot::Mutex;
use shared::partial::bucket::{BUCKET_TAG, Bucket};
use shared::partial::keys::KeyLayout;
use shared::time::Day;
use shared::view::View;
use shared::window::Window;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::failure::{RunFailure, date_name};
use crate::plan::planner::{ArchiveFile, EventDate, Plan};
use crate::recompute::budget::Budget;
use crate::recompute::fold::bounded_fold::Filled;
use crate::recompute::fold::folding::Folding;
use crate::recompute::fold::passes::{Duplicates, Passes, Portion};
use crate::recompute::fold::slices::{Emit, FinishedDate, ids_of};
use crate::recompute::reduce::group_by::{Query, Rows};
use crate::recompute::reduce::partial_rows::Pieces;
use crate::recompute::scan::Watch;
use crate::versions::reader::Reader;

/// Most rows of one query: Polars counts in 32 bits.
const COUNTABLE_ROWS: u64 = u32::MAX as u64 - 1;

/// Where a run puts its files. They are durable, but part of the table only once committed.
pub struct Staging {
    pub table: Table,
    /// Keeps the rows, so that they need not be read again.
    pub reader: Arc<Reader>,
    pub view: Arc<View>,
    files: Mutex<Vec<DataFile>>,
    longest_session_us: AtomicI64,
}

impl Staging {
    /// No files yet.
    pub fn new(table: Table, reader: Arc<Reader>, view: Arc<View>) -> Staging {
        Staging { table, reader, view, files: Mutex::default(), longest_session_us: AtomicI64::new(0) }
    }

    /// The files so far, by path.
    pub fn files(&self) -> Vec<DataFile> {
        let mut files = self.files.lock().clone();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    /// The longest session of the staged rows, from its first event to its end, in microseconds.
    pub fn longest_session_us(&self) -> i64 {
        self.longest_session_us.load(Ordering::SeqCst)
    }

    /// Deletes the files: the run failed.
    pub async fn discard(&self) {
        let files = std::mem::take(&mut *self.files.lock());
        let table = &self.table;
        // Also if they cannot be deleted now: then vacuum does.
        if let Err(error) = table.delete_files(&files).await {
            tracing::warn!(table = table.name(), %error, "files of a failed run are left over");
        }
    }
}

impl Drop for Staging {
    /// A run that ended in a panic neither commits nor discards: its files are vacuum's.
    fn drop(&mut self) {
        self.table.give_up(self.files.get_mut());
    }
}

/// How the work is cut up.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Rows of one query, unless one event date has to be read in one go.
    pub query_rows: u64,
    pub writes: usize,
    /// Look for duplicates?
    pub dedup: bool,
    pub budget: Budget,
}

/// Called with the number of window dates that have become whole.
pub type DatesDone<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// What has been computed, besides the files.
#[derive(Debug)]
pub struct Recomputed {
    /// Events left out because their event id came before; with the files they are in.
    pub duplicates: Duplicates,
    /// Where the last of the sessions ends that were read and that retention drops; [`i64::MIN`]: there was none.
    pub dropped_end: i64,
}

/// What the computing thread tells.
enum Told {
    Finished(FinishedDate),
    /// So many window dates have become whole.
    Done(u64),
}

/// Computes and writes everything the plan asks for. On an error some files may have been staged.
pub async fn recompute(
    query: &Query,
    plan: &Plan,
    bounds: Bounds,
    watch: &Watch,
    staging: &Arc<Staging>,
    dates_done: DatesDone<'_>,
) -> Result<Recomputed, RunFailure> {
    let types = query.view.dimensions.iter().map(|d| d.expression.data_type).collect();
    let layout = Arc::new(KeyLayout::new(types)?);
    let is_part = !plan.everything || plan.retained_from.max(plan.frozen_before).is_some();
    let (sender, mut told) = mpsc::channel(1);
    let work = Work {
        query: query.clone(),
        layout,
        read: plan.read.clone(),
        wanted: is_part.then(|| plan.window_dates.clone()),
        remaining: plan.window_dates.clone(),
        first: plan.retained_from,
        bounds,
        watch: watch.clone(),
        told: sender,
        found: Recomputed { duplicates: Vec::new(), dropped_end: i64::MIN },
    };
    let computing = blocking(move || work.run());
    let writing = async {
        let mut writes: JoinSet<Result<usize, LakeError>> = JoinSet::new();
        let (mut waiting_bytes, mut result) = (0, Ok(()));
        while let Some(told) = told.recv().await {
            let date = match told {
                Told::Done(more) => {
                    dates_done(more);
                    continue;
                }
                Told::Finished(date) => date,
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
            writes.spawn(write(Arc::clone(staging), date));
        }
        // Whoever computes notices that nobody listens any more.
        drop(told);
        while let Some(done) = writes.join_next().await {
            written(Some(done), &mut result);
        }
        result
    };
    let (computed, written) = tokio::join!(computing, writing);
    if watch.cancel.is_set() {
        return Err(RunFailure::Cancelled);
    }
    written?;
    computed
}

type Written = Result<Result<usize, LakeError>, tokio::task::JoinError>;

/// The bytes that need not wait any longer; the first failure is kept.
fn written(done: Option<Written>, result: &mut Result<(), RunFailure>) -> usize {
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

async fn write(staging: Arc<Staging>, date: FinishedDate) -> Result<usize, LakeError> {
    let bytes = date.bytes();
    if date.rows.num_rows() == 0 {
        return Ok(bytes);
    }
    if let Window::Session { gap } = staging.view.window {
        let longest = date.part.sessions().map(|(first, last)| last.saturating_sub(first).saturating_add(gap)).max();
        staging.longest_session_us.fetch_max(longest.unwrap_or(0), Ordering::SeqCst);
    }
    let mut file = staging.table.write_parquet(date.date, &[date.rows]).await?;
    if date.bucket != Bucket::ALL {
        file.tags.insert(BUCKET_TAG.to_owned(), date.bucket.to_string());
    }
    staging.reader.keep(&staging.view, &file.path, Arc::new(date.part));
    staging.files.lock().push(file);
    Ok(bytes)
}

/// Where window dates come about.
enum Dates {
    Reduced(Pieces),
    Folded(Box<Folding>),
}

impl Dates {
    fn new(work: &Work) -> Dates {
        let (view, layout) = (Arc::clone(&work.query.view), Arc::clone(&work.layout));
        let (budget, wanted) = (work.bounds.budget, work.wanted.clone());
        // Polars takes whole files; one with too many rows for it is folded as it is read.
        let files = work.read.iter().flat_map(|date| &date.files);
        let most = files.map(|file| file.tags.rows).max().unwrap_or(0);
        match work.query.is_reducible() && most <= budget.grouped_rows() {
            true => Dates::Reduced(Pieces::new(view, layout, wanted)),
            false => {
                let folding = Folding::new(view, layout, budget, wanted, Bucket::ALL);
                Dates::Folded(Box::new(folding.dropping_before(work.first)))
            }
        }
    }

    fn add(
        &mut self,
        query: &Query,
        files: &[ArchiveFile],
        rows: Rows<'_>,
        watch: &Watch,
        budget: Budget,
    ) -> Result<Filled, RunFailure> {
        match self {
            Dates::Reduced(pieces) => {
                pieces.add(&query.states(files, rows, watch)?)?;
                Ok(if pieces.bytes() > budget.pieces_bytes() { Filled::Full } else { Filled::Fits })
            }
            Dates::Folded(folding) => folding.add(query, files, rows, watch, &mut |_| Ok(Filled::Full)),
        }
    }

    fn dropped_end(&self) -> i64 {
        match self {
            Dates::Reduced(_) => i64::MIN,
            Dates::Folded(folding) => folding.dropped_end(),
        }
    }

    fn finish(&mut self, through: Option<Day>, emit: Emit<'_>) -> Result<Vec<Option<Day>>, RunFailure> {
        match (self, through) {
            (Dates::Reduced(pieces), Some(day)) => pieces.finish_through(day, emit),
            (Dates::Reduced(pieces), None) => pieces.finish_all(emit),
            (Dates::Folded(folding), Some(day)) => folding.finish_through(day, emit),
            (Dates::Folded(folding), None) => folding.finish_all(emit),
        }
    }
}

/// What the computing thread works on.
struct Work {
    query: Query,
    layout: Arc<KeyLayout>,
    read: Vec<EventDate>,
    /// The window dates to keep; `None`: all.
    wanted: Option<BTreeSet<Option<Day>>>,
    /// Window dates that have not been handed out yet.
    remaining: BTreeSet<Option<Day>>,
    /// Sessions that begin earlier are dropped; `None`: none are.
    first: Option<Day>,
    bounds: Bounds,
    watch: Watch,
    told: mpsc::Sender<Told>,
    found: Recomputed,
}

impl Work {
    /// Computes everything; blocking.
    fn run(mut self) -> Result<Recomputed, RunFailure> {
        if self.stream()? == Filled::Full {
            self.in_passes()?;
        }
        Ok(self.found)
    }

    /// One event date after another, with all groups at once. Stops where they do not fit.
    fn stream(&mut self) -> Result<Filled, RunFailure> {
        let mut dates = Dates::new(self);
        let mut portions = portions(&self.read, self.bounds)?.into_iter().peekable();
        // Dropped, it stops what is still on its way.
        let mut ahead: JoinSet<Option<Held>> = JoinSet::new();
        while let Some(portion) = portions.next() {
            let Work { query, watch, bounds, told, .. } = self;
            let brought = Handle::current().block_on(ahead.join_next());
            let _held = brought.and_then(Result::ok).flatten();
            if let Some(next) = portions.peek() {
                let next: Vec<DataFile> = next.files.iter().map(|f| f.file.clone()).collect();
                ahead.spawn_on(bring_ahead(query.clone(), next, bounds.dedup, watch.clone()), &Handle::current());
            }
            let removed = match bounds.dedup {
                true => duplicates::find(&query.source, &portion.files, bounds.budget.ids_bytes(), watch)?,
                false => None,
            };
            if !portion.files.is_empty() {
                let before = watch.rows.load(Ordering::SeqCst);
                let rows = removed.as_ref().map_or(Rows::All, Rows::Without);
                if dates.add(query, &portion.files, rows, watch, bounds.budget)? == Filled::Full {
                    return Ok(Filled::Full);
                }
                check_rows(query, &portion.files, watch.rows.load(Ordering::SeqCst) - before, watch)?;
            }
            let mut emit = |date| tell(told, Told::Finished(date));
            let done = match portion.through {
                _ if portion.is_last => dates.finish(None, &mut emit)?,
                Some(day) => dates.finish(Some(day), &mut emit)?,
                None => Vec::new(),
            };
            tell(told, Told::Done(done.len() as u64))?;
            done.iter().for_each(|date| _ = self.remaining.remove(date));
            self.found.dropped_end = self.found.dropped_end.max(dates.dropped_end());
            self.found.duplicates.extend(removed.map(|positions| (portion.files, positions)));
        }
        Ok(Filled::Fits)
    }

    /// What is left: one window date after another, each in as many passes as it takes.
    fn in_passes(&mut self) -> Result<(), RunFailure> {
        let Work { query, layout, bounds, watch, told, found, first, .. } = self;
        let passes = Passes { query, layout, budget: bounds.budget, dedup: bounds.dedup, watch, first: *first };
        let mut emit = |date| tell(told, Told::Finished(date));
        let window = query.view.window;
        let mut anywhere = BTreeSet::new();
        for date in std::mem::take(&mut self.remaining) {
            let Some(days) = date.and_then(|day| window.event_days_of(day)) else {
                anywhere.insert(date);
                continue;
            };
            let read = self.read.iter().filter(|read| read.date.is_some_and(|day| days.contains(&day.0)));
            let files: Vec<ArchiveFile> = read.flat_map(|date| date.files.clone()).collect();
            let (from, to) = ids_of(window, date);
            let portion = Portion { files, through: None, is_last: true };
            passes.run(
                &[portion],
                BTreeSet::from([date]),
                window.panes_of(from, to),
                &mut found.duplicates,
                &mut emit,
            )?;
            tell(told, Told::Done(1))?;
        }
        // How far sessions reach is to be known also of those that are dropped.
        if !anywhere.is_empty() || (matches!(window, Window::Session { .. }) && first.is_some()) {
            let portions = portions(&self.read, *bounds)?;
            let dates = anywhere.len() as u64;
            let all = (i64::MIN, i64::MAX);
            let end = passes.run(&portions, anywhere, all, &mut found.duplicates, &mut emit)?;
            found.dropped_end = found.dropped_end.max(end);
            tell(told, Told::Done(dates))?;
        }
        Ok(())
    }
}

/// Brings what the next query will read to this machine. What goes wrong here goes wrong again when it is read, and is
/// told of then.
async fn bring_ahead(query: Query, files: Vec<DataFile>, dedup: bool, watch: Watch) -> Option<Held> {
    if !query.source.table.has_room_for(&files) {
        return None;
    }
    query.source.hold(&files, &query.columns_read(dedup), &watch).await.ok()
}

/// Fails only if writing has failed, which is the better reason.
fn tell(told: &mpsc::Sender<Told>, what: Told) -> Result<(), RunFailure> {
    told.blocking_send(what).map_err(|_| RunFailure::Cancelled)
}

/// Cuts the plan up into queries.
fn portions(read: &[EventDate], bounds: Bounds) -> Result<Vec<Portion>, RunFailure> {
    let mut portions: Vec<Portion> = Vec::new();
    let mut open: Vec<ArchiveFile> = Vec::new();
    let rows_of = |files: &[ArchiveFile]| files.iter().map(|f| f.tags.rows).sum::<u64>();
    let query_rows = bounds.query_rows.min(COUNTABLE_ROWS).min(bounds.budget.grouped_rows()).max(1);
    let mut whole: Option<Day> = None;
    for EventDate { date, files } in read {
        let rows = rows_of(files);
        if !open.is_empty() && rows_of(&open) + rows > query_rows {
            portions.push(Portion { files: std::mem::take(&mut open), through: whole, is_last: false });
        }
        if bounds.dedup && rows > COUNTABLE_ROWS {
            return Err(RunFailure::DateTooLarge(date_name(*date)));
        }
        for file in files {
            let too_many = !open.is_empty() && rows_of(&open) + file.tags.rows > query_rows;
            if !bounds.dedup && too_many {
                portions.push(Portion { files: std::mem::take(&mut open), through: whole, is_last: false });
            }
            open.push(file.clone());
        }
        whole = *date;
    }
    portions.push(Portion { files: open, through: whole, is_last: true });
    Ok(portions)
}

/// Runs blocking work on a thread of its own; a panic in it (Polars has some) is a failure like any other.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunFailure> + Send + 'static,
) -> Result<T, RunFailure> {
    tokio::task::spawn_blocking(move || {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(RunFailure::of_panic(panic.as_ref())))
    })
    .await?
}

/// Every row the archive notes must have been read. The files are looked at one by one only if something is wrong.
fn check_rows(query: &Query, files: &[ArchiveFile], found: u64, watch: &Watch) -> Result<(), RunFailure> {
    let expected: u64 = files.iter().map(|f| f.tags.rows).sum();
    if found == expected {
        return Ok(());
    }
    let (_, held) = query.source.scan(files, [], watch)?;
    for file in files {
        let Some(found) = held.rows(&file.file) else { continue };
        let expected = file.tags.rows;
        if expected != found {
            let (path, date) = (file.file.path.clone(), date_name(file.file.partition));
            return Err(RunFailure::RowsOfFile { path, date, expected, found });
        }
    }
    let dates = || files.iter().map(|f| f.file.partition);
    let (first, last) = (date_name(dates().min().flatten()), date_name(dates().max().flatten()));
    Err(RunFailure::RowsOfDates { first, last, expected, found })
}
