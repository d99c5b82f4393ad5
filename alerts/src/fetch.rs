//! Computes chosen rows of a view as a query does, without merging the others: pins the wanted rows of the speed layer, finds
//! those of the batch version by key, and merges both.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use shared::handoff::HandoffError;
use shared::horizon::Horizon;
use shared::ids::{Offset, Partition};
use shared::limits::ALERT_INDEX_BYTES;
use shared::partial::accumulate::Accumulator;
use shared::partial::block::Part;
use shared::partial::index_cache::PartIndexes;
use shared::partial::merge::{Grain, Layers, MergeError, MergeSpec, Merged, merge};
use shared::partial::query_budget::QueryBudget;
use shared::partial::wanted::{PartIndex, WantedRows};
use shared::published::PublishedView;
use shared::readers::{BatchReadError, BatchReader, Reach, SpeedError, SpeedPin, SpeedReader};
use shared::time::{Day, Micros};
use shared::time_range::TimeRange;
use shared::version::BatchVersion;
use shared::view::{Precision, View};
use shared::window::{Window, WindowId};

use crate::session_starts::KnownStarts;

/// Reads rows of both layers.
pub struct RowReader {
    pub speed: Arc<dyn SpeedReader>,
    pub batch: Arc<dyn BatchReader>,
    indexes: PartIndexes,
    /// Of one read of batch rows.
    budget: QueryBudget,
}

/// Rows of a view, merged.
#[derive(Debug)]
pub struct FetchedRows {
    pub merged: Merged,
    /// The positions up to which the rows include the events of the log.
    pub position: BTreeMap<Partition, Offset>,
    pub watermark: Option<Micros>,
    /// The end of the trailing window; `None`: the view has none.
    pub instant: Option<i64>,
    /// If sessions near some times are wanted: the starts of which every session of the keys is among the rows.
    pub known: Option<KnownStarts>,
}

