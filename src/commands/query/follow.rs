//! `trueup query --follow`: prints rows as they change, from the events of `/live`. Resumes after a broken connection.
//!
//! On a terminal each change redraws the table. Elsewhere each change prints the changed rows.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use futures::TryStreamExt;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::result_table::QueryResult;
use super::{QueryFailure, parameters};
use crate::arguments::{Query, RowFormat};
use crate::client::{Client, ClientError};

/// Pause before a reconnect.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// Clears the screen and the scrollback, and moves the cursor to the upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[3J\x1b[H";

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ServerEvent {
    id: String,
    name: String,
    data: String,
}

/// A parser of `text/event-stream` that accepts the stream in pieces of any size.
#[derive(Debug, Default)]
struct EventParser {
    bytes: Vec<u8>,
    /// Number of bytes that hold no end of a frame.
    searched: usize,
}

impl EventParser {
    /// Adds a piece and returns the events that it completes. Skips comments.
    fn add(&mut self, piece: &[u8]) -> Vec<ServerEvent> {
        self.bytes.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = memchr::memmem::find(&self.bytes[self.searched..], b"\n\n") {
            let frame: Vec<u8> = self.bytes.drain(..self.searched + end + 2).collect();
            self.searched = 0;
            let text = String::from_utf8_lossy(&frame);
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(id), Some(name), Some(data)) = (field("id: "), field("event: "), field("data: ")) {
                events.push(ServerEvent { id, name, data });
            }
        }
        // The last byte may be the first of the two that end a frame.
        self.searched = self.bytes.len().saturating_sub(1);
        events
    }
}

