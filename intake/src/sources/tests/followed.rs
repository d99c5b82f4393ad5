//! Checks that a table has the rows that a list of changes in memory adds up to, however its reader ends: changes, deletions of all
//! rows, and places that move alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use kafka::TopicReader;
use parking_lot::Mutex;
use postgres::{OutboxError, OutboxReader, OutboxRow, ReadEnd, ReadRows, RowEffect, Start};
use shared::handoff::LogReplay;
use shared::ids::Partition;
use shared::stream::{KafkaTopic, Stream};
use tempfile::TempDir;

use super::super::error::SourceError;
use super::super::opener::SourceOpener;
use super::Process;
use super::fake_topic::random;
use crate::partition::PartitionSettings;
use crate::testing::stream;

pub const ROWS: u64 = 12;

/// A change of the table.
#[derive(Clone, Copy)]
pub enum Change {
    Set(i64, i64),
    /// The same, in many bytes.
    SetLarge(i64, i64),
    Delete(i64),
    Rename(i64, i64),
    Clear,
    Snapshot,
    Move,
    Commit,
}

/// Bytes of a large change.
pub const LARGE_BYTES: usize = 900_000;

/// The changes so far, and how many of them a reader returns at once.
pub struct FakeTable {
    pub changes: Mutex<Vec<Change>>,
    pub read_rows: usize,
}

struct FakeReader {
    table: Arc<FakeTable>,
    next: usize,
}

pub struct FakeDatabase(pub Arc<FakeTable>);

impl FakeTable {
    fn extend(&self, dice: &mut u64) {
        let mut changes = self.changes.lock();
        let mut rows = fold(&changes);
        let mut below = |end: u64| (random(dice) % end) as i64;
        for _ in 0..1 + below(80) {
            let (key, other, v) = (below(ROWS), below(ROWS), changes.len() as i64);
            let change = match below(20) {
                0..11 => Change::Set(key, v),
                11..15 => Change::Delete(key),
                15..18 if rows.contains_key(&key) && !rows.contains_key(&other) => Change::Rename(key, other),
                18 => Change::Clear,
                _ => Change::Move,
            };
            apply(&mut rows, change);
            changes.push(change);
        }
    }
}

fn apply(rows: &mut BTreeMap<i64, i64>, change: Change) {
    match change {
        Change::Set(key, v) | Change::SetLarge(key, v) => _ = rows.insert(key, v),
        Change::Delete(key) => _ = rows.remove(&key),
        Change::Rename(from, to) => {
            rows.remove(&from);
            rows.insert(to, 0);
        }
        Change::Clear | Change::Snapshot => rows.clear(),
        Change::Move | Change::Commit => {}
    }
}

pub fn fold(changes: &[Change]) -> BTreeMap<i64, i64> {
    let mut rows = BTreeMap::new();
    changes.iter().for_each(|change| apply(&mut rows, *change));
    rows
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
        let next = match start {
            Start::New | Start::After(None) => 0,
            Start::After(Some(place)) => place.parse().expect("a place of this table"),
        };
        let reader = FakeReader { table: Arc::clone(&self.0), next };
        async { Ok(Box::new(reader) as Box<dyn OutboxReader>) }.boxed()
    }
}

