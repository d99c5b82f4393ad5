//! Lists the comparisons of a view, newest first, without their rows: drift from version to version.

use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use problem::Problem;
use serde::Serialize;
use shared::compare::ComparisonSummary;
use shared::limits::{DRIFT_VERSIONS_DEFAULT, DRIFT_VERSIONS_MAX};
use utoipa::ToSchema;

use super::refusal::{batch_unavailable, invalid_parameter};
use super::{json, parameters};
use crate::state::ServingState;
use shared::sql::suggest::in_parentheses as did_you_mean;

#[derive(Serialize, ToSchema)]
pub(super) struct Drift<'a> {
    view: &'a str,
    max_drift: Option<f64>,
    reconciliations: Vec<ComparisonSummary>,
}

/// `GET /v1/views/{view}/drift`: `limit`, and `measure` (default: all).
pub async fn drift(State(state): State<ServingState>, Path(view): Path<String>, uri: Uri) -> Result<Response, Problem> {
    let published = state.view(&view)?;
    let [limit, measure] = parameters::only(&uri, ["limit", "measure"])?;
    let limit = match limit {
        None => DRIFT_VERSIONS_DEFAULT,
        Some(text) => text.parse().ok().filter(|limit| (1..=DRIFT_VERSIONS_MAX).contains(limit)).ok_or_else(|| {
            invalid_parameter(format!("limit: \"{text}\" is not a number from 1 to {DRIFT_VERSIONS_MAX}"))
        })?,
    };
    let mut comparisons = state.runs.drift(&view, limit).await.map_err(batch_unavailable)?;
    if let Some(measure) = &measure {
        let declared = || published.view.measures.iter().map(|m| m.name.as_str());
        let compared = comparisons.iter().any(|comparison| comparison.measures.contains_key(measure));
        if !compared && !declared().any(|name| name == measure) {
            let hint = did_you_mean(measure, declared());
            return Err(invalid_parameter(format!("measure: there is no measure \"{measure}\"{hint}")));
        }
        comparisons.iter_mut().for_each(|comparison| comparison.measures.retain(|name, _| name == measure));
    }
    let reconciliations = comparisons.into_iter().map(ComparisonSummary::from).collect();
    let name = published.view.name.as_str();
    Ok(json(&Drift { view: name, max_drift: published.view.max_drift, reconciliations }))
}
