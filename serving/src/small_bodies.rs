//! Reads the body of a request that sends no events: small, and within a time.
//!
//! The endpoints for runs, vacuum, compaction and login read their bodies as a whole. A client that sends slowly must
//! neither keep memory nor make them wait.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use problem::{Code, Problem};
use shared::limits::{REQUEST_BODY_BYTES_MAX, REQUEST_BODY_TIME_MS};

/// Middleware: passes the request on once its body is complete, or refuses it. Requests that only read have no body.
pub(crate) async fn read(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if is_read || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match within(Duration::from_millis(REQUEST_BODY_TIME_MS), body).await {
        Ok(bytes) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Err(problem) => problem.into_response(),
    }
}

async fn within(time: Duration, body: Body) -> Result<Bytes, Problem> {
    let late = |_| Problem::new(Code::Stalled, format!("the body took more than {} s", time.as_secs()));
    tokio::time::timeout(time, collect(body)).await.map_err(late).flatten()
}

async fn collect(body: Body) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Code::TooLarge, format!("the body is larger than {} KiB", REQUEST_BODY_BYTES_MAX / 1024));
    if body.size_hint().lower() > REQUEST_BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut whole = Vec::new();
    let mut frames = body.into_data_stream();
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|error| Problem::new(Code::BrokenBody, format!("cannot read the body: {error}")))?;
        if whole.len() + frame.len() > REQUEST_BODY_BYTES_MAX {
            return Err(too_large());
        }
        whole.extend_from_slice(&frame);
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn bodies_are_bounded_in_bytes_and_in_time() {
        let piece = || Ok::<_, Infallible>(Bytes::from(vec![b' '; 1024]));
        let code = |refused: Result<Bytes, Problem>| refused.expect_err("refused").code();
        let fits = Body::from_stream(stream::iter((0..3).map(move |_| piece())));
        let read = within(Duration::from_secs(60), fits).await.expect("fits");
        assert_eq!(read.len(), 3 * 1024);
        let endless = Body::from_stream(stream::repeat_with(piece));
        assert_eq!(code(within(Duration::from_secs(60), endless).await), Code::TooLarge);
        let announced = Body::from(vec![b' '; REQUEST_BODY_BYTES_MAX + 1]);
        assert_eq!(code(within(Duration::from_secs(60), announced).await), Code::TooLarge);
        let silent = Body::from_stream(stream::iter([piece()]).chain(stream::pending()));
        assert_eq!(code(within(Duration::from_millis(20), silent).await), Code::Stalled);
    }
}
