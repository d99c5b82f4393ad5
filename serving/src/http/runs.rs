//! How is the batch layer steered? Asking for runs, watching them, cancelling them.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use shared::control::{DateRange, Run, RunScope};
use shared::time::Day;

use super::problem::Problem;
use super::{ServingState, json};
use crate::nearest::did_you_mean;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    full: bool,
    from: Option<String>,
    to: Option<String>,
}

impl Wanted {
    fn scope(&self) -> Result<RunScope, Problem> {
        let date = |name: &str, text: &str| {
            let day = Day::parse(text).filter(|day| day.to_string() == text);
            day.ok_or_else(|| {
                Problem::invalid_parameter(format!("{name}: expected a date such as 2001-01-31, found \"{text}\""))
            })
        };
        let range = match (&self.from, &self.to) {
            (None, None) => None,
            (Some(from), Some(to)) => Some(DateRange { from: date("from", from)?, to: date("to", to)? }),
            (None, Some(_)) => {
                return Err(Problem::invalid_parameter("from: a range has a first date, too".to_owned()));
            }
            (Some(_), None) => return Err(Problem::invalid_parameter("to: a range has an end, too".to_owned())),
        };
        match range.filter(|range| range.from >= range.to) {
            None => Ok(RunScope { full: self.full, range }),
            Some(DateRange { from, to }) if from == to => Err(Problem::invalid_parameter(format!(
                "to: {from} to {to} is no day at all: to is not included, so one day is from={from} to={}",
                Day(to.0.saturating_add(1))
            ))),
            Some(DateRange { from, to }) => {
                Err(Problem::invalid_parameter(format!("to: {to} is before from, which is {from}")))
            }
        }
    }
}

#[derive(Serialize)]
struct Listed {
    runs: Vec<Run>,
}

/// `POST /v1/views/{view}/runs`: 202 with the run. An empty body asks for an incremental one.
pub async fn request(
    State(state): State<ServingState>,
    Path(view): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    state.view(&view)?;
    let wanted: Wanted = if body.iter().all(u8::is_ascii_whitespace) {
        Wanted::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            let detail =
                format!("the body is not {{\"full\": true or false}} or {{\"from\": date, \"to\": date}}: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be read", detail)
        })?
    };
    let run = state.runs.request(&view, wanted.scope()?)?;
    let location = [(header::LOCATION, format!("/v1/runs/{}", run.id))];
    Ok((StatusCode::ACCEPTED, location, json(&run)).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Vacuum {
    older_than_ms: Option<u64>,
}

/// `POST /v1/views/{view}/vacuum`: deletes files that nobody needs. An empty body: those as old as the settings say.
pub async fn vacuum(
    State(state): State<ServingState>,
    Path(view): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    state.view(&view)?;
    let wanted: Vacuum = if body.iter().all(u8::is_ascii_whitespace) {
        Vacuum::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            let detail = format!("the body is not {{\"older_than_ms\": a number}}: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be read", detail)
        })?
    };
    let cleaned = state.runs.vacuum(&view, wanted.older_than_ms.map(Duration::from_millis)).await?;
    Ok(json(&cleaned))
}

/// `GET /v1/runs`: runs of this process, newest first.
pub async fn list(State(state): State<ServingState>) -> Response {
    json(&Listed { runs: state.runs.list() })
}

/// `GET /v1/runs/{run}`.
pub async fn describe(State(state): State<ServingState>, Path(id): Path<String>) -> Result<Response, Problem> {
    state.runs.get(&id).map(|run| json(&run)).ok_or_else(|| unknown_run(&state, &id))
}

/// `DELETE /v1/runs/{run}`: cancels it, and tells how it stands.
pub async fn cancel(State(state): State<ServingState>, Path(id): Path<String>) -> Result<Response, Problem> {
    if state.runs.get(&id).is_none() {
        return Err(unknown_run(&state, &id));
    }
    Ok(json(&state.runs.cancel(&id)?))
}

fn unknown_run(state: &ServingState, id: &str) -> Problem {
    let runs = state.runs.list();
    let hint = did_you_mean(id, runs.iter().map(|run| run.id.as_str()));
    Problem::unknown("unknown_run", format!("there is no run \"{id}\"{hint}"))
}
