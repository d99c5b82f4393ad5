//! Tests that calendar windows start by the clocks of every zone of the tz database, from 1970 to 2037.
//!
//! The computation here shares only the table of offsets with the system: a zone's offsets are looked up hour by hour,
//! their changes found by bisection, and between changes the first instant of a reading is plain arithmetic. Around
//! changes the wall clock is also walked second by second or minute by minute.

use chrono::{DateTime, Datelike, NaiveDate, Offset, TimeZone};
use chrono_tz::Tz;
use shared::calendar::{Calendar, CalendarUnit, Zone};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A period in which the wall clock is `ahead` of UTC; it starts at `from`. Microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    from: i64,
    ahead: i64,
}

fn ahead_of_utc(zone: Tz, at: i64) -> i64 {
    let utc = DateTime::from_timestamp_micros(at).expect("in range").naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * SECOND
}

/// The pieces of a zone, from 1967 to 2040.
fn pieces(zone: Tz) -> Vec<Piece> {
    let (mut at, end) = (midnight(1967, 1, 1), midnight(2040, 1, 1));
    let mut pieces = vec![Piece { from: at, ahead: ahead_of_utc(zone, at) }];
    while at < end {
        let (mut same, mut other) = (at, at + HOUR);
        let ahead = pieces[pieces.len() - 1].ahead;
        at = other;
        if ahead_of_utc(zone, other) == ahead {
            continue;
        }
        // Offsets change at whole seconds.
        while other - same > SECOND {
            let middle = same + (other - same) / 2 / SECOND * SECOND;
            if ahead_of_utc(zone, middle) == ahead { same = middle } else { other = middle }
        }
        pieces.push(Piece { from: other, ahead: ahead_of_utc(zone, other) });
        at = other;
    }
    pieces
}

fn midnight(year: i32, month: u32, day: u32) -> i64 {
    let date = NaiveDate::from_ymd_opt(year, month, day).expect("a date");
    date.and_hms_opt(0, 0, 0).expect("midnight").and_utc().timestamp_micros()
}

/// The first instant at which the wall clock reads `reading` or later.
fn first_instant(pieces: &[Piece], reading: i64) -> i64 {
    // No clock is 26 hours from UTC: earlier pieces cannot show the reading.
    let first = pieces.partition_point(|p| p.from <= reading - 26 * HOUR) - 1;
    for (i, piece) in pieces.iter().enumerate().skip(first) {
        let instant = piece.from.max(reading - piece.ahead);
        if pieces.get(i + 1).is_none_or(|next| instant < next.from) {
            return instant;
        }
    }
    unreachable!("the last piece has no end")
}

/// A calendar and, by index, the wall-clock midnight at which its cell starts.
struct Kind {
    name: &'static str,
    unit: CalendarUnit,
    count: i32,
    shift: i32,
    offset: i64,
    midnight: fn(i64) -> i64,
}

const fn days(name: &'static str, count: i32, shift: i32, offset: i64, midnight: fn(i64) -> i64) -> Kind {
    Kind { name, unit: CalendarUnit::Day, count, shift, offset, midnight }
}

const fn months(name: &'static str, count: i32, offset: i64, midnight: fn(i64) -> i64) -> Kind {
    Kind { name, unit: CalendarUnit::Month, count, shift: 0, offset, midnight }
}

fn month(months: i64) -> i64 {
    midnight(1970 + months.div_euclid(12) as i32, months.rem_euclid(12) as u32 + 1, 1)
}

const KINDS: [Kind; 10] = [
    days("days", 1, 0, 0, |k| k * DAY),
    days("days from 06:00", 1, 0, 6 * HOUR, |k| k * DAY),
    days("days from 02:30", 1, 0, 2 * HOUR + 30 * MINUTE, |k| k * DAY),
    days("days from 23:59:59.999999", 1, 0, DAY - 1, |k| k * DAY),
    days("three days", 3, 0, 0, |k| 3 * k * DAY),
    // The first Monday was 1970-01-05.
    days("weeks", 7, 4, 0, |k| (7 * k + 4) * DAY),
    months("months", 1, 0, month),
    months("months from 02:00", 1, 2 * HOUR, month),
    months("quarters", 3, 0, |k| month(3 * k)),
    months("years", 12, 0, |k| month(12 * k)),
];

