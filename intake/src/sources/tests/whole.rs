//! Checks that no reader of a table sees a part of a transaction if transactions are whole: in its rows, in each frame of its log and so
//! after every crash, and at every cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use parking_lot::Mutex;
use shared::handoff::LogReplay;
use shared::ids::{Partition, ViewName};
use shared::limits::TRANSACTION_BYTES_MAX;
use shared::stream::Stream;
use tempfile::TempDir;

use super::Process;
use super::fake_topic::random;
use super::followed::{Change, FakeDatabase, FakeTable, LARGE_BYTES, ROWS, current_rows, fold, place, rows};
use crate::partition::PartitionSettings;
use crate::testing::stream;

pub type Rows = BTreeMap<i64, i64>;

fn declared(transactions: &str) -> Arc<Stream> {
    let sql = format!(
        "CREATE TABLE s (id BIGINT PRIMARY KEY, v BIGINT, at TIMESTAMP METADATA FROM 'source.timestamp') \
         WITH (event_time = 'at', source = 'postgres', connection = 'shop', table = 'orders', transactions = '{transactions}')"
    );
    Arc::new(stream(&sql))
}

/// Adds transactions of several changes, TRUNCATEs among them, and now and then a snapshot.
fn extend(table: &FakeTable, dice: &mut u64) {
    let mut changes = table.changes.lock();
    let mut below = |end: u64| (random(dice) % end) as i64;
    for _ in 0..1 + below(12) {
        let is_snapshot = below(12) == 0;
        if is_snapshot {
            changes.push(Change::Snapshot);
        }
        for _ in 0..1 + below(14) {
            let (key, other, v) = (below(ROWS), below(ROWS), changes.len() as i64);
            let rows = fold(&changes);
            changes.push(match below(20) {
                _ if is_snapshot => Change::Set(key, v),
                0..12 => Change::Set(key, v),
                12..15 => Change::Delete(key),
                15..18 if rows.contains_key(&key) && !rows.contains_key(&other) => Change::Rename(key, other),
                18 => Change::Clear,
                _ => Change::Set(other, v),
            });
        }
        changes.push(if is_snapshot { Change::Move } else { Change::Commit });
    }
}

/// The rows before and after each transaction, and the places after them.
fn boundaries(changes: &[Change]) -> (BTreeSet<Rows>, BTreeSet<String>) {
    let ends = (1..=changes.len()).filter(|end| matches!(changes[end - 1], Change::Move | Change::Commit));
    let ends: Vec<usize> = ends.collect();
    let states = ends.iter().map(|end| fold(&changes[..*end])).chain([Rows::new()]).collect();
    (states, ends.iter().map(usize::to_string).collect())
}

/// The rows that the events add up to after each frame of the log, by the offset after it.
pub fn states_of_frames(process: &Process) -> BTreeMap<u64, Rows> {
    let log = process.intake.stream(&process.stream.name).expect("the table");
    let (start, head) = log.range(Partition(0));
    let retracted = process.stream.retracted().expect("a table");
    let (mut rows, mut states) = (Rows::new(), BTreeMap::from([(start.0, Rows::new())]));
    let each = &mut |batch: shared::handoff::LogBatch| {
        let column = |index: usize| batch.rows.column(index).as_primitive::<Int64Type>().values().to_vec();
        let retracts = batch.rows.column(retracted).as_boolean();
        for (row, (key, v)) in column(0).into_iter().zip(column(1)).enumerate() {
            if retracts.value(row) {
                assert_eq!(rows.remove(&key), Some(v), "the row that is retracted");
            } else {
                assert_eq!(rows.insert(key, v), None, "the row before it was retracted");
            }
        }
        states.insert(batch.end_offset().0, rows.clone());
    };
    log.replay(Partition(0), start, head, each).expect("replays");
    states
}

