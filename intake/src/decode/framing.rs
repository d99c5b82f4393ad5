//! Splits a body into events: lines, elements of an array, or one object.
//!
//! One bad line never spoils its neighbours. An array that is not JSON is refused as a whole, since its elements have no
//! certain boundaries.

use memchr::{memchr, memrchr};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::DecodeError;
use super::reject_reason::{self, RejectReason};
use super::session::Session;

/// Reads every event of a body.
pub(super) fn read<'a>(session: &mut Session<'a>, body: &'a [u8]) -> Result<(), DecodeError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let Some(start) = body.iter().position(|b| !is_space(*b)) else {
        return Ok(());
    };
    if body[start] == b'[' {
        let text = simdutf8::compat::from_utf8(body).map_err(|error| {
            let (line, column) = position(body, error.valid_up_to());
            DecodeError::Syntax { line, column, reason: "invalid UTF-8".to_owned() }
        })?;
        return read_elements(session, text, start);
    }
    match object_over_lines(&body[start..]) {
        Some(text) => session.read_event(1, text),
        None => read_lines(session, body),
    }
    Ok(())
}

/// The whole body, if it is one object written over several lines.
fn object_over_lines(body: &[u8]) -> Option<&str> {
    let first_line = &body[..memchr(b'\n', body)?];
    let unfinished = body[0] == b'{' && serde_json::from_slice::<IgnoredAny>(first_line).is_err_and(|e| e.is_eof());
    if !unfinished {
        return None;
    }
    serde_json::from_slice::<&RawValue>(body).ok().map(RawValue::get)
}

/// Reads the lines of a body, also where some are not UTF-8.
fn read_lines<'a>(session: &mut Session<'a>, body: &'a [u8]) {
    let mut line = 1;
    let mut at = 0;
    while at < body.len() {
        let bad = match simdutf8::compat::from_utf8(&body[at..]) {
            Ok(text) => return read_text_lines(session, text, &mut line),
            Err(error) => at + error.valid_up_to(),
        };
        let bad_line = memrchr(b'\n', &body[at..bad]).map_or(at, |end| at + end + 1);
        let before = std::str::from_utf8(&body[at..bad_line]).expect("it ends before the first invalid byte");
        read_text_lines(session, before, &mut line);
        let end = memchr(b'\n', &body[bad..]).map_or(body.len(), |end| bad + end);
        session.reject(line, body[bad_line..end].trim_ascii(), RejectReason::NotUtf8 { column: bad - bad_line + 1 });
        line += 1;
        at = end + 1;
    }
}

/// Reads whole lines, the first of which is number `line`.
fn read_text_lines<'a>(session: &mut Session<'a>, text: &'a str, line: &mut u64) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        // A usual event is read before the end of its line is searched for.
        let next = session.read_usual(text, at, false).and_then(|end| line_end(bytes, end));
        if let Some(next) = next {
            session.settle(*line, || bytes[at..next].trim_ascii_end());
            at = next;
        } else {
            let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |end| at + end);
            let event = text[at..end].trim_matches(|c| matches!(c, ' ' | '\t' | '\r'));
            if !event.is_empty() {
                session.read_event(*line, event);
            }
            at = end + 1;
        }
        *line += 1;
    }
}

/// The start of the next line, if the line ends at `at`.
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes[at..] {
        [] => Some(at),
        [b'\n', ..] => Some(at + 1),
        [b'\r', b'\n', ..] => Some(at + 2),
        _ => None,
    }
}

/// Reads the elements of the array that begins at `start`.
fn read_elements<'a>(session: &mut Session<'a>, text: &'a str, start: usize) -> Result<(), DecodeError> {
    let bytes = text.as_bytes();
    let space_from = |at: usize| at + bytes[at..].iter().take_while(|b| is_space(**b)).count();
    let broken = |at: usize, reason: &str| {
        let (line, column) = position(bytes, at);
        Err(DecodeError::Syntax { line, column, reason: reason.to_owned() })
    };

    let mut at = space_from(start + 1);
    let mut element = 1;
    let empty = bytes.get(at) == Some(&b']');
    if empty {
        at += 1;
    }
    let mut open = !empty;
    while open {
        if let Some(end) = session.read_usual(text, at, true) {
            session.settle(element, || &bytes[at..end]);
            at = end;
        } else {
            let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<&RawValue>();
            match values.next() {
                Some(Ok(value)) => session.read_event(element, value.get()),
                Some(Err(error)) => return Err(shifted(bytes, at, &error)),
                None => return broken(bytes.len(), "the array does not end"),
            }
            at += values.byte_offset();
        }
        element += 1;
        at = space_from(at);
        open = match bytes.get(at) {
            Some(b',') => true,
            Some(b']') => false,
            Some(_) => return broken(at, "expected `,` or `]`"),
            None => return broken(at, "the array does not end"),
        };
        at = if open { space_from(at + 1) } else { at + 1 };
    }
    at = space_from(at);
    if at < bytes.len() { broken(at, "something follows the array") } else { Ok(()) }
}

/// The error of a value that begins at `at`, with its position in the whole body.
fn shifted(body: &[u8], at: usize, error: &serde_json::Error) -> DecodeError {
    let (line, column) = position(body, at);
    DecodeError::Syntax {
        line: line + error.line() as u64 - 1,
        column: if error.line() == 1 { column + error.column() as u64 - 1 } else { error.column() as u64 },
        reason: reject_reason::message(error),
    }
}

/// Line and column of a byte, both from 1.
fn position(body: &[u8], at: usize) -> (u64, u64) {
    let before = &body[..at];
    let line_start = memrchr(b'\n', before).map_or(0, |end| end + 1);
    (1 + memchr::memchr_iter(b'\n', before).count() as u64, (at - line_start) as u64 + 1)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
