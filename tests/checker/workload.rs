//! The clients: writers that repeat what has no answer, readers, a subscriber, an observer of partitions, and a client that
//! requests runs, compactions and vacuums. All record what they do and see.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::DateTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::connection::{Connection, Response};
use crate::definitions::{STREAMS, VIEWS};
use crate::history::{Count, Operation, Outcome, PartitionState, Recorder, ViewState};

/// Time of the first event: 2001-09-09.
const BEGIN_MS: u64 = 1_000_000_000_000;
const HOUR_MS: u64 = 3_600_000;
/// Batches of one writer.
const BATCHES_MAX: u64 = 100_000;
/// How long a writer waits for an answer before it sends a batch again.
const WRITER_PATIENCE: Duration = Duration::from_millis(250);
/// How long other clients wait for an answer.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time in which a batch must be acknowledged; a hang becomes a failure.
const SEND_PATIENCE: Duration = Duration::from_secs(60);

/// What all clients share.
pub struct Clients<'a> {
    pub recorder: &'a Recorder,
    pub url: &'a str,
    pub seed: u64,
    /// Set when they are to finish.
    pub ending: &'a AtomicBool,
}

/// A batch on its way.
struct Draft {
    number: u64,
    count: Count,
    body: String,
    /// It holds a line that is not an event, and is sent with `strict=true`: all of it must be refused.
    spoiled: bool,
}

