//! Which runs are there, and where does each stand? At most one running and one waiting per view, and one retry that
//! waits for its time; runs of earlier processes are remembered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::{DateRange, Run, RunEnds, RunError, RunFilter, RunPage, RunProgress, RunScope, RunState};
use shared::ids::ViewName;
use shared::seam::Cut;
use shared::time::Micros;
use tokio::sync::Notify;

use crate::failure::RunFailure;
use crate::recompute::scan::Watch;
use crate::runs::retry::RetrySettings;
use crate::runs::run_log::Diary;

/// A run, as those see it who work on it.
#[derive(Debug)]
pub struct RunEntry {
    /// Stops it, and counts the rows it reads.
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

    /// The run as it is now.
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

    /// Notes where the log was cut.
    pub fn set_cut(&self, cut: &Cut) {
        self.run.lock().cut = Some(cut.offsets());
    }

    /// Notes what there is to do.
    pub fn set_plan(&self, dates: u64, bytes: u64) {
        self.dates.store(dates, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Notes that `more` dates are done.
    pub fn dates_done(&self, more: u64) {
        self.dates_done.fetch_add(more, Ordering::Relaxed);
    }
}

/// All runs that are remembered.
#[derive(Debug)]
pub struct Registry {
    clock: Arc<dyn Clock>,
    retry: RetrySettings,
    /// Runs remembered per view.
    kept: usize,
    diary: Diary,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    runs: VecDeque<Arc<RunEntry>>,
    views: HashMap<ViewName, Queue>,
    numbered: u64,
    stopping: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Option<Arc<RunEntry>>,
    running: Option<Arc<RunEntry>>,
    retry: Option<Retry>,
    /// The latest that published and that failed, whether or not the list still has them.
    published: Option<Arc<RunEntry>>,
    failed: Option<Arc<RunEntry>>,
    changed: Arc<Notify>,
}

impl Queue {
    /// Notes how the latest run ended.
    fn ended(&mut self, state: RunState, entry: &Arc<RunEntry>) {
        match state {
            RunState::Published => self.published = Some(Arc::clone(entry)),
            RunState::Failed => self.failed = Some(Arc::clone(entry)),
            RunState::Queued | RunState::Running | RunState::Cancelled => {}
        }
    }
}

/// A failed run that is tried again.
#[derive(Debug)]
struct Retry {
    at: Micros,
    failed: Arc<RunEntry>,
}

/// What a new run shall do, and why.
struct Wanted<'a> {
    full: bool,
    ranges: Vec<DateRange>,
    trigger: &'a str,
    attempt: u32,
    retry_of: Option<String>,
}

impl Registry {
    /// Only `past` runs yet, for `views`; a retry that one of them was waiting for still is.
    pub fn new(
        clock: Arc<dyn Clock>,
        views: impl Iterator<Item = ViewName>,
        kept: usize,
        retry: RetrySettings,
        (diary, past): (Diary, Vec<Run>),
    ) -> Registry {
        let mut views: HashMap<ViewName, Queue> = views.map(|view| (view, Queue::default())).collect();
        let runs: VecDeque<Arc<RunEntry>> = past.into_iter().map(RunEntry::new).collect();
        for entry in &runs {
            let run = entry.run.lock();
            if let Some(queue) = views.get_mut(&run.view) {
                // What came later took its place.
                queue.retry = run.retry_at.map(|at| Retry { at, failed: Arc::clone(entry) });
                queue.ended(run.state, entry);
            }
        }
        let state = Mutex::new(State { runs, views, ..State::default() });
        Registry { clock, retry, kept, diary, state }
    }

    /// Puts a run in the view's queue, or returns the one that is waiting there already. It takes the place of a retry that
    /// waits for its time, and does what that was to do.
    pub fn request(&self, view: &str, scope: RunScope, trigger: &str) -> Result<Run, RunError> {
        let unknown = || RunError::UnknownView(view.to_owned());
        let name: ViewName = view.parse().map_err(|_| unknown())?;
        let mut state = self.state.lock();
        if state.stopping {
            return Err(RunError::Stopping);
        }
        let queue = state.views.get_mut(&name).ok_or_else(unknown)?;
        let mut wanted =
            Wanted { full: scope.full, ranges: scope.range.into_iter().collect(), trigger, attempt: 1, retry_of: None };
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
        replaced.iter().chain([&entry]).for_each(|entry| self.diary.note(|| entry.run()));
        Ok(run)
    }

