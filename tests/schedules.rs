//! Tests that schedules fire by the wall clocks of every zone of the tz database, around each of their changes from
//! 1970 to 2040.
//!
//! The oracle is naive: it walks from minute to minute (or from second to second, where offsets have seconds), reads
//! the wall clock, and fires where the clock shows a reading of the schedule for the first time, or has just jumped
//! over one. It shares only the table of offsets with the system.

use std::collections::HashSet;

use chrono::{DateTime, Datelike, Offset, TimeZone};
use chrono_tz::Tz;
use shared::calendar::Zone;
use shared::schedule::Schedule;
use shared::time::Micros;

/// A zone and the changes of its clock.
type Changes = (Tz, Vec<(i64, i64, i64)>);

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A schedule, and whether it matches a reading of the clock (day since 1970, minute of the day).
#[derive(Clone, Copy)]
struct Line {
    text: &'static str,
    names: fn(i64, i64) -> bool,
    /// Length of the checked time before and after a change, in seconds.
    around: i64,
}

const AROUND_MAX: i64 = 30 * HOUR;

const LINES: [Line; 8] = [
    Line { text: "@hourly", names: |_, minute| minute % 60 == 0, around: 5 * HOUR },
    Line { text: "*/15 * * * *", names: |_, minute| minute % 15 == 0, around: 3 * HOUR },
    Line { text: "30 2 * * *", names: |_, minute| minute == 150, around: AROUND_MAX },
    Line { text: "0 0 * * *", names: |_, minute| minute == 0, around: AROUND_MAX },
    Line { text: "59 23 * * *", names: |_, minute| minute == 1439, around: AROUND_MAX },
    // 1970-01-01 was a Thursday.
    Line { text: "30 2 * * 0", names: |day, minute| minute == 150 && (day + 4) % 7 == 0, around: AROUND_MAX },
    Line { text: "0 0 1 * *", names: |day, minute| minute == 0 && day_of_month(day) == 1, around: AROUND_MAX },
    Line {
        text: "0 1-3 1,31 * sun",
        names: |day, minute| {
            [60, 120, 180].contains(&minute) && ([1, 31].contains(&day_of_month(day)) || (day + 4) % 7 == 0)
        },
        around: AROUND_MAX,
    },
];

fn day_of_month(day: i64) -> u32 {
    DateTime::from_timestamp(day * DAY, 0).expect("in range").day()
}

/// Seconds by which the wall clock is ahead of UTC.
fn ahead(zone: Tz, at: i64) -> i64 {
    let utc = DateTime::from_timestamp(at, 0).expect("in range").naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc())
}

/// The changes of a zone's clock from 1970 to 2040: when, and the offsets before and after, in seconds.
fn changes(zone: Tz) -> Vec<(i64, i64, i64)> {
    let end = 70 * 365 * DAY + 18 * DAY;
    let (mut at, mut changes) = (0, Vec::new());
    while at < end {
        let (mut same, mut other) = (at, at + HOUR);
        let before = ahead(zone, same);
        if ahead(zone, other) != before {
            while other - same > 1 {
                let middle = same + (other - same) / 2;
                if ahead(zone, middle) == before { same = middle } else { other = middle }
            }
            changes.push((other, before, ahead(zone, other)));
        }
        at = other;
    }
    changes
}

/// The instants before `to` at which each line fires, from `from` on, in seconds.
fn walked(zone: Tz, from: i64, to: i64, step: i64) -> [Vec<i64>; LINES.len()] {
    // No clock changes by more than about a day, so two days of walking give the readings shown before.
    let mut at = from - 2 * DAY;
    let mut shown = at + ahead(zone, at);
    let mut fired = [const { Vec::new() }; LINES.len()];
    while at + step < to {
        at += step;
        let wall = at + ahead(zone, at);
        if wall <= shown {
            continue;
        }
        // Whole minutes shown for the first time, or skipped.
        let minutes = shown.div_euclid(MINUTE) + 1..=wall.div_euclid(MINUTE);
        shown = wall;
        if at < from {
            continue;
        }
        for (line, fired) in LINES.iter().zip(&mut fired) {
            if minutes.clone().any(|m| (line.names)(m.div_euclid(1440), m.rem_euclid(1440))) {
                fired.push(at);
            }
        }
    }
    fired
}

