//! Applies the transactions that Debezium writes to a topic whole: it reads the transaction topic as far as held records need it, and
//! submits whole transactions with the position behind them. The place in a position is the first offset of the transaction topic that
//! records behind it may need.
//!
//! The transaction topic is read after the changes: by then, it has the start of the transaction of each change that was read. So if
//! brokers have deleted its older records, a transaction without any record in it is an old one.

use std::sync::Arc;
use std::time::Duration;

use kafka::{TopicDescription, TopicError, TopicReader, TopicRecord};
use shared::control::SourceState;
use shared::limits::{SOURCE_BATCHES_IN_FLIGHT, TRANSACTION_BYTES_MAX};
use shared::stream::KafkaTopic;

use super::batches;
use super::clear;
use super::error::SourceError;
use super::held_records::{HeldRecords, Lacking, WholeRecords};
use super::positions::move_to;
use super::reader::{Session, StreamReader};
use crate::decode::transactions::boundary_of;
use crate::log::SourcePosition;
use crate::partition::SourceStep;

/// The partition of the topic and of the transaction topic.
const PARTITION: u32 = 0;
/// Longest wait for the end of a transaction whose changes have just come.
const END_WAIT: Duration = Duration::from_millis(100);

/// The transactions of one topic.
pub(super) struct TopicTransactions {
    topic: KafkaTopic,
    held: HeldRecords,
    /// After the last record that was added.
    read_to: i64,
    /// Records before this offset were there when reading started.
    old_before: i64,
    ends: Option<TransactionTopic>,
    /// Where the transaction topic is read from.
    place: Option<i64>,
}

/// The transaction topic, once a change has a transaction.
struct TransactionTopic {
    reader: Box<dyn TopicReader>,
    /// Whether records were deleted that may be needed.
    has_lost: bool,
}

impl TopicTransactions {
    /// The transactions of a topic that is read from `position` on; `None`: they become visible in parts.
    pub async fn of(
        topic: &KafkaTopic,
        reader: &dyn TopicReader,
        description: &TopicDescription,
        position: Option<&SourcePosition>,
    ) -> Result<Option<TopicTransactions>, SourceError> {
        let (Some(ends), Some(position)) = (&topic.transaction_topic, position) else { return Ok(None) };
        if description.partitions != 1 {
            return Err(SourceError::WholePartitions(topic.topic.clone(), description.partitions));
        }
        let place = position.place.as_deref().and_then(|place| place.parse().ok());
        Ok(Some(TopicTransactions {
            topic: KafkaTopic { topic: ends.clone(), ..topic.clone() },
            held: HeldRecords::new(place),
            read_to: position.next,
            old_before: reader.watermarks(PARTITION).await?.high,
            ends: None,
            place,
        }))
    }

    /// Whether records wait for their transactions.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Ends the connections to the transaction topic.
    pub async fn close(&self) {
        if let Some(ends) = &self.ends {
            ends.reader.close().await;
        }
    }

    fn failed(&self, error: TopicError) -> SourceError {
        SourceError::TransactionTopic { topic: self.topic.topic.clone(), error }
    }

    async fn opened(&mut self, reader: &StreamReader) -> Result<&TransactionTopic, SourceError> {
        let ends = match self.ends.take() {
            Some(ends) => ends,
            None => {
                let of_topic = |error: SourceError| match error {
                    SourceError::Topic(error) => self.failed(error),
                    other => other,
                };
                let opened = reader.opener.open(reader.log.stream(), &self.topic).await.map_err(of_topic)?;
                let failed = |error| self.failed(error);
                let partitions = opened.describe().await.map_err(failed)?.partitions;
                if partitions != 1 {
                    return Err(SourceError::WholePartitions(self.topic.topic.clone(), partitions));
                }
                let found = opened.watermarks(PARTITION).await.map_err(failed)?;
                let from = self.place.filter(|place| (found.low..=found.high).contains(place));
                let has_lost = from.is_none() && (self.place.is_some() || found.low > 0);
                opened.assign(&[(PARTITION, from.unwrap_or(found.low))]).await.map_err(failed)?;
                TransactionTopic { reader: opened, has_lost }
            }
        };
        Ok(&*self.ends.insert(ends))
    }

