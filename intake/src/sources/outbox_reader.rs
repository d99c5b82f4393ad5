//! Runs the task that reads the outbox of one stream: it connects, reads from the durable place until something fails, waits,
//! and connects again. It never ends by itself.
//!
//! Rows are numbered from 0 in the order in which they are read; that order never changes. The number of the next row and the
//! place after the last one are in the log frame that holds the events, so rows become events exactly once. The database may
//! forget rows only after that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka::{PartitionProgress, TopicRecord};
use lake::Lake;
use postgres::{OutboxReader, OutboxRow, ReadEnd, ReadRows, Start};
use shared::clock::{Clock, monotonic_now};
use shared::control::SourceState;
use shared::ids::Partition;
use shared::limits::{OUTBOX_POLL_MS, SOURCE_COMMIT_EVERY_MS};
use shared::stream::Outbox;

use super::batch_writer::BatchWriter;
use super::batches::{self, ValueFormat};
use super::error::SourceError;
use super::flight::Flight;
use super::opener::SourceOpener;
use super::pace::{Backoff, Stopping};
use super::positions::{archived, move_to};
use super::status::ReaderStatus;
use crate::decode::TextFormat;
use crate::fail_points::SourcePoint;
use crate::log::SourcePosition;
use crate::partition::SourceStep;
use crate::streams::StreamLog;
use crate::submit::RecordSubmitter;

/// The partition of an outbox.
const PARTITION: u32 = 0;
/// Reads that find nothing take at most one part in so many of the time: the database decodes part of its log for each.
const REST_PARTS: u32 = 9;
/// Longest wait after a read that found nothing.
const REST_MAX: Duration = Duration::from_secs(5);
/// Reads that may be in flight: a sync and the decoding of the next rows happen at the same time.
const IN_FLIGHT: usize = 1;

/// The reader of one stream.
pub(super) struct OutboxStreamReader {
    pub outbox: Outbox,
    pub log: Arc<StreamLog>,
    pub submitter: Arc<RecordSubmitter>,
    pub lake: Lake,
    pub opener: Arc<dyn SourceOpener>,
    pub clock: Arc<dyn Clock>,
    pub status: Arc<ReaderStatus>,
    pub writer: BatchWriter,
    pub stopping: Stopping,
}

/// The state of reading from the durable place on.
struct Session {
    /// After what was submitted.
    position: SourcePosition,
    flight: Flight,
    /// Whether rows were read since the last acknowledgement.
    has_news: bool,
    acknowledged_at: Instant,
}

impl OutboxStreamReader {
    /// Reads until stopped.
    pub async fn run(self) {
        let mut backoff = Backoff::new();
        while !self.stopping.is_set() {
            let before = self.status.positions();
            let Err(error) = self.connect_and_read().await else { return };
            let is_new = self.status.positions() != before;
            tracing::warn!(stream = %self.log.stream().name, %error, "reading the outbox failed; will retry");
            self.status.set(SourceState::Failing, Some(error.to_string()));
            self.stopping.sleep(backoff.pause(&error, is_new)).await;
        }
    }

    async fn connect_and_read(&self) -> Result<(), SourceError> {
        let stream = self.log.stream();
        let known = self.log.partition(Partition(PARTITION)).and_then(|log| log.source());
        let start = known.as_ref().map_or(Start::New, |known| Start::After(known.place.clone()));
        let mut reader = tokio::select! {
            reader = self.opener.open_outbox(stream, &self.outbox, start) => reader?,
            () = self.stopping.wait() => return Ok(()),
        };
        let position = self.position(known, reader.database()).await?;
        let flight = Flight::new(Arc::clone(&self.submitter));
        let mut session = Session { position, flight, has_news: true, acknowledged_at: monotonic_now() };
        self.status.set(SourceState::Reading, None);
        let ended = self.follow(reader.as_mut(), &mut session).await;
        // Positions are read again only when nothing that moves them is under way.
        ended.and(session.flight.settle().await)
    }

