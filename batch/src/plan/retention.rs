//! Which window dates does retention drop, and which does it freeze? Those before the first day of a view's retention are
//! dropped: a run neither recomputes nor keeps them. Those before the first event date that the stream's retention has
//! left are frozen: a run keeps them as they are, and reads no event that only they are made of.

use std::collections::BTreeMap;

use lake::DataFile;
use shared::retention::Retention;
use shared::time::{Day, MICROS_PER_DAY, Micros};
use shared::version::BatchVersion;
use shared::window::Window;

use crate::plan::planner::{ArchiveFile, EventDate, Plan};

/// What retention asks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retained {
    /// The first window date to keep; `None`: all are.
    pub from: Option<Day>,
    /// Dates that were dropped before are wanted again, and can be had: everything has to be recomputed.
    pub is_longer: bool,
    /// Windows of earlier dates are frozen; `None`: none are.
    pub frozen_before: Option<Day>,
}

impl Retained {
    /// By the view's `retention`, for a stream whose events before `dropped` are gone, over `before`: the version whose
    /// frozen windows can be kept, if there is one.
    pub fn of(
        retention: Option<Retention>,
        window: Window,
        before: Option<&BatchVersion>,
        dropped: Option<Day>,
        now: Micros,
    ) -> Retained {
        let wanted = retention.map(|retention| retention.first_day(now));
        let obtainable = wanted.max(dropped.map(|dropped| first_whole(window, dropped)));
        let (from, is_longer) = match before.map(|version| version.retained_from) {
            None => (obtainable, false),
            Some(None) => (wanted, false),
            Some(Some(had)) if obtainable.is_none_or(|first| first < had) => (obtainable, true),
            // What is gone of the view and of the archive does not come back.
            Some(had) => (wanted.max(had), false),
        };
        Retained { from, is_longer, frozen_before: dropped }
    }

    /// Has `version` dates to drop or to freeze, or too few? Then a run has something to do without a new event.
    pub fn changes(self, version: &BatchVersion) -> bool {
        let too_old = |from: Day| version.files.iter().any(|file| file.date.is_some_and(|day| day < from));
        self.is_longer || self.from.is_some_and(too_old) || self.frozen_before > version.frozen_before
    }

    /// Takes out of `plan` what is dropped, and what only frozen windows are made of.
    pub fn apply(self, plan: &mut Plan, window: Window) {
        plan.frozen_before = self.frozen_before;
        if let Some(from) = self.from {
            plan.retained_from = Some(from);
            plan.window_dates.retain(|date| date.is_none_or(|day| day >= from));
            let is_dropped = |file: &DataFile| file.partition.is_some_and(|day| day < from);
            let (dropped, keep) = std::mem::take(&mut plan.keep).into_iter().partition(is_dropped);
            plan.keep = keep;
            plan.remove.extend::<Vec<DataFile>>(dropped);
            plan.restore.retain(|file| !is_dropped(file));
            plan.frozen_touched.retain(|file| !is_dropped(file));
        }
        let Some(first) = self.from.max(self.frozen_before) else { return };
        plan.read.retain(|EventDate { date, .. }| !is_past(window, *date, first));
        let read: BTreeMap<&str, &ArchiveFile> =
            plan.read.iter().flat_map(|date| &date.files).map(|file| (file.file.path.as_str(), file)).collect();
        plan.rows = read.values().map(|file| file.tags.rows).sum();
        plan.bytes = read.values().map(|file| u64::try_from(file.file.size_bytes).unwrap_or(0)).sum();
    }

    /// Of the new events, those all of whose windows are dropped or frozen.
    pub fn past(self, plan: &Plan, window: Window) -> u64 {
        let Some(first) = self.from.max(self.frozen_before) else { return 0 };
        let past = plan.new_files.iter().filter(|file| is_past(window, file.file.partition, first));
        past.chain(&plan.past_files).map(|file| file.tags.rows).sum()
    }
}

