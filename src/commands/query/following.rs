//! `trueup query --follow`: what changes, as it changes? The events of `/live`, from where they broke off if they did.
//!
//! On a terminal the table is drawn again over the one before. Elsewhere each change adds what is new to what was printed.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use futures::TryStreamExt;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::{Stop, parameters};
use crate::arguments::{Query, RowFormat};
use crate::client::{Client, ClientError};

/// Pause before a broken connection is taken up again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Clears the screen, and what was scrolled out of it, and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[3J\x1b[H";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    id: String,
    name: String,
    data: String,
}

/// Frames of `text/event-stream`, put together from whatever pieces they come in.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    /// How many of them have been looked through.
    seen: usize,
}

impl Frames {
    /// The events that are whole with `piece`. Comments are left out.
    fn add(&mut self, piece: &[u8]) -> Vec<Event> {
        self.bytes.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = memchr::memmem::find(&self.bytes[self.seen..], b"\n\n") {
            let frame: Vec<u8> = self.bytes.drain(..self.seen + end + 2).collect();
            self.seen = 0;
            let text = String::from_utf8_lossy(&frame);
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(id), Some(name), Some(data)) = (field("id: "), field("event: "), field("data: ")) {
                events.push(Event { id, name, data });
            }
        }
        // The last byte may be the first of the two that end a frame.
        self.seen = self.bytes.len().saturating_sub(1);
        events
    }
}

