//! Surrounds a batch run with a log of events in memory that cuts, archives and folds as the other layers do.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use lake::{ArchiveTags, Commit, Lake, Spool, Table, TablePath};
use parking_lot::Mutex;
use shared::clock::ManualClock;
use shared::control::{CompactionReport, RunScope};
use shared::date_partition::DatePartition;
use shared::handoff::{Archive, Cutter, HandoffError, LogRetention};
use shared::ids::{Offset, Partition, StreamName, ViewName};
use shared::json_cell::json_cell;
use shared::ledger::Ledger;
use shared::partial::block::Part;
use shared::partial::codec::{WINDOW_DATE, table_schema};
use shared::partial::finish::finish_measures;
use shared::partial::keys::HashedKey;
use shared::partial::merge::{Layers, MergeSpec, merge};
use shared::partial::query_budget::QueryBudget;
use shared::partial::sessions::LiveSessions;
use shared::published::{PublishedView, Views};
use shared::readers::{BatchReader, Generation, SpeedError, SpeedPin, SpeedReader};
use shared::retention::Retention;
use shared::seam::{Cut, CutPoint};
use shared::stream::{Stream, system_columns};
use shared::time::{Day, Micros, micros_of};
use shared::time_range::TimeRange;
use shared::view::{Precision, View};
use shared::window::Window;
use tempfile::TempDir;

use super::log_rows::{archive_rows, fold};
use crate::archive::compactor::Compactor;
use crate::archive::settings::CompactionSettings;
use crate::deletion_clock::{DeletionClock, LakeEvidence};
use crate::failure::RunFailure;
use crate::layers::{Job, LayerHandles};
use crate::run::Executor;
use crate::runs::queue::{RunEntry, RunQueue};
use crate::runs::retry::RetrySettings;
use crate::settings::BatchSettings;
use crate::versions::load::load_published;

pub const HOUR: i64 = 3600 * 1_000_000;

const STREAM: &str = "CREATE STREAM flights (
    id STRING PRIMARY KEY, at TIMESTAMP, origin STRING, delay BIGINT, seats INT, fare DOUBLE, price DECIMAL(38, 2),
    tax DECIMAL(9, 2), ok BOOLEAN
) WITH (event_time = 'at', watermark_delay = '1 hour', allowed_lateness = '2 hours', partitions = 2)";

/// One event; its position is its place in the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    pub id: Option<String>,
    pub at: i64,
    pub origin: Option<&'static str>,
    pub delay: Option<i64>,
    pub seats: Option<i32>,
    pub fare: Option<f64>,
    pub price: Option<i128>,
    pub tax: Option<i128>,
    pub ok: Option<bool>,
    pub watermark: Option<i64>,
}

/// An event and its position. Positions decide between events of one time.
pub struct LoggedEvent {
    pub partition: usize,
    pub offset: usize,
    pub event: Event,
}

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
struct Positions {
    partitions: [Vec<Event>; 2],
    archived: [u64; 2],
    cuts: HashMap<ViewName, [u64; 2]>,
    retired: HashMap<String, [u64; 2]>,
    released: BTreeMap<(String, Partition), Offset>,
}

/// The log with its archiver and a speed layer.
pub struct Log {
    pub stream: Arc<Stream>,
    lake: Lake,
    state: Mutex<Positions>,
    /// Called once, when a run next asks speed for its generations: after it has planned and written.
    pub before_pin: Mutex<Option<Hook>>,
    /// The archive never gets there.
    pub archive_stuck: Mutex<bool>,
    /// Speed has lost what it folded, and its ledger says so.
    pub folds_nothing: Mutex<bool>,
    /// Rows missing from the next files, although their tags note them.
    pub lose_rows: Mutex<usize>,
}

pub struct World {
    pub folder: TempDir,
    pub log: Arc<Log>,
    pub views: Arc<Views>,
    pub clock: ManualClock,
    pub executor: Arc<Executor>,
}

pub fn stream() -> Arc<Stream> {
    let files = [("s".to_owned(), STREAM.to_owned())];
    Arc::new(shared::sql::parse_definitions(&files).expect("a stream").streams.remove(0))
}

/// The view that `sql` declares over the stream.
pub fn view(sql: &str) -> Arc<View> {
    let files = [("s".to_owned(), STREAM.to_owned()), ("v".to_owned(), sql.to_owned())];
    let parsed = shared::sql::parse_definitions(&files);
    Arc::new(parsed.unwrap_or_else(|e| panic!("{sql}: {e:?}")).views.remove(0))
}

