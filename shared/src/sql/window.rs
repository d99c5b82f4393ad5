//! Reads the windows of GROUP BY. [`super::length`] gives their lengths a meaning on a calendar.

use sqlparser::ast::Expr;
use sqlparser::tokenizer::Span;

use super::cursor::ExpressionTree;
use super::duration::TimeSpan;
use super::error::SqlError;
use super::length::{Length, MONTHS_OFFSET_DAYS, calendar_count, grid_of, offset_fits};
use super::lower::Lowering;
use super::scope::{Clause, Scope};
use super::source::Source;
use super::suggest::did_you_mean;
use super::window_text::{days_text, fixed_text};
use crate::calendar::{Calendar, CalendarUnit, Zone};
use crate::column_name::same;
use crate::limits::{PANES_PER_WINDOW_MAX, WINDOWS_PER_EVENT_MAX};
use crate::stream::Stream;
use crate::time::MICROS_PER_DAY;
use crate::window::{Grid, Step, Window};

/// Names of windows, for suggestions.
pub(super) const NAMES: &[&str] = &["tumble", "hop", "cumulate", "session", "slide"];

/// Longest month, in days.
const MONTH_DAYS_MAX: i64 = 31;

/// A window with its place.
pub(super) struct WindowCall {
    pub(super) window: Window,
    pub(super) span: Span,
}

/// The arguments of a kind of window.
struct WindowForm {
    /// Fewest and most arguments.
    arguments: (usize, usize),
    takes: &'static str,
    /// Behind the event time.
    example: &'static str,
}

fn form(name: &str) -> Option<WindowForm> {
    let (arguments, takes, example) = match name {
        "tumble" => ((2, 3), "the event time, a size and perhaps an offset", "INTERVAL '1' HOUR"),
        "hop" => {
            let example = "INTERVAL '10' MINUTE, INTERVAL '1' HOUR";
            ((3, 4), "the event time, a slide, a size and perhaps an offset", example)
        }
        "cumulate" => {
            let example = "INTERVAL '1' HOUR, INTERVAL '1' DAY";
            ((3, 4), "the event time, a step, the longest size and perhaps an offset", example)
        }
        "session" => ((2, 2), "the event time and a gap", "INTERVAL '30' MINUTE"),
        "slide" => ((2, 3), "the event time, a size and perhaps a resolution", "INTERVAL '1' HOUR"),
        _ => return None,
    };
    Some(WindowForm { arguments, takes, example })
}

/// Reads a window such as `TUMBLE(event_time, size [, offset])`, where `owner` is the name of the stream; `None` if this is not a
/// window.
pub(super) fn parse_window(
    source: &Source,
    (stream, owner): (&Stream, &str),
    zone: Zone,
    parsed: &ExpressionTree,
) -> Result<Option<WindowCall>, SqlError> {
    let Expr::Function(function) = &parsed.expression else { return Ok(None) };
    let name = function.name.to_string().to_lowercase();
    let Some(form) = form(&name) else { return Ok(None) };
    let span = parsed.tokens.first().map_or_else(Span::empty, |token| token.span);
    let mut scope = Scope::new(Clause::Rows("GROUP BY"), &[], None);
    let lowering = Lowering::new(source, &mut scope, parsed.tokens);
    let call = lowering.plain_call(&parsed.expression, function)?;
    let upper = name.to_uppercase();
    call.refuse_aggregate_clauses(source)?;
    let (least, most) = form.arguments;
    if !(least..=most).contains(&call.arguments.len()) {
        let error = source.error(span, format!("{upper} takes {}", form.takes));
        let event_time = &stream.columns[stream.event_time].name;
        return Err(error.help(format!("write {upper}({event_time}, {})", form.example)));
    }
    check_event_time(source, (stream, owner), &lowering, &upper, call.arguments[0])?;
    let reader = LengthReader { lowering: &lowering, zone };
    let window = match (name.as_str(), call.arguments.as_slice()) {
        ("tumble", [_, size, offset @ ..]) => reader.tumble(size, offset.first().copied())?,
        ("hop", [_, slide, size, offset @ ..]) => reader.hop(slide, size, offset.first().copied())?,
        ("cumulate", [_, step, longest, offset @ ..]) => reader.cumulate(step, longest, offset.first().copied())?,
        ("session", [_, gap, ..]) => Window::Session { gap: reader.fixed(gap, "gap")? },
        (_, [_, size, pane @ ..]) => reader.slide(size, pane.first().copied())?,
        _ => return Ok(None),
    };
    Ok(Some(WindowCall { window, span }))
}

