//! Starts runs: one task per view executes its runs in order, and others watch the clock for schedules and retries.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use lake::vacuum::oldest_leftover;
use lake::{LakeError, TablePath};
use parking_lot::Mutex;
use shared::compare::Comparison;
use shared::control::{
    CompactionReport, Run, RunEnds, RunError, RunFilter, RunPage, RunScope, RunState, Runs, VacuumReport,
};
use shared::entity::EntityId;
use shared::handoff::HandoffError;
use shared::horizon::Horizon;
use shared::ids::{Partition, StreamName, ViewName};
use shared::ledger::Ledger;
use shared::schedule::{Schedule, ScheduleError};
use shared::time::{MICROS_PER_SECOND, Micros};
use shared::version::BatchVersion;
use shared::view::{View, ViewLayers};
use shared::vital;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::archive::compactor::Compactor;
use crate::archive::erasure::ErasedFromArchive;
use crate::deletion_clock::{DeletionClock, LakeEvidence};
use crate::failure::RunFailure;
use crate::layers::{Job, LayerHandles};
use crate::run::Executor;
use crate::runs::queue::{RunEntry, RunQueue};
use crate::runs::run_log::RunLog;
use crate::runs::schedule_timer::{NextRuns, ScheduleTimer};
use crate::settings::BatchSettings;
use crate::versions::kept::VersionIndex;
use crate::versions::load::{LoadedView, versions};
use crate::versions::reader::VersionReader;
use crate::versions::time_travel::TimeTravel;
use crate::versions::vacuum::VersionVacuum;
use crate::watch::Cancel;

/// Why the batch layer could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("view {view}: {problem}")]
    Schedule { view: ViewName, problem: ScheduleError },
}

