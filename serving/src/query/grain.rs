//! Parses `grain`: the coarser windows in which a view can be shown, which its own windows fill exactly.
//!
//! Seconds, minutes and hours are fixed lengths that count from the epoch, shifted like the view's windows. Days and weeks
//! follow the view's time zone, weeks from Monday; in UTC they are fixed lengths too. Months, quarters and years follow
//! the calendar. Only windows that do not overlap (TUMBLE) merge into coarser ones.

use shared::calendar::{Calendar, CalendarUnit, Zone};
use shared::partial::merge::Grain;
use shared::time::{MICROS_PER_DAY, MICROS_PER_SECOND, Micros};
use shared::view::View;
use shared::window::{Grid, Window};

use super::{QueryError, invalid};
use crate::window_text::kind;

/// Units of `grain`, largest first.
const UNITS: [(&str, Unit); 8] = [
    ("y", Unit::Months(12)),
    ("q", Unit::Months(3)),
    ("mo", Unit::Months(1)),
    ("w", Unit::Days(7)),
    ("d", Unit::Days(1)),
    ("h", Unit::Fixed(3600 * MICROS_PER_SECOND)),
    ("m", Unit::Fixed(60 * MICROS_PER_SECOND)),
    ("s", Unit::Fixed(MICROS_PER_SECOND)),
];
/// Grains suggested when a grain is refused.
const SUGGESTED: [&str; 11] = ["1m", "5m", "15m", "30m", "1h", "6h", "1d", "1w", "1mo", "1q", "1y"];
/// 1970-01-05, the first Monday, in days.
const FIRST_MONDAY: i32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Microseconds.
    Fixed(i64),
    Days(i32),
    Months(i32),
}

/// A length as the client wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Length {
    count: i64,
    unit: Unit,
}

/// Parses `all` or a length such as `1h`, `30m`, `1d`, `1w`, `1mo`, `1q`, `1y` that whole windows of the view fill.
pub fn parse(view: &View, text: &str) -> Result<Grain, QueryError> {
    let grid = match view.window {
        Window::Tumble(grid) => grid,
        Window::All if text == "all" => return Ok(Grain::Window),
        Window::All => {
            return Err(invalid("grain", "the view has one window over all time; leave grain out or use all"));
        }
        other => return Err(invalid("grain", refusal(other))),
    };
    if text == "all" {
        return Ok(Grain::All);
    }
    let valid = || format!("valid grains: {}", examples(grid, view.zone));
    let Some(length) = length(text) else {
        let what = "is not a length such as 30m, 1h, 1d, 1w, 1mo, 1q, 1y, or all";
        return Err(invalid("grain", format!("\"{text}\" {what}; {}", valid())));
    };
    match coarser(grid, view.zone, length) {
        Ok(coarse) if coarse == grid => Ok(Grain::Window),
        Ok(coarse) => Ok(Grain::Every(coarse)),
        Err(problem) => Err(invalid("grain", format!("{text} {problem}; {}", valid()))),
    }
}

/// The reason why windows of this kind have no coarser ones, and the alternative.
fn refusal(window: Window) -> String {
    let (why, hint) = match window {
        Window::Session { .. } | Window::TableSession { .. } => (
            "sessions start and end with their events, not with a clock",
            "group_by merges sessions over fewer dimensions",
        ),
        Window::Slide { .. } => ("the view has one window, which ends at an instant", "choose the instant with as_of"),
        _ => ("they overlap, so events would be counted more than once", "use a view with TUMBLE"),
    };
    format!("windows of {} cannot be merged into longer ones: {why}; {hint}", kind(window))
}

/// Returns the grid of `length` that cells of `grid` fill, or the reason why there is none, as a predicate of the length.
fn coarser(grid: Grid, zone: Zone, length: Length) -> Result<Grid, String> {
    match grid {
        Grid::Fixed { size, offset } => coarser_fixed(size, offset, zone, length),
        Grid::Calendar(own) => coarser_calendar(own, length).map(Grid::Calendar),
    }
}