fn scheduled(schedule: &Schedule, from: i64, to: i64) -> Vec<i64> {
    let mut fired = Vec::new();
    let mut at = Micros(from * 1_000_000 - 1);
    while let Some(next) = schedule.next_after(at).filter(|next| next.0 < to * 1_000_000) {
        assert!(next > at, "time goes on");
        assert_eq!(next.0 % 1_000_000, 0);
        fired.push(next.0 / 1_000_000);
        at = next;
    }
    fired
}

fn check(zone: Tz, changes: &[(i64, i64, i64)]) -> usize {
    let named: Zone = zone.name().parse().expect("a zone's own name");
    let schedules = LINES.map(|line| Schedule::parse(line.text).expect(line.text).in_zone(named));
    let mut compared = 0;
    for (at, before, after) in changes {
        let whole = [at, before, after].iter().all(|seconds| *seconds % MINUTE == 0);
        // Walks start at whole minutes, so that one step is the change itself.
        let step = if whole { MINUTE } else { 1 };
        let window = |around: i64| {
            let around = (around + (after - before).abs()) / MINUTE * MINUTE;
            (at - around, at + around)
        };
        let (from, to) = window(AROUND_MAX);
        let expected = walked(zone, from, to, step);
        for ((line, schedule), mut expected) in LINES.iter().zip(&schedules).zip(expected) {
            let (from, to) = window(line.around);
            expected.retain(|fired| (from..to).contains(fired));
            let found = scheduled(schedule, from, to);
            let change = DateTime::from_timestamp(*at, 0).expect("in range");
            assert_eq!(found, expected, "{zone}: {} around the change of {change}", line.text);
            compared += expected.len();
        }
    }
    compared
}

#[test]
fn clock_changes_neither_skip_nor_double_a_run() {
    let mut known = HashSet::new();
    let mut all = 0;
    let mut distinct = Vec::new();
    for zone in chrono_tz::TZ_VARIANTS {
        let changes = changes(zone);
        all += changes.len();
        // Many names are links to the same zone.
        if known.insert(changes.clone()) {
            distinct.push((zone, changes));
        }
    }
    let share = distinct.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from));
    let of_some = |some: &[Changes]| some.iter().map(|(zone, c)| check(*zone, c)).sum::<usize>();
    let compared: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = distinct.chunks(share).map(|some| scope.spawn(move || of_some(some))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).sum()
    });
    println!("{all} changes of a clock, {} zones that differ, {compared} runs compared", distinct.len());
    assert!(all > 30_000 && compared > 50_000, "the tz database is not all there");
}

/// Between the changes, a daily schedule fires once per date in every zone.
#[test]
fn a_daily_schedule_fires_once_per_date() {
    for name in
        ["Europe/Berlin", "America/New_York", "Pacific/Apia", "Africa/Cairo", "Asia/Kolkata", "Australia/Lord_Howe"]
    {
        let zone: Zone = name.parse().expect("a zone");
        let schedule = Schedule::parse("30 2 * * *").expect("a line").in_zone(zone);
        let mut at = Micros::parse("1990-01-01T12:00:00Z").expect("a time");
        let end = Micros::parse("2030-01-01T12:00:00Z").expect("a time");
        let mut dates = Vec::new();
        while let Some(next) = schedule.next_after(at).filter(|next| *next < end) {
            dates.push(zone.wall_clock(next.0).div_euclid(DAY * 1_000_000));
            at = next;
        }
        assert!(dates.is_sorted(), "{name}");
        // Apia had no 30th of December 2011: its run came at the jump to the 31st, before that one's own. And it went
        // from one side of the date line to the other: by its clock, the time in between is a day longer.
        let gained = if name == "Pacific/Apia" { 1 } else { 0 };
        assert_eq!(dates.len(), 40 * 365 + 10 + gained, "{name}");
        dates.dedup();
        assert_eq!(dates.len(), 40 * 365 + 10, "{name}");
    }
}
