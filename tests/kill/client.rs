//! A client that sends batches of events to a server, repeats those without an answer, and knows what must be counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use world::{Answer, World};

/// Events of a batch.
const BATCH: u64 = 20;
/// Number of the first batch of historical events.
const FIRST_HISTORICAL: u64 = 1_000_000;
/// The streams that get live batches.
const STREAMS: [&str; 2] = ["with_id", "without_id"];
/// The views of these streams that have batch runs.
const VIEWS_WITH_RUNS: [&str; 2] = ["ids", "no_ids"];
/// All views of these streams, with the stream of each. `live` has checkpoints instead of runs.
const VIEWS: [(&str, &str); 3] = [("with_id", "ids"), ("without_id", "no_ids"), ("without_id", "live")];
/// Time of the first event of the first batch: 2001-09-09.
const BEGIN_MS: u64 = 1_000_000_000_000;
const DAY_MS: u64 = 86_400_000;
/// Days on which events happen: a run recomputes all of them.
const DAYS: u64 = 3;

/// Events of `aging` are older than its retention, so that a compaction drops them once a run has covered them.
const DEFINITIONS: &str = "
    CREATE STREAM with_id (id STRING PRIMARY KEY, at TIMESTAMP, batch BIGINT, amount BIGINT)
        WITH (event_time = 'at', allowed_lateness = '1000 days', partitions = 2);
    CREATE STREAM without_id (at TIMESTAMP, batch BIGINT, amount BIGINT) WITH (event_time = 'at', allowed_lateness = '1000 days');
    CREATE STREAM aging (at TIMESTAMP, batch BIGINT, amount BIGINT)
        WITH (event_time = 'at', watermark_delay = '100 days', retention = '30 days');
    CREATE VIEW ids AS SELECT window_start, batch, COUNT(*) AS n, SUM(amount) AS total FROM with_id GROUP BY TUMBLE(at, INTERVAL '1' DAY), batch;
    CREATE VIEW no_ids AS SELECT batch, COUNT(*) AS n, SUM(amount) AS total FROM without_id GROUP BY batch;
    CREATE VIEW live WITH (layers = 'speed') AS SELECT batch, COUNT(*) AS n, SUM(amount) AS total FROM without_id GROUP BY batch;
    CREATE VIEW aged AS SELECT window_start, COUNT(*) AS n, SUM(amount) AS total FROM aging GROUP BY TUMBLE(at, INTERVAL '1' DAY);";

/// Segments, archive files and the dedup horizon are small, so that every kind of work is frequent; deletions are due at
/// once, but happen on request only, so that a test determines when.
const LIMITS: &str = "dedup_horizon_events = 400\nlog_segment_bytes = 6000\narchive_wait_ms = 1\narchive_file_rows = 200\n\
                      compaction_every_ms = 0\nvacuum_age_ms = 0\nvacuum_every_ms = 3600000\nrun_attempts_max = 1\n";

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Status(u16),
    /// The connection broke: the process was killed.
    Nothing,
}

/// What became of a historical ingest.
#[derive(Debug)]
pub struct Ingest {
    /// `None`: it was killed.
    pub code: Option<i32>,
    pub text: String,
}