/// Checks what readers see now.
fn check(process: &Process, states: &BTreeSet<Rows>, places: &BTreeSet<String>, context: &str) {
    let found = current_rows(process);
    assert!(states.contains(&found), "{context}: {found:?} are rows within a transaction");
    let place = place(process);
    assert!(
        place.as_deref().is_none_or(|place| places.contains(place)),
        "{context}: {place:?} is within a transaction"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_sees_a_part_of_a_transaction_however_the_reader_ends() {
    let (declared, view): (_, ViewName) = (declared("whole"), "v".parse().expect("a name"));
    for seed in 0..12 {
        let mut dice = seed + 40;
        let table = Arc::new(FakeTable { changes: Mutex::new(Vec::new()), read_rows: 1 + seed as usize * 3 });
        let dir = TempDir::new().expect("a folder");
        let start = || {
            let database = Arc::new(FakeDatabase(Arc::clone(&table)));
            Process::start_reading(&dir, &declared, database, PartitionSettings::default())
        };
        for round in 0..6 {
            extend(&table, &mut dice);
            let (states, places) = boundaries(&table.changes.lock());
            let context = format!("seed {seed}, round {round}");
            let process = start();
            let log = Arc::clone(process.intake.stream(&process.stream.name).expect("the table"));
            let mut cuts = Vec::new();
            for _ in 0..(seed * 7 + round * 5) % 23 {
                check(&process, &states, &places, &context);
                cuts.push(log.cut(&view).await.expect("a cut").0[&Partition(0)].offset.0);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            check(&process, &states, &places, &context);
            let of_frames = states_of_frames(&process);
            for (end, rows) in &of_frames {
                assert!(states.contains(rows), "{context}: the frame before {end} ends within a transaction: {rows:?}");
            }
            assert!(cuts.iter().all(|cut| of_frames.contains_key(cut)), "{context}: cuts {cuts:?} in {of_frames:?}");
            drop(log);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_too_large_stops_reading_until_it_may_be_applied_in_parts() {
    let large = TRANSACTION_BYTES_MAX / LARGE_BYTES + 1;
    let changes = |first: Change, last: Change| {
        let mut changes = vec![Change::Set(1, 1), Change::Commit, first];
        changes.extend((0..large).map(|v| Change::SetLarge(2, v as i64)));
        changes.extend([Change::Set(3, 3), last, Change::Set(4, 4), Change::Commit]);
        changes
    };
    let dir = TempDir::new().expect("a folder");
    let table = |changes: Vec<Change>| Arc::new(FakeTable { changes: Mutex::new(changes), read_rows: 40 });
    let start = |dir: &TempDir, table: &Arc<FakeTable>, transactions: &str| {
        let database = Arc::new(FakeDatabase(Arc::clone(table)));
        Process::start_reading(dir, &declared(transactions), database, PartitionSettings::default())
    };
    let transaction = table(changes(Change::Set(5, 5), Change::Commit));
    let (before, after) = (Rows::from([(1, 1)]), fold(&transaction.changes.lock()));
    let process = start(&dir, &transaction, "whole");
    let names_limit = |error: &String| error.contains("TRANSACTION_BYTES_MAX") && error.contains("'parts'");
    process.wait_for("the error", |status| status.error.as_ref().is_some_and(names_limit)).await;
    assert_eq!(current_rows(&process), before, "nothing of it is visible");
    process.stop().await;
    let end = transaction.changes.lock().len().to_string();
    let process = start(&dir, &transaction, "parts");
    process.wait_for("the end", |_| place(&process).as_deref() == Some(end.as_str())).await;
    assert_eq!(current_rows(&process), after);
    process.stop().await;
    // A snapshot need not be whole.
    let dir = TempDir::new().expect("a folder");
    let snapshot = table(changes(Change::Snapshot, Change::Move));
    let process = start(&dir, &snapshot, "whole");
    let end = snapshot.changes.lock().len().to_string();
    process.wait_for("the end", |_| place(&process).as_deref() == Some(end.as_str())).await;
    assert_eq!(current_rows(&process), Rows::from([(2, large as i64 - 1), (3, 3), (4, 4)]));
    process.stop().await;
}
