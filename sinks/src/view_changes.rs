//! Finds what has changed in a view since the last epoch, as records: rows that folds have changed, and rows of new batch
//! versions.
//!
//! An epoch is a cut of the log. Each worker of the speed layer answers between two folds, so the rows it returns are those of
//! all events before its position and of no others. A row is in the epoch if it changed before the cut:
//!
//! ```text
//! take A from the queue → pin A → take B      the cut is that of the pin
//! B ⊆ A: every row that changed before the cut is in A, so the epoch is A; B waits for the next one
//! otherwise: pin A ∪ B and take again; after some attempts, pin every row
//! ```
//!
//! A row is written if its value is not the one that the topic has, so a row that is visited twice is written once, and the
//! order of visits does not matter. A new version is compared by the dates of the files that it changed, some rows at a time.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use alerts::affected::{AffectedRows, rows_of};
use alerts::fetch::{Fetch, FetchError, RowReader};
use alerts::finished::FinishError;
use arrow::error::ArrowError;
use kafka::OutgoingRecord;
use shared::changed_rows::{ChangedRow, ChangedRows, ChangedView, Changes};
use shared::date_partition::DatePartition;
use shared::horizon::Horizon;
use shared::limits::{SINK_ROWS_AT_ONCE, SINK_ROWS_MAX};
use shared::partial::query_budget::QueryBudget;
use shared::published::{PublishedView, Views};
use shared::readers::{BatchReader, Moment, PastReader, SpeedError, SpeedReader};
use shared::sink::Sink;
use shared::time::Day;
use shared::time_range::TimeRange;
use shared::version::BatchVersion;
use shared::window::WindowId;

use crate::book::{EpochCut, SinkBook};
use crate::record::{RecordWriter, RowValues};
use crate::sent::{SentChange, ValueHash};

/// Attempts to find a cut with some rows alone, and attempts before a moving seam is given up on until the next epoch.
const TRIES: usize = 4;

/// The layers that rows are read from.
#[derive(Clone)]
pub struct SinkLayers {
    pub views: Arc<Views>,
    pub speed: Arc<dyn SpeedReader>,
    pub batch: Arc<dyn BatchReader>,
    pub past: Arc<dyn PastReader>,
}

/// What an epoch writes.
#[derive(Debug, Default)]
pub struct EpochBatch {
    pub records: Vec<OutgoingRecord>,
    /// What the records change.
    pub changes: Vec<SentChange>,
    pub cut: EpochCut,
}

/// The reason why changes were not found.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    #[error("cannot read the view: {0}")]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Finish(#[from] FinishError),
    #[error("cannot read the keys of rows: {0}")]
    Keys(#[from] ArrowError),
    #[error("finding changes failed: {0}")]
    Ended(#[from] tokio::task::JoinError),
    #[error(
        "the topic has more than {SINK_ROWS_MAX} rows, the most that a sink remembers; give the view a retention or coarser groups"
    )]
    TooManyRows,
    #[error(
        "the rows of the view are no longer named by the same columns: declare the sink under another name and topic"
    )]
    OtherKeys,
}

/// Rows to visit.
#[derive(Debug, Default)]
struct RowSet {
    rows: HashSet<ChangedRow>,
    /// Every row of the live generations.
    all: bool,
}

impl RowSet {
    fn add(&mut self, changes: Option<Changes>) {
        match changes {
            Some(Changes::Rows(rows)) => self.rows.extend(rows),
            Some(Changes::All) => self.all = true,
            None => {}
        }
    }

    fn extend(&mut self, other: RowSet) {
        self.all |= other.all;
        self.rows.extend(other.rows);
    }
}

/// Rows of a version that are still to be compared.
#[derive(Debug)]
struct Comparison {
    version: Arc<BatchVersion>,
    dates: VecDeque<DatePartition>,
    /// Of the date that is being compared.
    rows: VecDeque<Vec<ChangedRow>>,
}

/// Finds the changes of one sink.
pub struct ViewChanges {
    sink: Arc<Sink>,
    layers: SinkLayers,
    reader: Arc<RowReader>,
    queue: Arc<ChangedRows>,
    /// Rows that the epoch in progress visits, and those that may have changed after its cut.
    visited: RowSet,
    next: RowSet,
    /// What was served in the last epoch.
    served: Option<ChangedView>,
    /// The version that the topic has; the outer `None`: not known yet.
    compared: Option<Option<Arc<BatchVersion>>>,
    comparison: Option<Comparison>,
}

