//! Implements [`TopicReader`] with krafka, a client in Rust.
//!
//! Partitions are assigned, never subscribed: no group decides what is read, and no rebalance happens. The consumer has no
//! policy for positions that the brokers do not have, so it reports them instead of jumping.

use std::time::Duration;

use async_trait::async_trait;
use krafka::admin::{
    AdminClient, AlterConsumerGroupOffsetsOptions, DescribeTopicsOptions, ListConsumerGroupOffsetsOptions,
};
use krafka::consumer::{AutoOffsetReset, Consumer, IsolationLevel, TopicPartition};
use krafka::error::ErrorCode;
use krafka::{Kafka, KrafkaError};

use crate::error::TopicError;
use crate::reader::{PartitionProgress, TopicDescription, TopicReader, TopicRecord, Watermarks};
use crate::security::security;
use crate::settings::ConnectionSettings;

/// Longest wait for a connection, and for the response to a request.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_secs(5);
pub(crate) const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// Records handed out at once.
const POLL_RECORDS_MAX: i32 = 20_000;
/// Records kept for the next polls. The client drops the rest of what a broker has sent, and asks for it again.
const BUFFERED_RECORDS_MAX: i32 = 3 * POLL_RECORDS_MAX;
/// Bytes that a broker sends at once, in all and per partition. A record that is longer comes all the same.
const FETCH_BYTES_MAX: i32 = 16 * 1024 * 1024;
const PARTITION_FETCH_BYTES_MAX: i32 = 4 * 1024 * 1024;
/// Longest wait of a broker for the first record.
const FETCH_WAIT: Duration = Duration::from_millis(250);
/// Age of the description of a topic after which it is asked for again.
const DESCRIPTION_AGE: Duration = Duration::from_secs(60);

/// A reader of one topic.
pub struct KrafkaReader {
    brokers: String,
    topic: String,
    consumer: Consumer,
    admin: AdminClient,
}

impl KrafkaReader {
    /// Connects to the brokers.
    ///
    /// # Errors
    /// [`TopicError::Settings`] for files that cannot be read, [`TopicError::Unreachable`] and [`TopicError::Login`].
    pub async fn connect(settings: &ConnectionSettings, topic: &str, client: &str) -> Result<KrafkaReader, TopicError> {
        let brokers = settings.bootstrap();
        let failed = |error: KrafkaError| of_krafka(error, &brokers, topic);
        let kafka = Kafka::builder(brokers.as_str())
            .client_id(client)
            .security(security(settings)?)
            .connect_timeout(CONNECT_WAIT)
            .request_timeout(REQUEST_WAIT)
            .metadata_max_age(DESCRIPTION_AGE)
            .connect()
            .await
            .map_err(failed)?;
        let consumer = kafka
            .consumer_without_group()
            .isolation_level(IsolationLevel::ReadCommitted)
            .auto_offset_reset(AutoOffsetReset::None)
            .enable_auto_commit(false)
            .metrics_push(false)
            .max_poll_records(POLL_RECORDS_MAX)
            .max_buffered_records(BUFFERED_RECORDS_MAX)
            .fetch_max_bytes(FETCH_BYTES_MAX)
            .max_partition_fetch_bytes(PARTITION_FETCH_BYTES_MAX)
            .fetch_max_wait(FETCH_WAIT)
            .build()
            .await
            .map_err(failed)?;
        let admin = kafka.admin();
        Ok(KrafkaReader { brokers, topic: topic.to_owned(), consumer, admin })
    }

    fn failed(&self, error: KrafkaError) -> TopicError {
        of_krafka(error, &self.brokers, &self.topic)
    }
}

#[async_trait]
impl TopicReader for KrafkaReader {
    async fn describe(&self) -> Result<TopicDescription, TopicError> {
        // The consumer answers from its cache; this asks a broker.
        let options = DescribeTopicsOptions::default().timeout(REQUEST_WAIT);
        let described = self.admin.describe_topics([&self.topic], options).await.map_err(|error| self.failed(error))?;
        let topic = described.into_values().next().ok_or_else(|| TopicError::UnknownTopic(self.topic.clone()))?;
        let topic = topic.map_err(|error| self.failed(error))?;
        let id = (topic.topic_id != [0; 16]).then(|| topic.topic_id.iter().map(|byte| format!("{byte:02x}")).collect());
        Ok(TopicDescription { id, partitions: topic.partitions.len() as u32 })
    }

