//! Computes the range of batch sessions that a query over sessions has to read, and the range of rows of one over a table.
//!
//! Sessions of batch never touch each other; only live sessions can connect them. So the range of the query grows by every
//! live session that is within the length of the longest batch session, until none is left. The batch sessions that start
//! in that range, or at most one such length before it, are all that can merge into the result.

use shared::readers::SpeedPin;
use shared::time_range::TimeRange;
use shared::version::BatchVersion;

/// Returns the range of starts of the batch sessions needed for sessions that start in `range`.
///
/// `gap` is the view's. `full_key` is true if the query groups by every dimension; with fewer, sessions of batch may touch,
/// and all are needed.
pub fn starts_needed(
    version: &BatchVersion,
    speed: &SpeedPin,
    gap: i64,
    full_key: bool,
    range: TimeRange,
) -> TimeRange {
    let longest = version.longest_session_us;
    if !full_key || longest <= 0 || range == TimeRange::ALL {
        return TimeRange::ALL;
    }
    let sessions = speed.generations.iter().flat_map(|generation| generation.part.sessions());
    let (first, end) =
        tied_to((range.from.0, range.to.0), sessions.map(|(first, last)| (first, last.saturating_add(gap))), longest);
    TimeRange::of_micros(first.saturating_sub(longest), end)
}

/// Returns the range of event times of the rows needed for sessions over a table that start in `range`.
///
/// A session that starts before it, and reaches into it, has a row less than the gap before its first row there: with that row, it
/// does not look like one that starts with the later ones. A session that starts in it may end at any time.
pub fn rows_needed(gap: i64, range: TimeRange) -> TimeRange {
    match range.from.0 {
        i64::MIN => TimeRange::ALL,
        from => TimeRange::of_micros(from.saturating_sub(gap), i64::MAX),
    }
}

/// Returns the shortest range that contains `range` and every interval closer than `distance` to it or to another such
/// interval.
fn tied_to(range: (i64, i64), intervals: impl Iterator<Item = (i64, i64)>, distance: i64) -> (i64, i64) {
    let mut intervals: Vec<(i64, i64)> = intervals.collect();
    intervals.sort_unstable();
    let (mut from, mut to) = range;
    let mut take = |chain: (i64, i64)| {
        if chain.0 < range.1.saturating_add(distance) && chain.1 > range.0.saturating_sub(distance) {
            (from, to) = (from.min(chain.0), to.max(chain.1));
        }
    };
    let mut chain: Option<(i64, i64)> = None;
    for (start, end) in intervals {
        chain = Some(match chain {
            Some((first, last)) if start < last.saturating_add(distance) => (first, last.max(end)),
            Some(over) => {
                take(over);
                (start, end)
            }
            None => (start, end),
        });
    }
    chain.into_iter().for_each(take);
    (from, to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Extends the range by one interval after the other until none is near.
    fn one_by_one(range: (i64, i64), intervals: &[(i64, i64)], distance: i64) -> (i64, i64) {
        let mut now = range;
        loop {
            let before = now;
            for (start, end) in intervals {
                if *start < now.1 + distance && *end > now.0 - distance {
                    now = (now.0.min(*start), now.1.max(*end));
                }
            }
            if now == before {
                return now;
            }
        }
    }

    proptest! {
        #[test]
        fn chains_are_followed_to_their_ends(
            spans in prop::collection::vec((-200i64..200, 1i64..20), 0..20), from in -100i64..100, size in 0i64..50, distance in 1i64..15,
        ) {
            let intervals: Vec<_> = spans.iter().map(|(start, length)| (*start, start + length)).collect();
            let range = (from, from + size);
            prop_assert_eq!(tied_to(range, intervals.iter().copied(), distance), one_by_one(range, &intervals, distance));
        }
    }

    #[test]
    fn rows_are_read_from_a_gap_before_the_range_on() {
        assert_eq!(rows_needed(7, TimeRange::of_micros(100, 200)), TimeRange::of_micros(93, i64::MAX));
        assert_eq!(rows_needed(7, TimeRange::of_micros(i64::MIN, 200)), TimeRange::ALL);
    }

    #[test]
    fn open_ranges_stay_open() {
        assert_eq!(tied_to((i64::MIN, 10), [(15, 30), (90, 95)].into_iter(), 10), (i64::MIN, 30));
        assert_eq!(tied_to((10, i64::MAX), [(1, 2), (-50, -45)].into_iter(), 10), (1, i64::MAX));
    }
}
