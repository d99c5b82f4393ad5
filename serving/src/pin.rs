//! Pins the state that answers a query: one batch version and the generations from its seam on.
//!
//! The pointer to the version is read once. If the seam has moved by the time speed is read, both are read again. The
//! pinned state is then checked against the ledger: every accepted event is in batch, in speed, or late.

use std::sync::Arc;
use std::time::Instant;

use shared::failed_events::FailedEvents;
use shared::handoff::HandoffError;
use shared::ledger::Ledger;
use shared::partial::block::Part;
use shared::partial::merge::Layers;
use shared::partial::query_budget::{Exceeded, QueryBudget};
use shared::published::{PublishedView, Views};
use shared::readers::{
    BatchReadError, BatchReader, FileGone, Moment, PastError, PastReader, PastVersion, SpeedError, SpeedPin,
    SpeedReader,
};
use shared::time::Micros;
use shared::time_range::TimeRange;
use shared::version::BatchVersion;
use shared::view::View;
use shared::window::{Window, WindowId};

use crate::admission::{Admission, AdmissionError, AdmittedQuery};
use crate::approximate::reads_estimates;
use crate::query::bound::{BoundQuery, Instants};
use crate::query::{LayerChoice, Query, QueryError};
use crate::query::{as_of, version_choice};
use crate::session_range::{self, starts_needed};

/// Attempts before a moving seam is given up on. A seam moves once per run, so two moves are already unlikely.
const TRIES: usize = 4;
/// Live sessions that are scanned on the request's own thread: less than a millisecond of work.
const SESSIONS_INLINE_MAX: usize = 20_000;
/// Cost of merging and finishing a sketch, in plain states.
const ROWS_PER_SKETCH: usize = 64;

/// Handles to read from the layers.
#[derive(Clone)]
pub struct LayerReaders {
    pub views: Arc<Views>,
    pub speed: Arc<dyn SpeedReader>,
    pub batch: Arc<dyn BatchReader>,
    pub past: Arc<dyn PastReader>,
}

