//! Fetches the records of the assigned partitions with requests over krafka's connections, and unpacks them batch by batch.
//!
//! krafka's consumer moves each record several times on its way to the caller; this module moves it once, out of its batch.
//! Connections, logins, metadata and the formats of requests and batches are krafka's. This module does not look up offsets:
//! it sends only fetch requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use krafka::__private::metadata::ClusterMetadata;
use krafka::__private::network::BrokerConnection;
use krafka::__private::protocol::{
    ApiKey, FetchPartitionRequest, FetchPartitionResponse, FetchRequest, FetchResponse, FetchTopicRequest,
    VersionedDecode, VersionedEncode,
};
use krafka::KrafkaError;
use krafka::error::ErrorCode;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::reader::{PartitionProgress, TopicRecord};
use crate::record_batches::{BatchError, FetchedBatches};

/// Most records returned at once, unless a single batch has more: as many as Trueup decodes together.
const POLL_RECORDS_MAX: usize = 20_000;
/// Bytes of records after which a poll unpacks no further batch: a compressed batch may hold many times its own size. With one
/// more batch of the largest size that brokers accept by default, Trueup still decodes them together.
const POLL_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Bytes that a broker sends at once, in total and per partition. A longer record is sent all the same.
const FETCH_BYTES_MAX: i32 = 16 * 1024 * 1024;
const PARTITION_FETCH_BYTES_MAX: i32 = 4 * 1024 * 1024;
/// Longest wait of a broker for the first record.
const FETCH_WAIT: Duration = Duration::from_millis(250);
/// Pause of a partition after a failed fetch.
const PAUSE: Duration = Duration::from_millis(100);
/// Versions of the fetch request: the newest that identifies topics by name, and the oldest that supports transactions.
const VERSION_MAX: i16 = 12;
const VERSION_MIN: i16 = 4;
/// Only records of committed transactions.
const READ_COMMITTED: i8 = 1;

/// An error that fetching cannot resolve by itself.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The broker does not have the position of a partition.
    OutOfRange(u32),
    Client(KrafkaError),
    Batch(BatchError),
}

/// Fetches records of one topic.
pub(crate) struct RecordFetch {
    topic: String,
    metadata: Arc<ClusterMetadata>,
    partitions: Mutex<BTreeMap<u32, Fetched>>,
}

/// The position and the fetched batches of a partition.
#[derive(Debug)]
struct Fetched {
    /// The next offset to be returned.
    next: i64,
    /// Leader epoch of the batch before `next`; -1 if it is unknown.
    epoch: i32,
    /// The offset after the newest record that may be read; `None` before the first response.
    end: Option<i64>,
    /// The batches of the last response from `next` on.
    batches: FetchedBatches,
    /// When to fetch again after a failure.
    paused_until: Option<Instant>,
}

/// One fetch request to a broker.
struct BrokerFetch {
    connection: Arc<BrokerConnection>,
    partitions: Vec<FetchPartitionRequest>,
}

impl RecordFetch {
    pub fn new(topic: &str, metadata: Arc<ClusterMetadata>) -> RecordFetch {
        RecordFetch { topic: topic.to_owned(), metadata, partitions: Mutex::default() }
    }

    /// Assigns these partitions: from now on their records are returned, each partition from its offset.
    pub fn assign(&self, positions: &[(u32, i64)]) {
        let fetched =
            |next| Fetched { next, epoch: -1, end: None, batches: FetchedBatches::default(), paused_until: None };
        *self.partitions.lock() = positions.iter().map(|(partition, next)| (*partition, fetched(*next))).collect();
    }

    /// Returns how far each partition was read.
    pub fn progress(&self) -> Vec<PartitionProgress> {
        let of = |(partition, fetched): (&u32, &Fetched)| {
            Some(PartitionProgress { partition: *partition, position: fetched.next, end: Some(fetched.end?) })
        };
        self.partitions.lock().iter().filter_map(of).collect()
    }