fn coarser_fixed(size: i64, offset: i64, zone: Zone, length: Length) -> Result<Grid, String> {
    let micros = match length.unit {
        Unit::Fixed(unit) => length.count.checked_mul(unit),
        Unit::Days(days) if zone == Zone::UTC => length.count.checked_mul(i64::from(days) * MICROS_PER_DAY),
        _ if MICROS_PER_DAY % size != 0 => {
            let days =
                if zone == Zone::UTC { "cannot be filled".to_owned() } else { format!("of {zone} cannot be filled") };
            return Err(format!("{days} with the view's windows ({}), which do not divide a day", written(size)));
        }
        // A window divides the day, so what shifts it is less than one.
        _ => return calendar(length, zone, offset).map(Grid::Calendar),
    };
    let Some(micros) = micros.filter(|micros| micros % size == 0) else {
        return Err(format!("is not a multiple of the view's window ({})", written(size)));
    };
    let monday = i64::from(FIRST_MONDAY) * MICROS_PER_DAY;
    let is_weeks = length.unit == Unit::Days(7) && monday % size == 0;
    let shift = if is_weeks && micros != size { monday.rem_euclid(micros) } else { 0 };
    Ok(Grid::Fixed { size: micros, offset: offset + shift })
}

/// Days, weeks, months, quarters or years of `zone`, beginning `offset` microseconds after midnight.
fn calendar(length: Length, zone: Zone, offset: i64) -> Result<Calendar, String> {
    let (unit, per_unit) = match length.unit {
        Unit::Days(days) => (CalendarUnit::Day, days),
        Unit::Months(months) => (CalendarUnit::Month, months),
        Unit::Fixed(_) => return Err("is not made of days".to_owned()),
    };
    let count = i32::try_from(length.count).ok().and_then(|count| count.checked_mul(per_unit));
    let count = count.ok_or_else(|| "is too long".to_owned())?;
    let shift = if length.unit == Unit::Days(7) { FIRST_MONDAY } else { 0 };
    Ok(Calendar { unit, count, shift, offset, zone })
}

fn coarser_calendar(own: Calendar, length: Length) -> Result<Calendar, String> {
    let own_text = calendar_written(own);
    if let Unit::Fixed(_) = length.unit {
        return Err(format!(
            "is a fixed length, and the view's windows ({own_text}) follow the calendar of {}",
            own.zone
        ));
    }
    let mut coarse = calendar(length, own.zone, own.offset)?;
    let fits = match (own.unit, coarse.unit) {
        (CalendarUnit::Day, CalendarUnit::Month) => own.count == 1,
        (CalendarUnit::Month, CalendarUnit::Day) => false,
        _ => coarse.count % own.count == 0,
    };
    if !fits {
        return Err(format!("cannot be filled with the view's windows ({own_text})"));
    }
    // Where the view's windows begin elsewhere, so do those of the grain: weeks from Monday if they can.
    if own.unit == coarse.unit && (coarse.shift - own.shift).rem_euclid(own.count) != 0 {
        coarse.shift = own.shift;
    }
    Ok(coarse)
}

/// The first start of a window of `grain` that is not before `bound`.
pub fn next_boundary(window: Window, grain: Grain, bound: i64) -> i64 {
    match grain {
        Grain::Every(grid) => grid.next_start(bound),
        Grain::Window | Grain::Sessions => window.ids_starting_in(Micros(bound), Micros(bound)).start.0,
        Grain::All => bound,
    }
}

fn length(text: &str) -> Option<Length> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == &text[digits..])?;
    let count = text[..digits].parse::<i64>().ok()?;
    (count > 0).then_some(Length { count, unit: *unit })
}

/// A fixed length as `grain` reads it; in microseconds if no unit fits.
fn written(micros: i64) -> String {
    let fitting = UNITS.iter().find_map(|(name, unit)| {
        let length = match unit {
            Unit::Fixed(micros) => *micros,
            Unit::Days(days) => i64::from(*days) * MICROS_PER_DAY,
            Unit::Months(_) => return None,
        };
        (micros % length == 0).then(|| format!("{}{name}", micros / length))
    });
    fitting.unwrap_or_else(|| format!("{micros} microseconds"))
}

/// The length of a calendar's cells as `grain` reads it.
fn calendar_written(calendar: Calendar) -> String {
    let fitting = UNITS.iter().find_map(|(name, unit)| match (calendar.unit, unit) {
        (CalendarUnit::Day, Unit::Days(n)) | (CalendarUnit::Month, Unit::Months(n)) if calendar.count % n == 0 => {
            Some(format!("{}{name}", calendar.count / n))
        }
        _ => None,
    });
    fitting.expect("a unit of one day and one of one month fit all")
}