impl ViewChanges {
    /// Returns the changes of `sink`, whose view reports the rows that change to `queue`.
    pub fn new(sink: Arc<Sink>, layers: SinkLayers, queue: Arc<ChangedRows>) -> ViewChanges {
        let reader = Arc::new(RowReader::new(Arc::clone(&layers.speed), Arc::clone(&layers.batch)));
        let (visited, next) = (RowSet::default(), RowSet::default());
        ViewChanges { sink, layers, reader, queue, visited, next, served: None, compared: None, comparison: None }
    }

    /// Visits every row again in the next epochs.
    pub fn visit_all(&mut self) {
        self.retry();
        self.visited.all = true;
    }

    /// Forgets which rows of versions have been compared: the last batch is not in the topic. Rows that folds have changed are
    /// visited again in any case.
    pub fn retry(&mut self) {
        (self.compared, self.comparison) = (None, None);
    }

    /// Notes that the last batch is in the topic.
    pub fn settle(&mut self) {
        self.visited = std::mem::take(&mut self.next);
    }

    /// Returns whether rows of a version are still to be compared.
    pub fn is_comparing(&self) -> bool {
        self.comparison.is_some()
    }

    /// Returns the changes of rows that folds have changed, as of a new cut. Call [`ViewChanges::settle`] once they are written.
    ///
    /// # Errors
    /// A layer cannot be read. The same rows are visited the next time.
    pub async fn live(&mut self, book: &Arc<SinkBook>) -> Result<EpochBatch, ChangesError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_live(book).await {
                Err(ChangesError::Fetch(FetchError::Speed(SpeedError::SeamMoved))) if tries < TRIES => {}
                result => return result,
            }
        }
    }

    async fn try_live(&mut self, book: &Arc<SinkBook>) -> Result<EpochBatch, ChangesError> {
        let left = std::mem::take(&mut self.next);
        self.visited.extend(left);
        let Some(published) = self.layers.views.get(self.sink.view.as_str()) else { return Ok(EpochBatch::default()) };
        if book.has_other_keys(&self.sink.key_hash(&published.view)) {
            return Err(ChangesError::OtherKeys);
        }
        let view: ChangedView = (published.view.name.clone(), Arc::clone(&published.definition_hash));
        if self.served.as_ref() != Some(&view) {
            self.visited.all = true;
        }
        // A changed definition reports its rows as well while it is being computed.
        self.queue.retain(std::slice::from_ref(&view));
        self.visited.add(self.queue.take(&view, usize::MAX));
        let (fetch, affected) = self.cut(&published, &view).await?;
        self.served = Some(view);
        let version = book.committed().1.version;
        let mut batch = self.evaluate(book, fetch, affected).await?;
        batch.cut.version = version;
        Ok(batch)
    }

    /// Reads the visited rows as of a cut, before which no other row has changed.
    async fn cut(
        &mut self,
        published: &Arc<PublishedView>,
        view: &ChangedView,
    ) -> Result<(Fetch, AffectedRows), ChangesError> {
        let window = published.view.window;
        for _ in 0..TRIES {
            if self.visited.all {
                break;
            }
            let affected = AffectedRows::of_changes(window, self.visited.rows.iter().cloned().collect(), false);
            let fetch = self.reader.live(published, &affected.wanted).await?;
            let mut later = RowSet::default();
            later.add(self.queue.take(view, usize::MAX));
            if !later.all && later.rows.is_subset(&self.visited.rows) {
                self.next = later;
                return Ok((fetch, affected));
            }
            self.visited.extend(later);
        }
        let pin = self.layers.speed.pin(published, &published.seam).await.map_err(FetchError::from)?;
        let mut later = RowSet::default();
        later.add(self.queue.take(view, usize::MAX));
        let mut rows: Vec<ChangedRow> = match self.visited.all || later.all {
            true => pin.generations.iter().flat_map(|g| rows_of(&g.part, usize::MAX)).flatten().collect(),
            false => self.visited.rows.iter().cloned().collect(),
        };
        rows.extend(later.rows.iter().cloned());
        self.next = later;
        let affected = AffectedRows::of_changes(window, rows, false);
        let fetch = self.reader.pinned(published, &affected.wanted, pin).await?;
        Ok((fetch, affected))
    }

    /// Returns the changes of the next rows of a version that the topic does not have yet; `None`: it has the active version.
    ///
    /// # Errors
    /// A layer cannot be read. The same rows are compared the next time.
    pub async fn compare(&mut self, book: &Arc<SinkBook>) -> Result<Option<EpochBatch>, ChangesError> {
        let Some(published) = self.layers.views.get(self.sink.view.as_str()) else { return Ok(None) };
        if book.has_other_keys(&self.sink.key_hash(&published.view)) {
            return Err(ChangesError::OtherKeys);
        }
        if !self.plan(&published, book).await {
            return Ok(None);
        }
        let rows = loop {
            let Some(comparison) = &mut self.comparison else { return Ok(None) };
            if let Some(rows) = comparison.rows.front() {
                break rows.clone();
            }
            let Some(date) = comparison.dates.front().copied() else { break Vec::new() };
            let version = Arc::clone(&comparison.version);
            let rows = self.rows_of_date(&published, &version, date, book).await?;
            if let Some(comparison) = &mut self.comparison {
                comparison.rows = rows.chunks(SINK_ROWS_AT_ONCE).map(<[ChangedRow]>::to_vec).collect();
                comparison.dates.pop_front();
            }
        };
        let affected = AffectedRows::of_rows(published.view.window, rows, false);
        let fetch = match self.reader.live(&published, &affected.wanted).await {
            // The newer version is compared instead.
            Err(FetchError::Speed(SpeedError::SeamMoved)) => return Ok(Some(EpochBatch::default())),
            fetch => fetch?,
        };
        let mut batch = self.evaluate(book, fetch, affected).await?;
        batch.cut = book.committed().1;
        if let Some(comparison) = &mut self.comparison {
            comparison.rows.pop_front();
            if comparison.rows.is_empty() && comparison.dates.is_empty() {
                batch.cut.version = Some(comparison.version.version);
                self.compared = Some(Some(Arc::clone(&comparison.version)));
                self.comparison = None;
            }
        }
        Ok(Some(batch))
    }

    /// Plans which dates of the active version have to be compared. Returns whether any row has to be.
    async fn plan(&mut self, published: &Arc<PublishedView>, book: &Arc<SinkBook>) -> bool {
        let Some(version) = &published.version else { return false };
        if self.comparison.as_ref().is_some_and(|comparison| comparison.version.version == version.version) {
            return true;
        }
        let before = match &self.compared {
            Some(before) => before.clone(),
            None => self.version_of_topic(book).await,
        };
        if before.as_ref().is_some_and(|before| before.version == version.version) {
            self.compared = Some(before);
            return false;
        }
        let dates = changed_dates(version, before.as_deref()).into();
        self.comparison = Some(Comparison { version: Arc::clone(version), dates, rows: VecDeque::new() });
        // If the comparison is interrupted, the next one starts from the same version.
        self.compared = Some(before);
        true
    }

    /// Returns the version whose rows the topic has; `None`: every row has to be compared.
    async fn version_of_topic(&self, book: &Arc<SinkBook>) -> Option<Arc<BatchVersion>> {
        let version = book.committed().1.version.filter(|_| !book.sent(|sent| sent.has_stale()))?;
        let past = self.layers.past.at(&self.sink.view, Moment::Version(version)).await.ok()?;
        Some(Arc::clone(&past.version))
    }

    /// Returns the rows of a date: those of the version and those of the topic.
    async fn rows_of_date(
        &self,
        published: &Arc<PublishedView>,
        version: &BatchVersion,
        date: DatePartition,
        book: &Arc<SinkBook>,
    ) -> Result<Vec<ChangedRow>, ChangesError> {
        let range = date
            .day()
            .map_or(TimeRange::ALL, |day| TimeRange { from: day.start(), to: Day(day.0.saturating_add(1)).start() });
        let window = published.view.window;
        let is_of_date = |id: WindowId| date.day().is_none() || range.contains(window.bounds(id).0);
        let parts = self.layers.batch.parts(published, version, range, &QueryBudget::unlimited()).await;
        let parts = parts.map_err(FetchError::from)?;
        let of_parts = parts.iter().flat_map(|part| rows_of(part, usize::MAX)).flatten();
        let mut rows: HashSet<ChangedRow> = of_parts.filter(|(id, _)| is_of_date(*id)).collect();
        rows.extend(book.sent(|sent| sent.rows_of(is_of_date)));
        Ok(rows.into_iter().collect())
    }

    /// Compares rows with those that the topic has.
    async fn evaluate(
        &self,
        book: &Arc<SinkBook>,
        fetch: Fetch,
        affected: AffectedRows,
    ) -> Result<EpochBatch, ChangesError> {
        let (sink, reader, book) = (Arc::clone(&self.sink), Arc::clone(&self.reader), Arc::clone(book));
        let evaluated = tokio::task::spawn_blocking(move || differences(&sink, &reader, &book, fetch, &affected));
        evaluated.await?
    }
}

