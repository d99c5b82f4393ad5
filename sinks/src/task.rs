//! Runs one sink: an epoch whenever its time has come, retries after failures, and pauses.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::SinkState;
use shared::ids::SinkName;
use shared::limits::{SINK_RETRY_FIRST_MS, SINK_RETRY_MAX_MS};
use shared::time::Micros;
use tokio::sync::{Notify, watch};

use crate::book::SinkBook;
use crate::differences::EpochBatch;
use crate::event_changes::EventChanges;
use crate::publisher::{PublishError, Publisher};
use crate::view_changes::{ChangesError, ViewChanges};

/// What a sink shows of itself, and what an operator asks of it.
#[derive(Debug)]
pub struct SinkWatch {
    pub(crate) progress: Mutex<SinkProgress>,
    /// An operator has changed the book.
    pub(crate) changed: Notify,
}

/// How a sink is doing.
#[derive(Debug, Clone)]
pub(crate) struct SinkProgress {
    pub(crate) state: SinkState,
    pub(crate) error: Option<String>,
    pub(crate) committed_at: Option<Micros>,
    /// Committed by this process.
    pub(crate) records: u64,
    /// Whether an operator has resumed the sink since its task looked.
    pub(crate) is_resumed: bool,
    /// Whether rows are to be written again.
    pub(crate) visits_all: bool,
}

impl Default for SinkWatch {
    fn default() -> SinkWatch {
        let progress = SinkProgress {
            state: SinkState::Starting,
            error: None,
            committed_at: None,
            records: 0,
            is_resumed: false,
            visits_all: false,
        };
        SinkWatch { progress: Mutex::new(progress), changed: Notify::new() }
    }
}

/// The task of one sink.
pub struct SinkTask {
    pub(crate) name: SinkName,
    /// Shortest time between two epochs.
    pub(crate) every: Duration,
    pub(crate) book: Arc<SinkBook>,
    pub(crate) publisher: Publisher,
    pub(crate) changes: SinkChanges,
    pub(crate) watch: Arc<SinkWatch>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Finds what a sink writes.
pub(crate) enum SinkChanges {
    View(Box<ViewChanges>),
    Events(EventChanges),
}

/// The reason why an epoch failed.
#[derive(Debug, thiserror::Error)]
enum EpochError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Changes(#[from] ChangesError),
}

impl EpochError {
    fn is_final(&self) -> bool {
        match self {
            EpochError::Publish(error) => error.is_final(),
            EpochError::Changes(error) => matches!(error, ChangesError::TooManyRows | ChangesError::OtherKeys),
        }
    }
}

impl SinkTask {
    /// Runs the sink until `stop` is true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut pause = Duration::ZERO;
        loop {
            let wait = match self.turn(&mut stop, &mut pause).await {
                Some(wait) => wait,
                None => break,
            };
            let watch = Arc::clone(&self.watch);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = watch.changed.notified() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.publisher.close().await;
    }

    /// Writes an epoch, unless the sink is paused or stopped. Returns the wait until the next turn; `None`: the server stops.
    async fn turn(&mut self, stop: &mut watch::Receiver<bool>, pause: &mut Duration) -> Option<Duration> {
        let (is_resumed, visits_all) = {
            let mut progress = self.watch.progress.lock();
            (std::mem::take(&mut progress.is_resumed), std::mem::take(&mut progress.visits_all))
        };
        if let (true, SinkChanges::View(changes)) = (visits_all, &mut self.changes) {
            changes.visit_all();
        }
        if is_resumed {
            self.publisher.take_over();
            *pause = Duration::ZERO;
        }
        if self.book.is_paused() {
            self.publisher.close().await;
            self.show(SinkState::Paused, None);
            return Some(Duration::MAX);
        }
        let is_stopped = self.watch.progress.lock().state == SinkState::Stopped;
        if is_stopped && !is_resumed {
            return Some(Duration::MAX);
        }
        let outcome = tokio::select! {
            outcome = self.epoch() => outcome,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        match outcome {
            Ok(is_busy) => {
                *pause = Duration::ZERO;
                self.show(SinkState::Running, None);
                Some(if is_busy { Duration::ZERO } else { self.every })
            }
            Err(error) => {
                let state = if error.is_final() { SinkState::Stopped } else { SinkState::Failing };
                metrics::counter!("trueup_sink_errors_total", "sink" => self.name.to_string()).increment(1);
                tracing::warn!(sink = %self.name, %error, "an epoch was not written");
                self.show(state, Some(error.to_string()));
                let (first, most) =
                    (Duration::from_millis(SINK_RETRY_FIRST_MS), Duration::from_millis(SINK_RETRY_MAX_MS));
                *pause = (*pause * 2).clamp(first, most);
                Some(if error.is_final() { Duration::MAX } else { *pause })
            }
        }
    }

    /// Writes what has changed: the next events, or a page of the walk and then the rows that folds have changed. Returns
    /// whether more is to be written at once.
    async fn epoch(&mut self) -> Result<bool, EpochError> {
        let SinkTask { publisher, book, changes, .. } = self;
        if !publisher.is_open() {
            publisher.open().await?;
        }
        let is_busy = match changes {
            SinkChanges::Events(changes) => {
                let batch = changes.next(book).await?;
                let is_partial = batch.is_partial;
                publish(publisher, batch, (&self.name, &self.watch, &self.clock)).await?;
                is_partial
            }
            SinkChanges::View(changes) => {
                if let Some(batch) = changes.walk(book).await? {
                    let is_partial = batch.is_partial;
                    publish(publisher, batch, (&self.name, &self.watch, &self.clock)).await?;
                    if !is_partial {
                        changes.walked();
                    }
                }
                let batch = changes.live(book).await?;
                let is_partial = batch.is_partial;
                publish(publisher, batch, (&self.name, &self.watch, &self.clock)).await?;
                if !is_partial {
                    changes.settle();
                }
                is_partial || changes.is_walking()
            }
        };
        Ok(is_busy)
    }

    fn show(&self, state: SinkState, error: Option<String>) {
        let mut progress = self.watch.progress.lock();
        (progress.state, progress.error) = (state, error);
    }
}

/// Writes a batch, and shows what was written.
async fn publish(
    publisher: &mut Publisher,
    batch: EpochBatch,
    (name, watch, clock): (&SinkName, &SinkWatch, &Arc<dyn Clock>),
) -> Result<(), EpochError> {
    let records = batch.records.len() as u64;
    publisher.publish(batch).await?;
    if records > 0 {
        metrics::counter!("trueup_sink_records_total", "sink" => name.to_string()).increment(records);
        let mut progress = watch.progress.lock();
        progress.records += records;
        progress.committed_at = Some(clock.now());
    }
    Ok(())
}
