//! Shows how far the reader of a topic or an outbox is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kafka::PartitionProgress;
use parking_lot::Mutex;
use shared::control::{SourcePartitionStatus, SourceState, SourceStatus};
use shared::ids::{Partition, StreamName};
use shared::stream::{EventSource, OutboxMode};

use crate::streams::{Backlog, StreamLog};

/// The states of all readers.
#[derive(Clone, Default)]
pub struct SourceStatuses(Arc<BTreeMap<StreamName, Arc<ReaderStatus>>>);

impl SourceStatuses {
    pub(super) fn new(statuses: BTreeMap<StreamName, Arc<ReaderStatus>>) -> SourceStatuses {
        SourceStatuses(Arc::new(statuses))
    }

    /// The state of the reader of `stream`, if it reads a topic or an outbox.
    pub fn status(&self, stream: &StreamName) -> Option<SourceStatus> {
        self.0.get(stream).map(|status| status.show())
    }
}

/// The state of one reader.
pub(super) struct ReaderStatus {
    log: Arc<StreamLog>,
    live: Mutex<LiveStatus>,
    missed: AtomicU64,
}

struct LiveStatus {
    state: SourceState,
    error: Option<String>,
    /// By partition: the end of the topic's, and the position of the client while nothing of it is in flight, which is ahead of
    /// the durable one by a hole.
    ends: BTreeMap<u32, (Option<i64>, Option<i64>)>,
    /// Bytes of the log that a database keeps for the reader.
    retained_bytes: Option<u64>,
}

impl ReaderStatus {
    pub fn new(log: Arc<StreamLog>) -> ReaderStatus {
        let ends = BTreeMap::new();
        let live = LiveStatus { state: SourceState::Connecting, error: None, ends, retained_bytes: None };
        ReaderStatus { log, live: Mutex::new(live), missed: AtomicU64::new(0) }
    }

    /// Notes the state, and the reason for it.
    pub fn set(&self, state: SourceState, error: Option<String>) {
        let mut live = self.live.lock();
        (live.state, live.error) = (state, error);
    }

    /// Notes offsets that the brokers deleted before they were read.
    pub fn count_missed(&self, offsets: u64) {
        self.missed.fetch_add(offsets, Ordering::Relaxed);
    }

    /// Notes how many bytes of its log a database keeps for the reader.
    pub fn retain(&self, bytes: u64) {
        self.live.lock().retained_bytes = Some(bytes);
    }

    /// Notes how far the client is. `in_flight` are the partitions of records that it has handed out and that are not durable.
    pub fn observe(&self, progress: &[PartitionProgress], in_flight: &BTreeSet<u32>) {
        let mut live = self.live.lock();
        for PartitionProgress { partition, position, end } in progress {
            let before = live.ends.get(partition).copied().unwrap_or_default();
            let position = if in_flight.contains(partition) { before.1 } else { Some(*position) };
            live.ends.insert(*partition, (end.or(before.0), position));
        }
    }

    /// The next offset to read of each partition that has one: behind the holes after the durable position.
    pub fn positions(&self) -> Vec<(u32, i64)> {
        let of = |status: &SourcePartitionStatus| Some((status.partition.0, status.position?));
        self.partitions().iter().filter_map(of).collect()
    }

    fn partitions(&self) -> Vec<SourcePartitionStatus> {
        let ends = self.live.lock().ends.clone();
        let partition = |partition: u32| {
            let (end, read) = ends.get(&partition).copied().unwrap_or_default();
            let durable = self.log.partition(Partition(partition)).and_then(|log| log.source());
            let position = durable.map(|durable| durable.next.max(read.unwrap_or(durable.next)));
            let lag = position.zip(end).map(|(position, end)| (end - position).max(0) as u64);
            SourcePartitionStatus { partition: Partition(partition), position, end, lag }
        };
        (0..self.log.stream().partitions).map(partition).collect()
    }

    fn show(&self) -> SourceStatus {
        let partitions = self.partitions();
        let (state, error, retained_bytes) = {
            let live = self.live.lock();
            (live.state, live.error.clone(), live.retained_bytes)
        };
        let (kind, connection, topic, group) = match &self.log.stream().source {
            EventSource::Http => ("http", String::new(), String::new(), String::new()),
            EventSource::Kafka(topic) => {
                ("kafka", topic.connection.to_string(), topic.topic.clone(), topic.group.clone())
            }
            EventSource::Postgres(outbox) => {
                let slot = if outbox.mode == OutboxMode::Polling { "" } else { &outbox.slot.slot };
                ("postgres", outbox.connection.to_string(), outbox.describe(), slot.to_owned())
            }
            EventSource::PostgresTable(table) => {
                ("postgres", table.connection.to_string(), table.describe(), table.slot.slot.clone())
            }
        };
        SourceStatus {
            kind: kind.to_owned(),
            connection,
            topic,
            group,
            state,
            error,
            retained_bytes,
            lag: partitions.iter().map(|partition| partition.lag).sum(),
            missed: self.missed.load(Ordering::Relaxed),
            partitions,
        }
    }
}

impl Backlog for ReaderStatus {
    fn waits(&self, partition: Partition) -> bool {
        let Some((end, read)) = self.live.lock().ends.get(&partition.0).copied() else { return false };
        // Before the first response of its broker, a partition may have any number of records.
        let Some(end) = end else { return true };
        let durable = self.log.partition(partition).and_then(|log| log.source());
        durable.is_none_or(|durable| durable.next.max(read.unwrap_or(durable.next)) < end)
    }
}
