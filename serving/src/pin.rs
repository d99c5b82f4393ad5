//! Which state answers a query? One batch version and the generations from its seam on, held for as long as needed.
//!
//! The pointer to the version is taken once; if speed has meanwhile dropped what lies before a newer seam, everything is
//! taken anew. What was pinned is then counted: every accepted event must be in batch, in speed or among the late ones.

use std::sync::Arc;

use shared::handoff::HandoffError;
use shared::ledger::Ledger;
use shared::partial::block::Part;
use shared::partial::merge::Layers;
use shared::published::{Published, Views};
use shared::readers::{BatchReader, Moment, Past, PastError, PastReader, SpeedError, SpeedPin, SpeedReader};
use shared::time::Micros;
use shared::view::View;
use shared::window::Window;

use crate::approximate::reads_estimates;
use crate::query::as_of::AsOf;
use crate::query::travel;
use crate::query::{LayerChoice, Query, QueryError};
use crate::reach::starts_needed;

/// How often a moved seam is followed before giving up. A seam moves once per run, so twice is already unlikely.
const TRIES: usize = 4;
/// Live sessions that are looked through on the thread that took the request: less than a millisecond of work.
const SESSIONS_INLINE_MAX: usize = 20_000;
/// How many plain states the merging and finishing of a sketch is worth.
const ROWS_PER_SKETCH: usize = 64;

/// The doors to the layers.
#[derive(Clone)]
pub struct Doors {
    pub views: Arc<Views>,
    pub speed: Arc<dyn SpeedReader>,
    pub batch: Arc<dyn BatchReader>,
    pub past: Arc<dyn PastReader>,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no view called \"{0}\"")]
    UnknownView(String),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("a new batch version has been published since the cursor was given; begin again without it")]
    CursorExpired,
    #[error("speed: {0}")]
    Speed(#[from] SpeedError),
    #[error("batch: {0}")]
    Batch(#[from] HandoffError),
    #[error(transparent)]
    Past(#[from] PastError),
}

/// Does every accepted event appear in exactly one place?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// Accepted up to the ends of the generations, as the log counted them.
    pub accepted: Ledger,
    /// Accounted for by the batch version.
    pub batch: Ledger,
    /// Folded since the seam, and left out since the seam for being too late.
    pub speed: Ledger,
    pub late: Ledger,
    /// Accepted before the seam.
    pub before_seam: Ledger,
    /// In the archive alone, until the first run; among the accepted ones.
    pub unread: Ledger,
}

impl Balance {
    /// Counts what was pinned.
    pub fn of(published: &Published, pin: &SpeedPin) -> Balance {
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
            before_seam: published.seam.accepted(),
            unread: published.unread,
        }
    }

    /// Is nothing lost and nothing doubled in the layers asked for?
    pub fn is_complete(&self, layer: LayerChoice) -> bool {
        match layer {
            // I2: nothing twice, nothing missing.
            LayerChoice::Merged => self.batch + self.speed + self.late == self.accepted,
            LayerChoice::Batch => self.batch == self.before_seam + self.unread,
            LayerChoice::Speed => self.before_seam + self.speed + self.late + self.unread == self.accepted,
        }
    }
}

/// One moment of a view.
#[derive(Debug)]
pub struct Pinned {
    pub published: Arc<Published>,
    /// Rows of the batch version that may lie in the query's range; none if the query leaves batch out.
    pub batch: Vec<Arc<Part>>,
    /// The generations, also if the query leaves speed out: they say what is final.
    pub speed: SpeedPin,
    pub balance: Balance,
    pub complete: bool,
    /// What answers is a state of the past, held for as long as this is.
    pub past: Option<Past>,
}

impl Pinned {
    /// The parts that answer `layer`.
    pub fn parts(&self, layer: LayerChoice) -> Vec<(&Part, Layers)> {
        let batch = self.batch.iter().map(|part| (part.as_ref(), Layers::BATCH));
        let speed = self.speed.generations.iter().map(|g| (&g.part, Layers::SPEED));
        match layer {
            LayerChoice::Merged => batch.chain(speed).collect(),
            LayerChoice::Batch => batch.collect(),
            LayerChoice::Speed => speed.collect(),
        }
    }

    /// How much work merging `query` is: rows and keys to look at, those with sketches as many times as they are slower.
    pub fn work(&self, query: &Query) -> usize {
        let view = self.published.view.as_ref();
        let sketched = (0..view.measures.len()).any(|measure| reads_estimates(view, measure));
        let weight = if sketched { ROWS_PER_SKETCH } else { 1 };
        let parts = self.parts(query.layer);
        parts.iter().map(|(part, _)| rows_to_merge(view, query, part) * weight + part.keys.len()).sum()
    }
}

/// Rows of `part` that may have a part in the answer, as often as windows cover them.
pub fn rows_to_merge(view: &View, query: &Query, part: &Part) -> usize {
    let (from, to) = match view.window {
        Window::Session { .. } => (i64::MIN, i64::MAX),
        window if part.panes => window.panes_of(query.from, query.to),
        _ => (query.from, query.to),
    };
    let rows = part.blocks.iter().map(|block| block.candidates(from, to).len()).sum::<usize>();
    let mut covering = 0;
    match part.blocks.iter().find_map(|block| block.windows.first()) {
        Some(pane) if part.panes => view.window.for_each_window(*pane, |_| covering += 1),
        _ => covering = 1,
    }
    rows * covering.max(1)
}

