//! Sends the requests of the tests, many at once.

use serde_json::{Value, json};
use std::sync::OnceLock;
use std::time::Duration;
use world::World;

/// A client of a server that may be killed.
#[derive(Clone)]
pub struct Client {
    url: String,
    http: reqwest::Client,
}

/// A response; its ETag without quotes.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub tag: Option<u64>,
    pub body: Value,
}

/// The runtime of all clients.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().expect("a runtime"))
}

impl Client {
    pub fn of(world: &World) -> Client {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
        Client { url: world.url().to_owned(), http }
    }

    async fn send(request: reqwest::RequestBuilder) -> Option<Reply> {
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok()?.trim_matches('"').parse().ok());
        let text = response.text().await.ok()?;
        Some(Reply { status, tag, body: serde_json::from_str(&text).unwrap_or(json!(text)) })
    }

    /// GET; `None` without an answer.
    pub async fn try_get(&self, path: &str) -> Option<Reply> {
        Client::send(self.http.get(format!("{}{path}", self.url))).await
    }

    /// DELETE; the status, or `None` without an answer.
    pub fn try_delete(&self, path: &str) -> Option<u16> {
        let request = self.http.delete(format!("{}{path}", self.url));
        runtime().block_on(Client::send(request)).map(|reply| reply.status)
    }

    pub fn get(&self, path: &str) -> Reply {
        runtime().block_on(self.try_get(path)).expect("an answer")
    }

    /// Appends events, one JSON object per line; `None` without an answer.
    pub async fn try_append(&self, entity: &str, events: &[Value], headers: &[(&str, &str)]) -> Option<Reply> {
        let body: String = events.iter().map(|event| format!("{event}\n")).collect();
        let mut request = self.http.post(format!("{}/v1/entities/order_events/{entity}/events", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Client::send(request).await
    }

    pub fn append(&self, entity: &str, events: &[Value], headers: &[(&str, &str)]) -> Reply {
        runtime().block_on(self.try_append(entity, events, headers)).expect("an answer")
    }

    /// Sends a body of appends; `None` without an answer.
    pub async fn try_append_each(&self, body: String) -> Option<Reply> {
        Client::send(self.http.post(format!("{}/v1/entities/order_events", self.url)).body(body)).await
    }

    /// Appends to several entities, one append per line.
    pub fn append_each(&self, appends: &[Value]) -> Reply {
        let body = appends.iter().map(|append| format!("{append}\n")).collect();
        runtime().block_on(self.try_append_each(body)).expect("an answer")
    }

    /// All events of an entity, in pages of `limit`.
    pub fn events(&self, entity: &str, limit: usize) -> Vec<Value> {
        let (mut from, mut all) = (1, Vec::new());
        loop {
            let reply =
                self.get(&format!("/v1/entities/order_events/{entity}/events?from_sequence={from}&limit={limit}"));
            if reply.status == 404 {
                return all;
            }
            assert_eq!(reply.status, 200, "{}", reply.body);
            all.extend(reply.body["events"].as_array().expect("events").clone());
            match reply.body["next_sequence"].as_u64() {
                Some(next) => from = next,
                None => return all,
            }
        }
    }
}

/// An event with an id of its own. All have one event time, so that the last one is that of the log.
pub fn event(id: &str, kind: &str, amount: i64) -> Value {
    json!({"event_id": id, "at": "2026-11-01T10:00:00Z", "kind": kind, "amount": amount})
}

/// The member `name` of each event.
pub fn members(events: &[Value], name: &str) -> Vec<Value> {
    events.iter().map(|event| event[name].clone()).collect()
}