pub fn settings() -> BatchSettings {
    BatchSettings {
        speed_wait: std::time::Duration::from_secs(5),
        tick: std::time::Duration::from_millis(2),
        ..BatchSettings::default()
    }
}

impl World {
    pub fn new(settings: BatchSettings) -> World {
        World::within(tempfile::tempdir().expect("a folder"), settings)
    }

    /// Over a folder that may have a lake already, with an empty log.
    pub fn within(folder: TempDir, settings: BatchSettings) -> World {
        let lake = Lake::open(folder.path().to_str().expect("a UTF-8 path")).expect("a lake");
        World::over(lake, folder, stream(), settings)
    }

    /// With a stream that keeps events for `days`.
    pub fn keeping(days: u32, settings: BatchSettings) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = Lake::open(folder.path().to_str().expect("a UTF-8 path")).expect("a lake");
        let stream = Stream { retention: Some(Retention { months: 0, days }), ..Stream::clone(&stream()) };
        World::over(lake, folder, Arc::new(stream), settings)
    }

    /// Returns another process over the same lake and log, which loads the published versions.
    pub async fn restarted(self, views: &[Arc<View>], settings: BatchSettings) -> World {
        let World { folder, log, clock, .. } = self;
        let published = Arc::new(Views::default());
        for view in views {
            let loaded = load_published(&log.lake, &log.stream, view).await.expect("loads");
            if loaded.active.version.is_some() {
                published.publish(loaded.active);
            }
        }
        let version = |view: &Arc<View>| published.get(view.name.as_str())?.version.clone();
        let last = views.iter().filter_map(version).map(|version| version.published_at).max();
        let read = LakeEvidence::read(&log.lake, &[Arc::clone(&log.stream)], last).await;
        // Commits are dated by the clock of the machine; the world has its own.
        let evidence = LakeEvidence { archived: last, ..read };
        World::assembled(folder, log, published, clock, settings, evidence)
    }

    /// Over a lake that is not on this machine; only its spool is in the folder.
    pub fn remote(settings: BatchSettings) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(&folder.path().join("spool"), u64::MAX).expect("a spool");
        let lake = Lake::over(Arc::new(object_store::memory::InMemory::new())).with_spool(spool);
        World::over(lake, folder, stream(), settings)
    }

    fn over(lake: Lake, folder: TempDir, stream: Arc<Stream>, settings: BatchSettings) -> World {
        let log = Arc::new(Log {
            stream,
            lake: lake.clone(),
            state: Mutex::default(),
            before_pin: Mutex::default(),
            archive_stuck: Mutex::default(),
            folds_nothing: Mutex::default(),
            lose_rows: Mutex::default(),
        });
        let (views, clock) = (Arc::new(Views::default()), ManualClock::at(Micros(1_000 * HOUR)));
        World::assembled(folder, log, views, clock, settings, LakeEvidence::default())
    }

    fn assembled(
        folder: TempDir,
        log: Arc<Log>,
        views: Arc<Views>,
        clock: ManualClock,
        settings: BatchSettings,
        evidence: LakeEvidence,
    ) -> World {
        let deletion_clock = DeletionClock::new(Arc::new(clock.clone()), settings.clock_note.clone(), evidence);
        let layers = layers(&log.lake, &log, &views, &clock);
        let executor = Arc::new(Executor::new(layers, settings, Arc::new(deletion_clock)));
        World { folder, log, views, clock, executor }
    }

    pub fn lake(&self) -> Lake {
        self.log.lake.clone()
    }

    pub fn layers(&self) -> LayerHandles {
        layers(&self.log.lake, &self.log, &self.views, &self.clock)
    }

    pub fn append(&self, partition: usize, events: impl IntoIterator<Item = Event>) {
        let delay = micros_of(self.log.stream.watermark_delay);
        let mut state = self.log.state.lock();
        let log = &mut state.partitions[partition];
        for mut event in events {
            let before = log.last().map(|last| last.watermark.unwrap_or(i64::MIN).max(last.at - delay));
            event.watermark = before;
            log.push(event);
        }
    }

    pub async fn flush(&self) {
        let head = self.log.head();
        self.log.archive(head).await;
    }

    /// Rewrites whatever small files can be rewritten.
    pub async fn compact(&self, older_than: Option<std::time::Duration>) -> CompactionReport {
        self.compactor().compact(&self.log.stream.name, 2, older_than).await.expect("compacts").expect("the stream")
    }

    pub fn compactor(&self) -> Compactor {
        let (lake, clock) = (&self.log.lake, &self.executor.deletion_clock);
        Compactor::new(lake, &self.views, clock, &[Arc::clone(&self.log.stream)], CompactionSettings::default())
    }

    pub async fn archive(&self) -> Table {
        let path = TablePath::events(&self.log.stream.name);
        let schema = self.log.stream.archive_schema();
        self.log.lake.table(&path, schema, system_columns::EVENT_DATE).await.expect("a table")
    }

    /// Dates and partitions of which the archive has files.
    pub async fn neighbourhoods(&self) -> u64 {
        let snapshot = self.archive().await.snapshot().await.expect("a snapshot");
        let of_file = |file: &lake::DataFile| (file.partition, file.tags["partition"].clone());
        snapshot.files.iter().map(of_file).collect::<std::collections::BTreeSet<_>>().len() as u64
    }

    /// Runs `view` once.
    pub async fn run(&self, view: &Arc<View>, full: bool) -> Result<i64, RunFailure> {
        let entry = self.entry(view, full).await;
        self.executor.execute(&self.job(view), &entry).await
    }

    pub fn job(&self, view: &Arc<View>) -> Job {
        Job { stream: Arc::clone(&self.log.stream), view: Arc::clone(view) }
    }

    pub async fn entry(&self, view: &Arc<View>, full: bool) -> Arc<RunEntry> {
        let queue = RunQueue::new(
            Arc::new(self.clock.clone()),
            std::iter::once(view.name.clone()),
            10,
            RetrySettings::default(),
            Default::default(),
        );
        queue.request(view.name.as_str(), RunScope { full, range: None }, "request").expect("a run");
        queue.next(&view.name).await.expect("a run")
    }

    pub fn published(&self, view: &View) -> Option<Arc<PublishedView>> {
        self.views.get(view.name.as_str())
    }

    /// What the published version says.
    pub async fn batch_rows(&self, view: &View) -> Rows {
        let published = self.published(view).expect("published");
        let version = published.version.clone().expect("a version");
        let reader = Arc::clone(&self.executor.reader);
        let parts = reader.parts(&published, &version, TimeRange::ALL, &QueryBudget::unlimited()).await.expect("parts");
        rows(view, &parts.iter().map(Arc::as_ref).collect::<Vec<_>>())
    }

    pub async fn table(&self, view: &View) -> Table {
        let path = TablePath::view(&view.name);
        self.log.lake.table(&path, table_schema(view), WINDOW_DATE).await.expect("a table")
    }

    /// The Parquet files in the view's folder, committed or not.
    pub fn parquet_files(&self, view: &View) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().join("views").join(view.name.as_str())];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                match path.is_dir() {
                    true => folders.push(path),
                    false if path.extension().is_some_and(|e| e == "parquet") => found.push(path),
                    false => {}
                }
            }
        }
        found.sort();
        found.retain(|path| !path.components().any(|c| c.as_os_str() == "_delta_log"));
        found
    }
}

