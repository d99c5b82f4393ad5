//! Shares the list of segments and the durable end of the log between its writer and its readers, and deletes segments
//! that all readers have released.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use shared::ids::{Offset, Partition};
use shared::stream::Stream;

use super::disk::LogDisk;
use super::segment::Segment;
use super::tombstones::Tombstones;
use crate::fail_points::IntakePoint;

/// The segment files of one partition's log.
pub(crate) struct SegmentStore {
    pub stream: Arc<Stream>,
    pub partition: Partition,
    pub disk: Arc<dyn LogDisk>,
    /// The erased entities.
    pub tombstones: Arc<Tombstones>,
    /// Events before this offset are durable.
    head: AtomicU64,
    /// Oldest first, never empty.
    segments: Mutex<Vec<Segment>>,
    readers: Mutex<BTreeMap<String, LogReader>>,
    /// Whether a live reader is behind by more than its limit.
    is_behind: AtomicBool,
    keep_events: u64,
    /// Segments that reach this offset are held, whatever readers release; `u64::MAX`: none is.
    held_from: AtomicU64,
}

/// A reader for which the log is kept.
#[derive(Debug, Clone, Copy, Default)]
struct LogReader {
    /// First offset that it still needs.
    released: Offset,
    /// Bytes of the log that it may be behind, for a live reader.
    backlog_bytes_max: Option<u64>,
}

/// The bytes of the log that a live reader has not released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    pub reader: String,
    pub bytes: u64,
    pub bytes_max: u64,
}

impl SegmentStore {
    pub fn new(
        stream: Arc<Stream>,
        partition: Partition,
        (disk, tombstones): (Arc<dyn LogDisk>, Arc<Tombstones>),
        segments: Vec<Segment>,
        head: Offset,
        keep_events: u64,
    ) -> Self {
        SegmentStore {
            stream,
            partition,
            disk,
            tombstones,
            head: AtomicU64::new(head.0),
            segments: Mutex::new(segments),
            readers: Mutex::default(),
            is_behind: AtomicBool::new(false),
            keep_events,
            held_from: AtomicU64::new(u64::MAX),
        }
    }

    /// The first offset that is not durable yet.
    pub fn head(&self) -> Offset {
        Offset(self.head.load(Ordering::Acquire))
    }

    /// The oldest offset in the log.
    pub fn start(&self) -> Offset {
        self.segments.lock().first().map_or(Offset(0), |segment| segment.first)
    }

    /// The first offset of the last segment.
    pub fn last_first(&self) -> Offset {
        self.segments.lock().last().map_or(Offset(0), |segment| segment.first)
    }

