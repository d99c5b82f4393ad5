//! Maps paths to endpoints and pages, and adds what all of them share: compression, bounds, origins, problems for refusals.

use std::sync::Arc;

use auth::Access;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Extension, Router, middleware};
use problem::{Code, Problem};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use crate::bounded_responses::{Completion, complete, count};
use crate::formats::Format;
use crate::http::entity_events::EntitySubscribers;
use crate::http::perimeter::{Entrance, Gate};
use crate::http::ranges::RangeCache;
use crate::http::response_cache::ResponseCache;
use crate::http::{
    Perimeter, alerts, drift, entities, entity_events, erasures, health, live, parameters, perimeter, rows, runs,
    sinks, streams, tables, views,
};
use crate::page::{self, login};
use crate::push::Feeds;
use crate::small_bodies;
use crate::state::ServingState;

/// Bodies smaller than this many bytes are sent uncompressed: compressing them costs more than it saves.
const COMPRESSED_BYTES_MIN: u16 = 1024;

/// Returns all routes of the server: those of this layer, the pages, and `others`, the endpoints of other layers.
/// `outside` decides which requests reach them.
pub fn routes(state: ServingState, others: Router, outside: &Perimeter) -> Router {
    let compressed = SizeAbove::new(COMPRESSED_BYTES_MIN)
        .and(NotForContentType::const_new("application/vnd.apache.parquet"))
        .and(NotForContentType::SSE);
    let admission = Arc::clone(&state.admission);
    let counted = middleware::from_fn_with_state(Arc::clone(&admission), count);
    Router::new()
        .route("/v1/views", plain(get(views::list)))
        .route("/v1/views/{view}", plain(get(views::describe)))
        .route("/v1/views/{view}/rows", get(rows::negotiated))
        .route("/v1/views/{view}/rows.json", rows_in(Format::Json))
        .route("/v1/views/{view}/rows.ndjson", rows_in(Format::Ndjson))
        .route("/v1/views/{view}/rows.csv", rows_in(Format::Csv))
        .route("/v1/views/{view}/rows.parquet", rows_in(Format::Parquet))
        .route("/v1/views/{view}/rows.arrow", rows_in(Format::Arrow))
        .route("/v1/views/{view}/live", get(live::live))
        .route("/v1/views/{view}/compare", get(views::compare))
        .route("/v1/views/{view}/drift", get(drift::drift))
        .route("/v1/views/{view}/versions", plain(get(views::versions)))
        .route("/v1/views/{view}/runs", plain(post(runs::request)))
        .route("/v1/views/{view}/checkpoints", plain(post(runs::checkpoint)))
        .route("/v1/views/{view}/vacuum", plain(post(runs::vacuum)))
        .route("/v1/runs", get(runs::list))
        .route("/v1/runs/{run}", plain(get(runs::describe).delete(runs::cancel)))
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/alerts/live", plain(get(alerts::live)))
        .route("/v1/alerts/dead_letters", plain(get(alerts::dead_letters)))
        .route("/v1/alerts/silences", plain(get(alerts::silences).post(alerts::silence)))
        .route("/v1/alerts/silences/{silence}", plain(delete(alerts::unsilence)))
        .route("/v1/sinks", plain(get(sinks::list)))
        .route("/v1/sinks/{sink}", plain(get(sinks::describe)))
        .route("/v1/sinks/{sink}/pause", plain(post(sinks::pause)))
        .route("/v1/sinks/{sink}/resume", plain(post(sinks::resume)))
        .route("/v1/streams", plain(get(streams::list)))
        .route("/v1/streams/{stream}/compact", plain(post(streams::compact)))
        .route("/v1/streams/{stream}", plain(get(streams::describe)))
        .route("/v1/streams/{stream}/late", get(streams::late))
        .route("/v1/streams/{stream}/ahead", get(streams::ahead))
        .route("/v1/streams/{stream}/failed", plain(get(streams::failed)))
        .route(
            "/v1/streams/{stream}/quarantine",
            get(streams::quarantine).merge(plain(delete(streams::empty_quarantine))),
        )
        .route("/v1/tables/{stream}/rows", get(tables::rows))
        .route("/v1/tables/{stream}/rows/{key}", get(tables::row))
        .route("/v1/entities/{stream}", get(entities::list))
        .route("/v1/entities/{stream}/{id}", get(entities::describe).delete(erasures::erase))
        .route("/v1/erasures", plain(get(erasures::list)))
        .route("/v1/entities/{stream}/{id}/events", get(entity_events::events))
        .route("/v1/entities/{stream}/{id}/live", get(entity_events::live))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/login", get(login::page).post(login::log_in))
        .route("/logout", post(login::log_out))
        .merge(page::routes())
        .fallback(unknown_path)
        .with_state(state)
        // A request passes the layers of a tuple from first to last. As calls of their own, each layer would put the route into a
        // box, and every layer copies all boxes inside it for each request.
        .layer((
            middleware::from_fn_with_state(Completion::new(admission), complete),
            CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(compressed),
            counted.clone(),
            middleware::from_fn(small_bodies::read),
            Extension(Arc::new(ResponseCache::default())),
            Extension(alerts::AlertSubscribers::default()),
            Extension(EntitySubscribers::default()),
            Extension(Arc::new(Feeds::default())),
            Extension(Arc::new(RangeCache::default())),
        ))
        .merge(others.layer(counted))
        .layer((
            middleware::from_fn_with_state(Arc::new(Entrance::of(outside)), perimeter::enter),
            outside.origins.layer(),
            middleware::from_fn_with_state(Arc::new(Gate::of(outside)), perimeter::admit),
        ))
}

/// An endpoint without parameters.
fn plain(endpoint: MethodRouter<ServingState>) -> MethodRouter<ServingState> {
    endpoint.route_layer(middleware::from_fn(parameters::none))
}

/// The rows of a view in the format that the extension of the path names.
fn rows_in(format: Format) -> MethodRouter<ServingState> {
    get(move |state, view, access, kept, request| rows::in_format(format, state, view, access, kept, request))
}

/// Prefixes that people type for the pages, and the pages they mean.
const MISTYPED: [(&str, &str); 3] = [("/views/", "/view/"), ("/views", "/"), ("/stream", "/streams")];

/// 404: a page with links for browsers, a problem for all other clients. Paths that are close to a page lead there.
async fn unknown_path(State(state): State<ServingState>, access: Access, uri: Uri, headers: HeaderMap) -> Response {
    if let Some(target) = redirect_target(&uri) {
        return Redirect::permanent(&target).into_response();
    }
    if wants_html(&headers) {
        return page::not_found(&state, &access, format!("There is no page at {}", uri.path()));
    }
    let detail = format!("no such path: {}; GET /v1/views lists the views, /openapi.json all paths", uri.path());
    Problem::new(Code::UnknownPath, detail).into_response()
}

fn redirect_target(uri: &Uri) -> Option<String> {
    let path = uri.path();
    let target = MISTYPED.iter().find_map(|(typed, meant)| match typed.ends_with('/') {
        true => path.strip_prefix(typed).filter(|rest| !rest.is_empty()).map(|rest| format!("{meant}{rest}")),
        false => (path.trim_end_matches('/') == *typed).then(|| (*meant).to_owned()),
    })?;
    Some(match uri.query() {
        Some(query) => format!("{target}?{query}"),
        None => target,
    })
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|kind| {
        let (name, weight) = kind.split_once(';').unwrap_or((kind, ""));
        name.trim().eq_ignore_ascii_case("text/html") && !matches!(weight.trim(), "q=0" | "q=0.0")
    })
}
