//! Builds a serving layer for tests: parts folded from given events, behind fakes of the other layers.

#![allow(dead_code, reason = "each test binary uses a part of the world")]

pub mod no_entities;
mod reply;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::json::ReaderBuilder;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use serving::http::Perimeter;
use serving::{ServingState, routes};
use shared::clock::{Clock, ManualClock};
use shared::compare::{Causes, Comparison};
use shared::control::{
    CompactionReport, EventKind, EventPage, ListRange, QuarantinePage, Run, RunEnds, RunError, RunFilter, RunPage,
    RunProgress, RunScope, RunState, Runs, StreamError, StreamStatus, Streams, VacuumReport,
};
use shared::date_partition::DatePartition;
use shared::entity_reader::EntityReader;
use shared::evaluate::evaluate;
use shared::handoff::HandoffError;
use shared::ids::{Offset, Partition, ViewName};
use shared::ledger::Ledger;
use shared::partial::accumulate::{Accumulator, EvaluatedBatch, selected_rows};
use shared::partial::batch_keys::BatchKeys;
use shared::partial::block::Part;
use shared::partial::codec::{decode, encode};
use shared::partial::keys::KeyLayout;
use shared::partial::merge::{Layers, MergeSpec, merge};
use shared::partial::query_budget::QueryBudget;
use shared::partial::states::{EventPositions, Offsets};
use shared::published::{PublishedView, Views};
use shared::readers::{
    BatchReadError, BatchReader, Generation, Moment, PastError, PastReader, PastVersion, SpeedError, SpeedPin,
    SpeedReader,
};
use shared::seam::{Cut, CutPoint};
use shared::sql::parse_definitions;
use shared::stream::Stream;
use shared::time::Micros;
use shared::time_range::TimeRange;
use shared::version::BatchVersion;
use shared::view::{Precision, View};
use shared::vital::Vitals;
use shared::window::{PaneStart, Window};
use tower::ServiceExt;

use self::no_entities::NoEntities;

pub use self::reply::Reply;

pub const P0: Partition = Partition(0);

/// The definitions of one file, as `(streams, views)`.
pub fn definitions(sql: &str) -> (Vec<Arc<Stream>>, Vec<Arc<View>>) {
    let files = [("test.sql".to_owned(), sql.to_owned())];
    let parsed = parse_definitions(&files).unwrap_or_else(|errors| panic!("{}", errors[0]));
    (parsed.streams.into_iter().map(Arc::new).collect(), parsed.views.into_iter().map(Arc::new).collect())
}

/// Events from NDJSON, in the columns of the stream.
pub fn events(stream: &Stream, ndjson: &str) -> RecordBatch {
    let mut reader =
        ReaderBuilder::new(stream.schema()).with_batch_size(1 << 20).build(ndjson.as_bytes()).expect("a reader");
    match reader.next() {
        Some(batch) => batch.expect("events as the stream declares them"),
        None => RecordBatch::new_empty(stream.schema()),
    }
}

/// Folds events for a view as speed does; the first has this offset in partition 0.
pub fn part(view: &Arc<View>, stream: &Stream, events: &RecordBatch, first: Offset) -> Part {
    elsewhere(|| folded(view, stream, events, first, Precision::Sketch))
}

/// Runs work on a thread of its own: Polars does not evaluate on a thread that drives async tasks, as that of a test does.
fn elsewhere<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().expect("the work is done"))
}

/// Windows that start on one date.
pub type DatedPart = (DatePartition, Arc<Part>);

