//! Returns states of entities: the measures of the views that are keyed by the entity. The present state is a query of those
//! views; a state of the past is a fold of the entity's events up to it.

use std::sync::Arc;

use auth::{Access, Action};
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use problem::{Code, Problem};
use serde_json::json;
use shared::entity::EntityId;
use shared::entity_reader::EventSelection;
use shared::limits::ENTITY_EVENTS_MAX;
use shared::published::PublishedView;
use shared::sql::print_name;
use shared::stream::Stream;
use shared::time::Micros;
use shared::view::View;
use shared::window::Window;

use super::entity_events::{NamedEntity, find_stream, id_json, last_of, number, read, sequence_tag, time};
use super::ranges::RangeCache;
use super::refusal::{internal, invalid_parameter};
use super::{parameters, rows};
use crate::admission::QueryContext;
use crate::entity_fold::EntityFold;
use crate::entity_rows::readers_of;
use crate::execute::{QueryResult, execute};
use crate::formats::json_rows::RowWriter;
use crate::pin::{Arrival, PinnedQuery, ViewPin, pin};
use crate::query::bound::BoundQuery;
use crate::state::ServingState;

/// Attempts to read a state between two events of the entity. After the last, the tag is that of an earlier sequence, and an
/// append under it is refused.
const TRIES: usize = 5;

/// Whether the rows of a view are the entities of its stream: one dimension, the entity's column, and no window.
fn is_of_entities(view: &View, stream: &Stream) -> bool {
    let is_entity = |column: Option<usize>| column.is_some() && column == stream.entity;
    let keys: Vec<_> = view.dimensions.iter().map(|dimension| dimension.expression.as_column()).collect();
    view.stream == stream.name
        && view.window == Window::All
        && view.having.is_none()
        && matches!(keys.as_slice(), [key] if is_entity(*key))
}

/// The views with a row for each entity that a principal may read.
struct EntityViews {
    states: Vec<Arc<PublishedView>>,
    /// Those that are joined with tables have no states: a state of the past is a fold of the entity's events alone.
    joined: Vec<String>,
}

/// Refuses a principal that may see neither the stream nor a view of it: it learns nothing about the stream.
fn require_visible(state: &ServingState, access: &Access, stream: &str) -> Result<(), Problem> {
    let is_visible = access.may(Action::Read, stream)
        || access.may(Action::Ingest, stream)
        || state.views.all().iter().any(|published| {
            published.stream.name.as_str() == stream && access.may_see_view(published.view.name.as_str())
        });
    if is_visible || state.entities.stream(stream).is_none() { Ok(()) } else { access.require(Action::Read, stream) }
}

/// The views of entities that the principal may read; one of them, if it is named.
fn views_of(
    state: &ServingState,
    stream: &Stream,
    access: &Access,
    name: Option<&str>,
) -> Result<EntityViews, Problem> {
    let mut views = state.views.all();
    views.retain(|published| is_of_entities(&published.view, stream));
    let may_read = |published: &PublishedView| access.may(Action::Read, published.view.name.as_str());
    let joined = views.extract_if(.., |published| !published.view.joins.is_empty()).filter(|joined| may_read(joined));
    let joined: Vec<String> = joined.map(|published| published.view.name.to_string()).collect();
    if let Some(name) = name {
        if joined.iter().any(|joined| joined == name) {
            let detail = format!(
                "view: \"{name}\" is joined with tables, and states of entities are folds of their events alone; query its rows: \
                 /v1/views/{name}/rows"
            );
            return Err(invalid_parameter(detail));
        }
        let names: Vec<_> = views.iter().map(|published| published.view.name.to_string()).collect();
        views.retain(|published| published.view.name.as_str() == name);
        if views.is_empty() {
            let detail =
                format!("view: \"{name}\" has no row per entity of {}; those that have: {names:?}", stream.name);
            return Err(invalid_parameter(detail));
        }
        access.require(Action::Read, name)?;
    }
    let all = views.len();
    views.retain(|published| may_read(published));
    match views.is_empty() && all > 0 {
        true => Err(Problem::new(Code::MissingScope, "the key may read no view of the entities of this stream")),
        false => Ok(EntityViews { states: views, joined: if name.is_none() { joined } else { Vec::new() } }),
    }
}

