//! Which runs are there, and where does each stand? At most one running and one waiting per view.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::{Run, RunError, RunProgress, RunScope, RunState};
use shared::ids::ViewName;
use shared::seam::Cut;
use tokio::sync::Notify;

use crate::failure::RunFailure;
use crate::scan::Watch;

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

/// All runs of the process.
#[derive(Debug)]
pub struct Registry {
    clock: Arc<dyn Clock>,
    kept: usize,
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
    changed: Arc<Notify>,
}

impl Registry {
    /// No runs yet, for `views`.
    pub fn new(clock: Arc<dyn Clock>, views: impl Iterator<Item = ViewName>, kept: usize) -> Registry {
        let views = views.map(|view| (view, Queue::default())).collect();
        Registry { clock, kept, state: Mutex::new(State { views, ..State::default() }) }
    }

    /// Puts a run in the view's queue, or returns the one that is waiting there already.
    pub fn request(&self, view: &str, scope: RunScope, trigger: &str) -> Result<Run, RunError> {
        let unknown = || RunError::UnknownView(view.to_owned());
        let name: ViewName = view.parse().map_err(|_| unknown())?;
        let mut state = self.state.lock();
        if state.stopping {
            return Err(RunError::Stopping);
        }
        let now = self.clock.now();
        state.numbered += 1;
        let id = format!("{view}-{}-{}", now.0.div_euclid(1_000), state.numbered);
        let queue = state.views.get_mut(&name).ok_or_else(unknown)?;
        if let Some(waiting) = &queue.waiting {
            // Who asks for more must get it, also from a run that was asked for less.
            let mut run = waiting.run.lock();
            run.full |= scope.full;
            let more = scope.range.filter(|range| !run.ranges.contains(range));
            run.ranges.extend(more);
            drop(run);
            return Ok(waiting.run());
        }
        let run = Run {
            id,
            view: name,
            state: RunState::Queued,
            full: scope.full,
            ranges: scope.range.into_iter().collect(),
            trigger: trigger.to_owned(),
            cut: None,
            version: None,
            queued_at: now,
            started_at: None,
            finished_at: None,
            progress: RunProgress::default(),
            error: None,
        };
        let entry = Arc::new(RunEntry {
            watch: Watch::default(),
            run: Mutex::new(run.clone()),
            dates: AtomicU64::default(),
            dates_done: AtomicU64::default(),
            bytes: AtomicU64::default(),
        });
        queue.waiting = Some(Arc::clone(&entry));
        queue.changed.notify_one();
        state.runs.push_back(entry);
        self.forget_old(&mut state);
        Ok(run)
    }

    /// The view's next run, as soon as there is one; `None` once the batch layer stops.
    pub async fn next(&self, view: &ViewName) -> Option<Arc<RunEntry>> {
        loop {
            let changed = {
                let mut state = self.state.lock();
                if state.stopping {
                    return None;
                }
                let queue = state.views.get_mut(view)?;
                if let Some(entry) = queue.waiting.take() {
                    queue.running = Some(Arc::clone(&entry));
                    let mut run = entry.run.lock();
                    run.state = RunState::Running;
                    run.started_at = Some(self.clock.now());
                    drop(run);
                    return Some(entry);
                }
                Arc::clone(&queue.changed)
            };
            changed.notified().await;
        }
    }