fn check_event_time(
    source: &Source,
    (stream, owner_name): (&Stream, &str),
    lowering: &Lowering,
    window: &str,
    at: &Expr,
) -> Result<(), SqlError> {
    let event_time = stream.columns[stream.event_time].name.as_str();
    let ident = match at {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [owner, ident] if owner.value.eq_ignore_ascii_case(owner_name) => ident,
            _ => return Err(lowering.error(at, format!("{window} cuts the event time, `{event_time}`"))),
        },
        _ => return Err(lowering.error(at, format!("{window} cuts the event time, `{event_time}`"))),
    };
    let name = ident.value.as_str();
    if same(name, event_time) {
        return Ok(());
    }
    let error = match stream.column(name) {
        Some(_) => source.error(ident.span, format!("{window} cuts the event time, and `{name}` is not it")),
        None => source.error(ident.span, format!("unknown column `{name}`")),
    };
    let meant = did_you_mean(name, [event_time]).unwrap_or_else(|| format!("the event time is `{event_time}`"));
    Err(error.help(meant))
}

/// Reads the lengths of one window.
struct LengthReader<'l, 't, 's, 'c> {
    lowering: &'l Lowering<'t, 's, 'c>,
    zone: Zone,
}

/// A length as an argument writes it.
struct WrittenLength {
    length: Length,
    in_weeks: bool,
}

impl LengthReader<'_, '_, '_, '_> {
    fn tumble(&self, size: &Expr, offset: Option<&Expr>) -> Result<Window, SqlError> {
        let WrittenLength { length, in_weeks } = self.length(size, "size")?;
        Ok(Window::Tumble(self.grid(length, (length, length), in_weeks, offset)?))
    }

    fn hop(&self, slide_at: &Expr, size_at: &Expr, offset: Option<&Expr>) -> Result<Window, SqlError> {
        let WrittenLength { length: slide, in_weeks } = self.length(slide_at, "slide")?;
        let size = self.length(size_at, "size")?.length;
        if !slide.is_like(size) {
            return Err(self.mixed(size_at, ("slide", slide), ("size", size)));
        }
        let pane = slide.with(greatest_common_divisor(slide.count(), size.count()));
        let windows = size.count() / slide.count() + i64::from(size.count() % slide.count() != 0);
        if windows > WINDOWS_PER_EVENT_MAX {
            let message =
                format!("an event would fall into {windows} windows, at most {WINDOWS_PER_EVENT_MAX} are possible");
            let error = self.lowering.error(slide_at, message);
            return Err(error.help("slide by more, or use SLIDE, which looks back from any instant"));
        }
        let panes = size.count() / pane.count();
        if panes > PANES_PER_WINDOW_MAX {
            let message =
                format!("a window would be the sum of {panes} panes, at most {PANES_PER_WINDOW_MAX} are possible");
            let error = self.lowering.error(slide_at, message);
            return Err(error.help("a pane divides both slide and size: choose a slide that divides the size"));
        }
        let longer = if slide.count() > size.count() { slide } else { size };
        let grid = self.grid(pane, (slide, longer), in_weeks, offset)?;
        Ok(Window::Hop { panes: grid, slide: slide.count() / pane.count(), size: panes })
    }