/// Returns the records that make the topic equal to the view in the affected rows. Blocking.
fn differences(
    sink: &Sink,
    reader: &RowReader,
    book: &SinkBook,
    fetch: Fetch,
    affected: &AffectedRows,
) -> Result<EpochBatch, ChangesError> {
    let published = Arc::clone(&fetch.published);
    let view = &*published.view;
    let first_shown = Horizon::of(&published).first_shown();
    let rows = fetch.merge(reader)?;
    let values = RowValues::new(view, &rows)?;
    let merged = &rows.merged;
    let (mut upserted, mut bodies, mut present) = (Vec::new(), Vec::new(), HashSet::new());
    for row in 0..merged.len() {
        let (window, key) = (merged.windows[row], merged.keys.get(merged.groups[row]));
        let is_dropped = first_shown.is_some_and(|first| view.window.bounds(window).0 < first);
        if is_dropped || !affected.has(window, key) || !values.is_shown(row) {
            continue;
        }
        let place: ChangedRow = (window, key.into());
        let value = values.value(row);
        let hash = ValueHash::of(&value);
        if book.sent(|sent| sent.get(window, key)) != Some(hash) {
            upserted.push(place.clone());
            bodies.push((row, value, hash));
        }
        present.insert(place);
    }
    let is_sent = |(window, key): &ChangedRow| book.sent(|sent| sent.get(*window, key)).is_some();
    let deleted: Vec<ChangedRow> =
        affected.named().filter(|place| !present.contains(*place) && is_sent(place)).cloned().collect();
    if book.sent(|sent| sent.len()) + upserted.len() > SINK_ROWS_MAX {
        return Err(ChangesError::TooManyRows);
    }
    let writer = RecordWriter::new(sink, view, published.version.as_ref().map(|version| version.version))?;
    let mut batch =
        EpochBatch { cut: EpochCut { position: rows.position.clone(), version: None }, ..EpochBatch::default() };
    for ((key, (window, encoded)), (row, value, hash)) in writer.keys(&upserted)?.into_iter().zip(upserted).zip(bodies)
    {
        batch.records.push(writer.upserted(key, value, &values, row));
        batch.changes.push(SentChange { window, key: encoded, value: Some(hash) });
    }
    for (key, (window, encoded)) in writer.keys(&deleted)?.into_iter().zip(deleted) {
        batch.records.push(writer.deleted(key));
        batch.changes.push(SentChange { window, key: encoded, value: None });
    }
    Ok(batch)
}

/// Returns the dates of files that only one of two versions has; without an earlier one, of all files.
fn changed_dates(version: &BatchVersion, before: Option<&BatchVersion>) -> Vec<DatePartition> {
    let paths =
        |version: &BatchVersion| version.files.iter().map(|file| file.path.clone()).collect::<HashSet<String>>();
    let (now, earlier) = (paths(version), before.map(paths).unwrap_or_default());
    let files = version.files.iter().chain(before.iter().flat_map(|before| &before.files));
    let changed = files.filter(|file| now.contains(&file.path) != earlier.contains(&file.path)).map(|file| file.date);
    let mut dates: Vec<DatePartition> = changed.collect();
    dates.sort_unstable();
    dates.dedup();
    dates
}
