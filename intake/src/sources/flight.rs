//! Waits for batches that were submitted, in their order, and records what became of them.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::error::SourceError;
use crate::fail_points::SourcePoint;
use crate::partition::{PartitionReceipt, SubmitError};
use crate::submit::RecordSubmitter;

/// One submitted batch.
pub(super) struct InFlight {
    pub partition: u32,
    pub receipt: oneshot::Receiver<Result<PartitionReceipt, SubmitError>>,
    pub rejected: u64,
    pub unknown_fields: u64,
}

/// The batches whose outcome is not known yet, the oldest first.
pub(super) struct Flight {
    submitter: Arc<RecordSubmitter>,
    batches: VecDeque<InFlight>,
}

impl Flight {
    pub fn new(submitter: Arc<RecordSubmitter>) -> Flight {
        Flight { submitter, batches: VecDeque::new() }
    }

    pub fn push(&mut self, batch: InFlight) {
        self.batches.push_back(batch);
    }

    /// Returns the partitions of the batches whose outcome is not known yet.
    pub fn partitions(&self) -> impl Iterator<Item = u32> {
        self.batches.iter().map(|batch| batch.partition)
    }

    /// Waits until no batch is in flight.
    ///
    /// # Errors
    /// The first batch that was not written. Later batches of its partition were not written either.
    pub async fn settle(&mut self) -> Result<(), SourceError> {
        self.settle_to(0).await
    }

    /// Waits until at most the newest `most` batches are in flight.
    ///
    /// # Errors
    /// As for [`Flight::settle`], among the batches that it waited for.
    pub async fn settle_to(&mut self, most: usize) -> Result<(), SourceError> {
        let mut first = None;
        while self.batches.len() > most
            && let Some(batch) = self.batches.pop_front()
        {
            let InFlight { receipt, rejected, unknown_fields, .. } = batch;
            match receipt.await {
                Ok(Ok(receipt)) => {
                    SourcePoint::Settled.reach();
                    self.submitter.record(&receipt, rejected, unknown_fields);
                }
                Ok(Err(error)) => first = first.or(Some(error)),
                Err(_) => first = first.or(Some(SubmitError::Stopped)),
            }
        }
        first.map_or(Ok(()), |error| Err(error.into()))
    }
}