    fn cumulate(&self, step_at: &Expr, longest_at: &Expr, offset: Option<&Expr>) -> Result<Window, SqlError> {
        let step = self.length(step_at, "step")?.length;
        let WrittenLength { length: longest, in_weeks } = self.length(longest_at, "longest size")?;
        // Days have 24 hours here: where clocks change, one has a step less or more.
        let (whole, part) = match (step, longest) {
            (Length::Fixed(step), Length::Days(days)) => (days.saturating_mul(MICROS_PER_DAY), step),
            // Months are whole days, and nothing longer.
            (Length::Fixed(step), Length::Months(_)) => (MICROS_PER_DAY, step),
            (Length::Days(step), Length::Months(_)) => (1, step),
            (step, longest) if step.is_like(longest) => (longest.count(), step.count()),
            _ => return Err(self.mixed(longest_at, ("step", step), ("longest size", longest))),
        };
        if whole % part != 0 {
            return Err(match longest {
                Length::Months(_) if !matches!(step, Length::Months(_)) => {
                    let error = self.lowering.error(step_at, "months do not begin where such steps do");
                    error.help("step by days, by a length that divides a day, or by months")
                }
                _ => {
                    let error = self.lowering.error(step_at, "the step has to divide the longest size");
                    error.help("such as INTERVAL '1' HOUR and INTERVAL '1' DAY")
                }
            });
        }
        let steps = match (step, longest) {
            (Length::Fixed(_) | Length::Days(_), Length::Months(months)) => (whole / part) * MONTH_DAYS_MAX * months,
            _ => whole / part,
        };
        if steps > WINDOWS_PER_EVENT_MAX {
            let message =
                format!("an event could fall into {steps} windows, at most {WINDOWS_PER_EVENT_MAX} are possible");
            return Err(self.lowering.error(step_at, message).help("take longer steps"));
        }
        let outer = self.grid(longest, (longest, longest), in_weeks, offset)?;
        let step = match (step, outer) {
            // The steps of a fixed cell.
            (Length::Fixed(step), _) => Step::Fixed(step),
            (Length::Days(days), Grid::Calendar(outer)) => {
                let count = calendar_count(days);
                let shift = if outer.unit == CalendarUnit::Day { outer.shift % count } else { 0 };
                let offset = outer.offset % MICROS_PER_DAY;
                Step::Calendar(Calendar { unit: CalendarUnit::Day, count, shift, offset, zone: self.zone })
            }
            (Length::Months(months), Grid::Calendar(outer)) => {
                let count = calendar_count(months);
                Step::Calendar(Calendar { count, shift: outer.shift % count, ..outer })
            }
            (step, Grid::Fixed { .. }) => {
                return Err(self.mixed(longest_at, ("step", step), ("longest size", longest)));
            }
        };
        Ok(Window::Cumulate { step, outer })
    }

    fn slide(&self, size_at: &Expr, pane_at: Option<&Expr>) -> Result<Window, SqlError> {
        let size = self.fixed(size_at, "size")?;
        let Some(pane_at) = pane_at else { return Ok(Window::Slide { size, pane: 1 }) };
        let pane = self.fixed(pane_at, "resolution")?;
        match size % pane {
            0 => Ok(Window::Slide { size, pane }),
            _ => {
                let error = self.lowering.error(pane_at, "the resolution has to divide the size");
                Err(error.help("leave it out to look back from any microsecond"))
            }
        }
    }

    fn span(&self, at: &Expr) -> Result<TimeSpan, SqlError> {
        match self.lowering.interval(at)? {
            Some(span) => Ok(span),
            None => Err(self.lowering.error(at, "this has to be an INTERVAL").help("write INTERVAL '1' HOUR")),
        }
    }

    fn positive(&self, length: i64, at: &Expr, what: &str) -> Result<(), SqlError> {
        match length > 0 {
            true => Ok(()),
            false => Err(self.lowering.error(at, format!("the {what} of a window is longer than nothing"))),
        }
    }

    /// A length in microseconds whatever the zone: days have 24 hours.
    fn fixed(&self, at: &Expr, what: &str) -> Result<i64, SqlError> {
        let micros = self.span(at)?.fixed().map_err(|bad| self.lowering.bad_interval(at, bad))?;
        self.positive(micros, at, what)?;
        Ok(micros)
    }

