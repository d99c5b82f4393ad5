//! Where are the lines that were not events? Kept with their reason, bounded, newest first, until someone looks.
//!
//! In memory to be read, and in two files per stream so that a restart does not lose them: `DIR/quarantine/STREAM/`. A
//! thread of its own writes the files after the request was answered, so a crash may lose the newest lines. Nothing here
//! is part of any figure: a quarantined line is no event.

mod files;
mod quarantine_store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use shared::control::{ListRange, QuarantineCounts, QuarantinePage, StreamError};
use shared::ids::StreamName;
use shared::limits;
use shared::time::Micros;

use crate::decode::Malformed;
use quarantine_store::Shelf;

/// How much is kept per stream.
#[derive(Debug, Clone, Copy)]
pub struct QuarantineSettings {
    pub lines_max: usize,
    /// Bytes in memory; on disk up to twice as many.
    pub bytes_max: usize,
}

impl Default for QuarantineSettings {
    fn default() -> Self {
        QuarantineSettings { lines_max: limits::QUARANTINE_LINES_MAX, bytes_max: limits::QUARANTINE_BYTES_MAX }
    }
}

/// The malformed lines of one request.
#[derive(Debug, Default)]
pub struct MalformedLines {
    /// The first of them.
    pub lines: Vec<Malformed>,
    /// All of them.
    pub count: u64,
    pub idempotency_key: Option<String>,
}

/// The malformed lines of all streams.
pub struct Quarantine {
    shelves: Arc<BTreeMap<StreamName, Shelf>>,
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the writing thread waits for.
#[derive(Default)]
struct Signal {
    state: Mutex<SignalState>,
    changed: Condvar,
}

#[derive(Default)]
struct SignalState {
    unwritten: bool,
    closed: bool,
}

impl Quarantine {
    /// Reads what is kept under `dir` for `streams` and starts the thread that writes. Blocking. A folder that cannot be
    /// used is told to the log: lines are then kept in memory only.
    pub fn open<'a>(
        dir: &Path,
        streams: impl IntoIterator<Item = &'a StreamName>,
        settings: QuarantineSettings,
    ) -> std::io::Result<Quarantine> {
        let dir = dir.join("quarantine");
        let shelf = |name: &StreamName| (name.clone(), Shelf::open(&dir.join(name.as_str()), settings));
        let shelves: Arc<BTreeMap<_, _>> = Arc::new(streams.into_iter().map(shelf).collect());
        let signal = Arc::new(Signal::default());
        let (to_write, wake) = (Arc::clone(&shelves), Arc::clone(&signal));
        let thread = std::thread::Builder::new().name("quarantine".to_owned()).spawn(move || {
            while wake.wait() {
                to_write.values().for_each(Shelf::write);
            }
        })?;
        Ok(Quarantine { shelves, signal, thread: Mutex::new(Some(thread)) })
    }

    /// Keeps malformed lines of one request that arrived at `now`. Never blocks on a disk.
    pub fn keep(&self, stream: &StreamName, malformed: MalformedLines, now: Micros) {
        if malformed.count == 0 {
            return;
        }
        if let Some(shelf) = self.shelves.get(stream) {
            shelf.keep(malformed, now);
            self.signal.state.lock().unwritten = true;
            self.signal.changed.notify_one();
        }
    }

    /// How many lines of a stream are kept.
    pub fn counts(&self, stream: &StreamName) -> QuarantineCounts {
        self.shelves.get(stream).map(Shelf::counts).unwrap_or_default()
    }

    /// Lines of a stream, newest first.
    pub fn list(&self, stream: &str, range: &ListRange) -> Result<QuarantinePage, StreamError> {
        self.shelf(stream)?.list(range)
    }

    /// Forgets the lines of a stream, on disk too, and says how many were kept. Blocking.
    pub fn empty(&self, stream: &str) -> Result<u64, StreamError> {
        self.shelf(stream)?.empty().map_err(|error| StreamError::Failed(error.to_string()))
    }

    /// Writes what waits and ends the thread. Blocking.
    pub fn close(&self) {
        self.signal.state.lock().closed = true;
        self.signal.changed.notify_one();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }

    fn shelf(&self, stream: &str) -> Result<&Shelf, StreamError> {
        let name = stream.parse::<StreamName>().ok();
        name.and_then(|name| self.shelves.get(&name)).ok_or_else(|| StreamError::UnknownStream(stream.to_owned()))
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        self.close();
    }
}

impl Signal {
    /// Waits for lines to write. `false`: there are none, and there will be none.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.unwritten && !state.closed {
            self.changed.wait(&mut state);
        }
        std::mem::take(&mut state.unwritten)
    }
}
