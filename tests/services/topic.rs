//! Writes topics, and runs servers whose streams read them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use krafka::admin::{
    CreatePartitionsOptions, CreateTopicsOptions, DeleteRecordsOptions, DeleteTopicsOptions, NewTopic,
};
use krafka::consumer::{IsolationLevel, TopicPartition};
use krafka::producer::{Producer, RecordMetadata, TransactionalProducer};
use krafka::{Kafka, Record};
use serde_json::Value;
use tokio::runtime::Runtime;
use world::World;

use crate::broker::Broker;

static TOPICS: AtomicU32 = AtomicU32::new(0);

/// A topic of its own, and a client that writes it.
pub struct Topic {
    pub name: String,
    address: String,
    runtime: Runtime,
    kafka: Kafka,
    producer: Producer,
    /// The offset after the last acknowledged record, by partition.
    ends: Mutex<BTreeMap<i32, i64>>,
}

impl Topic {
    /// Creates a topic. A broker that has just started may need a moment.
    pub fn create(broker: &Broker, partitions: i32) -> Topic {
        Topic::create_with(broker, partitions, &[])
    }

    pub fn create_with(broker: &Broker, partitions: i32, configuration: &[(&str, &str)]) -> Topic {
        Topic::at(&broker.address(), partitions, configuration)
    }

    fn at(address: &str, partitions: i32, configuration: &[(&str, &str)]) -> Topic {
        let name = format!("topic.{}-{}", std::process::id(), TOPICS.fetch_add(1, Ordering::Relaxed));
        Topic::named(name, address, partitions, configuration)
    }

    /// Creates the topic again after it was deleted.
    pub fn create_again(&self, partitions: i32) -> Topic {
        Topic::named(self.name.clone(), &self.address, partitions, &[])
    }

    /// A topic that another process has created.
    pub fn existing(broker: &Broker, name: &str) -> Topic {
        Topic::connect(name.to_owned(), &broker.address())
    }

    fn connect(name: String, address: &str) -> Topic {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (kafka, producer) = runtime.block_on(async {
            let kafka = Kafka::builder(address).connect().await.expect("the broker answers");
            let producer = kafka.producer().linger(Duration::from_millis(1)).build().await.expect("a producer");
            (kafka, producer)
        });
        Topic { name, address: address.to_owned(), runtime, kafka, producer, ends: Mutex::default() }
    }

