//! Returns the current rows of tables: one by its key, or a page in the order of the keys.

use arrow::array::RecordBatch;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use problem::{Code, Problem};
use serde_json::json;
use shared::control::StreamError;
use shared::entity::EntityId;
use shared::handoff::HandoffError;
use shared::limits::{TABLE_ROWS_DEFAULT, TABLE_ROWS_MAX};
use shared::stream::{RowTable, Stream};
use shared::table_reader::RowPage;

use super::entity_events::number;
use super::refusal::{internal, invalid_parameter};
use super::{parameters, streams};
use crate::formats::json_events::{self, EventWriter};
use crate::state::ServingState;

/// Finds a table, with the index of its key.
fn find(state: &ServingState, name: &str) -> Result<(std::sync::Arc<Stream>, usize), Problem> {
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

/// `GET /v1/tables/{stream}/rows/{key}`: the row now.
pub async fn row(
    State(state): State<ServingState>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (table, column) = find(&state, &name)?;
    let id = EntityId::of_column(&table.columns[column], &key).map_err(|error| invalid_parameter(error.to_string()))?;
    let Some(rows) = state.tables.row(&table.name, &id).map_err(failed)? else {
        let detail = format!("the table {name} has no row with the key \"{id}\"");
        return Err(Problem::new(Code::UnknownRow, detail));
    };
    let mut body = Vec::new();
    EventWriter::new(&rows).write(0, &mut body);
    Ok((headers(), body).into_response())
}

/// `GET /v1/tables/{stream}/rows`: rows in the order of their keys, behind the key `after`.
pub async fn rows(State(state): State<ServingState>, Path(name): Path<String>, uri: Uri) -> Result<Response, Problem> {
    let (table, column) = find(&state, &name)?;
    let [after, limit] = parameters::only(&uri, ["after", "limit"])?;
    let limit = limit.map_or(Ok(TABLE_ROWS_DEFAULT as u64), |text| number("limit", &text, 1, TABLE_ROWS_MAX as u64))?;
    let key = |text: String| EntityId::of_column(&table.columns[column], &text);
    let after = after.map(key).transpose().map_err(|error| invalid_parameter(format!("after: {error}")))?;
    let page = {
        let (tables, name) = (std::sync::Arc::clone(&state.tables), table.name.clone());
        let read = move || tables.rows(&name, after.as_ref(), limit as usize);
        tokio::task::spawn_blocking(read).await.map_err(|error| internal(&error))?.map_err(failed)?
    };
    let RowPage { rows, has_more } = page;
    let mut body = format!("{{\"table\":\"{}\",\"rows\":", table.name).into_bytes();
    json_events::write(&rows, &mut body);
    body.extend_from_slice(b",\"next\":");
    body.extend_from_slice(
        last_key(&rows, &table, column).filter(|_| has_more).unwrap_or(json!(null)).to_string().as_bytes(),
    );
    body.push(b'}');
    Ok((headers(), body).into_response())
}

/// The key of the last row, as the parameter `after` takes it.
fn last_key(rows: &RecordBatch, table: &Stream, key: usize) -> Option<serde_json::Value> {
    let last = rows.num_rows().checked_sub(1)?;
    let column = rows.column_by_name(&table.columns[key].name)?;
    let text = arrow::util::display::array_value_to_string(column, last).ok()?;
    Some(json!(text))
}

fn headers() -> [(header::HeaderName, HeaderValue); 2] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
}
