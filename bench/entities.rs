//! Measures streams with an entity: appends under a condition, the state now, and the state at a random past instant among
//! archived events.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Server, quantile};

const DEFINITIONS: &str = "
    CREATE STREAM orders (order_id STRING, at TIMESTAMP, kind STRING, amount BIGINT)
        WITH (event_time = 'at', entity = 'order_id', partitions = 2);
    CREATE VIEW states AS SELECT order_id, COUNT(*) AS events, LAST_VALUE(kind) AS kind, SUM(amount) AS total
        FROM orders GROUP BY order_id;";
const CONNECTIONS: usize = 16;
const PROBES: usize = 1_000;

/// Reads a number from the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

pub fn measure() {
    // The issue's sizes are 10,000,000 events of 100,000 entities.
    let (events, entities) = (number("TRUEUP_ENTITY_EVENTS", 10_000_000), number("TRUEUP_ENTITIES", 100_000));
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::with_limits(folder.path(), DEFINITIONS, "archive_wait_ms = 5000\n");
    plain_appends(&server);
    for requests in [8, 32] {
        appends(&server, requests);
    }
    for appends in [1, 10, 100] {
        appends_in_one_request(&server, appends);
    }
    let begin = Instant::now();
    let mut dice = StdRng::seed_from_u64(1);
    const BATCH: u64 = 20_000;
    for batch in 0..events / BATCH {
        let mut lines = String::with_capacity(BATCH as usize * 80);
        for i in 0..BATCH {
            let entity = dice.random_range(0..entities);
            let at = 1_790_000_000_000u64 + (batch * BATCH + i) * 2;
            lines += &format!(
                "{{\"order_id\":\"o-{entity}\",\"at\":{at},\"kind\":\"k{}\",\"amount\":{}}}\n",
                i % 7,
                i % 100
            );
        }
        server.post("/v1/events/orders", lines.into_bytes());
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("  sent {events} events of {entities} entities in {seconds:.0} s ({:.0}/s)", events as f64 / seconds);
    states("state now, live", &server, entities, |_| String::new());
    println!("  a batch run took {:.1} s", server.run("states", false));
    states("state now, after a run", &server, entities, |_| String::new());
    let is_archived = |p: &serde_json::Value| p["archived"] == p["head"];
    while !server.get("/v1/streams/orders")["partitions"].as_array().expect("partitions").iter().all(is_archived) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let mean = (events / entities).max(1);
    states("state at a random past sequence, archived", &server, entities, |dice| {
        format!("?sequence={}", dice.random_range(1..=(mean / 2).max(1)))
    });
    println!("  peak memory {:.0} MiB", server.peak_mib());
    let begin = Instant::now();
    server.kill();
    let server = Server::with_limits(folder.path(), DEFINITIONS, "archive_wait_ms = 5000\n");
    println!("  a restart took {:.1} s", begin.elapsed().as_secs_f64());
    drop(server);
}

/// Latency of reading the state of random entities.
fn states(what: &str, server: &Server, entities: u64, past: impl Fn(&mut StdRng) -> String) {
    let mut dice = StdRng::seed_from_u64(2);
    let mut millis = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let path = format!("/v1/entities/orders/o-{}{}", dice.random_range(0..entities), past(&mut dice));
        let begin = Instant::now();
        if server.status(&path) == 200 {
            millis.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    millis.sort_by(f64::total_cmp);
    let (p50, p99) = (quantile(&millis, 0.5), quantile(&millis, 0.99));
    println!("{what}: p50 {p50:.2} ms, p99 {p99:.2} ms ({} probes)", millis.len());
}

/// Appends one event at a time under `If-Match` over HTTP/1.1. The client writes and reads bytes itself: a library of clients
/// would use more of the same cores than the server.
fn plain_appends(server: &Server) {
    let address = server.url.strip_prefix("http://").expect("an address").to_owned();
    let (begin, time) = (Instant::now(), Duration::from_secs(5));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connections = (0..CONNECTIONS).map(|number| plain_append(address.clone(), number, begin, time));
    let all: u64 = runtime.block_on(futures::future::join_all(connections)).into_iter().sum();
    println!(
        "appends with If-Match, one event each: {:.0}/s over {CONNECTIONS} connections of HTTP/1.1, a client of bytes on the \
         same cores",
        all as f64 / begin.elapsed().as_secs_f64()
    );
}

/// Appends to one entity until `time` after `begin`; returns the number of events.
async fn plain_append(address: String, number: usize, begin: Instant, time: Duration) -> u64 {
    let mut socket = tokio::net::TcpStream::connect(&address).await.expect("a connection");
    socket.set_nodelay(true).expect("an option");
    let body = r#"{"at":"2026-01-01T00:00:00Z","kind":"k","amount":1}"#;
    let (mut last, mut response) = (0u64, Vec::new());
    while begin.elapsed() < time {
        let request = format!(
            "POST /v1/entities/orders/plain-{number}/events HTTP/1.1\r\nhost: {address}\r\nif-match: \"{last}\"\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.expect("it is sent");
        response.clear();
        while !is_whole(&response) {
            assert!(socket.read_buf(&mut response).await.expect("a response") > 0, "the connection ended");
        }
        assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
        last += 1;
    }
    last
}

/// Whether a response has as many bytes as its head says.
fn is_whole(response: &[u8]) -> bool {
    let text = std::str::from_utf8(response).expect("UTF-8");
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    body.len() >= length.parse::<usize>().expect("a number")
}

/// Appends one event at a time under `If-Match`, `requests` at the same time over each of the connections, each to an entity
/// of its own.
fn appends(server: &Server, requests: usize) {
    let time = Duration::from_secs(5);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let begin = Instant::now();
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("a client");
        for request in 0..requests {
            let url = format!("{}/v1/entities/orders/append-{requests}-{connection}-{request}/events", server.url);
            tasks.push(runtime.spawn(append(client.clone(), url, time)));
        }
    }
    let all: u64 = tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic")).sum();
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "appends with If-Match, one event each: {:.0}/s over {CONNECTIONS} connections with {requests} requests each, \
         clients on the same cores",
        all as f64 / seconds
    );
}

/// Appends to one entity until `time` is over; returns the number of events.
async fn append(client: reqwest::Client, url: String, time: Duration) -> u64 {
    let body = json!({"at": "2026-01-01T00:00:00Z", "kind": "k", "amount": 1}).to_string();
    let (begin, mut last) = (Instant::now(), 0u64);
    while begin.elapsed() < time {
        let request = client.post(&url).header("if-match", format!("\"{last}\"")).body(body.clone());
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        response.bytes().await.expect("a body");
        last += 1;
    }
    last
}

/// Appends one event at a time under `if_match`, each to an entity of its own, `appends` in each request.
fn appends_in_one_request(server: &Server, appends: usize) {
    let time = Duration::from_secs(5);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let begin = Instant::now();
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{}/v1/entities/orders", server.url);
        tasks.push(runtime.spawn(append_each(client, url, format!("each-{appends}-{connection}"), appends, time)));
    }
    let all: u64 = tasks.into_iter().map(|task| runtime.block_on(task).expect("no panic")).sum();
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "appends with if_match, one event each: {:.0}/s over {CONNECTIONS} connections with {appends} appends per request, \
         clients on the same cores",
        all as f64 / seconds
    );
}

/// Sends requests of `appends` appends until `time` is over; returns the number of events.
async fn append_each(client: reqwest::Client, url: String, name: String, appends: usize, time: Duration) -> u64 {
    let (begin, mut last) = (Instant::now(), 0u64);
    while begin.elapsed() < time {
        let line = |number: usize| {
            format!(
                "{{\"id\":\"{name}-{number}\",\"if_match\":{last},\"events\":[{{\"at\":\"2026-01-01T00:00:00Z\",\
                 \"kind\":\"k\",\"amount\":1}}]}}\n"
            )
        };
        let request = client.post(&url).body((0..appends).map(line).collect::<String>());
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        let body: serde_json::Value = response.json().await.expect("a body");
        assert_eq!(body["succeeded"], json!(appends));
        last += 1;
    }
    last * appends as u64
}
