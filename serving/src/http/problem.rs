//! How is a refusal told? As `application/problem+json` (RFC 9457) with a code that programs can rely on.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use shared::control::RunError;
use shared::handoff::HandoffError;
use shared::limits::RETRY_AFTER_SECONDS;
use shared::partial::merge::MergeError;
use shared::partial::query_budget::Exceeded;
use shared::readers::{PastError, SpeedError};
use utoipa::ToSchema;

use crate::admission::QueryRefusal;
use crate::answer::AnswerError;
use crate::formats::parquet::WriteError;
use crate::pin::ReadError;
use crate::query::QueryError;

/// An error as an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16)]
    status: StatusCode,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    /// Tell whoever asks to come back?
    #[serde(skip)]
    again: bool,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    /// A problem of the kind `code`, whose title is the same for all of its kind.
    pub fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        let kind = format!("urn:trueup:problem:{code}");
        Problem { kind, title, status, detail: detail.into(), code, line: None, column: None, again: false }
    }

    /// Something that is not there; `what` is for example `view`.
    pub fn unknown(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, "Not found", detail)
    }

    /// A parameter whose value cannot be used.
    pub fn invalid_parameter(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_parameter", "A parameter cannot be used", detail)
    }

    /// A parameter that does not exist.
    pub fn unknown_parameter(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "unknown_parameter", "There is no such parameter", detail)
    }

    /// Something that may come.
    pub fn not_supported(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not_supported", "Not supported yet", detail)
    }

    /// A layer that cannot answer now.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, "A layer cannot answer now", detail)
    }

    /// A defect of ours. The detail goes to the log too.
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
        tracing::error!(error, "a request failed");
        let title = "The answer could not be made";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("plain data has a JSON form");
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if self.again {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Problem {
        let detail = error.to_string();
        match error {
            QueryError::UnknownParameter { .. } => Problem::unknown_parameter(detail),
            QueryError::Invalid { .. } => Problem::invalid_parameter(detail),
            QueryError::NotSupported(_) => Problem::not_supported(detail),
            QueryError::Predicate { line, column, .. } => {
                let title = "The where cannot be read";
                let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid_predicate", title, detail);
                Problem { line: Some(line), column: Some(column), ..problem }
            }
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        let detail = error.to_string();
        match error {
            ReadError::UnknownView(_) => Problem::unknown("unknown_view", detail),
            ReadError::Query(error) => error.into(),
            ReadError::CursorExpired => {
                Problem::new(StatusCode::GONE, "cursor_expired", "The cursor is too old", detail)
            }
            ReadError::Speed(error) => error.into(),
            ReadError::Batch(_) => Problem::unavailable("batch_unavailable", detail),
            ReadError::Past(error) => error.into(),
        }
    }
}

impl From<PastError> for Problem {
    fn from(error: PastError) -> Problem {
        let detail = error.to_string();
        match error {
            PastError::Gone { .. } => {
                Problem::new(StatusCode::GONE, "version_gone", "The version is not kept any more", detail)
            }
            PastError::Unknown { .. } | PastError::Before { .. } | PastError::Nothing(_) => {
                Problem::unknown("unknown_version", detail)
            }
            PastError::NotUnderstood { .. } => {
                let title = "The definition of the version is not understood any more";
                Problem::new(StatusCode::CONFLICT, "definition_not_understood", title, detail)
            }
            PastError::Unreadable(_) => Problem::unavailable("batch_unavailable", format!("batch: {detail}")),
        }
    }
}

impl From<SpeedError> for Problem {
    fn from(error: SpeedError) -> Problem {
        Problem::unavailable("speed_unavailable", format!("speed: {error}"))
    }
}

impl From<HandoffError> for Problem {
    fn from(error: HandoffError) -> Problem {
        Problem::unavailable("batch_unavailable", format!("batch: {error}"))
    }
}

impl From<AnswerError> for Problem {
    fn from(error: AnswerError) -> Problem {
        Problem::from(&error)
    }
}

impl From<&AnswerError> for Problem {
    fn from(error: &AnswerError) -> Problem {
        match error {
            AnswerError::Merge(crossed @ MergeError::Crossed(_)) => {
                let hint = "days and longer follow the view's time_zone; write fixed lengths such as 24h, or all";
                Problem::invalid_parameter(format!("grain: {crossed}; {hint}"))
            }
            AnswerError::Merge(MergeError::Exceeded(exceeded)) => (*exceeded).into(),
            error => Problem::internal(error),
        }
    }
}

impl From<Exceeded> for Problem {
    fn from(exceeded: Exceeded) -> Problem {
        let hint = "ask for a shorter time (from, to), a coarser grain, or fewer dimensions (group_by)";
        let (reason, status, code, title) = match exceeded {
            Exceeded::Bytes { .. } => {
                ("bytes", StatusCode::PAYLOAD_TOO_LARGE, "query_too_large", "The query is too large")
            }
            Exceeded::Time | Exceeded::Abandoned => {
                ("time", StatusCode::GATEWAY_TIMEOUT, "query_timeout", "The query took too long")
            }
        };
        metrics::counter!("trueup_queries_refused_total", "reason" => reason).increment(1);
        Problem::new(status, code, title, format!("{exceeded}; {hint}"))
    }
}

impl From<QueryRefusal> for Problem {
    fn from(refusal: QueryRefusal) -> Problem {
        let detail = refusal.to_string();
        match refusal {
            QueryRefusal::TooMany { .. } => {
                let title = "Too many queries at once";
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_queries", title, detail);
                Problem { again: true, ..problem }
            }
            QueryRefusal::NoTurn { .. } => {
                let title = "The query took too long";
                let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "query_timeout", title, detail);
                Problem { again: true, ..problem }
            }
            QueryRefusal::Ended(error) => Problem::internal(&error),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Problem {
        Problem::internal(&error)
    }
}

impl From<RunError> for Problem {
    fn from(error: RunError) -> Problem {
        let detail = error.to_string();
        match error {
            RunError::UnknownView(_) => Problem::unknown("unknown_view", detail),
            RunError::UnknownRun(_) => Problem::unknown("unknown_run", detail),
            RunError::Dropped { .. } => {
                Problem::new(StatusCode::CONFLICT, "events_dropped", "The events are gone", detail)
            }
            RunError::Stopping => Problem::unavailable("stopping", detail),
        }
    }
}
