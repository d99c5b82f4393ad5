//! Implements [`TopicWriter`] and [`TopicCluster`] with krafka.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use krafka::admin::{CreateTopicsOptions, DescribeTopicsOptions, NewTopic};
use krafka::error::ErrorCode;
use krafka::producer::{TransactionState, TransactionalProducer};
use krafka::{Compression, Kafka, KrafkaError, Record};

use crate::error::TopicError;
use crate::krafka_reader::{CONNECT_WAIT, KrafkaReader, REQUEST_WAIT, of_krafka};
use crate::reader::{TopicReader, Watermarks};
use crate::security::security;
use crate::settings::ConnectionSettings;
use crate::writer::{OutgoingRecord, ReadUntil, TopicCluster, TopicWriter, WriteError};

/// Time after which the brokers abort a transaction that is not finished.
const TRANSACTION_TIME: Duration = Duration::from_secs(60);
/// Longest wait for the acknowledgement of a record, with all retries.
const DELIVERY_WAIT: Duration = Duration::from_secs(30);
/// Longest wait of a call for the coordinator of transactions, with all retries.
const COORDINATOR_WAIT: Duration = Duration::from_secs(10);
/// Longest wait for the transactions of others while a topic is read to its end.
const END_WAIT: Duration = Duration::from_secs(75);
/// Pause between two looks at how far reading has come.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Segments of topics with markers are compacted once closed, so small ones keep reading them short.
const MARKER_SEGMENT_BYTES: &str = "16777216";

/// A cluster. Every call opens a connection of its own: sinks open writers rarely.
pub struct KafkaCluster {
    settings: ConnectionSettings,
    /// Names the client to the brokers.
    client: String,
}

impl KafkaCluster {
    /// Describes a cluster. Sends nothing.
    pub fn new(settings: ConnectionSettings, client: impl Into<String>) -> KafkaCluster {
        KafkaCluster { settings, client: client.into() }
    }

    async fn connect(&self) -> Result<Kafka, TopicError> {
        let brokers = self.settings.bootstrap();
        Kafka::builder(brokers.as_str())
            .client_id(&self.client)
            .security(security(&self.settings)?)
            .connect_timeout(CONNECT_WAIT)
            .request_timeout(REQUEST_WAIT)
            .connect()
            .await
            .map_err(|error| of_krafka(error, &brokers, ""))
    }
}

impl KafkaCluster {
    /// Creates a topic with the default settings of the cluster, unless it exists.
    ///
    /// # Errors
    /// The brokers cannot be reached, or refuse.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), TopicError> {
        self.create(topic, partitions, &[]).await
    }

    /// Creates a topic, unless it exists, with the default replication factor of the cluster.
    async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<(), TopicError> {
        let brokers = self.settings.bootstrap();
        let failed = |error: KrafkaError| of_krafka(error, &brokers, topic);
        let admin = self.connect().await?.admin();
        let new = NewTopic::new(topic, partitions, -1).map_err(failed)?;
        let new = settings.iter().fold(new, |new, (name, value)| new.with_config(*name, *value));
        let created = admin.create_topics([new], CreateTopicsOptions::default()).await.map_err(failed)?;
        match created.into_values().next() {
            Some(Err(KrafkaError::Broker { code: ErrorCode::TopicAlreadyExists, .. })) | Some(Ok(())) | None => Ok(()),
            Some(Err(error)) => Err(failed(error)),
        }
    }
}

#[async_trait]
impl TopicCluster for KafkaCluster {
    async fn partitions(&self, topic: &str) -> Result<u32, TopicError> {
        let brokers = self.settings.bootstrap();
        let failed = |error: KrafkaError| of_krafka(error, &brokers, topic);
        let admin = self.connect().await?.admin();
        let options = DescribeTopicsOptions::default().timeout(REQUEST_WAIT);
        let described = admin.describe_topics([topic], options).await.map_err(failed)?;
        let described = described.into_values().next().ok_or_else(|| TopicError::UnknownTopic(topic.to_owned()))?;
        Ok(described.map_err(failed)?.partitions.len() as u32)
    }

    async fn create_compacted(&self, topic: &str) -> Result<(), TopicError> {
        let settings = [("cleanup.policy", "compact"), ("segment.bytes", MARKER_SEGMENT_BYTES)];
        self.create(topic, 1, &settings).await
    }

    async fn latest(&self, topic: &str, key: &[u8], until: ReadUntil) -> Result<Option<Bytes>, TopicError> {
        let reader = KrafkaReader::connect(&self.settings, topic, &self.client).await?;
        let found = tokio::time::timeout(END_WAIT, newest(&reader, key, until)).await;
        reader.close().await;
        found.unwrap_or_else(|_| {
            Err(TopicError::Other(format!("the topic \"{topic}\" could not be read to its end: a transaction is open")))
        })
    }

