//! Runs wait, run, are retried and are remembered.

use shared::clock::ManualClock;
use shared::time::Micros;

use super::*;

fn clock() -> ManualClock {
    ManualClock::at(Micros(5_000))
}

fn all() -> RunFilter {
    RunFilter { view: None, state: None, before: None, limit: 1_000 }
}

fn ids(queue: &RunQueue, filter: &RunFilter) -> Vec<String> {
    queue.list(filter).expect("a page").runs.into_iter().map(|r| r.id).collect()
}

fn queue(kept: usize) -> RunQueue {
    let views = ["a", "b"].map(|name| name.parse().expect("a name"));
    RunQueue::new(Arc::new(clock()), views.into_iter(), kept, RetrySettings::default(), Default::default())
}

#[tokio::test]
async fn a_view_has_one_waiting_and_one_running_run() {
    let queue = queue(100);
    let view: ViewName = "a".parse().expect("a name");
    let first = queue.request("a", RunScope::CHANGED, "request").expect("a run");
    let again = queue.request("a", RunScope::FULL, "schedule").expect("the same run");
    assert_eq!((&again.id, again.full, again.trigger.as_str()), (&first.id, true, "request"));
    let entry = queue.next(&view).await.expect("a run");
    assert_eq!((entry.run().state, entry.run().full), (RunState::Running, true));
    let second = queue.request("a", RunScope::CHANGED, "request").expect("a second run");
    assert_ne!(second.id, first.id);
    queue.finish(&entry, Ok(7));
    assert_eq!(queue.get(&first.id).map(|r| (r.state, r.version)), Some((RunState::Published, Some(7))));
    assert_eq!(queue.cancel(&first.id).map(|r| r.state), Ok(RunState::Published));
    assert_eq!(queue.cancel(&second.id).map(|r| r.state), Ok(RunState::Cancelled));
    assert_eq!(queue.cancel("x"), Err(RunError::UnknownRun("x".into())));
    assert_eq!(queue.request("c", RunScope::CHANGED, "request"), Err(RunError::UnknownView("c".into())));
    let ids = ids(&queue, &all());
    assert_eq!(ids, [second.id, first.id]);
}

#[tokio::test]
async fn stopping_cancels_queued_runs_and_signals_active_ones() {
    let queue = queue(100);
    let view: ViewName = "b".parse().expect("a name");
    queue.request("b", RunScope::CHANGED, "request").expect("a run");
    let running = queue.next(&view).await.expect("a run");
    let waiting = queue.request("b", RunScope::CHANGED, "request").expect("a run");
    queue.stop();
    assert!(running.watch.cancel.is_set());
    assert_eq!(queue.get(&waiting.id).map(|r| r.state), Some(RunState::Cancelled));
    assert!(queue.next(&view).await.is_none());
    assert_eq!(queue.request("b", RunScope::CHANGED, "request"), Err(RunError::Stopping));
}

#[test]
fn finished_runs_are_limited_by_view_and_open_ones_are_kept() {
    let queue = queue(3);
    let open = queue.request("a", RunScope::CHANGED, "request").expect("a run");
    let rare = queue.request("b", RunScope::CHANGED, "request").expect("a run");
    queue.cancel(&open.id).expect("cancels");
    for _ in 0..10 {
        let run = queue.request("a", RunScope::CHANGED, "request").expect("a run");
        queue.cancel(&run.id).expect("cancels");
    }
    let ids = ids(&queue, &all());
    assert_eq!(ids.len(), 4);
    assert_eq!(ids[3], rare.id);
}

#[test]
fn runs_are_listed_in_pages_and_by_view_and_state() {
    let queue = queue(100);
    let mut of_a = Vec::new();
    for number in 0..7 {
        let run = queue.request("a", RunScope::CHANGED, "request").expect("a run");
        queue.request("b", RunScope::CHANGED, "request").expect("a run");
        if number < 6 {
            queue.cancel(&run.id).expect("cancels");
        }
        of_a.insert(0, run.id);
    }
    let mut filter = RunFilter { view: Some("a".to_owned()), limit: 3, ..all() };
    let mut found = Vec::new();
    loop {
        let page = queue.list(&filter).expect("a page");
        found.extend(page.runs.into_iter().map(|run| run.id));
        let Some(next) = page.next else { break };
        filter.before = Some(next);
    }
    assert_eq!(found, of_a);
    let queued = RunFilter { state: Some(RunState::Queued), ..all() };
    assert_eq!(ids(&queue, &queued).len(), 2);
    let unknown = RunFilter { before: Some("x".to_owned()), ..all() };
    assert_eq!(queue.list(&unknown), Err(RunError::UnknownRun("x".to_owned())));
}

