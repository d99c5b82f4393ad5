//! Holds the settings of the log, and the faults that a test can inject.

use std::io;
use std::sync::Arc;

use shared::limits;

use super::totals::Totals;

/// A step of the log's writer that the operating system can refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoStep {
    /// Creating a segment.
    Create,
    /// Writing a group of frames.
    Write,
    /// Making them durable.
    Sync,
    /// Truncating a failed group.
    Truncate,
}

/// Called before each step; an error replaces the result of the step.
pub type IoFaults = Arc<dyn Fn(IoStep) -> io::Result<()> + Send + Sync>;

/// Settings of one partition's log.
#[derive(Clone)]
pub struct LogSettings {
    /// Size at which a segment is closed and the next one created, in bytes. A group is never split.
    pub segment_bytes: u64,
    /// Newest events that are kept even if all readers have released them: dedup is rebuilt from them.
    pub keep_events: u64,
    /// Totals at which a new log starts.
    pub begin: Totals,
    /// Injected disk faults, for tests.
    pub faults: Option<IoFaults>,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings {
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            keep_events: limits::DEDUP_HORIZON_EVENTS,
            begin: Totals::START,
            faults: None,
        }
    }
}

impl LogSettings {
    pub(crate) fn check(&self, step: IoStep) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults(step))
    }
}
