//! Serves `POST /v1/entities/{stream}`: many appends in one request, each accepted or refused on its own. A client with
//! many commands per second shares the cost of a request among them.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Json;
use bytes::Bytes;
use problem::{Code, Problem};
use serde::Serialize;
use shared::entity::{EntityId, InvalidEntityId};
use utoipa::ToSchema;

use super::content_type::ContentType;
use super::encoding::Encoding;
use super::entities::AppendResult;
use super::{AppendVerdict, EntityEvents, EventsEndpoint, arriving_now, refusal};
use crate::decode::{AppendsError, Decoded, DecodedAppend, DecodedAppends, Rejection, decode_appends};
use crate::event_id::hash_entity;
use crate::partition::SubmitError;

/// Headers of an append to one entity, and the members of an append that replace them here.
const MEMBERS: [(&str, &str); 3] =
    [("if-match", "if_match"), ("if-none-match", "if_none_match"), ("idempotency-key", "idempotency_key")];

/// The response to a request with many appends.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AppendsResult {
    /// Appends that succeeded.
    succeeded: u64,
    /// Appends that were refused; nothing of them was written.
    refused: u64,
    /// One outcome for each append, in the order of the body.
    appends: Vec<AppendOutcome>,
}

/// The outcome of one append.
#[derive(Debug, Serialize, ToSchema)]
struct AppendOutcome {
    #[schema(value_type = String)]
    id: EntityId,
    /// The status that the append would have had in a request of its own.
    status: u16,
    /// Set if it succeeded.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    result: Option<AppendResult>,
    /// Set if it was refused.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    refusal: Option<AppendRefusal>,
}

/// Why an append was refused.
#[derive(Debug, Serialize, ToSchema)]
struct AppendRefusal {
    /// The name of the problem for programs.
    code: &'static str,
    /// One sentence for people.
    detail: String,
    /// The entity's last sequence, if the append expected another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// The rejected events, by their number in the append; only the first 100 of the whole request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejections: Vec<Rejection>,
}

/// `POST /v1/entities/{stream}`.
pub(super) async fn append_each(
    State(endpoint): State<EventsEndpoint>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<AppendsResult>, Problem> {
    let Some(writer) = endpoint.streams.stream(&name) else {
        return Err(refusal::unknown_stream(&name, &endpoint.streams.stream_names()));
    };
    let stream = Arc::clone(writer.stream());
    if stream.entity.is_none() {
        return Err(refusal::invalid_entity(&InvalidEntityId::NoEntity(name)));
    }
    if let Some(query) = request.uri().query().filter(|query| !query.is_empty()) {
        return Err(refusal::bad_query(&format!("appends have no parameters, found \"{query}\"")));
    }
    let content = ContentType::of(request.headers()).map_err(|name| refusal::unsupported_type(&name))?;
    if content != ContentType::Json {
        return Err(Problem::new(Code::UnsupportedType, "appends are JSON: one append per line"));
    }
    let encoding = Encoding::of(request.headers()).map_err(|name| refusal::unsupported_encoding(&name))?;
    refuse_headers(request.headers())?;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = endpoint.bodies.collect(request.into_body(), length).await?;
    let read = move |bytes: &Bytes| -> Result<DecodedAppends, Problem> {
        decode_appends(&stream, bytes, arriving_now()).map_err(Problem::from)
    };
    let DecodedAppends { events, appends } = endpoint.read(body, (encoding, content), read).await?;
    let submitted = appends.iter().filter(|append| append.rejected == 0).map(|append| events_of(append, &events));
    let mut verdicts = writer.append_each(submitted.collect()).await?.into_iter();
    let outcome = |append: DecodedAppend| match append.rejected {
        0 => AppendOutcome::of(append, verdicts.next().expect("one verdict per append")),
        _ => AppendOutcome::rejected(append),
    };
    let appends: Vec<AppendOutcome> = appends.into_iter().map(outcome).collect();
    let refused = appends.iter().filter(|outcome| outcome.refusal.is_some()).count() as u64;
    Ok(Json(AppendsResult { succeeded: appends.len() as u64 - refused, refused, appends }))
}

/// Returns the events of an append, none of which was rejected.
fn events_of(append: &DecodedAppend, events: &Decoded) -> EntityEvents {
    let (start, rows) = (append.rows.start, append.rows.len());
    EntityEvents {
        rows: events.rows.slice(start, rows),
        id_hashes: events.id_hashes.as_ref().map(|hashes| hashes[append.rows.clone()].to_vec()),
        entity: hash_entity(&append.id),
        expected: append.expected,
        key: append.key.clone(),
    }
}

/// Refuses the headers of an append to one entity, which do not say to which append they apply.
fn refuse_headers(headers: &HeaderMap) -> Result<(), Problem> {
    match MEMBERS.iter().find(|(header, _)| headers.contains_key(*header)) {
        None => Ok(()),
        Some((header, member)) => {
            let detail = format!("{header} does not apply to many appends: set \"{member}\" in each append instead");
            Err(Problem::new(Code::InvalidParameter, detail))
        }
    }
}

impl AppendOutcome {
    fn of(append: DecodedAppend, verdict: AppendVerdict) -> AppendOutcome {
        let DecodedAppend { id, unknown_fields, .. } = append;
        let error = match verdict {
            Ok(receipt) => {
                let result = AppendResult::new(receipt, unknown_fields);
                return AppendOutcome { id, status: 200, result: Some(result), refusal: None };
            }
            Err(error) => error,
        };
        let sequence = match error {
            SubmitError::SequenceConflict { current, .. } => Some(current),
            _ => None,
        };
        AppendOutcome::refused(id, &Problem::from(error), sequence, Vec::new())
    }

    fn rejected(append: DecodedAppend) -> AppendOutcome {
        let DecodedAppend { id, rows, rejected, rejections, .. } = append;
        let problem = refusal::rejected_events(rejected, rejected + rows.len() as u64);
        AppendOutcome::refused(id, &problem, None, rejections)
    }

    fn refused(id: EntityId, problem: &Problem, sequence: Option<u64>, rejections: Vec<Rejection>) -> AppendOutcome {
        let (code, detail) = (problem.code().name(), problem.detail().to_owned());
        let refusal = Some(AppendRefusal { code, detail, sequence, rejections });
        AppendOutcome { id, status: problem.status().as_u16(), result: None, refusal }
    }
}

impl From<AppendsError> for Problem {
    fn from(error: AppendsError) -> Problem {
        let detail = error.to_string();
        match error {
            AppendsError::Line { line, .. } => Problem::new(Code::InvalidBody, detail).with("line", line),
            AppendsError::Empty => Problem::new(Code::InvalidBody, detail),
            AppendsError::TooMany { .. } => Problem::new(Code::TooLarge, detail),
            AppendsError::TooManyEvents { line, .. } => Problem::new(Code::TooLarge, detail).with("line", line),
            AppendsError::Events(error) => Problem::from(error),
        }
    }
}
