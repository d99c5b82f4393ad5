//! Wraps events as a response of `text/event-stream`.

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use futures::TryStream;

/// The header in which a client that connects again says which event it received last.
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";

/// Returns the response that sends `events` as they come.
pub(crate) fn event_response<S>(events: S) -> Response
where
    S: TryStream<Ok: Into<Bytes>, Error: Into<axum::BoxError>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies must not buffer this response.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}
