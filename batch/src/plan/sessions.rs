//! How far do the sessions reach that new events touch? Told from the ends that the statistics of the present files note.
//!
//! New events on a day may join sessions that begin on earlier days and are not over on this one, and those that begin
//! within a gap of its end. The rows of all days on which such sessions begin are computed anew, from all events up to
//! where these sessions end. Sessions that come in from before such a day have to be known, too, so that their rest is
//! not taken for a session of its own; what begins before is computed, and left out. Of sessions that retention dropped
//! no file tells: of them it is known where the last one ends.

use std::collections::{BTreeMap, BTreeSet};

use lake::DataFile;
use serde_json::Value;
use shared::partial::codec::WINDOW_END;
use shared::time::{Day, Micros};
use shared::version::BatchVersion;
use shared::window::Window;

use crate::plan::planner::{Plan, Touched};

/// Days that a session and its gap may span before telling them apart is more work than computing everything.
const DAYS_TOLD_APART: i32 = 10_000;

/// The sessions that are in no file, because they begin before the first day that the view's retention left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DroppedSessions {
    pub before: Day,
    /// No later than this, in microseconds, the last of them ends.
    pub end: i64,
}

impl DroppedSessions {
    /// What `version` has dropped, if it has. The outer `None`: the program that wrote it did not note how far they reach.
    pub fn of(window: Window, version: Option<&BatchVersion>) -> Option<Option<DroppedSessions>> {
        let (Window::Session { .. }, Some(version)) = (window, version) else { return Some(None) };
        let Some(before) = version.retained_from else { return Some(None) };
        version.dropped_sessions_end.map(|end| Some(DroppedSessions { before, end: end.0 }))
    }

    /// No later than this the last session ends that is dropped after `plan`, if it recomputes a part: `dropped` are those
    /// that were before, `present` the files that the plan was made over. If it recomputes everything: how far they may
    /// reach without harm, since the events tell the rest. `None`: no session is dropped.
    pub fn end_after(
        window: Window,
        plan: &Plan,
        dropped: Option<DroppedSessions>,
        present: &[DataFile],
    ) -> Option<Micros> {
        let (Window::Session { gap }, Some(before)) = (window, plan.retained_from) else { return None };
        let first = DroppedSessions { before, end: before.start().0 };
        if plan.everything {
            return Some(Micros(first.end));
        }
        let gone = present.iter().filter(|file| file.partition.is_some_and(|day| day < before));
        let ends = gone.map(|file| latest_end(file).unwrap_or(i64::MAX)).chain(dropped.map(|dropped| dropped.end));
        let known = DroppedSessions { end: ends.fold(first.end, i64::max), ..first };
        let new = plan.new_files.iter().filter_map(|file| file.file.partition).collect();
        known.with_events(gap, &new, present).map(|dropped| Micros(dropped.end))
    }

    /// With new events on `days`, which may join such sessions, and tie them to others. `None`: a file does not say where
    /// its sessions end.
    pub fn with_events(self, gap: i64, days: &BTreeSet<Day>, present: &[DataFile]) -> Option<DroppedSessions> {
        let ends = ends(present)?;
        let mut waiting: Vec<Day> = days.iter().copied().collect();
        let mut end = self.end;
        loop {
            let (joined, apart): (Vec<Day>, Vec<Day>) =
                waiting.into_iter().partition(|day| *day < self.before || day.start().0 < end);
            if joined.is_empty() {
                return Some(DroppedSessions { end, ..self });
            }
            for day in joined {
                let tied_to = within_gap(gap, day);
                let tied = ends.range(..=Micros(tied_to - 1).day()).map(|(_, end)| *end);
                end = tied.chain([end, tied_to]).max().unwrap_or(end);
            }
            waiting = apart;
        }
    }

    /// The first day to read for telling what of `day` belongs to such a session: one that goes on has an event within a
    /// gap of the first day that is left.
    fn first_day(self, gap: i64, day: Day) -> Day {
        if self.end > day.start().0 { self.needed_from(gap).min(day) } else { day }
    }

    /// The first day whose events tell which of later ones belong to such a session.
    pub fn needed_from(self, gap: i64) -> Day {
        Micros(self.before.start().0.saturating_sub(gap)).day()
    }
}

/// What new events on `days` touch, with sessions that are `gap` microseconds apart; `None`: a file does not say where
/// its sessions end, or they span too much.
pub fn touched(
    gap: i64,
    days: &BTreeSet<Day>,
    present: &[DataFile],
    dropped: Option<DroppedSessions>,
) -> Option<Touched> {
    let ends = ends(present)?;
    let dropped = match dropped {
        Some(dropped) => Some(dropped.with_events(gap, days, present)?),
        None => None,
    };
    // The first day with a session that is not over when `day` begins.
    let reaching_into = |day: Day| {
        let earlier = ends.range(..day).filter(|(_, end)| **end > day.start().0);
        earlier.map(|(first, _)| *first).next().unwrap_or(day)
    };
    let mut touched = Touched::default();
    for day in days {
        let (first, last) = (reaching_into(*day), Micros(within_gap(gap, *day) - 1).day());
        if last.0.saturating_sub(first.0) > DAYS_TOLD_APART {
            return None;
        }
        touched.windows.extend((first.0..=last.0).map(Day));
    }
    for day in &touched.windows {
        let own_end = ends.get(day).copied().unwrap_or(i64::MIN);
        let end = if days.contains(day) { own_end.max(within_gap(gap, *day)) } else { own_end };
        let from = reaching_into(*day).min(dropped.map_or(*day, |dropped| dropped.first_day(gap, *day)));
        touched.events.push(from.0..=Micros(end.saturating_sub(1)).day().0.max(day.0));
    }
    Some(touched)
}

