//! Serves `POST /v1/entities/{stream}/{id}/events`: appends events to one entity, all or none, if it is at the sequence that
//! the client expects. The condition is checked by the partition's writer, in log order: of two appends with the same
//! condition, one is refused.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;
use problem::{Code, Problem};
use serde::Serialize;
use shared::entity::EntityId;
use shared::limits::ENTITY_APPEND_EVENTS_MAX;
use std::sync::Arc;
use utoipa::ToSchema;

use super::content_type::ContentType;
use super::encoding::Encoding;
use super::{EntityEvents, EventsEndpoint, arriving_now, idempotency_key, is_zero, refusal};
use crate::decode::{Decoded, decode_of_entity};
use crate::event_id::hash_entity;
use crate::partition::{BodyFingerprint, ExpectedSequence, IdempotencyKey, PartitionReceipt};

/// The response to appended events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AppendResult {
    accepted: u64,
    /// Events whose id the entity has already; they were not appended.
    duplicates: u64,
    /// Sequence of the first appended event; `null` if all were duplicates.
    first_sequence: Option<u64>,
    /// The entity's last sequence after the append.
    last_sequence: u64,
    #[serde(skip_serializing_if = "is_zero")]
    late: u64,
    #[serde(skip_serializing_if = "is_zero")]
    unknown_fields: u64,
}

impl AppendResult {
    pub(super) fn new(receipt: PartitionReceipt, unknown_fields: u64) -> AppendResult {
        let PartitionReceipt { accepted, duplicates, late, last_sequence, .. } = receipt;
        let last_sequence = last_sequence.unwrap_or_default();
        let first_sequence = (accepted > 0).then(|| last_sequence + 1 - accepted);
        AppendResult { accepted, duplicates, first_sequence, last_sequence, late, unknown_fields }
    }
}

/// `POST /v1/entities/{stream}/{id}/events`.
pub(super) async fn append(
    State(endpoint): State<EventsEndpoint>,
    Path((name, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(writer) = endpoint.streams.stream(&name) else {
        return Err(refusal::unknown_stream(&name, &endpoint.streams.stream_names()));
    };
    let stream = Arc::clone(writer.stream());
    let id = EntityId::parse(&stream, &id).map_err(|error| refusal::invalid_entity(&error))?;
    if let Some(query) = request.uri().query().filter(|query| !query.is_empty()) {
        return Err(refusal::bad_query(&format!("an append has no parameters, found \"{query}\"")));
    }
    let entity = hash_entity(&id);
    let content = ContentType::of(request.headers()).map_err(|name| refusal::unsupported_type(&name))?;
    if content != ContentType::Json {
        return Err(Problem::new(Code::UnsupportedType, "an append is JSON: one event, an array, or one per line"));
    }
    let encoding = Encoding::of(request.headers()).map_err(|name| refusal::unsupported_encoding(&name))?;
    let expected = expected_sequence(request.headers())?;
    let key = idempotency_key(request.headers())?;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = endpoint.bodies.collect(request.into_body(), length).await?;
    let of_key = key.is_some();
    let read = move |bytes: &Bytes| -> Result<(Decoded, Option<BodyFingerprint>), Problem> {
        let decoded = decode_of_entity(&stream, bytes, arriving_now(), &id)?;
        Ok((decoded, of_key.then(|| BodyFingerprint::of_append(&id, [&bytes[..]]))))
    };
    let (decoded, fingerprint) = endpoint.read(body, (encoding, content), read).await?;
    if decoded.rejected() > 0 {
        return Err(refusal::rejected_append(&decoded));
    }
    match decoded.rows.num_rows() {
        0 => return Err(Problem::new(Code::InvalidBody, "the body has no event: send at least one")),
        1..=ENTITY_APPEND_EVENTS_MAX => {}
        count => {
            let detail = format!("{count} events; an append has at most {ENTITY_APPEND_EVENTS_MAX}");
            return Err(Problem::new(Code::TooLarge, detail));
        }
    }
    let Decoded { rows, id_hashes, unknown_fields, .. } = decoded;
    let key = key.zip(fingerprint).map(|(key, body)| IdempotencyKey { key, body });
    let mut verdicts = writer.append_each(vec![EntityEvents { rows, id_hashes, entity, expected, key }]).await?;
    let receipt = verdicts.pop().expect("one verdict per append")?;
    let result = AppendResult::new(receipt, unknown_fields);
    let last_sequence = result.last_sequence;
    let tag = HeaderValue::try_from(refusal::sequence_tag(last_sequence)).expect("digits in quotes");
    Ok(([(header::ETAG, tag)], Json(result)).into_response())
}

/// Reads the condition of an append from `If-Match` or `If-None-Match`.
fn expected_sequence(headers: &HeaderMap) -> Result<Option<ExpectedSequence>, Problem> {
    let given = |name: HeaderName| -> Result<Option<&str>, Problem> {
        let mut values = headers.get_all(&name).iter();
        let (first, second) = (values.next(), values.next());
        let text = first.map(|value| value.to_str().map(str::trim));
        match (text, second) {
            (None, _) => Ok(None),
            (Some(Ok(text)), None) => Ok(Some(text)),
            _ => Err(refusal::bad_condition(name.as_str())),
        }
    };
    match (given(header::IF_MATCH)?, given(header::IF_NONE_MATCH)?) {
        (None, None) => Ok(None),
        (None, Some("*")) => Ok(Some(ExpectedSequence::Exactly(0))),
        (Some("*"), None) => Ok(Some(ExpectedSequence::Any)),
        (Some(tag), None) => {
            let digits = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let sequence = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            let sequence = sequence.and_then(|digits| digits.parse().ok());
            sequence
                .map(|sequence| Some(ExpectedSequence::Exactly(sequence)))
                .ok_or_else(|| refusal::bad_condition("If-Match"))
        }
        _ => Err(refusal::bad_condition("If-Match or If-None-Match")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(headers: &[(HeaderName, &'static str)]) -> Result<Option<ExpectedSequence>, u16> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        expected_sequence(&headers.collect()).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn conditions_are_strong_tags_of_one_sequence() {
        use ExpectedSequence::{Any, Exactly};
        assert_eq!(expected(&[]), Ok(None));
        assert_eq!(expected(&[(header::IF_MATCH, "\"7\"")]), Ok(Some(Exactly(7))));
        assert_eq!(expected(&[(header::IF_MATCH, "\"0\"")]), Ok(Some(Exactly(0))));
        assert_eq!(expected(&[(header::IF_MATCH, "*")]), Ok(Some(Any)));
        assert_eq!(expected(&[(header::IF_NONE_MATCH, "*")]), Ok(Some(Exactly(0))));
        for wrong in ["7", "W/\"7\"", "\"7", "\"7\", \"8\"", "\"-1\"", "\"\"", "\"99999999999999999999\""] {
            assert_eq!(expected(&[(header::IF_MATCH, wrong)]), Err(400), "{wrong}");
        }
        assert_eq!(expected(&[(header::IF_NONE_MATCH, "\"7\"")]), Err(400));
        assert_eq!(expected(&[(header::IF_MATCH, "\"7\""), (header::IF_NONE_MATCH, "*")]), Err(400));
    }
}
