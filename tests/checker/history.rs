//! Records what clients did and saw: each operation with the times of its invocation and completion, by one monotonic clock.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

/// Number of events, and the sum of their amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Count {
    pub events: u64,
    pub sum: u64,
}

/// An operation of one client. Times are microseconds since the start of the history.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    pub client: String,
    pub invoked: u64,
    pub completed: u64,
    #[serde(flatten)]
    pub operation: Operation,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Operation {
    /// One attempt to send a batch, which has `count` if all of it is counted.
    Send { stream: &'static str, batch: u64, count: Count, outcome: Outcome },
    /// A query of a view.
    Read { view: String, state: ViewState },
    /// An event of a live query, with the result that all events so far add up to.
    Feed { view: String, state: ViewState },
    /// The comparison of the last version: differences without a cause.
    Compare { view: String, unexplained: u64 },
    /// The state of each partition of a stream.
    Partitions { stream: &'static str, partitions: BTreeMap<u64, PartitionState> },
    /// A fault or its end, for the reader of the history.
    Fault { what: String },
    /// A client saw what no history may hold.
    Wrong { what: String },
}

/// What a client knows after an attempt to send a batch.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Durable. `offsets` are those of the accepted events by partition, half-open.
    Acknowledged { accepted: u64, late: u64, offsets: BTreeMap<String, (u64, u64)> },
    /// The server said that it took nothing.
    Refused { status: u16 },
    /// There was no answer, or one that leaves it open.
    Unknown { status: Option<u16> },
}

/// The watermark of a partition, in microseconds since 1970, and its next offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PartitionState {
    pub watermark: Option<i64>,
    pub head: u64,
}

/// A result of a view.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ViewState {
    /// By batch; of a view without batches, one count under 0.
    pub counts: BTreeMap<u64, Count>,
    pub complete: bool,
    /// Whether the parts of the ledger add up to the accepted events.
    pub balanced: bool,
    /// Microseconds since 1970.
    pub watermark: Option<i64>,
    pub version: Option<i64>,
    /// First offset of each partition that the batch layer does not cover.
    pub seam: BTreeMap<String, u64>,
    pub accepted: u64,
    /// Of those, the ones that are in no version yet.
    pub live: u64,
}

/// A history that several clients write.
pub struct Recorder {
    start: Instant,
    entries: Mutex<Vec<Entry>>,
}

impl Recorder {
    pub fn new() -> Recorder {
        Recorder { start: Instant::now(), entries: Mutex::default() }
    }

    /// Returns the present time of the history.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).expect("a short test")
    }

    /// Adds an operation that was invoked at `invoked` and is complete now.
    pub fn add(&self, client: &str, invoked: u64, operation: Operation) {
        let entry = Entry { client: client.to_owned(), invoked, completed: self.now(), operation };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Adds something without a duration.
    pub fn note(&self, client: &str, operation: Operation) {
        self.add(client, self.now(), operation);
    }

    pub fn into_entries(self) -> Vec<Entry> {
        self.entries.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a history as NDJSON to a new file of the temporary folder; returns its path.
pub fn write(history: &[Entry], seed: u64) -> PathBuf {
    let file = tempfile::Builder::new()
        .prefix(&format!("trueup-history-{seed}-"))
        .suffix(".ndjson")
        .tempfile()
        .expect("a file");
    let (mut file, path) = file.keep().expect("the file stays");
    for entry in history {
        serde_json::to_writer(&mut file, entry).expect("the history can be written");
        file.write_all(b"\n").expect("the history can be written");
    }
    path
}
