//! Chooses the problem for each refusal of the query layer and of the other layers behind it.
//!
//! Error types of this crate convert with `?`; those of `shared` convert through the functions of this module.

use axum::extract::Query;
use axum::http::Uri;
use problem::{Code, Problem};
use serde::de::DeserializeOwned;
use shared::control::RunError;
use shared::evaluate::EvaluateError;
use shared::handoff::HandoffError;
use shared::limits::RETRY_AFTER_SECONDS;
use shared::partial::merge::MergeError;
use shared::partial::query_budget::Exceeded;
use shared::readers::{PastError, SpeedError};

use crate::admission::AdmissionError;
use crate::execute::ExecuteError;
use crate::formats::parquet::WriteError;
use crate::lazy_measures::MeasuresError;
use crate::pin::ReadError;
use crate::push::{FeedFailure, LiveQueryError, SubscribeError};
use crate::query::QueryError;
use crate::response_budget::ResponsesExceeded;

/// 400 for a parameter whose value is not valid.
pub fn invalid_parameter(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidParameter, detail)
}

/// 400 for a parameter that the endpoint does not have.
pub fn unknown_parameter(detail: impl Into<String>) -> Problem {
    Problem::new(Code::UnknownParameter, detail)
}

/// 500 for a defect of the server; the log gets the detail too.
pub fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "request failed");
    Problem::new(Code::Internal, error.to_string())
}

/// Reads a JSON body; an empty one stands for the default. `expected` shows the shape in the refusal.
pub fn json_body<T: DeserializeOwned + Default>(body: &[u8], expected: &str) -> Result<T, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::InvalidBody, format!("invalid body: {error}; expected {expected}")))
}

/// Decodes a query string into names and values. Bytes that are not UTF-8 once decoded are refused, not replaced.
pub fn query_string(uri: &Uri) -> Result<Vec<(String, String)>, Problem> {
    for pair in uri.query().unwrap_or_default().split('&') {
        if !is_utf8_once_decoded(pair) {
            let name = pair.split('=').next().unwrap_or_default();
            return Err(invalid_parameter(format!(
                "{name}: invalid percent-encoding; encode the UTF-8 bytes of the text"
            )));
        }
    }
    let parsed = Query::<Vec<(String, String)>>::try_from_uri(uri);
    parsed.map(|Query(pairs)| pairs).map_err(|error| invalid_parameter(error.body_text()))
}

fn is_utf8_once_decoded(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (decoded.push(byte), at += 3),
            None => (decoded.push(bytes[at]), at += 1),
        };
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// 503: the batch layer cannot respond.
pub fn batch_unavailable(error: HandoffError) -> Problem {
    Problem::new(Code::BatchUnavailable, format!("batch: {error}"))
}

/// The problem of a run that was refused.
pub fn run_refused(error: RunError) -> Problem {
    let code = match error {
        RunError::UnknownView(_) => Code::UnknownView,
        RunError::UnknownRun(_) => Code::UnknownRun,
        RunError::Dropped { .. } => Code::EventsDropped,
        RunError::Stopping => Code::Stopping,
        RunError::SpeedAlone(_) | RunError::HasBatch(_) => Code::OtherLayers,
    };
    Problem::new(code, error.to_string())
}

fn speed_unavailable(error: &SpeedError) -> Problem {
    Problem::new(Code::SpeedUnavailable, format!("speed: {error}"))
}

fn past_refused(error: &PastError) -> Problem {
    let (code, layer) = match error {
        PastError::Gone { .. } | PastError::FileGone { .. } => (Code::VersionGone, ""),
        PastError::Unknown { .. } | PastError::Before { .. } | PastError::Nothing(_) => (Code::UnknownVersion, ""),
        PastError::NotUnderstood { .. } => (Code::DefinitionNotUnderstood, ""),
        PastError::Unreadable(_) => (Code::BatchUnavailable, "batch: "),
    };
    Problem::new(code, format!("{layer}{error}"))
}

fn exceeded(exceeded: Exceeded) -> Problem {
    let hint = "ask for a shorter time (from, to), a coarser grain, or fewer dimensions (group_by)";
    let (reason, code) = match exceeded {
        Exceeded::Bytes { .. } => ("bytes", Code::QueryTooLarge),
        Exceeded::Time | Exceeded::Abandoned => ("time", Code::QueryTimeout),
    };
    metrics::counter!("trueup_queries_refused_total", "reason" => reason).increment(1);
    Problem::new(code, format!("{exceeded}; {hint}"))
}