/// Compares the starts of all cells from 1970 to 2037 with `first_instant`; then the cells of instants.
fn check(zone: Zone, pieces: &[Piece], kind: &Kind) -> u64 {
    let calendar = Calendar { unit: kind.unit, count: kind.count, shift: kind.shift, offset: kind.offset, zone };
    let mut index = -1;
    let (mut starts, mut indexes) = (Vec::new(), Vec::new());
    let mut day_of_week = None;
    while (kind.midnight)(index) < midnight(2038, 1, 1) {
        let start = first_instant(pieces, (kind.midnight)(index) + kind.offset);
        let found = calendar.start_of_index(index);
        assert_eq!(found, start, "{zone}: {} {index} begin at {}", kind.name, shown(start));
        starts.push(start);
        indexes.push(index);
        if kind.name == "weeks" {
            let begins = DateTime::from_timestamp_micros((kind.midnight)(index)).expect("in range").weekday();
            assert_eq!(*day_of_week.get_or_insert(begins), chrono::Weekday::Mon);
        }
        index += 1;
    }
    assert!(starts.is_sorted(), "{zone}: {}", kind.name);
    let mut checked = starts.len() as u64;
    let mut belongs = |at: i64| {
        // The last cell that has started.
        let last = starts.partition_point(|start| *start <= at) - 1;
        assert_eq!(calendar.index_of(at), indexes[last], "{zone}: {} at {}", kind.name, shown(at));
        checked += 1;
    };
    let inside = starts[0]..starts[starts.len() - 1];
    for start in &starts[1..] {
        [*start - 1, *start].into_iter().for_each(&mut belongs);
    }
    for piece in pieces {
        for near in [-25 * HOUR, -HOUR, -1, 0, 1, 30 * MINUTE, HOUR, 23 * HOUR] {
            if inside.contains(&(piece.from + near)) {
                belongs(piece.from + near);
            }
        }
    }
    checked
}

fn shown(at: i64) -> String {
    DateTime::from_timestamp_micros(at).expect("in range").to_rfc3339()
}

/// Around each clock change: the first instant that reads midnight or later, found minute by minute, or second by
/// second where offsets have seconds.
fn walk(zone: Tz, pieces: &[Piece]) -> u64 {
    let calendar = Calendar {
        unit: CalendarUnit::Day,
        count: 1,
        shift: 0,
        offset: 0,
        zone: zone.name().parse().expect("a zone's own name"),
    };
    let mut walked = 0;
    for pair in pieces.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let step =
            if [before.ahead, after.ahead, after.from].iter().all(|us| us % MINUTE == 0) { MINUTE } else { SECOND };
        let far = (after.ahead - before.ahead).abs() + HOUR;
        let readings = (after.from + before.ahead.min(after.ahead) - far).div_euclid(DAY)
            ..=(after.from + before.ahead.max(after.ahead) + far).div_euclid(DAY);
        for day in readings.filter(|day| *day >= 0) {
            let reading = day * DAY;
            // Just before its first possible reading.
            let mut at = reading - before.ahead.max(after.ahead) - step;
            if ahead_of_utc(zone, at) + at >= reading || (at - after.from).abs() > 3 * DAY {
                continue;
            }
            while at + ahead_of_utc(zone, at) < reading {
                at += step;
            }
            assert_eq!(calendar.start_of_index(day), at, "{zone}: {} begins at {}", shown(reading), shown(at));
            walked += 1;
        }
    }
    walked
}

#[test]
fn calendar_windows_start_by_the_clocks_of_every_zone() {
    let zones: Vec<Tz> = chrono_tz::TZ_VARIANTS.to_vec();
    let share = zones.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from));
    let (mut checked, mut walked, mut changes) = (0, 0, 0);
    std::thread::scope(|scope| {
        let of_some = |zones: Vec<Tz>| {
            let (mut checked, mut walked, mut changes) = (0, 0, 0);
            // Many names are links to the same zone: days are checked for each, the rest once.
            let mut known: Vec<Vec<Piece>> = Vec::new();
            for tz in zones {
                let zone: Zone = tz.name().parse().expect("a zone's own name");
                let pieces = pieces(tz);
                changes += pieces.len() - 1;
                let kinds = if known.contains(&pieces) { &KINDS[..1] } else { &KINDS[..] };
                checked += kinds.iter().map(|kind| check(zone, &pieces, kind)).sum::<u64>();
                if kinds.len() > 1 {
                    walked += walk(tz, &pieces);
                    known.push(pieces);
                }
            }
            (checked, walked, changes)
        };
        let threads: Vec<_> =
            zones.chunks(share).map(|some| some.to_vec()).map(|some| scope.spawn(move || of_some(some))).collect();
        for thread in threads {
            let (c, w, t) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (checked, walked, changes) = (checked + c, walked + w, changes + t);
        }
    });
    println!(
        "{} zones, {changes} changes of a clock, {checked} starts and instants, {walked} midnights walked",
        zones.len()
    );
    assert!(zones.len() > 500 && changes > 30_000 && walked > 5_000, "the tz database is not all there");
}
