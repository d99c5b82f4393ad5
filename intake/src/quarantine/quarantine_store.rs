//! Which malformed lines of one stream are kept? The newest, in memory and on disk, within bounds.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use shared::control::{ListRange, QuarantineCounts, QuarantinePage, Quarantined, StreamError};
use shared::time::Micros;

use super::files::Files;
use super::{MalformedLines, QuarantineSettings};

/// The lines of one stream.
pub(super) struct Shelf {
    settings: QuarantineSettings,
    /// Locked before `kept` by whoever needs both. Only the writing thread and an emptying wait for a disk with it.
    files: Mutex<Files>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// In order of arrival.
    lines: VecDeque<Arc<Quarantined>>,
    bytes: usize,
    /// Number of the last line there ever was, kept or not.
    total: u64,
    /// Lines up to this number need no writing any more.
    written: u64,
}

impl Shelf {
    /// Reads what is kept in `dir`.
    pub fn open(dir: &Path, settings: QuarantineSettings) -> Shelf {
        let (files, lines) = Files::open(dir, settings.bytes_max as u64);
        let mut kept = Kept::default();
        for line in lines {
            kept.total = kept.total.max(line.number);
            kept.push(Arc::new(line), settings);
        }
        kept.written = kept.total;
        Shelf { settings, files: Mutex::new(files), kept: Mutex::new(kept) }
    }

    /// Keeps what one request brought; a request that is repeated under its key is kept once.
    pub fn keep(&self, malformed: MalformedLines, now: Micros) {
        let MalformedLines { lines, count, idempotency_key } = malformed;
        let entries = lines.into_iter().map(|line| Quarantined {
            number: 0,
            arrived_at: now,
            line: line.line,
            reason: line.reason,
            text: line.text,
            bytes: line.bytes,
            truncated: line.truncated,
            idempotency_key: idempotency_key.clone(),
        });
        let entries: Vec<Quarantined> = entries.collect();
        let mut kept = self.kept.lock();
        if idempotency_key.is_some() && kept.lines.iter().any(|line| line.idempotency_key == idempotency_key) {
            return;
        }
        let first = kept.total + 1;
        kept.total += count;
        for (number, entry) in (first..).zip(entries) {
            kept.push(Arc::new(Quarantined { number, ..entry }), self.settings);
        }
    }

    pub fn counts(&self) -> QuarantineCounts {
        self.kept.lock().counts()
    }

    /// Lines before the cursor's, newest first.
    pub fn list(&self, range: &ListRange) -> Result<QuarantinePage, StreamError> {
        let before = match &range.cursor {
            None => u64::MAX,
            Some(text) => text.parse().map_err(|_| StreamError::BadCursor(text.clone()))?,
        };
        let kept = self.kept.lock();
        let end = kept.lines.partition_point(|line| line.number < before);
        let start = end.saturating_sub(range.limit);
        let lines: Vec<_> = kept.lines.range(start..end).rev().cloned().collect();
        let counts = kept.counts();
        drop(kept);
        Ok(QuarantinePage {
            counts,
            kept_max: self.settings.lines_max as u64,
            kept_bytes_max: self.settings.bytes_max as u64,
            next: (start > 0).then(|| lines.last().map(|line| line.number.to_string())).flatten(),
            lines: lines.iter().map(|line| line.as_ref().clone()).collect(),
        })
    }

    /// Forgets everything and begins to count anew; says how many lines were kept.
    pub fn empty(&self) -> io::Result<u64> {
        let mut files = self.files.lock();
        let forgotten = std::mem::take(&mut *self.kept.lock());
        files.remove()?;
        Ok(forgotten.lines.len() as u64)
    }

    /// Writes to disk what is not there yet.
    pub fn write(&self) {
        let mut files = self.files.lock();
        let (lines, total) = {
            let kept = self.kept.lock();
            let from = kept.lines.partition_point(|line| line.number <= kept.written);
            (kept.lines.range(from..).cloned().collect::<Vec<_>>(), kept.total)
        };
        if let Err(error) = files.append(&lines) {
            tracing::warn!(dir = %files.dir().display(), %error, "malformed lines could not be written; they are in memory only");
        }
        // Nothing else can have emptied it meanwhile: that takes the files' lock too.
        self.kept.lock().written = total;
    }
}

impl Kept {
    fn push(&mut self, line: Arc<Quarantined>, settings: QuarantineSettings) {
        self.bytes += bytes_of(&line);
        self.lines.push_back(line);
        while self.lines.len() > settings.lines_max || (self.bytes > settings.bytes_max && self.lines.len() > 1) {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= bytes_of(&oldest);
        }
    }

    fn counts(&self) -> QuarantineCounts {
        let kept = self.lines.len() as u64;
        QuarantineCounts { total: self.total, kept, dropped: self.total - kept }
    }
}

/// Bytes a line takes in memory.
fn bytes_of(line: &Quarantined) -> usize {
    let key = line.idempotency_key.as_ref().map_or(0, String::len);
    size_of::<Quarantined>() + line.reason.len() + line.text.len() + key
}