    /// Puts the retries whose time has come in their queues.
    pub fn wake_retries(&self) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        if state.stopping {
            return;
        }
        let due: Vec<(ViewName, Retry)> = state
            .views
            .iter_mut()
            .filter(|(_, queue)| queue.retry.as_ref().is_some_and(|retry| retry.at <= now))
            .filter_map(|(view, queue)| Some((view.clone(), queue.retry.take()?)))
            .collect();
        let mut changed: Vec<Arc<RunEntry>> = Vec::new();
        for (view, Retry { failed, .. }) in due {
            let mut run = failed.run.lock();
            run.retry_at = None;
            let wanted = Wanted {
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
        changed.iter().for_each(|entry| self.diary.note(|| entry.run()));
    }

    /// Makes a run wait, or adds what it shall do to the one that waits.
    fn put(&self, state: &mut State, view: ViewName, wanted: Wanted<'_>) -> Arc<RunEntry> {
        let now = self.clock.now();
        state.numbered += 1;
        let id = format!("{view}-{}-{}", now.0.div_euclid(1_000), state.numbered);
        let queue = state.views.entry(view.clone()).or_default();
        if let Some(waiting) = &queue.waiting {
            // Who asks for more must get it, also from a run that was asked for less.
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
            error: None,
        });
        queue.waiting = Some(Arc::clone(&entry));
        queue.changed.notify_one();
        state.runs.push_back(Arc::clone(&entry));
        self.forget_old(state, &view);
        entry
    }

    /// The view's next run, as soon as there is one; `None` once the batch layer stops.
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
                self.diary.note(|| entry.run());
                return Some(entry);
            }
            changed.notified().await;
        }
    }

    /// Notes how a run ended: with the version that answers now, or without. What may pass is tried again later, unless
    /// somebody cancelled it; a run of the view that is waiting anyway does what it was to do.
    pub fn finish(&self, entry: &Arc<RunEntry>, outcome: Result<i64, RunFailure>) {
        let now = self.clock.now();
        let mut state = self.state.lock();
        // Stopping cancels too, but leaves a retry to the next process.
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
                    queue.retry = Some(Retry { at, failed: Arc::clone(entry) });
                }
            }
        }
        drop(run);
        drop(state);
        grown.iter().chain([entry]).for_each(|entry| self.diary.note(|| entry.run()));
    }

    /// Stops a run that is not over, or the retry that it waits for.
    pub fn cancel(&self, id: &str) -> Result<Run, RunError> {
        let mut state = self.state.lock();
        let entry = state.runs.iter().rev().find(|e| e.run.lock().id == id).cloned();
        let entry = entry.ok_or_else(|| RunError::UnknownRun(id.to_owned()))?;
        self.cancel_entry(&mut state, &entry);
        let run = entry.run();
        drop(state);
        self.diary.note(|| entry.run());
        Ok(run)
    }

    fn cancel_entry(&self, state: &mut State, entry: &Arc<RunEntry>) {
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

    /// Takes no more runs and stops those there are. A retry is left to the next process.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        let open: Vec<Arc<RunEntry>> =
            state.views.values().flat_map(|q| q.waiting.iter().chain(&q.running)).cloned().collect();
        open.iter().for_each(|entry| self.cancel_entry(&mut state, entry));
        state.views.values().for_each(|queue| queue.changed.notify_one());
        drop(state);
        open.iter().for_each(|entry| self.diary.note(|| entry.run()));
    }

    /// Runs that a filter lets through, newest first.
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

    /// How the latest runs of `view` ended.
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

    /// The run called `id`.
    pub fn get(&self, id: &str) -> Option<Run> {
        let state = self.state.lock();
        let entry = state.runs.iter().rev().find(|entry| entry.run.lock().id == id);
        entry.map(|entry| entry.run())
    }

    /// Keeps the share of a view: the oldest of its runs that is over goes.
    fn forget_old(&self, state: &mut State, view: &ViewName) {
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