/// The first date of which all windows are whole, given that the events before `dropped` are gone and nothing is known of
/// them. A session that begins within a gap of what is gone may have begun there.
pub fn first_whole(window: Window, dropped: Day) -> Day {
    match window {
        Window::Session { gap } => {
            let days = gap.saturating_sub(1).div_euclid(MICROS_PER_DAY) + 1;
            Day(dropped.0.saturating_add(i32::try_from(days).unwrap_or(i32::MAX)))
        }
        _ => dropped,
    }
}

/// Are all windows of a date's events dropped? Sessions may begin long before any of their events, or go on long after:
/// of them it is not told.
fn is_past(window: Window, date: Option<Day>, from: Day) -> bool {
    match (window, date) {
        (Window::Session { .. }, Some(_)) => false,
        (window, Some(day)) => window.window_days_of(day).is_some_and(|days| *days.end() < from.0),
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::window::Grid;

    const HOUR: i64 = 3_600_000_000;
    const HOURLY: Window = Window::Tumble(Grid::Fixed { size: HOUR, offset: 0 });

    fn noon(day: i32) -> Micros {
        Micros(Day(day).start().0 + 1)
    }

    fn version(retained_from: Option<i32>, frozen_before: Option<i32>) -> BatchVersion {
        let text = r#"{"view":"v","sql":"","definition_hash":"","version":1,"run":"","published_at":"1970-01-01T00:00:00Z","seam":{},
            "ledger":{"events":0,"positions":"00000000000000000000000000000000"},"full":true,"rows":0}"#;
        let version: BatchVersion = serde_json::from_str(text).expect("a version");
        BatchVersion { retained_from: retained_from.map(Day), frozen_before: frozen_before.map(Day), ..version }
    }

    #[test]
    fn a_longer_retention_wants_everything_again_and_a_later_day_does_not() {
        let week = Some(Retention { months: 0, days: 7 });
        let of = |retention, had, dropped: Option<i32>| {
            let retained = Retained::of(retention, HOURLY, Some(&version(had, None)), dropped.map(Day), noon(100));
            (retained.from.map(|day| day.0), retained.is_longer)
        };
        assert_eq!(of(week, None, None), (Some(93), false));
        assert_eq!(of(week, Some(92), None), (Some(93), false));
        assert_eq!(of(week, Some(95), None), (Some(93), true));
        assert_eq!(of(None, Some(95), None), (None, true));
        assert_eq!(of(None, None, None), (None, false));
        // Only what the archive still has can be had again.
        assert_eq!(of(week, Some(95), Some(94)), (Some(94), true));
        assert_eq!(of(week, Some(95), Some(95)), (Some(95), false));
        assert_eq!(of(None, Some(95), Some(97)), (Some(95), false), "what was frozen since stays");
        assert_eq!(of(None, None, Some(97)), (None, false), "a view that had everything keeps it");
    }

    #[test]
    fn a_view_without_a_version_begins_with_the_first_whole_window() {
        let of = |window, dropped| Retained::of(None, window, None, Some(Day(dropped)), noon(100)).from;
        assert_eq!(of(HOURLY, 40), Some(Day(40)));
        assert_eq!(of(Window::Session { gap: HOUR }, 40), Some(Day(41)), "a session of day 40 may have begun on 39");
        assert_eq!(of(Window::Session { gap: 24 * HOUR }, 40), Some(Day(41)));
        assert_eq!(of(Window::Session { gap: 24 * HOUR + 2 }, 40), Some(Day(42)));
    }

    #[test]
    fn dates_that_were_dropped_since_make_a_version() {
        let of = |dropped: Option<i32>| Retained::of(None, HOURLY, None, dropped.map(Day), noon(100));
        assert!(of(Some(40)).changes(&version(Some(40), None)));
        assert!(!of(Some(40)).changes(&version(Some(40), Some(40))));
        assert!(!of(None).changes(&version(None, None)));
    }

    #[test]
    fn events_are_past_when_none_of_their_windows_is_left() {
        assert!(is_past(HOURLY, Some(Day(9)), Day(10)));
        assert!(!is_past(HOURLY, Some(Day(10)), Day(10)));
        assert!(!is_past(HOURLY, None, Day(10)), "events of no date are never dropped");
        assert!(!is_past(Window::Session { gap: HOUR }, Some(Day(9)), Day(10)), "a session may reach over");
    }
}