    async fn writer(&self, transactional_id: &str) -> Result<Box<dyn TopicWriter>, WriteError> {
        let (brokers, id) = (self.settings.bootstrap(), transactional_id.to_owned());
        let producer = self
            .connect()
            .await?
            .producer()
            .compression(Compression::Lz4)
            .transaction_timeout(TRANSACTION_TIME)
            .delivery_timeout(DELIVERY_WAIT)
            .max_block(COORDINATOR_WAIT)
            .build_transactional(transactional_id)
            .await
            .map_err(|error| of_write(error, &brokers, &id))?;
        Ok(Box::new(KrafkaWriter { brokers, id, producer }))
    }
}

/// Reads partition 0, and returns the value of the last record with this key.
async fn newest(reader: &KrafkaReader, key: &[u8], until: ReadUntil) -> Result<Option<Bytes>, TopicError> {
    let Watermarks { low, high } = reader.watermarks(0).await?;
    let end = match until {
        ReadUntil::OpenTransaction => high,
        ReadUntil::End => reader.end(0).await?,
    };
    reader.assign(&[(0, low)]).await?;
    let mut newest = None;
    loop {
        let position = reader.progress().await.iter().find(|p| p.partition == 0).map(|p| p.position);
        if low >= end || position.is_some_and(|position| position >= end) {
            return Ok(newest);
        }
        let records = reader.poll(POLL_WAIT).await?;
        newest = records
            .into_iter()
            .filter(|r| r.key.as_deref() == Some(key))
            .map(|r| r.value)
            .next_back()
            .unwrap_or(newest);
    }
}

/// A transactional producer.
struct KrafkaWriter {
    brokers: String,
    id: String,
    producer: TransactionalProducer,
}

impl KrafkaWriter {
    fn failed(&self, error: KrafkaError) -> WriteError {
        of_write(error, &self.brokers, &self.id)
    }
}

#[async_trait]
impl TopicWriter for KrafkaWriter {
    async fn write(&self, records: Vec<OutgoingRecord>) -> Result<(), WriteError> {
        self.producer.begin().map_err(|error| self.failed(error))?;
        let mut deliveries = Vec::with_capacity(records.len());
        for OutgoingRecord { topic, key, value, headers } in records {
            let record = match (value, key) {
                (Some(value), Some(key)) => Record::new(topic, value).key(key),
                (Some(value), None) => Record::new(topic, value),
                (None, key) => Record::tombstone(topic, key.unwrap_or_default()),
            };
            let record = headers.into_iter().fold(record, |record, (name, value)| record.header(name, value));
            deliveries.push(self.producer.enqueue(record).await.map_err(|error| self.failed(error))?);
        }
        for delivery in deliveries {
            let _ = delivery.await.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    async fn commit(&self) -> Result<(), WriteError> {
        match self.producer.commit().await {
            Ok(()) => Ok(()),
            Err(error) if self.producer.state() == TransactionState::CommitUnknown => {
                Err(WriteError::CommitUnknown(error.to_string()))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    async fn close(&self) {
        if self.producer.state() == TransactionState::Open
            && let Err(error) = self.producer.abort().await
        {
            tracing::debug!(id = self.id, %error, "the transaction was not aborted; the next writer does it");
        }
        if let Err(error) = self.producer.close().await {
            tracing::debug!(id = self.id, %error, "the producer was not closed cleanly");
        }
    }
}

/// The error in the words of Trueup.
fn of_write(error: KrafkaError, brokers: &str, id: &str) -> WriteError {
    let text = error.to_string();
    match &error {
        KrafkaError::Fenced { .. } => WriteError::Fenced(id.to_owned()),
        KrafkaError::TransactionAbortable { .. } => WriteError::Aborted(text),
        KrafkaError::Broker { code, .. } => match code {
            ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced => {
                WriteError::Fenced(id.to_owned())
            }
            ErrorCode::TopicAuthorizationFailed
            | ErrorCode::TransactionalIdAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed => WriteError::NotAuthorized(text),
            _ => WriteError::Topic(of_krafka(error, brokers, "")),
        },
        KrafkaError::UnknownTopic { topic } => WriteError::Topic(TopicError::UnknownTopic(topic.clone())),
        KrafkaError::DeliveryTimeout { .. } => {
            WriteError::Topic(TopicError::Unreachable { brokers: brokers.to_owned(), reason: text })
        }
        _ => WriteError::Topic(of_krafka(error, brokers, "")),
    }
}