    /// Durable bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.lock().iter().map(|segment| segment.bytes).sum()
    }

    /// The segments that may hold events of `from..to`, oldest first.
    pub fn segments(&self, from: Offset, to: Offset) -> Vec<Segment> {
        let segments = self.segments.lock();
        let first = segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
        segments[first..].iter().take_while(|segment| segment.first < to).cloned().collect()
    }

    /// Returns the segments that begin before `before`, but the last, which the writer appends to.
    pub fn finished(&self, before: Offset) -> Vec<Segment> {
        let segments = self.segments.lock();
        let finished = &segments[..segments.len() - 1];
        finished.iter().take_while(|segment| segment.first < before).cloned().collect()
    }

    /// Calls `work` while the segment cannot be trimmed; `None`: it has been.
    pub fn while_kept<T>(&self, segment: &Segment, work: impl FnOnce() -> T) -> Option<T> {
        let segments = self.segments.lock();
        segments.iter().any(|kept| kept.path == segment.path).then(work)
    }

    /// Records that the last segment has `bytes` durable bytes and the log ends before `head`.
    pub fn advance(&self, bytes: u64, head: Offset) {
        if let Some(last) = self.segments.lock().last_mut() {
            last.bytes = bytes;
        }
        self.head.store(head.0, Ordering::Release);
        self.update_backlog();
    }

    /// Adds a new last segment.
    pub fn push_segment(&self, segment: Segment) {
        self.segments.lock().push(segment);
        self.trim();
    }

    /// Keeps all segments for `reader` until it releases some.
    pub fn register(&self, reader: &str) {
        self.readers.lock().entry(reader.to_owned()).or_default();
    }

    /// Keeps all segments for a live reader until it releases some, and limits how far it may be behind, in bytes.
    pub fn register_live(&self, reader: &str, backlog_bytes_max: u64) {
        self.readers.lock().entry(reader.to_owned()).or_default().backlog_bytes_max = Some(backlog_bytes_max);
    }

    /// The backlog of a live reader that is behind by more than its limit.
    pub fn exceeded_backlog(&self) -> Option<Backlog> {
        if !self.is_behind.load(Ordering::Acquire) {
            return None;
        }
        self.backlogs().into_iter().find(|backlog| backlog.bytes > backlog.bytes_max)
    }

    /// The backlogs of all live readers.
    pub fn backlogs(&self) -> Vec<Backlog> {
        let readers: Vec<_> = self.readers.lock().iter().map(|(name, reader)| (name.clone(), *reader)).collect();
        let backlog = |(reader, LogReader { released, backlog_bytes_max }): (String, LogReader)| {
            Some(Backlog { reader, bytes: self.bytes_from(released), bytes_max: backlog_bytes_max? })
        };
        readers.into_iter().filter_map(backlog).collect()
    }

    /// Bytes of the log from `offset` on. Within a segment, every event counts the same.
    fn bytes_from(&self, offset: Offset) -> u64 {
        let head = self.head();
        let segments = self.segments.lock();
        let first = segments.partition_point(|segment| segment.first <= offset).saturating_sub(1);
        let ends = segments[first..].iter().skip(1).map(|next| next.first).chain([head]);
        let bytes = |(segment, end): (&Segment, Offset)| {
            let events = end.0.saturating_sub(segment.first.0);
            let unread = end.0.saturating_sub(offset.0).min(events);
            // A segment without events has no backlog.
            (u128::from(segment.bytes) * u128::from(unread)).checked_div(u128::from(events)).unwrap_or(0) as u64
        };
        segments[first..].iter().zip(ends).map(bytes).sum()
    }

    fn update_backlog(&self) {
        let limits: Vec<(Offset, u64)> = {
            let readers = self.readers.lock();
            readers.values().filter_map(|reader| Some((reader.released, reader.backlog_bytes_max?))).collect()
        };
        let is_behind = limits.into_iter().any(|(released, bytes_max)| self.bytes_from(released) > bytes_max);
        self.is_behind.store(is_behind, Ordering::Release);
    }

    /// Releases the events before `offset` for `reader`.
    pub fn release(&self, reader: &str, offset: Offset) {
        {
            let mut readers = self.readers.lock();
            match readers.get_mut(reader) {
                Some(known) => known.released = offset.max(known.released),
                None => {
                    readers.insert(reader.to_owned(), LogReader { released: offset, backlog_bytes_max: None });
                }
            }
        }
        self.update_backlog();
        self.trim();
    }

    /// Holds the segments that have frames from `offset` on, for their writer; `None`: holds none.
    pub fn hold(&self, offset: Option<Offset>) {
        self.held_from.store(offset.map_or(u64::MAX, |offset| offset.0), Ordering::Release);
        if offset.is_none() {
            self.trim();
        }
    }

    /// Deletes the oldest segments that no reader needs. Without readers, none is deleted: one may still register.
    fn trim(&self) {
        let Some(released) = self.readers.lock().values().map(|reader| reader.released).min() else { return };
        let limit = released.0.min(self.head().0.saturating_sub(self.keep_events));
        let mut segments = self.segments.lock();
        // A frame without events may be at the end of a segment, where the next one starts.
        let held_from = self.held_from.load(Ordering::Acquire);
        // A segment ends where the next one starts. The last one is kept: the writer appends to it.
        while segments.len() > 1 && segments[1].first.0 <= limit && segments[1].first.0 < held_from {
            let oldest = &segments[0];
            IntakePoint::LogTrim.reach();
            if let Err(error) = self.disk.remove(&oldest.path) {
                tracing::warn!(path = %oldest.path.display(), %error, "cannot delete a log segment; will retry");
                return;
            }
            tracing::debug!(path = %oldest.path.display(), "deleted a log segment that no reader needs");
            segments.remove(0);
        }
    }
}
