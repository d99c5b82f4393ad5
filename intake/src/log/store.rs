//! Shares the list of segments and the durable end of the log between its writer and its readers, and deletes segments
//! that all readers have released.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use shared::ids::{Offset, Partition};
use shared::stream::Stream;

use super::segment::Segment;

/// The segment files of one partition's log.
pub(crate) struct SegmentStore {
    pub stream: Arc<Stream>,
    pub partition: Partition,
    /// Events before this offset are durable.
    head: AtomicU64,
    /// Oldest first, never empty.
    segments: Mutex<Vec<Segment>>,
    /// First offset that each reader still needs.
    released: Mutex<BTreeMap<String, Offset>>,
    keep_events: u64,
}

impl SegmentStore {
    pub fn new(
        stream: Arc<Stream>,
        partition: Partition,
        segments: Vec<Segment>,
        head: Offset,
        keep_events: u64,
    ) -> Self {
        let (segments, released) = (Mutex::new(segments), Mutex::new(BTreeMap::new()));
        SegmentStore { stream, partition, head: AtomicU64::new(head.0), segments, released, keep_events }
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

    /// Records that the last segment has `bytes` durable bytes and the log ends before `head`.
    pub fn advance(&self, bytes: u64, head: Offset) {
        if let Some(last) = self.segments.lock().last_mut() {
            last.bytes = bytes;
        }
        self.head.store(head.0, Ordering::Release);
    }

    /// Adds a new last segment.
    pub fn push_segment(&self, segment: Segment) {
        self.segments.lock().push(segment);
        self.trim();
    }

    /// Keeps all segments for `reader` until it releases some.
    pub fn register(&self, reader: &str) {
        self.released.lock().entry(reader.to_owned()).or_default();
    }

    /// Releases the events before `offset` for `reader`.
    pub fn release(&self, reader: &str, offset: Offset) {
        {
            let mut released = self.released.lock();
            let known = released.entry(reader.to_owned()).or_default();
            *known = offset.max(*known);
        }
        self.trim();
    }

    /// Deletes the oldest segments that no reader needs. Without readers, none is deleted: one may still register.
    fn trim(&self) {
        let Some(released) = self.released.lock().values().min().copied() else { return };
        let limit = released.0.min(self.head().0.saturating_sub(self.keep_events));
        let mut segments = self.segments.lock();
        // A segment ends where the next one starts. The last one is kept: the writer appends to it.
        while segments.len() > 1 && segments[1].first.0 <= limit {
            let oldest = &segments[0];
            if let Err(error) = fs::remove_file(&oldest.path) {
                tracing::warn!(path = %oldest.path.display(), %error, "cannot delete a log segment; will retry");
                return;
            }
            tracing::debug!(path = %oldest.path.display(), "deleted a log segment that no reader needs");
            segments.remove(0);
        }
    }
}
