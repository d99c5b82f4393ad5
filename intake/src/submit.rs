//! Submits decoded events to the logs: divides a request among the partitions, writes the parts and adds up the receipts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use futures::FutureExt;
use futures::future::BoxFuture;
use shared::clock::Clock;
use shared::ids::{Partition, StreamName};
use shared::stream::Stream;
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use crate::decode::{Decoded, KeptValues, TableChanges, before_1980};
use crate::http::{AppendVerdict, EntityEvents, StreamDirectory, StreamWriter, WriteError, WriteReceipt};
use crate::partition::{
    EntityAppend, IdempotencyKey, PartitionReceipt, SourceStep, Submission, SubmitError, SubmittedEntities,
};
use crate::quarantine::{Quarantine, RejectedLines};
use crate::rate::Rate;
use crate::streams::{Intake, StreamLog};

#[cfg(test)]
mod tests;

/// Counts of one stream's requests since the process started.
#[derive(Debug, Default)]
pub struct ArrivalCounters {
    /// Lines that were rejected.
    pub rejected: AtomicU64,
    /// Fields that the stream does not declare.
    pub unknown_fields: AtomicU64,
    /// Rate of accepted events.
    pub accepted: Rate,
    /// Valid events.
    pub valid: AtomicU64,
    /// Valid events whose time lies before 1980.
    pub before_1980: AtomicU64,
}

/// Submits events to all streams.
pub struct EventSubmitter {
    streams: BTreeMap<StreamName, Arc<StreamSubmitter>>,
}

/// Submits events that were read from a topic to the stream that reads it.
pub(crate) struct RecordSubmitter(Arc<StreamSubmitter>);

impl RecordSubmitter {
    /// No events, to move the position in the topic alone.
    pub fn empty(&self) -> Decoded {
        Decoded::empty(self.0.log.stream())
    }

    /// Submits events of one partition of the topic, which move the position in it. Never waits. The receiver gets the
    /// receipt when both are durable.
    pub fn try_submit_records(
        &self,
        partition: Partition,
        decoded: &Decoded,
        step: SourceStep,
    ) -> Result<oneshot::Receiver<Result<PartitionReceipt, SubmitError>>, SubmitError> {
        let (reply, receipt) = oneshot::channel();
        let (rows, id_hashes) = (decoded.rows.clone(), decoded.id_hashes.clone());
        let kept = decoded.changes.as_ref().map_or_else(Vec::new, |changes| changes.kept.clone());
        let submission = Submission { rows, id_hashes, entities: None, kept, key: None, source: Some(step), reply };
        self.0.log.try_submit(vec![(partition, submission)])?;
        self.0.count(&decoded.rows);
        Ok(receipt)
    }

    /// Keeps the records of a batch that were rejected, durably. Blocking.
    pub fn keep_rejected(&self, rejected: RejectedLines) -> std::io::Result<()> {
        self.0.quarantine.add_durably(&self.0.log.stream().name, rejected, self.0.clock.now())
    }

    /// Counts a written batch.
    pub fn record(&self, receipt: &PartitionReceipt, rejected: u64, unknown_fields: u64) {
        self.0.arrivals.accepted.count(self.0.clock.now(), receipt.accepted);
        self.0.count_rejected(rejected, unknown_fields);
    }
}

/// Submits events to one stream.
struct StreamSubmitter {
    log: Arc<StreamLog>,
    arrivals: ArrivalCounters,
    quarantine: Arc<Quarantine>,
    clock: Arc<dyn Clock>,
    /// Assigns requests without ids and key to the partitions in turn.
    next_partition: AtomicU32,
}

/// The rows of one request for one partition.
struct PartitionRows {
    partition: Partition,
    rows: RecordBatch,
    ids: Option<Vec<u128>>,
    entities: Option<Vec<u128>>,
    kept: Vec<KeptValues>,
}

impl EventSubmitter {
    /// Submits events to the logs of `intake`, and rejected lines to `quarantine`.
    pub fn new(intake: &Intake, quarantine: &Arc<Quarantine>, clock: &Arc<dyn Clock>) -> EventSubmitter {
        let submitter = |log: &Arc<StreamLog>| {
            let submitter = StreamSubmitter {
                log: Arc::clone(log),
                arrivals: ArrivalCounters::default(),
                quarantine: Arc::clone(quarantine),
                clock: Arc::clone(clock),
                next_partition: AtomicU32::new(0),
            };
            (log.stream().name.clone(), Arc::new(submitter))
        };
        EventSubmitter { streams: intake.streams().map(submitter).collect() }
    }