    /// The durable position. The first one becomes durable before the first row is read, so that a slot which is gone later is
    /// not taken for one that never was.
    async fn position(&self, known: Option<SourcePosition>, database: &str) -> Result<SourcePosition, SourceError> {
        if let Some(known) = known {
            return match known.topic_id.as_deref() == Some(database) {
                true => Ok(known),
                false => Err(SourceError::OtherDatabase),
            };
        }
        let stream = self.log.stream();
        // The archive has the number of its last row, not the place after it.
        if archived(&self.lake, &stream.name, PARTITION).await?.is_some() {
            return Err(SourceError::PositionLost);
        }
        let first = SourcePosition {
            topic: Arc::from(self.outbox.name.as_str()),
            topic_id: Some(Arc::from(database)),
            next: 0,
            place: None,
            started_with: 1,
        };
        move_to(&self.submitter, PARTITION, None, first).await
    }

    async fn follow(&self, reader: &mut dyn OutboxReader, session: &mut Session) -> Result<(), SourceError> {
        loop {
            let begin = monotonic_now();
            let read = tokio::select! {
                read = reader.read() => read?,
                () = self.stopping.wait() => return Ok(()),
            };
            let took = begin.elapsed();
            let ReadRows { rows, end } = read;
            session.has_news |= !rows.is_empty();
            let has_more = end != ReadEnd::Nothing;
            // Before they are submitted: until then, an outbox with many rows must not look idle.
            self.observe(session.position.next + rows.len() as i64, u64::from(has_more), true);
            self.accept(session, rows).await?;
            if end == ReadEnd::More {
                session.flight.settle_to(IN_FLIGHT).await?;
                continue;
            }
            session.flight.settle().await?;
            self.acknowledge(reader, session, u64::from(has_more)).await?;
            if !has_more {
                let rest = (took * REST_PARTS).clamp(Duration::from_millis(OUTBOX_POLL_MS), REST_MAX);
                self.stopping.sleep(rest).await;
            }
            if self.stopping.is_set() {
                return Ok(());
            }
        }
    }

    /// Decodes rows and submits them in their order.
    async fn accept(&self, session: &mut Session, rows: Vec<OutboxRow>) -> Result<(), SourceError> {
        if rows.is_empty() {
            return Ok(());
        }
        let first = session.position.next;
        let places: Vec<Arc<str>> = rows.iter().map(|row| Arc::clone(&row.place)).collect();
        let records = (first..).zip(rows).map(|(number, row)| record(number, row)).collect();
        let (stream, format) = (self.log.stream(), ValueFormat::Text(TextFormat::Json));
        let (topic, next) = (Arc::clone(&session.position.topic), BTreeMap::from([(PARTITION, first)]));
        for batch in batches::decode(stream, &format, &topic, records, &next, self.clock.now()).await? {
            let place = Arc::clone(&places[(batch.next - 1 - first) as usize]);
            let to = SourcePosition { next: batch.next, place: Some(place), ..session.position.clone() };
            let step = SourceStep { from: Some(session.position.next), to: to.clone() };
            self.writer.submit(&mut session.flight, batch, step).await?;
            session.position = to;
        }
        Ok(())
    }

    /// Lets the database forget what is durable, and looks how much it keeps. Without news, from time to time only: its log
    /// grows by what other applications write.
    async fn acknowledge(
        &self,
        reader: &mut dyn OutboxReader,
        session: &mut Session,
        more: u64,
    ) -> Result<(), SourceError> {
        let is_due = session.acknowledged_at.elapsed() > Duration::from_millis(SOURCE_COMMIT_EVERY_MS);
        if !session.has_news && !is_due {
            self.observe(session.position.next, more, false);
            return Ok(());
        }
        SourcePoint::Report.reach();
        reader.acknowledge().await?;
        (session.has_news, session.acknowledged_at) = (false, monotonic_now());
        if let Some(bytes) = reader.retained_bytes().await? {
            self.status.retain(bytes);
        }
        let waiting = reader.waiting().await?.unwrap_or(0);
        self.observe(session.position.next, more.max(waiting), false);
        Ok(())
    }

    /// Shows how far the reader is: the next row to be read is `next`, and at least `more` rows follow.
    fn observe(&self, next: i64, more: u64, is_in_flight: bool) {
        let end = Some(next.saturating_add_unsigned(more));
        let in_flight = if is_in_flight { [PARTITION].into() } else { Default::default() };
        self.status.observe(&[PartitionProgress { partition: PARTITION, position: next, end }], &in_flight);
    }
}

/// A row as a record, whose headers are its parts.
fn record(number: i64, row: OutboxRow) -> TopicRecord {
    let headers = row.parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    TopicRecord {
        partition: PARTITION,
        offset: number,
        timestamp_ms: row.timestamp_ms,
        key: None,
        value: row.payload,
        headers,
    }
}
