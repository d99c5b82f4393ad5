//! Reads `Content-Type`: how the events of a body are written.

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use shared::stream::Stream;

use crate::decode::{DecodeError, Decoded, Options, decode, decode_arrow, decode_csv, decode_parquet};

/// Types under which clients send JSON events, or none.
const JSON_TYPES: [&str; 9] = [
    "",
    "application/json",
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "text/plain",
    "application/octet-stream",
    // The default of curl for --data.
    "application/x-www-form-urlencoded",
];

/// How the events of a body are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentType {
    Json,
    Csv,
    Arrow,
    Parquet,
}

impl ContentType {
    /// The type that the headers name. The error is the type if it is not supported.
    pub(super) fn of(headers: &HeaderMap) -> Result<ContentType, String> {
        let value =
            headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes())).unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if JSON_TYPES.into_iter().any(is) {
            Ok(ContentType::Json)
        } else if is("text/csv") {
            Ok(ContentType::Csv)
        } else if is("application/vnd.apache.arrow.stream") {
            Ok(ContentType::Arrow)
        } else if is("application/vnd.apache.parquet") {
            Ok(ContentType::Parquet)
        } else {
            Err(essence.to_owned())
        }
    }

    /// Whether the library that reads such bodies panics on some that contradict themselves.
    pub(super) fn reader_may_panic(self) -> bool {
        matches!(self, ContentType::Arrow | ContentType::Parquet)
    }

    /// Decodes a body of this type.
    pub(super) fn decode(self, stream: &Arc<Stream>, body: &Bytes, options: Options) -> Result<Decoded, DecodeError> {
        if stream.table.is_some() && self != ContentType::Json {
            let reason = "a table receives its changes as JSON; send application/x-ndjson".to_owned();
            return Err(DecodeError::Table { reason });
        }
        match self {
            ContentType::Json => decode(stream, body, options),
            ContentType::Csv => decode_csv(stream, body, options),
            ContentType::Arrow => decode_arrow(stream, body, options),
            ContentType::Parquet => decode_parquet(stream, body, options),
        }
    }
}
