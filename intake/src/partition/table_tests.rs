//! Checks that the events of a table add up to its rows, whatever changes say, and that a start finds the rows again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use shared::clock::ManualClock;
use shared::ids::{Offset, Partition};
use shared::stream::Stream;
use shared::table_key::TableKey;
use shared::time::Micros;
use shared::vital::Vitals;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::decode::{Options, decode};
use crate::log::LogSettings;

fn table() -> Arc<Stream> {
    Arc::new(crate::testing::stream(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, v STRING, n BIGINT, at TIMESTAMP) WITH (event_time = 'at', format = 'debezium-json')",
    ))
}

fn open_with(dir: &TempDir, settings: PartitionSettings) -> PartitionLog {
    let (clock, claims) = (Arc::new(ManualClock::at(Micros(1_000))), Arc::new(KeyClaims::default()));
    let log = PartitionLog::open(dir.path(), table(), Partition(0), settings, clock, &Vitals::default(), &claims);
    let log = log.expect("opens");
    log.register_reader("reader");
    log.start().expect("a thread");
    log
}

fn open(dir: &TempDir) -> PartitionLog {
    open_with(dir, PartitionSettings::default())
}

fn submit(log: &PartitionLog, lines: &[String]) -> Result<PartitionReceipt, SubmitError> {
    let decoded = decode(&table(), lines.join("\n").as_bytes(), Options::default()).expect("decoded");
    assert_eq!(decoded.rejected(), 0, "{:?}", decoded.rejections);
    let (reply, receipt) = oneshot::channel();
    let kept = decoded.changes.expect("a table").kept;
    log.try_submit(Submission {
        rows: decoded.rows,
        id_hashes: None,
        entities: None,
        kept,
        key: None,
        source: None,
        reply,
    })?;
    receipt.blocking_recv().expect("a reply")
}

fn write(id: i64, v: &str, n: i64) -> String {
    format!(r#"{{"op":"u","after":{{"id":{id},"v":"{v}","n":{n},"at":{n}}}}}"#)
}

fn delete(id: i64) -> String {
    format!(r#"{{"op":"d","before":{{"id":{id}}}}}"#)
}

/// What the events of the log add up to: the values of each row that is asserted once more than it is retracted.
fn added_up(log: &PartitionLog) -> BTreeMap<(i64, Option<String>, i64), i64> {
    let mut rows = BTreeMap::new();
    let mut add = |batch: shared::handoff::LogBatch| {
        let column = |index: usize| batch.rows.column(index);
        for row in 0..batch.rows.num_rows() {
            let text = column(1).as_string_view();
            let text = text.is_valid(row).then(|| text.value(row).to_owned());
            let number = |index: usize| column(index).as_primitive::<Int64Type>().value(row);
            let sign = if column(4).as_boolean().value(row) { -1 } else { 1 };
            *rows.entry((number(0), text, number(2))).or_default() += sign;
        }
    };
    log.replay(log.range().0, log.range().1, &mut add).expect("replayed");
    rows.retain(|_, count| *count != 0);
    rows
}

fn key(id: i64) -> TableKey {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![id]));
    TableKey::at(&[column], 0)
}

fn found(log: &PartitionLog, id: i64) -> Option<(Option<String>, i64)> {
    let row = log.rows().expect("a table").find(&key(id)).expect("decoded")?;
    let text = row.column(1).as_string_view();
    Some((text.is_valid(0).then(|| text.value(0).to_owned()), row.column(2).as_primitive::<Int64Type>().value(0)))
}

#[test]
fn events_add_up_to_the_rows_whatever_changes_say() {
    let dir = TempDir::new().expect("a folder");
    let log = open(&dir);
    let text = |text: &str| Some(text.to_owned());
    let receipt = submit(&log, &[write(1, "a", 5), write(2, "b", 6), write(1, "c", 7), delete(9)]).expect("written");
    // The second change of row 1 retracts and asserts; the deletion of no row does nothing.
    assert_eq!((receipt.accepted, receipt.duplicates, receipt.end_offset), (3, 1, Some(Offset(4))));
    let again = submit(&log, &[write(1, "c", 7)]).expect("written");
    assert_eq!((again.accepted, again.duplicates, again.end_offset), (0, 1, None));
    // The sender does not know the text: it stays. Of a row that is not there, it is NULL.
    let kept = "__debezium_unavailable_value";
    let receipt = submit(&log, &[write(2, "d", 1), write(2, kept, 8), write(3, kept, 9), write(4, "e", 1), delete(4)]);
    assert_eq!(receipt.map(|receipt| receipt.accepted), Ok(5));
    let expected = [((1, text("c"), 7), 1), ((2, text("d"), 8), 1), ((3, None, 9), 1)];
    assert_eq!(added_up(&log), BTreeMap::from(expected.clone()));
    log.close();
    let log = open(&dir);
    assert_eq!((found(&log, 1), found(&log, 2)), (Some((text("c"), 7)), Some((text("d"), 8))));
    assert_eq!((found(&log, 3), found(&log, 4)), (Some((None, 9)), None));
    assert_eq!(log.rows().expect("a table").status().count, 3);
    submit(&log, &[delete(1), write(2, "d", 8)]).expect("written");
    assert_eq!(added_up(&log), BTreeMap::from([expected[1].clone(), expected[2].clone()]));
    assert_eq!(log.rows().expect("a table").status().count, 2);
}

