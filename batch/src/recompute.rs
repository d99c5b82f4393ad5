//! How are exact values computed within bounded memory? Event date after event date, several small ones with one query,
//! a large one with several; each window date is written as soon as it is whole.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::future::{Either, select};
use parking_lot::Mutex;
use polars::prelude::DataFrame;
use shared::lake::{DataFile, Held, LakeError, Table};
use shared::partial::keys::KeyLayout;
use shared::time::Day;
use shared::view::View;
use shared::window::Window;
use tokio::task::JoinSet;

use crate::duplicates;
use crate::failure::{RunFailure, date_name};
use crate::folding::Folding;
use crate::pieces::{FinishedDate, Pieces};
use crate::plan::{ArchiveFile, EventDate, Plan};
use crate::query::{Query, Rows};
use crate::reader::Reader;
use crate::scan::Watch;

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
}

/// Called with the number of window dates that have become whole.
pub type DatesDone<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// What has been computed, besides the files.
#[derive(Debug, Default)]
pub struct Recomputed {
    /// Events left out because their event id came before; with the files they are in.
    pub duplicates: Vec<(Vec<ArchiveFile>, DataFrame)>,
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
    let is_part = !plan.everything || plan.retained_from.is_some();
    let wanted = is_part.then(|| plan.window_dates.clone());
    let mut dates = Dates::new(query, layout, wanted);
    let mut writes: JoinSet<Result<(), LakeError>> = JoinSet::new();
    let mut recomputed = Recomputed::default();
    let mut result = Ok(());
    let mut portions = portions(plan, bounds)?.into_iter().peekable();
    let mut held = None;
    while let Some(portion) = portions.next() {
        let computing = compute(query, portion, bounds.dedup, watch, dates, held.take());
        let ahead = bring_ahead(query, portions.peek(), bounds.dedup, watch);
        match with_next(computing, ahead).await {
            Ok((computed, next)) => {
                held = next;
                dates = computed.dates;
                recomputed.duplicates.extend(computed.duplicates);
                dates_done(computed.finished.len() as u64);
                for date in computed.finished {
                    while writes.len() >= bounds.writes {
                        result = joined(writes.join_next().await, result);
                    }
                    writes.spawn(write(Arc::clone(staging), date));
                }
            }
            Err(failure) => {
                result = result.and(Err(failure));
                break;
            }
        }
        if result.is_err() {
            break;
        }
    }
    while let Some(done) = writes.join_next().await {
        result = joined(Some(done), result);
    }
    if watch.cancel.is_set() {
        return Err(RunFailure::Cancelled);
    }
    result.map(|()| recomputed)
}

type Written = Result<Result<(), LakeError>, tokio::task::JoinError>;

fn joined(done: Option<Written>, result: Result<(), RunFailure>) -> Result<(), RunFailure> {
    let outcome = match done {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error.into()),
        Some(Err(error)) => Err(error.into()),
    };
    result.and(outcome)
}

async fn write(staging: Arc<Staging>, date: FinishedDate) -> Result<(), LakeError> {
    if date.rows.num_rows() == 0 {
        return Ok(());
    }
    if let Window::Session { gap } = staging.view.window {
        let longest = date.part.sessions().map(|(first, last)| last.saturating_sub(first).saturating_add(gap)).max();
        staging.longest_session_us.fetch_max(longest.unwrap_or(0), Ordering::SeqCst);
    }
    let file = staging.table.write_parquet(date.date, &[date.rows]).await?;
    staging.reader.keep(&staging.view, &file.path, Arc::new(date.part));
    staging.files.lock().push(file);
    Ok(())
}

/// Files read with one query.
#[derive(Debug)]
struct Portion {
    files: Vec<ArchiveFile>,
    /// The last event day that has been read whole with it; `None`: there are more files of the same date.
    through: Option<Day>,
    is_last: bool,
}

/// Where window dates come about.
enum Dates {
    Reduced(Pieces),
    Folded(Box<Folding>),
}

