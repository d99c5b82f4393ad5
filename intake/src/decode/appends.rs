//! Decodes a body of appends: each line names an entity, a condition and the events to append. If a line is not an
//! append, the whole body is refused; if an event is rejected, only its append is refused.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use shared::entity::EntityId;
use shared::limits::{ENTITY_APPEND_EVENTS_MAX, ENTITY_APPENDS_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use shared::stream::Stream;

use super::reject_reason;
use super::session::{Progress, Session};
use super::{DecodeError, Decoded, Options, Rejection};
use crate::partition::{BodyFingerprint, ExpectedSequence, IdempotencyKey};

/// A body of appends.
#[derive(Debug)]
pub struct DecodedAppends {
    /// The valid events of all appends, in the order of the body.
    pub events: Decoded,
    /// The appends, in the order of the body.
    pub appends: Vec<DecodedAppend>,
}

/// One append of a body.
#[derive(Debug)]
pub struct DecodedAppend {
    pub id: EntityId,
    pub expected: Option<ExpectedSequence>,
    pub key: Option<IdempotencyKey>,
    /// The rows of its valid events.
    pub rows: Range<usize>,
    /// Fields that the stream does not declare.
    pub unknown_fields: u64,
    /// Events that were rejected.
    pub rejected: u64,
    /// The reasons, by the number of the event in the append, from 1; only those within the limit of the whole body.
    pub rejections: Vec<Rejection>,
}

/// Why a whole body of appends is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendsError {
    #[error("line {line}: {reason}")]
    Line { line: u64, reason: String },
    #[error("the body has no appends: send at least one")]
    Empty,
    #[error("the body has more than {max} appends; send them in several requests")]
    TooMany { max: usize },
    #[error("line {line}: {events} events; an append has at most {max}")]
    TooManyEvents { line: u64, events: usize, max: usize },
    #[error(transparent)]
    Events(#[from] DecodeError),
}

/// A line as the client writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendLine<'a> {
    #[serde(borrow)]
    id: IdValue<'a>,
    #[serde(borrow, default)]
    if_match: Option<Condition<'a>>,
    #[serde(borrow, default)]
    if_none_match: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    idempotency_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "id: expected a string or an integer")]
enum IdValue<'a> {
    Integer(i64),
    Text(#[serde(borrow)] Cow<'a, str>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "if_match: expected a sequence or \"*\"")]
enum Condition<'a> {
    Sequence(u64),
    Star(#[serde(borrow)] Cow<'a, str>),
}

/// An append whose line was read, and whose events were not.
struct PendingAppend<'a> {
    id: EntityId,
    expected: Option<ExpectedSequence>,
    key: Option<String>,
    events: Vec<&'a RawValue>,
}

/// Reads appends, one per line.
///
/// # Errors
/// Anything but a rejected event refuses the body, and nothing of it may be written.
pub fn decode_appends(stream: &Stream, body: &[u8], options: Options) -> Result<DecodedAppends, AppendsError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = simdutf8::compat::from_utf8(body).map_err(|error| {
        let line = body[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        AppendsError::Line { line, reason: "invalid UTF-8".to_owned() }
    })?;
    let mut pending = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim_matches(|c| matches!(c, ' ' | '\t' | '\r'));
        if content.is_empty() {
            continue;
        }
        if pending.len() == ENTITY_APPENDS_MAX {
            return Err(AppendsError::TooMany { max: ENTITY_APPENDS_MAX });
        }
        pending.push(read_line(stream, line, content)?);
    }
    if pending.is_empty() {
        return Err(AppendsError::Empty);
    }
    // Rejected events of appends are listed in the response, and not kept in the quarantine.
    let options = Options { malformed_kept_max: 0, ..options };
    let mut session = Session::new(stream, options, body.len(), true);
    let mut ends = Vec::with_capacity(pending.len());
    for PendingAppend { id, events, .. } in &pending {
        session.switch_entity(id);
        for (number, event) in (1..).zip(events) {
            session.read_record(number, event.get(), |_| Ok(()));
        }
        ends.push(session.progress());
    }
    let events = session.finish()?;
    let mut before = Progress::default();
    let append = |(PendingAppend { id, expected, key, events: raw }, end): (PendingAppend, Progress)| {
        let start = std::mem::replace(&mut before, end);
        let body = |id: &EntityId| BodyFingerprint::of_append(id, raw.iter().map(|event| event.get().as_bytes()));
        let key = key.map(|key| IdempotencyKey { key, body: body(&id) });
        DecodedAppend {
            id,
            expected,
            key,
            rows: start.rows..end.rows,
            unknown_fields: end.unknown_fields - start.unknown_fields,
            rejected: end.rejected - start.rejected,
            rejections: events.rejections[start.listed..end.listed].to_vec(),
        }
    };
    let appends = pending.into_iter().zip(ends).map(append).collect();
    Ok(DecodedAppends { events, appends })
}

fn read_line<'a>(stream: &Stream, line: u64, content: &'a str) -> Result<PendingAppend<'a>, AppendsError> {
    let broken = |reason: String| AppendsError::Line { line, reason };
    // Serde would read the elements of an array as members.
    if !content.starts_with('{') {
        return Err(broken("expected an object: one append per line".to_owned()));
    }
    let AppendLine { id, if_match, if_none_match, idempotency_key, events } =
        serde_json::from_str(content).map_err(|error| broken(reject_reason::message(&error)))?;
    let id = entity_id(stream, &id).map_err(broken)?;
    let expected = match (if_match, if_none_match.as_deref()) {
        (None, None) => None,
        (Some(Condition::Sequence(sequence)), None) => Some(ExpectedSequence::Exactly(sequence)),
        (Some(Condition::Star(star)), None) if star == "*" => Some(ExpectedSequence::Any),
        (None, Some("*")) => Some(ExpectedSequence::Exactly(0)),
        _ => {
            let reason = "invalid condition: send if_match with the last sequence of the entity, \"if_match\": \"*\" \
                          for an entity with events, or \"if_none_match\": \"*\" for one without";
            return Err(broken(reason.to_owned()));
        }
    };
    let is_key = |key: &str| {
        (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'))
    };
    if idempotency_key.as_deref().is_some_and(|key| !is_key(key)) {
        let reason = format!("invalid idempotency_key: send 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes of visible ASCII");
        return Err(broken(reason));
    }
    match events.len() {
        0 => Err(broken("the append has no events: send at least one".to_owned())),
        1..=ENTITY_APPEND_EVENTS_MAX => {
            Ok(PendingAppend { id, expected, key: idempotency_key.map(Cow::into_owned), events })
        }
        events => Err(AppendsError::TooManyEvents { line, events, max: ENTITY_APPEND_EVENTS_MAX }),
    }
}

/// Reads an id as in a path. A number names an entity only if the entity column has numbers.
fn entity_id(stream: &Stream, id: &IdValue<'_>) -> Result<EntityId, String> {
    let parse = |text: &str| EntityId::parse(stream, text).map_err(|error| error.to_string());
    match id {
        IdValue::Text(text) => parse(text),
        IdValue::Integer(number) => match parse(&number.to_string())? {
            EntityId::Text(text) => {
                Err(format!("id: {text} is a number, but the entity column is STRING; send \"{text}\""))
            }
            id => Ok(id),
        },
    }
}