/// Computes events for a view as batch does: one part for every date on which windows start.
pub fn batch_parts(view: &Arc<View>, stream: &Stream, events: &RecordBatch) -> Vec<DatedPart> {
    let part = folded(view, stream, events, Offset(0), Precision::Exact);
    let dimensions: Vec<usize> = (0..view.dimensions.len()).collect();
    let spec = MergeSpec::whole(view, &dimensions, Precision::Exact);
    let merged = merge(&spec, &[(&part, Layers::BATCH)]).expect("merges");
    let columns = if dimensions.is_empty() { Vec::new() } else { merged.dimension_columns().expect("columns") };
    let table = encode(view, &merged.windows, &merged.lasts, columns, &merged.states).expect("a table");
    let mut dates: BTreeMap<DatePartition, Vec<u32>> = BTreeMap::new();
    for row in merged.sorted_rows() {
        let (start, _) = view.window.bounds(merged.windows[row as usize]);
        let date = match view.window {
            Window::All => DatePartition::AllTime,
            _ => DatePartition::of_day(start.day()),
        };
        dates.entry(date).or_default().push(row);
    }
    let of_date = |(date, rows): (DatePartition, Vec<u32>)| {
        let rows = take_record_batch(&table, &UInt32Array::from(rows)).expect("rows of the table");
        (date, Arc::new(decode(view, &part.layout, &[rows]).expect("a part")))
    };
    dates.into_iter().map(of_date).collect()
}

/// The longest session from its first event to its end, in microseconds; 0 if there are none.
fn longest_session(view: &View, parts: &[DatedPart]) -> i64 {
    let Window::Session { gap } = view.window else { return 0 };
    let sessions = parts.iter().flat_map(|(_, part)| part.sessions());
    sessions.map(|(first, last)| last + gap - first).max().unwrap_or(0)
}

fn folded(view: &Arc<View>, stream: &Stream, events: &RecordBatch, first: Offset, precision: Precision) -> Part {
    let types = view.dimensions.iter().map(|d| d.expression.data_type).collect();
    let layout = Arc::new(KeyLayout::new(types).expect("a layout"));
    let mut accumulator = Accumulator::new(Arc::clone(view), Arc::clone(&layout), precision);
    let value = |scalar| evaluate(&[scalar], events).expect("evaluates").remove(0);
    let mask = |scalar| BooleanArray::from(value(scalar).to_data());
    let times = events.column(stream.event_time).as_primitive::<TimestampMicrosecondType>();
    let panes: Vec<PaneStart> = times.values().iter().map(|time| view.window.pane_of(Micros(*time))).collect();
    let dimensions: Vec<_> = view.dimensions.iter().map(|d| value(&d.expression)).collect();
    let keys = BatchKeys::new(&layout, &dimensions).expect("encodes");
    let arguments: Vec<_> = view.aggregates.iter().map(|a| a.argument.as_ref().map(value)).collect();
    let masks: Vec<_> = view.aggregates.iter().map(|a| a.filter.as_ref().map(mask)).collect();
    let filter = view.filter.as_ref().map(mask);
    let rows = selected_rows(events.num_rows(), filter.as_ref());
    accumulator.fold(&EvaluatedBatch {
        panes: &panes,
        places: EventPositions { times: times.values(), offsets: Offsets::Run { partition: 0, first: first.0 as i64 } },
        keys: &keys,
        arguments: &arguments,
        masks: &masks,
        rows: &rows,
    });
    accumulator.part()
}

/// The generations of all views, by name.
#[derive(Default)]
pub struct FakeSpeed {
    pub generations: Mutex<BTreeMap<String, Vec<Generation>>>,
    pub watermark: Mutex<Option<Micros>>,
    pub latest_event: Mutex<Option<Micros>>,
    /// Number of pins that find the seam moved.
    pub seam_moves: AtomicUsize,
    pub stopped: AtomicBool,
}

impl SpeedReader for FakeSpeed {
    fn pin<'a>(&'a self, published: &'a PublishedView, _: &'a Cut) -> BoxFuture<'a, Result<SpeedPin, SpeedError>> {
        let moved =
            self.seam_moves.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        let generations = self.generations.lock().get(published.view.name.as_str()).cloned().unwrap_or_default();
        let watermark = *self.watermark.lock();
        let latest_event = *self.latest_event.lock();
        let stopped = self.stopped.load(Ordering::SeqCst);
        Box::pin(async move {
            match (stopped, moved) {
                (true, _) => Err(SpeedError::Stopped),
                (_, true) => Err(SpeedError::SeamMoved),
                _ => Ok(SpeedPin { generations, watermark, latest_event }),
            }
        })
    }

    fn retire(&self, _: &PublishedView, _: &Cut) {}

    fn forget(&self, _: &PublishedView) {}
}

