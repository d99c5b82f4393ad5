//! Computes the windows of an event time, and writes them in SQL.

use chrono_tz::Tz;

use super::calendar::{Calendar, Unit};
use super::events::{DAY, HOUR, MINUTE, SECOND};

/// The length of a window or a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Microseconds, in a unit below a day: the same everywhere, aligned to 1970 in UTC.
    Fixed(i64),
    Days(i64),
    Weeks(i64),
    Months(i64),
    /// Three months each.
    Quarters(i64),
    /// Twelve months each.
    Years(i64),
}

impl Length {
    pub fn sql(self) -> String {
        let (n, unit) = match self {
            Length::Fixed(us) if us % HOUR == 0 => (us / HOUR, "HOUR"),
            Length::Fixed(us) if us % MINUTE == 0 => (us / MINUTE, "MINUTE"),
            Length::Fixed(us) if us % SECOND == 0 => (us / SECOND, "SECOND"),
            Length::Fixed(us) if us % 1000 == 0 => (us / 1000, "MILLISECOND"),
            Length::Fixed(us) => (us, "MICROSECOND"),
            Length::Days(n) => (n, "DAY"),
            Length::Weeks(n) => (n, "WEEK"),
            Length::Months(n) => (n, "MONTH"),
            Length::Quarters(n) => (n, "QUARTER"),
            Length::Years(n) => (n, "YEAR"),
        };
        format!("INTERVAL '{n}' {unit}")
    }

    /// In the smallest unit of its family: microseconds, days or months.
    fn amount(self) -> i64 {
        match self {
            Length::Fixed(n) | Length::Days(n) | Length::Months(n) => n,
            Length::Weeks(n) => 7 * n,
            Length::Quarters(n) => 3 * n,
            Length::Years(n) => 12 * n,
        }
    }
}

/// The windows of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// One over all time.
    All,
    Tumble {
        size: Length,
        offset: i64,
    },
    Hop {
        slide: Length,
        size: Length,
        offset: i64,
    },
    Cumulate {
        step: Length,
        max: Length,
        offset: i64,
    },
    /// Microseconds.
    Session {
        gap: i64,
    },
    /// Microseconds.
    Slide {
        size: i64,
    },
}

/// The grid of window starts: every `period`, fixed or of the calendar.
#[derive(Debug, Clone, Copy)]
enum Grid {
    Fixed { period: i64, offset: i64 },
    Calendar(Calendar),
}

impl Grid {
    fn of(zone: Tz, period: Length, offset: i64) -> Grid {
        let unit = match period {
            Length::Fixed(period) => return Grid::Fixed { period, offset },
            Length::Days(n) => Unit::Days(n),
            Length::Weeks(n) => Unit::Weeks(n),
            _ => Unit::Months(period.amount()),
        };
        Grid::Calendar(Calendar { zone, unit, offset })
    }

    fn index(self, at: i64) -> i64 {
        match self {
            Grid::Fixed { period, offset } => (at - offset).div_euclid(period),
            Grid::Calendar(calendar) => calendar.index(at),
        }
    }

    fn start(self, index: i64) -> i64 {
        match self {
            Grid::Fixed { period, offset } => index * period + offset,
            Grid::Calendar(calendar) => calendar.start(index),
        }
    }

    /// `length` after the start of period `index`, counted on the wall clock if it is a calendar length.
    fn after(self, index: i64, length: Length) -> i64 {
        match self {
            Grid::Fixed { .. } => self.start(index) + length.amount(),
            Grid::Calendar(Calendar { zone, unit, offset }) => {
                let (single, from) = match unit {
                    Unit::Days(n) => (Unit::Days(1), index * n),
                    // Days counted from 1970-01-05.
                    Unit::Weeks(n) => (Unit::Days(1), index * n * 7 + 4),
                    Unit::Months(n) => (Unit::Months(1), index * n),
                };
                Calendar { zone, unit: single, offset }.start(from + length.amount())
            }
        }
    }
}

impl Window {
    /// The window in GROUP BY; empty for none.
    pub fn sql(self) -> String {
        let shift = |us: i64| if us == 0 { String::new() } else { format!(", {}", Length::Fixed(us).sql()) };
        match self {
            Window::All => String::new(),
            Window::Tumble { size, offset } => format!("TUMBLE(at, {}{})", size.sql(), shift(offset)),
            Window::Hop { slide, size, offset } => {
                format!("HOP(at, {}, {}{})", slide.sql(), size.sql(), shift(offset))
            }
            Window::Cumulate { step, max, offset } => {
                format!("CUMULATE(at, {}, {}{})", step.sql(), max.sql(), shift(offset))
            }
            Window::Session { gap } => format!("SESSION(at, {})", Length::Fixed(gap).sql()),
            Window::Slide { size } => format!("SLIDE(at, {})", Length::Fixed(size).sql()),
        }
    }

    /// The windows `(start, end)` that contain an instant. Sessions and trailing windows depend on more than that.
    pub fn containing(self, zone: Tz, at: i64) -> Vec<(i64, i64)> {
        let contains = |(start, end): &(i64, i64)| *start <= at && at < *end;
        match self {
            Window::All => vec![(i64::MIN, i64::MAX)],
            Window::Tumble { size, offset } => {
                let grid = Grid::of(zone, size, offset);
                let index = grid.index(at);
                vec![(grid.start(index), grid.start(index + 1))]
            }
            Window::Hop { slide, size, offset } => {
                let grid = Grid::of(zone, slide, offset);
                let last = grid.index(at);
                // Three more slides than fit in the size, because days and months differ in length.
                let first = last - roughly(size) / roughly(slide) - 3;
                // If windows start at one instant because a date was skipped, only the last one exists.
                let begins = |k: &i64| grid.start(*k) < grid.start(*k + 1);
                let windows = (first..=last).filter(begins).map(|k| (grid.start(k), grid.after(k, size)));
                windows.filter(contains).collect()
            }
            // Steps of hours in a calendar day: as many as the day has; the last one may be shorter.
            Window::Cumulate { step: Length::Fixed(step), max, offset } if !matches!(max, Length::Fixed(_)) => {
                let grid = Grid::of(zone, max, offset);
                let index = grid.index(at);
                let (start, end) = (grid.start(index), grid.start(index + 1));
                let ends = (1..).map(|i| start + i * step).take_while(|at| at - step < end).map(|at| at.min(end));
                ends.map(|end| (start, end)).filter(contains).collect()
            }
            Window::Cumulate { step, max, offset } => {
                let grid = Grid::of(zone, max, offset);
                let index = grid.index(at);
                let steps = max.amount() / step.amount();
                let windows = (1..=steps).map(|i| (grid.start(index), grid.after(index, times(step, i))));
                // A step over a skipped date adds no window.
                let mut windows: Vec<(i64, i64)> = windows.filter(contains).collect();
                windows.dedup();
                windows
            }
            Window::Session { .. } | Window::Slide { .. } => unreachable!("not known from an instant alone"),
        }
    }
}

fn times(length: Length, n: i64) -> Length {
    match length {
        Length::Fixed(us) => Length::Fixed(us * n),
        Length::Days(_) | Length::Weeks(_) => Length::Days(length.amount() * n),
        _ => Length::Months(length.amount() * n),
    }
}

/// Approximate length in microseconds; a month counts as 30 days.
fn roughly(length: Length) -> i64 {
    match length {
        Length::Fixed(us) => us,
        Length::Days(_) | Length::Weeks(_) => length.amount() * DAY,
        _ => length.amount() * 30 * DAY,
    }
}