struct Turned {
    queue: RunQueue,
    clock: ManualClock,
    view: ViewName,
}

impl Turned {
    fn new(past: Vec<Run>) -> Turned {
        let (clock, view) = (clock(), "a".parse::<ViewName>().expect("a name"));
        let of_queue = Arc::new(clock.clone());
        let logged = LoggedRuns { log: RunLog::default(), runs: past };
        let queue = RunQueue::new(of_queue, std::iter::once(view.clone()), 100, RetrySettings::default(), logged);
        Turned { queue, clock, view }
    }

    async fn fail(&self, failure: RunFailure) -> Run {
        let entry = self.queue.next(&self.view).await.expect("a run");
        self.queue.finish(&entry, Err(failure));
        entry.run()
    }

    /// Turns the clock to just before `at`, then to it, and returns what waits then.
    fn turn(&self, at: Micros) -> Option<Run> {
        let waiting = |queue: &RunQueue| {
            queue.list(&RunFilter { state: Some(RunState::Queued), ..all() }).expect("a page").runs.pop()
        };
        self.clock.set(Micros(at.0 - 1));
        self.queue.wake_retries();
        assert_eq!(waiting(&self.queue), None, "too early");
        self.clock.set(at);
        self.queue.wake_retries();
        waiting(&self.queue)
    }
}

#[tokio::test]
async fn transient_failures_are_retried_with_growing_delays_up_to_a_limit() {
    let turned = Turned::new(Vec::new());
    let first = turned.queue.request("a", RunScope::FULL, "schedule").expect("a run");
    let mut delays = Vec::new();
    for attempt in 1..=8 {
        let failed = turned.fail(RunFailure::SpeedBehind).await;
        assert_eq!((failed.attempt, failed.state, failed.full), (attempt, RunState::Failed, true));
        assert_eq!(failed.retry_of.as_ref(), (attempt > 1).then_some(&first.id));
        let Some(at) = failed.retry_at else { break };
        assert_eq!(turned.queue.ends("a").retry_at, Some(at));
        delays.push(at.0 - turned.clock.now().0);
        let again = turned.turn(at).expect("it is tried again");
        assert_eq!((again.trigger.as_str(), again.attempt), ("retry", attempt + 1));
        assert_eq!(turned.queue.get(&failed.id).and_then(|run| run.retry_at), None);
    }
    assert_eq!(delays.len(), 7, "eight attempts");
    assert!(delays.windows(2).take(5).all(|pair| pair[1] > pair[0]), "{delays:?}");
    assert_eq!(turned.queue.ends("a").retry_at, None);
}

#[tokio::test]
async fn permanent_failures_are_not_retried() {
    let turned = Turned::new(Vec::new());
    turned.queue.request("a", RunScope::CHANGED, "schedule").expect("a run");
    let failed = turned.fail(RunFailure::DateTooLarge("2001-01-01".to_owned())).await;
    assert_eq!(failed.retry_at, None);
    let ends = turned.queue.ends("a");
    assert_eq!((ends.last_failure.map(|run| run.id), ends.last_success), (Some(failed.id), None));
}

#[tokio::test]
async fn a_new_run_replaces_a_retry_and_inherits_its_scope() {
    let turned = Turned::new(Vec::new());
    turned.queue.request("a", RunScope::FULL, "request").expect("a run");
    let failed = turned.fail(RunFailure::SpeedBehind).await;
    let newer = turned.queue.request("a", RunScope::CHANGED, "schedule").expect("a run");
    assert!(newer.full && newer.attempt == 1 && newer.retry_of.is_none(), "{newer:?}");
    assert_eq!(turned.queue.get(&failed.id).and_then(|run| run.retry_at), None);
    let entry = turned.queue.next(&turned.view).await.expect("a run");
    turned.queue.finish(&entry, Ok(3));
    assert_eq!(turned.turn(failed.retry_at.expect("a time")), None);
    assert_eq!(turned.queue.ends("a").last_success.and_then(|run| run.version), Some(3));
}

