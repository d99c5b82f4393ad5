//! Writes epochs to a topic exactly once, each in one transaction with its marker, and finds out after a failure which epoch
//! was the last.
//!
//! ```text
//! prepare N in the book (synced) → write records and marker N → commit
//! after a crash or an error: open a writer, which ends the transaction before it; read the marker M
//!     N ≤ M: N is in the topic, its changes count as written      N > M: N was aborted, its rows are visited again
//! ```
//!
//! Markers are records of a compacted topic, keyed by the transactional id. A marker also names the process that wrote it: one
//! that has lost its writer and finds the marker of another process stops, instead of fencing that one in turn.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka::{
    OutgoingRecord, ReadUntil, RegistryError, TopicCluster, TopicError, TopicWriter, WriteError, commit_certainly,
};
use serde::{Deserialize, Serialize};
use shared::ids::{Offset, Partition, SinkName};
use shared::sink::SinkTarget;
use uuid::Uuid;

use crate::avro::{AvroEncoder, EncodeError};
use crate::book::{EpochCut, EpochMarker, MarkerError, SinkBook};
use crate::differences::EpochBatch;
use crate::fail_points::SinkPoint;

/// The topic of markers.
pub const EPOCHS_TOPIC: &str = "trueup-sink-epochs";
/// How long a publisher waits.
#[derive(Debug, Clone, Copy)]
struct Pauses {
    /// After which the marker of a process that has taken over is there.
    take_over: Duration,
    /// Between two attempts of a commit whose outcome is unknown.
    commit: Duration,
}

const PAUSES: Pauses = Pauses { take_over: Duration::from_secs(1), commit: Duration::from_millis(500) };

/// The value of a marker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) epoch: u64,
    /// The id of the book that the epoch is in.
    pub(crate) book: String,
    /// The process that wrote it.
    writer: String,
    /// The process that writes from now on.
    process: String,
    position: BTreeMap<Partition, Offset>,
    version: Option<i64>,
}

