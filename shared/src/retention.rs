//! Computes the first day that a retention keeps. A retention is a span of whole days, months and years.

use std::fmt;

use chrono::{Days, Months, NaiveDate};
use serde::{Deserialize, Serialize};

use crate::time::{Day, Micros};

/// A span counted back from today, in UTC; longer than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    pub months: u32,
    pub days: u32,
}

impl Retention {
    /// The first day that is kept at `now`.
    pub fn first_day(self, now: Micros) -> Day {
        let epoch = NaiveDate::default();
        let today = epoch.checked_add_signed(chrono::Duration::days(i64::from(now.day().0)));
        let first = today
            .and_then(|day| day.checked_sub_months(Months::new(self.months)))
            .and_then(|day| day.checked_sub_days(Days::new(u64::from(self.days))));
        // Before the first date of all there is nothing to drop.
        first.map_or(Day(i32::MIN), |day| Day(i32::try_from((day - epoch).num_days()).unwrap_or(i32::MIN)))
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: u32, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let parts = [(self.months / 12, "year"), (self.months % 12, "month"), (self.days, "day")];
        let said: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, one)| counted(*n, one)).collect();
        f.write_str(&said.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_those_of_the_calendar() {
        let at = |text: &str| Micros::parse(text).expect("a time");
        for (months, days, now, first) in [
            (0, 1, "2024-03-01T23:59:59Z", "2024-02-29"),
            (1, 0, "2024-03-31", "2024-02-29"),
            (60, 0, "2024-02-29T12:00:00Z", "2019-02-28"),
            (12, 10, "2024-01-05", "2022-12-26"),
        ] {
            assert_eq!(Retention { months, days }.first_day(at(now)).to_string(), first, "{months} {days} {now}");
        }
        assert_eq!(Retention { months: u32::MAX, days: 0 }.first_day(Micros(0)), Day(i32::MIN));
        assert_eq!(Retention { months: 61, days: 1 }.to_string(), "5 years 1 month 1 day");
    }
}
