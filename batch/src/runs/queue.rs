//! Queues the runs of all views: at most one running and one waiting per view, and one retry that waits for its time.
//! Remembers finished runs, including those of earlier processes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::{DateRange, Run, RunEnds, RunError, RunFilter, RunPage, RunProgress, RunScope, RunState};
use shared::engine::Engine;
use shared::ids::ViewName;
use shared::seam::Cut;
use shared::time::Micros;
use tokio::sync::Notify;

use crate::failure::RunFailure;
use crate::runs::retry::RetrySettings;
use crate::runs::run_log::{LoggedRuns, RunLog};
use crate::watch::Watch;

/// A run and its progress, shared by everything that works on it.
#[derive(Debug)]
pub struct RunEntry {
    /// Stops the run, and counts the rows it reads.
    pub watch: Watch,
    run: Mutex<Run>,
    dates: AtomicU64,
    dates_done: AtomicU64,
    bytes: AtomicU64,
}

impl RunEntry {
    fn new(run: Run) -> Arc<RunEntry> {
        let watch = Watch::default();
        watch.rows.store(run.progress.rows, Ordering::Relaxed);
        watch.bytes.store(run.progress.bytes_read, Ordering::Relaxed);
        Arc::new(RunEntry {
            watch,
            dates: AtomicU64::new(run.progress.dates),
            dates_done: AtomicU64::new(run.progress.dates_done),
            bytes: AtomicU64::new(run.progress.bytes),
            run: Mutex::new(run),
        })
    }

    /// Returns the run as it is now.
    pub fn run(&self) -> Run {
        let mut run = self.run.lock().clone();
        run.progress = RunProgress {
            dates: self.dates.load(Ordering::Relaxed),
            dates_done: self.dates_done.load(Ordering::Relaxed),
            rows: self.watch.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_read: self.watch.bytes.load(Ordering::Relaxed),
        };
        run
    }

    /// Sets where the log was cut.
    pub fn set_cut(&self, cut: &Cut) {
        self.run.lock().cut = Some(cut.offsets());
    }

    /// Sets the window dates and bytes of the plan.
    pub fn set_plan(&self, dates: u64, bytes: u64) {
        self.dates.store(dates, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Sets which engine computes the run.
    pub fn set_engine(&self, engine: Engine) {
        self.run.lock().engine = Some(engine);
    }

    /// Adds `more` completed dates.
    pub fn dates_done(&self, more: u64) {
        self.dates_done.fetch_add(more, Ordering::Relaxed);
    }
}

/// All runs that are remembered, and the queue of each view.
#[derive(Debug)]
pub struct RunQueue {
    clock: Arc<dyn Clock>,
    retry: RetrySettings,
    /// Runs remembered per view.
    kept: usize,
    log: RunLog,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Oldest first.
    runs: VecDeque<Arc<RunEntry>>,
    views: HashMap<ViewName, ViewQueue>,
    numbered: u64,
    stopping: bool,
}

#[derive(Debug, Default)]
struct ViewQueue {
    waiting: Option<Arc<RunEntry>>,
    running: Option<Arc<RunEntry>>,
    retry: Option<PendingRetry>,
    /// The latest run that published, whether or not the list still has it.
    published: Option<Arc<RunEntry>>,
    /// The latest run that failed, whether or not the list still has it.
    failed: Option<Arc<RunEntry>>,
    changed: Arc<Notify>,
}

impl ViewQueue {
    /// Sets how the latest run ended.
    fn ended(&mut self, state: RunState, entry: &Arc<RunEntry>) {
        match state {
            RunState::Published => self.published = Some(Arc::clone(entry)),
            RunState::Failed => self.failed = Some(Arc::clone(entry)),
            RunState::Queued | RunState::Running | RunState::Cancelled => {}
        }
    }
}

/// A failed run that waits for its retry.
#[derive(Debug)]
struct PendingRetry {
    at: Micros,
    /// The same in uptime, in case the clock is set back.
    uptime: Duration,
    failed: Arc<RunEntry>,
}

impl PendingRetry {
    fn is_due(&self, clock: &dyn Clock) -> bool {
        self.at <= clock.now() || self.uptime <= clock.uptime()
    }
}

/// What a new run has to do, and why.
struct RunRequest<'a> {
    full: bool,
    ranges: Vec<DateRange>,
    trigger: &'a str,
    attempt: u32,
    retry_of: Option<String>,
}

impl RunQueue {
    /// Returns the queues of `views`, with the runs of earlier processes from the run log. Their pending retry stays pending.
    pub fn new(
        clock: Arc<dyn Clock>,
        views: impl Iterator<Item = ViewName>,
        kept: usize,
        retry: RetrySettings,
        logged: LoggedRuns,
    ) -> RunQueue {
        let LoggedRuns { log, runs: past } = logged;
        let mut views: HashMap<ViewName, ViewQueue> = views.map(|view| (view, ViewQueue::default())).collect();
        let runs: VecDeque<Arc<RunEntry>> = past.into_iter().map(RunEntry::new).collect();
        for entry in &runs {
            let run = entry.run.lock();
            if let Some(queue) = views.get_mut(&run.view) {
                // A later run replaces it.
                queue.retry = run.retry_at.map(|at| {
                    // Not longer than any retry waits: the clock may have been set back meanwhile.
                    let wait = u64::try_from(at.0.saturating_sub(clock.now().0)).unwrap_or(0);
                    let uptime = clock.uptime() + Duration::from_micros(wait).min(retry.delay_max());
                    PendingRetry { at, uptime, failed: Arc::clone(entry) }
                });
                queue.ended(run.state, entry);
            }
        }
        let state = Mutex::new(QueueState { runs, views, ..QueueState::default() });
        RunQueue { clock, retry, kept, log, state }
    }

