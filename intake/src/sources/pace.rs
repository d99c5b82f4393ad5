//! Paces a reader: until when it works, and how long it waits after a failure.

use std::time::Duration;

use shared::limits::{SOURCE_RETRY_FIRST_MS, SOURCE_RETRY_MAX_MS};
use tokio::sync::watch;

use super::error::SourceError;

/// The end of all readers.
#[derive(Clone)]
pub(super) struct Stopping(pub watch::Receiver<bool>);

impl Stopping {
    /// Whether readers must end.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until readers must end.
    pub async fn wait(&self) {
        let _ = self.0.clone().wait_for(|stopped| *stopped).await;
    }

    /// Waits, unless readers must end.
    pub async fn sleep(&self, wait: Duration) {
        let _ = tokio::time::timeout(wait, self.wait()).await;
    }
}

/// The pauses between retries: each is twice as long as the one before it, up to a limit.
pub(super) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(SOURCE_RETRY_FIRST_MS);
    const MAX: Duration = Duration::from_millis(SOURCE_RETRY_MAX_MS);

    pub fn new() -> Backoff {
        Backoff(Backoff::FIRST)
    }

    /// The pause after a failure. `is_new`: something was read since the last one.
    pub fn pause(&mut self, error: &SourceError, is_new: bool) -> Duration {
        if is_new {
            self.0 = Backoff::FIRST;
        }
        // What an operator has to change is not changed within milliseconds.
        let pause = if error.is_transient() { self.0 } else { Backoff::MAX.min(self.0 * 4) };
        self.0 = (self.0 * 2).min(Backoff::MAX);
        pause
    }
}
