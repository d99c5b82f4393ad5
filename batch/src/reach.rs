//! How far do the sessions reach that new events touch? Told from the ends that the statistics of the present files note.
//!
//! New events on a day may join sessions that begin on earlier days and are not over on this one, and those that begin
//! within a gap of its end. The rows of all days on which such sessions begin are computed anew, from all events up to
//! where these sessions end. Sessions that come in from before such a day have to be known, too, so that their rest is
//! not taken for a session of its own; what begins before is computed, and left out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shared::lake::DataFile;
use shared::partial::codec::WINDOW_END;
use shared::time::{Day, Micros};

use crate::plan::Touched;

/// Days that a session and its gap may span before telling them apart is more work than computing everything.
const DAYS_TOLD_APART: i32 = 10_000;

/// What new events on `days` touch, with sessions that are `gap` microseconds apart; `None`: a file does not say where
/// its sessions end, or they span too much.
pub fn touched(gap: i64, days: &BTreeSet<Day>, present: &[DataFile]) -> Option<Touched> {
    let mut ends: BTreeMap<Day, i64> = BTreeMap::new();
    for file in present {
        let end = latest_end(file)?;
        let latest = ends.entry(file.partition?).or_insert(end);
        *latest = end.max(*latest);
    }
    // The first day with a session that is not over when `day` begins.
    let reaching_into = |day: Day| {
        let earlier = ends.range(..day).filter(|(_, end)| **end > day.start().0);
        earlier.map(|(first, _)| *first).next().unwrap_or(day)
    };
    let within_gap = |day: Day| Day(day.0 + 1).start().0.saturating_add(gap);
    let mut touched = Touched::default();
    for day in days {
        let (first, last) = (reaching_into(*day), Micros(within_gap(*day) - 1).day());
        if last.0.saturating_sub(first.0) > DAYS_TOLD_APART {
            return None;
        }
        touched.windows.extend((first.0..=last.0).map(Day));
    }
    for day in &touched.windows {
        let own_end = ends.get(day).copied().unwrap_or(i64::MIN);
        let end = if days.contains(day) { own_end.max(within_gap(*day)) } else { own_end };
        touched.events.push(reaching_into(*day).0..=Micros(end.saturating_sub(1)).day().0.max(day.0));
    }
    Some(touched)
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
        let touched = touched(HOUR, &days(&[5]), &present).expect("known");
        assert_eq!(touched.windows, days(&[5, 6]));
        assert_eq!(touched.events, [5..=6, 6..=6]);
    }

    #[test]
    fn sessions_that_cross_midnight_bring_in_the_days_they_begin_on() {
        let present: Vec<DataFile> = (1..9).map(|day| file(day, Day(day + 1).start().0 + HOUR)).collect();
        let touched = touched(HOUR, &days(&[5]), &present).expect("known");
        assert_eq!(touched.windows, days(&[4, 5, 6]));
        assert_eq!(touched.events, [3..=5, 4..=6, 5..=7]);
    }

    #[test]
    fn a_long_session_is_found_from_far_away() {
        let present = [file(1, Day(6).start().0), file(3, Day(4).start().0 - 1), file(5, Day(5).start().0 + HOUR)];
        let touched = touched(HOUR, &days(&[5]), &present).expect("known");
        assert_eq!(touched.windows, days(&[1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn files_that_say_nothing_make_everything_new() {
        let silent = DataFile { stats_json: None, ..file(1, 0) };
        assert_eq!(touched(HOUR, &days(&[5]), &[silent]), None);
    }
}