fn layers(lake: &Lake, log: &Arc<Log>, views: &Arc<Views>, clock: &ManualClock) -> LayerHandles {
    LayerHandles {
        vitals: Default::default(),
        lake: lake.clone(),
        streams: vec![Arc::clone(&log.stream)],
        views: Arc::clone(views),
        cutter: Arc::clone(log) as _,
        archive: Arc::clone(log) as _,
        speed: Arc::clone(log) as _,
        retention: Arc::clone(log) as _,
        lookups: Default::default(),
        log_starts: Vec::new(),
        clock: Arc::new(clock.clone()),
    }
}

/// Values of all measures by window and group, in words.
pub type Rows = BTreeMap<(i64, String), Vec<serde_json::Value>>;

pub fn rows(view: &View, parts: &[&Part]) -> Rows {
    let dimensions: Vec<usize> = (0..view.dimensions.len()).collect();
    let spec = MergeSpec::whole(view, &dimensions, Precision::Sketch);
    let parts: Vec<_> = parts.iter().map(|part| (*part, Layers::BATCH)).collect();
    let merged = merge(&spec, &parts).expect("merges");
    let groups = merged.dimension_columns().expect("decodes");
    let measures = finish_measures(view, &merged.states).expect("finishes");
    let row = |row: usize| {
        let group: Vec<_> = groups.iter().map(|c| json_cell(c, row)).collect();
        let values = measures.iter().map(|m| json_cell(&m.column, row)).collect();
        ((merged.windows[row].0, serde_json::to_string(&group).expect("JSON")), values)
    };
    (0..merged.len()).map(row).collect()
}

