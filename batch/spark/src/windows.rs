//! Writes the stage `__placed`: each event once per window that covers it, with `__s` and `__e`, start and end of the window in
//! microseconds. Of SLIDE a row is a pane; of a view without windows there is neither.

use shared::time::MICROS_PER_DAY;
use shared::window::{Grid, Step, Window};

use crate::calendar::{CELLS, WINDOWS};

/// The names of the columns that hold a window's bounds.
pub const START: &str = "__s";
pub const END: &str = "__e";

/// Writes the stages that turn `__events` into `__placed`, as pairs of name and query. `keys` are the names of the dimensions.
pub fn stages(window: Window, keys: &[String]) -> Vec<(&'static str, String)> {
    let of_events = |columns: String| vec![("__placed", format!("SELECT *, {columns} FROM __events"))];
    match window {
        Window::All => vec![("__placed", "SELECT * FROM __events".to_owned())],
        Window::Tumble(Grid::Fixed { size, offset }) => of_events(bounds(&start("__t", size, offset), size)),
        Window::Slide { pane, .. } => of_events(bounds(&start("__t", pane, 0), pane)),
        Window::Tumble(Grid::Calendar(_)) => {
            vec![("__placed", in_cells("e.*, c.from_us AS __s, c.to_us AS __e"))]
        }
        Window::Hop { panes: Grid::Fixed { size: pane, offset }, slide, size } => {
            let (slide, size) = (slide.saturating_mul(pane), size.saturating_mul(pane));
            hop(slide, size, offset)
        }
        Window::Cumulate { step: Step::Fixed(step), outer } => {
            let outer = match outer {
                Grid::Fixed { size, offset } => {
                    let start = start("__t", size, offset);
                    format!("SELECT *, {start} AS __s, {start} + {size}L AS __to FROM __events")
                }
                Grid::Calendar(_) => in_cells("e.*, c.from_us AS __s, c.to_us AS __to"),
            };
            vec![("__outer", outer), ("__placed", cumulate(step))]
        }
        // Windows of a calendar that share panes.
        Window::Hop { .. } | Window::Cumulate { .. } => {
            vec![
                ("__celled", in_cells("e.*, c.first_window, c.last_window")),
                (
                    "__covered",
                    "SELECT *, explode(sequence(first_window, last_window)) AS __number FROM __celled".to_owned(),
                ),
                (
                    "__placed",
                    format!(
                        "SELECT c.*, w.start_us AS __s, w.end_us AS __e FROM __covered c JOIN {WINDOWS} w ON w.number = c.__number"
                    ),
                ),
            ]
        }
        Window::Session { gap } => sessions(gap, keys),
        // One row per event time, as the table of the view has them.
        Window::TableSession { gap } => of_events(bounds("__t", gap)),
    }
}

/// Writes the start of the cell of `size` that contains `time`.
fn start(time: &str, size: i64, offset: i64) -> String {
    match offset {
        0 => format!("{time} - pmod({time}, {size}L)"),
        offset => format!("{time} - pmod({time} - {offset}L, {size}L)"),
    }
}

fn bounds(start: &str, size: i64) -> String {
    format!("{start} AS {START}, {start} + {size}L AS {END}")
}

/// Joins events with the cells that contain them.
fn in_cells(columns: &str) -> String {
    let day = format!("(e.__t - pmod(e.__t, {MICROS_PER_DAY}L)) div {MICROS_PER_DAY}L");
    format!(
        "SELECT {columns} FROM __events e JOIN {CELLS} c ON c.day = {day} AND e.__t >= c.from_us AND e.__t < c.to_us"
    )
}

/// Writes windows of `size` that start every `slide`, both in microseconds: those that start at most `size` before the event.
fn hop(slide: i64, size: i64, offset: i64) -> Vec<(&'static str, String)> {
    let last = format!("SELECT *, {} AS __last FROM __events", start("__t", slide, offset));
    let earlier = format!("({size}L - 1L - (__t - __last)) div {slide}L");
    let placed = format!(
        "SELECT *, __start AS {START}, __start + {size}L AS {END} FROM __latest \
         LATERAL VIEW explode(sequence(__last - {slide}L * ({earlier}), __last, {slide}L)) AS __start"
    );
    // An event in a hole between two windows is in none.
    let latest = format!("SELECT * FROM ({last}) WHERE __t - __last < {size}L");
    vec![("__latest", latest), ("__placed", placed)]
}

/// Writes the windows from `__s` to the end of each step that is after the event; the last step may be shorter.
fn cumulate(step: i64) -> String {
    format!(
        "SELECT *, least(__s + __steps * {step}L, __to) AS {END} FROM __outer LATERAL VIEW explode(sequence(\
         (__t - __s) div {step}L + 1L, (__to - __s + {step}L - 1L) div {step}L)) AS __steps"
    )
}

/// Writes sessions: an event with `gap` or more since the one before it starts another.
fn sessions(gap: i64, keys: &[String]) -> Vec<(&'static str, String)> {
    let group = if keys.is_empty() { "1".to_owned() } else { keys.join(", ") };
    let ordered = format!("PARTITION BY {group} ORDER BY __t, __p, __o");
    vec![
        (
            "__gaps",
            format!(
                "SELECT *, CASE WHEN __t - lag(__t) OVER ({ordered}) < {gap}L THEN 0L ELSE 1L END AS __starts FROM __events"
            ),
        ),
        (
            "__numbered",
            format!(
                "SELECT *, sum(__starts) OVER ({ordered} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS __session \
                 FROM __gaps"
            ),
        ),
        (
            "__placed",
            format!(
                "SELECT *, min(__t) OVER (PARTITION BY {group}, __session) AS {START}, \
                 max(__t) OVER (PARTITION BY {group}, __session) + {gap}L AS {END} FROM __numbered"
            ),
        ),
    ]
}
