//! Follows live queries, resumes after every broken connection, and records the result that the events add up to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::connection::{Feed, FeedEvent};
use crate::history::{Operation, ViewState};
use crate::workload::{Clients, view_state};

/// How long a subscriber waits for an event before it connects again.
const PATIENCE: Duration = Duration::from_millis(700);

/// The rows that a subscriber has put together, by window and group.
pub struct Subscriber<'a> {
    clients: &'a Clients<'a>,
    client: String,
    view: &'static str,
    rows: BTreeMap<String, Value>,
    last_id: Option<String>,
    feed: Option<Feed>,
}

impl<'a> Subscriber<'a> {
    pub fn new(clients: &'a Clients<'a>, number: u64, view: &'static str) -> Subscriber<'a> {
        let client = format!("subscriber {number}");
        Subscriber { clients, client, view, rows: BTreeMap::new(), last_id: None, feed: None }
    }

    /// Receives one event, or connects (again). Returns the result as of the event.
    pub fn step(&mut self) -> Option<ViewState> {
        let Some(feed) = &mut self.feed else {
            let path = format!("/v1/views/{}/live?every=100ms&limit=50000", self.view);
            self.feed = Feed::open(self.clients.url, &path, self.last_id.as_deref(), PATIENCE);
            if self.feed.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return None;
        };
        let Some(event) = feed.next() else {
            self.feed = None;
            return None;
        };
        if let Err(what) = self.apply(&event) {
            self.clients.recorder.note(&self.client, Operation::Wrong { what });
        }
        let state = view_state(&event.data, self.rows.values());
        self.last_id = Some(event.id);
        self.clients.recorder.note(&self.client, Operation::Feed { view: self.view.to_owned(), state: state.clone() });
        Some(state)
    }

    fn apply(&mut self, event: &FeedEvent) -> Result<(), String> {
        if event.name == "snapshot" {
            self.rows.clear();
        }
        let rows = |part: &str| event.data[part].as_array().into_iter().flatten();
        let mut unknown = Ok(());
        for gone in rows("gone") {
            if self.rows.remove(&key(gone)).is_none() {
                unknown = Err(format!("{}: {gone} is gone but was never there", self.view));
            }
        }
        self.rows.extend(rows("rows").map(|row| (key(row), row.clone())));
        unknown
    }
}

fn key(row: &Value) -> String {
    format!("{} {}", row["window_start"], row["batch"])
}
