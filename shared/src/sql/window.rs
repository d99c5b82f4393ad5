//! Which window does GROUP BY name?

use sqlparser::ast::Expr;
use sqlparser::tokenizer::Span;

use super::cursor::{Parsed, fold_case};
use super::error::SqlError;
use super::lower::Lowering;
use super::scope::{Place, Scope};
use super::source::Source;
use super::suggest::did_you_mean;
use crate::stream::Stream;
use crate::time::MICROS_PER_DAY;
use crate::window::Window;

/// Windows that are understood but not yet possible.
const LATER: &[&str] = &["hop", "cumulate", "session", "slide"];

/// Mondays are this far from the epoch, a Thursday.
const FIRST_MONDAY: i64 = 4 * MICROS_PER_DAY;

/// A window and where it is named.
pub(super) struct WindowCall {
    pub(super) window: Window,
    pub(super) span: Span,
}

/// Reads `TUMBLE(event_time, size [, offset])`; `None` if this is no window at all.
pub(super) fn parse_window(source: &Source, stream: &Stream, parsed: &Parsed) -> Result<Option<WindowCall>, SqlError> {
    let Expr::Function(function) = &parsed.expression else { return Ok(None) };
    let name = function.name.to_string().to_lowercase();
    let span = parsed.tokens.first().map_or_else(Span::empty, |token| token.span);
    if LATER.contains(&name.as_str()) {
        let error = source.error(span, format!("{} is not supported yet", name.to_uppercase()));
        return Err(error.help("use TUMBLE"));
    }
    if name != "tumble" {
        return Ok(None);
    }
    let mut scope = Scope::new(Place::Rows("TUMBLE"), &[], None);
    let lowering = Lowering::new(source, &mut scope, parsed.tokens);
    let call = lowering.plain_call(&parsed.expression, function)?;
    if call.filter.is_some() {
        return Err(source.error(span, "FILTER is only possible with an aggregate"));
    }
    if call.arguments.len() < 2 || call.arguments.len() > 3 {
        let error = source.error(span, "TUMBLE takes the event time, a size and perhaps an offset");
        let event_time = &stream.columns[stream.event_time].name;
        return Err(error.help(format!("write TUMBLE({event_time}, INTERVAL '1' HOUR)")));
    }
    check_event_time(source, stream, &lowering, call.arguments[0])?;
    let span_of_time = |at: &Expr| match lowering.interval(at)? {
        Some(micros) => Ok(micros),
        None => Err(lowering.error(at, "this has to be an INTERVAL").help("write INTERVAL '1' HOUR")),
    };
    let size = span_of_time(call.arguments[1])?;
    if size <= 0 {
        return Err(lowering.error(call.arguments[1], "the size of a window is longer than nothing"));
    }
    let from_monday = if lowering.is_in_weeks(call.arguments[1]) { FIRST_MONDAY } else { 0 };
    let offset = call.arguments.get(2).map_or(Ok(0), |at| span_of_time(at))?;
    let offset = (offset.rem_euclid(size) + from_monday.rem_euclid(size)).rem_euclid(size);
    Ok(Some(WindowCall { window: Window::Tumble(crate::window::Grid::Fixed { size, offset }), span }))
}

fn check_event_time(source: &Source, stream: &Stream, lowering: &Lowering, at: &Expr) -> Result<(), SqlError> {
    let event_time = stream.columns[stream.event_time].name.as_str();
    let ident = match at {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [owner, ident] if owner.value.eq_ignore_ascii_case(stream.name.as_str()) => ident,
            _ => return Err(lowering.error(at, format!("TUMBLE cuts the event time, `{event_time}`"))),
        },
        _ => return Err(lowering.error(at, format!("TUMBLE cuts the event time, `{event_time}`"))),
    };
    let name = fold_case(&ident.value, ident.quote_style.is_some());
    if name == event_time {
        return Ok(());
    }
    let error = match stream.column(&name) {
        Some(_) => source.error(ident.span, format!("TUMBLE cuts the event time, and `{name}` is not it")),
        None => source.error(ident.span, format!("unknown column `{name}`")),
    };
    let meant = did_you_mean(&name, [event_time]).unwrap_or_else(|| format!("the event time is `{event_time}`"));
    Err(error.help(meant))
}
