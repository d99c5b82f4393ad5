//! Serves a view of a machine as the product does, with its speed layer, its runs and its versions, and compares each row with
//! what clients know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use batch::deletion_clock::{DeletionClock, LakeEvidence};
use batch::layers::Job;
use batch::run::Executor;
use batch::runs::queue::RunQueue;
use batch::versions::kept::VersionIndex;
use batch::versions::load::LoadError;
use batch::versions::time_travel::TimeTravel;
use batch::{BatchSettings, LayerHandles, LoadedView, RetrySettings, load_published, log_reader};
use lake::Lake;
use serving::pin::Balance;
use serving::query::LayerChoice;
use shared::changed_rows::ChangedRows;
use shared::clock::ManualClock;
use shared::control::RunScope;
use shared::handoff::LogRetention;
use shared::ids::{Offset, Partition, StreamName};
use shared::live_state::LiveStates;
use shared::partial::block::Part;
use shared::partial::finish::finish_measures;
use shared::partial::merge::{Layers, MergeSpec, merge};
use shared::partial::query_budget::QueryBudget;
use shared::published::Views;
use shared::readers::{BatchReader, SpeedReader};
use shared::seam::Cut;
use shared::stream::Stream;
use shared::time::{Micros, micros_of};
use shared::time_range::TimeRange;
use shared::view::{Precision, View, ViewLayers};
use shared::vital::Vitals;
use shared::window::Window;
use sinks::view_changes::SinkLayers;
use speed::service::{FoldedStream, FoldedView, Speed};
use world::oracle::sessions::{Live, sessions};

use crate::archivers::Archivers;
use crate::logs::Logs;
use crate::model::{HORIZON, PartitionModel};

/// A row of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The end of its window, in microseconds.
    pub end: i64,
    pub events: i64,
    pub total: i64,
}

/// Rows by the start of their window, in microseconds.
pub type Rows = BTreeMap<i64, Row>;

/// A view with everything that serves it, in one process.
pub struct ServedView {
    view: Arc<View>,
    stream: Arc<Stream>,
    views: Arc<Views>,
    speed: Arc<Speed>,
    executor: Executor,
    queue: RunQueue,
}

/// Keeps the log: the workers of speed would release it at any time, and the seed decides nothing about their threads.
struct KeepsLog;

impl LogRetention for KeepsLog {
    fn release(&self, _: &StreamName, _: Partition, _: &str, _: Offset) {}
}

/// Loads the active version of `view`, and keeps the log from its seam on.
///
/// # Errors
/// The store does not answer.
pub async fn load(
    lake: &Lake,
    stream: &Arc<Stream>,
    view: &Arc<View>,
    logs: &Arc<Logs>,
) -> Result<LoadedView, LoadError> {
    let loaded = load_published(lake, stream, view).await?;
    let reader = log_reader(&view.name);
    for (partition, log) in (0..).map(Partition).zip(&logs.partitions) {
        log.register_reader(&reader);
        log.release(&reader, loaded.active.seam.offset(partition));
    }
    Ok(loaded)
}

/// The number and the seam of the active version in a lake without faults; -1 if there is none.
pub async fn published(lake: &Lake, stream: &Arc<Stream>, view: &Arc<View>) -> (i64, Cut) {
    let loaded = load_published(lake, stream, view).await.expect("a view that can be read");
    assert!(!loaded.version_lost, "the version cannot become active");
    (loaded.active.version.as_ref().map_or(-1, |version| version.version), loaded.active.seam)
}

