//! Describes streams and lists events that were late, ahead or rejected, as intake reports them.

use std::time::Duration;

use auth::{Access, Action};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::control::{EventKind, EventPage, ListRange, StreamError, StreamStatus};
use shared::ids::{Offset, Partition};
use shared::limits::{LIST_ENTRIES_DEFAULT, LIST_ENTRIES_MAX};
use shared::time::Micros;
use utoipa::ToSchema;

use super::refusal::{batch_unavailable, internal, invalid_parameter, json_body};
use super::{json, parameters};
use crate::formats::json_events;
use crate::pin::pin_speed;
use crate::state::ServingState;
use shared::sql::suggest::in_parentheses as did_you_mean;

#[derive(Serialize, ToSchema)]
#[schema(as = Streams)]
pub(super) struct StreamList {
    streams: Vec<StreamStatus>,
}

/// `GET /v1/streams`.
pub async fn list(State(state): State<ServingState>, access: Access) -> Response {
    json(&StreamList { streams: state.visible_streams(&access) })
}

/// `GET /v1/streams/{stream}`.
pub async fn describe(
    State(state): State<ServingState>,
    access: Access,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let streams = state.visible_streams(&access);
    if let Some(stream) = streams.iter().find(|stream| stream.name.as_str() == name) {
        return Ok(json(stream));
    }
    // A stream that exists for others only.
    if state.streams.list().iter().any(|stream| stream.name.as_str() == name) {
        access.require(Action::Ingest, &name)?;
    }
    Err(problem(&state, StreamError::UnknownStream(name)))
}

/// `GET /v1/streams/{stream}/late`.
pub async fn late(state: State<ServingState>, name: Path<String>, uri: Uri) -> Result<Response, Problem> {
    events(state, name, uri, EventKind::Late).await
}

/// `GET /v1/streams/{stream}/ahead`.
pub async fn ahead(state: State<ServingState>, name: Path<String>, uri: Uri) -> Result<Response, Problem> {
    events(state, name, uri, EventKind::Ahead).await
}

/// The events of a stream that views exclude because an expression failed for them.
#[derive(Serialize, ToSchema)]
#[schema(as = FailedEvents)]
pub(super) struct FailedEventList {
    stream: String,
    /// Over all views: an event counts once for each view that excludes it.
    total: u64,
    events: Vec<ListedFailure>,
}

/// An event that a view excludes.
#[derive(Serialize, ToSchema, PartialEq, Eq, PartialOrd, Ord)]
struct ListedFailure {
    view: String,
    partition: Partition,
    offset: Offset,
    event_time: Option<Micros>,
    reason: String,
}

/// `GET /v1/streams/{stream}/failed`: some of the events of each view, by position.
pub async fn failed(State(state): State<ServingState>, Path(name): Path<String>) -> Result<Response, Problem> {
    if !state.streams.list().iter().any(|stream| stream.name.as_str() == name) {
        return Err(problem(&state, StreamError::UnknownStream(name)));
    }
    let (mut total, mut events) = (0, Vec::new());
    let views = state.views.all().into_iter().filter(|published| published.stream.name.as_str() == name);
    for view in views.map(|published| published.view.name.to_string()) {
        let (published, pin) = pin_speed(&state.readers(), &view).await?;
        let in_batch = published.version.iter().map(|version| &version.failed);
        let in_speed = pin.generations.iter().map(|generation| &*generation.failed_events);
        for failed in in_batch.chain(in_speed) {
            total += failed.events();
            events.extend(failed.listed().map(|event| ListedFailure {
                view: view.clone(),
                partition: event.partition,
                offset: event.offset,
                event_time: event.event_time,
                reason: event.reason.clone(),
            }));
        }
    }
    events.sort_unstable();
    Ok(json(&FailedEventList { stream: name, total, events }))
}

/// `GET /v1/streams/{stream}/quarantine`.
pub async fn quarantine(
    State(state): State<ServingState>,
    Path(name): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let range = range(&uri)?;
    state.streams.quarantine(&name, &range).map(|page| json(&page)).map_err(|error| problem(&state, error))
}

/// `DELETE /v1/streams/{stream}/quarantine`: returns the number of lines removed.
pub async fn empty_quarantine(
    State(state): State<ServingState>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let streams = state.streams.clone();
    let removed = tokio::task::spawn_blocking(move || streams.empty_quarantine(&name)).await;
    let removed = removed.map_err(|error| internal(&error))?;
    removed.map(|removed| json(&json!({ "removed": removed }))).map_err(|error| problem(&state, error))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CompactionRequest {
    vacuum_older_than_ms: Option<u64>,
}

/// `POST /v1/streams/{stream}/compact`: rewrites small files of the archive into larger ones and waits until it is done.
/// With `vacuum_older_than_ms` it also deletes files that have been unused for that long.
pub async fn compact(
    State(state): State<ServingState>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let wanted: CompactionRequest = json_body(&body, "{\"vacuum_older_than_ms\": number}")?;
    let compacted = state.runs.compact(&name, wanted.vacuum_older_than_ms.map(Duration::from_millis)).await;
    let compacted = compacted.map_err(batch_unavailable)?;
    compacted.map(|compacted| json(&compacted)).ok_or_else(|| problem(&state, StreamError::UnknownStream(name)))
}

async fn events(
    State(state): State<ServingState>,
    Path(name): Path<String>,
    uri: Uri,
    kind: EventKind,
) -> Result<Response, Problem> {
    let range = range(&uri)?;
    let page = state.streams.events(&name, kind, &range).map_err(|error| problem(&state, error))?;
    let EventPage { total, kept, kept_max, rows, next } = page;
    let mut body = format!(
        "{{\"stream\":\"{name}\",\"total\":{total},\"kept\":{kept},\"kept_max\":{kept_max},\"listed\":{},\"events\":",
        rows.num_rows()
    )
    .into_bytes();
    json_events::write(&rows, &mut body);
    body.extend_from_slice(format!(",\"next\":{}}}", json!(next)).as_bytes());
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// `limit` and `cursor`.
fn range(uri: &Uri) -> Result<ListRange, Problem> {
    let [limit, cursor] = parameters::only(uri, ["limit", "cursor"])?;
    let limit = match limit {
        None => LIST_ENTRIES_DEFAULT,
        Some(text) => {
            let limit = text.parse().ok().filter(|limit| (1..=LIST_ENTRIES_MAX).contains(limit));
            let invalid = || format!("limit: expected a number from 1 to {LIST_ENTRIES_MAX}, found \"{text}\"");
            limit.ok_or_else(|| invalid_parameter(invalid()))?
        }
    };
    Ok(ListRange { limit, cursor })
}

pub(super) fn problem(state: &ServingState, error: StreamError) -> Problem {
    let detail = error.to_string();
    match error {
        StreamError::UnknownStream(name) => {
            let streams = state.streams.list();
            let hint = did_you_mean(&name, streams.iter().map(|s| s.name.as_str()));
            Problem::new(Code::UnknownStream, format!("{detail}{hint}"))
        }
        StreamError::BadCursor(_) => invalid_parameter(detail),
        StreamError::Failed(_) => internal(&error),
    }
}