/// The batch layer.
pub struct Batch {
    queue: Arc<RunQueue>,
    executor: Arc<Executor>,
    kept: Arc<VersionIndex>,
    vacuum: Arc<VersionVacuum>,
    compactor: Arc<Compactor>,
    next_runs: NextRuns,
    stopping: Cancel,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Batch {
    /// Starts the tasks that keep the loaded views up to date. The loaded versions must be active already, and speed must fold
    /// for their definitions and for the shadows. Must be called within a Tokio runtime.
    pub async fn start(
        layers: LayerHandles,
        loaded: Vec<LoadedView>,
        settings: BatchSettings,
    ) -> Result<Batch, StartError> {
        let mut schedules = Vec::with_capacity(loaded.len());
        for LoadedView { view, .. } in &loaded {
            let in_zone = |line: &str| Schedule::parse(line).map(|schedule| schedule.in_zone(view.schedule_zone));
            let parsed = view.version_schedule().map(in_zone).transpose();
            schedules.push(parsed.map_err(|problem| StartError::Schedule { view: view.name.clone(), problem })?);
        }
        let (clock, vitals) = (Arc::clone(&layers.clock), layers.vitals.clone());
        let names: Vec<ViewName> = loaded.iter().map(|l| l.view.name.clone()).collect();
        let kept = settings.runs_kept;
        let logged = settings.runs_file.as_deref().map_or_else(Default::default, |file| RunLog::open(file, kept));
        let queue = Arc::new(RunQueue::new(Arc::clone(&clock), names.iter().cloned(), kept, settings.retry, logged));
        let tick = settings.tick;
        let published = loaded.iter().filter_map(|l| Some(l.active.version.as_ref()?.published_at)).max();
        let evidence = LakeEvidence::read(&layers.lake, &layers.streams, published).await;
        let deletion_clock = Arc::new(DeletionClock::new(Arc::clone(&clock), settings.clock_note.clone(), evidence));
        let kept = loaded.iter().map(|l| (l.view.name.clone(), l.view.versions_kept));
        let kept = Arc::new(VersionIndex::new(&layers.lake, kept));
        let vacuum = Arc::new(VersionVacuum {
            lake: layers.lake.clone(),
            views: Arc::clone(&layers.views),
            kept: Arc::clone(&kept),
            clock: Arc::clone(&deletion_clock),
            age: settings.vacuum_age,
            every: settings.vacuum_every,
            last: Mutex::default(),
        });
        let LayerHandles { lake, views, streams, .. } = &layers;
        let compactor = Arc::new(Compactor::new(lake, views, &deletion_clock, streams, settings.compaction));
        let executor = Arc::new(Executor::new(layers, settings, deletion_clock));
        let next_runs = NextRuns::default();
        let stopping = Cancel::default();
        let mut tasks = Vec::new();
        for (loaded, schedule) in loaded.into_iter().zip(schedules) {
            if let Some((full, trigger)) = first_run(&loaded, schedule.as_ref(), &executor.layers) {
                // Cannot be refused: nothing is stopping yet and the view is known.
                let _ = queue.request(loaded.view.name.as_str(), RunScope { full, range: None }, trigger);
            }
            let view = loaded.view.name.clone();
            let job = Job { stream: loaded.stream, view: loaded.view };
            let (queue_of, vacuum_of) = (Arc::clone(&queue), Arc::clone(&vacuum));
            let all = run_all(queue_of, Arc::clone(&executor), vacuum_of, job, stopping.clone());
            tasks.push(vitals.spawn_task(format!("batch runs of {view}"), all));
            if let Some(schedule) = schedule {
                let since = clock.now();
                next_runs.lock().extend(schedule.next_after(since).map(|due| (view.clone(), due)));
                let (queue, next_runs) = (Arc::clone(&queue), Arc::clone(&next_runs));
                let part = format!("schedule of {view}");
                let timer = ScheduleTimer { queue, next_runs, view, schedule, clock: Arc::clone(&clock), since };
                tasks.push(vitals.spawn_task(part, timer.run(tick, stopping.clone())));
            }
        }
        let retries = wake_retries(Arc::clone(&queue), names, tick, stopping.clone());
        tasks.push(vitals.spawn_task("batch retries", retries));
        for stream in compactor.streams() {
            let watch = Arc::clone(&compactor).watch(stream.clone(), stopping.clone());
            tasks.push(vitals.spawn_task(format!("compaction of {stream}"), watch));
        }
        Ok(Batch { queue, executor, kept, vacuum, compactor, next_runs, stopping, tasks: Mutex::new(tasks) })
    }

    /// Returns the reader of versions. Runs share it and leave the rows they computed in its cache.
    pub fn reader(&self) -> Arc<VersionReader> {
        Arc::clone(&self.executor.reader)
    }

    /// Returns the access to versions of the past.
    pub fn past(&self) -> TimeTravel {
        let layers = &self.executor.layers;
        TimeTravel::new(&layers.lake, &layers.views, &self.kept)
    }

    /// Erases the events of entities, each with its partition, from the archive of a stream. The next run of each view
    /// excludes them from its figures.
    pub async fn erase(
        &self,
        stream: &StreamName,
        entities: &[(Partition, EntityId)],
    ) -> Result<ErasedFromArchive, HandoffError> {
        let erased = self.compactor.erase(stream, entities).await;
        erased.map_err(|error| HandoffError(format!("stream {stream}: {error}")))
    }

    /// Deletes files of a stream's archive that have been unused for `older_than`; rewrites nothing.
    pub async fn vacuum_archive(&self, stream: &StreamName, older_than: Duration) -> Result<(), HandoffError> {
        let vacuumed = self.compactor.compact(stream, usize::MAX, Some(older_than)).await;
        vacuumed.map(|_| ()).map_err(|error| HandoffError(format!("stream {stream}: {error}")))
    }

    /// Removes the rows from all comparisons before the active version of a view: they may be of erased entities.
    pub async fn forget_compared(&self, view: &ViewName) -> Result<(), HandoffError> {
        let published = self.executor.layers.views.get(view.as_str());
        match published.and_then(|published| published.version.clone()) {
            Some(version) => self.executor.comparisons.forget_rows(view, version.version).await,
            None => Ok(()),
        }
    }

    /// Returns when the oldest file of a stream's archive, its views and their comparisons was written that no version has any
    /// more; `None`: there is none.
    pub async fn oldest_leftover(&self, stream: &StreamName) -> Result<Option<Micros>, HandoffError> {
        let counted = async {
            let lake = &self.executor.layers.lake;
            let mut tables = vec![(TablePath::events(stream), None)];
            for published in self.executor.layers.views.all().iter().filter(|view| view.stream.name == *stream) {
                let view = &published.view.name;
                tables.push((TablePath::view(view), self.kept.of(view).await?.from()));
                tables.push((TablePath::reconciliations(view), None));
            }
            let mut oldest: Option<i64> = None;
            for (path, kept_from) in tables {
                if let Some(table) = lake.open_table(&path).await? {
                    oldest = oldest.into_iter().chain(oldest_leftover(&table, kept_from).await?).min();
                }
            }
            Ok::<_, LakeError>(oldest.map(|ms| Micros(ms.saturating_mul(1_000))))
        };
        counted.await.map_err(|error| HandoffError(format!("stream {stream}: {error}")))
    }

    /// Stops all runs and waits for their tasks. Nothing a stopped run did is visible.
    pub async fn stop(&self) {
        self.stopping.set();
        self.queue.stop();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "batch task failed");
            }
        }
    }

    /// Returns the definition of a view as declared; `None`: it is not known.
    fn declared(&self, view: &str) -> Option<Arc<View>> {
        Some(Arc::clone(self.executor.layers.views.get(view)?.declared()))
    }

    fn name(view: &str) -> Result<ViewName, HandoffError> {
        view.parse().map_err(|e| HandoffError(format!("{e}")))
    }
}

