//! How does a reader get figures? Pin, answer, write; large answers away from the threads that serve others.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use problem::{Code, Problem};
use shared::time::Micros;

use super::parameters;
use super::ranges::{self, KeptAnswers, Whole};
use super::refusal::invalid_parameter;
use super::response_cache::RepeatedAnswers;
use crate::admission::Making;
use crate::answer::answer;
use crate::entity_tag::EntityTag;
use crate::formats::json::About;
use crate::formats::{Format, arrow_stream, csv, json, ndjson, parquet};
use crate::pin::{Pinned, ReadError, pin};
use crate::query::as_of::AsOf;
use crate::query::{Query, Shape};
use crate::state::ServingState;

/// Rows and keys that a query may look at on the thread that took the request: less than a millisecond of work.
const INLINE_ROWS_MAX: usize = 20_000;

const VERSION: HeaderName = HeaderName::from_static("trueup-version");
const SEAM: HeaderName = HeaderName::from_static("trueup-seam");
const WATERMARK: HeaderName = HeaderName::from_static("trueup-watermark");
const COMPLETE: HeaderName = HeaderName::from_static("trueup-complete");
const AS_OF: HeaderName = HeaderName::from_static("trueup-as-of");
const TRUNCATED: HeaderName = HeaderName::from_static("trueup-truncated");
const NEXT: HeaderName = HeaderName::from_static("trueup-next");

/// `GET /v1/views/{view}/rows`: the format is that of `Accept`.
pub async fn negotiated(
    state: State<ServingState>,
    view: Path<String>,
    kept: Extension<Arc<KeptAnswers>>,
    request: Parts,
) -> Result<Response, Problem> {
    let accept = request.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let Some(format) = Format::accepted(accept) else {
        let detail = "rows come as application/json, application/x-ndjson, text/csv, application/vnd.apache.parquet or \
                      application/vnd.apache.arrow.stream";
        return Err(Problem::new(Code::NotAcceptable, detail));
    };
    let mut response = rows(&state, view, &kept, request, format).await?;
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// `GET /v1/views/{view}/rows.json` and the other extensions.
pub async fn in_format(
    format: Format,
    state: State<ServingState>,
    view: Path<String>,
    kept: Extension<Arc<KeptAnswers>>,
    request: Parts,
) -> Result<Response, Problem> {
    rows(&state, view, &kept, request, format).await
}

async fn rows(
    state: &ServingState,
    Path(view): Path<String>,
    kept: &KeptAnswers,
    request: Parts,
    format: Format,
) -> Result<Response, Problem> {
    if format != Format::Parquet || !ranges::in_pieces(&request.method, &request.headers) {
        return made(state, view, &request, format).await?.response(&request, format);
    }
    let url = request.uri.to_string();
    let whole = match kept.get(&url) {
        Some(whole) => whole,
        None => match made(state, view, &request, format).await? {
            Made::New(whole) => {
                kept.keep(&url, whole.clone());
                whole
            }
            unchanged => return unchanged.response(&request, format),
        },
    };
    Ok(whole.piece(&request.headers))
}

/// An answer, if it had to be made.
enum Made {
    New(Whole),
    Unchanged(EntityTag),
}

impl Made {
    fn response(self, request: &Parts, format: Format) -> Result<Response, Problem> {
        match self {
            Made::Unchanged(tag) => Ok(tag.not_modified()),
            Made::New(whole) if format == Format::Parquet => Ok(whole.piece(&request.headers)),
            Made::New(Whole { headers, body }) => {
                let mut response = Response::new(Body::from(body));
                *response.headers_mut() = headers;
                Ok(response)
            }
        }
    }
}

async fn made(state: &ServingState, view: String, request: &Parts, format: Format) -> Result<Made, Problem> {
    let started = Instant::now();
    let parameters = parameters::all(&request.uri)?;
    let now = state.clock.now();
    let (query, pinned) = match pin(&state.doors(), &view, &parameters, now).await {
        Err(ReadError::UnknownView(name)) => return Err(state.unknown_view(&name)),
        pinned => pinned?,
    };
    if query.shape == Shape::Rows && format != Format::Json {
        return Err(invalid_parameter("shape: only JSON has shapes"));
    }
    let tag = EntityTag::of(&query, &pinned, format.content_type());
    if tag.is_known(&request.headers) {
        return Ok(Made::Unchanged(tag));
    }
    let repeated = request.extensions.get::<Arc<RepeatedAnswers>>();
    if let Some(whole) = repeated.and_then(|repeated| repeated.get(&tag)) {
        metrics::counter!("trueup_queries_repeated_total", "view" => view).increment(1);
        return Ok(Made::New(whole));
    }
    let as_of = match query.as_of {
        Some(AsOf::At(time)) => Micros(time),
        _ => pinned.past.as_ref().map_or_else(|| state.clock.now(), |past| past.version.published_at),
    };
    let mut whole = if runs_inline(&query, &pinned) {
        write(&query, &pinned, &state.queries.at_once(), format, as_of)?
    } else {
        let work = move |making: &Making| write(&query, &pinned, making, format, as_of);
        state.queries.make(started, work).await??
    };
    tag.describe(&mut whole.headers);
    if let Some(repeated) = repeated {
        repeated.keep(&tag, &whole);
    }
    metrics::histogram!("trueup_query_duration_seconds", "view" => view).record(started.elapsed().as_secs_f64());
    Ok(Made::New(whole))
}

/// Polars refuses to evaluate on a thread that drives async tasks, so only queries that need no evaluation, and little
/// work, are answered where they came in.
fn runs_inline(query: &Query, pinned: &Pinned) -> bool {
    let view = pinned.published.view.as_ref();
    let composed = view.measures.iter().any(|m| m.expression.as_column().is_none());
    let filtered = query.filter.is_some() || query.shown.is_some() || view.having.is_some();
    !filtered && !composed && pinned.work(query) <= INLINE_ROWS_MAX
}

fn write(query: &Query, pinned: &Pinned, making: &Making, format: Format, as_of: Micros) -> Result<Whole, Problem> {
    let answer = answer(query, pinned, making)?;
    let body = match format {
        Format::Json => json::write(&answer, &About { pinned, layer: query.layer, as_of }, query.shape),
        Format::Ndjson => ndjson::write(&answer),
        Format::Csv => csv::write(&answer),
        Format::Parquet => parquet::write(&answer)?,
        Format::Arrow => arrow_stream::write(&answer)?,
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    describe(pinned, as_of, answer.next.as_deref(), &mut headers);
    Ok(Whole { headers, body: body.into() })
}

/// What every format's answer was read from, for those that have no place for it in the body.
fn describe(pinned: &Pinned, as_of: Micros, next: Option<&str>, headers: &mut HeaderMap) {
    let mut insert = |name, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    if let Some(version) = &pinned.published.version {
        insert(VERSION, version.version.to_string());
    }
    let offsets = pinned.published.seam.0.iter().map(|(partition, point)| format!("{partition}:{}", point.offset));
    insert(SEAM, offsets.collect::<Vec<_>>().join(","));
    if let Some(watermark) = pinned.speed.watermark {
        insert(WATERMARK, watermark.to_string());
    }
    insert(AS_OF, as_of.to_string());
    insert(COMPLETE, pinned.complete.to_string());
    insert(TRUNCATED, next.is_some().to_string());
    if let Some(next) = next {
        insert(NEXT, next.to_owned());
    }
}