impl Clients<'_> {
    fn is_over(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    fn random(&self, client: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed ^ (client.wrapping_add(1) << 32))
    }

    /// Sends batches to a stream, one after the other, each until its outcome is settled.
    pub fn write(&self, writer: u64, stream: &'static str) {
        let (mut random, connection) = (self.random(writer), Connection::new(self.url, WRITER_PATIENCE));
        let mut sent = 0;
        while !self.is_over() && sent < BATCHES_MAX {
            let draft = draft(&mut random, stream, writer * BATCHES_MAX + sent, sent);
            sent += 1;
            self.deliver(&mut random, &connection, writer, stream, &draft);
            // An acknowledged batch is repeated now and then: its ids or its key make it count once.
            if random.random_bool(0.1) && stream != "plain" && !draft.spoiled {
                self.attempt(&connection, writer, stream, &draft);
            }
            std::thread::sleep(Duration::from_micros(random.random_range(500..8_000)));
        }
    }

    /// Sends the first batches of all streams, so that every partition has events.
    pub fn write_first(&self, writer: u64) {
        let (mut random, connection) = (self.random(writer), Connection::new(self.url, READER_PATIENCE));
        for (at, stream) in STREAMS.iter().flat_map(|stream| [stream; 12]).enumerate() {
            let draft = Draft { spoiled: false, ..draft(&mut random, stream, writer * BATCHES_MAX + at as u64, 0) };
            self.deliver(&mut random, &connection, writer, stream, &draft);
        }
    }

    /// Sends a batch until it is acknowledged or refused for good. Without id and key, a batch without an answer is given up:
    /// a repetition might double it.
    fn deliver(&self, random: &mut StdRng, connection: &Connection, writer: u64, stream: &'static str, draft: &Draft) {
        let begin = Instant::now();
        loop {
            match self.attempt(connection, writer, stream, draft) {
                Outcome::Acknowledged { .. } | Outcome::Refused { status: 422 } => return,
                Outcome::Unknown { .. } if stream == "plain" => return,
                Outcome::Unknown { .. } | Outcome::Refused { .. } => {}
            }
            if begin.elapsed() > SEND_PATIENCE {
                let what = format!("batch {} was not acknowledged in {SEND_PATIENCE:?}", draft.number);
                return self.recorder.note(&format!("writer {writer}"), Operation::Wrong { what });
            }
            std::thread::sleep(Duration::from_millis(random.random_range(2..40)));
        }
    }

    fn attempt(&self, connection: &Connection, writer: u64, stream: &'static str, draft: &Draft) -> Outcome {
        let client = format!("writer {writer}");
        let key = format!("batch-{}", draft.number);
        let path = format!("/v1/events/{stream}{}", if draft.spoiled { "?strict=true" } else { "" });
        let invoked = self.recorder.now();
        let response = connection.post(&path, draft.body.clone(), (stream == "with_key").then_some(&key));
        let outcome = outcome(response.as_ref());
        if let Err(what) = verify(stream, draft, &outcome, response.as_ref()) {
            self.recorder.note(&client, Operation::Wrong { what });
        }
        let (batch, count) = (draft.number, draft.count);
        self.recorder.add(&client, invoked, Operation::Send { stream, batch, count, outcome: outcome.clone() });
        outcome
    }

    /// Queries views, and comparisons now and then.
    pub fn read(&self, reader: u64) {
        let (mut random, connection) = (self.random(reader), Connection::new(self.url, READER_PATIENCE));
        let client = format!("reader {reader}");
        while !self.is_over() {
            let view = VIEWS[random.random_range(0..VIEWS.len())].name;
            if random.random_bool(0.1) {
                self.compare(&connection, &client, view);
            } else {
                self.query(&connection, &client, view);
            }
            std::thread::sleep(Duration::from_micros(random.random_range(500..10_000)));
        }
    }

    /// Queries a view once and returns the result, if there was one.
    pub fn query(&self, connection: &Connection, client: &str, view: &str) -> Option<ViewState> {
        let invoked = self.recorder.now();
        let response = connection.get(&format!("/v1/views/{view}/rows.json?limit=1000000"))?;
        match response.status {
            200 => {
                let state = view_state(&response.body, response.body["rows"].as_array().into_iter().flatten());
                self.recorder.add(client, invoked, Operation::Read { view: view.to_owned(), state: state.clone() });
                Some(state)
            }
            // The view is not declared yet, or the lake or the server cannot answer now.
            404 | 500.. => None,
            status => {
                self.recorder.note(client, Operation::Wrong { what: format!("{view}: {status} {}", response.body) });
                None
            }
        }
    }

    /// Reads the last comparison of a view.
    pub fn compare(&self, connection: &Connection, client: &str, view: &str) {
        let invoked = self.recorder.now();
        let Some(response) = connection.get(&format!("/v1/views/{view}/compare")) else { return };
        if let Some(unexplained) = response.body["causes"]["unexplained"].as_u64() {
            self.recorder.add(client, invoked, Operation::Compare { view: view.to_owned(), unexplained });
        }
    }

    /// Asks for the state of all partitions, again and again.
    pub fn observe(&self) {
        let connection = Connection::new(self.url, READER_PATIENCE);
        while !self.is_over() {
            let invoked = self.recorder.now();
            let answer = connection.get("/v1/streams").filter(|response| response.status == 200);
            for listed in answer.iter().flat_map(|response| response.body["streams"].as_array().into_iter().flatten()) {
                let Some(stream) = STREAMS.iter().find(|stream| listed["name"] == **stream) else { continue };
                let state = |partition: &Value| {
                    let of = PartitionState {
                        watermark: micros(&partition["watermark"]),
                        head: partition["head"].as_u64().unwrap_or(0),
                    };
                    (partition["partition"].as_u64().unwrap_or(0), of)
                };
                let partitions = listed["partitions"].as_array().into_iter().flatten().map(state).collect();
                self.recorder.add("observer", invoked, Operation::Partitions { stream, partitions });
            }
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// Requests runs, compactions and vacuums.
    pub fn operate(&self, client: u64) {
        let (mut random, connection) = (self.random(client), Connection::new(self.url, READER_PATIENCE));
        while !self.is_over() {
            let view = VIEWS[random.random_range(0..VIEWS.len())].name;
            let (path, body) = match random.random_range(0..10) {
                0 => (format!("/v1/views/{view}/vacuum"), json!({"older_than_ms": 0})),
                1 => (
                    format!("/v1/streams/{}/compact", STREAMS[random.random_range(0..4)]),
                    json!({"vacuum_older_than_ms": 0}),
                ),
                what => (format!("/v1/views/{view}/runs"), json!({ "full": what == 2 })),
            };
            let _ = connection.post(&path, body.to_string(), None);
            std::thread::sleep(Duration::from_millis(random.random_range(20..120)));
        }
    }
}

/// Makes the next batch of a writer. `sent` says how many it has sent before.
fn draft(random: &mut StdRng, stream: &str, number: u64, sent: u64) -> Draft {
    let events = random.random_range(1..=20);
    // The time of `timed` advances with the batches; some are hours behind, which is late.
    let at = match stream {
        "timed" if random.random_bool(0.15) => BEGIN_MS + sent * 2_000 - random.random_range(1..30) * HOUR_MS,
        "timed" => BEGIN_MS + sent * 2_000,
        _ => BEGIN_MS + random.random_range(0..50) * HOUR_MS,
    };
    let mut count = Count { events, sum: 0 };
    let mut body = String::new();
    for i in 0..events {
        let amount = number % 1_000 * 100 + i;
        let mut event = json!({"at": at + i, "batch": number, "amount": amount});
        if ["with_id", "timed"].contains(&stream) {
            event["id"] = json!(format!("{number}-{i}"));
        }
        count.sum += amount;
        body += &(event.to_string() + "\n");
    }
    let spoiled = random.random_bool(0.06);
    if spoiled {
        body += "{\"at\": \"no time\"}\n";
    }
    Draft { number, count, body, spoiled }
}

/// Returns what a writer knows after a response.
fn outcome(response: Option<&Response>) -> Outcome {
    let Some(Response { status, body }) = response else { return Outcome::Unknown { status: None } };
    match status {
        200 => {
            let pair = |offsets: &Value| (offsets[0].as_u64().unwrap_or(0), offsets[1].as_u64().unwrap_or(0));
            let offsets = body["offsets"].as_object().into_iter().flatten();
            Outcome::Acknowledged {
                accepted: body["accepted"].as_u64().unwrap_or(0),
                late: body["late"].as_u64().unwrap_or(0),
                offsets: offsets.map(|(partition, offsets)| (partition.clone(), pair(offsets))).collect(),
            }
        }
        // The answer would name the events that some partitions accepted.
        422 | 429 | 507 if body["accepted"].is_null() => Outcome::Refused { status: *status },
        status => Outcome::Unknown { status: Some(*status) },
    }
}

/// Checks an answer by itself.
fn verify(stream: &str, draft: &Draft, outcome: &Outcome, response: Option<&Response>) -> Result<(), String> {
    let body = response.map(|response| &response.body);
    let wrong = |what: &str| Err(format!("batch {}: {what}: {outcome:?} {body:?}", draft.number));
    match outcome {
        Outcome::Acknowledged { .. } if draft.spoiled => {
            wrong("a request with strict=true was accepted in spite of a wrong line")
        }
        Outcome::Acknowledged { accepted, .. } => {
            let duplicates = body.and_then(|body| body["duplicates"].as_u64()).unwrap_or(0);
            let is_right = match stream {
                "with_id" | "timed" => accepted + duplicates == draft.count.events,
                _ => *accepted == draft.count.events,
            };
            if is_right { Ok(()) } else { wrong("the answer does not account for every event") }
        }
        Outcome::Refused { status: 422 } if !draft.spoiled => wrong("a right request was refused"),
        Outcome::Unknown { status: Some(status @ (400..=428 | 430..=501)) } => {
            wrong(&format!("unexpected status {status}"))
        }
        _ => Ok(()),
    }
}

/// Returns the result in a document of rows, or in the end of one with other rows.
pub fn view_state<'a>(document: &Value, rows: impl Iterator<Item = &'a Value>) -> ViewState {
    let ledger = &document["ledger"];
    let part = |name: &str| ledger[name].as_u64().unwrap_or(0);
    let mut counts: BTreeMap<u64, Count> = BTreeMap::new();
    for row in rows {
        let count = counts.entry(row["batch"].as_u64().unwrap_or(0)).or_default();
        count.events += row["n"].as_u64().unwrap_or(0);
        count.sum += row["total"].as_u64().unwrap_or(0);
    }
    let seam = document["seam"]["offsets"].as_object().into_iter().flatten();
    ViewState {
        counts,
        complete: document["complete"] == json!(true),
        balanced: part("batch") + part("speed") + part("late") + part("failed") == part("accepted"),
        watermark: micros(&document["watermark"]),
        version: document["seam"]["version"].as_i64(),
        seam: seam.map(|(partition, offset)| (partition.clone(), offset.as_u64().unwrap_or(0))).collect(),
        accepted: part("accepted"),
        live: part("accepted").saturating_sub(part("batch")),
    }
}

fn micros(time: &Value) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(time.as_str()?).ok()?.timestamp_micros())
}
