//! Serves liveness, readiness and metrics.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::json;
use crate::state::ServingState;

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// `GET /livez`: 200 while the process serves requests.
pub async fn livez() -> Response {
    json(&Health { status: "alive", reason: None })
}

/// `GET /readyz`: 200 once every layer responds; 503 with the reason until then, after a failure, and while
/// stopping.
pub async fn readyz(State(state): State<ServingState>) -> Response {
    let refused = |reason: String| {
        let health = json(&Health { status: "not ready", reason: Some(reason) });
        (StatusCode::SERVICE_UNAVAILABLE, health).into_response()
    };
    if let Some(failure) = state.vitals.failure() {
        return refused(format!("the server stops because a layer failed: {failure}"));
    }
    if !state.ready.load(Ordering::SeqCst) {
        return refused("the server is starting or stopping".to_owned());
    }
    for published in state.views.all() {
        let view = published.view.name.as_str();
        if let Err(error) = crate::pin::pin_speed(&state.readers(), view).await {
            return refused(format!("view {view}: {error}"));
        }
    }
    json(&Health { status: "ready", reason: None })
}

/// `GET /metrics`: all metrics in the text format of Prometheus.
pub async fn metrics(State(state): State<ServingState>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (state.metrics)()).into_response()
}