fn row(number: usize, change: Change) -> OutboxRow {
    let after = |key: i64, v: i64, before: &str| {
        format!(r#"{{"op":"u","source":{{"ts_ms":5}},"before":{before},"after":{{"id":{key},"v":{v}}}}}"#)
    };
    let (effect, payload) = match change {
        Change::Set(key, v) => (RowEffect::Record, after(key, v, "null")),
        Change::Rename(from, to) => (RowEffect::Record, after(to, 0, &format!("{{\"id\":{from}}}"))),
        Change::Delete(key) => (RowEffect::Record, format!(r#"{{"op":"d","before":{{"id":{key}}},"after":null}}"#)),
        Change::SetLarge(key, v) => {
            let after = format!(r#"{{"id":{key},"v":{v},"pad":"{}"}}"#, "x".repeat(LARGE_BYTES));
            (RowEffect::Record, format!(r#"{{"op":"u","source":{{"ts_ms":5}},"before":null,"after":{after}}}"#))
        }
        Change::Clear => (RowEffect::Clear, String::new()),
        Change::Snapshot => (RowEffect::Snapshot, String::new()),
        Change::Move => (RowEffect::Move, String::new()),
        Change::Commit => (RowEffect::Commit, String::new()),
    };
    let place = Arc::from((number + 1).to_string());
    OutboxRow { place, timestamp_ms: 5, parts: Vec::new(), payload: Some(payload.into()), effect }
}

#[async_trait]
impl OutboxReader for FakeReader {
    fn database(&self) -> &str {
        "shop"
    }

    async fn read(&mut self) -> Result<ReadRows, OutboxError> {
        let changes = self.table.changes.lock();
        let end = changes.len().min(self.next + self.table.read_rows);
        let rows = (self.next..end).map(|number| row(number, changes[number])).collect();
        self.next = end;
        Ok(ReadRows { rows, end: if end == changes.len() { ReadEnd::Nothing } else { ReadEnd::More } })
    }

    async fn acknowledge(&mut self) -> Result<(), OutboxError> {
        Ok(())
    }

    async fn waiting(&mut self) -> Result<Option<u64>, OutboxError> {
        Ok(Some((self.table.changes.lock().len() - self.next) as u64))
    }

    async fn retained_bytes(&mut self) -> Result<Option<u64>, OutboxError> {
        Ok(None)
    }
}

/// The durable place.
pub fn place(process: &Process) -> Option<Arc<str>> {
    let log = process.intake.stream(&process.stream.name).expect("the table");
    log.partition(Partition(0)).and_then(|log| log.source()).and_then(|source| source.place)
}

/// The durable rows of the table.
pub fn current_rows(process: &Process) -> BTreeMap<i64, i64> {
    let log = process.intake.stream(&process.stream.name).expect("the table");
    let rows = log.partition(Partition(0)).and_then(|log| log.rows()).expect("rows");
    let values: Vec<_> = rows.range(None, usize::MAX, usize::MAX).rows.into_iter().map(|(_, values)| values).collect();
    let batch = rows.batch(&values).expect("decoded");
    let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().values().to_vec();
    column(0).into_iter().zip(column(1)).collect()
}

/// The durable rows of the table, and what its events add up to.
pub fn rows(process: &Process) -> (BTreeMap<i64, i64>, BTreeMap<(i64, i64), i64>) {
    let log = process.intake.stream(&process.stream.name).expect("the table");
    let (ids, retracted) = (process.logged_column("id"), process.stream.retracted().expect("a table"));
    let values = process.logged_column("v");
    let mut signs = Vec::new();
    let (start, head) = log.range(Partition(0));
    let each = &mut |batch: shared::handoff::LogBatch| {
        let is_retraction = batch.rows.column(retracted).as_boolean();
        signs.extend(is_retraction.iter().map(|retracts| if retracts == Some(true) { -1 } else { 1 }));
    };
    log.replay(Partition(0), start, head, each).expect("replays");
    let mut sums = BTreeMap::new();
    for ((id, v), sign) in ids[0].iter().zip(&values[0]).zip(signs) {
        *sums.entry((*id, *v)).or_default() += sign;
    }
    sums.retain(|_, count| *count != 0);
    (current_rows(process), sums)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_what_its_changes_add_up_to_however_its_reader_ends() {
    let sql = "CREATE TABLE s (id BIGINT PRIMARY KEY, v BIGINT, at TIMESTAMP METADATA FROM 'source.timestamp') \
         WITH (event_time = 'at', source = 'postgres', connection = 'shop', table = 'orders')";
    let declared = Arc::new(stream(sql));
    for seed in 0..12 {
        let mut dice = seed;
        let table = Arc::new(FakeTable { changes: Mutex::new(Vec::new()), read_rows: 1 + seed as usize * 3 });
        let dir = TempDir::new().expect("a folder");
        let start = || {
            let database = Arc::new(FakeDatabase(Arc::clone(&table)));
            Process::start_reading(&dir, &declared, database, PartitionSettings::default())
        };
        for round in 0..6 {
            table.extend(&mut dice);
            let process = start();
            tokio::time::sleep(Duration::from_millis((seed * 7 + round * 5) % 23)).await;
            if (seed + round) % 2 == 0 { process.stop().await } else { process.crash() }
        }
        let process = start();
        let end = table.changes.lock().len().to_string();
        process.wait_for("the last change", |_| place(&process).as_deref() == Some(end.as_str())).await;
        let expected = fold(&table.changes.lock());
        let (found, sums) = rows(&process);
        assert_eq!(found, expected, "seed {seed}");
        assert_eq!(sums, expected.into_iter().map(|row| (row, 1)).collect(), "seed {seed}: the events of the log");
        process.stop().await;
    }
}