/// The parts of all views by name, each with the date on which its windows start.
#[derive(Default)]
pub struct FakeBatch {
    pub parts: Mutex<BTreeMap<String, Vec<DatedPart>>>,
    /// Number of parts read.
    pub read: AtomicUsize,
    pub broken: AtomicBool,
    /// No part is in memory: each has to be loaded.
    pub is_cold: AtomicBool,
}

impl BatchReader for FakeBatch {
    fn bytes_to_load(&self, published: &PublishedView, _: &BatchVersion, range: TimeRange) -> u64 {
        if !self.is_cold.load(Ordering::SeqCst) {
            return 0;
        }
        let parts = self.parts.lock().get(published.view.name.as_str()).cloned().unwrap_or_default();
        let in_range = parts.iter().filter(|(date, _)| date.day().is_none_or(|day| range.meets_day(day)));
        in_range.map(|(_, part)| part.bytes() as u64).sum()
    }

    fn parts<'a>(
        &'a self,
        published: &'a PublishedView,
        version: &'a BatchVersion,
        range: TimeRange,
        budget: &'a QueryBudget,
    ) -> BoxFuture<'a, Result<Vec<Arc<Part>>, BatchReadError>> {
        let needed = self.bytes_to_load(published, version, range);
        if let Err(exceeded) = budget.check(usize::try_from(needed).unwrap_or(usize::MAX)) {
            return Box::pin(async move { Err(exceeded.into()) });
        }
        let parts = self.parts.lock().get(published.view.name.as_str()).cloned().unwrap_or_default();
        let meets = |date: &DatePartition| date.day().is_none_or(|day| range.meets_day(day));
        let parts: Vec<_> = parts.into_iter().filter(|(date, _)| meets(date)).map(|(_, p)| p).collect();
        self.read.fetch_add(parts.len(), Ordering::SeqCst);
        let broken = self.broken.load(Ordering::SeqCst);
        Box::pin(async move { if broken { Err(HandoffError("a file is missing".into()).into()) } else { Ok(parts) } })
    }
}

/// Keeps no past versions; `tests/versions.rs` tests them with the real batch layer.
pub struct FakePast;

impl PastReader for FakePast {
    fn at<'a>(&'a self, view: &'a ViewName, _: Moment) -> BoxFuture<'a, Result<PastVersion, PastError>> {
        Box::pin(async { Err(PastError::Nothing(view.clone())) })
    }
}

#[derive(Default)]
pub struct FakeRuns {
    pub runs: Mutex<Vec<Run>>,
    pub comparisons: Mutex<Vec<Comparison>>,
    pub next_run: Mutex<Option<Micros>>,
    pub versions: Mutex<Vec<BatchVersion>>,
}

pub fn a_run(id: &str, view: &str, full: bool) -> Run {
    Run {
        id: id.to_owned(),
        view: view.parse().expect("a name"),
        state: RunState::Queued,
        full,
        ranges: Vec::new(),
        trigger: "request".to_owned(),
        attempt: 1,
        retry_of: None,
        retry_at: None,
        cut: None,
        version: None,
        queued_at: Micros(0),
        started_at: None,
        finished_at: None,
        duration_ms: None,
        progress: RunProgress::default(),
        engine: None,
        error: None,
    }
}

pub fn a_comparison(view: &str, version: i64) -> Comparison {
    Comparison {
        view: view.parse().expect("a name"),
        version,
        compared_at: Micros(0),
        cut: BTreeMap::from([(P0, Offset(4))]),
        rows_compared: 10,
        rows_equal: 9,
        measures: BTreeMap::new(),
        causes: Causes { late: 1, ..Causes::default() },
        rows: Vec::new(),
        definition: None,
        rows_omitted: 0,
    }
}

impl Runs for FakeRuns {
    fn versions_kept(&self, _: &str) -> usize {
        2
    }

