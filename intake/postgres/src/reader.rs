//! Defines what reading an outbox needs: rows in an order that never changes, each with the place after it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::OutboxError;

/// An event of an outbox, or a change of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The place after the row, where reading can start again.
    pub place: Arc<str>,
    /// Milliseconds since 1970; 0 if no time is known.
    pub timestamp_ms: i64,
    /// The parts of the event that were asked for, by name.
    pub parts: Vec<(&'static str, Option<Bytes>)>,
    pub payload: Option<Bytes>,
    pub effect: RowEffect,
}

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowEffect {
    /// It is an event or a change.
    Record,
    /// It deletes all rows of the table.
    Clear,
    /// It deletes all rows of the table, too: those of a snapshot follow, up to one that moves the place.
    Snapshot,
    /// It moves the place alone.
    Move,
    /// It ends the transaction of the rows before it.
    Commit,
}

impl OutboxRow {
    /// Bytes of the payload and the parts.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        length(&self.payload) + self.parts.iter().map(|(_, part)| length(part)).sum::<usize>()
    }
}

/// Where reading starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Nothing was ever read: what the database lacks is created.
    New,
    /// After a row; `None`: at the first one.
    After(Option<Arc<str>>),
}

/// Rows in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRows {
    pub rows: Vec<OutboxRow>,
    pub end: ReadEnd,
}

/// What follows the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadEnd {
    /// More rows.
    More,
    /// More rows, once those so far are acknowledged.
    Acknowledge,
    /// Nothing, as of now.
    Nothing,
}

/// Reads one outbox or table. After an error, or a call that was dropped, a reader is of no use.
#[async_trait]
pub trait OutboxReader: Send {
    /// Names the database and the cluster that it is in: places are of these alone.
    fn database(&self) -> &str;

    /// Returns the next rows, without waiting for any.
    async fn read(&mut self) -> Result<ReadRows, OutboxError>;

    /// Lets the database forget the rows that were returned. They are durable.
    async fn acknowledge(&mut self) -> Result<(), OutboxError>;

    /// Counts the rows that were not returned yet, up to a limit; `None`: only reading shows them.
    async fn waiting(&mut self) -> Result<Option<u64>, OutboxError>;

    /// Bytes of the write-ahead log that the database keeps for the reader; `None`: it keeps none.
    async fn retained_bytes(&mut self) -> Result<Option<u64>, OutboxError>;
}
