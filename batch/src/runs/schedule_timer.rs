//! Requests a view's runs when its schedule says so, by a clock that may be set.
//!
//! A clock that is set forward over several due times starts one run. One that is set back leaves the due time in a future
//! that may be years away, so the due time is computed again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::RunScope;
use shared::ids::ViewName;
use shared::schedule::Schedule;
use shared::time::Micros;

use crate::runs::queue::RunQueue;
use crate::watch::Cancel;

/// A clock is corrected by less than this without having been set back: due times stay.
const SET_BACK_MIN: Duration = Duration::from_secs(60);

/// The next due time of every view, for those who show it.
pub type NextRuns = Arc<Mutex<HashMap<ViewName, Micros>>>;

/// Starts the scheduled runs of one view.
pub struct ScheduleTimer {
    pub queue: Arc<RunQueue>,
    pub next_runs: NextRuns,
    pub view: ViewName,
    pub schedule: Schedule,
    pub clock: Arc<dyn Clock>,
    /// What the clock showed when the schedule began.
    pub since: Micros,
}

/// The next due time of a schedule, as computed when the clock showed `seen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DueTime {
    due: Option<Micros>,
    seen: Micros,
}

impl DueTime {
    fn after(schedule: &Schedule, now: Micros) -> DueTime {
        DueTime { due: schedule.next_after(now), seen: now }
    }

    /// Returns the due time after a look at the clock, and whether a run is due.
    fn at(self, schedule: &Schedule, now: Micros) -> (DueTime, bool) {
        if now < self.seen.minus(SET_BACK_MIN) {
            return (DueTime::after(schedule, now), false);
        }
        match self.due {
            Some(due) if due <= now => (DueTime::after(schedule, now), true),
            _ => (DueTime { seen: now.max(self.seen), ..self }, false),
        }
    }
}

impl ScheduleTimer {
    /// Checks the clock every `tick`. The clock may be set, so the task does not sleep until the next run.
    pub async fn run(self, tick: Duration, stopping: Cancel) {
        let mut due = DueTime::after(&self.schedule, self.since);
        while !stopping.is_set() {
            tokio::select! {
                () = tokio::time::sleep(tick) => {}
                () = stopping.wait() => return,
            }
            let (next, is_due) = due.at(&self.schedule, self.clock.now());
            if is_due && self.queue.request(self.view.as_str(), RunScope::CHANGED, "schedule").is_err() {
                return;
            }
            if next.due != due.due {
                self.show(next);
            }
            due = next;
        }
    }

    fn show(&self, next: DueTime) {
        let mut next_runs = self.next_runs.lock();
        match next.due {
            Some(due) => next_runs.insert(self.view.clone(), due),
            None => next_runs.remove(&self.view),
        };
    }
}

#[cfg(test)]
mod tests {
    use shared::time::MICROS_PER_SECOND;

    use super::*;

    const YEAR: i64 = 365 * 86_400 * MICROS_PER_SECOND;
    const START: i64 = 60 * YEAR;

    /// The times at which runs start if the clock is looked at at `times`.
    fn started(line: &str, times: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let schedule = Schedule::parse(line).expect("a schedule");
        let mut due = DueTime::after(&schedule, Micros(START));
        let mut started = Vec::new();
        for at in times {
            let (next, is_due) = due.at(&schedule, Micros(at));
            started.extend(is_due.then_some(at));
            due = next;
        }
        started
    }

    #[test]
    fn runs_keep_their_pace_whichever_way_the_clock_is_set() {
        for line in ["@every 5s", "* * * * *"] {
            for step in [0, -YEAR, 3 * YEAR, -40 * YEAR, -2 * 3_600 * MICROS_PER_SECOND, 300 * MICROS_PER_SECOND] {
                // Ten minutes, then the clock is set, and ten minutes more; looked at every second.
                let second = |n: i64| START + n * MICROS_PER_SECOND;
                let times = (0..600).map(second).chain((600..1_200).map(|n| second(n) + step));
                let started = started(line, times);
                let after = started.iter().filter(|at| **at >= second(600).min(second(600) + step)).count();
                let each = if line.starts_with('@') { 120 } else { 10 };
                let all = started.len();
                assert!(
                    (2 * each - 2..=2 * each + 1).contains(&all),
                    "{line} {step}: {all} runs, {after} of them after"
                );
            }
        }
    }

    #[test]
    fn a_small_correction_starts_nothing_twice() {
        let second = |n: i64| START + n * MICROS_PER_SECOND;
        let times = [second(300), second(300) - 20_000, second(300) - 10_000, second(300), second(301)];
        assert_eq!(started("*/5 * * * *", times), [second(300)]);
    }

    #[test]
    fn one_run_stands_for_all_that_were_missed() {
        let second = |n: i64| START + n * MICROS_PER_SECOND;
        assert_eq!(started("@every 5s", [second(1), second(86_400), second(86_401)]), [second(86_400)]);
    }
}
