//! Maps each refusal of the events endpoint to its problem.

use axum::http::{HeaderValue, header};
use problem::{Code, Problem};
use shared::entity::InvalidEntityId;
use shared::ids::StreamName;
use shared::limits::{BACKLOG_RETRY_AFTER_SECONDS, IDEMPOTENCY_KEY_BYTES_MAX, RETRY_AFTER_SECONDS};
use shared::sql::suggest::in_parentheses;
use shared::stream::{DatabaseTable, EventSource, KafkaTopic, Outbox, Stream};

use super::body::BodyError;
use super::encoding::UnpackError;
use super::{WriteError, WriteReceipt};
use crate::decode::{DecodeError, Decoded};
use crate::partition::SubmitError;

/// 404, with the nearest of the known names.
pub(super) fn unknown_stream(name: &str, known: &[StreamName]) -> Problem {
    let meant = in_parentheses(name, known.iter().map(StreamName::as_str));
    Problem::new(Code::UnknownStream, format!("there is no stream called \"{name}\"{meant}"))
}

/// 409: the events of the stream come from a topic or an outbox.
pub(super) fn reads_source(stream: &Stream) -> Problem {
    let name = &stream.name;
    let (what, place, connection) = match &stream.source {
        EventSource::Http => ("clients".to_owned(), "stream", ""),
        EventSource::Kafka(KafkaTopic { topic, connection, .. }) => {
            (format!("the topic \"{topic}\""), "topic", connection.as_str())
        }
        EventSource::Postgres(outbox @ Outbox { connection, .. }) => {
            (format!("the {}", outbox.describe()), "outbox", connection.as_str())
        }
        EventSource::PostgresTable(table @ DatabaseTable { connection, .. }) => {
            (format!("the {}", table.describe()), "database", connection.as_str())
        }
    };
    let kind = stream.kind();
    let (events, an_other) = if stream.table.is_some() { ("changes", "a table") } else { ("events", "a stream") };
    let detail = format!(
        "{kind} {name} reads {what} of the connection \"{connection}\": write {events} to the {place}, or declare \
         {an_other} without `source`"
    );
    Problem::new(Code::StreamReadsTopic, detail)
}

/// 415 for a `Content-Type`.
pub(super) fn unsupported_type(content_type: &str) -> Problem {
    let detail = format!(
        "unsupported Content-Type \"{content_type}\"; send application/json, application/x-ndjson, text/csv, \
         application/vnd.apache.arrow.stream, application/vnd.apache.parquet, or no Content-Type"
    );
    Problem::new(Code::UnsupportedType, detail)
}

/// 415 for a `Content-Encoding`.
pub(super) fn unsupported_encoding(encoding: &str) -> Problem {
    let detail = format!("unsupported Content-Encoding \"{encoding}\"; send gzip, zstd or none");
    Problem::new(Code::UnsupportedEncoding, detail)
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"))
}

/// 400 for an `Idempotency-Key`.
pub(super) fn bad_idempotency_key() -> Problem {
    let detail = format!("invalid Idempotency-Key: send 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes of visible ASCII");
    Problem::new(Code::BadIdempotencyKey, detail)
}

/// 400 for the query of the URL.
pub(super) fn bad_query(reason: &str) -> Problem {
    Problem::new(Code::BadQuery, reason)
}

/// 422: rejections under `strict=true`.
pub(super) fn rejected(decoded: &Decoded) -> Problem {
    let (rejected, read) = (decoded.rejected(), decoded.lines_read);
    let detail = format!("{rejected} of {read} events were rejected; with strict=true none is accepted");
    Problem::new(Code::Rejected, detail)
        .with("rejected", rejected)
        .with("rejections", serde_json::json!(decoded.rejections))
}

/// 400 for a table that its reader cannot make sense of.
pub(super) fn contradictory_table() -> Problem {
    Problem::new(Code::InvalidTable, "cannot read the table: its parts contradict each other")
}

/// 500 for a defect of the server.
pub(super) fn internal(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Internal, detail)
}

/// 400 for the id of an entity; 404 if the stream has none.
pub(super) fn invalid_entity(error: &InvalidEntityId) -> Problem {
    let code = match error {
        InvalidEntityId::NoEntity(_) => Code::NoEntity,
        InvalidEntityId::Empty | InvalidEntityId::Type { .. } => Code::InvalidParameter,
    };
    Problem::new(code, error.to_string())
}

