//! Determines in which ranges of starts all sessions of some keys are known, once the live ones have been pinned.
//!
//! A session consists of live ones of its key and of batch sessions that these meet, or of one batch session alone. No batch
//! session is longer than `longest`, its gap included. So with `reach` = max(`longest`, gap),
//!
//! ```text
//! known = ⋃ [first - reach, last + reach) of every live session  ∪  ⋃ [t - reach, t + reach) of every wanted time t
//! ```
//!
//! every batch session that meets a live one starts in `known`. The batch sessions that start there, joined with the live ones,
//! are therefore exactly the sessions that start there; and the session that contains a wanted time is one of them, with all
//! rows that have become part of it.

use shared::time::{Day, Micros};
use shared::time_range::TimeRange;
use shared::version::BatchVersion;
use shared::window::WindowId;

/// Ranges of starts, in order and apart, in which all sessions of the wanted keys are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownStarts(Vec<TimeRange>);

impl KnownStarts {
    /// Returns the ranges for the times `near` and the first and last events of `live` sessions, `gap` apart, beside `version`.
    pub fn new(
        gap: i64,
        version: Option<&BatchVersion>,
        near: &[i64],
        live: impl Iterator<Item = (i64, i64)>,
    ) -> KnownStarts {
        let longest = version.map_or(0, |version| version.longest_session_us);
        if longest <= 0 && version.is_some_and(|version| !version.files.is_empty()) {
            // The version does not say how long its sessions are.
            return KnownStarts(vec![TimeRange::ALL]);
        }
        let reach = longest.max(gap);
        let spans = near.iter().map(|time| (*time, *time)).chain(live);
        let mut spans: Vec<(i64, i64)> =
            spans.map(|(first, last)| (first.saturating_sub(reach), last.saturating_add(reach))).collect();
        spans.sort_unstable();
        let mut united: Vec<TimeRange> = Vec::new();
        for (from, to) in spans {
            match united.last_mut() {
                Some(last) if from <= last.to.0 => last.to = last.to.max(Micros(to)),
                _ => united.push(TimeRange::of_micros(from, to)),
            }
        }
        KnownStarts(united)
    }

    /// Returns whether every session that starts with this id is known.
    pub fn contains(&self, start: WindowId) -> bool {
        let at = Micros(start.0);
        let after = self.0.partition_point(|range| range.to <= at);
        self.0.get(after).is_some_and(|range| range.contains(at))
    }

    /// Returns what has to be read of `version`: a range for each date, so that one date at a time is loaded.
    pub fn ranges(&self, version: &BatchVersion) -> Vec<TimeRange> {
        let meets = |day: &Day| {
            let after = self.0.partition_point(|range| range.to <= day.start());
            self.0.get(after).is_some_and(|range| range.meets_day(*day))
        };
        let mut days: Vec<Day> = version.files.iter().filter_map(|file| file.date.day()).filter(meets).collect();
        days.sort_unstable();
        days.dedup();
        let range = |day: Day| TimeRange { from: day.start(), to: Day(day.0.saturating_add(1)).start() };
        let ranges: Vec<TimeRange> = days.into_iter().map(range).collect();
        if ranges.is_empty() && version.files.iter().any(|file| file.date.day().is_none()) {
            // Files without a date are read with any range.
            return vec![TimeRange::of_micros(0, 0)];
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::date_partition::DatePartition;
    use shared::version::{Origin, VersionFile};

    use super::*;

    const GAP: i64 = 10;

    /// Joins the spans of first and last events that are less than the gap apart.
    /// First and last event of sessions.
    type Spans = Vec<(i64, i64)>;

    fn joined(mut spans: Spans) -> Spans {
        spans.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::new();
        for (first, last) in spans {
            match joined.last_mut() {
                Some(before) if first < before.1 + GAP => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        joined
    }

    fn version(sessions: &[(i64, i64)], days: &[i32]) -> BatchVersion {
        let text = r#"{"view":"v","sql":"","definition_hash":"","version":1,"run":"","published_at":"1970-01-01T00:00:00Z","seam":{},
            "ledger":{"events":0,"positions":"00000000000000000000000000000000"},"full":true,"rows":0}"#;
        let version: BatchVersion = serde_json::from_str(text).expect("a version");
        let file = |day: &i32| VersionFile {
            path: format!("file-{day}"),
            date: DatePartition::of_day(Day(*day)),
            rows: 1,
            size_bytes: 1,
            origin: Origin::Batch,
        };
        let longest_session_us = sessions.iter().map(|(first, last)| last - first + GAP).max().unwrap_or(0);
        BatchVersion { longest_session_us, files: days.iter().map(file).collect(), ..version }
    }

    proptest! {
        #[test]
        fn what_starts_in_the_ranges_is_known_from_what_starts_there_and_live_sessions(
            batch in prop::collection::vec((-300i64..300, 0i64..40), 0..12),
            live in prop::collection::vec((-300i64..300, 0i64..30), 0..8),
            near in prop::collection::vec(-300i64..300, 0..4),
        ) {
            let spans = |spans: Spans| spans.into_iter().map(|(first, length)| (first, first + length)).collect();
            let (batch, live): (Spans, Spans) = (joined(spans(batch)), spans(live));
            let days: &[i32] = if batch.is_empty() { &[] } else { &[0] };
            let known = KnownStarts::new(GAP, Some(&version(&batch, days)), &near, live.iter().copied());
            let contains = |span: &(i64, i64)| known.contains(WindowId(span.0));
            let read = batch.iter().filter(|span| contains(span)).chain(&live).copied().collect();
            let found: Vec<(i64, i64)> = joined(read).into_iter().filter(contains).collect();
            let all = joined(batch.iter().chain(&live).copied().collect());
            let expected: Vec<(i64, i64)> = all.iter().copied().filter(contains).collect();
            prop_assert_eq!(found, expected);
            // A session with a live part, or a wanted time, is known.
            let has = |time: i64| all.iter().filter(move |(first, last)| *first <= time && time <= *last);
            let times = near.iter().copied().chain(live.iter().flat_map(|(first, last)| [*first, *last]));
            prop_assert!(times.flat_map(has).all(contains));
        }
    }

    #[test]
    fn each_date_is_read_once_and_others_are_not() {
        let day = |number: i32| Day(number).start().0;
        let version = version(&[(0, 5)], &[0, 1, 2, 40]);
        let known = KnownStarts::new(GAP, Some(&version), &[day(1), day(2) + 100], std::iter::empty());
        let read: Vec<i32> = known.ranges(&version).iter().map(|range| range.from.day().0).collect();
        assert_eq!(read, [0, 1, 2], "the end of day 0 is near the start of day 1");
        let unknown = BatchVersion { longest_session_us: 0, ..version };
        let known = KnownStarts::new(GAP, Some(&unknown), &[], std::iter::empty());
        assert!(known.contains(WindowId(i64::MIN)) && known.ranges(&unknown).len() == 4, "every date");
    }
}
