//! Lists raised alerts, sends their changes as server-sent events, and makes silences.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use auth::{Access, Action};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::stream;
use problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use shared::control::{
    AlertDeclaration, AlertFilter, AlertRecord, AlertState, Alerts, DeadLetter, Silence, SilenceError,
};
use shared::ids::AlertName;
use shared::limits::{ALERT_SUBSCRIBERS_MAX, ALERTS_DEFAULT, ALERTS_MAX, LIVE_HEARTBEAT_MS, SILENCE_SECONDS_MAX};
use shared::sql::suggest::in_parentheses as did_you_mean;
use shared::time::{MICROS_PER_SECOND, Micros};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa::ToSchema;

use super::refusal::{invalid_parameter, json_body};
use super::{json, parameters};
use crate::http::event_response::{LAST_EVENT_ID, event_response};
use crate::state::ServingState;

/// Changes read from the book at once.
const CHANGES_AT_ONCE: usize = 256;
/// Longest time until a stream of events notices that the server is stopping.
const STOP_CHECK: Duration = Duration::from_millis(500);
const OPENING: &[u8] = b"retry: 1000\n\n";
const HEARTBEAT: &[u8] = b": still here\n\n";

/// The response of `GET /v1/alerts`.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertList {
    /// Last changed first.
    pub alerts: Vec<AlertRecord>,
    /// The declared alerts.
    pub declared: Vec<AlertDeclaration>,
    /// Number of all records that the parameters admit.
    pub total: usize,
}

/// The response of `GET /v1/alerts/dead_letters`.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetterList {
    /// Newest first.
    pub dead_letters: Vec<DeadLetter>,
}

/// The response of `GET /v1/alerts/silences`.
#[derive(Debug, Serialize, ToSchema)]
pub struct SilenceList {
    /// The first to end first.
    pub silences: Vec<Silence>,
}

/// The body of a request for a silence.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SilenceRequest {
    for_seconds: u64,
    alert: Option<String>,
    #[serde(default)]
    key: BTreeMap<String, String>,
    reason: Option<String>,
}

const SILENCE_FORM: &str = "{\"for_seconds\": number, \"alert\": name, \"key\": {column: value}, \"reason\": text}";

/// Room for subscribers.
#[derive(Clone)]
pub struct AlertSubscribers(Arc<Semaphore>);

impl Default for AlertSubscribers {
    fn default() -> AlertSubscribers {
        AlertSubscribers(Arc::new(Semaphore::new(ALERT_SUBSCRIBERS_MAX)))
    }
}

/// `GET /v1/alerts`: raised alerts; `state`, `alert` and `limit`.
pub async fn list(State(state): State<ServingState>, access: Access, uri: Uri) -> Result<Response, Problem> {
    let [of_state, alert, limit] = parameters::only(&uri, ["state", "alert", "limit"])?;
    access.require_all_rows()?;
    let of_state = of_state.map(|text| parse_state(&text)).transpose()?;
    let limit = match limit {
        None => ALERTS_DEFAULT,
        Some(text) => text.parse().ok().filter(|limit| (1..=ALERTS_MAX).contains(limit)).ok_or_else(|| {
            invalid_parameter(format!("limit: expected a number from 1 to {ALERTS_MAX}, found \"{text}\""))
        })?,
    };
    let mut declared = state.alerts.declared();
    declared.retain(|alert| access.may(Action::Read, alert.view.as_str()));
    let is_visible = |record: &AlertRecord| access.may(Action::Read, record.view.as_str());
    let (alerts, total) = state.alerts.list(&AlertFilter { alert: alert.clone(), state: of_state }, &is_visible, limit);
    if let Some(alert) = alert.filter(|name| total == 0 && !declared.iter().any(|d| d.name.as_str() == name)) {
        let hint = did_you_mean(&alert, declared.iter().map(|declared| declared.name.as_str()));
        return Err(invalid_parameter(format!("alert: there is no alert called \"{alert}\"{hint}")));
    }
    Ok(json(&AlertList { alerts, declared, total }))
}

fn parse_state(text: &str) -> Result<AlertState, Problem> {
    AlertState::from_name(text).ok_or_else(|| {
        let names = AlertState::ALL.map(AlertState::name);
        let hint = did_you_mean(text, names);
        invalid_parameter(format!("state: \"{text}\" is not {}{hint}", names.join(", ")))
    })
}

/// `GET /v1/alerts/dead_letters`: notices that were given up.
pub async fn dead_letters(State(state): State<ServingState>, access: Access) -> Result<Response, Problem> {
    access.require_all_rows()?;
    let mut dead_letters = state.alerts.dead_letters();
    dead_letters.retain(|letter| access.may(Action::Read, letter.record.view.as_str()));
    Ok(json(&DeadLetterList { dead_letters }))
}

/// `GET /v1/alerts/silences`: those that are not over.
pub async fn silences(State(state): State<ServingState>, access: Access) -> Result<Response, Problem> {
    access.require_all_rows()?;
    let mut silences = state.alerts.silences(state.clock.now());
    silences.retain(|silence| require_control(&state, &access, silence.alert.as_ref(), Action::Read).is_ok());
    Ok(json(&SilenceList { silences }))
}

