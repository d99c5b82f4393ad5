//! Defines what Trueup needs of a client library to write: transactions, and the newest committed record of a key.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::TopicError;

/// A record to write. Its partition follows from its key, if it has one, as in the clients of Kafka itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingRecord {
    pub topic: String,
    /// `None`: the record has no key, and may get into any partition.
    pub key: Option<Bytes>,
    /// `None`: a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<(&'static str, Bytes)>,
}

/// Why a topic cannot be written now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("another process writes with the transactional id \"{0}\"")]
    Fenced(String),
    #[error("not authorized to write: {0}; grant WRITE and DESCRIBE on the topic and on the transactional id")]
    NotAuthorized(String),
    /// The brokers may have committed. Only another commit can be next.
    #[error("the outcome of a commit is unknown: {0}; will retry")]
    CommitUnknown(String),
    /// Of a receiver that is not a broker: it may have a part of the records. Another writer has to be opened.
    #[error("the receiver did not accept the rows: {0}; will retry")]
    NotAccepted(String),
    /// The transaction is lost; another writer has to be opened.
    #[error("the brokers did not accept the transaction: {0}; will retry")]
    Aborted(String),
}

/// How far a topic is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadUntil {
    /// Up to the oldest transaction in progress: committed records after it are not returned.
    OpenTransaction,
    /// Up to the present end, after all transactions before it have ended.
    End,
}

/// Writes transactions under one transactional id. Opening another one with the same id fences it.
#[async_trait]
pub trait TopicWriter: Send + Sync {
    /// Begins a transaction and writes records in it. Returns when the brokers have all of them; no reader of committed records
    /// sees any before the commit.
    ///
    /// # Errors
    /// The transaction is lost: this writer can only be closed.
    async fn write(&self, records: Vec<OutgoingRecord>) -> Result<(), WriteError>;

    /// Commits the transaction.
    ///
    /// # Errors
    /// After [`WriteError::CommitUnknown`] call it again. After any other, the transaction is lost or another process decides
    /// about it: this writer can only be closed.
    async fn commit(&self) -> Result<(), WriteError>;

    /// Ends the connections. A transaction in progress is aborted, at the latest when another writer is opened.
    async fn close(&self);
}

/// A cluster that sinks write to.
#[async_trait]
pub trait TopicCluster: Send + Sync {
    /// Returns the number of partitions of a topic.
    ///
    /// # Errors
    /// [`TopicError::UnknownTopic`] among others.
    async fn partitions(&self, topic: &str) -> Result<u32, TopicError>;

    /// Creates a compacted topic with one partition, unless it exists.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    async fn create_compacted(&self, topic: &str) -> Result<(), TopicError>;

    /// Returns the value of the newest committed record with this key in partition 0 of a topic, which is read as
    /// far as `until` says.
    ///
    /// # Errors
    /// The topic cannot be read that far.
    async fn latest(&self, topic: &str, key: &[u8], until: ReadUntil) -> Result<Option<Bytes>, TopicError>;

    /// Opens a writer. Fences the one before it, and returns when the outcome of its last transaction is certain.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    async fn writer(&self, transactional_id: &str) -> Result<Box<dyn TopicWriter>, WriteError>;
}

/// Commits the transaction of a writer. While the outcome is unknown, it tries again after each `pause`.
///
/// # Errors
/// The transaction is lost: the writer can only be closed.
pub async fn commit_certainly(writer: &dyn TopicWriter, pause: Duration) -> Result<(), WriteError> {
    loop {
        match writer.commit().await {
            Err(WriteError::CommitUnknown(reason)) => {
                tracing::debug!(reason, "the outcome of a commit is unknown; will retry");
                tokio::time::sleep(pause).await;
            }
            outcome => return outcome,
        }
    }
}