/// The reason why a view could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no view called \"{0}\"")]
    UnknownView(String),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("the cursor has expired: a new batch version was published; start again without it")]
    CursorExpired,
    #[error("speed: {0}")]
    Speed(#[from] SpeedError),
    #[error("batch: {0}")]
    Batch(HandoffError),
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    #[error(transparent)]
    Past(#[from] PastError),
    #[error(transparent)]
    Refused(#[from] AdmissionError),
}

impl From<BatchReadError> for ReadError {
    fn from(error: BatchReadError) -> ReadError {
        match error {
            BatchReadError::Exceeded(exceeded) => ReadError::Exceeded(exceeded),
            BatchReadError::Unavailable(error) => ReadError::Batch(error),
            BatchReadError::Gone(gone) => ReadError::Batch(HandoffError(gone.to_string())),
        }
    }
}

/// Event counts by layer: every accepted event must be in exactly one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Accepted up to the ends of the generations, as the log counted them.
    pub accepted: Ledger,
    /// Accounted for by the batch version.
    pub batch: Ledger,
    /// Folded by speed since the seam.
    pub speed: Ledger,
    /// Excluded by speed since the seam, as late.
    pub late: Ledger,
    /// Excluded by speed since the seam, because an expression failed for them.
    pub failed: Ledger,
    /// Excluded by the batch version for the same reason; `batch` accounts for them.
    pub failed_in_batch: u64,
    /// Accepted before the seam.
    pub before_seam: Ledger,
    /// Only in the archive until the first run; part of `accepted`.
    pub unread: Ledger,
}

impl Balance {
    /// Counts the events of a pin.
    pub fn of(published: &PublishedView, pin: &SpeedPin) -> Balance {
        let accepted_until_end = |partition, at_seam| {
            let ends = pin.generations.iter().filter(|g| g.partition == partition);
            ends.max_by_key(|g| g.to).map_or(at_seam, |g| g.accepted)
        };
        let points = published.seam.0.iter();
        Balance {
            accepted: points
                .map(|(partition, point)| accepted_until_end(*partition, point.accepted))
                .fold(published.unread, |sum, accepted| sum + accepted),
            batch: published.version.as_ref().map_or(Ledger::EMPTY, |version| version.ledger),
            speed: pin.generations.iter().map(|g| g.folded).sum(),
            late: pin.generations.iter().map(|g| g.late).sum(),
            failed: pin.generations.iter().map(|g| g.failed).sum(),
            failed_in_batch: published.version.as_ref().map_or(0, |version| version.failed.events()),
            before_seam: published.seam.accepted(),
            unread: published.unread,
        }
    }

    /// Returns true if the layers of `layer` account for every event, and none failed.
    pub fn is_complete(&self, layer: LayerChoice) -> bool {
        let failed = match layer {
            LayerChoice::Merged => self.failed_in_batch + self.failed.events,
            LayerChoice::Batch => self.failed_in_batch,
            LayerChoice::Speed => self.failed.events,
        };
        failed == 0 && self.is_balanced(layer)
    }

    /// Returns true if no event is missing or counted twice in the layers of `layer`, failed ones included.
    pub fn is_balanced(&self, layer: LayerChoice) -> bool {
        // I2: batch accounts for the events before the seam, speed for those from it on.
        let since_seam = self.speed + self.late + self.failed;
        match layer {
            // I2: nothing twice, nothing missing.
            LayerChoice::Merged => self.batch + since_seam == self.accepted,
            LayerChoice::Batch => self.batch == self.before_seam + self.unread,
            LayerChoice::Speed => self.before_seam + since_seam + self.unread == self.accepted,
        }
    }
}

/// Rows of a version, and the layer that computed them.
#[derive(Debug, Clone)]
pub struct VersionPart {
    pub part: Arc<Part>,
    pub layers: Layers,
}

/// The state of a view at one moment: one version, and the generations from its seam on.
#[derive(Debug)]
pub struct ViewPin {
    pub published: Arc<PublishedView>,
    /// Rows of the batch version that may lie in the query's range; empty if the query excludes batch.
    pub batch: Vec<VersionPart>,
    /// The generations, even if the query excludes speed: they decide finality.
    pub speed: Arc<SpeedPin>,
    pub balance: Balance,
    /// True if the balance holds for the layers of the query.
    pub complete: bool,
    /// The version of the past that answers, leased while this value lives.
    pub past: Option<PastVersion>,
}

impl ViewPin {
    /// Returns the parts of the layers in `layer`.
    pub fn parts(&self, layer: LayerChoice) -> Vec<(&Part, Layers)> {
        let batch = self.batch.iter().map(|VersionPart { part, layers }| (part.as_ref(), *layers));
        let speed = self.speed.generations.iter().map(|g| (&g.part, Layers::SPEED));
        match layer {
            LayerChoice::Merged => batch.chain(speed).collect(),
            LayerChoice::Batch => batch.collect(),
            LayerChoice::Speed => speed.collect(),
        }
    }

    /// Returns the events that the layers in `layer` exclude because an expression failed for them.
    pub fn failed_events(&self, layer: LayerChoice) -> Vec<&FailedEvents> {
        let version = self.published.version.iter().filter(|_| layer != LayerChoice::Speed).map(|v| &v.failed);
        let speed = self.speed.generations.iter().filter(|_| layer != LayerChoice::Batch).map(|g| &*g.failed_events);
        version.chain(speed).filter(|failed| !failed.is_empty()).collect()
    }

    /// Estimates the work of merging `query`, in plain states: rows and keys, weighted by the cost of sketches.
    pub fn work(&self, query: &BoundQuery) -> usize {
        let view = self.published.view.as_ref();
        let sketched = (0..view.measures.len()).any(|measure| reads_estimates(view, measure));
        let weight = if sketched { ROWS_PER_SKETCH } else { 1 };
        let parts = self.parts(query.layer);
        parts.iter().map(|(part, _)| rows_to_merge(view, query, part) * weight + part.keys.len()).sum()
    }
}

/// A query with the state that answers it.
#[derive(Debug)]
pub struct PinnedQuery {
    pub query: BoundQuery,
    pub pinned: ViewPin,
    /// The admission under which rows of batch were loaded; `None`: all of them were in memory.
    pub admitted: Option<AdmittedQuery>,
}

/// The limits of queries, and when this one arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub admission: &'a Admission,
    pub since: Instant,
    /// True for a poll of a live query.
    pub is_live: bool,
}

impl Arrival<'_> {
    /// Waits until the query may run.
    pub async fn admit(self) -> Result<AdmittedQuery, AdmissionError> {
        match self.is_live {
            true => self.admission.admit_live(self.since).await,
            false => self.admission.admit(self.since).await,
        }
    }
}