    fn length(&self, at: &Expr, what: &str) -> Result<WrittenLength, SqlError> {
        let span = self.span(at)?;
        let in_weeks = span.in_weeks;
        if span.months != 0 {
            if span.days != 0 || span.micros != 0 {
                let error = self.lowering.error(at, "months differ in length: they do not mix with shorter units");
                return Err(error.help("write INTERVAL '1' MONTH, or days"));
            }
            self.positive(span.months, at, what)?;
            return Ok(WrittenLength { length: Length::Months(span.months), in_weeks });
        }
        self.positive(span.clock_micros(), at, what)?;
        let length = match (span.days, span.micros) {
            (days, 0) if self.zone != Zone::UTC && days != 0 => Length::Days(days),
            (days, _) if self.zone != Zone::UTC && days != 0 => {
                let message = format!("days of {} differ in length: they do not mix with shorter units", self.zone);
                let fixed = fixed_text(span.clock_micros(), self.zone);
                return Err(self.lowering.error(at, message).help(format!("write {fixed}, or whole days")));
            }
            _ => Length::Fixed(span.clock_micros()),
        };
        Ok(WrittenLength { length, in_weeks })
    }

    /// Cells of `cell`. They begin with those of `period`, a multiple of it, which `offset` moves by less than `below`.
    fn grid(
        &self,
        cell: Length,
        (period, below): (Length, Length),
        in_weeks: bool,
        offset_at: Option<&Expr>,
    ) -> Result<Grid, SqlError> {
        let Some(at) = offset_at else {
            return Ok(grid_of(cell, period, in_weeks, TimeSpan::default(), self.zone));
        };
        let offset = self.span(at)?;
        let error = |message: &str| self.lowering.error(at, message);
        match below {
            Length::Months(_) => {
                if !(0..MONTHS_OFFSET_DAYS * MICROS_PER_DAY).contains(&offset.clock_micros()) {
                    let message = format!("months move by months, and by 0 to less than {MONTHS_OFFSET_DAYS} days");
                    return Err(error(&message).help("write INTERVAL '1' MONTH, or INTERVAL '6' HOUR"));
                }
            }
            Length::Fixed(_) | Length::Days(_) if offset.months != 0 => {
                return Err(error("only windows of months move by months").help("write an INTERVAL in days or hours"));
            }
            Length::Fixed(_) if self.zone != Zone::UTC && offset.days != 0 => {
                let message = format!("windows of a fixed length do not move by days of {}", self.zone);
                let fixed = fixed_text(offset.clock_micros(), self.zone);
                return Err(error(&message).help(format!("write {fixed}")));
            }
            Length::Fixed(_) | Length::Days(_) => {}
        }
        match offset_fits(offset, below) {
            true => Ok(grid_of(cell, period, in_weeks, offset, self.zone)),
            false => Err(error("an offset is shorter than the window").help("leave out whole windows")),
        }
    }

    /// The error of two lengths that do not mix.
    fn mixed(&self, at: &Expr, (a, a_length): (&str, Length), (b, b_length): (&str, Length)) -> SqlError {
        let kind = |length| match length {
            Length::Fixed(_) => "has a fixed length",
            Length::Days(_) => "counts days, which do not all have 24 hours",
            Length::Months(_) => "counts months",
        };
        let message = format!("the {a} {}, the {b} {}", kind(a_length), kind(b_length));
        let help = match (a_length, b_length) {
            (Length::Days(days), Length::Fixed(_)) | (Length::Fixed(_), Length::Days(days)) => {
                let fixed = fixed_text(days.saturating_mul(MICROS_PER_DAY), self.zone);
                format!("write {fixed} instead of {}", days_text(days))
            }
            _ => "write both in months, quarters or years, or both in shorter units".to_owned(),
        };
        self.lowering.error(at, message).help(help)
    }
}

fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