    /// Queues a run of the view, or returns the one that is waiting already. It replaces a pending retry and takes over its
    /// work.
    pub fn request(&self, view: &str, scope: RunScope, trigger: &str) -> Result<Run, RunError> {
        let unknown = || RunError::UnknownView(view.to_owned());
        let name: ViewName = view.parse().map_err(|_| unknown())?;
        let mut state = self.state.lock();
        if state.stopping {
            return Err(RunError::Stopping);
        }
        let queue = state.views.get_mut(&name).ok_or_else(unknown)?;
        let mut wanted = RunRequest {
            full: scope.full,
            ranges: scope.range.into_iter().collect(),
            trigger,
            attempt: 1,
            retry_of: None,
        };
        let mut replaced = None;
        if let Some(retry) = queue.retry.take() {
            let mut failed = retry.failed.run.lock();
            failed.retry_at = None;
            wanted.full |= failed.full;
            add_ranges(&mut wanted.ranges, &failed.ranges);
            drop(failed);
            replaced = Some(retry.failed);
        }
        let entry = self.put(&mut state, name, wanted);
        let run = entry.run();
        drop(state);
        replaced.iter().chain([&entry]).for_each(|entry| self.log.append(|| entry.run()));
        Ok(run)
    }

    /// Queues the retries that are due.
    pub fn wake_retries(&self) {
        let mut state = self.state.lock();
        if state.stopping {
            return;
        }
        let due: Vec<(ViewName, PendingRetry)> = state
            .views
            .iter_mut()
            .filter(|(_, queue)| queue.retry.as_ref().is_some_and(|retry| retry.is_due(self.clock.as_ref())))
            .filter_map(|(view, queue)| Some((view.clone(), queue.retry.take()?)))
            .collect();
        let mut changed: Vec<Arc<RunEntry>> = Vec::new();
        for (view, PendingRetry { failed, .. }) in due {
            let mut run = failed.run.lock();
            run.retry_at = None;
            let wanted = RunRequest {
                full: run.full,
                ranges: run.ranges.clone(),
                trigger: "retry",
                attempt: run.attempt.saturating_add(1),
                retry_of: Some(run.retry_of.clone().unwrap_or_else(|| run.id.clone())),
            };
            drop(run);
            changed.push(failed);
            changed.push(self.put(&mut state, view, wanted));
        }
        drop(state);
        changed.iter().for_each(|entry| self.log.append(|| entry.run()));
    }

