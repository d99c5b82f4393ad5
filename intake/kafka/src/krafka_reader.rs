//! Implements [`TopicReader`] with krafka, a client in Rust.
//!
//! Partitions are assigned, never subscribed: no group decides what is read, and no rebalance happens. A position that the
//! brokers do not have is an error: reading never jumps. [`record_fetch`](crate::record_fetch) fetches the records.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use krafka::__private::kafka_metadata;
use krafka::admin::{
    AdminClient, AlterConsumerGroupOffsetsOptions, DescribeTopicsOptions, ListConsumerGroupOffsetsOptions,
    ListOffsetsOptions, OffsetSpec,
};
use krafka::consumer::{Consumer, IsolationLevel, TopicPartition};
use krafka::error::ErrorCode;
use krafka::{Kafka, KrafkaError};

use crate::error::TopicError;
use crate::reader::{PartitionProgress, TopicDescription, TopicReader, TopicRecord, Watermarks};
use crate::record_fetch::{FetchError, RecordFetch};
use crate::security::security;
use crate::settings::ConnectionSettings;

/// Longest wait for a connection, and for the response to a request.
pub(crate) const CONNECT_WAIT: Duration = Duration::from_secs(5);
pub(crate) const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// Age of the description of a topic after which it is asked for again.
const DESCRIPTION_AGE: Duration = Duration::from_secs(60);

/// A reader of one topic.
pub struct KrafkaReader {
    brokers: String,
    topic: String,
    /// Looks up offsets.
    consumer: Consumer,
    admin: AdminClient,
    fetch: RecordFetch,
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
            .enable_auto_commit(false)
            .metrics_push(false)
            .build()
            .await
            .map_err(failed)?;
        let fetch = RecordFetch::new(topic, Arc::clone(kafka_metadata(&kafka)));
        let admin = kafka.admin();
        Ok(KrafkaReader { brokers, topic: topic.to_owned(), consumer, admin, fetch })
    }

    /// Returns the offset after the newest record, whether or not its transaction has ended.
    pub(crate) async fn end(&self, partition: u32) -> Result<i64, TopicError> {
        let partition = TopicPartition::new(self.topic.as_str(), partition as i32);
        let options = ListOffsetsOptions::default().timeout(REQUEST_WAIT);
        let listed = self.admin.list_offsets([(partition, OffsetSpec::Latest)], options).await;
        let listed = listed.map_err(|error| self.failed(error))?.into_values().next();
        let unlisted =
            || TopicError::Other(format!("the brokers did not return the end of the topic \"{}\"", self.topic));
        Ok(listed.ok_or_else(unlisted)?.map_err(|error| self.failed(error))?.offset)
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
        self.fetch.assign(positions);
        Ok(())
    }

    async fn poll(&self, wait: Duration) -> Result<Vec<TopicRecord>, TopicError> {
        self.fetch.poll(wait).await.map_err(|error| match error {
            FetchError::OutOfRange(partition) => TopicError::OutOfRange(vec![partition]),
            FetchError::Client(error) => self.failed(error),
            FetchError::Batch(error) => TopicError::Other(error.to_string()),
        })
    }

    async fn progress(&self) -> Vec<PartitionProgress> {
        self.fetch.progress()
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
