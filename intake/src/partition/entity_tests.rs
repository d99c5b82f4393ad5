//! Tests how a partition numbers the events of entities, across conflicts, refused groups, crashes and restarts.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use shared::clock::ManualClock;
use shared::ids::{Offset, Partition};
use shared::stream::Stream;
use shared::time::Micros;
use shared::vital::Vitals;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::decode::{Options, decode};
use crate::event_id::hash_entity;
use shared::entity::EntityId;

const SQL: &str =
    "CREATE STREAM s (id STRING PRIMARY KEY, entity STRING, at TIMESTAMP) WITH (event_time = 'at', entity = 'entity');";

struct Log {
    stream: Arc<Stream>,
    log: PartitionLog,
}

fn open(dir: &TempDir) -> Log {
    let stream = Arc::new(crate::testing::stream(SQL));
    let (clock, claims) = (Arc::new(ManualClock::at(Micros(1_000))), Arc::new(KeyClaims::default()));
    let (settings, vitals) = (PartitionSettings::default(), Vitals::default());
    let log = PartitionLog::open(dir.path(), Arc::clone(&stream), Partition(0), settings, clock, &vitals, &claims);
    Log { stream, log: log.expect("opens") }
}

type Reply = oneshot::Receiver<Result<PartitionReceipt, SubmitError>>;

impl Log {
    /// Submits events as pairs of id and entity; with a condition, they are an append.
    fn submit(&self, events: &[(&str, &str)], append: Option<EntityAppend>) -> Reply {
        let line = |(id, entity): &(&str, &str)| format!("{{\"id\":\"{id}\",\"entity\":\"{entity}\",\"at\":0}}\n");
        let lines: String = events.iter().map(line).collect();
        let decoded = decode(&self.stream, lines.as_bytes(), Options::default()).expect("events");
        let (reply, receipt) = oneshot::channel();
        let entities = decoded.entity_hashes.map(|hashes| SubmittedEntities { hashes, append });
        let submission = Submission {
            rows: decoded.rows,
            id_hashes: decoded.id_hashes,
            entities,
            kept: Vec::new(),
            key: None,
            source: None,
            reply,
        };
        self.log.try_submit(submission).expect("there is room");
        receipt
    }

    /// The ids and sequences in the log.
    fn events(&self) -> Vec<(String, i64)> {
        let mut events = Vec::new();
        let mut add = |rows: &RecordBatch| {
            let (ids, sequences) = (rows.column(0).as_string_view(), rows.column(3).as_primitive::<Int64Type>());
            events.extend(ids.iter().zip(sequences.values()).map(|(id, n)| (id.unwrap_or_default().to_owned(), *n)));
        };
        let (start, head) = self.log.range();
        self.log.replay(start, head, &mut |batch| add(&batch.rows)).expect("reads");
        events
    }

    fn last(&self, entity: &str) -> u64 {
        self.log.entities().expect("an entity").last(hash_entity(&EntityId::Text(entity.to_owned())))
    }
}

fn expecting(sequence: u64) -> Option<EntityAppend> {
    Some(EntityAppend { expected: Some(ExpectedSequence::Exactly(sequence)) })
}

fn received(reply: Reply) -> Result<PartitionReceipt, SubmitError> {
    reply.blocking_recv().expect("a reply")
}

#[test]
fn appends_of_one_group_meet_the_sequences_of_those_before_them() {
    let dir = TempDir::new().expect("a folder");
    let log = open(&dir);
    // All are queued before the writer starts, so they are one group.
    log.log.start_stepwise();
    let first = log.submit(&[("1", "a"), ("2", "a")], expecting(0));
    let loses = log.submit(&[("3", "a")], expecting(0));
    let wins = log.submit(&[("4", "a"), ("5", "a"), ("1", "a")], expecting(2));
    let other = log.submit(&[("1", "b"), ("6", "a"), ("7", "b")], None);
    assert_eq!(log.last("a"), 0, "not durable yet");
    assert_eq!(log.log.step(), Ok(true));
    assert_eq!(received(first).map(|r| r.last_sequence), Ok(Some(2)));
    let expected = ExpectedSequence::Exactly(0);
    assert_eq!(received(loses), Err(SubmitError::SequenceConflict { expected, current: 2 }));
    let wins = received(wins).expect("accepted");
    assert_eq!((wins.accepted, wins.duplicates, wins.last_sequence), (2, 1, Some(4)));
    assert_eq!(received(other).map(|r| (r.accepted, r.last_sequence)), Ok((3, None)));
    let expected = [("1", 1), ("2", 2), ("4", 3), ("5", 4), ("1", 1), ("6", 5), ("7", 2)];
    let expected: Vec<(String, i64)> = expected.iter().map(|(id, n)| ((*id).to_owned(), *n)).collect();
    assert_eq!(log.events(), expected);
    assert_eq!((log.last("a"), log.last("b"), log.last("c")), (5, 2, 0));
    drop(log);
    let log = open(&dir);
    assert_eq!((log.last("a"), log.last("b"), log.last("c")), (5, 2, 0), "read from the log");
    assert_eq!(log.events(), expected);
    log.log.start_stepwise();
    let duplicate = log.submit(&[("7", "b")], expecting(2));
    let next = log.submit(&[("8", "b")], expecting(2));
    assert_eq!(log.log.step(), Ok(true));
    assert_eq!(received(duplicate).map(|r| (r.accepted, r.last_sequence)), Ok((0, Some(2))));
    assert_eq!(received(next).map(|r| r.last_sequence), Ok(Some(3)));
    assert_eq!(log.log.range().1, Offset(8));
}

#[test]
fn an_append_is_one_frame() {
    let dir = TempDir::new().expect("a folder");
    let log = open(&dir);
    log.log.start_stepwise();
    let ids: Vec<String> = (0..500).map(|i| i.to_string()).collect();
    let replies: Vec<Reply> = ids
        .chunks(5)
        .map(|ids| {
            log.submit(&ids.iter().map(|id| (id.as_str(), "a")).collect::<Vec<_>>(), Some(EntityAppend::default()))
        })
        .collect();
    while log.log.step() == Ok(true) {}
    let ends: Vec<Offset> = replies.into_iter().filter_map(|reply| received(reply).ok()?.end_offset).collect();
    assert_eq!(ends.len(), 100);
    let (start, head) = log.log.range();
    let mut frames = Vec::new();
    log.log.replay(start, head, &mut |batch| frames.push(batch.end_offset())).expect("reads");
    assert!(frames.iter().all(|end| ends.contains(end)), "no frame ends within an append");
}

#[test]
fn a_reader_waits_for_a_sequence_until_the_writer_ends() {
    let dir = TempDir::new().expect("a folder");
    let log = open(&dir);
    log.log.start_stepwise();
    let table = Arc::clone(log.log.entities().expect("an entity"));
    let a = hash_entity(&EntityId::Text("a".to_owned()));
    let waiting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            (table.beyond(a, 0, || false).await, table.beyond(a, 1, || false).await, table.beyond(a, 2, || false).await)
        })
    });
    for (id, entity) in [("1", "b"), ("2", "a"), ("3", "b"), ("4", "a")] {
        let reply = log.submit(&[(id, entity)], None);
        assert_eq!(log.log.step(), Ok(true));
        assert!(received(reply).is_ok());
    }
    drop(log);
    let (first, second, none) = waiting.join().expect("no panic");
    assert!(first.is_some_and(|n| n >= 1) && second == Some(2) && none.is_none(), "{first:?} {second:?} {none:?}");
}
