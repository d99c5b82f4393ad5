//! Holds the settings of the log.

use std::sync::Arc;

use shared::limits;

use super::disk::{LocalDisk, LogDisk};
use super::totals::Totals;

/// Settings of one partition's log.
#[derive(Clone)]
pub struct LogSettings {
    /// Size at which a segment is closed and the next one created, in bytes. A group is never split.
    pub segment_bytes: u64,
    /// Newest events that are kept even if all readers have released them: dedup is rebuilt from them.
    pub keep_events: u64,
    /// Totals at which a new log starts.
    pub begin: Totals,
    /// Where the log is.
    pub disk: Arc<dyn LogDisk>,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            keep_events: limits::DEDUP_HORIZON_EVENTS,
            begin: Totals::START,
            disk: Arc::new(LocalDisk),
        }
    }
}
