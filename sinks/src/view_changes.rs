//! Finds what has changed in a view since the last epoch, as records: rows that folds have changed, rows of new batch versions,
//! and, with `emit = 'final'`, rows of windows that the watermark has passed.
//!
//! An epoch is a cut of the log. Each worker of the speed layer answers between two folds, so the rows it returns are those of
//! all events before its position and of no others. A row is in the epoch if it changed before the cut:
//!
//! ```text
//! take A from the queue → pin A → take B      the cut is that of the pin
//! B ⊆ A: every row that changed before the cut is in A, so the epoch is A; B waits for the next one
//! otherwise: pin A ∪ B and take again; after some attempts, pin all generations
//! ```
//!
//! A row is written if its value is not the one that the topic has, so a row that is visited twice is written once, and the
//! order of visits does not matter. Too many rows for one epoch, all live rows and the rows of a new version are visited in
//! pages ([`Walk`]), each in a transaction of its own; the epoch ends, and its cut counts, when no page is left.
//!
//! With `emit = 'final'`, a row that the topic does not have waits until the watermark has passed its window. The watermark is
//! always one that was shown before the pin: so the pin has every event that moved it. The end of a session is known only once
//! its row is computed, so changed sessions are visited at once, and those found open wait ([`crate::sessions`]).

use std::collections::HashSet;
use std::sync::Arc;

use alerts::affected::AffectedRows;
use alerts::fetch::{Fetch, FetchError, RowReader};
use alerts::finished::FinishError;
use arrow::error::ArrowError;
use shared::changed_rows::{ChangedRow, ChangedRows, ChangedView, Changes};
use shared::clock::Clock;
use shared::date_partition::DatePartition;
use shared::evaluate::EvaluateError;
use shared::handoff::HandoffError;
use shared::limits::{SINK_READ_BYTES_MAX, SINK_ROWS_MAX};
use shared::partial::query_budget::Exceeded;
use shared::published::{PublishedView, Views};
use shared::readers::{BatchReadError, BatchReader, Moment, PastReader, SpeedError, SpeedReader};
use shared::sink::{Emit, Sink};
use shared::time::{Day, Micros};
use shared::time_range::TimeRange;
use shared::version::BatchVersion;
use shared::window::{Window, WindowId};

use crate::book::{EpochCut, SinkBook};
use crate::differences::{EpochBatch, EpochBounds, differences};
use crate::page::Page;
use crate::sizes::EpochSizes;
use crate::waiting::WaitingRows;
use crate::walk::{Comparison, Walk, changed_dates, open_dates};

/// Attempts to find a cut with some rows alone, and attempts before a moving seam is given up on until the next epoch.
const TRIES: usize = 4;

/// The layers that rows are read from, and the clock.
#[derive(Clone)]
pub struct SinkLayers {
    pub views: Arc<Views>,
    pub speed: Arc<dyn SpeedReader>,
    pub batch: Arc<dyn BatchReader>,
    pub past: Arc<dyn PastReader>,
    pub clock: Arc<dyn Clock>,
}

