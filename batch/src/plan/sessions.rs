//! Computes how far the sessions reach that new events touch, from the ends that the statistics of the present files note.
//!
//! New events on a day may join sessions that start on earlier days and are not over on this one, and those that start
//! within a gap of its end. The rows of all days on which such sessions start are recomputed, from all events up to where
//! these sessions end. Sessions that reach into such a day from before have to be known, too, so that their rest does not
//! become a session of its own; rows that start before the day are computed and discarded. No file holds the sessions that
//! retention dropped: of them an upper bound on the last end is known.

use std::collections::{BTreeMap, BTreeSet};

use lake::DataFile;
use serde_json::Value;
use shared::horizon::{DroppedSessions, SessionReach};
use shared::partial::codec::WINDOW_END;
use shared::time::{Day, Micros};
use shared::window::Window;

use crate::plan::planner::{AffectedDays, PlanInput};

/// Days that a session and its gap may span before separating them is more work than recomputing everything.
const DAYS_SEPARATED_MAX: i32 = 10_000;

/// Returns the sessions that are dropped after a run with new events on `new_days`. If the run recomputes everything, their
/// reach is a lower bound: the events it reads decide the rest.
pub fn dropped_after(input: &PlanInput<'_>, everything: bool, new_days: &BTreeSet<Day>) -> DroppedSessions {
    let (Window::Session { gap }, Some(before)) = (input.window, input.horizon.retained_from()) else {
        return DroppedSessions::None;
    };
    let lower_bound = SessionReach { before, end: before.start() };
    if everything {
        return DroppedSessions::Known(lower_bound);
    }
    let dropped = input.present.iter().filter(|file| file.partition.day().is_some_and(|day| day < before));
    let ends = dropped.map(|file| latest_end(file).unwrap_or(Micros(i64::MAX)));
    let ends = ends.chain(input.horizon.dropped_sessions_end());
    let known = SessionReach { end: ends.fold(lower_bound.end, Micros::max), ..lower_bound };
    match with_events(known, gap, new_days, input.present) {
        Some(reach) => DroppedSessions::Known(reach),
        None => DroppedSessions::Unknown,
    }
}

/// Returns how far dropped sessions reach with new events on `days`, which may join them and tie them to others. `None`: a
/// file does not say where its sessions end.
fn with_events(reach: SessionReach, gap: i64, days: &BTreeSet<Day>, present: &[DataFile]) -> Option<SessionReach> {
    let ends = ends(present)?;
    let mut waiting: Vec<Day> = days.iter().copied().collect();
    let mut end = reach.end.0;
    loop {
        let (joined, apart): (Vec<Day>, Vec<Day>) =
            waiting.into_iter().partition(|day| *day < reach.before || day.start().0 < end);
        if joined.is_empty() {
            return Some(SessionReach { end: Micros(end), ..reach });
        }
        for day in joined {
            let tied_to = within_gap(gap, day);
            let tied = ends.range(..=Micros(tied_to - 1).day()).map(|(_, end)| *end);
            end = tied.chain([end, tied_to]).max().unwrap_or(end);
        }
        waiting = apart;
    }
}

/// Returns what new events on `days` affect, with sessions that are `gap` microseconds apart. `None`: a file does not say
/// where its sessions end, it is unknown how far dropped ones reach, or they span too much.
pub fn affected(
    gap: i64,
    days: &BTreeSet<Day>,
    present: &[DataFile],
    dropped: DroppedSessions,
) -> Option<AffectedDays> {
    let ends = ends(present)?;
    let dropped = match dropped {
        DroppedSessions::Known(reach) => Some(with_events(reach, gap, days, present)?),
        DroppedSessions::None => None,
        DroppedSessions::Unknown => return None,
    };
    // The first day with a session that is not over when `day` starts.
    let reaching_into = |day: Day| {
        let earlier = ends.range(..day).filter(|(_, end)| **end > day.start().0);
        earlier.map(|(first, _)| *first).next().unwrap_or(day)
    };
    let mut affected = AffectedDays::default();
    for day in days {
        let (first, last) = (reaching_into(*day), Micros(within_gap(gap, *day) - 1).day());
        if last.0.saturating_sub(first.0) > DAYS_SEPARATED_MAX {
            return None;
        }
        affected.windows.extend((first.0..=last.0).map(Day));
    }
    for day in &affected.windows {
        let own_end = ends.get(day).copied().unwrap_or(i64::MIN);
        let end = if days.contains(day) { own_end.max(within_gap(gap, *day)) } else { own_end };
        let from = reaching_into(*day).min(dropped.map_or(*day, |dropped| dropped.first_day(gap, *day)));
        affected.events.push(from.0..=Micros(end.saturating_sub(1)).day().0.max(day.0));
    }
    Some(affected)
}

