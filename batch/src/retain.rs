//! Which window dates does a view's retention drop? Those before its first day: a run neither recomputes nor keeps them,
//! and reads no event that only they are made of.

use std::collections::BTreeMap;

use shared::lake::DataFile;
use shared::retention::Retention;
use shared::time::{Day, Micros};
use shared::version::BatchVersion;
use shared::window::Window;

use crate::plan::{ArchiveFile, EventDate, Plan};

/// What retention asks of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retained {
    /// The first window date to keep; `None`: all are.
    pub from: Option<Day>,
    /// Dates that were dropped before are wanted again: everything has to be recomputed.
    pub is_longer: bool,
}

impl Retained {
    /// By the view's `retention`, over `before`, which answers until now.
    pub fn of(retention: Option<Retention>, before: Option<&BatchVersion>, now: Micros) -> Retained {
        let from = retention.map(|retention| retention.first_day(now));
        let dropped = before.and_then(|version| version.retained_from);
        Retained { from, is_longer: dropped.is_some_and(|dropped| from.is_none_or(|from| from < dropped)) }
    }

    /// Has `version` dates to drop, or too few? Then a run has something to do without a new event.
    pub fn changes(self, version: &BatchVersion) -> bool {
        let too_old = |from: Day| version.files.iter().any(|file| file.date.is_some_and(|day| day < from));
        self.is_longer || self.from.is_some_and(too_old)
    }

    /// Takes out of `plan` what is dropped.
    pub fn apply(self, plan: &mut Plan, window: Window) {
        let Some(from) = self.from else { return };
        plan.retained_from = Some(from);
        plan.window_dates.retain(|date| date.is_none_or(|day| day >= from));
        let is_dropped = |file: &DataFile| file.partition.is_some_and(|day| day < from);
        let (dropped, keep) = std::mem::take(&mut plan.keep).into_iter().partition(is_dropped);
        plan.keep = keep;
        plan.remove.extend::<Vec<DataFile>>(dropped);
        plan.read.retain(|EventDate { date, .. }| !is_past(window, *date, from));
        let read: BTreeMap<&str, &ArchiveFile> =
            plan.read.iter().flat_map(|date| &date.files).map(|file| (file.file.path.as_str(), file)).collect();
        plan.rows = read.values().map(|file| file.tags.rows).sum();
        plan.bytes = read.values().map(|file| u64::try_from(file.file.size_bytes).unwrap_or(0)).sum();
    }

    /// Of the new events, those all of whose windows are dropped.
    pub fn past(self, plan: &Plan, window: Window) -> u64 {
        let Some(from) = self.from else { return 0 };
        let past = plan.new_files.iter().filter(|file| is_past(window, file.file.partition, from));
        past.map(|file| file.tags.rows).sum()
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

    #[test]
    fn a_longer_retention_wants_everything_again_and_a_later_day_does_not() {
        let noon = |day: i32| Micros(Day(day).start().0 + 1);
        let week = Some(Retention { months: 0, days: 7 });
        assert_eq!(Retained::of(week, None, noon(100)), Retained { from: Some(Day(93)), is_longer: false });
        assert_eq!(Retained::of(None, None, noon(100)), Retained::default());
    }

    #[test]
    fn events_are_past_when_none_of_their_windows_is_left() {
        use shared::window::Grid;
        let hour = 3_600_000_000;
        let tumble = Window::Tumble(Grid::Fixed { size: hour, offset: 0 });
        assert!(is_past(tumble, Some(Day(9)), Day(10)));
        assert!(!is_past(tumble, Some(Day(10)), Day(10)));
        assert!(!is_past(tumble, None, Day(10)), "events of no date are never dropped");
        assert!(!is_past(Window::Session { gap: hour }, Some(Day(9)), Day(10)), "a session may reach over");
    }
}
