//! Checks that no reader of a table sees a part of a transaction that Debezium writes to a topic, with both of its topics in memory: ends
//! that come late or early, transactions of other tables, TRUNCATE, rows of a snapshot, stops and crashes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use kafka::TopicReader;
use shared::ids::{Partition, ViewName};
use shared::stream::{KafkaTopic, Stream};
use tempfile::TempDir;

use super::super::error::SourceError;
use super::super::opener::SourceOpener;
use super::Process;
use super::fake_topic::{FakeTopic, random};
use super::followed::current_rows;
use super::whole::{Rows, states_of_frames};
use crate::partition::PartitionSettings;
use crate::testing::stream;

const KEYS: u64 = 12;

/// Both topics.
struct FakeTopics {
    changes: Arc<FakeTopic>,
    ends: Arc<FakeTopic>,
}

impl SourceOpener for FakeTopics {
    fn open<'a>(
        &'a self,
        stream: &'a Stream,
        topic: &'a KafkaTopic,
    ) -> BoxFuture<'a, Result<Box<dyn TopicReader>, SourceError>> {
        if topic.topic == "t" { self.changes.open(stream, topic) } else { self.ends.open(stream, topic) }
    }
}

fn declared() -> Arc<Stream> {
    Arc::new(stream(
        "CREATE TABLE s (id BIGINT PRIMARY KEY, v BIGINT, at TIMESTAMP METADATA FROM 'timestamp') WITH (event_time = 'at', \
         source = 'kafka', connection = 'main', topic = 't', format = 'debezium-json', transactions = 'whole', \
         transaction_topic = 'shop.transaction')",
    ))
}

/// A record of one of the topics.
#[derive(Clone)]
enum Write {
    Change(String),
    Tombstone,
    Boundary(String),
}

/// What Debezium writes, in its order, and the rows before and after each transaction.
#[derive(Default)]
struct Script {
    writes: Vec<Write>,
    written: usize,
    rows: Rows,
    states: BTreeSet<Rows>,
    transactions: u64,
}

