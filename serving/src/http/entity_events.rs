//! Returns the events of one entity: a page of them, or all from a sequence on and then each new one as a server-sent event.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use problem::{Code, Problem};
use serde_json::json;
use shared::control::StreamError;
use shared::entity::{EntityId, InvalidEntityId};
use shared::entity_reader::{EntityEvents, EntityReader, EventSelection};
use shared::handoff::HandoffError;
use shared::limits::{ENTITY_EVENTS_DEFAULT, ENTITY_EVENTS_MAX, ENTITY_SUBSCRIBERS_MAX, LIVE_HEARTBEAT_MS};
use shared::stream::Stream as EventStream;
use shared::time::Micros;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::{batch_unavailable, invalid_parameter};
use super::{parameters, streams};
use crate::formats::json_events::{self, EventWriter};
use crate::http::event_response::{LAST_EVENT_ID, event_response};
use crate::state::ServingState;

/// Clients reconnect 1,000 ms after a broken connection.
const OPENING: &[u8] = b"retry: 1000\n\n";
const HEARTBEAT: &[u8] = b": still here\n\n";
/// Events read at once for a subscriber.
const CHUNK_EVENTS: usize = 500;

/// Room for subscribers.
#[derive(Clone)]
pub struct EntitySubscribers(Arc<Semaphore>);

impl Default for EntitySubscribers {
    fn default() -> EntitySubscribers {
        EntitySubscribers(Arc::new(Semaphore::new(ENTITY_SUBSCRIBERS_MAX)))
    }
}

/// An entity that a path names.
#[derive(Debug, Clone)]
pub(super) struct NamedEntity {
    pub stream: Arc<EventStream>,
    pub id: EntityId,
}

impl NamedEntity {
    /// Finds the stream and reads the id; the problem `entity_erased` if the entity was erased.
    pub fn find(state: &ServingState, stream: &str, id: &str) -> Result<NamedEntity, Problem> {
        let entity = NamedEntity::parse(state, stream, id)?;
        entity.check_erased(state)?;
        Ok(entity)
    }

    /// Refuses if the entity was erased.
    pub fn check_erased(&self, state: &ServingState) -> Result<(), Problem> {
        let Some(at) = state.entities.erased_at(&self.stream.name, &self.id) else { return Ok(()) };
        let detail = format!("the entity \"{}\" of stream {} was erased at {at}", self.id, self.stream.name);
        Err(Problem::new(Code::EntityErased, detail))
    }

    /// Finds the stream and reads the id, erased or not.
    pub fn parse(state: &ServingState, stream: &str, id: &str) -> Result<NamedEntity, Problem> {
        let stream = find_stream(state, stream)?;
        let id = EntityId::parse(&stream, id).map_err(|error| match error {
            InvalidEntityId::NoEntity(_) => Problem::new(Code::NoEntity, error.to_string()),
            InvalidEntityId::Empty | InvalidEntityId::Type { .. } => invalid_parameter(error.to_string()),
        })?;
        Ok(NamedEntity { stream, id })
    }

    /// The last sequence; the problem `unknown_entity` if there is none.
    pub fn last_sequence(&self, state: &ServingState) -> Result<u64, Problem> {
        self.check_erased(state)?;
        match state.entities.last_sequence(&self.stream.name, &self.id) {
            0 => Err(self.unknown("has no events")),
            last => Ok(last),
        }
    }

    /// 404, with the tag under which a client may append the first event.
    pub fn unknown(&self, what: &str) -> Problem {
        let detail = format!("the entity \"{}\" of stream {} {what}", self.id, self.stream.name);
        Problem::new(Code::UnknownEntity, detail)
    }
}

/// Finds a stream with an entity.
pub(super) fn find_stream(state: &ServingState, name: &str) -> Result<Arc<EventStream>, Problem> {
    let unknown = || streams::problem(state, StreamError::UnknownStream(name.to_owned()));
    let stream = state.entities.stream(name).ok_or_else(unknown)?;
    match stream.entity {
        Some(_) => Ok(stream),
        None => Err(Problem::new(Code::NoEntity, InvalidEntityId::NoEntity(name.to_owned()).to_string())),
    }
}

/// The entity tag of an entity at a sequence: what `If-Match` of an append expects.
pub(super) fn sequence_tag(sequence: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{sequence}\"")).expect("digits in quotes")
}

/// Parses a number of a parameter, at least `least`.
pub(super) fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, Problem> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    let bounds = if most == u64::MAX { format!("from {least} on") } else { format!("from {least} to {most}") };
    number.ok_or_else(|| invalid_parameter(format!("{name}: expected a number {bounds}, found \"{text}\"")))
}

/// Parses a time of a parameter.
pub(super) fn time(name: &str, text: &str) -> Result<Micros, Problem> {
    Micros::parse(text)
        .ok_or_else(|| invalid_parameter(format!("{name}: \"{text}\" is not a time; use 2001-01-31T06:00:00Z")))
}

