//! Runs the task that reads the outbox of one stream, or the changes of the table that one table follows: it connects, reads from
//! the durable place until something fails, waits, and connects again. It never ends by itself.
//!
//! Rows are numbered from 0 in the order in which they are read. The number of the next row and the place after the last one are
//! in the log frame that holds the events, so rows become events exactly once. The database may forget rows only after that.
//!
//! A row can also delete all rows of the table: a TRUNCATE, or a snapshot that starts. The deletions come before it, so their
//! frames still have the place before it. After a crash it is read again, and deletes those that are left.
//!
//! If transactions become visible whole, [`super::whole`] does what rows say, in place of this.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka::{PartitionProgress, TopicRecord};
use lake::Lake;
use postgres::{OutboxReader, OutboxRow, ReadEnd, ReadRows, RowEffect, Start};
use shared::clock::{Clock, monotonic_now};
use shared::control::SourceState;
use shared::ids::Partition;
use shared::limits::{OUTBOX_POLL_MS, SOURCE_COMMIT_EVERY_MS};
use shared::stream::Transactions;

use super::batch_writer::BatchWriter;
use super::batches::{self, ValueFormat};
use super::clear;
use super::error::SourceError;
use super::flight::Flight;
use super::opener::SourceOpener;
use super::pace::Stopping;
use super::positions::{archived, move_to};
use super::retry::retry;
use super::status::ReaderStatus;
use super::whole::{HeldRows, ended_whole};
use crate::decode::TextFormat;
use crate::fail_points::SourcePoint;
use crate::log::SourcePosition;
use crate::partition::SourceStep;
use crate::streams::StreamLog;
use crate::submit::RecordSubmitter;

/// The partition of an outbox.
pub(super) const PARTITION: u32 = 0;
/// Reads that find nothing take at most one part in so many of the time: the database decodes part of its log for each.
const REST_PARTS: u32 = 9;
/// Longest wait after a read that found nothing.
const REST_MAX: Duration = Duration::from_secs(5);
/// Reads that may be in flight: a sync and the decoding of the next rows happen at the same time.
const IN_FLIGHT: usize = 1;

/// The reader of one stream or table.
pub(super) struct OutboxStreamReader {
    /// What positions and rejected rows call the outbox or the table.
    pub name: String,
    pub transactions: Transactions,
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
pub(super) struct Session {
    /// After what was submitted.
    pub position: SourcePosition,
    pub flight: Flight,
    /// Rows of a transaction that has not ended.
    pub held: HeldRows,
    /// Whether rows were read since the last acknowledgement.
    has_news: bool,
    /// Rows that could not be read at the last acknowledgement, because other transactions had not ended.
    waiting: u64,
    acknowledged_at: Instant,
}

impl OutboxStreamReader {
    /// Reads until stopped.
    pub async fn run(self) {
        let (stream, name) = (&self.log.stream().name, &self.name);
        let log = |error: &SourceError| {
            tracing::warn!(%stream, %name, %error, "reading the database failed; will retry");
        };
        retry(&self.status, &self.stopping, log, || self.connect_and_read()).await;
    }

    async fn connect_and_read(&self) -> Result<(), SourceError> {
        let stream = self.log.stream();
        let known = self.log.partition(Partition(PARTITION)).and_then(|log| log.source());
        let start = known.as_ref().map_or(Start::New, |known| Start::After(known.place.clone()));
        let mut reader = tokio::select! {
            reader = self.opener.open_database(stream, start) => reader?,
            () = self.stopping.wait() => return Ok(()),
        };
        let position = self.position(known, reader.database()).await?;
        let flight = Flight::new(Arc::clone(&self.submitter));
        let mut session = Session {
            position,
            flight,
            held: HeldRows::default(),
            has_news: true,
            waiting: 0,
            acknowledged_at: monotonic_now(),
        };
        self.status.set(SourceState::Reading, None);
        let ended = self.follow(reader.as_mut(), &mut session).await;
        // Positions are read again only when nothing that moves them is under way.
        let ended = ended.and(session.flight.settle().await);
        if self.transactions == Transactions::Whole { ended_whole(ended) } else { ended }
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
            topic: Arc::from(self.name.as_str()),
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
            let read = (session.held.len() + rows.len()) as i64;
            self.observe(session.position.next + read, u64::from(has_more), true);
            match self.transactions {
                Transactions::Parts => self.accept(session, rows).await?,
                Transactions::Whole => self.accept_whole(session, rows).await?,
            }
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

    /// Does what rows say, in their order.
    pub(super) async fn accept(&self, session: &mut Session, rows: Vec<OutboxRow>) -> Result<(), SourceError> {
        let (mut records, mut places) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for row in rows {
            let place = Arc::clone(&row.place);
            match row.effect {
                RowEffect::Record => {
                    records.push(record(session.position.next + records.len() as i64, row));
                    places.push(place);
                    continue;
                }
                RowEffect::Clear | RowEffect::Snapshot => {
                    self.submit(session, std::mem::take(&mut records), std::mem::take(&mut places)).await?;
                    self.clear(session).await?;
                }
                RowEffect::Move | RowEffect::Commit => {
                    self.submit(session, std::mem::take(&mut records), std::mem::take(&mut places)).await?;
                }
            }
            session.flight.settle().await?;
            let to = SourcePosition { place: Some(place), ..session.position.clone() };
            session.position = move_to(&self.submitter, PARTITION, Some(to.next), to).await?;
        }
        self.submit(session, records, places).await
    }

    /// Deletes all rows of the table. The place stays where it is.
    async fn clear(&self, session: &mut Session) -> Result<(), SourceError> {
        loop {
            session.flight.settle().await?;
            let first = session.position.next;
            let deletions = clear::deletions(&self.log, PARTITION, |number| first + number)?;
            if deletions.is_empty() {
                return Ok(());
            }
            let places = vec![session.position.place.clone(); deletions.len()];
            self.submit_at(session, deletions, &places).await?;
        }
    }

    async fn submit(
        &self,
        session: &mut Session,
        records: Vec<TopicRecord>,
        places: Vec<Arc<str>>,
    ) -> Result<(), SourceError> {
        self.submit_at(session, records, &places.into_iter().map(Some).collect::<Vec<_>>()).await
    }

    /// Decodes records and submits them in their order, each with the place after it.
    async fn submit_at(
        &self,
        session: &mut Session,
        records: Vec<TopicRecord>,
        places: &[Option<Arc<str>>],
    ) -> Result<(), SourceError> {
        if records.is_empty() {
            return Ok(());
        }
        let first = session.position.next;
        let (stream, format) = (self.log.stream(), ValueFormat::Text(TextFormat::Json));
        let (topic, next) = (Arc::clone(&session.position.topic), BTreeMap::from([(PARTITION, first)]));
        for batch in batches::decode(stream, &format, &topic, vec![records], &next, self.clock.now()).await? {
            let place = places[(batch.next - 1 - first) as usize].clone();
            let to = SourcePosition { next: batch.next, place, ..session.position.clone() };
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
            self.observe(session.position.next, more.max(session.waiting), false);
            return Ok(());
        }
        SourcePoint::Report.reach();
        reader.acknowledge().await?;
        (session.has_news, session.acknowledged_at) = (false, monotonic_now());
        if let Some(bytes) = reader.retained_bytes().await? {
            self.status.retain(bytes);
        }
        session.waiting = reader.waiting().await?.unwrap_or(0);
        self.observe(session.position.next, more.max(session.waiting), false);
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
pub(super) fn record(number: i64, row: OutboxRow) -> TopicRecord {
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