impl Script {
    fn change(&mut self, dice: &mut u64, transaction: &str) {
        let (id, v) = ((random(dice) % KEYS) as i64, (random(dice) % 1_000) as i64);
        let source = r#""source":{"db":"shop","schema":"public","table":"a","ts_ms":5}"#;
        let change = match random(dice) % 20 {
            0 => {
                self.rows.clear();
                format!(r#"{{"op":"t","before":null,"after":null,{source},"transaction":{transaction}}}"#)
            }
            1..5 => {
                self.rows.remove(&id);
                format!(r#"{{"op":"d","before":{{"id":{id}}},"after":null,{source},"transaction":{transaction}}}"#)
            }
            _ => {
                self.rows.insert(id, v);
                format!(
                    r#"{{"op":"u","before":null,"after":{{"id":{id},"v":{v}}},{source},"transaction":{transaction}}}"#
                )
            }
        };
        let is_deletion = change.starts_with(r#"{"op":"d""#);
        self.writes.push(Write::Change(change));
        if is_deletion {
            self.writes.push(Write::Tombstone);
        }
    }

    /// Adds transactions.
    fn extend(&mut self, dice: &mut u64) {
        self.states.insert(self.rows.clone());
        for _ in 0..1 + random(dice) % 12 {
            self.transactions += 1;
            let (id, count) = (self.transactions, random(dice) % 8);
            self.writes.push(Write::Boundary(format!(r#"{{"status":"BEGIN","id":"{id}:1"}}"#)));
            for order in 1..=count {
                let of = format!(r#"{{"id":"{id}:{order}","total_order":{order},"data_collection_order":{order}}}"#);
                self.change(dice, &of);
            }
            let of_table = format!(r#"{{"data_collection":"public.a","event_count":{count}}}"#);
            let mut counts = vec![r#"{"data_collection":"public.b","event_count":3}"#.to_owned()];
            counts.extend((count > 0).then_some(of_table));
            let counts = counts.join(",");
            let end = format!(r#"{{"status":"END","id":"{id}:99","event_count":9,"data_collections":[{counts}]}}"#);
            // The topics have no common order.
            let early = random(dice).is_multiple_of(4) && count > 0;
            let at = self.writes.len() - usize::from(early);
            self.writes.insert(at, Write::Boundary(end));
            self.states.insert(self.rows.clone());
        }
        // A row that an incremental snapshot reads.
        let value =
            format!(r#"{{"op":"r","after":{{"id":0,"v":{}}},"source":{{}},"transaction":null}}"#, self.transactions);
        self.rows.insert(0, self.transactions as i64);
        self.writes.push(Write::Change(value));
        self.states.insert(self.rows.clone());
    }

    /// Writes some of it to the topics.
    fn write(&mut self, topics: &FakeTopics, most: usize) {
        let end = self.writes.len().min(self.written + most);
        for write in &self.writes[self.written..end] {
            match write {
                Write::Change(change) => topics.changes.append(0, Some(change.as_bytes())),
                Write::Tombstone => topics.changes.append(0, None),
                Write::Boundary(boundary) => topics.ends.append(0, Some(boundary.as_bytes())),
            }
        }
        self.written = end;
    }
}

fn start(dir: &TempDir, declared: &Arc<Stream>, topics: &Arc<FakeTopics>) -> Process {
    Process::start_reading(dir, declared, Arc::clone(topics) as _, PartitionSettings::default())
}

fn topics() -> Arc<FakeTopics> {
    Arc::new(FakeTopics { changes: FakeTopic::empty(1), ends: FakeTopic::empty(1) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_sees_a_part_of_a_transaction_of_a_topic_however_the_reader_ends() {
    let (declared, view): (_, ViewName) = (declared(), "v".parse().expect("a name"));
    for seed in 0..12 {
        let (mut dice, mut script, topics) = (seed + 70, Script::default(), topics());
        let dir = TempDir::new().expect("a folder");
        for round in 0..6 {
            script.extend(&mut dice);
            let context = format!("seed {seed}, round {round}");
            let process = start(&dir, &declared, &topics);
            let log = Arc::clone(process.intake.stream(&process.stream.name).expect("the table"));
            let mut cuts = Vec::new();
            for _ in 0..4 + (seed * 7 + round * 5) % 13 {
                script.write(&topics, (random(&mut dice) % 12) as usize);
                let rows = current_rows(&process);
                assert!(script.states.contains(&rows), "{context}: {rows:?} are rows within a transaction");
                cuts.push(log.cut(&view).await.expect("a cut").0[&Partition(0)].offset.0);
                tokio::time::sleep(Duration::from_millis(random(&mut dice) % 3)).await;
            }
            let of_frames = states_of_frames(&process);
            for (end, rows) in &of_frames {
                let is_whole = script.states.contains(rows);
                assert!(is_whole, "{context}: the frame before {end} ends within a transaction: {rows:?}");
            }
            assert!(cuts.iter().all(|cut| of_frames.contains_key(cut)), "{context}: cuts {cuts:?} in {of_frames:?}");
            drop(log);
            if (seed + round) % 2 == 0 { process.stop().await } else { process.crash() }
        }
        script.write(&topics, usize::MAX / 2);
        let process = start(&dir, &declared, &topics);
        process.wait_for("the end of the topic", |status| status.lag == Some(0)).await;
        process.wait_for("the last change", |_| current_rows(&process) == script.rows).await;
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transaction_waits_for_is_said_and_what_the_topic_has_lost_is_not_waited_for() {
    let topics = topics();
    let change = |id: u64, order: u64, key: u64| {
        let source = r#""source":{"schema":"public","table":"a"}"#;
        let of = format!(r#"{{"id":"{id}:{order}","total_order":1,"data_collection_order":{order}}}"#);
        format!(r#"{{"op":"c","before":null,"after":{{"id":{key},"v":{key}}},{source},"transaction":{of}}}"#)
    };
    let end = |id: u64, count: u64| {
        let counts = format!(r#"[{{"data_collection":"public.a","event_count":{count}}}]"#);
        format!(r#"{{"status":"END","id":"{id}:9","event_count":{count},"data_collections":{counts}}}"#)
    };
    let changes = |changes: &[(u64, u64, u64)]| {
        for (id, order, key) in changes {
            topics.changes.append(0, Some(change(*id, *order, *key).as_bytes()));
        }
    };
    let says = |text: &'static str| {
        move |status: &shared::control::SourceStatus| status.error.as_ref().is_some_and(|error| error.contains(text))
    };
    // Its transaction is one of which the topic no longer has anything.
    changes(&[(1, 1, 1)]);
    topics.ends.append(0, Some(end(1, 2).as_bytes()));
    topics.ends.delete_before(0, 1);
    let (dir, declared) = (TempDir::new().expect("a folder"), declared());
    let process = start(&dir, &declared, &topics);
    process.wait_for("the old change", |_| current_rows(&process) == Rows::from([(1, 1)])).await;
    // A new one is waited for.
    changes(&[(2, 1, 2)]);
    process.wait_for("the end", says("waiting for the end of transaction 2 in the topic shop.transaction")).await;
    topics.ends.append(0, Some(end(2, 2).as_bytes()));
    process.wait_for("the changes", says("waiting for the rest of the 2 changes of transaction 2")).await;
    assert_eq!((current_rows(&process), process.status().lag), (Rows::from([(1, 1)]), Some(1)));
    changes(&[(2, 2, 3)]);
    process.wait_for("the transaction", |_| current_rows(&process).len() == 3).await;
    process.wait_for("silence", |status| status.error.is_none() && status.lag == Some(0)).await;
    process.stop().await;
}
