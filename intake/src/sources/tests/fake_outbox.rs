//! An outbox in memory, which forgets what is acknowledged, as a database does.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kafka::TopicReader;
use parking_lot::Mutex;
use postgres::{OutboxError, OutboxReader, OutboxRow, ReadEnd, ReadRows, RowEffect, Start};
use shared::stream::{KafkaTopic, Stream};

use super::super::error::SourceError;
use super::super::opener::SourceOpener;

pub struct FakeOutbox(Mutex<State>);

struct State {
    /// Values of `v`; `None` is a row that is rejected.
    rows: Vec<Option<i64>>,
    database: &'static str,
    /// Rows that a read returns.
    read_rows: usize,
    /// Reads that fail from now on.
    failing: u64,
    /// Rows before this one are forgotten.
    acknowledged: usize,
    reads: usize,
}

struct FakeReader {
    outbox: Arc<FakeOutbox>,
    database: &'static str,
    next: usize,
}

/// Opens the outbox.
pub struct FakeDatabase(pub Arc<FakeOutbox>);

impl FakeOutbox {
    pub fn new(read_rows: usize) -> Arc<FakeOutbox> {
        let (rows, database) = (Vec::new(), "first");
        let state = State { rows, database, read_rows, failing: 0, acknowledged: 0, reads: 0 };
        Arc::new(FakeOutbox(Mutex::new(state)))
    }

    /// Adds rows with the next values; every `poison`-th is rejected.
    pub fn extend(&self, rows: usize, poison: usize) {
        let mut state = self.0.lock();
        for _ in 0..rows {
            let number = state.rows.len();
            state.rows.push((number % poison != poison - 1).then_some(number as i64));
        }
    }

    pub fn fail_reads(&self, reads: u64) {
        self.0.lock().failing = reads;
    }

    pub fn replace(&self, database: &'static str) {
        self.0.lock().database = database;
    }

    /// The values that are events.
    pub fn values(&self) -> Vec<i64> {
        self.0.lock().rows.iter().flatten().copied().collect()
    }

    pub fn acknowledged(&self) -> usize {
        self.0.lock().acknowledged
    }
}

impl SourceOpener for FakeDatabase {
    fn open<'a>(
        &'a self,
        _: &'a Stream,
        topic: &'a KafkaTopic,
    ) -> BoxFuture<'a, Result<Box<dyn TopicReader>, SourceError>> {
        async { Err(SourceError::NoConnection(topic.connection.to_string())) }.boxed()
    }

    fn open_database<'a>(
        &'a self,
        _: &'a Stream,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn OutboxReader>, SourceError>> {
        let state = self.0.0.lock();
        // As a slot: it starts where it is, and skips what is before the place.
        let place = match start {
            Start::New | Start::After(None) => 0,
            Start::After(Some(place)) => place.parse().expect("a place of this outbox"),
        };
        let next = state.acknowledged.max(place);
        let reader = FakeReader { outbox: Arc::clone(&self.0), database: state.database, next };
        async { Ok(Box::new(reader) as Box<dyn OutboxReader>) }.boxed()
    }
}

#[async_trait]
impl OutboxReader for FakeReader {
    fn database(&self) -> &str {
        self.database
    }

    async fn read(&mut self) -> Result<ReadRows, OutboxError> {
        let mut state = self.outbox.0.lock();
        state.reads += 1;
        if state.failing > 0 {
            state.failing -= 1;
            return Err(OutboxError::Unreachable("the test says so".to_owned()));
        }
        let end = state.rows.len().min(self.next + state.read_rows);
        let row = |number: usize| OutboxRow {
            place: Arc::from((number + 1).to_string()),
            timestamp_ms: 0,
            parts: Vec::new(),
            payload: Some(state.rows[number].map_or(Bytes::from_static(b"[]"), |v| format!("{{\"v\":{v}}}").into())),
            effect: RowEffect::Record,
        };
        let rows = (self.next..end).map(row).collect();
        self.next = end;
        let end = match end == state.rows.len() {
            true => ReadEnd::Nothing,
            false if state.reads.is_multiple_of(3) => ReadEnd::Acknowledge,
            false => ReadEnd::More,
        };
        Ok(ReadRows { rows, end })
    }

    async fn acknowledge(&mut self) -> Result<(), OutboxError> {
        self.outbox.0.lock().acknowledged = self.next;
        Ok(())
    }

    async fn waiting(&mut self) -> Result<Option<u64>, OutboxError> {
        Ok(Some((self.outbox.0.lock().rows.len() - self.next) as u64))
    }

    async fn retained_bytes(&mut self) -> Result<Option<u64>, OutboxError> {
        Ok(Some(4096))
    }
}
