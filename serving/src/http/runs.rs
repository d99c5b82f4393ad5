//! Controls the batch layer: requests, lists and cancels runs, and deletes unused files.

use std::time::Duration;

use auth::{Access, Action};
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use problem::{Code, Problem};
use serde::Deserialize;
use shared::control::{DateRange, RunError, RunFilter, RunPage, RunScope, RunState};
use shared::limits::{RUNS_DEFAULT, RUNS_KEPT};
use shared::time::Day;

use super::refusal::{batch_unavailable, invalid_parameter, json_body, run_refused};
use super::{json, parameters};
use crate::state::ServingState;
use shared::sql::suggest::in_parentheses as did_you_mean;

/// The body of a request for a run.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RunRequest {
    full: bool,
    from: Option<String>,
    to: Option<String>,
}

impl RunRequest {
    fn scope(&self) -> Result<RunScope, Problem> {
        let date = |name: &str, text: &str| {
            let day = Day::parse(text).filter(|day| day.to_string() == text);
            day.ok_or_else(|| {
                invalid_parameter(format!("{name}: expected a date such as 2001-01-31, found \"{text}\""))
            })
        };
        let range = match (&self.from, &self.to) {
            (None, None) => None,
            (Some(from), Some(to)) => Some(DateRange { from: date("from", from)?, to: date("to", to)? }),
            (None, Some(_)) => {
                return Err(invalid_parameter("from: required together with to"));
            }
            (Some(_), None) => return Err(invalid_parameter("to: required together with from")),
        };
        match range.filter(|range| range.from >= range.to) {
            None => Ok(RunScope { full: self.full, range }),
            Some(DateRange { from, to }) if from == to => Err(invalid_parameter(format!(
                "to: empty range, since to is exclusive; for one day use from={from} to={}",
                Day(to.0.saturating_add(1))
            ))),
            Some(DateRange { from, to }) => Err(invalid_parameter(format!("to: {to} is before from, which is {from}"))),
        }
    }
}

/// `POST /v1/views/{view}/runs`: 202 with the run. An empty body requests an incremental run.
pub async fn request(
    State(state): State<ServingState>,
    Path(view): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    state.view(&view)?;
    let wanted: RunRequest = json_body(&body, "{\"full\": true or false} or {\"from\": date, \"to\": date}")?;
    let run = state.runs.request(&view, wanted.scope()?).map_err(run_refused)?;
    let location = [(header::LOCATION, format!("/v1/runs/{}", run.id))];
    Ok((StatusCode::ACCEPTED, location, json(&run)).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CheckpointRequest {
    full: bool,
}

/// `POST /v1/views/{view}/checkpoints`: 202 with the run. An empty body publishes what the speed layer holds.
pub async fn checkpoint(
    State(state): State<ServingState>,
    Path(view): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    state.view(&view)?;
    let CheckpointRequest { full } = json_body(&body, "{\"full\": true or false}")?;
    let run = state.runs.checkpoint(&view, full).map_err(run_refused)?;
    let location = [(header::LOCATION, format!("/v1/runs/{}", run.id))];
    Ok((StatusCode::ACCEPTED, location, json(&run)).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct VacuumRequest {
    older_than_ms: Option<u64>,
}

/// `POST /v1/views/{view}/vacuum`: deletes unused files. An empty body uses the age of the settings.
pub async fn vacuum(
    State(state): State<ServingState>,
    Path(view): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    state.view(&view)?;
    let wanted: VacuumRequest = json_body(&body, "{\"older_than_ms\": number}")?;
    let cleaned = state.runs.vacuum(&view, wanted.older_than_ms.map(Duration::from_millis)).await;
    let cleaned = cleaned.map_err(batch_unavailable)?;
    Ok(json(&cleaned))
}

/// `GET /v1/runs`: runs, newest first, including those before a restart; `view`, `state`, `limit`, and `before` (a run) to
/// continue.
pub async fn list(State(state): State<ServingState>, access: Access, uri: Uri) -> Result<Response, Problem> {
    let [view, of_state, limit, before] = parameters::only(&uri, ["view", "state", "limit", "before"])?;
    if let Some(view) = &view {
        require_visible(&access, view)?;
        state.view(view)?;
    }
    let of_state: Option<RunState> = match of_state {
        None => None,
        Some(text) => Some(text.parse().map_err(|problem| invalid_parameter(format!("state: {problem}")))?),
    };
    let limit = match limit {
        None => RUNS_DEFAULT,
        Some(text) => text.parse().ok().filter(|limit| (1..=RUNS_KEPT).contains(limit)).ok_or_else(|| {
            invalid_parameter(format!("limit: expected a number from 1 to {RUNS_KEPT}, found \"{text}\""))
        })?,
    };
    let page = state.runs.list(&RunFilter { view, state: of_state, before: before.clone(), limit });
    let shown = |mut page: RunPage| {
        page.runs.retain(|run| access.may_see_view(run.view.as_str()));
        json(&page)
    };
    page.map(shown).map_err(|error| match before {
        Some(id) if error == RunError::UnknownRun(id.clone()) => unknown_run(&state, &access, &id),
        _ => run_refused(error),
    })
}

/// `GET /v1/runs/{run}`.
pub async fn describe(
    State(state): State<ServingState>,
    access: Access,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let run = state.runs.get(&id).ok_or_else(|| unknown_run(&state, &access, &id))?;
    require_visible(&access, run.view.as_str())?;
    Ok(json(&run))
}

/// `DELETE /v1/runs/{run}`: cancels the run, or the retry it waits for, and returns its state.
pub async fn cancel(
    State(state): State<ServingState>,
    access: Access,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let run = state.runs.get(&id).ok_or_else(|| unknown_run(&state, &access, &id))?;
    access.require(Action::Run, run.view.as_str())?;
    Ok(json(&state.runs.cancel(&id).map_err(run_refused)?))
}

/// Refuses a principal that may neither read the view nor start its runs.
fn require_visible(access: &Access, view: &str) -> Result<(), Problem> {
    if access.may_see_view(view) { Ok(()) } else { access.require(Action::Read, view) }
}

fn unknown_run(state: &ServingState, access: &Access, id: &str) -> Problem {
    let latest = RunFilter { view: None, state: None, before: None, limit: RUNS_DEFAULT };
    let mut runs = state.runs.list(&latest).map(|page| page.runs).unwrap_or_default();
    runs.retain(|run| access.may_see_view(run.view.as_str()));
    let hint = did_you_mean(id, runs.iter().map(|run| run.id.as_str()));
    Problem::new(Code::UnknownRun, format!("there is no run \"{id}\"{hint}"))
}