    async fn watermarks(&self, partition: u32) -> Result<Watermarks, TopicError> {
        let watermarks = self.consumer.fetch_watermarks(&self.topic, partition as i32).await;
        let (low, high) = watermarks.map_err(|error| self.failed(error))?;
        Ok(Watermarks { low, high })
    }

    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<Option<i64>, TopicError> {
        let key = (self.topic.clone(), partition as i32);
        let mut found = self.consumer.offsets_for_times(&[(self.topic.as_str(), partition as i32)], timestamp_ms).await;
        match found.remove(&key) {
            Some(Ok(offset)) => Ok((offset >= 0).then_some(offset)),
            Some(Err(error)) => Err(self.failed(error)),
            None => Err(TopicError::Other(format!("no offset of partition {partition} for a time"))),
        }
    }

    async fn assign(&self, positions: &[(u32, i64)]) -> Result<(), TopicError> {
        let partitions = positions.iter().map(|(partition, _)| *partition as i32).collect();
        self.consumer.assign(&self.topic, partitions).await.map_err(|error| self.failed(error))?;
        let seeks = positions
            .iter()
            .map(|(partition, offset)| (TopicPartition::new(self.topic.as_str(), *partition as i32), *offset));
        self.consumer.seek_many(seeks).await.map_err(|error| self.failed(error))
    }

    async fn poll(&self, wait: Duration) -> Result<Vec<TopicRecord>, TopicError> {
        let records = self.consumer.poll(wait).await.map_err(|error| self.failed(error))?;
        let record = |record: krafka::ConsumerRecord| TopicRecord {
            partition: record.partition as u32,
            offset: record.offset,
            timestamp_ms: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        Ok(records.into_iter().map(record).collect())
    }

    async fn progress(&self) -> Vec<PartitionProgress> {
        let lag = self.consumer.lag().await;
        let progress = lag.into_iter().filter_map(|(partition, lag)| {
            let end = lag.last_stable_offset.filter(|end| *end >= 0).or(lag.high_watermark);
            Some(PartitionProgress { partition: partition.partition as u32, position: lag.position?, end })
        });
        progress.collect()
    }

    async fn commit(&self, group: &str, offsets: &[(u32, i64)]) -> Result<(), TopicError> {
        let offsets = offsets
            .iter()
            .map(|(partition, offset)| (TopicPartition::new(self.topic.as_str(), *partition as i32), *offset));
        let options = AlterConsumerGroupOffsetsOptions::default().timeout(REQUEST_WAIT);
        let altered = self.admin.alter_consumer_group_offsets(group, offsets, options).await;
        let altered = altered.map_err(|error| self.failed(error))?;
        altered.into_values().find_map(Result::err).map_or(Ok(()), |error| Err(self.failed(error)))
    }

    async fn committed(&self, group: &str) -> Result<Vec<(u32, i64)>, TopicError> {
        let options = ListConsumerGroupOffsetsOptions::default().timeout(REQUEST_WAIT);
        let listed = self.admin.list_consumer_group_offsets(group, options).await.map_err(|e| self.failed(e))?;
        let of_topic = listed.into_iter().filter(|(partition, _)| partition.topic == self.topic);
        let mut committed = Vec::new();
        for (partition, found) in of_topic {
            let offset = found.map_err(|error| self.failed(error))?.offset;
            committed.extend(offset.map(|offset| (partition.partition as u32, offset)));
        }
        Ok(committed)
    }

    async fn close(&self) {
        if let Err(error) = self.consumer.close().await {
            tracing::debug!(topic = %self.topic, %error, "the consumer was not closed cleanly");
        }
    }
}

/// The error in the words of Trueup.
pub(crate) fn of_krafka(error: KrafkaError, brokers: &str, topic: &str) -> TopicError {
    let (brokers, text) = (brokers.to_owned(), error.to_string());
    match error {
        KrafkaError::Network(_) | KrafkaError::Timeout { .. } | KrafkaError::Closed { .. } => {
            TopicError::Unreachable { brokers, reason: text }
        }
        KrafkaError::Auth { .. } => TopicError::Login { brokers, reason: text },
        KrafkaError::Config { message } => TopicError::Settings(message),
        KrafkaError::UnknownTopic { .. } => TopicError::UnknownTopic(topic.to_owned()),
        KrafkaError::NoOffset { partitions } => {
            TopicError::OutOfRange(partitions.into_iter().map(|(_, partition)| partition as u32).collect())
        }
        KrafkaError::Broker { code, .. } => match code {
            ErrorCode::UnknownTopicOrPartition => TopicError::UnknownTopic(topic.to_owned()),
            ErrorCode::TopicAuthorizationFailed | ErrorCode::GroupAuthorizationFailed => {
                TopicError::NotAuthorized { topic: topic.to_owned(), reason: text }
            }
            ErrorCode::SaslAuthenticationFailed => TopicError::Login { brokers, reason: text },
            _ => TopicError::Other(text),
        },
        _ => TopicError::Other(text),
    }
}