/// Prints changes until the user stops the command.
pub async fn follow(client: &Client, arguments: &Query) -> Result<(), QueryFailure> {
    let path = format!("/v1/views/{}/live", arguments.view);
    let mut parameters = parameters(arguments);
    parameters.extend(arguments.every.as_ref().map(|every| ("every", every.clone())));
    let mut printer = ChangePrinter::new(arguments.output, arguments.order_by.as_deref());
    let mut last_id: Option<String> = None;
    loop {
        let mut request = client.request(Method::GET, &path).query(&parameters);
        if let Some(id) = &last_id {
            request = request.header("last-event-id", id);
        }
        let broken = match client.send(request).await {
            Ok(response) => {
                let (mut pieces, mut parser) = (response.bytes_stream(), EventParser::default());
                loop {
                    match pieces.try_next().await {
                        Ok(Some(piece)) => {
                            for event in parser.add(&piece) {
                                printer.print(&event).map_err(|error| match error {
                                    PrintError::Output(error) => QueryFailure::Output(error),
                                    PrintError::Event(cause) => QueryFailure::Request(client.unreadable(&cause)),
                                })?;
                                last_id = Some(event.id);
                            }
                        }
                        Ok(None) => break "the server closed the connection".to_owned(),
                        Err(error) => break client.unreachable(&error).to_string(),
                    }
                }
            }
            // Reconnect only if there was a connection before: the server may be restarting.
            Err(error @ ClientError::Unreachable { .. }) if last_id.is_some() => error.to_string(),
            Err(ClientError::Refused(refusal)) if last_id.is_some() && refusal.status.as_u16() == 503 => {
                refusal.to_string()
            }
            Err(error) => return Err(error.into()),
        };
        eprintln!("disconnected ({broken}); reconnecting");
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum PrintError {
    #[error(transparent)]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Event(#[from] serde_json::Error),
}

/// Prints events, and keeps the current rows to do so.
struct ChangePrinter {
    output: RowFormat,
    is_terminal: bool,
    columns: Value,
    /// Names of the columns that identify a row.
    keys: Vec<String>,
    /// Columns to sort by, each with whether it is descending. Empty: the columns that identify a row.
    order: Vec<(String, bool)>,
    /// The current rows, in the order in which they arrived.
    rows: Vec<Map<String, Value>>,
    /// The index of each row in `rows`, by its key.
    indexes: BTreeMap<String, usize>,
}

impl ChangePrinter {
    fn new(output: RowFormat, order_by: Option<&str>) -> ChangePrinter {
        let step = |name: &str| match name.trim().strip_prefix('-') {
            Some(name) => (name.to_owned(), true),
            None => (name.trim().to_owned(), false),
        };
        ChangePrinter {
            output,
            is_terminal: std::io::stdout().is_terminal(),
            columns: json!([]),
            keys: Vec::new(),
            order: order_by.map_or_else(Vec::new, |names| names.split(',').map(step).collect()),
            rows: Vec::new(),
            indexes: BTreeMap::new(),
        }
    }

    fn print(&mut self, event: &ServerEvent) -> Result<(), PrintError> {
        let mut stdout = std::io::stdout().lock();
        let data: Value = serde_json::from_str(&event.data)?;
        match self.output {
            RowFormat::Json => writeln!(stdout, "{}", event.data)?,
            RowFormat::Ndjson => {
                for row in list(&data, "gone") {
                    let mut row = row;
                    row.insert("_gone".to_owned(), Value::Bool(true));
                    writeln!(stdout, "{}", Value::Object(row))?;
                }
                for row in list(&data, "rows") {
                    writeln!(stdout, "{}", Value::Object(row))?;
                }
            }
            _ => {
                let changed = self.apply(event, &data);
                let mut rows = if self.is_terminal { self.rows.clone() } else { changed };
                self.sort(&mut rows);
                let mut document = data;
                document["columns"] = self.columns.clone();
                document["rows"] = rows.into_iter().map(Value::Object).collect();
                let result: QueryResult = serde_json::from_value(document)?;
                let clear = if self.is_terminal { CLEAR } else { "" };
                writeln!(stdout, "{clear}{}{}", result.table(None), result.footer())?;
            }
        }
        Ok(stdout.flush()?)
    }

    /// Applies an event to the current rows. Returns the new and changed rows.
    fn apply(&mut self, event: &ServerEvent, data: &Value) -> Vec<Map<String, Value>> {
        if event.name == "snapshot" {
            self.columns = data["columns"].clone();
            let of_key = |column: &&Value| column["role"] != "measure";
            let names = data["columns"].as_array().into_iter().flatten().filter(of_key);
            self.keys = names.filter_map(|column| column["name"].as_str()).map(str::to_owned).collect();
            self.rows.clear();
            self.indexes.clear();
        }
        for gone in list(data, "gone") {
            if let Some(index) = self.indexes.remove(&self.key(&gone)) {
                self.rows.remove(index);
                self.indexes.values_mut().filter(|other| **other > index).for_each(|other| *other -= 1);
            }
        }
        let changed = list(data, "rows");
        for row in &changed {
            let index = *self.indexes.entry(self.key(row)).or_insert(self.rows.len());
            match self.rows.get_mut(index) {
                Some(known) => *known = row.clone(),
                None => self.rows.push(row.clone()),
            }
        }
        changed
    }

    /// Sorts rows as the server does: NULL first.
    fn sort(&self, rows: &mut [Map<String, Value>]) {
        let by_key = self.keys.iter().map(|name| (name.as_str(), false));
        let steps: Vec<(&str, bool)> =
            self.order.iter().map(|(name, descending)| (name.as_str(), *descending)).chain(by_key).collect();
        rows.sort_by(|a, b| {
            let step = |(name, descending): &(&str, bool)| {
                let order = compared(a.get(*name), b.get(*name));
                if *descending { order.reverse() } else { order }
            };
            steps.iter().map(step).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
    }

    fn key(&self, row: &Map<String, Value>) -> String {
        self.keys.iter().map(|name| row.get(name).unwrap_or(&Value::Null).to_string() + "\n").collect()
    }
}

/// Compares two values: numbers by value, including DECIMAL numbers, which are strings in JSON; other strings as strings.
fn compared(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
    match (a.filter(|a| !a.is_null()), b.filter(|b| !b.is_null())) {
        (None, None) => Ordering::Equal,
        (None, _) => Ordering::Less,
        (_, None) => Ordering::Greater,
        (Some(a), Some(b)) => match (number(a), number(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.as_str().cmp(&b.as_str()),
        },
    }
}

fn list(data: &Value, name: &str) -> Vec<Map<String, Value>> {
    data[name].as_array().into_iter().flatten().filter_map(Value::as_object).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: Value) -> (ServerEvent, Value) {
        (ServerEvent { id: "a-1".to_owned(), name: name.to_owned(), data: data.to_string() }, data)
    }

    #[test]
    fn events_are_parsed_from_pieces_of_any_size() {
        let text = "retry: 1000\n\nid: a-0\nevent: snapshot\ndata: {\"x\":\"é\"}\n\n: still here\n\nid: a-1\nevent: change\ndata: {}\n\n";
        let whole = EventParser::default().add(text.as_bytes());
        assert_eq!(
            whole.iter().map(|e| (e.id.as_str(), e.name.as_str())).collect::<Vec<_>>(),
            [("a-0", "snapshot"), ("a-1", "change")]
        );
        assert_eq!(whole[0].data, "{\"x\":\"é\"}");
        let mut parser = EventParser::default();
        let pieces: Vec<ServerEvent> = text.as_bytes().chunks(3).flat_map(|piece| parser.add(piece)).collect();
        assert_eq!(pieces, whole);
    }

    #[test]
    fn events_add_replace_and_remove_rows() {
        let mut printer = ChangePrinter::new(RowFormat::Table, Some("-n"));
        let columns = json!([{"name": "w", "role": "window"}, {"name": "d", "role": "dimension"}, {"name": "n", "role": "measure"}]);
        let row = |w: i64, d: Option<&str>, n: i64| json!({"w": w, "d": d, "n": n});
        let (first, data) = event(
            "snapshot",
            json!({"columns": columns, "rows": [row(1, None, 5), row(1, Some("a"), 6), row(2, None, 7)]}),
        );
        printer.apply(&first, &data);
        let change = json!({"gone": [{"w": 1, "d": null}], "rows": [row(2, None, 8), row(3, Some("b"), 1)]});
        let (change, data) = event("change", change);
        assert_eq!(printer.apply(&change, &data).len(), 2);
        let rows: Vec<Value> = printer.rows.iter().cloned().map(Value::Object).collect();
        assert_eq!(rows, [row(1, Some("a"), 6), row(2, None, 8), row(3, Some("b"), 1)]);
        let again = json!({"gone": [], "rows": [row(3, Some("b"), 2)]});
        let (again, data) = event("change", again);
        printer.apply(&again, &data);
        assert_eq!(printer.rows[2]["n"], 2);
        let mut rows = printer.rows.clone();
        printer.sort(&mut rows);
        assert_eq!(rows.iter().map(|row| row["n"].clone()).collect::<Vec<_>>(), [8, 6, 2]);
    }
}
