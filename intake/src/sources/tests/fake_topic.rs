//! A topic in memory, with holes between its offsets and with faults.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use kafka::{PartitionProgress, TopicDescription, TopicError, TopicReader, TopicRecord, Watermarks};
use parking_lot::Mutex;
use shared::stream::{KafkaTopic, Stream};

use super::super::SourceError;
use super::super::opener::SourceOpener;

/// Records handed out at once, at most.
const POLL_MAX: usize = 7;

/// A topic whose readers share it.
#[derive(Clone)]
pub struct FakeTopic {
    state: Arc<Mutex<FakeState>>,
}

struct FakeState {
    id: u32,
    partitions: Vec<FakePartition>,
    /// Polls that fail before one succeeds.
    failing: u64,
    /// A partition whose broker hands out nothing.
    held: Option<u32>,
}

#[derive(Default, Clone)]
struct FakePartition {
    records: Vec<TopicRecord>,
    low: i64,
    end: i64,
}

/// A reader with the positions that it was assigned.
struct FakeReader {
    topic: FakeTopic,
    positions: Mutex<Vec<(u32, i64)>>,
}

/// The next number of a sequence.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

impl FakeTopic {
    pub fn empty(partitions: u32) -> Arc<FakeTopic> {
        let partitions = vec![FakePartition::default(); partitions as usize];
        Arc::new(FakeTopic { state: Arc::new(Mutex::new(FakeState { id: 1, partitions, failing: 0, held: None })) })
    }

    /// A topic with random records, some of them rejected, and holes.
    pub fn random(seed: u64, partitions: u32) -> Arc<FakeTopic> {
        let topic = FakeTopic::empty(partitions);
        topic.extend(seed + 1_000);
        topic
    }

    /// Adds random records to every partition.
    pub fn extend(&self, seed: u64) {
        let mut dice = seed;
        for partition in 0..self.partitions() {
            for _ in 0..random(&mut dice) % 60 {
                match random(&mut dice) % 10 {
                    // The marker of a transaction, or a record that compaction or an abort removed.
                    0..2 => self.state.lock().partitions[partition as usize].end += 1 + (random(&mut dice) % 3) as i64,
                    2 => self.append(partition, Some(b"{")),
                    _ => self.append(partition, Some(format!("{{\"v\":{}}}", random(&mut dice)).as_bytes())),
                }
            }
        }
    }

    pub fn append(&self, partition: u32, value: Option<&[u8]>) {
        let mut state = self.state.lock();
        let of = &mut state.partitions[partition as usize];
        let value = value.map(|value| value.to_vec().into());
        let record =
            TopicRecord { partition, offset: of.end, timestamp_ms: of.end, key: None, value, headers: Vec::new() };
        of.records.push(record);
        of.end += 1;
    }

    /// Adds an offset without a record, such as the marker of a transaction.
    pub fn append_hole(&self, partition: u32) {
        self.state.lock().partitions[partition as usize].end += 1;
    }

    /// Hands out no records of this partition, but says where it ends.
    pub fn hold(&self, partition: Option<u32>) {
        self.state.lock().held = partition;
    }

    pub fn add_partition(&self) {
        self.state.lock().partitions.push(FakePartition::default());
    }

    pub fn partitions(&self) -> u32 {
        self.state.lock().partitions.len() as u32
    }

    pub fn fail_polls(&self, polls: u64) {
        self.state.lock().failing = polls;
    }

    pub fn delete_before(&self, partition: usize, low: i64) {
        let of = &mut self.state.lock().partitions[partition];
        of.low = low;
        of.records.retain(|record| record.offset >= low);
    }

    pub fn truncate(&self, partition: usize, end: i64) {
        let of = &mut self.state.lock().partitions[partition];
        (of.low, of.end) = (0, end);
        of.records.retain(|record| record.offset < end);
    }

    /// Deletes the topic and creates another one of the same name.
    pub fn recreate(&self) {
        let mut state = self.state.lock();
        state.id += 1;
        state.partitions.iter_mut().for_each(|of| *of = FakePartition::default());
    }

    /// The naive fold: the offsets of the records that are events, by partition.
    pub fn events(&self) -> Vec<Vec<i64>> {
        let is_event = |record: &&TopicRecord| record.value.as_deref().is_some_and(|value| value.ends_with(b"}"));
        let offsets = |of: &FakePartition| of.records.iter().filter(is_event).map(|record| record.offset).collect();
        self.state.lock().partitions.iter().map(offsets).collect()
    }
}

impl SourceOpener for FakeTopic {
    fn open<'a>(
        &'a self,
        _: &'a Stream,
        _: &'a KafkaTopic,
    ) -> BoxFuture<'a, Result<Box<dyn TopicReader>, SourceError>> {
        let reader = FakeReader { topic: self.clone(), positions: Mutex::default() };
        async move { Ok(Box::new(reader) as Box<dyn TopicReader>) }.boxed()
    }
}

#[async_trait]
impl TopicReader for FakeReader {
    async fn describe(&self) -> Result<TopicDescription, TopicError> {
        let state = self.topic.state.lock();
        Ok(TopicDescription { id: Some(state.id.to_string()), partitions: state.partitions.len() as u32 })
    }

    async fn watermarks(&self, partition: u32) -> Result<Watermarks, TopicError> {
        let state = self.topic.state.lock();
        let FakePartition { low, end, .. } = &state.partitions[partition as usize];
        Ok(Watermarks { low: *low, high: *end })
    }

    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<Option<i64>, TopicError> {
        let state = self.topic.state.lock();
        let records = &state.partitions[partition as usize].records;
        Ok(records.iter().find(|record| record.timestamp_ms >= timestamp_ms).map(|record| record.offset))
    }

    async fn assign(&self, positions: &[(u32, i64)]) -> Result<(), TopicError> {
        *self.positions.lock() = positions.to_vec();
        Ok(())
    }

    async fn poll(&self, wait: Duration) -> Result<Vec<TopicRecord>, TopicError> {
        let polled = {
            let mut state = self.topic.state.lock();
            if state.failing > 0 {
                state.failing -= 1;
                return Err(TopicError::Other("a fault of the test".to_owned()));
            }
            let mut polled = Vec::new();
            for (partition, position) in self.positions.lock().iter_mut().filter(|(p, _)| state.held != Some(*p)) {
                let of = &state.partitions[*partition as usize];
                let next = of.records.iter().filter(|record| record.offset >= *position).take(POLL_MAX);
                let records: Vec<TopicRecord> = next.cloned().collect();
                *position = match records.last() {
                    Some(last) => last.offset + 1,
                    None => of.end,
                };
                polled.extend(records);
            }
            polled
        };
        if polled.is_empty() {
            tokio::time::sleep(wait.min(Duration::from_millis(2))).await;
        }
        Ok(polled)
    }

    async fn progress(&self) -> Vec<PartitionProgress> {
        let state = self.topic.state.lock();
        let of = |(partition, position): &(u32, i64)| {
            let end = Some(state.partitions[*partition as usize].end);
            PartitionProgress { partition: *partition, position: *position, end }
        };
        self.positions.lock().iter().map(of).collect()
    }

    async fn commit(&self, _: &str, _: &[(u32, i64)]) -> Result<(), TopicError> {
        Ok(())
    }

    async fn committed(&self, _: &str) -> Result<Vec<(u32, i64)>, TopicError> {
        Ok(Vec::new())
    }

    async fn close(&self) {}
}
