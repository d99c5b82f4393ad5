//! Makes HTTP requests of one client to a server that may stop, start again at the same address, or not respond.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Where the server is, and a client of its own.
pub struct Connection {
    url: String,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// A response: its status, and its body if that is JSON.
pub struct Response {
    pub status: u16,
    pub body: Value,
}

impl Connection {
    pub fn new(url: &str, timeout: Duration) -> Connection {
        Connection {
            url: url.to_owned(),
            client: reqwest::Client::builder().no_proxy().timeout(timeout).build().expect("a client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }

    pub fn get(&self, path: &str) -> Option<Response> {
        self.send(self.client.get(format!("{}{path}", self.url)))
    }

    pub fn post(&self, path: &str, body: String, key: Option<&str>) -> Option<Response> {
        let request = self.client.post(format!("{}{path}", self.url)).body(body);
        self.send(match key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        })
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Option<Response> {
        self.runtime.block_on(async {
            let response = request.send().await.ok()?;
            let status = response.status().as_u16();
            let text = response.text().await.ok()?;
            Some(Response { status, body: serde_json::from_str(&text).unwrap_or(Value::Null) })
        })
    }
}

/// An event of a live query.
pub struct FeedEvent {
    pub id: String,
    pub name: String,
    pub data: Value,
}

/// A connection to a live query.
pub struct Feed {
    lines: BufReader<TcpStream>,
}

impl Feed {
    /// Subscribes, after the event `last_id` if there is one. `None`: the server did not accept it.
    pub fn open(url: &str, path: &str, last_id: Option<&str>, timeout: Duration) -> Option<Feed> {
        let address = url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(timeout)).ok()?;
        let last = last_id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        (&stream).write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{last}\r\n").as_bytes()).ok()?;
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        head.starts_with("HTTP/1.1 200").then_some(Feed { lines })
    }

    /// Returns the next event; `None`: the connection broke, or there was none for a while.
    pub fn next(&mut self) -> Option<FeedEvent> {
        let (mut id, mut name) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            // Sizes of chunks end with CR LF, lines of events with LF.
            let Some(line) = line.strip_suffix('\n').filter(|line| !line.ends_with('\r')) else { continue };
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.to_owned();
            } else if let Some(text) = line.strip_prefix("event: ") {
                name = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return Some(FeedEvent { id, name, data: serde_json::from_str(text).ok()? });
            }
        }
    }
}