/// A server, and what its client knows of it.
pub struct Client {
    pub world: World,
    /// Batches that a stream has acknowledged.
    acknowledged: BTreeMap<&'static str, BTreeSet<u64>>,
    /// Batches without an answer, to be sent again.
    unanswered: BTreeSet<(&'static str, u64)>,
    next_batch: u64,
    /// Historical batches whose ingest ended well. The first `covered` of them were there when a run started that published.
    imported: Vec<u64>,
    covered: usize,
    /// A historical batch whose ingest did not end well.
    open_import: Option<u64>,
    next_historical: u64,
    faults: PathBuf,
}

impl Client {
    /// Starts a server that has accepted and published a batch of each stream.
    pub fn new() -> Client {
        let mut world = World::new(DEFINITIONS);
        let faults = world.data.path().join("faults");
        world.set_environment(&[("TRUEUP_FAULTS", &faults.display().to_string())]);
        assert_eq!(world.stop(), Some(0));
        world.set_limits(LIMITS);
        world.start();
        let mut client = Client {
            world,
            acknowledged: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            next_batch: 0,
            imported: Vec::new(),
            covered: 0,
            open_import: None,
            next_historical: FIRST_HISTORICAL,
            faults,
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let aged = u64::try_from(now.as_millis()).expect("a time") - 40 * DAY_MS;
        let old: String =
            (0..BATCH).map(|i| json!({"at": aged + i * 1_000, "batch": 0, "amount": i}).to_string() + "\n").collect();
        assert_eq!(client.world.post("/v1/events/aging", old).status, 200);
        client.send();
        for view in ["ids", "no_ids", "aged"] {
            assert_eq!(client.world.run(view, false)["state"], json!("published"));
        }
        client
    }

    /// Makes faults of the named points (see `shared::fail_points`) happen from now on.
    pub fn inject(&self, faults: &str) {
        // In one step: the server may read the file at any moment.
        let unfinished = self.faults.with_extension("new");
        std::fs::write(&unfinished, faults).expect("the faults can be written");
        std::fs::rename(&unfinished, &self.faults).expect("the faults get their name");
    }

    /// Ends all faults.
    pub fn heal(&self) {
        let _ = std::fs::remove_file(&self.faults);
    }

    /// Sends a new batch to each stream.
    pub fn send(&mut self) -> [Reply; 2] {
        let batch = self.next_batch;
        self.next_batch += 1;
        STREAMS.map(|stream| self.send_batch(stream, batch))
    }

    /// Sends batches again until all have an answer.
    pub fn send_unanswered(&mut self) {
        for (stream, batch) in self.unanswered.clone() {
            assert_eq!(self.send_batch(stream, batch), Reply::Status(200), "{stream} {batch}\n{}", self.world.log());
        }
    }

    fn send_batch(&mut self, stream: &'static str, batch: u64) -> Reply {
        let key = format!("batch-{batch}");
        let headers = [("Idempotency-Key", key.as_str())];
        let headers = if stream == "without_id" { &headers[..] } else { &[] };
        let body = events(batch, stream == "with_id").into_bytes();
        let answer = self.world.try_post(&format!("/v1/events/{stream}"), body, headers);
        match answer {
            Some(Answer { status: 200, .. }) => {
                self.unanswered.remove(&(stream, batch));
                self.acknowledged.entry(stream).or_default().insert(batch);
            }
            // Refused or without an answer: a part of it may be in the log.
            _ => _ = self.unanswered.insert((stream, batch)),
        }
        answer.map_or(Reply::Nothing, |answer| Reply::Status(answer.status))
    }

    /// Requests a run of a view; returns its id, or `None` if there was no answer.
    pub fn request_run(&self, view: &str, full: bool) -> Option<String> {
        self.request(&format!("/v1/views/{view}/runs"), full)
    }

    /// Requests a checkpoint of a view like [`Client::request_run`].
    pub fn request_checkpoint(&self, view: &str, full: bool) -> Option<String> {
        self.request(&format!("/v1/views/{view}/checkpoints"), full)
    }

    fn request(&self, path: &str, full: bool) -> Option<String> {
        let body = json!({ "full": full }).to_string().into_bytes();
        let answer = self.world.try_post(path, body, &[])?;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()["id"].as_str().map(str::to_owned)
    }

    /// Returns a run in its present state; `None`: there was no answer.
    pub fn run_state(&self, id: &str) -> Option<Value> {
        self.world.try_get(&format!("/v1/runs/{id}")).filter(|answer| answer.status == 200).map(|answer| answer.json())
    }

    /// Compacts the archive of a stream and deletes every unneeded file; returns the status of the answer.
    pub fn compact(&self, stream: &str) -> Reply {
        self.world.age_files();
        let body = b"{\"vacuum_older_than_ms\": 0}".to_vec();
        let answer = self.world.try_post(&format!("/v1/streams/{stream}/compact"), body, &[]);
        answer.map_or(Reply::Nothing, |answer| Reply::Status(answer.status))
    }

    /// Deletes every unneeded file of a view.
    pub fn vacuum(&self, view: &str) -> Reply {
        self.world.age_files();
        let body = b"{\"older_than_ms\": 0}".to_vec();
        let answer = self.world.try_post(&format!("/v1/views/{view}/vacuum"), body, &[]);
        answer.map_or(Reply::Nothing, |answer| Reply::Status(answer.status))
    }

    /// Imports a historical batch: the one whose import did not end well, or else a new one.
    pub fn import(&mut self) -> Ingest {
        let batch = self.open_import.unwrap_or(self.next_historical);
        let path = self.world.data.path().join(format!("{batch}.ndjson"));
        std::fs::write(&path, events(batch, true)).expect("the file can be written");
        let mut command = self.world.trueup();
        command.args(["ingest", "with_id", "--historical", "--definitions"]).arg(self.world.definitions());
        command.arg("--data").arg(self.world.store()).arg(&path).env("TRUEUP_FAULTS", &self.faults);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("trueup runs");
        if output.status.success() {
            self.open_import = None;
            self.imported.push(batch);
            self.next_historical = self.next_historical.max(batch + 1);
        } else {
            self.open_import = Some(batch);
            self.next_historical = self.next_historical.max(batch + 1);
        }
        Ingest { code: output.status.code(), text: world::program::text(&output) }
    }

    /// Brings everything to a definite end after the faults are over: batches are answered, an import is complete.
    pub fn settle(&mut self) {
        self.heal();
        if !self.world.is_running() {
            if self.world.is_alive() {
                self.world.wait_for_exit();
            }
            self.world.start();
        }
        self.send_unanswered();
        if self.open_import.is_some() {
            let ingest = self.import();
            assert_eq!(ingest.code, Some(0), "{}", ingest.text);
        }
    }

    /// Checks that every acknowledged batch is counted once, and nothing else is.
    pub fn check(&mut self, context: &str) {
        assert!(self.unanswered.is_empty(), "{context}: a batch has no answer");
        for (stream, view) in VIEWS {
            let answer = self.world.rows(view, "");
            assert_eq!(answer["complete"], json!(true), "{context}: {view}: {}", answer["ledger"]);
            let mut expected: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            expected.extend(self.acknowledged[stream].iter().map(|batch| (*batch, totals(*batch))));
            let mut found = counted(&answer);
            // Historical events count from the next run on.
            let historical = found.split_off(&FIRST_HISTORICAL);
            assert_eq!(found, expected, "{context}: {view}: (events, sum) by batch");
            if stream == "with_id" {
                let wrong = historical
                    .iter()
                    .find(|(batch, found)| !self.imported.contains(batch) || **found != totals(**batch));
                assert_eq!(wrong, None, "{context}: {view}: historical events");
                let missing = self.imported[..self.covered].iter().find(|batch| !historical.contains_key(batch));
                assert_eq!(missing, None, "{context}: {view}: historical events that a run has covered");
            }
        }
        let aged = counted_by(&self.world.rows("aged", ""), "window_start");
        let sums = aged.values().fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
        assert_eq!(sums, (BATCH, BATCH * (BATCH - 1) / 2), "{context}: aged");
    }

    /// Runs the views, which must publish, and checks again.
    pub fn run_and_check(&mut self, full: bool, context: &str) {
        let imported = self.imported.len();
        let checkpoint = self.request_checkpoint("live", full).expect("an answer");
        let checkpoint = self.world.finished(&checkpoint);
        assert_eq!(checkpoint["state"], json!("published"), "{context}: {checkpoint}\n{}", self.world.log());
        for view in VIEWS_WITH_RUNS {
            let run = self.world.run(view, full);
            assert_eq!(run["state"], json!("published"), "{context}: {run}\n{}", self.world.log());
            let drift = self.world.get(&format!("/v1/views/{view}/compare"));
            assert!(
                drift.status != 200 || drift.json()["causes"]["unexplained"] == json!(0),
                "{context}: {}",
                drift.text
            );
        }
        self.covered = imported;
        self.check(context);
    }

    /// Recomputes everything from the archive, deletes every unneeded file, and checks.
    pub fn check_exact(&mut self, context: &str) {
        self.run_and_check(true, context);
        for stream in STREAMS {
            assert_eq!(self.compact(stream), Reply::Status(200), "{context}: {stream}");
        }
        for (_, view) in VIEWS {
            assert_eq!(self.vacuum(view), Reply::Status(200), "{context}: {view}");
        }
        self.run_and_check(true, context);
    }
}

/// The events of a batch, as NDJSON.
fn events(batch: u64, with_id: bool) -> String {
    let line = |i: u64| {
        let number = batch * BATCH + i;
        let mut event = json!({"at": BEGIN_MS + batch % DAYS * DAY_MS + i * 1_000, "batch": batch, "amount": number});
        if with_id {
            event["id"] = json!(format!("e{number}"));
        }
        event.to_string() + "\n"
    };
    (0..BATCH).map(line).collect()
}

/// The events of a batch and the sum of their amounts.
fn totals(batch: u64) -> (u64, u64) {
    (BATCH, batch * BATCH * BATCH + BATCH * (BATCH - 1) / 2)
}

/// Events and sum of each batch in an answer.
fn counted(answer: &Value) -> BTreeMap<u64, (u64, u64)> {
    let by_text = counted_by(answer, "batch");
    by_text.into_iter().map(|(batch, row)| (batch.parse().expect("a number"), row)).collect()
}

fn counted_by(answer: &Value, column: &str) -> BTreeMap<String, (u64, u64)> {
    let mut rows: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in answer["rows"].as_array().expect("rows") {
        let number = |name: &str| row[name].as_u64().expect("a number");
        let sums = rows.entry(row[column].to_string()).or_default();
        *sums = (sums.0 + number("n"), sums.1 + number("total"));
    }
    rows
}
