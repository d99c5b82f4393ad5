//! Keeps the newest rejected lines of one stream, in memory and on disk, within bounds.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use shared::control::{ListRange, QuarantineCounts, QuarantinePage, Quarantined, RecordAddress, StreamError};
use shared::time::Micros;

use super::files::QuarantineFiles;
use super::{QuarantineSettings, RejectedLines};

/// The rejected lines of one stream.
pub(super) struct StreamQuarantine {
    settings: QuarantineSettings,
    /// Locked before `kept` where both are needed. Only the writing thread and [`StreamQuarantine::empty`] wait for a disk
    /// while they hold it.
    files: Mutex<QuarantineFiles>,
    kept: Mutex<StoredLines>,
}

#[derive(Default)]
struct StoredLines {
    /// In order of arrival.
    lines: VecDeque<Arc<Quarantined>>,
    bytes: usize,
    /// Number of the last line, kept or not.
    total: u64,
    /// Lines up to this number are on disk.
    written: u64,
}

impl StreamQuarantine {
    /// Reads the lines kept in `dir`.
    pub fn open(dir: &Path, settings: QuarantineSettings) -> StreamQuarantine {
        let (files, lines) = QuarantineFiles::open(dir, settings.bytes_max as u64);
        let mut kept = StoredLines::default();
        for line in lines {
            kept.total = kept.total.max(line.number);
            kept.push(Arc::new(line), settings);
        }
        kept.written = kept.total;
        StreamQuarantine { settings, files: Mutex::new(files), kept: Mutex::new(kept) }
    }

    /// Adds the lines of one request. Those of a retry under the same key, and records that are kept, are not added again.
    pub fn add(&self, rejected: RejectedLines, now: Micros) {
        let RejectedLines { lines, count, idempotency_key, records } = rejected;
        let records = records.into_iter().map(Some).chain(std::iter::repeat(None));
        let entries = lines.into_iter().zip(records).map(|(line, record)| Quarantined {
            number: 0,
            arrived_at: now,
            line: line.line,
            reason: line.reason,
            text: line.text,
            bytes: line.bytes,
            truncated: line.truncated,
            idempotency_key: idempotency_key.clone(),
            record,
        });
        let mut entries: Vec<Quarantined> = entries.collect();
        let mut kept = self.kept.lock();
        if idempotency_key.is_some() && kept.lines.iter().any(|line| line.idempotency_key == idempotency_key) {
            return;
        }
        let (all, kept_to) =
            (entries.len(), entries.first().and_then(|entry| kept.last_offset(entry.record.as_ref()?)));
        entries
            .retain(|entry| entry.record.as_ref().zip(kept_to).is_none_or(|(record, kept_to)| record.offset > kept_to));
        let first = kept.total + 1;
        kept.total += count - (all - entries.len()) as u64;
        for (number, entry) in (first..).zip(entries) {
            kept.push(Arc::new(Quarantined { number, ..entry }), self.settings);
        }
    }

    pub fn counts(&self) -> QuarantineCounts {
        self.kept.lock().counts()
    }

    /// Lists the lines before the cursor, newest first.
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

    /// Deletes all lines, restarts the count from zero and returns the number of deleted lines.
    pub fn empty(&self) -> io::Result<u64> {
        let mut files = self.files.lock();
        let deleted = std::mem::take(&mut *self.kept.lock());
        files.remove()?;
        Ok(deleted.lines.len() as u64)
    }

    /// Deletes the lines for which `is_erased` holds of their texts, on disk too, and returns their number. The others keep
    /// their numbers.
    pub fn forget(&self, is_erased: impl Fn(&str) -> bool) -> io::Result<u64> {
        let mut files = self.files.lock();
        let (kept, written, deleted) = {
            let mut kept = self.kept.lock();
            let before = kept.lines.len();
            let mut lines = std::mem::take(&mut kept.lines);
            lines.retain(|line| !is_erased(&line.text));
            kept.bytes = lines.iter().map(|line| bytes_of(line)).sum();
            kept.lines = lines;
            (kept.lines.iter().cloned().collect::<Vec<_>>(), kept.total, before - kept.lines.len())
        };
        // The older file may have lines that memory no longer has.
        files.replace(&kept)?;
        self.kept.lock().written = written;
        Ok(deleted as u64)
    }

    /// Writes new lines to disk.
    pub fn write(&self) {
        let mut files = self.files.lock();
        let (lines, total) = self.kept.lock().unwritten();
        if let Err(error) = files.append(&lines) {
            tracing::warn!(dir = %files.dir().display(), %error, "cannot write rejected lines; they are kept in memory only");
        }
        // `empty` cannot have run meanwhile: it locks the files too.
        self.kept.lock().written = total;
    }

    /// Writes new lines to disk, and syncs them.
    pub fn write_durably(&self) -> io::Result<()> {
        let mut files = self.files.lock();
        let (lines, total) = self.kept.lock().unwritten();
        files.append(&lines)?;
        files.sync()?;
        self.kept.lock().written = total;
        Ok(())
    }
}

impl StoredLines {
    fn push(&mut self, line: Arc<Quarantined>, settings: QuarantineSettings) {
        self.bytes += bytes_of(&line);
        self.lines.push_back(line);
        while self.lines.len() > settings.lines_max || (self.bytes > settings.bytes_max && self.lines.len() > 1) {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= bytes_of(&oldest);
        }
    }

    /// Returns the lines that are not on disk, and the number of the last line.
    fn unwritten(&self) -> (Vec<Arc<Quarantined>>, u64) {
        let from = self.lines.partition_point(|line| line.number <= self.written);
        (self.lines.range(from..).cloned().collect(), self.total)
    }

    /// Returns the offset of the last record that is kept of the partition of `record`; those before it came earlier.
    fn last_offset(&self, record: &RecordAddress) -> Option<i64> {
        let addresses = self.lines.iter().rev().filter_map(|line| line.record.as_ref());
        let is_same = |of: &&RecordAddress| of.partition == record.partition && of.topic == record.topic;
        addresses.into_iter().find(is_same).map(|last| last.offset)
    }

    fn counts(&self) -> QuarantineCounts {
        let kept = self.lines.len() as u64;
        QuarantineCounts { total: self.total, kept, dropped: self.total - kept }
    }
}

/// Bytes of a line in memory.
fn bytes_of(line: &Quarantined) -> usize {
    let key = line.idempotency_key.as_ref().map_or(0, String::len);
    let topic = line.record.as_ref().map_or(0, |record| record.topic.len());
    size_of::<Quarantined>() + line.reason.len() + line.text.len() + key + topic
}