impl Runs for Batch {
    fn request(&self, view: &str, scope: RunScope) -> Result<Run, RunError> {
        if let Some(declared) = self.declared(view).filter(|view| view.layers == ViewLayers::Speed) {
            return Err(RunError::SpeedAlone(declared.name.clone()));
        }
        // The run itself refuses dates that were dropped since the last version.
        let horizon = self.executor.layers.views.get(view).map_or(Horizon::NONE, |published| Horizon::of(&published));
        if let (Some(range), Some(retained_from)) = (scope.range, horizon.frozen_before())
            && range.from < retained_from
        {
            return Err(RunError::Dropped { from: range.from, retained_from });
        }
        self.queue.request(view, scope, if scope.range.is_some() { "backfill" } else { "request" })
    }

    fn checkpoint(&self, view: &str, full: bool) -> Result<Run, RunError> {
        if let Some(declared) = self.declared(view).filter(|view| view.layers == ViewLayers::Both) {
            return Err(RunError::HasBatch(declared.name.clone()));
        }
        self.queue.request(view, RunScope { full, range: None }, "checkpoint")
    }

    fn list(&self, filter: &RunFilter) -> Result<RunPage, RunError> {
        self.queue.list(filter)
    }

    fn ends(&self, view: &str) -> RunEnds {
        self.queue.ends(view)
    }

    fn get(&self, id: &str) -> Option<Run> {
        self.queue.get(id)
    }

    fn cancel(&self, id: &str) -> Result<Run, RunError> {
        self.queue.cancel(id)
    }

    fn next_run(&self, view: &str) -> Option<Micros> {
        self.next_runs.lock().get(&Batch::name(view).ok()?).copied()
    }

    fn versions(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<BatchVersion>, HandoffError>> {
        let view = Batch::name(view);
        Box::pin(async move {
            let wrong = |e: lake::LakeError| HandoffError(e.to_string());
            let table = self.executor.layers.lake.open_table(&TablePath::view(&view?)).await.map_err(wrong)?;
            match table {
                Some(table) => versions(&table, limit).await.map_err(wrong),
                None => Ok(Vec::new()),
            }
        })
    }

    fn versions_kept(&self, view: &str) -> usize {
        Batch::name(view).map_or(0, |view| self.kept.count(&view))
    }

    fn vacuum(&self, view: &str, older_than: Option<Duration>) -> BoxFuture<'_, Result<VacuumReport, HandoffError>> {
        let view = Batch::name(view);
        Box::pin(async move {
            let older_than = older_than.unwrap_or(self.vacuum.age);
            self.vacuum.clean(&view?, older_than).await.map_err(|error| HandoffError(error.to_string()))
        })
    }

    fn compact(
        &self,
        stream: &str,
        older_than: Option<Duration>,
    ) -> BoxFuture<'_, Result<Option<CompactionReport>, HandoffError>> {
        let stream = stream.parse::<StreamName>();
        Box::pin(async move {
            // An invalid name is not the name of a stream.
            let Ok(stream) = stream else { return Ok(None) };
            let compacted = self.compactor.compact(&stream, 2, older_than).await;
            compacted.map_err(|error| HandoffError(format!("stream {stream}: {error}")))
        })
    }

    fn comparison(&self, view: &str, version: Option<i64>) -> BoxFuture<'_, Result<Option<Comparison>, HandoffError>> {
        let view = Batch::name(view);
        Box::pin(async move {
            let view = view?;
            let comparisons = &self.executor.comparisons;
            match version {
                Some(version) => comparisons.get(&view, version).await,
                None => comparisons.latest(&view).await,
            }
        })
    }

    fn drift(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<Comparison>, HandoffError>> {
        let view = Batch::name(view);
        Box::pin(async move { self.executor.comparisons.history(&view?, limit).await })
    }
}

