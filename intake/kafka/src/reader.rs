//! Defines what Trueup needs of a client library: assigned partitions, batches of records, watermarks and committed offsets.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::TopicError;

/// A record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRecord {
    pub partition: u32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    /// `None` for a tombstone.
    pub value: Option<Bytes>,
    /// In their order; names may repeat.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl TopicRecord {
    /// Bytes of key, value and headers.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.key) + length(&self.value) + headers
    }
}

/// A topic as its brokers describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// The id that the topic got when it was created; `None` if the brokers are too old to say.
    pub id: Option<String>,
    pub partitions: u32,
}

/// The range of offsets that a partition has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The oldest record.
    pub low: i64,
    /// After the newest record that may be read.
    pub high: i64,
}

/// How far a partition was read, as of the last response of its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionProgress {
    pub partition: u32,
    /// The next offset to be handed out; behind a hole, the offset after it.
    pub position: i64,
    /// After the newest record that may be read; `None` before the first response.
    pub end: Option<i64>,
}

/// Reads one topic, committed records only. All calls may be dropped at any time.
#[async_trait]
pub trait TopicReader: Send + Sync {
    /// Describes the topic, as of now.
    async fn describe(&self) -> Result<TopicDescription, TopicError>;

    /// The range of offsets of a partition, as of now.
    async fn watermarks(&self, partition: u32) -> Result<Watermarks, TopicError>;

    /// The offset of the first record whose timestamp is not before `timestamp_ms`; `None` if there is none.
    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<Option<i64>, TopicError>;

    /// Reads these partitions, each from its offset on, and no others.
    async fn assign(&self, positions: &[(u32, i64)]) -> Result<(), TopicError>;

    /// Returns the next records, in order within each partition; none if none came within `wait`.
    async fn poll(&self, wait: Duration) -> Result<Vec<TopicRecord>, TopicError>;

    /// How far the assigned partitions were read. Sends no request.
    async fn progress(&self) -> Vec<PartitionProgress>;

    /// Reports the next offset of partitions to the group, for tools that watch its lag.
    async fn commit(&self, group: &str, offsets: &[(u32, i64)]) -> Result<(), TopicError>;

    /// The offsets that the group has reported.
    async fn committed(&self, group: &str) -> Result<Vec<(u32, i64)>, TopicError>;

    /// Ends the connections.
    async fn close(&self);
}
