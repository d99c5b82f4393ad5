//! Erases entities from the log: a tombstone in the partition of the entity, and then its events from segments, lists and
//! rejected lines. The archive, the versions and the alerts are the work of others.

use shared::entity::EntityId;
use shared::handoff::{HandoffError, LogReplay};
use shared::ids::{Offset, Partition, StreamName};
use shared::time::Micros;
use tokio::sync::oneshot;

use crate::event_id::hash_entity;
use crate::log::{EntityHash, LogError, Tombstone};
use crate::partition::{Erasure, SubmitError};
use crate::streams::{Intake, StreamLog};
use crate::submit::partition_of;

/// An erasure that is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingErasure {
    pub partition: Partition,
    pub id: EntityId,
    pub tombstone: Tombstone,
}

/// Why an entity was not erased.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EraseError {
    #[error("the stream {0} has no entity")]
    NoEntity(StreamName),
    #[error("the entity has no events")]
    Unknown,
    #[error(transparent)]
    Log(#[from] SubmitError),
}

/// Erases an entity: when this returns, its tombstone is durable. An entity that is erased already stays as it is.
pub async fn erase(
    intake: &Intake,
    stream: &StreamName,
    id: &EntityId,
    by: String,
    reference: Option<String>,
) -> Result<Tombstone, EraseError> {
    let log = intake.stream(stream).filter(|log| log.stream().entity.is_some());
    let log = log.ok_or_else(|| EraseError::NoEntity(stream.clone()))?;
    let hash = hash_entity(id);
    let number = partition_of(hash, log.stream().partitions);
    let partition = log.partition(number).ok_or(SubmitError::NoPartition(number))?;
    let has_events = partition.entities().is_some_and(|table| table.last(hash) > 0);
    if !has_events && !partition.tombstones().contains(hash) {
        return Err(EraseError::Unknown);
    }
    let (reply, tombstone) = oneshot::channel();
    partition.erase(Erasure { entity: EntityHash(hash), id: id.clone(), by, reference, reply })?;
    Ok(tombstone.await.map_err(|_| SubmitError::Stopped)??)
}

/// Returns the erasures of a stream that are not complete.
pub fn pending(log: &StreamLog) -> Vec<PendingErasure> {
    let of = |(number, partition): (u32, &crate::partition::PartitionLog)| {
        let pending = partition.tombstones().all().into_iter().filter(|tombstone| tombstone.completed_at.is_none());
        let with_id = move |tombstone: Tombstone| {
            let id = tombstone.id.clone()?;
            Some(PendingErasure { partition: Partition(number), id, tombstone })
        };
        pending.filter_map(with_id).collect::<Vec<_>>()
    };
    (0..).zip(log.partitions()).flat_map(of).collect()
}

/// Returns the erased entities whose rows may still be in figures.
pub fn shown(log: &StreamLog) -> Vec<EntityId> {
    log.partitions().iter().flat_map(|partition| partition.tombstones().shown()).filter_map(|shown| shown.id).collect()
}

/// Notes that no figure has rows of the entities any more.
pub fn mark_gone(log: &StreamLog, pending: &[PendingErasure]) {
    for PendingErasure { partition, tombstone, .. } in pending {
        if let Some(partition) = log.partition(*partition) {
            partition.tombstones().mark_gone(&[tombstone.entity]);
        }
    }
}

/// Takes the events of erased entities out of the segments and the lists of a stream. Blocking.
pub fn scrub(log: &StreamLog, pending: &[PendingErasure]) -> Result<u64, LogError> {
    let mut events = 0;
    for (number, partition) in (0..).zip(log.partitions()) {
        let of_partition = pending.iter().filter(|erasure| erasure.partition == Partition(number));
        if let Some(head) = of_partition.map(|erasure| erasure.tombstone.head).max() {
            // An event at the head itself is of another entity; the segment with it began there.
            events += partition.scrub(Offset(head.0.max(1)))?;
        }
        log.lateness().forget(|rows| log.erased(Partition(number), rows))?;
    }
    Ok(events)
}

/// Notes that nothing is left of the entities. Blocking.
pub fn complete(log: &StreamLog, pending: &[PendingErasure], at: Micros) -> Result<(), HandoffError> {
    for (number, partition) in (0..).zip(log.partitions()) {
        let of_partition = pending.iter().filter(|erasure| erasure.partition == Partition(number));
        let entities: Vec<EntityHash> = of_partition.map(|erasure| erasure.tombstone.entity).collect();
        if !entities.is_empty() {
            partition.tombstones().complete(&entities, at).map_err(|error| HandoffError(error.to_string()))?;
        }
    }
    Ok(())
}
