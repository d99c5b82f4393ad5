//! Counts every response in the [`ResponseBudget`], whichever endpoint makes it, and completes compressed ones before they
//! are sent.
//!
//! [`count`] stands inside compression and counts what an endpoint returns. [`complete`] stands outside: an encoder keeps
//! a few MiB, and would live as long as its client reads, so the compressed response is completed at once, and counted.
//!
//! [`ResponseBudget`]: crate::response_budget::ResponseBudget

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::StreamExt;
use problem::Problem;
use shared::limits::COMPRESSIONS_AT_ONCE_PER_CORE;
use tokio::sync::Semaphore;

use crate::admission::Admission;
use crate::http::refusal::internal;

/// Pieces of a compressed response between two chances for other tasks; a piece has about 4 KiB.
const PIECES_AT_ONCE: usize = 16;

/// Marks a response whose bytes are in memory once, for all clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedBytes;

/// Completes compressed responses, a few at a time.
#[derive(Debug, Clone)]
pub(crate) struct Completion {
    admission: Arc<Admission>,
    encoders: Arc<Semaphore>,
}

impl Completion {
    pub(crate) fn new(admission: Arc<Admission>) -> Completion {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Completion { admission, encoders: Arc::new(Semaphore::new(cores * COMPRESSIONS_AT_ONCE_PER_CORE)) }
    }
}

/// Middleware: counts the bytes of the response until the client has read them, or refuses it if there is no room.
pub(crate) async fn count(State(admission): State<Arc<Admission>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if is_of_events(response.headers()) || response.extensions().get::<SharedBytes>().is_some() {
        return response;
    }
    let (head, body) = response.into_parts();
    // The body of an endpoint is one piece, so nothing is copied.
    let held =
        to_bytes(body, usize::MAX).await.map_err(|error| internal(&error)).and_then(|bytes| held(&admission, bytes));
    held.map_or_else(IntoResponse::into_response, |body| Response::from_parts(head, body))
}

/// Middleware: compresses the response completely, and counts its bytes as [`count`] does. Others pass unchanged.
pub(crate) async fn complete(State(completion): State<Completion>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if is_of_events(response.headers()) || response.body().size_hint().exact().is_some() {
        return response;
    }
    let (head, body) = response.into_parts();
    match compressed(&completion, body).await {
        Ok(body) => Response::from_parts(head, body),
        Err(problem) => problem.into_response(),
    }
}

async fn compressed(completion: &Completion, body: Body) -> Result<Body, Problem> {
    let _encoder = completion.encoders.acquire().await.expect("the semaphore is never closed");
    let mut whole = BytesMut::new();
    let mut pieces = body.into_data_stream();
    let mut number = 0_usize;
    while let Some(piece) = pieces.next().await {
        whole.extend_from_slice(&piece.map_err(|error| internal(&error))?);
        number += 1;
        if number.is_multiple_of(PIECES_AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    held(&completion.admission, whole.freeze())
}

fn held(admission: &Admission, bytes: Bytes) -> Result<Body, Problem> {
    Ok(Body::from(admission.responses.hold(bytes)?))
}

/// Returns true for a live query, whose events [`crate::push`] counts.
fn is_of_events(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
