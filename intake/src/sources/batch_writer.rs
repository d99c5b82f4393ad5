//! Submits decoded batches to the log, after what was rejected of them is kept, and waits while the log has no room.

use std::sync::Arc;
use std::time::Duration;

use shared::control::SourceState;
use shared::ids::Partition;

use super::batches::RecordBatch;
use super::error::SourceError;
use super::flight::{Flight, InFlight};
use super::pace::Stopping;
use super::status::ReaderStatus;
use crate::fail_points::SourcePoint;
use crate::partition::{SourceStep, SubmitError};
use crate::submit::RecordSubmitter;

/// Pauses of a reader whose records have no room in the log.
const ROOM_PAUSE_FIRST: Duration = Duration::from_millis(5);
const ROOM_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Submits the batches of one stream.
pub(super) struct BatchWriter {
    pub submitter: Arc<RecordSubmitter>,
    pub status: Arc<ReaderStatus>,
    pub stopping: Stopping,
}

impl BatchWriter {
    /// Submits a batch, which moves the position as `step` says. Its outcome is that of the flight.
    pub async fn submit(&self, flight: &mut Flight, batch: RecordBatch, step: SourceStep) -> Result<(), SourceError> {
        let RecordBatch { partition, decoded, rejected, .. } = batch;
        let rejected_count = rejected.count;
        if rejected_count > 0 {
            let submitter = Arc::clone(&self.submitter);
            let kept = tokio::task::spawn_blocking(move || submitter.keep_rejected(rejected)).await;
            let kept = kept.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            kept.map_err(|error| SourceError::Quarantine(error.to_string()))?;
            SourcePoint::Rejected.reach();
        }
        let mut pause = ROOM_PAUSE_FIRST;
        loop {
            SourcePoint::Submit.reach();
            match self.submitter.try_submit_records(Partition(partition), &decoded, step.clone()) {
                Ok(receipt) => {
                    let unknown_fields = decoded.unknown_fields;
                    flight.push(InFlight { partition, receipt, rejected: rejected_count, unknown_fields });
                    self.status.set(SourceState::Reading, None);
                    return Ok(());
                }
                // I9: the source keeps what has no room here; nothing more is fetched meanwhile.
                Err(full @ (SubmitError::Busy | SubmitError::Behind(_) | SubmitError::LiveState(_))) => {
                    self.status.set(SourceState::Paused, Some(full.to_string()));
                    if self.stopping.is_set() {
                        return Err(full.into());
                    }
                    self.stopping.sleep(pause).await;
                    pause = (pause * 2).min(ROOM_PAUSE_MAX);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