impl Dates {
    fn new(query: &Query, layout: Arc<KeyLayout>, wanted: Option<BTreeSet<Option<Day>>>) -> Dates {
        let view = Arc::clone(&query.view);
        match query.is_reducible() {
            true => Dates::Reduced(Pieces::new(view, layout, wanted)),
            false => Dates::Folded(Box::new(Folding::new(view, layout, wanted))),
        }
    }

    fn add(&mut self, query: &Query, files: &[ArchiveFile], rows: Rows<'_>, watch: &Watch) -> Result<(), RunFailure> {
        match self {
            Dates::Reduced(pieces) => pieces.add(&query.states(files, rows, watch)?),
            Dates::Folded(folding) => folding.add(query, files, rows, watch),
        }
    }

    fn finish(&mut self, through: Option<Day>) -> Result<Vec<FinishedDate>, RunFailure> {
        match (self, through) {
            (Dates::Reduced(pieces), Some(day)) => pieces.finish_through(day),
            (Dates::Reduced(pieces), None) => pieces.finish_all(),
            (Dates::Folded(folding), Some(day)) => folding.finish_through(day),
            (Dates::Folded(folding), None) => folding.finish_all(),
        }
    }
}

struct Computed {
    dates: Dates,
    finished: Vec<FinishedDate>,
    duplicates: Option<(Vec<ArchiveFile>, DataFrame)>,
}

/// Cuts the plan up into queries.
fn portions(plan: &Plan, bounds: Bounds) -> Result<Vec<Portion>, RunFailure> {
    let mut portions: Vec<Portion> = Vec::new();
    let mut open: Vec<ArchiveFile> = Vec::new();
    let rows_of = |files: &[ArchiveFile]| files.iter().map(|f| f.tags.rows).sum::<u64>();
    let query_rows = bounds.query_rows.min(COUNTABLE_ROWS);
    let mut whole: Option<Day> = None;
    for EventDate { date, files } in &plan.read {
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

/// Brings what the next query will read to this machine. What goes wrong here goes wrong again when it is read, and is
/// told of then.
async fn bring_ahead(query: &Query, next: Option<&Portion>, dedup: bool, watch: &Watch) -> Option<Held> {
    let files: Vec<DataFile> = next?.files.iter().map(|f| f.file.clone()).collect();
    if !query.source.table.has_room_for(&files) {
        return None;
    }
    query.source.hold(&files, &query.columns_read(dedup), watch).await.ok()
}

/// Both results; if the computation fails, at once.
async fn with_next(
    computing: impl Future<Output = Result<Computed, RunFailure>>,
    ahead: impl Future<Output = Option<Held>>,
) -> Result<(Computed, Option<Held>), RunFailure> {
    match select(pin!(computing), pin!(ahead)).await {
        Either::Left((computed, ahead)) => Ok((computed?, ahead.await)),
        Either::Right((held, computing)) => Ok((computing.await?, held)),
    }
}

/// `held` keeps what was brought ahead until it has been read.
async fn compute(
    query: &Query,
    portion: Portion,
    dedup: bool,
    watch: &Watch,
    mut dates: Dates,
    held: Option<Held>,
) -> Result<Computed, RunFailure> {
    let (query, watch) = (query.clone(), watch.clone());
    let work = move || {
        let _held = held;
        let removed = if dedup { duplicates::find(&query.source, &portion.files, &watch)? } else { None };
        if !portion.files.is_empty() {
            let before = watch.rows.load(Ordering::SeqCst);
            let rows = removed.as_ref().map_or(Rows::All, Rows::Without);
            dates.add(&query, &portion.files, rows, &watch)?;
            check_rows(&query, &portion.files, watch.rows.load(Ordering::SeqCst) - before, &watch)?;
        }
        let finished = match portion.through {
            _ if portion.is_last => dates.finish(None)?,
            Some(day) => dates.finish(Some(day))?,
            None => Vec::new(),
        };
        let duplicates = removed.map(|positions| (portion.files, positions));
        Ok(Computed { dates, finished, duplicates })
    };
    blocking(work).await
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
