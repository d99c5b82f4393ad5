//! How do events come in over HTTP? `POST /v1/events/{stream}`: read, unpack, decode, submit, answer.
//!
//! What happens to decoded events is behind [`Door`]; nothing here knows of the log.

mod body;
mod encoding;
pub mod problem;
mod refusal;
pub mod schemas;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use shared::clock::{Clock, SystemClock};
use shared::ids::{Offset, Partition, StreamName};
use shared::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use shared::stream::Stream;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::decode::{Decoded, Options, Rejection, decode};
use crate::quarantine::MalformedLines;
use body::{BODIES_BYTES_MAX, Budget, Collected};
use encoding::Encoding;
use problem::Problem;

/// Bodies up to this many bytes are decoded where they arrive; handing them to another thread would cost more.
const DECODED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// What the door leads to.
pub trait Door: Send + Sync {
    /// The stream called `name`.
    fn stream(&self, name: &str) -> Option<Arc<Stream>>;

    /// The names of all streams.
    fn stream_names(&self) -> Vec<StreamName>;

    /// Counts and keeps what was left out of a request that was answered.
    fn note(&self, stream: &Stream, malformed: MalformedLines, unknown_fields: u64);

    /// Writes the decoded events; they are durable when it returns. A key that was used before gives the first answer again.
    /// Never called without rows.
    fn submit(
        &self,
        stream: &Stream,
        decoded: Decoded,
        idempotency_key: Option<String>,
    ) -> BoxFuture<'_, Result<Accepted, SubmitError>>;
}

/// What became of submitted events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Events written to the log.
    pub accepted: u64,
    /// Events left out, as their id was seen before.
    pub duplicates: u64,
    /// Accepted events that came after the allowed lateness.
    pub late: u64,
    /// Accepted events too far ahead of their arrival to move the watermark.
    pub ahead: u64,
    /// First offset written and the one after the last, per partition.
    pub offsets: BTreeMap<Partition, (Offset, Offset)>,
}

/// Why submitted events were not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("events arrive faster than they can be written")]
    Busy,
    #[error("the disk of the log is full")]
    DiskFull,
    #[error("the server is stopping")]
    Stopping,
    #[error("the events could not be written: {0}")]
    Failed(String),
}

/// The routes by which events come in.
pub fn routes(state: Arc<dyn Door>) -> Router {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let entrance =
        Entrance { door: state, bodies: Budget::new(BODIES_BYTES_MAX), decoders: Arc::new(Semaphore::new(cores)) };
    Router::new().route("/v1/events/{stream}", post(receive)).with_state(entrance)
}

#[derive(Clone)]
struct Entrance {
    door: Arc<dyn Door>,
    bodies: Budget,
    /// One permit per core: more decoders at once would only take memory.
    decoders: Arc<Semaphore>,
}

#[derive(Debug, Deserialize)]
// A misspelt `strict` must not be taken for none.
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    strict: bool,
}

/// The answer to accepted events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Taken)]
struct Answer {
    accepted: u64,
    duplicates: u64,
    late: u64,
    #[serde(skip_serializing_if = "is_zero")]
    ahead: u64,
    rejected: u64,
    rejections: Vec<Rejection>,
    #[schema(value_type = BTreeMap<String, (Offset, Offset)>)]
    offsets: BTreeMap<Partition, (Offset, Offset)>,
    #[serde(skip_serializing_if = "is_zero")]
    unknown_fields: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

async fn receive(
    State(entrance): State<Entrance>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(stream) = entrance.door.stream(&name) else {
        return Err(refusal::unknown_stream(&name, &entrance.door.stream_names()));
    };
    let Query(params) =
        Query::<Params>::try_from_uri(request.uri()).map_err(|error| refusal::bad_query(&error.body_text()))?;
    check_content_type(request.headers())?;
    let encoding = Encoding::of(request.headers()).map_err(|name| refusal::unsupported_encoding(&name))?;
    let key = idempotency_key(request.headers())?;

    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = entrance.bodies.collect(request.into_body(), length).await?;
    let mut decoded = entrance.decode(Arc::clone(&stream), body, encoding).await?;
    if params.strict && decoded.rejected() > 0 {
        return Err(refusal::rejected(&decoded));
    }

    let (rejected, unknown_fields) = (decoded.rejected(), decoded.unknown_fields);
    let rejections = std::mem::take(&mut decoded.rejections);
    let lines = std::mem::take(&mut decoded.malformed);
    let malformed = MalformedLines { lines, count: rejected, idempotency_key: key.clone() };
    let written = match decoded.rows.num_rows() {
        0 => Accepted::default(),
        _ => entrance.door.submit(&stream, decoded, key).await?,
    };
    // Only now: a request that is refused will be sent again, and counted then.
    entrance.door.note(&stream, malformed, unknown_fields);
    let Accepted { accepted, duplicates, late, ahead, offsets } = written;
    Ok(Json(Answer { accepted, duplicates, late, ahead, rejected, rejections, offsets, unknown_fields })
        .into_response())
}

impl Entrance {
    /// Unpacks and decodes a body; large ones away from the threads that serve connections.
    async fn decode(&self, stream: Arc<Stream>, body: Collected, encoding: Encoding) -> Result<Decoded, Problem> {
        let inline = encoding == Encoding::Identity && body.bytes.len() <= DECODED_INLINE_BYTES_MAX;
        if inline {
            return Ok(decode(&stream, &body.bytes, arriving_now())?);
        }
        let permit = Arc::clone(&self.decoders).acquire_owned().await.expect("the semaphore is never closed");
        let work = move || {
            // Both live as long as the work does, also where nobody waits for it any more.
            let (_permit, body) = (permit, body);
            let bytes = encoding.unpack(&body.bytes)?;
            Ok(decode(&stream, &bytes, arriving_now())?)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(decoded) => decoded,
            Err(error) => Err(refusal::internal(format!("decoding failed: {error}"))),
        }
    }
}

/// The bounds of a body that arrives now.
fn arriving_now() -> Options {
    Options { arrived_at: Some(SystemClock.now()), ..Options::default() }
}

/// Any type under which JSON events are sent, or none.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    const TYPES: [&str; 9] = [
        "",
        "application/json",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "text/plain",
        "application/octet-stream",
        // What curl sends with --data when nobody says otherwise.
        "application/x-www-form-urlencoded",
    ];
    let value = headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes())).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if TYPES.iter().any(|known| essence.eq_ignore_ascii_case(known)) {
        Ok(())
    } else {
        Err(refusal::unsupported_type(essence))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(refusal::bad_idempotency_key()),
    }
}
