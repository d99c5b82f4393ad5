//! Tests live queries: changes applied to the first result give the current one,
//! through events, runs, lost connections and restarts; a thousand readers cost one computation.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use world::World;

const DEFINITIONS: &str = "
    CREATE STREAM sales (id STRING PRIMARY KEY, at TIMESTAMP, region STRING, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '1 hour', partitions = 2);
    CREATE VIEW totals AS SELECT window_start, region, COUNT(*) AS n, SUM(amount) AS total, COUNT(DISTINCT id) AS ids
        FROM sales GROUP BY TUMBLE(at, INTERVAL '1' HOUR), region;";
const PATIENCE: Duration = Duration::from_secs(60);

/// One event of a stream.
#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

/// A connection to a live query.
struct Listener {
    lines: BufReader<TcpStream>,
    status: u16,
}

impl Listener {
    fn open(world: &World, query: &str, last_id: Option<&str>) -> Listener {
        let address = world.url().trim_start_matches("http://");
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let last = last_id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let request = format!("GET /v1/views/totals/live?{query} HTTP/1.1\r\nHost: {address}\r\n{last}\r\n");
        (&stream).write_all(request.as_bytes()).expect("sends");
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).expect("an answer") > 0, "{head}");
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        if status == 200 {
            assert!(head.contains("text/event-stream") && head.contains("no-cache"), "{head}");
        }
        Listener { lines, status }
    }

    /// A line of the body, without the frames of chunks; `None` at the end.
    fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let text = line.trim_end_matches(['\r', '\n']).to_owned();
            // The size of a chunk, in hexadecimal, ends with CR LF; lines of events end with LF.
            if line.ends_with("\r\n") && u64::from_str_radix(&text, 16).is_ok_and(|_| !text.is_empty()) {
                if u64::from_str_radix(&text, 16) == Ok(0) {
                    return None;
                }
                continue;
            }
            if line == "\r\n" {
                continue;
            }
            return Some(text);
        }
    }

    fn next(&mut self) -> Option<Event> {
        let (mut id, mut name) = (String::new(), String::new());
        loop {
            let line = self.line()?;
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.to_owned();
            } else if let Some(text) = line.strip_prefix("event: ") {
                name = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return Some(Event { id, name, data: serde_json::from_str(text).expect("JSON") });
            }
        }
    }
}

/// The rows that a subscriber has assembled.
#[derive(Default)]
struct Known {
    rows: BTreeMap<(String, String), Value>,
    tail: Value,
    id: Option<String>,
}

fn key(row: &Value) -> (String, String) {
    (row["window_start"].to_string(), row["region"].to_string())
}

impl Known {
    fn hear(&mut self, event: Event) {
        match event.name.as_str() {
            "snapshot" => self.rows.clear(),
            "change" => {
                for gone in event.data["gone"].as_array().expect("a list") {
                    assert!(self.rows.remove(&key(gone)).is_some(), "{gone} was never there");
                }
            }
            other => panic!("an event called {other}"),
        }
        for row in event.data["rows"].as_array().expect("rows") {
            self.rows.insert(key(row), row.clone());
        }
        self.tail = json!({ "seam": event.data["seam"], "ledger": event.data["ledger"] });
        self.id = Some(event.id);
    }

    /// Reads events until the assembled rows equal the result of a query.
    fn catch_up(&mut self, world: &World, listener: &mut Listener, query: &str) {
        let asked = world.get(&format!("/v1/views/totals/rows.json?{query}"));
        assert_eq!(asked.status, 200, "{}", asked.text);
        let asked = asked.json();
        let expected: BTreeMap<_, _> =
            asked["rows"].as_array().expect("rows").iter().map(|row| (key(row), row.clone())).collect();
        let tail = json!({ "seam": asked["seam"], "ledger": asked["ledger"] });
        let begin = Instant::now();
        while self.tail != tail {
            assert!(begin.elapsed() < PATIENCE, "known {}, asked {tail}", self.tail);
            self.hear(listener.next().expect("an event"));
        }
        assert_eq!(self.rows, expected);
    }
}

fn events(random: &mut StdRng, first: u64, count: u64) -> String {
    (first..first + count)
        .map(|i| {
            let hour = random.random_range(0..30);
            let (day, hour) = (1 + hour / 24, hour % 24);
            let region = ["north", "south", "größer"][random.random_range(0..3)];
            json!({"id": format!("e{i}"), "at": format!("2001-01-{day:02}T{hour:02}:10:00Z"), "region": region, "amount": i})
                .to_string()
                + "\n"
        })
        .collect()
}

