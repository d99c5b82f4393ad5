//! Runs the task that reads the topic of one stream: it connects, reads from the durable positions until something fails,
//! waits, and connects again. It never ends by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka::{PartitionProgress, TopicDescription, TopicError, TopicReader, TopicRecord};
use lake::Lake;
use shared::clock::{Clock, monotonic_now};
use shared::control::SourceState;
use shared::limits::{PARTITIONS_MAX, SOURCE_COMMIT_EVERY_MS, SOURCE_TOPIC_CHECK_MS};
use shared::stream::KafkaTopic;
use tokio::sync::{mpsc, watch};

use super::batch_writer::BatchWriter;
use super::batches::{self, RecordBatch, ValueFormat};
use super::clear;
use super::error::SourceError;
use super::flight::Flight;
use super::opener::SourceOpener;
use super::pace::Stopping;
use super::retry::retry;
use super::schemas::ValueSchemas;
use super::status::ReaderStatus;
use crate::decode::TextFormat;
use crate::fail_points::SourcePoint;
use crate::log::SourcePosition;
use crate::partition::SourceStep;
use crate::streams::StreamLog;
use crate::submit::RecordSubmitter;

/// Longest wait of a poll for records.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// Polls whose records wait for those before them.
const FETCHED_MAX: usize = 1;
/// Batches, of [`SOURCE_BATCH_BYTES`] at most, that need not be durable before the next ones are decoded: the log writes and syncs
/// several together.
///
/// [`SOURCE_BATCH_BYTES`]: shared::limits::SOURCE_BATCH_BYTES
const IN_FLIGHT_MAX: usize = 8;
/// Longest wait for a request that is not needed: the report to the group, and the end of the connections.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// The reader of one stream.
pub(super) struct StreamReader {
    pub topic: KafkaTopic,
    pub log: Arc<StreamLog>,
    pub submitter: Arc<RecordSubmitter>,
    pub lake: Lake,
    pub opener: Arc<dyn SourceOpener>,
    pub clock: Arc<dyn Clock>,
    pub status: Arc<ReaderStatus>,
    pub writer: BatchWriter,
    pub stopping: Stopping,
    /// Set when the topic has more partitions than the stream.
    pub grow: Arc<watch::Sender<bool>>,
}

/// The state of reading from the durable positions on.
struct Session<'a> {
    reader: &'a dyn TopicReader,
    /// The positions after what was submitted, by partition.
    next: BTreeMap<u32, i64>,
    /// Any of the positions: what all have in common.
    sample: Option<SourcePosition>,
    flight: Flight,
    values: ValueSchemas,
    topic: Arc<str>,
    checked_at: Instant,
    reported_at: Instant,
    /// The positions that the group has.
    reported: Vec<(u32, i64)>,
}

/// The records of a poll.
struct Fetched {
    records: Vec<TopicRecord>,
    /// How far the client was right after it.
    progress: Vec<PartitionProgress>,
}

/// Polls until it fails or the receiver is gone. The client decodes and checks records in here, beside the work on those before them.
async fn fetch(reader: &dyn TopicReader, fetched: mpsc::Sender<Result<Fetched, TopicError>>) {
    loop {
        let polled = match reader.poll(POLL_WAIT).await {
            Ok(records) => Ok(Fetched { records, progress: reader.progress().await }),
            Err(error) => Err(error),
        };
        let failed = polled.is_err();
        if fetched.send(polled).await.is_err() || failed {
            return;
        }
    }
}

impl StreamReader {
    /// Reads until stopped.
    pub async fn run(self) {
        let (stream, topic) = (&self.log.stream().name, &self.topic.topic);
        let log = |error: &SourceError| {
            tracing::warn!(%stream, %topic, %error, "reading the topic failed; will retry");
        };
        retry(&self.status, &self.stopping, log, || self.connect_and_read()).await;
    }

    async fn connect_and_read(&self) -> Result<(), SourceError> {
        let connect = self.opener.open(self.log.stream(), &self.topic);
        let reader = tokio::select! {
            reader = connect => reader?,
            () = self.stopping.wait() => return Ok(()),
        };
        let ended = self.read(reader.as_ref()).await;
        let _ = tokio::time::timeout(FAREWELL_WAIT, reader.close()).await;
        ended
    }

    /// Reads from the durable positions on, until stopped.
    async fn read(&self, reader: &dyn TopicReader) -> Result<(), SourceError> {
        let description = reader.describe().await?;
        self.notice_growth(&description)?;
        let positions = self.positions(reader, &description).await?;
        let starts: Vec<(u32, i64)> = (0..).zip(positions.iter().map(|position| position.next)).collect();
        reader.assign(&starts).await?;
        let now = monotonic_now();
        let mut session = Session {
            reader,
            next: starts.into_iter().collect(),
            sample: positions.into_iter().next(),
            flight: Flight::new(Arc::clone(&self.submitter)),
            values: ValueSchemas::new(self.opener.as_ref(), self.log.stream(), &self.topic)?,
            topic: Arc::from(self.topic.topic.as_str()),
            checked_at: now,
            reported_at: now,
            reported: Vec::new(),
        };
        self.status.set(SourceState::Reading, None);
        let ended = self.follow(&mut session).await;
        // Positions are read again only when nothing that moves them is under way.
        let settled = session.flight.settle().await;
        if ended.is_ok() {
            let _ = tokio::time::timeout(FAREWELL_WAIT, self.report(&mut session)).await;
        }
        ended.and(settled)
    }

