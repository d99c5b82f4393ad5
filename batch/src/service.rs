//! Who starts runs? A task per view that runs them one after another, and one that looks at the clock.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use lake::TablePath;
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::compare::Comparison;
use shared::control::{Cleaned, Compacted, Run, RunEnds, RunError, RunFilter, RunPage, RunScope, RunState, Runs};
use shared::handoff::HandoffError;
use shared::ids::{StreamName, ViewName};
use shared::ledger::Ledger;
use shared::schedule::{Schedule, ScheduleError};
use shared::time::{MICROS_PER_SECOND, Micros};
use shared::version::BatchVersion;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::archive::compactor::Compactor;
use crate::failure::RunFailure;
use crate::run::{BatchSurroundings, Executor, Job};
use crate::runs::queue::{Registry, RunEntry};
use crate::runs::run_log::Diary;
use crate::settings::BatchSettings;
use crate::versions::kept::Kept;
use crate::versions::load::{Loaded, versions};
use crate::versions::reader::Reader;
use crate::versions::time_travel::Travel;
use crate::versions::vacuum::Cleaner;
use crate::watch::Cancel;

/// Why the batch layer could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("view {view}: {problem}")]
    Schedule { view: ViewName, problem: ScheduleError },
}

/// The batch layer.
pub struct Batch {
    registry: Arc<Registry>,
    executor: Arc<Executor>,
    kept: Arc<Kept>,
    cleaner: Arc<Cleaner>,
    compactor: Arc<Compactor>,
    next_runs: Arc<Mutex<HashMap<ViewName, Micros>>>,
    stopping: Cancel,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Batch {
    /// Starts the tasks that keep the loaded views up to date. What was loaded must have been published already, and speed
    /// must fold for the answering definitions and for the shadows. Call it within a Tokio runtime.
    pub fn start(
        surroundings: BatchSurroundings,
        loaded: Vec<Loaded>,
        settings: BatchSettings,
    ) -> Result<Batch, StartError> {
        let mut schedules = Vec::with_capacity(loaded.len());
        for Loaded { view, .. } in &loaded {
            let in_zone = |line: &str| Schedule::parse(line).map(|schedule| schedule.in_zone(view.schedule_zone));
            let parsed = view.schedule.as_deref().map(in_zone).transpose();
            schedules.push(parsed.map_err(|problem| StartError::Schedule { view: view.name.clone(), problem })?);
        }
        let clock = Arc::clone(&surroundings.clock);
        let names: Vec<ViewName> = loaded.iter().map(|l| l.view.name.clone()).collect();
        let kept = settings.runs_kept;
        let past = settings.runs_file.as_deref().map_or_else(Default::default, |file| Diary::open(file, kept));
        let registry = Arc::new(Registry::new(Arc::clone(&clock), names.iter().cloned(), kept, settings.retry, past));
        let tick = settings.tick;
        let kept = loaded.iter().map(|l| (l.view.name.clone(), l.view.versions_kept));
        let kept = Arc::new(Kept::new(&surroundings.lake, kept));
        let cleaner = Arc::new(Cleaner {
            lake: surroundings.lake.clone(),
            views: Arc::clone(&surroundings.views),
            kept: Arc::clone(&kept),
            age: settings.vacuum_age,
            every: settings.vacuum_every,
            last: Mutex::default(),
        });
        let BatchSurroundings { lake, views, streams, clock: of_archives, .. } = &surroundings;
        let compactor = Arc::new(Compactor::new(lake, views, of_archives, streams, settings.compaction));
        let executor = Arc::new(Executor::new(surroundings, settings));
        let next_runs: Arc<Mutex<HashMap<ViewName, Micros>>> = Arc::default();
        let stopping = Cancel::default();
        let mut tasks = Vec::new();
        for (loaded, schedule) in loaded.into_iter().zip(schedules) {
            if let Some((full, trigger)) = first_run(&loaded, schedule.as_ref(), &executor.surroundings) {
                // Nothing is stopping yet and the view is known: this cannot be refused.
                let _ = registry.request(loaded.view.name.as_str(), RunScope { full, range: None }, trigger);
            }
            let view = loaded.view.name.clone();
            let job = Job { stream: loaded.stream, view: loaded.view };
            let (registry_of, cleaner_of) = (Arc::clone(&registry), Arc::clone(&cleaner));
            let all = run_all(registry_of, Arc::clone(&executor), cleaner_of, job, stopping.clone());
            tasks.push(tokio::spawn(all));
            if let Some(schedule) = schedule {
                next_runs.lock().extend(schedule.next_after(clock.now()).map(|due| (view.clone(), due)));
                let (registry, next_runs) = (Arc::clone(&registry), Arc::clone(&next_runs));
                let alarm = Alarm { registry, next_runs, view, schedule, clock: Arc::clone(&clock) };
                tasks.push(tokio::spawn(alarm.ring(tick, stopping.clone())));
            }
        }
        tasks.push(tokio::spawn(wake_retries(Arc::clone(&registry), names, tick, stopping.clone())));
        for stream in compactor.streams() {
            let watch = Arc::clone(&compactor).watch(stream.clone(), stopping.clone());
            tasks.push(tokio::spawn(watch));
        }
        Ok(Batch { registry, executor, kept, cleaner, compactor, next_runs, stopping, tasks: Mutex::new(tasks) })
    }

    /// How versions are read; shared with the runs, which leave in its memory what they computed.
    pub fn reader(&self) -> Arc<Reader> {
        Arc::clone(&self.executor.reader)
    }

    /// How versions of the past are found.
    pub fn past(&self) -> Travel {
        let surroundings = &self.executor.surroundings;
        Travel::new(&surroundings.lake, &surroundings.views, &self.kept)
    }

    /// Stops the runs there are and waits for their tasks. Nothing a stopped run did is visible.
    pub async fn stop(&self) {
        self.stopping.set();
        self.registry.stop();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the batch layer ended badly");
            }
        }
    }

    fn name(view: &str) -> Result<ViewName, HandoffError> {
        view.parse().map_err(|e| HandoffError(format!("{e}")))
    }
}