    /// The submitter of records of the topic that `stream` reads.
    pub(crate) fn records(&self, stream: &StreamName) -> Option<Arc<RecordSubmitter>> {
        self.streams.get(stream).map(|submitter| Arc::new(RecordSubmitter(Arc::clone(submitter))))
    }

    /// The counters of `stream`.
    pub fn arrivals(&self, stream: &StreamName) -> Option<&ArrivalCounters> {
        self.streams.get(stream).map(|submitter| &submitter.arrivals)
    }
}

impl StreamDirectory for EventSubmitter {
    fn stream(&self, name: &str) -> Option<Arc<dyn StreamWriter>> {
        let submitter = self.streams.get(&name.parse().ok()?)?;
        Some(Arc::clone(submitter) as Arc<dyn StreamWriter>)
    }

    fn stream_names(&self) -> Vec<StreamName> {
        self.streams.keys().cloned().collect()
    }
}

/// The partition of the events whose entity, or id, has the hash `place`.
pub(crate) fn partition_of(place: u128, partitions: u32) -> Partition {
    Partition((place % u128::from(partitions)) as u32)
}

impl StreamSubmitter {
    fn count_rejected(&self, rejected: u64, unknown_fields: u64) {
        self.arrivals.rejected.fetch_add(rejected, Ordering::Relaxed);
        self.arrivals.unknown_fields.fetch_add(unknown_fields, Ordering::Relaxed);
    }