/// Counts the rows of `part` that may contribute to the result, once per window that covers them.
pub fn rows_to_merge(view: &View, query: &BoundQuery, part: &Part) -> usize {
    let windows = WindowId(query.from)..WindowId(query.to);
    let range = match view.window {
        Window::Session { .. } | Window::TableSession { .. } => WindowId::EVERY,
        window if part.panes => {
            let panes = window.panes_of(&windows);
            panes.start.window()..panes.end.window()
        }
        _ => windows,
    };
    let rows = part.blocks.iter().map(|block| block.candidates(&range).len()).sum::<usize>();
    let mut covering = 0;
    match part.blocks.iter().find_map(|block| block.windows.first()) {
        Some(pane) if part.panes => view.window.for_each_window(pane.pane(), |_| covering += 1),
        _ => covering = 1,
    }
    rows * covering.max(1)
}

/// Parses the query on the view called `name`, within the row filter `permitted`, and pins the state that answers it at
/// `now`. Rows of batch that are not in memory are loaded once the query is admitted, within what it may use.
pub async fn pin(
    layers: &LayerReaders,
    name: &str,
    parameters: &[(String, String)],
    permitted: Option<&str>,
    now: Micros,
    arrival: Arrival<'_>,
) -> Result<PinnedQuery, ReadError> {
    let mut tries = 0;
    loop {
        tries += 1;
        // I6: one pointer holds the version and its seam; generations are pinned from that seam on.
        let published = layers.views.get(name).ok_or_else(|| ReadError::UnknownView(name.to_owned()))?;
        if let Some(moment) = version_choice::parse(&published, parameters, permitted, now)? {
            return pin_past(layers, &published, moment, parameters, permitted, arrival).await;
        }
        let query = Query::parse(&published.view, parameters, permitted)?;
        if query.cursor.is_some_and(|cursor| !cursor.is_current(&published)) {
            return Err(ReadError::CursorExpired);
        }
        match pin_once(layers, &published, query, now, arrival).await {
            Err(ReadError::Speed(SpeedError::SeamMoved)) if tries < TRIES => tokio::task::yield_now().await,
            // A version that has been replaced may lose its files; the newer one has its own.
            Err(ReadError::Batch(_)) if tries < TRIES && is_replaced(layers, name, &published) => {}
            result => return result,
        }
    }
}

/// Pins a version of the past: batch alone, as it was when it was published.
async fn pin_past(
    layers: &LayerReaders,
    current: &PublishedView,
    moment: Moment,
    parameters: &[(String, String)],
    permitted: Option<&str>,
    arrival: Arrival<'_>,
) -> Result<PinnedQuery, ReadError> {
    let past = layers.past.at(&current.view.name, moment).await?;
    let (published, version) = (Arc::clone(&past.published), Arc::clone(&past.version));
    let instants = Instants { now: version.published_at, latest_event: version.latest_event };
    let query = Query::parse(&published.view, parameters, permitted)?;
    let query = query.bind(&published, LayerChoice::Batch, instants)?;
    // The generations of that time have been dropped; the version records the watermark and the latest event.
    let (watermark, latest_event) = (version.watermark, version.latest_event);
    let speed = Arc::new(SpeedPin { generations: Vec::new(), watermark, latest_event });
    let range = batch_range(&published, &query, &speed).await?;
    let (batch, admitted) = load(layers, (&published, &version), range, arrival).await?;
    let balance = Balance::of(&published, &speed);
    let complete = balance.is_complete(query.layer);
    let pinned = ViewPin { published, batch, speed, balance, complete, past: Some(past) };
    Ok(PinnedQuery { query, pinned, admitted })
}

fn is_replaced(layers: &LayerReaders, name: &str, published: &Arc<PublishedView>) -> bool {
    layers.views.get(name).is_some_and(|now| !Arc::ptr_eq(&now, published))
}