/// The reason why rows could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("speed: {0}")]
    Speed(#[from] SpeedError),
    #[error("batch: {0}")]
    Batch(#[from] BatchReadError),
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error("{0}")]
    Handoff(#[from] HandoffError),
}

impl RowReader {
    /// Returns a reader without cached indexes.
    pub fn new(speed: Arc<dyn SpeedReader>, batch: Arc<dyn BatchReader>) -> RowReader {
        let budget = QueryBudget::unlimited();
        RowReader { speed, batch, indexes: PartIndexes::new(ALERT_INDEX_BYTES), budget }
    }

    /// Lets a read of batch rows load at most `bytes_max` bytes.
    pub fn within(self, bytes_max: usize) -> RowReader {
        RowReader { budget: QueryBudget { bytes_max, ..self.budget }, ..self }
    }

    /// Returns the rows of a batch version with windows starting in `range`; others may be among them.
    pub async fn parts(
        &self,
        published: &PublishedView,
        version: &BatchVersion,
        range: TimeRange,
    ) -> Result<Vec<Arc<Part>>, BatchReadError> {
        self.batch.parts(published, version, range, &self.budget).await
    }

    /// Returns the `wanted` rows as a query on `published` would compute them now.
    pub async fn live(&self, published: &Arc<PublishedView>, wanted: &Arc<WantedRows>) -> Result<Fetch, FetchError> {
        // I6: both sides come from one pointer.
        // Events that are on their way are evaluated when they arrive.
        let pin = self.speed.pin_rows(published, &published.seam, wanted, Reach::Received).await?;
        let fetch = self.pinned(published, wanted, pin).await?;
        Ok(Fetch { has_others: false, ..fetch })
    }

    /// Returns the `wanted` rows as of `pin`, which was made for `published` and may have others.
    pub async fn pinned(
        &self,
        published: &Arc<PublishedView>,
        wanted: &Arc<WantedRows>,
        pin: SpeedPin,
    ) -> Result<Fetch, FetchError> {
        let instant = instant_of(published.view.window, pin.latest_event);
        let known = known_starts(published, wanted, &pin);
        let batch = match (&published.version, &known) {
            (Some(version), Some(known)) => self.parts_of(published, version, known.ranges(version)).await?,
            (Some(version), None) => {
                let ranges = batch_ranges(&published.view, version, wanted, &pin, instant);
                self.parts_of(published, version, ranges).await?
            }
            (None, _) => Vec::new(),
        };
        Ok(Fetch {
            published: Arc::clone(published),
            wanted: Arc::clone(wanted),
            pin: Some(pin),
            has_others: true,
            batch,
            instant,
            known,
        })
    }

    /// Returns the `wanted` rows of a batch version alone; `instant` is the end of the trailing window.
    pub async fn exact(
        &self,
        published: &Arc<PublishedView>,
        version: &BatchVersion,
        wanted: &Arc<WantedRows>,
        instant: Option<i64>,
    ) -> Result<Fetch, FetchError> {
        let nothing = SpeedPin { generations: Vec::new(), watermark: version.watermark, latest_event: None };
        let ranges = batch_ranges(&published.view, version, wanted, &nothing, instant);
        let batch = self.parts_of(published, version, ranges).await?;
        Ok(Fetch {
            published: Arc::clone(published),
            wanted: Arc::clone(wanted),
            pin: None,
            has_others: false,
            batch,
            instant,
            known: None,
        })
    }

    async fn parts_of(
        &self,
        published: &PublishedView,
        version: &BatchVersion,
        ranges: Vec<TimeRange>,
    ) -> Result<Vec<Arc<Part>>, FetchError> {
        let mut parts: Vec<Arc<Part>> = Vec::new();
        for range in ranges {
            let found = self.parts(published, version, range).await?;
            // Neighbouring ranges may share a file.
            found.into_iter().for_each(|part| {
                if !parts.iter().any(|known| Arc::ptr_eq(known, &part)) {
                    parts.push(part);
                }
            });
        }
        Ok(parts)
    }
}

/// Pinned parts of both layers that have wanted rows.
pub struct Fetch {
    pub published: Arc<PublishedView>,
    pub wanted: Arc<WantedRows>,
    pin: Option<SpeedPin>,
    /// Whether the pin has rows that are not wanted.
    has_others: bool,
    batch: Vec<Arc<Part>>,
    instant: Option<i64>,
    known: Option<KnownStarts>,
}

impl Fetch {
    /// Returns the watermark of the stream when the rows were pinned.
    pub fn watermark(&self) -> Option<Micros> {
        self.pin.as_ref().and_then(|pin| pin.watermark)
    }

    /// Finds and merges the rows. Blocking.
    pub fn merge(self, reader: &RowReader) -> Result<FetchedRows, FetchError> {
        let Fetch { published, wanted, pin, has_others, batch, instant, known } = self;
        let view = &published.view;
        let found: Vec<Part> =
            batch.iter().map(|part| Accumulator::wanted_of(view, part, &reader.indexes.of(part), &wanted)).collect();
        let generations = pin.iter().flat_map(|pin| &pin.generations);
        let live: Vec<Cow<'_, Part>> = (generations.clone())
            .map(|generation| match &generation.part {
                part if has_others => Cow::Owned(Accumulator::wanted_of(view, part, &PartIndex::new(part), &wanted)),
                part => Cow::Borrowed(part),
            })
            .collect();
        let position = generations.clone().fold(BTreeMap::new(), |mut position, generation| {
            let reached = position.entry(generation.partition).or_insert(generation.to);
            *reached = (*reached).max(generation.to);
            position
        });
        let parts: Vec<(&Part, Layers)> = (found.iter().map(|part| (part, Layers::BATCH)))
            .chain(live.iter().map(|part| (part.as_ref(), Layers::SPEED)))
            .collect();
        let dimensions: Vec<usize> = (0..view.dimensions.len()).collect();
        let (windows, grain) = match (view.window, instant) {
            (Window::Slide { size, .. }, Some(instant)) => {
                (WindowId(instant.saturating_sub(size))..WindowId(instant), Grain::All)
            }
            (Window::Session { .. }, _) => (WindowId::EVERY, Grain::Window),
            (Window::TableSession { .. }, _) => (WindowId::EVERY, Grain::Sessions),
            _ => (wanted.hull(), Grain::Window),
        };
        let horizon = Horizon::of(&published);
        let spec = MergeSpec {
            view,
            windows,
            grain,
            precision: Precision::Sketch,
            dimensions: &dimensions,
            horizon,
            permitted: None,
            filter: None,
        };
        let merged = merge(&spec, &parts)?;
        let watermark = pin.as_ref().and_then(|pin| pin.watermark);
        Ok(FetchedRows { merged, position, watermark, instant, known })
    }
}

/// Returns the end of the trailing window that contains the latest event, as `as_of=latest` does.
pub fn instant_of(window: Window, latest_event: Option<Micros>) -> Option<i64> {
    let (Window::Slide { pane, .. }, Some(latest)) = (window, latest_event) else { return None };
    let end = latest.0.saturating_add(pane);
    Some(end.saturating_sub(end.rem_euclid(pane)))
}

/// Returns the starts of which every wanted session will be known, if those near some times are wanted.
fn known_starts(published: &PublishedView, wanted: &WantedRows, pin: &SpeedPin) -> Option<KnownStarts> {
    let (Window::Session { gap }, Some(near)) = (published.view.window, wanted.near()) else { return None };
    let live = pin.generations.iter().flat_map(|generation| generation.part.sessions());
    Some(KnownStarts::new(gap, published.version.as_deref(), near, live))
}

/// Returns the ranges of window starts for which batch has to be read.
fn batch_ranges(
    view: &View,
    version: &BatchVersion,
    wanted: &WantedRows,
    pin: &SpeedPin,
    instant: Option<i64>,
) -> Vec<TimeRange> {
    match view.window {
        // Rows of any date may be in one session.
        Window::All | Window::TableSession { .. } => vec![TimeRange::ALL],
        Window::Slide { size, .. } => match instant {
            Some(instant) => vec![TimeRange::of_micros(instant.saturating_sub(size), instant)],
            None => Vec::new(),
        },
        Window::Session { gap } => {
            let sessions = pin.generations.iter().flat_map(|generation| generation.part.sessions());
            let hull = sessions.fold(None, |hull: Option<(i64, i64)>, (first, last)| match hull {
                Some((from, to)) => Some((from.min(first), to.max(last))),
                None => Some((first, last)),
            });
            let margin = version.longest_session_us.saturating_add(gap);
            match hull {
                Some((first, last)) => {
                    vec![TimeRange::of_micros(first.saturating_sub(margin), last.saturating_add(margin))]
                }
                None => vec![TimeRange::ALL],
            }
        }
        _ => {
            // By date, because rows of early and late windows may be wanted and none in between.
            let mut days: Vec<Day> =
                wanted.keys().flat_map(|key| key.windows()).map(|ids| view.window.bounds(ids.start).0.day()).collect();
            days.sort_unstable();
            days.dedup();
            days.into_iter()
                .map(|day| TimeRange { from: day.start(), to: Day(day.0.saturating_add(1)).start() })
                .collect()
        }
    }
}