/// Prints changes until somebody stops it.
pub async fn follow(client: &Client, arguments: &Query) -> Result<(), Stop> {
    let path = format!("/v1/views/{}/live", arguments.view);
    let mut asked = parameters(arguments);
    asked.extend(arguments.every.as_ref().map(|every| ("every", every.clone())));
    let mut shown = Shown::new(arguments.output, arguments.order_by.as_deref());
    let mut last_id: Option<String> = None;
    loop {
        let mut request = client.request(Method::GET, &path).query(&asked);
        if let Some(id) = &last_id {
            request = request.header("last-event-id", id);
        }
        let broken = match client.send(request).await {
            Ok(answer) => {
                let (mut pieces, mut frames) = (answer.bytes_stream(), Frames::default());
                loop {
                    match pieces.try_next().await {
                        Ok(Some(piece)) => {
                            for event in frames.add(&piece) {
                                shown.show(&event).map_err(|error| match error {
                                    Wrong::Output(error) => Stop::Output(error),
                                    Wrong::Event(cause) => Stop::NoAnswer(client.unreadable(&cause)),
                                })?;
                                last_id = Some(event.id);
                            }
                        }
                        Ok(None) => break "the server ended it".to_owned(),
                        Err(error) => break client.unreachable(&error).to_string(),
                    }
                }
            }
            // Who was never answered need not wait; who was, waits for a server that is started again.
            Err(error @ ClientError::Unreachable { .. }) if last_id.is_some() => error.to_string(),
            Err(ClientError::Refused(problem)) if last_id.is_some() && problem.status == 503 => problem.to_string(),
            Err(error) => return Err(error.into()),
        };
        eprintln!("not live at the moment ({broken}); trying again");
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Event(#[from] serde_json::Error),
}

/// What has been printed, and how.
struct Shown {
    output: RowFormat,
    is_terminal: bool,
    columns: Value,
    /// Names of the columns that tell rows apart.
    keys: Vec<String>,
    /// What rows are ordered by, and whether downwards; empty: by what tells them apart.
    order: Vec<(String, bool)>,
    /// The rows there are, by what tells them apart, in the order they came.
    rows: Vec<Map<String, Value>>,
    places: BTreeMap<String, usize>,
}

impl Shown {
    fn new(output: RowFormat, order_by: Option<&str>) -> Shown {
        let step = |name: &str| match name.trim().strip_prefix('-') {
            Some(name) => (name.to_owned(), true),
            None => (name.trim().to_owned(), false),
        };
        Shown {
            output,
            is_terminal: std::io::stdout().is_terminal(),
            columns: json!([]),
            keys: Vec::new(),
            order: order_by.map_or_else(Vec::new, |names| names.split(',').map(step).collect()),
            rows: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    fn show(&mut self, event: &Event) -> Result<(), Wrong> {
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
                let changed = self.take(event, &data);
                let mut rows = if self.is_terminal { self.rows.clone() } else { changed };
                self.sort(&mut rows);
                let mut document = data;
                document["columns"] = self.columns.clone();
                document["rows"] = rows.into_iter().map(Value::Object).collect();
                let answer: Answer = serde_json::from_value(document)?;
                let clear = if self.is_terminal { CLEAR } else { "" };
                writeln!(stdout, "{clear}{}{}", answer.table(None), answer.footer())?;
            }
        }
        Ok(stdout.flush()?)
    }

    /// Takes an event in; the rows that it brought.
    fn take(&mut self, event: &Event, data: &Value) -> Vec<Map<String, Value>> {
        if event.name == "snapshot" {
            self.columns = data["columns"].clone();
            let of_key = |column: &&Value| column["role"] != "measure";
            let names = data["columns"].as_array().into_iter().flatten().filter(of_key);
            self.keys = names.filter_map(|column| column["name"].as_str()).map(str::to_owned).collect();
            self.rows.clear();
            self.places.clear();
        }
        for gone in list(data, "gone") {
            if let Some(place) = self.places.remove(&self.key(&gone)) {
                self.rows.remove(place);
                self.places.values_mut().filter(|other| **other > place).for_each(|other| *other -= 1);
            }
        }
        let brought = list(data, "rows");
        for row in &brought {
            let place = *self.places.entry(self.key(row)).or_insert(self.rows.len());
            match self.rows.get_mut(place) {
                Some(known) => *known = row.clone(),
                None => self.rows.push(row.clone()),
            }
        }
        brought
    }

    /// As the server orders an answer: NULL first.
    fn sort(&self, rows: &mut [Map<String, Value>]) {
        let by_key = self.keys.iter().map(|name| (name.as_str(), false));
        let steps: Vec<(&str, bool)> =
            self.order.iter().map(|(name, downwards)| (name.as_str(), *downwards)).chain(by_key).collect();
        rows.sort_by(|a, b| {
            let step = |(name, downwards): &(&str, bool)| {
                let order = compared(a.get(*name), b.get(*name));
                if *downwards { order.reverse() } else { order }
            };
            steps.iter().map(step).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
    }

    fn key(&self, row: &Map<String, Value>) -> String {
        self.keys.iter().map(|name| row.get(name).unwrap_or(&Value::Null).to_string() + "\n").collect()
    }
}

/// Numbers by their size, also those of DECIMAL, which come as text; other texts as texts.
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

    fn event(name: &str, data: Value) -> (Event, Value) {
        (Event { id: "a-1".to_owned(), name: name.to_owned(), data: data.to_string() }, data)
    }

    #[test]
    fn frames_come_in_any_pieces() {
        let text = "retry: 1000\n\nid: a-0\nevent: snapshot\ndata: {\"x\":\"é\"}\n\n: still here\n\nid: a-1\nevent: change\ndata: {}\n\n";
        let whole = Frames::default().add(text.as_bytes());
        assert_eq!(
            whole.iter().map(|e| (e.id.as_str(), e.name.as_str())).collect::<Vec<_>>(),
            [("a-0", "snapshot"), ("a-1", "change")]
        );
        assert_eq!(whole[0].data, "{\"x\":\"é\"}");
        let mut frames = Frames::default();
        let pieces: Vec<Event> = text.as_bytes().chunks(3).flat_map(|piece| frames.add(piece)).collect();
        assert_eq!(pieces, whole);
    }

    #[test]
    fn rows_are_replaced_go_and_come() {
        let mut shown = Shown::new(RowFormat::Table, Some("-n"));
        let columns = json!([{"name": "w", "role": "window"}, {"name": "d", "role": "dimension"}, {"name": "n", "role": "measure"}]);
        let row = |w: i64, d: Option<&str>, n: i64| json!({"w": w, "d": d, "n": n});
        let (first, data) = event(
            "snapshot",
            json!({"columns": columns, "rows": [row(1, None, 5), row(1, Some("a"), 6), row(2, None, 7)]}),
        );
        shown.take(&first, &data);
        let change = json!({"gone": [{"w": 1, "d": null}], "rows": [row(2, None, 8), row(3, Some("b"), 1)]});
        let (change, data) = event("change", change);
        assert_eq!(shown.take(&change, &data).len(), 2);
        let rows: Vec<Value> = shown.rows.iter().cloned().map(Value::Object).collect();
        assert_eq!(rows, [row(1, Some("a"), 6), row(2, None, 8), row(3, Some("b"), 1)]);
        let again = json!({"gone": [], "rows": [row(3, Some("b"), 2)]});
        let (again, data) = event("change", again);
        shown.take(&again, &data);
        assert_eq!(shown.rows[2]["n"], 2);
        let mut rows = shown.rows.clone();
        shown.sort(&mut rows);
        assert_eq!(rows.iter().map(|row| row["n"].clone()).collect::<Vec<_>>(), [8, 6, 2]);
    }
}
