//! How does the log behave, and what may a test change about it?

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
    /// Cutting a failed group off again.
    Truncate,
}

/// Asked before each step; an error stands in for the step's own.
pub type IoFaults = Arc<dyn Fn(IoStep) -> io::Result<()> + Send + Sync>;

/// Settings of one partition's log.
#[derive(Clone)]
pub struct LogSettings {
    /// Size at which a segment is closed and the next one begun, in bytes. A group is never split.
    pub segment_bytes: u64,
    /// Newest events that are kept whatever the readers have released: dedup is rebuilt from them.
    pub keep_events: u64,
    /// Where a log that is not there yet begins.
    pub begin: Totals,
    /// For tests of what happens when the disk fails.
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
