//! Which coarser windows can a view be shown in? Multiples of its own, which its windows fill exactly.
//!
//! Grains are aligned to the epoch, shifted like the view's windows; weeks begin on Monday where the windows allow it.

use shared::partial::merge::Grain;
use shared::time::{MICROS_PER_DAY, MICROS_PER_SECOND};
use shared::window::Window;

use super::{QueryError, invalid};

const UNITS: [(&str, i64); 5] = [
    ("w", 7 * MICROS_PER_DAY),
    ("d", MICROS_PER_DAY),
    ("h", 3600 * MICROS_PER_SECOND),
    ("m", 60 * MICROS_PER_SECOND),
    ("s", MICROS_PER_SECOND),
];
/// 1970-01-05, the first Monday.
const FIRST_MONDAY: i64 = 4 * MICROS_PER_DAY;

/// Reads `all` or a length like `1h`, `30m`, `1d`, `1w`, which must be a multiple of the view's window.
pub fn parse(window: Window, text: &str) -> Result<Grain, QueryError> {
    if text == "all" {
        return Ok(if window == Window::All { Grain::Window } else { Grain::All });
    }
    let Window::Tumble { size, offset } = window else {
        return Err(invalid("grain", "the view has one window over all time; leave grain out or write all"));
    };
    let valid = || format!("valid would be {}", examples(size));
    let Some((length, unit)) = length(text) else {
        return Err(invalid(
            "grain",
            format!("\"{text}\" is not a length such as 30m, 1h, 1d, 1w, or all; {}", valid()),
        ));
    };
    if length % size != 0 {
        let own = written(size);
        return Err(invalid("grain", format!("{text} is not a multiple of the view's window ({own}); {}", valid())));
    }
    if length == size {
        return Ok(Grain::Window);
    }
    let to_monday = if unit == "w" && FIRST_MONDAY % size == 0 { FIRST_MONDAY } else { 0 };
    Ok(Grain::Every { size: length, offset: offset + to_monday })
}

/// The first start of a window of `grain` that is not before `bound`.
pub fn next_boundary(window: Window, grain: Grain, bound: i64) -> i64 {
    let (size, offset) = match (grain, window) {
        (Grain::Every { size, offset }, _) | (Grain::Window, Window::Tumble { size, offset }) => (size, offset),
        _ => return bound,
    };
    bound.saturating_add(offset.saturating_sub(bound).rem_euclid(size))
}

fn length(text: &str) -> Option<(i64, &'static str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (unit, micros) = UNITS.iter().find(|(unit, _)| *unit == &text[digits..])?;
    let length = text[..digits].parse::<i64>().ok()?.checked_mul(*micros)?;
    (length > 0).then_some((length, unit))
}

/// A length as `grain` reads it; in microseconds if no unit fits.
fn written(micros: i64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| micros % unit == 0);
    unit.map_or_else(|| format!("{micros} microseconds"), |(name, unit)| format!("{}{name}", micros / unit))
}

fn examples(size: i64) -> String {
    let usual = ["1m", "5m", "15m", "30m", "1h", "6h", "1d", "1w"];
    let fitting = usual.iter().filter(|t| length(t).is_some_and(|(l, _)| l > size && l % size == 0));
    let mut list = if size % MICROS_PER_SECOND == 0 { vec![written(size)] } else { Vec::new() };
    list.extend(fitting.take(4).map(ToString::to_string));
    list.push("all".to_owned());
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600 * MICROS_PER_SECOND;
    const HOURLY: Window = Window::Tumble { size: HOUR, offset: 0 };

    #[test]
    fn multiples_are_taken_and_others_answered_with_what_would_do() {
        assert_eq!(parse(HOURLY, "1h"), Ok(Grain::Window));
        assert_eq!(parse(HOURLY, "60m"), Ok(Grain::Window));
        assert_eq!(parse(HOURLY, "6h"), Ok(Grain::Every { size: 6 * HOUR, offset: 0 }));
        assert_eq!(parse(HOURLY, "all"), Ok(Grain::All));
        let error = parse(HOURLY, "45m").expect_err("no multiple").to_string();
        let expected = "grain: 45m is not a multiple of the view's window (1h); valid would be 1h, 6h, 1d, 1w, all";
        assert_eq!(error, expected);
        for wrong in ["", "h", "0h", "1x", "-1h", "99999999999999999d", "1 h", "é"] {
            assert!(parse(HOURLY, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_time_takes_only_all() {
        assert_eq!(parse(Window::All, "all"), Ok(Grain::Window));
        assert!(parse(Window::All, "1h").is_err());
    }

    #[test]
    fn weeks_begin_on_monday_unless_the_windows_forbid_it() {
        let monday = Grain::Every { size: 7 * MICROS_PER_DAY, offset: FIRST_MONDAY };
        assert_eq!(parse(HOURLY, "1w"), Ok(monday));
        let weekly = Window::Tumble { size: 7 * MICROS_PER_DAY, offset: 0 };
        assert_eq!(parse(weekly, "1w"), Ok(Grain::Window));
        assert_eq!(parse(weekly, "2w"), Ok(Grain::Every { size: 14 * MICROS_PER_DAY, offset: 0 }));
    }

    #[test]
    fn boundaries_move_up_also_before_1970() {
        let shifted = Window::Tumble { size: HOUR, offset: HOUR / 4 };
        assert_eq!(next_boundary(shifted, Grain::Window, 0), HOUR / 4);
        assert_eq!(next_boundary(shifted, Grain::Window, HOUR / 4), HOUR / 4);
        assert_eq!(next_boundary(shifted, Grain::Window, -HOUR), HOUR / 4 - HOUR);
        assert_eq!(next_boundary(HOURLY, Grain::Every { size: 6 * HOUR, offset: 0 }, HOUR), 6 * HOUR);
    }
}