#[test]
fn changes_add_up_to_the_result_of_a_query() {
    let mut random = StdRng::seed_from_u64(11);
    let mut world = World::new(DEFINITIONS);
    // All rows; and a query whose rows change: the first ones by an order that changes.
    let queries = ["every=100ms", "every=100ms&order_by=-n&limit=5&where=n%20%3E%203"];
    let mut known = [Known::default(), Known::default()];
    let mut listeners: Vec<Listener> = queries.iter().map(|query| Listener::open(&world, query, None)).collect();
    let mut sent = 0;
    for round in 0..30 {
        let count = random.random_range(1..60);
        assert_eq!(world.post("/v1/events/sales", events(&mut random, sent, count)).status, 200);
        sent += count;
        if random.random_bool(0.3) {
            assert_eq!(world.run("totals", random.random_bool(0.3))["state"], json!("published"));
        }
        for (i, query) in queries.iter().enumerate() {
            let asked = query.split_once('&').map_or(String::new(), |(_, rest)| rest.to_owned());
            known[i].catch_up(&world, &mut listeners[i], &asked);
        }
        match random.random_range(0..6) {
            // A connection breaks and resumes, or resumes with an unknown id.
            0 | 1 => {
                let i = random.random_range(0..2);
                let last = if round % 2 == 0 { known[i].id.clone() } else { Some("0000000000000000-3".to_owned()) };
                let missed = random.random_bool(0.5);
                drop(std::mem::replace(&mut listeners[i], Listener::open(&world, queries[i], None)));
                if missed {
                    assert_eq!(world.post("/v1/events/sales", events(&mut random, sent, 5)).status, 200);
                    sent += 5;
                }
                listeners[i] = Listener::open(&world, queries[i], last.as_deref());
            }
            2 if round % 3 == 0 => {
                world.kill();
                world.start();
                listeners =
                    queries.iter().zip(&known).map(|(q, k)| Listener::open(&world, q, k.id.as_deref())).collect();
            }
            _ => {}
        }
    }
    // A clean stop ends the streams without waiting for them.
    let stopped = world.stop();
    assert_eq!(stopped, Some(0));
    for listener in &mut listeners {
        while listener.next().is_some() {}
    }
}

#[test]
fn a_returning_subscriber_gets_only_missed_changes() {
    let mut random = StdRng::seed_from_u64(12);
    let world = World::new(DEFINITIONS);
    assert_eq!(world.post("/v1/events/sales", events(&mut random, 0, 50)).status, 200);
    let mut listener = Listener::open(&world, "every=100ms", None);
    let first = listener.next().expect("an event");
    assert_eq!(first.name, "snapshot");
    drop(listener);
    // In the latest window, so that it is not late.
    let last = json!({"id": "e50", "at": "2001-01-02T05:20:00Z", "region": "north", "amount": 1});
    assert_eq!(world.post("/v1/events/sales", last.to_string()).status, 200);
    let mut other = Listener::open(&world, "every=100ms", None);
    while other.next().expect("an event").data["ledger"]["accepted"] != json!(51) {}
    let mut again = Listener::open(&world, "every=100ms", Some(&first.id));
    let mut rows = Vec::new();
    loop {
        let missed = again.next().expect("an event");
        assert_eq!((missed.name.as_str(), &missed.data["gone"]), ("change", &json!([])));
        rows.extend(missed.data["rows"].as_array().expect("rows").clone());
        if missed.data["ledger"]["accepted"] == json!(51) {
            break;
        }
    }
    assert!(!rows.is_empty() && rows.len() < 10, "{} rows", rows.len());
}

