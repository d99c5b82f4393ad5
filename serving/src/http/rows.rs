//! Returns the rows of a view: pins, executes and encodes a query; large ones on blocking threads.

use std::sync::Arc;

use auth::Access;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use problem::{Code, Problem};
use shared::time::Micros;

use super::parameters;
use super::ranges::{self, CompleteResponse, RangeCache};
use super::refusal::invalid_parameter;
use super::response_cache::ResponseCache;
use crate::admission::QueryContext;
use crate::entity_tag::EntityTag;
use crate::execute::{ExecuteError, QueryResult, execute};
use crate::formats::json::ResponseContext;
use crate::formats::{Format, arrow_stream, csv, json, ndjson, parquet};
use crate::pin::{Arrival, PinnedQuery, ReadError, ViewPin, pin};
use crate::query::bound::BoundQuery;
use crate::query::{Query, Shape};
use crate::state::ServingState;

/// Rows and keys that a query may read on the request's own thread: less than a millisecond of work.
const INLINE_ROWS_MAX: usize = 20_000;

const VERSION: HeaderName = HeaderName::from_static("trueup-version");
const SEAM: HeaderName = HeaderName::from_static("trueup-seam");
const WATERMARK: HeaderName = HeaderName::from_static("trueup-watermark");
const COMPLETE: HeaderName = HeaderName::from_static("trueup-complete");
const FAILED_ROWS: HeaderName = HeaderName::from_static("trueup-failed-rows");
const AS_OF: HeaderName = HeaderName::from_static("trueup-as-of");
const TRUNCATED: HeaderName = HeaderName::from_static("trueup-truncated");
const NEXT: HeaderName = HeaderName::from_static("trueup-next");

