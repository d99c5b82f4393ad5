//! Serves `POST /v1/events/{stream}`: reads, decompresses and decodes the body, submits the events and responds.
//! [`entities`] serves appends to one entity, [`appends`] those to many.
//!
//! [`StreamDirectory`] and [`StreamWriter`] hide what happens to decoded events; this module does not know the log.

mod appends;
mod body;
mod content_type;
mod encoding;
mod entities;
mod refusal;
pub mod schemas;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::future::BoxFuture;
use problem::Problem;
use serde::{Deserialize, Serialize};
use shared::clock::{Clock, SystemClock};
use shared::ids::{Offset, Partition, StreamName};
use shared::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use shared::stream::Stream;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::decode::{Decoded, Options, Rejection};
use crate::partition::{BodyFingerprint, ExpectedSequence, IdempotencyKey, PartitionReceipt, SubmitError};
use crate::quarantine::RejectedLines;
use body::{BodyBudget, BufferedBody};
use content_type::ContentType;
use encoding::Encoding;

/// Bodies up to this many bytes are decoded on the connection's thread; handing them to another would cost more.
const DECODED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// Finds the streams that accept events.
pub trait StreamDirectory: Send + Sync {
    /// The writer of the stream called `name`.
    fn stream(&self, name: &str) -> Option<Arc<dyn StreamWriter>>;

    /// The names of all streams.
    fn stream_names(&self) -> Vec<StreamName>;
}

/// Writes the events of one stream.
pub trait StreamWriter: Send + Sync {
    /// The stream's declaration.
    fn stream(&self) -> &Arc<Stream>;

    /// Counts and keeps the rejected lines of a request that was accepted.
    fn record_rejected(&self, rejected: RejectedLines, unknown_fields: u64);

    /// Writes the decoded events; they are durable when it returns. A retry under the same key and with the same body
    /// gets the first receipt again. A request without valid events is submitted only if it has a key.
    ///
    /// # Errors
    /// The error says what was written all the same: of several partitions, one may have had no room.
    fn submit(&self, decoded: Decoded, key: Option<IdempotencyKey>) -> BoxFuture<'_, Result<WriteReceipt, WriteError>>;

    /// Writes appends in order, each on its own: all of its events if its entity is at the expected sequence, else
    /// none. Returns the outcome of each; those that succeeded are durable.
    ///
    /// # Errors
    /// Nothing was written.
    fn append_each(&self, appends: Vec<EntityEvents>) -> BoxFuture<'_, Result<Vec<AppendVerdict>, SubmitError>>;
}

/// Events to append to one entity; at least one.
#[derive(Debug)]
pub struct EntityEvents {
    /// Columns of [`Stream::schema`].
    pub rows: RecordBatch,
    /// As in [`Decoded`], of these rows.
    pub id_hashes: Option<Vec<u128>>,
    /// [`crate::event_id::hash_entity`].
    pub entity: u128,
    /// The sequence that the entity must be at; `None`: any.
    pub expected: Option<ExpectedSequence>,
    pub key: Option<IdempotencyKey>,
}

/// The outcome of an append: its receipt, or why nothing of it was written.
pub type AppendVerdict = Result<PartitionReceipt, SubmitError>;

/// Why not all events of a request were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteError {
    /// The error of the first partition that refused its part.
    pub cause: SubmitError,
    /// The parts that were written; a retry finds them by their ids or its key.
    pub written: WriteReceipt,
    /// The partitions that refused their part.
    pub refused: Vec<Partition>,
}

impl From<SubmitError> for WriteError {
    /// Nothing was written.
    fn from(cause: SubmitError) -> WriteError {
        WriteError { cause, written: WriteReceipt::default(), refused: Vec::new() }
    }
}

/// The outcome of a request: counts of its events by what happened to them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteReceipt {
    /// Events written to the log.
    pub accepted: u64,
    /// Events whose id was seen before; they were not written.
    pub duplicates: u64,
    /// Accepted events that came after the allowed lateness.
    pub late: u64,
    /// Accepted events too far ahead of their arrival to move the watermark.
    pub ahead: u64,
    /// Events of erased entities; they were not written.
    pub erased: u64,
    /// First offset written and the one after the last, per partition.
    pub offsets: BTreeMap<Partition, (Offset, Offset)>,
}

/// The routes of the endpoints for events.
pub fn routes(streams: Arc<dyn StreamDirectory>) -> Router {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let endpoint = EventsEndpoint { streams, bodies: BodyBudget::default(), decoders: Arc::new(Semaphore::new(cores)) };
    Router::new()
        .route("/v1/events/{stream}", post(receive))
        .route("/v1/entities/{stream}", post(appends::append_each))
        .route("/v1/entities/{stream}/{id}/events", post(entities::append))
        .with_state(endpoint)
}

