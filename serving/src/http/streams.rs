//! How do the streams stand? What intake tells of them, as it is.

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use shared::control::StreamStatus;

use super::problem::Problem;
use super::{ServingState, json};
use crate::nearest::did_you_mean;

#[derive(Serialize)]
struct Listed {
    streams: Vec<StreamStatus>,
}

/// `GET /v1/streams`.
pub async fn list(State(state): State<ServingState>) -> Response {
    json(&Listed { streams: state.streams.list() })
}

/// `GET /v1/streams/{stream}`.
pub async fn describe(State(state): State<ServingState>, Path(name): Path<String>) -> Result<Response, Problem> {
    let streams = state.streams.list();
    if let Some(stream) = streams.iter().find(|s| s.name.as_str() == name) {
        return Ok(json(stream));
    }
    let hint = did_you_mean(&name, streams.iter().map(|s| s.name.as_str()));
    Err(Problem::unknown("unknown_stream", format!("there is no stream called \"{name}\"{hint}")))
}