    /// Notes how a run ended: with the version that answers now, or without.
    pub fn finish(&self, entry: &RunEntry, outcome: Result<i64, RunFailure>) {
        let mut state = self.state.lock();
        let mut run = entry.run.lock();
        run.finished_at = Some(self.clock.now());
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
            }
        }
        if let Some(queue) = state.views.get_mut(&run.view) {
            queue.running = None;
        }
    }

    /// Stops a run that is not over.
    pub fn cancel(&self, id: &str) -> Result<Run, RunError> {
        let mut state = self.state.lock();
        let entry = state.runs.iter().find(|e| e.run.lock().id == id).cloned();
        let entry = entry.ok_or_else(|| RunError::UnknownRun(id.to_owned()))?;
        self.cancel_entry(&mut state, &entry);
        Ok(entry.run())
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
            RunState::Published | RunState::Failed | RunState::Cancelled => {}
        }
    }

    /// Takes no more runs and stops those there are.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        let open: Vec<Arc<RunEntry>> =
            state.views.values().flat_map(|q| q.waiting.iter().chain(&q.running)).cloned().collect();
        open.iter().for_each(|entry| self.cancel_entry(&mut state, entry));
        state.views.values().for_each(|queue| queue.changed.notify_one());
    }

    /// All runs, newest first.
    pub fn list(&self) -> Vec<Run> {
        self.state.lock().runs.iter().rev().map(|entry| entry.run()).collect()
    }

    /// The run called `id`.
    pub fn get(&self, id: &str) -> Option<Run> {
        self.state.lock().runs.iter().map(|entry| entry.run()).find(|run| run.id == id)
    }

    fn forget_old(&self, state: &mut State) {
        while state.runs.len() > self.kept {
            let Some(over) = state.runs.iter().position(|e| e.run.lock().state.is_over()) else { return };
            state.runs.remove(over);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::clock::ManualClock;
    use shared::time::Micros;

    use super::*;

    fn registry(kept: usize) -> Registry {
        let views = ["a", "b"].map(|name| name.parse().expect("a name"));
        Registry::new(Arc::new(ManualClock::at(Micros(5_000))), views.into_iter(), kept)
    }

    #[tokio::test]
    async fn a_view_has_one_waiting_and_one_running_run() {
        let registry = registry(100);
        let view: ViewName = "a".parse().expect("a name");
        let first = registry.request("a", RunScope::CHANGED, "request").expect("a run");
        let again = registry.request("a", RunScope::FULL, "schedule").expect("the same run");
        assert_eq!((&again.id, again.full, again.trigger.as_str()), (&first.id, true, "request"));
        let entry = registry.next(&view).await.expect("a run");
        assert_eq!((entry.run().state, entry.run().full), (RunState::Running, true));
        let second = registry.request("a", RunScope::CHANGED, "request").expect("a second run");
        assert_ne!(second.id, first.id);
        registry.finish(&entry, Ok(7));
        assert_eq!(registry.get(&first.id).map(|r| (r.state, r.version)), Some((RunState::Published, Some(7))));
        assert_eq!(registry.cancel(&first.id).map(|r| r.state), Ok(RunState::Published));
        assert_eq!(registry.cancel(&second.id).map(|r| r.state), Ok(RunState::Cancelled));
        assert_eq!(registry.cancel("x"), Err(RunError::UnknownRun("x".into())));
        assert_eq!(registry.request("c", RunScope::CHANGED, "request"), Err(RunError::UnknownView("c".into())));
        let ids: Vec<String> = registry.list().into_iter().map(|r| r.id).collect();
        assert_eq!(ids, [second.id, first.id]);
    }

    #[tokio::test]
    async fn stopping_cancels_what_waits_and_tells_what_runs() {
        let registry = registry(100);
        let view: ViewName = "b".parse().expect("a name");
        registry.request("b", RunScope::CHANGED, "request").expect("a run");
        let running = registry.next(&view).await.expect("a run");
        let waiting = registry.request("b", RunScope::CHANGED, "request").expect("a run");
        registry.stop();
        assert!(running.watch.cancel.is_set());
        assert_eq!(registry.get(&waiting.id).map(|r| r.state), Some(RunState::Cancelled));
        assert!(registry.next(&view).await.is_none());
        assert_eq!(registry.request("b", RunScope::CHANGED, "request"), Err(RunError::Stopping));
    }

    #[test]
    fn old_runs_are_forgotten_but_never_open_ones() {
        let registry = registry(3);
        let open = registry.request("b", RunScope::CHANGED, "request").expect("a run");
        for _ in 0..10 {
            let run = registry.request("a", RunScope::CHANGED, "request").expect("a run");
            registry.cancel(&run.id).expect("cancels");
        }
        let ids: Vec<String> = registry.list().into_iter().map(|r| r.id).collect();
        assert_eq!(ids.len(), 3);
        assert_eq!(ids[2], open.id);
    }
}
