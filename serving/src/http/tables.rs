//! Returns rows of tables, the current ones or those as of an instant: one by its key, or a page in the order of the keys.

use axum::extract::{Path, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use problem::{Code, Problem};
use serde_json::json;
use shared::clock::monotonic_now;
use shared::control::StreamError;
use shared::handoff::HandoffError;
use shared::limits::{TABLE_ROWS_DEFAULT, TABLE_ROWS_MAX};
use shared::lookup::instant::SeenRow;
use shared::partial::query_budget::Exceeded;
use shared::stream::{KeyColumns, RowTable, Stream};
use shared::table_key::TableKey;
use shared::table_reader::{PageSelection, PastRowsError, RowPage};

use super::entity_events::{number, time};
use super::refusal::{batch_unavailable, internal, invalid_parameter};
use super::{parameters, streams};
use crate::formats::json_events::{self, EventWriter};
use crate::state::ServingState;

/// Finds a table, with its key.
fn find(state: &ServingState, name: &str) -> Result<(std::sync::Arc<Stream>, KeyColumns), Problem> {
    let unknown = || streams::problem(state, StreamError::UnknownStream(name.to_owned()));
    let stream = state.tables.stream(name).ok_or_else(unknown)?;
    match stream.table {
        Some(RowTable { key, .. }) => Ok((stream, key)),
        None => {
            let detail = format!("{name} is a stream, not a table: declare it with CREATE TABLE");
            Err(Problem::new(Code::NoTable, detail))
        }
    }
}

fn failed(error: HandoffError) -> Problem {
    internal(&error)
}

/// The problem of rows of the past that could not be read.
fn past_failed(error: PastRowsError) -> Problem {
    match error {
        PastRowsError::Exceeded(error @ Exceeded::Bytes { .. }) => {
            let detail = format!("{error}: a row has too many changes; set query_memory_bytes in [limits] higher");
            Problem::new(Code::QueryTooLarge, detail)
        }
        PastRowsError::Exceeded(error) => {
            Problem::new(Code::QueryTimeout, format!("{error}; set query_time_ms in [limits] higher"))
        }
        PastRowsError::Unreadable(error) => batch_unavailable(error),
    }
}

/// `GET /v1/tables/{stream}/rows/{key}`: the row now, or `as_of` an event time.
pub async fn row(
    State(state): State<ServingState>,
    Path((name, key)): Path<(String, String)>,
    uri: Uri,
) -> Result<Response, Problem> {
    let started = monotonic_now();
    let (table, columns) = find(&state, &name)?;
    let key = TableKey::parse(&table, columns, &key).map_err(|error| invalid_parameter(error.to_string()))?;
    // As a detail names it.
    let id = if columns.only().is_some() { format!("\"{key}\"") } else { key.to_string() };
    let [as_of] = parameters::only(&uri, ["as_of"])?;
    let unknown = |what: String| Problem::new(Code::UnknownRow, format!("the table {name} {what}"));
    let rows = match as_of.map(|text| time("as_of", &text)).transpose()? {
        None => {
            let found = state.tables.row(&table.name, &key).map_err(failed)?;
            found.ok_or_else(|| unknown(format!("has no row with the key {id}")))?
        }
        Some(instant) => {
            let admitted = state.admission.admit(started).await?;
            let budget = admitted.allowance().clone();
            match state.tables.row_as_of(&table.name, &key, instant, budget).await.map_err(past_failed)? {
                SeenRow::Row(rows) => rows,
                SeenRow::Deleted(at) => {
                    return Err(unknown(format!("had no row with the key {id} at {instant}: it was deleted at {at}")));
                }
                SeenRow::NotYet(first) => {
                    let detail = format!("had no row with the key {id} at {instant}: its first version is of {first}");
                    return Err(unknown(detail));
                }
                SeenRow::Unknown => return Err(unknown(format!("has never had a row with the key {id}"))),
            }
        }
    };
    let mut body = Vec::new();
    EventWriter::new(&rows).write(0, &mut body);
    Ok((headers(), body).into_response())
}

/// `GET /v1/tables/{stream}/rows`: rows in the order of their keys, behind the key `after`, now or `as_of` an event time.
pub async fn rows(State(state): State<ServingState>, Path(name): Path<String>, uri: Uri) -> Result<Response, Problem> {
    let started = monotonic_now();
    let (table, columns) = find(&state, &name)?;
    let [after, limit, as_of] = parameters::only(&uri, ["after", "limit", "as_of"])?;
    let limit = limit.map_or(Ok(TABLE_ROWS_DEFAULT as u64), |text| number("limit", &text, 1, TABLE_ROWS_MAX as u64))?;
    let key = |text: String| TableKey::parse(&table, columns, &text);
    let after = after.map(key).transpose().map_err(|error| invalid_parameter(format!("after: {error}")))?;
    let selection = PageSelection { after, limit: limit as usize };
    let page = match as_of.map(|text| time("as_of", &text)).transpose()? {
        None => {
            let (tables, name) = (std::sync::Arc::clone(&state.tables), table.name.clone());
            let read = move || tables.rows(&name, &selection);
            tokio::task::spawn_blocking(read).await.map_err(|error| internal(&error))?.map_err(failed)?
        }
        Some(instant) => {
            let admitted = state.admission.admit(started).await?;
            let budget = admitted.allowance().clone();
            state.tables.rows_as_of(&table.name, &selection, instant, budget).await.map_err(past_failed)?
        }
    };
    let RowPage { rows, next } = page;
    let mut body = format!("{{\"table\":\"{}\",\"rows\":", table.name).into_bytes();
    json_events::write(&rows, &mut body);
    body.extend_from_slice(format!(",\"next\":{}}}", json!(next)).as_bytes());
    Ok((headers(), body).into_response())
}

fn headers() -> [(header::HeaderName, HeaderValue); 2] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
}
