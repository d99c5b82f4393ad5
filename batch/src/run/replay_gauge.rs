//! Shows how many events a replay for a checkpoint has still to read.

use metrics::Gauge;

use crate::plan::Plan;
use crate::run::Attempt;
use crate::run::source::RowSource;

/// The gauge of one replay; it shows 0 once the replay is over, however it ended.
pub struct ReplayGauge<'a> {
    attempt: &'a Attempt<'a>,
    /// Events to read; `None`: nothing is replayed.
    events: Option<u64>,
    left: Gauge,
}

impl ReplayGauge<'_> {
    /// Returns the gauge of an attempt, which shows all events of the plan.
    pub fn new<'a>(attempt: &'a Attempt<'a>, plan: &Plan, source: &RowSource) -> ReplayGauge<'a> {
        let left = metrics::gauge!("trueup_replay_events_left", "view" => attempt.job.view.name.to_string());
        let gauge = ReplayGauge { attempt, events: matches!(source, RowSource::Replay).then_some(plan.rows), left };
        gauge.set();
        gauge
    }

    /// Shows the events that are left now.
    pub fn set(&self) {
        if let Some(events) = self.events {
            let read = self.attempt.entry.run().progress.rows;
            self.left.set(events.saturating_sub(read) as f64);
        }
    }
}

impl Drop for ReplayGauge<'_> {
    fn drop(&mut self) {
        if self.events.is_some() {
            self.left.set(0.0);
        }
    }
}