/// Returns where the last session of each day ends, in microseconds; `None`: a file does not say so.
fn ends(present: &[DataFile]) -> Option<BTreeMap<Day, i64>> {
    let mut ends: BTreeMap<Day, i64> = BTreeMap::new();
    for file in present {
        let end = latest_end(file)?.0;
        let latest = ends.entry(file.partition.day()?).or_insert(end);
        *latest = end.max(*latest);
    }
    Some(ends)
}

/// Returns the time (microseconds) before which sessions start that an event of `day` may join.
fn within_gap(gap: i64, day: Day) -> i64 {
    Day(day.0 + 1).start().0.saturating_add(gap)
}

/// Returns where the last session of a view's file ends, if its statistics say so.
pub fn latest_end(file: &DataFile) -> Option<Micros> {
    let stats: Value = serde_json::from_str(file.stats_json.as_deref()?).ok()?;
    Micros::parse(stats["maxValues"][WINDOW_END].as_str()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::date_partition::DatePartition;

    use super::*;

    const HOUR: i64 = 3_600_000_000;

    fn file(day: i32, latest_end: i64) -> DataFile {
        let stats = json!({"maxValues": {"window_end": Micros(latest_end).to_string()}});
        DataFile {
            path: day.to_string(),
            partition: DatePartition::Day(Day(day)),
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
    fn sessions_within_a_day_affect_it_and_sessions_within_a_gap_of_its_end() {
        let present: Vec<DataFile> = (1..9).map(|day| file(day, Day(day + 1).start().0 - HOUR)).collect();
        let affected = affected(HOUR, &days(&[5]), &present, DroppedSessions::None).expect("known");
        assert_eq!(affected.windows, days(&[5, 6]));
        assert_eq!(affected.events, [5..=6, 6..=6]);
    }

    #[test]
    fn sessions_that_cross_midnight_add_the_days_they_start_on() {
        let present: Vec<DataFile> = (1..9).map(|day| file(day, Day(day + 1).start().0 + HOUR)).collect();
        let affected = affected(HOUR, &days(&[5]), &present, DroppedSessions::None).expect("known");
        assert_eq!(affected.windows, days(&[4, 5, 6]));
        assert_eq!(affected.events, [3..=5, 4..=6, 5..=7]);
    }

    #[test]
    fn a_long_session_is_found_from_far_away() {
        let present = [file(1, Day(6).start().0), file(3, Day(4).start().0 - 1), file(5, Day(5).start().0 + HOUR)];
        let affected = affected(HOUR, &days(&[5]), &present, DroppedSessions::None).expect("known");
        assert_eq!(affected.windows, days(&[1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn files_without_statistics_require_a_full_recomputation() {
        let silent = DataFile { stats_json: None, ..file(1, 0) };
        assert_eq!(affected(HOUR, &days(&[5]), &[silent], DroppedSessions::None), None);
    }

    #[test]
    fn a_dropped_session_across_midnight_is_read_from_a_gap_before_the_first_kept_event() {
        let present: Vec<DataFile> = (3..6).map(|day| file(day, Day(day).start().0 + HOUR)).collect();
        let read = |end: i64, new: &[i32]| {
            let dropped = DroppedSessions::Known(SessionReach { before: Day(3), end: Micros(end) });
            affected(2 * HOUR, &days(new), &present, dropped).expect("known").events
        };
        assert_eq!(read(Day(3).start().0, &[3]), [3..=4, 4..=4], "none reaches over");
        assert_eq!(read(Day(3).start().0 + HOUR, &[3]), [2..=4, 2..=4], "with its new events it may reach into day 4");
        assert_eq!(read(Day(3).start().0 + HOUR, &[5])[0], 5..=6, "but not into day 5");
        assert_eq!(read(0, &[2])[1], 2..=3, "a late event of a dropped day may start a session that reaches over");
    }

    #[test]
    fn new_events_join_dropped_sessions_within_a_gap() {
        let present = [file(3, Day(3).start().0 + HOUR), file(4, Day(6).start().0 + HOUR)];
        let end = |from: i64, new: &[i32]| {
            let dropped = SessionReach { before: Day(3), end: Micros(from) };
            with_events(dropped, 2 * HOUR, &days(new), &present).expect("known").end.0
        };
        let start = |day: i32| Day(day).start().0;
        assert_eq!(end(start(3), &[5]), start(3), "it meets none");
        assert_eq!(end(start(3) + 1, &[3]), start(6) + HOUR, "a session of day 4 starts within a gap");
        assert_eq!(end(start(3) + 1, &[3, 6]), start(7) + 2 * HOUR);
        assert_eq!(end(start(3), &[1]), start(3));
    }
}
