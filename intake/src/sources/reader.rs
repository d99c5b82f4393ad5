//! Runs the task that reads the topic of one stream: it connects, reads from the durable positions until something fails,
//! waits, and connects again. It never ends by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka::{TopicDescription, TopicReader, TopicRecord};
use lake::Lake;
use shared::clock::{Clock, monotonic_now};
use shared::control::SourceState;
use shared::limits::{PARTITIONS_MAX, SOURCE_BATCHES_IN_FLIGHT, SOURCE_COMMIT_EVERY_MS, SOURCE_TOPIC_CHECK_MS};
use shared::stream::KafkaTopic;
use tokio::sync::watch;

use super::batch_writer::BatchWriter;
use super::batches::{self, RecordBatch, ValueFormat};
use super::clear;
use super::error::SourceError;
use super::fetched::Fetcher;
use super::flight::Flight;
use super::opener::SourceOpener;
use super::pace::Stopping;
use super::retry::retry;
use super::schemas::ValueSchemas;
use super::status::ReaderStatus;
use super::whole::ended_whole;
use super::whole_topic::TopicTransactions;
use crate::decode::TextFormat;
use crate::fail_points::SourcePoint;
use crate::log::SourcePosition;
use crate::partition::SourceStep;
use crate::streams::StreamLog;
use crate::submit::RecordSubmitter;

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
pub(super) struct Session<'a> {
    reader: &'a Arc<dyn TopicReader>,
    /// The positions after what was submitted, by partition.
    pub next: BTreeMap<u32, i64>,
    /// Any of the positions: what all have in common.
    pub sample: Option<SourcePosition>,
    pub flight: Flight,
    pub values: ValueSchemas,
    pub topic: Arc<str>,
    /// Of a table whose transactions become visible whole.
    pub transactions: Option<TopicTransactions>,
    checked_at: Instant,
    reported_at: Instant,
    /// The positions that the group has.
    reported: Vec<(u32, i64)>,
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
            reader = connect => Arc::from(reader?),
            () = self.stopping.wait() => return Ok(()),
        };
        let ended = self.read(&reader).await;
        let _ = tokio::time::timeout(FAREWELL_WAIT, reader.close()).await;
        ended
    }

    /// Reads from the durable positions on, until stopped.
    async fn read(&self, reader: &Arc<dyn TopicReader>) -> Result<(), SourceError> {
        let description = reader.describe().await?;
        self.notice_growth(&description)?;
        let positions = self.positions(reader.as_ref(), &description).await?;
        let starts: Vec<(u32, i64)> = (0..).zip(positions.iter().map(|position| position.next)).collect();
        reader.assign(&starts).await?;
        let transactions = TopicTransactions::of(&self.topic, reader.as_ref(), &description, positions.first()).await?;
        let now = monotonic_now();
        let mut session = Session {
            reader,
            transactions,
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
        if let Some(transactions) = &session.transactions {
            let _ = tokio::time::timeout(FAREWELL_WAIT, transactions.close()).await;
            return ended_whole(ended.and(settled));
        }
        ended.and(settled)
    }

    /// Accepts records while the next ones are polled. Records that were polled but not submitted are read again.
    async fn follow(&self, session: &mut Session<'_>) -> Result<(), SourceError> {
        let mut fetcher = Fetcher::start(Arc::clone(session.reader));
        while !self.stopping.is_set()
            && let Some(fetched) = fetcher.next().await
        {
            let fetched = fetched?;
            // Before they are submitted: until then, a partition with many records must not look idle.
            let held = session.transactions.as_ref().filter(|transactions| transactions.is_waiting()).map(|_| 0);
            let submitted = session.flight.partitions().chain(held);
            let in_flight: BTreeSet<u32> = fetched.partitions().into_iter().chain(submitted).collect();
            self.status.observe(&fetched.progress, &in_flight);
            self.accept(session, fetched.polls).await?;
            self.maintain(session).await?;
        }
        Ok(())
    }

    /// Decodes records, submits them in their order within each partition, and waits until all but the newest are
    /// durable: a sync and the decoding of the next records happen at the same time. Without records, it waits for all.
    async fn accept(&self, session: &mut Session<'_>, polls: Vec<Vec<TopicRecord>>) -> Result<(), SourceError> {
        if session.transactions.is_some() {
            return self.accept_transactions(session, polls.into_iter().flatten().collect()).await;
        }
        if polls.iter().all(Vec::is_empty) {
            return session.flight.settle().await;
        }
        for records in &polls {
            session.values.prepare(records).await?;
        }
        let (stream, format) = (self.log.stream(), session.values.format());
        let now = self.clock.now();
        let batches = batches::decode(stream, &format, &session.topic, polls, &session.next, now).await?;
        let submitted = batches.len();
        for batch in batches {
            self.submit(session, batch).await?;
        }
        session.flight.settle_to(submitted.max(SOURCE_BATCHES_IN_FLIGHT)).await
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
            for batch in
                batches::decode(stream, &format, &session.topic, vec![deletions], &from, self.clock.now()).await?
            {
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