/// Where the last session of each day ends; `None`: a file does not say so.
fn ends(present: &[DataFile]) -> Option<BTreeMap<Day, i64>> {
    let mut ends: BTreeMap<Day, i64> = BTreeMap::new();
    for file in present {
        let end = latest_end(file)?;
        let latest = ends.entry(file.partition?).or_insert(end);
        *latest = end.max(*latest);
    }
    Some(ends)
}

/// Sessions that begin before this time (microseconds) may be joined by an event of `day`.
fn within_gap(gap: i64, day: Day) -> i64 {
    Day(day.0 + 1).start().0.saturating_add(gap)
}

/// Where the last session of a view's file ends, in microseconds, if its statistics say so.
pub fn latest_end(file: &DataFile) -> Option<i64> {
    let stats: Value = serde_json::from_str(file.stats_json.as_deref()?).ok()?;
    Micros::parse(stats["maxValues"][WINDOW_END].as_str()?).map(|end| end.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn file(day: i32, latest_end: i64) -> DataFile {
        let stats = json!({"maxValues": {"window_end": Micros(latest_end).to_string()}});
        DataFile {
            path: day.to_string(),
            partition: Some(Day(day)),
            size_bytes: 1,
            rows: 1,
            tags: BTreeMap::new(),
            stats_json: Some(stats.to_string()),
        }
    }

    fn days(days: &[i32]) -> BTreeSet<Day> {
        days.iter().copied().map(Day).collect()
    }

    #[test]
    fn sessions_within_their_day_touch_it_and_what_begins_within_a_gap_of_its_end() {
        let present: Vec<DataFile> = (1..9).map(|day| file(day, Day(day + 1).start().0 - HOUR)).collect();
        let touched = touched(HOUR, &days(&[5]), &present, None).expect("known");
        assert_eq!(touched.windows, days(&[5, 6]));
        assert_eq!(touched.events, [5..=6, 6..=6]);
    }

    #[test]
    fn sessions_that_cross_midnight_bring_in_the_days_they_begin_on() {
        let present: Vec<DataFile> = (1..9).map(|day| file(day, Day(day + 1).start().0 + HOUR)).collect();
        let touched = touched(HOUR, &days(&[5]), &present, None).expect("known");
        assert_eq!(touched.windows, days(&[4, 5, 6]));
        assert_eq!(touched.events, [3..=5, 4..=6, 5..=7]);
    }

    #[test]
    fn a_long_session_is_found_from_far_away() {
        let present = [file(1, Day(6).start().0), file(3, Day(4).start().0 - 1), file(5, Day(5).start().0 + HOUR)];
        let touched = touched(HOUR, &days(&[5]), &present, None).expect("known");
        assert_eq!(touched.windows, days(&[1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn files_that_say_nothing_make_everything_new() {
        let silent = DataFile { stats_json: None, ..file(1, 0) };
        assert_eq!(touched(HOUR, &days(&[5]), &[silent], None), None);
    }

    #[test]
    fn a_dropped_session_that_reaches_over_is_read_from_a_gap_before_what_is_left() {
        let present: Vec<DataFile> = (3..6).map(|day| file(day, Day(day).start().0 + HOUR)).collect();
        let read = |end: i64, new: &[i32]| {
            let dropped = DroppedSessions { before: Day(3), end };
            touched(2 * HOUR, &days(new), &present, Some(dropped)).expect("known").events
        };
        assert_eq!(read(Day(3).start().0, &[3]), [3..=4, 4..=4], "none reaches over");
        assert_eq!(read(Day(3).start().0 + HOUR, &[3]), [2..=4, 2..=4], "with its new events it may reach into day 4");
        assert_eq!(read(Day(3).start().0 + HOUR, &[5])[0], 5..=6, "but not into day 5");
        assert_eq!(read(0, &[2])[1], 2..=3, "a late event of a dropped day may begin a session that reaches over");
    }

    #[test]
    fn new_events_tie_dropped_sessions_to_those_they_meet() {
        let present = [file(3, Day(3).start().0 + HOUR), file(4, Day(6).start().0 + HOUR)];
        let end = |from: i64, new: &[i32]| {
            let dropped = DroppedSessions { before: Day(3), end: from };
            dropped.with_events(2 * HOUR, &days(new), &present).expect("known").end
        };
        let start = |day: i32| Day(day).start().0;
        assert_eq!(end(start(3), &[5]), start(3), "too late to meet one");
        assert_eq!(end(start(3) + 1, &[3]), start(6) + HOUR, "a session of day 4 begins within a gap");
        assert_eq!(end(start(3) + 1, &[3, 6]), start(7) + 2 * HOUR);
        assert_eq!(end(start(3), &[1]), start(3));
    }
}