    fn vacuum(&self, view: &str, _: Option<Duration>) -> BoxFuture<'_, Result<VacuumReport, HandoffError>> {
        let view: ViewName = view.parse().expect("a name");
        Box::pin(async { Ok(VacuumReport::nothing(view)) })
    }

    fn compact(
        &self,
        stream: &str,
        older_than: Option<Duration>,
    ) -> BoxFuture<'_, Result<Option<CompactionReport>, HandoffError>> {
        let stream = (stream == "flights").then(|| stream.parse().expect("a name"));
        let files_deleted = older_than.map_or(0, |age| age.as_millis() as u64);
        Box::pin(async move {
            Ok(stream.map(|stream| CompactionReport { files_deleted, ..CompactionReport::nothing(stream) }))
        })
    }

    fn checkpoint(&self, view: &str, full: bool) -> Result<Run, RunError> {
        self.request(view, RunScope { full, range: None })
    }

    fn request(&self, view: &str, RunScope { full, .. }: RunScope) -> Result<Run, RunError> {
        let mut runs = self.runs.lock();
        let run = a_run(&format!("run-{}", runs.len() + 1), view, full);
        runs.push(run.clone());
        Ok(run)
    }

    fn list(&self, filter: &RunFilter) -> Result<RunPage, RunError> {
        let runs = self.runs.lock();
        let wanted = runs.iter().rev().filter(|run| {
            filter.view.as_ref().is_none_or(|view| run.view.as_str() == view)
                && filter.state.is_none_or(|state| run.state == state)
        });
        Ok(RunPage { runs: wanted.take(filter.limit).cloned().collect(), next: None })
    }

    fn ends(&self, view: &str) -> RunEnds {
        let runs = self.runs.lock();
        let latest = |state| runs.iter().rev().find(|run| run.view.as_str() == view && run.state == state).cloned();
        RunEnds {
            last_success: latest(RunState::Published),
            last_failure: latest(RunState::Failed),
            retry_at: latest(RunState::Failed).and_then(|run| run.retry_at),
        }
    }

    fn get(&self, id: &str) -> Option<Run> {
        self.runs.lock().iter().find(|run| run.id == id).cloned()
    }

    fn cancel(&self, id: &str) -> Result<Run, RunError> {
        let mut runs = self.runs.lock();
        let run = runs.iter_mut().find(|run| run.id == id).ok_or_else(|| RunError::UnknownRun(id.to_owned()))?;
        run.state = RunState::Cancelled;
        Ok(run.clone())
    }

    fn next_run(&self, _: &str) -> Option<Micros> {
        *self.next_run.lock()
    }

    fn versions(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<BatchVersion>, HandoffError>> {
        let versions = self.versions.lock();
        let of_view = versions.iter().filter(|v| v.view.as_str() == view).take(limit).cloned().collect();
        Box::pin(async move { Ok(of_view) })
    }

    fn comparison(&self, view: &str, version: Option<i64>) -> BoxFuture<'_, Result<Option<Comparison>, HandoffError>> {
        let comparisons = self.comparisons.lock();
        let found =
            comparisons.iter().rev().find(|c| c.view.as_str() == view && version.is_none_or(|v| v == c.version));
        let found = found.cloned();
        Box::pin(async move { Ok(found) })
    }

    fn drift(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<Comparison>, HandoffError>> {
        let comparisons = self.comparisons.lock();
        let of_view = comparisons.iter().rev().filter(|c| c.view.as_str() == view);
        let found = of_view.take(limit).map(Comparison::summary).collect();
        Box::pin(async move { Ok(found) })
    }
}

/// Streams with preset lists; records the requests.
#[derive(Default)]
pub struct FakeStreams {
    pub all: Mutex<Vec<StreamStatus>>,
    pub events: Mutex<Option<EventPage>>,
    pub quarantine: Mutex<Option<QuarantinePage>>,
    pub asked: Mutex<Vec<(String, ListRange)>>,
}

