//! Computes when the runs of a view start: five-field cron lines in a time zone, their `@` names, and `@every` for short
//! intervals.
//!
//! A line names readings of the zone's wall clock. Each fires at the first instant at which the clock shows it or later:
//! one that the clock jumps over fires at the jump, one that it shows twice fires the first time. So no change of a clock
//! skips a run or doubles it. `@every` counts time itself and knows no zone.
//!
//! The `cron` crate differs from standard cron: it has six fields, 1 for Sunday, and requires both the day of the month and the
//! weekday to match. Lines are translated, so that 0 and 7 are Sunday and either day is enough.

use std::str::FromStr;

use crate::calendar::Zone;
use crate::time::{MICROS_PER_SECOND, Micros};
use chrono::{DateTime, Utc};

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELD_NAMES: [&str; 5] = ["minute", "hour", "day of the month", "month", "weekday"];
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The instants at which runs start.
#[derive(Debug, Clone)]
pub struct Schedule(Timing);

#[derive(Debug, Clone)]
enum Timing {
    /// Microseconds; fires at their multiples since 1970.
    Every(i64),
    /// Fires when the wall clock of the zone shows what any of the lines names.
    Cron { lines: Vec<cron::Schedule>, zone: Zone },
}

/// Why a line is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("a schedule has 5 fields (minute hour day month weekday), \"{line}\" has {found}")]
    FieldCount { line: String, found: usize },
    #[error("\"{value}\" is not a valid {field}")]
    Field { field: &'static str, value: String },
    #[error("\"{0}\" is not known: use @hourly, @daily, @weekly, @monthly, @yearly or @every 30s")]
    UnknownName(String),
    #[error("\"{0}\" is not an interval of at least one second: write 5s, 10m, 2h or 1h30m")]
    Interval(String),
    #[error("schedule \"{0}\" never fires")]
    Never(String),
}

impl Schedule {
    /// Reads `minute hour day month weekday` (numbers, names, `*`, lists, ranges, steps), `@hourly`, `@daily`,
    /// `@weekly`, `@monthly`, `@yearly` or `@every 5s` (units `s`, `m`, `h`). In UTC: see [`Schedule::in_zone`].
    pub fn parse(line: &str) -> Result<Schedule, ScheduleError> {
        let line = line.trim();
        if let Some(interval) = line.strip_prefix("@every") {
            return parse_interval(interval.trim()).map(|micros| Schedule(Timing::Every(micros)));
        }
        let expanded = match NAMED.iter().find(|(name, _)| *name == line) {
            Some((_, fields)) => fields,
            None if line.starts_with('@') => return Err(ScheduleError::UnknownName(line.to_owned())),
            None => line,
        };
        let fields: Vec<&str> = expanded.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::FieldCount { line: line.to_owned(), found: fields.len() });
        };
        for (index, value) in [minute, hour, day, month].into_iter().enumerate() {
            let mut alone = ["*"; 4];
            alone[index] = value;
            if cron::Schedule::from_str(&format!("0 {} *", alone.join(" "))).is_err() {
                return Err(ScheduleError::Field { field: FIELD_NAMES[index], value: value.to_owned() });
            }
        }
        let weekdays = weekday_names(weekday)
            .ok_or_else(|| ScheduleError::Field { field: FIELD_NAMES[4], value: weekday.to_owned() })?;
        let either = !day.starts_with('*') && !weekday.starts_with('*');
        let pairs = if either { vec![(day, "*"), ("*", weekdays.as_str())] } else { vec![(day, weekdays.as_str())] };
        let schedules = pairs.into_iter().map(|(day, weekday)| {
            let six = format!("0 {minute} {hour} {day} {month} {weekday}");
            cron::Schedule::from_str(&six).map_err(|_| ScheduleError::Never(line.to_owned()))
        });
        let lines = schedules.collect::<Result<_, _>>()?;
        let schedule = Schedule(Timing::Cron { lines, zone: Zone::UTC });
        schedule.next_after(Micros(0)).ok_or_else(|| ScheduleError::Never(line.to_owned()))?;
        Ok(schedule)
    }

    /// The same readings on the wall clock of `zone`. Intervals have no clock and stay as they are.
    pub fn in_zone(self, zone: Zone) -> Schedule {
        match self.0 {
            Timing::Cron { lines, .. } => Schedule(Timing::Cron { lines, zone }),
            every => Schedule(every),
        }
    }

    /// The zone whose clock it follows; none of an interval.
    pub fn zone(&self) -> Option<Zone> {
        match self.0 {
            Timing::Every(_) => None,
            Timing::Cron { zone, .. } => Some(zone),
        }
    }

    /// The first instant after `after` at which a run starts.
    pub fn next_after(&self, after: Micros) -> Option<Micros> {
        match &self.0 {
            Timing::Every(micros) => after.0.div_euclid(*micros).checked_add(1)?.checked_mul(*micros).map(Micros),
            Timing::Cron { lines, zone } => lines.iter().filter_map(|line| next_reading(line, *zone, after)).min(),
        }
    }

    /// Returns whether at least one run was due after `last` and until `now`.
    pub fn missed(&self, last: Micros, now: Micros) -> bool {
        self.next_after(last).is_some_and(|due| due <= now)
    }
}

