//! Describes windows in words, for the description of a view and for the pages.

use shared::calendar::{Calendar, CalendarUnit, Zone};
use shared::time::{MICROS_PER_DAY, MICROS_PER_SECOND};
use shared::window::{Grid, Step, Window};

/// Units of a fixed length, largest first, in microseconds.
const UNITS: [(&str, i64); 7] = [
    ("week", 7 * MICROS_PER_DAY),
    ("day", MICROS_PER_DAY),
    ("hour", 3600 * MICROS_PER_SECOND),
    ("minute", 60 * MICROS_PER_SECOND),
    ("second", MICROS_PER_SECOND),
    ("millisecond", MICROS_PER_SECOND / 1000),
    ("microsecond", 1),
];
const DAYS: [(&str, i64); 2] = [("week", 7), ("day", 1)];
const MONTHS: [(&str, i64); 3] = [("year", 12), ("quarter", 3), ("month", 1)];

/// Returns the dialect's name for windows of this kind.
pub fn kind(window: Window) -> &'static str {
    match window {
        Window::All => "ALL",
        Window::Tumble(_) => "TUMBLE",
        Window::Hop { .. } => "HOP",
        Window::Cumulate { .. } => "CUMULATE",
        Window::Slide { .. } => "SLIDE",
        Window::Session { .. } | Window::TableSession { .. } => "SESSION",
    }
}

/// Describes a window with its dialect name: `HOP of 1 day every hour in UTC`.
pub fn in_words(window: Window) -> String {
    let zone = zone(window).map_or_else(String::new, |zone| format!(" in {zone}"));
    match window {
        Window::All => "one window over all time".to_owned(),
        Window::Tumble(grid) => format!("TUMBLE of {}{zone}", cells(grid, 1)),
        Window::Hop { panes, slide, size } => {
            format!("HOP of {} every {}{zone}", cells(panes, size), without_one(&cells(panes, slide)))
        }
        Window::Cumulate { step, outer } => format!("CUMULATE up to {} by {}{zone}", cells(outer, 1), steps(step)),
        Window::Slide { size, pane } => format!("SLIDE over the last {}{}", span(size), resolution(pane)),
        Window::Session { gap } | Window::TableSession { gap } => {
            format!("SESSION with gaps of less than {}", span(gap))
        }
    }
}

/// Describes the windows of a view within a sentence: `in windows of 1 hour`.
pub fn in_a_sentence(window: Window) -> String {
    match window {
        Window::All => "over all time".to_owned(),
        Window::Tumble(grid) => format!("in windows of {}", cells(grid, 1)),
        Window::Hop { panes, slide, size } => {
            format!("in windows of {} every {}", cells(panes, size), without_one(&cells(panes, slide)))
        }
        Window::Cumulate { step, outer } => format!("in windows that grow to {} by {}", cells(outer, 1), steps(step)),
        Window::Slide { size, .. } => format!("over the last {}", span(size)),
        Window::Session { gap } | Window::TableSession { gap } => {
            format!("in sessions with gaps of less than {}", span(gap))
        }
    }
}

/// Returns the time zone that windows follow; `None` if they do not follow a clock.
pub fn zone(window: Window) -> Option<Zone> {
    match window {
        Window::Tumble(grid) | Window::Hop { panes: grid, .. } | Window::Cumulate { outer: grid, .. } => {
            Some(match grid {
                Grid::Fixed { .. } => Zone::UTC,
                Grid::Calendar(calendar) => calendar.zone,
            })
        }
        Window::All | Window::Slide { .. } | Window::Session { .. } | Window::TableSession { .. } => None,
    }
}

/// Returns the distance between the starts of windows (of CUMULATE, their ends), in microseconds; approximate for calendars.
/// `None` if they are not on a grid.
pub fn spacing(window: Window) -> Option<i64> {
    match window {
        Window::Tumble(grid) => Some(about(grid)),
        Window::Hop { panes, slide, .. } => Some(about(panes).saturating_mul(slide)),
        Window::Cumulate { step: Step::Fixed(step), .. } => Some(step),
        Window::Cumulate { step: Step::Calendar(calendar), .. } => Some(about(Grid::Calendar(calendar))),
        Window::All | Window::Slide { .. } | Window::Session { .. } | Window::TableSession { .. } => None,
    }
}

fn about(grid: Grid) -> i64 {
    match grid {
        Grid::Fixed { size, .. } => size,
        Grid::Calendar(Calendar { unit: CalendarUnit::Day, count, .. }) => i64::from(count) * MICROS_PER_DAY,
        // The Gregorian calendar repeats after 400 years of 146,097 days.
        Grid::Calendar(Calendar { unit: CalendarUnit::Month, count, .. }) => {
            i64::from(count) * (146_097 * MICROS_PER_DAY / 4800)
        }
    }
}