    /// Reads more of the transaction topic for the transaction with this id, which has a change at `offset`. Returns whether something
    /// was learned.
    async fn read_ends(&mut self, reader: &StreamReader, id: String, offset: i64) -> Result<bool, SourceError> {
        let TransactionTopic { reader: ends, has_lost } = self.opened(reader).await?;
        let has_lost = *has_lost;
        let polled = ends.poll(END_WAIT).await;
        let progress = ends.progress().await;
        let polled = polled.map_err(|error| self.failed(error))?;
        let is_at_end = progress.iter().any(|progress| progress.end.is_some_and(|end| progress.position >= end));
        let is_news = !polled.is_empty();
        for record in polled {
            if let Some(boundary) = record.value.as_deref().and_then(boundary_of) {
                self.held.note(record.offset, boundary);
            }
        }
        if is_news || !is_at_end || !has_lost || offset >= self.old_before || self.held.knows(&id) {
            return Ok(is_news);
        }
        tracing::warn!(
            stream = %reader.log.stream().name,
            transaction = id,
            "the transaction topic no longer has a transaction; its changes are applied by themselves"
        );
        self.held.forget(id);
        Ok(true)
    }
}

impl StreamReader {
    /// Holds records until their transactions are complete, and submits those that are.
    pub(super) async fn accept_transactions(
        &self,
        session: &mut Session<'_>,
        records: Vec<TopicRecord>,
    ) -> Result<(), SourceError> {
        let Some(mut transactions) = session.transactions.take() else { return Ok(()) };
        let accepted = self.accept_whole(session, &mut transactions, records).await;
        session.transactions = Some(transactions);
        accepted
    }

    async fn accept_whole(
        &self,
        session: &mut Session<'_>,
        transactions: &mut TopicTransactions,
        records: Vec<TopicRecord>,
    ) -> Result<(), SourceError> {
        let is_idle = records.is_empty();
        for record in records {
            if record.offset >= transactions.read_to {
                transactions.read_to = record.offset + 1;
                transactions.held.add(record);
            }
        }
        let lacking = loop {
            for whole in transactions.held.take_whole() {
                self.submit_whole(session, whole).await?;
            }
            if transactions.held.bytes() > TRANSACTION_BYTES_MAX {
                // I9: a larger transaction cannot become visible as a whole.
                let id = transactions.held.give_up().ok_or(SourceError::TransactionTooLarge)?;
                tracing::warn!(
                    stream = %self.log.stream().name,
                    transaction = id,
                    "more changes than TRANSACTION_BYTES_MAX wait for the rest of a transaction; they become visible without it"
                );
                continue;
            }
            match transactions.held.lacking() {
                Some(Lacking::End { id, offset }) => {
                    if !transactions.read_ends(self, id.clone(), offset).await? {
                        break Some(Lacking::End { id, offset });
                    }
                }
                lacking => break lacking,
            }
        };
        if !is_idle {
            return session.flight.settle_to(SOURCE_BATCHES_IN_FLIGHT).await;
        }
        let waits = lacking.map(|lacking| match lacking {
            Lacking::End { id, .. } => {
                format!("waiting for the end of transaction {id} in the topic {}", transactions.topic.topic)
            }
            Lacking::Changes { id, count } => {
                format!("waiting for the rest of the {count} changes of transaction {id}, which its end counts")
            }
            Lacking::Repetition { id } => {
                format!("waiting for transaction {id} to come again, as those before it have")
            }
        });
        self.status.set(SourceState::Reading, waits);
        session.flight.settle().await
    }

    /// Submits whole transactions, which move the position behind them.
    async fn submit_whole(&self, session: &mut Session<'_>, whole: WholeRecords) -> Result<(), SourceError> {
        let (Some(from), Some(sample)) = (session.next.get(&PARTITION).copied(), session.sample.clone()) else {
            return Ok(());
        };
        let WholeRecords { mut records, clears, next, needed } = whole;
        let place = needed.map(|needed| Arc::from(needed.to_string()));
        let to = SourcePosition { next, place, ..sample };
        if clears {
            session.flight.settle().await?;
            // As in `clear`: the archive has the offset of its last event.
            let mut all = clear::all_deletions(&self.log, PARTITION, |_| from - 1, TRANSACTION_BYTES_MAX)?;
            all.append(&mut records);
            records = all;
        }
        if records.is_empty() {
            session.flight.settle().await?;
            move_to(&self.submitter, PARTITION, Some(from), to.clone()).await?;
        } else {
            let (stream, format) = (self.log.stream(), session.values.format());
            let now = self.clock.now();
            let batch = batches::decode_whole(stream, &format, &session.topic, records, now).await?;
            self.writer.submit(&mut session.flight, batch, SourceStep { from: Some(from), to: to.clone() }).await?;
        }
        session.next.insert(PARTITION, next);
        session.sample = Some(to);
        Ok(())
    }
}