/// Pins the speed layer of a view alone, to describe its state; returns the published version the pin belongs to.
pub async fn pin_speed(layers: &LayerReaders, name: &str) -> Result<(Arc<PublishedView>, SpeedPin), ReadError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let published = layers.views.get(name).ok_or_else(|| ReadError::UnknownView(name.to_owned()))?;
        match layers.speed.pin(&published, &published.seam).await {
            Ok(pin) => return Ok((published, pin)),
            Err(SpeedError::SeamMoved) if tries < TRIES => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Pins one version and the generations from its seam on.
async fn pin_once(
    layers: &LayerReaders,
    published: &Arc<PublishedView>,
    query: Query,
    now: Micros,
    arrival: Arrival<'_>,
) -> Result<PinnedQuery, ReadError> {
    // I6: both sides come from the one pointer that was read before.
    let speed = Arc::new(layers.speed.pin(published, &published.seam).await?);
    let layer = query.layer;
    let query = query.bind(published, layer, Instants { now, latest_event: speed.latest_event })?;
    if layer != LayerChoice::Batch {
        as_of::refuse_released(&query, &speed.generations)?;
    }
    let (mut batch, mut admitted) = (Vec::new(), None);
    if let Some(version) = &published.version
        && layer != LayerChoice::Speed
    {
        let range = batch_range(published, &query, &speed).await?;
        (batch, admitted) = load(layers, (published, version), range, arrival).await?;
    }
    let balance = Balance::of(published, &speed);
    let complete = balance.is_complete(layer);
    if !balance.is_balanced(layer) {
        report_mismatch(published, &balance);
    }
    let pinned = ViewPin { published: Arc::clone(published), batch, speed, balance, complete, past: None };
    Ok(PinnedQuery { query, pinned, admitted })
}

/// Returns the rows of a version. If some are not in memory, waits for admission first, and loads within its allowance.
async fn load(
    layers: &LayerReaders,
    (published, version): (&PublishedView, &BatchVersion),
    range: TimeRange,
    arrival: Arrival<'_>,
) -> Result<(Vec<VersionPart>, Option<AdmittedQuery>), ReadError> {
    // A run replaces the files of the active version; nothing brings back those of one before it.
    let is_past = !is_active(layers, published, version);
    let unavailable = |error: BatchReadError| match error {
        BatchReadError::Gone(FileGone { view, path }) if is_past => {
            ReadError::Past(PastError::FileGone { view, version: version.version, path })
        }
        error => error.into(),
    };
    // One part for each file, in their order.
    let origins = version.files_touching(range).map(|file| Layers::of_version(file.origin));
    let with_origins = |parts: Vec<Arc<Part>>| {
        let layers = origins.chain(std::iter::repeat(Layers::BATCH));
        parts.into_iter().zip(layers).map(|(part, layers)| VersionPart { part, layers }).collect()
    };
    if layers.batch.bytes_to_load(published, version, range) == 0 {
        let batch = layers.batch.parts(published, version, range, &QueryBudget::unlimited()).await;
        return Ok((with_origins(batch.map_err(unavailable)?), None));
    }
    let admitted = arrival.admit().await?;
    let batch = layers.batch.parts(published, version, range, admitted.allowance()).await.map_err(unavailable)?;
    Ok((with_origins(batch), Some(admitted)))
}

/// Returns whether `version` is the active one of its view.
fn is_active(layers: &LayerReaders, published: &PublishedView, version: &BatchVersion) -> bool {
    let now = layers.views.get(published.view.name.as_str()).and_then(|now| now.version.clone());
    now.is_some_and(|active| active.version == version.version)
}

/// Returns the range of window starts for which batch is read.
async fn batch_range(
    published: &Arc<PublishedView>,
    query: &BoundQuery,
    speed: &Arc<SpeedPin>,
) -> Result<TimeRange, ReadError> {
    let range = TimeRange::of_micros(query.from, query.to);
    if let Window::TableSession { gap } = published.view.window {
        return Ok(session_range::rows_needed(gap, range));
    }
    let (Window::Session { gap }, Some(version)) = (published.view.window, &published.version) else {
        return Ok(range);
    };
    let mut dimensions = query.request.dimensions.clone();
    dimensions.sort_unstable();
    let full_key = dimensions.into_iter().eq(0..published.view.dimensions.len());
    let live: usize = speed.generations.iter().map(|generation| generation.part.rows()).sum();
    if live <= SESSIONS_INLINE_MAX {
        return Ok(starts_needed(version, speed, gap, full_key, range));
    }
    let (version, speed) = (Arc::clone(version), Arc::clone(speed));
    let work = tokio::task::spawn_blocking(move || starts_needed(&version, &speed, gap, full_key, range));
    work.await.map_err(|_| ReadError::Speed(SpeedError::Stopped))
}

fn report_mismatch(published: &PublishedView, balance: &Balance) {
    let view = &published.view.name;
    metrics::counter!("trueup_ledger_mismatch_total", "view" => view.to_string()).increment(1);
    tracing::error!(
        %view,
        accepted = balance.accepted.events,
        batch = balance.batch.events,
        speed = balance.speed.events,
        late = balance.late.events,
        before_seam = balance.before_seam.events,
        "ledger mismatch: events are missing or counted twice"
    );
}
