//! Writes windows back as the calls that GROUP BY takes, for plans and messages.

use super::print::interval;
use crate::calendar::{Calendar, CalendarUnit, Zone};
use crate::time::{MICROS_PER_DAY, MICROS_PER_SECOND};
use crate::window::{Grid, Step, Window};

const WEEK: i64 = 7 * MICROS_PER_DAY;
/// Where weeks begin, seen from the epoch.
const FIRST_MONDAY: i64 = 4 * MICROS_PER_DAY;

/// The call, with `event_time` as its first argument. Read again in `zone`, it gives the same window; all time has none.
pub(crate) fn window_text(window: &Window, event_time: &str, zone: Zone) -> String {
    let grid = |grid: &Grid| grid_text(grid, 1, zone);
    let call = |name: &str, arguments: String| format!("{name}({event_time}, {arguments})");
    match window {
        Window::All => "one over all time".to_owned(),
        Window::Tumble(cells) => {
            let (size, offset) = grid(cells);
            call("TUMBLE", format!("{size}{offset}"))
        }
        Window::Hop { panes, slide, size } => {
            let (slide_text, offset) = grid_text(panes, *slide, zone);
            // Only the slide says whether windows begin on Mondays.
            let size = length_text(panes, *size, zone);
            call("HOP", format!("{slide_text}, {size}{offset}"))
        }
        Window::Cumulate { step, outer } => {
            let (longest, offset) = grid(outer);
            let step = match step {
                Step::Fixed(micros) => fixed_text(*micros, zone),
                Step::Calendar(calendar) => length_text(&Grid::Calendar(*calendar), 1, zone),
            };
            call("CUMULATE", format!("{step}, {longest}{offset}"))
        }
        Window::Session { gap } | Window::TableSession { gap } => call("SESSION", interval(*gap)),
        Window::Slide { size, pane: 1 } => call("SLIDE", interval(*size)),
        Window::Slide { size, pane } => call("SLIDE", format!("{}, {}", interval(*size), interval(*pane))),
    }
}

/// An INTERVAL that has this length in every zone: days only where they have 24 hours.
pub(super) fn fixed_text(micros: i64, zone: Zone) -> String {
    match zone != Zone::UTC && micros % MICROS_PER_DAY == 0 {
        true => format!("INTERVAL '{}' HOUR", micros / (3600 * MICROS_PER_SECOND)),
        false => interval(micros),
    }
}

pub(super) fn days_text(days: i64) -> String {
    format!("INTERVAL '{days}' DAY")
}

fn months_text(months: i64) -> String {
    match (months % 12, months % 3) {
        (0, _) => format!("INTERVAL '{}' YEAR", months / 12),
        (_, 0) => format!("INTERVAL '{}' QUARTER", months / 3),
        _ => format!("INTERVAL '{months}' MONTH"),
    }
}

/// `count` cells, not in weeks.
pub(crate) fn length_text(grid: &Grid, count: i64, zone: Zone) -> String {
    match grid {
        Grid::Fixed { size, .. } => fixed_text(size.saturating_mul(count), zone),
        Grid::Calendar(Calendar { unit: CalendarUnit::Day, count: days, .. }) => days_text(i64::from(*days) * count),
        Grid::Calendar(Calendar { unit: CalendarUnit::Month, count: months, .. }) => {
            months_text(i64::from(*months) * count)
        }
    }
}

/// `count` cells, in weeks if they begin on Mondays, and the argument for their offset with its comma.
fn grid_text(grid: &Grid, count: i64, zone: Zone) -> (String, String) {
    let argument = |offset: String| format!(", {offset}");
    let (length, offset) = match grid {
        Grid::Fixed { size, offset } => (size.saturating_mul(count), *offset),
        Grid::Calendar(Calendar { unit: CalendarUnit::Day, count: days, shift, offset, .. }) => (
            i64::from(*days).saturating_mul(count).saturating_mul(MICROS_PER_DAY),
            i64::from(*shift) * MICROS_PER_DAY + offset,
        ),
        Grid::Calendar(Calendar { shift, offset, .. }) => {
            let length = length_text(grid, count, zone);
            let offset = match (*shift, *offset) {
                (0, 0) => String::new(),
                (months, 0) => argument(months_text(i64::from(months))),
                (0, micros) => argument(interval(micros)),
                (months, micros) => argument(format!("INTERVAL '{months} months {}'", interval_words(micros))),
            };
            return (length, offset);
        }
    };
    let in_days = matches!(grid, Grid::Calendar(_));
    if length % WEEK == 0 && (in_days || zone == Zone::UTC) && offset >= FIRST_MONDAY {
        let rest = offset - FIRST_MONDAY;
        let rest = if rest == 0 { String::new() } else { argument(interval(rest)) };
        return (format!("INTERVAL '{}' WEEK", length / WEEK), rest);
    }
    let offset = match (offset, in_days) {
        (0, _) => String::new(),
        (offset, true) => argument(interval(offset)),
        (offset, false) => argument(fixed_text(offset, zone)),
    };
    (length_text(grid, count, zone), offset)
}

/// `6 HOUR`, as it stands inside the quotes of an INTERVAL.
fn interval_words(micros: i64) -> String {
    interval(micros).split(['\'', ' ']).filter(|word| !word.is_empty()).skip(1).collect::<Vec<_>>().join(" ")
}