/// `POST /v1/alerts/silences`: 201 with the silence.
pub async fn silence(State(state): State<ServingState>, access: Access, body: Bytes) -> Result<Response, Problem> {
    let wanted: SilenceRequest = json_body(&body, SILENCE_FORM)?;
    let name = |text: &str| {
        let declared = state.alerts.declared();
        let found = declared.iter().find(|alert| alert.name.as_str() == text).map(|alert| alert.name.clone());
        found.ok_or_else(|| {
            let hint = did_you_mean(text, declared.iter().map(|declared| declared.name.as_str()));
            invalid_parameter(format!("alert: there is no alert called \"{text}\"{hint}"))
        })
    };
    let alert = wanted.alert.as_deref().map(name).transpose()?;
    if !(1..=SILENCE_SECONDS_MAX).contains(&wanted.for_seconds) {
        let found = wanted.for_seconds;
        return Err(invalid_parameter(format!(
            "for_seconds: expected a number from 1 to {SILENCE_SECONDS_MAX}, found {found}"
        )));
    }
    require_control(&state, &access, alert.as_ref(), Action::Run)?;
    let now = state.clock.now();
    let silence = Silence {
        id: uuid::Uuid::new_v4().simple().to_string(),
        alert,
        key: wanted.key,
        created_at: now,
        until: Micros(now.0 + wanted.for_seconds as i64 * MICROS_PER_SECOND),
        by: access.to_string(),
        reason: wanted.reason,
    };
    let (alerts, made) = (Arc::clone(&state.alerts), silence.clone());
    written(tokio::task::spawn_blocking(move || alerts.silence(made)).await)?;
    Ok((StatusCode::CREATED, json(&silence)).into_response())
}

/// `DELETE /v1/alerts/silences/{silence}`: ends it; 200 with what it was.
pub async fn unsilence(
    State(state): State<ServingState>,
    access: Access,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let found = state.alerts.silences(state.clock.now()).into_iter().find(|silence| silence.id == id);
    let Some(silence) = found else {
        return Err(Problem::new(Code::UnknownSilence, format!("there is no silence \"{id}\", or it is over")));
    };
    require_control(&state, &access, silence.alert.as_ref(), Action::Run)?;
    let alerts = Arc::clone(&state.alerts);
    written(tokio::task::spawn_blocking(move || alerts.unsilence(&id)).await)?;
    Ok(json(&silence))
}

/// Refuses a principal that may not do `action` with the view of an alert, or with all views.
fn require_control(
    state: &ServingState,
    access: &Access,
    alert: Option<&AlertName>,
    action: Action,
) -> Result<(), Problem> {
    access.require_all_rows()?;
    let declared = state.alerts.declared();
    match alert.and_then(|name| declared.iter().find(|declared| declared.name == *name)) {
        Some(declared) => access.require(action, declared.view.as_str()),
        None => access.require_all(action),
    }
}

/// Returns the problem of a change of the silences that was not written.
fn written(outcome: Result<Result<(), SilenceError>, tokio::task::JoinError>) -> Result<(), Problem> {
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ (SilenceError::TooMany | SilenceError::NoAlerts))) => Err(invalid_parameter(error.to_string())),
        Ok(Err(error @ SilenceError::Write(_))) => Err(Problem::new(Code::DiskFull, error.to_string())),
        Err(error) => Err(Problem::new(Code::Internal, error.to_string())),
    }
}

/// `GET /v1/alerts/live`: an event per change of a record, from now on, or after the one in `Last-Event-ID`.
pub async fn live(
    State(state): State<ServingState>,
    access: Access,
    Extension(subscribers): Extension<AlertSubscribers>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    access.require_all_rows()?;
    let permit = Arc::clone(&subscribers.0).try_acquire_owned().map_err(|_| {
        let detail = format!("the limit of {ALERT_SUBSCRIBERS_MAX} subscribers of alerts is reached; retry later");
        Problem::new(Code::TooManyLiveAnswers, detail)
    })?;
    let changes = state.alerts.changes();
    let now = *changes.borrow();
    let last = headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok());
    // An id that this server has not given yet is one of another data folder: everything is new then.
    let sent = last.map_or(now, |id| id.trim().parse().ok().filter(|seq| *seq <= now).unwrap_or(0));
    Ok(event_response(events(AlertEvents { state, access, changes, sent, _permit: permit })))
}

/// What a subscriber still gets. It has no queue: changes are read from the book when the client reads.
struct AlertEvents {
    state: ServingState,
    access: Access,
    changes: watch::Receiver<u64>,
    /// Number of the last change that was sent.
    sent: u64,
    _permit: OwnedSemaphorePermit,
}

fn events(events: AlertEvents) -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let opening = stream::iter([Ok(Bytes::from_static(OPENING))]);
    futures::StreamExt::chain(
        opening,
        stream::unfold(events, |mut events| async move {
            let bytes = events.next().await?;
            Some((Ok(bytes), events))
        }),
    )
}

impl AlertEvents {
    /// Returns the next events; `None` once the server is stopping.
    async fn next(&mut self) -> Option<Bytes> {
        let mut silence = Duration::ZERO;
        loop {
            self.changes.borrow_and_update();
            let alerts: &Arc<dyn Alerts> = &self.state.alerts;
            let changed = alerts.since(self.sent, CHANGES_AT_ONCE);
            let mut bytes = Vec::new();
            for record in &changed {
                self.sent = record.seq;
                if self.access.may(Action::Read, record.view.as_str()) {
                    bytes.extend_from_slice(
                        format!("id: {}\nevent: {}\ndata: ", record.seq, record.state.name()).as_bytes(),
                    );
                    bytes.extend(serde_json::to_vec(record).expect("plain data has a JSON form"));
                    bytes.extend_from_slice(b"\n\n");
                }
            }
            if !bytes.is_empty() {
                return Some(bytes.into());
            }
            if !changed.is_empty() {
                continue;
            }
            match tokio::time::timeout(STOP_CHECK, self.changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) if !self.state.ready.load(Ordering::SeqCst) => return None,
                Err(_) => {
                    silence += STOP_CHECK;
                    if silence >= Duration::from_millis(LIVE_HEARTBEAT_MS) {
                        return Some(Bytes::from_static(HEARTBEAT));
                    }
                }
            }
        }
    }
}
