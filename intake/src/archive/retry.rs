//! What happens when the lake fails? The error is shown and the work tried again, ever more slowly, until it is done.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::queue::Queue;
use super::{ArchiveStatus, ArchiverSettings};

/// Why an archiver ends.
#[derive(Debug)]
pub(super) enum End {
    /// It was asked to.
    Stopped,
    /// It found what trying again cannot mend.
    Broken(String),
}

/// Tries until it is done or the archiver has to stop.
pub(super) struct Retry {
    pub queue: Arc<Queue>,
    pub status: Arc<Mutex<ArchiveStatus>>,
    pub settings: ArchiverSettings,
}

impl Retry {
    /// Repeats `attempt` while it returns errors that may pass.
    pub fn until_done<T, E: std::fmt::Display>(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> Result<Result<T, E>, End>,
    ) -> Result<T, End> {
        let mut pause = self.settings.retry_first;
        loop {
            match attempt()? {
                Ok(done) => {
                    self.status.lock().last_error = None;
                    return Ok(done);
                }
                Err(error) => {
                    let error = format!("{what}: {error}");
                    tracing::warn!(%error, "the archiver tries again");
                    self.status.lock().last_error = Some(error);
                }
            }
            if self.queue.closed_before(Instant::now() + pause) {
                return Err(End::Stopped);
            }
            pause = (pause * 2).min(self.settings.retry_max);
        }
    }
}