/// The first instant after `after` at which `zone`'s wall clock shows a reading of `line`, or has jumped over it.
fn next_reading(line: &cron::Schedule, zone: Zone, after: Micros) -> Option<Micros> {
    // The clock has shown every reading up to the present one; it may have shown later ones, before it went back.
    let wall = DateTime::<Utc>::from_timestamp_micros(zone.wall_clock(after.0))?;
    let mut instants = line.after(&wall).map(|reading| zone.first_instant(reading.timestamp_micros()));
    instants.find(|instant| *instant > after.0).map(Micros)
}

/// A comma-separated list of weekday names for `cron`, or `*` for every day.
fn weekday_names(field: &str) -> Option<String> {
    let mut days = [false; 7];
    for item in field.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<usize>().ok().filter(|s| (1..=7).contains(s))?)),
            None => (item, None),
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (weekday(from)?, weekday(to)?),
            None if range == "*" => (0, 6),
            None => (weekday(range)?, if step.is_some() { 6 } else { weekday(range)? }),
        };
        // `fri-mon` goes over the end of the week; `5-7` ends on the Sunday that 7 is.
        let to = if to < from { to + 7 } else { to };
        (from..=to).step_by(step.unwrap_or(1)).for_each(|day| days[day % 7] = true);
    }
    if days == [true; 7] {
        return Some("*".to_owned());
    }
    let names: Vec<&str> = WEEKDAYS.iter().zip(days).filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    Some(names.join(","))
}

fn weekday(text: &str) -> Option<usize> {
    let by_name = WEEKDAYS.iter().position(|name| name.eq_ignore_ascii_case(text));
    let is_number = text.len() == 1 && text.as_bytes()[0].is_ascii_digit();
    by_name.or_else(|| text.parse().ok().filter(|day| is_number && *day <= 7))
}