    /// Fetches and accepts at the same time. Records that were fetched but not submitted are read again.
    async fn follow(&self, session: &mut Session<'_>) -> Result<(), SourceError> {
        let (sender, fetched) = mpsc::channel(FETCHED_MAX);
        let fetching = fetch(session.reader, sender);
        tokio::select! {
            ended = self.accept_fetched(session, fetched) => ended,
            never = async { fetching.await; pending().await } => never,
        }
    }

    async fn accept_fetched(
        &self,
        session: &mut Session<'_>,
        mut fetched: mpsc::Receiver<Result<Fetched, TopicError>>,
    ) -> Result<(), SourceError> {
        while !self.stopping.is_set()
            && let Some(next) = fetched.recv().await
        {
            let Fetched { records, progress } = next?;
            // Before they are submitted: until then, a partition with many records must not look idle.
            let of_records = records.iter().map(|record| record.partition);
            let in_flight: BTreeSet<u32> = of_records.chain(session.flight.partitions()).collect();
            self.status.observe(&progress, &in_flight);
            self.accept(session, records).await?;
            self.maintain(session).await?;
        }
        Ok(())
    }

    /// Decodes records, submits them in their order within each partition, and waits until all but the newest are
    /// durable: a sync and the decoding of the next records happen at the same time. Without records, it waits for all.
    async fn accept(&self, session: &mut Session<'_>, records: Vec<TopicRecord>) -> Result<(), SourceError> {
        if records.is_empty() {
            return session.flight.settle().await;
        }
        session.values.prepare(&records).await?;
        let (stream, format) = (self.log.stream(), session.values.format());
        let now = self.clock.now();
        let batches = batches::decode(stream, &format, &session.topic, records, &session.next, now).await?;
        let submitted = batches.len();
        for batch in batches {
            self.submit(session, batch).await?;
        }
        session.flight.settle_to(submitted.max(IN_FLIGHT_MAX)).await
    }

    async fn submit(&self, session: &mut Session<'_>, batch: RecordBatch) -> Result<(), SourceError> {
        let (partition, next) = (batch.partition, batch.next);
        if batch.truncates {
            self.clear(session, partition).await?;
        }
        let (Some(from), Some(sample)) = (session.next.get(&partition).copied(), &session.sample) else {
            return Ok(());
        };
        let to = SourcePosition { next, ..sample.clone() };
        self.writer.submit(&mut session.flight, batch, SourceStep { from: Some(from), to }).await?;
        session.next.insert(partition, next);
        Ok(())
    }

    /// Deletes all rows of a partition. The position stays before the record that says so: after a crash it is read again, and deletes
    /// those that are left.
    async fn clear(&self, session: &mut Session<'_>, partition: u32) -> Result<(), SourceError> {
        let (Some(next), Some(sample)) = (session.next.get(&partition).copied(), session.sample.clone()) else {
            return Ok(());
        };
        let (stream, format) = (self.log.stream(), ValueFormat::Text(TextFormat::Json));
        // The archive has the offset of its last event, too: reading would continue behind it.
        let (offset, position) = (next - 1, SourcePosition { next, ..sample });
        loop {
            session.flight.settle().await?;
            let deletions = clear::deletions(&self.log, partition, |_| offset)?;
            if deletions.is_empty() {
                return Ok(());
            }
            let from = BTreeMap::from([(partition, offset)]);
            for batch in batches::decode(stream, &format, &session.topic, deletions, &from, self.clock.now()).await? {
                let step = SourceStep { from: Some(next), to: position.clone() };
                self.writer.submit(&mut session.flight, batch, step).await?;
            }
        }
    }

    /// Looks for new partitions, and reports positions to the group, each from time to time.
    async fn maintain(&self, session: &mut Session<'_>) -> Result<(), SourceError> {
        if session.checked_at.elapsed() > Duration::from_millis(SOURCE_TOPIC_CHECK_MS) {
            session.checked_at = monotonic_now();
            let description = session.reader.describe().await?;
            self.check_topic(session.sample.iter(), &description)?;
            self.notice_growth(&description)?;
        }
        if session.reported_at.elapsed() > Duration::from_millis(SOURCE_COMMIT_EVERY_MS) {
            session.reported_at = monotonic_now();
            self.report(session).await;
        }
        Ok(())
    }

    /// Reports durable positions to the group, for tools that watch its lag. They are never read back.
    async fn report(&self, session: &mut Session<'_>) {
        let positions = self.status.positions();
        if positions == session.reported {
            return;
        }
        SourcePoint::Report.reach();
        match session.reader.commit(&self.topic.group, &positions).await {
            Ok(()) => session.reported = positions,
            Err(error) => {
                let stream = &self.log.stream().name;
                tracing::warn!(%stream, group = %self.topic.group, %error, "cannot report positions to the group; will retry");
            }
        }
    }

    /// Makes room for new partitions of the topic, and asks for the start that opens them.
    fn notice_growth(&self, description: &TopicDescription) -> Result<(), SourceError> {
        let stream = self.log.stream();
        if description.partitions <= stream.partitions {
            return Ok(());
        }
        if description.partitions > PARTITIONS_MAX {
            return Err(SourceError::TooManyPartitions(description.partitions));
        }
        if !*self.grow.borrow() {
            let failed = |error: std::io::Error| SourceError::Partitions(error.to_string());
            self.log.make_folders(description.partitions).map_err(failed)?;
            tracing::info!(stream = %stream.name, partitions = description.partitions, "the topic has new partitions");
            self.grow.send_replace(true);
        }
        Ok(())
    }
}