#[test]
fn a_row_whose_key_changes_keeps_its_values() {
    let dir = TempDir::new().expect("a folder");
    let log = open(&dir);
    let rename = |from: i64, to: i64| {
        format!(
            r#"{{"op":"u","before":{{"id":{from}}},"after":{{"id":{to},"v":"__debezium_unavailable_value","n":9,"at":9}}}}"#
        )
    };
    let text = |text: &str| Some((Some(text.to_owned()), 9));
    submit(&log, &[write(1, "a", 5), write(2, "b", 6)]).expect("written");
    submit(&log, &[rename(1, 3)]).expect("written");
    assert_eq!((found(&log, 1), found(&log, 3)), (None, text("a")));
    // Twice in one request, and over a row that is there: its own value is not the one that is kept.
    submit(&log, &[rename(3, 4), rename(4, 2)]).expect("written");
    assert_eq!((found(&log, 3), found(&log, 4), found(&log, 2)), (None, None, text("a")));
    // A change that is sent again does nothing.
    let again = submit(&log, &[rename(4, 2)]).expect("written");
    assert_eq!((again.accepted, again.duplicates, found(&log, 2)), (0, 2, text("a")));
}

#[test]
fn stored_events_count_in_any_order() {
    let (first, second) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let log = open(&first);
    submit(&log, &[write(1, "a", 1), write(2, "b", 2), write(1, "c", 3), delete(2), write(3, "d", 4)])
        .expect("written");
    let mut batches = Vec::new();
    log.replay(Offset(0), log.range().1, &mut |batch| batches.push(batch)).expect("replayed");
    let other = open(&second);
    let rows = other.rows().expect("a table");
    for batch in &batches {
        for row in (0..batch.rows.num_rows()).rev() {
            let one = batch.rows.slice(row, 1);
            rows.restore(one.columns(), |_| (batch.first_offset.0 + row as u64) as i64).expect("restored");
        }
    }
    rows.settle();
    assert_eq!((found(&other, 1), found(&other, 2)), (Some((Some("c".to_owned()), 3)), None));
    assert_eq!(found(&other, 3), Some((Some("d".to_owned()), 4)));
}

#[test]
fn a_full_table_refuses_new_rows_and_accepts_deletions() {
    let dir = TempDir::new().expect("a folder");
    let log = open_with(&dir, PartitionSettings { table_bytes_max: 400, ..PartitionSettings::default() });
    submit(&log, &[write(1, "a", 1), write(2, "b", 2)]).expect("written");
    let before = added_up(&log);
    let refused = submit(&log, &[write(2, "z", 3), write(3, "c", 3), write(4, "d", 4)]);
    assert_eq!(refused, Err(SubmitError::TableFull { max: 400 }));
    assert_eq!((added_up(&log), found(&log, 2)), (before, Some((Some("b".to_owned()), 2))), "all or nothing");
    submit(&log, &[write(2, "z", 3)]).expect("a row of the same size");
    submit(&log, &[delete(1), write(4, "d", 4)]).expect("there is room again");
    assert_eq!(found(&log, 4), Some((Some("d".to_owned()), 4)));
    let status = log.rows().expect("a table").status();
    assert!(status.count == 2 && status.bytes <= 400, "{status:?}");
}

#[test]
fn changes_without_room_in_the_log_leave_the_rows_as_they_are() {
    use crate::log::{IoStep, LocalDisk, with_faults};
    use std::sync::atomic::{AtomicBool, Ordering};
    let dir = TempDir::new().expect("a folder");
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let faults = move |step: IoStep| match step {
        IoStep::Write if is_full.load(Ordering::SeqCst) => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
        _ => Ok(()),
    };
    let disk = with_faults(Arc::new(LocalDisk), Arc::new(faults));
    let log = LogSettings { disk, ..LogSettings::default() };
    let log = open_with(&dir, PartitionSettings { log, ..PartitionSettings::default() });
    submit(&log, &[write(1, "a", 1)]).expect("written");
    full.store(true, Ordering::SeqCst);
    assert!(matches!(submit(&log, &[write(1, "b", 2), write(2, "c", 3)]), Err(SubmitError::Exhausted(_))));
    full.store(false, Ordering::SeqCst);
    assert_eq!((found(&log, 1), found(&log, 2)), (Some((Some("a".to_owned()), 1)), None));
    // The retraction is of the row that is durable.
    submit(&log, &[write(1, "d", 4)]).expect("written");
    assert_eq!(added_up(&log), BTreeMap::from([((1, Some("d".to_owned()), 4), 1)]));
}