    /// Divides the events among the partitions. Changes of a table go where their key says, so that one writer knows the row.
    /// Events with an entity go where their entity says, so that one writer numbers all of its events; others with an id where
    /// their id says, so that a duplicate meets its original. The rest go where the request's key says, so that a retry meets
    /// its first receipt; without a key, in turn.
    fn divide(&self, decoded: Decoded, key: Option<&IdempotencyKey>) -> Result<Vec<PartitionRows>, ArrowError> {
        let partitions = self.log.stream().partitions;
        let Decoded { rows: all, id_hashes: ids, entity_hashes: entities, changes, .. } = decoded;
        let TableChanges { keys, kept, .. } = changes.unwrap_or_default();
        let keys = self.log.stream().table.map(|_| &keys);
        match keys.or(entities.as_ref()).or(ids.as_ref()) {
            Some(places) if partitions > 1 && !places.is_empty() => {
                let mut rows: Vec<Vec<u32>> = vec![Vec::new(); partitions as usize];
                for (row, place) in places.iter().enumerate() {
                    rows[partition_of(*place, partitions).0 as usize].push(row as u32);
                }
                let part = |(partition, rows): (usize, Vec<u32>)| {
                    let of_rows = |hashes: &Vec<u128>| rows.iter().map(|row| hashes[*row as usize]).collect();
                    let (ids, entities) = (ids.as_ref().map(of_rows), entities.as_ref().map(of_rows));
                    let moved = |kept: &KeptValues| {
                        let row = rows.binary_search(&(kept.row as u32)).ok()?;
                        // Only a row of the same partition is known there.
                        let follows = row > 0 && rows[row - 1] + 1 == kept.row as u32;
                        Some(KeptValues { row, columns: kept.columns.clone(), is_renamed: kept.is_renamed && follows })
                    };
                    let kept = kept.iter().filter_map(moved).collect();
                    let rows = take_record_batch(&all, &UInt32Array::from(rows))?;
                    Ok(PartitionRows { partition: Partition(partition as u32), rows, ids, entities, kept })
                };
                rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()).map(part).collect()
            }
            _ => {
                let partition = match key {
                    _ if partitions == 1 => 0,
                    Some(key) => (xxh3_64(key.key.as_bytes()) % u64::from(partitions)) as u32,
                    None => self.next_partition.fetch_add(1, Ordering::Relaxed) % partitions,
                };
                Ok(vec![PartitionRows { partition: Partition(partition), rows: all, ids, entities, kept }])
            }
        }
    }

    fn count(&self, rows: &RecordBatch) {
        let times = rows.column(self.log.stream().event_time).as_primitive();
        self.arrivals.valid.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        // A deletion has no time of its own.
        if self.log.stream().table.is_none() {
            self.arrivals.before_1980.fetch_add(before_1980(times), Ordering::Relaxed);
        }
    }

    async fn write(&self, decoded: Decoded, key: Option<IdempotencyKey>) -> Result<WriteReceipt, WriteError> {
        // Decided for the whole request, before any partition receives a part of it.
        let claim = key.as_ref().map(|key| self.log.claim_key(key)).transpose()?;
        let divided = self.divide(decoded, key.as_ref()).map_err(|error| SubmitError::Rows(error.to_string()))?;
        let mut parts = Vec::with_capacity(divided.len());
        let mut replies = Vec::with_capacity(divided.len());
        for PartitionRows { partition, rows, ids, entities, kept } in divided {
            let (reply, receipt) = oneshot::channel();
            let entities = entities.map(|hashes| SubmittedEntities { hashes, append: None });
            parts.push((
                partition,
                Submission { rows, id_hashes: ids, entities, kept, key: claim.clone(), source: None, reply },
            ));
            replies.push((partition, receipt));
        }
        self.log.try_submit(parts)?;
        let mut total = WriteReceipt::default();
        let mut refused: Vec<(Partition, SubmitError)> = Vec::new();
        for (partition, reply) in replies {
            let receipt = match reply.await {
                Ok(Ok(receipt)) => receipt,
                Ok(Err(error)) => {
                    refused.push((partition, error));
                    continue;
                }
                Err(_) => {
                    refused.push((partition, SubmitError::Stopped));
                    continue;
                }
            };
            total.accepted += receipt.accepted;
            total.duplicates += receipt.duplicates;
            total.late += receipt.late;
            total.ahead += receipt.ahead;
            total.erased += receipt.erased;
            if let (Some(first), Some(end)) = (receipt.first_offset, receipt.end_offset) {
                total.offsets.insert(partition, (first, end));
            }
        }
        self.arrivals.accepted.count(self.clock.now(), total.accepted);
        let partitions = refused.iter().map(|(partition, _)| *partition).collect();
        match refused.into_iter().next() {
            None => Ok(total),
            Some((_, cause)) => Err(WriteError { cause, written: total, refused: partitions }),
        }
    }

    async fn write_appends(&self, appends: Vec<EntityEvents>) -> Result<Vec<AppendVerdict>, SubmitError> {
        let partitions = self.log.stream().partitions;
        let mut parts = Vec::with_capacity(appends.len());
        let mut replies = Vec::with_capacity(appends.len());
        for EntityEvents { rows, id_hashes, entity, expected, key } in appends {
            let claim = match key.as_ref().map(|key| self.log.claim_key(key)).transpose() {
                Ok(claim) => claim,
                Err(refusal) => {
                    replies.push(Err(refusal));
                    continue;
                }
            };
            let (reply, receipt) = oneshot::channel();
            self.count(&rows);
            let hashes = vec![entity; rows.num_rows()];
            let entities = Some(SubmittedEntities { hashes, append: Some(EntityAppend { expected }) });
            let kept = Vec::new();
            let submission = Submission { rows, id_hashes, entities, kept, key: claim, source: None, reply };
            parts.push((partition_of(entity, partitions), submission));
            replies.push(Ok(receipt));
        }
        self.log.try_submit(parts)?;
        let mut verdicts = Vec::with_capacity(replies.len());
        for reply in replies {
            verdicts.push(match reply {
                Ok(receipt) => receipt.await.unwrap_or(Err(SubmitError::Stopped)),
                Err(refusal) => Err(refusal),
            });
        }
        let accepted = verdicts.iter().flatten().map(|receipt| receipt.accepted).sum();
        self.arrivals.accepted.count(self.clock.now(), accepted);
        Ok(verdicts)
    }
}

impl StreamWriter for StreamSubmitter {
    fn stream(&self) -> &Arc<Stream> {
        self.log.stream()
    }

    fn record_rejected(&self, rejected: RejectedLines, unknown_fields: u64) {
        self.count_rejected(rejected.count, unknown_fields);
        self.quarantine.add(&self.log.stream().name, rejected, self.clock.now());
    }

    fn submit(&self, decoded: Decoded, key: Option<IdempotencyKey>) -> BoxFuture<'_, Result<WriteReceipt, WriteError>> {
        self.count(&decoded.rows);
        self.write(decoded, key).boxed()
    }

    fn append_each(&self, appends: Vec<EntityEvents>) -> BoxFuture<'_, Result<Vec<AppendVerdict>, SubmitError>> {
        self.write_appends(appends).boxed()
    }
}