impl ServedView {
    /// Starts to fold the events after the seam of `loaded`. The logs must not have been started.
    pub async fn start(
        loaded: LoadedView,
        lake: &Lake,
        logs: &Arc<Logs>,
        archivers: &Arc<Archivers>,
        clock: &ManualClock,
        changed: Vec<Arc<ChangedRows>>,
    ) -> ServedView {
        let LoadedView { stream, view, active, .. } = loaded;
        let folded = FoldedStream {
            stream: Arc::clone(&stream),
            log: Arc::clone(logs) as _,
            retention: Arc::new(KeepsLog),
            live_state: LiveStates::new(u64::MAX).stream(),
            views: vec![FoldedView { view: Arc::clone(&active.view), seam: active.seam.clone(), changed }],
            lookups: Default::default(),
        };
        let views = Arc::new(Views::default());
        views.publish(active);
        let speed = Speed::start(vec![folded], Arc::new(clock.clone()), &Vitals::default()).await;
        let speed = Arc::new(speed.expect("speed reads the log without faults"));
        for (partition, log) in (0..).map(Partition).zip(&logs.partitions) {
            log.attach(speed.sink(&stream.name, partition).expect("a worker"));
        }
        let layers = LayerHandles {
            vitals: Vitals::default(),
            lake: lake.clone(),
            streams: vec![Arc::clone(&stream)],
            views: Arc::clone(&views),
            cutter: Arc::clone(logs) as _,
            archive: Arc::clone(archivers) as _,
            speed: Arc::clone(&speed) as _,
            retention: Arc::clone(logs) as _,
            lookups: Default::default(),
            log_starts: Vec::new(),
            clock: Arc::new(clock.clone()),
        };
        // Files are written one after the other, so that the seed decides about each.
        let settings = BatchSettings {
            dedup_horizon_events: HORIZON,
            writes: 1,
            speed_wait: Duration::from_secs(10),
            tick: Duration::from_millis(1),
            ..BatchSettings::default()
        };
        let deletion_clock = DeletionClock::new(Arc::new(clock.clone()), None, LakeEvidence::default());
        let executor = Executor::new(layers, settings, Arc::new(deletion_clock));
        let names = std::iter::once(view.name.clone());
        let queue = RunQueue::new(Arc::new(clock.clone()), names, 10, RetrySettings::default(), Default::default());
        ServedView { view, stream, views, speed, executor, queue }
    }

    /// Makes a run, and returns the version that is active then.
    ///
    /// # Errors
    /// The text of the failure.
    pub async fn run(&self, full: bool) -> Result<i64, String> {
        self.queue.request(self.view.name.as_str(), RunScope { full, range: None }, "request").expect("a run");
        let entry = self.queue.next(&self.view.name).await.expect("a run");
        let job = Job { stream: Arc::clone(&self.stream), view: Arc::clone(&self.view) };
        let outcome = self.executor.execute(&job, &entry).await;
        let ended = outcome.as_ref().map(|version| *version).map_err(ToString::to_string);
        self.queue.finish(&entry, outcome);
        let published = self.views.get(self.view.name.as_str()).expect("the view");
        let compared = published.version.as_ref().and_then(|version| version.comparison.clone());
        if compared.is_some_and(|comparison| comparison.causes.unexplained > 0) {
            let comparison = self.executor.comparisons.latest(&self.view.name).await;
            panic!("values differ without a cause: {comparison:?}");
        }
        ended
    }

    /// Compares every row with the events of `models`. Does nothing if the store does not answer.
    pub async fn check(&self, models: &[PartitionModel]) {
        let published = self.views.get(self.view.name.as_str()).expect("the view");
        let pin = self.speed.pin(&published, &published.seam).await.expect("the live events");
        let balance = Balance::of(&published, &pin);
        assert!(balance.is_complete(LayerChoice::Merged), "the ledgers do not add up: {balance:?}");
        let heads: u64 = models.iter().map(PartitionModel::head).sum();
        assert_eq!(balance.accepted.events, heads, "events of the view");
        let batch = match &published.version {
            Some(version) => {
                let budget = QueryBudget::unlimited();
                let parts = self.executor.reader.parts(&published, version, TimeRange::ALL, &budget).await;
                let Ok(parts) = parts else { return };
                parts
            }
            None => Vec::new(),
        };
        let batch = batch.iter().map(|part| (part.as_ref(), Layers::BATCH));
        let parts: Vec<_> = batch.chain(pin.generations.iter().map(|g| (&g.part, Layers::SPEED))).collect();
        assert_eq!(self.rows(&parts), self.expected(models), "seam {:?}", published.seam);
    }