    /// Queues a run, or adds its work to the one that waits.
    fn put(&self, state: &mut QueueState, view: ViewName, wanted: RunRequest<'_>) -> Arc<RunEntry> {
        let now = self.clock.now();
        state.numbered += 1;
        let id = format!("{view}-{}-{}", now.0.div_euclid(1_000), state.numbered);
        let queue = state.views.entry(view.clone()).or_default();
        if let Some(waiting) = &queue.waiting {
            // The waiting run does everything that any request asked for.
            let mut run = waiting.run.lock();
            run.full |= wanted.full;
            add_ranges(&mut run.ranges, &wanted.ranges);
            drop(run);
            return Arc::clone(waiting);
        }
        let entry = RunEntry::new(Run {
            id,
            view: view.clone(),
            state: RunState::Queued,
            full: wanted.full,
            ranges: wanted.ranges,
            trigger: wanted.trigger.to_owned(),
            attempt: wanted.attempt,
            retry_of: wanted.retry_of,
            retry_at: None,
            cut: None,
            version: None,
            queued_at: now,
            started_at: None,
            finished_at: None,
            duration_ms: None,
            progress: RunProgress::default(),
            engine: None,
            error: None,
        });
        queue.waiting = Some(Arc::clone(&entry));
        queue.changed.notify_one();
        state.runs.push_back(Arc::clone(&entry));
        self.forget_old(state, &view);
        entry
    }

    /// Waits for the view's next run; `None` once the batch layer stops.
    pub async fn next(&self, view: &ViewName) -> Option<Arc<RunEntry>> {
        loop {
            let (entry, changed) = {
                let mut state = self.state.lock();
                if state.stopping {
                    return None;
                }
                let queue = state.views.get_mut(view)?;
                let entry = queue.waiting.take();
                if let Some(entry) = &entry {
                    queue.running = Some(Arc::clone(entry));
                    let mut run = entry.run.lock();
                    run.state = RunState::Running;
                    run.started_at = Some(self.clock.now());
                }
                (entry, Arc::clone(&queue.changed))
            };
            if let Some(entry) = entry {
                self.log.append(|| entry.run());
                return Some(entry);
            }
            changed.notified().await;
        }
    }

    /// Finishes a run with the version that is active now, or with a failure. A failure that may pass is retried later, unless
    /// the run was cancelled; if another run of the view is waiting, that one takes over the work instead.
    pub fn finish(&self, entry: &Arc<RunEntry>, outcome: Result<i64, RunFailure>) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        // Stopping also cancels, but leaves the retry to the next process.
        let is_cancelled = entry.watch.cancel.is_set() && !state.stopping;
        let mut run = entry.run.lock();
        run.finished_at = Some(now);
        run.duration_ms = run.started_at.map(|started| now.0.saturating_sub(started.0).max(0) as u64 / 1_000);
        let (mut delay, mut grown) = (None, None);
        match outcome {
            Ok(version) => {
                run.state = RunState::Published;
                run.version = Some(version);
                entry.dates_done.store(entry.dates.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            Err(RunFailure::Cancelled) => run.state = RunState::Cancelled,
            Err(failure) => {
                run.state = RunState::Failed;
                run.error = Some(failure.to_string());
                delay = self.retry.delay(run.attempt, &run.id).filter(|_| failure.may_pass() && !is_cancelled);
            }
        }
        if let Some(queue) = state.views.get_mut(&run.view) {
            queue.running = None;
            queue.ended(run.state, entry);
            if let Some(delay) = delay {
                if let Some(waiting) = &queue.waiting {
                    let mut next = waiting.run.lock();
                    next.full |= run.full;
                    add_ranges(&mut next.ranges, &run.ranges);
                    grown = Some(Arc::clone(waiting));
                } else {
                    let at = Micros(now.0.saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)));
                    run.retry_at = Some(at);
                    let uptime = self.clock.uptime() + delay;
                    queue.retry = Some(PendingRetry { at, uptime, failed: Arc::clone(entry) });
                }
            }
        }
        drop(run);
        drop(state);
        grown.iter().chain([entry]).for_each(|entry| self.log.append(|| entry.run()));
    }