/// Returns the run that a view needs at once, if any: whether it is full, and its trigger.
fn first_run(loaded: &LoadedView, schedule: Option<&Schedule>, layers: &LayerHandles) -> Option<(bool, &'static str)> {
    if loaded.shadow.is_some() || loaded.version_lost {
        return Some((true, "definition"));
    }
    let of_speed = loaded.active.version.as_ref().is_some_and(|version| version.has_rows_of_speed());
    if loaded.view.layers == ViewLayers::Both && of_speed {
        return Some((true, "layers"));
    }
    let seam = &loaded.active.seam;
    let of_stream = layers.log_starts.iter().filter(|(stream, ..)| *stream == loaded.stream.name);
    // These events are in no version and not in the log, only in the archive.
    if loaded.active.unread != Ledger::EMPTY {
        return Some((true, "start"));
    }
    if of_stream.into_iter().any(|(_, partition, start)| *start > seam.offset(*partition)) {
        return Some((true, "start"));
    }
    let last = loaded.active.version.as_ref()?.published_at;
    schedule?.missed(last, layers.clock.now()).then_some((false, "schedule"))
}

/// Checks every `tick` whether a retry is due.
async fn wake_retries(queue: Arc<RunQueue>, views: Vec<ViewName>, tick: Duration, stopping: Cancel) {
    while !stopping.is_set() {
        // Also for runs that a restart brought back, or that were cancelled since.
        views.iter().for_each(|view| set_metrics(&queue, view));
        tokio::select! {
            () = tokio::time::sleep(tick) => queue.wake_retries(),
            () = stopping.wait() => return,
        }
    }
}

/// Sets the metrics of how a view's latest runs ended.
fn set_metrics(queue: &RunQueue, view: &ViewName) {
    let ends = queue.ends(view.as_str());
    let waits = if ends.retry_at.is_some() { 1.0 } else { 0.0 };
    metrics::gauge!("trueup_batch_retry_waiting", "view" => view.to_string()).set(waits);
    if let Some(at) = ends.last_success.and_then(|run| run.finished_at) {
        let seconds = at.0 as f64 / MICROS_PER_SECOND as f64;
        metrics::gauge!("trueup_batch_success_timestamp_seconds", "view" => view.to_string()).set(seconds);
    }
}

/// Executes the runs of a view in order.
async fn run_all(
    queue: Arc<RunQueue>,
    executor: Arc<Executor>,
    vacuum: Arc<VersionVacuum>,
    job: Job,
    stopping: Cancel,
) {
    executor.resume(&job.view).await;
    while let Some(entry) = queue.next(&job.view.name).await {
        vital::reach(&format!("batch runs of {}", job.view.name));
        let run = entry.run();
        let span = tracing::info_span!("batch run", view = %job.view.name, run = run.id, trigger = run.trigger);
        let outcome = one_run(&executor, &job, &entry).instrument(span).await;
        queue.finish(&entry, outcome);
        set_metrics(&queue, &job.view.name);
        // Vacuum can stop anywhere.
        tokio::select! {
            () = vacuum.after_run(&job.view.name) => {}
            () = stopping.wait() => {}
        }
    }
}

async fn one_run(executor: &Executor, job: &Job, entry: &Arc<RunEntry>) -> Result<i64, RunFailure> {
    let started = shared::clock::monotonic_now();
    let execution = AssertUnwindSafe(executor.execute(job, entry)).catch_unwind();
    let outcome = execution.await.unwrap_or_else(|panic| Err(RunFailure::of_panic(panic.as_ref())));
    let seconds = started.elapsed().as_secs_f64();
    let state = match &outcome {
        Ok(version) => {
            let progress = entry.run().progress;
            tracing::info!(version, seconds, dates = progress.dates, rows = progress.rows, "batch run published");
            RunState::Published
        }
        Err(RunFailure::Cancelled) => {
            tracing::info!(seconds, "batch run cancelled");
            RunState::Cancelled
        }
        Err(failure) => {
            tracing::error!(%failure, seconds, "batch run failed; the previous version stays active");
            RunState::Failed
        }
    };
    let view = job.view.name.to_string();
    let name = format!("{state:?}").to_lowercase();
    metrics::counter!("trueup_batch_runs_total", "view" => view.clone(), "state" => name, "trigger" => entry.run().trigger)
        .increment(1);
    metrics::histogram!("trueup_batch_run_seconds", "view" => view).record(seconds);
    metrics::gauge!("trueup_batch_cache_bytes").set(executor.reader.bytes() as f64);
    outcome
}