    fn named(name: String, address: &str, partitions: i32, configuration: &[(&str, &str)]) -> Topic {
        let topic = Topic::connect(name, address);
        topic.runtime.block_on(async {
            let mut new = NewTopic::new(topic.name.as_str(), partitions, 1).expect("a topic");
            for (key, value) in configuration {
                new = new.with_config(*key, *value);
            }
            let created = topic.kafka.admin().create_topics([new], CreateTopicsOptions::default()).await;
            created.expect("an answer").into_values().for_each(|result| result.expect("created"));
            // A server that does not see the topic yet would start again, on another port, when it does.
            let is_there = |known: usize| known == partitions as usize;
            while !topic.producer.partitions_for(&topic.name).await.is_ok_and(|known| is_there(known.len())) {
                topic.kafka.rebootstrap().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        topic
    }

    /// Another topic of the same broker.
    pub fn beside(&self, partitions: i32) -> Topic {
        Topic::at(&self.address, partitions, &[])
    }

    /// The options of a stream that reads it through the connection `main`.
    pub fn options(&self) -> String {
        format!("source = 'kafka', connection = 'main', topic = '{}'", self.name)
    }

    /// A record of this topic.
    pub fn record(&self, partition: i32, value: impl Into<Vec<u8>>) -> Record {
        Record::new(self.name.as_str(), value.into()).partition(partition)
    }

    /// Writes records and waits until all are acknowledged.
    pub fn write(&self, records: impl IntoIterator<Item = Record>) {
        self.runtime.block_on(async {
            let mut handles = Vec::new();
            for record in records {
                handles.push(self.producer.enqueue(record).await.expect("queued"));
            }
            for handle in handles {
                self.acknowledged(&handle.await.expect("acknowledged"));
            }
        });
    }

    /// Writes records in one transaction, which is committed or aborted.
    pub fn transact(&self, id: &str, records: impl IntoIterator<Item = Record>, commit: bool) {
        self.runtime.block_on(async {
            let producer = self.transactional(id).await;
            for record in records {
                self.acknowledged(&producer.send(record).await.expect("sent"));
            }
            match commit {
                true => producer.commit().await.expect("commits"),
                false => producer.abort().await.expect("aborts"),
            }
            producer.close().await.expect("closes");
        });
    }

    /// Runs `during` while a transaction that has written `record`, to any topic, is in progress, and then aborts it.
    pub fn while_in_transaction<T>(&self, id: &str, record: Record, during: impl FnOnce() -> T) -> T {
        let producer = self.runtime.block_on(async {
            let producer = self.transactional(id).await;
            let _ = producer.send(record).await.expect("sent");
            producer
        });
        let result = during();
        self.runtime.block_on(async {
            producer.abort().await.expect("aborts");
            producer.close().await.expect("closes");
        });
        result
    }

    /// Returns a producer that has started a transaction.
    async fn transactional(&self, id: &str) -> TransactionalProducer {
        let producer = self
            .kafka
            .producer()
            .transaction_timeout(Duration::from_secs(60))
            .delivery_timeout(Duration::from_secs(45))
            .build_transactional(id)
            .await
            .expect("a producer");
        producer.begin().expect("begins");
        producer
    }

    fn acknowledged(&self, record: &RecordMetadata) {
        let mut ends = self.ends.lock().expect("no panic");
        let end = ends.entry(record.partition).or_default();
        *end = (*end).max(record.offset + 1);
    }

    pub fn grow(&self, partitions: i32) {
        self.runtime.block_on(async {
            let totals = [(self.name.as_str(), partitions)];
            let grown = self.kafka.admin().create_partitions(totals, CreatePartitionsOptions::default()).await;
            grown.expect("an answer").into_values().for_each(|result| result.expect("grown"));
            // The producer learns about them when it writes to one.
            while self.producer.partitions_for(&self.name).await.is_ok_and(|known| known.len() < partitions as usize) {
                self.kafka.rebootstrap().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }

    /// Deletes the records of a partition before `offset`.
    pub fn delete_before(&self, partition: i32, offset: i64) {
        let before = [(TopicPartition::new(self.name.as_str(), partition), offset)];
        let deleted = self.runtime.block_on(self.kafka.admin().delete_records(before, DeleteRecordsOptions::default()));
        deleted.expect("an answer").into_values().for_each(|result| {
            result.expect("deleted");
        });
    }

    pub fn delete(&self) {
        let deleted =
            self.runtime.block_on(self.kafka.admin().delete_topics([&self.name], DeleteTopicsOptions::default()));
        deleted.expect("an answer").into_values().for_each(|result| result.expect("deleted"));
    }

    /// The offsets that a group has reported, by partition.
    pub fn committed(&self, group: &str) -> Vec<(i32, Option<i64>)> {
        let listed = self.runtime.block_on(self.kafka.admin().list_consumer_group_offsets(group, Default::default()));
        let offsets = listed.expect("an answer").into_iter().filter(|(partition, _)| partition.topic == self.name);
        let mut offsets: Vec<_> = offsets.map(|(p, o)| (p.partition, o.expect("an offset").offset)).collect();
        offsets.sort_unstable();
        offsets
    }

    /// The settings file of a server that reads the topic.
    pub fn settings(&self) -> String {
        format!("[connections.main]\nkind = \"kafka\"\nbrokers = [\"{}\"]\n", self.address)
    }

    /// A server for `definitions`, with the connection `main`.
    pub fn world(&self, definitions: &str) -> World {
        let mut world = World::stopped(definitions);
        world.set_settings(&self.settings());
        world.start();
        world
    }
}

/// A committed record.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadRecord {
    pub partition: i32,
    pub key: String,
    /// `None`: a tombstone.
    pub value: Option<Value>,
    pub headers: BTreeMap<String, String>,
}

/// A committed record as the topic has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRecord {
    pub partition: i32,
    pub key: Option<bytes::Bytes>,
    /// `None`: a tombstone.
    pub value: Option<bytes::Bytes>,
    pub headers: BTreeMap<String, String>,
}

fn text(bytes: Option<&bytes::Bytes>) -> String {
    bytes.map_or_else(String::new, |bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8"))
}

impl Topic {
    /// Reads all committed records of JSON, in order within each partition. Waits for transactions in progress.
    pub fn read(&self) -> Vec<ReadRecord> {
        let record = |RawRecord { partition, key, value, headers }| {
            let value = value.map(|value| serde_json::from_slice(&value).expect("JSON"));
            ReadRecord { partition, key: text(key.as_ref()), value, headers }
        };
        self.read_raw().into_iter().map(record).collect()
    }

    /// Reads all committed records, in order within each partition. Waits for transactions in progress.
    pub fn read_raw(&self) -> Vec<RawRecord> {
        self.runtime.block_on(async {
            let partitions = self.producer.partitions_for(&self.name).await.expect("the topic").len() as i32;
            let consumer = self.kafka.consumer_without_group().isolation_level(IsolationLevel::ReadCommitted);
            let consumer = consumer.enable_auto_commit(false).metrics_push(false).build().await.expect("a consumer");
            consumer.assign(&self.name, (0..partitions).collect()).await.expect("assigned");
            // A broker acknowledges a commit before committed records are visible: the end has to be that of all records.
            let all = self.kafka.consumer_without_group().isolation_level(IsolationLevel::ReadUncommitted);
            let all = all.enable_auto_commit(false).metrics_push(false).build().await.expect("a consumer");
            let mut ends = BTreeMap::new();
            for partition in 0..partitions {
                let mut watermarks = all.fetch_watermarks(&self.name, partition).await;
                // After a restart of the broker, what the client knows of it is out of date.
                for _ in 0..50 {
                    if watermarks.is_ok() {
                        break;
                    }
                    self.kafka.rebootstrap().await;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    watermarks = all.fetch_watermarks(&self.name, partition).await;
                }
                let (low, high) = watermarks.expect("watermarks");
                consumer.seek(&self.name, partition, low).await.expect("sought");
                ends.insert(partition, high);
            }
            let mut read = Vec::new();
            let begin = Instant::now();
            loop {
                let lag = consumer.lag().await;
                let position =
                    |p: &i32| lag.iter().find(|(of, _)| of.partition == *p).and_then(|(_, lag)| lag.position);
                if ends.iter().all(|(p, end)| *end == 0 || position(p).is_some_and(|position| position >= *end)) {
                    break;
                }
                assert!(begin.elapsed() < Duration::from_secs(100), "the topic does not end");
                for record in consumer.poll(Duration::from_millis(50)).await.expect("records") {
                    let headers =
                        record.headers.into_iter().map(|(name, value)| (name, text(value.as_ref()))).collect();
                    let (partition, key, value) = (record.partition, record.key, record.value);
                    read.push(RawRecord { partition, key, value, headers });
                }
            }
            let _ = tokio::join!(consumer.close(), all.close());
            read
        })
    }

    /// The last value of each key that is not deleted.
    pub fn table(&self) -> BTreeMap<String, Value> {
        let mut table = BTreeMap::new();
        for record in self.read() {
            match record.value {
                Some(value) => table.insert(record.key, value),
                None => table.remove(&record.key),
            };
        }
        table
    }
}

/// The state of the source of a stream.
pub fn source(world: &World, stream: &str) -> Value {
    world.get(&format!("/v1/streams/{stream}")).json()["source"].clone()
}

/// Waits until this many records of the topic are read, which has no holes. The reader may not know of the last ones yet, so
/// its lag says nothing about them.
pub fn read_records(world: &World, stream: &str, records: usize) {
    world.wait_for("the records", |world| {
        let Some(answer) = world.try_get(&format!("/v1/streams/{stream}")) else { return false };
        let partitions = answer.json()["source"]["partitions"].as_array().cloned().unwrap_or_default();
        let read: u64 = partitions.iter().filter_map(|partition| partition["position"].as_u64()).sum();
        read == records as u64
    });
}

/// Waits until everything that was written to the topic here is read. A reader that is not connected may not know of the
/// last records yet, so its lag alone says nothing about them.
pub fn read_all(world: &World, stream: &str, topic: &Topic) {
    let ends = topic.ends.lock().expect("no panic").clone();
    world.wait_for("the end of the topic", |world| {
        let Some(answer) = world.try_get(&format!("/v1/streams/{stream}")) else { return false };
        let source = answer.json()["source"].clone();
        let known = |partition: i32| source["partitions"][partition as usize]["end"].as_i64().unwrap_or(0);
        source["lag"] == 0 && ends.iter().all(|(partition, end)| known(*partition) >= *end)
    });
}
