//! Retries work on the lake with growing pauses until it succeeds; the status shows the last error.

use std::sync::Arc;

use parking_lot::Mutex;

use super::queue::ArchiveQueue;
use super::{ArchiveStatus, ArchiverSettings};

/// Why an archiver ends.
#[derive(Debug)]
pub(super) enum ArchiverExit {
    /// It was asked to stop.
    Stopped,
    /// It met an error that a retry cannot fix.
    Broken(String),
}

/// Retries until the work succeeds or the archiver has to stop.
pub(super) struct RetryLoop {
    pub queue: Arc<ArchiveQueue>,
    pub status: Arc<Mutex<ArchiveStatus>>,
    pub settings: ArchiverSettings,
}

impl RetryLoop {
    /// Repeats `attempt` while it returns transient errors. `what` names the work in messages.
    pub fn until_done<T, E: std::fmt::Display>(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> Result<Result<T, E>, ArchiverExit>,
    ) -> Result<T, ArchiverExit> {
        let mut pause = self.settings.retry_first;
        loop {
            match attempt()? {
                Ok(done) => {
                    self.status.lock().last_error = None;
                    return Ok(done);
                }
                Err(error) => {
                    let error = format!("{what}: {error}");
                    tracing::warn!(%error, "archiving failed; will retry");
                    self.status.lock().last_error = Some(error);
                }
            }
            if self.queue.closed_before(shared::clock::monotonic_now() + pause) {
                return Err(ArchiverExit::Stopped);
            }
            pause = (pause * 2).min(self.settings.retry_max);
        }
    }
}