impl Runs for Batch {
    fn request(&self, view: &str, scope: RunScope) -> Result<Run, RunError> {
        // What was dropped since the last version, the run itself refuses.
        let version = self.executor.surroundings.views.get(view).and_then(|published| published.version.clone());
        if let (Some(range), Some(retained_from)) = (scope.range, version.and_then(|version| version.frozen_before))
            && range.from < retained_from
        {
            return Err(RunError::Dropped { from: range.from, retained_from });
        }
        self.registry.request(view, scope, if scope.range.is_some() { "backfill" } else { "request" })
    }

    fn list(&self, filter: &RunFilter) -> Result<RunPage, RunError> {
        self.registry.list(filter)
    }

    fn ends(&self, view: &str) -> RunEnds {
        self.registry.ends(view)
    }

    fn get(&self, id: &str) -> Option<Run> {
        self.registry.get(id)
    }

    fn cancel(&self, id: &str) -> Result<Run, RunError> {
        self.registry.cancel(id)
    }

    fn next_run(&self, view: &str) -> Option<Micros> {
        self.next_runs.lock().get(&Batch::name(view).ok()?).copied()
    }

    fn versions(&self, view: &str, limit: usize) -> BoxFuture<'_, Result<Vec<BatchVersion>, HandoffError>> {
        let view = Batch::name(view);
        Box::pin(async move {
            let wrong = |e: lake::LakeError| HandoffError(e.to_string());
            let table = self.executor.surroundings.lake.open_table(&TablePath::view(&view?)).await.map_err(wrong)?;
            match table {
                Some(table) => versions(&table, limit).await.map_err(wrong),
                None => Ok(Vec::new()),
            }
        })
    }

    fn versions_kept(&self, view: &str) -> usize {
        Batch::name(view).map_or(0, |view| self.kept.count(&view))
    }

    fn vacuum(&self, view: &str, older_than: Option<Duration>) -> BoxFuture<'_, Result<Cleaned, HandoffError>> {
        let view = Batch::name(view);
        Box::pin(async move {
            let older_than = older_than.unwrap_or(self.cleaner.age);
            self.cleaner.clean(&view?, older_than).await.map_err(|error| HandoffError(error.to_string()))
        })
    }

    fn compact(
        &self,
        stream: &str,
        older_than: Option<Duration>,
    ) -> BoxFuture<'_, Result<Option<Compacted>, HandoffError>> {
        let stream = stream.parse::<StreamName>();
        Box::pin(async move {
            // What is no name is the name of no stream.
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

/// Does a view need a run at once: whether full, and what asks for it?
fn first_run(
    loaded: &Loaded,
    schedule: Option<&Schedule>,
    surroundings: &BatchSurroundings,
) -> Option<(bool, &'static str)> {
    if loaded.shadow.is_some() || loaded.version_lost {
        return Some((true, "definition"));
    }
    let seam = &loaded.answering.seam;
    let of_stream = surroundings.log_starts.iter().filter(|(stream, ..)| *stream == loaded.stream.name);
    // Events that are neither in a version nor in the log are in the archive alone.
    if loaded.answering.unread != Ledger::EMPTY {
        return Some((true, "start"));
    }
    if of_stream.into_iter().any(|(_, partition, start)| *start > seam.offset(*partition)) {
        return Some((true, "start"));
    }
    let last = loaded.answering.version.as_ref()?.published_at;
    schedule?.missed(last, surroundings.clock.now()).then_some((false, "schedule"))
}

/// Looks every `tick` whether a failed run's time has come.
async fn wake_retries(registry: Arc<Registry>, views: Vec<ViewName>, tick: Duration, stopping: Cancel) {
    while !stopping.is_set() {
        // Also what a restart brought back, and what has been cancelled since.
        views.iter().for_each(|view| tell(&registry, view));
        tokio::select! {
            () = tokio::time::sleep(tick) => registry.wake_retries(),
            () = stopping.wait() => return,
        }
    }
}

/// Metrics of how a view's latest runs ended.
fn tell(registry: &Registry, view: &ViewName) {
    let ends = registry.ends(view.as_str());
    let waits = if ends.retry_at.is_some() { 1.0 } else { 0.0 };
    metrics::gauge!("trueup_batch_retry_waiting", "view" => view.to_string()).set(waits);
    if let Some(at) = ends.last_success.and_then(|run| run.finished_at) {
        let seconds = at.0 as f64 / MICROS_PER_SECOND as f64;
        metrics::gauge!("trueup_batch_success_timestamp_seconds", "view" => view.to_string()).set(seconds);
    }
}

/// Runs a view's runs, one after another.
async fn run_all(registry: Arc<Registry>, executor: Arc<Executor>, cleaner: Arc<Cleaner>, job: Job, stopping: Cancel) {
    executor.begin(&job.view).await;
    while let Some(entry) = registry.next(&job.view.name).await {
        let run = entry.run();
        let span = tracing::info_span!("batch run", view = %job.view.name, run = run.id, trigger = run.trigger);
        let outcome = one_run(&executor, &job, &entry).instrument(span).await;
        registry.finish(&entry, outcome);
        tell(&registry, &job.view.name);
        // Deleting can stop anywhere.
        tokio::select! {
            () = cleaner.after_run(&job.view.name) => {}
            () = stopping.wait() => {}
        }
    }
}

async fn one_run(executor: &Executor, job: &Job, entry: &Arc<RunEntry>) -> Result<i64, RunFailure> {
    let started = std::time::Instant::now();
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
            tracing::error!(%failure, seconds, "batch run failed; what answered before goes on answering");
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

/// Asks for a view's runs when they are due.
struct Alarm {
    registry: Arc<Registry>,
    next_runs: Arc<Mutex<HashMap<ViewName, Micros>>>,
    view: ViewName,
    schedule: Schedule,
    clock: Arc<dyn Clock>,
}

impl Alarm {
    /// Looks at the clock every `tick` (it may be turned, so there is no sleeping until the time has come).
    async fn ring(self, tick: std::time::Duration, stopping: Cancel) {
        while !stopping.is_set() {
            tokio::select! {
                () = tokio::time::sleep(tick) => {}
                () = stopping.wait() => return,
            }
            let due = self.next_runs.lock().get(&self.view).copied();
            let now = self.clock.now();
            if due.is_none_or(|due| due > now) {
                continue;
            }
            if self.registry.request(self.view.as_str(), RunScope::CHANGED, "schedule").is_err() {
                return;
            }
            match self.schedule.next_after(now) {
                Some(next) => self.next_runs.lock().insert(self.view.clone(), next),
                None => self.next_runs.lock().remove(&self.view),
            };
        }
    }
}