/// `GET /v1/views/{view}/rows`: in the format that `Accept` names.
pub async fn negotiated(
    state: State<ServingState>,
    view: Path<String>,
    access: Access,
    ranges: Extension<Arc<RangeCache>>,
    request: Parts,
) -> Result<Response, Problem> {
    let accept = request.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let Some(format) = Format::accepted(accept) else {
        let detail = "no format of Accept is available: use application/json, application/x-ndjson, text/csv, application/vnd.apache.parquet or \
                      application/vnd.apache.arrow.stream";
        return Err(Problem::new(Code::NotAcceptable, detail));
    };
    let mut response =
        rows(&state, view, access.row_filter().map(|filter| &**filter), &ranges, request, format).await?;
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// `GET /v1/views/{view}/rows.json` and the other extensions.
pub async fn in_format(
    format: Format,
    state: State<ServingState>,
    view: Path<String>,
    access: Access,
    ranges: Extension<Arc<RangeCache>>,
    request: Parts,
) -> Result<Response, Problem> {
    rows(&state, view, access.row_filter().map(|filter| &**filter), &ranges, request, format).await
}

async fn rows(
    state: &ServingState,
    Path(view): Path<String>,
    permitted: Option<&str>,
    cache: &RangeCache,
    request: Parts,
    format: Format,
) -> Result<Response, Problem> {
    if format != Format::Parquet || !ranges::is_ranged(&request.method, &request.headers) {
        return outcome(state, view, permitted, &request, format)
            .await
            .map(|outcome| outcome.response(&request, format));
    }
    // The cached response of one principal must not be sent to another.
    let url = format!("{:?} {}", permitted, request.uri);
    let complete = match cache.get(&url) {
        Some(complete) => complete,
        None => match outcome(state, view, permitted, &request, format).await? {
            RowsOutcome::Complete(complete) => {
                cache.insert(&url, complete.clone());
                complete
            }
            unchanged => return Ok(unchanged.response(&request, format)),
        },
    };
    Ok(complete.range(&request.headers))
}

/// A complete response, or the tag of the one that the client has.
enum RowsOutcome {
    Complete(CompleteResponse),
    NotModified(EntityTag),
}

impl RowsOutcome {
    fn response(self, request: &Parts, format: Format) -> Response {
        match self {
            RowsOutcome::NotModified(tag) => tag.not_modified(),
            RowsOutcome::Complete(complete) if format == Format::Parquet => complete.range(&request.headers),
            RowsOutcome::Complete(CompleteResponse { headers, body }) => {
                let mut response = Response::new(Body::from(body));
                *response.headers_mut() = headers;
                response
            }
        }
    }
}

async fn outcome(
    state: &ServingState,
    view: String,
    permitted: Option<&str>,
    request: &Parts,
    format: Format,
) -> Result<RowsOutcome, Problem> {
    let started = shared::clock::monotonic_now();
    let parameters = parameters::all(&request.uri)?;
    let now = state.clock.now();
    let arrival = Arrival { admission: &state.admission, since: started, is_live: false };
    let pin = pin(&state.readers(), &view, &parameters, permitted, now, arrival).await;
    let PinnedQuery { query, pinned, admitted } = match pin {
        Err(ReadError::UnknownView(name)) => return Err(state.unknown_view(&name)),
        pinned => pinned?,
    };
    if query.request.shape == Shape::Rows && format != Format::Json {
        return Err(invalid_parameter("shape: only JSON has shapes"));
    }
    let tag = EntityTag::of(&query, &pinned, format.content_type());
    if tag.matches(&request.headers) {
        return Ok(RowsOutcome::NotModified(tag));
    }
    let cache = request.extensions.get::<Arc<ResponseCache>>();
    if let Some(complete) = cache.and_then(|cache| cache.get(&tag)) {
        metrics::counter!("trueup_query_cache_hits_total", "view" => view).increment(1);
        return Ok(RowsOutcome::Complete(complete));
    }
    let of_past = pinned.past.as_ref().map(|past| past.version.published_at);
    let as_of = query.instant.or(of_past).unwrap_or_else(|| state.clock.now());
    let mut complete = if admitted.is_none() && runs_inline(&query, &pinned) {
        write(&query, &pinned, &state.admission.inline(), format, as_of)?
    } else {
        let admitted = match admitted {
            Some(admitted) => admitted,
            None => state.admission.admit(started).await?,
        };
        admitted.run(move |context: &QueryContext| write(&query, &pinned, context, format, as_of)).await??
    };
    tag.describe(&mut complete.headers);
    if let Some(cache) = cache {
        cache.insert(&tag, &complete);
    }
    metrics::histogram!("trueup_query_duration_seconds", "view" => view).record(started.elapsed().as_secs_f64());
    Ok(RowsOutcome::Complete(complete))
}

/// Returns true if the query may run on the request's own thread: it is small and evaluates no expression. Polars does not
/// evaluate on a thread that drives async tasks.
pub(super) fn runs_inline(query: &BoundQuery, pinned: &ViewPin) -> bool {
    let view = pinned.published.view.as_ref();
    let composed = view.measures.iter().any(|m| m.expression.as_column().is_none());
    let Query { permitted, filter, row_filter, .. } = &query.request;
    let filtered = [permitted, filter, row_filter, &view.having].into_iter().any(Option::is_some);
    !filtered && !composed && pinned.work(query) <= INLINE_ROWS_MAX
}

fn write(
    query: &BoundQuery,
    pinned: &ViewPin,
    context: &QueryContext,
    format: Format,
    as_of: Micros,
) -> Result<CompleteResponse, Problem> {
    let result = execute(query, pinned, context)?;
    let budget = &context.allowance;
    let mut body = match format {
        Format::Json => {
            let about = ResponseContext { pinned, layer: query.layer, as_of };
            json::write(&result, &about, query.request.shape, budget).map_err(ExecuteError::from)?
        }
        Format::Ndjson => ndjson::write(&result, budget).map_err(ExecuteError::from)?,
        Format::Csv => csv::write(&result, budget).map_err(ExecuteError::from)?,
        Format::Parquet => parquet::write(&result, budget)?,
        Format::Arrow => arrow_stream::write(&result, budget)?,
    };
    // Caches and budgets count the bytes of a body, not its capacity.
    body.shrink_to_fit();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    describe(pinned, &result, as_of, &mut headers);
    Ok(CompleteResponse { headers, body: body.into() })
}

/// Adds the metadata of a result as headers, for formats whose body has no room for it.
fn describe(pinned: &ViewPin, result: &QueryResult, as_of: Micros, headers: &mut HeaderMap) {
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
    insert(COMPLETE, result.is_complete(pinned).to_string());
    if let Some(failed) = &result.failed_groups {
        insert(FAILED_ROWS, failed.count.to_string());
    }
    insert(TRUNCATED, result.next.is_some().to_string());
    if let Some(next) = &result.next {
        insert(NEXT, next.clone());
    }
}