#[derive(Clone)]
struct EventsEndpoint {
    streams: Arc<dyn StreamDirectory>,
    bodies: BodyBudget,
    /// One permit per core: more decoders at once would only use memory.
    decoders: Arc<Semaphore>,
}

#[derive(Debug, Deserialize)]
// A misspelt `strict` must not be ignored.
#[serde(deny_unknown_fields)]
struct IngestParameters {
    #[serde(default)]
    strict: bool,
}

/// The response to accepted events.
#[derive(Debug, Serialize, ToSchema)]
struct IngestResult {
    accepted: u64,
    duplicates: u64,
    late: u64,
    #[serde(skip_serializing_if = "is_zero")]
    ahead: u64,
    rejected: u64,
    rejections: Vec<Rejection>,
    /// Events of erased entities; they were not accepted.
    #[serde(skip_serializing_if = "is_zero")]
    erased: u64,
    #[schema(value_type = BTreeMap<String, (Offset, Offset)>)]
    offsets: BTreeMap<Partition, (Offset, Offset)>,
    #[serde(skip_serializing_if = "is_zero")]
    unknown_fields: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

async fn receive(
    State(endpoint): State<EventsEndpoint>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(writer) = endpoint.streams.stream(&name) else {
        return Err(refusal::unknown_stream(&name, &endpoint.streams.stream_names()));
    };
    if !writer.stream().is_sent() {
        return Err(refusal::reads_source(writer.stream()));
    }
    let Query(parameters) = Query::<IngestParameters>::try_from_uri(request.uri())
        .map_err(|error| refusal::bad_query(&error.body_text()))?;
    let content = ContentType::of(request.headers()).map_err(|name| refusal::unsupported_type(&name))?;
    let encoding = Encoding::of(request.headers()).map_err(|name| refusal::unsupported_encoding(&name))?;
    let key = idempotency_key(request.headers())?;

    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = endpoint.bodies.collect(request.into_body(), length).await?;
    let (mut decoded, fingerprint) =
        endpoint.decode(Arc::clone(writer.stream()), body, (encoding, content), key.is_some()).await?;
    if parameters.strict && decoded.rejected() > 0 {
        return Err(refusal::rejected(&decoded));
    }

    let (rejected, unknown_fields) = (decoded.rejected(), decoded.unknown_fields);
    let rejections = std::mem::take(&mut decoded.rejections);
    let lines = std::mem::take(&mut decoded.malformed);
    let rejected_lines = RejectedLines { lines, count: rejected, idempotency_key: key.clone(), records: Vec::new() };
    let key = key.zip(fingerprint).map(|(key, body)| IdempotencyKey { key, body });
    // Without events the key is written all the same: it is used from now on.
    let written = match decoded.rows.num_rows() {
        0 if key.is_none() => WriteReceipt::default(),
        _ => writer.submit(decoded, key).await?,
    };
    // Only now: the client retries a refused request, and its rejected lines are counted then.
    writer.record_rejected(rejected_lines, unknown_fields);
    let WriteReceipt { accepted, duplicates, late, ahead, erased, offsets, .. } = written;
    let result =
        IngestResult { accepted, duplicates, late, ahead, rejected, rejections, erased, offsets, unknown_fields };
    Ok(Json(result).into_response())
}

impl EventsEndpoint {
    /// Decompresses and decodes a body of events, and computes its fingerprint if wanted.
    async fn decode(
        &self,
        stream: Arc<Stream>,
        body: BufferedBody,
        (encoding, content): (Encoding, ContentType),
        fingerprint: bool,
    ) -> Result<(Decoded, Option<BodyFingerprint>), Problem> {
        let read = move |bytes: &Bytes| {
            let decoded = content.decode(&stream, bytes, arriving_now())?;
            Ok((decoded, fingerprint.then(|| BodyFingerprint::of(bytes))))
        };
        self.read(body, (encoding, content), read).await
    }

    /// Decompresses a body and reads it, away from the threads that serve connections if it is large.
    async fn read<T: Send + 'static>(
        &self,
        body: BufferedBody,
        (encoding, content): (Encoding, ContentType),
        read: impl FnOnce(&Bytes) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let is_plain = encoding == Encoding::Identity && !content.reader_may_panic();
        if is_plain && body.bytes.len() <= DECODED_INLINE_BYTES_MAX {
            return read(&body.bytes);
        }
        let permit = Arc::clone(&self.decoders).acquire_owned().await.expect("the semaphore is never closed");
        let work = move || {
            // Both live as long as the work, even if the client has disconnected.
            let (_permit, body) = (permit, body);
            read(&encoding.unpack(&body.bytes)?)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(decoded) => decoded,
            Err(_) if content.reader_may_panic() => Err(refusal::contradictory_table()),
            Err(error) => Err(refusal::internal(format!("decoding failed: {error}"))),
        }
    }
}

/// The bounds of a body that arrives now.
fn arriving_now() -> Options {
    Options { arrived_at: Some(SystemClock.now()), ..Options::default() }
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