/// The same rows; floats up to rounding of values around `scale`.
pub fn assert_same(left: &Rows, right: &Rows, scale: f64) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (key, values) in left {
        for (number, (a, b)) in values.iter().zip(&right[key]).enumerate() {
            let close = match (a.as_f64().filter(|_| a.is_f64()), b.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(scale),
                _ => a == b,
            };
            assert!(close, "{key:?}, measure {number}: {a} and {b}");
        }
    }
}

impl Log {
    pub fn head(&self) -> [u64; 2] {
        self.state.lock().partitions.each_ref().map(|p| p.len() as u64)
    }

    pub fn released(&self) -> BTreeMap<(String, Partition), Offset> {
        self.state.lock().released.clone()
    }

    pub fn retired(&self, definition: &str) -> Option<[u64; 2]> {
        self.state.lock().retired.get(definition).copied()
    }

    /// All events before `cut`, folded by the code of the speed layer: an oracle. `keep` chooses among (partition, event).
    pub fn folded(&self, view: &Arc<View>, cut: [u64; 2], mut keep: impl FnMut(usize, &Event) -> bool) -> Part {
        let state = self.state.lock();
        let logged = |p: usize| {
            let events = state.partitions[p][..cut[p] as usize].iter().enumerate();
            events.map(move |(offset, event)| LoggedEvent { partition: p, offset, event: event.clone() })
        };
        let events = (0..2).flat_map(logged).filter(|logged| keep(logged.partition, &logged.event)).collect();
        fold(&self.stream, view, events)
    }

    /// The events before `cut` that speed counts, folded at once: an oracle of checkpoints. And the number of late events.
    pub fn counted(&self, view: &Arc<View>, cut: [u64; 2]) -> (Part, u64) {
        let state = self.state.lock();
        let of = |p: usize| self.taken(view, p, &state.partitions[p], 0..cut[p] as usize);
        let events: Vec<LoggedEvent> = (0..2).flat_map(of).collect();
        let late = cut.iter().sum::<u64>() - events.len() as u64;
        (fold(&self.stream, view, events), late)
    }

    /// Whether speed counts the event.
    pub fn in_time(&self, view: &View, event: &Event) -> bool {
        let lateness = micros_of(self.stream.allowed_lateness);
        !view.window.is_late(Micros(event.at), Micros(event.watermark.unwrap_or(i64::MIN)), lateness)
    }

    /// The events of a partition at `places` that speed counts. Sessions are by origin.
    fn taken(&self, view: &View, partition: usize, log: &[Event], places: std::ops::Range<usize>) -> Vec<LoggedEvent> {
        let logged = |offset: usize| LoggedEvent { partition, offset, event: log[offset].clone() };
        let Window::Session { gap } = view.window else {
            return places.filter(|offset| self.in_time(view, &log[*offset])).map(logged).collect();
        };
        let mut live = LiveSessions::new(gap, micros_of(self.stream.allowed_lateness));
        let judged = log.iter().map(|event| {
            let key = format!("{:?}", event.origin);
            live.judge(HashedKey::new(key.as_bytes()), event.at, event.watermark)
        });
        let is_late: Vec<bool> = judged.collect();
        places.filter(|offset| !is_late[*offset]).map(logged).collect()
    }

    /// The watermark of a partition after its first events.
    fn watermark(&self, partition: usize, to: u64) -> Micros {
        let state = self.state.lock();
        let latest = state.partitions[partition][..to as usize].iter().map(|event| event.at).max();
        latest.map_or(Micros::MIN, |at| Micros(at).minus(self.stream.watermark_delay))
    }

    async fn archive(&self, to: [u64; 2]) {
        let path = TablePath::events(&self.stream.name);
        let schema = self.stream.archive_schema();
        let table = self.lake.table(&path, schema, system_columns::EVENT_DATE).await.expect("a table");
        let (mut files, mut txns) = (Vec::new(), Vec::new());
        for (partition, to) in to.into_iter().enumerate() {
            let app_id = ArchiveTags::app_id(&self.stream.name, Partition(partition as u32));
            let (from, mut events) = {
                let mut state = self.state.lock();
                let from = std::mem::replace(&mut state.archived[partition], to);
                let events = state.partitions[partition][from as usize..to as usize].to_vec();
                (from, events.into_iter().enumerate().map(|(i, e)| (from + i as u64, e)).collect::<Vec<_>>())
            };
            if !events.is_empty() {
                txns.push((app_id, i64::try_from(to).expect("an offset")));
            }
            events.sort_by_key(|(_, event)| event.at);
            for chunk in events.chunk_by(|a, b| Micros(a.1.at).day() == Micros(b.1.at).day()) {
                let day: Day = Micros(chunk[0].1.at).day();
                let ledger = chunk.iter().map(|(o, _)| Ledger::of(Partition(partition as u32), Offset(*o))).sum();
                let tags = ArchiveTags {
                    partition: Partition(partition as u32),
                    from: Offset(from),
                    to: Offset(to),
                    rows: chunk.len() as u64,
                    erased: 0,
                    ledger,
                    latest_watermark: self.watermark(partition, to),
                };
                let lost = std::mem::take(&mut *self.lose_rows.lock());
                let batch = archive_rows(&self.stream, partition, &chunk[lost..]);
                let mut file = table.write_parquet(DatePartition::Day(day), &[batch]).await.expect("writes");
                file.tags = tags.to_tags();
                files.push(file);
            }
        }
        if !files.is_empty() {
            let append = Commit::append(files);
            let commit = txns.into_iter().fold(append, |commit, (app_id, to)| commit.completing(app_id, to));
            table.commit(commit).await.expect("commits");
        }
    }
}

