//! Reads the events of one entity from the log and the archive, at one seam: the archive's events before an offset, and the
//! log's from that offset on. Nothing here changes anything.
//!
//! [`archived`] reads files of the archive, by the [`pages`] that may have the entity, [`collected`] gathers what was found, [`restore`] rebuilds the tables of last
//! sequences at a start.

mod archived;
mod collected;
mod pages;
pub mod restore;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use lake::{ArchiveTags, DataFile, Lake, LakeError, Table, TablePath};
use shared::entity::EntityId;
use shared::entity_reader::{EntityEvents, EntityReader, EventSelection};
use shared::handoff::HandoffError;
use shared::ids::{Offset, Partition, StreamName};
use shared::stream::Stream;
use shared::time::Micros;

use crate::archive::Archives;
use crate::erasure;
use crate::event_id::hash_entity;
use crate::log::LogError;
use crate::streams::{Intake, StreamLog};
use crate::submit::partition_of;
pub(crate) use archived::fitted;
use archived::{EntityFilter, matching_rows};
use collected::Collected;

/// Attempts to read while the archiver trims the log: each means that it committed in between.
const TRIES: usize = 8;

/// The events of the entities of all streams.
pub struct EntityLog {
    intake: Arc<Intake>,
    archives: Arc<Archives>,
    lake: Lake,
}

impl EntityLog {
    /// Reads the logs of `intake` and the archives of `lake`, of which `archives` know the progress.
    pub fn new(intake: Arc<Intake>, archives: Arc<Archives>, lake: Lake) -> EntityLog {
        EntityLog { intake, archives, lake }
    }

    /// The offset up to which the archive has the events of a partition.
    async fn archived(&self, stream: &StreamName, partition: Partition) -> Result<Offset, ReadError> {
        if let Some(archived) = self.archives.stream(stream).and_then(|archiver| archiver.progress(partition)) {
            return Ok(archived);
        }
        let archived = self.table(stream).await?.txn_version(&ArchiveTags::app_id(stream, partition)).await?;
        Ok(Offset(archived.and_then(|version| u64::try_from(version).ok()).unwrap_or(0)))
    }

    async fn table(&self, stream: &StreamName) -> Result<Table, ReadError> {
        let path = TablePath::events(stream);
        self.lake.open_table(&path).await?.ok_or_else(|| ReadError::Other(format!("no table {path}")))
    }

    /// The log of a stream, and the partition of one of its entities; `None` if the stream has none.
    fn place(&self, stream: &StreamName, entity: u128) -> Option<(&Arc<StreamLog>, Partition)> {
        let log = self.intake.stream(stream).filter(|log| log.stream().entity.is_some())?;
        Some((log, partition_of(entity, log.stream().partitions)))
    }

    async fn read(
        &self,
        stream: &StreamName,
        id: &EntityId,
        selection: EventSelection,
    ) -> Result<EntityEvents, ReadError> {
        let Some((log, partition)) = self.place(stream, hash_entity(id)) else {
            return Err(ReadError::Other(format!("stream {stream} has no entity")));
        };
        let last = self.last_sequence(stream, id);
        // Events that come from now on are for the next read.
        let selection = EventSelection { to_sequence: selection.to_sequence.min(last), ..selection };
        let filter = EntityFilter { stream: Arc::clone(log.stream()), id: id.clone(), selection };
        let mut collected = Collected::new(log.stream(), selection.limit);
        if last == 0 || selection.from_sequence > selection.to_sequence {
            return Ok(collected.finish()?);
        }
        // The progress first: a snapshot then has every event before it, and perhaps later ones, which the log gives.
        let archived = self.archived(stream, partition).await?;
        let in_log = {
            let (log, filter) = (Arc::clone(log), filter.clone());
            tokio::task::spawn_blocking(move || recent(&log, partition, archived, &filter)).await??
        };
        let first_in_log = in_log.first_sequence();
        collected.absorb(in_log)?;
        // Sequences are dense: if the log has the first one, the archive has nothing to add.
        if first_in_log.is_none_or(|first| first > selection.from_sequence) {
            let table = self.table(stream).await?;
            let (snapshot, _lease) = table.held_snapshot().await?;
            let files = snapshot.files.iter().filter(|file| is_of(file, partition, archived)).cloned().collect();
            archived::read(&table, files, &filter, archived, &mut collected).await?;
        }
        Ok(collected.finish()?)
    }
}

/// The matching events of the log from `from` on.
fn recent(log: &StreamLog, partition: Partition, from: Offset, filter: &EntityFilter) -> Result<Collected, ReadError> {
    let mut collected = Collected::new(log.stream(), filter.selection.limit);
    let Some(partition_log) = log.partition(partition) else { return Ok(collected) };
    let (_, head) = partition_log.range();
    let entity = log.stream().entity.unwrap_or_default();
    let mut failed = Ok(());
    partition_log.replay_where(from, head, entity, &|column| filter.id.matches(column), &mut |batch| {
        if failed.is_ok() {
            failed = matching_rows(filter, batch).and_then(|rows| collected.add(rows));
        }
    })?;
    failed?;
    Ok(collected)
}

/// Whether a file can have events of `partition` before `end`.
fn is_of(file: &DataFile, partition: Partition, end: Offset) -> bool {
    ArchiveTags::from_tags(&file.tags).is_ok_and(|tags| tags.partition == partition && tags.from < end)
}

impl EntityReader for EntityLog {
    fn stream(&self, name: &str) -> Option<Arc<Stream>> {
        Some(Arc::clone(self.intake.stream(&name.parse().ok()?)?.stream()))
    }

    fn last_sequence(&self, stream: &StreamName, id: &EntityId) -> u64 {
        let entity = hash_entity(id);
        let place = self.place(stream, entity);
        let table = place.and_then(|(log, partition)| log.partition(partition)?.entities());
        table.map_or(0, |table| table.last(entity))
    }

    fn beyond<'a>(&'a self, stream: &'a StreamName, id: &'a EntityId, after: u64) -> BoxFuture<'a, Option<u64>> {
        let entity = hash_entity(id);
        async move {
            let (log, partition) = self.place(stream, entity)?;
            let partition = log.partition(partition)?;
            let is_erased = || partition.tombstones().contains(entity);
            partition.entities()?.beyond(entity, after, is_erased).await
        }
        .boxed()
    }

    fn erased_at(&self, stream: &StreamName, id: &EntityId) -> Option<Micros> {
        let entity = hash_entity(id);
        let (log, partition) = self.place(stream, entity)?;
        log.partition(partition)?.tombstones().get(entity).map(|tombstone| tombstone.erased_at)
    }

    fn erased_ids(&self, stream: &StreamName) -> Vec<EntityId> {
        let log = self.intake.stream(stream);
        log.map_or_else(Vec::new, |log| erasure::shown(log))
    }

    fn events<'a>(
        &'a self,
        stream: &'a StreamName,
        id: &'a EntityId,
        selection: EventSelection,
    ) -> BoxFuture<'a, Result<EntityEvents, HandoffError>> {
        async move {
            let mut tries = 0;
            loop {
                tries += 1;
                match self.read(stream, id, selection).await {
                    // The archiver has committed since its progress was read, and the log was trimmed.
                    Err(ReadError::Log(LogError::BeforeStart { .. })) if tries < TRIES => {}
                    read => return read.map_err(|error| HandoffError(error.to_string())),
                }
            }
        }
        .boxed()
    }
}

/// Why events of an entity could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error("cannot read the file {path} of the archive: {reason}")]
    File { path: String, reason: String },
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("reading failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    #[error("{0}")]
    Other(String),
}