impl FakeStreams {
    fn listed<T>(&self, stream: &str, what: &str, range: &ListRange, preset: Option<T>) -> Result<T, StreamError> {
        self.asked.lock().push((what.to_owned(), range.clone()));
        preset.filter(|_| stream == "flights").ok_or_else(|| StreamError::UnknownStream(stream.to_owned()))
    }
}

impl Streams for FakeStreams {
    fn list(&self) -> Vec<StreamStatus> {
        self.all.lock().clone()
    }

    fn events(&self, stream: &str, kind: EventKind, range: &ListRange) -> Result<EventPage, StreamError> {
        if range.cursor.as_deref() == Some("bad") {
            return Err(StreamError::BadCursor("bad".to_owned()));
        }
        let what = format!("{kind:?}");
        self.listed(stream, &what, range, self.events.lock().clone())
    }

    fn quarantine(&self, stream: &str, range: &ListRange) -> Result<QuarantinePage, StreamError> {
        self.listed(stream, "Quarantine", range, self.quarantine.lock().clone())
    }

    fn empty_quarantine(&self, stream: &str) -> Result<u64, StreamError> {
        let range = ListRange { limit: 0, cursor: None };
        self.listed(stream, "Empty", &range, self.quarantine.lock().take()).map(|page| page.counts.kept)
    }
}

/// The state of a server with one stream.
#[derive(Clone)]
pub struct World {
    pub stream: Arc<Stream>,
    pub views: Arc<Views>,
    pub speed: Arc<FakeSpeed>,
    pub batch: Arc<FakeBatch>,
    pub runs: Arc<FakeRuns>,
    pub streams: Arc<FakeStreams>,
    pub admission: Arc<serving::admission::Admission>,
    pub clock: ManualClock,
    pub ready: Arc<AtomicBool>,
    pub vitals: Vitals,
    pub by_name: BTreeMap<String, Arc<View>>,
    pub perimeter: Perimeter,
}

impl World {
    pub fn new(sql: &str) -> World {
        let (streams, views) = definitions(sql);
        let stream = Arc::clone(&streams[0]);
        let published = Views::default();
        for view in &views {
            published.publish(PublishedView::nothing(Arc::clone(view), Arc::clone(&stream)));
        }
        World {
            perimeter: Perimeter::open(),
            stream,
            views: Arc::new(published),
            speed: Arc::default(),
            batch: Arc::default(),
            runs: Arc::default(),
            streams: Arc::default(),
            admission: Arc::default(),
            clock: ManualClock::at(Micros::parse("2001-01-02T12:00:00Z").expect("a time")),
            ready: Arc::new(AtomicBool::new(true)),
            vitals: Vitals::default(),
            by_name: views.into_iter().map(|v| (v.name.to_string(), v)).collect(),
        }
    }

    /// Publishes `version` of every view from `ndjson`, the events of partition 0 from offset 0 on.
    pub fn publish(&self, version: i64, ndjson: &str) {
        let events = events(&self.stream, ndjson);
        let accepted = Ledger::of_range(P0, Offset(0), Offset(events.num_rows() as u64));
        let mut seam = Cut::start(self.stream.partitions);
        seam.0.insert(P0, CutPoint { offset: Offset(accepted.events), accepted });
        for (name, view) in &self.by_name {
            let parts = elsewhere(|| batch_parts(view, &self.stream, &events));
            let longest = longest_session(view, &parts);
            let published = BatchVersion {
                view: view.name.clone(),
                sql: view.sql.clone(),
                definition_hash: view.definition_hash(),
                version,
                run: "run-0".to_owned(),
                published_at: self.clock.now().minus(Duration::from_secs(60)),
                seam: seam.clone(),
                ledger: accepted,
                full: true,
                origin: Default::default(),
                late: 0,
                rows: parts.iter().map(|(_, part)| part.rows() as u64).sum(),
                longest_session_us: longest,
                comparison: None,
                comparison_file: None,
                work: None,
                file_count: Some(parts.len() as u64),
                bytes: Some(1_000),
                watermark: None,
                latest_event: None,
                retained_from: None,
                frozen_before: None,
                dropped_sessions_end: None,
                past_retention: 0,
                failed: Default::default(),
                erased: Default::default(),
                lookups: Default::default(),
                files: Vec::new(),
            };
            self.batch.parts.lock().insert(name.clone(), parts);
            self.runs.versions.lock().insert(0, published.clone());
            self.views.publish(PublishedView::version(Arc::clone(view), Arc::clone(&self.stream), published));
        }
    }

