//! Changes of a table with TRUNCATE among them, in a topic in memory, while the reader stops and crashes at random: the rows are those
//! that a fold of the records leaves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use shared::handoff::{LogBatch, LogReplay};
use shared::ids::Partition;
use shared::stream::Stream;
use tempfile::TempDir;

use super::Process;
use super::fake_topic::{FakeTopic, random};
use crate::testing::stream;

/// More than are deleted at once.
const KEYS: u64 = 400;

fn table(partitions: u32) -> Arc<Stream> {
    let sql = "CREATE TABLE s (id BIGINT PRIMARY KEY, v BIGINT, at TIMESTAMP METADATA FROM 'timestamp') \
               WITH (event_time = 'at', source = 'kafka', connection = 'main', topic = 't', format = 'debezium-json')";
    Arc::new(Stream { partitions, ..stream(sql) })
}

/// Adds changes to the topic and to the rows.
fn extend(topic: &FakeTopic, rows: &mut BTreeMap<i64, i64>, dice: &mut u64, changes: u64) {
    for _ in 0..changes {
        let (id, v) = ((random(dice) % KEYS) as i64, (random(dice) % 1_000) as i64);
        let change = match random(dice) % 100 {
            // Sometimes two, of which the second deletes nothing.
            0 => {
                rows.clear();
                r#"{"before":null,"after":null,"op":"t","source":{"ts_ms":1}}"#.to_owned()
            }
            1..20 => {
                rows.remove(&id);
                format!(r#"{{"op":"d","before":{{"id":{id}}},"after":null}}"#)
            }
            _ => {
                rows.insert(id, v);
                format!(r#"{{"op":"c","before":null,"after":{{"id":{id},"v":{v}}}}}"#)
            }
        };
        topic.append(0, Some(change.as_bytes()));
    }
}

/// The rows by key, as the writer keeps them, and as the events of the log add up to.
fn rows(process: &Process) -> [BTreeMap<i64, i64>; 2] {
    let log = process.intake.stream(&process.stream.name).expect("the table");
    let current = log.partition(Partition(0)).and_then(|partition| partition.rows()).expect("rows");
    let all: Vec<_> = current.range(None, usize::MAX, usize::MAX).rows.into_iter().map(|(_, row)| row).collect();
    let number = |batch: &arrow::array::RecordBatch, column: usize, row: usize| {
        batch.column(column).as_primitive::<Int64Type>().value(row)
    };
    let batch = current.batch(&all).expect("columns");
    let kept = (0..batch.num_rows()).map(|row| (number(&batch, 0, row), number(&batch, 1, row))).collect();
    let mut added = BTreeMap::new();
    let (start, head) = log.range(Partition(0));
    let retracted = process.stream.retracted().expect("a table");
    let each = &mut |batch: LogBatch| {
        for row in 0..batch.rows.num_rows() {
            let (id, v) = (number(&batch.rows, 0, row), number(&batch.rows, 1, row));
            match batch.rows.column(retracted).as_boolean().value(row) {
                true => assert_eq!(added.remove(&id), Some(v), "a retraction is of the row that is there"),
                false => assert_eq!(added.insert(id, v), None, "a row is asserted once"),
            }
        }
    };
    log.replay(Partition(0), start, head, each).expect("replays");
    [kept, added]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_deletes_all_rows_before_it_however_the_reader_ends() {
    for seed in 0..6_u64 {
        let (dir, topic, stream) = (TempDir::new().expect("a folder"), FakeTopic::empty(1), table(1));
        let (mut expected, mut dice) = (BTreeMap::new(), seed);
        for round in 0..5 {
            extend(&topic, &mut expected, &mut dice, 250);
            let process = Process::start(&dir, &stream, &topic);
            tokio::time::sleep(Duration::from_millis(random(&mut dice) % 60)).await;
            if round % 2 == 0 { process.crash() } else { process.stop().await }
        }
        let process = Process::start(&dir, &stream, &topic);
        process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
        assert_eq!(rows(&process), [expected.clone(), expected], "seed {seed}");
        assert_eq!(process.quarantined(), [], "seed {seed}");
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_record_can_be_a_truncate_and_one_among_several_partitions_is_rejected() {
    let truncate: &[u8] = br#"{"payload":{"op":"t"},"schema":{}}"#;
    let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::empty(1));
    topic.append(0, Some(truncate));
    topic.append(0, Some(br#"{"op":"c","after":{"id":1,"v":2}}"#));
    let process = Process::start(&dir, &table(1), &topic);
    process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
    assert_eq!(rows(&process), [BTreeMap::from([(1, 2)]), BTreeMap::from([(1, 2)])]);
    process.stop().await;
    let (dir, topic) = (TempDir::new().expect("a folder"), FakeTopic::empty(2));
    topic.append(0, Some(br#"{"op":"c","after":{"id":1,"v":2}}"#));
    topic.append(1, Some(truncate));
    topic.append(0, Some(truncate));
    let process = Process::start(&dir, &table(2), &topic);
    let is_read = |lag: Option<u64>| lag == Some(0) && process.quarantined().len() == 2;
    process.wait_for("the quarantine", |status| is_read(status.lag)).await;
    assert_eq!(process.quarantined(), [(0, 1), (1, 0)]);
    assert_eq!(rows(&process), [BTreeMap::from([(1, 2)]), BTreeMap::from([(1, 2)])]);
    process.stop().await;
}