/// `GET /v1/entities/{stream}/{id}`: the state now, or `as_of` a time, or at a `sequence`.
pub async fn describe(
    State(state): State<ServingState>,
    Path((stream, id)): Path<(String, String)>,
    access: Access,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    require_visible(&state, &access, &stream)?;
    let entity = NamedEntity::find(&state, &stream, &id)?;
    let [as_of, sequence, view] = parameters::only(&uri, ["as_of", "sequence", "view"])?;
    let EntityViews { states: views, joined } = views_of(&state, &entity.stream, &access, view.as_deref())?;
    let past = match (as_of, sequence) {
        (None, None) => None,
        (Some(text), None) => Some(PastState::At(time("as_of", &text)?)),
        (None, Some(text)) => Some(PastState::Sequence(number("sequence", &text, 1, u64::MAX)?)),
        (Some(_), Some(_)) => return Err(invalid_parameter("as_of: give a time or a sequence, not both")),
    };
    let answer = match past {
        None => present(&state, &entity, &views, &access).await?,
        Some(past) => {
            // A fold has no row filter.
            access.require_all_rows()?;
            fold(&state, &entity, &views, past).await?
        }
    };
    let tag = sequence_tag(answer.sequence);
    let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == tag);
    let described = [(header::ETAG, tag), (header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    if is_known && past.is_none() {
        return Ok((StatusCode::NOT_MODIFIED, described).into_response());
    }
    let body = answer.body(&entity, &joined);
    Ok((described, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A requested state of the past.
#[derive(Debug, Clone, Copy)]
enum PastState {
    /// After the events that were accepted until this time.
    At(Micros),
    /// After the event with this sequence.
    Sequence(u64),
}

/// The state of an entity: an object per view, by name; `null` if the view's WHERE excludes all of its events.
struct EntityState {
    sequence: u64,
    as_of: Option<Micros>,
    views: Vec<(String, Vec<u8>)>,
    complete: bool,
}

impl EntityState {
    /// `omitted`: views of the entity without a state.
    fn body(&self, entity: &NamedEntity, omitted: &[String]) -> Vec<u8> {
        let (stream, id, sequence) = (&entity.stream.name, id_json(&entity.id), self.sequence);
        let as_of = json!(self.as_of);
        let mut body = format!(
            "{{\"stream\":\"{stream}\",\"id\":{id},\"sequence\":{sequence},\"as_of\":{as_of},\"complete\":{},\"views\":{{",
            self.complete
        )
        .into_bytes();
        for (number, (name, row)) in self.views.iter().enumerate() {
            body.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(b"\":");
            body.extend_from_slice(row);
        }
        body.push(b'}');
        if !omitted.is_empty() {
            body.extend_from_slice(format!(",\"omitted_views\":{}", json!(omitted)).as_bytes());
        }
        body.push(b'}');
        body
    }
}

/// The present state, by the query of each view. The sequence is read before and after: if it is the same, the states are
/// exactly those after that event; else they are read again.
async fn present(
    state: &ServingState,
    entity: &NamedEntity,
    views: &[Arc<PublishedView>],
    access: &Access,
) -> Result<EntityState, Problem> {
    let mut tries = 0;
    loop {
        tries += 1;
        let sequence = entity.last_sequence(state)?;
        let mut answer = EntityState { sequence, as_of: None, views: Vec::new(), complete: true };
        for published in views {
            let (row, complete) = query(state, published, &entity.id, access).await?;
            answer.views.push((published.view.name.to_string(), row));
            answer.complete &= complete;
        }
        if tries == TRIES || entity.last_sequence(state)? == sequence {
            return Ok(answer);
        }
    }
}

/// The row of one entity in a view, and whether it accounts for every event. It includes every event that is durable when
/// the query starts.
async fn query(
    state: &ServingState,
    published: &PublishedView,
    id: &EntityId,
    access: &Access,
) -> Result<(Vec<u8>, bool), Problem> {
    let started = shared::clock::monotonic_now();
    let view = &published.view;
    // A row filter is an expression, and so a query like any other; without one the key finds the row.
    let permitted = access.row_filter().map(|filter| &**filter);
    let filter = format!("{} = {}", print_name(&view.dimensions[0].name), id.sql());
    let parameters = permitted.map(|_| ("where".to_owned(), filter));
    let arrival = Arrival { admission: &state.admission, since: started, is_live: false };
    let readers = match permitted {
        Some(_) => state.readers(),
        None => readers_of(state.readers(), view, id, &state.indexes).map_err(|error| internal(&error))?,
    };
    let pinned =
        pin(&readers, view.name.as_str(), parameters.as_slice(), permitted, state.clock.now(), arrival).await?;
    let PinnedQuery { query, pinned, admitted } = pinned;
    let run = move |query: &BoundQuery, pinned: &ViewPin, context: &QueryContext| -> Result<(Vec<u8>, bool), Problem> {
        let result = execute(query, pinned, context)?;
        let mut row = Vec::new();
        match result.rows() {
            0 => row.extend_from_slice(b"null"),
            _ => RowWriter::new(&result).write(0, &mut row),
        }
        Ok((row, QueryResult::is_complete(&result, pinned)))
    };
    if admitted.is_none() && rows::runs_inline(&query, &pinned) {
        return run(&query, &pinned, &state.admission.inline());
    }
    let admitted = match admitted {
        Some(admitted) => admitted,
        None => state.admission.admit(started).await?,
    };
    admitted.run(move |context: &QueryContext| run(&query, &pinned, context)).await?
}

/// A state of the past: the fold of the entity's events up to it, with exact measures.
async fn fold(
    state: &ServingState,
    entity: &NamedEntity,
    views: &[Arc<PublishedView>],
    past: PastState,
) -> Result<EntityState, Problem> {
    let last = entity.last_sequence(state)?;
    let mut selection = EventSelection::all(ENTITY_EVENTS_MAX);
    match past {
        PastState::At(time) => selection.accepted_before = Micros(time.0.saturating_add(1)),
        PastState::Sequence(sequence) if sequence > last => {
            return Err(invalid_parameter(format!("sequence: the entity's last is {last}, found {sequence}")));
        }
        PastState::Sequence(sequence) => selection.to_sequence = sequence,
    }
    let mut folds = Vec::with_capacity(views.len());
    for published in views {
        let fold = EntityFold::new(Arc::clone(&published.view), &entity.stream).map_err(|error| internal(&error))?;
        folds.push(fold);
    }
    let mut reached = 0;
    loop {
        let events = read(state, entity, selection).await?;
        if let Some(sequence) = last_of(&entity.stream, &events.rows) {
            reached = sequence;
        }
        let has_more = events.has_more;
        let folded = tokio::task::spawn_blocking(move || {
            folds.iter_mut().try_for_each(|fold| fold.add(&events.rows)).map(|()| folds)
        });
        folds = folded.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        if !has_more {
            break;
        }
        selection.from_sequence = reached + 1;
    }
    if reached == 0 {
        return Err(entity.unknown("had no events then"));
    }
    let names: Vec<String> = views.iter().map(|published| published.view.name.to_string()).collect();
    let complete = folds.iter().all(EntityFold::is_complete);
    let rows =
        tokio::task::spawn_blocking(move || folds.into_iter().map(EntityFold::row).collect::<Result<Vec<_>, _>>());
    let rows = rows.await.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
    let as_of = match past {
        PastState::At(time) => Some(time),
        PastState::Sequence(_) => None,
    };
    Ok(EntityState { sequence: reached, as_of, views: names.into_iter().zip(rows).collect(), complete })
}

/// `GET /v1/entities/{stream}`: the present states of all entities, as rows of a view, with the parameters of rows.
pub async fn list(
    state: State<ServingState>,
    Path(stream): Path<String>,
    access: Access,
    ranges: Extension<Arc<RangeCache>>,
    mut request: Parts,
) -> Result<Response, Problem> {
    require_visible(&state, &access, &stream)?;
    let stream = find_stream(&state, &stream)?;
    let (named, rest): (Vec<_>, Vec<_>) =
        parameters::all(&request.uri)?.into_iter().partition(|(name, _)| name == "view");
    let name = match named.as_slice() {
        [] => None,
        [(_, name)] => Some(name.as_str()),
        _ => return Err(invalid_parameter("view: must be given only once")),
    };
    let views = views_of(&state, &stream, &access, name)?.states;
    let mut rest = rest;
    if let [view] = views.as_slice() {
        leave_out(&view.view, &state.entities.erased_ids(&stream.name), &mut rest);
    }
    let view = match views.as_slice() {
        [view] => view.view.name.to_string(),
        [] => {
            let entity = &stream.columns[stream.entity.unwrap_or_default()].name;
            let detail =
                format!("no view has a row per entity: declare one with GROUP BY {entity} and without a window");
            return Err(Problem::new(Code::NotSupported, detail));
        }
        several => {
            let names: Vec<_> = several.iter().map(|published| published.view.name.as_str()).collect();
            return Err(invalid_parameter(format!("view: choose one of {}", names.join(", "))));
        }
    };
    request.uri = with_parameters(&request.uri, &rest)?;
    rows::negotiated(state, Path(view), access, ranges, request).await
}

/// Adds to `where` that rows are not of these entities: their erasure has not reached the figures yet.
fn leave_out(view: &View, erased: &[EntityId], parameters: &mut Vec<(String, String)>) {
    if erased.is_empty() {
        return;
    }
    let name = print_name(&view.dimensions[0].name);
    let ids: Vec<String> = erased.iter().map(EntityId::sql).collect();
    let others = format!("{name} NOT IN ({})", ids.join(", "));
    match parameters.iter_mut().find(|(name, _)| name == "where") {
        Some((_, condition)) => *condition = format!("({condition}) AND {others}"),
        None => parameters.push(("where".to_owned(), others)),
    }
}

/// The URI with these parameters only.
fn with_parameters(uri: &Uri, parameters: &[(String, String)]) -> Result<Uri, Problem> {
    let pairs: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    format!("{}?{}", uri.path(), pairs.join("&")).parse().map_err(|error| internal(&error))
}

/// A text percent-encoded for a query string.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
