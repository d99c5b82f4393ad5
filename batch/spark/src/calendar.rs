//! Lists the cells of a calendar for the days of some events, as tables that a query joins.
//!
//! The boundaries are those of [`shared::calendar`], so a query depends neither on Spark's version of the time zone database
//! nor on its rules for hours that clocks skip or repeat.
//!
//! - `trueup_cells (day, from_us, to_us, first_window, last_window)`: the cells that overlap a UTC day, with the numbers of the
//!   windows that cover a cell. A cell is listed under each of its days, so an event finds it by its day.
//! - `trueup_windows (number, start_us, end_us)`: the windows, in the order of their numbers.

use std::collections::BTreeMap;
use std::fmt::Write;

use shared::calendar::Calendar;
use shared::time::{Day, Micros};
use shared::window::{Grid, PaneStart, Step, Window, WindowId};

/// The names of the tables.
pub const CELLS: &str = "trueup_cells";
pub const WINDOWS: &str = "trueup_windows";

/// The tables that the query of a view with a calendar needs.
#[derive(Debug, Clone, Copy)]
pub struct CalendarTables {
    window: Window,
}

/// What a cell of the tables is.
enum CellKind {
    /// A window by itself, or the outer cell of fixed steps.
    Whole(Calendar),
    /// A pane that several windows cover.
    Shared,
}

fn kind(window: Window) -> Option<CellKind> {
    match window {
        Window::Tumble(Grid::Calendar(calendar)) => Some(CellKind::Whole(calendar)),
        Window::Cumulate { step: Step::Fixed(_), outer: Grid::Calendar(calendar) } => Some(CellKind::Whole(calendar)),
        Window::Hop { panes: Grid::Calendar(_), .. } => Some(CellKind::Shared),
        Window::Cumulate { step: Step::Calendar(_), .. } => Some(CellKind::Shared),
        _ => None,
    }
}

impl CalendarTables {
    /// Returns the tables of a window; `None`: it needs none.
    pub fn of(window: Window) -> Option<CalendarTables> {
        kind(window).map(|_| CalendarTables { window })
    }

    /// Returns whether the windows of a cell are listed apart.
    pub fn has_windows(&self) -> bool {
        matches!(kind(self.window), Some(CellKind::Shared))
    }

    /// Returns the statements that declare the tables, with the cells of `days`.
    pub fn statements(&self, days: impl IntoIterator<Item = Day>) -> Vec<String> {
        let cells: Vec<(Day, PaneStart, i64)> = days.into_iter().flat_map(|day| self.cells(day)).collect();
        if !self.has_windows() {
            let rows = cells.iter().map(|(day, from, to)| [i64::from(day.0), from.0, *to, 0, 0]);
            return vec![cells_view(rows)];
        }
        let mut numbers: BTreeMap<WindowId, usize> = BTreeMap::new();
        for (_, pane, _) in &cells {
            self.window.for_each_window(*pane, |id| _ = numbers.insert(id, 0));
        }
        numbers.values_mut().enumerate().for_each(|(number, value)| *value = number);
        let number = |id: Option<WindowId>| id.and_then(|id| numbers.get(&id)).map_or(0, |number| *number as i64);
        // A cell between two windows is in none.
        let rows = cells.iter().filter_map(|(day, pane, to)| {
            let (mut first, mut last) = (None, None);
            self.window.for_each_window(*pane, |id| {
                first = first.or(Some(id));
                last = Some(id);
            });
            first.map(|_| [i64::from(day.0), pane.0, *to, number(first), number(last)])
        });
        let cells = cells_view(rows);
        let windows = numbers.iter().map(|(id, number)| {
            let (start, end) = self.window.bounds(*id);
            [*number as i64, start.0, end.unwrap_or(Micros(i64::MAX)).0]
        });
        let fields = "number: BIGINT, start_us: BIGINT, end_us: BIGINT";
        vec![cells, view(WINDOWS, ["number", "start_us", "end_us"], fields, windows)]
    }

    /// Returns the cells that overlap a UTC day, with their ends.
    fn cells(&self, day: Day) -> Vec<(Day, PaneStart, i64)> {
        let (mut at, end) = (day.start().0, Day(day.0 + 1).start().0);
        let mut cells = Vec::new();
        while at < end {
            let (from, to) = match kind(self.window) {
                Some(CellKind::Whole(calendar)) => {
                    let grid = Grid::Calendar(calendar);
                    (grid.start_of(at), grid.end_of(at))
                }
                _ => {
                    let pane = self.window.pane_of(Micros(at));
                    (pane.0, self.window.pane_end(pane).map_or(i64::MAX, |end| end.0))
                }
            };
            cells.push((day, PaneStart(from), to));
            if to <= at {
                break;
            }
            at = to;
        }
        cells
    }
}

fn cells_view(rows: impl Iterator<Item = [i64; 5]>) -> String {
    let names = ["day", "from_us", "to_us", "first_window", "last_window"];
    let fields = "day: BIGINT, from_us: BIGINT, to_us: BIGINT, first_window: BIGINT, last_window: BIGINT";
    view(CELLS, names, fields, rows)
}

/// Declares a table of numbers. They are written as JSON in one constant, which is parsed faster than a list of rows.
fn view<const N: usize>(name: &str, names: [&str; N], fields: &str, rows: impl Iterator<Item = [i64; N]>) -> String {
    let mut json = String::from("[");
    for (at, row) in rows.enumerate() {
        json.push_str(if at == 0 { "{" } else { ",{" });
        for (column, (name, value)) in names.iter().zip(row).enumerate() {
            let comma = if column == 0 { "" } else { "," };
            write!(json, "{comma}\"{name}\":{value}").expect("writing into memory does not fail");
        }
        json.push('}');
    }
    json.push(']');
    format!("CREATE OR REPLACE TEMPORARY VIEW {name} AS SELECT inline(from_json('{json}', 'ARRAY<STRUCT<{fields}>>'))")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::calendar::{CalendarUnit, Zone};

    fn berlin() -> Calendar {
        let zone: Zone = "Europe/Berlin".parse().expect("a zone");
        Calendar { unit: CalendarUnit::Day, count: 1, shift: 0, offset: 0, zone }
    }

    #[test]
    fn a_day_lists_the_cells_that_overlap_it_without_gaps() {
        let tables = CalendarTables::of(Window::Tumble(Grid::Calendar(berlin()))).expect("a calendar");
        assert!(!tables.has_windows());
        for day in [-1, 0, 10_000, 11_041] {
            let cells = tables.cells(Day(day));
            assert_eq!(cells.len(), 2);
            assert!(cells[0].1.0 <= Day(day).start().0 && cells[1].2 >= Day(day + 1).start().0);
            assert_eq!(cells[0].2, cells[1].1.0);
        }
    }

    #[test]
    fn windows_of_a_cell_have_neighbouring_numbers() {
        let window = Window::Hop { panes: Grid::Calendar(berlin()), slide: 1, size: 3 };
        let tables = CalendarTables::of(window).expect("a calendar");
        let [cells, windows] = tables.statements([Day(100), Day(101)]).try_into().expect("two tables");
        assert!(cells.contains("\"first_window\":0,\"last_window\":2"), "{cells}");
        assert_eq!(windows.matches("start_us\":").count(), 5, "{windows}");
    }

    #[test]
    fn fixed_windows_need_no_tables() {
        assert!(CalendarTables::of(Window::Tumble(Grid::Fixed { size: 1, offset: 0 })).is_none());
    }
}