fn cells(grid: Grid, count: i64) -> String {
    match grid {
        Grid::Fixed { size, .. } => span(size.saturating_mul(count)),
        Grid::Calendar(calendar) => {
            let units: &[_] = if calendar.unit == CalendarUnit::Day { &DAYS } else { &MONTHS };
            counted(units, i64::from(calendar.count).saturating_mul(count))
        }
    }
}

fn steps(step: Step) -> String {
    match step {
        Step::Fixed(step) => span(step),
        Step::Calendar(calendar) => cells(Grid::Calendar(calendar), 1),
    }
}

fn resolution(pane: i64) -> String {
    if pane == 1 { String::new() } else { format!(", as of every {}", without_one(&span(pane))) }
}

fn without_one(length: &str) -> &str {
    length.strip_prefix("1 ").unwrap_or(length)
}

/// Formats a fixed length: `1 hour`, `15 minutes`.
pub fn span(micros: i64) -> String {
    counted(&UNITS, micros)
}

fn counted(units: &[(&str, i64)], length: i64) -> String {
    let (name, unit) = units.iter().find(|(_, unit)| length % unit == 0).expect("the last unit fits all");
    let count = length / unit;
    if count == 1 { format!("1 {name}") } else { format!("{count} {name}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * MICROS_PER_SECOND;

    #[test]
    fn every_kind_of_window_has_a_text() {
        let hours = Grid::Fixed { size: HOUR, offset: 0 };
        let zone: Zone = "Europe/Vienna".parse().expect("a zone");
        let cells = |unit, count| Calendar { unit, count, shift: 0, offset: 0, zone };
        let (days, quarters) = (cells(CalendarUnit::Day, 1), cells(CalendarUnit::Month, 3));
        for (window, words, sentence) in [
            (Window::All, "one window over all time", "over all time"),
            (Window::Tumble(hours), "TUMBLE of 1 hour in UTC", "in windows of 1 hour"),
            (
                Window::Tumble(Grid::Calendar(quarters)),
                "TUMBLE of 1 quarter in Europe/Vienna",
                "in windows of 1 quarter",
            ),
            (
                Window::Hop { panes: hours, slide: 1, size: 36 },
                "HOP of 36 hours every hour in UTC",
                "in windows of 36 hours every hour",
            ),
            (
                Window::Hop { panes: Grid::Calendar(days), slide: 2, size: 7 },
                "HOP of 1 week every 2 days in Europe/Vienna",
                "in windows of 1 week every 2 days",
            ),
            (
                Window::Cumulate { step: Step::Fixed(HOUR), outer: Grid::Calendar(days) },
                "CUMULATE up to 1 day by 1 hour in Europe/Vienna",
                "in windows that grow to 1 day by 1 hour",
            ),
            (Window::Slide { size: 7 * 24 * HOUR, pane: 1 }, "SLIDE over the last 1 week", "over the last 1 week"),
            (
                Window::Slide { size: 2 * HOUR, pane: HOUR / 60 },
                "SLIDE over the last 2 hours, as of every minute",
                "over the last 2 hours",
            ),
            (
                Window::Session { gap: HOUR / 2 },
                "SESSION with gaps of less than 30 minutes",
                "in sessions with gaps of less than 30 minutes",
            ),
        ] {
            assert_eq!((in_words(window).as_str(), in_a_sentence(window).as_str()), (words, sentence));
        }
    }

    #[test]
    fn lengths_are_written_in_the_largest_unit_that_fits() {
        assert_eq!(span(HOUR), "1 hour");
        assert_eq!(span(HOUR / 4), "15 minutes");
        assert_eq!(span(14 * MICROS_PER_DAY), "2 weeks");
        assert_eq!((span(1), span(1500)), ("1 microsecond".into(), "1500 microseconds".into()));
    }

    #[test]
    fn the_starts_of_calendar_windows_are_about_as_far_apart_as_they_are_long() {
        let calendar = |unit, count| Grid::Calendar(Calendar { unit, count, shift: 0, offset: 0, zone: Zone::UTC });
        assert_eq!(spacing(Window::Tumble(calendar(CalendarUnit::Day, 7))), Some(7 * MICROS_PER_DAY));
        let year = spacing(Window::Tumble(calendar(CalendarUnit::Month, 12))).expect("a spacing");
        assert!((365 * MICROS_PER_DAY..366 * MICROS_PER_DAY).contains(&year));
        let hop = Window::Hop { panes: Grid::Fixed { size: HOUR, offset: 0 }, slide: 6, size: 24 };
        assert_eq!((spacing(hop), spacing(Window::Session { gap: 1 })), (Some(6 * HOUR), None));
    }
}
