//! Keeps rejected lines with their reasons, newest first, within bounds.
//!
//! Lines are kept in memory, and in two files per stream so that they survive a restart: `DIR/quarantine/STREAM/`. A
//! separate thread writes the files after the response, so a crash may lose the newest lines; rejected records of a topic are durable
//! before the position in the topic moves. No view counts these lines: they are not events.

mod files;
mod quarantine_store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use shared::control::{ListRange, QuarantineCounts, QuarantinePage, RecordAddress, StreamError};
use shared::entity::EntityId;
use shared::ids::StreamName;
use shared::limits;
use shared::time::Micros;
use shared::vital::Vitals;

use crate::decode::RejectedEvent;
use quarantine_store::StreamQuarantine;

/// The bounds per stream.
#[derive(Debug, Clone, Copy)]
pub struct QuarantineSettings {
    /// Lines kept.
    pub lines_max: usize,
    /// Bytes in memory; up to twice as many on disk.
    pub bytes_max: usize,
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        QuarantineSettings { lines_max: limits::QUARANTINE_LINES_MAX, bytes_max: limits::QUARANTINE_BYTES_MAX }
    }
}

/// The rejected lines of one request.
#[derive(Debug, Default)]
pub struct RejectedLines {
    /// The first lines.
    pub lines: Vec<RejectedEvent>,
    /// Number of all rejected lines.
    pub count: u64,
    pub idempotency_key: Option<String>,
    /// The records that the lines were, if they are of a topic: one for each line.
    pub records: Vec<RecordAddress>,
}

/// The rejected lines of all streams.
pub struct Quarantine {
    streams: Arc<BTreeMap<StreamName, StreamQuarantine>>,
    signal: Arc<WriteSignal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Wakes the writing thread.
#[derive(Default)]
struct WriteSignal {
    state: Mutex<WriteState>,
    changed: Condvar,
}

#[derive(Default)]
struct WriteState {
    unwritten: bool,
    closed: bool,
}

impl Quarantine {
    /// Reads the lines kept under `dir` for `streams` and starts the thread that writes. Blocking. If a folder cannot be
    /// used, this is logged and the lines are kept in memory only.
    pub fn open<'a>(
        dir: &Path,
        streams: impl IntoIterator<Item = &'a StreamName>,
        settings: QuarantineSettings,
        vitals: &Vitals,
    ) -> std::io::Result<Quarantine> {
        let dir = dir.join("quarantine");
        let stream_quarantine =
            |name: &StreamName| (name.clone(), StreamQuarantine::open(&dir.join(name.as_str()), settings));
        let streams: Arc<BTreeMap<_, _>> = Arc::new(streams.into_iter().map(stream_quarantine).collect());
        let signal = Arc::new(WriteSignal::default());
        let (to_write, wake) = (Arc::clone(&streams), Arc::clone(&signal));
        let thread = vitals.spawn_thread("quarantine".to_owned(), move || {
            while wake.wait() {
                to_write.values().for_each(StreamQuarantine::write);
            }
            Ok(())
        })?;
        Ok(Quarantine { streams, signal, thread: Mutex::new(Some(thread)) })
    }

    /// Adds the rejected lines of one request that arrived at `now`. Never blocks on a disk.
    pub fn add(&self, stream: &StreamName, rejected: RejectedLines, now: Micros) {
        if rejected.count == 0 {
            return;
        }
        if let Some(stream_quarantine) = self.streams.get(stream) {
            stream_quarantine.add(rejected, now);
            self.signal.state.lock().unwritten = true;
            self.signal.changed.notify_one();
        }
    }

    /// Adds rejected records of a topic, which arrived at `now`, durably: the position of their stream may move beyond them then.
    /// Records that are kept are not added again. Blocking.
    pub fn add_durably(&self, stream: &StreamName, rejected: RejectedLines, now: Micros) -> std::io::Result<()> {
        let Some(stream_quarantine) = self.streams.get(stream).filter(|_| rejected.count > 0) else { return Ok(()) };
        stream_quarantine.add(rejected, now);
        stream_quarantine.write_durably()
    }

    /// Counts the lines of a stream.
    pub fn counts(&self, stream: &StreamName) -> QuarantineCounts {
        self.streams.get(stream).map(StreamQuarantine::counts).unwrap_or_default()
    }

    /// Lists lines of a stream, newest first.
    pub fn list(&self, stream: &str, range: &ListRange) -> Result<QuarantinePage, StreamError> {
        self.stream_quarantine(stream)?.list(range)
    }

    /// Deletes the lines of a stream, on disk too, and returns their number. Blocking.
    pub fn empty(&self, stream: &str) -> Result<u64, StreamError> {
        self.stream_quarantine(stream)?.empty().map_err(|error| StreamError::Failed(error.to_string()))
    }

    /// Deletes the lines of a stream that name one of these entities, on disk too, and returns their number. A line that merely
    /// has the same word goes, too: it is not needed. Blocking.
    pub fn forget(&self, stream: &StreamName, entities: &[EntityId]) -> std::io::Result<u64> {
        let Some(stream_quarantine) = self.streams.get(stream) else { return Ok(0) };
        let names: Vec<String> = entities
            .iter()
            .flat_map(|id| {
                let plain = id.to_string();
                let escaped = serde_json::to_string(&plain).unwrap_or_default();
                [escaped.trim_matches('"').to_owned(), plain]
            })
            .collect();
        stream_quarantine.forget(|text| names.iter().any(|name| names_entity(text, name)))
    }

    /// Writes the lines that wait and ends the thread. Blocking.
    pub fn close(&self) {
        self.signal.state.lock().closed = true;
        self.signal.changed.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }

    fn stream_quarantine(&self, stream: &str) -> Result<&StreamQuarantine, StreamError> {
        let name = stream.parse::<StreamName>().ok();
        name.and_then(|name| self.streams.get(&name)).ok_or_else(|| StreamError::UnknownStream(stream.to_owned()))
    }
}

/// Whether `text` has `name` as a word: without a letter or digit directly before or after it.
fn names_entity(text: &str, name: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(name)
        .any(|(at, _)| !is_word(text[..at].chars().next_back()) && !is_word(text[at + name.len()..].chars().next()))
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        self.close();
    }
}

impl WriteSignal {
    /// Waits for lines to write. Returns `false` if none wait and none will come.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.unwritten && !state.closed {
            self.changed.wait(&mut state);
        }
        std::mem::take(&mut state.unwritten)
    }
}