    /// What sinks read.
    pub fn sink_layers(&self) -> SinkLayers {
        let lake = &self.executor.layers.lake;
        let kept = Arc::new(VersionIndex::new(lake, std::iter::once((self.view.name.clone(), KEPT))));
        SinkLayers {
            views: Arc::clone(&self.views),
            speed: Arc::clone(&self.speed) as _,
            batch: Arc::clone(&self.executor.reader) as _,
            past: Arc::new(TimeTravel::new(lake, &self.views, &kept)),
            clock: Arc::clone(&self.executor.layers.clock),
        }
    }

    /// The number of the active version.
    pub fn version(&self) -> Option<i64> {
        let published = self.views.get(self.view.name.as_str()).expect("the view");
        published.version.as_ref().map(|version| version.version)
    }

    fn rows(&self, parts: &[(&Part, Layers)]) -> Rows {
        let spec = MergeSpec::whole(&self.view, &[], Precision::Sketch);
        let merged = merge(&spec, parts).expect("merges");
        let measures = finish_measures(&self.view, &merged.states).expect("finishes");
        let column = |measure: usize| cast(&measures[measure].column, &DataType::Int64).expect("whole numbers");
        let (events, totals) = (column(0), column(1));
        let value = |column: &arrow::array::ArrayRef, row: usize| column.as_primitive::<Int64Type>().value(row);
        let row = |row: usize| {
            let start = merged.windows[row].0;
            let end = match self.view.window {
                Window::Session { gap } => merged.lasts[row] + gap,
                _ => start + WINDOW,
            };
            (start, Row { end, events: value(&events, row), total: value(&totals, row) })
        };
        (0..merged.len()).map(row).collect()
    }

    /// The events that are not late, and of a view with batch runs all before the seam.
    pub fn expected(&self, models: &[PartitionModel]) -> Rows {
        let published = self.views.get(self.view.name.as_str()).expect("the view");
        let lateness = micros_of(self.stream.allowed_lateness);
        let mut counted: Vec<(i64, i64)> = Vec::new();
        for model in models {
            let mut live = Live::default();
            for (known, offset) in model.accepted.iter().zip(0..) {
                let (at, watermark) = (known.event.at, known.watermark);
                let is_late = match self.view.window {
                    Window::Session { gap } => {
                        live.judge(at, (watermark != i64::MIN).then_some(watermark), gap, lateness)
                    }
                    window => window.is_late(Micros(at), Micros(watermark), lateness),
                };
                let offset_of_seam = published.seam.offset(model.partition).0;
                let is_recomputed = self.view.layers == ViewLayers::Both && offset < offset_of_seam;
                if is_recomputed || !is_late {
                    counted.push((at, known.event.value()));
                }
            }
        }
        let windows: BTreeMap<i64, i64> = match self.view.window {
            Window::Session { gap } => sessions(counted.iter().map(|(at, _)| *at).collect(), gap).into_iter().collect(),
            _ => counted.iter().map(|(at, _)| at.div_euclid(WINDOW) * WINDOW).map(|at| (at, at + WINDOW)).collect(),
        };
        let mut rows: Rows =
            windows.into_iter().map(|(start, end)| (start, Row { end, events: 0, total: 0 })).collect();
        for (at, value) in counted {
            let (_, row) = rows.range_mut(..=at).next_back().expect("every event is in a window");
            *row = Row { events: row.events + 1, total: row.total + value, ..*row };
        }
        rows
    }
}

impl Drop for ServedView {
    fn drop(&mut self) {
        self.speed.stop();
    }
}

/// The length of a window of the view, in microseconds.
pub const WINDOW: i64 = 10_000_000;
/// Versions that are kept.
const KEPT: u32 = 10;