/// 400 for the condition of an append.
pub(super) fn bad_condition(header: &str) -> Problem {
    let detail = format!(
        "cannot read {header}: send If-Match: \"7\" with the last sequence of the entity, If-Match: * for an entity with \
         events, or If-None-Match: * for one without"
    );
    Problem::new(Code::InvalidParameter, detail)
}

/// 422: events of an append that are rejected.
pub(super) fn rejected_events(rejected: u64, read: u64) -> Problem {
    Problem::new(Code::Rejected, format!("{rejected} of {read} events were rejected; an append accepts all or none"))
}

/// 422: events of an append that are rejected, with the reasons.
pub(super) fn rejected_append(decoded: &Decoded) -> Problem {
    let rejected = decoded.rejected();
    rejected_events(rejected, decoded.lines_read)
        .with("rejected", rejected)
        .with("rejections", serde_json::json!(decoded.rejections))
}

/// The entity tag of an entity at a sequence.
pub(super) fn sequence_tag(sequence: u64) -> String {
    format!("\"{sequence}\"")
}

/// 429 with `Retry-After`.
fn busy(detail: String) -> Problem {
    Problem::new(Code::Busy, detail).retry_after(RETRY_AFTER_SECONDS)
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Problem {
        let detail = error.to_string();
        match error {
            BodyError::TooLarge => Problem::new(Code::TooLarge, detail),
            BodyError::Busy => busy(detail),
            BodyError::Stalled(_) | BodyError::Slow(_) => Problem::new(Code::Stalled, detail),
            BodyError::Broken(_) => Problem::new(Code::BrokenBody, detail),
        }
    }
}

impl From<UnpackError> for Problem {
    fn from(error: UnpackError) -> Problem {
        let detail = error.to_string();
        match error {
            UnpackError::TooLarge => Problem::new(Code::TooLarge, detail),
            UnpackError::Broken { .. } => Problem::new(Code::BrokenBody, detail),
        }
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Problem {
        let detail = error.to_string();
        match error {
            DecodeError::Syntax { line, column, .. } => {
                Problem::new(Code::InvalidJson, detail).with("line", line).with("column", column)
            }
            DecodeError::Table { .. } | DecodeError::Truncate { .. } => Problem::new(Code::InvalidTable, detail),
            DecodeError::TooManyEvents { .. } | DecodeError::EventsTooLarge { .. } => {
                Problem::new(Code::TooLarge, detail)
            }
        }
    }
}

impl From<WriteError> for Problem {
    /// The problem of the cause. If some partitions wrote their part, it says which, and how many events they accepted.
    fn from(WriteError { cause, written, refused }: WriteError) -> Problem {
        if written == WriteReceipt::default() {
            return Problem::from(cause);
        }
        let WriteReceipt { accepted, duplicates, late, offsets, .. } = written;
        let detail = format!(
            "{cause}; {accepted} events of the request were accepted, those of {} partitions were not: send the request \
             again with its ids or Idempotency-Key",
            refused.len()
        );
        Problem::from(cause)
            .with_detail(detail)
            .with("accepted", accepted)
            .with("duplicates", duplicates)
            .with("late", late)
            .with("offsets", serde_json::json!(offsets))
            .with("refused_partitions", serde_json::json!(refused))
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Problem {
        let detail = error.to_string();
        match error {
            SubmitError::Busy => busy(detail),
            SubmitError::Behind(_) | SubmitError::LiveState(_) => {
                Problem::new(Code::Busy, detail).retry_after(BACKLOG_RETRY_AFTER_SECONDS)
            }
            SubmitError::Exhausted(_) => Problem::new(Code::DiskFull, detail),
            SubmitError::Stopped => Problem::new(Code::Stopping, detail),
            SubmitError::KeyReused => Problem::new(Code::IdempotencyKeyReused, detail),
            SubmitError::SequenceConflict { current, .. } => {
                let tag = HeaderValue::try_from(sequence_tag(current)).expect("digits in quotes");
                Problem::new(Code::SequenceConflict, detail).with("sequence", current).with_header(header::ETAG, tag)
            }
            SubmitError::Erased { .. } => Problem::new(Code::EntityErased, detail),
            SubmitError::TooManyEntities { .. } => Problem::new(Code::TooManyEntities, detail),
            SubmitError::TableFull { .. } => Problem::new(Code::TableFull, detail),
            SubmitError::TooLarge { .. } => Problem::new(Code::TooLarge, detail),
            SubmitError::SourceMoved { .. }
            | SubmitError::NoPartition(_)
            | SubmitError::Mismatch(_)
            | SubmitError::Rows(_) => internal(detail),
        }
    }
}