    /// Returns the next records of one partition, in order; none if none arrived within `wait`. Positions move only when it
    /// returns, so a dropped call loses nothing.
    pub async fn poll(&self, wait: Duration) -> Result<Vec<TopicRecord>, FetchError> {
        let until = Instant::now() + wait;
        loop {
            let records = self.unpack()?;
            if !records.is_empty() {
                return Ok(records);
            }
            let left = until.saturating_duration_since(Instant::now());
            let wait = FETCH_WAIT.min(left);
            let fetches = self.fetches().await;
            if fetches.is_empty() {
                // All partitions are paused.
                sleep(PAUSE.min(left)).await;
            }
            let responses = join_all(fetches.iter().map(|fetch| self.fetch(fetch, wait))).await;
            let mut stale = false;
            for (fetch, response) in fetches.iter().zip(responses) {
                stale |= self.take(fetch, response)?;
            }
            if stale && let Err(error) = self.metadata.force_refresh(Some(&[&self.topic])).await {
                tracing::debug!(topic = %self.topic, %error, "cannot ask for the leaders of the topic; will retry");
            }
            if left.is_zero() {
                return self.unpack();
            }
        }
    }

    /// Unpacks fetched batches of one partition, as long as their records stay within the limits.
    fn unpack(&self) -> Result<Vec<TopicRecord>, FetchError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut partitions = self.partitions.lock();
        for (partition, fetched) in partitions.iter_mut() {
            while records.is_empty()
                || (bytes < POLL_BYTES_MAX && records.len() + fetched.batches.upcoming() <= POLL_RECORDS_MAX)
            {
                let before = records.len();
                match fetched.batches.unpack(*partition, fetched.next, &mut records) {
                    Ok(None) => break,
                    Ok(Some(batch)) => {
                        (fetched.next, fetched.epoch) = (fetched.next.max(batch.end), batch.epoch);
                        bytes += records[before..].iter().map(TopicRecord::bytes).sum::<usize>();
                    }
                    // The next call returns this error.
                    Err(_) if !records.is_empty() => break,
                    Err(error) => return Err(FetchError::Batch(error)),
                }
            }
            if !records.is_empty() {
                break;
            }
        }
        Ok(records)
    }

    /// Plans a request to each broker that leads a partition without fetched batches.
    async fn fetches(&self) -> Vec<BrokerFetch> {
        let now = Instant::now();
        let wanted: Vec<FetchPartitionRequest> = {
            let partitions = self.partitions.lock();
            let is_wanted =
                |fetched: &Fetched| fetched.batches.is_empty() && fetched.paused_until.is_none_or(|until| until <= now);
            let request = |(partition, fetched): (&u32, &Fetched)| {
                let mut request = FetchPartitionRequest::default();
                request.partition = *partition as i32;
                request.fetch_offset = fetched.next;
                request.last_fetched_epoch = fetched.epoch;
                request.partition_max_bytes = PARTITION_FETCH_BYTES_MAX;
                request
            };
            partitions.iter().filter(|(_, fetched)| is_wanted(fetched)).map(request).collect()
        };
        let mut fetches: Vec<BrokerFetch> = Vec::new();
        for mut request in wanted {
            let partition = request.partition;
            match self.metadata.get_leader_connection(&self.topic, partition).await {
                Ok(connection) => {
                    request.current_leader_epoch = self.metadata.leader_epoch(&self.topic, partition).unwrap_or(-1);
                    match fetches.iter_mut().find(|fetch| Arc::ptr_eq(&fetch.connection, &connection)) {
                        Some(fetch) => fetch.partitions.push(request),
                        None => fetches.push(BrokerFetch { connection, partitions: vec![request] }),
                    }
                }
                Err(error) => {
                    tracing::warn!(topic = %self.topic, partition, %error, "no connection to the leader; will retry");
                    self.pause(partition as u32);
                }
            }
        }
        fetches
    }

    async fn fetch(&self, fetch: &BrokerFetch, wait: Duration) -> Result<FetchResponse, KrafkaError> {
        let connection = &fetch.connection;
        let version = connection.negotiate_api_version(ApiKey::Fetch, VERSION_MAX, VERSION_MIN);
        let unsupported =
            || KrafkaError::broker(ErrorCode::UnsupportedVersion, "the broker has no version of fetch requests");
        let version = version.ok_or_else(unsupported)?;
        let mut topic = FetchTopicRequest::default();
        topic.topic.clone_from(&self.topic);
        topic.partitions.clone_from(&fetch.partitions);
        let mut request = FetchRequest::default();
        request.max_wait_ms = wait.as_millis() as i32;
        request.min_bytes = 1;
        request.max_bytes = FETCH_BYTES_MAX;
        request.isolation_level = READ_COMMITTED;
        request.topics = vec![topic];
        let encode = |buffer: &mut _| request.encode_versioned(version, buffer);
        let mut response: Bytes = connection.send_request(ApiKey::Fetch, version, encode).await?;
        let response = FetchResponse::decode_versioned(version, &mut response)?;
        connection.notify_throttle(response.throttle_time_ms);
        if response.error_code.is_ok() {
            Ok(response)
        } else {
            Err(KrafkaError::broker(response.error_code, "a fetch was refused"))
        }
    }

    /// Keeps the batches of a response. Returns whether the known leaders of the topic may be stale.
    fn take(&self, fetch: &BrokerFetch, response: Result<FetchResponse, KrafkaError>) -> Result<bool, FetchError> {
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(topic = %self.topic, %error, "a fetch failed; will retry");
                fetch.partitions.iter().for_each(|request| self.pause(request.partition as u32));
                return Ok(true);
            }
        };
        let mut stale = false;
        for partition in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            let request = fetch.partitions.iter().find(|request| request.partition == partition.partition);
            if let Some(request) = request {
                stale |= self.take_partition(request, partition)?;
            }
        }
        Ok(stale)
    }

    fn take_partition(
        &self,
        request: &FetchPartitionRequest,
        response: FetchPartitionResponse,
    ) -> Result<bool, FetchError> {
        let partition = response.partition as u32;
        let mut partitions = self.partitions.lock();
        // If the partition was assigned again since the request, its position differs.
        let Some(fetched) = partitions.get_mut(&partition).filter(|fetched| fetched.next == request.fetch_offset)
        else {
            return Ok(false);
        };
        if let Some(diverging) = response.diverging_epoch {
            tracing::warn!(
                topic = %self.topic, partition, position = fetched.next, end = diverging.end_offset,
                "the topic lost records that were read; reading continues where it ends"
            );
            (fetched.next, fetched.epoch) = (diverging.end_offset, -1);
            return Ok(false);
        }
        match response.error_code {
            ErrorCode::None => {
                let end = [response.last_stable_offset, response.high_watermark].into_iter().find(|end| *end >= 0);
                fetched.end = end.or(fetched.end);
                fetched.paused_until = None;
                let aborted = response.aborted_transactions;
                let aborted = aborted.iter().map(|aborted| (aborted.first_offset, aborted.producer_id)).collect();
                fetched.batches = FetchedBatches::new(response.records.unwrap_or_default(), aborted);
                Ok(false)
            }
            ErrorCode::OffsetOutOfRange => Err(FetchError::OutOfRange(partition)),
            code @ ErrorCode::TopicAuthorizationFailed => {
                Err(FetchError::Client(KrafkaError::broker(code, "a fetch was refused")))
            }
            code => {
                tracing::debug!(topic = %self.topic, partition, ?code, "a partition was not fetched; will retry");
                fetched.paused_until = Some(Instant::now() + PAUSE);
                Ok(true)
            }
        }
    }

    fn pause(&self, partition: u32) {
        if let Some(fetched) = self.partitions.lock().get_mut(&partition) {
            fetched.paused_until = Some(Instant::now() + PAUSE);
        }
    }
}