#[test]
fn a_thousand_readers_cost_one_computation() {
    const READERS: usize = 1_000;
    let mut random = StdRng::seed_from_u64(13);
    let world = World::new(DEFINITIONS);
    assert_eq!(world.post("/v1/events/sales", events(&mut random, 0, 50)).status, 200);
    let metric = |name: &str| {
        let metrics = world.get("/metrics").text;
        let line = metrics.lines().find(|line| line.starts_with(name) && !line.starts_with('#')).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let mut readers: Vec<Listener> = (0..READERS).map(|_| Listener::open(&world, "every=1s&group_by=", None)).collect();
    for reader in &mut readers {
        assert_eq!(reader.next().expect("an event").name, "snapshot");
    }
    assert_eq!((metric("trueup_live_subscribers"), metric("trueup_live_feeds")), (READERS as f64, 1.0));
    let before = metric("trueup_live_computations_total");
    assert_eq!(world.post("/v1/events/sales", events(&mut random, 50, 20)).status, 200);
    for reader in &mut readers {
        while reader.next().expect("an event").data["ledger"]["accepted"] != json!(70) {}
    }
    let after = metric("trueup_live_computations_total");
    assert!(after - before >= 1.0 && after - before <= 3.0, "{} computations for {READERS} readers", after - before);
    drop(readers);
    world.wait_for("nobody to listen", |_| metric("trueup_live_subscribers") == 0.0);
}

#[test]
fn queries_without_live_results_are_refused_with_a_reason() {
    let world = World::new(DEFINITIONS);
    for (query, status, word) in [
        ("every=1", 400, "100ms to 60m"),
        ("cursor=x", 400, "no pages"),
        ("version=1", 400, "does not change"),
        ("as_of=2001-01-01T00:00:00Z", 400, "does not change"),
        ("evry=1s", 400, "every"),
        ("limit=60000", 400, "50000"),
        ("where=nothing%20%3D%201", 400, "nothing"),
    ] {
        let answer = world.get(&format!("/v1/views/totals/live?{query}"));
        assert_eq!(answer.status, status, "{query}: {}", answer.text);
        assert!(answer.text.contains(word), "{query}: {}", answer.text);
    }
    assert_eq!(world.get("/v1/views/nope/live").status, 404);
    let mut listener = Listener::open(&world, "every=2s", None);
    assert_eq!(listener.status, 200);
    assert_eq!(listener.next().expect("an event").data["rows"], json!([]));
    let mut rest = Vec::new();
    drop(world);
    let _ = listener.lines.read_to_end(&mut rest);
}

/// `trueup query totals --follow`, as a script reads it.
fn following(world: &World, output: &str) -> (std::process::Child, BufReader<std::process::ChildStdout>) {
    let mut child = world
        .trueup()
        .args(["query", "totals", "--follow", "--every", "100ms", "-o", output, "--group-by=region", "--measures=n"])
        .args(["--url", world.url()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("trueup runs");
    let lines = BufReader::new(child.stdout.take().expect("a pipe"));
    (child, lines)
}

#[test]
fn trueup_query_follow_reconnects_after_a_restart() {
    let mut world = World::new(DEFINITIONS);
    let sale = |id: &str| format!(r#"{{"id":"{id}","at":"2024-01-01T10:00:00Z","region":"north","amount":5}}"#);
    assert_eq!(world.post("/v1/events/sales", sale("a")).status, 200);
    world.wait_for("one row", |world| world.rows("totals", "")["rows"].as_array().is_some_and(|rows| rows.len() == 1));
    let (mut child, mut lines) = following(&world, "ndjson");
    let mut next = || {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).expect("a line") > 0, "it ended");
        serde_json::from_str::<Value>(&line).expect("a row")
    };
    let row = next();
    assert_eq!((&row["region"], &row["n"]), (&json!("north"), &json!(1)));
    assert_eq!(world.post("/v1/events/sales", sale("b")).status, 200);
    while next()["n"] != json!(2) {}
    // A restart without `--listen` would choose another port.
    let listen = world.url().trim_start_matches("http://").to_owned();
    world.kill();
    world.start_at(&listen);
    assert_eq!(world.post("/v1/events/sales", sale("c")).status, 200);
    while next()["n"] != json!(3) {}
    child.kill().expect("it is still there");
    let messages = child.wait_with_output().expect("it ends").stderr;
    assert!(String::from_utf8_lossy(&messages).contains("reconnecting"), "{}", String::from_utf8_lossy(&messages));
}

#[test]
fn a_followed_table_prints_new_rows_below_old_ones() {
    let world = World::new(DEFINITIONS);
    let (mut child, mut lines) = following(&world, "table");
    let mut seen = String::new();
    while !seen.contains("0 rows") {
        assert!(lines.read_line(&mut seen).expect("a line") > 0, "{seen}");
    }
    let sale = r#"{"id":"a","at":"2024-01-01T10:00:00Z","region":"south","amount":5}"#;
    assert_eq!(world.post("/v1/events/sales", sale).status, 200);
    while !seen.contains("1 row |") {
        assert!(lines.read_line(&mut seen).expect("a line") > 0, "{seen}");
    }
    assert!(seen.contains("south") && seen.contains("2024-01-01T10:00:00Z"), "{seen}");
    child.kill().expect("it is still there");
    child.wait().expect("it ends");
}