/// The reason why an epoch was not written.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("another process has taken over the transactional id \"{0}\"; stop one of them, or set transactional_id")]
    TakenOver(String),
    #[error(transparent)]
    Marker(#[from] MarkerError),
    #[error("the marker of epochs in the topic {EPOCHS_TOPIC} cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("cannot write the state of the sink: {0}")]
    Book(#[from] io::Error),
    #[error("writing the state of the sink failed: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

impl From<TopicError> for PublishError {
    fn from(error: TopicError) -> PublishError {
        PublishError::Write(error.into())
    }
}

impl PublishError {
    /// Returns whether only an operator can help: no retry does.
    pub fn is_final(&self) -> bool {
        match self {
            PublishError::TakenOver(_) | PublishError::Marker(_) => true,
            PublishError::Encode(error) => !matches!(error, EncodeError::Registry(RegistryError::Unreachable { .. })),
            _ => false,
        }
    }
}

/// Writes the epochs of one sink.
pub struct Publisher {
    sink: SinkName,
    target: SinkTarget,
    book: Arc<SinkBook>,
    cluster: Arc<dyn TopicCluster>,
    /// Of a sink that writes Avro.
    avro: Option<AvroEncoder>,
    /// This process, in markers.
    process: String,
    writer: Option<Box<dyn TopicWriter>>,
    /// Whether the newest marker is of this process, unless another one has taken over.
    has_claimed: bool,
    pauses: Pauses,
}

impl Publisher {
    /// Returns a publisher that has not connected yet.
    pub fn new(
        (sink, target): (&SinkName, &SinkTarget),
        book: Arc<SinkBook>,
        cluster: Arc<dyn TopicCluster>,
    ) -> Publisher {
        Publisher {
            sink: sink.clone(),
            target: target.clone(),
            book,
            cluster,
            avro: None,
            process: Uuid::new_v4().simple().to_string(),
            writer: None,
            has_claimed: false,
            pauses: PAUSES,
        }
    }

    /// Encodes keys and values as Avro.
    pub fn with_avro(self, avro: Option<AvroEncoder>) -> Publisher {
        Publisher { avro, ..self }
    }

    /// Returns whether a writer is open.
    pub fn is_open(&self) -> bool {
        self.writer.is_some()
    }

    /// Lets this process fence another one: an operator has said that it is the one to write.
    pub fn take_over(&mut self) {
        self.has_claimed = false;
    }

    /// Opens a writer, and settles the epoch in doubt.
    ///
    /// # Errors
    /// The brokers cannot be reached or refuse, or their marker is not of this book.
    pub async fn open(&mut self) -> Result<(), PublishError> {
        if let Some(topic) = self.target.topic() {
            let _ = self.cluster.partitions(&topic.topic).await?;
        }
        self.cluster.create_compacted(EPOCHS_TOPIC).await?;
        if self.has_claimed {
            // The last writer failed, perhaps because another process has just fenced it.
            tokio::time::sleep(self.pauses.take_over).await;
        }
        // Before the writer is opened, which would fence the right one. Waiting for all transactions here could mean waiting for one of this
        // sink, which only the new writer ends; so only a marker that fails the check is read again.
        let mut marker = self.marker(ReadUntil::OpenTransaction).await?;
        if marker.as_ref().is_some_and(|marker| self.check(marker).is_err()) {
            marker = self.marker(ReadUntil::End).await?;
        }
        marker.as_ref().map_or(Ok(()), |marker| self.check(marker))?;
        let writer = self.cluster.writer(self.writer_id()).await?;
        // To the end: if the marker were missed, its epoch would count as aborted, and its rows would be written twice.
        let marker = self.marker(ReadUntil::End).await?;
        marker.as_ref().map_or(Ok(()), |marker| self.check(marker))?;
        let book = Arc::clone(&self.book);
        let of_epoch = marker.as_ref().map_or_else(|| self.process.clone(), |marker| marker.writer.clone());
        let settled = move || {
            let marker = marker.as_ref();
            book.settle(marker.map(|marker| EpochMarker {
                book: &marker.book,
                epoch: marker.epoch,
                writer: &marker.writer,
            }))
        };
        tokio::task::spawn_blocking(settled).await???;
        self.writer = Some(writer);
        let (epoch, cut) = self.book.committed();
        // Says that this process writes from now on.
        let marker = self.marker_record(epoch, of_epoch, &cut);
        self.transact(vec![marker]).await?;
        self.has_claimed = true;
        Ok(())
    }

    /// Writes a batch as the next epoch. A batch that changes nothing is not one; of a sink of a stream, its position counts.
    ///
    /// # Errors
    /// Whether the epoch is in the topic may be unknown; [`Publisher::open`] finds out.
    pub async fn publish(&mut self, batch: EpochBatch) -> Result<(), PublishError> {
        let EpochBatch { mut records, avro, changes, cut, restarts, .. } = batch;
        if let Some(restarts) = restarts.filter(|_| records.is_empty()) {
            let book = Arc::clone(&self.book);
            return Ok(tokio::task::spawn_blocking(move || book.advance_events(cut, restarts)).await??);
        }
        if restarts.is_none() && changes.is_empty() && cut.version == self.book.committed().1.version {
            self.book.advance(cut);
            return Ok(());
        }
        if let Some((encoder, rows)) = self.avro.as_mut().zip(avro) {
            encoder.encode(&rows, &mut records).await?;
        }
        let (book, process, of_epoch) = (Arc::clone(&self.book), self.process.clone(), cut.clone());
        let prepare = move || match restarts {
            None => book.prepare(&process, of_epoch, changes).map(Some),
            Some(restarts) => book.prepare_events(&process, of_epoch, restarts),
        };
        // An operator has asked for other events meanwhile.
        let Some(epoch) = tokio::task::spawn_blocking(prepare).await?? else { return Ok(()) };
        SinkPoint::Prepared.reach();
        records.push(self.marker_record(epoch, self.process.clone(), &cut));
        self.transact(records).await?;
        SinkPoint::Committed.reach();
        let book = Arc::clone(&self.book);
        if let Err(error) = tokio::task::spawn_blocking(move || book.commit()).await? {
            tracing::warn!(sink = %self.sink, %error, "the state of the sink was not rewritten; will retry");
        }
        Ok(())
    }

    /// Ends the connections.
    pub async fn close(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.close().await;
        }
    }

    async fn transact(&mut self, records: Vec<OutgoingRecord>) -> Result<(), PublishError> {
        let Some(writer) = &self.writer else {
            return Err(WriteError::Aborted("the writer is closed".to_owned()).into());
        };
        let outcome = async {
            writer.write(records).await?;
            SinkPoint::Written.reach();
            commit_certainly(writer.as_ref(), self.pauses.commit).await
        };
        if let Err(error) = outcome.await {
            self.close().await;
            return Err(error.into());
        }
        Ok(())
    }

    fn writer_id(&self) -> &str {
        self.target.writer_id(&self.sink)
    }

    /// Fails if the newest marker is from another process that has written since this one did, or from another data folder.
    fn check(&self, newest: &Marker) -> Result<(), PublishError> {
        if self.has_claimed && newest.process != self.process {
            return Err(PublishError::TakenOver(self.writer_id().to_owned()));
        }
        if newest.book != self.book.id() && !self.book.adopts() {
            return Err(MarkerError::Foreign.into());
        }
        Ok(())
    }

    async fn marker(&self, until: ReadUntil) -> Result<Option<Marker>, PublishError> {
        let value = self.cluster.latest(EPOCHS_TOPIC, self.writer_id().as_bytes(), until).await?;
        let read = |value: Bytes| serde_json::from_slice(&value);
        value.map(read).transpose().map_err(|error| PublishError::Unreadable(error.to_string()))
    }

    fn marker_record(&self, epoch: u64, writer: String, cut: &EpochCut) -> OutgoingRecord {
        let marker = Marker {
            epoch,
            book: self.book.id(),
            writer,
            process: self.process.clone(),
            position: cut.position.clone(),
            version: cut.version,
        };
        OutgoingRecord {
            topic: EPOCHS_TOPIC.to_owned(),
            key: Some(Bytes::copy_from_slice(self.writer_id().as_bytes())),
            value: Some(serde_json::to_vec(&marker).expect("a marker is plain data").into()),
            headers: Vec::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