fn examples(grid: Grid, zone: Zone) -> String {
    let (own, ceiling) = match grid {
        Grid::Fixed { size, .. } => ((size % MICROS_PER_SECOND == 0).then(|| written(size)), 8),
        Grid::Calendar(calendar) => (Some(calendar_written(calendar)), 8),
    };
    let fits = |text: &&&str| {
        length(text).is_some_and(|length| coarser(grid, zone, length).is_ok_and(|coarse| coarse != grid))
    };
    let mut list: Vec<String> = own.into_iter().collect();
    let usual = SUGGESTED.iter().filter(fits).map(ToString::to_string);
    list.extend(usual.filter(|text| !list.contains(text)).take(ceiling).collect::<Vec<_>>());
    list.push("all".to_owned());
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use shared::sql::parse_definitions;

    use super::*;

    const HOUR: i64 = 3600 * MICROS_PER_SECOND;
    const HOURLY: Grid = Grid::Fixed { size: HOUR, offset: 0 };

    fn view(window: Window, zone: &str) -> View {
        let sql =
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at'); CREATE VIEW v AS SELECT COUNT(*) AS c FROM s;";
        let definitions = parse_definitions(&[("v.sql".into(), sql.into())]).expect("valid definitions");
        let view = definitions.views.into_iter().next().expect("one view");
        View { window, zone: zone.parse().expect("a zone"), ..view }
    }

    fn tumble(grid: Grid, zone: &str, text: &str) -> Result<Grain, String> {
        parse(&view(Window::Tumble(grid), zone), text).map_err(|error| error.to_string())
    }

    fn cells(unit: CalendarUnit, count: i32, shift: i32, zone: &str) -> Grid {
        Grid::Calendar(Calendar { unit, count, shift, offset: 0, zone: zone.parse().expect("a zone") })
    }

    #[test]
    fn multiples_are_accepted_and_other_grains_refused_with_alternatives() {
        assert_eq!(tumble(HOURLY, "UTC", "1h"), Ok(Grain::Window));
        assert_eq!(tumble(HOURLY, "UTC", "60m"), Ok(Grain::Window));
        assert_eq!(tumble(HOURLY, "UTC", "6h"), Ok(Grain::Every(Grid::Fixed { size: 6 * HOUR, offset: 0 })));
        assert_eq!(tumble(HOURLY, "UTC", "all"), Ok(Grain::All));
        let error = tumble(HOURLY, "UTC", "45m").expect_err("no multiple");
        let expected = "grain: 45m is not a multiple of the view's window (1h); \
                        valid grains: 1h, 6h, 1d, 1w, 1mo, 1q, 1y, all";
        assert_eq!(error, expected);
        for wrong in ["", "h", "0h", "1x", "-1h", "99999999999999999d", "1 h", "é", "1M", "99999999999mo"] {
            assert!(tumble(HOURLY, "UTC", wrong).is_err(), "{wrong}");
            assert!(tumble(HOURLY, "Europe/Vienna", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_view_over_all_time_accepts_only_the_grain_all() {
        assert_eq!(parse(&view(Window::All, "UTC"), "all"), Ok(Grain::Window));
        assert!(parse(&view(Window::All, "UTC"), "1h").is_err());
    }

    #[test]
    fn windows_that_do_not_follow_each_other_have_no_grain() {
        let hop = Window::Hop { panes: HOURLY, slide: 1, size: 24 };
        for (window, words) in [
            (hop, "use a view with TUMBLE"),
            (Window::Session { gap: HOUR }, "group_by"),
            (Window::TableSession { gap: HOUR }, "group_by"),
            (Window::Slide { size: HOUR, pane: 1 }, "as_of"),
        ] {
            for text in ["1h", "1d", "all", "x"] {
                let error = parse(&view(window, "UTC"), text).expect_err("refused").to_string();
                assert!(error.contains(words) && error.contains(kind(window)), "{text}: {error}");
            }
        }
    }

    #[test]
    fn weeks_begin_on_monday_unless_the_windows_forbid_it() {
        let week = 7 * MICROS_PER_DAY;
        let monday = Grain::Every(Grid::Fixed { size: week, offset: 4 * MICROS_PER_DAY });
        assert_eq!(tumble(HOURLY, "UTC", "1w"), Ok(monday));
        let weekly = Grid::Fixed { size: week, offset: 0 };
        assert_eq!(tumble(weekly, "UTC", "1w"), Ok(Grain::Window));
        assert_eq!(tumble(weekly, "UTC", "2w"), Ok(Grain::Every(Grid::Fixed { size: 2 * week, offset: 0 })));
        let from_monday = Grid::Fixed { size: week, offset: 4 * MICROS_PER_DAY };
        assert_eq!(tumble(from_monday, "UTC", "1w"), Ok(Grain::Window));
        assert!(tumble(from_monday, "UTC", "1mo").expect_err("no month").contains("do not divide a day"));
    }

    #[test]
    fn days_and_longer_are_those_of_the_views_zone() {
        let vienna = |unit, count, shift| Ok(Grain::Every(cells(unit, count, shift, "Europe/Vienna")));
        for (text, expected) in [
            ("1d", vienna(CalendarUnit::Day, 1, 0)),
            ("2d", vienna(CalendarUnit::Day, 2, 0)),
            ("1w", vienna(CalendarUnit::Day, 7, 4)),
            ("1mo", vienna(CalendarUnit::Month, 1, 0)),
            ("1q", vienna(CalendarUnit::Month, 3, 0)),
            ("1y", vienna(CalendarUnit::Month, 12, 0)),
            ("24h", Ok(Grain::Every(Grid::Fixed { size: 24 * HOUR, offset: 0 }))),
        ] {
            assert_eq!(tumble(HOURLY, "Europe/Vienna", text), expected, "{text}");
        }
        let months = Grain::Every(cells(CalendarUnit::Month, 1, 0, "UTC"));
        assert_eq!(tumble(HOURLY, "UTC", "1mo"), Ok(months));
        let error = tumble(Grid::Fixed { size: 7 * HOUR, offset: 0 }, "Europe/Vienna", "1d").expect_err("no day");
        assert!(error.contains("1d of Europe/Vienna cannot be filled with the view's windows (7h)"), "{error}");
        assert!(error.ends_with("valid grains: 7h, all"), "{error}");
    }

    #[test]
    fn calendars_fill_only_longer_ones_with_the_same_edges() {
        let days = cells(CalendarUnit::Day, 1, 0, "Europe/Vienna");
        let weeks = cells(CalendarUnit::Day, 7, 4, "Europe/Vienna");
        let months = cells(CalendarUnit::Month, 1, 0, "Europe/Vienna");
        let quarters = cells(CalendarUnit::Month, 3, 0, "Europe/Vienna");
        let years = cells(CalendarUnit::Month, 12, 0, "Europe/Vienna");
        for (own, text, expected) in [
            (days, "1d", Ok(Grain::Window)),
            (days, "1w", Ok(Grain::Every(weeks))),
            (days, "1mo", Ok(Grain::Every(months))),
            (days, "1q", Ok(Grain::Every(quarters))),
            (days, "1y", Ok(Grain::Every(years))),
            (days, "24h", Err("follow the calendar of Europe/Vienna")),
            (weeks, "1w", Ok(Grain::Window)),
            (weeks, "2w", Ok(Grain::Every(cells(CalendarUnit::Day, 14, 4, "Europe/Vienna")))),
            (weeks, "14d", Ok(Grain::Every(cells(CalendarUnit::Day, 14, 4, "Europe/Vienna")))),
            (weeks, "1mo", Err("valid grains: 1w, all")),
            (weeks, "10d", Err("cannot be filled with the view's windows (1w)")),
            (months, "1q", Ok(Grain::Every(quarters))),
            (months, "3mo", Ok(Grain::Every(quarters))),
            (months, "1y", Ok(Grain::Every(years))),
            (months, "1w", Err("valid grains: 1mo, 1q, 1y, all")),
            (quarters, "1mo", Err("valid grains: 1q, 1y, all")),
            (quarters, "4mo", Err("cannot be filled")),
        ] {
            match (tumble(own, "Europe/Vienna", text), expected) {
                (Err(error), Err(words)) => assert!(error.contains(words), "{text}: {error}"),
                (given, expected) => assert_eq!(given.map_err(|_| ""), expected, "{own:?} {text}"),
            }
        }
    }

    #[test]
    fn boundaries_move_up_also_before_1970() {
        let shifted = Window::Tumble(Grid::Fixed { size: HOUR, offset: HOUR / 4 });
        assert_eq!(next_boundary(shifted, Grain::Window, 0), HOUR / 4);
        assert_eq!(next_boundary(shifted, Grain::Window, HOUR / 4), HOUR / 4);
        assert_eq!(next_boundary(shifted, Grain::Window, -HOUR), HOUR / 4 - HOUR);
        let sixes = Grain::Every(Grid::Fixed { size: 6 * HOUR, offset: 0 });
        assert_eq!(next_boundary(Window::Tumble(HOURLY), sixes, HOUR), 6 * HOUR);
        let hop = Window::Hop { panes: HOURLY, slide: 6, size: 24 };
        assert_eq!(next_boundary(hop, Grain::Window, HOUR), 6 * HOUR);
        assert_eq!(next_boundary(Window::Session { gap: 1 }, Grain::Window, HOUR), HOUR);
    }
}
