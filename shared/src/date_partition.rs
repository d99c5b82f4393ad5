//! Names the date partition of a file: the one value of its table's partition column.
//!
//! In the log of a table, only days have a value; all other partitions are null there.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Day;

/// First and last day with a four-digit year, in days since 1970: the range that every reader of dates supports.
const READABLE_DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;

/// The date that all rows of a file belong to. In order: files without a day come before all days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DatePartition {
    /// The window of a view over all time.
    AllTime,
    /// Days whose year does not have four digits, which not every reader accepts.
    Undated,
    Day(Day),
}

impl DatePartition {
    /// Returns the partition of the rows of `day`.
    pub fn of_day(day: Day) -> DatePartition {
        if READABLE_DAYS.contains(&day.0) { DatePartition::Day(day) } else { DatePartition::Undated }
    }

    /// Returns the first and the last day that every reader of dates supports.
    pub fn readable_days() -> (Day, Day) {
        (Day(*READABLE_DAYS.start()), Day(*READABLE_DAYS.end()))
    }

    /// Returns the day, if it is one.
    pub fn day(self) -> Option<Day> {
        match self {
            DatePartition::Day(day) => Some(day),
            DatePartition::AllTime | DatePartition::Undated => None,
        }
    }
}

impl fmt::Display for DatePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatePartition::AllTime => f.write_str("all time"),
            DatePartition::Undated => f.write_str("no date"),
            DatePartition::Day(day) => day.fmt(f),
        }
    }
}

impl Serialize for DatePartition {
    /// As a table has it: a day, or null.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.day().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DatePartition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<Day>::deserialize(deserializer)?.map_or(DatePartition::Undated, DatePartition::Day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_a_reader_may_refuse_have_no_date() {
        for (text, has_date) in [("0001-01-01", true), ("2001-01-01", true), ("9999-12-31", true)] {
            let day = Day::parse(text).expect("a day");
            assert_eq!(DatePartition::of_day(day).day().is_some(), has_date, "{text}");
            assert_eq!(DatePartition::of_day(day).to_string(), text);
        }
        let outside = [Day(*READABLE_DAYS.start() - 1), Day(*READABLE_DAYS.end() + 1)];
        assert_eq!(outside.map(DatePartition::of_day), [DatePartition::Undated; 2]);
        assert!(DatePartition::AllTime < DatePartition::Undated);
        assert!(DatePartition::Undated < DatePartition::Day(Day(i32::MIN)));
    }

    #[test]
    fn notes_of_earlier_programs_are_read() {
        let read = |text: &str| serde_json::from_str::<DatePartition>(text).expect("readable");
        assert_eq!((read("11323"), read("null")), (DatePartition::Day(Day(11_323)), DatePartition::Undated));
        assert_eq!(serde_json::to_string(&DatePartition::Day(Day(7))).expect("plain data"), "7");
        assert_eq!(serde_json::to_string(&DatePartition::AllTime).expect("plain data"), "null");
    }
}
