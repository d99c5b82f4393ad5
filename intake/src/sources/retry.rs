//! Runs a reader: it connects and reads until something fails, waits, and connects again. It never ends by itself.

use shared::control::SourceState;

use super::error::SourceError;
use super::pace::{Backoff, Stopping};
use super::status::ReaderStatus;

/// Calls `connect_and_read` until readers must end. `log` writes the reason why it failed.
pub(super) async fn retry<F: Future<Output = Result<(), SourceError>>>(
    status: &ReaderStatus,
    stopping: &Stopping,
    log: impl Fn(&SourceError),
    connect_and_read: impl Fn() -> F,
) {
    let mut backoff = Backoff::new();
    while !stopping.is_set() {
        let before = status.positions();
        let Err(error) = connect_and_read().await else { return };
        let is_new = status.positions() != before;
        log(&error);
        status.set(SourceState::Failing, Some(error.to_string()));
        stopping.sleep(backoff.pause(&error, is_new)).await;
    }
}
