//! Holds the changes of a transaction until it ends, and submits them together: one submission is one part of one frame of the log,
//! so every reader of the log, every cut and every start of the process sees all of them or none.
//!
//! ```text
//! what is submitted at once = one or more whole transactions, with the place after the last of them
//! ```
//!
//! Held rows have no place: after a crash they are read again. A TRUNCATE deletes the rows that were there before the transaction, so
//! earlier changes of the transaction have no effect, and are dropped. A snapshot is a transaction that deletes all rows and writes those
//! of the database; one that is too large to be held passes through in parts.

use std::sync::Arc;

use kafka::TopicRecord;
use postgres::{OutboxRow, RowEffect};
use shared::limits::{TABLE_BATCH_RECORDS, TRANSACTION_BYTES_MAX};

use super::batches::{self, ValueFormat};
use super::clear;
use super::error::SourceError;
use super::outbox_reader::{OutboxStreamReader, PARTITION, Session, record};
use super::positions::move_to;
use crate::decode::TextFormat;
use crate::log::SourcePosition;
use crate::partition::{SourceStep, SubmitError};

/// Rows of a transaction that has not ended, in their order.
#[derive(Default)]
pub(super) struct HeldRows {
    /// The first of them may delete all rows.
    rows: Vec<OutboxRow>,
    bytes: usize,
    /// Whether the rest of a snapshot passes through.
    passes: bool,
}

impl HeldRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    fn add(&mut self, row: OutboxRow) {
        self.bytes += size_of::<OutboxRow>() + row.bytes() + row.place.len();
        self.rows.push(row);
    }

    /// Starts with a row that deletes all rows.
    fn restart(&mut self, row: OutboxRow) {
        *self = HeldRows::default();
        self.add(row);
    }

    fn is_snapshot(&self) -> bool {
        self.rows.first().is_some_and(|row| row.effect == RowEffect::Snapshot)
    }

    fn clears(&self) -> bool {
        self.rows.first().is_some_and(|row| matches!(row.effect, RowEffect::Clear | RowEffect::Snapshot))
    }
}

/// Whole transactions that are submitted next, and the place after them.
#[derive(Default)]
struct Ready {
    records: Vec<TopicRecord>,
    place: Option<Arc<str>>,
}

impl Ready {
    /// Adds the changes of a transaction; `next` is the number of the first record that is not submitted.
    fn add(&mut self, rows: Vec<OutboxRow>, next: i64, place: Arc<str>) {
        for row in rows.into_iter().filter(|row| row.effect == RowEffect::Record) {
            self.records.push(record(next + self.records.len() as i64, row));
        }
        self.place = Some(place);
    }
}

/// The end of reading whole transactions: an error of the log that says which limit was reached.
pub(super) fn ended_whole(ended: Result<(), SourceError>) -> Result<(), SourceError> {
    match ended {
        Err(SourceError::Submit(SubmitError::TooLarge { .. })) => Err(SourceError::TransactionTooLarge),
        ended => ended,
    }
}

impl OutboxStreamReader {
    /// Does what rows say, as soon as their transactions have ended.
    pub(super) async fn accept_whole(
        &self,
        session: &mut Session,
        mut rows: Vec<OutboxRow>,
    ) -> Result<(), SourceError> {
        while !rows.is_empty() {
            rows = match session.held.passes {
                true => self.pass(session, rows).await?,
                false => self.hold(session, rows).await?,
            };
        }
        Ok(())
    }

    /// Holds rows until their transactions have ended. Returns those of a snapshot that pass through.
    async fn hold(&self, session: &mut Session, rows: Vec<OutboxRow>) -> Result<Vec<OutboxRow>, SourceError> {
        let mut ready = Ready::default();
        let mut rows = rows.into_iter();
        while let Some(row) = rows.next() {
            match row.effect {
                RowEffect::Record => session.held.add(row),
                RowEffect::Clear | RowEffect::Snapshot => session.held.restart(row),
                RowEffect::Commit | RowEffect::Move => self.end_transaction(session, &mut ready, row.place).await?,
            }
            if session.held.bytes <= TRANSACTION_BYTES_MAX {
                continue;
            }
            self.submit_ready(session, &mut ready).await?;
            // I9: the rows of a snapshot need not become visible together, those of a transaction do.
            if !session.held.is_snapshot() {
                return Err(SourceError::TransactionTooLarge);
            }
            let stream = &self.log.stream().name;
            tracing::warn!(%stream, "the snapshot is larger than TRANSACTION_BYTES_MAX; it becomes visible in parts");
            let mut passing = std::mem::take(&mut session.held).rows;
            passing.extend(rows);
            session.held.passes = true;
            return Ok(passing);
        }
        self.submit_ready(session, &mut ready).await?;
        Ok(Vec::new())
    }

    /// Does what the rows of a snapshot say at once, up to the one that moves the place. Returns those behind it.
    async fn pass(&self, session: &mut Session, mut rows: Vec<OutboxRow>) -> Result<Vec<OutboxRow>, SourceError> {
        let end = rows.iter().position(|row| row.effect == RowEffect::Move).map(|last| last + 1);
        let behind = rows.split_off(end.unwrap_or(rows.len()));
        session.held.passes = end.is_none();
        self.accept(session, rows).await?;
        Ok(behind)
    }

    /// Adds what is held to the whole transactions.
    async fn end_transaction(
        &self,
        session: &mut Session,
        ready: &mut Ready,
        place: Arc<str>,
    ) -> Result<(), SourceError> {
        let held = std::mem::take(&mut session.held);
        if held.clears() {
            // The rows that it deletes are those that all transactions before it leave.
            self.submit_ready(session, ready).await?;
            session.flight.settle().await?;
            let next = session.position.next;
            let deletions = clear::all_deletions(&self.log, PARTITION, |number| next + number, TRANSACTION_BYTES_MAX)?;
            ready.records = deletions;
        }
        ready.add(held.rows, session.position.next, place);
        if ready.records.len() >= TABLE_BATCH_RECORDS {
            self.submit_ready(session, ready).await?;
        }
        Ok(())
    }

    /// Submits whole transactions, which move the place behind them.
    async fn submit_ready(&self, session: &mut Session, ready: &mut Ready) -> Result<(), SourceError> {
        let Ready { records, place: Some(place) } = std::mem::take(ready) else { return Ok(()) };
        let from = session.position.next;
        let next = from + records.len() as i64;
        let to = SourcePosition { next, place: Some(place), ..session.position.clone() };
        if records.is_empty() {
            session.flight.settle().await?;
            session.position = move_to(&self.submitter, PARTITION, Some(from), to).await?;
            return Ok(());
        }
        let (stream, format) = (self.log.stream(), ValueFormat::Text(TextFormat::Json));
        let topic = Arc::clone(&session.position.topic);
        let batch = batches::decode_whole(stream, &format, &topic, records, self.clock.now()).await?;
        self.writer.submit(&mut session.flight, batch, SourceStep { from: Some(from), to: to.clone() }).await?;
        session.position = to;
        Ok(())
    }
}