    /// Stops a run that is not over, or its pending retry.
    pub fn cancel(&self, id: &str) -> Result<Run, RunError> {
        let mut state = self.state.lock();
        let entry = state.runs.iter().rev().find(|e| e.run.lock().id == id).cloned();
        let entry = entry.ok_or_else(|| RunError::UnknownRun(id.to_owned()))?;
        self.cancel_entry(&mut state, &entry);
        let run = entry.run();
        drop(state);
        self.log.append(|| entry.run());
        Ok(run)
    }

    fn cancel_entry(&self, state: &mut QueueState, entry: &Arc<RunEntry>) {
        let mut run = entry.run.lock();
        match run.state {
            RunState::Queued => {
                run.state = RunState::Cancelled;
                run.finished_at = Some(self.clock.now());
                if let Some(queue) = state.views.get_mut(&run.view) {
                    queue.waiting = None;
                }
            }
            RunState::Running => entry.watch.cancel.set(),
            RunState::Failed if run.retry_at.is_some() => {
                run.retry_at = None;
                if let Some(queue) = state.views.get_mut(&run.view) {
                    queue.retry = None;
                }
            }
            RunState::Published | RunState::Failed | RunState::Cancelled => {}
        }
    }

    /// Refuses new runs and stops the present ones. A pending retry is left to the next process.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        let open: Vec<Arc<RunEntry>> =
            state.views.values().flat_map(|q| q.waiting.iter().chain(&q.running)).cloned().collect();
        open.iter().for_each(|entry| self.cancel_entry(&mut state, entry));
        state.views.values().for_each(|queue| queue.changed.notify_one());
        drop(state);
        open.iter().for_each(|entry| self.log.append(|| entry.run()));
    }

    /// Returns the runs that match a filter, newest first.
    pub fn list(&self, filter: &RunFilter) -> Result<RunPage, RunError> {
        let state = self.state.lock();
        let mut before = filter.before.is_none();
        let mut page = RunPage { runs: Vec::new(), next: None };
        for entry in state.runs.iter().rev() {
            let run = entry.run.lock();
            if !before {
                before = filter.before.as_ref() == Some(&run.id);
                continue;
            }
            let is_other = filter.view.as_ref().is_some_and(|view| run.view.as_str() != view)
                || filter.state.is_some_and(|state| run.state != state);
            if is_other {
                continue;
            }
            if page.runs.len() == filter.limit {
                page.next = page.runs.last().map(|run| run.id.clone());
                break;
            }
            drop(run);
            page.runs.push(entry.run());
        }
        match &filter.before {
            Some(id) if !before => Err(RunError::UnknownRun(id.clone())),
            _ => Ok(page),
        }
    }

    /// Returns how the latest runs of `view` ended.
    pub fn ends(&self, view: &str) -> RunEnds {
        let state = self.state.lock();
        let Some(queue) = view.parse().ok().and_then(|name: ViewName| state.views.get(&name)) else {
            return RunEnds::default();
        };
        RunEnds {
            last_success: queue.published.as_ref().map(|entry| entry.run()),
            last_failure: queue.failed.as_ref().map(|entry| entry.run()),
            retry_at: queue.retry.as_ref().map(|retry| retry.at),
        }
    }

    /// Returns the run with the id `id`.
    pub fn get(&self, id: &str) -> Option<Run> {
        let state = self.state.lock();
        let entry = state.runs.iter().rev().find(|entry| entry.run.lock().id == id);
        entry.map(|entry| entry.run())
    }

    /// Forgets the oldest finished runs of a view beyond the number that is kept.
    fn forget_old(&self, state: &mut QueueState, view: &ViewName) {
        let of_view = |entry: &Arc<RunEntry>| entry.run.lock().view == *view;
        let mut count = state.runs.iter().filter(|entry| of_view(entry)).count();
        while count > self.kept {
            let is_over = |entry: &Arc<RunEntry>| of_view(entry) && entry.run.lock().state.is_over();
            let Some(over) = state.runs.iter().position(is_over) else { return };
            state.runs.remove(over);
            count -= 1;
        }
    }
}

fn add_ranges(ranges: &mut Vec<DateRange>, more: &[DateRange]) {
    for range in more {
        if !ranges.contains(range) {
            ranges.push(*range);
        }
    }
}

#[cfg(test)]
mod tests;