/// `GET /v1/entities/{stream}/{id}/events`: from a sequence on, or by the time at which they were accepted.
pub async fn events(
    State(state): State<ServingState>,
    Path((stream, id)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let entity = NamedEntity::find(&state, &stream, &id)?;
    let [from_sequence, limit, from, to] = parameters::only(&uri, ["from_sequence", "limit", "from", "to"])?;
    let mut selection = EventSelection::all(ENTITY_EVENTS_DEFAULT);
    if let Some(text) = from_sequence {
        selection.from_sequence = number("from_sequence", &text, 1, u64::MAX)?;
    }
    if let Some(text) = limit {
        selection.limit = number("limit", &text, 1, ENTITY_EVENTS_MAX as u64)? as usize;
    }
    if let Some(text) = from {
        selection.accepted_from = time("from", &text)?;
    }
    if let Some(text) = to {
        selection.accepted_before = time("to", &text)?;
    }
    // Before the events: the tag is never newer than they are.
    let last = entity.last_sequence(&state)?;
    let EntityEvents { rows, has_more } = read(&state, &entity, selection).await?;
    let next = if has_more { last_of(&entity.stream, &rows).map(|last| last + 1) } else { None };
    let mut body = format!(
        "{{\"stream\":\"{}\",\"id\":{},\"sequence\":{last},\"events\":",
        entity.stream.name,
        id_json(&entity.id)
    )
    .into_bytes();
    json_events::write(&rows, &mut body);
    body.extend_from_slice(format!(",\"next_sequence\":{}}}", json!(next)).as_bytes());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ETAG, sequence_tag(last)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok((headers, body).into_response())
}

/// Reads events of an entity.
pub(super) async fn read(
    state: &ServingState,
    entity: &NamedEntity,
    selection: EventSelection,
) -> Result<EntityEvents, Problem> {
    let events = state.entities.events(&entity.stream.name, &entity.id, selection).await.map_err(batch_unavailable)?;
    // It may have been erased while they were read.
    entity.check_erased(state)?;
    Ok(events)
}

/// The sequence of the last of some events.
pub(super) fn last_of(stream: &EventStream, rows: &arrow::array::RecordBatch) -> Option<u64> {
    use arrow::array::AsArray;
    let sequences = rows.column(stream.sequence()?).as_primitive::<arrow::datatypes::Int64Type>();
    sequences.values().last().and_then(|sequence| u64::try_from(*sequence).ok())
}

/// The id as JSON: a text or a number.
pub(super) fn id_json(id: &EntityId) -> String {
    match id {
        EntityId::Text(text) => json!(text).to_string(),
        EntityId::Integer(number) => number.to_string(),
    }
}

/// `GET /v1/entities/{stream}/{id}/live`: the events from `from_sequence` on, or after `Last-Event-ID`, and then each new
/// one. The id of an event is its sequence.
pub async fn live(
    State(state): State<ServingState>,
    Path((stream, id)): Path<(String, String)>,
    Extension(subscribers): Extension<EntitySubscribers>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let entity = NamedEntity::find(&state, &stream, &id)?;
    let [from_sequence] = parameters::only(&uri, ["from_sequence"])?;
    let from_sequence = from_sequence.map(|text| number("from_sequence", &text, 1, u64::MAX)).transpose()?;
    let seen = match headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or_default()) {
        Some(text) => Some(number("Last-Event-ID", text, 0, u64::MAX)?),
        None => None,
    };
    let permit = Arc::clone(&subscribers.0).try_acquire_owned().map_err(|_| {
        let detail = format!("the limit of {ENTITY_SUBSCRIBERS_MAX} subscribers of entities is reached; retry later");
        Problem::new(Code::TooManyLiveAnswers, detail)
    })?;
    let after = seen.unwrap_or_else(|| from_sequence.map_or(0, |from| from - 1));
    let subscription =
        Subscription { entities: Arc::clone(&state.entities), entity, after, opened: false, _permit: permit };
    Ok(event_response(event_stream(subscription)))
}

/// A subscriber of one entity.
struct Subscription {
    entities: Arc<dyn EntityReader>,
    entity: NamedEntity,
    /// Sequence of the last event sent.
    after: u64,
    opened: bool,
    _permit: OwnedSemaphorePermit,
}

impl Subscription {
    /// The next events, or a heartbeat if none came for a while; `None`: the log has stopped, or the entity was erased.
    async fn next(&mut self) -> Result<Option<Bytes>, HandoffError> {
        if !self.opened {
            self.opened = true;
            return Ok(Some(Bytes::from_static(OPENING)));
        }
        let NamedEntity { stream, id } = &self.entity;
        let silence = Duration::from_millis(LIVE_HEARTBEAT_MS);
        match tokio::time::timeout(silence, self.entities.beyond(&stream.name, id, self.after)).await {
            Err(_) => return Ok(Some(Bytes::from_static(HEARTBEAT))),
            Ok(None) => return Ok(None),
            Ok(Some(_)) => {}
        }
        let selection = EventSelection { from_sequence: self.after + 1, ..EventSelection::all(CHUNK_EVENTS) };
        let events = self.entities.events(&stream.name, id, selection).await?;
        if self.entities.erased_at(&stream.name, id).is_some() {
            return Ok(None);
        }
        let last = last_of(stream, &events.rows);
        let mut text = Vec::new();
        let writer = EventWriter::new(&events.rows);
        for row in 0..events.rows.num_rows() {
            let sequence = last_of(stream, &events.rows.slice(row, 1)).unwrap_or_default();
            text.extend_from_slice(format!("id: {sequence}\nevent: event\ndata: ").as_bytes());
            writer.write(row, &mut text);
            text.extend_from_slice(b"\n\n");
        }
        self.after = last.unwrap_or_else(|| self.entities.last_sequence(&stream.name, id)).max(self.after);
        Ok(Some(text.into()))
    }
}

fn event_stream(subscription: Subscription) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(subscription, |mut subscription| async move {
        match subscription.next().await {
            Ok(next) => next.map(|bytes| (Ok(bytes), subscription)),
            // The client connects again, and continues after the last event it has.
            Err(error) => {
                tracing::warn!(%error, stream = %subscription.entity.stream.name, "cannot read events of an entity; the subscription ends");
                None
            }
        }
    })
}