/// The problem of a query whose expressions exceed its limits; `None`: another reason.
fn not_evaluated(error: &EvaluateError) -> Option<Problem> {
    match error {
        EvaluateError::Exceeded(error) => Some(exceeded(*error)),
        error if error.is_too_large() => {
            metrics::counter!("trueup_queries_refused_total", "reason" => "bytes").increment(1);
            Some(Problem::new(Code::QueryTooLarge, format!("{error}; let the expression build shorter texts")))
        }
        _ => None,
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Problem {
        let detail = error.to_string();
        match error {
            QueryError::UnknownParameter { .. } => unknown_parameter(detail),
            QueryError::Invalid { .. } => invalid_parameter(detail),
            QueryError::RowFilter(_) => Problem::new(Code::RowFilter, detail),
            QueryError::NotSupported(_) => Problem::new(Code::NotSupported, detail),
            QueryError::Predicate { line, column, .. } => Problem::new(Code::InvalidPredicate, detail).at(line, column),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Problem {
        let detail = error.to_string();
        match error {
            ReadError::UnknownView(_) => Problem::new(Code::UnknownView, detail),
            ReadError::Query(error) => error.into(),
            ReadError::CursorExpired => Problem::new(Code::CursorExpired, detail),
            ReadError::Speed(error) => speed_unavailable(&error),
            ReadError::Batch(error) => batch_unavailable(error),
            ReadError::Exceeded(error) => exceeded(error),
            ReadError::Past(error) => past_refused(&error),
            ReadError::Refused(error) => error.into(),
        }
    }
}

impl From<ExecuteError> for Problem {
    fn from(error: ExecuteError) -> Problem {
        Problem::from(&error)
    }
}

impl From<&ExecuteError> for Problem {
    fn from(error: &ExecuteError) -> Problem {
        match error {
            ExecuteError::Merge(crossed @ MergeError::Crossed(_)) => {
                let hint = "days and longer follow the view's time_zone; use fixed lengths such as 24h, or all";
                invalid_parameter(format!("grain: {crossed}; {hint}"))
            }
            ExecuteError::Merge(MergeError::Exceeded(error)) | ExecuteError::Response(error) => exceeded(*error),
            ExecuteError::Merge(MergeError::Filter(cause))
            | ExecuteError::LazyMeasures(MeasuresError::Measures(cause))
            | ExecuteError::Measures(cause) => not_evaluated(cause).unwrap_or_else(|| internal(error)),
            error => internal(error),
        }
    }
}

impl From<AdmissionError> for Problem {
    fn from(refusal: AdmissionError) -> Problem {
        let detail = refusal.to_string();
        let code = match refusal {
            AdmissionError::QueueFull { .. } => Code::TooManyQueries,
            AdmissionError::QueueTimeout { .. } => Code::QueryTimeout,
            AdmissionError::Failed(error) => return internal(&error),
        };
        Problem::new(code, detail).retry_after(RETRY_AFTER_SECONDS)
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Problem {
        match error {
            WriteError::TooLarge(error) => exceeded(error),
            error => internal(&error),
        }
    }
}

impl From<LiveQueryError> for Problem {
    fn from(error: LiveQueryError) -> Problem {
        let detail = error.to_string();
        match error {
            LiveQueryError::Query(error) => error.into(),
            LiveQueryError::Parameter(_) => invalid_parameter(detail),
            LiveQueryError::Unknown(..) => unknown_parameter(detail),
        }
    }
}

impl From<&FeedFailure> for Problem {
    fn from(failure: &FeedFailure) -> Problem {
        match failure {
            FeedFailure::Query(error) => Problem::from(error.as_ref()),
            FeedFailure::Refused(error) => error.clone().into(),
            FeedFailure::TooLarge => Problem::new(Code::QueryTooLarge, failure.to_string()),
        }
    }
}

impl From<ResponsesExceeded> for Problem {
    fn from(refusal: ResponsesExceeded) -> Problem {
        Problem::new(Code::TooManyResponses, refusal.to_string()).retry_after(RETRY_AFTER_SECONDS)
    }
}

impl From<SubscribeError> for Problem {
    fn from(refusal: SubscribeError) -> Problem {
        Problem::new(Code::TooManyLiveAnswers, refusal.to_string())
    }
}