/// The reason why changes were not found.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    #[error("cannot read the view: {0}")]
    Fetch(FetchError),
    #[error(
        "cannot read the view: a date of its version has more than {SINK_READ_BYTES_MAX} bytes of rows (SINK_READ_BYTES_MAX); \
         declare the sink on a view with coarser groups"
    )]
    TooLarge,
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
        "the records of the topic have other keys or were written with another emit: declare the sink under another name and topic"
    )]
    OtherKeys,
    #[error("cannot read the events of the stream: {0}")]
    Events(#[from] HandoffError),
    #[error("cannot evaluate the expressions of the sink: {0}")]
    Evaluate(#[from] EvaluateError),
}

impl From<FetchError> for ChangesError {
    fn from(error: FetchError) -> ChangesError {
        match error {
            FetchError::Batch(BatchReadError::Exceeded(Exceeded::Bytes { .. })) => ChangesError::TooLarge,
            error => ChangesError::Fetch(error),
        }
    }
}

/// Finds the changes of one sink.
pub struct ViewChanges {
    sink: Arc<Sink>,
    layers: SinkLayers,
    reader: Arc<RowReader>,
    queue: Arc<ChangedRows>,
    sizes: EpochSizes,
    /// Rows that the epoch in progress visits, and those that may have changed after its cut.
    visited: HashSet<ChangedRow>,
    next: HashSet<ChangedRow>,
    /// The version that the last epoch served.
    served: Option<ChangedView>,
    /// The version that the topic has; the outer `None`: not known yet.
    compared: Option<Option<Arc<BatchVersion>>>,
    walk: Walk,
    /// Of a sink with `emit = 'final'`: rows of open windows, and the watermark that decides which windows are closed.
    waiting: WaitingRows,
    watermark: Option<Micros>,
    /// Whether rows of the version may be missing in `waiting`.
    has_lost_waiting: bool,
}

impl ViewChanges {
    /// Returns the changes of `sink`, whose view reports the rows that change to `queue`. Visits every row first.
    pub fn new(sink: Arc<Sink>, layers: SinkLayers, queue: Arc<ChangedRows>, sizes: EpochSizes) -> ViewChanges {
        let reader = RowReader::new(Arc::clone(&layers.speed), Arc::clone(&layers.batch)).within(SINK_READ_BYTES_MAX);
        let mut changes = ViewChanges {
            has_lost_waiting: sink.emit == Emit::Final,
            sink,
            layers,
            reader: Arc::new(reader),
            queue,
            sizes,
            visited: HashSet::new(),
            next: HashSet::new(),
            served: None,
            compared: None,
            walk: Walk::new(sizes.page_rows),
            waiting: WaitingRows::new(sizes.waiting_bytes),
            watermark: None,
        };
        changes.walk.visit_live();
        changes
    }

    /// Visits every row again in the next epochs.
    pub fn visit_all(&mut self) {
        self.walk.visit_live();
        (self.compared, self.walk.comparison) = (None, None);
        self.has_lost_waiting = self.sink.emit == Emit::Final;
    }

    /// Returns whether more rows are to be visited at once.
    pub fn is_walking(&self) -> bool {
        self.walk.is_pending()
    }

    /// Notes that the topic has the last batch of [`ViewChanges::walk`].
    pub fn walked(&mut self) {
        self.walk.written();
    }

    /// Notes that the topic has the last batch of [`ViewChanges::live`].
    pub fn settle(&mut self) {
        self.visited = std::mem::take(&mut self.next);
    }

    /// Returns the changes of rows that folds have changed, as of a new cut. Call [`ViewChanges::settle`] once they are
    /// written, unless the batch is partial.
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
        let Some(published) = self.published(book)? else {
            return Ok(EpochBatch { cut: book.committed().1, ..EpochBatch::default() });
        };
        let view: ChangedView = (published.view.name.clone(), Arc::clone(&published.definition_hash));
        if self.served.as_ref().is_some_and(|served| *served != view) {
            self.walk.visit_live();
        }
        if self.served.is_none() && !published.view.joins.is_empty() {
            // A replay joins events with the rows that tables have now: they may be in other groups than before.
            self.walk.visit_sent();
        }
        // A changed definition reports its rows as well while it is being computed.
        self.queue.retain(std::slice::from_ref(&view));
        let changed = self.take_changed(&published, &view, book);
        self.visited.extend(changed);
        let due = self.take_due();
        self.visited.extend(due);
        let (fetch, affected, watermark) = self.cut(&published, &view, book).await?;
        self.served = Some(view);
        let mut batch = self.evaluate(book, fetch, affected, watermark).await?;
        let EpochCut { position, version, watermark: before, .. } = book.committed().1;
        if batch.is_partial || self.walk.holds_cut() {
            batch.cut.position = position;
        }
        let is_complete = !batch.is_partial && !self.walk.is_pending() && !self.has_lost_waiting;
        batch.cut.watermark = if is_complete { watermark } else { before };
        let compared = self.compared.as_ref().filter(|_| self.walk.comparison.is_none());
        batch.cut.version = compared.map_or(version, |compared| compared.as_ref().map(|version| version.version));
        Ok(batch)
    }

    /// Reads the visited rows as of a cut, before which no other row has changed or become final. Returns the watermark whose
    /// windows count as closed as well.
    async fn cut(
        &mut self,
        published: &Arc<PublishedView>,
        view: &ChangedView,
        book: &SinkBook,
    ) -> Result<(Fetch, AffectedRows, Option<Micros>), ChangesError> {
        let window = published.view.window;
        for _ in 0..TRIES {
            if self.visited.len() > self.sizes.epoch_rows {
                // I9: the rows are visited in pages, and the cut is the one after the last.
                self.walk.visit_changed(self.visited.drain());
            }
            let affected = affected_rows(window, self.visited.iter().cloned());
            let fetch = self.reader.live(published, &affected.wanted).await?;
            let later = self.take_changed(published, view, book);
            let closed = self.watermark;
            if self.sink.emit == Emit::Final {
                self.watermark = self.watermark.max(fetch.watermark());
            }
            let due = self.take_due();
            if due.is_empty() && later.is_subset(&self.visited) {
                self.next = later;
                return Ok((fetch, affected, closed));
            }
            self.visited.extend(later.into_iter().chain(due));
        }
        let closed = self.watermark;
        let pin = self.layers.speed.pin(published, &published.seam).await.map_err(FetchError::from)?;
        let later = self.take_changed(published, view, book);
        self.visited.extend(later.iter().cloned());
        self.next = later;
        let affected = affected_rows(window, self.visited.iter().cloned());
        Ok((self.reader.pinned(published, &affected.wanted, pin).await?, affected, closed))
    }

    /// Takes what folds have changed. Returns the rows that can be written, of every window that the changes belong to.
    fn take_changed(&mut self, published: &PublishedView, view: &ChangedView, book: &SinkBook) -> HashSet<ChangedRow> {
        match self.queue.take(view, usize::MAX) {
            Some(Changes::Rows(panes)) => {
                self.closed_rows(rows_of_panes(published.view.window, panes), published, book)
            }
            Some(Changes::All) => {
                self.walk.visit_live();
                HashSet::new()
            }
            None => HashSet::new(),
        }
    }

    /// Takes the waiting rows of windows that the watermark has passed.
    fn take_due(&mut self) -> Vec<ChangedRow> {
        let Some(watermark) = self.watermark else { return Vec::new() };
        if self.waiting.take_lost(watermark) {
            self.walk.visit_live();
            self.has_lost_waiting = true;
        }
        self.waiting.take_due(watermark)
    }

    /// Returns the rows that the topic has, or whose windows are closed; the others wait. Without `emit = 'final'`, and of
    /// sessions, all rows.
    fn closed_rows<R: FromIterator<ChangedRow>>(
        &mut self,
        rows: impl IntoIterator<Item = ChangedRow>,
        published: &PublishedView,
        book: &SinkBook,
    ) -> R {
        if self.sink.emit == Emit::Changes || is_session(published.view.window) {
            return rows.into_iter().collect();
        }
        let watermark = self.watermark;
        book.sent(|sent| {
            let is_closed = |row: &ChangedRow| {
                let Some(end) = published.view.window.bounds(row.0).1 else { return false };
                let is_closed =
                    watermark.is_some_and(|watermark| end <= watermark) || sent.get(row.0, &row.1).is_some();
                if !is_closed {
                    self.waiting.add(end, row.clone());
                }
                is_closed
            };
            rows.into_iter().filter(is_closed).collect()
        })
    }

    /// Returns the changes of a page of rows that are visited besides those that folds report; `None`: there is no page. Call
    /// [`ViewChanges::walked`] once they are written, unless the batch is partial.
    ///
    /// # Errors
    /// A layer cannot be read. The same rows are visited the next time.
    pub async fn walk(&mut self, book: &Arc<SinkBook>) -> Result<Option<EpochBatch>, ChangesError> {
        let Some(published) = self.published(book)? else { return Ok(None) };
        // The workers have the events that moved it: they read the log before they answer.
        self.watermark = self.watermark.max(book.committed().1.watermark);
        let page = loop {
            if let Some(page) = self.walk.page() {
                break page.clone();
            }
            match self.read_page(&published, book).await {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                // Another version was published: its rows are visited in the next epoch.
                Err(ChangesError::Fetch(FetchError::Speed(SpeedError::SeamMoved))) => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        let affected = affected_rows(published.view.window, page);
        let fetch = match self.reader.live(&published, &affected.wanted).await {
            Err(FetchError::Speed(SpeedError::SeamMoved)) => return Ok(None),
            fetch => fetch?,
        };
        let batch = self.evaluate(book, fetch, affected, self.watermark).await?;
        Ok(Some(EpochBatch { cut: book.committed().1, ..batch }))
    }

    /// Reads the next page of live rows, or else of the version. Returns whether the walk may have another page.
    async fn read_page(&mut self, published: &Arc<PublishedView>, book: &Arc<SinkBook>) -> Result<bool, ChangesError> {
        if let Some(live) = self.walk.live() {
            let after = live.after.clone();
            let mut page = Page::new(after.as_ref(), self.sizes.page_rows, self.sizes.page_bytes);
            let pin = self.layers.speed.pin(published, &published.seam).await.map_err(FetchError::from)?;
            pin.generations.iter().for_each(|generation| page.offer_part(&generation.part, |_| true));
            let panes = page.into_rows();
            let last = panes.last().cloned();
            let rows = rows_of_panes(published.view.window, panes);
            let rows = self.closed_rows(rows, published, book);
            self.walk.live_page(rows, last);
            return Ok(true);
        }
        if let Some(walk) = self.walk.sent() {
            let mut page = Page::new(walk.after.as_ref(), self.sizes.page_rows, self.sizes.page_bytes);
            book.sent(|sent| sent.for_each_of(|_| true, |window, key| page.offer(window, key)));
            let rows = page.into_rows();
            self.walk.sent_page(rows);
            return Ok(true);
        }
        if !self.plan(published, book).await {
            return Ok(false);
        }
        let Some(comparison) = &self.walk.comparison else { return Ok(false) };
        let version = Arc::clone(&comparison.version);
        let Some(date) = comparison.dates.front().copied() else {
            self.compared = Some(Some(version));
            self.walk.comparison = None;
            return Ok(false);
        };
        let after = comparison.after.clone();
        let page = self.page_of_date(published, &version, (date, after.as_ref()), book).await?;
        let last = page.last().cloned();
        let rows = self.closed_rows(page, published, book);
        self.walk.date_page(rows, last);
        Ok(true)
    }

    /// Plans which dates of the active version have to be visited. Returns whether any row has to be.
    async fn plan(&mut self, published: &Arc<PublishedView>, book: &Arc<SinkBook>) -> bool {
        let Some(version) = &published.version else {
            self.has_lost_waiting = false;
            return false;
        };
        let replaced = self.walk.comparison.as_ref();
        if replaced.is_some_and(|comparison| comparison.version.version == version.version) && !self.has_lost_waiting {
            return true;
        }
        let reads_open = self.has_lost_waiting || (replaced.is_some() && self.sink.emit == Emit::Final);
        let before = match &self.compared {
            Some(before) => before.clone(),
            None => self.version_of_topic(book).await,
        };
        let is_same = before.as_ref().is_some_and(|before| before.version == version.version);
        let window = published.view.window;
        let mut dates = if is_same { Vec::new() } else { changed_dates(version, before.as_deref()) };
        if before.is_none() {
            // The version may have no file of them.
            book.sent(|sent| sent.for_each_of(|_| true, |id, _| dates.push(date_of(window, id))));
        } else if !is_same {
            // What a run has excluded may have been all that a date had, before any version had a file of it.
            let filed: HashSet<DatePartition> = version.files.iter().map(|file| file.date).collect();
            let has_file = |id: WindowId| filed.contains(&date_of(window, id));
            book.sent(|sent| sent.for_each_of(|id| !has_file(id), |id, _| dates.push(date_of(window, id))));
        }
        if !is_same && is_session(window) {
            // A live session may start before the batch sessions that it meets, on a date whose file is the same.
            self.walk.visit_live();
        }
        if reads_open {
            dates.extend(open_dates(version, window, book.committed().1.watermark));
        }
        dates.sort_unstable();
        dates.dedup();
        self.has_lost_waiting = false;
        // If the walk is interrupted, the next one starts from the same version.
        self.compared = Some(before);
        if is_same && dates.is_empty() {
            return false;
        }
        self.walk.comparison = Some(Comparison { version: Arc::clone(version), dates: dates.into(), after: None });
        true
    }

    /// Returns the version whose rows the topic has; `None`: every row has to be visited.
    async fn version_of_topic(&self, book: &Arc<SinkBook>) -> Option<Arc<BatchVersion>> {
        let version = book.committed().1.version.filter(|_| !book.sent(|sent| sent.has_stale()))?;
        let past = self.layers.past.at(&self.sink.view, Moment::Version(version)).await.ok()?;
        Some(Arc::clone(&past.version))
    }

    /// Returns the next rows of a date: those of the version and those of the topic.
    async fn page_of_date(
        &self,
        published: &Arc<PublishedView>,
        version: &BatchVersion,
        (date, after): (DatePartition, Option<&ChangedRow>),
        book: &Arc<SinkBook>,
    ) -> Result<Vec<ChangedRow>, ChangesError> {
        let range = date
            .day()
            .map_or(TimeRange::ALL, |day| TimeRange { from: day.start(), to: Day(day.0.saturating_add(1)).start() });
        let window = published.view.window;
        let is_of_date = |id: WindowId| date.day().is_none() || range.contains(window.bounds(id).0);
        let parts = self.reader.parts(published, version, range).await.map_err(FetchError::from)?;
        let mut page = Page::new(after, self.sizes.page_rows, self.sizes.page_bytes);
        parts.iter().for_each(|part| page.offer_part(part, is_of_date));
        book.sent(|sent| sent.for_each_of(is_of_date, |window, key| page.offer(window, key)));
        Ok(page.into_rows())
    }

    /// Returns the view as it is served; `None`: it is not.
    fn published(&self, book: &SinkBook) -> Result<Option<Arc<PublishedView>>, ChangesError> {
        let Some(published) = self.layers.views.get(self.sink.view.as_str()) else { return Ok(None) };
        match book.has_other_keys(&self.sink.key_hash(&published.view)) {
            true => Err(ChangesError::OtherKeys),
            false => Ok(Some(published)),
        }
    }

    /// Compares rows with those that the topic has. Windows that `closed_until` has passed are closed.
    async fn evaluate(
        &mut self,
        book: &Arc<SinkBook>,
        fetch: Fetch,
        affected: AffectedRows,
        closed_until: Option<Micros>,
    ) -> Result<EpochBatch, ChangesError> {
        let (sink, reader, book) = (Arc::clone(&self.sink), Arc::clone(&self.reader), Arc::clone(book));
        let (bytes_max, now) = (self.sizes.transaction_bytes, self.layers.clock.now());
        let bounds = EpochBounds { bytes_max, closed_until, now };
        let evaluated =
            tokio::task::spawn_blocking(move || differences(&sink, &reader, &book, fetch, &affected, bounds));
        let mut batch = evaluated.await??;
        batch.open.drain(..).for_each(|open| self.waiting.add_session(open.end, open.row));
        Ok(batch)
    }
}

fn is_session(window: Window) -> bool {
    matches!(window, Window::Session { .. })
}

/// Returns the rows that have to be compared if these have changed.
fn affected_rows(window: Window, rows: impl IntoIterator<Item = ChangedRow>) -> AffectedRows {
    match is_session(window) {
        true => AffectedRows::of_sessions(window, rows),
        false => AffectedRows::of_rows(window, rows, false),
    }
}

/// Returns the date of the files that have a row.
fn date_of(window: Window, id: WindowId) -> DatePartition {
    match window {
        Window::All => DatePartition::AllTime,
        _ => DatePartition::of_day(window.bounds(id).0.day()),
    }
}

/// Returns the rows of the windows that cover these panes.
fn rows_of_panes(window: Window, panes: Vec<ChangedRow>) -> HashSet<ChangedRow> {
    if !window.overlaps() {
        return panes.into_iter().collect();
    }
    let mut rows = HashSet::new();
    for (pane, key) in panes {
        window.for_each_window(pane.pane(), |id| {
            rows.insert((id, key.clone()));
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_that_is_too_large_is_explained() {
        let exceeded = BatchReadError::Exceeded(Exceeded::Bytes { bytes_max: 7 });
        let error = ChangesError::from(FetchError::from(exceeded)).to_string();
        assert!(error.contains("SINK_READ_BYTES_MAX") && error.contains("coarser groups"), "{error}");
        let other = BatchReadError::Exceeded(Exceeded::Time);
        assert!(matches!(ChangesError::from(FetchError::from(other)), ChangesError::Fetch(_)));
    }
}