fn point(partition: usize, offset: u64) -> (Partition, CutPoint) {
    let partition = Partition(partition as u32);
    (partition, CutPoint { offset: Offset(offset), accepted: Ledger::of_range(partition, Offset(0), Offset(offset)) })
}

impl Cutter for Log {
    fn cut(&self, _: &StreamName, view: &ViewName) -> BoxFuture<'_, Result<Cut, HandoffError>> {
        let head = self.head();
        self.state.lock().cuts.insert(view.clone(), head);
        Box::pin(async move { Ok(Cut(head.into_iter().enumerate().map(|(p, o)| point(p, o)).collect())) })
    }
}

impl Archive for Log {
    fn archived(&self, _: &StreamName, cut: &Cut) -> BoxFuture<'_, Result<(), HandoffError>> {
        let to = [cut.offset(Partition(0)).0, cut.offset(Partition(1)).0];
        Box::pin(async move {
            if *self.archive_stuck.lock() {
                std::future::pending::<()>().await;
            }
            self.archive(to).await;
            Ok(())
        })
    }
}

impl LogRetention for Log {
    fn release(&self, _: &StreamName, partition: Partition, reader: &str, offset: Offset) {
        self.state.lock().released.insert((reader.to_owned(), partition), offset);
    }
}

impl SpeedReader for Log {
    fn pin<'a>(&'a self, published: &'a PublishedView, seam: &'a Cut) -> BoxFuture<'a, Result<SpeedPin, SpeedError>> {
        Box::pin(async move {
            let hook = self.before_pin.lock().take();
            if let Some(hook) = hook {
                hook().await;
            }
            let state = self.state.lock();
            let view = &published.view;
            let cuts = state.cuts.get(&view.name).copied().unwrap_or_default();
            let retired = state.retired.get(&*published.definition_hash).copied().unwrap_or_default();
            let mut generations = Vec::new();
            for p in 0..2 {
                let seam = seam.offset(Partition(p as u32)).0;
                if seam < retired[p] {
                    return Err(SpeedError::SeamMoved);
                }
                let (cut, head) = (cuts[p].max(seam), state.partitions[p].len() as u64);
                for (from, to) in [(seam, cut), (cut, head)].into_iter().filter(|(from, to)| from < to || *to == head) {
                    let in_time = self.taken(view, p, &state.partitions[p], from as usize..to as usize);
                    let partition = Partition(p as u32);
                    let in_time = if *self.folds_nothing.lock() { Vec::new() } else { in_time };
                    let folded: Ledger =
                        in_time.iter().map(|logged| Ledger::of(partition, Offset(logged.offset as u64))).sum();
                    generations.push(Generation {
                        released: None,
                        partition,
                        from: Offset(from),
                        to: Offset(to),
                        part: fold(&self.stream, view, in_time),
                        folded,
                        late: match *self.folds_nothing.lock() {
                            true => Ledger::EMPTY,
                            false => Ledger::of_range(partition, Offset(from), Offset(to)) - folded,
                        },
                        failed: Ledger::EMPTY,
                        failed_events: Arc::default(),
                        accepted: Ledger::of_range(partition, Offset(0), Offset(to)),
                    });
                }
            }
            Ok(SpeedPin { generations, watermark: None, latest_event: None })
        })
    }

    fn forget(&self, published: &PublishedView) {
        self.state.lock().retired.insert(published.definition_hash.to_string(), [u64::MAX; 2]);
    }

    fn retire(&self, published: &PublishedView, seam: &Cut) {
        let seam = [seam.offset(Partition(0)).0, seam.offset(Partition(1)).0];
        self.state.lock().retired.insert(published.definition_hash.to_string(), seam);
    }
}