/// Reads the query on the view called `name`, asked at `now`, and pins what answers it.
pub async fn pin(
    layers: &Doors,
    name: &str,
    parameters: &[(String, String)],
    now: Micros,
) -> Result<(Query, Pinned), ReadError> {
    let mut tries = 0;
    loop {
        tries += 1;
        // I6: one pointer holds the version and its seam; generations are pinned from that seam on.
        let published = layers.views.get(name).ok_or_else(|| ReadError::UnknownView(name.to_owned()))?;
        if let Some(moment) = travel::parse(&published, parameters, now)? {
            return pin_past(layers, &published, moment, parameters).await;
        }
        let mut query = Query::parse(&published.view, parameters)?;
        if query.cursor.is_some_and(|cursor| !cursor.fits(&published)) {
            return Err(ReadError::CursorExpired);
        }
        match pin_once(layers, &published, &mut query, now).await {
            Ok(pinned) => return Ok((query, pinned)),
            Err(ReadError::Speed(SpeedError::SeamMoved)) if tries < TRIES => tokio::task::yield_now().await,
            // A version that has been replaced may lose its files; the newer one has its own.
            Err(ReadError::Batch(_)) if tries < TRIES && is_replaced(layers, name, &published) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Pins a version of the past: batch alone, as it answered when it was published.
async fn pin_past(
    layers: &Doors,
    now: &Published,
    moment: Moment,
    parameters: &[(String, String)],
) -> Result<(Query, Pinned), ReadError> {
    let past = layers.past.at(&now.view.name, moment).await?;
    let (published, version) = (Arc::clone(&past.published), Arc::clone(&past.version));
    let mut query = Query::parse(&published.view, parameters)?;
    query.layer = LayerChoice::Batch;
    if let Some(as_of) = query.as_of {
        slide_to(&mut query, &published.view, as_of, version.published_at, version.latest_event);
    }
    query.retain(&published)?;
    // What speed held then is dropped: the version tells what it knew of the stream.
    let (watermark, latest_event) = (version.watermark, version.latest_event);
    let speed = SpeedPin { generations: Vec::new(), watermark, latest_event };
    let (speed, (from, to)) = batch_range(&published, &query, speed).await?;
    let batch = layers.batch.parts(&published, &version, from, to).await?;
    let balance = Balance::of(&published, &speed);
    let complete = balance.is_complete(query.layer);
    Ok((query, Pinned { published, batch, speed, balance, complete, past: Some(past) }))
}

/// Bounds the query by the window of SLIDE that ends at `as_of`.
fn slide_to(query: &mut Query, view: &View, as_of: AsOf, now: Micros, latest_event: Option<Micros>) {
    if let Window::Slide { size, pane } = view.window {
        let instant = as_of.instant(pane, now, latest_event);
        query.as_of = Some(AsOf::At(instant));
        (query.from, query.to) = (instant.saturating_sub(size), instant);
    }
}

fn is_replaced(layers: &Doors, name: &str, published: &Arc<Published>) -> bool {
    layers.views.get(name).is_some_and(|now| !Arc::ptr_eq(&now, published))
}

/// Pins the speed side of a view alone, to tell of its state; and what it belongs to.
pub async fn pin_speed(layers: &Doors, name: &str) -> Result<(Arc<Published>, SpeedPin), ReadError> {
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

async fn pin_once(
    layers: &Doors,
    published: &Arc<Published>,
    query: &mut Query,
    now: Micros,
) -> Result<Pinned, ReadError> {
    let mut speed = layers.speed.pin(published, &published.seam).await?;
    if let Some(as_of) = query.as_of {
        slide_to(query, &published.view, as_of, now, speed.latest_event);
    }
    query.retain(published)?;
    let mut batch = Vec::new();
    if let Some(version) = &published.version
        && query.layer != LayerChoice::Speed
    {
        let (from, to);
        (speed, (from, to)) = batch_range(published, query, speed).await?;
        batch = layers.batch.parts(published, version, from, to).await?;
    }
    let balance = Balance::of(published, &speed);
    let complete = balance.is_complete(query.layer);
    if !complete {
        report_mismatch(published, &balance);
    }
    Ok(Pinned { published: Arc::clone(published), batch, speed, balance, complete, past: None })
}

/// The range of window starts that batch is read for, in microseconds.
async fn batch_range(
    published: &Arc<Published>,
    query: &Query,
    speed: SpeedPin,
) -> Result<(SpeedPin, (i64, i64)), ReadError> {
    let range = (query.from, query.to);
    let (Window::Session { gap }, Some(version)) = (published.view.window, &published.version) else {
        return Ok((speed, range));
    };
    let mut dimensions = query.dimensions.clone();
    dimensions.sort_unstable();
    let whole_key = dimensions.into_iter().eq(0..published.view.dimensions.len());
    let live: usize = speed.generations.iter().map(|generation| generation.part.rows()).sum();
    if live <= SESSIONS_INLINE_MAX {
        let needed = starts_needed(version, &speed, gap, whole_key, range);
        return Ok((speed, needed));
    }
    let version = Arc::clone(version);
    let work = tokio::task::spawn_blocking(move || {
        let needed = starts_needed(&version, &speed, gap, whole_key, range);
        (speed, needed)
    });
    work.await.map_err(|_| ReadError::Speed(SpeedError::Stopped))
}

fn report_mismatch(published: &Published, balance: &Balance) {
    let view = &published.view.name;
    metrics::counter!("trueup_ledger_mismatch_total", "view" => view.to_string()).increment(1);
    tracing::error!(
        %view,
        accepted = balance.accepted.events,
        batch = balance.batch.events,
        speed = balance.speed.events,
        late = balance.late.events,
        before_seam = balance.before_seam.events,
        "the ledger does not balance: events are lost or doubled"
    );
}
