//! Which status and code does each refusal get?

use axum::http::{StatusCode, header};
use shared::ids::StreamName;
use shared::limits::{IDEMPOTENCY_KEY_BYTES_MAX, RETRY_AFTER_SECONDS};
use shared::sql::suggest::in_parentheses;

use super::SubmitError;
use super::body::BodyError;
use super::encoding::UnpackError;
use super::problem::Problem;
use crate::decode::{DecodeError, Decoded};

/// 404, with the nearest name of those there are.
pub(super) fn unknown_stream(name: &str, known: &[StreamName]) -> Problem {
    let meant = in_parentheses(name, known.iter().map(StreamName::as_str));
    let detail = format!("there is no stream \"{name}\"{meant}");
    Problem::new(StatusCode::NOT_FOUND, "unknown_stream", detail)
}

/// 415 for a `Content-Type`.
pub(super) fn unsupported_type(content_type: &str) -> Problem {
    let detail = format!(
        "events are not read from \"{content_type}\"; send application/json or application/x-ndjson, or no Content-Type"
    );
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", detail)
}

/// 415 for a `Content-Encoding`.
pub(super) fn unsupported_encoding(encoding: &str) -> Problem {
    let detail = format!("bodies packed with \"{encoding}\" are not read; send gzip, zstd or neither");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
        .with_header(header::ACCEPT_ENCODING, axum::http::HeaderValue::from_static("gzip, zstd, identity"))
}

/// 400 for an `Idempotency-Key`.
pub(super) fn bad_idempotency_key() -> Problem {
    let detail = format!("an Idempotency-Key is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes of visible ASCII");
    Problem::new(StatusCode::BAD_REQUEST, "bad_idempotency_key", detail)
}

/// 400 for the query of the URL.
pub(super) fn bad_query(reason: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_query", reason)
}

/// 422: rejections under `strict=true`.
pub(super) fn rejected(decoded: &Decoded) -> Problem {
    let detail = format!(
        "{} of {} events were rejected, and strict=true accepts all or nothing",
        decoded.rejected(),
        decoded.lines_read
    );
    let rejections = serde_json::json!(decoded.rejections);
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "rejected", detail)
        .with("rejected", decoded.rejected())
        .with("rejections", rejections)
}

/// 500 for what is nobody's fault but ours.
pub(super) fn internal(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
}

fn busy(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Problem {
        let detail = error.to_string();
        match error {
            BodyError::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail),
            BodyError::Busy => busy(detail),
            BodyError::Stalled => Problem::new(StatusCode::REQUEST_TIMEOUT, "stalled", detail),
            BodyError::Broken(_) => Problem::new(StatusCode::BAD_REQUEST, "broken_body", detail),
        }
    }
}

impl From<UnpackError> for Problem {
    fn from(error: UnpackError) -> Problem {
        let detail = error.to_string();
        match error {
            UnpackError::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail),
            UnpackError::Broken { .. } => Problem::new(StatusCode::BAD_REQUEST, "broken_body", detail),
        }
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Problem {
        let detail = error.to_string();
        match error {
            DecodeError::Syntax { line, column, .. } => {
                Problem::new(StatusCode::BAD_REQUEST, "invalid_json", detail).with("line", line).with("column", column)
            }
            DecodeError::TooManyEvents { .. } => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Problem {
        let detail = error.to_string();
        match error {
            SubmitError::Busy => busy(detail),
            SubmitError::DiskFull => Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", detail),
            SubmitError::Stopping => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", detail),
            SubmitError::Failed(_) => internal(detail),
        }
    }
}
