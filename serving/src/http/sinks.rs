//! Lists sinks, and pauses and resumes them.

use auth::{Access, Action};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use shared::control::{EmitFrom, SinkError, SinkStatus};
use shared::sql::suggest::in_parentheses as did_you_mean;
use shared::time::Micros;
use utoipa::ToSchema;

use super::json;
use super::refusal::{invalid_parameter, json_body};
use crate::state::ServingState;

/// The response of `GET /v1/sinks`.
#[derive(Debug, Serialize, ToSchema)]
pub struct SinkList {
    /// By name.
    pub sinks: Vec<SinkStatus>,
}

/// The body of a request to resume a sink.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ResumeRequest {
    from: Option<String>,
}

/// `GET /v1/sinks`: the sinks of views and streams that the principal may read.
pub async fn list(State(state): State<ServingState>, access: Access) -> Response {
    json(&SinkList { sinks: visible(&state, &access) })
}

/// `GET /v1/sinks/{sink}`.
pub async fn describe(
    State(state): State<ServingState>,
    access: Access,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    find(&state, &access, &name).map(|sink| json(&sink))
}

/// `POST /v1/sinks/{sink}/pause`: the sink stops after its present epoch.
pub async fn pause(
    State(state): State<ServingState>,
    access: Access,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let sink = find(&state, &access, &name)?;
    access.require(Action::Run, sink.source())?;
    changed(&state, move |state| state.sinks.pause(&name)).await
}

/// `POST /v1/sinks/{sink}/resume`: an empty body writes only what has changed.
pub async fn resume(
    State(state): State<ServingState>,
    access: Access,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let sink = find(&state, &access, &name)?;
    access.require(Action::Run, sink.source())?;
    let ResumeRequest { from } = json_body(&body, "{\"from\": \"start\" or a time}")?;
    let from = match from.as_deref() {
        None => None,
        Some("start") => Some(EmitFrom::Start),
        Some(text) => Some(EmitFrom::Time(Micros::parse(text).ok_or_else(|| {
            invalid_parameter(format!(
                "from: \"{text}\" is neither \"start\" nor a time such as \"2026-11-01T00:00:00Z\""
            ))
        })?)),
    };
    changed(&state, move |state| state.sinks.resume(&name, from)).await
}

fn visible(state: &ServingState, access: &Access) -> Vec<SinkStatus> {
    let mut sinks = state.sinks.list();
    sinks.retain(|sink| access.may(Action::Read, sink.source()));
    sinks
}

fn find(state: &ServingState, access: &Access, name: &str) -> Result<SinkStatus, Problem> {
    let visible = visible(state, access);
    let hint = did_you_mean(name, visible.iter().map(|sink| sink.name.as_str()));
    let found = visible.into_iter().find(|sink| sink.name.as_str() == name);
    found.ok_or_else(|| Problem::new(Code::UnknownSink, format!("there is no sink called \"{name}\"{hint}")))
}

/// Changes a sink on a thread that may wait for the disk.
async fn changed(
    state: &ServingState,
    change: impl FnOnce(&ServingState) -> Result<SinkStatus, SinkError> + Send + 'static,
) -> Result<Response, Problem> {
    let state = state.clone();
    match tokio::task::spawn_blocking(move || change(&state)).await {
        Ok(Ok(sink)) => Ok(json(&sink)),
        Ok(Err(error @ SinkError::Unknown(_))) => Err(Problem::new(Code::UnknownSink, error.to_string())),
        Ok(Err(error @ SinkError::NoWindows)) => Err(invalid_parameter(error.to_string())),
        Ok(Err(error @ SinkError::Write(_))) => Err(Problem::new(Code::DiskFull, error.to_string())),
        Err(error) => Err(Problem::new(Code::Internal, error.to_string())),
    }
}
