//! Describes how a view cuts event time into windows.

use crate::calendar::{Calendar, CalendarUnit, Zone};
use crate::sql::{interval, length_text, window_text};
use crate::time::MICROS_PER_DAY;
use crate::window::{Grid, Step, Window};

/// Days of the longest month.
const MONTH_DAYS_MAX: i64 = 31;

/// Label and text of each line about the window.
pub(super) fn lines(window: &Window, zone: Zone, event_time: &str) -> Vec<(&'static str, String)> {
    let mut lines = vec![("window", window_text(window, event_time, zone))];
    if *window == Window::All {
        return lines;
    }
    let on_calendar = calendar(window).is_some();
    lines.push(match (zone == Zone::UTC, on_calendar) {
        (true, _) => ("zone", zone.to_string()),
        (false, true) => ("zone", format!("{zone}: its days have 23 to 25 hours where clocks change")),
        (false, false) => ("zone", format!("{zone} for coarser grains; this window has fixed lengths, counted in UTC")),
    });
    match window {
        Window::All => {}
        Window::Tumble(_) => lines.push(("panes", "the windows themselves".to_owned())),
        Window::Hop { panes, size, .. } => {
            lines.push(("panes", format!("{} each; a window is the sum of {size}", length_text(panes, 1, zone))));
        }
        Window::Cumulate { .. } => {
            lines.push(("panes", "the steps; a window is the sum of its steps so far".to_owned()))
        }
        Window::Slide { pane: 1, .. } => lines.push(("panes", "one a microsecond; as of any instant".to_owned())),
        Window::Slide { pane, .. } => {
            lines.push(("panes", format!("{} each; as of any multiple of it", interval(*pane))));
        }
        Window::Session { .. } => lines.push(("panes", "none: sessions follow from the events of a key".to_owned())),
        Window::TableSession { .. } => lines.push((
            "panes",
            "one per event time of a key; a query joins those that have rows, so a row that is taken back can split a session"
                .to_owned(),
        )),
    }
    lines.push(("an event", windows_of_event(window)));
    lines
}

/// The gaps between windows, if there are any.
pub(super) fn holes(window: &Window) -> Option<&'static str> {
    match window {
        Window::Hop { slide, size, .. } if slide > size => {
            Some("the slide is longer than the size: events between two windows are in none")
        }
        _ => None,
    }
}

fn windows_of_event(window: &Window) -> String {
    match window {
        Window::All | Window::Tumble(_) => "falls into 1 window".to_owned(),
        Window::Hop { slide, size, .. } => match (size / slide, size % slide) {
            (1, 0) => "falls into 1 window".to_owned(),
            (0, _) => "falls into 1 window or none".to_owned(),
            (windows, 0) => format!("falls into {windows} windows"),
            (windows, _) => format!("falls into {windows} or {} windows", windows + 1),
        },
        Window::Cumulate { step, outer } => format!("falls into 1 to {} windows", steps(step, outer)),
        Window::Slide { size, .. } => format!("is in every window that ends up to {} after it", interval(*size)),
        Window::Session { gap } | Window::TableSession { gap } => {
            let gap = interval(*gap);
            format!("joins the sessions of its key that are less than {gap} away into one, or begins one")
        }
    }
}

/// Most steps of an outer cell, where clocks do not change.
fn steps(step: &Step, outer: &Grid) -> i64 {
    let (days, months) = match outer {
        Grid::Fixed { size, .. } => {
            return match step {
                Step::Fixed(step) => size / step,
                Step::Calendar(_) => 1,
            };
        }
        Grid::Calendar(Calendar { unit: CalendarUnit::Day, count, .. }) => (i64::from(*count), 0),
        Grid::Calendar(Calendar { count, .. }) => (i64::from(*count) * MONTH_DAYS_MAX, i64::from(*count)),
    };
    match step {
        Step::Fixed(step) => days.saturating_mul(MICROS_PER_DAY) / step,
        Step::Calendar(Calendar { unit: CalendarUnit::Day, count, .. }) => days / i64::from(*count),
        Step::Calendar(Calendar { count, .. }) => months / i64::from(*count),
    }
}

fn calendar(window: &Window) -> Option<&Calendar> {
    match window {
        Window::Tumble(Grid::Calendar(calendar))
        | Window::Hop { panes: Grid::Calendar(calendar), .. }
        | Window::Cumulate { outer: Grid::Calendar(calendar), .. } => Some(calendar),
        _ => None,
    }
}