#[tokio::test]
async fn cancelling_a_failed_run_cancels_its_retry() {
    let turned = Turned::new(Vec::new());
    turned.queue.request("a", RunScope::CHANGED, "request").expect("a run");
    let failed = turned.fail(RunFailure::SpeedBehind).await;
    let cancelled = turned.queue.cancel(&failed.id).expect("a run");
    assert_eq!((cancelled.state, cancelled.retry_at), (RunState::Failed, None));
    assert_eq!(turned.turn(failed.retry_at.expect("a time")), None);
}

#[tokio::test]
async fn a_queued_run_inherits_the_scope_of_a_failed_one() {
    let turned = Turned::new(Vec::new());
    turned.queue.request("a", RunScope::FULL, "request").expect("a run");
    let entry = turned.queue.next(&turned.view).await.expect("a run");
    let waiting = turned.queue.request("a", RunScope::CHANGED, "schedule").expect("a run");
    assert!(!waiting.full);
    turned.queue.finish(&entry, Err(RunFailure::SpeedBehind));
    assert_eq!(entry.run().retry_at, None, "the one that waits comes first");
    let waiting = turned.queue.get(&waiting.id).expect("a run");
    assert!(waiting.full, "{waiting:?}");
}

#[tokio::test]
async fn a_cancelled_run_is_not_retried() {
    let turned = Turned::new(Vec::new());
    turned.queue.request("a", RunScope::CHANGED, "request").expect("a run");
    let entry = turned.queue.next(&turned.view).await.expect("a run");
    turned.queue.cancel(&entry.run().id).expect("a run");
    turned.queue.finish(&entry, Err(RunFailure::SpeedBehind));
    assert_eq!(entry.run().retry_at, None);
    assert_eq!(turned.queue.ends("a").retry_at, None);
}

#[tokio::test]
async fn a_retry_survives_a_restart() {
    let turned = Turned::new(Vec::new());
    turned.queue.request("a", RunScope::FULL, "request").expect("a run");
    let failed = turned.fail(RunFailure::SpeedBehind).await;
    turned.queue.stop();
    let later = Turned::new(vec![failed.clone()]);
    let again = later.turn(failed.retry_at.expect("a time")).expect("it is tried again");
    assert!(again.full && again.attempt == 2 && again.retry_of == Some(failed.id), "{again:?}");
}

#[test]
fn a_retry_comes_in_time_whichever_way_the_clock_is_set() {
    const YEAR: i64 = 365 * 86_400_000_000;
    let settings = RetrySettings::default();
    for (step, restarts) in [(-YEAR, false), (-30 * YEAR, false), (-YEAR, true), (-30 * YEAR, true), (2 * YEAR, false)]
    {
        let clock = ManualClock::at(Micros(60 * YEAR));
        let view: ViewName = "a".parse().expect("a name");
        let queue_of =
            |logged| RunQueue::new(Arc::new(clock.clone()), std::iter::once(view.clone()), 10, settings, logged);
        let queue = queue_of(LoggedRuns::default());
        queue.request("a", RunScope::CHANGED, "request").expect("a run");
        let entry = futures::executor::block_on(queue.next(&view)).expect("a run");
        queue.finish(&entry, Err(RunFailure::SpeedBehind));
        let failed = entry.run();
        clock.set(Micros(clock.now().0 + step));
        let queue = if restarts { queue_of(LoggedRuns { runs: vec![failed], ..LoggedRuns::default() }) } else { queue };
        let waits = |queue: &RunQueue| {
            queue.wake_retries();
            queue.list(&all()).expect("a page").runs[0].state == RunState::Queued
        };
        if step < 0 {
            assert!(!waits(&queue), "{step}: not at once");
        }
        clock.advance(settings.delay_max());
        assert!(waits(&queue), "{step} {restarts}");
    }
}
