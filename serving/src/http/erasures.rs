//! Erases entities, and lists erasures.

use auth::{Access, Principal};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use problem::{Code, Problem};
use serde::Serialize;
use shared::control::{ErasureError, ErasureRecord, ErasureState};
use shared::limits::{ERASURE_REFERENCE_BYTES_MAX, RETRY_AFTER_SECONDS};
use utoipa::ToSchema;

use super::entity_events::NamedEntity;
use super::refusal::invalid_parameter;
use super::{json, parameters};
use crate::state::ServingState;

/// The response of `GET /v1/erasures`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErasureList {
    /// Newest first.
    #[schema(value_type = Vec<ErasureRecord>)]
    pub erasures: Vec<ErasureRecord>,
}

/// `DELETE /v1/entities/{stream}/{id}`: erases the entity; `reference` is what the client calls the request.
pub async fn erase(
    State(state): State<ServingState>,
    Path((stream, id)): Path<(String, String)>,
    access: Access,
    uri: Uri,
) -> Result<Response, Problem> {
    let [reference] = parameters::only(&uri, ["reference"])?;
    if reference.as_ref().is_some_and(|text| text.len() > ERASURE_REFERENCE_BYTES_MAX) {
        return Err(invalid_parameter(format!("reference: at most {ERASURE_REFERENCE_BYTES_MAX} bytes")));
    }
    let entity = NamedEntity::parse(&state, &stream, &id)?;
    let by = match access.principal() {
        Principal::Everyone | Principal::Visitor => "everyone".to_owned(),
        Principal::Key { id, .. } => format!("key {id}"),
        Principal::Token { subject } => format!("token {subject}"),
    };
    let record = state.erasures.erase(&entity.stream.name, &entity.id, by, reference).await.map_err(problem)?;
    let status = if record.state == ErasureState::Complete { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, json(&record)).into_response())
}

fn problem(error: ErasureError) -> Problem {
    let detail = error.to_string();
    match error {
        ErasureError::Unknown { .. } => Problem::new(Code::UnknownEntity, detail),
        ErasureError::TooMany { .. } => Problem::new(Code::Busy, detail).retry_after(RETRY_AFTER_SECONDS),
        ErasureError::Full(_) => Problem::new(Code::DiskFull, detail),
        ErasureError::Unavailable(_) => Problem::new(Code::Stopping, detail),
    }
}

/// `GET /v1/erasures`: all erasures. They do not name the entities.
pub async fn list(State(state): State<ServingState>) -> Response {
    json(&ErasureList { erasures: state.erasures.list() })
}