    /// Freezes the windows of every view that start before `day`.
    pub fn freeze(&self, day: &str) {
        for name in self.by_name.keys() {
            let published = self.views.get(name).expect("a view");
            let version = published.version.as_deref().expect("a version").clone();
            let version = BatchVersion { frozen_before: shared::time::Day::parse(day), ..version };
            let (view, stream) = (Arc::clone(&published.view), Arc::clone(&self.stream));
            self.views.publish(PublishedView::version(view, stream, version));
        }
    }

    /// Adds a generation of partition 0 to every view, after the seam and the generations before it.
    pub fn live(&self, ndjson: &str) {
        let events = events(&self.stream, ndjson);
        for (name, view) in &self.by_name {
            let published = self.views.get(name).expect("a view");
            let mut all = self.speed.generations.lock();
            let generations = all.entry(name.clone()).or_default();
            let from = generations.last().map_or(published.seam.offset(P0), |g| g.to);
            let to = Offset(from.0 + events.num_rows() as u64);
            generations.push(Generation {
                released: None,
                partition: P0,
                from,
                to,
                part: part(view, &self.stream, &events, from),
                folded: Ledger::of_range(P0, from, to),
                late: Ledger::EMPTY,
                failed: Ledger::EMPTY,
                failed_events: Arc::default(),
                accepted: Ledger::of_range(P0, Offset(0), to),
            });
        }
    }

    pub fn watermark(&self, time: &str) {
        *self.speed.watermark.lock() = Some(Micros::parse(time).expect("a time"));
    }

    /// Sets the largest event time that the speed layer reports.
    pub fn latest_event(&self, time: &str) {
        *self.speed.latest_event.lock() = Some(Micros::parse(time).expect("a time"));
    }

    pub fn routes(&self) -> Router {
        self.routes_with(Arc::new(NoEntities))
    }

    pub fn routes_with(&self, entities: Arc<dyn EntityReader>) -> Router {
        routes(
            ServingState {
                views: Arc::clone(&self.views),
                speed: Arc::clone(&self.speed) as _,
                batch: Arc::clone(&self.batch) as _,
                past: Arc::new(FakePast),
                runs: Arc::clone(&self.runs) as _,
                streams: Arc::clone(&self.streams) as _,
                entities,
                tables: Arc::new(shared::table_reader::NoTables),
                alerts: Arc::new(shared::control::NoAlerts::default()),
                sinks: Arc::new(shared::control::NoSinks),
                erasures: Arc::new(shared::control::NoErasures),
                indexes: Arc::new(shared::partial::index_cache::PartIndexes::new(1 << 20)),
                admission: Arc::clone(&self.admission),
                clock: Arc::new(self.clock.clone()),
                ready: Arc::clone(&self.ready),
                vitals: self.vitals.clone(),
                metrics: Arc::new(|| "trueup_up 1\n".to_owned()),
            },
            axum::Router::new(),
            &self.perimeter,
        )
    }

    pub async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.routes().oneshot(request).await.expect("a router does not fail");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body").to_vec();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(encoded(path)).body(Body::empty()).expect("a request")).await
    }

    /// The rows of a query that succeeds.
    pub async fn rows(&self, path: &str) -> Vec<Value> {
        let reply = self.get(path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
        reply.json()["rows"].as_array().expect("rows").clone()
    }
}

/// Encodes spaces, quotes and the like as a browser does.
pub fn encoded(path: &str) -> String {
    path.replace(' ', "%20")
        .replace('\'', "%27")
        .replace('"', "%22")
        .replace('<', "%3C")
        .replace('>', "%3E")
        .replace('+', "%2B")
}