/// `1h30m`, `5s`, as microseconds.
fn parse_interval(text: &str) -> Result<i64, ScheduleError> {
    let error = || ScheduleError::Interval(text.to_owned());
    let mut rest = text;
    let mut seconds: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let number: i64 = rest[..digits].parse().map_err(|_| error())?;
        let unit = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            _ => return Err(error()),
        };
        seconds = number.checked_mul(unit).and_then(|n| n.checked_add(seconds)).ok_or_else(error)?;
        rest = &rest[digits + 1..];
    }
    seconds.checked_mul(MICROS_PER_SECOND).filter(|micros| *micros >= MICROS_PER_SECOND).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(line: &str, after: &str) -> String {
        let after = Micros::parse(after).expect("a time");
        Schedule::parse(line).expect(line).next_after(after).expect("a next time").to_string()
    }

    #[test]
    fn schedules_fire_when_cron_does() {
        // 2001-01-01 was a Monday.
        let table = [
            ("*/15 * * * *", "2001-01-01T06:00:00Z", "2001-01-01T06:15:00Z"),
            ("*/15 * * * *", "2001-01-01T06:14:59.999999Z", "2001-01-01T06:15:00Z"),
            ("5,35 1-5/2 * * *", "2001-01-01T01:35:00Z", "2001-01-01T03:05:00Z"),
            ("5/20 * * * *", "2001-01-01T00:25:00Z", "2001-01-01T00:45:00Z"),
            ("0 3 * * 0", "2001-01-01T00:00:00Z", "2001-01-07T03:00:00Z"),
            ("0 3 * * 7", "2001-01-01T00:00:00Z", "2001-01-07T03:00:00Z"),
            ("0 3 * * 1", "2001-01-01T00:00:00Z", "2001-01-01T03:00:00Z"),
            ("0 3 * * Sat", "2001-01-01T00:00:00Z", "2001-01-06T03:00:00Z"),
            ("0 3 * * sun-mon", "2001-01-01T04:00:00Z", "2001-01-07T03:00:00Z"),
            ("0 3 * * 5-7", "2001-01-01T04:00:00Z", "2001-01-05T03:00:00Z"),
            ("0 3 * * fri-mon", "2001-01-06T04:00:00Z", "2001-01-07T03:00:00Z"),
            ("0 3 * * 1-5/2", "2001-01-01T04:00:00Z", "2001-01-03T03:00:00Z"),
            ("0 3 * * */2", "2001-01-02T04:00:00Z", "2001-01-04T03:00:00Z"),
            ("0 0 13 * fri", "2001-01-01T00:00:00Z", "2001-01-05T00:00:00Z"),
            ("0 0 13 * fri", "2001-01-12T00:00:00Z", "2001-01-13T00:00:00Z"),
            ("0 0 31 dec *", "2001-01-01T00:00:00Z", "2001-12-31T00:00:00Z"),
            ("0 0 29 2 *", "2001-01-01T00:00:00Z", "2004-02-29T00:00:00Z"),
            ("@hourly", "2001-01-01T00:00:00Z", "2001-01-01T01:00:00Z"),
            ("@daily", "2001-01-01T00:00:00Z", "2001-01-02T00:00:00Z"),
            ("@weekly", "2001-01-01T00:00:00Z", "2001-01-07T00:00:00Z"),
            ("@monthly", "2001-01-01T00:00:00Z", "2001-02-01T00:00:00Z"),
            ("@yearly", "2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z"),
            ("@every 5s", "2001-01-01T00:00:00Z", "2001-01-01T00:00:05Z"),
            ("@every 5s", "2001-01-01T00:00:03.5Z", "2001-01-01T00:00:05Z"),
            ("@every 1h30m", "2001-01-01T00:00:00Z", "2001-01-01T01:30:00Z"),
        ];
        for (line, after, expected) in table {
            assert_eq!(next(line, after), expected, "{line} after {after}");
        }
    }

    #[test]
    fn lines_follow_the_wall_clock_of_their_zone() {
        // Berlin went forward at 2001-03-25T01:00Z (02:00 to 03:00), and back at 2001-10-28T01:00Z (03:00 to 02:00).
        let table = [
            ("30 2 * * *", "2001-03-24T01:30:00Z", "2001-03-25T01:00:00Z"),
            ("30 2 * * *", "2001-03-25T01:00:00Z", "2001-03-26T00:30:00Z"),
            ("30 2 * * *", "2001-10-27T00:30:00Z", "2001-10-28T00:30:00Z"),
            ("30 2 * * *", "2001-10-28T00:30:00Z", "2001-10-29T01:30:00Z"),
            ("30 2 * * *", "2001-10-28T01:15:00Z", "2001-10-29T01:30:00Z"),
            ("*/30 * * * *", "2001-03-25T00:30:00Z", "2001-03-25T01:00:00Z"),
            ("*/30 * * * *", "2001-03-25T01:00:00Z", "2001-03-25T01:30:00Z"),
            ("*/30 * * * *", "2001-10-28T00:30:00Z", "2001-10-28T02:00:00Z"),
            ("@monthly", "2001-07-01T00:00:00Z", "2001-07-31T22:00:00Z"),
            ("@every 30m", "2001-10-28T00:30:00Z", "2001-10-28T01:00:00Z"),
        ];
        let berlin: Zone = "Europe/Berlin".parse().expect("a zone");
        for (line, after, expected) in table {
            let schedule = Schedule::parse(line).expect(line).in_zone(berlin);
            let next = schedule.next_after(Micros::parse(after).expect("a time")).expect("a next time");
            assert_eq!(next.to_string(), expected, "{line} after {after}");
        }
    }

    #[test]
    fn errors_name_the_wrong_field() {
        let table = [
            ("* * * *", "a schedule has 5 fields (minute hour day month weekday), \"* * * *\" has 4"),
            ("60 * * * *", "\"60\" is not a valid minute"),
            ("* 24 * * *", "\"24\" is not a valid hour"),
            ("* * 0 * *", "\"0\" is not a valid day of the month"),
            ("* * * 13 *", "\"13\" is not a valid month"),
            ("* * * * 8", "\"8\" is not a valid weekday"),
            ("* * * * monday", "\"monday\" is not a valid weekday"),
            ("* * * * 1/0", "\"1/0\" is not a valid weekday"),
            ("0 0 31 2 *", "schedule \"0 0 31 2 *\" never fires"),
            (
                "@fortnightly",
                "\"@fortnightly\" is not known: use @hourly, @daily, @weekly, @monthly, @yearly or @every 30s",
            ),
            ("@every 0s", "\"0s\" is not an interval of at least one second: write 5s, 10m, 2h or 1h30m"),
            ("@every 5", "\"5\" is not an interval of at least one second: write 5s, 10m, 2h or 1h30m"),
            ("@every", "\"\" is not an interval of at least one second: write 5s, 10m, 2h or 1h30m"),
        ];
        for (line, expected) in table {
            assert_eq!(Schedule::parse(line).expect_err(line).to_string(), expected);
        }
    }

    #[test]
    fn a_missed_run_is_noticed_once_its_time_has_come() {
        let daily = Schedule::parse("0 3 * * *").expect("a schedule");
        let at = |text: &str| Micros::parse(text).expect("a time");
        assert!(daily.missed(at("2001-01-01T03:00:00Z"), at("2001-01-05T00:00:00Z")));
        assert!(daily.missed(at("2001-01-01T02:59:59Z"), at("2001-01-01T03:00:00Z")));
        assert!(!daily.missed(at("2001-01-01T03:00:00Z"), at("2001-01-02T02:59:59Z")));
    }
}
